"""Calls MLPerf's tools and writes down what they say. A program for official.py's child process; imports nothing of ours.

Usage: official_child.py ANSWERS.json REQUESTS.json, a list of each. Call forms and traps are those of mlperf-logging 4.1.68:
a new compliance checker for each file, its module-global queue emptied after an exception, reasons of the other tools only
on the root logger or stdout, `full_rcp` as a default that raises, and verdicts that `main` would throw away.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import io
import json
import logging
import math
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

QUOTE_LIMIT = 2_000  # characters
USAGE = "training"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(answer: str, requests: str) -> None:
    end_with_parent()
    remember_rules()
    answers = []
    for asked in json.loads(Path(requests).read_text(encoding="utf-8")):
        folder, ruleset, points = Path(asked["folder"]), asked["ruleset"], asked["points"]
        found = (
            logs(folder, ruleset, points, rcp=asked["rcp"], seeds=asked["seeds"])
            if asked["do"] == "logs"
            else package(folder, ruleset, points)
        )
        answers.append(list(found))
    Path(answer).write_text(json.dumps(answers), encoding="utf-8")


def end_with_parent() -> None:
    """A check that is ended leaves no child at work: the kernel ends this process when the thread that started it ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def remember_rules() -> None:
    """The compliance checker parses the same YAML for every log, and twice more for the other tools: most of its time."""
    from mlperf_logging.compliance_checker import mlp_compliance

    read, kept = mlp_compliance.yaml.load, {}

    def load(stream: Any, *how: Any, **named: Any) -> Any:
        name = getattr(stream, "name", None)
        if not isinstance(name, str):
            return read(stream, *how, **named)
        if name not in kept:
            kept[name] = read(stream, *how, **named)
        return copy.deepcopy(kept[name])

    mlp_compliance.yaml.load = load


def logs(folder: Path, ruleset: str, points: str, *, rcp: bool, seeds: bool) -> Iterator[dict[str, Any]]:
    """`points`: the ruleset whose convergence points judge, its own or, as advice, another's."""
    files = sorted(folder.glob("result_*.txt"), key=lambda file: int(file.stem.split("_")[1]))
    for file in files:
        yield compliance(file, ruleset)
    if seeds:
        yield drawn(folder, files, ruleset)
    if rcp:
        yield convergence(folder, ruleset, points, "all runs")


def drawn(folder: Path, files: list[Path], ruleset: str) -> dict[str, Any]:
    """What the package checker asks of the seeds of a closed series, as it asks it."""
    from mlperf_logging.package_checker import seed_checker

    with said() as words:
        let_pass = bypass(folder, "seed-checker-bypass")
        result = attempt(lambda: seed_checker.SeedChecker(ruleset).check_seeds([str(file) for file in files], let_pass))
    return verdict(
        "seed checker", "all runs", result, without(words, folder) or ["passed" if result is True else "failed"]
    )


def package(folder: Path, ruleset: str, points: str) -> Iterator[dict[str, Any]]:
    """What MLPerf's package and system description checkers say of a submission's tree."""
    from mlperf_logging.package_checker import package_checker
    from mlperf_logging.system_desc_checker import system_desc_checker

    for file in sorted((folder / "systems").glob("*.json")):
        with said() as words:
            result = attempt(lambda file=file: system_desc_checker.check_system_desc(str(file), USAGE, ruleset)[0])  # type: ignore[misc]
        words = words or ["System description checker passed" if result is True else "failed"]
        yield verdict("system description checker", f"systems/{file.name}", result, words)
    yield from (compliance(file, ruleset, folder) for file in sorted((folder / "results").glob("*/*/result_*.txt")))
    with said() as words:  # its answer is in its last log message alone
        broken = attempt(
            lambda: package_checker.check_training_package(
                str(folder), USAGE, ruleset, False, False, False, False, False, "nowhere"
            )
        )
    passed = broken or any("PACKAGE CHECKER FOUND NO ERRORS" in word for word in words)
    words = [word for word in dict.fromkeys(words) if "System description checker passed" not in word]
    yield verdict("package checker", ".", passed, without(words, folder))
    for written in folder.rglob("scaling.json"):
        written.unlink()  # by the package checker; the summarizer must see the scores as they are
    for series in sorted(path for path in (folder / "results").glob("*/*") if path.is_dir()):
        about = series.relative_to(folder).as_posix()
        if not is_open(folder / "systems" / f"{series.parent.name}.json"):
            yield convergence(series, ruleset, points, about)
        yield score(series, ruleset, about)
    yield table(folder, ruleset, points)


