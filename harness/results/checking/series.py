"""Checks of runs together: as many as the rules want, alike where they must be, and each with a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.names import number
from harness.results.by_rules import may_stand, shortfall
from harness.results.checking.copies import copies
from harness.results.checking.evaluations import NO_NUMBER, OFF_SCHEDULE
from harness.results.checking.findings import Finding, Severity
from harness.results.checking.package import SEED_BYPASS, bypasses
from harness.results.differences import differences
from harness.results.record import RunRecord
from harness.results.series import Series
from harness.rules import Rules, ruleset

CONVERGENCE = ("outcome", "target reached", "compliance checker")  # what a run that did not converge may break
DIVERGED = (NO_NUMBER, OFF_SCHEDULE)  # likewise: a loss that became NaN, and when it was given up


def check_series(series: Series, rules: Rules, name: str) -> Iterator[Finding]:
    """What is wrong with the runs as one result; `name` is the folder's in the report."""
    records = [record for record in series.begun if record.events]
    yield from _count(series, rules, name)
    let_pass = SEED_BYPASS in bypasses(series.folder.resolve())
    why = "MLPerf's package checker is told to let seeds pass"
    yield from (each.softened(why) if let_pass else each for each in _seeds(records, name, rules))
    for each in differences(series.begun):
        severity: Severity = "error" if each.other_result else "warning"
        fix = "a result is one configuration and code on one system; move the others to a folder of their own"
        if not each.other_result and each.key == "commit":
            fix = "a result has one code: check in a checkout that has these commits, which tells whether their sources differ"
        elif not each.other_result:
            fix = "a result is of one system: see whether this made runs faster or slower"
        yield Finding(severity, name, each.key, None, "runs alike", each.shown, fix)
    for record, earlier, why in copies(records):
        text = f"{Path(record.path).name} is a copy of {Path(earlier.path).name}: {why}"
        yield Finding("error", name, "", None, "runs alike", text, "one file for each run, and one run for each file")


def soften_one_failure(findings: list[Finding], series: Series, rules: Rules, names: dict[str, str]) -> list[Finding]:
    """One run that did not converge may stand as the slowest: what it breaks by that is only a warning."""
    failed = one_failure(series, rules)
    if failed is None:
        return findings
    file = names[failed.path]
    why = "one run may fail to converge and counts as the slowest"
    return [
        each.softened(why) if each.file == file and each.rule in (*CONVERGENCE, *DIVERGED) else each
        for each in findings
    ]


def one_failure(series: Series, rules: Rules) -> RunRecord | None:
    """The one run of a whole series that did not converge and may stand as its slowest; None where there is none, or more."""
    failed = [record for record in series.begun if shortfall(record, rules)]
    whole = rules.runs is not None and len(series.begun) >= rules.runs
    return failed[0] if whole and len(failed) == 1 and may_stand(failed[0]) else None


def _count(series: Series, rules: Rules, name: str) -> Iterator[Finding]:
    count, wanted = len(series.begun), rules.runs
    if wanted is not None and count != wanted:
        fix = f"run {wanted - count} more" if count < wanted else f"choose {wanted} by the rules, not by their times"
        yield Finding("warning", name, "", None, "number of runs", f"{count}, the rules want {wanted}", fix)
    failed = [record for record in series.begun if shortfall(record, rules)]
    if len(failed) > 1 and count > 1:
        files = ", ".join(Path(record.path).name for record in failed)
        yield Finding("error", name, "", None, "convergence", f"{files} did not converge", "the rules allow one")
    numbers = [found for record in series.records if (found := number(Path(record.path))) is not None]
    if numbers and sorted(numbers) not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
        text = ", ".join(f"result_{number}" for number in sorted(numbers))
        yield Finding("warning", name, "", None, "file names", text, "number the runs from 0 without a gap")


def _seeds(records: list[RunRecord], name: str, rules: Rules) -> Iterator[Finding]:
    owner: dict[int, str] = {}
    judged = ruleset(rules.ruleset)
    if judged is not None and judged.seeds == "not asked":
        return
    required = judged is not None and judged.seeds == "required"
    strict = required and all(record.division == "closed" for record in records)
    for record in records:
        file = Path(record.path).name
        if not record.seeds:
            severity: Severity = "error" if strict else "warning"
            yield Finding(severity, f"{name}/{file}", "seed", None, "seeds", "none", "log the seed of each run")
        for seed in record.seeds:
            if seed in owner:
                line = record.entries["seed"].line
                text = f"{seed}, which {owner[seed]} has too"
                yield Finding("error", f"{name}/{file}", "seed", line, "seeds", text, "draw a new seed for each run")
            owner.setdefault(seed, file)
