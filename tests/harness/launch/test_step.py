"""Trials by Slurm, as far as that can be told without it: what srun says, what nodes answer, what runs containers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from harness import ROOT
from harness.contract import NotSuitable
from harness.execution.events import EventLog
from harness.execution.signals import Interrupted
from harness.launch import controller, ledger, node, reaper, running_step, slurm
from harness.launch.caches import Dropped
from harness.launch.container_spec import Mount
from harness.launch.node import NodeReport
from harness.launch.reaper import Reaper
from harness.launch.running_step import RunningStep
from harness.launch.runtime import Runtime
from harness.launch.slurm import Allocation
from harness.launch.step import SlurmLauncher
from harness.launch.trial import Order
from harness.request import Request
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S

SHA256 = "ab" * 32


# --- what a step's end means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "srun", "code", "reason"),
    [
        ([], 0, 0, "the ranks ended without saying how"),
        (["srun: error: node1: task 0: Exited with exit code 1"], 1, 1, "rank 0 on node1 ended with exit code 1"),
        (
            [
                "srun: error: node2: task 3: Exited with exit code 5",
                "srun: error: node1: tasks 0-1: Exited with exit code 130",
            ],
            130,
            5,
            "rank 3 on node2 ended with exit code 5",
        ),
        (
            ["srun: error: node2: task 3: Killed", "srun: error: node1: task 0: Exited with exit code 130"],
            137,
            5,
            "rank 3 on node2 was ended by a signal: Killed",
        ),
        (
            ["srun: error: node2: tasks 2-3: Exited with exit code 77"],
            77,
            5,
            "rank 2-3 on node2 ended with exit code 77",
        ),
        (
            ["srun: error: Node failure on node2", "srun: error: node1: task 0: Exited with exit code 130"],
            130,
            5,
            "node node2 failed, and Slurm ended the job",
        ),
        (
            [
                "aborted: rank 0 on node1 has not answered for 16 s: its machine is gone, or the network to it",
                "srun: error: node2: task 1: Exited with exit code 5",
            ],
            5,
            5,
            "rank 0 on node1 has not answered for 16 s: its machine is gone, or the network to it",
        ),
        (
            ["srun: error: Unable to create step for job 7: Invalid job id specified"],
            1,
            5,
            "srun ended with exit code 1",
        ),
    ],
)
def test_the_first_task_that_ended_is_the_cause(
    tmp_path: Path, said: list[str], srun: int, code: int, reason: str
) -> None:
    talk = "".join(f"print({line!r}, flush=True)\n" for line in ["epoch 1", *said])
    process = subprocess.Popen(
        [sys.executable, "-c", f"{talk}raise SystemExit({srun})"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    order = Order(0, tmp_path, None, caches_cleared=False)
    running = RunningStep(process, "step", Allocation("7", ("node1", "node2"), "a", True), order, [], str, {})
    assert list(running.lines()) == ["epoch 1", *said]
    process.wait()
    assert running.poll() == code
    assert running._judged(srun) == (code, reason)


def test_a_step_whose_node_is_gone_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """srun is, for minutes; and node 0, which would close the log, may be the one."""
    monkeypatch.setattr(running_step, "AT_ONCE_S", 0.2)
    monkeypatch.setattr(running_step.Allocation, "signal", lambda *_: None)
    monkeypatch.setattr(running_step.Allocation, "state", lambda _: "RUNNING")
    lost = "rank 0 on node1 has not answered for 16 s: its machine is gone, or the network to it"
    said = [f"aborted: {lost}", "srun: error: node2: task 1: Exited with exit code 5"]
    talk = "".join(f"print({line!r}, flush=True)\n" for line in said)
    hanging = [sys.executable, "-c", f"{talk}import time\ntime.sleep(600)"]
    process = subprocess.Popen(hanging, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    order = Order(0, tmp_path, None, caches_cleared=False)
    EventLog.create(tmp_path, 0).close()
    running = RunningStep(process, "step", Allocation("7", ("node1", "node2"), "a", True), order, [], str, {})
    lines = running.lines()
    assert [next(lines), next(lines)] == said
    until(lambda: running.poll() is not None, "the step's end")
    assert running.poll() == 5 and running.without_answer
    running.close()
    assert process.poll() is not None
    assert f'"reason": "{lost}"' in order.refused_log.read_text(), "it never began"


def test_a_step_of_which_a_library_ends_a_rank_in_init_leaves_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit(1) was taken for epochs that are spent."""
    monkeypatch.setattr(running_step.Allocation, "state", lambda _: "RUNNING")
    said = "srun: error: node2: task 1: Exited with exit code 1"
    ended = [sys.executable, "-c", f"print({said!r})\nraise SystemExit(1)"]
    process = subprocess.Popen(ended, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    order = Order(0, tmp_path, None, caches_cleared=False)
    EventLog.create(tmp_path, 0).close()
    running = RunningStep(process, "step", Allocation("7", ("node1", "node2"), "a", True), order, [], str, {})
    assert list(running.lines()) == [said]
    process.wait()
    running.close()
    assert '"reason": "rank 1 on node2 ended with exit code 1"' in order.refused_log.read_text()
    assert not order.log.exists()


# --- what nodes answer -------------------------------------------------------------------------------------------------


def nodes(*changes: Callable[[NodeReport], NodeReport]) -> list[NodeReport]:
    found = [NodeReport(f"node{number}", 1000.0, SHA256, "c0ffee", 29500) for number in (1, 2, 3)]
    return [change(each) for change, each in zip((*changes, *([lambda node: node] * 3)), found, strict=False)]


def ahead(seconds: float) -> Callable[[NodeReport], NodeReport]:
    return lambda found: replace(found, time_s=found.time_s + seconds)


def test_nodes_that_are_as_they_should_be() -> None:
    node.judge(nodes(), SHA256, 999.0, 1001.0)
    node.judge(
        nodes(lambda each: replace(each, commit="unknown-changed")), SHA256, 999.0, 1001.0
    )  # that node has no git
    node.judge(nodes(ahead(31), ahead(1)), SHA256, 990.0, 1010.0)  # within what asking took


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (nodes(ahead(300)), "that of node node1 is 300 s ahead of that of this machine"),
        (nodes(ahead(-90)), "that of this machine is 90 s ahead of that of node node1"),
        (nodes(ahead(25), ahead(-25)), "that of node node1 is 50 s ahead of that of node node2"),
    ],
)
def test_clocks_that_are_apart(found: list[NodeReport], said: str) -> None:
    with pytest.raises(NotSuitable, match=said):
        node.judge(found, SHA256, 1000.0, 1000.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda each: replace(each, problem="no such folder"), "node node2: no such folder"),
        (
            lambda each: replace(each, configuration_sha256="ff" * 32),
            "node node2: its code reads the configuration as ff",
        ),
        (lambda each: replace(each, commit="beef"), "node1 is at commit c0ffee, node2 at beef"),
    ],
)
def test_nodes_that_differ_are_named(change: Callable[[NodeReport], NodeReport], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        node.judge(nodes(lambda each: each, change), SHA256, 999.0, 1001.0)


def test_a_node_s_answer_is_found_among_other_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tests.toy import configuration as toy

    asked = Request(configuration=str(toy.write(tmp_path, toy.raw())), out=tmp_path)
    (tmp_path / ledger.FILE).touch()
    node.main(["node7", *node.words(replace(asked, data_dir=tmp_path / "absent"), 0.25)])
    (found,) = NodeReport.read(f"pyxis: imported docker image\n0: {capsys.readouterr().out}\n")
    assert found.name == "node7" and "there is no such folder" in found.problem and 0 < found.port < 1 << 16
    node.main(["node8", *node.words(replace(asked, data_dir=tmp_path), 0.25)])
    (found,) = NodeReport.read(capsys.readouterr().out)
    assert not found.problem and len(found.configuration_sha256) == 64


def test_a_results_folder_that_a_node_does_not_share_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There may be one of that name on each node: /tmp is everywhere."""
    from tests.toy import configuration as toy

    node.main(["node2", *node.words(Request(configuration=str(toy.write(tmp_path, toy.raw())), out=tmp_path), 0.25)])
    (found,) = NodeReport.read(capsys.readouterr().out)
    assert f"--out {tmp_path}: the ledger of this series is not there" in found.problem


# --- what runs containers ----------------------------------------------------------------------------------------------

MOUNTS = (
    Mount(Path("/shared/out"), PurePosixPath("/results"), read_only=False),
    Mount(Path("/raid/coco"), PurePosixPath("/data")),
)


def srun_that_says(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "srun").write_text(f"#!/bin/sh\necho '{text}'\n")
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_without_an_image_ranks_are_processes_of_this_checkout() -> None:
    found = Runtime.chosen(None, (), "cuda")
    assert (found.before, found.python) == ((), sys.executable)


def test_pyxis_where_srun_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun_that_says(tmp_path, "--container-image=[USER@][REGISTRY#]IMAGE [pyxis]", monkeypatch)
    found = Runtime.chosen("site/ssd:1", MOUNTS, "cuda")
    assert found.options == (
        "--container-image=site/ssd:1",
        "--container-mounts=/shared/out:/results,/raid/coco:/data:ro",
        "--no-container-mount-home",
        "--container-workdir=/opt/harness",
    )
    assert (found.before, found.python) == ((), "python")


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("registry.example/ssd:tag", "registry.example#ssd:tag"),
        ("registry.example:5000/lab/ssd", "registry.example:5000#lab/ssd"),
        ("localhost/ssd:1", "localhost#ssd:1"),
        ("ada@registry.example/lab/ssd", "ada@registry.example#lab/ssd"),
        ("docker://registry.example/ssd:tag", "docker://registry.example#ssd:tag"),
        *((each, each) for each in ("lab.example#a.b/ssd:1", "lab/ssd:1.2", "ssd:1.2", "dockerd://lab.example/ssd:1")),
        *((each, each) for each in ("/shared/a.b/ssd.sqsh", "./ssd.sqsh", "../ssd.sqsh", "ssd@sha256:5d")),
    ],
)
def test_a_registry_as_docker_writes_it_is_one_to_pyxis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, named: str
) -> None:
    """It was looked for at Docker Hub."""
    srun_that_says(tmp_path, "--container-image=[USER@][REGISTRY#]IMAGE [pyxis]", monkeypatch)
    assert Runtime.chosen(image, (), "cuda").options[0] == f"--container-image={named}"


def test_apptainer_for_a_sif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Runtime.chosen("/shared/ssd.sif", MOUNTS, "cuda")
    assert found.before[-4:] == ("--nv", "--bind=/shared/out:/results", "--bind=/raid/coco:/data:ro", "/shared/ssd.sif")
    assert "--nv" not in Runtime.chosen("/shared/ssd.sif", MOUNTS, "cpu").before


@pytest.mark.parametrize("image", ["/shared/ssd.sif", "site/ssd:1"])
@pytest.mark.parametrize("name", ["coco:2017", "coco,2017"])
def test_a_path_that_would_be_read_as_two_is_refused(image: str, name: str) -> None:
    """coco,2017 was mounted as coco, and 2017 beside it."""
    with pytest.raises(ValueError, match=rf"^/raid/{name} is to be seen in .* give it another name"):
        Runtime.chosen(image, [Mount(Path("/raid") / name, PurePosixPath("/data"))], "cuda")


def test_neither_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun_that_says(tmp_path, "Usage: srun", monkeypatch)
    with pytest.raises(NotSuitable, match=r"no --container-image .*apptainer build ssd\.sif"):
        Runtime.chosen("ssd", MOUNTS, "cuda")


def test_nobody_waits_in_a_queue_to_be_told_that_there_are_no_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found out on the nodes, once the queue had given them."""
    from harness import config
    from tests.toy import configuration as toy

    monkeypatch.setattr(slurm, "COMMANDS", ())
    commands(tmp_path, monkeypatch, scontrol=":", srun="echo Usage: srun", salloc=f"touch {tmp_path}/asked")
    path = toy.write(tmp_path, toy.raw(nodes=2))
    request = Request(configuration=str(path), image="ssd", out=tmp_path)
    launcher = SlurmLauncher(config.load(path), request, os.environ, "s", cast(Reaper, None), print)
    with pytest.raises(NotSuitable, match="no --container-image"):
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    assert not (tmp_path / "asked").exists()


# --- what Slurm refuses ------------------------------------------------------------------------------------------------


def test_there_is_no_slurm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotSuitable, match="there is no salloc: run this on a login node"):
        slurm.cluster()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("salloc: error: Job submit/allocate failed: Invalid account or account/partition combination", "-A ACCOUNT"),
        ("salloc: error: Job submit/allocate failed: Job violates accounting/QOS policy (job submit limit)", "limits"),
        ("salloc: error: Job submit/allocate failed: Requested node configuration is not available", "sinfo -Nl"),
        (
            "salloc: error: Job submit/allocate failed: Requested time limit is invalid (missing or exceeds)",
            "-t MINUTES",
        ),
        ("salloc: error: Unable to contact slurm controller (connect failure)", "scontrol ping"),
    ],
)
def test_a_refusal_comes_with_what_to_do(said: str, advice: str) -> None:
    found = slurm._refusal(f"salloc: Pending job allocation 7\n{said}\n")
    assert isinstance(found, NotSuitable)
    assert advice in str(found) and "salloc: " not in str(found) and "Pending" not in str(found)


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Slurm's commands, by what each does."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_the_job_that_has_its_array_s_number_is_not_all_of_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm answers a question for job 10 with tasks 0 and 1 of array 10: their nodes, states and steps are not ours."""
    shown = [
        "JobId=11 ArrayJobId=10 ArrayTaskId=0 JobState=RUNNING NodeList=node1 Command=/x WorkDir=/",
        "JobId=10 ArrayJobId=10 ArrayTaskId=1 JobState=TIMEOUT NodeList=node2 Command=/x WorkDir=/",
    ]
    listed = "10_0.0\tharness-theirs-0\n10_1.0\tharness-ours-0\n10_1.batch\tbatch\n10_1.3\tharness-ours-0\n"
    (tmp_path / "shown").write_text("\n".join(shown) + "\n")
    (tmp_path / "listed").write_text(listed)
    commands(
        tmp_path,
        monkeypatch,
        scontrol=f'case "$2" in job) cat {tmp_path}/shown;; hostnames) echo $3;; *) echo NodeAddr=10.0.0.$3;; esac',
        squeue=f"cat {tmp_path}/listed",
        scancel=f'echo "$@" >> {tmp_path}/signalled',
    )
    found = slurm.of_this_job({"SLURM_JOB_ID": "10"}, 1)
    assert (found.nodes, found.state()) == (("node2",), "TIMEOUT")
    found.signal("harness-ours-0", "TERM")
    assert (tmp_path / "signalled").read_text().split() == ["--signal=TERM", "10_1.0", "--signal=TERM", "10_1.3"]


