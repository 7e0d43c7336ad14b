"""A 3 x 3 convolution with 2.25 times fewer products, for training in float32 on a CPU: Winograd's F(2 x 2, 3 x 3).

After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015). Every 2 x 2 values of the output come from a
tile of 4 x 4 of the input; both input and weights are transformed to 16 values each, in which the convolution is 16 products
of matrices, and their outcome is transformed back. The two gradients are the same three steps, transposed. In float32 outcome
and gradients are as near to float64's as those of PyTorch's own convolution, or nearer; in formats of fewer bits they would
not be.

Of a training step's products at 800 px two thirds are the heads', which a CPU does near its peak: fewer is all that is left.

Shapes: B images, C and O channels, H and W sides, h rows and w columns of tiles, T tiles of a block (h w), all channels last.
Of the 16 values of a tile the first index is the row's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Measured with one thread: below these it saves less than the transforms cost (25 x 25 cells 7.3 and 6.7 ms)
MIN_CELLS = 32 * 32
MIN_CHANNELS = 128
TILES_AT_ONCE = 256  # 38 MB for 2,376 channels; fewer read the transformed weights too often, more leave the cache

# A row or column of the weights to its four values
OF_WEIGHTS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class Conv3x3(nn.Conv2d):
    """nn.Conv2d(channels, out, 3, padding=1), computed in the way that is faster."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        if not suits(x, self.weight):
            return super().forward(x)
        found: Tensor = _Convolution.apply(x, self.weight, self.bias)
        return found


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether it is of use: training in float32 on a CPU, channels last, enough cells and channels."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[2] * x.shape[3] >= MIN_CELLS
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, _, height, width = x.shape
        u, h, w = _of_weights(weight), -(-height // 2), -(-width // 2)
        padded = _padded(x, h, w)
        # no view of it leaves here, which nothing could then change in place
        out = torch.empty(batch, len(weight), 2 * h, 2 * w, dtype=x.dtype, memory_format=torch.channels_last)
        by_cells, room = out.permute(0, 2, 3, 1), _Room(x)
        for image, first, last in _blocks(batch, h, w):
            tiles = _of_input(padded[image, 2 * first : 2 * last + 2], room)
            products = torch.bmm(tiles, u, out=room.take("products", 16, tiles.shape[1], len(weight)))
            products[5] += bias  # row and column 1, which each of the four values has once
            _to_output(products, by_cells[image, 2 * first : 2 * last], room)
        if (height, width) == (2 * h, 2 * w):
            return out
        return out[:, :, :height, :width].clone(memory_format=torch.channels_last)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        batch, channels, height, width = x.shape
        u, h, w = _of_weights(weight), -(-height // 2), -(-width // 2)
        padded = _padded(x, h, w)
        of_out = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, 2 * w - width, 0, 2 * h - height))
        of_padded, of_u, room = torch.zeros_like(padded), torch.zeros_like(u), _Room(x)
        for image, first, last in _blocks(batch, h, w):
            rows = slice(2 * first, 2 * last + 2)
            of_products = _to_output_transposed(of_out[image, 2 * first : 2 * last], room)
            of_u.baddbmm_(_of_input(padded[image, rows], room).transpose(1, 2), of_products)
            of_tiles = room.take("of_tiles", 16, of_products.shape[1], channels)
            torch.bmm(of_products, u.transpose(1, 2), out=of_tiles)
            _of_input_transposed(of_tiles, of_padded[image, rows], room)
        of_x = of_padded[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2)
        return of_x, _of_weights_transposed(of_u), gradient.sum(dim=(0, 2, 3))


