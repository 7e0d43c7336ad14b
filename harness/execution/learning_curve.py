"""What a run has shown so far: the losses and evaluations that its console, its picture and its summary tell of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Loss:
    """Mean of one interval, placed at its end."""

    epoch: float  # with the fraction trained
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    epoch: int
    quality: float
    seconds: float  # of the evaluation
    minutes: float  # since run_start, at its end


@dataclass
class LearningCurve:
    """Grows while the run goes on."""

    metric: str
    target: float
    epochs: int
    lower_is_better: bool = False
    losses: list[Loss] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)

    @property
    def best_evaluation(self) -> Evaluated | None:
        choose = min if self.lower_is_better else max
        return choose(self.evaluations, key=lambda each: each.quality, default=None)

    @property
    def best(self) -> float | None:
        return None if self.best_evaluation is None else self.best_evaluation.quality

    @property
    def met(self) -> bool:
        if self.best is None:
            return False
        return self.best <= self.target if self.lower_is_better else self.best >= self.target
