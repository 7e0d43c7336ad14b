"""What the loss's kernels must do, against float64 and its plain twin. test_kernels.py collects it in a process of its own.

On a CPU that process has TRITON_INTERPRET=1, which must be set before triton is imported; on a GPU the kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.ssd import loss
from benchmarks.ssd.kernels import loss as loss_kernels
from benchmarks.ssd.model import FusedHead
from tests.ssd.test_loss import case, slow_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of an image, unless it says otherwise: a few programs, the last one not full. The interpreter takes 20 ms for each
ANCHORS = 45
POSITIVES = {
    "ordinary": [2, 1, 9],
    "one image without boxes": [0, 7],
    "none has boxes": [0, 0],
    "3P exceeds the others": [14, 2],
    "all matched": [ANCHORS, 1],
}


@pytest.fixture(autouse=True)
def _float32_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these bounds are for; by default a GPU's convolutions are TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def from_rows(logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The kernels' loss of what the plain one takes: one map of one row of cells with one default box each."""
    padding = logits.new_zeros(*logits.shape[:2], 3)
    rows = torch.cat([logits, offsets, padding], dim=2)  # (B, A, C)
    return loss_kernels.detection_loss(
        [rows[:, None].permute(0, 3, 1, 2)], [rows.new_zeros(rows.shape[2])], labels, targets, logits.shape[2]
    )


def with_gradients(function: Loss, logits: Tensor, offsets: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and the gradients of logits and offsets."""
    logits, offsets = logits.detach().clone().requires_grad_(), offsets.detach().clone().requires_grad_()
    found = function(logits, offsets, *targets)
    found.backward()
    assert logits.grad is not None and offsets.grad is not None
    return found.detach(), logits.grad, offsets.grad


def inputs(
    seed: int, positives: list[int], dtype: torch.dtype = torch.float32, anchors: int = ANCHORS, classes: int = 7
) -> tuple[Tensor, ...]:
    logits, offsets, labels, targets = case(seed, positives, anchors, classes)
    return logits.to(DEVICE, dtype), offsets.to(DEVICE, dtype), labels.int().to(DEVICE), targets.float().to(DEVICE)


@pytest.mark.parametrize("positives", POSITIVES.values(), ids=POSITIVES)
@pytest.mark.parametrize("seed", range(2))
def test_value_against_the_definition_in_float64(positives: list[int], seed: int) -> None:
    logits, offsets, labels, targets = case(seed, positives, ANCHORS)
    expected = slow_loss(logits.numpy(), offsets.numpy(), labels.numpy(), targets.numpy())
    found = from_rows(*inputs(seed, positives))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("positives", POSITIVES.values(), ids=POSITIVES)
def test_gradients_against_the_plain_twin_in_float64(positives: list[int]) -> None:
    logits, offsets, labels, targets = inputs(3, positives)
    found = with_gradients(from_rows, logits, offsets, labels, targets)
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
    batch = inputs(4, [2, 0, 9], dtype)
    found = with_gradients(from_rows, *batch)
    expected = with_gradients(loss.detection_loss, *batch)
    assert found[0].dtype == torch.float32 and {g.dtype for g in found[1:]} == {dtype}
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-7)
    one_ulp = torch.finfo(dtype).eps
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=one_ulp, atol=1e-6)


def test_size_of_ssd300() -> None:
    """On a GPU; the interpreter takes a thirtieth of its default boxes and so of its programs, the last one half full too."""
    batch = inputs(5, [40], anchors=8732 if DEVICE == "cuda" else 300, classes=81)
    torch.testing.assert_close(from_rows(*batch), loss.detection_loss(*batch), rtol=5e-6, atol=1e-7)


def test_gradients_of_more_turns_than_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of SSD300 on a GPU. The interpreter would take a minute and a half for that, and has fewer of both."""
    anchors = 8732
    if DEVICE == "cpu":
        anchors = 50
        monkeypatch.setattr(loss_kernels, "GRADIENT_PROGRAMS", 5)
    batch = inputs(5, [8, 3], anchors=anchors, classes=81)
    assert 2 * anchors > loss_kernels.GRADIENT_PROGRAMS * loss_kernels.GRADIENT_CELLS
    found = with_gradients(from_rows, *batch)
    expected = with_gradients(loss.detection_loss, *batch)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_ties_fill_the_places_that_are_left(levels: int) -> None:
    """Negatives of few different losses: which of the equal ones are taken is open, how many and their sum is not."""
    rng = np.random.default_rng(levels)
    logits, offsets, labels, targets = inputs(6, [4, 9])
    logits[:] = torch.from_numpy(rng.integers(0, levels, logits.shape[:2])).to(logits)[..., None] * torch.linspace(
        1, 2, logits.shape[2], device=logits.device
    )
    found = with_gradients(from_rows, logits, offsets, labels, targets)
    expected = with_gradients(loss.detection_loss, logits, offsets, labels, targets)
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=0)
    if levels > 1:  # the gradient of equal logits tells counted from not counted as well
        assert [int((g.abs().sum(2) > 0).sum()) for g in (found[1], expected[1])] == [4 * 4 + 9 * 4] * 2
    touched = (found[1].abs().sum(2) > 0).sum(1).tolist()
    assert touched == [4 * 4, 9 * 4]


