"""Batch norm of a ResNet's blocks with what follows it, in training, for CUDA. Needs Triton.

    batch_moments         of a batch, where a convolution has not made them (see benchmarks.ssd.kernels.convolution)
    batch_norm            batch norm, with a ReLU or, in a downsampling branch, without
    batch_norm_add_relu   batch norm, sum with the block's input, ReLU
    batch_norm_relu_sent  either of the two with a ReLU, whose gradient comes back masked and summed up

PyTorch's compiler fuses the same operators, and moves more than it needs to: it reads the ReLU's output to know its mask,
which the convolution's output tells as well, and a bit for each number where a sum comes between; and where a block's
output has two readers (the next convolution, the next sum) it adds their gradients again in every kernel that wants the
sum. Here batch_norm_add_relu takes both gradients, adds them once and leaves the masked sum, which is the gradient of the
block's input and what its own batch norm goes on with.

For that the second reader's gradient must not be added to the first's by autograd. So the sum with the block's input is
of two arguments: `skip`, its numbers, detached, and `link`, a tensor of the same shape without memory (one number,
strides of 0), which autograd knows; the gradient comes back through `link`.

In batch_norm_relu_sent that is the part of the convolution that reads the output, and nothing else may read it: its backward
pass adds the link's gradient, masks the sum and adds it up where it makes it. The sums come back as the gradient of `sent`,
a tensor of two numbers a channel without memory.

Shapes: B images, C channels, H W of a map, R rows = B*H*W. Tensors are channels last. Kernels: benchmarks.ssd.kernels.norm.
"""

# No `from __future__ import annotations`: torch.library reads annotations as objects. An operator's fake has all of its
# operator's arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0917, ARG001

from typing import Any

import torch
from torch import Tensor

from benchmarks.ssd.kernels.norm import (
    bits_for,
    channels_last,
    gradient_of_input,
    link_of,
    moments,
    normalise,
    sent_of,
    sums_of_gradients,
)

# --- forward ---------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ssd::moments", mutates_args=())
def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) float32 of x (B, C, H, W). Without a gradient: a batch norm's own has theirs in it."""
    return moments(channels_last(x))


@torch.library.custom_op("ssd::batch_norm", mutates_args=())
def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
) -> Tensor:
    """x (B, C, H, W) normalised by its own moments (C,), with or without ReLU."""
    x = channels_last(x)
    y = torch.empty_like(x)
    normalise(x, None, weight, bias, mean, variance, eps, y, None, relu)
    return y


