"""What produced a result, for its log: the code's commit, the versions of what it rests on, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

from harness.config import ROOT
from harness.contract import Plain

# Distributions whose versions a result may depend on; those not installed are left out
LIBRARIES = (
    "torchvision",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "mlperf-logging",
    "numpy",
    "pycocotools",
    "hotcoco",
)


def commit() -> tuple[str, bool]:
    """The checkout's commit and whether the tree differs from it; ("unknown", True) where git cannot say."""
    try:
        head = _git("rev-parse", "HEAD")
        return head, bool(_git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def software() -> dict[str, Plain]:
    """Versions by name; "none" where the library is not in use here."""
    import torch

    cuda = torch.cuda.is_available()
    nccl = ".".join(str(part) for part in torch.cuda.nccl.version()) if cuda else "none"
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": str(torch.backends.cudnn.version() or "none"),
        "nccl": nccl,
        "kernel": platform.release(),
    }
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Plain]:
    """The host's processor and the accelerators that torch sees."""
    import torch

    names: list[Plain] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)),
        "accelerators": names,
    }
