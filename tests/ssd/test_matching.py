"""Matching of whole batches against the same image by image; against the definition in float64 it is in test_data.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.ssd import matching
from benchmarks.ssd.boxes import decode, default_boxes, encode
from benchmarks.ssd.profile.baselines import encode as encode_one

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
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", at_once)
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
    iou = matching.overlaps(tiny[0], decode(torch.zeros(len(BOXES), 4), BOXES))[0]
    assert 0 < iou.max() < matching.MATCH_IOU and labels[0].argmax() == iou.argmax()


def test_offsets_are_the_inverse_of_decoding() -> None:
    rng = np.random.default_rng(0)
    wanted = torch.from_numpy(rng.normal(0, 2, (len(BOXES), 4)).astype(np.float32))
    torch.testing.assert_close(encode(decode(wanted, BOXES), BOXES), wanted, atol=2e-4, rtol=0)
