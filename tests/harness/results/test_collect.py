"""Runs collected by their hashes, and systems described from what runs say of their machines."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness import whole
from harness.names import folder, plain
from harness.results import sysdesc
from harness.results.checking import machine
from harness.results.checking.findings import is_placeholder
from harness.results.collect import LOCK, collect
from harness.results.collection import IDENTITY, INDEX, SeriesIdentity, identity_of, system_name, write_index
from harness.results.logfile import read
from harness.results.series import find_series
from tests.harness.results.logs import HARDWARE, SOFTWARE, events, own, text, write, write_series
from tests.harness.results.test_logfile import parsed


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK, IDENTITY)
    }


def test_collecting_twice_changes_nothing(tmp_path: Path) -> None:
    write_series(tmp_path / "out", 3, own=own())
    into = tmp_path / "results"
    assert len(collect([tmp_path / "out"], into).collected) == 3
    before = files(into)
    (system,) = {Path(name).parts[0] for name in before if name != INDEX}
    assert system.startswith("DGXA100_1x8x114_") and len(before) == 4
    again = collect([tmp_path / "out", tmp_path / "out/result_1.txt"], into)
    assert (again.collected, len(again.already), again.ok) == ([], 4, True)
    assert files(into) == before


def test_what_a_probe_left_beside_is_taken_along_once(tmp_path: Path) -> None:
    """Of two folders of one system both; `compare` finds them by their names."""
    into = tmp_path / "results"
    write_series(tmp_path / "0", 2, own=own())
    write(tmp_path / "1/result_0.txt", events(seed=77, own=own()))
    for number in range(2):
        (tmp_path / f"{number}/probe_0.json").write_text(f'{{"of": {number}}}')
    (tmp_path / "0/inference_3.json").write_text("{}")
    for _ in range(2):
        collect([tmp_path / "0", tmp_path / "1"], into)
    found = {
        Path(name).name: content for name, content in files(into).items() if not Path(name).name.startswith("result")
    }
    found.pop(INDEX)
    assert found == {"probe_0.json": b'{"of": 0}', "probe_1.json": b'{"of": 1}', "inference_0.json": b"{}"}


def test_nothing_is_overwritten_and_another_driver_is_another_system(tmp_path: Path) -> None:
    into = tmp_path / "results"
    for index, driver in enumerate(["580.65.06", "590.11.02", "580.65.06"]):
        log = write(
            tmp_path / f"{index}/result_0.txt", events(seed=index, own=own(software={**SOFTWARE, "driver": driver}))
        )
        assert collect([log], into).ok
    names = [Path(name) for name in files(into) if name != INDEX]
    assert sorted(name.name for name in names) == ["result_0.txt", "result_0.txt", "result_1.txt"]
    assert len({name.parts[0] for name in names}) == 2


def test_a_changed_or_missing_file_is_found_by_its_hash_and_the_index_can_be_rebuilt(tmp_path: Path) -> None:
    into = tmp_path / "results"
    write_series(tmp_path / "out", 2, own=own())
    collect([tmp_path / "out"], into)
    first, second = sorted(into.rglob("result_*.txt"))
    first.chmod(0o644)
    first.write_text(text(events(own=own())))
    second.unlink()
    for _ in range(2):  # and it stays found
        outcome = collect([], into)
        assert [note.split(":")[0] for _, note in outcome.changed] == [
            "changed since it was collected",
            "gone since it was collected",
        ]
    assert collect([], into, rebuild=True).ok
    assert collect([], into).ok
    index = (into / INDEX).read_bytes()
    (into / INDEX).unlink()
    write_index(into)
    assert (into / INDEX).read_bytes() == index


def test_a_run_is_not_copied_again_beside_its_copy_that_was_changed(tmp_path: Path) -> None:
    """Who then put that back, as he was told to, had the run twice."""
    into = tmp_path / "results"
    write_series(tmp_path / "out", 2, own=own())
    collect([tmp_path / "out"], into)
    first, second = sorted(into.rglob("result_*.txt"))
    content = first.read_bytes()
    first.chmod(0o644)
    first.write_bytes(content.replace(b"Someone", b"Anybody"))
    outcome = collect([tmp_path / "out"], into)
    assert (len(outcome.changed), outcome.collected, len(outcome.already)) == (1, [], 2)
    assert sorted(into.rglob("result_*.txt")) == [first, second]
    first.write_bytes(content)
    assert collect([tmp_path / "out"], into).ok


@pytest.mark.parametrize("name", ["result_1.txt.{bak,old}", "result_1.{}", "telemetry_1.{0.real}"])
def test_a_file_beside_a_log_has_any_name(tmp_path: Path, name: str) -> None:
    """Braces in it broke the collection off after that run, without an index."""
    write_series(tmp_path / "out", 3, own=own())
    (tmp_path / "out" / name).write_text("x")
    outcome = collect([tmp_path / "out"], tmp_path / "results")
    assert len(outcome.collected) == 3 and outcome.ok
    assert [each.read_text() for each in (tmp_path / "results").glob(f"*/ssd/{name}")] == ["x"]


@pytest.mark.parametrize("key", ["submitter", "system", "ruleset", "benchmark", "global_batch_size"])
def test_an_identity_that_is_none_is_left_alone(tmp_path: Path, key: str) -> None:
    """series.json of somebody's own, of whose system nobody knows the name."""
    write_series(tmp_path / "out", 2, own=own())
    told = asdict(identity_of(read(tmp_path / "out/result_0.txt")))
    (tmp_path / "out/series.json").write_text(json.dumps({**told, "system": "kept"}))
    assert identity_of(read(tmp_path / "out/result_0.txt")).system == "kept"
    (tmp_path / "out/series.json").write_text(json.dumps({**told, "system": "kept", key: [5]}))
    assert identity_of(read(tmp_path / "out/result_0.txt")) == SeriesIdentity(**told)
    assert len(collect([tmp_path / "out"], tmp_path / "results").collected) == 2
    assert collect([tmp_path / "out"], tmp_path / "results").ok


