"""SSD with a ResNet backbone cut after its third stage, as MLPerf Training v0.5 to v1.1 defines it, or with the paper's VGG-16.

A ResNet's third stage keeps the second's resolution (its stride is set to 1); VGG-16 gives two maps (benchmarks/ssd/vgg.py).
Extra blocks without batch norm shrink the last map further; one fused 3x3 convolution on each map predicts classes and
offsets. Image size, backbone, classes and geometry are arguments: 300 px with ResNet-34 and 81 classes is the benchmark, with
VGG-16 it is the paper's, smaller ones run on a laptop.

Shapes: B images, S image side in px, K classes with background 0, A default boxes, D default boxes in a cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.ssd import vgg
from benchmarks.ssd.geometry import REFERENCE_EXTRAS, Backbone, Extra, second_kernel

HEAD_CHANNELS_MULTIPLE = 8  # tensor cores want channels in eights; the extra ones are never read

BACKBONE_CHANNELS = 256

# Of torchvision's IMAGENET1K_V1 files. Their names carry the first eight digits; the whole is what several projects that had
# downloaded them recorded, the same in all
BACKBONE_SHA256 = {
    "resnet18": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34": "333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef",
    "vgg16": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
}


class FusedHead(nn.Module):
    """One convolution for the classes and offsets of one map; channels are [classes | offsets | padding]."""

    def __init__(self, channels: int, shapes: int, classes: int, multiple: int = HEAD_CHANNELS_MULTIPLE) -> None:
        super().__init__()
        self.shapes, self.classes = shapes, classes
        self.used = shapes * (classes + 4)
        padded = -(-self.used // multiple) * multiple
        self.conv = nn.Conv2d(channels, padded, kernel_size=3, padding=1)
        for part in (self.conv.weight[: shapes * classes], self.conv.weight[shapes * classes : self.used]):
            nn.init.xavier_uniform_(part)
        with torch.no_grad():
            self.conv.weight[self.used :].zero_()
            self.conv.bias[self.used :].zero_()  # type: ignore[index]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, H, W) to logits (B, D*H*W, K) and offsets (B, D*H*W, 4)."""
        return self.rows(self.conv(x))

    def rows(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution's output as logits (B, D*H*W, K) and offsets (B, D*H*W, 4)."""
        split = self.shapes * self.classes
        return self._rows(out[:, :split], self.classes), self._rows(out[:, split : self.used], 4)

    def from_rows(self, logits: Tensor, offsets: Tensor, side: int) -> Tensor:
        """The convolution's output (B, C, side, side) channels last of which `rows` makes these; its padding is zero."""
        parts = [
            rows.reshape(len(rows), self.shapes, side, side, -1).permute(0, 4, 1, 2, 3).flatten(1, 2)
            for rows in (logits, offsets)
        ]
        out = F.pad(torch.cat(parts, dim=1), (0, 0, 0, 0, 0, self.conv.out_channels - self.used))
        return out.contiguous(memory_format=torch.channels_last)

    def _rows(self, out: Tensor, values: int) -> Tensor:
        # channel = value * D + shape, as in the reference; rows in the order of the default boxes: shape, row, column
        b, _, h, w = out.shape
        return out.reshape(b, values, self.shapes, h, w).permute(0, 2, 3, 4, 1).reshape(b, -1, values)


def _extra_block(channels: int, extra: Extra) -> nn.Sequential:
    middle, out, stride, padding = extra[:4]
    narrow = nn.Conv2d(channels, middle, kernel_size=1)
    shrink = nn.Conv2d(middle, out, kernel_size=second_kernel(extra), stride=stride, padding=padding)
    for conv in (narrow, shrink):
        nn.init.xavier_uniform_(conv.weight)  # biases keep PyTorch's default, as in the reference
    return nn.Sequential(narrow, nn.ReLU(inplace=True), shrink, nn.ReLU(inplace=True))


class SSD(nn.Module):
    """Single-shot detector over the maps of its backbone and one of each extra block."""

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        shapes_per_cell: Sequence[int],
        extras: Sequence[Extra] = REFERENCE_EXTRAS,
        *,
        head_multiple: int = HEAD_CHANNELS_MULTIPLE,
        width_divisor: int = 1,
    ) -> None:
        """`classes` counts the background. `shapes_per_cell` has one entry for each map, the backbone's first.

        `width_divisor` is of VGG-16's channels alone.
        """
        super().__init__()
        self.backbone: nn.Sequential | vgg.VGG16
        if backbone == "vgg16":
            self.backbone = vgg.VGG16(width_divisor)
            channels = [*self.backbone.channels]
        else:
            self.backbone = _resnet(backbone)
            channels = [BACKBONE_CHANNELS]
        own = len(channels)
        channels += [extra[1] for extra in extras]
        self.extras = nn.ModuleList(
            _extra_block(c, extra) for c, extra in zip(channels[own - 1 :], extras, strict=False)
        )
        self.heads = nn.ModuleList(
            FusedHead(c, shapes, classes, head_multiple) for c, shapes in zip(channels, shapes_per_cell, strict=True)
        )
        if backbone == "vgg16":  # the paper's new layers begin with biases of zero, MLPerf's with PyTorch's
            for conv in (*self.extras.modules(), *self.heads.modules()):
                if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalised images to logits (B, A, K) and offsets (B, A, 4)."""
        logits, offsets = zip(*(head(x) for head, x in zip(self.heads, self.maps(images), strict=True)), strict=True)
        return torch.cat(logits, dim=1), torch.cat(offsets, dim=1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What the heads see, the backbone's maps first."""
        first = self.backbone(images)
        maps = [first] if isinstance(first, Tensor) else [*first]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps

    def used_parameters(self) -> int:
        """Number of parameters that reach the output: the heads' padding channels are not counted."""
        heads = [head for head in self.heads if isinstance(head, FusedHead)]
        padding = sum((h.conv.out_channels - h.used) * (h.conv.weight[0].numel() + 1) for h in heads)
        return sum(p.numel() for p in self.parameters()) - padding


