"""What the kernels of batch norm and of the stem must do, against float64, and the network made of them.

test_kernels.py collects it as it does loss_cases.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.ssd import fused, loss, stem
from benchmarks.ssd.kernels import loss as loss_kernels
from benchmarks.ssd.kernels import norm, stem_convolution
from benchmarks.ssd.kernels import stem as stem_kernels
from benchmarks.ssd.model import SSD, HeadOutputs
from tests.ssd.loss_cases import DEVICE, _float32_in_full

__all__ = ["_float32_in_full"]  # of every test here, too

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


def fit_into_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float32, which no run has on a GPU, 128 rows of the stem's convolution leave 12 kB of a thread on the stack, and take
    its assembler 15 s; 16 take 1.5 s."""
    if DEVICE == "cuda":
        monkeypatch.setattr(stem_convolution, "ROWS", 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("channels", "sides", "programs"), [(3, (20, 22), 500), (4, (21, 19), 2), (4, (9, 8), 500)])
def test_the_stem_with_its_convolution_against_float64(
    channels: int, sides: tuple[int, int], programs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of three channels and of four, even and odd sides, borders; more turns than one, the last not of all programs, and
    fewer tiles than programs."""
    monkeypatch.setattr(stem_convolution, "PROGRAMS", programs)
    monkeypatch.setattr(stem_convolution, "PROGRAMS_BACKWARD", programs)
    if dtype == torch.float32:
        fit_into_registers(monkeypatch)
    generator = torch.Generator().manual_seed(1)
    # numbers that each format has: what is not exact the interpreter cuts off
    images = (16 * torch.randn(3, 3, *sides, generator=generator)).round().div(16)
    images = images.to(DEVICE, torch.float16 if channels == 4 else dtype)
    filters = (0.1 * torch.randn(64, 3, 7, 7, generator=generator)).to(DEVICE, dtype)
    shift, (weight, bias) = 0.1 * torch.randn(64, generator=generator).to(DEVICE), parameters(64)
    weight = weight + 0.01
    ours = leaves(filters, weight, bias)
    padded = torch.nn.functional.pad(images, (0, 0, 0, 0, 0, channels - 3))
    out, link, mean, variance, y, *_ = stem_convolution.whole(padded, ours[0], shift, *ours[1:], 1e-5)
    wide = images.to(dtype).double()
    twins = leaves(filters.double(), weight.double(), bias.double())
    convolved = torch.nn.functional.conv2d(wide, twins[0], None, 2, 3)
    expected = stem_convolution.plain(wide, *twins, 1e-5)
    agree([out, y], [expected, convolved], dtype)
    seen = y.double()
    torch.testing.assert_close(mean.double(), seen.mean((0, 2, 3)), rtol=0, atol=1e-6)
    agree([variance], [seen.var((0, 2, 3), correction=0)], torch.float32)
    gradient, second = (torch.randn(out.shape, generator=generator).to(DEVICE, dtype) for _ in range(2))
    found = torch.autograd.grad([out, link], ours, [gradient, second])
    if dtype == torch.float32:
        agree(list(found), list(torch.autograd.grad(expected, twins, gradient.double() + second.double())), dtype)
    else:  # which of a window's equal ones wins is open: the same steps one after the other, on the same numbers
        leaf = leaves(y)[0]
        pooled, other, *_ = torch.ops.ssd.batch_norm_relu_pool(leaf, mean, variance, *ours[1:], 1e-5)
        of_y, *of_norm = torch.autograd.grad([pooled, other], [leaf, *ours[1:]], [gradient, second])
        (of_filters,) = torch.autograd.grad(convolved, twins[:1], of_y.double())
        agree(list(found), [of_filters, *(each.double() for each in of_norm)], dtype)


def test_images_in_fours_are_read_where_they_lie() -> None:
    """At batch 256 a copy is 184 MB."""
    images = torch.randn(2, 8, 9, 4, device=DEVICE).permute(0, 3, 1, 2)
    assert stem_convolution.in_fours(images) is images
    padded = stem_convolution.in_fours(images[:, :3])
    assert torch.equal(padded[:, :3], images[:, :3]) and not padded[:, 3].any() and padded.stride() == images.stride()


def test_a_stem_of_odd_filters_is_refused() -> None:
    images, one = torch.randn(1, 3, 8, 8, device=DEVICE), torch.ones(24, device=DEVICE)
    with pytest.raises(ValueError, match="24 filters"):
        stem_convolution.whole(images, torch.randn(24, 3, 7, 7, device=DEVICE), one, one, one, 1e-5)


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
        "stem",
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
        "stem": (
            numbers((2, 3, 8, 8), torch.float32, 1), *leaves(numbers((16, 3, 7, 7), torch.float32, 2)),
            parameters(16)[1], *leaves(*parameters(16)), 1e-5,
        ),
        "convolution": (*leaves(x), *filters, bias, 1, 1),
        "convolution_relu": (*leaves(x), *filters, *leaves(bias), 1, 1),
        "convolution_of_sent": (
            *leaves(y), sent.detach().requires_grad_(), bits, x, *normed[1:], 1e-5, *filters, bias, 2, 1
        ),
    }[operator]  # fmt: skip
    torch.library.opcheck(getattr(torch.ops.ssd, operator).default, operands)


# --- the network -----------------------------------------------------------------------------------------------------

# Of a picture in px. Smaller ones are fewer programs of the interpreter's, a minute for each network; of lanes beyond the last
# cell, which the loss leaves out, its numpy says "invalid value encountered in subtract"
SIDE = 64 if DEVICE == "cuda" else 32


def network(*, ours: bool, convolutions: bool = False, first: bool = False) -> SSD:
    torch.manual_seed(3)
    model = SSD("resnet18", 4, (4, 4), ((32, 64, 2, 1),))
    if ours:
        before = torch.get_rng_state()
        stem.replace(model, stem.SpaceToDepth)
        fused.fuse_stem(model, convolution=first)
        fused.fuse_blocks(model, convolutions=convolutions)
        assert torch.equal(before, torch.get_rng_state())
    return model.to(DEVICE).to(memory_format=torch.channels_last)


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes its time for a program's operations, and as much for small tiles as for large ones. What programs
    leave to each other is the business of tests of the kernels alone."""
    if DEVICE == "cpu":
        monkeypatch.setattr(norm, "TILE", 1 << 15)
        monkeypatch.setattr(norm, "MOST_C", 512)
        monkeypatch.setattr(norm, "SUMMED_C", 512)
        monkeypatch.setattr(stem_kernels, "POSITIONS", 64)
        monkeypatch.setattr(stem_convolution, "ROWS", 1024)
        monkeypatch.setattr(stem_convolution, "POSITIONS", 256)
        monkeypatch.setattr(loss_kernels, "CELLS", 64)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.usefixtures("few_programs")
def test_the_fused_network_is_the_same_network(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_into_registers(monkeypatch)
    the_fused_network_is_the_same_network(convolutions=False, first=first)


def the_fused_network_is_the_same_network(*, convolutions: bool, first: bool = False) -> None:
    """Names, loss, gradients, running statistics, and what it says in evaluation."""
    plain, ours = network(ours=False), network(ours=True, convolutions=convolutions, first=first)
    assert list(plain.state_dict()) == list(ours.state_dict())
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(DEVICE)
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
