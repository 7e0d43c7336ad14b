"""The loss against a slow float64 version that follows the definition word by word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.ssd.loss import detection_loss

Array = npt.NDArray[np.float64]


def slow_loss(logits: Array, offsets: Array, labels: npt.NDArray[np.int64], targets: Array) -> float:
    """One image after another: smooth L1 on positives, cross-entropy on positives and the 3P hardest others."""
    images = []
    for image_logits, image_offsets, image_labels, image_targets in zip(logits, offsets, labels, targets, strict=True):
        positives = int((image_labels > 0).sum())
        if positives == 0:
            images.append(0.0)
            continue
        shifted = image_logits - image_logits.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        entropy = [-log_probability[a, label] for a, label in enumerate(image_labels)]
        box = 0.0
        for a in np.flatnonzero(image_labels):
            for difference in np.abs(image_offsets[a] - image_targets[a]):
                box += 0.5 * difference**2 if difference < 1 else difference - 0.5
        hardest = sorted((0.0 if image_labels[a] else entropy[a] for a in range(len(entropy))), reverse=True)
        negative = sum(hardest[: min(3 * positives, len(entropy))])
        positive = sum(entropy[a] for a in np.flatnonzero(image_labels))
        images.append((box + positive + negative) / positives)
    return float(np.mean(images))


def case(seed: int, positives: list[int], anchors: int = 200, classes: int = 7) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((len(positives), anchors), dtype=np.int64)
    for image, count in enumerate(positives):
        labels[image, rng.choice(anchors, count, replace=False)] = rng.integers(1, classes, count)
    logits = rng.normal(0, 3, (*labels.shape, classes))
    offsets, targets = rng.normal(0, 2, (2, *labels.shape, 4))
    return tuple(torch.from_numpy(x) for x in (logits, offsets, labels, targets * (labels > 0)[..., None]))


@pytest.mark.parametrize(
    "positives",
    [[5, 1, 20], [0, 7], [0, 0], [60, 2], [200, 1]],
    ids=["ordinary", "one image without boxes", "none has boxes", "3P exceeds the others", "all matched"],
)
def test_against_the_definition(positives: list[int]) -> None:
    for seed in range(5):
        logits, offsets, labels, targets = case(seed, positives)
        expected = slow_loss(logits.numpy(), offsets.numpy(), labels.numpy(), targets.numpy())
        found = detection_loss(logits.float(), offsets.float(), labels.int(), targets.float())
        assert found.item() == pytest.approx(expected, rel=2e-6, abs=1e-7)


def test_over_the_batch_all_is_divided_by_all_matched_boxes() -> None:
    """The paper's N; an image without boxes does not dilute it, and one with many weighs more."""
    logits, offsets, labels, targets = case(1, [5, 0, 20])
    images = [
        slow_loss(*(each[i : i + 1].numpy() for each in (logits, offsets, labels, targets))) * count
        for i, count in enumerate((5, 0, 20))
    ]
    found = detection_loss(logits.float(), offsets.float(), labels.int(), targets.float(), over="batch")
    assert found.item() == pytest.approx(sum(images) / 25, rel=2e-6)
    nothing = detection_loss(logits.float(), offsets.float(), labels.int() * 0, targets.float(), over="batch")
    assert nothing.item() == 0.0


def test_only_counted_boxes_receive_a_gradient() -> None:
    logits, offsets, labels, targets = case(0, [4, 0])
    logits, offsets = logits.float().requires_grad_(), offsets.float().requires_grad_()
    detection_loss(logits, offsets, labels.int(), targets.float()).backward()
    assert logits.grad is not None and offsets.grad is not None
    touched = logits.grad.abs().sum(dim=2) > 0
    assert touched.sum(dim=1).tolist() == [4 + 12, 0]
    assert ((offsets.grad.abs().sum(dim=2) > 0) == (labels > 0)).all()


def test_half_precision_input_is_computed_in_float32() -> None:
    logits, offsets, labels, targets = case(3, [5, 9])
    half = (logits.bfloat16(), offsets.bfloat16())
    found = detection_loss(*half, labels.int(), targets.float())
    expected = detection_loss(half[0].float(), half[1].float(), labels.int(), targets.float())
    assert found.dtype == torch.float32 and torch.equal(found, expected)
