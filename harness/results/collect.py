"""Result logs into one folder, SYSTEM/BENCHMARK/result_N.txt: never over another, never twice, never changed.

A folder holds runs of one identity: submitter, system, ruleset, benchmark and batch. What two people call by one name gets two
folders, and a folder keeps what people wrote as far as a file system can. Of our own runs the system's name is the
configuration and a short hash of accelerators, processor, driver, CUDA, framework and image, so that two drivers never end up
in one series. With a log come the record, picture and telemetry beside it, its series' ledger and the system's description.

What the logs say is also kept in an index, which is made from the files alone. By the hashes in it a file that has changed
since it was collected is found; the index is then left as it is until someone asks for it to be rebuilt.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import names, outside
from harness.results.logfile import read, unreadable
from harness.results.record import RunRecord
from harness.results.series import DESCRIPTION, description_places, find_logs

INDEX = "index.json"
IDENTITY = "series.json"
LEDGER = "ledger.jsonl"
LOCK = ".collect.lock"
FORMAT = 1  # of the index
HASH_LENGTH = 6
SIDE_LIMIT = 256 << 20  # bytes of a picture, a record or telemetry


@dataclass(frozen=True)
class Identity:
    """What makes runs one series."""

    submitter: str | None
    system: str  # as its folder was called, or by configuration and machine
    ruleset: str | None
    benchmark: str
    global_batch_size: int | None

    def told_from(self, other: Identity | None) -> str:
        """The system's name with what tells it from another that has the plain name."""
        batch = None if self.global_batch_size is None else f"batch{self.global_batch_size}"
        theirs = (other.submitter, other.ruleset, other.global_batch_size) if other else (None, None, None)
        ours = (self.submitter, self.ruleset, self.global_batch_size)
        said = (self.submitter, self.ruleset, batch)
        differs = [str(word) for own, their, word in zip(ours, theirs, said, strict=True) if own != their and word]
        return "_".join([self.system, *(differs or [self.digest])])

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]


@dataclass
class Outcome:
    """What a collection did: (source, where or why) each."""

    collected: list[tuple[str, str]] = field(default_factory=list)
    already: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)  # (file of the collection, the one it is a copy of)
    unread: list[str] = field(default_factory=list)  # what lies under the paths and could not be looked into

    @property
    def ok(self) -> bool:
        return not self.refused and not self.changed and not self.copies and not self.unread

    def as_json(self) -> dict[str, Any]:
        parts = ("collected", "already", "refused", "changed", "copies")
        told = {name: [{"file": file, "note": note} for file, note in getattr(self, name)] for name in parts}
        return {**told, "unread": list(self.unread)}


def collect(paths: Iterable[Path], into: Path, *, system: str | None = None, rebuild: bool = False) -> Outcome:
    """Copy every finished log at or under `paths` into `into`, and write the index again.

    ValueError for a path that is not there, and where nothing can be written or another collect is at work. `rebuild` takes
    the files as they are now, whatever an earlier index says of them.
    """
    outcome = Outcome()
    logs = [log for path in paths for log in find_logs(path, outcome.unread.append)]
    try:
        into.mkdir(parents=True, exist_ok=True)
        with _locked(into):
            _collect(logs, into, outcome, system, rebuild)
    except OSError as error:
        where = error.filename or into
        raise ValueError(f"{where}: cannot be written: {error.strerror}; name another folder with --into") from error
    return outcome


def _collect(logs: list[Path], into: Path, outcome: Outcome, system: str | None, rebuild: bool) -> None:
    there = _index(into)
    if not rebuild:
        outcome.changed += _changed(_read_index(into), there)
    known: dict[str, str] = {}
    for file, run in there.items():
        if run["outcome"] != "empty" and known.setdefault(run["sha256"], file) != file:
            outcome.copies.append((file, known[run["sha256"]]))
    for log in logs:
        if log.resolve().is_relative_to(into.resolve()):
            continue  # a collection is not collected into itself
        record = _read(log)
        if why := _unfit(record):
            outcome.refused.append((str(log), why))
        elif record.sha256 in known:
            outcome.already.append((str(log), known[record.sha256]))
        else:
            identity = identity_of(record, system)
            copy = _copy(log, _place(into, identity), record.sha256)
            _copy_beside(log, copy)
            file = copy.relative_to(into).as_posix()
            known[record.sha256] = file
            outcome.collected.append((str(log), file))
    if not outcome.changed:
        write_index(into)


@contextlib.contextmanager
def _locked(into: Path) -> Iterator[None]:
    """One collect at a time: two would each take the other's runs for new ones. ValueError where one is at work."""
    path = into / LOCK
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{into}: another collect is at work in it; wait for its end and collect again") from error
        except (
            OSError
        ):  # a file system without locks: links and exclusive names still keep files from being overwritten
            pass
        yield


def write_index(into: Path) -> Path:
    """The index of a collection, from its files alone: the same files give the same bytes."""
    into.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "runs": _index(into)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    _write(into / INDEX, text.encode(), 0o644)
    return into / INDEX


# --- which folder ------------------------------------------------------------------------------------------------------


def identity_of(record: RunRecord, system: str | None = None) -> Identity:
    """Of a run, by its log and by where it lies; `system` in place of the name of its system."""
    folder = Path(record.path).resolve().parent
    submitter = record.org
    for place in description_places(folder):
        with contextlib.suppress(OSError, ValueError):
            content = outside.read_json(place)
            if isinstance(content, dict) and isinstance(content.get("submitter"), str) and content["submitter"].strip():
                submitter = content["submitter"]
                break
    kept = _kept_identity(folder)  # of a collection that is collected from
    if kept is not None and kept.benchmark == record.benchmark:
        submitter, named = kept.submitter, kept.system
    else:
        named = system_name(record)
    return Identity(submitter, system or named, record.ruleset, str(record.benchmark), record.global_batch_size)


