"""Every row of the decision table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.system.nvidia import decision
from harness.system.nvidia.decision import Manifest, Mode
from harness.system.nvidia.driver import Device, Driver, Libcuda
from harness.system.nvidia.nvml import Nvml
from harness.system.nvidia.vendor import Nvidia
from harness.system.torch_build import TorchBuild
from tests.harness.system.recorded import BARE, DRIVER, LIBCUDA, NO_LIBCUDA

NEEDS = Manifest((13, 0), "580.65.06", (7, 5), ())
NEWER = replace(NEEDS, cuda=(13, 2))  # an image of a later CUDA 13, as a later lock file may bring it
COMPAT = replace(LIBCUDA, path="/usr/local/cuda/compat/libcuda.so.580.65.06")
OLD = Libcuda(path="/usr/lib/x86_64-linux-gnu/libcuda.so.535.183.01", cuda=12020, init=0, init_name="CUDA_SUCCESS")


def refusing(code: int, name: str, libcuda: Libcuda = LIBCUDA) -> Libcuda:
    return replace(libcuda, init=code, init_name=name, devices=())


ROWS: dict[str, tuple[Driver, Manifest, bool, Mode, str]] = {
    # name: what was found, what is needed, in a container, the mode, a word of the message
    "newer module": (
        replace(DRIVER, kernel_module="590.44.01", libcuda=replace(LIBCUDA, path="/usr/lib/libcuda.so.590.44.01", cuda=13010)),
        *(NEEDS, True, "NATIVE", "590.44.01"),
    ),
    "exactly the minimum": (DRIVER, NEEDS, False, "NATIVE", "CUDA 13.0"),
    "library without its version in its name": (
        replace(DRIVER, libcuda=replace(LIBCUDA, path="/usr/lib/libcuda.so.1")),
        *(NEEDS, True, "NATIVE", "580.65.06"),
    ),
    "older module, same CUDA major": (DRIVER, NEWER, True, "MINOR-COMPAT", "minor-version"),
    "older module, the image's libcuda": (
        replace(DRIVER, kernel_module="535.183.01", libcuda=COMPAT),
        *(NEEDS, True, "FORWARD-COMPAT", "not on the host's driver 535.183.01"),
    ),
    "same module, the image's libcuda all the same": (
        replace(DRIVER, libcuda=COMPAT), NEEDS, True, "FORWARD-COMPAT", "/usr/local/cuda/compat",
    ),
    "libcuda of another version that works": (
        replace(DRIVER, kernel_module="550.54.15"), NEEDS, True, "FORWARD-COMPAT", "550.54.15",
    ),
    "older module, GeForce": (
        replace(
            DRIVER,
            kernel_module="535.183.01",
            libcuda=refusing(804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", COMPAT),
        ),
        *(NEEDS, True, "NOT-SUPPORTED", "only data-centre GPUs"),
    ),
    "module for an older CUDA": (
        replace(DRIVER, kernel_module="535.183.01", libcuda=OLD), NEEDS, True, "TOO-OLD", "580.65.06 or later",
    ),
    "module for an older CUDA that does not start": (
        replace(DRIVER, kernel_module="535.183.01", libcuda=refusing(3, "CUDA_ERROR_NOT_INITIALIZED", OLD)),
        *(NEEDS, False, "TOO-OLD", "CUDA 12.2"),
    ),
    "beta of the right CUDA": (
        replace(DRIVER, kernel_module="580.10.01", libcuda=replace(LIBCUDA, path="/usr/lib/libcuda.so.580.10.01")),
        *(NEEDS, False, "TOO-OLD", "580.10.01"),
    ),
    "NVML and libcuda of another version than the module": (
        replace(
            DRIVER,
            kernel_module="580.95.05",
            libcuda=refusing(804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
            nvml=Nvml(error="mismatch", mismatch=True),
        ),
        *(NEEDS, False, "MISMATCH", "580.95.05"),
    ),
    "NVML alone of another version than the module": (
        replace(DRIVER, nvml=Nvml(error="mismatch", mismatch=True)), NEEDS, False, "NATIVE", "580.65.06",
    ),
    "libcuda of another version than the module": (
        replace(DRIVER, kernel_module="580.95.05", libcuda=refusing(803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")),
        *(NEEDS, True, "MISMATCH", "580.95.05"),
    ),
    "no driver": (BARE, NEEDS, False, "CPU-ONLY", "no NVIDIA driver"),
    "container without a GPU": (
        replace(BARE, kernel_module="580.65.06"), NEEDS, True, "CPU-ONLY", "this container was given no GPU",
    ),
    "container without a GPU, of an image that was made with one": (
        replace(BARE, kernel_module="580.65.06", libcuda=Libcuda(error="libcuda.so.1: file too short")),
        *(NEEDS, True, "CPU-ONLY", "this container was given no GPU"),
    ),
    "container with libcuda and no device": (
        replace(DRIVER, control_node=False, libcuda=refusing(100, "CUDA_ERROR_NO_DEVICE")),
        *(NEEDS, True, "CPU-ONLY", "this container was given no GPU"),
    ),
    "module without its library": (
        replace(DRIVER, libcuda=NO_LIBCUDA), NEEDS, False, "CPU-ONLY", "no libcuda.so.1",
    ),
    "module without device nodes": (
        replace(DRIVER, control_node=False, libcuda=refusing(100, "CUDA_ERROR_NO_DEVICE")),
        *(NEEDS, False, "CPU-ONLY", "no /dev/nvidiactl"),
    ),
    "no device visible": (
        replace(DRIVER, libcuda=refusing(100, "CUDA_ERROR_NO_DEVICE")), NEEDS, False, "BROKEN", "CUDA_ERROR_NO_DEVICE",
    ),
    "fabric manager not running": (
        replace(DRIVER, libcuda=refusing(802, "CUDA_ERROR_SYSTEM_NOT_READY")), NEEDS, False, "BROKEN", "(802)",
    ),
    "an error without a row": (
        replace(DRIVER, libcuda=refusing(719, "CUDA_ERROR_LAUNCH_FAILED")), NEEDS, False, "BROKEN", "(719)",
    ),
    "libcuda that hangs": (
        replace(DRIVER, libcuda=Libcuda(error="libcuda did not answer within 60 s")), NEEDS, False, "BROKEN", "60 s",
    ),
    "GPU too old for this CUDA": (
        replace(DRIVER, libcuda=replace(LIBCUDA, devices=(Device("Tesla V100-SXM2-16GB", (7, 0)),))),
        *(NEEDS, False, "OLD-GPU", "compute capability 7.0"),
    ),
    "module not to be seen": (
        replace(DRIVER, kernel_module=None, control_node=False), NEEDS, False, "UNVERIFIED", "no kernel module",
    ),
}  # fmt: skip
RUN = {"NATIVE", "MINOR-COMPAT", "FORWARD-COMPAT", "UNVERIFIED"}
COMPARE = {"NATIVE", "MINOR-COMPAT"}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    found, needs, in_container, mode, word = ROWS[row]
    verdict = decision.decide(found, needs, in_container=in_container)

    assert verdict.mode == mode, verdict
    assert word in verdict.message
    assert (verdict.runnable, verdict.comparable) == (mode in RUN, mode in COMPARE)
    assert verdict.runnable or verdict.fix, "a refusal says what to do"


@pytest.mark.parametrize("build", [TorchBuild("2.14.1+cpu"), TorchBuild("2.14.1+xpu", xpu="20250301")])
def test_a_torch_without_cuda_runs_nothing_on_a_driver_that_works(build: TorchBuild) -> None:
    """NATIVE was said, and the run ended in torch's own words."""
    verdict = decision.decide(DRIVER, NEEDS, in_container=False, torch=build)

    assert (verdict.mode, verdict.runnable, verdict.comparable) == ("UNUSABLE", False, False)
    assert f"H100 80GB HBM3 is here, and this is {build.text}, which cannot use it" in verdict.message
    assert "PyTorch for CUDA" in verdict.fix
    assert decision.decide(BARE, NEEDS, in_container=False, torch=build).mode == "CPU-ONLY"
    assert Nvidia(DRIVER, torch=build).names == []
    assert Nvidia(DRIVER, torch=build).unusable == ["NVIDIA H100 80GB HBM3"]
    assert {each.level for each in Nvidia(DRIVER, torch=build).findings()} == {"ok", "warning"}


