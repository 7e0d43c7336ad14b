"""Weights in autocast's number format, all at once.

Autocast converts each where it is used, and each gradient where it comes back: in SSD300 90 kernels a step that have little to
do, of 612 on an H100. Together they are four. The same numbers to the bit. The gradients come back together at the end of the
backward pass, so that with several ranks nothing of it would be left to average them beside.

An operator of our own, not an autograd.Function: of one with a list of tensors torch.compile 2.11 makes a graph whose gradients
are zeros, and says nothing. 2.14 does not.
"""

# No `from __future__ import annotations`: torch.library reads annotations as objects.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

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
        converted = all_in([*named.values()], torch.get_autocast_dtype(device))
        return torch.func.functional_call(self.network, dict(zip(named, converted, strict=True)), (images,))


@torch.library.custom_op("detection::all_in", mutates_args=())
def all_in(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies in `dtype`, each in its own layout. Gradients come back in the tensors' own number format, one for all."""
    copies = [torch.empty_like(each, dtype=dtype) for each in tensors]
    torch._foreach_copy_(copies, [*tensors])
    return copies


@all_in.register_fake
def _(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [torch.empty_like(each, dtype=dtype) for each in tensors]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:  # noqa: ARG001 - as autograd calls it
    tensors, _ = inputs
    (ctx.dtype,) = {each.dtype for each in tensors}


def _backward(ctx: Any, gradients: Sequence[Tensor]) -> tuple[list[Tensor], None]:
    return all_in([*gradients], ctx.dtype), None


all_in.register_autograd(_backward, setup_context=_keep)
