"""May NVIDIA's GPUs be used here, and may the result be compared with another driver's? A table over what driver.py found.

    mode            kernel module           libcuda            run   compare
    NATIVE          new enough              the host's         yes   yes
    MINOR-COMPAT    older, same CUDA major  the host's         yes   yes, with the same mode on both sides
    FORWARD-COMPAT  any                     another package's  yes   no: the driver under test is not the one that runs
    UNVERIFIED      not to be seen (WSL)    works              yes   no
    CPU-ONLY        none, or hidden         none, or hidden    no    no
    TOO-OLD         older CUDA major        the host's         no    no
    OLD-GPU         new enough              the host's         no    no
    NOT-SUPPORTED   older                   refuses this GPU   no    no
    MISMATCH        of another version      the host's         no    no
    BROKEN          any                     does not start     no    no
    UNUSABLE        any                     any                no    no: torch was built without CUDA

Pure: facts in, verdict out. The message of a "no" comes with what to do.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.system.accelerator import Suitability
from harness.system.nvidia.driver import Driver, Libcuda
from harness.system.torch_build import TorchBuild

Mode = Literal[
    "NATIVE",
    "MINOR-COMPAT",
    "FORWARD-COMPAT",
    "UNVERIFIED",
    "CPU-ONLY",
    "TOO-OLD",
    "OLD-GPU",
    "NOT-SUPPORTED",
    "MISMATCH",
    "BROKEN",
    "UNUSABLE",
]

# cuInit's codes that rows of the table are about, and what fixes the others
SYSTEM_DRIVER_MISMATCH, COMPAT_NOT_SUPPORTED_ON_DEVICE = 803, 804
ASK_THE_HOST = "`nvidia-smi`, and `dmesg | grep -i -e nvrm -e xid` on the host, say more"
INIT_FIXES = {
    34: "a stub of libcuda, made for linking, was loaded: take its folder (.../stubs) out of LD_LIBRARY_PATH",
    46: "another process holds the GPU for itself, or it is being reset: `nvidia-smi -q -d COMPUTE` tells",
    100: "no device is visible: look at CUDA_VISIBLE_DEVICES, whether a job of Slurm's asked for GPUs (--gres=gpu:N), and "
    "where MIG is enabled, whether it has instances",
    101: "CUDA_VISIBLE_DEVICES names a device that is not there",
    802: "the GPUs of an NVSwitch machine wait for the fabric manager: `systemctl start nvidia-fabricmanager`, in the "
    "driver's own version",
    999: f"a container that lost its GPU after `systemctl daemon-reload` is started again; otherwise {ASK_THE_HOST}",
}


@dataclass(frozen=True)
class Manifest:
    """drivers.toml: what torch's CUDA needs, where it was seen to run, and what else there is for an older CUDA."""

    cuda: tuple[int, int]
    minimum_driver: str
    minimum_compute_capability: tuple[int, int]
    tested_drivers: tuple[str, ...]
    older: Manifest | None = None


def manifest(cuda: str | None = None) -> Manifest:
    """Read drivers.toml for the CUDA ("12.6") that torch was built for; the first that it names for None and one unknown."""
    raw = tomllib.loads(Path(__file__).with_name("drivers.toml").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, str]] = {each["version"].partition(".")[0]: each for each in raw["cuda"]}
    row = rows.get((cuda or "").partition(".")[0])
    if cuda is None or row is None:
        row = next(iter(rows.values()))
        cuda = row["version"]
    tested = tuple(each["driver"] for each in raw.get("tested", []))
    older = next((each["version"] for each in rows.values() if _pair(each["version"])[0] < _pair(cuda)[0]), None)
    return Manifest(
        *(_pair(cuda), row["minimum_driver"], _pair(row["minimum_compute_capability"]), tested),
        older=None if older is None else manifest(older),
    )