@torch.library.custom_op("ssd::batch_norm_add_relu", mutates_args=())
def batch_norm_add_relu(
    x: Tensor, mean: Tensor, variance: Tensor, skip: Tensor, link: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of x normalised by its own moments plus `skip`, whose gradient goes to `link`; a link to itself; the ReLU's mask,
    see bits_for."""
    x = channels_last(x)
    y, bits = torch.empty_like(x), bits_for(x)
    normalise(x, skip, weight, bias, mean, variance, eps, y, bits, True)
    return y, link_of(y), bits


@torch.library.custom_op("ssd::batch_norm_relu_sent", mutates_args=())
def batch_norm_relu_sent(
    x: Tensor, mean: Tensor, variance: Tensor, skip: Tensor | None, link: Tensor | None, weight: Tensor, bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """ReLU of x normalised by its own moments, plus `skip` where given, as in batch_norm_add_relu; `sent` (2, C); the ReLU's
    mask, see bits_for."""
    x = channels_last(x)
    y, bits = torch.empty_like(x), bits_for(x)
    normalise(x, skip, weight, bias, mean, variance, eps, y, bits, True)
    return y, sent_of(x), bits


@batch_moments.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    return mean, variance


@batch_norm.register_fake
def _(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@batch_norm_add_relu.register_fake
def _(
    x: Tensor, mean: Tensor, variance: Tensor, skip: Tensor, link: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=torch.channels_last)
    return y, link_of(y), bits_for(x)


@batch_norm_relu_sent.register_fake
def _(
    x: Tensor, mean: Tensor, variance: Tensor, skip: Tensor | None, link: Tensor | None, weight: Tensor, bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x, memory_format=torch.channels_last), sent_of(x), bits_for(x)


# --- backward --------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ssd::batch_norm_backward", mutates_args=())
def batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x in its number format, of weight and bias in float32."""
    grad, x = channels_last(grad), channels_last(x)
    grad_bias, grad_weight = sums_of_gradients(grad, None, x, None, weight, bias, mean, variance, eps, None, relu)
    return (
        gradient_of_input(grad, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, relu),
        grad_weight,
        grad_bias,
    )


@torch.library.custom_op("ssd::batch_norm_add_relu_backward", mutates_args=())
def batch_norm_add_relu_backward(
    grad: Tensor, second: Tensor | None, x: Tensor, bits: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
    variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x and the skip in their number format, of weight and bias in float32. `second` came through the link."""
    grad, x = channels_last(grad), channels_last(x)
    masked = torch.empty_like(x)
    grad_bias, grad_weight = sums_of_gradients(grad, second, x, bits, weight, bias, mean, variance, eps, masked, True)
    grad_x = gradient_of_input(masked, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, False)
    return grad_x, masked, grad_weight, grad_bias


@torch.library.custom_op("ssd::batch_norm_relu_sent_backward", mutates_args=())
def batch_norm_relu_sent_backward(
    grad: Tensor, sums: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """Gradient of x in its number format. `grad` is masked, and `sums` (2, C) are the gradients of bias and weight."""
    one, two = sums.contiguous()  # autograd may give them as one number for all channels
    return gradient_of_input(channels_last(grad), channels_last(x), weight, bias, mean, variance, eps, one, two, False)


@batch_norm_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of_channels = (mean.new_empty(mean.shape) for _ in range(2))
    return (torch.empty_like(x, memory_format=torch.channels_last), *of_channels)  # type: ignore[return-value]


@batch_norm_add_relu_backward.register_fake
def _(
    grad: Tensor, second: Tensor | None, x: Tensor, bits: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
    variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_maps = (torch.empty_like(x, memory_format=torch.channels_last) for _ in range(2))
    of_channels = (mean.new_empty(mean.shape) for _ in range(2))
    return (*of_maps, *of_channels)  # type: ignore[return-value]


@batch_norm_relu_sent_backward.register_fake
def _(
    grad: Tensor, sums: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mean, variance, weight, bias, ctx.eps, ctx.relu = inputs
    ctx.save_for_backward(x, weight, bias, mean, variance)


def _backward_norm(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grad_x, grad_weight, grad_bias = torch.ops.ssd.batch_norm_backward(grad, *ctx.saved_tensors, ctx.eps, ctx.relu)
    return grad_x, None, None, grad_weight, grad_bias, None, None


batch_norm.register_autograd(_backward_norm, setup_context=_keep_norm)


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, mean, variance, _, _, weight, bias, ctx.eps = inputs
    _, _, bits = output
    ctx.mark_non_differentiable(bits)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, bits, weight, bias, mean, variance)


def _backward_sum(ctx: Any, grad: Tensor, second: Tensor | None, *_: Any) -> tuple[Any, ...]:
    grad_x, masked, grad_weight, grad_bias = torch.ops.ssd.batch_norm_add_relu_backward(
        grad, second, *ctx.saved_tensors, ctx.eps
    )
    return grad_x, None, None, None, masked, grad_weight, grad_bias, None


batch_norm_add_relu.register_autograd(_backward_sum, setup_context=_keep_sum)


def _keep_sent(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, mean, variance, _, link, weight, bias, ctx.eps = inputs
    _, _, bits = output
    ctx.linked = link is not None
    ctx.mark_non_differentiable(bits)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, mean, variance)


def _backward_sent(ctx: Any, grad: Tensor, sums: Tensor, *_: Any) -> tuple[Any, ...]:
    grad_x = torch.ops.ssd.batch_norm_relu_sent_backward(grad, sums, *ctx.saved_tensors, ctx.eps)
    return grad_x, None, None, None, grad if ctx.linked else None, sums[1], sums[0], None


batch_norm_relu_sent.register_autograd(_backward_sent, setup_context=_keep_sent)