@pytest.mark.parametrize(
    ("shown", "said"),
    [("", "Slurm does not know it"), ("echo 'JobId=7 JobState=COMPLETED NodeList=(null) '", "it is COMPLETED")],
)
def test_a_shell_whose_job_is_over_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, said: str
) -> None:
    commands(tmp_path, monkeypatch, scontrol=f'[ "$2" != job ] || {shown or "exit 1"}')
    with pytest.raises(NotSuitable, match=f"job 7 has no nodes: {said}. .*SLURM_JOB_ID after the job's end: unset it"):
        slurm.of_this_job({"SLURM_JOB_ID": "7"}, 1)


def test_the_job_that_we_are_part_of_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its time limit it is over when we are: the series was killed in that wait, its log and its ledger without an end."""
    commands(tmp_path, monkeypatch, scontrol="echo 'JobId=7 JobState=COMPLETING NodeList=node1'")

    def never(_: float) -> None:
        raise AssertionError("waits for itself")

    monkeypatch.setattr(slurm, "time", SimpleNamespace(monotonic=time.monotonic, sleep=never))
    assert Allocation("7", ("node1",), "a", own=False).state() == "COMPLETING"
    with pytest.raises(AssertionError, match="waits for itself"):
        Allocation("7", ("node1",), "a", own=True).state()


@pytest.mark.parametrize("option", ["-J mine", "-Jmine", "--job-name=mine", "--comment=project", "--comm x"])
def test_options_that_would_take_the_job_from_its_series_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="finds its job again"):
        slurm.site_options(f"-p gpu {option}")


def test_a_site_s_other_options_are_left_alone() -> None:
    assert slurm.site_options("-p gpu -A 'my lab' --constraint=a100") == [
        *("-p", "gpu", "-A", "my lab", "--constraint=a100")
    ]
    with pytest.raises(ValueError, match="--slurm-options -A 'lab: No closing quotation"):
        slurm.site_options("-A 'lab")


def test_a_controller_that_does_not_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not taken for one that knows no such job."""
    monkeypatch.setattr(controller, "AGAIN_S", 0.01)
    refusal = "Unable to contact slurm controller (connect failure)"
    away = f"[ -e {tmp_path}/up ] || {{ echo 'slurm_load_jobs error: {refusal}' >&2; exit 1; }}"
    commands(tmp_path, monkeypatch, squeue=f"{away}; echo 7")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        (tmp_path / "up").touch()

    assert controller.patiently(lambda: slurm.waiting_or_running("x"), say)
    assert refusal in said[0] and "scontrol ping" in said[0] and "there is an answer again" in said[1]
    (tmp_path / "up").unlink()
    monkeypatch.setattr(controller, "PATIENCE_S", 0.05)
    with pytest.raises(controller.ControllerAway, match="does not answer"):
        controller.patiently(lambda: slurm.waiting_or_running("x"), lambda _: None)


