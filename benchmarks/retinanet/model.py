"""RetinaNet on a ResNet, as MLPerf Training v2.0 to v5.1 defines it: a pyramid P3 to P7, two heads on
each map.

Modules have the reference's names, so that its state dicts load and its list of initialised tensors is ours. Two things are
done otherwise that change no value but by rounding. Frozen batch norm, a fixed scale and shift, is put into the convolution
before it: the scale into its weights, the shift into its bias. And the heads' outputs are left map by map where the
convolution put them, which channels last is the order of the anchors already.

Shapes: B images, S image side in px, K classes without background, C channels, L anchors of one map.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.retinanet.winograd import Conv3x3

PRIOR = 0.01  # probability that a fresh network gives each class at each anchor
STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # by which the reference counts what is trained
REFERENCE_CHANNELS = 256

# SHA-256 of torchvision's IMAGENET1K_V1 files, which the reference begins with, as far as their names carry it
BACKBONE_DIGITS = {
    "resnet18": "f37072fd",
    "resnet34": "333f7ec4",
    "resnet50": "0676ba61",
    "resnext50_32x4d": "7cdf4587",
}


class Body(nn.Module):
    """The backbone without its classifier."""

    def __init__(self, backbone: str, batch_norm: type[nn.Module]) -> None:
        super().__init__()
        resnet = _resnet(backbone, batch_norm)
        self.conv1: nn.Conv2d = resnet.conv1
        self.bn1: nn.Module = resnet.bn1
        self.layer1: nn.Sequential = resnet.layer1
        self.layer2: nn.Sequential = resnet.layer2
        self.layer3: nn.Sequential = resnet.layer3
        self.layer4: nn.Sequential = resnet.layer4

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) to the maps of the last three stages, an eighth, a sixteenth and a thirty-second of the side."""
        x = F.max_pool2d(F.relu(convolved(images, self.conv1, self.bn1)), 3, 2, 1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = _block(x, block)
            maps.append(x)
        return maps[1:]


def _resnet(backbone: str, batch_norm: type[nn.Module]) -> Any:
    if backbone == "resnet10":
        return ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=batch_norm)
    return getattr(torchvision.models, backbone)(weights=None, norm_layer=batch_norm)