def compliance(file: Path, ruleset: str, base: Path | None = None) -> dict[str, Any]:
    """What the compliance checker says of one log: an answer as `verdict` makes it, with its reasons."""
    from mlperf_logging.compliance_checker import mlp_compliance

    checker = mlp_compliance.make_checker(USAGE, ruleset, False, False)
    with said():  # its messages are on the checker
        result = attempt(lambda: mlp_compliance.main(str(file), f"{USAGE}_{ruleset}/common.yaml", checker)[0])
    mlp_compliance.enqueued_configs.clear()
    messages = [("", message) for message in checker.not_overwritable] + list(checker.overwritable.items())
    words = ["SUCCESS"] if result is True else [message for _, message in messages] or ["FAILED"]
    words += [f"warning: {message}" for message in checker.warnings.values()]
    about = file.relative_to(base).as_posix() if base else file.name
    marked = marked_lines(file) if messages else []
    reasons = []
    for key, message in messages:
        match = re.search(r"in line (\d+)", message)  # it counts marked lines alone, from 0
        line = marked[int(match[1])] if match and int(match[1]) < len(marked) else None
        reasons.append((key, re.sub(r" in line \d+:?", "", first_line(message)), line))
    return verdict("compliance checker", about, result, words, reasons)


def marked_lines(file: Path) -> list[int]:
    """The numbers, from 1, of the lines that the compliance checker's parser looks at."""
    with file.open(encoding="latin-1") as opened:
        return [number for number, line in enumerate(opened, 1) if ":::MLL" in line]


def convergence(folder: Path, ruleset: str, judged: str, about: str) -> dict[str, Any]:
    """What the RCP checker says of a series, by the convergence points of ruleset `judged`."""
    from mlperf_logging.rcp_checker import rcp_checker

    with said() as words:
        result = attempt(
            lambda: rcp_checker.check_directory(
                *(str(folder), USAGE, judged, False, False),
                rcp_pass="pruned_rcps",
                rcp_bypass=bypass(folder, "rcp-bypass"),
                set_scaling=False,
            )
        )
    if isinstance(result, tuple):
        passed, message, factor = result
        if message.endswith("passed using rcp_bypass"):
            factor = 1.0  # the tools multiply by it where the test itself passes alone
        words = [f"RCP test {'PASSED' if passed else 'FAILED'}: {message}"]
        if passed and factor != 1:
            words.append(f"the score would be multiplied by {factor:.4f}")
        if judged != ruleset:
            words.append(f"advice only: by the points of ruleset {judged}, {ruleset} has none")
        own = judged == ruleset
        return verdict(
            "RCP checker", about, bool(passed) if own else None, words, value=float(factor) if passed and own else None
        )
    return verdict("RCP checker", about, result if judged == ruleset else None, [*words, str(result)])


def is_open(description: Path) -> bool:
    """Whether the system is of the open division: MLPerf's package checker tests the convergence of closed ones alone."""
    return bool(attempt(lambda: json.loads(description.read_text(encoding="utf-8"))["division"]) == "open")


def bypass(series: Path, word: str) -> bool:
    """Whether the result's or its system's parameters have the word that lets this pass, as the package checker reads them."""
    files = (folder / "package_checker_params" for folder in (series, series.parent))
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())
    return any(word in text.splitlines(keepends=True) for text in texts)


