"""The convolution with fewer products against float64, as near as PyTorch's own; where it is used, and where it is not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.retinanet import winograd
from benchmarks.retinanet.model import RetinaNet
from benchmarks.retinanet.winograd import Conv3x3


def outcome_and_gradients(conv: Conv3x3, x: Tensor, weighting: Tensor, direct: bool) -> list[Tensor]:
    """Of the outcome, the input, the weights and the bias."""
    x = x.detach().requires_grad_()
    out = F.conv2d(x, conv.weight, conv.bias, padding=1) if direct else conv(x)
    return [out, *torch.autograd.grad(out, (x, conv.weight, conv.bias), weighting.to(out.dtype))]  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(34, 34), (33, 32), (40, 35), (3, 400), (2, 600)])
@pytest.mark.parametrize("batch", [1, 3])
def test_outcome_and_gradients_are_as_near_to_float64_as_pytorch_s(height: int, width: int, batch: int) -> None:
    """Odd sides too, whose last tiles hang over; blocks that end within an image."""
    torch.manual_seed(4)
    conv = Conv3x3(128, 160).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 128, height, width).to(memory_format=torch.channels_last)
    weighting = torch.randn(batch, 160, height, width)
    assert winograd.suits(x, conv.weight)
    found = outcome_and_gradients(conv, x, weighting, direct=False)
    plain = outcome_and_gradients(conv, x, weighting, direct=True)
    exact = outcome_and_gradients(conv.double(), x.double(), weighting, direct=True)
    assert "Convolution" in str(found[0].grad_fn)
    for name, ours, theirs, value in zip(("out", "x", "weight", "bias"), found, plain, exact, strict=True):
        error, of_plain = ((each - value).norm() / value.norm() for each in (ours, theirs))
        assert ours.shape == value.shape and error < max(2 * of_plain, 5e-7), f"{name}: {error}, {of_plain}"


def called(monkeypatch: pytest.MonkeyPatch, conv: Conv3x3, x: Tensor) -> bool:
    calls: list[Any] = []
    monkeypatch.setattr(winograd._Convolution, "apply", lambda *given: (calls.append(given), x)[1])
    conv(x)
    return bool(calls)


def test_only_where_it_is_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Conv3x3(128, 128).to(memory_format=torch.channels_last)
    x = torch.randn(1, 128, 32, 32).to(memory_format=torch.channels_last)
    assert called(monkeypatch, conv, x)
    with torch.no_grad():
        assert not called(monkeypatch, conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not called(monkeypatch, conv, x)
    assert not called(monkeypatch, conv, x.contiguous()), "by planes"
    assert not called(monkeypatch, conv, x[:, :, 1:].contiguous(memory_format=torch.channels_last)), "few cells"
    few = torch.randn(1, 64, 32, 32).to(memory_format=torch.channels_last)
    assert not called(monkeypatch, Conv3x3(64, 128).to(memory_format=torch.channels_last), few), "few channels"
    double = conv.double()
    assert not called(monkeypatch, double, x.double()), "other formats"


def test_the_network_s_large_maps_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyramid and heads, with the ReLU in place behind them; losses are those of PyTorch's convolutions."""
    torch.manual_seed(6)
    model = RetinaNet("resnet18", 20, trained_stages=5).to(memory_format=torch.channels_last)
    images = torch.randn(1, 3, 264, 264).to(memory_format=torch.channels_last)  # P3 has 33 x 33 cells
    calls: list[tuple[int, ...]] = []
    apply = winograd._Convolution.apply
    monkeypatch.setattr(
        winograd._Convolution, "apply", lambda x, *rest: (calls.append(x.shape[2:]), apply(x, *rest))[1]
    )

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        sum(each.square().mean() for each in itertools.chain(*model(images))).backward()  # type: ignore[union-attr]
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    found = gradients()
    assert calls == [(33, 33)] * 10, "the pyramid's P3, the four of each head, and the logits; offsets are few channels"
    monkeypatch.setattr(winograd, "MIN_CELLS", 10**9)
    plain = gradients()
    assert len(calls) == 10 and found.keys() == plain.keys()
    for name, gradient in found.items():
        assert (gradient - plain[name]).norm() <= 1e-4 * plain[name].norm(), name
