"""`run --engine slurm` through true daemons: two nodes, one that dies, signals, refusals; docker/run.sub through sbatch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.launch import controller, ledger, slurm, stacks
from harness.results.logfile import read
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import until
from tests.harness.launch import cluster
from tests.harness.launch.cluster import Cluster
from tests.patience import PATIENCE_S, SILENCE_S
from tests.toy import configuration as toy

pytestmark = [pytest.mark.slurm, pytest.mark.long]
NAPS = "naps", {"steps": 15}  # 30 s in epoch 2, for what is to happen meanwhile
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    if reason := cluster.missing():
        pytest.skip(reason)
    with cluster.running() as found:
        yield found


@dataclass
class Place:
    """A toy's configuration for two nodes, and where its series go."""

    folder: Path
    cluster: Cluster
    fate: str = "learns"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.folder / "out" / "1x_abacus" / "toy"

    @property
    def log(self) -> Path:
        return self.results / "result_0.txt"

    def start(self, *words: str | int | Path, **environment: str) -> subprocess.Popen[str]:
        content = toy.raw(self.fate, nodes=2)
        content["toy"] |= self.options
        path = toy.write(self.folder, content)
        asked = ["run", path, "--engine", "slurm", "--out", self.folder / "out", *words]
        command = [sys.executable, "-m", "harness", *map(str, asked)]
        return subprocess.Popen(
            command, cwd=CHECKOUT, env={**self.cluster.environment, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *words: str | int | Path, **environment: str) -> tuple[int, str]:
        running = self.start(*words, **environment)
        said, _ = running.communicate(timeout=PATIENCE_S)
        return running.returncode, said

    def trained(self, epoch: int, number: int = 0) -> None:
        """Wait until a trial's log has got so far."""
        log = self.results / f"result_{number}.txt"
        until(lambda: log.exists() and f'"epoch_num": {epoch}' in log.read_text(), f"epoch {epoch}")

    @property
    def attempts(self) -> list[tuple[int, int, str]]:
        found = ledger.Account.read(self.results / ledger.FILE).attempts
        return [(each.number, each.attempt, each.status) for each in found]

    @property
    def stop(self) -> tuple[str, str]:
        """Status and reason of the one run_stop in the first trial's log."""
        lines = [line for line in self.log.read_text().splitlines() if '"run_stop"' in line]
        assert len(lines) == 1
        found = json.loads(lines[0][9:])["metadata"]
        return found["status"], found.get("reason", "")


@pytest.fixture
def place(tmp_path: Path, two_nodes: Cluster) -> Iterator[Place]:
    two_nodes.idle()
    yield Place(tmp_path, two_nodes)
    two_nodes.prolog()
    until(lambda: not two_nodes.jobs(), "an empty queue")


def test_a_series_survives_the_death_of_a_node_and_goes_on(place: Place) -> None:
    place.fate, place.options = NAPS
    running = place.start("--trials", 2, "--seed", 3)
    place.trained(2, number=1)
    place.cluster.lose("node2")
    began = time.monotonic()
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 5, said
    sys.stdout.write(f"{said}\nended {time.monotonic() - began:.0f} s after the node\n")
    assert place.attempts == [(0, 1, "success"), (1, 1, "failed")]
    assert not [each for each in place.cluster.jobs() if "COMPLETING" not in each]
    place.cluster.start("node2")
    place.cluster.idle()
    code, said = place.run("--trials", 2, "--seed", 3, "--resume")
    assert code == 0, said
    assert place.attempts == [(0, 1, "success"), (1, 1, "failed"), (1, 2, "success")]
    assert (place.results / "result_1.broken-1.txt").exists()
    record = json.loads((place.results / "result_1.json").read_text())
    assert record["slurm"]["nodes"] == ["node1", "node2"]
    assert "beside" not in record, "the load of the machine that submits says nothing of the nodes"
    line = record["slurm"]["srun"]
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in line and "--overlap" in line


@pytest.fixture
def far_apart(tmp_path: Path) -> Iterator[Place]:
    """Two nodes with a cable between them; Slurm gives a silent one five minutes, as it does by default."""
    if reason := cluster.missing():
        pytest.skip(reason)
    if subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no networks of one's own here")
    with cluster.running(cable=True) as found:
        found.idle()
        yield Place(tmp_path, found)


def test_a_node_that_goes_silent_ends_the_run_long_before_slurm_gives_it_up(far_apart: Place) -> None:
    """As one does that loses its power: no connection is closed, and its tasks and daemon say nothing more."""
    place = far_apart
    place.fate, place.options = NAPS
    running = place.start("--trials", 2, GLOO_SOCKET_IFNAME=place.cluster.cable)
    place.trained(2)
    place.cluster.pull_the_cable()
    began = time.monotonic()
    # the ledger has a trial's end after its record
    until(lambda: place.attempts[:1] == [(0, 1, "failed")], lambda: f"the end of the trial: {place.attempts}")
    took = time.monotonic() - began
    assert re.fullmatch(
        r"rank 1 on \S+ has not answered for 16 s: its machine is gone, or the network to it", place.stop[1]
    )
    assert json.loads((place.results / "result_0.json").read_text())["exit_code"] == 5
    assert running.stdout is not None
    seen = []
    for line in running.stdout:  # nothing is asked of the lost node: others are waited for
        seen.append(line)
        if "waiting in partition main (" in line:
            break
    sys.stdout.write(f"{''.join(seen)}\nended {took:.0f} s after the node\n")
    assert any("is over (a node does not answer); asking for another" in line for line in seen), seen
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130


def test_a_daemon_that_dies_alone(place: Place) -> None:
    """Its tasks go on, until the controller gives the node up and ends the job."""
    place.fate, place.options = "sleeps", {}
    running = place.start()
    place.trained(2)
    place.cluster.kill("node2")
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 5, said
    assert place.attempts == [(0, 1, "failed")]
    assert place.stop[1] == "node node2 failed, and Slurm ended the job"
    until(lambda: not place.cluster.tasks("node1"), "the other node's ranks")
    place.cluster.start("node2")
    until(lambda: not place.cluster.tasks("node2"), "the lost node's ranks")


def test_a_rank_that_is_killed_ends_the_run_everywhere(place: Place) -> None:
    place.fate = "sleeps"
    running = place.start()
    place.trained(2)
    ranks = [each for each in place.cluster.tasks("node2") if stacks.environment(each.pid).get("RANK") == "1"]
    min(ranks, key=lambda each: each.create_time()).kill()  # the others are what it has started
    began = time.monotonic()
    said, _ = running.communicate(timeout=PATIENCE_S)
    sys.stdout.write(f"ended {time.monotonic() - began:.1f} s after its rank\n")
    assert running.returncode == 5, said
    assert place.attempts == [(0, 1, "failed")]
    assert place.stop == ("aborted", "rank 1 on node2 was ended by a signal: Killed")
    assert json.loads((place.results / "result_0.json").read_text())["exit_code"] == 5


def test_a_job_that_somebody_cancels_is_no_interruption_of_ours(place: Place) -> None:
    place.fate, place.options = NAPS
    running = place.start("--trials", 1)
    place.trained(2)
    (job,) = place.cluster.jobs()
    place.cluster.ask("scancel", job.split()[0])
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 5, said
    assert place.attempts == [(0, 1, "failed")]
    assert place.stop == ("aborted", "somebody cancelled the job")


def test_a_job_whose_time_is_over_says_so(place: Place) -> None:
    place.fate, place.options = "sleeps", {"steps": 4}
    code, said = place.run("--trials", 1, "--slurm-options", "-t 2")  # a busy machine may spend one on init
    assert code == 5, said
    assert place.attempts == [(0, 1, "failed")]
    assert place.stop == ("aborted", "the job's time was over (--slurm-options '-t MINUTES', or sbatch -t)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_and_the_series_goes_on_later(place: Place, number: signal.Signals) -> None:
    place.fate, place.options = NAPS
    running = place.start("--trials", 1)
    place.trained(2)
    running.send_signal(number)
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, said
    assert place.attempts == [(0, 1, "interrupted")]
    assert place.stop[0] == "aborted"
    assert not [each for each in place.cluster.jobs() if "COMPLETING" not in each]
    if number == signal.SIGTERM:
        code, said = place.run("--trials", 1, "--resume")
        assert (code, place.attempts[1:]) == (0, [(0, 2, "success")]), said


def test_kill_9_of_the_series_leaves_no_job_and_no_open_log(place: Place) -> None:
    place.fate = "sleeps"
    running = place.start()
    place.trained(2)
    running.kill()
    running.communicate()
    until(lambda: not place.cluster.jobs(), "an empty queue")
    until(lambda: '"run_stop"' in place.log.read_text(), "a closed log")
    assert place.stop == ("aborted", "the series was killed")
    assert place.attempts == [(0, 1, "no end recorded")]


def test_the_watchdog_gets_the_stacks_of_every_rank_by_its_name(place: Place) -> None:
    place.fate = "sleeps"
    code, said = place.run("--trials", 1, "--watchdog", SILENCE_S)
    assert code == 5, said
    assert place.attempts == [(0, 1, "stalled")]
    assert "stacks of rank 0, process " in place.log.read_text()
    other = place.log.with_suffix(".node1.log").read_text()
    assert "stacks of rank 1, process " in other and "train_epoch" in other


def test_a_busy_cluster_is_waited_for_and_left_on_a_signal(place: Place) -> None:
    place.cluster.ask(
        "sbatch", "--nodes=2", "--exclusive", "--job-name=another", "--output=/dev/null", "--wrap=sleep 300"
    )
    until(lambda: any("RUNNING" in each for each in place.cluster.jobs()), "another's job")
    running = place.start()
    assert running.stdout is not None
    seen = [next(line for line in running.stdout if "waiting in partition main (" in line)]
    assert "Resources" in seen[0] or "Priority" in seen[0] or "None" in seen[0]
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert [each.split()[2] for each in place.cluster.jobs()] == ["another"]
    place.cluster.ask("scancel", "--name=another")
    assert place.attempts == [], "no trial began"


@pytest.mark.parametrize(
    ("words", "code", "sentences"),
    [
        (("--slurm-options", "-p mian"), 2, ["there is no partition mian", "main", "there are: main, closed"]),
        (("--slurm-options", "-p closed"), 6, ["PartitionDown", "another one, with --slurm-options"]),
        (("--slurm-options", "-t 900"), 6, ["time limit", "the partition allows less"]),
        (("--slurm-options", "--no-such-thing"), 2, ["does not take --slurm-options", "no-such-thing"]),
        (("--slurm-options", "--gres=gpu:1"), 6, ["Slurm refuses", "does not count accelerators"]),
        (("--image", "ssd"), 6, ["no --container-image (NVIDIA's pyxis)", "apptainer build"]),
    ],
)
def test_what_the_cluster_refuses(place: Place, words: tuple[str, ...], code: int, sentences: list[str]) -> None:
    found, said = place.run(*words)
    assert found == code, said
    for each in sentences:
        assert each in said
    assert "Traceback" not in said
    assert place.attempts == [], "no trial began"
    assert [path.name for path in place.results.iterdir()] == [ledger.FILE]


def test_a_node_without_the_data_is_named_before_a_trial_begins(place: Place) -> None:
    code, said = place.run("--data-dir", place.cluster.data)
    assert code == 2, said
    assert f"node node2: --data-dir {place.cluster.data}: the folder is empty; is its disk mounted?" in said
    assert place.attempts == []
    assert [path.name for path in place.results.iterdir()] == [ledger.FILE]


@pytest.mark.skipif(not FAKETIME.exists(), reason="no libfaketime here: apt-get install faketime")
def test_clocks_that_are_minutes_apart_are_said(place: Place) -> None:
    place.cluster.prolog(
        f"export LD_PRELOAD={FAKETIME}", "export FAKETIME=+5m", "export FAKETIME_DONT_FAKE_MONOTONIC=1"
    )
    code, said = place.run()
    assert code == 6, said
    assert "clocks are apart: that of node node2 is " in said and "chronyd" in said
    assert place.attempts == []


def test_ranks_in_containers_of_apptainer(place: Place) -> None:
    """By a stand-in, which mounts what it is told to and sees nothing else of these paths."""
    tools = place.folder / "bin"
    tools.mkdir()
    (tools / "apptainer").symlink_to(Path(__file__).with_name("apptainer_standin.sh"))
    image = place.folder / "ssd.sif"
    image.write_text(str(CHECKOUT))
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    tried = subprocess.run(
        ["apptainer", "exec", "--pwd=/opt/harness", str(image), "true"], env={"PATH": path}, check=False
    )
    if tried.returncode != 0:
        pytest.skip("no overlay of the root here")
    code, said = place.run(
        *("--image", image, "--data-dir", place.folder, "--trials", 1),
        PATH=path,
        APPTAINERENV_HARNESS_BENCHMARKS="/opt/harness/tests",  # as Apptainer has it: within the container alone
        PYTHONPATH="",
    )
    assert code == 0, said
    assert place.attempts == [(0, 1, "success")]
    assert "log /results/result_0.txt" in said
    record = json.loads((place.results / "result_0.json").read_text())
    assert record["slurm"]["image"] == str(image)
    told = record["slurm"]["srun"]
    assert f"--bind={place.folder}:/data:ro" in told and "--data-dir /data" in told


def test_a_controller_that_is_restarted_between_two_trials_costs_none(place: Place) -> None:
    place.fate, place.options = NAPS
    running = place.start("--trials", 2)
    assert running.stdout is not None
    place.trained(2)
    place.cluster.kill("slurmctld")
    next(
        line
        for line in running.stdout
        if f"waiting, {controller.PATIENCE_S:g} s at most: Slurm does not answer" in line
    )
    place.cluster.control()
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, place.attempts) == (0, [(0, 1, "success"), (1, 1, "success")]), said


def test_a_controller_that_is_away_when_a_series_is_asked_to_end_leaves_it_no_nodes(place: Place) -> None:
    place.fate = (
        "sleeps"  # longer than the controller's silence takes to be noticed: a trial that ends before is a result
    )
    running = place.start("--trials", 1)
    place.trained(2)
    place.cluster.kill("slurmctld")
    running.send_signal(signal.SIGINT)
    time.sleep(15)
    place.cluster.control()
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, place.attempts[-1]) == (130, (0, 1, "interrupted")), said
    until(lambda: not [each for each in place.cluster.jobs() if "COMPLETING" not in each], "an empty queue")


