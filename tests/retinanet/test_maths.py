"""Anchors, box coder, matching, focal loss and decoding against torchvision's RetinaNet where it is the same maths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import _utils as theirs
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet as TheirRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead as TheirHead
from torchvision.ops import box_iou

from benchmarks.detection import suppression
from benchmarks.retinanet.anchors import anchors, decode, encode, map_sides
from benchmarks.retinanet.config import Model
from benchmarks.retinanet.detections import detect
from benchmarks.retinanet.loss import background, detection_loss
from benchmarks.retinanet.matching import IGNORED, match
from benchmarks.retinanet.schedule import Schedule

REFERENCE = Model(initial_weights="imagenet", categories=264)
PX, ANCHOR_PX, RATIOS, CLASSES = 96, (16, 32, 64), (0.5, 1.0, 2.0), 7
ANCHORS = anchors(PX, ANCHOR_PX, RATIOS)
SIDES = [9 * side**2 for side in map_sides(PX, 3)]


def their_anchors(px: int, anchor_px: Sequence[int], sides: Sequence[int]) -> Tensor:
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in anchor_px)
    generator = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    (found,) = generator(ImageList(torch.zeros(1, 3, px, px), [(px, px)]), maps)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("px", [800, 640, 320, 96])
def test_anchors_are_torchvision_s(px: int) -> None:
    """800 px: the maps' sides do not divide it, and the distance between cells is cut to whole pixels."""
    found = anchors(px, REFERENCE.anchor_px, REFERENCE.aspect_ratios)
    assert torch.equal(found, their_anchors(px, REFERENCE.anchor_px, map_sides(px, 5)))
    assert px != 800 or (len(found) == 120_087 and map_sides(px, 5) == [100, 50, 25, 13, 7])


def some_boxes(count: int, seed: int, px: int = PX) -> Tensor:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-5, px - 10, (count, 2)), np.exp(rng.uniform(1, 4, (count, 2)))
    return torch.from_numpy(np.concatenate([corner, corner + size], axis=1).clip(0, px)).float()


