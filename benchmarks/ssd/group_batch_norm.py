"""Batch norm over the batches of several ranks: MLPerf's model_bn_span beyond one accelerator's batch.

Ranks 0 to n - 1 are a group, the next n another: neighbours, which launchers place on one machine. PyTorch's SyncBatchNorm does
it on accelerators; it knows no processor, for which the same maths stands here. Both keep the weights' names.

Shapes: B images of one rank's batch, C channels.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from harness.contract import COLLECTIVE_TIMEOUT


def share(model: nn.Module, world_size: int, ranks: int) -> None:
    """Let each group of so many ranks share the statistics of every batch norm in `model`. Called on every rank."""
    if ranks == 1:
        return
    groups = [
        dist.new_group(list(range(first, first + ranks)), timeout=COLLECTIVE_TIMEOUT)
        for first in range(0, world_size, ranks)
    ]
    group = groups[dist.get_rank() // ranks]
    assert isinstance(group, dist.ProcessGroup)  # every rank is in the one that it takes
    on_cpu = next(model.parameters()).device.type == "cpu"
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                shared = _on_cpu(child, group) if on_cpu else nn.SyncBatchNorm.convert_sync_batchnorm(child, group)
                setattr(parent, name, shared)


def _on_cpu(norm: nn.BatchNorm2d, group: dist.ProcessGroup) -> GroupBatchNorm2d:
    found = GroupBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    found.load_state_dict(norm.state_dict())
    found.to(norm.running_mean.dtype if norm.running_mean is not None else torch.float32)
    found.group = group
    return found


class GroupBatchNorm2d(nn.BatchNorm2d):
    """Of ranks whose batches are of one size. In evaluation it is plain batch norm."""

    group: dist.ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        ranks = dist.get_world_size(self.group)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = all_reduce(wide.mean(dim=(0, 2, 3)), group=self.group) / ranks  # (C,)
        centred = wide - mean[None, :, None, None]
        variance = all_reduce(centred.square().mean(dim=(0, 2, 3)), group=self.group) / ranks
        with torch.no_grad():
            count = ranks * input.numel() // input.shape[1]
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out: Tensor = centred * scale[None, :, None, None] + self.bias[None, :, None, None]
        return out.to(input.dtype)
