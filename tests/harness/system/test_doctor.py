"""What doctor says, and with which exit code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import typer
from typer.testing import CliRunner

from harness import cli
from harness.cli import host as verbs
from harness.system import doctor, facts, places
from harness.system.accelerator import Finding
from harness.system.facts import Machine
from harness.system.nvidia import driver, nvml
from harness.system.nvidia.driver import Device, Driver, Libcuda
from harness.system.nvidia.nvml import Nvml
from harness.system.nvidia.vendor import Nvidia
from harness.system.places import Place
from tests.conftest import CHECKOUT
from tests.harness.system.recorded import (
    BARE,
    DRIVER,
    GEFORCE,
    H100,
    HOST,
    LIBCUDA,
    NOT_FOUND,
    Recorded,
    field,
    machine,
)
from tests.toy import configuration as toy

RESULTS = Place("/results", True, True, True, True, 900.0, 500.0, "ext4")
SHM = Place("/dev/shm", True, True, True, True, 700.0, 700.0, "tmpfs")
DATA = Place("/data", True, False, True, False, 900.0, 500.0, "xfs")


def with_gpus(*gpus: dict[str, Any]) -> Driver:
    answering = [each for each in gpus if "lost" not in each]
    devices = tuple(Device(each["GetName"], each["GetCudaComputeCapability"]) for each in answering)
    return replace(DRIVER, libcuda=replace(LIBCUDA, devices=devices), nvml=nvml.ask(Recorded(*gpus)))


def examine(here: Machine, results: Place = RESULTS, shm: Place = SHM, data: Place | None = DATA) -> list[Finding]:
    return doctor.examine(here, results, shm, data)


def the(findings: list[Finding], subject: str) -> Finding:
    """The finding about `subject`; the worst where there are several."""
    about = [each for each in findings if each.subject == subject]
    return max(about, key=lambda each: ["ok", "warning", "problem"].index(each.level))


def test_a_good_machine_has_nothing_to_mend_but_its_untested_driver() -> None:
    findings = examine(machine(with_gpus(H100, H100)))

    assert [each for each in findings if each.level != "ok"] == [the(findings, "driver")]
    assert "not among the tested drivers" in the(findings, "driver").text
    assert {each.subject for each in findings} == {
        *("image", "driver", "libcuda", "accelerators", "gpu 0", "gpu 1", "clocks", "throttling", "power limit", "ecc"),
        *(
            "memory rows",
            "recovery",
            "mig",
            "processes",
            "persistence",
            "pcie",
            "cpu",
            "governor",
            "memory",
            "shared memory",
        ),
        *("memlock", "results", "data set", "compute mode"),
    }


def test_a_machine_without_a_gpu_is_no_fault() -> None:
    findings = examine(machine(BARE))

    assert {each.level for each in findings} == {"ok"}
    assert "CPU only" in the(findings, "accelerators").text


GPU_FAULTS: dict[str, tuple[tuple[dict[str, Any], ...], str, str, str]] = {
    # name: the GPUs, the subject, its level, a word of it
    "lost": (({"lost": True}, H100), "gpu 0", "problem", "GPU is lost"),
    "clocks held down": (({**H100, "GetApplicationsClock": 1200},), "clocks", "warning", "GPU 0"),
    "too hot": (
        (H100, {**H100, "GetCurrentClocksEventReasons": 0x60}),
        *("throttling", "warning", "GPU 1: software thermal slowdown, hardware thermal slowdown"),
    ),
    "power lowered": ((H100, {**H100, "GetEnforcedPowerLimit": 500000}), "power limit", "warning", "500 of 700 W"),
    "bad memory": (({**H100, "GetTotalEccErrors": 3},), "ecc", "problem", "3 on GPU 0"),
    "ecc changes at reset": (({**H100, "GetEccMode": [1, 0]},), "ecc", "warning", "next reset"),
    "ecc differs": ((H100, {**H100, "GetEccMode": [0, 0]}), "ecc", "warning", "GPU 0: on; GPU 1: off"),
    "rows to remap": (({**H100, "GetRemappedRows": (0, 1, 1, 0)},), "memory rows", "warning", "GPU 0"),
    "rows that cannot be": (({**H100, "GetRemappedRows": (0, 1, 0, 1)},), "memory rows", "problem", "GPU 0"),
    "wants a reset": (
        ({**H100, "GetFieldValues": lambda fields: [field(1)]},),
        "recovery",
        "problem",
        "GPU 0: gpu reset",
    ),
    "mig without instances": (({**H100, "GetMigMode": [1, 1]},), "mig", "problem", "without an instance"),
    "mig on one of two": (
        (H100, {**H100, "GetMigMode": [1, 1], "GetMigDeviceHandleByIndex": lambda slot: NOT_FOUND if slot else "here"}),
        *("mig", "warning", "off for others"),
    ),
    "somebody else": (
        ({**H100, "GetComputeRunningProcesses_v3": [SimpleNamespace(pid=42, usedGpuMemory=1 << 30)]},),
        *("processes", "warning", "pid 42 with 1024 MiB"),
    ),
    "no persistence": (({**H100, "GetPersistenceMode": 0},), "persistence", "warning", "GPU 0"),
    "closed": (
        ({**H100, "GetComputeMode": pynvml.NVML_COMPUTEMODE_PROHIBITED},),
        "compute mode",
        "problem",
        "prohibited on GPU 0",
    ),
    "one process alone": (
        (H100, {**H100, "GetComputeMode": pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS}),
        *("compute mode", "warning", "exclusive on GPU 1"),
    ),
    "narrow slot": (({**H100, "GetCurrPcieLinkWidth": 8},), "pcie", "warning", "x8 of x16"),
}


@pytest.mark.parametrize("fault", GPU_FAULTS)
def test_gpu_fault(fault: str) -> None:
    gpus, subject, level, word = GPU_FAULTS[fault]
    finding = the(examine(machine(with_gpus(*gpus))), subject)

    assert finding.level == level, finding
    assert word in finding.text
    assert finding.fix


def test_an_application_clock_below_the_maximum_by_default_is_no_fault() -> None:
    """An A100's is 1095 of 1410 MHz, at which it runs all the same; and to reset it, as was advised, changes nothing."""
    a100 = {
        **H100,
        "GetApplicationsClock": 1095,
        "GetDefaultApplicationsClock": 1095,
        "GetMaxClockInfo": lambda kind: 1410 if kind == pynvml.NVML_CLOCK_SM else 1215,
    }
    found = the(examine(machine(with_gpus(a100))), "clocks")
    assert (found.level, found.text) == ("ok", "345 of 1410 MHz; application clock at its default, 1095 MHz")
    lowered = the(examine(machine(with_gpus({**a100, "GetApplicationsClock": 900}))), "clocks")
    assert lowered.level == "warning" and "reset" in lowered.fix