def test_every_mode_has_a_row() -> None:
    assert {mode for _, _, _, mode, _ in ROWS.values()} | {"UNUSABLE"} == set(decision.Mode.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "word"),
    [(34, "stub"), (100, "CUDA_VISIBLE_DEVICES"), (100, "--gres"), (802, "fabricmanager"), (999, "daemon-reload")],
)
def test_the_fix_belongs_to_the_error(code: int, word: str) -> None:
    found = replace(DRIVER, libcuda=refusing(code, "CUDA_ERROR"))

    assert word in decision.decide(found, NEEDS, in_container=False).fix


def test_a_driver_without_a_third_number_compares() -> None:
    """580.65 is before 580.65.06, and 581.1 after it."""
    for version, mode in (("580.65", "TOO-OLD"), ("581.1", "NATIVE")):
        libcuda = replace(LIBCUDA, path=f"/usr/lib/libcuda.so.{version}")
        found = replace(DRIVER, kernel_module=version, libcuda=libcuda)
        assert decision.decide(found, NEEDS, in_container=False).mode == mode


def test_the_manifest_can_be_read() -> None:
    needs = decision.manifest()

    assert needs.cuda == (13, 0)
    assert needs.minimum_driver.count(".") == 2
    assert decision.manifest("13.2") == replace(needs, cuda=(13, 2))
    assert decision.manifest("11.8") == needs


