"""Detections against a slow, obvious float64 version: per image, per class, greedy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from benchmarks.ssd.boxes import default_boxes
from benchmarks.ssd.config import Model
from benchmarks.ssd.detections import MAX_PER_CLASS, MAX_PER_IMAGE, Detections, detect

F64 = npt.NDArray[np.float64]
Found = list[tuple[int, int, float, F64]]  # image, label, score, ltrb


def iou(one: F64, other: F64) -> float:
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return float(both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both))


def slow(
    logits: Tensor, offsets: Tensor, anchors: Tensor, *, score: float = 0.05, overlap: float = 0.5, most: int = 200
) -> Found:
    """What `detect` must find, image after image, best first."""
    z, t, cxcywh = (tensor.numpy().astype(np.float64) for tensor in (logits, offsets, anchors))
    found: Found = []
    for image in range(len(z)):
        e = np.exp(z[image] - z[image].max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        centre = cxcywh[:, :2] + 0.1 * t[image, :, :2] * cxcywh[:, 2:]
        size = np.exp(0.2 * t[image, :, 2:]) * cxcywh[:, 2:]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        in_image: Found = []
        for label in range(1, z.shape[2]):
            order = [a for a in np.argsort(-p[:, label], kind="stable") if p[a, label] > score][:most]
            kept: list[np.intp] = []
            for a in order:
                if all(iou(boxes[a], boxes[b]) <= overlap for b in kept):
                    kept.append(a)
            in_image += [(image, label, p[a, label], boxes[a]) for a in kept]
        in_image.sort(key=lambda detection: -detection[2])
        found += in_image[:200]
    return found


def same(fast: Detections, expected: Found) -> None:
    """Equal except for rounding; neighbours of equal score may change places."""
    assert len(fast) == len(expected)
    got = sorted(
        zip(fast.images.tolist(), fast.labels.tolist(), fast.scores.tolist(), fast.ltrb.tolist(), strict=True),
        key=lambda d: (d[0], d[1], d[3]),
    )
    want = sorted(expected, key=lambda d: (d[0], d[1], d[3].tolist()))
    assert [d[:2] for d in got] == [d[:2] for d in want]
    np.testing.assert_allclose([d[2] for d in got], [d[2] for d in want], atol=1e-6)
    np.testing.assert_allclose([d[3] for d in got], [d[3] for d in want], atol=1e-6)


def ssd300() -> Tensor:
    model = Model(initial_weights="scratch", categories=80)
    return default_boxes(
        model.image_px, model.feature_sizes, model.steps_px, model.scales_px, model.aspect_ratios
    )  # (8732, 4)


def like_a_network(seed: int, anchors: Tensor, images: int, classes: int, objects: int) -> tuple[Tensor, Tensor]:
    """Logits and offsets as of a trained network: crowds of overlapping boxes about a few places, else background."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, len(anchors), classes, generator=g)
    logits[..., 0] += 6
    for image in range(images):
        for _ in range(objects):
            place = torch.rand(2, generator=g)
            size = 0.05 + 0.6 * torch.rand(2, generator=g)
            near = ((anchors[:, :2] - place).abs() < 0.15).all(1) & ((anchors[:, 2:] / size).log().abs() < 0.5).all(1)
            label = int(torch.randint(1, classes, (), generator=g))
            logits[image, near, label] += 9 * torch.rand(int(near.sum()), generator=g)
    return logits, torch.randn(images, len(anchors), 4, generator=g)


@pytest.mark.parametrize("seed", range(3))
def test_finds_what_the_slow_version_finds(seed: int) -> None:
    anchors = ssd300()
    logits, offsets = like_a_network(seed, anchors, images=3, classes=81, objects=12)
    expected = slow(logits, offsets, anchors)
    assert len(expected) > 100, "a test of too little"
    same(detect(logits, offsets, anchors), expected)


def test_the_paper_s_limits_for_voc() -> None:
    anchors = ssd300()[4332:]
    logits, offsets = like_a_network(5, anchors, images=2, classes=21, objects=4)
    logits[..., 0] += 3  # so that the limit of an image does not hide the others
    expected = slow(logits, offsets, anchors, score=0.01, overlap=0.45, most=400)
    found = detect(logits, offsets, anchors, min_score=0.01, max_iou=0.45, max_per_class=400)
    assert len(found) > len(detect(logits, offsets, anchors))
    same(found, expected)


def test_an_untrained_network_fills_every_limit() -> None:
    anchors = ssd300()[4332:]  # large boxes: 4,400, so that the slow version ends
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(anchors), 5, generator=g) * 0.5
    offsets = torch.randn(2, len(anchors), 4, generator=g)
    found = detect(logits, offsets, anchors)
    same(found, slow(logits, offsets, anchors))
    assert found.images.bincount().tolist() == [MAX_PER_IMAGE, MAX_PER_IMAGE]


def grid(count: int) -> Tensor:
    """`count` small default boxes none of which overlap."""
    side = int(np.ceil(np.sqrt(count)))
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side))[:count]
    return torch.cat([(places + 0.5) / side, torch.full((count, 2), 0.5 / side)], dim=1)


