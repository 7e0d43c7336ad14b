"""A check's report as text: MLPerf's verdicts in their words, then one table of what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from harness.results.checking.checker import Report
from harness.results.checking.findings import Finding
from harness.results.checking.official import OfficialVerdict

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


def finding_rows(report: Report) -> Iterator[list[str]]:
    """One line for each finding; the same in several files shares one, with the place in the first."""
    grouped: dict[tuple[str, ...], list[Finding]] = {}
    for finding in report.findings:
        alike = (finding.severity, finding.key, finding.rule, finding.found, finding.fix)
        grouped.setdefault(alike, []).append(finding)
    for findings in grouped.values():
        row = findings[0].row()
        if len(findings) > 1:
            row[1] += f" and {len(findings) - 1} more"
        yield row


def _word(verdict: OfficialVerdict) -> str:
    return {True: "passed", False: "FAILED", None: "advice"}[verdict.passed]


def _quote(verdict: OfficialVerdict) -> str:
    lines = verdict.quote.splitlines()
    more = len(lines) - QUOTED_LINES
    return "\n".join([*lines[:QUOTED_LINES], *([f"({more} more lines)"] if more > 0 else [])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
