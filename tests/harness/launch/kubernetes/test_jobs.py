"""Series of trials in a cluster, by a stand-in for its API server: the same ledger, files and exit codes as anywhere."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.launch import ledger
from harness.launch.ledger import Account
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.harness.launch.kubernetes.stand_in import IMAGE_ID, TOKEN, Cluster, serving
from tests.patience import PATIENCE_S, SILENCE_OF_A_FAKE_S, SILENCE_S
from tests.toy import configuration as toy

pytestmark = pytest.mark.early


class Lab:
    """A cluster, and the command that runs trials in it."""

    def __init__(self, folder: Path, cluster: Cluster, kubeconfig: Path) -> None:
        self.folder, self.cluster, self.kubeconfig = folder, cluster, kubeconfig
        self.configuration = toy.write(folder, toy.raw())
        self.results = folder / "out/1x_abacus/toy"

    def fakes(self, **do: str) -> None:
        """From now on the program behind each pod's door is fake_run.py, and does as it is told: fakes(_0="hang")."""
        from harness import config

        sha256 = config.load(self.configuration).sha256
        orders = {"sha256": sha256, "do": {name.strip("_"): what for name, what in do.items()}}
        self.cluster.fake = self.folder / "fake.json"
        self.cluster.fake.write_text(json.dumps(orders))

    @property
    def words(self) -> list[object]:
        words = ["--engine", "kubernetes", "--image", "registry.example/ssd:1", "--out", self.folder / "out"]
        return [self.configuration, *words]

    def run(self, *more: object) -> subprocess.CompletedProcess[str]:
        return runs.run(*self.words, *more, KUBECONFIG=str(self.kubeconfig))

    def begin(self, *more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", "run", *map(str, (*self.words, *more))],
            env=runs.environment(KUBECONFIG=str(self.kubeconfig)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=CHECKOUT,
        )

    @property
    def statuses(self) -> list[str]:
        return [each.status for each in Account.read(self.results / ledger.FILE).attempts]

    def record(self, number: int = 0) -> dict[str, Any]:
        return dict(json.loads((self.results / f"result_{number}.json").read_text()))

    def hanging(self) -> subprocess.Popen[str]:
        """A series whose run hangs, once that has a log."""
        self.fakes(_0="hang")
        process = self.begin()
        runs.until((self.results / "result_0.txt").exists, "a log")
        return process

    def kill_9(self, process: subprocess.Popen[str]) -> None:
        """And wait until nothing of its trial is in the cluster."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.wait_until_empty()

    def wait_until_empty(self) -> None:
        runs.until(lambda: not self.cluster.objects, lambda: f"the end of {self.cluster.objects.keys()}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with serving(tmp_path) as (cluster, kubeconfig):
        yield Lab(tmp_path, cluster, kubeconfig)


@pytest.mark.long
def test_a_true_run_comes_home_whole(lab: Lab) -> None:
    """Log, picture and telemetry by the pod's output alone, though the connection is lost in the middle."""
    lab.cluster.cut_after = 5
    lab.cluster.claims.add("kept")
    done = lab.run("--trials", "1", "--results-claim", "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    (pod,) = lab.cluster.pods.values()
    for name in ("result_0.txt", "result_0.png"):
        assert (lab.results / name).read_bytes() == (pod.folder / "results" / name).read_bytes()
    kept = next((pod.folder / "results-claim").iterdir())
    assert (kept / "result_0.txt").read_bytes() == (lab.results / "result_0.txt").read_bytes()
    assert lab.statuses == ["success"]
    assert runs.complies(lab.results / "result_0.txt")
    job = lab.record()["job"]
    assert job["pods"][0]["image_id"] == IMAGE_ID.rpartition("://")[2]
    assert (job["namespace"], job["engine"]) == ("lab", "kubernetes v1.34.2")
    assert "beside" not in lab.record(), "this machine's other processes are nothing to it"
    lines = [line for line in done.stdout.splitlines() if line.startswith("trial 0 | ")]
    assert not [line for line in lines if ":::FILE" in line]
    assert len([line for line in lines if "RESULT" in line]) == 1, "each line once"
    lab.wait_until_empty()


@pytest.mark.long
def test_two_nodes_train_one_run(lab: Lab) -> None:
    lab.configuration = toy.write(lab.folder, toy.raw(ranks=1, nodes=2, epochs=2, target=0.1))
    done = lab.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.statuses == ["success"]
    assert [each["node"] for each in lab.record()["job"]["pods"]] == ["node0", "node1"]
    assert runs.stop(lab.results / "result_0.txt")["status"] == "success"
    lab.wait_until_empty()


@pytest.mark.long
def test_stacks_come_from_every_node(lab: Lab) -> None:
    lab.configuration = toy.write(lab.folder, toy.raw("sleeps", ranks=1, nodes=2))
    done = lab.run("--watchdog", SILENCE_S)
    assert (done.returncode, lab.statuses) == (5, ["stalled"]), done.stdout + done.stderr
    assert "stacks of rank 0" in (lab.results / "result_0.txt").read_text()
    assert "stacks of rank 1" in (lab.results / "result_0.node1.log").read_text()
    lab.wait_until_empty()


@pytest.mark.parametrize(
    ("do", "code", "status"),
    [
        ("miss", 1, "target_not_met"),
        pytest.param("nan", 5, "failed", marks=pytest.mark.long),
        pytest.param("crash early", 5, "failed", marks=pytest.mark.long),
        pytest.param("refuse", 2, "refused", marks=pytest.mark.long),
        pytest.param("die", 5, "failed", marks=pytest.mark.long),
        pytest.param("forget", 5, "failed", marks=pytest.mark.long),
    ],
)
def test_each_end_has_the_code_and_the_status_that_it_has_anywhere(lab: Lab, do: str, code: int, status: str) -> None:
    lab.fakes(_0=do)
    done = lab.run()
    assert (done.returncode, lab.statuses) == (code, [status]), done.stdout + done.stderr
    lab.wait_until_empty()


@pytest.mark.long
def test_resume_runs_what_has_no_result(lab: Lab) -> None:
    lab.fakes(_1="nan")
    assert lab.run("--trials", "3").returncode == 5
    assert lab.statuses == ["success", "failed", "success"]
    again = lab.run("--trials", "3")
    assert again.returncode == 2
    assert "add --resume" in again.stderr
    lab.fakes()
    assert lab.run("--trials", "3", "--resume").returncode == 0
    assert lab.statuses == ["success", "failed", "success", "success"]


@pytest.mark.long
def test_the_watchdog_asks_for_stacks_and_ends_a_trial_that_stands_still(lab: Lab) -> None:
    lab.fakes(_0="hang")
    done = lab.run("--watchdog", SILENCE_OF_A_FAKE_S)
    assert (done.returncode, lab.statuses) == (5, ["stalled"]), done.stdout + done.stderr
    assert "asked for stacks: process" in done.stdout
    log = (lab.results / "result_0.txt").read_text()
    assert "fake_run.py" in log, "the stack, by way of the pod's output"
    assert "run_stop" in log, "closed by the run itself: SIGTERM inside the pod"
    lab.wait_until_empty()


@pytest.mark.long
def test_a_trial_that_takes_no_signal_and_no_exec_is_deleted(lab: Lab) -> None:
    lab.fakes(_0="hang")
    lab.cluster.no_exec = True
    done = lab.run("--watchdog", SILENCE_OF_A_FAKE_S)
    assert (done.returncode, lab.statuses) == (5, ["stalled"]), done.stdout + done.stderr
    assert "nothing can be run in it" in done.stdout
    lab.wait_until_empty()


def test_ctrl_c_deletes_the_job(lab: Lab) -> None:
    process = lab.hanging()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert lab.statuses == ["interrupted"]
    assert "run_stop" in (lab.results / "result_0.txt").read_text()
    lab.wait_until_empty()


@pytest.mark.long
def test_ctrl_c_in_the_queue_deletes_the_job(lab: Lab) -> None:
    lab.fakes()
    lab.cluster.unschedulable_s = 300
    process = lab.begin()
    assert process.stdout is not None
    line = next(line for line in process.stdout if "waiting" in line)
    assert "Insufficient nvidia.com/gpu" in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    runs.until(lambda: not [key for key in lab.cluster.objects if key[0] == "jobs"], "the Job's end")


@pytest.mark.long
def test_kill_9_deletes_the_job(lab: Lab) -> None:
    """By the process that outlives its series."""
    lab.kill_9(lab.hanging())


@pytest.mark.long
def test_kill_9_deletes_the_job_by_a_kubeconfig_whose_path_is_relative(lab: Lab) -> None:
    """One of several, as kubectl takes them: the process that outlives the series ran in another directory."""
    lab.fakes(_0="hang")
    with (lab.folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "run", *map(str, lab.words)],
            env=runs.environment(KUBECONFIG=f"none{os.pathsep}{lab.kubeconfig.name}", PYTHONPATH=str(CHECKOUT)),
            stdout=said,
            stderr=said,
            cwd=lab.folder,
        )
    runs.until((lab.results / "result_0.txt").exists, lambda: f"a log: {(lab.folder / 'said.txt').read_text()}")
    lab.kill_9(process)


@pytest.mark.long
def test_kill_9_deletes_the_job_once_the_cluster_answers_again(lab: Lab) -> None:
    """The process that outlives the series gave up at the first refusal, and the Job held its accelerators."""
    process = lab.hanging()
    lab.cluster.down = True
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    assert next(line for line in process.stdout if line.startswith("waiting, 300 s at most: "))
    lab.cluster.down = False
    process.communicate(timeout=PATIENCE_S)
    lab.wait_until_empty()


@pytest.mark.long
def test_kill_9_deletes_the_job_where_it_is_whatever_the_current_context_is_by_now(lab: Lab) -> None:
    process = lab.hanging()
    content = json.loads(lab.kubeconfig.read_text())
    content["clusters"].append({"name": "other", "cluster": {"server": "http://localhost:9"}})
    content["contexts"].append({"name": "other", "context": {"cluster": "other", "user": "someone"}})
    lab.kubeconfig.write_text(json.dumps({**content, "current-context": "other"}))
    lab.kill_9(process)


@pytest.mark.long
def test_what_a_dead_series_left_is_deleted_by_the_next(lab: Lab) -> None:
    lab.fakes()
    labels = {"app.kubernetes.io/managed-by": "training-harness"}
    here = {"training-harness/folder": str(lab.folder / "gone"), "training-harness/host": platform.node()}
    for name, others in (
        ("mine", {}),
        ("another-s", {"training-harness/host": "elsewhere"}),
        (
            "of-its-namesake",
            {"training-harness/machine": "0" * 32},
        ),  # its series may live, where this one cannot see it
    ):
        notes = {**here, **others}
        lab.cluster.objects["jobs", name] = {
            **{
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {"template": {"spec": {"containers": [{"name": "x"}]}}},
            },
            "metadata": {"name": name, "uid": name, "labels": labels, "annotations": notes},
        }
    done = lab.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"deleted a Job that a series left behind: mine (of {lab.folder / 'gone'})" in done.stdout
    assert [key[1] for key in lab.cluster.objects if key[0] == "jobs"] == ["another-s", "of-its-namesake"]


@pytest.mark.long
def test_a_moved_tag_is_no_series(lab: Lab) -> None:
    lab.fakes()
    lab.cluster.image_ids = [IMAGE_ID, "docker.io/library/ssd@sha256:" + "66" * 32]
    done = lab.run("--trials", "2")
    assert done.returncode == 6
    assert "its tag was moved" in done.stdout + done.stderr
    assert lab.statuses == ["success", "refused"]


def test_what_a_broken_trial_ran_binds_no_other(lab: Lab) -> None:
    """Its record lies there until its files are put aside, which is once its Job is gone."""
    lab.fakes(_0="nan")
    lab.cluster.image_ids = [IMAGE_ID, "docker.io/library/ssd@sha256:" + "66" * 32]
    assert lab.run("--trials", "1").returncode == 5
    lab.fakes()
    done = lab.run("--trials", "1", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.statuses == ["failed", "success"]


def _node(name: str, **allocatable: str) -> dict[str, Any]:
    info = {
        "kernelVersion": "6.1.0",
        "osImage": "Debian",
        "containerRuntimeVersion": "containerd://2.0",
        "kubeletVersion": "v1",
    }
    ids = dict.fromkeys(
        ("architecture", "bootID", "kubeProxyVersion", "machineID", "operatingSystem", "systemUUID"), "x"
    )
    labels = {"nvidia.com/gpu.product": "H100", "nvidia.com/cuda.driver.major": "580", "team": "ours"}
    named = {key.replace("__", ".").replace("_", "/"): value for key, value in allocatable.items()}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "64", **named}, "nodeInfo": {**info, **ids}},
    }