def test_what_is_not_collected(tmp_path: Path) -> None:
    write(tmp_path / "out/result_0.txt", events()[:-1])
    (tmp_path / "out/result_1.txt").write_text("nothing")
    write(tmp_path / "out/result_2.txt", [each for each in events() if each["key"] != "submission_benchmark"])
    outcome = collect([tmp_path / "out"], tmp_path / "results")
    assert [why.split(":")[0] for _, why in outcome.refused] == [
        "no run_stop",
        "no line in MLPerf's log format could be read",
        "its submission_benchmark names no benchmark",
    ]


def test_a_folder_without_runs_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    outcome = collect([tmp_path / "runs"], tmp_path / "into")
    assert not outcome.ok and outcome.unread[0].startswith(f"{tmp_path / 'runs'}: no result log in it; name a folder")


def test_failed_runs_are_collected_too(tmp_path: Path) -> None:
    """So that nobody keeps only the good ones."""
    write(tmp_path / "out/result_0.txt", events(status="aborted"))
    assert collect([tmp_path / "out"], tmp_path / "results").ok


def test_a_submitters_system_keeps_its_name(test_data: Path) -> None:
    path = test_data / "mlperf-results/v0.7/NVIDIA/results/dgx1_ngc20.06_pytorch/ssd"
    (series,) = find_series([path])
    assert system_name(series.first) == "dgx1_ngc20.06_pytorch"


def test_no_log_chooses_a_folder_outside(tmp_path: Path) -> None:
    log = events(own=own(configuration_name="../../etc"))
    collect([write(tmp_path / "out/result_0.txt", log)], tmp_path / "results")
    assert {len(Path(name).parts) for name in files(tmp_path / "results")} == {1, 3}, (
        "nothing but system/benchmark/file"
    )
    assert not (tmp_path / "etc").exists()
    log[0]["value"] = "../ssd"
    assert not collect([write(tmp_path / "out/result_1.txt", log)], tmp_path / "results").ok
    assert plain("a b") == "a_b" and plain("../a b/.c").startswith("a_b_.c_")
    assert folder("\u7cfb\u7edf A+B (2)") == "\u7cfb\u7edf A+B (2)"
    assert folder("a/b").startswith("a_b_") and folder("a/b") != folder("a:b") != folder("a_b")
    assert len(folder("x" * 300)) < 140 and not folder("..").startswith(".")


