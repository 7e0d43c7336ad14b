"""Convolutions of a ResNet's blocks that sum up what they have in registers, in training, for CUDA: cuDNN's graphs.

    convolution           a convolution, and the moments of its output for the batch norm that follows
    convolution_of_sent   the same of a map from batch_norm_relu_sent: its backward pass adds the second reader's gradient,
                          masks the sum by the ReLU and sums up what that batch norm's backward pass wants

Statistics are of the output before it is rounded: sums of differences, and of their squares, from a number for each channel
that is near the mean (the running mean: from the second step on nothing cancels). They are added up by atomic additions, in no
order: equal input does not give equal bits.

Of the 21 times that a block's batch norms, sum and ReLUs, and what they get from its convolutions' backward pass, read or
write a map, it saves five. But such a kernel's tile is
smaller than the best of a convolution alone (128 x 128 against 128 x 256 on Hopper), so that for each shape the two are timed
against each other in init, see benchmarks.ssd.kernels.plans. Where there is no graph (a CPU, float32, a gradient of stride 2)
it is PyTorch's convolution and kernels of benchmarks.ssd.kernels.norm: the definition. That writes a block's inner gradient
once more than batch_norm does, so that without any graph this form is slower than leaving it out.

Shapes: B images, C channels, H W of the input, K filters, P Q of the output.
"""

# No `from __future__ import annotations`: torch.library reads annotations as objects. An operator's fake has all of its
# operator's arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0917, ARG001

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.ssd.kernels import norm, plans, sums
from benchmarks.ssd.kernels.norm import channels_last, link_of

# Numbers of a graph's tensors. Forwards: input, weights, shift; output, sums. Backwards: gradient, weights, ReLU's mask, batch
# norm's input, its mean, the second reader's gradient; masked gradient, sums
X, WEIGHT, SHIFT, Y, DIFFERENCES, SQUARES, GRAD, BITS, BEFORE, MEAN, SECOND, MASKED, ONE, TWO = range(1, 15)


class Shape(NamedTuple):
    """All that a convolution's graph depends on."""

    images: int
    channels: int
    height: int
    width: int
    filters: int
    kernel: int
    stride: int
    padding: int
    dtype: torch.dtype

    @property
    def output(self) -> tuple[int, int, int, int]:
        """(B, K, P, Q)."""
        p, q = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (self.height, self.width))
        return self.images, self.filters, p, q

    @property
    def input(self) -> tuple[int, int, int, int]:
        """(B, C, H, W)."""
        return self.images, self.channels, self.height, self.width

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """(K, C, kernel, kernel)."""
        return self.filters, self.channels, self.kernel, self.kernel


def shape_of(x: Tensor, weight: Tensor, stride: int, padding: int) -> Shape:
    """Of x (B, C, H, W) and weight (K, C, kernel, kernel)."""
    images, channels, height, width = x.shape
    return Shape(images, channels, height, width, weight.shape[0], weight.shape[2], stride, padding, x.dtype)


# --- graphs ----------------------------------------------------------------------------------------------------------


@functools.cache  # asked for at every step
def forward_graph(shape: Shape) -> plans.Wanted:
    """Output, sums over (output - shift) and over its square."""
    return plans.Wanted(f"convolution and moments, {shape}", functools.partial(_fill_forward, shape))


@functools.cache
def backward_graph(shape: Shape, *, second: bool) -> plans.Wanted:
    """(Gradient of the input, plus the second reader's) where the ReLU let through; its sum and that with (before - mean)."""
    text = f"masked gradient and sums{' of two readers' if second else ''}, {shape}"
    return plans.Wanted(text, functools.partial(_fill_backward, shape, second))


def _fill_forward(shape: Shape, graph: Any) -> None:
    place = _geometry(shape)
    x, weight = _map(graph, X, shape.input, shape.dtype), _map(graph, WEIGHT, shape.weight, shape.dtype)
    y = graph.conv_fprop(image=x, weight=weight, **place)
    _out(y, Y, shape.output, shape.dtype)
    away = graph.sub(a=y, b=_of_channels(graph, SHIFT, shape.filters))
    _sum(graph, away, DIFFERENCES, shape.filters)
    _sum(graph, graph.mul(a=away, b=away), SQUARES, shape.filters)