def test_gpus_that_cuda_does_not_see_are_said() -> None:
    def found(visible: str | None, *gpus: dict[str, Any]) -> Finding:
        here = Nvidia(replace(with_gpus(*gpus), libcuda=LIBCUDA), visible=visible)
        return the(list(here.findings()), "accelerators")

    assert found("2", H100, H100, H100).text == "1 x NVIDIA H100 80GB HBM3; CUDA_VISIBLE_DEVICES=2 hides 2 more"
    assert found("2", H100, H100, H100).level == "ok"
    assert found(None, H100, H100).text == "1 x NVIDIA H100 80GB HBM3; CUDA does not see 1 more that NVML lists"
    assert found(None, H100, H100).level == "warning"
    assert found("0", H100).text == found("1", {"lost": True}, H100).text == "1 x NVIDIA H100 80GB HBM3"


def test_of_a_driver_that_hangs_nothing_is_said_of_nvml() -> None:
    """Which was not asked: no container's variable is at fault."""
    hangs = Libcuda(error="libcuda did not answer within 60 s", hangs=True)
    found = list(
        Nvidia(replace(DRIVER, libcuda=hangs, nvml=Nvml(error="not asked, since the driver hangs"))).findings()
    )
    assert {each.subject for each in found} == {"driver", "libcuda", "accelerators"}
    assert the(found, "driver").level == "problem" and "dmesg" in the(found, "driver").fix