def test_what_two_people_call_by_one_name_gets_two_folders(tmp_path: Path) -> None:
    """Two submitters, two rounds, two batches; names without a Latin letter, and names that differ by a sign."""
    cases = {
        "A/results/dgxa100/ssd": {},
        "B/results/dgxa100/ssd": {"submission_org": "Other"},
        "C/results/dgxa100/ssd": {"gradient_accumulation_steps": 1},
        "D/results/dgxa100/ssd": {"global_batch_size": 1024},
        "E/results/\u7cfb\u7edf\u4e00/ssd": {},
        "E/results/\u7cfb\u7edf\u4e8c/ssd": {},
        "E/results/a+b/ssd": {},
        "E/results/a_b/ssd": {},
    }
    into = tmp_path / "results"
    for index, (folder_, values) in enumerate(cases.items()):
        for run in range(2):
            log = events(seed=10 * index + run, own={"gradient_accumulation_steps": 1} if "C/" in folder_ else {})
            for each in log:
                each["value"] = values.get(each["key"], each["value"])
            write(tmp_path / folder_ / f"result_{run}.txt", log)
        assert len(collect([tmp_path / folder_], into).collected) == 2
    found = find_series([into])
    assert [len(series.records) for series in found] == [2] * len(cases)
    names = {series.folder.parent.name for series in found}
    assert {
        "dgxa100",
        "dgxa100_Other",
        "dgxa100_1.0.0",
        "\u7cfb\u7edf\u4e00",
        "\u7cfb\u7edf\u4e8c",
        "a+b",
        "a_b",
    } <= names
    again = collect([tmp_path], into)
    assert (again.collected, len(again.already)) == ([], 16)


def test_what_lies_beside_a_log_comes_along(tmp_path: Path) -> None:
    package_ = tmp_path / "in/Someone"
    series = write_series(package_ / "results/box/ssd", 2)
    (package_ / "systems").mkdir()
    (package_ / "systems/box.json").write_text('{"submitter": "The submitter", "accelerator_model_name": "X1"}')
    (series / "result_1.json").write_text("{}")
    (series / "result_1.png").write_bytes(b"png")
    (series / "telemetry_1.csv.gz").write_bytes(b"gz")
    (series / "ledger.jsonl").write_text("{}\n")
    into = tmp_path / "collection"
    assert collect([tmp_path / "in"], into).ok
    (found,) = find_series([into])
    assert (found.submitter, found.system, found.description["accelerator_model_name"]) == (
        "The submitter",
        "box",
        "X1",
    )
    there = {path.name for path in found.folder.iterdir()}
    assert {"result_1.json", "result_1.png", "telemetry_1.csv.gz", "result_1.txt", "result_0.txt"} <= there
    assert sum(name.startswith("ledger_") for name in there) == 1
    onward = tmp_path / "onward"
    assert collect([into], onward).ok
    assert {path.relative_to(onward).parts[0] for path in onward.rglob("result_*.txt")} == {"box"}


class Killed(BaseException):
    """Where the process would be gone."""


@pytest.mark.parametrize("files_written", range(1, 6))
def test_a_collect_that_was_killed_is_made_whole_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_written: int
) -> None:
    """Between a log and what lies beside it: a picture was lost for good, and half-written files stayed."""
    out = write_series(tmp_path / "out", 2)
    for number in range(2):
        (out / f"result_{number}.json").write_text(f"{number}")
        (out / f"result_{number}.png").write_bytes(b"png")
    (out / "ledger.jsonl").write_text("{}\n")
    assert collect([out], tmp_path / "whole").ok
    into, replacing, calls = tmp_path / "results", whole.replacing, iter(range(files_written))

    @contextlib.contextmanager
    def until_killed(path: Path, *mode: int) -> Iterator[Any]:
        if next(calls, None) is None:
            path.with_name(f".{path.name}.0123.part").write_bytes(b"half")
            raise Killed
        with replacing(path, *mode) as file:
            yield file

    monkeypatch.setattr(whole, "replacing", until_killed)
    with pytest.raises(Killed):
        collect([out], into)
    monkeypatch.undo()
    assert collect([out], into).ok
    assert files(into) == files(tmp_path / "whole")


