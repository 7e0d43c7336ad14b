"""What the Triton kernels must do, against float64 and their plain twins. test_kernels.py collects it in a process of its own.

On a CPU that process has TRITON_INTERPRET=1, which must be set before triton is imported; on a GPU the kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.ssd import fused, loss, stem
from benchmarks.ssd.kernels import loss as loss_kernels
from benchmarks.ssd.kernels import norm
from benchmarks.ssd.kernels import stem as stem_kernels
from benchmarks.ssd.model import SSD, FusedHead, HeadOutputs
from tests.ssd.test_loss import case, slow_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
POSITIVES = {
    "ordinary": [5, 1, 20],
    "one image without boxes": [0, 7],
    "none has boxes": [0, 0],
    "3P exceeds the others": [60, 2],
    "all matched": [200, 1],
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


def inputs(seed: int, positives: list[int], dtype: torch.dtype = torch.float32, **shape: int) -> tuple[Tensor, ...]:
    logits, offsets, labels, targets = case(seed, positives, **shape)
    return logits.to(DEVICE, dtype), offsets.to(DEVICE, dtype), labels.int().to(DEVICE), targets.float().to(DEVICE)


@pytest.mark.parametrize("positives", POSITIVES.values(), ids=POSITIVES)
@pytest.mark.parametrize("seed", range(2))
def test_value_against_the_definition_in_float64(positives: list[int], seed: int) -> None:
    logits, offsets, labels, targets = case(seed, positives)
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
    batch = inputs(4, [5, 0, 31], dtype)
    found = with_gradients(from_rows, *batch)
    expected = with_gradients(loss.detection_loss, *batch)
    assert found[0].dtype == torch.float32 and {g.dtype for g in found[1:]} == {dtype}
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-7)
    one_ulp = torch.finfo(dtype).eps
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=one_ulp, atol=1e-6)


def test_size_of_ssd300() -> None:
    batch = inputs(5, [40], anchors=8732, classes=81)
    torch.testing.assert_close(from_rows(*batch), loss.detection_loss(*batch), rtol=5e-6, atol=1e-7)


def test_gradients_of_more_cells_than_programs() -> None:
    """Of SSD300 on a GPU. The interpreter would take a minute and a half for that, and sees some take a second turn."""
    anchors = 8732 if DEVICE == "cuda" else 1100
    batch = inputs(5, [40, 3], anchors=anchors, classes=81)
    assert 2 * anchors > loss_kernels.GRADIENT_PROGRAMS
    found = with_gradients(from_rows, *batch)
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
    found = with_gradients(from_rows, logits, offsets, labels, targets)
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


# --- batch norm ------------------------------------------------------------------------------------------------------

SHAPES = [(2, 64, 5, 7), (3, 72, 4, 4), (2, 8, 9, 9), (1, 264, 3, 3)]
BOUND = {torch.float32: 2e-6, torch.bfloat16: 6e-3}


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Far from zero, as nothing says that it is not: a variance from squares would cancel."""
    generator = torch.Generator().manual_seed(seed)
    found = 3 * torch.randn(shape, generator=generator) + 20
    return found.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def parameters(channels: int) -> tuple[Tensor, Tensor]:
    """Weights of either sign, some zero, and biases."""
    generator = torch.Generator().manual_seed(channels)
    weight, bias = (torch.randn(channels, generator=generator).to(DEVICE) for _ in range(2))
    weight[::5] = 0.0
    return weight, bias


