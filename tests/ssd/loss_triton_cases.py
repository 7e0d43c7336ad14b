"""What the Triton loss must do, against float64 and the plain twin. Collected by test_loss_triton.py, in a process of its own.

On a CPU that process has TRITON_INTERPRET=1, which must be set before triton is imported; on a GPU the kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.ssd import loss, loss_triton
from tests.ssd.test_loss import case, slow_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
POSITIVES = {
    "ordinary": [5, 1, 20],
    "one image without boxes": [0, 7],
    "none has boxes": [0, 0],
    "3P exceeds the others": [60, 2],
    "all matched": [200, 1],
}

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def with_gradients(function: Loss, logits: Tensor, offsets: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and the gradients of logits and offsets."""
    logits, offsets = logits.detach().clone().requires_grad_(), offsets.detach().clone().requires_grad_()
    found = function(logits, offsets, *targets)
    found.backward()
    assert logits.grad is not None and offsets.grad is not None
    return found.detach(), logits.grad, offsets.grad


def inputs(seed: int, positives: list[int], dtype: torch.dtype = torch.float32, **shape: int) -> tuple[Tensor, ...]:
    logits, offsets, labels, targets = case(seed, positives, **shape)
    return logits.to(DEVICE, dtype), offsets.to(DEVICE, dtype), labels.int().to(DEVICE), targets.float().to(DEVICE)


@pytest.mark.parametrize("positives", POSITIVES.values(), ids=POSITIVES)
@pytest.mark.parametrize("seed", range(2))
def test_value_against_the_definition_in_float64(positives: list[int], seed: int) -> None:
    logits, offsets, labels, targets = case(seed, positives)
    expected = slow_loss(logits.numpy(), offsets.numpy(), labels.numpy(), targets.numpy())
    found = loss_triton.detection_loss(*inputs(seed, positives))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("positives", POSITIVES.values(), ids=POSITIVES)
def test_gradients_against_the_plain_twin_in_float64(positives: list[int]) -> None:
    logits, offsets, labels, targets = inputs(3, positives)
    found = with_gradients(loss_triton.detection_loss, logits, offsets, labels, targets)
    expected = with_gradients(in_float64, logits.double(), offsets.double(), labels, targets.double())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)


def in_float64(logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The plain twin's formula without its conversion to float32."""
    positive = labels > 0
    box = torch.nn.functional.smooth_l1_loss(offsets, targets, reduction="none").sum(2)
    entropy = -logits.log_softmax(2).gather(2, labels.long()[..., None]).squeeze(2)
    counted = positive | loss._hard_negatives(entropy.detach(), positive, positive.sum(1))
    per_image = torch.where(positive, box, 0.0).sum(1) + torch.where(counted, entropy, 0.0).sum(1)
    return (per_image / positive.sum(1).clamp(min=1)).where(positive.any(1), 0.0).mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_computed_in_float32_and_the_gradient_comes_back_in_it(dtype: torch.dtype) -> None:
    batch = inputs(4, [5, 0, 31], dtype)
    found = with_gradients(loss_triton.detection_loss, *batch)
    expected = with_gradients(loss.detection_loss, *batch)
    assert found[0].dtype == torch.float32 and {g.dtype for g in found[1:]} == {dtype}
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-7)
    one_ulp = torch.finfo(dtype).eps
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=one_ulp, atol=1e-6)


def test_size_of_ssd300() -> None:
    batch = inputs(5, [40, 3], anchors=8732, classes=81)
    found = with_gradients(loss_triton.detection_loss, *batch)
    expected = with_gradients(loss.detection_loss, *batch)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_ties_fill_the_places_that_are_left(levels: int) -> None:
    """Negatives of few different losses: which of the equal ones are taken is open, how many and their sum is not."""
    rng = np.random.default_rng(levels)
    logits, offsets, labels, targets = inputs(6, [7, 11])
    logits[:] = torch.from_numpy(rng.integers(0, levels, logits.shape[:2])).to(logits)[..., None] * torch.linspace(
        1, 2, logits.shape[2], device=logits.device
    )
    found = with_gradients(loss_triton.detection_loss, logits, offsets, labels, targets)
    expected = with_gradients(loss.detection_loss, logits, offsets, labels, targets)
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=0)
    if levels > 1:  # the gradient of equal logits tells counted from not counted as well
        assert [int((g.abs().sum(2) > 0).sum()) for g in (found[1], expected[1])] == [7 * 4 + 11 * 4] * 2
    touched = (found[1].abs().sum(2) > 0).sum(1).tolist()
    assert touched == [7 * 4, 11 * 4]


def test_losses_of_zero_and_infinity() -> None:
    """A logit so large that the others' probability rounds to zero: a negative without loss, or with an infinite one."""
    logits, offsets, labels, targets = inputs(7, [6])
    logits[0, labels[0] == 0, 0] = 200.0  # all negatives lossless: the k-th is zero
    found = loss_triton.detection_loss(logits, offsets, labels, targets)
    torch.testing.assert_close(found, loss.detection_loss(logits, offsets, labels, targets), rtol=2e-6, atol=0)
    logits[0, int((labels[0] == 0).nonzero()[0]), 0] = float("-inf")
    assert loss_triton.detection_loss(logits, offsets, labels, targets).item() == float("inf")


def test_nan_reaches_the_loss_where_the_image_has_boxes() -> None:
    for positives, expected_nan in (([3, 0], True), ([0, 3], False)):
        logits, offsets, labels, targets = inputs(8, positives)
        logits[0, int((labels[0] == 0).nonzero()[0]), 2] = float("nan")
        for function in (loss.detection_loss, loss_triton.detection_loss):
            assert bool(function(logits, offsets, labels, targets).isnan()) == expected_nan


def test_the_gradient_follows_what_comes_from_above() -> None:
    batch = inputs(9, [4, 9])
    whole = with_gradients(loss_triton.detection_loss, *batch)
    scaled = with_gradients(lambda *x: 128 * loss_triton.detection_loss(*x), *batch)
    for one, other in zip(whole, scaled, strict=True):
        assert torch.equal(128 * one, other)


def test_strided_input() -> None:
    logits, offsets, labels, targets = inputs(10, [4, 9])
    strided = logits.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    found = with_gradients(loss_triton.detection_loss, strided, offsets, labels, targets)
    expected = with_gradients(loss_triton.detection_loss, logits, offsets, labels, targets)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_to_torch_it_is_a_well_behaved_operator() -> None:
    logits, offsets, labels, targets = inputs(11, [4, 9], anchors=40)
    torch.library.opcheck(
        torch.ops.ssd.image_losses, (logits.requires_grad_(), offsets.requires_grad_(), labels, targets)
    )


def test_one_graph_under_torch_compile() -> None:
    """With fullgraph a break is an error. On a CPU the backend is the tracer alone, since Inductor needs a compiler."""
    batch = inputs(12, [4, 9])
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    scaled_logits: Loss = lambda z, *rest: loss_triton.detection_loss(2 * z, *rest)  # noqa: E731
    compiled = torch.compile(scaled_logits, fullgraph=True, backend=backend)
    for ours, theirs in zip(with_gradients(compiled, *batch), with_gradients(scaled_logits, *batch), strict=True):
        torch.testing.assert_close(ours, theirs)
