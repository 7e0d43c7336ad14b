"""Scored series of result logs as rows of the leaderboard.

A log with this harness's own keys was measured by it; any other is a submitter's, read here and measured there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.results import telemetry
from harness.results.record import RunRecord
from harness.results.reporting.leaderboard import Evaluation, LeftOut, Row, Run, Section, accelerator_name, spread
from harness.results.reporting.text import TIMES
from harness.results.score import Score, ScoredRun, score
from harness.results.series import Series, find_logs, find_series

UNKNOWN = "unknown"


def rows(folders: Iterable[Path]) -> tuple[list[Row], list[LeftOut]]:
    """A row for each series under `folders`, and the files that are no result. ValueError where a path is not there."""
    with_logs = [folder for folder in folders if find_logs(folder)]
    found: list[Row] = []
    left_out: list[LeftOut] = []
    for series in find_series(with_logs):
        if any(record.events for record in series.records):
            found.append(row(score(series)))
        else:
            left_out += [LeftOut(path=record.path, reason=record.reason) for record in series.records]
    return found, left_out


def row(result: Score) -> Row:
    series, first = result.series, result.series.first
    benchmark = first.benchmark or UNKNOWN
    system = _system(series, benchmark)
    description = system_description(series)
    converged = [each.record for each in result.runs if each.converged]
    return Row(
        id=f"{first.org or ''}-{system}",
        rank=None,
        origin="measured" if first.configuration_sha256 else "read",
        source=None,
        unofficial=result.unofficial,
        note=_note(series),
        benchmark=benchmark,
        metric=result.metric,
        ruleset=result.ruleset or UNKNOWN,
        division=first.division or UNKNOWN,
        submitter=first.org or UNKNOWN,
        system=system,
        accelerator=_accelerator(first, description),
        accelerators=result.accelerators,
        nodes=_nodes(first, description),
        framework=_framework(first, description),
        precision=first.precision,
        global_batch=first.global_batch_size,
        target=result.target,
        demonstration=any(record.demonstration for record in series.records),
        minutes=result.minutes,
        minutes_spread=spread(record.minutes for record in converged),
        images_per_s=result.images_per_s,
        images_per_s_spread=spread(record.images_per_s for record in converged),
        throughput_from=_throughput_from(first),
        runs=tuple(_run(each, result) for each in result.runs),
        sections=tuple(_sections(series, description)),
    )


def system_description(series: Series) -> Mapping[str, Any]:
    """MLPerf's description of the system, where the folder has its place in a submission; else empty."""
    folder = series.folder.resolve()
    path = folder.parent.parent.parent / "systems" / f"{folder.parent.name}.json"
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # none there, or none that can be read: the log alone has to do
        return {}
    return content if isinstance(content, dict) else {}


def _system(series: Series, benchmark: str) -> str:
    """SYSTEM of SYSTEM/BENCHMARK, the place of a series in every submission; the folder's name elsewhere."""
    folder = series.folder.resolve()
    if folder.name != benchmark:
        return series.name
    _, mark, configuration = series.name.partition(" [")
    return f"{folder.parent.name}{mark}{configuration}"


# --- one row -----------------------------------------------------------------------------------------------------------


def _run(each: ScoredRun, result: Score) -> Run:
    record = each.record
    start = record.run_start_s
    evaluations = (
        Evaluation(minutes=round((at.at_s - start) / 60, 4), epoch=at.epoch, quality=at.accuracy)
        for at in record.evaluations
        if start is not None and at.at_s is not None and at.accuracy is not None
    )
    return Run(
        name=Path(record.path).name,
        log=record.path,
        sha256=record.sha256,
        outcome="success" if each.converged else each.why,
        counted=each.converged and each.place == "counted" and result.exact_minutes is not None,
        minutes=record.minutes,
        epochs=record.epochs_run,
        images_per_s=record.images_per_s,
        seed=record.seeds[0] if record.seeds else None,
        evaluations=tuple(evaluations),
    )


