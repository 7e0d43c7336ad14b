"""What of a run starts and stops (the run itself, epochs, blocks, evaluations), gathered while its log is read.

Ranks may repeat lines: the first of each counts. Nothing here grows without bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.results import slowest
from harness.results.lines import Event, Problem
from harness.results.parts import Block, Epoch, Evaluation
from harness.results.record import Outcome, seconds_by_name
from harness.results.said import number
from harness.results.slowest import Slowest

KEEP_LIMIT = 10_000  # epochs, blocks, evaluations of one log; the longest known has 128 epochs


@dataclass(slots=True)
class Span:
    """Something that starts and stops, while it is read."""

    number: int | float | None
    line: int
    count: int | float | None = None
    start_s: float | None = None
    stop_s: float | None = None
    value: float | None = None
    at_s: float | None = None
    order: int = 0
    throughput: float | None = None
    data_wait_share: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    slowest: Slowest | None = None

    @property
    def seconds(self) -> float | None:
        """None where it has no end, or one that is stamped before its start."""
        return None if self.start_s is None or self.stop_s is None or self.backwards else self.stop_s - self.start_s

    @property
    def backwards(self) -> bool:
        return self.start_s is not None and self.stop_s is not None and self.stop_s < self.start_s

    def start(self, event: Event) -> None:
        self.start_s = event.time_ms / 1000 if self.start_s is None else self.start_s

    def stop(self, event: Event) -> None:
        self.stop_s = event.time_ms / 1000 if self.stop_s is None else self.stop_s


class Clock:
    """run_start and run_stop: the earliest of each, and every reason to doubt them."""

    def __init__(self) -> None:
        self.start: Event | None = None
        self.stop: Event | None = None
        self._first_stop_line = 0
        self._not_success: Event | None = None  # the first run_stop with another status
        self._late_start_line = 0  # of a run_start after a run_stop
        self._unread: Problem | None = None  # the first line that could not be read and may be a run_stop

    def on(self, event: Event) -> None:
        if event.key == "run_start":
            if self.stop is not None:
                self._late_start_line = self._late_start_line or event.line
            if self.start is None or event.time_ms < self.start.time_ms:
                self.start = event
            return
        self._first_stop_line = self._first_stop_line or event.line
        if _status(event) != "success" and self._not_success is None:
            self._not_success = event
        if self.stop is None or event.time_ms < self.stop.time_ms:
            self.stop = event

    def on_unread(self, problem: Problem) -> None:
        if problem.could_be_end and self._unread is None:
            self._unread = problem

    @property
    def monotonic_s(self) -> float | None:
        return number(self.stop.metadata.get("monotonic_s")) if self.stop is not None else None

    @property
    def wall_ahead_s(self) -> float:
        """0 where run_stop does not say it, as where nobody set a clock."""
        return (number(self.stop.metadata.get("wall_ahead_s")) or 0.0) if self.stop is not None else 0.0

    def outcome(self) -> tuple[Outcome, str]:
        """What the log proves, and why it is not a success."""
        start, stop, bad = self.start, self.stop, self._not_success
        verdict: tuple[Outcome, str] = ("success", "")
        if start is None:
            verdict = ("invalid", "run_stop without run_start") if stop else ("unfinished", "the run has not started")
        elif stop is None:
            verdict = ("unfinished", "no run_stop: the run goes on, or was killed")
        elif self._late_start_line:
            verdict = (
                "invalid",
                f"run_start (line {self._late_start_line}) after run_stop (line {self._first_stop_line}): "
                "out of order, or more than one run in this file",
            )
        elif stop.time_ms < start.time_ms:
            verdict = ("invalid", "run_stop is stamped before run_start")
        elif bad is not None and _status(bad) is None:
            verdict = ("invalid", "run_stop has no metadata.status")
        elif bad is not None:
            why = bad.metadata.get("reason")
            verdict = ("aborted", why if isinstance(why, str) and why else f"run_stop has status {_status(bad)}")
        elif self._unread is not None:
            where = f"line {self._unread.line} cannot be read and may be a run_stop"
            verdict = ("invalid", f"{where}: {self._unread.text}")
        return verdict


class Timeline:
    """Epochs, blocks and evaluations, each by its number."""

    def __init__(self) -> None:
        self._epochs: dict[Any, Span] = {}
        self._blocks: dict[Any, Span] = {}
        self._evaluations: dict[Any, Span] = {}
        self._epoch: Span | None = None  # that runs now
        self._evaluation: Span | None = None
        self._full: set[str] = set()
        self.order = 0  # of the event that is taken

    def on(self, event: Event) -> Problem | None:
        """Take one event of keys epoch_*, block_*, eval_*, or of what is logged once an epoch."""
        part = event.key.split("_")[0]
        if part == "epoch":
            return self._on_epoch(event)
        if part == "block":
            return self._on_block(event)
        if part == "eval":
            return self._on_evaluation(event)
        self._on_epoch_value(event)
        return None

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        return tuple(
            Epoch(
                *(each.number or 0, each.line, each.start_s, each.seconds),
                *(each.throughput, each.data_wait_share, each.loss),
                phases=each.phases,
                slowest=each.slowest,
                backwards=each.backwards,
            )
            for each in self._epochs.values()
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(
            Block(each.number, each.count, each.line, each.start_s, each.seconds, each.backwards)
            for each in self._blocks.values()
        )

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(
            Evaluation(
                *(each.number, each.line, each.start_s, each.seconds),
                *(each.value, each.at_s, each.order, each.backwards),
            )
            for each in self._evaluations.values()
        )

    def _span(self, kept: dict[Any, Span], key: Any, event: Event) -> Span | Problem | None:
        """The span of this key, made where it is new; a Problem, once, where there is no more room."""
        if key in kept:
            return kept[key]
        if len(kept) < KEEP_LIMIT:
            kept[key] = Span(key if not isinstance(key, tuple) else None, event.line)
            return kept[key]
        if event.key in self._full:
            return None
        self._full.add(event.key)
        return Problem(event.line, "limit", f"{event.key}: more than {KEEP_LIMIT}; the rest is not kept")

    def _on_epoch(self, event: Event) -> Problem | None:
        epoch = _epoch_number(event)
        if epoch is None:
            return Problem(event.line, "incomplete", f"{event.key} without metadata.epoch_num")
        span = self._span(self._epochs, epoch, event)
        if not isinstance(span, Span):
            return span
        if event.key == "epoch_start":
            span.start(event)
            self._epoch = span
        elif event.key == "epoch_stop":
            span.stop(event)
        return None

    def _on_block(self, event: Event) -> Problem | None:
        span = self._span(self._blocks, _plain_number(event.metadata.get("first_epoch_num")), event)
        if not isinstance(span, Span):
            return span
        if event.key == "block_start":
            span.count = span.count or _plain_number(event.metadata.get("epoch_count"))
            span.start(event)
        elif event.key == "block_stop":
            span.stop(event)
        return None

    def _on_evaluation(self, event: Event) -> Problem | None:
        epoch = _epoch_number(event)
        key: Any = epoch
        if epoch is None:  # what has no number belongs to the evaluation that runs, or is one of its own
            part = {"eval_start": "start_s", "eval_stop": "stop_s"}.get(event.key, "at_s")
            running = self._evaluation
            key = (running.line if running and getattr(running, part) is None else event.line,)
        span = self._span(self._evaluations, key, event)
        if not isinstance(span, Span):
            return span
        self._evaluation = span
        if event.key == "eval_start":
            span.start(event)
        elif event.key == "eval_stop":
            span.stop(event)
        elif span.at_s is None:
            span.value, span.at_s, span.order = number(event.value), event.time_ms / 1000, self.order
            if epoch is not None:  # without an epoch its line is its key
                span.line = event.line
        elif number(event.value) != span.value:
            text = f"eval_accuracy of epoch {epoch} is {event.value!r:.40} here but {span.value} in line {span.line}"
            return Problem(event.line, "conflict", text)
        return None

    def _on_epoch_value(self, event: Event) -> None:
        """What belongs to an epoch: the one it names, else the one that runs."""
        epoch = _epoch_number(event)
        span = self._epochs.get(epoch) if epoch is not None else self._epoch
        if span is None:
            return
        if event.key == "tracked_stats":
            loss = number(event.value.get("loss")) if isinstance(event.value, dict) else None
            span.loss = loss if loss is not None else span.loss
        elif event.key == "throughput":
            span.throughput = number(event.value)
        elif event.key == "data_wait_share":
            span.data_wait_share = number(event.value)
        elif event.key == "phase_seconds":
            span.phases |= seconds_by_name(event.value)
        elif event.key == "step_ms_by_rank":
            span.slowest = slowest.read(event.value)


def _status(event: Event) -> str | None:
    status = event.metadata.get("status")
    return status if isinstance(status, str) else None


def _epoch_number(event: Event) -> int | float | None:
    return _plain_number(event.metadata.get("epoch_num"))


def _plain_number(value: Any) -> int | float | None:
    """Epochs are counted in whole numbers by nearly all, in fractions by some, and by some as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    found = number(value)
    return int(found) if found is not None and found == int(found) else found
