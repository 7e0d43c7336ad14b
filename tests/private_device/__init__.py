"""A device for PyTorch that is neither "cpu" nor "cuda", for tests of what a vendor's own PyTorch extension brings.

abacus.cpp registers it as torch's PrivateUse1, by the way that torch_npu, torch_musa and others take; torch calls `register`
itself where `plugged_in`'s variables are set, through the entry point group torch.backends. Its memory is the host's and its
operators are the CPU's, so that a run on it must end as one on the CPU does. It has no DALI, no autocast, no compiler.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "abacus"
MODEL = "Abacus 13"
HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
BUILD = CHECKOUT / ".cache" / "private_device"  # compiled once, in about half a minute
CAN_BE_BUILT = shutil.which("g++") is not None and shutil.which("ninja") is not None


def make_build_folder() -> None:
    """For this user alone, whatever his umask: a cache in which a group can write is trusted by nobody."""
    for folder in (BUILD.parent, BUILD):
        folder.mkdir(mode=0o700, exist_ok=True)


def build() -> ModuleType:
    """The compiled extension; loading it registers the device's operators."""
    from torch.utils.cpp_extension import load

    make_build_folder()
    source = str(HERE / "abacus.cpp")
    built: ModuleType = load("abacus_device", [source], build_directory=str(BUILD), extra_cflags=["-O0"])
    return built


def register() -> None:
    """Give torch the device: torch.device("abacus:0"), its operators, and the module torch.abacus."""
    compiled = build()
    _name(compiled.device_count, compiled.current_device, compiled.set_device)


def register_name() -> None:
    """The same without operators, for what only asks what there is; nothing is compiled."""
    current = [0]

    def set_device(index: int) -> None:
        current[0] = index

    _name(lambda: 2, lambda: current[0], set_device)


def _name(device_count: Any, current_device: Any, set_device: Any) -> None:
    import torch

    torch.utils.rename_privateuse1_backend(NAME)
    module: Any = ModuleType(f"torch.{NAME}")
    module.device_count, module.current_device, module.set_device = device_count, current_device, set_device
    module.is_available = lambda: True
    module._is_in_bad_fork = lambda: False
    module.synchronize = lambda device=None: None
    module.manual_seed_all = lambda seed: None
    module.get_device_name = lambda device=None: MODEL
    module.get_amp_supported_dtype = lambda: []
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()


def plugged_in(folder: Path, register: str = "register", vendors: Path | None = None) -> dict[str, str]:
    """Environment variables with which every `import torch` of a process calls `register`; fills `folder`.

    `vendors`: a folder whose packages stand beside those of harness/system, as if they lay in it.
    """
    info = folder / "abacus_device-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus-device\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[torch.backends]\n{NAME} = {__name__}:{register}\n")
    if vendors is not None:  # Python runs this file at its start
        more = f"import harness.system\nharness.system.__path__.append({str(vendors)!r})\n"
        (folder / "sitecustomize.py").write_text(more)
    paths = [str(folder), str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(each for each in paths if each)}
