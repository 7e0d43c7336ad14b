"""What doctor says of NVIDIA's driver and GPUs. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from harness.system.accelerator import Finding, Level, Suitability
from harness.system.nvidia import decision, gpu_state
from harness.system.nvidia.decision import Manifest
from harness.system.nvidia.driver import Driver


def examine(found: Driver, verdict: Suitability, needs: Manifest, requirement_bypassed: bool) -> Iterator[Finding]:
    """In the order in which a reader fixes them."""
    yield from _driver(found, verdict, needs, requirement_bypassed)
    for state in gpu_state.examine(found.nvml.gpus):
        yield Finding(*state)
    if found.kernel_module is not None and found.nvml.error is not None:
        fix = 'in a container, NVIDIA_DRIVER_CAPABILITIES must contain "utility"'
        yield Finding("warning", "nvml", f"no clocks, ECC or power: {found.nvml.error}", fix)


def _driver(found: Driver, verdict: Suitability, needs: Manifest, requirement_bypassed: bool) -> Iterator[Finding]:
    without = verdict.mode == "CPU-ONLY"  # out of reach or not installed: the machine may be meant for its processor
    level: Level = "ok" if verdict.comparable else "warning" if verdict.runnable or without else "problem"
    yield Finding(level, "driver", f"{verdict.mode}: {verdict.message}", "" if level == "ok" else verdict.fix)
    if requirement_bypassed:
        fix = "take it out for a result that counts"
        yield Finding(
            "warning", "driver", "NVIDIA_DISABLE_REQUIRE is set: the image's own requirement was not asked", fix
        )
    if verdict.runnable and found.kernel_module and found.kernel_module not in needs.tested_drivers:
        tested = ", ".join(needs.tested_drivers) or "none so far"
        fix = "compare a result with a published one before you trust it"
        yield Finding("warning", "driver", f"{found.kernel_module} is not among the tested drivers ({tested})", fix)
    libcuda = found.libcuda
    if libcuda.path:
        text = f"{libcuda.path}, CUDA {decision.dotted(libcuda.cuda)}, cuInit {libcuda.init_name}"
        yield Finding("ok" if libcuda.init == 0 else level, "libcuda", text)
    elif not without:
        yield Finding(level, "libcuda", libcuda.error or "not loaded")
    if verdict.runnable:
        names = [each.name for each in libcuda.devices]
        counted = ", ".join(f"{names.count(each)} x {each}" for each in dict.fromkeys(names)) or "none that CUDA sees"
        yield Finding("ok" if names else "problem", "accelerators", counted)
    else:
        yield Finding("ok" if without else level, "accelerators", "none to be used: CPU only")
