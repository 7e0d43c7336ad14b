"""Result logs into one folder, SYSTEM/BENCHMARK/result_N.txt: never over another, never twice, never changed.

Whose runs go into which folder is collection.py's to say. With a log come the record, picture and telemetry beside it, its
series' ledger and the system's description; a collection that was broken off between them is made whole by the next. Where a
file has changed since it was collected, the index is left as it is until someone asks for it to be rebuilt.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import locks, names, outside, whole
from harness.results import collection
from harness.results.account import FILE, departures, ledgers_in
from harness.results.logfile import read_whatever
from harness.results.record import RunRecord
from harness.results.series import DESCRIPTION, description_places, find_logs, left_out_words, nothing_in

LOCK = ".collect.lock"
READ_ONLY = 0o444
SIDE_LIMIT = 256 << 20  # bytes of a picture, a record or telemetry


@dataclass
class Collected:
    """What a collection did: (source, where or why) each."""

    collected: list[tuple[str, str]] = field(default_factory=list)
    already: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)  # (ledger, what it knows of and is not there)
    copies: list[tuple[str, str]] = field(default_factory=list)  # (file of the collection, the one it is a copy of)
    # what could not be looked into under the paths, and those with nothing to look at
    unread: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # logs that are no runs by their names, a line for each folder

    @property
    def ok(self) -> bool:
        return not (self.refused or self.changed or self.missing or self.copies or self.unread)

    def as_json(self) -> dict[str, Any]:
        parts = ("collected", "already", "refused", "changed", "missing", "copies")
        told = {name: [{"file": file, "note": note} for file, note in getattr(self, name)] for name in parts}
        return {**told, "unread": list(self.unread), "left_out": list(self.left_out)}


def collect(paths: Iterable[Path], into: Path, *, system: str | None = None, rebuild: bool = False) -> Collected:
    """Copy every finished log at or under `paths` into `into`, and write the index again.

    ValueError for a path that is not there, and where nothing can be written or another collect is at work. `rebuild` takes
    the files as they are now, whatever an earlier index says of them.
    """
    outcome = Collected()
    logs, left_out = [], list[Path]()
    for path in paths:
        unread: list[str] = []
        found = find_logs(path, unread.append, left_out.append)
        outcome.unread += unread or [nothing_in(path)] * (not found)
        logs += found
    collected = set(logs)
    outcome.left_out += left_out_words(each for each in left_out if each not in collected)
    try:
        into.mkdir(parents=True, exist_ok=True)
        # Two would each take the other's runs for new ones. Where the file system has no locks, links and exclusive names keep
        # files from being overwritten
        running = f"{into}: another collect is at work in it; wait for its end and collect again"
        with locks.alone(into / LOCK, running) as alone:
            if alone:
                _clear(into)
            _collect(logs, into, outcome, system, rebuild)
    except OSError as error:
        where = error.filename or into
        raise ValueError(f"{where}: cannot be written: {error.strerror}; name another folder with --into") from error
    return outcome


def _collect(logs: list[Path], into: Path, outcome: Collected, system: str | None, rebuild: bool) -> None:
    there = collection.index_of(into)
    before = {} if rebuild else collection.read_index(into)
    outcome.changed += collection.changed(before, there)
    known: dict[str, str] = {}
    for file, run in there.items():
        if run["outcome"] != "empty" and known.setdefault(run["sha256"], file) != file:
            outcome.copies.append((file, known[run["sha256"]]))
    for file, run in before.items():  # of one that has changed: its run is to be put back, not copied beside it
        if file in there and isinstance(run, dict):
            known.setdefault(str(run.get("sha256")), file)
    logs = [log for log in logs if not outside.real(log).is_relative_to(outside.real(into))]  # not into itself
    changed = _against_ledgers(logs, known, outcome)
    for log in logs:
        record = read_whatever(log)
        if why := changed.get(log) or _unfit(record):
            outcome.refused.append((str(log), why))
            continue
        if record.sha256 in known:
            outcome.already.append((str(log), known[record.sha256]))
        else:
            identity = collection.identity_of(record, system)
            copy = _copy(log, collection.folder_for(into, identity), record.sha256)
            known[record.sha256] = copy.relative_to(into).as_posix()
            outcome.collected.append((str(log), known[record.sha256]))
        _copy_beside(
            log, into / known[record.sha256]
        )  # also of one that is there: it may be what a killed collect left
    if not outcome.changed:
        collection.write_index(into)


def _against_ledgers(logs: list[Path], known: Collection[str], outcome: Collected) -> dict[Path, str]:
    """The logs that are not what the ledger beside them says, with why. What else it knows and is nowhere is told of."""
    changed: dict[Path, str] = {}
    for folder in dict.fromkeys(log.parent for log in logs):
        for each in departures(folder, elsewhere=known):
            if each.file in logs:
                changed[each.file] = each.what
            elif names.number(each.file) is None:
                outcome.missing.append((str(each.file), each.what))
    return changed


def _clear(into: Path) -> None:
    """What a killed collect left half-written, which no other can be writing now."""
    for path in (
        *into.glob(whole.UNFINISHED),
        *into.glob(f"*/{whole.UNFINISHED}"),
        *into.glob(f"*/*/{whole.UNFINISHED}"),
    ):
        path.unlink(missing_ok=True)


def _unfit(record: RunRecord) -> str:
    if record.outcome == "empty":
        return record.reason
    if record.outcome == "unfinished":
        return f"{record.reason}; collect it when it has ended"
    if record.run_start_s is None:
        return f"its run did not begin: {record.reason}"
    benchmark = record.benchmark
    if not benchmark or names.plain(benchmark) != benchmark:
        return "its submission_benchmark names no benchmark"
    return ""


# --- files -------------------------------------------------------------------------------------------------------------


def _copy(log: Path, folder: Path, sha256: str) -> Path:
    """Under the next free number: nothing is overwritten."""
    content = outside.read_bytes(log, outside.LOG_LIMIT)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{log}: it changed while it was read; collect it when its run has ended")
    target = folder / names.result(names.next_number(folder))
    whole.new(target, content, READ_ONLY)
    return target


def _copy_beside(log: Path, copy: Path) -> None:
    """Its record, picture and telemetry, under its new number; ledger and probes of its series; its system's description."""
    which = names.number(copy)
    for path, before, after in names.beside(log):
        _copy_file(path, copy.with_name(f"{before}{which}{after}"))
    for ledger in ledgers_in(log.parent):
        source = hashlib.sha256(os.fsencode(outside.real(ledger))).hexdigest()[: collection.HASH_LENGTH]
        name = f"ledger_{source}.jsonl" if ledger.name == FILE else ledger.name
        _copy_file(ledger, copy.with_name(name), renew=True)
    for beginning, path in names.all_figures_in(log.parent):
        _copy_figures(path, copy.parent, beginning)
    for place in description_places(log.parent):
        if place.is_file():
            _copy_file(place, copy.parents[1] / DESCRIPTION)
            break


def _copy_figures(source: Path, folder: Path, beginning: str) -> None:
    """What a probe measured, under the next free number of the folder unless it is there already."""
    there = names.figures_in(folder, beginning)
    try:
        content = outside.read_bytes(source, SIDE_LIMIT)
        if any(path.read_bytes() == content for path in there):
            return
    except (OSError, outside.Refused):
        return
    last = max((int(path.stem.rpartition("_")[2]) for path in there), default=-1)
    whole.new(folder / names.figures(beginning, last + 1), content, READ_ONLY)


def _copy_file(source: Path, target: Path, *, renew: bool = False) -> None:
    """What is no log: what is there stays, unless it only grew. One that cannot be read costs nothing else."""
    if target.exists() and not renew:
        return
    try:
        content = outside.read_bytes(source, SIDE_LIMIT)
        there = target.read_bytes() if target.exists() else None
        if there is not None and (content == there or not content.startswith(there)):
            return
    except (OSError, outside.Refused):
        return
    with whole.replacing(target, READ_ONLY) as file:
        file.write(content)
