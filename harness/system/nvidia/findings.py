"""What doctor says of NVIDIA's driver and GPUs. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from harness.system.accelerator import Finding, Level, Suitability
from harness.system.nvidia import decision, gpu_state
from harness.system.nvidia.decision import Manifest
from harness.system.nvidia.driver import Driver


def examine(
    found: Driver, verdict: Suitability, needs: Manifest, requirement_bypassed: bool, visible: str | None = None
) -> Iterator[Finding]:
    """In the order in which a reader fixes them. `visible`: what CUDA_VISIBLE_DEVICES says, where it is set."""
    yield from _driver(found, verdict, needs, requirement_bypassed)
    yield _accelerators(found, verdict, visible)
    for state in gpu_state.examine(found.nvml.gpus):
        yield Finding(*state)
    if found.kernel_module is not None and found.nvml.error is not None and not found.libcuda.hangs:
        if found.nvml.hangs:
            fix = (
                "`dmesg | grep -i xid` on the host; nvidia-smi will hang there too, and a reboot is the usual way back"
            )
        elif found.nvml.mismatch:
            fix = "after a driver update reboot the host; else another version's libnvidia-ml.so is found first"
        else:
            fix = 'in a container, NVIDIA_DRIVER_CAPABILITIES must contain "utility"'
        yield Finding("warning", "nvml", f"no clocks, ECC or power: {found.nvml.error}", fix)


def _driver(found: Driver, verdict: Suitability, needs: Manifest, requirement_bypassed: bool) -> Iterator[Finding]:
    without = _without(verdict)
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


def _accelerators(found: Driver, verdict: Suitability, visible: str | None) -> Finding:
    if not verdict.runnable:
        return Finding("ok" if _without(verdict) else "problem", "accelerators", "none to be used: CPU only")
    names = [each.name for each in found.libcuda.devices]
    counted = ", ".join(f"{names.count(each)} x {each}" for each in dict.fromkeys(names))
    if not names:
        return Finding("problem", "accelerators", "none that CUDA sees")
    answering = [gpu for gpu in found.nvml.gpus if "handle" not in gpu.unavailable]  # a lost one has a line of its own
    hidden = len(answering) - len(names)
    if hidden <= 0 or any(gpu.mig for gpu in found.nvml.gpus):  # of parts CUDA counts otherwise than NVML
        return Finding("ok", "accelerators", counted)
    if visible is not None:
        return Finding("ok", "accelerators", f"{counted}; CUDA_VISIBLE_DEVICES={visible} hides {hidden} more")
    fix = f"{decision.ASK_THE_HOST}; or the container was given fewer than its NVML lists"
    return Finding("warning", "accelerators", f"{counted}; CUDA does not see {hidden} more that NVML lists", fix)


def _without(verdict: Suitability) -> bool:
    """Out of reach, not installed, or of no use to this torch: the machine may be meant for its processor."""
    return verdict.mode in ("CPU-ONLY", "UNUSABLE")