def _fill_backward(shape: Shape, second: bool, graph: Any) -> None:
    channels = shape.channels
    grad, weight = _map(graph, GRAD, shape.output, shape.dtype), _map(graph, WEIGHT, shape.weight, shape.dtype)
    found = graph.conv_dgrad(loss=grad, filter=weight, **_geometry(shape))
    found.set_dim(list(shape.input))
    if second:
        found = graph.add(a=found, b=_map(graph, SECOND, shape.input, shape.dtype))
    # eight of a map's channels in a byte: cuDNN's form of truth values, and benchmarks.ssd.kernels.norm's
    masked = graph.mul(a=found, b=_map(graph, BITS, shape.input, torch.bool))
    _out(masked, MASKED, shape.input, shape.dtype)
    before = _map(graph, BEFORE, shape.input, shape.dtype)
    away = graph.sub(a=before, b=_of_channels(graph, MEAN, channels))
    _sum(graph, masked, ONE, channels)
    _sum(graph, graph.mul(a=masked, b=away), TWO, channels)


def _geometry(shape: Shape) -> dict[str, list[int]]:
    return {"padding": [shape.padding] * 2, "stride": [shape.stride] * 2, "dilation": [1, 1]}


def _map(graph: Any, number: int, size: tuple[int, int, int, int], dtype: torch.dtype) -> Any:
    tensor = graph.tensor(name=str(number), dim=list(size), stride=_strides(size), data_type=_data_type(dtype))
    return tensor.set_uid(number)


