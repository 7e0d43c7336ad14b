"""A collection of results, SYSTEM/BENCHMARK/result_N.txt: whose runs each of its folders holds, and the index of its files.

A folder holds runs of one identity: submitter, system, ruleset, benchmark and batch. What two people call by one name gets two
folders, and a folder keeps what people wrote as far as a file system can. Of our own runs the system's name is the
configuration and a short hash of accelerators, processor, driver, CUDA, framework and image, so that two drivers never end up
in one series.

The index is made from the files alone. By the hashes in it a file that has changed since it was collected is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from harness import names, outside, whole
from harness.results.differences import system_of
from harness.results.logfile import read_whatever
from harness.results.record import RunRecord
from harness.results.series import description_places

INDEX = "index.json"
IDENTITY = "series.json"
FORMAT = 1  # of the index
HASH_LENGTH = 6


@dataclass(frozen=True)
class SeriesIdentity:
    """What makes runs one series."""

    submitter: str | None
    system: str  # as its folder was called, or by configuration and machine
    ruleset: str | None
    benchmark: str
    global_batch_size: int | None

    def told_from(self, other: SeriesIdentity | None) -> str:
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


def identity_of(record: RunRecord, system: str | None = None) -> SeriesIdentity:
    """Of a run, by its log and by where it lies; `system` in place of the name of its system."""
    folder = outside.real(Path(record.path)).parent
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
    return SeriesIdentity(submitter, system or named, record.ruleset, str(record.benchmark), record.global_batch_size)


def system_name(record: RunRecord) -> str:
    """What a run's system is called: as its own folder is, or by configuration and machine where it is a run of ours."""
    folder = outside.real(Path(record.path)).parent
    if not record.configuration_sha256:
        return folder.parent.name if folder.name == record.benchmark else folder.name
    identity = {
        "configuration": record.configuration_sha256,
        **system_of(record),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:HASH_LENGTH]
    return f"{names.folder(record.configuration_name or record.platform or names.UNNAMED)}_{digest}"


def folder_for(into: Path, identity: SeriesIdentity) -> Path:
    """The folder of this identity, made where there is none."""
    plain = into / names.folder(identity.system) / identity.benchmark
    for name in (identity.system, identity.told_from(_identity_in(plain)), f"{identity.system}_{identity.digest}"):
        folder = into / names.folder(name) / identity.benchmark
        there = _identity_in(folder)
        if there is None:
            folder.mkdir(parents=True, exist_ok=True)
            with whole.replacing(folder / IDENTITY) as file:
                file.write((json.dumps(asdict(identity), indent=1) + "\n").encode())
        if there in (None, identity):
            return folder
    return folder  # of the last name, which no other identity has


def _identity_in(folder: Path) -> SeriesIdentity | None:
    """Whose runs a folder of the collection holds; None of one without any."""
    if not folder.is_dir() or not (logs := names.results_in(folder)):
        return None
    if (kept := _kept_identity(folder)) is not None:
        return kept
    record = read_whatever(logs[0])  # an older version collected it
    return SeriesIdentity(
        record.org, folder.parent.name, record.ruleset, str(record.benchmark), record.global_batch_size
    )


def _kept_identity(folder: Path) -> SeriesIdentity | None:
    """As a collection has written it; None where there is none, and of somebody's own file of that name."""
    try:
        kept = SeriesIdentity(**outside.read_json(folder / IDENTITY))
    except (OSError, ValueError, TypeError):
        return None
    kinds = get_type_hints(SeriesIdentity)
    return kept if all(isinstance(value, kinds[name]) for name, value in asdict(kept).items()) else None


# --- the index -------------------------------------------------------------------------------------------------------


def write_index(into: Path) -> Path:
    """The index of a collection, from its files alone: the same files give the same bytes."""
    into.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "runs": index_of(into)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with whole.replacing(into / INDEX) as file:
        file.write(text.encode())
    return into / INDEX


def index_of(into: Path) -> dict[str, dict[str, Any]]:
    """What the logs of the collection say now, by their paths within it."""
    folders = sorted((path for path in into.glob("*/*") if path.is_dir()), key=names.natural) if into.is_dir() else []
    files = [file for folder in folders for file in names.results_in(folder)]
    return {file.relative_to(into).as_posix(): _entry(read_whatever(file)) for file in files}


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


def read_index(into: Path) -> dict[str, dict[str, Any]]:
    """The runs of an earlier index; none where it is missing or unreadable, since it can be made again."""
    try:
        runs = outside.read_json(into / INDEX)["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return runs if isinstance(runs, dict) else {}


def changed(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """The files of an earlier index that are no longer there or no longer what they were, with which of the two."""
    found = []
    for file, run in before.items():
        old = run.get("sha256") if isinstance(run, dict) else None
        if file not in now:
            found.append((file, "gone since it was collected"))
        elif now[file]["sha256"] != old:
            found.append((file, f"changed since it was collected: SHA-256 was {old}"))
    return found
