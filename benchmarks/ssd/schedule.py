"""The learning rate of every iteration: linear warm-up from zero, then a tenth at each boundary.

MLPerf Training v0.7, as its PyTorch submissions ran it: iteration t (0-based) of the W of warm-up trains at
base - (W - t) * base / (W * 2**factor), which with factor 0 is base * t / W, so that the very first step is at 0. A boundary e
takes effect after e whole epochs.

The reference sets the rate during warm-up alone, and so stays at the last value it set, base * (W - 1) / W with factor 0, until
the first decay sets a tenth of base: a part in W less than what its log says (with W = 650, 0.15 %). Here it is base from
iteration W on, as the log's opt_base_learning_rate has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DECAY = 0.1


@dataclass(frozen=True)
class Schedule:
    """`learning_rate` in steps of the optimizer, of which an epoch has `steps_per_epoch`."""

    base: float
    warmup_steps: int
    warmup_factor: int
    decay_epochs: Sequence[int]
    steps_per_epoch: int

    def learning_rate(self, step: int) -> float:
        """Of the 0-based iteration `step`, counted from the run's start."""
        if step < self.warmup_steps:
            return self.base - (self.warmup_steps - step) * self.base / (self.warmup_steps * 2.0**self.warmup_factor)
        decays = sum(step >= epoch * self.steps_per_epoch for epoch in self.decay_epochs)
        return float(self.base * DECAY**decays)
