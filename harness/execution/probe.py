"""`harness probe`: small things measured alone, which explain a difference between two drivers or images and never gate one.

A run says that it is slower, and in which phase; a probe says whether a launch, a copy, a product of matrices or a decoder
is. What it measures is no run: caches are warm, and nothing else uses the device. The benchmark's own part (its step on
synthetic input, its decoder) is what it offers as `probe`, see harness.contract.Probed.
"""

from __future__ import annotations

import math
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness.config import Configuration
from harness.contract import Figure, SecondsOf
from harness.execution import all_reduce, context, description, provenance
from harness.system import accelerator
from harness.system.facts import Machine

if TYPE_CHECKING:
    import torch

VERSION = 1  # of the file's shape
FIGURES = 14  # that the time is dealt out among; most need less than their share
SAMPLES = 50  # of a figure, where its share of the time allows
FEWEST = 3
SAMPLE_S = 0.02  # that a sample lasts at least, by as many calls as it takes: a hundred times what synchronising costs
COPY_BYTES = 64 << 20
ACCELERATOR_SIDE, CPU_SIDE = 4096, 512  # of the square matrices that are multiplied


@dataclass
class Probe:
    """What was measured on one machine; `samples` of every figure are kept."""

    device: str  # torch's
    machine: Machine
    configuration: Configuration | None
    figures: list[Figure] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # figure: why this device does not give it
    uuids: list[str] = field(default_factory=list)  # of the devices that a run would use, as their driver spells them
    seconds: float = 0.0  # that it took in all, what comes before measuring included


class Stopwatch:
    """Measures calls, each figure within its share of the time."""

    def __init__(self, synchronise: Callable[[], None], seconds: float) -> None:
        self._synchronise = synchronise
        self._share = seconds / FIGURES

    def __call__(self, action: Callable[[], object]) -> list[float]:
        """Seconds of one call, a figure a sample. See harness.contract.SecondsOf."""
        for _ in range(2):  # caches, kernels that are chosen or loaded at first use
            action()
        calls = 1
        while (took := self._sample(action, calls)) * calls < SAMPLE_S:
            calls = max(calls + 1, min(10 * calls, math.ceil(SAMPLE_S / took) if took > 0 else 10 * calls))
        end = time.perf_counter() + self._share
        samples: list[float] = []
        while len(samples) < FEWEST or (len(samples) < SAMPLES and time.perf_counter() < end):
            samples.append(self._sample(action, calls))
        return samples

    def _sample(self, action: Callable[[], object], calls: int) -> float:
        self._synchronise()
        begun = time.perf_counter()
        for _ in range(calls):
            action()
        self._synchronise()
        return (time.perf_counter() - begun) / calls


def measure(
    configuration: Configuration | None,
    kind: str,
    seconds: float,
    machine: Machine,
    say: Callable[[str], None] = lambda _: None,
) -> Probe:
    """All figures that the device gives; `kind` as run.device. NotSuitable where it is not there.

    `seconds` bounds what is measured; before that a benchmark's session is opened and warmed up, and ranks are started.
    """
    begun = time.perf_counter()
    here = context.alone(kind)
    import torch

    where = torch.device(here.device)
    found = Probe(here.device, machine, configuration)
    own: Iterator[Figure] = iter(())
    seconds_of = Stopwatch(_synchroniser(where), seconds)
    if configuration is not None:
        offered = getattr(configuration.benchmark, "probe", None)
        if offered is None:
            found.left_out[configuration.benchmark.name] = "the benchmark offers no probe"
        else:  # asked now, so that what it refuses is refused before anything is measured
            own = offered(configuration.tables, here, seconds_of)
    for name, figure in machine_figures(where, seconds_of).items():
        say(name)
        _add(found, name, figure)
    ranks = _ranks(configuration, where)
    told = [context.uuid_of(f"{where.type}:{each}") for each in range(max(ranks, 1))]
    found.uuids = description.device_uuids(machine.chosen.details(), told)
    if ranks > 1:
        say("all_reduce")
        try:
            found.figures += all_reduce.figures(where.type, ranks)
        except RuntimeError as error:
            found.left_out["all_reduce"] = str(error).splitlines()[0][:200]
    else:
        found.left_out["all_reduce"] = "one device"
    say("what the benchmark offers")
    found.figures += own
    found.seconds = time.perf_counter() - begun
    return found


def machine_figures(device: torch.device, seconds_of: SecondsOf) -> dict[str, Callable[[], Figure]]:
    """What any device of torch's can be asked, each when it is called: launches, copies, products of matrices."""
    on_cpu = device.type == accelerator.CPU
    found: dict[str, Callable[[], Figure]] = {
        "launch": lambda: _launch(device, seconds_of),
        "launch_and_wait": lambda: _launch(device, seconds_of, wait=True),
    }
    if on_cpu:
        del found["launch_and_wait"]  # it is the same there
    else:
        found["copy_host_to_device"] = lambda: _copy("copy_host_to_device", None, device, seconds_of)
        found["copy_device_to_host"] = lambda: _copy("copy_device_to_host", device, None, seconds_of)
    found["copy_on_device"] = lambda: _copy("copy_on_device", device, device, seconds_of)
    found["matmul_bf16"] = lambda: _matmul("matmul_bf16", device, seconds_of)
    found["matmul_fp32"] = lambda: _matmul("matmul_fp32", device, seconds_of)
    if _has_tf32(device):
        found["matmul_tf32"] = lambda: _matmul("matmul_tf32", device, seconds_of)
    return found


