"""Other makers' accelerators, on file trees as their drivers make them in /sys and /dev, with what torch says of them given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution import telemetry
from harness.results import sysdesc
from harness.system import accelerator, loaded, torch_build
from harness.system.accelerator import Surroundings
from harness.system.generic import makers, torch_probe, vendor
from harness.system.generic.vendor import Generic, TorchSees
from harness.system.torch_build import TorchBuild

CUDA = TorchBuild("2.14.1+cu130", cuda="13.0")
ROCM = TorchBuild("2.14.1+rocm7.1", hip="7.1.25424")
XPU = TorchBuild("2.14.1+xpu", xpu="20250301")


def card(root: Path, bus: str, vendor_id: str, device: str, pci_class: str, **files: str) -> Path:
    """A card on the PCI bus of a machine at `root`; "hwmon_x" is the file x of its sensors."""
    folder = root / "sys/bus/pci/devices" / bus
    for name, text in {"vendor": f"0x{vendor_id}", "device": f"0x{device}", "class": f"0x{pci_class}", **files}.items():
        path = folder / "hwmon/hwmon3" / name.removeprefix("hwmon_") if name.startswith("hwmon_") else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def file(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


MI300X = {
    "product_name": "AMD Instinct MI300X OAM", "unique_id": "8e5a1b2c3d4e5f60", "vbios_version": "113-M3000100-102",
    "current_link_speed": "32.0 GT/s PCIe", "current_link_width": "16", "max_link_width": "16", "numa_node": "0",
    "gpu_busy_percent": "97", "mem_info_vram_total": "206141652992", "mem_info_vram_used": "2147483648",
    "pcie_replay_count": "0", "hwmon_power1_average": "653000000", "hwmon_power1_cap": "750000000",
    "hwmon_temp1_input": "61000", "hwmon_freq1_input": "2100000000", "hwmon_energy1_input": "1000000",
}  # fmt: skip


def look(
    monkeypatch: pytest.MonkeyPatch, root: Path, build: TorchBuild, sees: TorchSees | None = None
) -> tuple[Generic | None, list[int]]:
    """What the folder finds at `root`, and how often it asked torch."""
    asked: list[int] = []

    def ask() -> TorchSees:
        asked.append(1)
        assert sees is not None, "torch was asked"
        return sees

    monkeypatch.setattr(vendor, "ask_torch", ask)
    monkeypatch.setattr(torch_build, "read", lambda: build)
    return vendor.VENDOR.look(Surroundings(root)), asked


def test_amd_under_rocm_says_cuda_and_is_not_nvidia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bus in ("0000:05:00.0", "0000:26:00.0"):
        card(tmp_path, bus, "1002", "74a1", "120000", **MI300X)
    file(tmp_path, "sys/module/amdgpu/version", "6.14.14\n")
    file(tmp_path, "dev/nvidiactl")  # even where a card of NVIDIA's is in the machine too
    file(tmp_path, "dev/kfd")
    sees = TorchSees(None, "cuda", ("AMD Instinct MI300X",) * 2, ({"gcnArchName": "gfx942", "memory_mib": 196592},) * 2)
    found, _ = look(monkeypatch, tmp_path, ROCM, sees)

    assert found is not None
    assert (found.vendor, found.device, found.names) == ("AMD", "cuda", ["AMD Instinct MI300X"] * 2)
    assert (found.verdict.mode, found.verdict.runnable, found.verdict.comparable) == ("OTHER-VENDOR", True, False)
    assert (found.software()["driver"], found.software()["rocm"]) == ("6.14.14", "7.1.25424")
    assert "driver 6.14.14, driver mode OTHER-VENDOR, rocm 7.1.25424" in sysdesc.software_stack(found.software(), {})
    details = found.details()[0]
    assert (details["vbios"], details["pcie_width"], details["gcnArchName"]) == ("113-M3000100-102", 16, "gfx942")
    assert found.container().nodes == ("/dev/kfd", "/dev/dri/renderD*")
    assert accelerator.process_group("cuda") == "nccl"

    from harness.system.nvidia.vendor import VENDOR

    assert VENDOR.look(Surroundings(tmp_path)) is None


def test_devices_that_torch_numbers_otherwise_than_the_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HIP_VISIBLE_DEVICES=1,0 beside graphics of the processor: what the kernel says of a card stays that card's."""
    for bus, number, model in (("05", "8e5a1b2c3d4e5f60", "MI300X"), ("26", "8e5a1b2c3d4e5f61", "MI325X")):
        more = {**MI300X, "unique_id": number, "product_name": model}
        card(tmp_path, f"0000:{bus}:00.0", "1002", "74a1", "120000", **more)
    card(tmp_path, "0000:c1:00.0", "1002", "15bf", "030000")
    told = [
        {"pci_domain_id": 0, "pci_bus_id": bus, "pci_device_id": 0, "uuid": uuid}
        for bus, uuid in (
            (0x26, "38653561-3162-3263-3364-346535663631"),
            (0x05, "38653561-3162-3263-3364-346535663630"),
        )
    ]
    sees = TorchSees(None, "cuda", ("AMD Instinct MI325X", "AMD Instinct MI300X"), tuple(told))
    found, _ = look(monkeypatch, tmp_path, ROCM, sees)
    assert found is not None
    assert [(each["pci_bus"], each["uuid"], each["name"]) for each in found.details()] == [
        ("0000:26:00.0", "8e5a1b2c3d4e5f61", "MI325X"),
        ("0000:05:00.0", "8e5a1b2c3d4e5f60", "MI300X"),
    ]


