"""result_N.png: the loss, the quality on its way to the target, and what the model found in a few images."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import whole
from harness.execution.learning_curve import LearningCurve

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PANELS = 8  # images shown, in rows of PANELS_IN_ROW
PANELS_IN_ROW = 4
LOSS_COLOUR, QUALITY_COLOUR, TARGET_COLOUR = "#0072B2", "#D55E00", "#555555"


def save(path: Path, history: LearningCurve, panels: Sequence[npt.NDArray[np.uint8]], title: str) -> None:
    """Write the picture, whole or not at all, and point result.png beside it at it."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // PANELS_IN_ROW)
    figure = Figure(figsize=(12, 4.2 + 2.9 * rows), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=12, parse_math=False)  # a $ in a name begins no formula
    grid = figure.add_gridspec(1 + rows, PANELS_IN_ROW, height_ratios=[4.0] + [2.8] * rows)
    half = PANELS_IN_ROW // 2
    _loss(figure.add_subplot(grid[0, :half]), history)
    _quality(figure.add_subplot(grid[0, half:]), history)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(grid[1 + index // PANELS_IN_ROW, index % PANELS_IN_ROW])
        axes.imshow(panel)
        axes.set_axis_off()
    with whole.replacing(path) as file:
        figure.savefig(file, format="png")
    with contextlib.suppress(OSError):  # not every file system has links
        whole.point_at(path.with_name("result.png"), path)


def _loss(axes: Any, history: LearningCurve) -> None:
    axes.plot([each.epoch for each in history.losses], [each.loss for each in history.losses], color=LOSS_COLOUR)
    positive = bool(history.losses) and all(each.loss > 0 for each in history.losses)
    axes.set(title="training loss", xlabel="epoch", yscale="log" if positive else "linear")
    axes.grid(alpha=0.3, which="both")


def _quality(axes: Any, history: LearningCurve) -> None:
    epochs, qualities = [each.epoch for each in history.evaluations], [each.quality for each in history.evaluations]
    axes.plot(epochs, qualities, "o-", color=QUALITY_COLOUR)
    axes.axhline(history.target, color=TARGET_COLOUR, linestyle="--")
    axes.annotate(
        f"target {history.target:g}", (0, history.target), xycoords=("axes fraction", "data"),
        xytext=(4, 3), textcoords="offset points", color=TARGET_COLOUR,
    )  # fmt: skip
    axes.set_title(f"validation {history.metric}", parse_math=False)
    axes.set(xlabel="epoch")
    if min(qualities, default=0.0) >= 0:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