def decide(found: Driver, needs: Manifest, *, in_container: bool, torch: TorchBuild | None = None) -> Suitability:
    """The table, most telling row first; of a machine without torch, as if it had one that `needs` is of."""
    return (
        _mismatch(found, in_container)
        or _nothing_to_use(found, needs, in_container)
        or _other_build(found, torch)
        or _does_not_start(found, needs)
        or _too_old(found, needs, in_container)
        or _old_gpu(found, needs)
        or _works(found, needs)
    )


def _mismatch(found: Driver, in_container: bool) -> Suitability | None:
    # NVML alone may be another package's, and no program of ours needs it
    refused = found.nvml.mismatch and found.libcuda.init != 0
    if not refused and found.libcuda.init != SYSTEM_DRIVER_MISMATCH:
        return None
    library = found.libcuda.file_version or "another version"
    fix = "after a driver update, reboot the host, or unload and load its nvidia modules"
    if in_container:
        fix += "; a container that ran through the update is started again"
    if _is_compat(found.libcuda):
        fix += "; or take the compat folder out of LD_LIBRARY_PATH"
    return Suitability(
        "MISMATCH", f"the kernel module is {found.kernel_module or 'unknown'} and the driver's library {library}", fix
    )


def _nothing_to_use(found: Driver, needs: Manifest, in_container: bool) -> Suitability | None:
    """No driver, or one that is out of reach."""
    libcuda, module = found.libcuda, found.kernel_module
    if libcuda.init == 0 or (libcuda.error is None and found.control_node):
        return None
    if libcuda.error is not None and not libcuda.absent:
        return Suitability("BROKEN", libcuda.error, ASK_THE_HOST)
    if module is None:
        fix = f'install driver {needs.minimum_driver} or later, or choose a configuration with run.device = "cpu"'
        return Suitability("CPU-ONLY", "no NVIDIA driver is loaded", fix)
    if in_container:
        return Suitability(
            "CPU-ONLY",
            f"the host has NVIDIA driver {module}, but this container was given no GPU",
            "start it with --gpus all, or with --device nvidia.com/gpu=all where CDI is set up (both need the NVIDIA "
            "container toolkit on the host), a pod with a limit of nvidia.com/gpu; NVIDIA_DRIVER_CAPABILITIES must contain "
            '"compute"',
        )
    if libcuda.error is not None:
        message = f"kernel module {module} is loaded, and there is no libcuda.so.1"
        return Suitability("CPU-ONLY", message, f"install the driver's libraries of version {module}")
    message = f"kernel module {module} is loaded, and there is no /dev/nvidiactl"
    return Suitability("CPU-ONLY", message, "run `nvidia-smi` once as root: it makes the device nodes")


def _does_not_start(found: Driver, needs: Manifest) -> Suitability | None:
    libcuda = found.libcuda
    if libcuda.init == 0 or (_is_older_cuda(libcuda, needs) and libcuda.init != COMPAT_NOT_SUPPORTED_ON_DEVICE):
        return None  # of an old driver _too_old says why it does not start
    if libcuda.init == COMPAT_NOT_SUPPORTED_ON_DEVICE:
        return Suitability(
            "NOT-SUPPORTED",
            f"libcuda from {libcuda.path} is newer than driver {found.kernel_module}, which only data-centre GPUs allow",
            f"install driver {needs.minimum_driver} or later, and take the compat folder out of LD_LIBRARY_PATH",
        )
    return Suitability(
        "BROKEN",
        f"libcuda ({libcuda.path}) does not start: {libcuda.init_name} ({libcuda.init})",
        INIT_FIXES.get(libcuda.init or 0, ASK_THE_HOST),
    )


def _other_build(found: Driver, torch: TorchBuild | None) -> Suitability | None:
    if torch is None or torch.version is None or torch.cuda is not None or found.libcuda.hangs:
        return None
    there = ", ".join(dict.fromkeys(each.name for each in found.libcuda.devices)) or "NVIDIA's driver"
    return Suitability(
        "UNUSABLE",
        f"{there} is here, and this is {torch.text}, which cannot use it",
        'install a PyTorch for CUDA, or choose a configuration with run.device = "cpu"',
    )