def system_name(record: RunRecord) -> str:
    """What a run's system is called: as its own folder is, or by configuration and machine where it is a run of ours."""
    folder = Path(record.path).resolve().parent
    if not record.configuration_sha256:
        return folder.parent.name if folder.name == record.benchmark else folder.name
    identity = {
        "configuration": record.configuration_sha256,
        "accelerators": record.hardware.get("accelerators"),
        "cpu": record.hardware.get("cpu"),
        "image": record.image.get("id"),
        **{key: record.software.get(key) for key in ("driver", "cuda", "cudnn", "nccl", "dali", "torch", "python")},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:HASH_LENGTH]
    return f"{names.folder(record.configuration_name or record.platform or names.UNNAMED)}_{digest}"


def _place(into: Path, identity: Identity) -> Path:
    """The folder of this identity, made where there is none."""
    plain = into / names.folder(identity.system) / identity.benchmark
    for name in (identity.system, identity.told_from(_identity_in(plain)), f"{identity.system}_{identity.digest}"):
        folder = into / names.folder(name) / identity.benchmark
        there = _identity_in(folder)
        if there is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / IDENTITY, (json.dumps(asdict(identity), indent=1) + "\n").encode(), 0o644)
        if there in (None, identity):
            return folder
    return folder  # of the last name, which no other identity has


def _identity_in(folder: Path) -> Identity | None:
    """Whose runs a folder of the collection holds; None of one without any."""
    if not folder.is_dir() or not (logs := names.results_in(folder)):
        return None
    if (kept := _kept_identity(folder)) is not None:
        return kept
    record = _read(logs[0])  # an older version collected it
    return Identity(record.org, folder.parent.name, record.ruleset, str(record.benchmark), record.global_batch_size)


def _kept_identity(folder: Path) -> Identity | None:
    try:
        return Identity(**outside.read_json(folder / IDENTITY))
    except (OSError, ValueError, TypeError):
        return None


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
    _write(target, content, 0o444, new=True)
    return target


def _copy_beside(log: Path, copy: Path) -> None:
    """Its record, picture and telemetry, under its new number; ledger and probes of its series; its system's description."""
    which = names.number(copy)
    for path, name in names.beside(log):
        _copy_file(path, copy.with_name(name.format(which)))
    for ledger in sorted(log.parent.glob("ledger*.jsonl")):
        source = hashlib.sha256(str(ledger.resolve()).encode()).hexdigest()[:HASH_LENGTH]
        name = f"ledger_{source}.jsonl" if ledger.name == LEDGER else ledger.name
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
    _write(folder / names.figures(beginning, last + 1), content, 0o444, new=True)


def _copy_file(source: Path, target: Path, *, renew: bool = False) -> None:
    """What is no log: what is there stays, unless it only grew. One that cannot be read costs nothing else."""
    try:
        content = outside.read_bytes(source, SIDE_LIMIT)
        if target.exists() and not (renew and content.startswith(target.read_bytes())):
            return
    except (OSError, outside.Refused):
        return
    _write(target, content, 0o444)


def _write(target: Path, content: bytes, mode: int, *, new: bool = False) -> None:
    """Whole or not at all; with `new` FileExistsError where there is one, also on file systems without hard links."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".collect-", delete=False) as file:
        temporary = Path(file.name)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        temporary.chmod(mode)
        if new:
            try:
                target.hardlink_to(temporary)
                return
            except FileExistsError:
                raise
            except OSError:
                target.touch(exist_ok=False)  # ours now, and nobody else's
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# --- the index ---------------------------------------------------------------------------------------------------------


def _read(log: Path) -> RunRecord:
    try:
        return read(log)
    except OSError as error:
        return unreadable(log, f"cannot be read: {error.strerror}")
    except outside.Refused as error:
        return unreadable(log, str(error).removeprefix(f"{log}: "))


def _index(into: Path) -> dict[str, dict[str, Any]]:
    folders = sorted((path for path in into.glob("*/*") if path.is_dir()), key=names.natural) if into.is_dir() else []
    files = [file for folder in folders for file in names.results_in(folder)]
    return {file.relative_to(into).as_posix(): _entry(_read(file)) for file in files}


def _entry(record: RunRecord) -> dict[str, Any]:
    return {
        "sha256": record.sha256,
        "benchmark": record.benchmark,
        "ruleset": record.ruleset,
        "org": record.org,
        "platform": record.platform,
        "division": record.division,
        "configuration": record.configuration_name,
        "configuration_sha256": record.configuration_sha256,
        "commit": record.commit,
        "driver": record.software.get("driver"),
        "accelerators": record.accelerators,
        "global_batch_size": record.global_batch_size,
        "outcome": record.outcome,
        "minutes": record.minutes,
        "epochs": record.epochs_run,
        "accuracy": record.accuracy,
        "images_per_s": record.images_per_s,
        "run_start_s": record.run_start_s,
        "demonstration": record.demonstration,
    }


def _read_index(into: Path) -> dict[str, dict[str, Any]]:
    """The runs of an earlier index; none where it is missing or unreadable, since it can be made again."""
    try:
        runs = outside.read_json(into / INDEX)["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return runs if isinstance(runs, dict) else {}


def _changed(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    changed = []
    for file, run in before.items():
        old = run.get("sha256") if isinstance(run, dict) else None
        if file not in now:
            changed.append((file, "gone since it was collected"))
        elif now[file]["sha256"] != old:
            changed.append((file, f"changed since it was collected: SHA-256 was {old}"))
    return changed
