"""The picture that a run leaves: whatever its figures and its names are, it shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from harness.execution import picture
from harness.execution.learning_curve import Evaluated, LearningCurve, Loss


def history(
    losses: Sequence[float], qualities: Sequence[float], *, metric: str = "mAP", target: float = 0.23
) -> LearningCurve:
    found = LearningCurve(metric, target, epochs=len(qualities))
    found.losses = [Loss(epoch, loss, 1.0) for epoch, loss in enumerate(losses, 1)]
    found.evaluations = [Evaluated(epoch, quality, 1.0, 1.0) for epoch, quality in enumerate(qualities, 1)]
    return found


@pytest.mark.parametrize("losses", [(3.0, 2.0, 1.0), (1.0, 0.0, -1.0), (-1.0, -2.0), ()])
@pytest.mark.parametrize("qualities", [(0.1, 0.3), (-0.4, 0.3), (-3.0, -2.0), ()])
def test_every_point_lies_in_its_frame(losses: Sequence[float], qualities: Sequence[float]) -> None:
    """A log-likelihood below zero: both frames were empty."""
    shown: list[tuple[Any, Sequence[float]]] = []
    for draw, values in ((picture._loss, losses), (picture._quality, qualities)):
        axes = Figure().add_subplot()
        draw(axes, history(losses, qualities))
        shown.append((axes, values))
    for axes, values in shown:
        low, high = axes.get_ylim()
        assert low < high and all(low <= value <= high for value in values)
    (loss, _), (quality, _) = shown
    assert (loss.get_yscale() == "log") == (bool(losses) and min(losses) > 0)
    assert quality.get_ylim()[0] <= 0.0 and quality.get_ylim()[1] >= 0.23


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    picture.save(
        tmp_path / "result_0.png", history([1.0], [0.1], metric="$^$"), [np.zeros((4, 4, 3), np.uint8)], "a $^$"
    )
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")
