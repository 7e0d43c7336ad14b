"""Weights in autocast's number format, all at once.

Autocast converts each where it is used, and each gradient where it comes back: in SSD300 90 kernels a step that have little to
do, of 612 on an H100. Together they are four. The same numbers to the bit. The gradients come back together at the end of the
backward pass, so that with several ranks nothing of it would be left to average them beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WeightsAtOnce(nn.Module):
    """`network` with its convolutions' weights converted before it begins, under autocast; as it is without."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """What `network` makes of them."""
        device = images.device.type
        if not torch.is_autocast_enabled(device):
            return self.network(images)
        named = {name: each for name, each in self.network.named_parameters() if each.dim() == 4}
        converted = Converted.apply(torch.get_autocast_dtype(device), *named.values())
        return torch.func.functional_call(self.network, dict(zip(named, converted, strict=True)), (images,))


class Converted(torch.autograd.Function):
    """(dtype, tensors) to the tensors in that number format; gradients in each one's own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [each.dtype for each in tensors]
        return _copied(tensors, [dtype] * len(tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_copied(gradients, ctx.dtypes)


def _copied(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(each, dtype=dtype) for each, dtype in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(copies, [*tensors])
    return tuple(copies)
