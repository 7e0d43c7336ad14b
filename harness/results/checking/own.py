"""All of our own checks of a series, as findings: what `check` reports of it, and what score and report judge it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.results import fitness
from harness.results.checking.findings import Finding, Log, is_placeholder
from harness.results.checking.ledger import check_ledgers
from harness.results.checking.log import check_log
from harness.results.checking.package import misnamed
from harness.results.checking.series import CONVERGENCE, check_series, soften_one_failure
from harness.results.checking.system import check_agreement
from harness.results.fitness import Obstacle
from harness.results.series import Series
from harness.rules import Rules

SAID_OTHERWISE = (*CONVERGENCE, "convergence", "clock")  # fitness has words of its own for these


def findings(series: Series, rules: Rules, names: Mapping[str, str], name: str) -> list[Finding]:
    """Of each log and of them together; `names` are the logs' and `name` the folder's as the report has them."""
    found = [each for record in series.records for each in check_log(Log(names[record.path], record, rules))]
    if len(series.records) > 1:
        found += check_series(series, rules, name)
    found += [misnamed(path, f"{name}/{path.name}") for path in series.left_out]
    found += check_ledgers(series, name)
    if series.description:
        found = [_named_beside(each, series) for each in found]
        named = [(names[record.path], record) for record in series.records]
        found += check_agreement(series.description, series.folder.resolve().parent.name, named)
    return found


def _named_beside(finding: Finding, series: Series) -> Finding:
    """Whose and which system it is, the description says with more weight: every third published entry has placeholders."""
    key = {"submission_org": "submitter", "submission_platform": "system_name"}.get(finding.key, "")
    said = series.description.get(key)
    if finding.rule != "placeholder" or not isinstance(said, str) or not said.strip() or is_placeholder(said):
        return finding
    return finding.softened(f"the system description says {said}")


def judge(series: Series, rules: Rules) -> tuple[Obstacle, ...]:
    """Why this series is not to be ranked, all of it; empty for one that check has nothing against."""
    return tuple(dict.fromkeys([*fitness.of_series(series, rules), *fitness.of_findings(_errors(series, rules))]))


def _errors(series: Series, rules: Rules) -> Iterator[tuple[str, str, str]]:
    names = {record.path: record.path for record in series.records}
    for each in soften_one_failure(findings(series, rules, names, str(series.folder)), series, rules, names):
        if (
            each.severity == "error"
            and each.rule not in SAID_OTHERWISE
            and not (each.rule == "runs alike" and each.key)
        ):
            yield Path(each.file).name, f"{each.rule}: {each.found}", each.fix