def test_two_collects_at_once(tmp_path: Path) -> None:
    write_series(tmp_path / "out", 2)
    into = tmp_path / "results"
    into.mkdir()
    with (into / LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another collect is at work"):
            collect([tmp_path / "out"], into)
    assert len(collect([tmp_path / "out"], into).collected) == 2


def test_what_lies_where_the_lock_belongs_is_named_not_the_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "out", 2)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{LOCK}, the lock of who writes there, cannot be opened .*; remove it"):
        collect([tmp_path / "out"], tmp_path / "results")
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_that_fails_is_not_one_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was: the collect went on beside another's."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_series(tmp_path / "out", 2)
    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(ValueError, match=rf"{LOCK}: cannot be written: Input/output error"):
        collect([tmp_path / "out"], tmp_path / "results")
    assert files(tmp_path / "results") == {}


def test_a_run_that_was_collected_twice_is_noticed(tmp_path: Path) -> None:
    into = tmp_path / "results"
    write_series(tmp_path / "out", 2)
    collect([tmp_path / "out"], into)
    (there,) = {path.parent for path in into.rglob("result_*.txt")}
    (there / "result_2.txt").write_bytes((there / "result_0.txt").read_bytes())
    outcome = collect([], into)
    name = there.relative_to(into).as_posix()
    assert outcome.copies == [(f"{name}/result_2.txt", f"{name}/result_0.txt")] and not outcome.ok


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    log = write(tmp_path / "out/result_0.txt", events())
    for into in (log, Path("/proc/there")):
        with pytest.raises(ValueError, match=r"cannot be written: .*; name another folder with --into"):
            collect([log], into)


def test_one_bad_file_costs_one_line(tmp_path: Path) -> None:
    write_series(tmp_path / "out", 2)
    os.mkfifo(tmp_path / "out/result_2.txt")
    (tmp_path / "out/result_3.txt").symlink_to("/dev/zero")
    (tmp_path / "out/result_4.txt").write_bytes("\ufeff:::MLLOG".encode("utf-16-le"))
    outcome = collect([tmp_path / "out"], tmp_path / "results")
    assert len(outcome.collected) == 2
    assert [why for _, why in outcome.refused] == [
        "no regular file",
        "no regular file",
        "its text is UTF-16, which no tool of MLPerf reads: save it as UTF-8",
    ]


# --- the system description ---


def test_a_description_from_a_runs_own_tables() -> None:
    record = parsed(text(events(own=own())))
    found = sysdesc.describe(record.hardware, record.software, record.image, {"submitter": "Someone"})
    assert found["accelerator_model_name"] == "NVIDIA A100-SXM4-40GB (400W)"
    assert (found["accelerators_per_node"], found["accelerator_memory_capacity"]) == ("8", "40 GiB")
    assert (found["host_processors_per_node"], found["host_processor_core_count"]) == ("2", "64")
    assert found["other_software_stack"] == (
        "driver 580.65.06, cuda 13.0, cudnn 9.24.0, nccl 2.30.7, dali 2.4.0, image sha256:0123"
    )
    assert found["hw_notes"] == "64 of 256 threads usable"
    assert set(sysdesc.to_fill_in(found)) == {
        "division",
        "status",
        "system_name",
        "host_storage_type",
        "host_storage_capacity",
        "accelerator_memory_configuration",
    }


@pytest.mark.parametrize(
    "tables",
    [
        ({}, {}, {}),
        ({"accelerators": 8}, {}, {}),
        ({"accelerators": ["x"], "gpus": 8, "accelerators_unusable": 1}, {}, {}),
        ({"cpu": None, "cores": "x", "gpus": "y", "accelerators": None}, {"torch": 1}, {"id": None}),
    ],
)
def test_a_description_of_nothing_is_all_text_and_marks(tables: tuple[dict[str, Any], ...]) -> None:
    found = sysdesc.describe(*tables, {})
    assert {"host_processors_per_node", "host_processor_core_count"} <= set(sysdesc.to_fill_in(found)), (
        "none is made up"
    )
    assert len(found) == 33 and all(isinstance(value, str) for value in found.values())
    assert is_placeholder(found["submitter"])