def _accelerator(record: RunRecord, description: Mapping[str, Any]) -> str:
    """What the log names, else the system description, else the platform that was submitted."""
    run = record.configuration.get("run")
    if isinstance(run, dict) and run.get("device") == "cpu":
        return f"CPU {_text(record.hardware.get('cpu'))}".strip()
    devices = record.hardware.get("accelerators")
    named = [name for name in devices if isinstance(name, str)] if isinstance(devices, list) else []
    if named:
        return " + ".join(dict.fromkeys(accelerator_name(name) for name in named))
    described = description.get("accelerator_model_name")
    if isinstance(described, str) and described.strip():
        return accelerator_name(described)
    return f"not stated ({record.platform})" if record.platform else "not stated"


def _nodes(record: RunRecord, description: Mapping[str, Any]) -> int | None:
    run = record.configuration.get("run")
    stated = run.get("nodes") if isinstance(run, dict) else description.get("number_of_nodes")
    try:
        return int(stated) if isinstance(stated, int | str) else None
    except ValueError:
        return None


def _framework(record: RunRecord, description: Mapping[str, Any]) -> str:
    torch = _text(record.software.get("torch"))
    return f"PyTorch {torch}" if torch else _text(description.get("framework")) or "framework not stated"


def _throughput_from(record: RunRecord) -> str | None:
    if any(epoch.seconds for epoch in record.epochs):
        return "epochs"
    if record.max_steps is not None:
        return "part of an epoch"
    return "blocks" if record.blocks else None


def _note(series: Series) -> str | None:
    """What a reader must know before trusting the row: versions that changed between its runs."""
    changed = [
        key
        for key in sorted({key for record in series.records for key in record.software})
        if len({_text(record.software.get(key)) for record in series.records if record.software}) > 1
    ]
    return f"Its runs differ in software: {', '.join(changed)}." if changed else None


# --- what it opens to ----------------------------------------------------------------------------------------------------


def _sections(series: Series, description: Mapping[str, Any]) -> Iterator[Section]:
    first, records = series.first, series.records
    system = {"platform": first.platform, "status": first.status} | _flat(first.hardware)
    system |= {key.replace("_", " "): value for key, value in _flat(description).items()}
    yield _section("System", system)
    provenance = {
        "commit": _each(record.commit for record in records),
        "uncommitted changes": _each(
            None if record.tree_dirty is None else "yes" if record.tree_dirty else "no" for record in records
        ),
    }
    for key in dict.fromkeys(key for record in records for key in _flat(record.software)):
        provenance[key] = _each(_flat(record.software).get(key) for record in records)
    provenance |= {f"image {key}": value for key, value in _flat(first.image).items()}
    yield _section("Software", provenance)
    yield _section("Accelerators during the runs", dict(_watched(records)))
    configuration = {"name": first.configuration_name, "division": first.division, "precision": first.precision}
    yield _section("Configuration", configuration | (_flat(first.configuration) or _flat(first.hyperparameters)))
    hashes = {
        "configuration": _each(record.configuration_sha256 for record in records),
        "data": _each(record.data_fingerprint for record in records),
    }
    hashes |= {Path(record.path).name: record.sha256 for record in records}
    yield _section("Hashes (SHA-256)", hashes)


def _watched(records: Iterable[RunRecord]) -> Iterator[tuple[str, str]]:
    """A line for each run whose accelerators were watched; see harness/results/telemetry.py."""
    for record in records:
        found = telemetry.beside(record)
        if found is None:
            continue
        energy, held = telemetry.joules_per_image(record, found), found.held_total_s
        parts = [
            None if energy is None else f"{energy:.3g} J an image",
            None if found.power_w is None else f"{found.power_w:.0f} W",
            None if found.clock_sm_mhz is None else f"SM {found.clock_sm_mhz:.0f} MHz",
            None if found.temperature_c is None else f"{found.temperature_c:.0f} C at most",
            None if not held else f"held down for {held:.1f} s",
            *found.slowed,
        ]
        yield Path(record.path).name, ", ".join(part for part in parts if part)


def _section(title: str, facts: Mapping[str, Any]) -> Section:
    shown = ((key, _text(value)) for key, value in facts.items())
    return Section(title=title, facts=tuple((key, value) for key, value in shown if value))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted keys."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _text(value)
    return flat


def _each(values: Iterable[str | None]) -> str:
    """The value that all runs have, or the different ones."""
    return " | ".join(dict.fromkeys(value for value in values if value))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        texts = [_text(each) for each in value]
        return f"{len(texts)} {TIMES} {texts[0]}" if len(texts) > 1 and len(set(texts)) == 1 else ", ".join(texts)
    return str(value)
