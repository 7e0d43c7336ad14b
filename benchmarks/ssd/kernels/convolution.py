"""Convolutions that do with their output what follows while it is in registers, in training, for CUDA: by cuDNN's graphs.

    convolution_relu      a convolution with its bias, and a ReLU
    convolution           a convolution, and the moments of its output for the batch norm that follows
    convolution_of_sent   the same of a map from batch_norm_relu_sent: its backward pass adds the second reader's gradient,
                          masks the sum by the ReLU and sums up what that batch norm's backward pass wants

Statistics are of the output before it is rounded: sums of differences, and of their squares, from a number for each channel
that is near the mean (the running mean: from the second step on nothing cancels). They are added up by atomic additions, in no
order: equal input does not give equal bits.

Of the 21 times that a block's batch norms, sum and ReLUs, and what they get from its convolutions' backward pass, read or
write a map, it saves five. But such a kernel's tile is smaller than the best of a convolution alone (128 x 128 against 128 x
256 on Hopper), so that for each shape the two are timed against each other in init, see benchmarks.ssd.kernels.plans.

Where there is no graph (a CPU, another format than bf16, a gradient of stride 2) it is PyTorch's convolution and kernels of
benchmarks.ssd.kernels.norm: the definition. That writes a block's inner gradient once more than batch_norm does, so that
without any graph this form is slower than leaving it out.

Shapes: B images, C channels, H W of the input, K filters, P Q of the output.
"""

# No `from __future__ import annotations`: torch.library reads annotations as objects. An operator's fake has all of its
# operator's arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0917, ARG001

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.ssd.kernels import graphs, norm, plans, sums
from benchmarks.ssd.kernels.norm import channels_last, link_of


def has_graph(x: Tensor) -> bool:
    """Whether cuDNN may have one for maps like x. In float16 init's steps may overflow, and say nothing then."""
    return x.is_cuda and x.dtype == torch.bfloat16


def graphs_asked_for(call: Callable[[], object]) -> list[plans.Wanted]:
    """Each graph that `call` would ask cuDNN for, once; of fake tensors, whose numbers nobody computes."""
    with _Asked() as asked:
        call()
    return list(asked.graphs)