def test_a_controller_that_is_restarted_while_a_series_waits_keeps_its_place_in_the_queue(place: Place) -> None:
    """The job that waited is the one that runs: salloc was killed for it, and asked for another at the queue's end."""
    place.cluster.ask(
        "sbatch", "--nodes=2", "--exclusive", "--job-name=another", "--output=/dev/null", "--wrap=sleep 300"
    )
    until(lambda: any("RUNNING" in each for each in place.cluster.jobs()), "another's job")
    running = place.start("--trials", 1)
    assert running.stdout is not None
    waiting = next(line for line in running.stdout if "waiting in partition main (" in line)
    (ours,) = (each.split()[2] for each in place.cluster.jobs() if slurm.NAME in each)
    kept = place.cluster.folder / "state" / "job_state"  # written some seconds later
    until(lambda: kept.exists() and ours.encode() in kept.read_bytes(), "the controller's own notes")
    place.cluster.kill("slurmctld")
    next(line for line in running.stdout if "salloc waits on" in line)
    place.cluster.control()
    until(lambda: len(place.cluster.jobs()) == 2, "the controller")
    place.cluster.ask("scancel", "--name=another")
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, place.attempts) == (0, [(0, 1, "success")]), said
    found = re.search(r"job \d+:", waiting)
    assert found is not None and f"{found[0]} running on node1, node2" in said