def _too_old(found: Driver, needs: Manifest, in_container: bool) -> Suitability | None:
    module = found.kernel_module
    old_module = module is not None and _version(module) < _version(needs.minimum_driver)
    if not _is_older_cuda(found.libcuda, needs) and (not old_module or _is_foreign(found)):
        return None
    return Suitability(
        "TOO-OLD",
        f"driver {module or 'of unknown version'} is for CUDA {dotted(found.libcuda.cuda) or 'unknown'}, and CUDA "
        f"{_dot(needs.cuda)} needs {needs.minimum_driver} or later",
        f"install a newer driver on the host{'; no image can bring it' if in_container else ''}{_or_older(found, needs)}",
    )


def _old_gpu(found: Driver, needs: Manifest) -> Suitability | None:
    least = needs.minimum_compute_capability
    for device in found.libcuda.devices:
        if device.compute_capability < least:
            return Suitability(
                "OLD-GPU",
                f"{device.name} has compute capability {_dot(device.compute_capability)}, and these builds for CUDA "
                f"{_dot(needs.cuda)} have code from {_dot(least)} on",
                f"leave it out with CUDA_VISIBLE_DEVICES where there are newer ones{_or_older(found, needs)}",
            )
    return None


def _or_older(found: Driver, needs: Manifest) -> str:
    """The way out by an older CUDA, where that would run this driver and all of these GPUs."""
    older = needs.older
    if older is None or (found.kernel_module and _version(found.kernel_module) < _version(older.minimum_driver)):
        return ""
    if any(each.compute_capability < older.minimum_compute_capability for each in found.libcuda.devices):
        return ""
    major = older.cuda[0]
    return (
        f"; or take what is locked for CUDA {major}: bash requirements/set_up.sh requirements/cuda{major}.lock, or the image "
        f"of ACCELERATOR=cuda{major}"
    )


def _works(found: Driver, needs: Manifest) -> Suitability:
    libcuda, module = found.libcuda, found.kernel_module
    if module is None:
        message = f"libcuda ({libcuda.path}) works, and no kernel module is to be seen to compare it with"
        return Suitability("UNVERIFIED", message, runnable=True)
    if _is_foreign(found):
        return Suitability(
            "FORWARD-COMPAT",
            f"programs run on libcuda {libcuda.file_version or ''} from {libcuda.path}, not on the host's driver {module}",
            "to compare drivers, start without the compat package: out of LD_LIBRARY_PATH, or the container toolkit's "
            "cuda-compat-mode = disabled" + ("; after a driver update, reboot the host" if found.nvml.mismatch else ""),
            runnable=True,
        )
    has = f"driver {module}, for CUDA {dotted(libcuda.cuda)}"
    if libcuda.cuda is not None and libcuda.cuda < needs.cuda[0] * 1000 + needs.cuda[1] * 10:
        message = (
            f"{has}, runs CUDA {_dot(needs.cuda)} by minor-version compatibility, and cannot compile its newest PTX"
        )
        return Suitability("MINOR-COMPAT", message, runnable=True, comparable=True)
    return Suitability("NATIVE", f"{has}, runs CUDA {_dot(needs.cuda)}", runnable=True, comparable=True)


def _is_older_cuda(libcuda: Libcuda, needs: Manifest) -> bool:
    return libcuda.cuda is not None and libcuda.cuda // 1000 < needs.cuda[0]


def _is_foreign(found: Driver) -> bool:
    """Whether a libcuda that works is not the host driver's own."""
    version = found.libcuda.file_version
    return _is_compat(found.libcuda) or (version is not None and version != found.kernel_module)


def _is_compat(libcuda: Libcuda) -> bool:
    return "/compat/" in (libcuda.path or "")


def dotted(cuda: int | None) -> str | None:
    """CUDA's number as people write it: 13010 is 13.1."""
    return None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"


def _dot(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
