"""Scored series of result logs as rows of the leaderboard.

A log with this harness's own keys was measured by it; any other is a submitter's, read here and measured there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.names import RESULTS, accelerator_model
from harness.results import telemetry
from harness.results.checking.kept import Opinion, Opinions
from harness.results.record import RunRecord
from harness.results.reporting.leaderboard import (
    EvaluationEntry,
    LeftOut,
    Row,
    RunEntry,
    Section,
    Spread,
    scaling_note,
    spread,
    width_note,
)
from harness.results.reporting.text import TIMES
from harness.results.score import Score, ScoredRun, score
from harness.results.series import NOT_NAMED, Series, find_logs, find_series
from harness.results.telemetry import Telemetry
from harness.rules import rules_for

UNKNOWN = "unknown"
NAME_LIMIT, REASON_LIMIT = (
    200,
    500,
)  # characters of a platform, a submitter, a task, ...; of why a run or a series is none
FACTS_LIMIT, TEXT_LIMIT = 200, 2_000  # of one table, of one value: a page shows no book


def rows(folders: Iterable[Path], checks: Path | None = None) -> tuple[list[Row], list[LeftOut]]:
    """A row for each series under `folders`, and the files that are no result. ValueError where a path is not there.

    A series that is there twice, as it was written and as it was collected, is one row: the one with a description.
    """
    left_out: list[LeftOut] = []
    said: list[str] = []
    with_logs = [folder for folder in folders if find_logs(folder, said.append)]
    found: dict[frozenset[str], Row] = {}
    opinions = Opinions(checks)
    for series in find_series(with_logs, said.append) if with_logs else []:
        left_out += [LeftOut(path=record.path, reason=record.reason) for record in series.unread]
        left_out += [LeftOut(path=str(path), reason=NOT_NAMED) for path in series.left_out if path.match(RESULTS)]
        if len(series.unread) == len(series.records):
            continue
        runs = frozenset(record.sha256 for record in series.records)
        if runs in found and not series.description:
            continue
        try:
            opinion = opinions.of(series, series.first.ruleset)
            found[runs] = row(score(series, opinion=opinion), opinion)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            reason = f"a value in its logs cannot be shown ({type(error).__name__}: {error})"
            left_out.append(LeftOut(path=str(series.folder), reason=reason[:300]))
    left_out += [
        LeftOut(path=path, reason=reason) for path, _, reason in (each.partition(": ") for each in dict.fromkeys(said))
    ]
    return list(found.values()), left_out


def row(result: Score, opinion: Opinion) -> Row:
    """A scored series as a row of the leaderboard; `opinion` is what MLPerf's tools said of it."""
    series, first = result.series, result.series.first
    system, rules = _system(series), rules_for(first.benchmark, result.ruleset)
    description = series.description
    submitter = _name(series.submitter) or UNKNOWN
    converged = [each.record for each in result.runs if each.converged]
    times = spread(record.minutes for record in converged)
    began = min((record.run_start_s for record in series.records if record.run_start_s is not None), default=None)
    return Row(
        id=f"{submitter}-{system}",
        rank=None,
        origin="measured" if first.configuration_sha256 else "read",
        source=None,
        unofficial=tuple(_name(each, REASON_LIMIT) or "" for each in result.unofficial),
        note=_note(result, times),
        mlperf=opinion.said,
        benchmark=_name(first.benchmark) or UNKNOWN,
        task=_name(first.other_task) or rules.task,
        metric=result.metric,
        lower_is_better=rules.lower_is_better,
        ruleset=_name(result.ruleset) or UNKNOWN,
        division=_name(first.division) or UNKNOWN,
        status=_name(first.status),
        date=None if began is None else datetime.fromtimestamp(began, UTC).date().isoformat(),
        submitter=submitter,
        system=system,
        platform=_name(first.platform),
        driver=_driver(first, description),
        accelerator=_name(_accelerator(first, description)) or UNKNOWN,
        accelerators=result.accelerators,
        nodes=_nodes(first, description),
        framework=_name(_framework(first, description)) or UNKNOWN,
        precision=_name(first.precision),
        global_batch=first.global_batch_size,
        target=result.target,
        demonstration=any(record.demonstration for record in series.records),
        minutes=result.minutes,
        minutes_spread=times,
        images_per_s=result.images_per_s,
        images_per_s_spread=spread(result.speed(record) for record in converged),
        throughput_from=_throughput_from(first),
        runs=tuple(_run(each, result) for each in result.runs),
        sections=tuple(_sections(series, description)),
    )


def _system(series: Series) -> str:
    """SYSTEM of SYSTEM/BENCHMARK, the place of a series in every submission; the folder's name elsewhere."""
    _, mark, configuration = series.name.partition(" [")
    return f"{series.system}{mark}{configuration}"[:NAME_LIMIT]


def _name(text: str | None, limit: int = NAME_LIMIT) -> str | None:
    """As a table has room for it, headings and charts too."""
    return text if text is None or len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


# --- one row -----------------------------------------------------------------------------------------------------------


