"""Ranks that disagree, do not come or cannot meet: one sentence, the right code, nothing half-written. The slowest, named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import config
from harness.contract import Context, NotSuitable
from harness.execution import checkpoint, lifeline, meeting, preparation, process_group, provenance, signals, slowest
from harness.execution.context import Launch
from harness.launch import ranks as launched
from harness.launch import watchdog
from harness.request import Request
from harness.results import slowest as slowest_read
from harness.system import host
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import environment, events, run, stop
from tests.harness.execution.test_ways_out import by_hand
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy


def test_a_world_without_a_rank_is_no_run_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"WORLD_SIZE=4 is set, .* but RANK is not"):
        Launch.from_environment({"WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "1"})
    assert not Launch.from_environment({"WORLD_SIZE": "1"}).as_rank


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}, "task 3 of 8 that srun started"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "task 0 of 2 that mpirun started"),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "task 1 of 4 that mpiexec started"),
    ],
)
def test_tasks_of_a_launcher_are_not_so_many_runs(variables: dict[str, str], said: str) -> None:
    """`srun -n 8 harness run X` was eight runs on one machine, each of which called itself a success."""
    with pytest.raises(ValueError, match=f"{said}, and each of them would be a whole run of its own"):
        Launch.from_environment(variables)
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert Launch.from_environment({**variables, **ranks}).as_rank
    for alone in (
        {"NODE_RANK": "1"},
        {"SLURM_PTY_PORT": "1"},
        dict.fromkeys(variables, "1"),
        dict.fromkeys(variables, ""),
    ):
        assert not Launch.from_environment({**variables, **alone}).as_rank
    with pytest.raises(ValueError, match=f"take the variable away: env -u {next(iter(variables))}"):
        Launch.of_series(variables)  # each would be a series


@pytest.mark.parametrize(
    ("meeting", "said"),
    [
        ({"MASTER_PORT": "29500"}, "the ranks cannot meet at ?:29500 (MASTER_ADDR, MASTER_PORT): both must be set"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"}, "cannot meet at 127.0.0.1:http"),
        ({"MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "29500"}, "cannot meet at no-such-host.invalid:29500"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_at_once(tmp_path: Path, meeting: Mapping[str, str], said: str) -> None:
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    told = {"MASTER_ADDR": "", "MASTER_PORT": "", **rank, **meeting}
    found = run(toy.write(tmp_path, toy.raw(ranks=2)), "--out", tmp_path / "out", **told)
    assert found.returncode == 2
    assert said in found.stdout
    assert "Traceback" not in found.stdout + found.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["refused_0.txt"]


@pytest.mark.long
def test_a_folder_called_harness_where_a_run_is_begun_is_none_of_its_ranks(tmp_path: Path) -> None:
    """run_and_time.sh keeps the current folder off Python's path; the ranks that it started had it there again."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text('raise SystemExit("another harness")')
    words = ["-P", "-m", "harness", "run", toy.write(tmp_path, toy.raw(ranks=2)), "--out", "out"]
    variables = environment(PYTHONPATH=str(CHECKOUT), HARNESS_BENCHMARKS=str(CHECKOUT / "tests"))
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setattr(meeting, "ALL_S", 2.0)
    for name, value in {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port),
        "RANK": "0",
        "WORLD_SIZE": "3",
    }.items():
        monkeypatch.setenv(name, value)
    here = Context("cpu", world_size=3)
    with (
        pytest.raises(ValueError, match=r"of 3 ranks 2 did not come to 127\.0\.0\.1:\d+ .* within 2 s: rank 1, 2\."),
        process_group.joined(here),
    ):
        raise AssertionError("nobody else is there")


