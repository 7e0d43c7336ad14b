"""Are the numbers of two deterministic runs equal to the bit; and if not, in which step, phase and tensor they first part.

Runs of one seed are held against each other, every pair of them: first within an arm, where nothing may differ, then A
against B. What is said to be equal is what every pair has.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from harness.comparison.runs import NAMES, ComparedRun, by_host
from harness.results.lines import Event, Scanner
from harness.results.said import number

PIECE = 1 << 20
STEP_LIMIT = 1_000_000  # of one log


@dataclass
class Numbers:
    """What a deterministic run's log says of its numbers."""

    log: str
    seed: int | None
    batch: dict[str, str] = field(default_factory=dict)  # tensor -> hash
    losses: list[float] = field(default_factory=list)  # step by step
    tensors: dict[int, dict[str, str]] = field(default_factory=dict)  # after a step -> tensor -> hash
    accuracies: dict[float, float] = field(default_factory=dict)  # epoch -> quality


@dataclass(frozen=True)
class Parting:
    """Where two runs first differ."""

    step: int
    phase: str  # data, forward and loss, backward or optimizer, evaluation
    tensor: str
    ulp: int | None  # of a loss in float32; None where only hashes are known
    more: int  # tensors that differ beside it

    def __str__(self) -> str:
        more = f" and {self.more} more tensors" if self.more else ""
        ulp = f", by {self.ulp:,} ULP" if self.ulp is not None else ""
        return f"first different at step {self.step}, in {self.phase}: {self.tensor}{more}{ulp}"


@dataclass(frozen=True)
class Bits:
    """The answer for all deterministic runs of a comparison."""

    text: str
    equal: bool | None  # None where it cannot be said


@dataclass(frozen=True)
class Extent:
    """How far two runs, or several pairs of them, could be held against each other."""

    batch: bool  # hashed in both
    steps: int  # whose losses both have
    hashed: frozenset[int]  # steps after which both have hashes of tensors
    evaluations: int

    @classmethod
    def of(cls, one: Numbers, other: Numbers) -> Extent:
        losses = zip(one.losses, other.losses, strict=False)
        steps = sum(not (math.isnan(a) or math.isnan(b)) for a, b in losses)
        hashed = {
            step for step in one.tensors.keys() & other.tensors.keys() if one.tensors[step] and other.tensors[step]
        }
        evaluations = len(one.accuracies.keys() & other.accuracies.keys())
        return cls(bool(one.batch and other.batch), steps, frozenset(hashed), evaluations)

    def __and__(self, other: Extent) -> Extent:
        """What both have: nothing is said of all pairs that one lacks."""
        return Extent(
            self.batch and other.batch,
            min(self.steps, other.steps),
            self.hashed & other.hashed,
            min(self.evaluations, other.evaluations),
        )

    def __bool__(self) -> bool:
        return bool(self.batch or self.steps or self.hashed or self.evaluations)

    def __str__(self) -> str:
        after = ", ".join(map(str, sorted(self.hashed)))
        parts = [
            "first batch" * self.batch,
            f"losses of {self.steps} step{'s' * (self.steps != 1)}" if self.steps else "",
            f"tensors after step{'s' * (len(self.hashed) != 1)} {after}" if after else "",
            f"{self.evaluations} evaluation{'s' * (self.evaluations != 1)}" if self.evaluations else "",
        ]
        return ", ".join(filter(None, parts))