def logits_of(probabilities: Tensor) -> Tensor:
    """(B, A, K) logits that softmax to (B, A, K - 1) probabilities and the rest background."""
    rest = 1 - probabilities.sum(dim=-1, keepdim=True)
    return torch.cat([rest, probabilities], dim=-1).log()


def test_only_the_best_200_of_a_class_are_compared_and_kept() -> None:
    """The 201st would survive suppression; a class with few is not touched by the limit of another."""
    anchors = grid(250)
    probabilities = torch.full((1, 250, 2), 1e-4)
    probabilities[0, :, 0] = torch.linspace(0.9, 0.2, 250)
    found = detect(logits_of(probabilities), torch.zeros(1, 250, 4), anchors)
    assert len(found) == MAX_PER_CLASS
    assert found.scores.min() > 0.33
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_best_200_of_an_image_over_its_classes() -> None:
    anchors = grid(150)
    probabilities = torch.full((2, 150, 2), 1e-4)
    probabilities[0, :, 0] = torch.linspace(0.50, 0.40, 150)
    probabilities[0, :, 1] = torch.linspace(0.45, 0.35, 150)
    probabilities[1, :3, 1] = 0.9
    found = detect(logits_of(probabilities), torch.zeros(2, 150, 4), anchors)
    assert found.images.bincount().tolist() == [200, 3]
    same(found, slow(logits_of(probabilities), torch.zeros(2, 150, 4), anchors))


def test_score_must_exceed_the_threshold() -> None:
    anchors = grid(2)
    logits = logits_of(torch.tensor([[[0.0499], [0.0501]]]))
    found = detect(logits, torch.zeros(1, 2, 4), anchors)
    assert found.scores.tolist() == pytest.approx([0.0501])


def two_boxes(shift: float, labels: tuple[int, int] = (1, 1), images: tuple[int, int] = (0, 0)) -> Detections:
    """Detections of a box and of one as large, moved to the right by `shift` of its width."""
    anchors = torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.5 + shift * 0.25, 0.5, 0.25, 0.25]])
    probabilities = torch.full((2, 2, 2), 1e-4)
    for anchor, (image, label, score) in enumerate(zip(images, labels, (0.9, 0.8), strict=True)):
        probabilities[image, anchor, label - 1] = score
    return detect(logits_of(probabilities), torch.zeros(2, 2, 4), anchors)


def test_suppression_within_one_class_of_one_image_only() -> None:
    """IoU of boxes moved by s widths is (1 - s) / (1 + s): 0.5 at a third."""
    assert len(two_boxes(0.32)) == 1
    assert len(two_boxes(0.34)) == 2
    assert len(two_boxes(0.0, labels=(1, 2))) == 2
    assert len(two_boxes(0.0, images=(0, 1))) == 2


def test_what_is_suppressed_suppresses_nothing() -> None:
    """A chain of boxes, each overlapping the next: every second one stays, whatever the order of the memory."""
    n = 60
    anchors = torch.stack([torch.tensor([0.1 + 0.2 * 0.3 * k, 0.5, 0.2, 0.2]) for k in range(n)])
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    probabilities = torch.linspace(0.9, 0.1, n)[None, :, None]
    found = detect(logits_of(probabilities[:, shuffle]), torch.zeros(1, n, 4), anchors[shuffle])
    assert found.scores.tolist() == pytest.approx(probabilities[0, ::2, 0].tolist())


def test_large_batches_lose_no_digits() -> None:
    """One image's detections are the same alone and as the last of many, and so is a pair that only the seventh digit
    separates: IoU just under and just over 0.5."""
    anchors = ssd300()
    logits, offsets = like_a_network(5, anchors, images=1, classes=81, objects=12)
    alone = detect(logits, offsets, anchors)
    copies = 24
    many = detect(logits.expand(copies, -1, -1), offsets.expand(copies, -1, -1), anchors)
    for image in (0, copies - 1):
        mine = many[many.images == image]
        assert torch.equal(mine.ltrb, alone.ltrb)
        assert torch.equal(mine.scores, alone.scores)
        assert torch.equal(mine.labels, alone.labels)
    third = 1 / 3
    assert len(two_boxes(third - 1e-6, images=(1, 1), labels=(2, 2))) == 1
    assert len(two_boxes(third + 1e-6, images=(1, 1), labels=(2, 2))) == 2


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_nothing_found_is_no_error(value: float) -> None:
    """Background everywhere, and a network that has diverged."""
    logits = torch.full((3, 8, 4), value)
    logits[..., 0] += 20
    found = detect(logits, torch.zeros(3, 8, 4), grid(8))
    assert len(found) == 0
    assert found.ltrb.shape == (0, 4)


def test_an_empty_image_between_others_costs_them_nothing() -> None:
    probabilities = torch.full((3, 8, 2), 1e-4)
    probabilities[0, 1, 0] = probabilities[2, 3, 1] = 0.7
    found = detect(logits_of(probabilities), torch.zeros(3, 8, 4), grid(8))
    assert (found.images.tolist(), found.labels.tolist()) == ([0, 2], [1, 2])
