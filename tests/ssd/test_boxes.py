"""Default boxes against the reference's published rows and sums; conversions against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.ssd.boxes import cxcywh_to_ltrb, decode, default_boxes
from benchmarks.ssd.config import Model
from benchmarks.ssd.geometry import feature_sizes, shapes_per_cell

SSD300 = Model(initial_weights="imagenet", categories=80)


@pytest.fixture(scope="module")
def boxes() -> torch.Tensor:
    return default_boxes(SSD300.image_px, SSD300.feature_sizes, SSD300.steps_px, SSD300.scales_px, SSD300.aspect_ratios)


def test_count_and_column_sums(boxes: torch.Tensor) -> None:
    assert boxes.shape == (8732, 4) and boxes.dtype == torch.float32
    sums = boxes.double().sum(dim=0).tolist()
    assert sums == pytest.approx([4443.1467, 4443.1467, 1171.9677, 1171.9677], abs=1e-4)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0, (0.0133333, 0.0133333, 0.07, 0.07)),
        (1, (0.04, 0.0133333, 0.07, 0.07)),
        (38, (0.0133333, 0.04, 0.07, 0.07)),
        (1444, (0.0133333, 0.0133333, 0.1024695, 0.1024695)),
        (2888, (0.0133333, 0.0133333, 0.0989949, 0.0494975)),
        (4332, (0.0133333, 0.0133333, 0.0494975, 0.0989949)),
        (8728, (0.5, 0.5, 0.87, 0.87)),
        (8729, (0.5, 0.5, 0.955772, 0.955772)),
        (8730, (0.5, 0.5, 1.0, 0.615183)),
        (8731, (0.5, 0.5, 0.615183, 1.0)),
    ],
)
def test_published_rows(boxes: torch.Tensor, row: int, expected: tuple[float, ...]) -> None:
    assert boxes[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_clamped_as_centres_but_not_as_corners(boxes: torch.Tensor) -> None:
    assert boxes.min() >= 0 and boxes.max() <= 1
    corners = cxcywh_to_ltrb(boxes)
    assert corners.min().item() == pytest.approx(-0.335, abs=1e-3)
    assert corners.max().item() == pytest.approx(1.402, abs=1e-3)


def test_reference_geometry() -> None:
    assert SSD300.feature_sizes == [38, 19, 10, 5, 3, 1]
    assert shapes_per_cell(SSD300.aspect_ratios) == [4, 6, 6, 6, 4, 4]


def test_decode_inverts_the_encoding_in_float64(boxes: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    anchors = boxes.numpy().astype(np.float64)
    truth = np.concatenate([rng.uniform(0.2, 0.8, (8732, 2)), rng.uniform(0.02, 0.9, (8732, 2))], axis=1)  # cxcywh
    offsets = np.concatenate(
        [(truth[:, :2] - anchors[:, :2]) / anchors[:, 2:] / 0.1, np.log(truth[:, 2:] / anchors[:, 2:]) / 0.2], axis=1
    )
    expected = np.concatenate([truth[:, :2] - truth[:, 2:] / 2, truth[:, :2] + truth[:, 2:] / 2], axis=1)
    found = decode(torch.from_numpy(offsets), boxes.double())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    batched = decode(torch.from_numpy(offsets).expand(2, -1, -1), boxes.double())
    assert torch.equal(batched[1], found)


def test_geometry_without_a_cell_left_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"extra block 2 has no cell left .* larger image than 32 px"):
        feature_sizes(32, [(8, 8, 2, 1), (8, 8, 1, 0), (8, 8, 1, 0)])