def test_losses_of_zero_and_infinity() -> None:
    """A logit so large that the others' probability rounds to zero: a negative without loss, or with an infinite one."""
    logits, offsets, labels, targets = inputs(7, [6])
    logits[0, labels[0] == 0, 0] = 200.0  # all negatives lossless: the k-th is zero
    found = from_rows(logits, offsets, labels, targets)
    torch.testing.assert_close(found, loss.detection_loss(logits, offsets, labels, targets), rtol=2e-6, atol=0)
    logits[0, int((labels[0] == 0).nonzero()[0]), 0] = float("-inf")
    assert from_rows(logits, offsets, labels, targets).item() == float("inf")


def test_nan_reaches_the_loss_where_the_image_has_boxes() -> None:
    for positives, expected_nan in (([3, 0], True), ([0, 3], False)):
        logits, offsets, labels, targets = inputs(8, positives)
        logits[0, int((labels[0] == 0).nonzero()[0]), 2] = float("nan")
        for function in (loss.detection_loss, from_rows):
            assert bool(function(logits, offsets, labels, targets).isnan()) == expected_nan


def test_the_gradient_follows_what_comes_from_above() -> None:
    batch = inputs(9, [4, 9])
    whole = with_gradients(from_rows, *batch)
    scaled = with_gradients(lambda *x: 128 * from_rows(*x), *batch)
    for one, other in zip(whole, scaled, strict=True):
        assert torch.equal(128 * one, other)


def heads_and_maps(dtype: torch.dtype) -> tuple[list[FusedHead], list[Tensor], list[Tensor]]:
    """Heads of 5 classes on maps of 4x3, 2x2 and 1x1 cells, their convolutions' outputs and biases."""
    torch.manual_seed(13)
    heads = [FusedHead(8, shapes, 5) for shapes in (4, 6, 4)]
    sides = ((4, 3), (2, 2), (1, 1))
    maps = [torch.randn(3, h.conv.out_channels, *side) for h, side in zip(heads, sides, strict=True)]
    biases = [torch.randn(h.conv.out_channels) for h in heads]
    return heads, [each.to(DEVICE, dtype) for each in maps], [each.to(DEVICE) for each in biases]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_heads_own_maps_against_the_rows_made_of_them(dtype: torch.dtype) -> None:
    heads, maps, biases = heads_and_maps(dtype)
    anchors = 4 * 12 + 6 * 4 + 4
    labels = torch.zeros(3, anchors, dtype=torch.int32, device=DEVICE)
    labels[0, [0, 11, 12, 47, 48, 75]] = torch.tensor([1, 2, 3, 4, 1, 2], dtype=torch.int32, device=DEVICE)
    labels[2, [50, 71, 72]] = 3
    targets = torch.randn(3, anchors, 4, device=DEVICE)

    def ours(maps: list[Tensor], biases: list[Tensor]) -> Tensor:
        return loss_kernels.detection_loss(maps, biases, labels, targets, 5)

    def theirs(maps: list[Tensor], biases: list[Tensor]) -> Tensor:
        rows = [h.rows(m + b[None, :, None, None]) for h, m, b in zip(heads, maps, biases, strict=True)]
        logits, offsets = (torch.cat(each, dim=1) for each in zip(*rows, strict=True))
        return in_float64(logits, offsets, labels, targets.double())

    found, expected = [], []
    for function, results, number in ((ours, found, dtype), (theirs, expected, torch.float64)):
        leaves = [each.to(number).requires_grad_() for each in maps]
        known = [
            each.to(torch.float64 if number == torch.float64 else torch.float32).requires_grad_() for each in biases
        ]
        value = function(leaves, known)
        results += [value.detach(), *torch.autograd.grad(value, [*leaves, *known])]
    bound = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=bound, atol=1e-7 if dtype == torch.float32 else 1e-6)


def test_maps_in_another_layout() -> None:
    _, maps, biases = heads_and_maps(torch.float32)
    labels = torch.zeros(3, 76, dtype=torch.int32, device=DEVICE)
    labels[:, 3:6] = 2
    targets = torch.randn(3, 76, 4, device=DEVICE)
    last = [each.contiguous(memory_format=torch.channels_last) for each in maps]
    found = [loss_kernels.detection_loss(each, biases, labels, targets, 5).item() for each in (maps, last)]
    assert found[0] == found[1]


def test_to_torch_the_loss_is_a_well_behaved_operator() -> None:
    _, maps, biases = heads_and_maps(torch.float32)
    labels = torch.zeros(3, 76, dtype=torch.int32, device=DEVICE)
    labels[:, 3:6] = 2
    known = [each.requires_grad_() for each in biases]
    leaves = [each.contiguous(memory_format=torch.channels_last).requires_grad_() for each in maps]
    operands = (leaves, known, labels, torch.randn(3, 76, 4, device=DEVICE), 5)
    torch.library.opcheck(torch.ops.ssd.head_losses.default, operands)


def test_one_graph_under_torch_compile() -> None:
    """With fullgraph a break is an error. On a CPU the backend is the tracer alone, since Inductor needs a compiler."""
    batch = inputs(12, [4, 9])
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    scaled_logits: Loss = lambda z, *rest: from_rows(2 * z, *rest)  # noqa: E731
    compiled = torch.compile(scaled_logits, fullgraph=True, backend=backend)
    for ours, theirs in zip(with_gradients(compiled, *batch), with_gradients(scaled_logits, *batch), strict=True):
        torch.testing.assert_close(ours, theirs)
