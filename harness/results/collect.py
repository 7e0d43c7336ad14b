"""Result logs into one folder, results/SYSTEM/BENCHMARK/result_N.txt: never over another, never twice, never changed.

A system's folder holds runs of one identity: configuration, accelerators, processor, driver, CUDA, framework, image. Its
name says the configuration and ends in a short hash of the rest, so that two drivers never end up in one series. A
submitter's log keeps the system that its own folder names.

What the logs say is also kept in an index, which is made from the files alone. By the hashes in it a file that has changed
since it was collected is found; the index is then left as it is until someone asks for it to be rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.results.logfile import read
from harness.results.record import RunRecord
from harness.results.series import RESULT, find_logs, natural

INDEX = "index.json"
FORMAT = 1  # of the index
HASH_LENGTH = 6


@dataclass
class Outcome:
    """What a collection did: (source, where or why) each."""

    collected: list[tuple[str, str]] = field(default_factory=list)
    already: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.refused and not self.changed

    def as_json(self) -> dict[str, Any]:
        return {
            name: [{"file": file, "note": note} for file, note in getattr(self, name)]
            for name in ("collected", "already", "refused", "changed")
        }


def collect(paths: Iterable[Path], into: Path, *, system: str | None = None, rebuild: bool = False) -> Outcome:
    """Copy every finished log at or under `paths` into `into`, and write the index anew. ValueError for a path not there.

    `rebuild` takes the files as they are now, whatever an earlier index says of them.
    """
    logs = [log for path in paths for log in find_logs(path)]
    outcome = Outcome()
    before = _read_index(into)
    there = _index(into)
    if not rebuild:
        outcome.changed += _changed(before, there)
    known = {run["sha256"]: file for file, run in there.items()}
    for log in logs:
        if log.resolve().is_relative_to(into.resolve()):
            continue  # a collection is not collected into itself
        record = read(log)
        if why := _unfit(record):
            outcome.refused.append((str(log), why))
        elif record.sha256 in known:
            outcome.already.append((str(log), known[record.sha256]))
        else:
            folder = into / (system or system_name(record)) / str(record.benchmark)
            copy = _copy(log, folder, record.sha256)
            file = copy.relative_to(into).as_posix()
            known[record.sha256] = file
            outcome.collected.append((str(log), file))
    if not outcome.changed:
        write_index(into)
    return outcome


def write_index(into: Path) -> Path:
    """The index of a collection, from its files alone: the same files give the same bytes."""
    into.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "runs": _index(into)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    path = into / INDEX
    with tempfile.NamedTemporaryFile("w", dir=into, prefix=".index-", delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path


def system_name(record: RunRecord) -> str:
    """The folder that a run belongs in."""
    folder = Path(record.path).resolve().parent
    if not record.configuration_sha256:
        named = folder.parent if folder.name == record.benchmark else folder
        return slug(named.name)
    identity = {
        "configuration": record.configuration_sha256,
        "accelerators": record.hardware.get("accelerators"),
        "cpu": record.hardware.get("cpu"),
        "image": record.image.get("id"),
        **{key: record.software.get(key) for key in ("driver", "cuda", "cudnn", "nccl", "dali", "torch", "python")},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:HASH_LENGTH]
    return f"{slug(record.configuration_name or record.platform or 'unnamed')}_{digest}"


def slug(text: str) -> str:
    """A folder's name that MLPerf's tools take: no space, no leading dot, nothing that leads elsewhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "unnamed"


def _unfit(record: RunRecord) -> str:
    if record.outcome == "empty":
        return record.reason
    if record.outcome == "unfinished":
        return f"{record.reason}; collect it when it has ended"
    benchmark = record.benchmark
    if not benchmark or slug(benchmark) != benchmark:
        return "its submission_benchmark names no benchmark"
    return ""


def _copy(log: Path, folder: Path, sha256: str) -> Path:
    """Under the next free number. The name is taken by a link, which fails where there is one: nothing is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    content = log.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{log}: it changed while it was read; collect it when its run has ended")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".collect-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o444)
    try:
        number = 1 + max((int(m[1]) for path in folder.iterdir() if (m := RESULT.fullmatch(path.name))), default=-1)
        while True:
            target = folder / f"result_{number}.txt"
            try:
                target.hardlink_to(file.name)
            except FileExistsError:
                number += 1
            else:
                return target
    finally:
        Path(file.name).unlink()


def _index(into: Path) -> dict[str, dict[str, Any]]:
    files = sorted(into.glob("*/*/result_*.txt"), key=natural) if into.is_dir() else []
    return {file.relative_to(into).as_posix(): _entry(read(file)) for file in files}


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
        runs = json.loads((into / INDEX).read_text(encoding="utf-8"))["runs"]
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
