"""Graphs of cuDNN's operations around a convolution: what is done with its output while it is still in registers.

Numbers in a graph are float32, whatever its tensors are. Tensors are channels last, and known by numbers.

Shapes: B images, C channels, H W of the input, K filters, P Q of the output.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.ssd.kernels import plans

# Numbers of a graph's tensors. Forwards: input, weights, shift; output, sums. Backwards: gradient, weights, ReLU's mask, batch
# norm's input, its mean, the second reader's gradient; masked gradient, sums. And a bias
X, WEIGHT, SHIFT, Y, DIFFERENCES, SQUARES, GRAD, BITS, BEFORE, MEAN, SECOND, MASKED, ONE, TWO, BIAS = range(1, 16)


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


@functools.cache  # asked for at every step
def forward_graph(shape: Shape) -> plans.Wanted:
    """Output, sums over (output - shift) and over its square."""
    return plans.Wanted(f"convolution and moments, {shape}", functools.partial(_fill_forward, shape))


@functools.cache
def relu_graph(shape: Shape) -> plans.Wanted:
    """ReLU of (output + bias)."""
    return plans.Wanted(f"convolution, bias and ReLU, {shape}", functools.partial(_fill_relu, shape))


@functools.cache
def backward_graph(shape: Shape, *, second: bool) -> plans.Wanted:
    """(Gradient of the input, plus the second reader's) where the ReLU let through; its sum and that with (before - mean)."""
    text = f"masked gradient and sums{' of two readers' if second else ''}, {shape}"
    return plans.Wanted(text, functools.partial(_fill_backward, shape, second))


def _fill_forward(shape: Shape, graph: Any) -> None:
    y = _convolved(shape, graph)
    _out(y, Y, shape.output, shape.dtype)
    away = graph.sub(a=y, b=_of_channels(graph, SHIFT, shape.filters))
    _sum(graph, away, DIFFERENCES, shape.filters)
    _sum(graph, graph.mul(a=away, b=away), SQUARES, shape.filters)


def _fill_relu(shape: Shape, graph: Any) -> None:
    biased = graph.add(a=_convolved(shape, graph), b=_of_channels(graph, BIAS, shape.filters))
    _out(graph.relu(input=biased), Y, shape.output, shape.dtype)


def _convolved(shape: Shape, graph: Any) -> Any:
    x, weight = _map(graph, X, shape.input, shape.dtype), _map(graph, WEIGHT, shape.weight, shape.dtype)
    return graph.conv_fprop(image=x, weight=weight, **_geometry(shape))


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
        torch.float32: kinds.FLOAT,
        torch.bool: kinds.BOOLEAN,
    }[dtype]
