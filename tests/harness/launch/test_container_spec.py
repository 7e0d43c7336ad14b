"""What a container is made of: one specification, two renderings, and the answers of engines with and without GPUs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunTable
from harness.contract import NotSuitable
from harness.launch import engine
from harness.launch.container_spec import EngineHost, Gpus, Mount, _by_nodes, gpus, spec_of
from harness.launch.trial import Order
from harness.request import Request
from harness.system.accelerator import ContainerNeeds

# Answers of `GET /info`, cut down to what is read
NO_GPU: dict[str, Any] = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"]}
CDI: dict[str, Any] = {
    **NO_GPU,
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "DiscoveredDevices": [
        {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
        {"Source": "cdi", "ID": "nvidia.com/gpu=1"},
        {"Source": "cdi", "ID": "nvidia.com/gpu=GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"},
        {"Source": "cdi", "ID": "nvidia.com/gpu=all"},
        {"Source": "cdi", "ID": "vendor.com/net=0"},
    ],
}
KIND = "nvidia.com/gpu"
NEEDS = ContainerNeeds(cdi_kind=KIND, device_request=True)
ROOTLESS: dict[str, Any] = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}
REMAPPED: dict[str, Any] = {"SecurityOptions": ["name=selinux", "name=userns"]}


def run(device: str = "cuda", accelerators: int = 2) -> RunTable:
    return RunTable(
        ruleset="0.7.0",
        device=device,
        nodes=1,
        accelerators_per_node=accelerators,
        epochs=1,
        evaluate_after_epochs=[1],
        target=0.1,
        log_every_steps=1,
    )


@pytest.mark.parametrize(
    ("info", "there", "chosen", "expected"),
    [
        (CDI, 2, "", Gpus("cdi", ("0", "1"), kind=KIND)),
        (CDI, None, "1, 0", Gpus("cdi", ("1", "0"), kind=KIND)),
        (NO_GPU, 8, "", Gpus("device request", count=2)),
        (NO_GPU, None, "", Gpus("device request", count=2)),  # the engine will say
        (NO_GPU, 8, "6,7,", Gpus("device request", ("6", "7"))),
    ],
)
def test_gpus_come_by_cdi_where_the_engine_has_it(
    info: dict[str, Any], there: int | None, chosen: str, expected: Gpus
) -> None:
    assert gpus(run(), info, NEEDS, there, chosen) == expected


def test_no_gpu_for_a_configuration_that_runs_on_the_cpu() -> None:
    assert gpus(run("cpu"), CDI, NEEDS, 2) == Gpus()
    with pytest.raises(ValueError, match="accelerators were chosen"):
        gpus(run("cpu"), CDI, NEEDS, 2, "0")


def test_more_gpus_than_there_are() -> None:
    for info, there, has in ((CDI, 8, 2), (NO_GPU, 1, 1), (NO_GPU, 0, 0)):
        with pytest.raises(NotSuitable, match=rf"asks for 4 accelerators .* and this machine has {has}"):
            gpus(run(accelerators=4), info, NEEDS, there)
    with pytest.raises(ValueError, match=r"1 accelerators were chosen \(0\), .*accelerators_per_node = 2"):
        gpus(run(), NO_GPU, NEEDS, 2, "0")


def test_an_engine_before_28_2_says_only_where_its_cdi_descriptions_are(tmp_path: Path) -> None:
    info = {"CDISpecDirs": [str(tmp_path), str(tmp_path / "absent")]}
    assert engine.cdi_gpus(info, KIND) is None
    (tmp_path / "nvidia.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n"
        '  name: "0"\n- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n  name: all\n'
        "containerEdits:\n  hooks:\n  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n"
    )
    assert engine.cdi_gpus(info, KIND) == ["0", "all"]
    assert gpus(run(accelerators=1), info, NEEDS, None) == Gpus("cdi", ("0",), kind=KIND)
    assert engine.cdi_gpus({"CDISpecDirs": None}, KIND) is None


def test_device_nodes_where_the_engine_knows_nothing_of_a_vendor(tmp_path: Path) -> None:
    for node in ("dev/kfd", "dev/dri/renderD128", "dev/dri/renderD129", "dev/dri/card0"):
        (tmp_path / node).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / node).touch()
    needs = ContainerNeeds(cdi_kind="amd.com/gpu", nodes=("/dev/kfd", "/dev/dri/renderD*"))
    found = _by_nodes(needs, (), tmp_path)

    assert [each.removeprefix(str(tmp_path)) for each in found.devices] == [
        "/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129",
    ]  # fmt: skip
    words = shlex.split(a_spec(NO_GPU, found).line())
    assert [word for word in words if word.startswith("--device")] == [f"--device={each}" for each in found.devices]
    assert a_spec(NO_GPU, found).arguments()["devices"] == [f"{each}:{each}:rwm" for each in found.devices]
    with pytest.raises(ValueError, match="chosen by CDI"):
        _by_nodes(needs, ("0",), tmp_path)
    with pytest.raises(NotSuitable, match="harness doctor"):
        _by_nodes(needs, (), tmp_path / "elsewhere")


def test_another_vendors_devices_come_by_their_own_cdi_name() -> None:
    info = {"DiscoveredDevices": [{"Source": "cdi", "ID": f"amd.com/gpu={each}"} for each in (0, 1)]}
    needs = ContainerNeeds(cdi_kind="amd.com/gpu", nodes=("/dev/kfd",))
    assert gpus(run(), info, needs, 2) == Gpus("cdi", ("0", "1"), kind="amd.com/gpu")


NONE = Gpus()


def a_spec(info: dict[str, Any], wanted: Gpus = NONE, **options: Any) -> Any:
    order = Order(3, Path("/home/ada/out"), seed=5, caches_cleared=True)
    host = EngineHost(info, 1000, 1001, (44, 27))
    request = Request(configuration="/home/ada/a b.toml", trials=5, **options)
    return spec_of(host, "ssd", order, request, image_id="sha256:5d", gpus=wanted)


def test_the_container_gets_what_it_needs_and_no_more() -> None:
    options: dict[str, Any] = {"data_dir": Path("/raid/coco"), "initial_weights": Path("/raid/r34.pth"), "target": 0.23}
    made = a_spec(NO_GPU, **options, cache_dir=Path("/home/ada/.cache/containers"))
    arguments = made.arguments()
    assert arguments["user"] == "1000:1001"
    assert arguments["group_add"] == ["44", "27"]
    assert arguments["network_mode"] == "none"
    assert arguments["init"] is True
    assert (arguments["cap_drop"], arguments["cap_add"]) == (["ALL"], [])
    assert arguments["ipc_mode"] == "host"
    assert arguments["device_requests"] == []
    assert "privileged" not in arguments
    assert [(each["Name"], each["Soft"], each["Hard"]) for each in arguments["ulimits"]] == [
        ("memlock", -1, -1),
        ("stack", 64 << 20, 64 << 20),
    ]
    assert made.mounts == (
        Mount(Path("/home/ada/a b.toml"), made.mounts[0].target, read_only=True),
        Mount(Path("/home/ada/out"), made.mounts[1].target, read_only=False),
        Mount(Path("/raid/coco"), made.mounts[2].target, read_only=True),
        Mount(Path("/raid/r34.pth"), made.mounts[3].target, read_only=True),
        Mount(Path("/home/ada/.cache/containers"), made.mounts[4].target, read_only=False),
    )
    assert shlex.join(made.command) == (
        "python -m harness run '/configuration/a b.toml' --data-dir /data --initial-weights /weights/r34.pth --out /results "
        "--seed 5 --target 0.23 --cache-dir /cache --number 3"
    )
    assert arguments["environment"]["HARNESS_CACHES_CLEARED"] == "1"
    assert arguments["environment"]["HARNESS_IMAGE_ID"] == "sha256:5d"


def test_a_probe_s_container_is_a_trial_s_with_another_command() -> None:
    from types import SimpleNamespace

    from harness.launch.probing import ProbeLauncher

    client: Any = SimpleNamespace(version=dict)
    image: Any = SimpleNamespace(id="sha256:5d", attrs={})
    request = Request(configuration="/home/ada/a b.toml", image="ssd", cache_dir=Path("/home/ada/.cache/containers"))
    reaper: Any = None
    made = ProbeLauncher(
        client, image, "ssd", EngineHost(NO_GPU, 1000, 1001, ()), request, Gpus(), "s", "a b", reaper, print, seconds=5
    )
    order = Order(0, Path("/home/ada/out"), None, caches_cleared=False)
    trial = spec_of(made.host, "ssd", order, request, image_id="sha256:5d")
    probe = made.spec(order, "ssd")
    assert probe.command == (
        *("python", "-m", "harness", "probe", "/configuration/a b.toml", "--out", "/results", "--seconds", "5"),
    )
    assert replace(probe, command=trial.command) == trial


def test_ranks_that_take_their_memory_from_a_node_are_allowed_to() -> None:
    """The engine's seccomp profile forbids set_mempolicy unless a container has this."""
    order, host = Order(0, Path("/out"), seed=5, caches_cleared=True), EngineHost(NO_GPU, 1000, 1001, ())
    request = Request(configuration="/home/ada/a.toml", trials=1)
    made = spec_of(host, "ssd", order, request, image_id="sha256:5d", binds_memory=True)
    assert made.arguments()["cap_add"] == ["CAP_SYS_NICE"]
    assert "--cap-add=CAP_SYS_NICE" in shlex.split(made.line())