@pytest.mark.long
def test_ranks_with_other_data_or_other_code_say_so(tmp_path: Path, free_port: int) -> None:
    path = toy.write(tmp_path, toy.raw(ranks=2))
    for name, numbers in (("one", "8"), ("other", "9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "numbers").write_text(numbers)
    words = [(path, "--data-dir", tmp_path / name) for name in ("one", "other")]
    ended = by_hand(tmp_path, *words, port=free_port, machines=2)
    assert [code for code, _ in ended] == [2, 2], ended
    assert "rank 1 was started with data of digest 9" in ended[0][1]
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["refused_0.txt"]


def test_a_run_is_of_one_kind_of_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log describes rank 0's alone: a node with another driver, or another GPU, was nowhere to be read."""

    class Found:
        names = ("NVIDIA H100", "NVIDIA H100")

        def software(self) -> dict[str, object]:
            return {"driver": "580.65.06"}

    class Machine:
        chosen = Found()

    monkeypatch.setattr(preparation.context, "this_machine", lambda _: Machine())
    assert preparation.machine("cuda") == {"accelerators": "NVIDIA H100", "the driver": "580.65.06"}
    assert preparation.machine("cpu") == {"the processor": host.read().cpu.model}


@pytest.mark.parametrize(("drivers", "fine"), [(("580.65.06", "580.65.06"), True), (("580.65.06", "590.1"), False)])
def test_machines_of_another_kind_are_refused(
    monkeypatch: pytest.MonkeyPatch, drivers: tuple[str, str], fine: bool
) -> None:
    def of_both(into: list[Any], mine: tuple[Any, ...]) -> None:
        asked, _, seed, (_, *rest) = mine
        into[:] = [(asked, {"the driver": driver}, seed, (f"node{rank}", *rest)) for rank, driver in enumerate(drivers)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", of_both)
    here = Context("cpu", world_size=2)
    if fine:
        assert process_group.agreed(here, {"--seed": 1}, {"the driver": drivers[0]})[1].hosts == ("node0", "node1")
        return
    with pytest.raises(
        NotSuitable, match=r"node1, of rank 1, has the driver 590\.1, that of rank 0 580.*nodes that are alike"
    ):
        process_group.agreed(here, {"--seed": 1}, {"the driver": drivers[0]})


class Gathered(Exception):
    """What a rank would tell the others, and no more."""


def asked_of(monkeypatch: pytest.MonkeyPatch, kept: Path, *, resumed: bool = False, **asked: Any) -> dict[str, Any]:
    """What a rank that was started so holds against the others."""

    def told(_: Context, what: dict[str, Any], machine: dict[str, Any]) -> None:
        raise Gathered(what)

    monkeypatch.setattr(process_group, "agreed", told)
    configuration = config.parse(toy.raw(ranks=2), name="toy", source="toy")
    request = Request(str(kept), seed=7, **asked)
    run: Any = SimpleNamespace(configuration=configuration, request=request, checkpoints=kept)
    found = checkpoint.Checkpoint(1, 7, configuration.sha256, {}) if resumed else None
    nowhere: Any = None
    with pytest.raises(Gathered) as gathered:
        preparation.agree(run, Context("cpu", world_size=2, data_dir=kept), nowhere, found)
    what: dict[str, Any] = gathered.value.args[0]
    return what


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"deterministic": True}, "--deterministic"),
        ({"chosen": '{"precision": "fp32"}'}, "--chosen"),
        ({"checkpoint_dir": Path("kept")}, "--checkpoint-dir"),
    ],
)
def test_ranks_agree_on_what_decides_which_collectives_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], name: str
) -> None:
    """One that was started with another --checkpoint-dir, by hand, waited for the others' states for ever."""
    plain, other = (asked_of(monkeypatch, tmp_path, **each) for each in ({}, asked))
    assert {each for each in plain if plain[each] != other[each]} == {name}


def test_ranks_keep_their_checkpoints_in_folders_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (asked_of(monkeypatch, tmp_path, checkpoint_dir=Path(each)) for each in ("/scratch/0", "/scratch/1"))
    assert one == other


def test_ranks_agree_on_the_libraries_that_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without DALI read by another backend, in another order: images came twice, and others never."""
    before = asked_of(monkeypatch, tmp_path)
    there = provenance.libraries()
    monkeypatch.setattr(provenance, "libraries", lambda: {**there, "dali": "0.1", "cpu_capability": "another"})
    after = asked_of(monkeypatch, tmp_path)
    assert {each for each in before if before[each] != after[each]} == {"dali"}


def test_ranks_agree_on_the_checkpoint_that_they_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads its own disk's: of one epoch and seed with other weights they would train networks of their own."""
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint.NAME).write_text(name)
        found.append(asked_of(monkeypatch, tmp_path / name, resumed=True))
    assert {each for each in found[0] if found[0][each] != found[1][each]} == {"a checkpoint of SHA-256"}


ONE_DEVICE = ("f00d", "beef", "f00d")


