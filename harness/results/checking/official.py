"""MLPerf's own tools (mlperf-logging), run on a copy in a scratch folder and quoted.

The tools write where they read (scaling.json, log files), exit 0 when they fail, raise what they do not expect, keep state in
module globals and default to rulesets that know none of our logs. So each check is one child process in a scratch folder, on
a copy, with the ruleset named; official_child.py calls them there and what comes back is their verdict in their words.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness import names, outside, whole
from harness.results.checking.package import PARAMS, params_of
from harness.results.lines import MARK
from harness.rules import rulesets

TIMEOUT_S = 600  # of one child process
TOGETHER = 8  # series that one child checks: it takes a second to import the tools, and less to check a log
QUOTE_LIMIT = 2_000  # characters of one verdict
FORM = 5  # of the answers that are kept: another whenever official_child.py asks or answers otherwise
# Of a line's length, whose square their parser's time grows with: up to it the rest of its work is more
SHORT = 300  # bytes
LONGEST = 100_000  # bytes of one marked line: 7 s of it alone; a real log's have 20,000 at most
# Squares of the lengths of marked lines, and SHORT of each: half a minute for one reading, of which there are several
WORK_LIMIT = 200_000**2
NO_BENCHMARK = {"common", "score"}  # rules that are for all of them
Tool = Literal[
    "compliance checker",
    "seed checker",
    "RCP checker",
    "system description checker",
    "package checker",
    "result summarizer",
]


@dataclass(frozen=True)
class OfficialVerdict:
    """What one tool says of one file or folder."""

    tool: Tool
    about: str  # relative to what was checked
    passed: bool | None  # None: it cannot tell (not applicable, or it broke down)
    quote: str  # its own words
    reasons: tuple[tuple[str, str, int | None], ...] = ()  # (key, message, line), where it gives them singly
    value: float | None = None  # the summarizer's minutes; what the RCP checker multiplies the score by

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """What the tools are asked: of the logs of one series, or of one organization's whole folder."""

    ruleset: str
    logs: tuple[tuple[Path, str], ...] = ()  # path, and name to report
    rcp: bool = False  # the RCP checker's verdict on all the logs together too
    package: Path | None = None
    seeds: bool = False  # the seed checker's verdict on the logs too

    def files(self) -> list[tuple[str, Path]]:
        """What the tools read, by its place in the copy; a folder's ends in a slash, since they count one without files too."""
        if self.package is None:
            found = [(f"series/{names.result(index)}", path) for index, (path, _) in enumerate(self.logs)]
            folder = self.logs[0][0].resolve().parent if self.logs else Path()
            told = params_of(folder) if self.logs else []  # of its system too, which lies above it in the copy as well
            return found + [((f"series/{PARAMS}" if path.parent == folder else PARAMS), path) for path in told]
        parts = [path for part in ("systems", "results") for path in sorted((self.package / part).rglob("*"))]
        # all that the tools read; the sources beside them can be large. A scaling.json of an earlier summarizer scales scores
        # nothing behind a folder that is a link, which may lead anywhere; that it is one is an error by itself
        kept = [path for path in parts if path.is_file() or (path.is_dir() and not path.is_symlink())]
        kept = [path for path in kept if "scaling.json" not in path.relative_to(self.package).parts]
        root = self.package.resolve().name or "package"
        return [(f"{root}/{path.relative_to(self.package).as_posix()}{'/' * path.is_dir()}", path) for path in kept]

    def request(self, scratch: Path) -> dict[str, Any]:
        """Copies the files and says what to do with them, for official_child.py."""
        for place, path in self.files():
            copy = scratch / place
            if place.endswith("/"):
                copy.mkdir(parents=True, exist_ok=True)
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        told = {"ruleset": self.ruleset, "points": _points(self.ruleset)}
        if self.package is None:
            return {"do": "logs", "folder": str(scratch / "series"), "rcp": self.rcp, "seeds": self.seeds, **told}
        return {"do": "package", "folder": str(scratch / (self.package.resolve().name or "package")), **told}

    def key(self) -> str:
        """Of everything that the answer depends on."""
        digest = hashlib.sha256(
            repr((FORM, version(), self.ruleset, self.rcp, self.seeds, _points(self.ruleset))).encode()
        )
        for place, path in self.files():
            content = b"" if place.endswith("/") else path.read_bytes()
            digest.update(f"\n{place} {hashlib.sha256(content).hexdigest()}".encode("utf-8", "replace"))
        return digest.hexdigest()

    def verdicts(self, found: list[dict[str, Any]]) -> list[OfficialVerdict]:
        told = {names.result(index): name for index, (_, name) in enumerate(self.logs)}
        plain = ({**each, "reasons": tuple(map(tuple, each["reasons"]))} for each in found)
        return [OfficialVerdict(**{**each, "about": told.get(each["about"], each["about"])}) for each in plain]


