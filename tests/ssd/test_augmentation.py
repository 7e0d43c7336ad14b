"""The definition of the augmentation, and that DALI's graph and its torch twin are the same except for their random numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.detection.data_path.normalisation import imagenet, normalised, unnormalise
from benchmarks.ssd import augmentation as maths
from benchmarks.ssd import data
from benchmarks.ssd.config import Augmentation
from tests.ssd.test_data import AS_IT_IS, BOXES


@pytest.fixture(scope="module", params=[24, pytest.param(126, marks=pytest.mark.long)])
def photographs(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path, Path]:
    """How many, their folder, and the annotations of these alone."""
    whole = json.loads((test_data / "coco256/annotations/instances_train2017.json").read_bytes())
    kept = sorted({box["image_id"] for box in whole["annotations"]})[: request.param]
    some = whole | {
        "images": [each for each in whole["images"] if each["id"] in kept],
        "annotations": [each for each in whole["annotations"] if each["image_id"] in kept],
    }
    annotations = tmp_path_factory.mktemp("photographs") / "instances.json"
    annotations.write_text(json.dumps(some))
    return len(kept), test_data / "coco256/train2017", annotations


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": (0.7, 0.7)},
        {"contrast": (1.6, 1.6)},
        {"saturation": (0.2, 0.2)},
        {"saturation": (1.9, 1.9)},
        {"hue_degrees": (40.0, 40.0)},
        {"hue_degrees": (-90.0, -90.0), "saturation": (0.6, 0.6), "contrast": (0.5, 0.5), "brightness": (1.2, 1.2)},
    ],
    ids=str,
)
def test_colours_are_dali_s_on_photographs(
    photographs: tuple[int, Path, Path], change: dict[str, tuple[float, float]]
) -> None:
    count, pictures, annotations = photographs
    settings = AS_IT_IS.model_copy(update=change)
    source = data.Source(pictures, annotations, 64, count, 1, "cpu", 0, 1, skip_empty=True)
    by_dali, by_torch = (
        data.unnormalise(
            next(iter(data.train_batches(each, settings, BOXES, order_seed=1, augmentation_seed=1)))["images"]
        ).astype(float)
        for each in (source, data.Source(**{**vars(source), "backend": "torch"}))
    )
    # at the rim DALI's filter repeats the last pixel, which weighs a photograph's thin frame more; the maths is that of within
    by_dali, by_torch = by_dali[:, 2:-2, 2:-2], by_torch[:, 2:-2, 2:-2]
    # the order of the images is each backend's own
    differences = [np.abs(by_torch - one).mean(axis=(1, 2, 3)).min() for one in by_dali]
    assert max(differences) < 1  # levels
    assert np.mean(differences) < 0.3


def test_colour_one_is_no_change_and_the_change_is_linear() -> None:
    np.testing.assert_allclose(maths.colour(1, 1, 1, 0), np.eye(3, 4), atol=1e-6)
    grey = maths.colour(1, 1, 0, 0)  # no saturation: all channels the luma
    np.testing.assert_allclose(grey[:, :3], np.tile([0.299, 0.587, 0.114], (3, 1)), atol=2e-3)
    pictures = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    contrast = torch.from_numpy(maths.colour(1, 2, 1, 0))[None]
    assert maths.coloured(pictures, contrast).unique().tolist() == [72.0]  # 128 + 2 * (100 - 128)
    assert maths.coloured(pictures, 9 * contrast).unique().tolist() == [255.0]


def test_windows_hold_what_their_option_promises() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[0.2, 0.2, 0.7, 0.8], [0.3, 0.3, 0.8, 0.9]], dtype=np.float32)
    only = Augmentation(crop_min_iou=(0.3,), crop_scale=(0.4, 0.9), crop_aspect_ratio=(0.8, 1.25))
    whole = 0
    for _ in range(400):
        window, inside = maths.random_window(rng, boxes, only)
        if np.array_equal(window, maths.WHOLE):
            whole += 1
            assert inside.all()
            continue
        w, h = window[2:] - window[:2]
        assert window.min() >= 0 and window.max() <= 1 and min(w, h) >= 0.4 and max(w, h) <= 0.9001
        assert 0.79 <= w / h <= 1.26 and inside.any()
        left, top = np.maximum(boxes[:, :2], window[:2]).T
        right, bottom = np.minimum(boxes[:, 2:], window[2:]).T
        both = (right - left).clip(0) * (bottom - top).clip(0)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        assert (both / (areas + w * h - both) >= 0.2999).all()
    assert 0 < whole < 400


def test_boxes_follow_the_window_and_the_mirror() -> None:
    boxes = np.array([[0.2, 0.2, 0.6, 0.8]], dtype=np.float32)
    window = np.array([0.25, 0.0, 0.75, 1.0], dtype=np.float32)
    moved = maths.in_window(boxes, window)
    np.testing.assert_allclose(moved, [[0.0, 0.2, 0.7, 0.8]], atol=1e-6)
    np.testing.assert_allclose(maths.flipped(moved), [[0.3, 0.2, 1.0, 0.8]], atol=1e-6)


def test_normalising_and_back() -> None:
    levels = torch.arange(3 * 64, dtype=torch.uint8).view(1, 3, 8, 8)
    assert (unnormalise(normalised(levels, *imagenet("cpu"))) == levels.permute(0, 2, 3, 1).numpy()).all()