# What each command says while the controller is away
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def says(text: str) -> str:
    """An error of srun's."""
    return f"echo 'srun: error: {text}' >&2"


def first(folder: Path, script: str) -> str:
    """Does something else the first time."""
    return f'[ -e "{folder}/$(basename "$0").seen" ] || {{ touch "{folder}/$(basename "$0").seen"; {script}; }}'


def waiting(folder: Path, name: str) -> str:
    """A job that waits: the queue knows it once salloc has asked for it, however late a busy machine comes to that."""
    line = f"7\tPENDING\tPriority\tN/A\tmain\t{name}\tx"
    return f"until grep -qs salloc {folder}/asked; do sleep 0.01; done; printf '%s\\n' '{line}'"


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmLauncher:
    """Of two nodes, by commands that each note that they were asked."""
    from harness import config
    from tests.toy import configuration as toy

    for module, name in ((controller, "AGAIN_S"), (slurm, "POLL_S")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(controller, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(slurm, "COMMANDS", ())
    monkeypatch.delenv(slurm.JOB, raising=False)
    shown = "JobId=7 JobState=RUNNING NodeList=node[1-2] Command=/x"
    of_scontrol = f"case \"$2\" in job) echo '{shown}';; hostnames) echo node1; echo node2;; *) echo NodeAddr=a;; esac"
    scripts = {"salloc": "echo 'salloc: Granted job allocation 7'", "scontrol": of_scontrol}
    asked(tmp_path, monkeypatch, **dict.fromkeys(("srun", "squeue", "scancel"), ":"), **scripts)
    path = toy.write(tmp_path, toy.raw(nodes=2))
    request = Request(configuration=str(path), out=tmp_path)
    reaper = cast(Reaper, SimpleNamespace(watch_job=lambda *_: None))
    return SlurmLauncher(config.load(path), request, os.environ, "s", reaper, print)


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Commands that note that they were asked."""
    noting = {name: f'echo {name} >> "{folder}/asked"\n{script}' for name, script in scripts.items()}
    commands(folder, monkeypatch, **noting)


def times(folder: Path, name: str) -> int:
    return (folder / "asked").read_text().split().count(name)


def test_an_interruption_while_the_controller_is_away_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """The job could not be given back, and that was taken for the event: salloc was asked anew, and later signals ignored."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "waiting in partition" in text:
            raise Interrupted(signal.SIGINT)

    launcher.say = say
    asked(tmp_path, monkeypatch, salloc="exec sleep 60", squeue=waiting(tmp_path, launcher.name), scancel=AWAY)
    with pytest.raises(Interrupted):
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    assert times(tmp_path, "salloc") == 1
    assert f"The job {launcher.name} may be left" in said[-1] and f"scancel --name={launcher.name}" in said[-1]


def test_a_controller_away_for_a_moment_costs_no_place_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """salloc outlives that. It was killed, its job cancelled, and another one submitted; so it was at each later question."""
    said: list[str] = []
    launcher.say = said.append
    scontrol = (tmp_path / "scontrol").read_text().split("\n", 2)[2]
    until_told = f"until [ -e {tmp_path}/squeue.twice ]; do sleep 0.05; done; echo 'salloc: Granted job allocation 7'"
    dead = "Task launch for StepId=7.0 failed on node node2: Invalid job credential"
    away = "Unable to create step for job 7: Unable to contact slurm controller (connect failure)"
    asked(
        tmp_path, monkeypatch, salloc=until_told, squeue=f"{first(tmp_path, AWAY)}; touch {tmp_path}/squeue.twice",
        scontrol=f"{first(tmp_path, AWAY)}; {scontrol}",
        srun=f"{first(tmp_path, f'{says(away)}; exit 1')}; {says(dead)}; exit 1",
    )  # fmt: skip
    with pytest.raises(NotSuitable, match="only 0 of 2 nodes could be asked"):
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    assert (times(tmp_path, "salloc"), times(tmp_path, "scancel"), times(tmp_path, "srun")) == (1, 0, 2)
    assert sum("salloc waits on" in each for each in said) == 1
    assert sum(f"waiting, {PATIENCE_S:g} s at most" in each for each in said) == 2, (
        "for the nodes' names, and for the step"
    )


def test_a_salloc_that_gives_up_for_the_controller_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """Once the controller answers, and with nothing left of what it was asked first."""
    asked(tmp_path, monkeypatch, salloc=f"{first(tmp_path, AWAY)}; echo 'salloc: Granted job allocation 7'",
          scancel=first(tmp_path, AWAY))  # fmt: skip
    with pytest.raises(NotSuitable, match="they said nothing"):
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    order = [each for each in (tmp_path / "asked").read_text().split() if each in {"salloc", "scancel"}]
    assert order == ["salloc", "scancel", "scancel", "salloc"]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_killed_series_reaper_closes_its_log_and_none_of_the_series_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """That of a trial that ran was closed as the killed one's, where the controller or a lost node had held up the reaper."""
    monkeypatch.setattr(controller, "AGAIN_S", 0.01)
    asked(tmp_path, monkeypatch, squeue=f"[ -e {tmp_path}/cancelled ] || echo 7", scancel=f"touch {tmp_path}/cancelled")
    EventLog.create(tmp_path, 0).close()
    with ledger.opened(tmp_path) if goes_on else contextlib.nullcontext():
        reaper._cancel("job", tmp_path)
    assert ("run_stop" in (tmp_path / "result_0.txt").read_text()) != goes_on
    assert times(tmp_path, "scancel") == 1


def test_the_files_of_a_job_that_is_just_ending_are_not_touched_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """The killed series' reaper had cancelled it a moment ago, and its ranks wrote on into a log that was renamed meanwhile."""
    line = f"7\tCOMPLETING\tNone\tN/A\tmain\t{slurm.NAME}before\t{slurm.comment(tmp_path)}"
    gone_after = f"[ $(grep -c squeue {tmp_path}/asked) -gt 3 ] || printf '%s\n' '{line}'"
    asked(tmp_path, monkeypatch, squeue=gone_after, scancel=":")
    monkeypatch.setattr(slurm, "ENDING_S", PATIENCE_S)
    assert launcher.clear(tmp_path) == []
    assert (times(tmp_path, "squeue"), times(tmp_path, "scancel")) == (4, 0)


def test_a_job_of_a_living_series_is_let_be_wherever_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """The queue is read by lines: that of a folder with a line break in its name was cancelled by every other series."""
    folders = [
        tmp_path / name for name in ("s\nl", "a\tb", "50% \x85 é", "plain, and: with words", os.fsdecode(b"\xff"))
    ]
    (tmp_path / "queue").write_text(
        "".join(f"7\tRUNNING\tNone\tN/A\tmain\t{slurm.NAME}other\t{slurm.comment(each)}\n" for each in folders)
    )
    asked(tmp_path, monkeypatch, squeue=f"cat {tmp_path}/queue", scancel=":")
    with contextlib.ExitStack() as series:
        for each in folders:
            each.mkdir()
            series.enter_context(ledger.opened(each))
        assert launcher.clear(tmp_path) == [] and times(tmp_path, "scancel") == 0
    assert len(launcher.clear(tmp_path)) == len(folders)
    assert slurm.comment(Path("/data/my runs")).endswith(":/data/my runs")


def test_a_job_that_the_controller_forgot_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """One that is killed has not written down its last seconds; salloc hears nothing of it, and waited for ever."""
    monkeypatch.setattr(slurm, "LOST_S", 0.1)
    queue = first(tmp_path, f"{waiting(tmp_path, launcher.name)}; exit")
    asked(tmp_path, monkeypatch, salloc="exec sleep 60", squeue=queue)
    with pytest.raises(NotSuitable, match=f"knows no job called {launcher.name} any more"):
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    assert times(tmp_path, "salloc") == 1


def test_a_node_that_does_not_answer_is_no_controller_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher
) -> None:
    """srun has the same words for both: a dead node was waited for, and then called a controller's fault."""
    lines = (
        "slurm_receive_msgs: [[node2]:6818] failed: Socket timed out on send/recv operation",
        "Task launch for StepId=7.0 failed on node node2: Socket timed out on send/recv operation",
        "Application launch failed: Socket timed out on send/recv operation",
    )
    asked(tmp_path, monkeypatch, srun=f"{'; '.join(map(says, lines))}; exit 1")
    with pytest.raises(NotSuitable, match="failed on node node2: Socket timed out") as found:
        launcher.ready(Order(0, tmp_path, None, caches_cleared=False))
    assert not isinstance(found.value, controller.ControllerAway)
    assert times(tmp_path, "srun") == 1


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["RUNNING"], []),
        (["CONFIGURING"], []),
        (["SUSPENDED", "SUSPENDED", "RUNNING"], ["suspended: "]),
        (["SUSPENDED", "TIMEOUT"], ["suspended: ", "over (TIMEOUT); asking for another"]),
        (["NODE_FAIL"], ["over (NODE_FAIL); asking for another"]),
    ],
)
def test_a_job_that_comes_back_is_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher, states: list[str], said: list[str]
) -> None:
    """One that was suspended was left for another, came back and held whole nodes idle until the series' end."""
    heard: list[str] = []
    launcher.say, launcher._nodes = heard.append, Allocation("7", ("node1", "node2"), "a", own=True)
    following = iter(states)
    monkeypatch.setattr(Allocation, "state", lambda _: next(following))
    (tmp_path / "cancelled").touch()
    asked(tmp_path, monkeypatch, scancel=f'echo "$@" >> {tmp_path}/cancelled')
    launcher._drop_nodes_that_are_gone()
    assert [each.startswith(f"job 7 is {words}") for each, words in zip(heard, said, strict=True)] == [True] * len(said)
    over = any("over" in each for each in said)
    assert (launcher._nodes is None) == over and not list(following)
    assert (tmp_path / "cancelled").read_text().split() == ([f"--name={launcher.name}", "7"] if over else [])


