"""What is said while a trial waits for its pods, and when waiting helps nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace as Object
from typing import Any, cast

import pytest
from kubernetes.client.exceptions import ApiException

from harness.contract import NotSuitable
from harness.execution.signals import Interrupted
from harness.launch.kubernetes import launcher as waiting
from harness.launch.kubernetes.cluster import Cluster, ClusterAway
from harness.launch.kubernetes.launcher import JobLauncher
from harness.launch.trial import Order


def pod(
    phase: str = "Pending",
    state: Any = None,
    conditions: Any = None,
    *,
    code: int | None = None,
    index: int = 0,
    ip: str = "",
    node: str | None = None,
) -> Any:
    end = None if code is None else Object(exit_code=code, reason="Error", finished_at=None)
    statuses = [Object(name="trial", state=Object(waiting=state, terminated=end))] if state or end else []
    return Object(
        spec=Object(node_name=node),
        metadata=Object(name=f"pod-{index}", annotations={"batch.kubernetes.io/job-completion-index": str(index)}),
        status=Object(
            phase=phase, container_statuses=statuses, conditions=conditions, pod_ip=ip, reason=None, message=None
        ),
    )


class Answers:
    """A cluster that answers in turn; its last answer for ever."""

    def __init__(self, *pods: Any, events: tuple[str, ...] = (), job: Any = None) -> None:
        self._pods, self._events, self._job = list(pods), list(events), job

    def pods(self, name: str) -> list[Any]:
        answer = self._pods.pop(0) if len(self._pods) > 1 else self._pods[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def log_in_again(self, why: Exception) -> None:
        pass

    def events(self, name: str) -> list[str]:
        return self._events

    def job(self, name: str) -> Any:
        return self._job


def waited(cluster: Answers, monkeypatch: pytest.MonkeyPatch, nodes: int = 1) -> list[str]:
    """What is said until the pods run; an hour goes by between two looks."""
    clock = iter(range(0, 1_000_000, 3600))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    said: list[str] = []
    configured = Object(run=Object(nodes=nodes))
    its = JobLauncher(cluster, configured, Object(), Object(image="x"), "s", Object(), said.append)  # type: ignore[arg-type]
    its._running(Object(name="job"), Object(name="trial 0"))  # type: ignore[arg-type]
    return said


RUNS = [pod("Running")]


def test_a_queue_is_waited_for_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [
        pod(conditions=[Object(type="PodScheduled", status="False", message="0/3 nodes: Insufficient nvidia.com/gpu")])
    ]
    assert waited(Answers(full, full, RUNS), monkeypatch) == [
        "trial 0: waiting: 0/3 nodes: Insufficient nvidia.com/gpu"
    ]
    suspended = Object(spec=Object(suspend=True), status=None)
    said = waited(Answers([], [], RUNS, job=suspended), monkeypatch)
    assert said == ["trial 0: waiting: the Job is suspended: a queue will admit it"]


def test_a_first_pod_without_a_node_is_why_another_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's DNS was asked about; with an address the other pod has begun, and says itself why it ended."""
    no_room = [Object(type="PodScheduled", status="False", message="0/3 nodes: Insufficient nvidia.com/gpu")]
    first, other, gave_up = pod(conditions=no_room), pod("Running", index=1), pod("Failed", code=6, index=1)
    with pytest.raises(
        NotSuitable, match=r"node 0's pod has no node yet.* \(--rendezvous-timeout SECONDS .*: 0/3 nodes: Ins"
    ):
        waited(Answers([first, other], [first, gave_up]), monkeypatch, nodes=2)
    placed = pod(node="node-a")
    with pytest.raises(NotSuitable, match="node 0's pod on node-a has no address yet, and another gave up"):
        waited(Answers([placed, gave_up]), monkeypatch, nodes=2)
    pulling = pod(ip="10.0.0.7")
    assert "1 of 2 pods ran before one failed" in waited(Answers([pulling, gave_up]), monkeypatch, nodes=2)[0]


