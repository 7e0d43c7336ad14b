"""Loads libcuda as a program would and prints, as one line of JSON, what answered. Run as a script, by driver.py.

In a process of its own because cuInit makes a process unfit to fork, a broken driver can hang or crash it, and a driver
that is loaded stays loaded. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


def probe() -> dict[str, Any]:
    """Keys: error (of loading), path, version (13000 for 13.0), init (cuInit's code), init_name, devices."""
    try:
        libcuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": str(error)}
    found: dict[str, Any] = {"error": None, "path": loaded_from(), "version": None, "devices": []}
    version = ctypes.c_int()
    if libcuda.cuDriverGetVersion(ctypes.byref(version)) == 0:
        found["version"] = version.value
    found["init"] = libcuda.cuInit(0)
    found["init_name"] = _error_name(libcuda, found["init"])
    if found["init"] == 0:
        count = ctypes.c_int()
        libcuda.cuDeviceGetCount(ctypes.byref(count))
        found["devices"] = [_device(libcuda, index) for index in range(count.value)]
    return found


def loaded_from(maps: str | None = None) -> str | None:
    """The file that this process has mapped as libcuda, symbolic links resolved by the kernel."""
    text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace") if maps is None else maps
    match = re.search(r"^(?:\S+ +){5}(/.*/libcuda\.so\S*)", text, re.MULTILINE)
    return match[1] if match else None


def _error_name(libcuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    libcuda.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else f"CUDA error {code}"


def _device(libcuda: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    libcuda.cuDeviceGet(ctypes.byref(device), index)
    libcuda.cuDeviceGetName(name, len(name), device)
    libcuda.cuDeviceGetAttribute(ctypes.byref(major), COMPUTE_CAPABILITY_MAJOR, device)
    libcuda.cuDeviceGetAttribute(ctypes.byref(minor), COMPUTE_CAPABILITY_MINOR, device)
    return {"name": name.value.decode(errors="replace"), "compute_capability": [major.value, minor.value]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