def _add(found: Probe, name: str, figure: Callable[[], Figure]) -> None:
    try:
        found.figures.append(figure())
    except (RuntimeError, NotImplementedError) as error:  # of torch: a format or a copy that this device does not have
        found.left_out[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _synchroniser(device: torch.device) -> Callable[[], None]:
    import torch

    if device.type == accelerator.CPU:
        return lambda: None
    module = torch.get_device_module(device)
    return lambda: module.synchronize(device)


def _launch(device: torch.device, seconds_of: SecondsOf, *, wait: bool = False) -> Figure:
    """Microseconds of a kernel that has nothing to do: one after another, or each waited for."""
    import torch

    one, synchronise = torch.zeros(1, device=device), _synchroniser(device)

    def launch() -> None:
        one.add_(1)
        if wait:
            synchronise()

    name = "launch_and_wait" if wait else "launch"
    return Figure(name, "us", [1e6 * each for each in seconds_of(launch)], "one number")


def _copy(name: str, source: torch.device | None, target: torch.device | None, seconds_of: SecondsOf) -> Figure:
    """GB/s of the bytes copied; None is the host's memory, pinned."""
    import torch

    def buffer(device: torch.device | None) -> torch.Tensor:
        made = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
        return made.pin_memory() if device is None else made

    origin, copy = buffer(source), buffer(target)
    seconds = seconds_of(lambda: copy.copy_(origin, non_blocking=True))
    return Figure(name, "GB/s", [COPY_BYTES / each / 1e9 for each in seconds], f"{COPY_BYTES >> 20} MiB")


def _matmul(name: str, device: torch.device, seconds_of: SecondsOf) -> Figure:
    """TFLOP/s of a product of two square matrices; their contents are random, since zeros draw less power."""
    import torch

    side = CPU_SIDE if device.type == accelerator.CPU else ACCELERATOR_SIDE
    dtype = torch.bfloat16 if name == "matmul_bf16" else torch.float32
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "matmul_tf32" else "highest")
    try:
        seconds = seconds_of(lambda: torch.matmul(a, b, out=out))
    finally:
        torch.set_float32_matmul_precision(before)
    return Figure(name, "TFLOP/s", [2 * side**3 / each / 1e12 for each in seconds], f"{side} x {side}")


def _has_tf32(device: torch.device) -> bool:
    import torch

    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _ranks(configuration: Configuration | None, device: torch.device) -> int:
    """How many devices of this machine a run has, or could have where no configuration says; no more than there are."""
    import torch

    if device.type == accelerator.CPU:  # any number of ranks share it
        return configuration.run.accelerators_per_node if configuration is not None else 1
    there = int(torch.get_device_module(device).device_count())
    return there if configuration is None else min(there, configuration.run.accelerators_per_node)


# --- what is left of it ------------------------------------------------------------------------------------------------


def document(found: Probe) -> dict[str, Any]:
    """All of it, for the file and for --json: the machine as a run's log tells it, every figure with every sample."""
    configuration = found.configuration
    return {
        "version": VERSION,
        "note": "a probe explains; no verdict rests on it",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(found.seconds, 3),
        "device": found.device,
        "device_uuids": found.uuids,
        "configuration_name": configuration.name if configuration is not None else None,
        "configuration_sha256": configuration.sha256 if configuration is not None else None,
        **provenance.surroundings(found.machine),
        "figures": [
            {
                "name": each.name,
                "unit": each.unit,
                "what": each.what,
                "n": len(each.samples),
                "median": statistics.median(each.samples),
                "quartiles": list(quartiles(each)),
                "samples": list(each.samples),
            }
            for each in found.figures
        ],
        "left_out": dict(found.left_out),
    }


def quartiles(figure: Figure) -> tuple[float, float]:
    if len(figure.samples) < 2:
        return figure.samples[0], figure.samples[0]
    low, _, high = statistics.quantiles(figure.samples, n=4, method="inclusive")
    return low, high


def lines(found: Probe) -> Iterator[str]:
    """For a terminal of 80 columns."""
    yield f"{'figure':20}{'median':>10} {'unit':9}{'spread':>7} {'n':>3}  of"
    for each in found.figures:
        low, high = quartiles(each)
        median = statistics.median(each.samples)
        spread = f"{100 * (high - low) / median:.1f} %" if median else "-"
        told = f"{median:,.0f}" if 9_999.5 <= median < 999_999.5 else f"{median:,.4g}"  # 12,345 images/s, not 1.234e+04
        yield f"{each.name[:20]:20}{told:>10} {each.unit[:9]:9}{spread:>7} {len(each.samples):>3}  {each.what[:27]}"
    for name, reason in found.left_out.items():
        yield from textwrap.wrap(f"not measured: {name}: {reason}", 80, subsequent_indent="    ")