@pytest.mark.parametrize("status", [None, 403], ids=["away", "refused"])
def test_an_interruption_whose_job_cannot_be_deleted_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """It was taken for a cluster that is away, and the trial started again; later signals are ignored."""

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted(signal.SIGINT)

    def refused(*_: object, **__: object) -> None:
        raise OSError("connection refused") if status is None else ApiException(status, "Forbidden")

    job = Object(metadata=Object(uid="1"))
    batch = Object(create_namespaced_job=lambda *_, **__: job, delete_namespaced_job=refused)
    monkeypatch.setattr(Cluster, "_batch", batch)
    monkeypatch.setattr(
        Cluster, "core", Object(create_namespaced_config_map=interrupted, create_namespaced_service=None)
    )
    trial: Any = Object(name="job", job={}, config_map={"metadata": {}}, service=None)
    monkeypatch.setattr(JobLauncher, "trial", lambda *_: trial)
    said: list[str] = []
    reaper: Any = Object(watch_jobs=lambda *_: None)
    cluster = Cluster(cast(Any, None), "lab", "v1.34")
    its = JobLauncher(cluster, cast(Any, Object()), cast(Any, Object()), cast(Any, Object()), "s", reaper, said.append)
    with pytest.raises(Interrupted):
        its.start(Order(3, tmp_path, None, caches_cleared=False))
    assert len(said) == 1 and said[0].startswith("trial 3: the Job job may be left until the series ends"), said


def test_one_image_under_two_registries_names_is_one() -> None:
    """It was called moved, and its digest asked for, by which it had been named."""

    def running(image_id: str) -> Any:
        return Object(status=Object(container_statuses=[Object(name="trial", image_id=image_id)]))

    one, mirrored = (running(f"{name}.example/ssd@sha256:{'5d' * 32}") for name in ("registry", "mirror"))
    site = Object(image="registry.example/ssd:1")
    its = JobLauncher(Object(), Object(), Object(), site, "s", Object(), print)  # type: ignore[arg-type]
    its._must_be_the_same_image([one, mirrored])
    its._must_be_the_same_image([mirrored])
    with pytest.raises(NotSuitable, match="its tag was moved"):
        its._must_be_the_same_image([running(f"registry.example/ssd@sha256:{'66' * 32}")])


def test_a_volume_that_cannot_be_attached_is_told_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    creating = [pod(state=Object(reason="ContainerCreating", message=None))]
    events = ("FailedMount: old", "Multi-Attach error for volume: already used by pod on another node")
    said = waited(Answers(creating, creating, RUNS, events=events), monkeypatch)
    assert said == [f"trial 0: waiting: {events[-1]}"]


def test_a_job_without_pods_ends_in_the_controller_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Object(spec=Object(suspend=False), status=None)
    with pytest.raises(NotSuitable, match="makes no pods for it: pods is forbidden: exceeded quota"):
        waited(Answers([], events=("pods is forbidden: exceeded quota",), job=job), monkeypatch)
    with pytest.raises(NotSuitable, match="was deleted by someone else"):
        waited(Answers([], job=None), monkeypatch)


def test_too_few_pods_end_in_the_controller_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota for the second of two was waited for without a word, for ever."""
    job = Object(spec=Object(suspend=False), status=None)
    with pytest.raises(NotSuitable, match="makes too few pods for it: exceeded quota"):
        waited(Answers(RUNS, events=("exceeded quota",), job=job), monkeypatch, nodes=2)
    failed = Object(type="Failed", status="True", reason="BackoffLimitExceeded", message="Job has reached its limit")
    job = Object(spec=Object(suspend=False), status=Object(conditions=[failed]))
    with pytest.raises(NotSuitable, match="ended the Job before all of its pods ran: BackoffLimitExceeded: Job has"):
        waited(Answers([], job=job), monkeypatch)


def test_a_cluster_that_is_away_for_a_moment_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ClusterAway("no cluster answers")
    with pytest.raises(ClusterAway):  # an hour later it still is
        waited(Answers(away, away, away), monkeypatch)
    monkeypatch.setattr(waiting, "PATIENCE_S", 1e9)
    assert waited(Answers(away, away, RUNS), monkeypatch) == ["trial 0: waiting: no cluster answers"]
