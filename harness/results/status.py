"""The state of runs in one table, as mll-status showed it to submitters: a line a log, live on one still being written."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import outside
from harness.results import slowest
from harness.results.by_rules import images_per_s, shortfall
from harness.results.logfile import PIECE, LogReader, unreadable
from harness.results.record import RunRecord
from harness.results.series import Series
from harness.results.table import figure
from harness.rules import rules_for

COLUMNS = (
    *("run", "gpus", "batch", "total", "converged", "now", "images/s", "init", "first epoch", "mean epoch"),
    "epoch/seconds/quality ...",
)
FIGURES = (*COLUMNS[1:4], *COLUMNS[6:10])
AHEAD_S = 10.0  # by which another machine's clock may be ahead that writes the log
EVERY_S = 2.0  # logs that are followed are looked at


class Followed:
    """One log, read as far as it goes; `refresh` reads what has been added. What cannot be read is a run that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_again()

    def refresh(self) -> RunRecord:
        try:
            return self._refresh()
        except (OSError, outside.Refused) as error:
            return unreadable(self.path, error)

    def _refresh(self) -> RunRecord:
        if self.path.stat().st_size < self._read:  # written from scratch
            self._start_again()
        with outside.opened(self.path, outside.LOG_LIMIT) as file:
            file.seek(self._read)
            while piece := file.read(PIECE):
                self._reader.feed(piece)
                self._read += len(piece)
        return self._reader.record(final=False)

    def _start_again(self) -> None:
        self._reader = LogReader(str(self.path))
        self._read = 0


def short_names(records: Sequence[RunRecord]) -> dict[str, str]:
    """Each log's path without the folders that all of them share."""
    paths = [Path(record.path).absolute() for record in records]
    shared = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return {record.path: path.relative_to(shared).as_posix() for record, path in zip(records, paths, strict=True)}


def rows(records: Sequence[RunRecord]) -> list[list[str]]:
    names = short_names(records)
    return [row(record, names[record.path]) for record in records]


def row(record: RunRecord, name: str) -> list[str]:
    """Seconds, except for the words in the columns converged and now."""
    facts = as_json(record)
    evaluations = [
        f"{figure(each['epoch'])} {figure(each['seconds'], 1)} {figure(each['accuracy'], 4)}"
        for each in facts["evaluations"]
    ]
    return [
        name,
        figure(facts["gpus"]),
        figure(facts["batch"]),
        figure(facts["total_s"], 1),
        "not yet" if facts["outcome"] == "unfinished" else facts["converged"],
        _now(facts),
        figure(facts["images_per_s"]),
        figure(facts["init_s"], 1),
        figure(facts["first_epoch_s"], 2),
        figure(facts["mean_epoch_s"], 2),
        " | ".join(evaluations),
    ]


