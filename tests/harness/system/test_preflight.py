"""The check before a run, and what a log says of the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract import NotSuitable
from harness.system import facts, image, preflight
from harness.system.accelerator import Surroundings
from harness.system.nvidia import driver, nvml
from harness.system.nvidia.driver import Device, Driver
from harness.system.nvidia.nvml import Nvml
from harness.system.nvidia.vendor import VENDOR
from tests.harness.system.recorded import BARE, DRIVER, GEFORCE, H100, LIBCUDA, Recorded, machine


def found(monkeypatch: pytest.MonkeyPatch, here: Driver) -> None:
    monkeypatch.setattr(driver, "read", lambda root: here)


def test_enough_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, DRIVER)
    preflight.check("cuda", 1)


def test_processes_that_no_processor_is_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "cpu_count", lambda: 2)
    assert preflight.check("cpu", 32) is None
    with pytest.raises(NotSuitable, match=r"run\.accelerators_per_node = 33 is so many processes .* has 2 processors"):
        preflight.check("cpu", 33)


def test_more_than_there_are_names_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, replace(DRIVER, libcuda=replace(LIBCUDA, devices=LIBCUDA.devices * 2)))

    with pytest.raises(NotSuitable, match=r"asks for 8 accelerators.* see 2 \(NVIDIA H100 80GB HBM3\)"):
        preflight.check("cuda", 8)


def test_a_cpu_run_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "read", lambda root: pytest.fail("the driver was asked"))
    preflight.check("cpu", 4)


@pytest.mark.parametrize(
    "here", [BARE, replace(DRIVER, libcuda=replace(LIBCUDA, init=803, devices=()), nvml=Nvml(mismatch=True))]
)
def test_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, here: Driver) -> None:
    found(monkeypatch, here)

    with pytest.raises(NotSuitable, match=r"(?s)(see no such accelerator.*none but the|kernel module.*reboot.*doctor)"):
        preflight.check("cuda", 1)


def test_log_of_a_gpu_machine_can_be_written_as_plain_values() -> None:
    gpus = nvml.ask(Recorded(H100, GEFORCE)).gpus
    devices = (Device("NVIDIA H100 80GB HBM3", (9, 0)), Device("NVIDIA GeForce RTX 4090", (8, 9)))
    here = replace(DRIVER, nvml=Nvml("580.65.06", 13000, gpus), libcuda=replace(LIBCUDA, devices=devices))
    described = facts.describe(machine(here))

    assert json.loads(json.dumps(described, allow_nan=False)) == json.loads(json.dumps(described))
    assert "null" not in json.dumps(described)
    assert described["hardware"]["accelerators"] == ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"]
    assert described["hardware"]["gpus"][1]["unavailable"]["ecc"] == "Not Supported"  # type: ignore[index, call-overload]
    software = described["software"]
    assert (software["driver"], software["driver_mode"], software["driver_flavour"]) == ("580.65.06", "NATIVE", "open")
    assert (software["libcuda"], software["libcuda_cuda"]) == (LIBCUDA.path, "13.0")


def test_log_of_a_machine_without_gpus() -> None:
    described = facts.describe(machine(BARE))

    assert (described["hardware"]["accelerators"], described["hardware"]["gpus"]) == ([], [])
    assert (described["software"]["driver"], described["software"]["driver_mode"]) == ("none", "CPU-ONLY")


def test_bypassed_requirement_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, DRIVER)
    for value, told in ((None, False), ("0", False), ("1", True)):
        environment = {} if value is None else {"NVIDIA_DISABLE_REQUIRE": value}
        software = facts.describe(facts.read(environment))["software"]
        assert software["driver_requirement_bypassed"] is told


def test_image_identity(tmp_path: Path) -> None:
    record = tmp_path / "image.json"
    assert image.identity({"HARNESS_IMAGE_ID": "sha256:1"}, record) == {}

    record.write_text('{"commit": "abc", "sbom_sha256": "def"}')
    assert image.identity({}, record) == {"id": "unknown", "commit": "abc", "sbom_sha256": "def"}
    assert image.identity({"HARNESS_IMAGE_ID": "sha256:1"}, record)["id"] == "sha256:1"


def test_a_gpu_without_its_driver_is_not_a_machine_without_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200"}.items():
        path = tmp_path / "sys/bus/pci/devices/0000:18:00.0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_text("10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n")
    found(monkeypatch, BARE)
    here = VENDOR.look(Surroundings(tmp_path))

    assert here is not None
    assert (here.names, here.unusable) == ([], ["GH100 [H100 SXM5 80GB]"])
    first = next(here.findings())
    assert (first.level, first.fix.partition(" ")[0]) == ("warning", "install")
    assert VENDOR.look(Surroundings(tmp_path / "elsewhere")) is None


def test_log_of_a_container_that_brings_its_own_libcuda() -> None:
    """The driver under test is then not the one that runs."""
    compat = replace(LIBCUDA, path="/usr/local/cuda/compat/libcuda.so.590.44.01", cuda=13010)
    software = facts.describe(machine(replace(DRIVER, libcuda=compat)))["software"]

    assert (software["driver"], software["libcuda_version"]) == ("580.65.06", "590.44.01")
    assert (software["driver_mode"], software["driver_comparable"]) == ("FORWARD-COMPAT", False)