@pytest.mark.long
def test_the_node_and_its_driver_are_recorded(lab: Lab) -> None:
    lab.fakes()
    lab.cluster.nodes = [_node("node0")]
    assert lab.run().returncode == 0
    (node,) = lab.record()["job"]["nodes"]
    assert (node["name"], node["kernelVersion"]) == ("node0", "6.1.0")
    assert node["labels"] == {"nvidia.com/gpu.product": "H100", "nvidia.com/cuda.driver.major": "580"}


def refused(lab: Lab, *more: object) -> tuple[int, str]:
    """Exit code and words of a series that may not begin, of which nothing is left: no ledger and no object."""
    done = lab.run(*more)
    assert not lab.cluster.objects
    assert not (lab.results / ledger.FILE).exists()
    return done.returncode, done.stdout + done.stderr


def test_what_could_never_run_is_refused_before_the_first_trial(lab: Lab) -> None:
    code, said = refused(lab, "--data-claim", "coco")
    assert (code, "--data-claim coco: there is no such PersistentVolumeClaim" in said) == (2, True), said
    code, said = refused(lab, "--kube-context", "other")
    assert (code, "--kube-context other" in said) == (2, True), said
    lab.cluster.forbidden = {"create pods/exec", "delete jobs"}
    code, said = refused(lab)
    assert (code, "this account may not delete jobs, create pods/exec" in said) == (6, True), said
    lab.cluster.forbidden = set()
    lab.cluster.refusal = 'admission webhook "policy" denied the request: exceeded quota: gpus'
    code, said = refused(lab)
    assert (code, "kubectl describe quota" in said) == (6, True), said
    lab.cluster.refusal = None
    lab.cluster.minor = "23"
    code, said = refused(lab)
    assert (code, "need 1.24" in said) == (6, True), said
    lab.cluster.minor = "34"
    lab.configuration = toy.write(lab.folder, toy.raw(ranks=8, device="cuda"))
    lab.cluster.nodes = [_node("a", **{"nvidia__com_gpu": "4"}), _node("b", **{"amd__com_gpu": "8"})]
    code, said = refused(lab)
    assert (code, "0 nodes of the cluster have 8 nvidia.com/gpu" in said) == (6, True), said
    assert "the nodes offer: amd.com/gpu, nvidia.com/gpu" in said
    lab.kubeconfig = lab.folder / "none"
    code, said = refused(lab)
    assert (code, "no Kubernetes cluster is known here" in said) == (6, True), said


