"""The two arms of a comparison: which logs, on which hosts, in which blocks; and which of them are no runs to compare."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.results import telemetry
from harness.results.logfile import read
from harness.results.record import RunRecord
from harness.results.series import find_logs
from harness.results.telemetry import Telemetry

NAMES = ("A", "B")
# Beginnings of run_stop's reason with which a run of this harness has done all its work, its target met or not
DONE = ("steps spent", "epochs spent")
DRIVER = ("driver", "driver_flavour", "libcuda_version", "nvml")  # of `software`; what a change of driver changes


@dataclass(frozen=True)
class Run:
    """One log in an arm."""

    record: RunRecord
    arm: int  # 0 is A, the baseline; 1 is B, the candidate

    @cached_property
    def telemetry(self) -> Telemetry | None:
        return telemetry.beside(self.record)

    @property
    def name(self) -> str:
        path = Path(self.record.path)
        return f"{path.parent.name}/{path.name}"

    @property
    def own(self) -> bool:
        """Whether this harness wrote the log."""
        return self.record.configuration_sha256 is not None

    @cached_property
    def gpus(self) -> tuple[dict[str, Any], ...]:
        found = self.record.hardware.get("gpus")
        return tuple(gpu for gpu in found if isinstance(gpu, dict)) if isinstance(found, list) else ()

    @cached_property
    def host(self) -> str:
        """By which runs of one machine are found: its GPUs' UUIDs, else what else its log says of it.

        Two machines without GPUs that are alike in everything count as one.
        """
        uuids = sorted(str(gpu["uuid"]) for gpu in self.gpus if gpu.get("uuid"))
        if uuids:
            return uuids[0] if len(uuids) == 1 else f"{len(uuids)} GPUs {_short(uuids)}"
        record = self.record
        keys = ("host", "cpu", "sockets", "cores", "threads", "usable_threads", "memory_gib", "accelerators")
        known = [str(record.hardware[key]) for key in keys if record.hardware.get(key) not in (None, [])]
        if known:
            return f"{record.hardware.get('cpu') or 'machine'} {_short(known)}"
        return " ".join(each for each in (record.org, record.platform) if each) or "not stated"

    @property
    def driver(self) -> tuple[str, ...] | None:
        """What the log says of the driver; None where it says nothing or there is none."""
        software = self.record.software
        found = tuple(str(software.get(key, "")) for key in DRIVER)
        firmware = tuple(sorted({str(gpu.get("gsp_firmware", "")) for gpu in self.gpus}))
        return (*found, *firmware) if any(each not in ("", "none") for each in found) else None


def find(words: str, arm: int) -> list[Run]:
    """The runs of a path or glob; several with commas. ValueError where there is no log."""
    paths: list[Path] = []
    for word in words.split(","):
        matched = [word]
        if glob.has_magic(word):
            matched = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matched:
            raise ValueError(f"{NAMES[arm]}: nothing matches {word}; quote a glob so that the shell does not expand it")
        paths += [log for match in matched for log in find_logs(Path(match))]
    if not paths:
        raise ValueError(f"{NAMES[arm]}: no result log under {words}; name a folder with result_*.txt, or logs")
    return [Run(_read(path), arm) for path in dict.fromkeys(path.resolve() for path in paths)]


def check_apart(runs: Sequence[Run]) -> None:
    """ValueError where a log, or a copy of it, is there twice: it would count as two runs."""
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.record.sha256, run)
        if other is not run and run.record.events:
            where = f"both {NAMES[0]} and {NAMES[1]}" if other.arm != run.arm else NAMES[run.arm]
            raise ValueError(
                f"the same log is in {where}: {other.record.path} and {run.record.path}; a run counts once. "
                "Take one of them out"
            )


@dataclass(frozen=True)
class Invalid:
    """A run that no figure may be taken from, and why."""

    run: Run
    reason: str


def invalid(runs: Iterable[Run]) -> list[Invalid]:
    """Every run that is none: it did not finish its work, or its clocks contradict each other."""
    return [Invalid(run, reason) for run in runs if (reason := _why_invalid(run))]


def _why_invalid(run: Run) -> str:
    record = run.record
    if record.outcome in ("empty", "invalid", "unfinished"):
        return record.reason
    if record.outcome == "aborted" and run.own and not record.reason.startswith(DONE):
        return f"it did not finish its work: {record.reason}"
    if record.resumed_from_epoch is not None:
        return f"it was resumed from a checkpoint after epoch {record.resumed_from_epoch}: no timed run"
    if record.clock_was_set and record.run_ms is not None:
        return (
            f"its clocks disagree: {record.run_ms / 1000:.3f} s from run_start to run_stop by the wall clock, "
            f"{record.monotonic_s:.3f} s by the monotonic one; somebody set the clock, or edited the log"
        )
    return ""


def ordered(runs: Iterable[Run]) -> list[Run]:
    """By the time at which they started; those without one last."""
    return sorted(runs, key=lambda run: (run.record.run_start_s is None, run.record.run_start_s or 0.0))


def blocks(runs: Sequence[Run]) -> dict[int, int]:
    """Each run's block, by its index: runs of a host between which the arm did not change.

    Only where the arms differ in their driver: changing it takes a reboot that may shift all runs up to the next, so blocks are
    what was repeated. Where runs of two images or configurations alternate freely, each is a block of its own: all 0 here.
    """
    drivers = [{run.driver for run in runs if run.arm == arm} for arm in (0, 1)]
    if drivers[0] == drivers[1] or any(run.record.run_start_s is None for run in runs):
        return dict.fromkeys(range(len(runs)), 0)
    found: dict[int, int] = {}
    last: dict[str, tuple[int, int]] = {}  # host -> arm, number of its block
    for index in sorted(range(len(runs)), key=lambda i: runs[i].record.run_start_s or 0.0):
        run = runs[index]
        arm, number_ = last.get(run.host, (run.arm, 0))
        number_ += arm != run.arm
        last[run.host] = (run.arm, number_)
        found[index] = number_
    return found


def _read(path: Path) -> RunRecord:
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def _short(words: Iterable[str]) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:8]