@pytest.mark.parametrize(
    ("module", "capability", "offered"),
    [
        ("535.183.01", (8, 0), True),
        ("470.256.02", (8, 0), False),
        ("580.65.06", (7, 0), True),
        ("580.65.06", (3, 7), False),
    ],
)
def test_an_older_cuda_is_offered_where_it_would_run(module: str, capability: tuple[int, int], offered: bool) -> None:
    """V100s were told to find a torch of their own, beside an image that is made for them."""
    cuda = {"580": 13000, "535": 12020, "470": 11040}[module[:3]]
    libcuda = Libcuda(path=f"/usr/lib/libcuda.so.{module}", cuda=cuda, init=0, devices=(Device("a GPU", capability),))
    verdict = decision.decide(
        replace(DRIVER, kernel_module=module, libcuda=libcuda), decision.manifest(), in_container=True
    )
    assert not verdict.runnable
    assert ("set_up.sh requirements/cuda12.lock, or the image of ACCELERATOR=cuda12" in verdict.fix) == offered


def test_volta_runs_under_a_torch_for_cuda_12() -> None:
    """On the driver that its last DGX software brings."""
    v100 = (Device("Tesla V100-SXM2-16GB", (7, 0)),)
    libcuda = replace(OLD, path="/usr/lib/libcuda.so.535.183.01", devices=v100)
    found = replace(DRIVER, kernel_module="535.183.01", libcuda=libcuda)

    assert decision.decide(found, decision.manifest("12.6"), in_container=True).mode == "MINOR-COMPAT"
    assert decision.decide(found, decision.manifest("13.0"), in_container=True).mode == "TOO-OLD"


def test_cuda_number_as_people_write_it() -> None:
    assert [decision.dotted(each) for each in (13000, 13010, 12090, None)] == ["13.0", "13.1", "12.9", None]
