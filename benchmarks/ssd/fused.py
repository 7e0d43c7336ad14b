"""Modules of the network with kernels of benchmarks.ssd.kernels in training, and PyTorch's operators in evaluation. Needs
Triton.

They take the place of torchvision's, with its parameters and buffers under its names: a checkpoint of one is one of the
other. Between them goes a map with its link (see benchmarks.ssd.kernels.batch_norm), by which a second gradient comes back, and
with what the batch norms on its way have found.

Shapes: B images, C channels, H W of a map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.resnet import BasicBlock

from benchmarks.ssd.kernels import batch_norm, convolution, stem, stem_convolution
from benchmarks.ssd.kernels.plans import Wanted
from benchmarks.ssd.model import SSD
from benchmarks.ssd.stem import SpaceToDepth, block_weights, blocks, in_form, replace

LARGE_EXTRAS = 2  # extra blocks: of SSD300's five these two write 179 of 185 million numbers


class Found(NamedTuple):
    """Mean and biased variance (C,) of a batch, of so many rows, by a batch norm."""

    module: nn.BatchNorm2d
    mean: Tensor
    variance: Tensor
    rows: int


class Sent(NamedTuple):
    """What a convolution must know of the batch norm with ReLU that made its input and sends its gradient to it."""

    sent: Tensor
    bits: Tensor
    before: Tensor  # the batch norm's input, detached, and its moments
    mean: Tensor
    variance: Tensor
    eps: float


class Linked(NamedTuple):
    """A map (B, C, H, W), its link, and one list of all that is still to be tracked; in evaluation that is empty, and the map
    stands for its link, too. A map that was sent has its link from the convolution that reads it."""

    map: Tensor
    link: Tensor | None
    found: list[Found]
    sent: Sent | None = None


class ToConvolve(NamedTuple):
    """What a convolution of stride 1 without padding is still to be made of: by the batch norm that wants its moments."""

    input: Tensor
    weight: Tensor


def number_format(weight: Tensor) -> torch.dtype:
    """To compute in: autocast does not know our operators."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class SpaceToDepthLater(SpaceToDepth):
    """Which in training leaves the convolution to the batch norm that follows."""

    def forward(self, input: Tensor) -> Tensor | ToConvolve:  # type: ignore[override]
        if not self.training:
            return super().forward(input)
        dtype = number_format(self.weight)
        return ToConvolve(blocks(input).to(dtype), block_weights(self.weight).to(dtype))


class StemInput(NamedTuple):
    """Images and the first convolution's weight, in the number format to compute in, for the whole stem at once."""

    images: Tensor
    weight: Tensor


class StemConvolution(SpaceToDepth):
    """Which in training leaves all to the batch norm that follows."""

    def forward(self, input: Tensor) -> Tensor | StemInput:  # type: ignore[override]
        if not self.training:
            return super().forward(input)
        return StemInput(input, self.weight.to(number_format(self.weight)))


class NormReLUPool(nn.BatchNorm2d):
    """The stem's batch norm, ReLU and 3x3 max pool of stride 2: (B, C, H, W) to a linked (B, C, P, Q)."""

    def forward(self, input: Tensor | ToConvolve | StemInput) -> Linked:  # type: ignore[override]
        if isinstance(input, StemInput):
            shift, _, _ = statistics(self)
            pooled, link, mean, variance, x, _, _ = stem_convolution.whole(
                *input, shift, self.weight, self.bias, self.eps
            )
            return Linked(pooled, link, [found_by(self, x, mean, variance)])
        if isinstance(input, ToConvolve):
            shift, _, _ = statistics(self)
            x, mean, variance = convolution.convolution(*input, shift, 1, 0)
        elif self.training:
            x, (mean, variance) = input, batch_norm.batch_moments(input.detach())
        else:
            pooled = F.max_pool2d(super().forward(input).relu(), 3, 2, 1)
            return Linked(pooled, pooled, [])
        pooled, link, _, _ = stem.batch_norm_relu_pool(x, mean, variance, self.weight, self.bias, self.eps)
        return Linked(pooled, link, [found_by(self, x, mean, variance)])


