"""MLPerf's own tools (mlperf-logging), run on a copy in a scratch folder and quoted.

The tools write where they read (scaling.json, log files), exit 0 when they fail, raise what they do not expect, keep state in
module globals and default to rulesets that know none of our logs. So each check is one child process in a scratch folder, on
a copy, with the ruleset named; official_child.py calls them there and what comes back is their verdict in their words.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.rules import rulesets

TIMEOUT_S = 600
QUOTE_LIMIT = 2_000  # characters of one verdict
Tool = Literal[
    "compliance checker", "RCP checker", "system description checker", "package checker", "result summarizer"
]


@dataclass(frozen=True)
class Verdict:
    """What one tool says of one file or folder."""

    tool: Tool
    about: str  # relative to what was checked
    passed: bool | None  # None: it cannot tell (not applicable, or it broke down)
    quote: str  # its own words
    reasons: tuple[tuple[str, str, int | None], ...] = ()  # (key, message, line), where it gives them singly
    value: float | None = None  # the summarizer's minutes

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_logs(logs: Iterable[tuple[Path, str]], ruleset: str, *, rcp: bool) -> list[Verdict]:
    """The compliance checker's verdict on each (path, name to report); with `rcp` also the RCP checker's on all together."""
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch:
        folder = Path(scratch) / "series"
        folder.mkdir()
        names = {}
        for index, (path, name) in enumerate(logs):
            copy = folder / f"result_{index}.txt"
            shutil.copyfile(path, copy)
            names[copy.name] = name
        asked = {"do": "logs", "folder": str(folder), "ruleset": ruleset, "points": _points(ruleset), "rcp": rcp}
        found = _child(Path(scratch), asked)
    return [Verdict(**{**each, "about": names.get(each["about"], each["about"])}) for each in found]


def check_package(folder: Path, ruleset: str) -> list[Verdict]:
    """The system description, package and RCP checkers' and the summarizer's verdicts on one organization's folder."""
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch:
        copy = Path(scratch) / (folder.resolve().name or "package")
        copy.mkdir()
        for part in ("systems", "results"):  # all that the tools read; the sources beside them can be large
            shutil.copytree(folder / part, copy / part)
        for written in copy.rglob("scaling.json"):
            written.unlink()  # left by an earlier summarizer; it would scale the score
        found = _child(
            Path(scratch), {"do": "package", "folder": str(copy), "ruleset": ruleset, "points": _points(ruleset)}
        )
    return [Verdict(**each) for each in found]


def _points(name: str) -> str:
    """The ruleset whose convergence points judge: its own, else the oldest that has some, as advice."""
    with_points = [each.name for each in rulesets().values() if each.convergence_points]
    return name if name in with_points else with_points[0]


def knows(benchmark: str | None, ruleset: str) -> bool:
    """Whether MLPerf's checker has rules for this keyword in this ruleset, seen without importing it."""
    found = importlib.util.find_spec("mlperf_logging")
    if not benchmark or found is None or not found.submodule_search_locations:
        return True  # let the tools say what is wrong
    rules = Path(found.submodule_search_locations[0]) / "compliance_checker" / f"training_{ruleset}"
    return any((rules / f"{beginning}{benchmark}.yaml").is_file() for beginning in ("closed_", "open_", ""))


def version() -> str:
    """Of the installed tools."""
    from importlib.metadata import version as installed

    return installed("mlperf-logging")


def _child(scratch: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Run official_child.py in the scratch folder. RuntimeError where it brings no answer."""
    answer = scratch / "answer.json"
    script = Path(__file__).with_name("official_child.py")
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(answer), json.dumps(request)],
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
    found: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
    for each in found:
        each["reasons"] = tuple((key, message, line) for key, message, line in each["reasons"])
    return found
