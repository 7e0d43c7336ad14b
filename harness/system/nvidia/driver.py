"""The GPU driver as a program meets it: the kernel module, the libcuda that is really loaded, NVML.

A driver is two halves, one in the host's kernel and one (libcuda) in the file system that the program sees. In a container
these can come from different places, so each is asked on its own and nothing is concluded here: that is decision.py.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.system import asked
from harness.system.nvidia import libcuda_probe, nvml
from harness.system.nvidia.nvml import Nvml

PROBE_SECONDS = 60  # cuInit of eight GPUs without persistence takes some 20 s


@dataclass(frozen=True)
class Device:
    """A device that CUDA programs may use: a GPU, or a MIG instance of one."""

    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Libcuda:
    """What loading libcuda and cuInit answered. `error` is set when it could not even be loaded."""

    error: str | None = None
    path: str | None = None
    cuda: int | None = None  # cuDriverGetVersion: 13000 for 13.0
    init: int | None = None  # cuInit's code; 0 is success
    init_name: str | None = None
    devices: tuple[Device, ...] = ()
    hangs: bool = False

    @property
    def absent(self) -> bool:
        """Whether there is no libcuda at all, as where no driver was ever installed.

        Or an empty file, onto which NVIDIA's runtime has mounted it: in an image of a container that had a GPU.
        """
        return any(each in (self.error or "") for each in ("cannot open shared object file", "file too short"))

    @property
    def file_version(self) -> str | None:
        """The user-mode driver's version, by its file name: libcuda.so.580.65.06."""
        match = re.search(r"libcuda\.so\.(\d{3,}(?:\.\d+)+)$", self.path or "")
        return match[1] if match else None


@dataclass(frozen=True)
class Driver:
    """All that decides whether CUDA programs run here."""

    kernel_module: str | None = None  # version of the loaded module
    kernel_flavour: str | None = None  # "open" or "proprietary"
    control_node: bool = False  # /dev/nvidiactl: a container has it only when it was given a GPU
    libcuda: Libcuda = field(default_factory=Libcuda)
    nvml: Nvml = field(default_factory=Nvml)


def read(root: Path = Path("/")) -> Driver:
    """Ask the kernel, libcuda and NVML. `root` is for tests."""
    version, flavour = kernel_module(root)
    libcuda = read_libcuda()
    told = Nvml(error="not asked, since the driver hangs") if libcuda.hangs else read_nvml()
    return Driver(version, flavour, (root / "dev/nvidiactl").exists(), libcuda, told)


def kernel_module(root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Version and flavour of the loaded module. /proc shows it in containers too, GPU or not."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, None
    match = re.search(r"NVRM version:.*?Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return (match[1] if match else None), ("open" if "Open Kernel Module" in text else "proprietary")


def read_libcuda() -> Libcuda:
    """Run the probe. A probe that hangs or dies is an answer too."""
    command = [sys.executable, "-I", "-S", libcuda_probe.__file__]
    try:
        return parse_probe(
            asked.answer(command, PROBE_SECONDS, late="libcuda did not answer", dead="the process that loaded libcuda")
        )
    except asked.NoAnswer as why:
        return Libcuda(error=str(why), hangs=isinstance(why, asked.Late))


def parse_probe(answer: dict[str, Any]) -> Libcuda:
    """The probe's JSON as a record."""
    if answer["error"] is not None:
        return Libcuda(error=answer["error"])
    devices = tuple(Device(each["name"], tuple(each["compute_capability"])) for each in answer["devices"])
    return Libcuda(None, answer["path"], answer["version"], answer["init"], answer["init_name"], devices)


def read_nvml() -> Nvml:
    """Run NVML's, likewise."""
    command = [sys.executable, "-P", nvml.__file__]  # without the names of the files beside it
    try:
        return nvml.parse(
            asked.answer(command, PROBE_SECONDS, late="it did not answer", dead="the process that asked it")
        )
    except asked.NoAnswer as why:
        return Nvml(error=str(why), hangs=isinstance(why, asked.Late))