def test_a_cluster_that_does_not_answer(lab: Lab) -> None:
    lab.cluster.down = True
    code, said = refused(lab)
    assert (code, "no cluster answers" in said) == (6, True), said


@pytest.mark.parametrize(
    "reason", ["ImagePullBackOff", pytest.param("CreateContainerConfigError", marks=pytest.mark.long)]
)
def test_pods_that_can_never_start_end_the_series_in_words(lab: Lab, reason: str) -> None:
    lab.cluster.waiting = {"reason": reason, "message": "manifest unknown"}
    done = lab.run()
    assert (done.returncode, lab.statuses) == (6, ["refused"])
    assert f"{reason}: manifest unknown" in done.stdout + done.stderr
    assert not [key for key in lab.cluster.objects if key[0] == "jobs"]


def test_containers_that_could_not_be_started_end_the_series_in_words(lab: Lab) -> None:
    """Told as an end with code 128: each trial was tried, had failed and had printed nothing."""
    lab.cluster.start_error = (
        "failed to create containerd task: OCI runtime create failed: nvidia-container-cli: requirement error: "
        "unsatisfied condition: cuda>=13.0, please update your driver to a newer version"
    )
    done = lab.run("--trials", "2")
    assert (done.returncode, lab.statuses) == (6, ["refused"]), done.stdout + done.stderr
    reason = json.loads((lab.results / "refused_0.json").read_text())["reason"]
    assert f"StartError: {lab.cluster.start_error}" in reason
    assert "driver is older than this image asks for" in reason, "what to do, as for Docker"
    assert not [key for key in lab.cluster.objects if key[0] == "jobs"]


