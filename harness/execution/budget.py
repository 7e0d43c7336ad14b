"""The optimizer steps that --max-steps allows, counted over the whole run: which epoch they end in, and how far into it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract import DataSummary


@dataclass(frozen=True)
class Budget:
    """Of one run."""

    data: DataSummary
    max_steps: int | None = None  # None: as many as the epochs have

    def cut(self, epoch: int) -> int | None:
        """How many steps of this epoch may be trained, where that is not all of them; None for a whole epoch."""
        if self.max_steps is None:
            return None
        left = self.max_steps - (epoch - 1) * self.data.steps_per_epoch
        return left if left < self.data.steps_per_epoch else None

    def spent(self, epochs: int) -> bool:
        """Whether so many whole epochs leave no step."""
        return self.max_steps is not None and epochs * self.data.steps_per_epoch >= self.max_steps

    def images(self, epochs: int) -> float:
        """How many the run may train, of so many epochs."""
        trained: float = epochs if self.max_steps is None else min(epochs, self.max_steps / self.data.steps_per_epoch)
        return trained * self.data.train_samples
