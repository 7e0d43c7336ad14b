"""Matching of whole batches against the same image by image; against the definition in float64 it is in test_data.py."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import fn, pipeline_def

from benchmarks.detection import overlap
from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.overlap import overlaps
from benchmarks.ssd import matching
from benchmarks.ssd.boxes import SCALE_WH, SCALE_XY, cxcywh_to_ltrb, decode, default_boxes, encode
from benchmarks.ssd.config import Model
from measuring.ssd.baselines import encode as encode_one

Pixels = npt.NDArray[Any]
BOXES = default_boxes(64, [8, 4], [8, 16], [12, 24, 48], [[2], [2, 3]])


def truth(counts: list[int], most: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ground truth of images with so many boxes, padded to `most`."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(len(counts), most, 2, generator=generator) * 0.6
    size = 0.05 + 0.35 * torch.rand(len(counts), most, 2, generator=generator)
    labels = torch.randint(1, 6, (len(counts), most), generator=generator)
    labels[torch.arange(most) >= torch.tensor(counts)[:, None]] = 0
    return torch.cat([corner, corner + size], dim=2), labels


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_a_batch_is_its_images_whatever_the_padding(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(overlap, "PAIRS_AT_ONCE", at_once)
    counts = [3, 0, 7, 1]
    ltrb, labels = truth(counts, 9)
    found_labels, offsets = matching.match(ltrb, labels, BOXES)
    assert found_labels.dtype == torch.int32
    for i, count in enumerate(counts):
        if count == 0:
            assert (found_labels[i] == 0).all() and (offsets[i] == 0).all()
            continue
        expected_labels, expected = encode_one(ltrb[i, :count], labels[i, :count], BOXES)
        assert torch.equal(found_labels[i].long(), expected_labels) and (expected_labels > 0).any()
        torch.testing.assert_close(offsets[i], expected, rtol=0, atol=0)


def test_of_two_that_want_one_default_box_the_later_has_it() -> None:
    box = BOXES[10]
    ltrb = decode(torch.tensor([[0.0, 0, 0, 0], [0.1, 0.1, 0, 0]]), box[None].expand(2, 4))[None]
    labels, offsets = matching.match(ltrb, torch.tensor([[1, 2]]), BOXES)
    assert labels[0, 10] == 2
    torch.testing.assert_close(offsets[0, 10], torch.tensor([0.1, 0.1, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_a_small_box_keeps_the_default_box_it_overlaps_most_though_by_less_than_half() -> None:
    tiny = torch.tensor([[[0.5, 0.5, 0.51, 0.51]]])
    labels, _ = matching.match(tiny, torch.tensor([[4]]), BOXES)
    assert labels.unique().tolist() == [0, 4] and (labels == 4).sum() == 1
    iou = overlaps(tiny[0], decode(torch.zeros(len(BOXES), 4), BOXES))[0]
    assert 0 < iou.max() < matching.MATCH_IOU and labels[0].argmax() == iou.argmax()


def test_offsets_are_the_inverse_of_decoding() -> None:
    rng = np.random.default_rng(0)
    wanted = torch.from_numpy(rng.normal(0, 2, (len(BOXES), 4)).astype(np.float32))
    torch.testing.assert_close(encode(decode(wanted, BOXES), BOXES), wanted, atol=2e-4, rtol=0)


# --- ties ------------------------------------------------------------------------------------------------------------


def by_dali(boxes: list[Pixels], labels: list[Pixels], anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B, A) and offsets (B, A, 4) of DALI's operator."""
    ltrb = cxcywh_to_ltrb(anchors).flatten().tolist()

    @pipeline_def(batch_size=len(boxes), num_threads=1, device_id=None)
    def graph() -> object:
        given = [fn.external_source(source=itertools.repeat(each), device="cpu") for each in (boxes, labels)]
        offsets, found = fn.box_encoder(
            *given,
            criteria=matching.MATCH_IOU,
            anchors=ltrb,
            offset=True,
            stds=[SCALE_XY, SCALE_XY, SCALE_WH, SCALE_WH],
        )
        return offsets, found

    pipe = graph()
    pipe.build()
    offsets, found = (torch.from_numpy(np.array(each.as_array())) for each in pipe.run())
    return found.flatten(1), offsets


def taking_the_last(ltrb: torch.Tensor, labels: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Labels (A,) of one image (G, 4), (G,) where the last of several equal overlaps wins."""
    iou = overlaps(ltrb, cxcywh_to_ltrb(anchors))
    positive, which = iou.max(0).values > matching.MATCH_IOU, len(iou) - 1 - iou.flip(0).argmax(0)
    for number, row in enumerate(iou):
        own = len(row) - 1 - int(row.flip(0).argmax())
        which[own], positive[own] = number, True
    return torch.where(positive, labels[which], 0)


def test_dali_differs_on_real_photographs_by_its_ties_alone_and_by_so_much(test_data: Path) -> None:
    settings = Model(initial_weights="scratch", categories=80)
    anchors = default_boxes(300, settings.feature_sizes, settings.steps_px, settings.scales_px, settings.aspect_ratios)
    boxes, labels = [], []
    for half in ("train2017", "val2017"):
        truth = annotation_file.read(test_data / "coco256" / "annotations" / f"instances_{half}.json")
        ltrb = annotation_file.within(truth.xywh_px, truth.sizes[truth.images])
        for place in np.flatnonzero(truth.boxed):
            of_image = (truth.images == place) & truth.counted
            boxes.append(ltrb[of_image])
            labels.append((truth.categories[of_image] + 1).astype(np.int32))
    assert (len(boxes), sum(map(len, boxes))) == (254, 1827)
    theirs, their_offsets = by_dali(boxes, labels, anchors)
    moved = differing = positives = other_offsets = 0
    for i, (ltrb, numbers) in enumerate(zip(boxes, labels, strict=True)):
        given, classes = torch.from_numpy(ltrb), torch.from_numpy(numbers).long()
        assert torch.equal(taking_the_last(given, classes, anchors).int(), theirs[i])
        ours, offsets = (each[0] for each in matching.match(given[None], classes[None], anchors))
        both = (ours > 0) & (theirs[i] > 0)
        differing += int((ours != theirs[i]).sum())
        positives += int((ours > 0).sum())
        moved += int(((ours > 0) & (theirs[i] == 0)).sum())
        other_offsets += int(((offsets - their_offsets[i]).abs().amax(dim=1) > 1e-3)[both].sum())
    assert (differing, moved, positives, other_offsets) == (694, 345, 7085, 26)