@pytest.mark.parametrize(
    ("uuids", "whole", "fine"),
    [
        (ONE_DEVICE, True, False),
        (("f00d", "beef", None), True, True),
        ((None, None, None), True, True),
        (ONE_DEVICE, False, True),
    ],
    ids=["twice", "their own", "none is told", "MIG"],
)
def test_two_ranks_on_one_device_are_refused(
    monkeypatch: pytest.MonkeyPatch, uuids: tuple[str | None, ...], whole: bool, fine: bool
) -> None:
    """Each in a container of its own sees its GPU as cuda:0, and both trained there, at half the speed."""

    def of_all(into: list[Any], mine: tuple[Any, ...]) -> None:
        *asked, (_, _, *rest) = mine
        into[:] = [(*asked, (f"pod{rank}", uuid, *rest)) for rank, uuid in enumerate(uuids)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", of_all)
    monkeypatch.setattr(process_group, "part_of_a_device", lambda _: not whole)
    here = Context("cpu", world_size=3)
    if fine:
        assert process_group.agreed(here, {})[1].uuids == uuids
        return
    with pytest.raises(
        ValueError, match=r"rank 0 on pod0 and rank 2 on pod2 were given one device, of UUID f00d: give"
    ):
        process_group.agreed(here, {})


def test_parts_of_one_device_that_one_container_has_are_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU may be divided (AMD's CPX) into devices that all have its UUID."""
    local_ranks = [0, 1]

    def of_both(into: list[Any], mine: tuple[Any, ...]) -> None:
        *asked, (_, _, told, _) = mine
        into[:] = [(*asked, ("node", "f00d", told, local_rank)) for local_rank in local_ranks]

    monkeypatch.setattr(torch.distributed, "all_gather_object", of_both)
    assert process_group.agreed(Context("cpu", world_size=2), {})[1].local_ranks == (0, 1)
    local_ranks[1] = 0  # two containers with their machine's name
    with pytest.raises(ValueError, match="rank 0 on node and rank 1 on node were given one device"):
        process_group.agreed(Context("cpu", world_size=2), {})


AS_NCCL = """
import atexit, sys, time
import torch.distributed as dist
def destroy():
    time.sleep(1200 if sys.exc_info()[0] is not None else 0)  # until all ranks come, as ncclCommDestroy does
dist.destroy_process_group = destroy
atexit.register(time.sleep, 1200)  # as a group's destructor
from harness.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_a_rank_that_breaks_does_not_wait_for_the_others_to_end_their_group(tmp_path: Path, free_port: int) -> None:
    """They may be in a collective that it never joins: it hung, and nobody ever read why."""
    path = toy.write(tmp_path, toy.raw("cannot warm up", ranks=2))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "GLOO_SOCKET_IFNAME": "lo"}
    of_both = {**meeting, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    words = [sys.executable, "-c", AS_NCCL, str(path), "--out", str(tmp_path / "out")]
    ranks = [
        subprocess.Popen(
            words, cwd=CHECKOUT, env=environment(**of_both, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [each.communicate(timeout=PATIENCE_S)[0] for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    assert [each.returncode for each in ranks] == [5, 5], said
    assert "rank 1: RuntimeError: the toy broke" in said[1]
    assert "aborted: RuntimeError: the toy broke" in said[0], "its last words too"
    assert stop(tmp_path / "out" / "refused_0.txt")["reason"] == "RuntimeError: the toy broke"


@pytest.mark.parametrize(
    ("rank", "part", "left"),
    [
        (0, "training", "result_0.txt"),
        (1, "init", "refused_0.txt"),
        pytest.param(1, "training", "result_0.txt", marks=pytest.mark.long),
        pytest.param(0, "init", "refused_0.txt", marks=pytest.mark.long),
    ],
)
def test_a_rank_that_a_library_ends_is_no_target_that_was_missed(
    tmp_path: Path, rank: int, part: str, left: str
) -> None:
    """Its exit(1) was taken for "epochs spent": exit code 1, no word of the rank, and a result's name for what never began."""
    path = toy.write(tmp_path, toy.raw(f"rank {rank} exits in {part}", ranks=2))
    finished = run(path, "--out", tmp_path / "out")
    assert finished.returncode == 5, finished.stderr
    assert re.search(r"^rank \d ended with exit code", finished.stderr, re.MULTILINE), (
        "the other may be the first to end"
    )
    assert [each.name for each in (tmp_path / "out").glob("re*.txt")] == [left]
    assert stop(tmp_path / "out" / left)["status"] == "aborted"


def test_where_no_log_is_kept_nobody_ends_with_the_target_missed() -> None:
    """That is rank 0's to end with, on the machine that keeps the log."""
    assert tuple(launched.believed(code, None) for code in (1, 0, 6)) == (5, 0, 6)


def test_a_rank_has_time_to_say_which_signal_came_before_it_says_that_another_is_gone() -> None:
    assert lifeline.GONE_S > signals.GRACE_S


def test_the_first_rank_of_each_machine_is_found_however_they_were_dealt_out() -> None:
    """As srun -m cyclic does, rank 1 on the second machine, which else nobody would watch."""
    dealt = process_group.Ranks(("a", "b", "a", "b"), (None,) * 4, ({},) * 4, (0, 0, 1, 1))
    assert dealt.machines == {0: "a", 1: "b"}


def test_the_watchdog_is_there_before_torch_gives_the_ranks_up() -> None:
    assert process_group.COLLECTIVE_TIMEOUT.total_seconds() > watchdog.PATIENCE_S + watchdog.GRACE_S + watchdog.STACKS_S


def test_a_checkpoint_of_another_number_of_ranks_is_refused_in_words(tmp_path: Path) -> None:
    two, four = (config.parse(toy.raw(ranks=ranks), name="toy", source="toy") for ranks in (2, 4))
    checkpoint.save(tmp_path, checkpoint.Checkpoint(1, 7, two.sha256, {}, ranks=2))
    with pytest.raises(
        ValueError, match=r"of a run on 2 ranks, and the configuration asks for 4: .* Resume on as many"
    ):
        checkpoint.load(tmp_path, four)
    assert checkpoint.load(tmp_path, two).ranks == 2
    old = replace(checkpoint.load(tmp_path, two), ranks=0)
    checkpoint.save(tmp_path, old)
    assert checkpoint.load(tmp_path, two) == old, "older versions did not say"


def test_the_slowest_rank_is_the_one_that_waits_least() -> None:
    found = slowest.compared([100.0, 140.0, 90.0, 100.0], ["a", "a", "b", "b"])
    assert (found.rank, found.median_ms, found.stands_out) == (1, 100.0, True)
    assert str(found) == "rank 1 on a is the slowest: 140 ms a step of its own, the median rank 100 ms"
    assert found.logged == {"slowest": 1, "host": "a", "median_ms": 100.0, "step_ms": [100.0, 140.0, 90.0, 100.0]}
    assert not slowest.compared([100.0, 105.0], ["a", "b"]).stands_out
    assert slowest.STANDS_OUT == slowest_read.STANDS_OUT, "compare and the run mean the same"


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ({0: (-9, 131), 1: (6, 100)}, "rank 1 ended with exit code 6"),  # torch killed rank 0, which did not end
        ({0: (-9, 101), 1: (5, 100)}, "rank 0 was ended by SIGKILL: the kernel?"),  # the kernel did, and rank 1 lost it
        ({0: (-15, 101), 1: (130, 100), 2: (6, 101)}, "rank 2 ended with exit code 6"),
        ({0: (-9, 131), 1: (-11, 100)}, "rank 1 was ended by SIGSEGV"),
    ],
)
def test_the_rank_that_took_the_others_with_it(ended: dict[int, tuple[int, int]], reason: str) -> None:
    failures: Any = {rank: SimpleNamespace(exitcode=code, timestamp=at) for rank, (code, at) in ended.items()}
    kills: Any = SimpleNamespace(why=lambda: "the kernel?")
    assert launched._cause(failures, kills)[1] == reason