def ask(
    jobs: Sequence[Job],
    *,
    cache: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[list[OfficialVerdict] | RuntimeError]:
    """The answer to each job, or why there is none. `cache` is a folder that keeps answers by what they depend on;
    `progress` is told how many of how many jobs are answered."""
    answers: dict[int, list[dict[str, Any]] | RuntimeError] = {}
    keys: dict[int, str] = {}
    for index, job in enumerate(jobs if cache is not None else ()):
        try:
            keys[index] = job.key()
        except OSError as error:
            answers[index] = RuntimeError(f"{error.filename}: cannot be read: {error.strerror}")
    for index, key in keys.items():
        if (kept := _kept(cache, key)) is not None:
            answers[index] = kept
    progress(len(answers), len(jobs))
    left = [index for index in range(len(jobs)) if index not in answers]
    size = min(TOGETHER, -(-len(left) // max(workers, 1)) or 1)
    shares = [left[at : at + size] for at in range(0, len(left), size)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        asked = {pool.submit(_share, [jobs[index] for index in share]): share for share in shares}
        for future in concurrent.futures.as_completed(asked):
            share = asked[future]
            for index, answer in zip(share, future.result(), strict=True):
                answers[index] = answer
                if cache is not None and not isinstance(answer, RuntimeError):
                    _keep(cache, keys[index], answer)
            progress(len(answers), len(jobs))
    found = [(jobs[index], answers[index]) for index in range(len(jobs))]
    return [answer if isinstance(answer, RuntimeError) else job.verdicts(answer) for job, answer in found]


def kept(job: Job, cache: Path | None) -> list[OfficialVerdict] | None:
    """The answer that `ask` has kept, if it was ever given; asks nobody."""
    try:
        found = _kept(cache, job.key())
    except OSError:  # one file that cannot be read costs its own result alone
        return None
    return None if found is None else job.verdicts(found)


def gist(quote: str) -> str:
    """The line of a tool's words that says what failed: the first error, else the last line."""
    lines = quote.splitlines() or ["failed"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])


def _share(jobs: Sequence[Job]) -> list[list[dict[str, Any]] | RuntimeError]:
    """The answers of one child; where it breaks down over several, of one for each."""
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch:
        try:
            requests = []
            for index, job in enumerate(jobs):
                folder = Path(scratch) / str(index)
                folder.mkdir()
                requests.append(job.request(folder))
            return list(_child(Path(scratch), requests))
        except (RuntimeError, OSError) as error:
            if len(jobs) == 1:
                return [error if isinstance(error, RuntimeError) else RuntimeError(f"{error}")]
    return [answer for job in jobs for answer in _share([job])]


def _ours(cache: Path) -> bool:
    """Whether nobody else can have put answers there."""
    seen = cache.lstat()
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o022


def _kept(cache: Path | None, key: str) -> list[dict[str, Any]] | None:
    if cache is None:
        return None
    try:
        found = outside.read_json(cache / f"{key}.json") if _ours(cache) else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _keep(cache: Path, key: str, answer: list[dict[str, Any]]) -> None:
    """A cache that cannot be written costs time alone."""
    try:
        for each in (
            cache.parent,
            cache,
        ):  # whatever the umask: a cache in which a group can write is trusted by nobody
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _ours(cache):
            return
        with whole.replacing(cache / f"{key}.json") as file:
            file.write(json.dumps(answer).encode())
    except OSError:
        return


def _points(name: str) -> str:
    """The ruleset whose convergence points judge: its own, else the oldest that has some, as advice."""
    with_points = [each.name for each in rulesets().values() if each.convergence_points]
    return name if name in with_points else with_points[0]


def knows(benchmark: str | None, ruleset: str) -> bool:
    """Whether MLPerf's checker has rules for this keyword in this ruleset; without either the tools say what is wrong."""
    known = keywords()
    return not benchmark or not known or benchmark in known.get(ruleset, ())


@functools.cache
def keywords() -> Mapping[str, frozenset[str]]:
    """For which benchmarks MLPerf's checker has rules, by ruleset, seen without importing it; {} where it is not installed."""
    found = importlib.util.find_spec("mlperf_logging")
    if found is None or not found.submodule_search_locations:
        return {}
    folder = Path(found.submodule_search_locations[0]) / "compliance_checker"
    return {
        name: frozenset(re.sub("^(closed|open)_", "", path.stem) for path in folder.glob(f"training_{name}/*.yaml"))
        - NO_BENCHMARK
        for name in rulesets()
    }


def keeps_busy(path: Path) -> bool:
    """Whether MLPerf's parser would take long: its time grows with the square of a marked line (64 kB: 2 s, each time)."""
    work = 0
    with outside.opened(path, outside.LOG_LIMIT) as file:
        for line in file:
            if MARK in line:
                work += len(line) * (len(line) + SHORT) if len(line) <= LONGEST else WORK_LIMIT + 1
    return work > WORK_LIMIT


def version() -> str:
    """Of the installed tools."""
    from importlib.metadata import version as installed

    return installed("mlperf-logging")


def _child(scratch: Path, requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Run official_child.py in the scratch folder. RuntimeError where it brings no answer."""
    answer = scratch / "answer.json"
    (scratch / "requests.json").write_text(json.dumps(requests), encoding="utf-8")
    script = Path(__file__).with_name("official_child.py")
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(answer), str(scratch / "requests.json")],
            cwd=scratch,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"MLPerf's tools gave no answer in {TIMEOUT_S} s") from error
    if not answer.is_file():
        raise RuntimeError(f"MLPerf's tools gave no answer (exit {done.returncode}): {done.stderr[-QUOTE_LIMIT:]}")
    found: list[list[dict[str, Any]]] = json.loads(answer.read_text(encoding="utf-8"))
    return found