def _now(facts: Mapping[str, Any]) -> str:
    """Where a run is that goes on: epoch and step, how long ago it last wrote, and when it evaluates next."""
    if facts["outcome"] != "unfinished":
        return ""
    where = [f"epoch {facts['epoch']:g}" if facts["epoch"] is not None else "no epoch yet"]
    if facts["step"] is not None:
        where.append(f"step {facts['step']:,}")
    if facts["last_line_age_s"] is not None:
        where.append(f"wrote {_ago(facts['last_line_age_s'])} ago")
    if (slowest := facts["slowest_rank"]) is not None:
        where.append(f"slowest rank {slowest['rank']} on {slowest['host']}, {slowest['times']:.2f} times the median")
    if (due := facts["next_evaluation"]) is not None:
        when = "" if due["due_s"] is None else f" in {_ago(due['due_s'])}"
        where.append(f"evaluates after epoch {due['epoch']}{when}")
    return ", ".join(where)


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def as_json(record: RunRecord, now_s: float | None = None) -> dict[str, Any]:
    """The same as plain values. `total_s` of a run that goes on is up to its last line that starts or stops something."""
    rules = rules_for(record.benchmark, record.ruleset)
    seconds = [each.seconds for each in record.epochs if each.seconds is not None]
    later = [each.seconds for each in record.epochs[1:] if each.seconds is not None] or seconds  # without the warm-up
    progress, now_s = record.progress, time.time() if now_s is None else now_s
    going_on = record.outcome == "unfinished"
    last = record.last_event_s
    epoch = record.epochs[-1].number if record.epochs else None
    return {
        "file": record.path,
        "outcome": record.outcome,
        "converged": shortfall(record, rules) or "yes",
        # of a log whose every rank logs nothing, the description that lies beside it tells
        "gpus": Series("", Path(record.path).parent, (record,)).accelerators,
        "batch": record.global_batch_size,
        "total_s": record.run_ms / 1000 if record.run_ms is not None else _so_far(record),
        "epoch": epoch,
        "step": progress.step if progress is not None and progress.epoch == epoch else None,
        "images_per_s": progress.images_per_s if progress is not None and going_on else images_per_s(record, rules),
        "last_line_age_s": _age(last, now_s) if going_on else None,
        # now: of the last epoch that has ended; afterwards of the whole run
        "slowest_rank": _slowest(record, going_on=going_on),
        "next_evaluation": _next_evaluation(record, epoch, later, now_s) if going_on else None,
        "init_s": record.init_seconds,
        "first_epoch_s": record.epochs[0].seconds if record.epochs else None,
        "mean_epoch_s": statistics.mean(later) if later else None,
        "epochs": len(seconds),
        "evaluations": [
            {"epoch": each.epoch, "seconds": each.seconds, "accuracy": each.accuracy} for each in record.evaluations
        ],
        "problems": record.problem_count,
    }


def _age(last_s: float | None, now_s: float) -> float | None:
    """None where the log is ahead of this clock, as of one set back: 0 would be a run that writes, also if it hangs."""
    return None if last_s is None or last_s > now_s + AHEAD_S else max(0.0, now_s - last_s)


def _slowest(record: RunRecord, *, going_on: bool) -> dict[str, Any] | None:
    told = [each.slowest for each in record.epochs if each.slowest is not None]
    found = slowest.of_run(told[-1:]) if going_on else record.slowest_rank
    return None if found is None else asdict(found)


def _next_evaluation(
    record: RunRecord, epoch: float | None, seconds: Sequence[float], now_s: float
) -> dict[str, Any] | None:
    """After which epoch our configuration has the next one, and in how many seconds, by the epochs so far."""
    run = record.configuration.get("run")
    after = run.get("evaluate_after_epochs") if isinstance(run, dict) else None
    done = {each.epoch for each in record.evaluations if each.at_s is not None}
    wanted = [each for each in after if isinstance(each, int) and each not in done] if isinstance(after, list) else []
    following = next((each for each in wanted if each >= (epoch or 1)), None)
    if following is None:
        return None
    running = record.epochs[-1] if record.epochs else None
    begun_s = running.start_s if running is not None else None
    if not seconds or begun_s is None or _age(begun_s, now_s) is None:
        return {"epoch": following, "due_s": None}
    end = begun_s + statistics.mean(seconds) * (following - (epoch or 1) + 1)
    return {"epoch": following, "due_s": max(0.0, end - now_s)}


def _so_far(record: RunRecord) -> float | None:
    if record.run_start_s is None:
        return None
    spans = [(each.start_s, each.seconds) for each in record.epochs]
    spans += [(each.start_s, each.seconds) for each in record.evaluations]
    ends = [start + (seconds or 0) for start, seconds in spans if start is not None]
    return max([record.run_start_s, *ends]) - record.run_start_s


def follow(paths: Sequence[Path], show: Callable[[list[RunRecord]], None], *, stop: Callable[[], bool]) -> None:
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
        time.sleep(EVERY_S)


def exit_code(records: Sequence[RunRecord]) -> int:
    """1 when a run has ended without its target or a file is no log; a run that goes on is no failure."""
    going_on = [record for record in records if record.outcome == "unfinished"]
    done = [record for record in records if record.outcome != "unfinished"]
    return int(not (done or going_on) or any(shortfall(each, rules_for(each.benchmark, each.ruleset)) for each in done))
