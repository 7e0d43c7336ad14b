"""Checks of a system description (systems/SYSTEM.json) and of its agreement with the logs of that system.

MLPerf's checker only looks whether the 33 fields are there. What it takes for granted: every value is text (a number makes it
break down), `closed` is written small (`Closed` switches its seed and convergence checks off), and nobody left an example in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import outside
from harness.results.checking.findings import Finding, Severity, is_placeholder
from harness.results.checking.machine import disagreements
from harness.results.record import RunRecord
from harness.results.sysdesc import FIELDS, accelerators, status_word, status_words
from harness.rules import DIVISIONS, STATUSES

# A meaningful answer is required by the rules of v0.7 (submission_rules.adoc); of a core and a vCPU count one is enough.
ANSWERED = (
    *("submitter", "division", "status", "system_name", "number_of_nodes", "host_processors_per_node"),
    *("host_processor_model_name", "host_memory_capacity", "host_storage_type", "host_storage_capacity"),
    *("accelerators_per_node", "accelerator_model_name", "accelerator_memory_configuration"),
    *("accelerator_memory_capacity", "framework", "other_software_stack", "operating_system"),
)
COUNTS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")
CORE_COUNTS = ("host_processor_core_count", "host_processor_vcpu_count")
# Of the rounds' descriptions, whatever their capitals and hyphens: rounds up to 3.1 took any text
SECOND_VOCABULARY = {"available", "on premise", "available on premise", "available cloud", "cloud", "preview"}


def read_description(path: Path) -> dict[str, Any] | str:
    """The JSON's content, or what is wrong with it as a whole."""
    try:
        content = outside.read_json(path)
    except (OSError, outside.Refused) as error:
        return outside.why(path, error)
    return content if isinstance(content, dict) else "no JSON object"


def check_description(description: Mapping[str, Any], file: str, ruleset: str) -> Iterator[Finding]:
    """All checks of one description by itself, which is judged by this ruleset."""

    def found(key: str, rule: str, text: str, fix: str, severity: Severity = "error") -> Finding:
        return Finding(severity, file, key, None, rule, text, fix)

    for key in FIELDS:
        if key not in description:
            yield found(key, "system fields", "missing", "add it; it may be empty where the rules do not ask for it")
    for key, value in description.items():
        yield from _texts(key, value, found)
    for key in ANSWERED:
        if description.get(key) in ("", {}):
            yield found(key, "system answered", "empty", "the rules want an answer")
    if not any(description.get(key) for key in CORE_COUNTS):
        yield found("host_processor_core_count", "system answered", "empty", "give it, or the vCPU count")
    for key in (*COUNTS, *CORE_COUNTS):
        value = description.get(key)
        if isinstance(value, str) and value and not value.isdigit():
            fix = "a whole number as text"
            if key in COUNTS:
                yield found(key, "system counts", value, f"{fix}: MLPerf's summarizer multiplies it")
            else:
                yield found(key, "system counts", value, fix, "warning")
    division, status = description.get("division"), description.get("status")
    if isinstance(division, str) and division not in DIVISIONS:
        small = division.lower()
        fix = f"write {small}; MLPerf's package checker skips seeds and convergence otherwise"
        yield found("division", "division", division, fix if small in DIVISIONS else f"one of {', '.join(DIVISIONS)}")
    if isinstance(status, str) and status not in status_words(ruleset):
        folded = status.lower().replace("-", " ")
        known = folded in (*STATUSES, *SECOND_VOCABULARY) or status.startswith("Research")
        wanted = _status(status, ruleset) or f"one of {', '.join(status_words(ruleset))}"
        fix = f"write {wanted}, as ruleset {ruleset} has it"
        yield found("status", "status", status, fix, "warning" if known else "error")


def check_agreement(
    description: Mapping[str, Any], system: str, records: list[tuple[str, RunRecord]]
) -> Iterator[Finding]:
    """That each log (name, record) speaks of the system, organization and division that its description names."""
    for name, record in records:
        for key, text, fix, severity in _disagreements(description, system, record):
            entry = record.entries.get(key)
            line = entry.line if entry else None
            yield Finding(severity, name, key, line, "log and system agree", text, fix)


def _disagreements(
    description: Mapping[str, Any], system: str, record: RunRecord
) -> Iterator[tuple[str, str, str, Severity]]:
    """(key of the log, what is said, what to do, how bad) for each."""
    fix = f"see systems/{system}.json and the log: one of them is another's"
    submitter, division, status = (description.get(key) for key in ("submitter", "division", "status"))
    said = None if is_placeholder(record.org or "") else record.org  # which is found by itself
    if said and isinstance(submitter, str) and said.casefold() != submitter.casefold():
        yield "submission_org", f"{said}, the system's submitter is {submitter}", fix, "error"
    if record.division and isinstance(division, str) and record.division.lower() != division.lower():
        yield "submission_division", f"{record.division}, the system's is {division}", fix, "error"
    meant = _status(status, "") if isinstance(status, str) else None  # in the older rules' words, which all logs have
    if record.status and meant and record.status != meant:
        yield "submission_status", f"{record.status}, the system's is {status}", fix, "warning"
    platform = record.platform
    if platform and not is_placeholder(platform) and not _names_system(platform, description, system):
        text = f"{platform}, the system is {description.get('system_name')} ({system})"
        yield "submission_platform", text, fix, "error"
    yield from disagreements(description, record)
    described = accelerators(description)
    if described is None or record.accelerators is None:
        return
    fix = "correct number_of_nodes or accelerators_per_node"
    if described == 0:
        # ranks on processors are none of its business; of a log of another's nobody knows where it ran
        run = record.configuration.get("run")
        device = run.get("device") if isinstance(run, Mapping) else None
        if device not in (None, "cpu") and not record.hardware.get("accelerators"):
            yield "configuration", f'{record.accelerators} accelerators ("{device}"), the system has none', fix, "error"
    elif record.accelerators != described and not record.hardware:
        text = f"{record.accelerators} ranks, the system has {described} accelerators"
        yield "init_start", text, fix, "warning"


def _status(status: str, ruleset: str) -> str | None:
    """In the ruleset's words; None of what is a status in none."""
    try:
        return status_word(status, ruleset)
    except ValueError:
        return None


def _texts(key: str, value: Any, found: Any) -> Iterator[Finding]:
    """Text all through; other_software_stack may be a table of texts, or a list of such."""
    if isinstance(value, dict | list) and key.startswith("other_software_stack"):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(f"{key}.{name}", each, found)
    elif not isinstance(value, str):
        text = f"{json.dumps(value, default=str)[:60]} is no text"
        yield found(key, "system texts", text, "put it in quotes: MLPerf's checker joins texts and breaks down")
    elif is_placeholder(value):
        yield found(key, "placeholder", value, "write what is true of this system")


def _names_system(platform: str, description: Mapping[str, Any], system: str) -> bool:
    """Whether the log's platform shares a name with the system's: DGX in 1xNVIDIA DGX A100 and dgxa100_ngc20.06_pytorch."""
    submitter = str(description.get("submitter", "")).lower()
    words = re.split(r"[^a-z0-9]+", re.sub(r"^\d+\s*x\s*", "", platform.lower()))
    words = [word for word in words if len(word) > 1 and word not in submitter.split()]
    parts = [system, *(str(description.get(key, "")) for key in ("system_name", "accelerator_model_name"))]
    parts.append(str(description.get("host_processor_model_name", "")))
    names = re.sub(r"[^a-z0-9]+", "", " ".join(parts).lower())
    return not words or any(word in names for word in words)
