"""What arms may differ in unseen: variables of their environment, and which of a machine's GPUs they used."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison import identity
from harness.comparison.comparison import Comparison
from harness.comparison.judging import floor
from harness.comparison.reporting import documents, page
from harness.comparison.runs import find
from harness.results import logfile, telemetry
from tests.harness.comparison import arms
from tests.harness.comparison.arms import GPU, NEW, OLD, Change, judged
from tests.harness.comparison.test_probes import put as put_probe

EIGHT = [{**GPU, "index": index, "uuid": f"GPU-{index}"} for index in range(8)]


def logged(**values: Any) -> Change:
    """Lines behind the one of the hardware; of what is None there is none."""

    def change(events: list[dict[str, Any]]) -> None:
        at = next(index for index, each in enumerate(events) if each["key"] == "hardware")
        more = [{**events[at], "key": key, "value": value} for key, value in values.items() if value is not None]
        events[at + 1 : at + 1] = more

    return change


def in_environments(
    root: Path, a: dict[str, Any] | None, b: dict[str, Any] | None, *, slower: float = 1.0, **question: Any
) -> Comparison:
    changes = (logged(environment=each) for each in (a, b))
    sides = [{"change": change, "software": software} for change, software in zip(changes, (OLD, NEW), strict=True)]
    return judged(arms.in_turns(root, slower=slower, a=sides[0], b=sides[1]), **question)


def fields_of(found: Comparison, standing: str) -> dict[str, tuple[Sequence[str], ...]]:
    return {each.field: each.values for each in found.comparability.differences if each.standing == standing}


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE"])
def test_a_variable_of_one_arm_alone_is_named_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    found = in_environments(tmp_path, {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1", name: "SSE41"}, slower=5.44)
    assert fields_of(found, "refused") == {f"environment.{name}": (("(not set)",), ("SSE41",))}
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 4
    assert f"environment.{name} differs on GPU-1: (not set) and SSE41" in " ".join(capsys.readouterr().out.split())
    for text in (json.dumps(documents.as_json(found)), documents.markdown(found), page.render(found)):
        assert name in text.replace("\\", "")


def test_it_may_be_what_is_compared(tmp_path: Path) -> None:
    two = [{"CUDA_FORCE_PTX_JIT": value} for value in "01"]
    found = in_environments(tmp_path, *two, allowed=("environment.CUDA_FORCE_PTX_JIT",))
    assert found.comparability.ok
    assert fields_of(found, "allowed")["environment.CUDA_FORCE_PTX_JIT"] == (("0",), ("1",))
    assert "| environment.CUDA_FORCE_PTX_JIT | 0 | 1 | allowed |" in documents.markdown(found).replace("\\", "")


def test_set_to_nothing_is_not_unset(tmp_path: Path) -> None:
    found = in_environments(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}, {})
    assert fields_of(found, "refused") == {"environment.CUDA_VISIBLE_DEVICES": (("(empty)",), ("(not set)",))}


def test_logs_that_do_not_tell_it_compare_as_before(tmp_path: Path) -> None:
    assert in_environments(tmp_path / "both", None, None).comparability.ok
    one = in_environments(tmp_path / "one", None, {"OMP_NUM_THREADS": "1"})
    assert one.comparability.ok
    assert fields_of(one, "not told") == {"environment.OMP_NUM_THREADS": ((), ("1",))}


@pytest.mark.parametrize(
    ("a", "b"), [({}, {"NCCL_P2P_DISABLE": "1"}), ({"NCCL_P2P_DISABLE": "0"}, {"NCCL_P2P_DISABLE": "1"})]
)
def test_older_logs_of_several_ranks_told_what_their_collectives_were_told(
    tmp_path: Path, a: dict[str, str], b: dict[str, str]
) -> None:
    both = [logged(collectives={"backend": "nccl", "environment": each}) for each in (a, b)]
    found = judged(arms.in_turns(tmp_path, slower=1.03, a={"change": both[0]}, b={"change": both[1]}))
    assert fields_of(found, "refused") == {
        "environment.NCCL_P2P_DISABLE": ((a.get("NCCL_P2P_DISABLE", "(not set)"),), ("1",))
    }


# --- which of eight GPUs ---


def on_gpus(uuids: list[str] | None, **more: Any) -> dict[str, Any]:
    def change(events: list[dict[str, Any]]) -> None:
        arms.put("hardware", {"gpus": EIGHT})(events)
        logged(device_uuids=uuids, environment={}, **more)(events)

    return {"change": change, "made": arms.made(accelerators=1, batch=114)}


def eight_sampled(log: Path, busy: int, *, clock: float = 1980.0, ecc_of_idle: int = 0) -> None:
    """Telemetry of all eight, of which one works and the others idle."""
    arms.telemetry(log, clock=clock)
    path = log.with_name(log.name.replace("result_", "telemetry_")).with_suffix(".jsonl")
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        (works,) = line["gpus"]
        idles = {**works, **({"clock_sm_mhz": 345.0, "power_w": 70.0} if line["event"] == "sample" else {})}
        if line["event"] == "end":
            idles = {"during_run": {**works["during_run"], "ecc_uncorrected": ecc_of_idle}}
        each = [dict(works if index == busy else idles) for index in range(8)]
        if line["event"] == "begin":
            each = [{**gpu, "uuid": f"GPU-{index}"} for index, gpu in enumerate(each)]
        lines.append(json.dumps({**line, "gpus": each}) + "\n")
    path.write_text("".join(lines))


def test_another_gpu_of_the_same_machine_is_another_host(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.03, a=on_gpus(["GPU-0"]), b=on_gpus(["GPU-5"]))
    found = judged((a, b))
    assert not found.comparability.ok
    assert "not on the same of its GPUs" in found.comparability.refusals[0]
    assert judged((a, b), allowed=("host",)).comparability.ok


def test_the_same_gpu_is_the_same_host_however_it_was_chosen(tmp_path: Path) -> None:
    """And of a machine whose log says nothing of its GPUs in use, the whole machine is, as before."""
    sides = [on_gpus(["GPU-5"], software={}) for _ in "ab"]
    both = judged(arms.in_turns(tmp_path / "told", a=sides[0], b=sides[1]))
    assert both.comparability.ok and {run.host for run in both.runs} == {"GPU-5"}
    assert [gpu["index"] for gpu in both.runs[0].gpus] == [5]
    untold = judged(arms.in_turns(tmp_path / "untold", a=on_gpus(None), b=on_gpus(None)))
    assert untold.comparability.ok
    assert {run.host for run in untold.runs} == {identity.host({"gpus": EIGHT})}
    assert len(untold.runs[0].gpus) == 8
    assert any("do not tell which of their machine's GPUs" in each for each in untold.comparability.notes)
    assert not both.comparability.notes


def test_how_a_gpu_was_named_is_no_difference_where_its_uuid_is_told(tmp_path: Path) -> None:
    def named(value: str) -> Change:
        def change(events: list[dict[str, Any]]) -> None:
            logged(device_uuids=["GPU-1"], environment={"CUDA_VISIBLE_DEVICES": value})(events)

        return change

    found = judged(arms.in_turns(tmp_path, a={"change": named("0")}, b={"change": named("GPU-1")}))
    assert found.comparability.ok and not found.comparability.differences


def test_nodes_are_told_apart_by_all_their_gpus(tmp_path: Path) -> None:
    first = arms.write(tmp_path / "x", 0, change=logged(device_uuids=["GPU-1", "GPU-far"]))
    other = arms.write(tmp_path / "x", 1, change=logged(device_uuids=["GPU-1", "GPU-farther"]))
    hosts = {identity.host(record.hardware, record.device_uuids) for record in map(logfile.read, (first, other))}
    assert len(hosts) == 2
    assert all(len(run.gpus) == 1 for run in find(str(tmp_path / "x"), 0))


def test_telemetry_is_of_the_gpu_that_was_used(tmp_path: Path) -> None:
    log = arms.write(tmp_path, 0, **on_gpus(["GPU-5"]))
    eight_sampled(log, 5, clock=1410, ecc_of_idle=3)
    found = telemetry.beside(logfile.read(log))
    assert found is not None
    assert (found.gpus, found.clock_sm_mhz, found.power_w, found.ecc_uncorrected) == (1, 1410, 600, 0)

    log = arms.write(tmp_path, 1, **on_gpus(None))
    eight_sampled(log, 5, clock=1410, ecc_of_idle=3)
    found = telemetry.beside(logfile.read(log))
    assert found is not None
    assert (found.gpus, found.clock_sm_mhz, found.ecc_uncorrected) == (8, 345, 21), "all, where it is not told"


def test_slow_clocks_of_the_used_gpu_are_seen_beside_idle_ones(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.03, a=on_gpus(["GPU-5"]), b=on_gpus(["GPU-5"]))
    for folder, clock in ((a, 1980.0), (b, 1410.0)):
        for log in sorted(folder.glob("result_*.txt")):
            eight_sampled(log, 5, clock=clock, ecc_of_idle=3)
    found = judged((a, b))
    assert found.word == "SUSPECT"
    assert [each.text.split(".")[0] for each in found.symptoms] == ["their SM clocks differ: 1980 and 1410 MHz"]


def test_energy_of_one_machine_is_not_shared_out_over_the_images_of_two(tmp_path: Path) -> None:
    log = arms.write(tmp_path, 0, change=logged(device_uuids=["GPU-1", "GPU-far"]))
    arms.telemetry(log)
    record = logfile.read(log)
    found = telemetry.beside(record)
    assert found is not None and found.energy_j and telemetry.joules_per_image(record, found) is None


def test_a_probe_of_another_gpu_does_not_speak_for_the_runs(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, a=on_gpus(["GPU-5"]), b=on_gpus(["GPU-5"]))
    for folder, uuids in ((a, ["GPU-5"]), (b, ["GPU-0"])):
        put_probe(folder, folder / "result_0.txt", device_uuids=uuids)
    found = judged((a, b)).probes
    assert found.counts == (1, 0) and "it is of another host" in found.notes[0]
    put_probe(b, b / "result_0.txt")  # an older one, of the machine
    assert judged((a, b)).probes.counts == (1, 1)


def test_a_floor_measured_before_logs_told_gpus_is_still_the_machine_s(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, a=on_gpus(["GPU-5"]), b=on_gpus(["GPU-5"]))
    runs = [*find(str(a), 0), *find(str(b), 1)]
    content = {"configuration_sha256": runs[0].record.configuration_sha256, "floors": {"epoch_seconds": 0.01}}
    for host, there in (("GPU-0", False), (runs[0].machine, True), ("GPU-5", True)):
        (tmp_path / floor.FILE).write_text(json.dumps({**content, "host": host}))
        assert (floor.find(runs) is not None) == there


def test_the_bundle_has_both_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uuid = "GPU-7c8e4c1e-0f0b-44c5-9c55-2b0f3d5e9c11"
    told = {
        "LD_LIBRARY_PATH": "/usr/lib:/home/alice/lib",
        "CUDA_VISIBLE_DEVICES": uuid,
        "NCCL_HOSTID": "node17",
        "OMP_NUM_THREADS": "7",
    }
    each = {"gpu": {"uuid": uuid}, "change": logged(environment=told, device_uuids=[uuid])}
    a, b = arms.in_turns(tmp_path, a=each, b=each)
    target = tmp_path / "for_vendor.tar"
    assert main(["compare", str(a), str(b), "--bundle", str(target)]) == 0
    capsys.readouterr()
    with tarfile.open(target) as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    for name, text in texts.items():
        for secret in (uuid, uuid[4:], "alice", "node17"):
            assert secret not in text, name
    (first, *_) = json.loads(texts["comparison/environment.json"])
    assert first["environment"]["OMP_NUM_THREADS"] == "7"
    assert first["environment"]["LD_LIBRARY_PATH"].startswith("/usr/lib:")
    assert first["environment"]["CUDA_VISIBLE_DEVICES"] == first["device_uuids"][0], "one stand-in for one GPU"