def score(series: Path, ruleset: str, about: str) -> dict[str, Any]:
    """The result summarizer's minutes of one series."""
    from mlperf_logging.result_summarizer import result_summarizer

    with said() as words:
        result = attempt(
            lambda: result_summarizer._compute_strong_score_standalone(
                *(series.name, series.parent.name, False, str(series), USAGE, ruleset, {"submitter": ""})
            )[0]
        )
    minutes = None
    if isinstance(result, int | float) and math.isfinite(result):
        minutes = float(result) * (1000 if ruleset == "0.6.0" else 1)  # it takes 0.6.0's seconds for milliseconds
        result = True
    words.append("no score" if minutes is None else f"{minutes:.6f} minutes")
    return verdict("result summarizer", about, result, without(words, series.parents[2]), value=minutes)


def table(folder: Path, ruleset: str, points: str) -> dict[str, Any]:
    """The result summarizer's table of a submission's tree."""
    from mlperf_logging.result_summarizer import result_summarizer

    def summarized() -> Any:
        return attempt(lambda: len(result_summarizer.summarize_results(str(folder), USAGE, ruleset)[0]))

    with said() as words:
        rows = summarized()
    meters = [path for path in (folder / "results").glob("*/*/power") if path.is_dir()]
    if (
        isinstance(rows, Exception) and meters
    ):  # it divides by zero on some that were published; the times have no part in it
        broken = f"energy: broke down: {type(rows).__name__}: {rows}; the times are summarized without power/"
        for path in meters:
            shutil.rmtree(path)
        with said() as words:
            rows = summarized()
        words.append(broken)
    if ruleset != points:
        words = []  # a traceback for each closed folder, since there are no convergence points; it goes on
    if not isinstance(rows, int):
        return verdict("result summarizer", ".", rows, without(words, folder))
    systems = sum(path.is_dir() for path in (folder / "results").iterdir())
    words.append(f"{rows} of {systems} system{'s' * (systems != 1)} in its table")
    return verdict("result summarizer", ".", rows == systems, without(words, folder))


def without(words: list[str], folder: Path) -> list[str]:
    """The scratch folder's name says nothing to anyone."""
    return [word.replace(f"{folder}/", "").replace(str(folder), ".") for word in words]


def attempt(call: Callable[[], Any]) -> Any:
    """The tool's answer, or the exception that it let through: these tools raise KeyError, NameError, TypeError, ..."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  becomes the verdict: the tool broke down
        return error


def verdict(
    tool: str,
    about: str,
    result: Any,
    words: list[str],
    reasons: list[tuple[str, str, int | None]] | None = None,
    *,
    value: float | None = None,
) -> dict[str, Any]:
    """A broken tool proves nothing, but what breaks it is not compliant either: passed is False."""
    if isinstance(result, Exception):
        words = [*words, f"broke down: {type(result).__name__}: {result}"]
        reasons = [*(reasons or []), ("", words[-1], None)]
        result = False
    passed = None if result is None and tool == "RCP checker" else result is True
    return {
        "tool": tool,
        "about": about,
        "passed": passed,
        "quote": "\n".join(words)[:QUOTE_LIMIT],
        "reasons": reasons or [],
        "value": value,
    }


def first_line(text: str) -> str:
    """Of a message that goes on with the whole log line and state: what failed, and the test."""
    lines = text.splitlines()
    test = next((line for line in lines if line.startswith("failed test:")), "")
    return f"{lines[0]} {test}".replace("failed failed test", "failed").strip() if lines else text


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """Collects what is printed, warned of, and logged on the root logger."""
    words: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = (record.getMessage().strip().splitlines() or [""])[0]  # what follows is the log line, and the state
            if record.levelno >= logging.WARNING:
                words.append(f"{record.levelname}: {text}")
            elif text.startswith(("PACKAGE CHECKER", "System description checker passed")):
                words.append(text)

    root, handler, printed = logging.getLogger(), Collect(), io.StringIO()
    kept, root.handlers, level = root.handlers, [handler], root.level
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(printed):
            warnings.simplefilter("always")
            with contextlib.redirect_stderr(printed):
                yield words
    finally:
        root.handlers, root.level = kept, level
    words += [f"warning: {each.message}" for each in warned if each.category is UserWarning]
    words += [
        line for line in printed.getvalue().splitlines() if line.strip() and not line.startswith("** Detailed log")
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
