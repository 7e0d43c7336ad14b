"""A check's report as text: MLPerf's verdicts in their words, then one table of what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from harness.results.check import Report
from harness.results.official import Verdict

VERDICTS = ("MLPerf's tool", "about", "verdict", "in its words")
QUOTED_LINES = 4


def headline(report: Report) -> str:
    warnings = len(report.findings) - report.errors
    counts = f"{_count(report.errors, 'error')}, {_count(warnings, 'warning')}"
    ruleset = f"ruleset {report.ruleset}" + (" (by its keys)" if report.ruleset_is_guess else "")
    return f"{report.path}: {'passed' if report.ok else 'FAILED'}, {counts} ({_count(report.runs, 'run')}, {ruleset})"


def verdict_rows(report: Report) -> Iterator[list[str]]:
    """One line for each verdict; those of one tool with the same words share one."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for verdict in report.verdicts:
        grouped.setdefault((verdict.tool, _word(verdict), _quote(verdict)), []).append(verdict.about)
    for (tool, word, quote), about in grouped.items():
        yield [tool, about[0] if len(about) == 1 else f"{about[0]} and {len(about) - 1} more", word, quote]


def _word(verdict: Verdict) -> str:
    return {True: "passed", False: "FAILED", None: "advice"}[verdict.passed]


def _quote(verdict: Verdict) -> str:
    lines = verdict.quote.splitlines()
    more = len(lines) - QUOTED_LINES
    return "\n".join([*lines[:QUOTED_LINES], *([f"({more} more lines)"] if more > 0 else [])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