def test_nvml_that_hangs_where_libcuda_answers() -> None:
    """No container's variable is at fault there either."""
    told = Nvml(error="it did not answer within 60 s", hangs=True)
    found = list(Nvidia(replace(DRIVER, nvml=told)).findings())
    assert the(found, "nvml").text == "no clocks, ECC or power: it did not answer within 60 s"
    assert the(found, "nvml").level == "warning" and "dmesg" in the(found, "nvml").fix


def test_what_a_geforce_does_not_tell_is_no_fault() -> None:
    findings = examine(machine(with_gpus(GEFORCE)))

    assert (the(findings, "ecc").text, the(findings, "ecc").level) == ("not supported", "ok")
    assert the(findings, "clocks").level == "ok"
    assert the(findings, "persistence").level == "warning"


HOST_FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: what differs from a good machine, the subject, its level, a word of it
    "part of the processors": ({"host": replace(HOST, cpu=replace(HOST.cpu, usable=8))}, "cpu", "warning", "use 8"),
    "quota": ({"host": replace(HOST, cpu=replace(HOST.cpu, quota=1.5))}, "cpu", "warning", "1.5 processors"),
    "governor": (
        {"host": replace(HOST, cpu=replace(HOST.cpu, governors=("powersave",)))}, "governor", "warning", "powersave",
    ),
    "memlock": ({"host": replace(HOST, memlock=8 << 20)}, "memlock", "warning", "8 MiB"),
    "requirement bypassed": ({"bypassed": True}, "driver", "warning", "NVIDIA_DISABLE_REQUIRE"),
    "driver too old": (
        {"driver": replace(DRIVER, kernel_module="535.183.01", libcuda=replace(LIBCUDA, cuda=12020))},
        *("driver", "problem", "TOO-OLD"),
    ),
    "container without a GPU": (
        {"driver": replace(BARE, kernel_module="580.65.06"), "host": replace(HOST, container=True)},
        *("driver", "warning", "given no GPU"),
    ),
    "no device for CUDA": (
        {"driver": replace(DRIVER, libcuda=replace(LIBCUDA, devices=()))}, "accelerators", "problem", "none that CUDA",
    ),
    "no NVML": ({"driver": replace(DRIVER, nvml=Nvml(error="NVML Shared Library Not Found"))}, "nvml", "warning", "NVML"),
    "image of no commit": (
        {"image": {"commit": "unknown", "tree_dirty": True, "lock_sha256": "1", "sbom_sha256": "2"}},
        *("image", "warning", "nobody can tell"),
    ),
    "image of a changed tree": (
        {"image": {"commit": "abc", "tree_dirty": True, "lock_sha256": "1", "sbom_sha256": "2"}},
        *("image", "warning", "not committed"),
    ),
}  # fmt: skip


def test_a_quota_is_said_beside_a_part_of_the_processors() -> None:
    limited = replace(HOST, cpu=replace(HOST.cpu, usable=16, quota=4.0))
    found = [each for each in examine(machine(host=limited)) if each.subject == "cpu"]
    assert ["use 16 of" in found[0].text, "4 processors' time" in found[1].text, len(found)] == [True, True, 2]
    enough = replace(HOST, cpu=replace(HOST.cpu, usable=16, quota=32.0))
    assert len([each for each in examine(machine(host=enough)) if each.subject == "cpu"]) == 1


@pytest.mark.parametrize("fault", HOST_FAULTS)
def test_host_fault(fault: str) -> None:
    changes, subject, level, word = HOST_FAULTS[fault]
    finding = the(examine(machine(**changes)), subject)

    assert finding.level == level, finding
    assert word in finding.text
    assert finding.fix or subject == "accelerators"