@pytest.mark.long
def test_a_pod_that_is_evicted_is_said_in_the_clusters_words(lab: Lab) -> None:
    process = lab.hanging()
    lab.cluster.evict(next(iter(lab.cluster.pods)))
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, lab.statuses) == (5, ["failed"]), said
    assert "Evicted: The node was low on resource: ephemeral-storage." in lab.record()["reason"]
    lab.wait_until_empty()


@pytest.mark.long
def test_a_pod_that_makes_room_for_another_is_no_interruption_of_ours(lab: Lab) -> None:
    """Preempted, or its node drained: it ends as if someone had asked it to, and the series went home with it."""
    lab.fakes(_0="hang")
    process = lab.begin("--trials", "2")
    runs.until((lab.results / "result_0.txt").exists, "a log")
    lab.cluster.preempt(next(iter(lab.cluster.pods)))
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, lab.statuses) == (5, ["failed", "success"]), said
    assert "PreemptionByScheduler: default-scheduler: preempting" in lab.record()["reason"]


@pytest.mark.long
def test_a_job_that_somebody_deletes_is_no_interruption_of_ours(lab: Lab) -> None:
    process = lab.hanging()
    lab.cluster.delete_job(next(name for kind, name in list(lab.cluster.objects) if kind == "jobs"))
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, lab.statuses) == (5, ["failed"]), said
    assert "was deleted by someone else" in lab.record()["reason"]
    lab.wait_until_empty()


