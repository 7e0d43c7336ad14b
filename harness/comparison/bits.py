"""Are the numbers of two deterministic runs equal to the bit; and if not, in which step, phase and tensor they first part.

Runs of one seed are held against each other: first within an arm, where nothing may differ, then A against B.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.comparison.runs import NAMES, ComparedRun
from harness.results.lines import Event, Scanner
from harness.results.record import number

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
    parting: Parting | None = None


def compare(runs: Sequence[ComparedRun]) -> Bits | None:
    """None where no run is deterministic."""
    told = [read(run) for run in runs if run.record.value("deterministic") is True]
    if not told:
        return None
    arms = [
        [numbers for run, numbers in zip(_deterministic(runs), told, strict=True) if run.arm == arm] for arm in (0, 1)
    ]
    for arm, own in enumerate(arms):
        for first, other in _same_seed(own, own):
            if (found := parting(first, other)) is not None:
                text = (
                    f"{NAMES[arm]} is not equal to itself ({first.log}, {other.log}): {found}; nothing can be said of B"
                )
                return Bits(text, None, found)
    pairs = list(_same_seed(*arms))
    if not pairs:
        return Bits("no two deterministic runs of one seed, one in each arm", None)
    first, other = pairs[0]
    if (found := parting(first, other)) is not None:
        return Bits(f"not equal to the bit, {found} (seed {first.seed})", False, found)
    after = ", ".join(map(str, sorted(set(first.tensors) & set(other.tensors))))
    steps = min(len(first.losses), len(other.losses))
    text = f"equal to the bit: first batch, losses of {steps} steps, tensors after steps {after} (seed {first.seed})"
    return Bits(text, True)


def _deterministic(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    return [run for run in runs if run.record.value("deterministic") is True]


def _same_seed(ones: Sequence[Numbers], others: Sequence[Numbers]) -> Iterable[tuple[Numbers, Numbers]]:
    for one in ones:
        for other in others:
            if one is not other and one.seed == other.seed:
                yield one, other


def parting(one: Numbers, other: Numbers) -> Parting | None:
    """Where they first differ, as far as both go; None where they do not."""
    if found := _hashes(one.batch, other.batch):
        return Parting(1, "data", found[0], None, len(found) - 1)
    for step, (a, b) in enumerate(zip(one.losses, other.losses, strict=False), 1):
        if a != b:
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