def test_a_series_ends_its_own_step_alone(place: Place) -> None:
    """What else runs in the job is somebody's monitor."""
    path = toy.write(place.folder, toy.raw("sleeps", nodes=2))
    words = f"-m harness run {path} --engine slurm --trials 1 --watchdog {SILENCE_S} --out {place.folder / 'out'}"
    script = place.folder / "job"
    script.write_text(
        "#!/bin/sh\nsrun --overlap --mpi=none --ntasks=2 sleep 3000 &\n"
        f"cd {CHECKOUT}\n{sys.executable} {words}\necho harness $?\nkill -0 $! && echo monitor lives\nkill $!\n"
    )
    command = ["sbatch", "--wait", "-N", "2", "--ntasks-per-node", "1", "--output", str(place.folder / "said")]
    subprocess.run([*command, str(script)], env=place.cluster.environment, capture_output=True, check=False)
    said = (place.folder / "said").read_text()
    assert "harness 5" in said and "monitor lives" in said, said
    assert place.attempts == [(0, 1, "stalled")]


def test_each_task_of_an_array_is_a_series(place: Place) -> None:
    """The last one to begin has the array's number, for which Slurm shows all of its tasks."""
    path = toy.write(place.folder, toy.raw("naps"))
    given = {"DGXSYSTEM": str(path), "LOGDIR": str(place.folder / "out"), "NEXP": "1", "PYTHON": sys.executable}
    command = ["sbatch", "--wait", "--array=0-1", "-N", "1", "--exclusive", f"--output={place.folder}/said-%a"]
    finished = subprocess.run(
        [*command, str(CHECKOUT / "docker" / "run.sub")],
        env={**place.cluster.environment, **given}, cwd=place.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [(place.folder / f"said-{task}").read_text() for task in (0, 1)]
    assert finished.returncode == 0, (finished.stderr, said)
    nodes = set()
    for task in (0, 1):
        (record,) = (place.folder / "out" / f"task_{task}").glob("*/*/result_0.json")
        nodes |= set(json.loads(record.read_text())["slurm"]["nodes"])
    assert nodes == {"node1", "node2"}


def test_run_sub_is_the_same_thing(place: Place) -> None:
    """sbatch runs a copy of the script, far from the checkout; its series is in the job that it was given."""
    path = toy.write(place.folder, toy.raw(nodes=2))
    given = {"DGXSYSTEM": str(path), "LOGDIR": str(place.folder / "out"), "NEXP": "1", "PYTHON": sys.executable}
    command = ["sbatch", "--wait", "-N", "2", "--ntasks-per-node", "1", "--output", str(place.folder / "said")]
    finished = subprocess.run(
        [*command, str(CHECKOUT / "docker" / "run.sub")],
        env={**place.cluster.environment, **given}, cwd=place.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = (place.folder / "said").read_text()
    assert finished.returncode == 0, finished.stderr + said
    assert place.attempts == [(0, 1, "success")]
    assert "trial 0 | target met" in said


def test_the_embedded_job_loses_a_node_and_goes_on(place: Place, tmp_path: Path) -> None:
    """SSD itself, cut by --max-steps: weights are one network's, the evaluation sees every image once."""
    content = tomllib.loads((CHECKOUT / "configs" / "ssd" / "embedded.toml").read_text())
    content["run"] |= {"nodes": 2, "accelerators_per_node": 1, "log_every_steps": 1}
    content["compute"] |= {"precision": "fp32", "threads": 1}  # nothing measured in init, which takes most of the time
    path = toy.write(tmp_path, content, "embedded")
    words = ["--engine", "slurm", "--trials", "1", "--seed", "1", "--max-steps", "8", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "harness", "run", *map(str, (path, *words))]
    asked: Any = {"cwd": CHECKOUT, "env": place.cluster.environment, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stderr=subprocess.STDOUT, **asked) as running:
        until(lambda: bool(list(tmp_path.glob("out/*/*/result_0.txt"))), "the trial")
        (log,) = tmp_path.glob("out/*/*/result_0.txt")
        until(lambda: log.read_text().count('"tracked_stats"') >= 2, "its second step")
        place.cluster.lose("node2")
        said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 5, said
    book = log.with_name(ledger.FILE)
    assert [each.status for each in ledger.Account.read(book).attempts] == ["failed"]
    place.cluster.start("node2")
    place.cluster.idle()
    again = subprocess.run([*command, "--resume"], stderr=subprocess.STDOUT, check=False, **asked)
    assert again.returncode == 1, again.stdout  # the steps are spent, the target is not met
    assert [each.status for each in ledger.Account.read(book).attempts] == ["failed", "target_not_met"]
    assert log.with_name("result_0.broken-1.txt").exists()
    assert not log.with_name("result_0.node1.log").exists(), "a node without a word leaves no file"
    record = read(log)
    assert record.slowest_rank is not None and record.accelerators == 2