@pytest.mark.long
def test_a_cluster_that_does_not_answer_for_a_while_costs_no_trial(lab: Lab) -> None:
    process = lab.hanging()
    assert process.stdout is not None
    lab.cluster.down = True
    gone = next(line for line in process.stdout if "is given up after 300 s" in line)
    assert "no cluster answers" in gone
    process.send_signal(signal.SIGINT)  # a Job that cannot be deleted now is deleted when it can
    time.sleep(3)
    lab.cluster.down = False
    process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, lab.statuses) == (130, ["interrupted"])
    lab.wait_until_empty()


def test_a_cluster_that_does_not_answer_between_two_trials_costs_none(lab: Lab) -> None:
    """And of a Job whose making was answered by nobody there is one all the same, which is in the way of the next."""
    lab.fakes()
    lab.cluster.busy = lab.cluster.lost_answers = 1
    done = lab.run("--trials", "1")
    assert (done.returncode, lab.statuses) == (0, ["success"]), done.stdout + done.stderr
    assert "trial 0: waiting, 300 s at most: starting harness-" in done.stdout
    lab.wait_until_empty()


def test_a_pod_that_fails_before_the_last_one_has_a_node_ends_the_wait(lab: Lab) -> None:
    """The Job's controller takes the pods away that never ran, and who waits for them waits for ever."""
    lab.configuration = toy.write(lab.folder, toy.raw(ranks=1, nodes=2))
    lab.fakes(_0="nan")
    lab.cluster.no_room_for = {1}
    done = lab.run()
    assert (done.returncode, lab.statuses) == (5, ["failed"]), done.stdout + done.stderr
    assert "trial 0: 1 of 2 pods ran before one failed" in done.stdout
    assert runs.stop(lab.results / "result_0.txt")["status"] == "aborted", "its log has come all the same"
    lab.wait_until_empty()