def test_the_box_coder_is_torchvision_s() -> None:
    coder = theirs.BoxCoder((1.0, 1.0, 1.0, 1.0))
    boxes = some_boxes(len(ANCHORS), 1)
    offsets = encode(boxes, ANCHORS)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, ANCHORS))
    torch.testing.assert_close(decode(offsets, ANCHORS), boxes, atol=1e-3, rtol=0)
    wild = torch.randn(len(ANCHORS), 4) * 4
    wild[:9, 2:] = 50.0  # beyond what exp() is asked for
    expected = coder.decode_single(wild.double(), ANCHORS.double()).float()
    torch.testing.assert_close(decode(wild, ANCHORS), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_torchvision_s(seed: int) -> None:
    """Images with different numbers of boxes in one batch, among them small ones that many anchors overlap alike."""
    rng = np.random.default_rng(seed)
    counts = [1, 4, 9]
    ltrb, labels = torch.zeros(3, 9, 4), torch.zeros(3, 9, dtype=torch.int64)
    for row, count in enumerate(counts):
        ltrb[row, :count] = some_boxes(count, 10 * seed + row)
        labels[row, :count] = torch.from_numpy(rng.integers(1, CLASSES + 1, count))
    ltrb[2, 0] = torch.tensor([40.0, 40.0, 43.0, 42.0])  # within many anchors of one size: they tie
    found, offsets = match(ltrb, labels, ANCHORS)
    matcher = theirs.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    coder = theirs.BoxCoder((1.0, 1.0, 1.0, 1.0))
    for row, count in enumerate(counts):
        which = matcher(box_iou(ltrb[row, :count], ANCHORS))
        expected = torch.where(which >= 0, labels[row][which.clamp(min=0)], torch.where(which == -1, 0, IGNORED))
        assert torch.equal(found[row].long(), expected)
        positive = which >= 0
        assert torch.equal(offsets[row][~positive], torch.zeros(int((~positive).sum()), 4))
        expected_offsets = coder.encode_single(ltrb[row][which[positive]], ANCHORS[positive])
        torch.testing.assert_close(offsets[row][positive], expected_offsets)
    assert (found[2] > 0).sum() >= 9, "each box has an anchor at least"
    assert {-1, 0} <= set(found.unique().tolist())


def network_output(batch: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(batch, side, CLASSES, generator=generator) * 2 - 3 for side in SIDES]
    offsets = [torch.randn(batch, side, 4, generator=generator) / 2 for side in SIDES]
    return logits, offsets


def targets(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    ltrb = torch.stack([some_boxes(5, 7 * seed + row) for row in range(batch)])
    labels = torch.from_numpy(np.random.default_rng(seed).integers(1, CLASSES + 1, (batch, 5)))
    return ltrb, labels


@pytest.mark.parametrize("compiling", [False, True])
def test_the_loss_and_its_gradients_are_torchvision_s(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to sum it: in one pass with its gradient, and what the compiler is given."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    monkeypatch.setattr("benchmarks.retinanet.loss.VALUES_AT_ONCE", 1000)
    batch = 3
    (logits, offsets), (ltrb, labels) = network_output(batch, 1), targets(batch, 2)
    ltrb[1], labels[1] = 0, 0  # an image without boxes divides by 1
    parts = [each.requires_grad_() for each in (*logits, *offsets)]
    loss = detection_loss(logits, offsets, *match(ltrb, labels, ANCHORS))
    (3 * loss).backward()
    found = [each.grad for each in parts]

    double = [each.detach().double().requires_grad_() for each in parts]
    head = TheirHead(8, 9, CLASSES).double()
    output = {"cls_logits": torch.cat(double[:3], dim=1), "bbox_regression": torch.cat(double[3:], dim=1)}
    matcher = theirs.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    truth = [{"boxes": ltrb[i].double()[:n], "labels": labels[i][:n] - 1} for i, n in enumerate((5, 0, 5))]
    which = [
        matcher(box_iou(each["boxes"], ANCHORS)) if len(each["boxes"]) else torch.full((len(ANCHORS),), -1)
        for each in truth
    ]
    expected = sum(head.compute_loss(truth, output, [ANCHORS.double()] * batch, which).values())
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip(found, double, strict=True):
        torch.testing.assert_close(mine, other.grad.float(), rtol=1e-4, atol=1e-9)


def test_the_loss_of_wild_logits_is_finite() -> None:
    x = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    p = x.double().sigmoid()
    expected = 0.75 * p**2 * torch.nn.functional.softplus(x.double())
    torch.testing.assert_close(background(x), expected.float())


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits, offsets = network_output(2, 3)
    half = [each.bfloat16().requires_grad_() for each in logits]
    of = match(*targets(2, 4), ANCHORS)
    loss = detection_loss(half, [each.bfloat16() for each in offsets], *of)
    rounded = detection_loss([each.float() for each in half], [each.bfloat16().float() for each in offsets], *of)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(rounded.item(), rel=1e-5)
    loss.backward()
    assert all(each.grad is not None and each.grad.dtype == torch.bfloat16 for each in half)


@pytest.mark.parametrize("compiling", [False, True])
def test_float16_s_gradients_outlive_until_the_loss_is_scaled(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Background's slope at a fresh network's score of 0.01 is 2e-6, and its share of a batch's loss a thousandth of that."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    _, offsets = network_output(64, 5)
    logits = [torch.full((64, side, CLASSES), -4.595) for side in SIDES]
    of, scale = match(*targets(64, 6), ANCHORS), 2.0**16
    summed = []
    for dtype in (torch.float16, torch.float32):
        parts = [each.to(torch.float16).to(dtype).requires_grad_() for each in logits]
        (scale * detection_loss(parts, offsets, *of)).backward()
        background_s = torch.cat([each.grad.flatten().double() for each in parts])
        summed.append(background_s[background_s > 0].sum().item() / scale)
    assert summed[0] == pytest.approx(summed[1], rel=1e-3) and summed[1] > 1e-4


def test_a_bfloat16_score_just_above_the_threshold_is_a_detection() -> None:
    logits = [torch.full((1, side, CLASSES), -9.0, dtype=torch.bfloat16) for side in SIDES]
    logits[0][0, 0, 0] = -2.9375  # a score of 0.0503; -2.94444, that of 0.05, is this in bfloat16
    offsets = [torch.zeros(1, side, 4) for side in SIDES]
    assert len(detect(logits, offsets, ANCHORS, PX, 100)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_detections_are_those_of_torchvision_s_loop(seed: int) -> None:
    """More than 1,000 candidates on the first map, so that the limit before suppression is met."""
    batch, limit = 2, 50
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(batch, side, CLASSES, generator=generator) * 1.5 - 1 for side in SIDES]  # no scores alike
    _, offsets = network_output(batch, seed)
    their = TheirRetinaNet.__new__(TheirRetinaNet)
    torch.nn.Module.__init__(their)
    their.score_thresh, their.nms_thresh = 0.05, 0.5
    their.topk_candidates, their.detections_per_img = 1000, limit
    their.box_coder = theirs.BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert (logits[0][0] > -2).sum() > 1500
    expected = their.postprocess_detections(
        {"cls_logits": logits, "bbox_regression": offsets}, [list(ANCHORS.split(SIDES))] * batch, [(PX, PX)] * batch
    )
    found = detect(logits, offsets, ANCHORS, PX, limit)
    for row, each in enumerate(expected):
        mine = found[found.images == row]
        assert torch.equal(mine.labels, each["labels"] + 1)
        torch.testing.assert_close(mine.scores, each["scores"])
        torch.testing.assert_close(mine.ltrb * PX, each["boxes"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("at_once", [64, 10_000])
def test_suppression_one_by_one_is_suppression_of_all_pairs(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 1 to 300 candidates, more of them and fewer in a call."""
    rng = np.random.default_rng(4)
    sizes = [1, 300, 2, 40, 1, 1, 130, 64, 7]
    rank = torch.cat([torch.arange(size) for size in sizes])
    corner = rng.uniform(-0.2, 0.8, (len(rank), 2))
    ltrb = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (len(rank), 2))], axis=1)).float()
    monkeypatch.setattr(suppression, "ONE_BY_ONE", at_once)
    found = []
    for many in (0, 10**9):
        monkeypatch.setattr(suppression, "MANY_PAIRS", many)
        found.append(suppression.unsuppressed(ltrb, rank))
    assert torch.equal(*found) and 50 < int(found[0].sum()) < len(rank) - 50
    assert len(suppression.unsuppressed(ltrb[:0], rank[:0])) == 0


def test_nothing_above_the_threshold_is_no_detection() -> None:
    logits, offsets = network_output(2, 1)
    nothing = detect([each - 100 for each in logits], offsets, ANCHORS, PX, 100)
    assert len(nothing) == 0
    diverged = [torch.full_like(each, math.nan) for each in logits]
    assert len(detect(diverged, offsets, ANCHORS, PX, 100)) == 0


def test_warm_up_as_the_reference_steps_it() -> None:
    schedule = Schedule(1e-4, warmup_epochs=1, warmup_factor=1e-3, steps_per_epoch=10)
    assert schedule.learning_rate(0) == pytest.approx(1e-7)
    assert schedule.learning_rate(5) == pytest.approx(1e-4 * (1e-3 * 0.5 + 0.5))
    assert [schedule.learning_rate(step) for step in (10, 1000)] == [1e-4, 1e-4]
    assert Schedule(1e-4, 0, 1e-3, 10).learning_rate(0) == 1e-4