def test_an_account_s_own_words_for_accelerators_are_left_to_it() -> None:
    assert slurm.gres({}, ["--gres=gpu:a100:8"]) and slurm.gres({}, ["-p", "x", "--gpus-per-node=8"])
    assert slurm.gres({"SALLOC_GPUS_PER_NODE": "8"}, []) and not slurm.gres({}, ["-p", "gpu"])


@pytest.mark.parametrize(
    ("srun", "why_not"),
    [
        ("echo dropped=0; echo dropped=0", ""),
        ("echo dropped=0; echo dropped=1", "/proc/sys/vm/drop_caches: on 1 of 2 nodes this user may not"),
        (
            f"echo dropped=0; {says('Node failure on node2')}; echo >&2; exit 1",
            "only 1 of 2 nodes answered: srun: error: Node failure on node2",
        ),
        ("exit 1", "only 0 of 2 nodes answered: srun said nothing"),
    ],
)
def test_why_caches_are_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: SlurmLauncher, srun: str, why_not: str
) -> None:
    """A step that failed was told as rights that its user lacks."""
    launcher._nodes = Allocation("7", ("node1", "node2"), "a", True)
    asked(tmp_path, monkeypatch, srun=srun)
    assert launcher.drop_caches() == Dropped(not why_not, why_not)


