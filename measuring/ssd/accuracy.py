"""Whether a coarser number format costs accuracy: the same steps in it and in float32, beside the spread between two seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.ssd.config import SSDConfig
from measuring.measure import Figure
from measuring.ssd import setup

WINDOW = 10  # steps, over whose mean the loss of single batches evens out


def train(config: SSDConfig, device: str, folder: Path, steps: int) -> Iterator[dict[str, list[float]]]:
    """Losses of `steps` steps: fp32 with two seeds, and the configuration's precision with the first of them. After each step
    those that there are."""
    every = setup.changed(config, optimizer={"learning_rate": setup.LEARNING_RATE, "warmup_steps": max(1, steps // 10)})
    plain = setup.changed(every, compute=setup.PLAIN)
    found: dict[str, list[float]] = {}
    for name, chosen, seed in (
        ("fp32", plain, 1),
        (config.compute.precision, every, 1),
        ("fp32, another seed", plain, 2),
    ):
        session = setup.session(chosen, device, folder, seed)
        session.load_data()
        losses: list[float] = []
        while len(losses) < steps:
            left = steps - len(losses)
            for interval in session.train_epoch(1, left if left < session.schedule.steps_per_epoch else None):
                losses.append(interval.loss)
                found[name] = losses
                yield found
        session.close()


def figures(losses: Mapping[str, list[float]]) -> list[Figure]:
    """How far the curves lie apart, relative to fp32's, each the mean of WINDOW steps: coarser format, other seed. Of steps
    that both have done."""
    (_, whole), *others = losses.items()
    return [
        Figure(
            f"loss of {name} against fp32",
            "%",
            [100 * abs(mine / theirs - 1) for mine, theirs in zip(smoothed(curve), smoothed(reference), strict=True)],
            f"{len(reference)} steps, means of {min(WINDOW, len(reference))}",
        )
        for name, curve in others
        for reference in [whole[: len(curve)]]
    ]


def smoothed(curve: Sequence[float]) -> list[float]:
    """Means of WINDOW steps each, the last of what is left."""
    return [statistics.fmean(curve[i : i + WINDOW]) for i in range(0, len(curve), WINDOW)]