def agree(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert ((a.double() - b).norm() / b.norm().clamp(min=1e-12)).item() < BOUND[dtype]


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [each.detach().clone().requires_grad_() for each in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_against_float64(shape: tuple[int, ...], dtype: torch.dtype, relu: bool) -> None:
    x, gradient = numbers(shape, dtype, 1), numbers(shape, dtype, 2) - 20
    weight, bias = parameters(shape[1])
    ours = leaves(x, weight, bias)
    mean, variance = torch.ops.ssd.moments(x)
    out = torch.ops.ssd.batch_norm(ours[0], mean, variance, *ours[1:], 1e-5, relu)
    twins = leaves(x.double(), weight.double(), bias.double())
    expected = torch.nn.functional.batch_norm(twins[0], None, None, *twins[1:], training=True)
    expected = expected.relu() if relu else expected
    agree([out], [expected], dtype)
    agree([mean, variance], [x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), correction=0)], torch.float32)
    agree(
        list(torch.autograd.grad(out, ours, gradient)),
        list(torch.autograd.grad(expected, twins, gradient.double())),
        dtype,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_with_a_sum_against_float64(dtype: torch.dtype, readers: int, shape: tuple[int, ...]) -> None:
    """The output's second reader gives its gradient through the link, and the skip's comes back through the other."""
    x, skip, gradient, second = (numbers(shape, dtype, seed) - 20 for seed in range(3, 7))
    weight, bias = parameters(shape[1])
    ours = leaves(x, norm.link_of(skip), weight, bias)
    out, link, bits = torch.ops.ssd.batch_norm_add_relu(ours[0], *torch.ops.ssd.moments(x), skip, *ours[1:], 1e-5)
    through = (bits.view(-1, shape[1] // 8, 1) >> torch.arange(8, device=bits.device)) & 1
    assert torch.equal(through.flatten(1), (out > 0).permute(0, 2, 3, 1).flatten(0, 2).to(through.dtype))
    assert link.shape == out.shape and link.stride() == (0, 0, 0, 0)
    twins = leaves(x.double(), skip.double(), weight.double(), bias.double())
    normalised = torch.nn.functional.batch_norm(twins[0], None, None, twins[2], twins[3], training=True)
    expected = (normalised + twins[1]).relu()
    agree([out], [expected], dtype)
    whole = gradient.double() + (second.double() if readers == 2 else 0)
    found = torch.autograd.grad([out, link][:readers], ours, [gradient, second][:readers])
    agree(list(found), list(torch.autograd.grad(expected, twins, whole)), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(2, 64, 6, 8), (2, 24, 7, 5), (1, 72, 9, 4)])
def test_the_stem_against_float64(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Even and odd sides; a second gradient through the link."""
    x, (weight, bias) = numbers(shape, dtype, 7), parameters(shape[1])
    weight = weight + 0.01  # where it is zero, which place of a window wins is open
    ours, twins = leaves(x, weight, bias), leaves(x.double(), weight.double(), bias.double())
    out, link, place, _ = torch.ops.ssd.batch_norm_relu_pool(ours[0], *torch.ops.ssd.moments(x), *ours[1:], 1e-5)
    expected = stem_kernels.plain(*twins, 1e-5)
    agree([out], [expected], dtype)
    assert int(place.min()) >= 0 and int(place.max()) <= 8
    gradient, second = (torch.randn(out.shape, device=DEVICE).to(dtype) for _ in range(2))
    found = torch.autograd.grad([out, link], ours, [gradient, second])
    wanted = torch.autograd.grad(expected, twins, gradient.double() + second.double())
    if dtype == torch.float32:
        agree(list(found), list(wanted), dtype)
    else:  # numbers of eight bits are often equal, and which of a window's equal ones wins is open
        agree(list(found[1:]), list(wanted[1:]), torch.bfloat16)


def test_the_variance_of_large_numbers_close_together() -> None:
    x = (1000 + torch.randn(4, 64, 8, 8, generator=torch.Generator().manual_seed(1))).to(DEVICE)
    _, variance = norm.moments(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("most_channels", [64, 256])
def test_sums_of_more_rows_than_a_turn_has(most_channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that no turn of all programs fills, and more turns than one: none is left out, and none comes twice. Of more
    channels than a tile, too."""
    monkeypatch.setattr(norm, "MOST_C", most_channels)
    monkeypatch.setattr(norm, "PROGRAMS", 3)
    x, gradient = numbers((2, 72, 21, 23), torch.float32, 1), numbers((2, 72, 21, 23), torch.float32, 2) - 20
    mean, variance = norm.moments(x)
    agree([mean, variance], [x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), correction=0)], torch.float32)
    one, two = torch.ones(72, device=DEVICE), torch.zeros(72, device=DEVICE)
    of_bias, of_weight = norm.sums_of_gradients(gradient, None, x, None, one, two, mean, variance, 1e-5, None, False)
    away = (x.double() - mean.double()[:, None, None]) / (variance.double() + 1e-5).sqrt()[:, None, None]
    expected = [gradient.double().sum((0, 2, 3)), (gradient.double() * away).sum((0, 2, 3))]
    agree([of_bias, of_weight], expected, torch.float32)


def test_sums_that_come_back_as_one_number() -> None:
    """Without memory of their own for each channel, which a kernel would read beyond."""
    x, (weight, bias) = numbers((2, 64, 5, 7), torch.float32, 1), parameters(64)
    moments, gradient = torch.ops.ssd.moments(x), numbers((2, 64, 5, 7), torch.float32, 2) - 20
    one = torch.full((), 7.0, device=DEVICE)
    found, expected = (
        torch.ops.ssd.batch_norm_relu_sent_backward(gradient, sums, x, weight, bias, *moments, 1e-5)
        for sums in (one.expand(2, 64), torch.full((2, 64), 7.0, device=DEVICE))
    )
    assert torch.equal(found, expected)


def test_channels_that_fill_no_byte_are_refused() -> None:
    """Their bits would be lost, and their gradients with them."""
    x, (weight, bias) = numbers((2, 12, 4, 4), torch.float32, 9), parameters(12)
    moments = torch.ops.ssd.moments(x)
    with pytest.raises(ValueError, match="12 channels"):
        torch.ops.ssd.batch_norm_add_relu(x, *moments, x, norm.link_of(x), weight, bias, 1e-5)
    with pytest.raises(ValueError, match="12 channels"):
        torch.ops.ssd.batch_norm_relu_sent(x, *moments, None, None, weight, bias, 1e-5)


def test_a_nan_is_not_lost() -> None:
    x, (weight, bias) = numbers((2, 64, 6, 6), torch.float32, 8), parameters(64)
    x[1, 3, 2, 2] = float("nan")
    moments = torch.ops.ssd.moments(x)
    outputs = (
        torch.ops.ssd.batch_norm(x, *moments, weight, bias, 1e-5, True),
        torch.ops.ssd.batch_norm_relu_pool(x, *moments, weight, bias, 1e-5)[0],
        torch.ops.ssd.batch_norm_relu_sent(x, *moments, None, None, weight, bias, 1e-5)[0],
    )
    for out in outputs:
        assert out[:, 3].isnan().all() and not out[:, :3].isnan().any()


@pytest.mark.parametrize(
    "operator",
    [
        "batch_norm",
        "batch_norm_add_relu",
        "batch_norm_relu_sent",
        "batch_norm_relu_pool",
        "convolution",
        "convolution_relu",
        "convolution_of_sent",
    ],
)
def test_to_torch_each_is_a_well_behaved_operator(operator: str) -> None:
    x, (weight, bias) = numbers((2, 8, 4, 4), torch.float32, 9), parameters(8)
    normed = (*leaves(x), *torch.ops.ssd.moments(x))
    linked = (x, norm.link_of(x).requires_grad_())
    filters = leaves(numbers((8, 8, 3, 3), torch.float32, 10))
    y, sent, bits = torch.ops.ssd.batch_norm_relu_sent(*normed, None, None, *leaves(weight, bias), 1e-5)
    operands = {
        "batch_norm": (*normed, *leaves(weight, bias), 1e-5, True),
        "batch_norm_add_relu": (*normed, *linked, *leaves(weight, bias), 1e-5),
        "batch_norm_relu_sent": (*normed, *linked, *leaves(weight, bias), 1e-5),
        "batch_norm_relu_pool": (*normed, *leaves(weight, bias), 1e-5),
        "convolution": (*leaves(x), *filters, bias, 1, 1),
        "convolution_relu": (*leaves(x), *filters, *leaves(bias), 1, 1),
        "convolution_of_sent": (
            *leaves(y), sent.detach().requires_grad_(), bits, x, *normed[1:], 1e-5, *filters, bias, 2, 1
        ),
    }[operator]  # fmt: skip
    torch.library.opcheck(getattr(torch.ops.ssd, operator).default, operands)


# --- the network -----------------------------------------------------------------------------------------------------


def network(*, ours: bool, convolutions: bool = False) -> SSD:
    torch.manual_seed(3)
    model = SSD("resnet18", 4, (4, 4), ((32, 64, 2, 1),))
    if ours:
        before = torch.get_rng_state()
        stem.replace(model, stem.SpaceToDepth)
        fused.fuse_stem(model)
        fused.fuse_blocks(model, convolutions=convolutions)
        assert torch.equal(before, torch.get_rng_state())
    return model.to(DEVICE).to(memory_format=torch.channels_last)


def test_the_fused_network_is_the_same_network() -> None:
    the_fused_network_is_the_same_network(convolutions=False)


def the_fused_network_is_the_same_network(*, convolutions: bool) -> None:
    """Names, loss, gradients, running statistics, and what it says in evaluation."""
    plain, ours = network(ours=False), network(ours=True, convolutions=convolutions)
    assert list(plain.state_dict()) == list(ours.state_dict())
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    logits, offsets = plain(images)
    labels = torch.zeros(logits.shape[:2], dtype=torch.int32, device=DEVICE)
    labels[:, 5:9] = 2
    targets = torch.randn(offsets.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    expected = loss.detection_loss(logits, offsets, labels, targets)
    found = loss_kernels.detection_loss(*HeadOutputs(ours)(images), labels, targets, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    expected.backward()
    found.backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        difference = (a.grad - b.grad).norm() / b.grad.norm().clamp(min=1e-9)  # extras that nothing matches have none
        assert difference.item() < 2e-2, name  # batch norm of few cells enlarges rounding
    for (name, a), (_, b) in zip(ours.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    plain.eval(), ours.eval()
    for a, b in zip(ours(images), plain(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
