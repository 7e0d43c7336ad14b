"""The network against the reference's: its parameters, its names, its values with a state dict loaded by name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet as TheirRetinaNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.retinanet import model as model_module
from benchmarks.retinanet.model import RetinaNet, load_backbone

CLASSES = 5


def theirs(backbone: str, classes: int, trained: int = 3) -> nn.Module:
    """torchvision's, put together as the reference does it: their own modules under the same names."""
    body = resnet_fpn_backbone(
        backbone_name=backbone, weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=trained,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    return TheirRetinaNet(body, classes)  # type: ignore[no-any-return]


def by_our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torchvision has put convolutions of pyramid and heads one level deeper since the reference took them over."""
    found = {}
    for name, value in state.items():
        ours = re.sub(r"(_blocks\.\d+)\.0\.", r"\1.", name)
        found[re.sub(r"head\.conv\.(\d+)\.0\.", lambda at: f"head.conv.{2 * int(at[1])}.", ours)] = value
    return found


def test_as_many_parameters_as_the_reference() -> None:
    """At 264 classes, trained and frozen; the names are torchvision's own."""
    with torch.device("meta"):
        mine, other = RetinaNet("resnext50_32x4d", 264), theirs("resnext50_32x4d", 264)
    trained = [sum(p.numel() for p in each.parameters() if p.requires_grad) for each in (mine, other)]
    assert trained[0] == trained[1]
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in other.parameters())
    assert set(by_our_names(other.state_dict())) == set(mine.state_dict())
    frozen = {name.split(".")[2] for name, p in mine.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}, "frozen batch norm has no parameters"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d"])
def test_a_state_dict_of_the_reference_gives_the_reference_s_output(backbone: str, channels_last: bool) -> None:
    """Seeded weights and batch-norm statistics far from 1 and 0, and gradients of every trained weight."""
    torch.manual_seed(2)
    other = theirs(backbone, CLASSES)
    state = other.state_dict()
    for name, value in state.items():
        if ".bn" in name or ".downsample.1." in name:
            value.copy_(torch.rand_like(value) * 0.5 + (0.25 if name.endswith(("weight", "running_var")) else -0.25))
    other.load_state_dict(state)
    mine = RetinaNet(backbone, CLASSES)
    mine.load_state_dict(by_our_names(state))
    images = torch.randn(2, 3, 96, 96)
    if channels_last:
        mine, images = mine.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    logits, offsets = mine(images)
    features = list(other.backbone(images).values())  # type: ignore[operator]
    expected = other.head(features)  # type: ignore[operator]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected["cls_logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(offsets, dim=1), expected["bbox_regression"], rtol=1e-4, atol=1e-5)
    (torch.cat(logits, dim=1).square().sum() + torch.cat(offsets, dim=1).sum()).backward()
    (expected["cls_logits"].square().sum() + expected["bbox_regression"].sum()).backward()
    gradients = by_our_names({name: p.grad for name, p in other.named_parameters() if p.grad is not None})
    found = {name: p.grad for name, p in mine.named_parameters() if p.grad is not None}
    assert set(found) == set(gradients)
    for name, gradient in found.items():
        error = (gradient - gradients[name]).norm() / gradients[name].norm()
        assert error < 1e-3, f"{name}: {error}"


def test_outputs_need_no_copy_channels_last() -> None:
    """What the head gives is a view of the convolution's output, in the order of the anchors."""
    mine = RetinaNet("resnet18", CLASSES, channels=16).to(memory_format=torch.channels_last)
    seen: list[torch.Tensor] = []
    mine.head.classification_head.cls_logits.register_forward_hook(lambda *call: seen.append(call[2]))  # type: ignore[operator, union-attr]
    logits, _ = mine(torch.randn(1, 3, 64, 64).to(memory_format=torch.channels_last))
    assert [each.data_ptr() for each in logits] == [each.data_ptr() for each in seen]


def test_a_fresh_network_gives_each_class_one_in_a_hundred() -> None:
    torch.manual_seed(0)
    mine = RetinaNet("resnet18", CLASSES, channels=64)
    logits, _ = mine(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(torch.cat(logits, 1).sigmoid().mean().item(), 0.01, rtol=1e-3, atol=0)


def test_the_fourth_channel_meets_weights_of_zero() -> None:
    mine = RetinaNet("resnet18", CLASSES, channels=16)
    images = torch.randn(1, 3, 64, 64)
    padded = torch.cat([images, torch.zeros(1, 1, 64, 64)], dim=1)
    for one, other in zip(mine(images)[0], mine(padded)[0], strict=True):
        torch.testing.assert_close(one, other)


def test_the_backbone_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    weights = resnet18().state_dict()
    path = tmp_path / "resnet18.pth"
    torch.save({name: value for name, value in weights.items() if "num_batches" not in name}, path)
    mine = RetinaNet("resnet18", CLASSES, channels=16)
    with pytest.raises(ValueError, match=r"resnet18\.pth: SHA-256 begins with .{8}: truncated or another file"):
        load_backbone(mine, "resnet18", path)
    with pytest.raises(ValueError, match="no such file"):
        load_backbone(mine, "resnet18", tmp_path / "none.pth")
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(model_module.BACKBONE_DIGITS, "resnet18", digits)
    load_backbone(mine, "resnet18", path)
    assert torch.equal(mine.backbone.body.layer4[1].bn2.running_var, weights["layer4.1.bn2.running_var"])  # type: ignore[union-attr]
    torch.save({"conv1.weight": weights["conv1.weight"]}, path)
    monkeypatch.setitem(
        model_module.BACKBONE_DIGITS, "resnet18", hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    )  # fmt: skip
    with pytest.raises(ValueError, match="lack 99 tensors"):
        load_backbone(mine, "resnet18", path)


def test_the_log_names_the_tensors_that_the_rules_ask_for() -> None:
    """MLPerf's checker of round 2.0 has a list of them."""
    from importlib.util import find_spec

    spec = find_spec("mlperf_logging")
    assert spec is not None and spec.submodule_search_locations is not None
    rules = Path(spec.submodule_search_locations[0]) / "compliance_checker/training_2.0.0/closed_ssd.yaml"
    listed = [line.strip().strip('",') for line in rules.read_text().splitlines() if '"module.' in line]
    with torch.device("meta"):
        names = [f"module.{name}" for name, _ in RetinaNet("resnext50_32x4d", 264).named_parameters()]
    assert sorted(listed) == sorted(names)
