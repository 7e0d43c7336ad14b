"""A trial as a Job: started, waited for, followed, and deleted whatever happens; what it is, manifests.py says."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import names
from harness.config import Configuration
from harness.contract import NotSuitable
from harness.exit_codes import NOT_SUITABLE
from harness.launch import away, engine
from harness.launch.caches import Dropped
from harness.launch.kubernetes import manifests
from harness.launch.kubernetes.cluster import Cluster, ClusterAway, index
from harness.launch.kubernetes.frames import Receiver
from harness.launch.kubernetes.manifests import Site, Trial
from harness.launch.kubernetes.running import PATIENCE_S, POLL_S, RunningJob, container, ended, terminated
from harness.launch.reaper import Reaper
from harness.launch.trial import Order
from harness.request import Request

if TYPE_CHECKING:
    from kubernetes import client

HOPELESS = (
    *("InvalidImageName", "ImageInspectError", "ErrImageNeverPull", "ImagePullBackOff"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
)
NEVER_RAN = ("StartError", "ContainerCannotRun")  # containerd's and Docker's words, of a container that has "ended"
SOON_S = 15.0  # in which pods are made and run where nothing is in the way; then events are read, every SELDOM_S
SELDOM_S = 5.0


@dataclass
class JobLauncher:
    """Starts each trial as a Job of its own."""

    cluster: Cluster
    configuration: Configuration
    request: Request
    site: Site
    series: str
    reaper: Reaper
    say: Callable[[str], None]
    image_id: str | None = field(default=None, init=False)  # of the trials so far

    here = False

    @property
    def where(self) -> str:
        return self.site.image

    def facts(self) -> dict[str, Any]:
        """For the ledger."""
        return {
            "where": self.where,
            "image": self.site.image,
            "engine": f"kubernetes {self.cluster.version}",
            "namespace": self.cluster.namespace,
        }

    def trial(self, order: Order) -> Trial:
        """All that is asked of the cluster for it."""
        return manifests.of_trial(self.configuration, self.request, self.site, order, self.series, host=platform.node())

    def clear(self, folder: Path) -> list[str]:  # noqa: ARG002 - the cluster knows each Job's
        """Delete the Jobs that series have left behind, this one's earlier trials too. Says which."""
        with contextlib.suppress(ClusterAway):  # starting the trial says so
            self.cluster.delete_series(self.series)
            return self.cluster.delete_leftovers()
        return []

    def ready(self, order: Order) -> None:
        """Which image the results so far are of; the cluster was asked before the series began."""
        self.image_id = self.image_id or _image_in(order.folder)

    def drop_caches(self) -> Dropped:
        """None: a pod has no right to."""
        return Dropped(False, "they are the nodes', and a pod has no right to")

    def start(self, order: Order) -> RunningJob:
        """The trial, running on every node. NotSuitable, with what to do, when the cluster cannot run it."""
        self.reaper.watch_jobs(self.series, self.cluster.context, self.cluster.namespace)
        trial = self.trial(order)
        try:
            self._create(trial, order)
            pods = self._running(trial, order)
            self._must_be_the_same_image(pods)
            receivers = [Receiver(order.folder, order.number, index(pod)) for pod in pods]
            return RunningJob(self.cluster, trial, pods, receivers, self._of(trial, pods), self.say)
        except BaseException:
            what = f"{order.name}: the Job {trial.name}"
            away.cleared(lambda: self.cluster.delete(trial.name), self.say, what)
            raise

    def _create(self, trial: Trial, order: Order) -> None:
        """If need be once the cluster answers again, for as long as it may be away while a trial runs."""
        lost: list[away.Away] = []

        def create() -> None:
            if lost:  # an answer, and perhaps not the Job
                self.cluster.log_in_again(lost[-1])
                self.cluster.delete(trial.name)
                self.cluster.wait_until_gone(trial.name)
            self.cluster.create(trial)

        away.patiently(create, lambda text: self.say(f"{order.name}: {text}"), PATIENCE_S, POLL_S, lost.append)

    def _running(self, trial: Trial, order: Order) -> list[client.V1Pod]:
        """Its pods, once each of them runs or has run, or one has failed, which ends all. A queue takes what it takes."""
        nodes, told, began = self.configuration.run.nodes, "", time.monotonic()
        heard = began
        while True:
            now = time.monotonic()
            try:
                pods = self.cluster.pods(trial.name)
                _must_have_started(pods)
                if len(pods) == nodes and not any(map(_pending, pods)):
                    return pods
                codes = [end.code for end in map(ended, pods) if end is not None]
                first = next(filter(_has_no_name, pods), None)
                if NOT_SUITABLE in codes and first is not None:
                    node = first.spec.node_name
                    raise NotSuitable(
                        f"{trial.name}: node 0's pod {f'on {node} has no address' if node else 'has no node'} yet, and another "
                        f"gave up waiting for it (--rendezvous-timeout SECONDS waits longer): {told or 'no word why'}"
                    )
                if any(codes):
                    there = [each for each in pods if not _pending(each)]
                    self.say(
                        f"{order.name}: {len(there)} of {nodes} pods ran before one failed; {told or 'no word why'}"
                    )
                    return there
                waits, heard = self._waits(trial.name, pods, now - began), now
            except ClusterAway as error:
                self.cluster.log_in_again(error)
                if now - heard > PATIENCE_S:
                    raise
                waits = str(error)
            if waits and waits != told:
                self.say(f"{order.name}: waiting: {waits}")
                told = waits
            time.sleep(POLL_S if now - began < SOON_S else SELDOM_S)

    def _waits(self, name: str, pods: list[client.V1Pod], waited_s: float) -> str:
        """For what, in the cluster's words as far as it has any. NotSuitable where waiting helps nothing."""
        if len(pods) < self.configuration.run.nodes and (lacks := self._lacks_pods(name, waited_s, some=bool(pods))):
            return lacks
        found = _waits_for(pods)
        if found or waited_s < SOON_S:
            return found
        # a volume that cannot be attached or mounted is told by events alone
        warnings = [each for pod in pods if _pending(pod) for each in self.cluster.events(pod.metadata.name)[-1:]]
        return "; ".join(dict.fromkeys(warnings))

    def _lacks_pods(self, name: str, waited_s: float, *, some: bool) -> str:
        job = self.cluster.job(name)
        if job is None:
            raise NotSuitable(f"{name}: the Job was deleted by someone else before it ran")
        if job.spec.suspend:
            return "the Job is suspended: a queue will admit it"
        for each in (job.status and job.status.conditions) or []:
            if each.type == "Failed" and each.status == "True":
                raise NotSuitable(
                    f"{name}: the cluster ended the Job before all of its pods ran: {each.reason}: {each.message}"
                )
        if waited_s < SOON_S:
            return ""
        warnings = self.cluster.events(name)
        if warnings:
            raise NotSuitable(f"{name}: the cluster makes {'too few' if some else 'no'} pods for it: {warnings[-1]}")
        return "the cluster has not made all of its pods yet"

    def _must_be_the_same_image(self, pods: list[client.V1Pod]) -> None:
        found = sorted({_image_id(each) for each in pods} - {""})
        before = self.image_id or (found[0] if found else None)
        if before is not None and set(map(_digest, found)) - {_digest(before)}:
            raise NotSuitable(
                f"--image {self.site.image} is {' and '.join(found)} now, and was {before} in this series: its tag was "
                "moved, or nodes keep an older one; name the image by its digest (NAME@sha256:...)"
            )
        self.image_id = before

    def _of(self, trial: Trial, pods: list[client.V1Pod]) -> dict[str, Any]:
        """For the record."""
        nodes = list(dict.fromkeys(str(each.spec.node_name) for each in pods))
        return {
            "job": {
                "name": trial.name,
                "pods": [
                    {"name": each.metadata.name, "node": each.spec.node_name, "image_id": _image_id(each)}
                    for each in pods
                ],
                "nodes": [self.cluster.node(each) for each in nodes],
                "resource": self.site.resource,
                "pod_template": dict(self.site.template),  # what a site added, privileges too
                **self.facts(),
            }
        }