@pytest.mark.parametrize(
    ("image", "mine", "expected"),
    [
        (None, {"PYTHONPATH": "/home/ada/lib:/x"}, f"{ROOT}:/home/ada/lib:/x"),
        (None, {"PYTHONPATH": ""}, str(ROOT)),
        (None, {}, str(ROOT)),
        ("ssd.sif", {"PYTHONPATH": "/home/ada/lib"}, "/opt/harness"),
    ],
)
def test_ranks_find_modules_where_their_user_said(
    launcher: SlurmLauncher, image: str | None, mine: dict[str, str], expected: str
) -> None:
    """A benchmark of one's own found what it imports as a process of this machine, and not by Slurm. An image has its own."""
    launcher.request, launcher.environment = replace(launcher.request, image=image), mine
    assert launcher._surroundings(Runtime.chosen(image, (), "cpu"))["PYTHONPATH"] == expected


def test_a_node_s_file_stays_where_it_tells_something(tmp_path: Path) -> None:
    quiet = tmp_path / "result_0.node1.log"
    quiet.write_text(':::MLLOG {"key": "init_start", "value": null}\n')
    assert not running_step._telling(quiet)
    quiet.write_text(quiet.read_text() + "rank 8: RuntimeError: out of memory\n")
    assert running_step._telling(quiet)
