"""The kernel module's text, and the probes on a stand-in libcuda and NVML that are really loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.system.nvidia import driver, libcuda_probe, nvml
from harness.system.nvidia.driver import Device, Libcuda
from tests.harness.system import recorded

OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22-I3-AE18)  Sun
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
PROPRIETARY = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
STAND_IN = """
#include <string.h>
#include <unistd.h>
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuInit(unsigned flags) { WHAT_INIT_DOES; }
int cuGetErrorName(int code, const char **name) { *name = code ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_SUCCESS"; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device ? "second" : "first", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
"""
STAND_IN_NVML = """
#include <string.h>
#include <unistd.h>
int nvmlInitWithFlags(unsigned flags) { WHAT_INIT_DOES; }
int nvmlShutdown() { return 0; }
const char *nvmlErrorString(int code) { return "a word of its own"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &nvmlInitWithFlags; return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) { strncpy(text, "first", length); return 0; }
"""


@pytest.mark.parametrize(
    ("text", "found"), [(OPEN, ("580.65.06", "open")), (PROPRIETARY, ("535.183.01", "proprietary"))]
)
def test_kernel_module(tmp_path: Path, text: str, found: tuple[str, str]) -> None:
    file = tmp_path / "proc/driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(text)

    assert driver.kernel_module(tmp_path) == found


def test_no_kernel_module(tmp_path: Path) -> None:
    assert driver.kernel_module(tmp_path) == (None, None)


def test_library_path_from_the_memory_map() -> None:
    maps = (
        "7f0c1c000000-7f0c1c021000 rw-p 00000000 00:00 0\n"
        "7f0c24a00000-7f0c2a400000 r-xp 00200000 00:1f 1311 /usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06\n"
        "7f0c2b000000-7f0c2b100000 r--p 00000000 00:1f 1312 /usr/lib/x86_64-linux-gnu/libcudart.so.13\n"
    )

    assert libcuda_probe.loaded_from(maps) == "/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06"
    elsewhere = maps.replace("/usr/lib/x86_64-linux-gnu/", "/home/a b/")
    assert libcuda_probe.loaded_from(elsewhere) == "/home/a b/libcuda.so.580.65.06"
    assert libcuda_probe.loaded_from(maps.replace("libcuda.so.", "libother.so.")) is None


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06", "580.65.06"),
        ("/usr/lib/libcuda.so.590.44", "590.44"),
        ("/usr/lib/libcuda.so.1", None),
        ("/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1.1", None),
        (None, None),
    ],
)
def test_file_version(path: str | None, version: str | None) -> None:
    assert Libcuda(path=path).file_version == version


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the loader looks into, for `compiled` and `compiled_nvml`."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile a stand-in library with")
    folder = tmp_path / "cuda/compat"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return folder


def compiled(folder: Path, init: str) -> Path:
    """The stand-in as the loader wants it: a versioned file and a link to it."""
    source, library = folder / "cuda.c", folder / "libcuda.so.590.44.01"
    source.write_text(STAND_IN.replace("WHAT_INIT_DOES", init))
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", library, source], check=True)
    (folder / "libcuda.so.1").symlink_to(library.name)
    return library


def test_probe_says_what_was_loaded_and_from_where(stand_in: Path) -> None:
    library = compiled(stand_in, "return 0")
    found = driver.read_libcuda()

    devices = (Device("first", (9, 0)), Device("second", (9, 0)))
    assert found == Libcuda(None, str(library), 13010, 0, "CUDA_SUCCESS", devices)
    assert found.file_version == "590.44.01"


def test_probe_of_a_driver_that_does_not_start(stand_in: Path) -> None:
    compiled(stand_in, "return 802")
    found = driver.read_libcuda()

    assert (found.init, found.init_name, found.devices) == (802, "CUDA_ERROR_SYSTEM_NOT_READY", ())


def test_probe_of_a_driver_that_crashes(stand_in: Path) -> None:
    compiled(stand_in, "int *nowhere = 0; return *nowhere")
    found = driver.read_libcuda()

    assert found.error is not None
    assert "ended with -11" in found.error


def test_probe_of_a_driver_that_hangs(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(stand_in, "sleep(60); return 0")
    monkeypatch.setattr(driver, "PROBE_SECONDS", 1)
    monkeypatch.setattr(driver, "read_nvml", lambda: pytest.fail("NVML was asked, for another minute"))
    found = driver.read()

    assert found.libcuda == Libcuda(error="libcuda did not answer within 1 s", hangs=True)
    assert found.nvml.error == "not asked, since the driver hangs"


def test_probe_without_a_driver() -> None:
    found = driver.read_libcuda()
    if found.error is None:
        pytest.skip("this machine has a libcuda")

    assert "libcuda.so.1" in found.error


def compiled_nvml(folder: Path, init: str) -> None:
    source = folder / "nvml.c"
    source.write_text(STAND_IN_NVML.replace("WHAT_INIT_DOES", init))
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)


def test_nvml_is_asked_by_another_process(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the files beside the script have the names of what Python's own library imports."""
    compiled_nvml(stand_in, "return 0")
    monkeypatch.chdir(stand_in)
    (stand_in / "json.py").write_text("raise SystemExit('imported')\n")
    found = driver.read_nvml()

    assert (found.driver, found.error, found.hangs) == ("580.65.06", None, False)
    [gpu] = found.gpus
    assert gpu.name == "first" and gpu.uuid is None and gpu.unavailable["uuid"] == "Function Not Found"


def test_nvml_that_does_not_start(stand_in: Path) -> None:
    compiled_nvml(stand_in, "return 18")
    found = driver.read_nvml()

    assert found.mismatch and not found.hangs and found.gpus == ()


def test_nvml_that_crashes(stand_in: Path) -> None:
    """doctor died with it."""
    compiled_nvml(stand_in, "int *nowhere = 0; return *nowhere")
    found = driver.read_nvml()

    assert found.error == "the process that asked it ended with -11: no message" and not found.hangs


def test_nvml_that_hangs(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """doctor hung with it."""
    compiled_nvml(stand_in, "sleep(60); return 0")
    monkeypatch.setattr(driver, "PROBE_SECONDS", 1)
    found = driver.read_nvml()

    assert found.error == "it did not answer within 1 s" and found.hangs


@pytest.mark.parametrize(
    "gpus",
    [(recorded.H100, recorded.H100), (recorded.GEFORCE,), ({"lost": True}, recorded.H100), ()],
    ids=["two H100", "GeForce", "a lost one", "none"],
)
def test_what_the_process_prints_is_what_nvml_said(gpus: tuple[dict[str, object], ...]) -> None:
    said = nvml.ask(recorded.Recorded(*gpus))
    assert nvml.parse(json.loads(json.dumps(asdict(said)))) == said
