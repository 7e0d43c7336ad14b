"""The state of runs in one table, as mll-status showed it to submitters: a line a log, live on one still being written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.results.logfile import PIECE, LogReader
from harness.results.record import RunRecord
from harness.results.rules import shortfall
from harness.results.table import figure
from harness.rules import rules_for

COLUMNS = ("file", "gpus", "batch", "total", "converged", "init", "first epoch", "mean epoch", "epoch/seconds/mAP ...")
FIGURES = COLUMNS[1:4] + COLUMNS[5:8]


class Followed:
    """One log, read as far as it goes; `refresh` reads what has been added. ValueError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_again()

    def refresh(self) -> RunRecord:
        try:
            return self._refresh()
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _refresh(self) -> RunRecord:
        if self.path.stat().st_size < self._read:  # written anew
            self._start_again()
        with self.path.open("rb") as file:
            file.seek(self._read)
            while piece := file.read(PIECE):
                self._reader.feed(piece)
                self._read += len(piece)
        return self._reader.record(final=False)

    def _start_again(self) -> None:
        self._reader = LogReader(str(self.path))
        self._read = 0


def row(record: RunRecord) -> list[str]:
    """Seconds, but for the converged column's words."""
    facts = as_json(record)
    evaluations = [
        f"{figure(each['epoch'])} {figure(each['seconds'], 1)} {figure(each['accuracy'], 4)}"
        for each in facts["evaluations"]
    ]
    return [
        record.path,
        figure(facts["gpus"]),
        figure(facts["batch"]),
        figure(facts["total_s"], 1),
        facts["converged"],
        figure(facts["init_s"], 1),
        figure(facts["first_epoch_s"], 2),
        figure(facts["mean_epoch_s"], 2),
        " | ".join(evaluations),
    ]


def as_json(record: RunRecord) -> dict[str, Any]:
    """The same as plain values. `total_s` of a run that goes on is up to its last line that starts or stops something."""
    why = shortfall(record, rules_for(record.benchmark, record.ruleset))
    seconds = [each.seconds for each in record.epochs if each.seconds is not None]
    return {
        "file": record.path,
        "outcome": record.outcome,
        "converged": why or "yes",
        "gpus": record.accelerators,
        "batch": record.global_batch_size,
        "total_s": record.run_ms / 1000 if record.run_ms is not None else _so_far(record),
        "init_s": record.init_seconds,
        "first_epoch_s": seconds[0] if seconds else None,
        "mean_epoch_s": statistics.mean(seconds[1:] or seconds) if seconds else None,
        "epochs": len(seconds),
        "evaluations": [
            {"epoch": each.epoch, "seconds": each.seconds, "accuracy": each.accuracy} for each in record.evaluations
        ],
        "problems": record.problem_count,
    }


def _so_far(record: RunRecord) -> float | None:
    if record.run_start_s is None:
        return None
    spans = [(each.start_s, each.seconds) for each in record.epochs]
    spans += [(each.start_s, each.seconds) for each in record.evaluations]
    ends = [start + (seconds or 0) for start, seconds in spans if start is not None]
    return max(ends, default=record.run_start_s) - record.run_start_s


def follow(
    paths: Sequence[Path], show: Callable[[list[RunRecord]], None], *, every_s: float = 2.0, stop: Callable[[], bool]
) -> None:
    """Show all logs, again whenever one has grown, until `stop` says so or none is unfinished."""
    logs = [Followed(path) for path in paths]
    sizes: list[int] = []
    while True:
        records = [log.refresh() for log in logs]
        if (now := [record.size_bytes for record in records]) != sizes:
            sizes = now
            show(records)
        if stop() or all(record.outcome not in ("unfinished", "empty") for record in records):
            return
        time.sleep(every_s)


def exit_code(records: Sequence[RunRecord]) -> int:
    """1 when a run has ended without its target or a file is no log; a run that goes on is no failure."""
    going_on = [record for record in records if record.outcome == "unfinished"]
    done = [record for record in records if record.outcome != "unfinished"]
    return int(not (done or going_on) or any(shortfall(each, rules_for(each.benchmark, each.ruleset)) for each in done))
