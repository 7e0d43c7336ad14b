"""Our parameters under the names that ruleset 1.1.0 asks for in its `weights_initialization` lines.

Those are the names of NVIDIA's MXNet submission: a list of 119, in mlperf-logging's training_1.1.0/closed_ssd.yaml. Ours map
one to one, since one fused convolution for each map predicts classes and offsets there as here. Convolutions and batch norms
are counted through a stage in the order in which both frameworks define them; a block's downsampling comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STAGES = {"4": 1, "5": 2, "6": 3}  # place in SSD.backbone: number of the ResNet's stage
_CONV_PER_BLOCK = 2
_IN_BLOCK = {"conv1": 0, "bn1": 0, "conv2": 1, "bn2": 1, "downsample.0": 2, "downsample.1": 2}
_EXTRA = {"0": "expand_trans_conv", "2": "expand_conv"}  # place in an extra block: 1x1, then 3x3


def mllog_names(names: Iterable[str]) -> dict[str, str]:
    """Each of `names` (of SSD.named_parameters()) with its name in the log. ValueError for one that has none."""
    known = list(names)
    downsampled = {stage for name in known if (stage := _stage_of(name)) and ".0.downsample." in name}
    return {name: f"ssd0_{_mllog_name(name, downsampled)}" for name in known}


def _stage_of(name: str) -> str | None:
    match = re.match(r"backbone\.([456])\.", name)
    return match[1] if match else None


def _mllog_name(name: str, downsampled: set[str]) -> str:
    if match := re.fullmatch(r"heads\.(\d+)\.conv\.(weight|bias)", name):
        return f"convpredictor{match[1]}_conv0_{match[2]}"
    if match := re.fullmatch(r"extras\.(\d+)\.([02])\.(weight|bias)", name):
        return f"{_EXTRA[match[2]]}{match[1]}_{match[3]}"
    if match := re.fullmatch(r"backbone\.([01])\.(weight|bias)", name):
        return f"resnetmlperf0_{_layer(is_norm=match[1] == '1', index=0, part=match[2])}"
    if match := re.fullmatch(r"backbone\.([456])\.(\d+)\.(conv\d|bn\d|downsample\.[01])\.(weight|bias)", name):
        stage, block, layer, part = match.groups()
        # the first block of a stage that halves the map has one convolution more
        index = int(block) * _CONV_PER_BLOCK + _IN_BLOCK[layer] + (stage in downsampled and int(block) > 0)
        is_norm = layer.startswith("bn") or layer.endswith(".1")
        return f"resnetmlperf0_stage{_STAGES[stage]}_{_layer(is_norm=is_norm, index=index, part=part)}"
    raise ValueError(
        f"parameter {name} has no name in ruleset 1.1.0's list: it is none of SSD's with a ResNet-34 backbone"
    )


def _layer(*, is_norm: bool, index: int, part: str) -> str:
    if is_norm:
        return f"batchnorm{index}_{'gamma' if part == 'weight' else 'beta'}"
    return f"conv{index}_{part}"