def convolved(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """A convolution without bias, and batch norm."""
    weight = conv.weight
    if x.shape[1] > weight.shape[1] * conv.groups:  # images whose fourth channel is zero, see image_format
        weight = F.pad(weight, (0, 0, 0, 0, 0, x.shape[1] - weight.shape[1]))
    if not isinstance(norm, FrozenBatchNorm2d):
        x = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        normed: Tensor = norm(x)
        return normed
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    weight = weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def _block(x: Tensor, block: nn.Module) -> Tensor:
    """torchvision's BasicBlock or Bottleneck."""
    out = F.relu(convolved(x, block.conv1, block.bn1))  # type: ignore[arg-type]
    out = convolved(out, block.conv2, block.bn2)  # type: ignore[arg-type]
    if hasattr(block, "conv3"):
        out = convolved(F.relu(out), block.conv3, block.bn3)  # type: ignore[arg-type]
    if block.downsample is not None:
        x = convolved(x, *block.downsample)  # type: ignore[misc]
    return F.relu(out + x)


class TopMaps(nn.Module):
    """P6 from P5, and P7 from P6."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        for number in range(6, 6 + count):
            self.add_module(f"p{number}", _conv(channels, channels, 3, stride=2))

    def forward(self, p5: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        x = p5
        for conv in self.children():
            found.append(conv(F.relu(x) if found else x))
            x = found[-1]
        return found


class Pyramid(nn.Module):
    """Feature pyramid on the last three stages: each map takes in, enlarged, the one above it."""

    def __init__(self, widths: list[int], channels: int, top_maps: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(_conv(width, channels, 1) for width in widths)
        self.layer_blocks = nn.ModuleList(_conv(channels, channels, 3) for _ in widths)
        self.extra_blocks = TopMaps(channels, top_maps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inner = [block(x) for block, x in zip(self.inner_blocks, maps, strict=True)]
        for number in range(len(inner) - 2, -1, -1):
            above = F.interpolate(inner[number + 1], size=inner[number].shape[-2:], mode="nearest")
            inner[number] = inner[number] + above
        found = [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)]
        top: list[Tensor] = self.extra_blocks(found[-1])
        return found + top


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    plain = kernel != 3 or stride != 1
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2) if plain else Conv3x3(channels, out)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _width(block: Any) -> int:
    channels: int = getattr(block, "conv3", block.conv2).out_channels
    return channels


class Backbone(nn.Module):
    """ResNet and pyramid."""

    def __init__(self, backbone: str, batch_norm: type[nn.Module], channels: int, top_maps: int) -> None:
        super().__init__()
        self.body = Body(backbone, batch_norm)
        widths = [_width(stage[-1]) for stage in (self.body.layer2, self.body.layer3, self.body.layer4)]
        self.fpn = Pyramid(widths, channels, top_maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.fpn(self.body(images))
        return maps


class Head(nn.Module):
    """`depth` convolutions, then one whose channels are `values` for each of a cell's anchors; the same on each map."""

    def __init__(self, channels: int, depth: int, last: str, values: int, bias: float) -> None:
        super().__init__()
        self.last = last
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [Conv3x3(channels, channels), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*layers)
        self.add_module(last, Conv3x3(channels, values))
        # the reference's 0.01 at its 256 channels; narrower, a map's values would fade from layer to layer faster than there
        spread = 0.01 * math.sqrt(REFERENCE_CHANNELS / channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=spread)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.constant_(getattr(self, last).bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H, W, values)."""
        out: Tensor = getattr(self, self.last)(self.conv(x))
        return out.permute(0, 2, 3, 1)


class Heads(nn.Module):
    """One for the classes, one for the boxes."""

    def __init__(self, channels: int, depth: int, anchors: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        bias = -math.log((1 - PRIOR) / PRIOR)
        self.classification_head = Head(channels, depth, "cls_logits", anchors * classes, bias)
        self.regression_head = Head(channels, depth, "bbox_reg", anchors * 4, 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to logits (B, L, K) and offsets (B, L, 4): by row, column, anchor."""
        logits, offsets = self.classification_head(x), self.regression_head(x)
        batch = x.shape[0]  # len() would fix the number in a graph
        return logits.reshape(batch, -1, self.classes), offsets.reshape(batch, -1, 4)


class RetinaNet(nn.Module):
    """The detector; `classes` are without background, `maps` from P3 on."""

    def __init__(
        self,
        backbone: str,
        classes: int,
        anchors_per_cell: int = 9,
        *,
        channels: int = 256,
        head_depth: int = 4,
        maps: int = 5,
        trained_stages: int = 3,
        batch_norm: str = "frozen",
    ) -> None:
        super().__init__()
        norm = FrozenBatchNorm2d if batch_norm == "frozen" else nn.BatchNorm2d
        self.backbone = Backbone(backbone, norm, channels, maps - 3)
        self.head = Heads(channels, head_depth, anchors_per_cell, classes)
        trained = STAGES[:trained_stages] + (("bn1",) if trained_stages == len(STAGES) else ())
        for name, parameter in self.backbone.body.named_parameters():
            parameter.requires_grad_(name.startswith(trained))

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, 3, S, S) normalised images to logits (B, L, K) and offsets (B, L, 4), map by map."""
        of_maps = [self.head(x) for x in self.backbone(images)]
        return [logits for logits, _ in of_maps], [offsets for _, offsets in of_maps]


def load_backbone(model: RetinaNet, backbone: str, path: Path) -> None:
    """Load a torchvision ImageNet weight file into the backbone; the classifier is left out.

    ValueError when the file is missing, truncated or another one.
    """
    digits = BACKBONE_DIGITS[backbone]
    where, wanted = f"backbone weights {path}", f"wanted is torchvision's {backbone}-{digits}.pth"
    if not path.is_file():
        raise ValueError(f"{where}: no such file; {wanted}, given with --initial-weights")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digits):
        raise ValueError(
            f"{where}: SHA-256 begins with {found[:8]}: truncated or another file ({path.stat().st_size:,} bytes); {wanted}"
        )
    body = model.backbone.body
    own, weights = body.state_dict(), torch.load(path, map_location="cpu", weights_only=True)
    # num_batches_tracked is younger than the file and irrelevant with a fixed momentum
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"{where} lack {len(missing)} tensors, the first being {missing[0]}")
    body.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