def test_folder_faults() -> None:
    here = machine(BARE)
    for place, level in (
        (replace(RESULTS, writable=False), "problem"),
        (replace(RESULTS, free_gib=1.0), "warning"),
        (replace(RESULTS, free_gib=0.01), "problem"),
    ):
        assert the(examine(here, results=place), "results").level == level
    layer = replace(RESULTS, filesystem="overlay")
    container = replace(here, host=replace(HOST, container=True))
    assert the(examine(here, results=layer), "results").level == "ok"
    assert the(examine(container), "results").level == "ok"
    lost = the(examine(container, results=layer), "results")
    assert (lost.level, "gone with this container" in lost.text, "-v" in lost.fix) == ("warning", True, True)
    for place, level in (
        (replace(DATA, exists=False), "problem"),
        (replace(DATA, exists=False, unreachable="Stale file handle"), "problem"),
        (replace(DATA, empty=True), "problem"),
        (replace(DATA, readable=False), "problem"),
        (replace(DATA, filesystem="nfs4"), "warning"),
        (replace(DATA, filesystem="lustre"), "warning"),
        (replace(DATA, filesystem="fuse.glusterfs"), "warning"),
        (DATA, "ok"),
    ):
        assert the(examine(here, data=place), "data set").level == level
    assert not [each for each in examine(here, data=None) if each.subject == "data set"]


