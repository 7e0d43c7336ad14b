"""Every run of a results folder as one small point for its history; read once, then kept in the cache.

The kept file is nothing but a shortcut: a log whose size or time of change is another is read again, and without it, or
where it cannot be written, all are. Nothing is written into the results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness import outside, whole
from harness.comparison.judging.metrics import MEAN, MEDIAN, METRICS
from harness.comparison.runs import ComparedRun, invalid
from harness.results.by_rules import rules_for, shortfall
from harness.results.logfile import read
from harness.results.series import find_logs

VERSION = 9
OF_A_DRIVER = ("driver", "libcuda", "nvml")  # beginnings of names of software that the driver's own name stands for
TELLABLE = ("driver", "commit", "libraries", "variables", "boot")
CACHE_LIMIT = 256 << 20  # bytes; a point has about two thousand


@dataclass(frozen=True)
class Point:
    """One run that did its work."""

    log: str
    sha256: str
    started: float  # Unix seconds
    benchmark: str
    system: str
    configuration: str
    work: str  # what makes two runs the same work: configuration, steps, whether there is an epoch after the first
    host: str
    driver: str  # in words; "" where the log tells none
    driver_version: str
    gpu: str  # "" on a CPU
    commit: str
    seconds_per_epoch: float  # the median epoch's
    mean_epoch_seconds: float  # which has epochs that stall now and then, as the median has not
    images_per_s: float | None
    joules_per_image: float | None
    whole: bool  # it met its target
    demonstration: bool
    boot: str = ""  # as ComparedRun.boot
    software: dict[str, str] = field(default_factory=dict)  # and variables, by name
    told: list[str] = field(default_factory=list)  # which of TELLABLE its log has


@dataclass(frozen=True)
class LeftOut:
    log: str
    reason: str


def gather(folders: Iterable[Path], cache: Path | None = None) -> tuple[list[Point], list[LeftOut]]:
    """All points under the folders, in the order of time, and the logs that gave none. ValueError for a folder not there.

    `cache` is a folder to keep them in.
    """
    points: dict[str, Point] = {}
    left_out: list[LeftOut] = []
    for folder in folders:
        shortcut = None
        if cache is not None:
            shortcut = cache / f"history-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
        kept = _kept(shortcut) if shortcut is not None else {}
        now: dict[str, dict[str, Any]] = {}
        said: list[str] = []
        for log in find_logs(folder, said.append):
            try:
                stat = log.stat()
                name, stamp = os.path.relpath(log, folder), [stat.st_size, stat.st_mtime_ns]
                entry = kept.get(name)
                if entry is None or entry.get("stamp") != stamp:
                    entry = {"stamp": stamp, **_read(log)}
            except (OSError, outside.Refused) as error:
                left_out.append(LeftOut(str(log), outside.why(log, error)))
                continue
            now[name] = entry
            if entry["point"] is None:
                left_out.append(LeftOut(str(log), entry["reason"]))
            else:
                point = Point(**{**entry["point"], "log": str(log)})
                points.setdefault(point.sha256, point)  # a log and its copy are one run
        left_out += [LeftOut(path, reason) for path, _, reason in (each.partition(": ") for each in said)]
        if shortcut is not None and now != kept:
            _keep(shortcut, now)
    return sorted(points.values(), key=lambda each: each.started), left_out


def _read(log: Path) -> dict[str, Any]:
    record = read(log)
    run = ComparedRun(record, 0)
    if bad := invalid([run]):
        return {"point": None, "reason": bad[0].reason}
    seconds, mean, started = METRICS[MEDIAN].value(run), METRICS[MEAN].value(run), record.run_start_s
    if seconds is None or mean is None or started is None or not seconds > 0:
        return {"point": None, "reason": "it tells no seconds an epoch, or not when it ran"}
    devices = record.hardware.get("accelerators")
    gpus = [str(name) for name in devices] if isinstance(devices, list) else []
    # a deterministic run is slower by itself
    work = [
        record.configuration_sha256 or record.global_batch_size,
        record.max_steps,
        record.value("deterministic") is True,
        # its time is the first's, which pays for caches and warm-up
        sum(bool(each.seconds) for each in record.epochs) == 1,
    ]
    libraries = [name for name in record.software if not name.startswith(OF_A_DRIVER)]
    told = (
        run.driver.present,
        record.commit and not record.of_no_commit,
        libraries,
        record.environment is not None,  # an older log has those of its collectives alone
        run.boot,
    )
    point = Point(
        log="",
        sha256=record.sha256,
        started=started,
        benchmark=record.benchmark or "unknown",
        system=record.platform or "unknown",
        configuration=record.configuration_name or f"batch {record.global_batch_size}",
        work=json.dumps(work),
        host=run.host,
        driver=str(run.driver) if run.driver.present else "",
        driver_version=run.driver.driver if run.driver.present else "",
        gpu=gpus[0] if gpus else "",
        commit=record.commit or "",
        seconds_per_epoch=seconds,
        mean_epoch_seconds=mean,
        images_per_s=record.images_per_s,
        joules_per_image=METRICS["joules_per_image"].value(run),
        whole=not shortfall(record, rules_for(record.benchmark, record.ruleset)) and record.max_steps is None,
        demonstration=record.demonstration,
        boot=run.boot,
        software={name: str(value) for name, value in {**record.software, **run.environment}.items()},
        told=[name for name, value in zip(TELLABLE, told, strict=True) if value],
    )
    return {"point": asdict(point), "reason": ""}


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    names = {each.name for each in fields(Point)}
    try:
        content = outside.read_json(path, CACHE_LIMIT)
        logs = content["logs"] if content["version"] == VERSION else {}
        return {
            str(name): entry
            for name, entry in logs.items()
            if entry["point"] is None or (set(entry["point"]) == names and isinstance(entry["point"]["started"], float))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(path: Path, logs: dict[str, dict[str, Any]]) -> None:
    with contextlib.suppress(OSError):  # without a cache all is read again each time
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole.replacing(path) as file:
            file.write(json.dumps({"version": VERSION, "logs": logs}).encode())