def _image_in(folder: Path) -> str | None:
    """What an earlier trial of the folder ran, by its record."""
    for log in names.results_in(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            found = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))["job"]["pods"][0]["image_id"]
            if isinstance(found, str) and found:
                return found
    return None


def _pending(pod: client.V1Pod) -> bool:
    return pod.status.phase in (None, "Pending")


def _has_no_name(pod: client.V1Pod) -> bool:
    """Whether it is node 0's, and nothing of the run can have begun for want of its address."""
    return index(pod) == 0 and _pending(pod) and not pod.status.pod_ip


def _image_id(pod: client.V1Pod) -> str:
    found = container(pod)
    return str(found.image_id or "").rpartition("://")[2] if found is not None else ""


def _must_have_started(pods: list[client.V1Pod]) -> None:
    """NotSuitable where a container that is not tried again could not be started: the next trial's could not either."""
    for pod in pods:
        state = terminated(pod)
        if state is not None and state.reason in NEVER_RAN:
            raise _refused(pod, state)


def _refused(
    pod: client.V1Pod, state: client.V1ContainerStateWaiting | client.V1ContainerStateTerminated
) -> NotSuitable:
    said = f"{pod.metadata.name}: {state.reason}: {state.message or 'no word why'}"
    fix = next((fix for sign, fix in engine.OF_THE_DRIVER if sign in said.lower()), "")
    return NotSuitable("\n".join([said, *([fix] if fix else [])]))


def _digest(image_id: str) -> str:
    """What the image is: the repository before it is whichever a node has heard of first, a mirror's too."""
    return image_id.rpartition("@")[2]


def _waits_for(pods: list[client.V1Pod]) -> str:
    """What pods that do not run wait for. NotSuitable where waiting helps nothing."""
    reasons = []
    for pod in pods:
        found = container(pod)
        waiting = found.state.waiting if found is not None and found.state is not None else None
        if waiting is not None and waiting.reason in HOPELESS:
            raise _refused(pod, waiting)
        if waiting is not None and waiting.message:
            reasons.append(f"{waiting.reason}: {waiting.message}")
        for each in pod.status.conditions or []:
            if each.type == "PodScheduled" and each.status == "False" and each.message:
                reasons.append(str(each.message))
    return "; ".join(dict.fromkeys(reasons))