@pytest.mark.parametrize("within", ['"sha256"', pytest.param('"at"', marks=pytest.mark.long)])
def test_a_line_that_ended_in_its_middle_is_read_again(lab: Lab, within: str) -> None:
    """The API server's connection to the node was lost, and ours closed in good order: its half was taken for a line, and the
    whole one for an old one. With it a file was lost, unsaid."""
    lab.fakes()
    lab.cluster.cut_within = within
    done = lab.run()
    assert (done.returncode, lab.statuses) == (0, ["success"]), done.stdout + done.stderr
    (pod,) = lab.cluster.pods.values()
    assert not pod.cut_within, "it was cut"
    assert "is no piece of a file" not in done.stdout
    assert (lab.results / "result_0.txt").read_bytes() == (pod.folder / "results/result_0.txt").read_bytes()
    assert lab.record()["reason"] == ""


@pytest.mark.long
def test_lines_that_a_kubelet_serves_no_more_cost_no_log(lab: Lab) -> None:
    """It begins a new file each 10 MB and serves the newest alone: a connection lost across that loses what stood between."""
    lab.fakes(_0="take long")
    process = lab.begin()
    runs.until((lab.results / "result_0.txt").exists, "a log")
    (pod,) = lab.cluster.pods.values()
    read = len(pod.lines)
    pod.kept_from, pod.cut_after = read + 6, read
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert "the output lost lines" in said
    assert (process.returncode, lab.statuses) == (0, ["success"]), said
    assert (lab.results / "result_0.txt").read_bytes() == (pod.folder / "results/result_0.txt").read_bytes()


@pytest.mark.long
def test_a_token_that_expires_is_read_anew_from_the_kubeconfig(lab: Lab) -> None:
    lab.fakes(_0="hang")
    process = lab.begin("--watchdog", SILENCE_OF_A_FAKE_S)
    runs.until((lab.results / "result_0.txt").exists, "a log")
    assert process.stdout is not None
    lab.cluster.token = "a new one"
    gone = next(line for line in process.stdout if "is given up after 300 s" in line)
    assert "log in to it again" in gone
    lab.kubeconfig.write_text(lab.kubeconfig.read_text().replace(TOKEN, lab.cluster.token))
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert "the cluster answers again" in said
    assert (process.returncode, lab.statuses) == (5, ["stalled"])
    assert "fake_run.py" in (lab.results / "result_0.txt").read_text(), "the stacks came, by the new token"
    lab.wait_until_empty()


@pytest.mark.long
def test_a_claim_that_takes_no_results_is_said_and_costs_none(lab: Lab) -> None:
    lab.cluster.claims.add("kept")
    lab.fakes()
    lab.cluster.full_claims = True
    done = lab.run("--results-claim", "kept")
    assert (done.returncode, lab.statuses) == (0, ["success"]), done.stdout + done.stderr
    assert "the results claim does not keep the trial's files: " in done.stdout


@pytest.mark.long
def test_a_configuration_of_any_name(lab: Lab) -> None:
    """A ConfigMap's keys are not any name, and those of objects are short."""
    lab.configuration = lab.configuration.rename(lab.folder / f"größe 3 {'x' * 70}.toml")
    lab.fakes()
    done = lab.run()
    assert (done.returncode, lab.statuses) == (0, ["success"]), done.stdout + done.stderr