class _Asked(TorchDispatchMode):
    """What our operators are called with."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graphs: dict[plans.Wanted, None] = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        ours, graph = torch.ops.ssd, None
        if operator is ours.convolution.default:
            x, weight, _, stride, padding = args
            graph = graphs.forward_graph(graphs.shape_of(x, weight, stride, padding))
        elif operator is ours.convolution_of_sent.default:
            x, *_, weight, _, stride, padding = args
            graph = graphs.forward_graph(graphs.shape_of(x, weight, stride, padding))
        elif operator is ours.convolution_relu.default:
            x, weight, _, stride, padding = args
            graph = graphs.relu_graph(graphs.shape_of(x, weight, stride, padding))
        elif operator is ours.masked_gradient.default:
            _, second, weight, _, before, _, _, _, stride, padding = args
            if stride == 1:
                graph = graphs.backward_graph(
                    graphs.shape_of(before, weight, stride, padding), second=second is not None
                )
        if graph is not None:
            self.graphs[graph] = None
        return operator(*args, **(kwargs or {}))


# --- forward ---------------------------------------------------------------------------------------------------------


def with_moments(x: Tensor, weight: Tensor, shift: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, K, P, Q), its mean and biased variance (K,) float32. `shift` (K,) float32 changes nothing but rounding."""
    x, weight = channels_last(x), channels_last(weight)

    def without() -> tuple[Tensor, Tensor, Tensor]:
        y = channels_last(torch.ops.aten.convolution(x, weight, None, *_aten(stride, padding)))
        return (y, *norm.moments(y))

    if not has_graph(x):
        return without()
    shape = graphs.shape_of(x, weight, stride, padding)

    def by_plan(plan: plans.Plan) -> tuple[Tensor, Tensor, Tensor]:
        y = _new_map(x, shape.output)
        found = sums.room(x.device, shape.filters)
        plan.run(
            {
                graphs.X: x,
                graphs.WEIGHT: weight,
                graphs.SHIFT: shift,
                graphs.Y: y,
                graphs.DIFFERENCES: found[0],
                graphs.SQUARES: found[1],
            }
        )
        return (y, *sums.moments(found, shift, y.numel() // shape.filters))

    plan = plans.fastest(graphs.forward_graph(shape), x.device, by_plan, without)
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


@torch.library.custom_op("ssd::convolution_relu", mutates_args=())
def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """x (B, C, H, W) and weight (K, C, kernel, kernel) of one number format, and bias (K,) float32, to ReLU of the whole
    (B, K, P, Q)."""
    x, weight = channels_last(x), channels_last(weight)

    def without() -> tuple[Tensor]:
        y = channels_last(torch.ops.aten.convolution(x, weight, None, *_aten(stride, padding)))
        one, zero = _one_and_zero(y.device, len(bias))
        # in place: each number is read and written by one thread
        norm.normalise(y, None, one, bias, zero, one, 0.0, y, None, True)
        return (y,)

    shape = graphs.shape_of(x, weight, stride, padding)

    def by_plan(plan: plans.Plan) -> tuple[Tensor]:
        y = _new_map(x, shape.output)
        plan.run({graphs.X: x, graphs.WEIGHT: weight, graphs.BIAS: bias, graphs.Y: y})
        return (y,)

    plan = plans.fastest(graphs.relu_graph(shape), x.device, by_plan, without) if has_graph(x) else None
    (y,) = without() if plan is None else by_plan(plan)
    return y


@functools.cache
def _one_and_zero(device: torch.device, channels: int) -> tuple[Tensor, Tensor]:
    """(C,) each, of a batch norm that changes nothing."""
    return torch.ones(channels, device=device), torch.zeros(channels, device=device)


@convolution_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    return _new_map(x, graphs.shape_of(x, weight, stride, padding).output)


@convolution.register_fake
def _(x: Tensor, weight: Tensor, shift: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = (shift.new_empty(shift.shape) for _ in range(2))
    return _new_map(x, graphs.shape_of(x, weight, stride, padding).output), mean, variance


@convolution_of_sent.register_fake
def _(
    x: Tensor, sent: Tensor, bits: Tensor, before: Tensor, before_mean: Tensor, before_variance: Tensor, eps: float,
    weight: Tensor, shift: Tensor, stride: int, padding: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    mean, variance = (shift.new_empty(shift.shape) for _ in range(2))
    return _new_map(x, graphs.shape_of(x, weight, stride, padding).output), mean, variance, link_of(x)


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
    shape = graphs.shape_of(before, weight, stride, padding)

    def by_plan(plan: plans.Plan) -> tuple[Tensor, Tensor]:
        masked, found = torch.empty_like(before), sums.room(before.device, len(mean))
        tensors = {
            graphs.GRAD: grad,
            graphs.WEIGHT: weight,
            graphs.BITS: bits,
            graphs.BEFORE: before,
            graphs.MEAN: mean,
        }
        tensors |= {graphs.MASKED: masked, graphs.ONE: found[0], graphs.TWO: found[1]}
        plan.run(tensors if second is None else {**tensors, graphs.SECOND: second})
        return masked, sums.gradients(found, variance, eps)

    plan = plans.fastest(graphs.backward_graph(shape, second=second is not None), before.device, by_plan, without)
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


def _keep_relu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight, output)


def _backward_relu(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, y = ctx.saved_tensors
    masked = torch.ops.aten.threshold_backward(grad, y, 0)
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        masked, x, weight, None, *_aten(ctx.stride, ctx.padding), [True, True, False]
    )
    return of_x, of_weight, masked.sum((0, 2, 3), dtype=torch.float32), None, None


convolution_relu.register_autograd(_backward_relu, setup_context=_keep_relu)