def test_numbers_of_zeros_name_no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card(tmp_path, "0000:05:00.0", "1002", "74a1", "120000", **{**MI300X, "unique_id": "0000000000000000"})
    sees = TorchSees(None, "cuda", ("AMD Radeon",), ({"uuid": "58580000-0000-0000-0000-000000000000"},))
    found, _ = look(monkeypatch, tmp_path, ROCM, sees)
    assert found is not None and "uuid" not in found.details()[0]


def test_amd_under_a_pytorch_for_cuda_is_said_and_torch_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card(tmp_path, "0000:05:00.0", "1002", "74a1", "120000", **MI300X)
    found, asked = look(monkeypatch, tmp_path, CUDA)

    assert found is not None and not asked
    assert (found.names, found.unusable) == ([], ["AMD Instinct MI300X OAM"])
    assert "built for CUDA 13.0, which cannot use it" in found.verdict.message
    assert "PyTorch for ROCm" in found.verdict.fix
    assert {each.level for each in found.findings()} == {"warning"}


@pytest.mark.parametrize("build", [CUDA, TorchBuild("2.14.1+cpu"), TorchBuild()])
def test_the_graphics_of_a_laptops_processor_are_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: TorchBuild
) -> None:
    card(tmp_path, "0000:00:02.0", "8086", "a7a0", "030000")
    file(tmp_path, "usr/share/misc/pci.ids", "8086  Intel Corporation\n\ta7a0  Raptor Lake-P [Iris Xe Graphics]\n")
    found, asked = look(monkeypatch, tmp_path, build)

    assert found is not None and not asked
    assert found.unusable == ["Intel Raptor Lake-P [Iris Xe Graphics]"]
    assert {each.level for each in found.findings()} == {"ok"}


def test_devices_that_torch_does_not_see_may_be_hidden_or_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To a user out of the group render, as most begin, its maker's driver works all the same."""
    card(tmp_path, "0000:05:00.0", "1002", "74a1", "120000", **MI300X)
    found, _ = look(monkeypatch, tmp_path, ROCM, TorchSees(None, "cuda"))
    assert found is not None and not found.verdict.runnable
    assert "group that may open /dev/kfd, /dev/dri/renderD*" in found.verdict.fix
    assert "HIP_VISIBLE_DEVICES" in found.verdict.fix


