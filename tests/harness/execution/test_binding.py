"""Ranks on their processors: the kernel is asked what it did, in processes of their own, and the log says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import config
from harness.contract import Context, NotSuitable
from harness.execution import binding
from harness.execution.binding import Bound
from harness.execution.context import Launch
from harness.execution.lifecycle import execute
from harness.request import Request
from harness.results import logfile
from harness.system import numa
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import environment, run
from tests.harness.system import recorded
from tests.toy.configuration import raw, write

SCRIPT = """
import os, threading, time
from harness.contract import Context
from harness.execution import binding
done = threading.Event()
threading.Thread(target=done.wait, daemon=True).start()  # one that is there already
bound = binding.bind("cores", Context("cpu", rank={rank}, local_rank={rank}, world_size=2), 2)
print([sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")])
print(sorted(bound.cpus), bound.memory, binding.memory_policy())
done.set()
"""


@pytest.mark.skipif(
    sum(len(each.cores) for each in numa.nodes(os.sched_getaffinity(0))) < 2,
    reason="two cores are needed for two ranks",
)
def test_every_thread_of_a_rank_is_on_its_cores() -> None:
    found = []
    for rank in (0, 1):
        script = SCRIPT.format(rank=rank)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=CHECKOUT)
        assert done.returncode == 0 or "set_mempolicy" in done.stderr, done.stderr
        if done.returncode != 0:
            pytest.skip("this kernel or container allows no memory policy")
        threads, said = done.stdout.splitlines()
        cpus = said.partition("]")[0] + "]"
        assert threads == f"[{cpus}, {cpus}]"
        assert len(re.findall(r"prefer \d+", said)) == 2  # the node that is nearest
        found.append(cpus)
    assert found[0] != found[1]


def bound(cpus: set[int], found: set[int] | None = None, asked: numa.Way = "none") -> Bound:
    return Bound(asked, frozenset(found or cpus), frozenset(cpus), "default")


def test_ranks_share_threads_with_whom_they_share_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What srun bound to four processors each has four threads each, and not a quarter of them."""
    by_launcher = [("a", bound({0, 1})), ("a", bound({2, 3})), ("b", bound({0, 1})), ("b", bound({0, 1}))]
    assert [binding.among(by_launcher, rank) for rank in range(4)] == [(1, 2), (1, 2), (2, 2), (2, 2)]
    monkeypatch.setattr(binding.host, "read", lambda: recorded.HOST)
    assert recorded.HOST.cpu.quota is None
    assert [binding.threads(2, *binding.among(by_launcher, rank)) for rank in (0, 2)] == [2, 1]


def test_ranks_dealt_out_to_machines_in_turn_share_with_those_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As srun -m cyclic does: by ranks' numbers half of them had all processors of a machine, and half shared another's."""
    told: list[Any] = []
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(binding, "_gathered", lambda _, mine: told.append(mine) or [mine] * 4)
    for rank, (node, local_rank) in enumerate((("a", 0), ("b", 0), ("a", 1), ("b", 1))):
        monkeypatch.setattr(binding.platform, "node", lambda node=node: node)
        binding.settled(Context("cpu", rank, local_rank, 4), bound({0, 1}))
    assert [binding.among(told, rank) for rank in range(4)] == [(2, 2)] * 4


def test_no_more_threads_than_a_containers_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = replace(recorded.HOST.cpu, quota=4.0)
    monkeypatch.setattr(binding.host, "read", lambda: replace(recorded.HOST, cpu=cpu))
    assert [binding.threads(64), binding.threads(64, 2, 2), binding.threads(3)] == [4, 2, 3]
    assert binding.threads(64, 8, 8) == 1


def test_ranks_that_srun_bound_are_not_bound_again() -> None:
    twice = [("a", bound({0}, {0, 1}, "cores")), ("a", bound({2}, {2, 3}, "cores"))]
    with pytest.raises(ValueError, match=r"rank 0 to processors 0-1 and rank 1 to 2-3; .*srun --cpu-bind=none"):
        binding.among(twice, 1)


@pytest.mark.long
def test_where_every_rank_ran_is_in_the_log(tmp_path: Path) -> None:
    configuration = write(tmp_path, raw(ranks=2, epochs=1, cpu_binding="none"))
    assert run(configuration, "--out", tmp_path).returncode in (0, 1)
    found = logfile.read(tmp_path / "result_0.txt").entries["cpu_binding"].value
    cpus = numa.listed(os.sched_getaffinity(0))
    assert found == {"asked": "none", "ranks": {str(rank): {"cpus": cpus, "memory": "default"} for rank in (0, 1)}}


def test_more_ranks_than_cores_are_refused_before_they_train(tmp_path: Path) -> None:
    ranks = len(os.sched_getaffinity(0)) + 1
    configuration = write(tmp_path, raw(ranks=ranks, epochs=1, cpu_binding="cores"))
    done = run(configuration, "--out", tmp_path)
    assert done.returncode == 6
    said = done.stdout + done.stderr  # on a busy machine another rank than the first may be the one that says it
    assert re.search(r'run\.cpu_binding = "cores": NUMA node \d+ has \d+ cores that this process may use, for', said)
    # by rank 0, or by the launcher where another rank's refusal ended it first
    assert list(tmp_path.rglob("refused_0.txt")) and not list(tmp_path.rglob("result_*.txt"))


def test_a_rank_that_comes_when_the_run_was_refused_does_not_blame_its_environment(tmp_path: Path) -> None:
    """Rank 0 had put the log aside: on a busy machine the other ranks are still importing then."""
    asked = config.parse(raw(ranks=2, epochs=1), name="toy", source="toy")
    late = Launch(
        rank=1, local_rank=1, world_size=2, local_world_size=2, as_rank=True, log=tmp_path / "result_0.txt", parent=1
    )
    with pytest.raises(NotSuitable, match="rank 1 came when rank 0 had ended the run already, before it began"):
        execute(asked, Request("toy", out=tmp_path), late)
    with pytest.raises(ValueError, match="no log that a launcher has made"):
        execute(asked, Request("toy", out=tmp_path), replace(late, parent=None))


def test_a_node_of_which_no_memory_may_be_had_is_said() -> None:
    """Of a container's --cpuset-mems, or without any; "this kernel has no NUMA" was said."""
    with pytest.raises(NotSuitable, match=r"NUMA node 1000 .*Invalid argument.*: it has none.*--cpuset-mems"):
        binding.prefer_memory(1000)


OF_OPENMP = """
import os, sys
from harness.cli import main
code = main(sys.argv[1:])
print("this thread may run on", sorted(os.sched_getaffinity(0)))
sys.exit(code)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processors are needed")
@pytest.mark.parametrize("ranks", [1, 2])
def test_openmp_takes_no_processor_from_threads_for_data(ranks: int, tmp_path: Path) -> None:
    """OMP_PROC_BIND put the thread that imported PyTorch, and all that it made later, onto one processor; ranks too."""
    configuration = write(tmp_path, raw(ranks=ranks, epochs=1))
    words = ["run", str(configuration), "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", OF_OPENMP, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=environment(OMP_PROC_BIND="close"),
    )
    assert done.returncode in (0, 1), done.stderr
    given = os.sched_getaffinity(0)
    assert f"this thread may run on {sorted(given)}" in done.stdout
    found = logfile.read(tmp_path / "result_0.txt").entries["cpu_binding"].value
    assert isinstance(found, dict) and {each["cpus"] for each in found["ranks"].values()} == {numa.listed(given)}