def test_a_description_is_of_the_devices_that_are_meant() -> None:
    """The driver tells of hidden ones too (CUDA_VISIBLE_DEVICES), and of a part (MIG) the memory and power of the whole."""
    big = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "power_limit_w": 700.0, "clock_sm_max_mhz": 1980}
    small = {"name": "NVIDIA T1000", "memory_mib": 4096, "power_limit_w": 50.0}

    def found(*names: str) -> tuple[str, str]:
        said = sysdesc.describe({"accelerators": [*names], "gpus": [small, big]}, {}, {}, {})
        return said["accelerator_model_name"], said["accelerator_memory_capacity"]

    unknown = f"{sysdesc.MARK}memory of one accelerator"
    assert found("NVIDIA H100 80GB HBM3") == ("NVIDIA H100 80GB HBM3 (700W)", "80 GiB")
    part = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert found(part) == (part, unknown)
    assert found("NVIDIA T1000", "NVIDIA H100 80GB HBM3") == ("NVIDIA T1000 + NVIDIA H100 80GB HBM3", unknown)


def test_miopen_is_no_cudnn() -> None:
    found = sysdesc.software_stack({"rocm": "7.1.25424", "cudnn": "3005001", "cuda": "none"}, {})
    assert "miopen 3.5.1" in found and "cudnn" not in found


@pytest.mark.parametrize("cpu", ["Arm Neoverse-V2", "aarch64 implementer 0x41 part 0xfff"])
def test_an_arm_processors_name_is_a_persons_to_say(cpu: str) -> None:
    """Its kernel tells of whose design its cores are: Grace's are Graviton's."""
    said = sysdesc.describe({"cpu": cpu}, {}, {}, {})["host_processor_model_name"]
    assert said == f"{sysdesc.MARK}processor, whose cores are {cpu}"
    record = parsed(text(events(own=own(hardware={**HARDWARE, "cpu": cpu}))))
    description = {"host_processor_model_name": "NVIDIA Grace CPU", "host_processors_per_node": "2"}
    assert not list(machine.disagreements(description, record))


def test_a_disk_is_one_by_however_many_ways_it_is_reached(tmp_path: Path) -> None:
    for name, files in {
        "nvme0n1": {"wwid": "eui.0025388b11b2bcd1"},
        "nvme0c0n1": {"wwid": "eui.0025388b11b2bcd1", "hidden": "1"},
        "nvme0c1n1": {"wwid": "eui.0025388b11b2bcd1", "hidden": "1"},
        "nvme1n1": {"wwid": "eui.0025388b11b2bcd1"},  # the same, where the kernel does not put paths together
        "nvme2n1": {"wwid": "eui.0025388b11b2bcd2"},
        "sda": {"device/wwid": "naa.5000cca2"},
        "sdb": {"device/wwid": "naa.5000cca2"},
        "sdc": {"removable": "1"},
        "xvda": {},
        "xvdb": {},
    }.items():
        for file, said in {"size": "1953125000", "queue/rotational": "0", **files}.items():
            path = tmp_path / f"sys/block/{name}" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{said}\n")
    assert sysdesc.storage(tmp_path) == {
        "host_storage_type": "NVMe+SSD+virtual disk",
        "host_storage_capacity": "5x 1000 GB",
    }


def test_disks_as_the_kernel_shows_them(tmp_path: Path) -> None:
    for name, sectors, rotational in (
        ("nvme0n1", 3_750_748_848, 0),
        ("nvme1n1", 3_750_748_848, 0),
        ("sda", 1_000_215_216, 1),
        ("loop0", 8, 0),
    ):
        (tmp_path / f"sys/block/{name}/queue").mkdir(parents=True)
        (tmp_path / f"sys/block/{name}/size").write_text(f"{sectors}\n")
        (tmp_path / f"sys/block/{name}/queue/rotational").write_text(f"{rotational}\n")
    assert sysdesc.storage(tmp_path) == {
        "host_storage_type": "NVMe+HDD",
        "host_storage_capacity": "2x 1920 GB + 512 GB",
    }
    assert sysdesc.storage(tmp_path / "nothing") == {}
