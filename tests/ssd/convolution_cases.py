"""What the convolutions that sum up must do, against float64; and their graphs, with PyTorch's operations for cuDNN's.

test_kernels.py collects it as it does loss_cases.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.detection.casts import WeightsAtOnce
from benchmarks.ssd.kernels import convolution, graphs, norm, plans, sums
from tests.ssd.norm_cases import (
    DEVICE,
    SIDE,
    _float32_in_full,
    few_programs,
    leaves,
    network,
    numbers,
    parameters,
    the_fused_network_is_the_same_network,
)

__all__ = ["_float32_in_full", "few_programs"]  # the first of every test here, too

GEOMETRIES = {"3x3": (3, 1, 1), "3x3, stride 2": (3, 2, 1), "1x1": (1, 1, 0), "1x1, stride 2": (1, 2, 0)}
OF_CONVOLUTIONS = {torch.float32: 2e-5, torch.bfloat16: 6e-3}


def close(found: list[Tensor], expected: list[Tensor], bound: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert ((a.double() - b).norm() / b.norm().clamp(min=1e-12)).item() < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_convolution_and_its_moments_against_float64(geometry: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Whatever the shift; on a GPU in bf16 through cuDNN's graphs, where it has them."""
    kernel, stride, padding = geometry
    x, filters = numbers((3, 16, 9, 7), dtype, 1), numbers((64, 16, kernel, kernel), dtype, 2) - 20
    shift = torch.linspace(-3, 3, 64, device=DEVICE)
    ours, twins = leaves(x, filters), leaves(x.double(), filters.double())
    out, mean, variance = torch.ops.ssd.convolution(*ours, shift, stride, padding)
    expected = torch.nn.functional.conv2d(*twins, stride=stride, padding=padding)
    close([out], [expected], OF_CONVOLUTIONS[dtype])
    close([mean, variance], [expected.mean((0, 2, 3)), expected.var((0, 2, 3), correction=0)], OF_CONVOLUTIONS[dtype])
    gradient = torch.randn(out.shape, device=DEVICE).to(dtype)
    found = torch.autograd.grad(out, ours, gradient)
    close(list(found), list(torch.autograd.grad(expected, twins, gradient.double())), OF_CONVOLUTIONS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("skipped", [False, True], ids=["alone", "with a skip"])
@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_sent_map_and_its_convolution_against_float64(
    geometry: tuple[int, int, int], readers: int, skipped: bool, dtype: torch.dtype
) -> None:
    """Batch norm, its sum and ReLU, and the convolution that masks and sums up its gradient."""
    kernel, stride, padding = geometry
    x, skip = numbers((2, 64, 7, 5), dtype, 3), numbers((2, 64, 7, 5), dtype, 4) - 20
    filters, (weight, bias) = numbers((32, 64, kernel, kernel), dtype, 5) - 20, parameters(64)
    ours = leaves(x, norm.link_of(skip), weight, bias, filters)
    moments = torch.ops.ssd.moments(x)
    y, sent, bits = torch.ops.ssd.batch_norm_relu_sent(
        ours[0], *moments, *((skip, ours[1]) if skipped else (None, None)), *ours[2:4], 1e-5
    )
    shift = torch.zeros(32, device=DEVICE)
    out, _, _, link = torch.ops.ssd.convolution_of_sent(
        y, sent, bits, x, *moments, 1e-5, ours[4], shift, stride, padding
    )
    twins = leaves(x.double(), skip.double(), weight.double(), bias.double(), filters.double())
    normalised = torch.nn.functional.batch_norm(twins[0], None, None, *twins[2:4], training=True)
    between = (normalised + twins[1] if skipped else normalised).relu()
    # the convolution sees the map as it is written
    seen = between + (y.double() - between).detach()
    expected = torch.nn.functional.conv2d(seen, twins[4], stride=stride, padding=padding)
    close([y, out], [between, expected], OF_CONVOLUTIONS[dtype])
    gradient, second = torch.randn(out.shape, device=DEVICE).to(dtype), torch.randn(y.shape, device=DEVICE).to(dtype)
    wanted = [0, *([1] if skipped else []), 2, 3, 4]
    outputs, gradients = [out, link][:readers], [gradient, second][:readers]
    found = torch.autograd.grad(outputs, [ours[i] for i in wanted], gradients)
    whole, parts = [expected, between][:readers], [each.double() for each in gradients]
    known = torch.autograd.grad(whole, [twins[i] for i in wanted], parts)
    # in bf16 a mask may differ where the float64 sum is within rounding of zero
    close(list(found), list(known), OF_CONVOLUTIONS[dtype] * (1 if dtype == torch.float32 else 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_convolution_with_its_bias_and_a_relu_against_float64(
    geometry: tuple[int, int, int], dtype: torch.dtype
) -> None:
    kernel, stride, padding = geometry
    x, filters = numbers((3, 16, 9, 7), dtype, 1) - 20, numbers((64, 16, kernel, kernel), dtype, 2) - 20
    bias = torch.linspace(-9, 9, 64, device=DEVICE)
    ours, twins = leaves(x, filters, bias), leaves(x.double(), filters.double(), bias.double())
    out = torch.ops.ssd.convolution_relu(*ours, stride, padding)
    whole = torch.nn.functional.conv2d(*twins, stride=stride, padding=padding)
    close([out], [whole.relu()], OF_CONVOLUTIONS[dtype])
    gradient = torch.randn(out.shape, device=DEVICE).to(dtype)
    found = torch.autograd.grad(out, ours, gradient)
    assert [each.dtype for each in found] == [dtype, dtype, torch.float32]
    # where the sum is within rounding of zero either side is right
    known = torch.autograd.grad(whole, twins, gradient.double() * (out > 0))
    close(list(found[:2]), list(known[:2]), OF_CONVOLUTIONS[dtype])
    close([found[2]], [known[2]], 1e-5)  # a sum of numbers that are given


class StandInTensor:
    """A graph's tensor: how it is computed of those that a run is given, by number."""

    def __init__(self, compute: Callable[[dict[int, Tensor]], Tensor]) -> None:
        self.compute = compute
        self.number, self.dtype = 0, torch.float32

    def set_uid(self, number: int) -> StandInTensor:
        self.number = number
        return self

    def set_output(self, _: bool) -> StandInTensor:
        return self

    def set_dim(self, size: list[int]) -> StandInTensor:
        self.size = size
        return self

    def set_stride(self, strides: list[int]) -> StandInTensor:
        _, channels, _, width = self.size
        assert strides[1] == 1 and strides[3] == channels and strides[2] == width * channels
        return self

    def set_data_type(self, _: object) -> None: ...


class StandInGraph:
    """cuDNN's operations by PyTorch's in float64, and the plan of whatever was built of them."""

    def __init__(self, fill: Callable[[StandInGraph], None]) -> None:
        self.made: list[StandInTensor] = []
        fill(self)

    def run(self, tensors: dict[int, Tensor]) -> None:
        outputs = [each for each in self.made if each.number]
        assert {each.number for each in outputs} <= set(tensors)
        for each, found in [(each, each.compute(tensors)) for each in outputs]:
            place = tensors[each.number]
            # sums are added to what is there, as atomic additions are; maps are written
            place.add_(found.flatten()) if place.dim() == 1 else place.copy_(found)

    def _made(self, compute: Callable[[dict[int, Tensor]], Tensor]) -> StandInTensor:
        self.made.append(StandInTensor(compute))
        return self.made[-1]

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: object) -> StandInTensor:
        number, (_, channels, height, width) = int(name), dim

        def given(tensors: dict[int, Tensor]) -> Tensor:
            found = tensors[number]
            if found.dtype == torch.uint8:  # truth values, the first of eight channels in the lowest bit
                bits = (found[..., None] >> torch.arange(8, device=found.device)) & 1
                found = bits.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
            return found.double().reshape(dim)

        return StandInTensor(given)

    def conv_fprop(self, *, image: StandInTensor, weight: StandInTensor, **place: list[int]) -> StandInTensor:
        return self._made(lambda t: torch.nn.functional.conv2d(image.compute(t), weight.compute(t), **place))

    def conv_dgrad(self, *, loss: StandInTensor, filter: StandInTensor, **place: list[int]) -> StandInTensor:
        def gradient(tensors: dict[int, Tensor]) -> Tensor:
            return torch.nn.grad.conv2d_input(found.size, filter.compute(tensors), loss.compute(tensors), **place)

        found = self._made(gradient)
        return found

    def relu(self, *, input: StandInTensor) -> StandInTensor:
        return self._made(lambda t: input.compute(t).relu())

    def add(self, *, a: StandInTensor, b: StandInTensor) -> StandInTensor:
        return self._made(lambda t: a.compute(t) + b.compute(t))

    def sub(self, *, a: StandInTensor, b: StandInTensor) -> StandInTensor:
        return self._made(lambda t: a.compute(t) - b.compute(t))

    def mul(self, *, a: StandInTensor, b: StandInTensor) -> StandInTensor:
        return self._made(lambda t: a.compute(t) * b.compute(t))

    def reduction(self, *, input: StandInTensor, mode: object) -> StandInTensor:
        return self._made(lambda t: input.compute(t).sum((0, 2, 3), keepdim=True))


@pytest.fixture
def by_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every convolution by its graph, in PyTorch's operations; the graphs that were asked for."""
    pytest.importorskip("cudnn")
    asked: list[str] = []

    def fastest(wanted: plans.Wanted, *_: object) -> StandInGraph:
        asked.append(wanted.text)
        return StandInGraph(wanted.fill)

    monkeypatch.setattr(convolution, "has_graph", lambda _: True)
    monkeypatch.setattr(plans, "fastest", fastest)
    return asked


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.usefixtures("few_programs")
def test_the_graph_of_a_convolution_and_its_moments(geometry: tuple[int, int, int], by_graphs: list[str]) -> None:
    test_a_convolution_and_its_moments_against_float64(geometry, torch.float32)
    assert len(by_graphs) == 1 and "moments" in by_graphs[0]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.usefixtures("few_programs")
def test_the_graph_of_a_convolution_with_its_bias_and_a_relu(
    geometry: tuple[int, int, int], by_graphs: list[str]
) -> None:
    test_a_convolution_with_its_bias_and_a_relu_against_float64(geometry, torch.float32)
    assert len(by_graphs) == 1 and "bias and ReLU" in by_graphs[0]


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("skipped", [False, True], ids=["alone", "with a skip"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.usefixtures("few_programs")
def test_the_graph_of_a_masked_gradient(
    geometry: tuple[int, int, int], skipped: bool, readers: int, by_graphs: list[str]
) -> None:
    """But for strides, of which cuDNN compiles none."""
    test_a_sent_map_and_its_convolution_against_float64(geometry, readers, skipped, torch.float32)
    backwards = [text for text in by_graphs if "masked" in text]
    assert len(backwards) == (geometry[1] == 1)
    assert all(("two readers" in text) == (readers == 2) for text in backwards)


def zeros_of(channels: int) -> Tensor:
    here = torch.empty(0, device=DEVICE).device  # with its number, as the device of every tensor has
    found = sums.room(here, channels)
    assert not found.any()
    return found


def test_room_for_sums_is_used_again_and_zero(by_graphs: list[str]) -> None:
    test_a_convolution_and_its_moments_against_float64((3, 1, 1), torch.float32)
    first, second = zeros_of(64), zeros_of(64)
    assert first.data_ptr() != second.data_ptr(), "what is taken is nobody else's"
    first.fill_(3)
    sums.moments(first, torch.zeros(64, device=DEVICE), 2)
    assert zeros_of(64).data_ptr() == first.data_ptr()
    first.fill_(torch.nan)
    assert sums.gradients(first, torch.ones(64, device=DEVICE), 0.0).isnan().all()
    assert zeros_of(64).data_ptr() == first.data_ptr(), "whatever was in it"
    assert len(by_graphs) == 1


def test_a_variance_is_never_negative() -> None:
    """Of a channel whose numbers are all alike, and rounded otherwise than their squares."""
    found, shift = zeros_of(64), torch.zeros(64, device=DEVICE)
    found[0], found[1] = 4 * 3.0, 4 * 9.0 * (1 - 1e-6)
    mean, variance = sums.moments(found, shift, 4)
    assert torch.equal(mean, shift + 3) and torch.equal(variance, shift)


def test_room_that_a_failure_left_full_is_not_used_again(by_graphs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    full: list[bool] = []
    sums.moments(zeros_of(64), torch.zeros(64, device=DEVICE), 2)  # one is given back, and taken first

    def interrupted(_: StandInGraph, tensors: dict[int, Tensor]) -> None:
        full.append(bool(tensors[graphs.SQUARES].any()))
        tensors[graphs.SQUARES].fill_(9)
        raise KeyboardInterrupt

    monkeypatch.setattr(StandInGraph, "run", interrupted)
    x, filters = numbers((1, 16, 4, 4), torch.float32, 1), numbers((64, 16, 1, 1), torch.float32, 2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            torch.ops.ssd.convolution(x, filters, torch.zeros(64, device=DEVICE), 1, 0)
    assert full == [False, False] and len(by_graphs) == 2
    zeros_of(64)


@pytest.mark.usefixtures("few_programs")
def test_the_whole_network_by_graphs(by_graphs: list[str]) -> None:
    the_fused_network_is_the_same_network(convolutions=True)
    assert len(by_graphs) > 20 and f"channels=16, height={SIDE // 2 + 3}" in by_graphs[0], (
        "the stem's, of blocks of pixels, first"
    )


@pytest.mark.usefixtures("few_programs")
def test_the_network_with_these_convolutions_is_the_same_network() -> None:
    the_fused_network_is_the_same_network(convolutions=True)


@pytest.mark.usefixtures("few_programs")
def test_compiled_every_parameter_learns_what_it_does_uncompiled() -> None:
    """With weights converted at once, too, of which torch.compile 2.11 once made zeros; that PyTorch's tracer alone does it."""
    images = torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
    images[:, 3] = 0
    found = []
    for compiled in (False, True):
        model = network(ours=True, convolutions=True, first=True).train()
        torch.compiler.reset()
        called = torch.compile(WeightsAtOnce(model), backend="aot_eager") if compiled else WeightsAtOnce(model)
        with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
            logits, offsets = called(images.contiguous(memory_format=torch.channels_last))
        (logits.float().square().mean() + offsets.float().square().mean()).backward()
        found.append(dict(model.named_parameters()))
    for name, parameter in found[0].items():
        expected, gradient = parameter.grad, found[1][name].grad
        assert expected is not None and gradient is not None and expected.any(), name
        # on a GPU sums are made in no order, and of two pictures batch norm makes 0.24 of a difference of 1e-7; zeros are 1
        close([gradient], [expected.double()], 1e-6 if DEVICE == "cpu" else 0.5)


def test_under_autocast_every_convolution_is_in_its_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stem's too, whose pictures come in float16."""
    seen: list[torch.dtype] = []
    made = graphs.shape_of

    def shape_of(x: Tensor, weight: Tensor, stride: int, padding: int) -> graphs.Shape:
        seen.extend((x.dtype, weight.dtype))
        return made(x, weight, stride, padding)

    monkeypatch.setattr(graphs, "shape_of", shape_of)
    images = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
    images[:, 3] = 0
    found = []
    for ours in (True, False):
        model = network(ours=ours, convolutions=ours)
        with torch.autocast(torch.device(DEVICE).type, torch.bfloat16), FakeTensorMode(allow_non_fake_inputs=True):
            maps = model.maps(images if ours else images[:, :3])
        found.append([(each.shape, each.dtype) for each in maps])
    assert found[0] == found[1] and len(seen) > 20 and set(seen) == {torch.bfloat16}