def test_an_arm_s_variables_are_beside_the_image_s_own_and_change_none_of_a_trial_s() -> None:
    order, host = Order(0, Path("/out"), seed=5, caches_cleared=True), EngineHost(NO_GPU, 1000, 1001, ())
    request = Request(configuration="/home/ada/a.toml", trials=1)
    told = {"HARNESS_ALSO_LOG": "NCCL_ALGO", "NCCL_ALGO": "Ring", "HARNESS_IMAGE_ID": "another"}
    made = spec_of(host, "ssd", order, request, image_id="sha256:5d", variables=told).arguments()["environment"]
    assert (made["NCCL_ALGO"], made["HARNESS_ALSO_LOG"], made["HARNESS_IMAGE_ID"]) == ("Ring", "NCCL_ALGO", "sha256:5d")
    assert "NCCL_ALGO" not in spec_of(host, "ssd", order, request, image_id="sha256:5d").environment


def test_the_line_for_a_shell() -> None:
    words = shlex.split(a_spec(CDI, Gpus("cdi", ("0", "1"), kind=KIND), shm_size="8g").line())
    assert words[:3] == ["docker", "run", "--rm"]
    assert "--cap-drop=ALL" in words and not [word for word in words if word.startswith("--cap-add")]
    assert {"--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1", "--shm-size=8g", "--user=1000:1001"} <= set(words)
    assert "--ipc=host" not in words
    assert "--mount=type=bind,source=/home/ada/a b.toml,target=/configuration/a b.toml,readonly" in words
    assert "--mount=type=bind,source=/home/ada/out,target=/results" in words
    assert "--gpus=2" in shlex.split(a_spec(NO_GPU, Gpus("device request", count=2)).line())
    assert '--gpus="device=6,7"' in shlex.split(a_spec(NO_GPU, Gpus("device request", ("6", "7"))).line())


