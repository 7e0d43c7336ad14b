"""What an accelerator can do of what a configuration asks for, tried on it before anything is built.

On a processor and on NVIDIA's GPUs what is asked for is what is done, and what fails is an error. Elsewhere a vendor's PyTorch
may lack a layout, a fused optimizer or a compiler, none of which changes the maths: these are tried on a layer of a few
weights, left out where they do not work, and the log says which and why. A number format changes the maths: one that was asked
for by name and does not work is refused.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from benchmarks.detection.data_path import nvjpeg
from benchmarks.detection.tables import DetectorConfig, dali_defaults
from harness.contract import Context, NotSuitable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

NVIDIA = ("NVIDIA", "")  # "": a Context made without looking at the machine
TOLERANCE = 1e-3  # relative, of a gradient of the trial; a layout that is wrong is wrong by orders of magnitude


C = TypeVar("C", bound=DetectorConfig)


@dataclass(frozen=True)
class Settled(Generic[C]):
    """The configuration as this device runs it."""

    config: C
    fused_optimizer: bool = True
    jpeg_on_device: bool = True
    left_out: dict[str, str] = field(default_factory=dict)  # what was asked for and does not work here: why


def installed(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False


def runs_as_asked(context: Context) -> bool:
    """Whether nothing needs to be tried: a processor, or a GPU of NVIDIA's."""
    kind = context.device.partition(":")[0]
    return kind == "cpu" or (kind == "cuda" and context.vendor in NVIDIA)


def backend(config: DetectorConfig, context: Context) -> str:
    """Whose data path. What `auto` leaves open is decided here, by what was measured, so that the runs of a series are alike.

    On a GPU of NVIDIA's DALI's; on a processor PyTorch's, which takes 5.2 ms of a core for a photograph where DALI's graph
    takes 7.4 (results/LOG.md), unless a choice is made that only DALI has, or the pictures are the demonstration's, which is to
    show the accelerator's path. PyTorch's where DALI is not installed or does not know the device.
    """
    settings = config.data
    if settings.backend != "auto":
        return settings.backend
    if not runs_as_asked(context) or not installed("nvidia.dali"):
        return "torch"
    for_dali = any(getattr(settings, name) != value for name, value in dali_defaults().items())
    on_cpu = context.device.partition(":")[0] == "cpu"
    return "torch" if on_cpu and settings.source != "embedded" and not for_dali else "dali"


def settle(config: C, context: Context) -> Settled[C]:
    """Try what can be tried. NotSuitable for a number format that was asked for by name and is not there."""
    chosen = config.model_copy(
        update={"data": config.data.model_copy(update={"backend": backend(config, context)})}  # "auto" is settled
    )
    if context.deterministic:  # what is chosen by its speed may be another next time
        fixed: dict[str, object] = {"autotune": False}
        if chosen.compute.precision == "auto":
            fixed["precision"] = "fp32"
        chosen = chosen.model_copy(update={"compute": chosen.compute.model_copy(update=fixed)})
    if runs_as_asked(context):
        left_out = _regions_with_wrong_edges(chosen, context)
        if left_out:
            chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"decode": "whole"})})
        return Settled(chosen, left_out=left_out)
    import torch

    device, compute = torch.device(context.device), config.compute
    wanted = compute.precision
    if wanted in ("bf16", "fp16") and not autocasts(device.type, torch.bfloat16 if wanted == "bf16" else torch.float16):
        raise NotSuitable(
            f'compute.precision = "{wanted}": this PyTorch does not cast automatically to it on {device.type}; say "auto", '
            'which takes the fastest of what it can, or "fp32"'
        )
    left_out = {"jpeg_on_device": f"not tried on {device.type}"}
    for name, asked, trial in (
        ("channels_last", compute.channels_last, _channels_last),
        ("compile", compute.compile, _compile),
        ("fused_optimizer", True, _fused_optimizer),
    ):
        reason = _why_not(trial, device) if asked else None
        if reason is not None:
            left_out[name] = reason
    works = {name: getattr(compute, name) and name not in left_out for name in ("channels_last", "compile")}
    chosen = chosen.model_copy(update={"compute": compute.model_copy(update=works)})
    return Settled(chosen, "fused_optimizer" not in left_out, False, left_out)


def _regions_with_wrong_edges(config: DetectorConfig, context: Context) -> dict[str, str]:
    """Why DALI on a GPU decodes whole pictures where regions were asked for: an nvJPEG that draws their edges wrong."""
    if config.data.backend != "dali" or not config.decodes_regions or not context.device.startswith("cuda"):
        return {}
    found = nvjpeg.first()
    if found is None or found >= nvjpeg.RIGHT_EDGES:
        return {}
    wanted = ".".join(map(str, nvjpeg.RIGHT_EDGES))
    return {
        "decode": f"whole pictures: nvJPEG {'.'.join(map(str, found))} is loaded, and a region's edge is right from {wanted} on"
    }


def autocasts(kind: str, dtype: torch.dtype) -> bool:
    """Whether torch.autocast does anything for this number format on this kind of device."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns and goes on without
            with torch.autocast(kind, dtype=dtype):
                enabled: bool = torch.is_autocast_enabled(kind)
                return enabled
    except RuntimeError:
        return False


def _why_not(trial: Callable[[torch.device], None], device: torch.device) -> str | None:
    """None where it works, else the first line of what the vendor's PyTorch says."""
    import torch

    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # a run's seed makes what it made before
            warnings.simplefilter("ignore")
            trial(device)
    except Exception as error:  # noqa: BLE001 - a vendor's PyTorch fails in ways of its own, and each is the answer
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
    return None


def _layer(device: torch.device, layout: torch.memory_format) -> tuple[nn.Module, Tensor]:
    """A convolution and batch norm, and an input for them; the same numbers each time."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    images = torch.randn(2, 4, 16, 16, generator=generator)
    return layer.to(device).to(memory_format=layout), images.to(device).to(memory_format=layout)


def _gradient(layer: nn.Module, images: Tensor) -> Tensor:
    """Of the convolution's weights, on the CPU."""
    layer(images).square().mean().backward()
    gradient = next(layer.parameters()).grad
    assert gradient is not None
    return gradient.float().cpu().contiguous()


def _channels_last(device: torch.device) -> None:
    import torch

    plain, other = (_gradient(*_layer(device, each)) for each in (torch.contiguous_format, torch.channels_last))
    if not torch.allclose(plain, other, rtol=TOLERANCE, atol=TOLERANCE * plain.abs().max().item()):
        raise RuntimeError("gradients differ from those of the plain layout")


def _compile(device: torch.device) -> None:
    import torch

    from benchmarks.detection.compiling import compiled

    layer, images = _layer(device, torch.contiguous_format)
    compiled(layer)
    expected = _gradient(*_layer(device, torch.contiguous_format))
    if not torch.allclose(_gradient(layer, images), expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise RuntimeError("gradients differ from those without the compiler")


def _fused_optimizer(device: torch.device) -> None:
    import torch

    after = []
    for fused in (True, False):
        layer, images = _layer(device, torch.contiguous_format)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=fused)
        _gradient(layer, images)
        optimizer.step()
        after.append(next(layer.parameters()).detach().cpu())
    if not torch.allclose(after[0], after[1], rtol=TOLERANCE, atol=TOLERANCE):
        raise RuntimeError("weights differ from those of the plain optimizer")
