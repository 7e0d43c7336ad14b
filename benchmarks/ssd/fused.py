"""Modules of the network with kernels of benchmarks.ssd.kernels in training, and PyTorch's operators in evaluation. Needs
Triton.

They take the place of torchvision's, with its parameters and buffers under its names: a checkpoint of one is one of the
other. Between them goes a pair: a map and its link (see benchmarks.ssd.kernels.norm), by which a second gradient comes
back.

Shapes: B images, C channels, H W of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from benchmarks.ssd.kernels import norm, stem
from benchmarks.ssd.model import SSD

Linked = tuple[Tensor, Tensor]


class NormReLUPool(nn.BatchNorm2d):
    """The stem's batch norm, ReLU and 3x3 max pool of stride 2: (B, C, H, W) to a linked (B, C, P, Q)."""

    def forward(self, input: Tensor) -> Linked:  # type: ignore[override]
        if not self.training:
            pooled = F.max_pool2d(super().forward(input).relu(), 3, 2, 1)
            return pooled, pooled
        pooled, link, _, _, mean, variance = stem.batch_norm_relu_pool(input, self.weight, self.bias, self.eps)
        track(self, input, mean, variance)
        return pooled, link


class Block(nn.Module):
    """A basic block of a ResNet, from and to a linked map."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.downsample = block.downsample

    def forward(self, linked: Linked) -> Linked:
        x, link = linked
        if not self.training:
            skip = x if self.downsample is None else self.downsample(x)
            out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + skip
            return out.relu(), out
        skip = x
        if self.downsample is not None:
            convolution, last = self.downsample
            link = skip = batch_norm(last, convolution(x), relu=False)
        inner = self.conv2(batch_norm(self.bn1, self.conv1(x), relu=True))
        out, link, mean, variance, _ = norm.batch_norm_add_relu(
            inner, skip.detach(), link, self.bn2.weight, self.bn2.bias, self.bn2.eps
        )
        track(self.bn2, inner, mean, variance)
        return out, link


class Unlinked(nn.Module):
    """The end of the chain: the map alone."""

    def forward(self, linked: Linked) -> Tensor:
        return linked[0]


def batch_norm(module: nn.BatchNorm2d, x: Tensor, *, relu: bool) -> Tensor:
    """`module` in training, and a ReLU where asked for."""
    out, mean, variance = norm.batch_norm(x, module.weight, module.bias, module.eps, relu)
    track(module, x, mean, variance)
    return out  # type: ignore[no-any-return]


def track(module: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Running statistics as PyTorch keeps them, the variance unbiased."""
    assert module.momentum is not None and module.num_batches_tracked is not None
    assert module.running_mean is not None and module.running_var is not None
    rows = x.numel() // x.shape[1]
    with torch.no_grad():
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * (rows / (rows - 1)), module.momentum)
        module.num_batches_tracked.add_(1)


def fuse_stem(model: SSD) -> None:
    """Give `model` NormReLUPool; what it computes, its parameters and its state stay."""
    trunk = _trunk(model)
    old = trunk[1]
    assert isinstance(old, nn.BatchNorm2d)
    # on the device meta it has no numbers of its own
    first = NormReLUPool(old.num_features, old.eps, old.momentum, device="meta")
    for name, parameter in old.named_parameters():
        first.register_parameter(name, parameter)
    for name, buffer in old.named_buffers():
        first.register_buffer(name, buffer)
    trunk[1] = first
    trunk[2], trunk[3] = Unlinked(), nn.Identity()


def fuse_blocks(model: SSD) -> None:
    """Give `model`, whose stem is fused, our Block for torchvision's; what it computes, its parameters and its state
    stay."""
    describe_briefly()
    trunk = _trunk(model)
    trunk[2] = nn.Identity()
    for index, stage in enumerate(trunk):
        if isinstance(stage, nn.Sequential):
            trunk[index] = nn.Sequential(*(Block(block) for block in stage))
    trunk.append(Unlinked())


def _trunk(model: SSD) -> nn.Sequential:
    assert isinstance(model.backbone, nn.Sequential)  # a ResNet's: the configuration refuses VGG-16
    return model.backbone


def describe_briefly() -> None:
    """Keep torch.compile before 2.14 from writing out every operand of an operator that it does not know, for a log.

    An operand is written with its own operands, and a block's sum has the block before it twice, by `skip` and by
    `link`: after sixteen blocks 2.11 had not ended in 100 s. 2.14 writes only what somebody reads.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 14):
        from torch._inductor import exc

        exc.OperatorIssue.operator_str = staticmethod(lambda target, *_: f"  target: {target}")  # type: ignore[assignment]