def test_a_path_with_a_comma_is_one_path_in_the_line_too() -> None:
    """docker reads --mount as CSV; the printed line was refused, or would have mounted another folder."""
    made = a_spec(NO_GPU, data_dir=Path('/raid/coco, "2017":x'))
    assert '--mount=type=bind,"source=/raid/coco, ""2017"":x",target=/data,readonly' in shlex.split(made.line())
    assert made.arguments()["mounts"][2]["Source"] == '/raid/coco, "2017":x'


def test_a_folder_that_is_two_things_is_seen_as_both() -> None:
    made = a_spec(NO_GPU, data_dir=Path("/raid/x"), cache_dir=Path("/raid/x"))
    assert [(str(each.target), each.read_only) for each in made.mounts[2:]] == [("/data", True), ("/cache", False)]


def test_gpus_as_the_sdk_asks_for_them() -> None:
    (by_cdi,) = a_spec(CDI, Gpus("cdi", ("0",), kind=KIND)).arguments()["device_requests"]
    assert (by_cdi["Driver"], by_cdi["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=0"])
    (by_count,) = a_spec(NO_GPU, Gpus("device request", count=8)).arguments()["device_requests"]
    assert (by_count["Count"], by_count["Capabilities"]) == (8, [["gpu"]])
    (by_number,) = a_spec(NO_GPU, Gpus("device request", ("6",))).arguments()["device_requests"]
    assert (by_number["Count"], by_number["DeviceIDs"]) == (0, ["6"])


def test_results_belong_to_the_caller_under_every_kind_of_engine() -> None:
    rootless = a_spec(ROOTLESS)
    assert (rootless.user, rootless.groups, rootless.lift_limits) == ("0:0", (), False)
    assert rootless.arguments()["cap_drop"] == ["ALL"] and rootless.arguments()["cap_add"] == ["CAP_DAC_OVERRIDE"]
    assert "ulimits" in rootless.arguments() and rootless.arguments()["ulimits"] == []
    remapped = a_spec(REMAPPED)
    assert remapped.arguments()["userns_mode"] == "host"
    assert remapped.arguments()["security_opt"] == ["no-new-privileges", "label=disable"]
    assert remapped.user == "1000:1001"
