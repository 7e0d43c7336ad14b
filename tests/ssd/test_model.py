"""The network against the definition: parameters, arithmetic, order of its outputs, initial weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ssd import model as model_module
from benchmarks.ssd.geometry import REFERENCE_EXTRAS
from benchmarks.ssd.model import SSD, FusedHead, load_backbone

SHAPES = (4, 6, 6, 6, 4, 4)


def test_parameters_without_padding() -> None:
    assert SSD("resnet34", 81, SHAPES).used_parameters() == 19_972_534
    unpadded = SSD("resnet34", 81, SHAPES, head_multiple=1)
    assert sum(p.numel() for p in unpadded.parameters()) == 19_972_534
    assert sum(b.numel() for b in unpadded.buffers()) == 9_885


def test_heads_are_padded_to_eights() -> None:
    assert [h.conv.out_channels for h in SSD("resnet34", 81, SHAPES).heads] == [344, 512, 512, 512, 344, 344]


def test_forward_flops() -> None:
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        logits, offsets = SSD("resnet34", 81, SHAPES, head_multiple=1)(torch.empty(1, 3, 300, 300))
    assert (logits.shape, offsets.shape) == ((1, 8732, 81), (1, 8732, 4))
    assert counter.get_total_flops() / 1e9 == pytest.approx(31.72, abs=0.005)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_head_equals_two_convolutions_viewed_as_the_reference_does(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    head, shapes, classes = FusedHead(16, 6, 5), 6, 5
    conv = torch.nn.functional.conv2d
    x = torch.randn(2, 16, 7, 7).to(memory_format=layout)
    weight, bias = head.conv.weight.detach(), head.conv.bias.detach()
    split, used = shapes * classes, shapes * (classes + 4)
    logits = conv(x, weight[:split], bias[:split], padding=1).contiguous().view(2, classes, -1)
    offsets = conv(x, weight[split:used], bias[split:used], padding=1).contiguous().view(2, 4, -1)
    found_logits, found_offsets = head.to(memory_format=layout)(x)
    torch.testing.assert_close(found_logits, logits.transpose(1, 2))
    torch.testing.assert_close(found_offsets, offsets.transpose(1, 2))


def test_initial_weights_follow_the_reference() -> None:
    torch.manual_seed(0)
    model = SSD("resnet34", 81, SHAPES)
    head = model.heads[1].conv.weight.detach()
    for part, fan_out in ((head[:486], 486 * 9), (head[486:510], 24 * 9)):
        bound = (6 / (512 * 9 + fan_out)) ** 0.5  # Glorot and Bengio's uniform bound
        assert part.abs().max() <= bound and part.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert head[510:].abs().max() == 0
    bias = model.extras[0][2].bias.detach()
    assert 0 < bias.abs().max() <= (256 * 9) ** -0.5


def test_third_stage_keeps_the_resolution() -> None:
    assert SSD("resnet34", 81, SHAPES).backbone(torch.zeros(1, 3, 300, 300)).shape == (1, 256, 38, 38)


def test_small_network_of_another_size() -> None:
    model = SSD("resnet18", 13, (6, 6, 4), REFERENCE_EXTRAS[:2])
    logits, offsets = model(torch.zeros(2, 3, 96, 96))
    boxes = 12 * 12 * 6 + 6 * 6 * 6 + 3 * 3 * 4
    assert (logits.shape, offsets.shape) == ((2, boxes, 13), (2, boxes, 4))


@pytest.fixture
def backbone_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of torchvision's form with random weights, taken for the published one by its checksum."""
    torch.manual_seed(1)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    without_counters = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "resnet18.pth"
    torch.save(without_counters, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(model_module.BACKBONE_SHA256, "resnet18", digest)
    return path


def test_backbone_file_is_loaded(backbone_file: Path) -> None:
    model = SSD("resnet18", 13, (4,), ())
    load_backbone(model, "resnet18", backbone_file)
    published = torch.load(backbone_file)
    for name, mine in (("conv1", model.backbone[0]), ("layer3", model.backbone[6])):
        for key, value in mine.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(value, published[f"{name}.{key}"]), key


def test_truncated_backbone_file_is_refused(backbone_file: Path) -> None:
    backbone_file.write_bytes(backbone_file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"resnet18\.pth: SHA-256 is .* truncated or another file"):
        load_backbone(SSD("resnet18", 13, (4,), ()), "resnet18", backbone_file)


def test_a_file_whose_checksum_only_begins_alike_is_refused(
    backbone_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 bits are found by trying."""
    digest = model_module.BACKBONE_SHA256["resnet18"]
    monkeypatch.setitem(model_module.BACKBONE_SHA256, "resnet18", digest[:8] + "0" * 56)
    with pytest.raises(ValueError, match=r"SHA-256 is .* expected .*0{56}"):
        load_backbone(SSD("resnet18", 13, (4,), ()), "resnet18", backbone_file)


def test_the_published_backbone_is_the_one_that_prepare_gets() -> None:
    from benchmarks.detection.download.full_coco import COCO_2017

    assert COCO_2017.backbone.sha256 == model_module.BACKBONE_SHA256["resnet34"]
    assert COCO_2017.backbone.name == f"resnet34-{COCO_2017.backbone.sha256[:8]}.pth"


def test_missing_backbone_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file; wanted is torchvision's resnet34-333f7ec4\.pth"):
        load_backbone(SSD("resnet34", 13, (4,), ()), "resnet34", tmp_path / "nothing.pth")