def test_nvidias_devices_are_not_listed_again_where_torch_has_a_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As those of a vendor "cuda"."""
    plugged = TorchBuild("2.14.1+cu130", cuda="13.0", plugins=("torch_openreg",))
    found, _ = look(monkeypatch, tmp_path, plugged, TorchSees(None, "cuda", ("NVIDIA H100 80GB HBM3",), ({},)))
    assert found is None


def test_intel_under_a_pytorch_for_xpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card(tmp_path, "0000:9a:00.0", "8086", "0bda", "038000")
    sees = TorchSees(
        None, "xpu", ("Intel(R) Data Center GPU Max 1100",), ({"uuid": "8680da0b-2f00-0000-9a00-000000000000"},)
    )
    found, _ = look(monkeypatch, tmp_path, XPU, sees)
    assert found is not None and found.details()[0]["uuid"] == "8680da0b-2f00-0000-9a00-000000000000"

    assert found is not None
    assert (found.vendor, found.device, found.names) == ("Intel", "xpu", ["Intel(R) Data Center GPU Max 1100"])
    assert accelerator.process_group("xpu") == "xccl"


def test_corex_brings_a_libcuda_that_is_not_nvidias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its libcuda says CUDA 10.2, which NVIDIA's table would refuse as too old."""
    for node in ("iluvatar0", "iluvatar1", "iluvatarctl"):
        file(tmp_path, f"dev/{node}")
    file(tmp_path, "sys/module/iluvatar/version", "4.2.0\n")
    sees = TorchSees(None, "cuda", ("Iluvatar BI-V100",) * 2, ({}, {}))
    found, _ = look(monkeypatch, tmp_path, TorchBuild("2.1.1+corex", cuda="10.2"), sees)

    assert found is not None
    assert (found.vendor, found.names) == ("Iluvatar CoreX", ["Iluvatar BI-V100"] * 2)
    assert found.software()["driver"] == "4.2.0"

    from harness.system.nvidia.vendor import VENDOR

    assert VENDOR.look(Surroundings(tmp_path)) is None


PLUGGED = {
    # maker: vendor number, class, torch's word, the package, its process group
    "Moore Threads": ("1ed5", "030000", "musa", "torch_musa", "mccl"),
    "Intel Habana": ("1da3", "120000", "hpu", "habana_frameworks", "hccl"),
    "Huawei Ascend": ("19e5", "120000", "npu", "torch_npu", "hccl"),
}


@pytest.mark.parametrize("maker", PLUGGED)
def test_makers_whose_package_brings_torch_a_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, maker: str
) -> None:
    number, pci_class, device, package, group = PLUGGED[maker]
    card(tmp_path, "0000:c1:00.0", number, "0001", pci_class)
    file(tmp_path, "usr/local/Ascend/driver/version.info", "Version=24.1.rc2\npackage_version=24.1.rc2\n")
    build = TorchBuild("2.14.1+cpu", plugins=(package,))
    found, _ = look(monkeypatch, tmp_path, build, TorchSees(None, device, ("Model X",), ({},)))

    assert found is not None
    assert (found.vendor, found.device, found.names) == (maker, device, ["Model X"])
    assert accelerator.process_group(device) == group
    assert found.software()["driver"] == ("24.1.rc2" if device == "npu" else "none")
    without, _ = look(monkeypatch, tmp_path, TorchBuild("2.14.1+cpu"))
    assert without is not None and f"a PyTorch of {maker}'s own" in without.verdict.fix


def test_the_console_of_a_huawei_server_is_no_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card(tmp_path, "0000:06:00.0", "19e5", "1711", "030000")
    assert look(monkeypatch, tmp_path, CUDA) == (None, [])


def test_a_maker_of_whom_no_row_knows_is_called_what_torch_calls_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build = TorchBuild("2.14.1+cpu", plugins=("torch_novel",))
    found, _ = look(monkeypatch, tmp_path, build, TorchSees(None, "novel", ("Novel One",), ({"memory_mib": 5},)))

    assert found is not None
    assert (found.vendor, found.device, found.names, found.details()) == (
        "novel",
        "novel",
        ["Novel One"],
        [{"memory_mib": 5}],
    )
    assert found.verdict.runnable


def test_an_extension_that_breaks_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card(tmp_path, "0000:c1:00.0", "1da3", "1020", "120000")
    build = TorchBuild("2.14.1+cpu", plugins=("habana_frameworks",))
    found, _ = look(monkeypatch, tmp_path, build, TorchSees("import torch: OSError: libSynapse.so: no such file"))

    assert found is not None
    assert not found.verdict.runnable and "libSynapse.so" in found.verdict.message


def test_readings_of_the_kernel(tmp_path: Path) -> None:
    from harness.system.generic import sensors

    folder = card(tmp_path, "0000:05:00.0", "1002", "74a1", "120000", **MI300X)
    (trace,) = makers.traces(tmp_path)
    readings = sensors.of(trace.cards[0])
    sampled, missing = telemetry.read(readings.sampled)

    assert sampled == {
        "power_w": 653.0, "temperature_c": 61.0, "clock_sm_mhz": 2100.0, "clock_memory_mhz": None, "busy_percent": 97,
        "memory_used_mib": 2048,
    }  # fmt: skip
    assert "freq2_input" in missing["clock_memory_mhz"]
    assert telemetry.read(readings.counted)[0] == {"energy_j": 1.0, "pcie_replays": 0}
    (folder / "gpu_busy_percent").write_text("busy\n")
    assert "says 'busy'" in telemetry.read(readings.sampled)[1]["busy_percent"]