def _resnet(backbone: Backbone) -> nn.Sequential:
    resnet = getattr(torchvision.models, backbone)(weights=None)
    first = resnet.layer3[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    return nn.Sequential(
        resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1, resnet.layer2, resnet.layer3
    )


class HeadOutputs(nn.Module):
    """An SSD that ends with its heads' convolutions, (B, C, H, W) each, without their biases: for a loss that reads those."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, 3, S, S) normalised images to the convolutions' outputs, and the biases (C) that are still to be added."""
        convolutions = [head.conv for head in self.model.heads if isinstance(head, FusedHead)]
        maps = self.model.maps(images)
        outputs = [F.conv2d(x, c.weight, None, c.stride, c.padding) for c, x in zip(convolutions, maps, strict=True)]
        return outputs, [c.bias for c in convolutions if c.bias is not None]


def load_backbone(model: SSD, backbone: Backbone, path: Path) -> None:
    """Load a torchvision ImageNet weight file into the backbone.

    Of a ResNet the classifier and the fourth stage are left out, of VGG-16 most of fc6 and fc7: see vgg.decimated.

    ValueError when the file is missing, truncated or another one.
    """
    expected = BACKBONE_SHA256[backbone]
    where = f"backbone weights {path}"
    wanted = f"wanted is torchvision's {backbone}-{expected[:8]}.pth"
    if not path.is_file():
        raise ValueError(f"{where}: no such file; {wanted}, given with --initial-weights")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{where}: SHA-256 is {found}, expected {expected}: truncated or another file "
            f"({path.stat().st_size:,} bytes); {wanted}"
        )
    try:
        _copy_backbone(model, torch.load(path, map_location="cpu", weights_only=True))
    except KeyError as error:
        raise ValueError(f"{where} lacks {error.args[0]}; {wanted}") from error


def _copy_backbone(model: SSD, weights: dict[str, Tensor]) -> None:
    if isinstance(model.backbone, vgg.VGG16):
        renamed = vgg.decimated(weights)
    else:
        stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")  # as in SSD.backbone
        renamed = {}
        for key, value in weights.items():
            stage, _, rest = key.partition(".")
            if stage in stages:
                renamed[f"{stages.index(stage)}.{rest}"] = value
    # num_batches_tracked is younger than the file and irrelevant with a fixed momentum; conv4_3's scale is the paper's own
    missing = [
        key
        for key in model.backbone.load_state_dict(renamed, strict=False).missing_keys
        if not key.endswith(("num_batches_tracked", "norm.scale"))
    ]
    if missing:
        raise ValueError(f"backbone weights lack {len(missing)} tensors, the first being {missing[0]}")