def _out(tensor: Any, number: int, size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    tensor.set_output(True).set_uid(number).set_dim(list(size)).set_stride(_strides(size))
    tensor.set_data_type(_data_type(dtype))


def _of_channels(graph: Any, number: int, channels: int) -> Any:
    return _map(graph, number, (1, channels, 1, 1), torch.float32)


def _sum(graph: Any, tensor: Any, number: int, channels: int) -> None:
    import cudnn

    _out(graph.reduction(input=tensor, mode=cudnn.reduction_mode.ADD), number, (1, channels, 1, 1), torch.float32)


def _strides(size: tuple[int, int, int, int]) -> list[int]:
    _, channels, height, width = size
    return [channels * height * width, 1, channels * width, channels]


def _data_type(dtype: torch.dtype) -> Any:
    import cudnn

    kinds = cudnn.data_type
    return {
        torch.bfloat16: kinds.BFLOAT16,
        torch.float16: kinds.HALF,
        torch.float32: kinds.FLOAT,
        torch.bool: kinds.BOOLEAN,
    }[dtype]


def has_graph(x: Tensor) -> bool:
    """Whether cuDNN may have one for maps like x."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


# --- forward ---------------------------------------------------------------------------------------------------------


def with_moments(x: Tensor, weight: Tensor, shift: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, K, P, Q), its mean and biased variance (K,) float32. `shift` (K,) float32 changes nothing but rounding."""
    x, weight = channels_last(x), channels_last(weight)

    def without() -> tuple[Tensor, Tensor, Tensor]:
        y = channels_last(torch.ops.aten.convolution(x, weight, None, *_aten(stride, padding)))
        return (y, *norm.moments(y))

    if not has_graph(x):
        return without()
    shape = shape_of(x, weight, stride, padding)

    def by_plan(plan: plans.Plan) -> tuple[Tensor, Tensor, Tensor]:
        y = _new_map(x, shape.output)
        found = sums.room(x.device, shape.filters)
        plan.run({X: x, WEIGHT: weight, SHIFT: shift, Y: y, DIFFERENCES: found[0], SQUARES: found[1]})
        return (y, *sums.moments(found, shift, y.numel() // shape.filters))

    plan = plans.fastest(forward_graph(shape), x.device, by_plan, without)
    return without() if plan is None else by_plan(plan)


@torch.library.custom_op("ssd::convolution", mutates_args=())
def convolution(x: Tensor, weight: Tensor, shift: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, C, H, W) and weight (K, C, kernel, kernel) of one number format to (B, K, P, Q), its mean and biased variance
    (K,) float32; `shift` see with_moments."""
    return with_moments(x, weight, shift, stride, padding)


@torch.library.custom_op("ssd::convolution_of_sent", mutates_args=())
def convolution_of_sent(
    x: Tensor, sent: Tensor, bits: Tensor, before: Tensor, before_mean: Tensor, before_variance: Tensor, eps: float,
    weight: Tensor, shift: Tensor, stride: int, padding: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `convolution`, and a link to x for its second reader. x, sent and bits are batch_norm_relu_sent's of `before`; nothing
    else may read x."""
    return (*with_moments(x, weight, shift, stride, padding), link_of(x))


@convolution.register_fake
def _(x: Tensor, weight: Tensor, shift: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = (shift.new_empty(shift.shape) for _ in range(2))
    return _new_map(x, shape_of(x, weight, stride, padding).output), mean, variance


@convolution_of_sent.register_fake
def _(
    x: Tensor, sent: Tensor, bits: Tensor, before: Tensor, before_mean: Tensor, before_variance: Tensor, eps: float,
    weight: Tensor, shift: Tensor, stride: int, padding: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    mean, variance = (shift.new_empty(shift.shape) for _ in range(2))
    return _new_map(x, shape_of(x, weight, stride, padding).output), mean, variance, link_of(x)


def _new_map(like: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _aten(stride: int, padding: int) -> tuple[Any, ...]:
    """What torch.ops.aten's convolutions want to know after the tensors."""
    return [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1


# --- backward --------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ssd::masked_gradient", mutates_args=())
def masked_gradient(
    grad: Tensor, second: Tensor | None, weight: Tensor, bits: Tensor, before: Tensor, mean: Tensor, variance: Tensor,
    eps: float, stride: int, padding: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Of a convolution_of_sent: the whole gradient of its input where the ReLU let through, in its number format, and the
    gradients of the batch norm's bias and weight (2, C) float32. `grad` is of its output, `second` came through its link."""
    grad, weight, before = channels_last(grad), channels_last(weight), channels_last(before)
    second = None if second is None else channels_last(second)

    def without() -> tuple[Tensor, Tensor]:
        found = torch.ops.aten.convolution_backward(
            grad, before, weight, None, *_aten(stride, padding), [True, False, False]
        )
        masked, of_both = torch.empty_like(before), mean.new_empty(2, len(mean))
        norm.sums_of_gradients(
            # with the mask as bits weight and bias say nothing
            channels_last(found[0]), second, before, bits, mean, mean, mean, variance, eps, masked, True, of_both
        )  # fmt: skip
        return masked, of_both

    if not has_graph(before) or stride != 1:  # of a stride of 2 cuDNN 9.24 has plans, and none of them compiles
        return without()
    shape = shape_of(before, weight, stride, padding)

    def by_plan(plan: plans.Plan) -> tuple[Tensor, Tensor]:
        masked, found = torch.empty_like(before), sums.room(before.device, len(mean))
        tensors = {GRAD: grad, WEIGHT: weight, BITS: bits, BEFORE: before, MEAN: mean}
        tensors |= {MASKED: masked, ONE: found[0], TWO: found[1]}
        plan.run(tensors if second is None else {**tensors, SECOND: second})
        return masked, sums.gradients(found, variance, eps)

    plan = plans.fastest(backward_graph(shape, second=second is not None), before.device, by_plan, without)
    return without() if plan is None else by_plan(plan)


@masked_gradient.register_fake
def _(
    grad: Tensor, second: Tensor | None, weight: Tensor, bits: Tensor, before: Tensor, mean: Tensor, variance: Tensor,
    eps: float, stride: int, padding: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(before, memory_format=torch.channels_last), mean.new_empty(2, len(mean))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, ctx.stride, ctx.padding = inputs
    _, mean, variance = output
    ctx.mark_non_differentiable(mean, variance)
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], True, False]
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, *_aten(ctx.stride, ctx.padding), wanted)
    return found[0] if wanted[0] else None, found[1], None, None, None


convolution.register_autograd(_backward, setup_context=_keep)


def _keep_sent(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, bits, before, before_mean, before_variance, ctx.eps, weight, _, ctx.stride, ctx.padding = inputs
    _, mean, variance, _ = output
    ctx.mark_non_differentiable(mean, variance)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bits, before, before_mean, before_variance)


def _backward_sent(ctx: Any, grad: Tensor, _mean: Any, _variance: Any, second: Tensor | None) -> tuple[Any, ...]:
    x, weight, bits, before, mean, variance = ctx.saved_tensors
    _, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *_aten(ctx.stride, ctx.padding), [False, True, False]
    )
    masked, of_norm = torch.ops.ssd.masked_gradient(
        grad, second, weight, bits, before, mean, variance, ctx.eps, ctx.stride, ctx.padding
    )
    return masked, of_norm, None, None, None, None, None, grad_weight, None, None, None


convolution_of_sent.register_autograd(_backward_sent, setup_context=_keep_sent)
