"""Validation images with what the model found in them drawn on, for the picture at a run's end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from benchmarks.detection.data_set import picture_forms
from benchmarks.detection.quality.evaluation import Evaluation

PANEL_PX = 320  # longer side of a panel
SCORE_SHOWN = 0.3
BOXES_SHOWN = 12
# Okabe and Ito's palette, told apart by colour-blind readers too
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def draw(evaluation: Evaluation, images: Path, count: int) -> list[npt.NDArray[np.uint8]]:
    """At most `count` of the last evaluation's first images: detections in colour, ground truth in thin white."""
    return [_panel(evaluation, images, image_id) for image_id in evaluation.first_ids[:count]]


def _panel(evaluation: Evaluation, images: Path, image_id: int) -> npt.NDArray[np.uint8]:
    truth = evaluation.ground_truth
    with Image.open(images / truth.file_name(image_id)) as file:
        picture = picture_forms.as_stored(file).convert("RGB")
    zoom = PANEL_PX / max(picture.size)
    # a strip of a picture may come to less than a pixel
    picture = picture.resize((max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom))))
    canvas = ImageDraw.Draw(picture)
    for box in truth.boxes(image_id):
        if (corners := _corners([value * zoom for value in box.tolist()], picture, 1)) is not None:
            canvas.rectangle(corners, outline="white", width=1)
    rows = evaluation.first_rows[evaluation.first_rows[:, 0] == image_id]
    shown = rows[rows[:, 5] >= SCORE_SHOWN]
    for _, *box, score, category in shown[np.argsort(-shown[:, 5])][:BOXES_SHOWN][::-1].tolist():
        text = f"{truth.category_name(int(category))} {score:.2f}"
        mark(picture, [value * zoom for value in box], text, int(category))
    return np.asarray(picture)


def mark(picture: Image.Image, xywh_px: Sequence[float], text: str, category: int, zoom: float = 1.0) -> None:
    """Draw a box and its text into the picture; lines and letters are `zoom` times as large as in a panel, or a panel's."""
    zoom = max(zoom, 1.0)
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13 * zoom)
    colour, line = COLOURS[category % len(COLOURS)], round(2 * zoom)
    corners = _corners(xywh_px, picture, line)
    if corners is None:
        return
    canvas.rectangle(corners, outline=colour, width=line)
    left, top, _, _ = corners
    corner = (max(left, 0) + 2 * zoom, max(top, 0) + zoom)
    canvas.rectangle(canvas.textbbox(corner, text, font=font), fill=colour)
    canvas.text(corner, text, fill="black", font=font)


def _corners(xywh_px: Sequence[float], picture: Image.Image, line_px: int) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of what is to be drawn, a side that is not to be seen at most the line's width outside.

    None where there is nothing to be seen, or no box. Pillow takes time by a rectangle's extent, not by what of it lies in the
    picture, and a model that has diverged finds boxes of a thousand million px.
    """
    x, y, w, h = map(float, xywh_px)  # numpy's own warn of inf - inf
    right, bottom = x + w, y + h
    if not all(map(math.isfinite, (x, y, right, bottom))):
        return None
    left, top, right, bottom = x, y, max(x, right), max(y, bottom)
    if right < 0 or bottom < 0 or left > picture.width or top > picture.height:
        return None
    beyond_x, beyond_y = picture.width + line_px, picture.height + line_px
    return max(left, -line_px), max(top, -line_px), min(right, beyond_x), min(bottom, beyond_y)
