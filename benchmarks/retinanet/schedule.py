"""The learning rate of every step: it grows from `warmup_factor` of it to the whole, in a straight line, and stays.

As the MLPerf reference (single_stage_detector, v2.0) has it: step t (0-based) of the W of warm-up trains at base * (factor
* (1 - t / W) + t / W).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """`learning_rate` in steps of the optimizer, of which an epoch has `steps_per_epoch`."""

    base: float
    warmup_epochs: float
    warmup_factor: float
    steps_per_epoch: int

    def learning_rate(self, step: int) -> float:
        """Of the 0-based `step`, counted from the run's start."""
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        if step >= warmup_steps:
            return self.base
        done = step / warmup_steps
        return self.base * (self.warmup_factor * (1 - done) + done)