def compare(runs: Sequence[ComparedRun]) -> Bits | None:
    """Every pair of one seed on one host: two GPUs may round alike and need not. None where no run is deterministic."""
    told = [
        [[read(run) for run in own if run.arm == arm and run.record.value("deterministic") is True] for arm in (0, 1)]
        for own in by_host(runs)
    ]
    if not any(any(arms) for arms in told):
        return None
    for arm, arms in itertools.product((0, 1), told):
        for first, other in _same_seed(arms[arm]):
            if (found := parting(first, other)) is not None:
                text = f"{NAMES[arm]} is not equal to itself ({first.log}, {other.log}): {found}"
                if arm and next(_same_seed(arms[0]), None):  # so one of these runs is unlike A's
                    return Bits(f"{text}; {NAMES[0]} is (seed {first.seed})", False)
                return Bits(f"{text}; nothing can be said of {NAMES[1]}", None)
    pairs = [
        (one, other)
        for arms in told
        for one in arms[0]
        for other in arms[1]
        if one.seed is not None and one.seed == other.seed
    ]
    if not pairs:
        return Bits("no two deterministic runs of one seed on one host, one in each arm", None)
    partings = [(found, one.seed) for one, other in pairs if (found := parting(one, other)) is not None]
    if partings:
        first_found, seed = min(partings, key=lambda each: each[0].step)
        of = f"seed {seed}; {len(partings)} of {len(pairs)} pairs of runs differ" if len(pairs) > 1 else f"seed {seed}"
        return Bits(f"not equal to the bit, {first_found} ({of})", False)
    told_of = {one.seed for one, _ in pairs if one.seed is not None}
    extents = [Extent.of(one, other) for one, other in pairs]
    extent = reduce(and_, extents)
    if not extent:
        bare = next((pair for pair, each in zip(pairs, extents, strict=True) if not each), pairs[0])
        logs = f"{bare[0].log} and {bare[1].log}"
        return Bits(
            f"nobody can say: {logs} have no losses, hashes or evaluations in common (seed {bare[0].seed})", None
        )
    alone = {each.seed for arms in told for own in arms for each in own if each.seed is not None} - told_of
    parts = [
        _seeds(told_of),
        f"{len(pairs)} pairs of runs" if len(pairs) > 1 else "",
        f"{_seeds(alone)} in one arm alone" if alone else "",
    ]
    return Bits(f"equal to the bit: {extent} ({', '.join(filter(None, parts))})", True)


def _seeds(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"seed{'s' * (len(found) != 1)} {', '.join(map(str, found))}"


def _same_seed(runs: Sequence[Numbers]) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of one arm's runs."""
    return (
        pair for pair in itertools.combinations(runs, 2) if pair[0].seed is not None and pair[0].seed == pair[1].seed
    )


def parting(one: Numbers, other: Numbers) -> Parting | None:
    """Where they first differ, as far as both go; None where they do not."""
    if found := _hashes(one.batch, other.batch):
        return Parting(1, "data", found[0], None, len(found) - 1)
    for step, (a, b) in enumerate(zip(one.losses, other.losses, strict=False), 1):
        if a != b and not (math.isnan(a) and math.isnan(b)):  # neither tells it
            return Parting(step, "forward and loss", "loss", ulp(a, b), 0)
        if found := _hashes(one.tensors.get(step, {}), other.tensors.get(step, {})):
            return Parting(step, "backward or optimizer", found[0], None, len(found) - 1)
    for epoch in sorted(set(one.accuracies) & set(other.accuracies)):
        if one.accuracies[epoch] != other.accuracies[epoch]:
            steps = min(len(one.losses), len(other.losses))
            return Parting(steps, "evaluation", f"quality after epoch {epoch:g}", None, 0)
    return None


def _hashes(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names whose hashes differ, in the order of the log; a tensor that one of them lacks differs too, where both have any."""
    if not one or not other:
        return []
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def ulp(a: float, b: float) -> int:
    """How many float32 numbers lie between two."""
    return abs(_ordered(a) - _ordered(b))


def _ordered(value: float) -> int:
    """float32's bits as a number that grows with it, through 0."""
    bits = int(struct.unpack("<i", struct.pack("<f", value))[0])
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def read(run: ComparedRun) -> Numbers:
    """ValueError where the log cannot be read again."""
    record = run.record
    found = Numbers(run.name, record.seeds[0] if record.seeds else None)
    scanner = Scanner()
    try:
        with Path(record.path).open("rb") as file:
            while piece := file.read(PIECE):
                for each in scanner.feed(piece):
                    if isinstance(each, Event):
                        _take(found, each)
    except OSError as error:
        raise ValueError(f"{record.path}: cannot be read: {error.strerror}") from error
    return found


def _take(found: Numbers, event: Event) -> None:
    value: Any = event.value
    if event.key == "tracked_stats" and isinstance(value, dict) and len(found.losses) < STEP_LIMIT:
        loss = number(value.get("loss"))
        found.losses.append(loss if loss is not None else float("nan"))
    elif event.key == "batch_sha256" and isinstance(value, dict):
        found.batch = {str(name): str(each) for name, each in value.items()}
    elif event.key == "tensor_sha256" and isinstance(value, dict):
        step = number(event.metadata.get("step"))
        if step is not None:
            found.tensors[int(step)] = {str(name): str(each) for name, each in value.items()}
    elif event.key == "eval_accuracy":
        epoch, quality = number(event.metadata.get("epoch_num")), number(value)
        if epoch is not None and quality is not None:
            found.accuracies[epoch] = quality