def test_a_run_in_the_image_says_that_its_log_will_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docker run --rm without a folder for /results."""
    monkeypatch.setattr(places, "look", lambda path: replace(RESULTS, path=str(path), filesystem="overlay"))
    words = ["run", str(toy.write(tmp_path, toy.raw())), "--out", "/results", "--data-dir", str(tmp_path / "missing")]
    for image in (True, False):
        if image:
            monkeypatch.setenv("HARNESS_IMAGE_LOCK", "run.lock")
        else:
            monkeypatch.delenv("HARNESS_IMAGE_LOCK")
        assert cli.main(words) == 2
        assert ("/results is gone with this container" in capsys.readouterr().err) == image


def test_little_shared_memory_stops_several_gpus_and_not_one() -> None:
    small = replace(SHM, size_gib=0.0625, free_gib=0.0625)

    assert the(examine(machine(with_gpus(H100)), shm=small), "shared memory").level == "warning"
    assert the(examine(machine(with_gpus(H100, H100)), shm=small), "shared memory").level == "problem"
    assert "64 MiB" in the(examine(machine(with_gpus(H100)), shm=small), "shared memory").text


@pytest.mark.parametrize("what", ["exists", "writable"])
def test_a_machine_without_shared_memory_starts_no_process_that_reads_pictures(what: str) -> None:
    """docker run --ipc=none: the room was that of /dev, which is ample."""
    none = replace(SHM, path="/dev/shm", **{what: False})  # type: ignore[arg-type]
    assert the(examine(machine(BARE), shm=none), "shared memory").level == "problem"


# --- the verb --------------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Any:
    app = typer.Typer()
    app.callback()(lambda: None)
    verbs.register(app)
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_verb_on_this_machine(tmp_path: Path) -> None:
    result = call("--out", str(tmp_path))

    assert result.exit_code in (0, 6), result.output
    assert "libcuda" in result.stdout or "CPU only" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("problems") or result.stdout.splitlines()[-1].endswith("1 problem")


def test_verb_exits_6_on_a_problem_and_0_on_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "read", lambda root: replace(DRIVER, libcuda=replace(LIBCUDA, init=999, devices=())))
    assert call("--out", str(tmp_path)).exit_code == 6

    monkeypatch.setattr(driver, "read", lambda root: BARE)
    monkeypatch.setattr(facts.host, "read", lambda: replace(HOST, memlock=1))
    assert call("--out", str(tmp_path)).exit_code == 0


def test_verb_looks_where_run_puts_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called in another folder it looked at that one's disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGDIR", raising=False)
    found = {each["subject"]: each["text"] for each in json.loads(call("--json").stdout)["findings"]}
    assert found["results"].startswith(f"{CHECKOUT / 'out'}, ")


def test_verb_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "read", lambda root: with_gpus(H100, GEFORCE))
    result = call("--json", "--out", str(tmp_path), "--data-dir", str(tmp_path / "missing"))
    told = json.loads(result.stdout)

    assert result.exit_code == 6  # the data set
    assert told["verdict"]["mode"] == "NATIVE"
    assert {"level", "subject", "text", "fix"} == set(told["findings"][0])
    assert told["hardware"]["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert told["software"]["driver"] == "580.65.06"


def test_the_cache_and_what_is_compiled_in_it(tmp_path: Path) -> None:
    def found(cache: places.Cache, *, container: bool = False) -> Finding:
        here = replace(machine(DRIVER), host=replace(HOST, container=container))
        return the(doctor.examine(here, RESULTS, SHM, None, cache=cache), "cache")

    (tmp_path / "cache").mkdir(mode=0o700)
    cache = places.look_at_cache(tmp_path / "cache")
    assert found(cache).text.endswith("nothing compiled yet") and cache.own
    (tmp_path / "cache/compiled/inductor").mkdir(parents=True)
    (tmp_path / "cache/compiled/inductor/kernel.so").write_bytes(bytes(3 << 20))
    assert "3 MiB of it compiled by earlier runs" in found(places.look_at_cache(tmp_path / "cache")).text
    layer = replace(cache, place=replace(cache.place, filesystem="overlay"))
    assert "gone with this container" in found(layer, container=True).text
    assert "docker run -v NAME:/cache" in found(layer, container=True).fix
    read_only = found(replace(cache, place=replace(cache.place, writable=False), own=False))
    assert read_only.level == "problem" and read_only.text.endswith("cannot be written")
    unreachable = found(places.look_at_cache(tmp_path / ("x" * 300)))
    assert unreachable.level == "problem" and unreachable.text.endswith("cannot be written (File name too long)")
    (tmp_path / "cache").chmod(0o777)
    assert (found(places.look_at_cache(tmp_path / "cache")).level, places.made_own(tmp_path / "cache", "x")) == (
        "warning",
        None,
    )
    assert "others may write in it" in found(places.look_at_cache(tmp_path / "cache")).text
    closed = replace(cache, own=False, place=replace(cache.place, writable=False))
    assert "cannot be written" in found(closed).text


# --- the data set ---


def test_a_folder_that_lacks_what_a_configuration_reads() -> None:
    for options, fix in (
        ("--benchmark ssd --dataset voc", "--dataset voc --data-dir"),
        (None, "one of your own needs"),
    ):
        reading = doctor.Reading("H100_1x1x256", "ssd", options, ("annotations/x.json", "val2017"))
        found = the(doctor.examine(machine(BARE), RESULTS, SHM, DATA, reading=reading), "data set")
        assert found.level == "problem" and "lacks annotations/x.json, val2017, which H100_1x1x256 reads" in found.text
        assert fix in found.fix and ("harness prepare" in found.fix) == (options is not None)
    found = the(
        doctor.examine(
            machine(BARE), RESULTS, SHM, DATA, reading=doctor.Reading("A", "ssd", "--benchmark ssd", more=2)
        ),
        "data set",
    )
    assert found.level == "ok" and "that A and 2 more read" in found.text


def test_doctor_looks_for_what_configurations_name(tmp_path: Path) -> None:
    runner, verb = CliRunner(), typer.Typer()
    verbs.register(verb)

    def said(*arguments: object, part: str = "text") -> str:
        found = runner.invoke(verb, [*map(str, arguments), "--json"]).output
        return next(each[part] for each in json.loads(found)["findings"] if each["subject"] == "data set")

    for words, benchmark in ((["DGXH100_1x8x32"], "retinanet"), (["H100_1x1x256"], "ssd"), ([], "ssd")):
        assert f"--benchmark {benchmark} --data-dir {tmp_path}`" in said(*words, "--data-dir", tmp_path, part="fix")
    (tmp_path / "train/labels").mkdir(parents=True)  # of OpenImages, whose 356 GB somebody has begun to get
    (tmp_path / "train/data").mkdir()
    for words in (["DGXH100_1x8x32"], []):
        assert f"--benchmark retinanet --data-dir {tmp_path}`" in said(*words, "--data-dir", tmp_path, part="fix")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "annotations").mkdir()
    assert "it lacks annotations/instances_train2017.json" in said("H100_1x1x256", "--data-dir", tmp_path)
    assert "which" in said("--data-dir", tmp_path)
    for half in ("train", "val"):
        (tmp_path / f"annotations/instances_{half}2017.json").touch()
        (tmp_path / f"{half}2017/.cache").mkdir(parents=True)
        for hidden in (".hidden", ".cache/1.jpg"):
            (tmp_path / f"{half}2017" / hidden).touch()
        (tmp_path / f"{half}2017/round").symlink_to(tmp_path / f"{half}2017")
    for words in (["H100_1x1x256"], []):
        hollow = said(*words, "--data-dir", tmp_path)
        files = "annotations/instances_train2017.json, annotations/instances_val2017.json, train2017, val2017"
        assert f"it has nothing in {files}, which " in hollow
    (tmp_path / "annotations/instances_val2017.json").unlink()
    some = said("H100_1x1x256", "--data-dir", tmp_path)
    assert (
        "it lacks annotations/instances_val2017.json and has nothing in annotations/instances_train2017.json, tr"
        in some
    )
    for half in ("train", "val"):
        (tmp_path / f"annotations/instances_{half}2017.json").write_text("{}")
        (tmp_path / f"{half}2017/deeper").mkdir()
        (tmp_path / f"{half}2017/deeper/1.jpg").touch()
    assert "with the files that H100_1x1x256 reads" in said("H100_1x1x256", "--data-dir", tmp_path)
    assert "more read" in said("--data-dir", tmp_path)
    assert runner.invoke(verb, ["H100_1x1x256"]).exit_code != 0, "no folder to look in"
    (tmp_path / "data.zip").touch()
    assert said("--data-dir", tmp_path / "data.zip").endswith(": is a file, and a folder is needed")
    assert said("--data-dir", tmp_path / "data.zip/in").endswith(": there is no such folder")


@pytest.mark.parametrize(
    ("variables", "unset"),
    [
        ({"OMP_PROC_BIND": "close", "OMP_NUM_THREADS": "4"}, "unset OMP_PROC_BIND;"),
        ({"GOMP_CPU_AFFINITY": "0-3", "OMP_PLACES": "cores"}, "unset OMP_PLACES GOMP_CPU_AFFINITY;"),
        ({"OMP_PROC_BIND": "FALSE", "OMP_PLACES": "cores"}, ""),
        ({"OMP_NUM_THREADS": "4"}, ""),
    ],
)
def test_threads_that_openmp_is_told_to_bind_are_warned_of(variables: dict[str, str], unset: str) -> None:
    found = [each for each in examine(machine(variables=variables)) if each.subject == "threads"]
    assert [each.level for each in found] == ["warning"] * bool(unset)
    assert all(each.fix.startswith(unset) for each in found)


@pytest.mark.parametrize(
    ("whole", "limit", "level"),
    [(1511.5, None, "ok"), (1511.5, 8.0, "ok"), (1511.5, 0.2, "warning"), (1.0, None, "warning")],
)
def test_less_memory_than_any_run_needs_is_warned_of(whole: float, limit: float | None, level: str) -> None:
    """A limit of 250 MiB was ok, and the kernel killed the run."""
    found = the(examine(machine(host=replace(HOST, memory_gib=whole, memory_limit_gib=limit))), "memory")
    assert (found.level, "the smallest run needs" in found.text) == (level, level == "warning")


def test_a_disk_without_inodes_has_no_room() -> None:
    """Bytes alone were counted: what ran there found "No space left on device"."""
    few = replace(RESULTS, free_files=3)
    cache = places.Cache(few, own=True, compiled_gib=0.0)
    found = doctor.examine(machine(), few, SHM, None, cache=cache)
    assert [the(found, each).level for each in ("results", "cache")] == ["problem", "problem"]
    assert "only 3 more files can be made there (df -i)" in the(found, "cache").text
    assert the(examine(machine(), replace(RESULTS, free_files=10**6)), "results").level == "ok"


def test_how_many_files_can_be_made_is_what_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for files, said, free in ((100, 7, 7), (0, 0, None), (100, -1, None)):  # Btrfs counts none, and CephFS says so
        counted = SimpleNamespace(f_files=files, f_favail=said)
        monkeypatch.setattr(places.os, "statvfs", lambda _, counted=counted: counted)
        monkeypatch.setattr(places.shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=1 << 39))
        assert places.look(tmp_path).free_files == free
