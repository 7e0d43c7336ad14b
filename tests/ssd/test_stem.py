"""The first convolution's other forms: the same products as torchvision's, in float64, and the same network around them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.detection.data_path.image_format import PaddedChannels
from benchmarks.ssd import stem
from benchmarks.ssd.model import SSD


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 64), (37, 301)])
def test_space_to_depth_is_the_same_convolution(channels: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height)
    images = torch.randn(2, channels, height, width, dtype=torch.float64, generator=generator)
    images[:, 3:] = 0.0
    weight = torch.randn(5, 3, 7, 7, dtype=torch.float64, generator=generator).requires_grad_()
    expected = F.conv2d(images[:, :3], weight, None, 2, 3)
    blocks = stem.blocks(images)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    found = F.conv2d(blocks, stem.block_weights(weight))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    gradient = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    for a, b in zip(*(torch.autograd.grad(each, weight, gradient) for each in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", [PaddedChannels, stem.SpaceToDepth])
def test_the_network_around_it_is_the_same_network(form: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    plain = SSD("resnet18", 4, (4, 4), ((32, 64, 2, 1),))
    torch.manual_seed(0)
    other = SSD("resnet18", 4, (4, 4), ((32, 64, 2, 1),))
    before = torch.get_rng_state()
    stem.replace(other, form)
    assert torch.equal(before, torch.get_rng_state())
    assert list(plain.state_dict()) == list(other.state_dict())
    images = torch.randn(4, 3, 64, 64)
    four = torch.cat([images, torch.zeros(4, 1, 64, 64)], dim=1)
    gradients = []
    for model, x in ((plain, images), (other, four)):
        logits, offsets = model.double()(x.double())
        (logits.square().mean() + offsets.square().mean()).backward()
        first = model.backbone[0].weight.grad
        assert isinstance(first, torch.Tensor)
        gradients.append((logits.detach(), offsets.detach(), first))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