class _Room:
    """Memory of one call that its blocks use again: what is mapped anew costs more than what is computed in it."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.found = like, dict[str, Tensor]()

    def take(self, name: str, *shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        if name not in self.found or self.found[name].numel() < count:
            self.found[name] = self.like.new_empty(count)
        return self.found[name][:count].view(shape)


def _blocks(batch: int, h: int, w: int) -> Iterator[tuple[int, int, int]]:
    """Image, first row of tiles and the one after the last."""
    rows = max(1, TILES_AT_ONCE // w)
    return ((image, first, min(first + rows, h)) for image in range(batch) for first in range(0, h, rows))


def _padded(x: Tensor, h: int, w: int) -> Tensor:
    """(B, C, H, W) to (B, 2h + 2, 2w + 2, C)."""
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2 * w + 1 - x.shape[3], 1, 2 * h + 1 - x.shape[2]))


# --- the transforms, each along rows and then along columns, and their transposes --------------------------------------------


def _of_weights(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to (16, C, O)."""
    once = weight.new_tensor(OF_WEIGHTS)
    return (torch.kron(once, once) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(16, weight.shape[1], -1)


def _of_weights_transposed(of_u: Tensor) -> Tensor:
    """(16, C, O) to (O, C, 3, 3)."""
    once = of_u.new_tensor(OF_WEIGHTS)
    found = torch.kron(once, once).T @ of_u.view(16, -1)
    return found.view(3, 3, *of_u.shape[1:]).permute(3, 2, 0, 1)


def _of_input(padded: Tensor, room: _Room) -> Tensor:
    """(2h + 2, 2w + 2, C) to (16, T, C): of four values a, b, c, d of a tile a - c, b + c, c - b, b - d."""
    h, w, channels = padded.shape[0] // 2 - 1, padded.shape[1] // 2 - 1, padded.shape[2]
    by_rows = room.take("by_rows", 4, h, 2 * w + 2, channels)
    found = room.take("tiles", 4, 4, h, w, channels)
    _four_of_tile([padded[i : i + 2 * h : 2] for i in range(4)], by_rows)
    _four_of_tile([by_rows[:, :, i : i + 2 * w : 2] for i in range(4)], found.transpose(0, 1))
    return found.view(16, h * w, channels)


def _four_of_tile(x: Sequence[Tensor], out: Tensor) -> None:
    torch.sub(x[0], x[2], out=out[0])
    torch.add(x[1], x[2], out=out[1])
    torch.sub(x[2], x[1], out=out[2])
    torch.sub(x[1], x[3], out=out[3])


def _of_input_transposed(of_tiles: Tensor, of_padded: Tensor, room: _Room) -> None:
    """(16, T, C) added to (2h + 2, 2w + 2, C), whose tiles overlap."""
    h, w, channels = of_padded.shape[0] // 2 - 1, of_padded.shape[1] // 2 - 1, of_padded.shape[2]
    by_rows = room.take("by_rows", 4, h, 2 * w + 2, channels).zero_()
    by_columns = of_tiles.view(4, 4, h, w, channels).transpose(0, 1)
    _add_four_of_tile(by_columns, [by_rows[:, :, i : i + 2 * w : 2] for i in range(4)])
    _add_four_of_tile(by_rows, [of_padded[i : i + 2 * h : 2] for i in range(4)])


def _add_four_of_tile(x: Tensor, out: Sequence[Tensor]) -> None:
    out[0].add_(x[0])
    out[1].add_(x[1]).sub_(x[2]).add_(x[3])
    out[2].sub_(x[0]).add_(x[1]).add_(x[2])
    out[3].sub_(x[3])


def _to_output(products: Tensor, out: Tensor, room: _Room) -> None:
    """(16, T, O) to (2h, 2w, O): of four values a, b, c, d the two a + b + c, b - c - d."""
    h, w, channels = out.shape[0] // 2, out.shape[1] // 2, out.shape[2]
    by_rows = room.take("two_rows", 2, 4, h, w, channels)
    _two_of_four(products.view(4, 4, h, w, channels), by_rows)
    for row in range(2):
        _two_of_four(by_rows[row], [out[row::2, column::2] for column in range(2)])


def _two_of_four(x: Tensor, out: Tensor | Sequence[Tensor]) -> None:
    torch.add(x[0], x[1], out=out[0]).add_(x[2])
    torch.sub(x[1], x[2], out=out[1]).sub_(x[3])


def _to_output_transposed(of_out: Tensor, room: _Room) -> Tensor:
    """(2h, 2w, O) to (16, T, O)."""
    h, w, channels = of_out.shape[0] // 2, of_out.shape[1] // 2, of_out.shape[2]
    by_rows = room.take("of_two_rows", 4, h, 2 * w, channels)
    found = room.take("of_products", 4, 4, h, w, channels)
    _four_of_two(of_out[0::2], of_out[1::2], by_rows)
    _four_of_two(by_rows[:, :, 0::2], by_rows[:, :, 1::2], found.transpose(0, 1))
    return found.view(16, h * w, channels)


def _four_of_two(even: Tensor, odd: Tensor, out: Tensor) -> None:
    out[0].copy_(even)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.neg(odd, out=out[3])