def test_torch_is_read_without_being_imported() -> None:
    import torch

    found = torch_build.read()
    assert (found.version, found.cuda, found.hip) == (torch.__version__, torch.version.cuda, torch.version.hip)


def test_a_probe_that_ends_badly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "probe.py"
    broken.write_text("import sys; sys.exit('no luck')")
    monkeypatch.setattr(vendor.torch_probe, "__file__", str(broken))
    vendor.ask_torch.cache_clear()
    try:
        assert "no luck" in str(vendor.ask_torch().error)
    finally:
        vendor.ask_torch.cache_clear()


def test_what_this_process_has_loaded(tmp_path: Path) -> None:
    maps = (
        "7f0c24a00000-7f0c2a400000 r-xp 00200000 00:1f 1311    /usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06\n"
        "7f0c24a00000-7f0c2a400000 r--p 00200000 00:1f 1311    /usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06\n"
        "7f0c2b000000-7f0c2b100000 r--p 00000000 00:1f 1312    /opt/venv/torchvision.libs/libnvjpeg.so.13\n"
        "7f0c2c000000-7f0c2c100000 r--p 00000000 00:1f 1313    /opt/venv/nvidia/cu13/lib/libnvjpeg.so.13.3.2\n"
        "7f0c2d000000-7f0c2d100000 rw-p 00000000 00:00 0\n"
        "7f0c2e000000-7f0c2e100000 r--p 00000000 00:1f 1314    /home/a b/lib/libnccl.so.2\n"
        "7f0c2f000000-7f0c2f100000 r-xp 00000000 00:1f 1315    /usr/lib/libcudart.so.13 (deleted)\n"
    )
    assert loaded.libraries(("libcuda.so", "libnvjpeg.so", "libnccl.so", "libcudart.so"), maps) == {
        "libcuda": "/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06",
        "libnvjpeg": ["/opt/venv/nvidia/cu13/lib/libnvjpeg.so.13.3.2", "/opt/venv/torchvision.libs/libnvjpeg.so.13"],
        "libnccl": "/home/a b/lib/libnccl.so.2",
        "libcudart": "/usr/lib/libcudart.so.13 (deleted)",
    }


def test_every_row_is_whole() -> None:
    rows: Any = makers.read()
    assert [row.name for row in rows] == [
        "AMD", "Intel", "Iluvatar CoreX", "Moore Threads", "Intel Habana", "Huawei Ascend",
    ]  # fmt: skip
    assert all(row.device and row.build and (row.pci_vendors or row.nodes) for row in rows)


def test_what_torch_tells_of_a_device_can_be_logged() -> None:
    """A maker's extension is anybody's code: a float that is none would end the run that logs it."""
    told = SimpleNamespace(
        uuid=SimpleNamespace(__str__=None), clock=float("nan"), watts=float("inf"), volts=0.9, total_memory=2**30
    )
    module = SimpleNamespace(get_device_properties=lambda index: told)
    found = torch_probe._details(module, 0)
    assert {"volts": 0.9, "memory_mib": 1024}.items() <= found.items() and not {"clock", "watts"} & found.keys()
    json.dumps(found, allow_nan=False)
    module.get_device_properties = lambda index: 1 / 0
    assert torch_probe._details(module, 0) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pci_vendors": "1ed5"}, "pci_vendors = '1ed5': a list is needed"),
        ({"pci_vendors": ["0x1ED5"]}, "pci_vendors has '0x1ED5': four hexadecimal digits"),
        ({"build": "rocm"}, "build = 'rocm': one of hip, xpu, cuda, plugin"),
        ({"pci_vendor": ["1ed5"]}, "unknown key pci_vendor"),
    ],
)
def test_a_row_that_would_find_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    told = {"name": "Novel", "device": "novel", "build": "plugin", "pci_vendors": ["1ed5"]}
    assert makers.row(told).pci_vendors == ("1ed5",)
    with pytest.raises(ValueError, match=f"makers.toml: Novel: {said}"):
        makers.row({**told, **change})
