"""What one timed run left behind, as plain values: the record that score, check, report and regression share.

Everything is as the log says it, found or None; nothing is judged here but `outcome`. Times of day are Unix seconds;
`seconds` and `minutes` are durations. A RunRecord is made by logfile.py from a log alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from harness import clocks
from harness.results import slowest
from harness.results.lines import Problem
from harness.results.parts import Block, Entry, Epoch, Evaluation, Progress
from harness.results.said import Said, number
from harness.results.slowest import SlowestRank
from harness.rules import Rules, rules_for

Outcome = Literal["success", "aborted", "unfinished", "invalid", "empty"]


@dataclass(frozen=True)
class RunRecord(Said):
    """One log."""

    path: str
    sha256: str
    size_bytes: int
    lines: int
    events: int  # marked lines that could be read
    dialect: str | None  # "mllog", "0.6", "0.5"; None without any
    line_benchmark: str | None  # what v0.5 says in every line
    ruleset: str | None  # what the log says or, failing that, what its keys suggest
    ruleset_is_guess: bool

    outcome: Outcome
    reason: str  # why it is not a success; empty for one

    ranks: int  # init_start lines: one a rank by custom, copies of whole lines left out (see `copies`)
    init_start_s: float | None
    init_stop_s: float | None
    run_start_s: float | None
    run_stop_s: float | None
    run_ms: float | None  # run_start to run_stop, whatever the outcome; exact; None where they are out of order

    seeds: tuple[int, ...]  # distinct, in order
    epochs: tuple[Epoch, ...]
    blocks: tuple[Block, ...]
    evaluations: tuple[Evaluation, ...]  # in the order of their lines
    entries: Mapping[str, Entry]
    problems: tuple[Problem, ...]  # the first PROBLEM_LIMIT
    problem_count: int
    malformed_count: int = 0
    tensors: tuple[str, ...] = field(default=(), repr=False)  # of weights_initialization, in order
    monotonic_s: float | None = None  # run_start to run_stop by a clock that nobody can set, as run_stop says
    # The most by which the clock of the stamps was ahead of that one meanwhile, as run_stop says
    wall_ahead_s: float = 0.0
    copies: int = 1  # how often each line is there, as a tee and a logger leave them
    # Whether each init_start line is there an even number of times: ranks that began in one millisecond, or lines logged twice
    ranks_in_doubt: bool = False
    progress: Progress | None = None  # of a run that logs within an epoch: the last of it
    last_event_s: float | None = None  # the latest stamp, of a clock that was set back since then

    @cached_property
    def epoch_samples(self) -> int | None:
        """Samples of one epoch, by the rules that the log was made for."""
        return self.epoch_samples_by(rules_for(self.benchmark, self.ruleset))

    def epoch_samples_by(self, rules: Rules) -> int | None:
        """Of our own logs those that an epoch trains on; MLPerf counts all of the data set, whoever trains on whole batches.

        With what is left over, 1,000 images in batches of 256 would be 30 % more images a second than were trained. A log
        from before `steps_per_epoch` was in it is of whole batches.
        """
        samples, batch = rules.epoch_samples(self.train_samples, self.global_batch_size), self.global_batch_size
        if self.configuration_sha256 is None or not samples or not batch or batch < 1:
            return samples
        return min(samples, batch * max(1, self.integer("steps_per_epoch") or samples // batch))

    # How long

    @property
    def minutes(self) -> float | None:
        """run_start to run_stop, whatever the outcome; None where either lacks."""
        return None if self.run_ms is None else self.run_ms / 60 / 1000  # in this order, as MLPerf's summarizer does

    @property
    def clock_was_set(self) -> str:
        """How the wall clock contradicts the monotonic one, which nobody sets, in words: the minutes, or the stamps between,
        are not the run's. Empty where they differ by no more than stamping and drift do.
        """
        if self.run_ms is None:
            return ""
        took_s = self.run_ms / 1000
        steady_s = took_s if self.monotonic_s is None else self.monotonic_s
        if clocks.contradict(took_s - steady_s, steady_s):
            return f"{took_s:.3f} s by the wall clock, {steady_s:.3f} s by the monotonic one"
        if clocks.contradict(self.wall_ahead_s, steady_s):
            return f"the wall clock was {self.wall_ahead_s:+.3f} s ahead of the monotonic one on the way"
        return ""

    @property
    def paused_s(self) -> float:
        """Of the run's time, for how long a rank of it was stopped or frozen, as run_stop says; 0 where none was."""
        entry = self.entries.get("run_stop")
        return max(0.0, number(entry.metadata.get("paused_s")) or 0.0) if entry is not None else 0.0

    @property
    def paused(self) -> str:
        """The same in words; empty where none was."""
        return f"its time holds a pause of {self.paused_s:.1f} s" if self.paused_s else ""

    @property
    def before_mlperf(self) -> bool:
        """Whether its run_start is stamped so; see clocks."""
        return self.run_start_s is not None and clocks.before_mlperf(self.run_start_s)

    @property
    def in_init(self) -> bool:
        """Whether the log ends before its run_start: of a run that is about to begin, or that ended before it did.

        Of one that trained, or has lines that cannot be read, a run_start was there or may have been.
        """
        trained = self.epochs or self.blocks or self.evaluations
        unknown = trained or self.malformed_count or "run_start" in self.entries
        return self.outcome in ("unfinished", "invalid") and not unknown

    @property
    def backwards(self) -> str:
        """The first epoch, block or evaluation that is stamped to stop before it starts, in words; empty where none is."""
        named = (
            *((f"epoch {each.number:g}", each.backwards) for each in self.epochs),
            *((f"the block in line {each.line}", each.backwards) for each in self.blocks),
            *((f"the evaluation in line {each.line}", each.backwards) for each in self.evaluations),
        )
        return next((name for name, backwards in named if backwards), "")

    @property
    def init_ahead_s(self) -> float:
        """By how much the clock of the stamps went on more than init took, as init_stop says: 0 where nobody set it."""
        entry = self.entries.get("init_stop")
        return (number(entry.metadata.get("wall_ahead_s")) or 0.0) if entry is not None else 0.0

    @property
    def init_seconds(self) -> float | None:
        """By the stamps, or where the clock was set meanwhile, as init_stop says. None where one lacks, or out of order."""
        entry = self.entries.get("init_stop")
        if entry is not None and self.init_ahead_s:
            return number(entry.metadata.get("monotonic_s"))
        if self.init_start_s is None or self.init_stop_s is None or self.init_stop_s < self.init_start_s:
            return None
        return self.init_stop_s - self.init_start_s

    @cached_property
    def counted_epoch_seconds(self) -> tuple[float, ...]:
        """Of each epoch, the first left out where there is another: it pays for caches and warm-up."""
        times = [each.seconds for each in self.epochs if each.seconds]
        return tuple(times[1:] or times)

    @cached_property
    def epoch_seconds(self) -> float | None:
        """The median epoch of those that count."""
        return median(self.counted_epoch_seconds) or median(
            each.seconds / each.epoch_count
            for each in self.blocks
            if each.seconds and each.epoch_count and each.epoch_count >= 1
        )

    @property
    def images_per_s(self) -> float | None:
        """Images of an epoch by the median epoch's time; of a run that --max-steps ended in its first one, as logged."""
        if self.max_steps is not None and self.epochs and self.epoch_seconds is None:
            return self.epochs[0].throughput
        if not self.epoch_samples or not self.epoch_seconds:
            return None
        return number(self.epoch_samples / self.epoch_seconds)

    @cached_property
    def cut_runs_an_epoch(self) -> float | None:
        """How many runs of these steps an epoch's steps are, where --max-steps ended the run in its first epoch; else None."""
        if self.max_steps is None or self.epoch_seconds is not None or not self.epochs:
            return None
        samples = self.max_steps * (self.global_batch_size or 0)
        return self.epoch_samples / samples if self.epoch_samples and samples > 0 else None

    @cached_property
    def phases(self) -> Mapping[str, float]:
        """Seconds of each phase in the mean epoch that has it, the first left out where there is another; {} of a log without.

        Of a run that --max-steps ended in its first epoch those of as many steps as an epoch has, as `images_per_s` is of it.
        What a log says of phases outside any epoch (of init, say) is taken as it is.
        """
        told = [each.phases for each in self.epochs if each.phases]
        whole = [each.phases for each in self.epochs if each.phases and each.seconds is not None]
        counted = whole[1:] or whole or told
        times = self.cut_runs_an_epoch or 1.0
        found = {}
        for name in dict.fromkeys(name for each in counted for name in each):
            seconds = [each[name] for each in counted if name in each]  # not every epoch is evaluated
            found[name] = times * sum(seconds) / len(seconds)
        entry = self.entries.get("phase_seconds")
        if entry is not None and "epoch_num" not in entry.metadata:
            found |= seconds_by_name(entry.value)
        return found

    @cached_property
    def slowest_rank(self) -> SlowestRank | None:
        """None for a run of one rank."""
        return slowest.of_run(each.slowest for each in self.epochs)

    @cached_property
    def counted_evaluations(self) -> tuple[Evaluation, ...]:
        """Those with a result that was logged before the run stopped, in that order; some runs go on after it."""
        done = [each for each in self.evaluations if each.accuracy is not None and self.in_time(each)]
        return tuple(sorted(done, key=lambda each: each.order))

    def in_time(self, evaluation: Evaluation) -> bool:
        """Whether its result stands before run_stop, by its line and by its stamp: stamped alike is in time.

        MLPerf's tools go by lines alone, so a run_stop that is stamped too early would be a shorter run. No published result
        needs it: all of them were logged first and stamped first.
        """
        stop = self.entries.get("run_stop")
        if stop is not None and evaluation.order >= stop.order:
            return False
        return self.run_stop_s is None or evaluation.at_s is None or evaluation.at_s <= self.run_stop_s

    @property
    def last_evaluation(self) -> Evaluation | None:
        return self.counted_evaluations[-1] if self.counted_evaluations else None

    @property
    def accuracy(self) -> float | None:
        return self.last_evaluation.accuracy if self.last_evaluation else None

    @property
    def epochs_run(self) -> int | float | None:
        """The epoch of the last evaluation: what MLPerf counts as epochs to converge."""
        return self.last_evaluation.epoch if self.last_evaluation else None

    def reached(self, target: float) -> bool:
        """A fraction's target is not reached by 23 (percent)."""
        limit = 1.0 if target <= 1 else math.inf
        return any(target <= each.accuracy <= limit for each in self.counted_evaluations if each.accuracy is not None)

    # What ran where

    @cached_property
    def accelerators(self) -> int | None:
        """As our configuration says, else by the batch of each, else the ranks that logged init_start.

        One rank says nothing: one process can drive many accelerators, as on a TPU.
        """
        return self._accelerators_said or (self.ranks if self.ranks > 1 else None)

    @property
    def accelerators_in_doubt(self) -> bool:
        """Whether they are counted by lines that may be there twice."""
        return self.ranks_in_doubt and self._accelerators_said is None

    @property
    def _accelerators_said(self) -> int | None:
        if self.accelerators_configured:
            return self.accelerators_configured
        each_batch = self.integer("d_batch_size")
        if each_batch and self.global_batch_size and self.global_batch_size % each_batch == 0:
            return self.global_batch_size // each_batch
        return None


def seconds_by_name(value: Any) -> dict[str, float]:
    """A table of durations as logged, without what is none."""
    if not isinstance(value, dict):
        return {}
    found = ((str(name), number(seconds)) for name, seconds in value.items())
    return {name: seconds for name, seconds in found if seconds is not None and seconds >= 0}


def median(values: Iterable[float | None]) -> float | None:
    """Of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