def _run(each: ScoredRun, result: Score) -> RunEntry:
    record = each.record
    start = record.run_start_s
    evaluations = (
        EvaluationEntry(minutes=round((at.at_s - start) / 60, 4), epoch=at.epoch, quality=at.accuracy)
        for at in record.counted_evaluations
        if start is not None and at.at_s is not None and at.accuracy is not None
    )
    return RunEntry(
        name=Path(record.path).name,
        log=record.path,
        sha256=record.sha256,
        outcome="success" if each.converged else _name(each.why, REASON_LIMIT) or "",
        counted=each.converged and each.place == "counted" and result.exact_minutes is not None,
        minutes=record.minutes,
        epochs=record.epochs_run,
        images_per_s=result.speed(record),
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
        return " + ".join(dict.fromkeys(accelerator_model(name) for name in named))
    described = description.get("accelerator_model_name")
    if isinstance(described, str) and described.strip():
        return accelerator_model(described)
    return f"not stated ({record.platform})" if record.platform else "not stated"


def _nodes(record: RunRecord, description: Mapping[str, Any]) -> int | None:
    run = record.configuration.get("run")
    stated = run.get("nodes") if isinstance(run, dict) else description.get("number_of_nodes")
    try:
        return int(str(stated)[:9]) if isinstance(stated, int | str) else None
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


def _driver(record: RunRecord, description: Mapping[str, Any]) -> str | None:
    """As the log says, else as a description's software stack does, where that is a table."""
    said = _text(record.software.get("driver"))
    stack = description.get("other_software_stack")
    if not said and isinstance(stack, dict):
        said = next((_text(value) for key, value in stack.items() if "driver" in str(key)), "")
    return said[:60] or None


def _note(result: Score, times: Spread | None) -> str | None:
    """What a reader must know before trusting the row: what changed between its runs, and whose logs they are."""
    series, org, submitter = result.series, result.series.first.org, result.series.submitter or UNKNOWN
    notes = [width_note(times), None if result.factor == 1 else scaling_note("MLPerf's tools", result.factor)]
    if org and org.casefold() != submitter.casefold():
        notes.append(f"Its logs name {_name(org)}, its system's description names {_name(submitter)}.")
    changed = [
        key
        for key in sorted({key for record in series.records for key in record.software})
        if len({_text(record.software.get(key)) for record in series.records if record.software}) > 1
    ]
    notes.append(f"Its runs differ in software: {', '.join(changed)}." if changed else None)
    notes += [f"{Path(each.path).name}: {each.paused}." for each in series.records if each.paused]
    return " ".join(filter(None, notes)) or None


# --- what it opens to ----------------------------------------------------------------------------------------------------


def _sections(series: Series, description: Mapping[str, Any]) -> Iterator[Section]:
    first, records = series.first, series.records
    system = {"platform": first.platform, "status": first.status} | _flat(first.hardware)
    system |= {key.replace("_", " "): value for key, value in _flat(description).items()}
    yield _section("System", system)
    provenance = {
        "commit": _each(record.commit for record in records),
        "uncommitted changes": _each(
            UNKNOWN if record.of_no_commit else {None: None, True: "yes", False: "no"}[record.tree_dirty]
            for record in records
        ),
    }
    for key in dict.fromkeys(key for record in records for key in _flat(record.software)):
        provenance[key] = _each(_flat(record.software).get(key) for record in records)
    provenance |= {f"image {key}": value for key, value in _flat(first.image).items()}
    yield _section("Software", provenance)
    yield _section("Accelerators during the runs", dict(_watched(records)))
    waited_for = {Path(each.path).name: str(each.slowest_rank) for each in records if each.slowest_rank is not None}
    yield _section("Slowest ranks", waited_for)
    configuration = {"name": first.configuration_name, "division": first.division, "precision": first.precision}
    yield _section("Configuration", configuration | (_flat(first.configuration) or _flat(first.hyperparameters)))
    hashes = {
        "configuration": _each(record.configuration_sha256 for record in records),
        "data": _each(record.data_fingerprint for record in records),
    }
    hashes |= {Path(record.path).name: record.sha256 for record in records}
    yield _section("Hashes (SHA-256)", hashes)


def _watched(records: Iterable[RunRecord]) -> Iterator[tuple[str, str]]:
    """A line for each run whose accelerators were watched, or that told its memory; see harness/results/telemetry.py."""
    for record in records:
        found = telemetry.beside(record)
        peak = _peak_memory_bytes(record)
        parts = [
            *(() if found is None else _watched_in(record, found)),
            f"PyTorch {peak / 2**30:.1f} GiB" if peak else None,
        ]
        if told := ", ".join(part for part in parts if part):
            yield Path(record.path).name, told


def _peak_memory_bytes(record: RunRecord) -> int | None:
    """What the run's own library had at most; None of an older log, which told it before run_start: init's."""
    told, start = (record.entries.get(key) for key in ("peak_memory_bytes", "run_start"))
    if told is None or start is None or told.order < start.order:
        return None
    return record.integer("peak_memory_bytes")


def _watched_in(record: RunRecord, found: Telemetry) -> Iterator[str | None]:
    energy, held, used = telemetry.joules_per_image(record, found), found.held_longest_s, found.memory_used_mib
    yield from (
        None if energy is None else f"{energy:.3g} J an image",
        None if found.power_w is None else f"{found.power_w:.0f} W",
        None if found.clock_sm_mhz is None else f"SM {found.clock_sm_mhz:.0f} MHz",
        None if not found.jpeg_percent else f"JPEG engines {found.jpeg_percent:.0f} % busy",
        None if found.temperature_c is None else f"{found.temperature_c:.0f} C at most",
        None if used is None else f"{used / 1024:.1f} GiB of memory used at most",
        None if not held else f"held down for {held:.1f} s",
        *found.slowed,
        *(f"XID {code}" for code in found.xid),
        found.problem,
    )


def _section(title: str, facts: Mapping[str, Any]) -> Section:
    shown = ((key, _text(value)) for key, value in facts.items())
    return Section(title=title, facts=tuple((key, value) for key, value in shown if value))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted keys."""
    flat: dict[str, str] = {}
    for key, value in itertools.islice(table.items(), FACTS_LIMIT):
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
    return str(value)[:TEXT_LIMIT]
