"""A run on several machines that start their ranks themselves: which one this is, and where they meet. (Two nodes that do:
tests/harness/launch/kubernetes.)"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.execution.context import Node
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy

MEETS = {"NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


def test_a_node_is_told_which_it_is() -> None:
    assert Node.from_environment(2, MEETS) == Node(1, "node0", 29500)
    assert Node.from_environment(2, {"MASTER_ADDR": "node0"}) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"NODE_RANK": "2"}, "NODE_RANK=2, .*: no node of a run of 2: NODE_RANK is a number from 0 to 1"),
        ({"NODE_RANK": "-1"}, "no node of a run of 2"),
        ({"NODE_RANK": "one"}, "no node of a run of 2"),
        ({"MASTER_PORT": ""}, "no node of a run of 2"),
        ({"MASTER_PORT": "65536"}, "no node of a run of 2"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR does not say where node 0 is"),
    ],
)
def test_what_places_it_nowhere_is_refused(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Node.from_environment(2, {**MEETS, **wrong})


def test_places_where_nodes_cannot_meet_are_said_at_once(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw(ranks=1, nodes=2))
    lost = runs.run(path, "--out", tmp_path / "out", **{**MEETS, "MASTER_ADDR": "no-such-host.invalid"})
    assert lost.returncode == 2
    assert "node 1 finds no rank 0 at no-such-host.invalid:29500 (MASTER_ADDR, MASTER_PORT)" in lost.stderr
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = {**MEETS, "NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(other.getsockname()[1])}
        refused = runs.run(path, "--out", tmp_path / "out", **taken)
    assert refused.returncode == 2
    assert "node 0 cannot wait for the others" in refused.stderr
    assert not (tmp_path / "out").exists(), "nothing half-written"


@pytest.mark.long
def test_nodes_that_were_told_no_seed_have_one(tmp_path: Path, free_port: int) -> None:
    """Each drew its own, and the run was refused for a --seed that nobody had said."""
    path = toy.write(tmp_path, toy.raw("tells its seed", ranks=1, nodes=2))
    meets = {**MEETS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    with runs.begun("run", path, "--out", tmp_path / "out", **{**meets, "NODE_RANK": "0"}) as first:
        other = runs.run(path, "--out", tmp_path / "other", **meets)
        assert (first.wait(), other.returncode) == (0, 0), first.said("out", "errors") + other.stderr
        seeds = [re.findall(r"rank \d has seed (\d+)", each) for each in (first.said("out"), other.stdout)]
    assert len(seeds[0]) == 1 and seeds[0] == seeds[1]


def test_a_node_that_waits_for_one_that_never_comes_can_be_ended(tmp_path: Path, free_port: int) -> None:
    """It sits in a call of torch's that takes no exception, and the log is closed all the same."""
    path = toy.write(tmp_path, toy.raw(ranks=1, nodes=2))
    meets = {**MEETS, "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", str(path), "--out", str(tmp_path / "out")],
        env=runs.environment(**meets),
        cwd=CHECKOUT,
    )
    log = tmp_path / "out/result_0.txt"
    runs.until(log.exists, "a log")
    time.sleep(2)  # into the call
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 130
    assert runs.stop(log.with_name("refused_0.txt"))["status"] == "aborted"
    assert not log.exists(), "it never began"


SOON = """
import sys
from harness.launch import ranks
ranks.MEETING_S = 2
from harness.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_a_node_that_never_comes_is_said_in_words(tmp_path: Path, free_port: int) -> None:
    """It was torch's traceback, of something that nobody foresaw."""
    path = toy.write(tmp_path, toy.raw(ranks=1, nodes=2))
    port = str(free_port)
    meets = {**MEETS, "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ended = subprocess.run(
        [sys.executable, "-c", SOON, str(path), "--out", str(tmp_path / "out")],
        env=runs.environment(**meets),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    words = f"of 2 nodes some did not come to 127.0.0.1:{port} (MASTER_ADDR, MASTER_PORT) within 2 s"
    assert words in ended.stderr and "start this command on every node" in ended.stderr
    assert words in runs.stop(tmp_path / "out" / "refused_0.txt")["reason"]
    assert not (tmp_path / "out" / "result_0.txt").exists()