class Block(nn.Module):
    """A basic block of a ResNet, from and to a linked map.

    With `convolutions` those of benchmarks.ssd.kernels.convolution; `sends` where the output is read by the next such
    block alone.
    """

    def __init__(self, block: BasicBlock, *, convolutions: bool = False, sends: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.downsample = block.downsample
        self.convolutions, self.sends = convolutions, sends

    def forward(self, linked: Linked) -> Linked:
        x, link, found, sent = linked
        if not self.training:
            skip = x if self.downsample is None else self.downsample(x)
            out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + skip
            return Linked(out.relu(), out, found)
        first, link_of_first = self.convolved(self.conv1, self.bn1, x, sent, found)
        link = link if sent is None else link_of_first
        skip = x
        if self.downsample is not None:
            layer, last = self.downsample
            # what reads the map here is a convolution, whose gradient comes back by the link as a sum's does elsewhere
            branch, _ = self.convolved(layer, last, ByLink.apply(x, link), None, found)
            link = skip = batch_norm.batch_norm(*branch, last.weight, last.bias, last.eps, False)
        if self.convolutions:
            inner, of_inner = send(self.bn1, first, None, None)
        else:
            inner, of_inner = batch_norm.batch_norm(*first, self.bn1.weight, self.bn1.bias, self.bn1.eps, True), None
        second, _ = self.convolved(self.conv2, self.bn2, inner, of_inner, found)
        if self.sends:
            out, of_out = send(self.bn2, second, skip.detach(), link)
            return Linked(out, None, found, of_out)
        out, link, _ = batch_norm.batch_norm_add_relu(
            *second, skip.detach(), link, self.bn2.weight, self.bn2.bias, self.bn2.eps
        )
        return Linked(out, link, found)

    def convolved(
        self, layer: nn.Conv2d, following: nn.BatchNorm2d, x: Tensor, sent: Sent | None, found: list[Found]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """The layer's output and its moments, for the batch norm that follows it; a link to x where x was sent."""
        link = None
        if not self.convolutions:
            out = layer(x)
            mean, variance = batch_norm.batch_moments(out.detach())
        else:
            assert not isinstance(layer.padding, str)
            # autocast does not know our operators: the maps have its number format already
            weight, stride, padding = layer.weight.to(x.dtype), layer.stride[0], layer.padding[0]
            shift, _, _ = statistics(following)
            if sent is None:
                out, mean, variance = convolution.convolution(x, weight, shift, stride, padding)
            else:
                out, mean, variance, link = convolution.convolution_of_sent(x, *sent, weight, shift, stride, padding)
        found.append(found_by(following, out, mean, variance))
        return (out, mean, variance), link


def send(
    module: nn.BatchNorm2d, x: tuple[Tensor, Tensor, Tensor], skip: Tensor | None, link: Tensor | None
) -> tuple[Tensor, Sent]:
    """`module` in training and a ReLU, of a map and its moments, for one convolution that sends the gradient back."""
    before, mean, variance = x
    out, sent, bits = batch_norm.batch_norm_relu_sent(*x, skip, link, module.weight, module.bias, module.eps)
    return out, Sent(sent, bits, before.detach(), mean, variance, module.eps)


class ConvolutionReLU(nn.Conv2d):
    """A convolution with its bias, and a ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input).relu()
        assert self.bias is not None and not isinstance(self.padding, str)
        weight = self.weight.to(input.dtype)
        out: Tensor = convolution.convolution_relu(input, weight, self.bias, self.stride[0], self.padding[0])
        return out


class Unlinked(nn.Module):
    """The end of the chain: the map alone; what was found is tracked."""

    def forward(self, linked: Linked) -> Tensor:
        if linked.found:
            track(linked.found)
        return linked.map


class ByLink(torch.autograd.Function):
    """(x, link) to x, whose gradient goes to the link: for a second reader of a map that is no sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Tensor) -> Tensor:  # noqa: ARG004
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # noqa: ARG004
        return None, grad


def found_by(module: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> Found:
    """Of a batch x (B, C, H, W)."""
    return Found(module, mean, variance, x.numel() // x.shape[1])


def track(found: list[Found]) -> None:
    """Running statistics as PyTorch keeps them, the variance unbiased; of all at once, which the compiler makes few kernels of.

    One by one they were 87 of a step's 686.
    """
    modules = [each.module for each in found]
    (momentum,) = {module.momentum for module in modules}
    means, variances, batches = zip(*(statistics(module) for module in modules), strict=True)
    assert momentum is not None
    with torch.no_grad():
        torch._foreach_add_(batches, 1)
        unbiased = torch._foreach_mul(
            [each.variance for each in found], [each.rows / (each.rows - 1) for each in found]
        )
        torch._foreach_lerp_([*means, *variances], [*(each.mean for each in found), *unbiased], momentum)


def statistics(module: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor]:
    """Running mean and variance (C,), and the number of batches that they are of."""
    mean, variance, batches = module.running_mean, module.running_var, module.num_batches_tracked
    assert mean is not None and variance is not None and batches is not None
    return mean, variance, batches


def fuse_stem(model: SSD, *, convolution: bool = False) -> None:
    """Give `model` NormReLUPool; what it computes, its parameters and its state stay. `convolution`: with that of
    benchmarks.ssd.kernels.stem_convolution, of a model whose stem is space to depth."""
    trunk = _trunk(model)
    if convolution:
        assert isinstance(trunk[0], SpaceToDepth)
        replace(model, StemConvolution)
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


def fuse_blocks(model: SSD, *, convolutions: bool = False) -> None:
    """Give `model`, whose stem is fused, our Block for torchvision's; what it computes, its parameters and its state stay.

    `convolutions`: with those of benchmarks.ssd.kernels.convolution, the stem's too where it is space to depth, and those of
    LARGE_EXTRAS.
    """
    describe_briefly()
    trunk = _trunk(model)
    if convolutions:
        if isinstance(trunk[0], SpaceToDepth) and not isinstance(trunk[0], StemConvolution):
            replace(model, SpaceToDepthLater)
        _fuse_relu(model)
    trunk[2] = nn.Identity()
    stages = {index: [*stage] for index, stage in enumerate(trunk) if isinstance(stage, nn.Sequential)}
    last = [*stages.values()][-1][-1]
    for index, stage in stages.items():
        trunk[index] = nn.Sequential(
            *(Block(each, convolutions=convolutions, sends=convolutions and each is not last) for each in stage)
        )
    trunk.append(Unlinked())


def graphs_of_step(model: SSD, images: int, image_px: int) -> list[Wanted]:
    """All of cuDNN's graphs that a step in bf16 on (images, 3, image_px, image_px) asks for. Nothing is computed."""
    assert model.training
    device = next(model.parameters()).device
    with FakeTensorMode():
        state = {
            name: torch.empty(each.shape, dtype=torch.bfloat16, device=device, requires_grad=each.requires_grad)
            for name, each in (*model.named_parameters(), *model.named_buffers())
        }
        noise = torch.empty(images, 3, image_px, image_px, dtype=torch.bfloat16, device=device)

        def step() -> None:
            logits, offsets = torch.func.functional_call(model, state, noise)
            (logits.sum() + offsets.sum()).backward()

        return convolution.graphs_asked_for(step)


def convolutions_with_relu(model: SSD) -> list[nn.Conv2d]:
    """Of the extra blocks those whose maps are large enough to be worth a plan of their own."""
    return [
        layer for extra in model.extras[:LARGE_EXTRAS] for layer in extra.children() if isinstance(layer, nn.Conv2d)
    ]


def _fuse_relu(model: SSD) -> None:
    fused: dict[nn.Module, nn.Module] = {
        layer: in_form(layer, ConvolutionReLU) for layer in convolutions_with_relu(model)
    }
    for index, extra in enumerate(model.extras[:LARGE_EXTRAS]):
        model.extras[index] = nn.Sequential(*(fused.get(layer, nn.Identity()) for layer in extra.children()))


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