@pytest.mark.long
def test_a_run_of_three_ranks_names_its_slowest_each_epoch_and_how_they_talk(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw("rank 1 is slow", ranks=3))
    finished = run(path, "--out", tmp_path / "out", GLOO_SOCKET_IFNAME="lo", NCCL_DEBUG="WARN")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = [each for each in events(tmp_path / "out" / "result_0.txt") if each["key"] == "step_ms_by_rank"]
    assert [each["metadata"]["epoch_num"] for each in found] == [1, 2, 3]
    assert {each["value"]["slowest"] for each in found} == {1}
    assert all(len(each["value"]["step_ms"]) == 3 for each in found)
    assert "is the slowest: " in finished.stdout
    told = {each["key"]: each["value"] for each in events(tmp_path / "out" / "result_0.txt")}
    assert told["collectives"] == {"backend": "gloo"}
    assert {"GLOO_SOCKET_IFNAME": "lo", "NCCL_DEBUG": "WARN"}.items() <= told["environment"].items()
    assert not [name for name in told["environment"] if name.startswith("TORCHELASTIC")], "another for each run"


def test_no_rank_is_the_slowest_where_all_wait_within_a_step(tmp_path: Path) -> None:
    """As those that share batch norm: whichever waited least by its clock was named, the slow one or not."""
    finished = run(toy.write(tmp_path, toy.raw("ranks meet", ranks=2)), "--out", tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    keys = [each["key"] for each in events(tmp_path / "result_0.txt")]
    assert "throughput" in keys and "step_ms_by_rank" not in keys


def test_one_rank_says_nothing_of_others(tmp_path: Path) -> None:
    assert run(toy.write(tmp_path, toy.raw()), "--out", tmp_path).returncode == 0
    keys = {each["key"] for each in events(tmp_path / "result_0.txt")}
    assert not {"step_ms_by_rank", "collectives"} & keys


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_without_a_folder_for_temporary_files_is_told_of_the_variable(ranks: int, tmp_path: Path) -> None:
    """It was "[Errno 2] No usable temporary directory found"."""
    none = "import tempfile; tempfile.tempdir = None; tempfile._candidate_tempdir_list = lambda: ['/proc']"
    done = run(toy.write(tmp_path, toy.raw(ranks=ranks)), "--out", tmp_path, first=none)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "in ['/proc']): name one with TMPDIR" in done.stdout + done.stderr
