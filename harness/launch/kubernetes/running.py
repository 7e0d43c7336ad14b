"""A trial that runs as a Job: its pods' output, its files, its end; see watchdog.Running."""

from __future__ import annotations

import contextlib
import datetime
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from harness.contract import NotSuitable
from harness.exit_codes import INTERRUPTED
from harness.launch import away, stacks
from harness.launch.kubernetes import cluster as clusters
from harness.launch.kubernetes.cluster import Cluster, ClusterAway, CutOff
from harness.launch.kubernetes.frames import MARK, Damaged, Receiver
from harness.launch.kubernetes.manifests import CONTAINER, Trial

if TYPE_CHECKING:
    from kubernetes import client

POLL_S = 1.0
PATIENCE_S = 300.0  # for a cluster that does not answer while a trial runs in it
CLOSING_S = 60.0  # for the same at its end: what is left then, the reaper deletes, or the next trial
LOST_S = 30.0  # beyond its grace, for a pod that is deleted to be told of as ended; of a node that is lost nothing is
OUTPUT_S = 60.0  # for the last lines of pods that have ended
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
BEFORE = (datetime.datetime.min.replace(tzinfo=datetime.UTC), "")  # any line
ASKED = (INTERRUPTED, 128 + signal.SIGTERM)  # a pod's exit codes, once its Job has asked it to end


def container(pod: client.V1Pod) -> client.V1ContainerStatus | None:
    """What is known of a pod's own container; None before there is one."""
    return next((each for each in pod.status.container_statuses or [] if each.name == CONTAINER), None)


def terminated(pod: client.V1Pod) -> client.V1ContainerStateTerminated | None:
    """How it ended, in the kubelet's words."""
    found = container(pod)
    return found.state.terminated if found is not None and found.state is not None else None


@dataclass(frozen=True)
class Ended:
    """How a pod ended."""

    when: str  # ISO 8601
    code: int
    why: str


def ended(pod: client.V1Pod) -> Ended | None:
    if (state := terminated(pod)) is not None:
        when = state.finished_at.isoformat() if state.finished_at else ""
        return Ended(when, int(state.exit_code), _why_ended(pod, state))
    if pod.status.phase == "Failed":  # evicted, or its node is gone: nobody knows the container's end
        return Ended("", 137, _whole_pod(pod) or f"the cluster ended pod {pod.metadata.name}: no word why")
    return None


def _why_ended(pod: client.V1Pod, state: client.V1ContainerStateTerminated) -> str:
    """Empty where it ended by itself."""
    if state.reason == "OOMKilled":
        return "the kernel killed it for lack of memory (OOMKilled)"
    if said := _disruption(pod) or _whole_pod(pod):
        return said
    if state.reason in (None, "", "Completed", "Error"):
        return ""
    return f"pod {pod.metadata.name} ended as {state.reason}: {state.message or 'no word why; was its node restarted?'}"


def _whole_pod(pod: client.V1Pod) -> str:
    """Why the cluster ended it, container and all: its time limit, and before 1.26 an eviction too. Empty: it did not."""
    said = ": ".join(each for each in (pod.status.reason, pod.status.message) if each)
    return f"the cluster ended pod {pod.metadata.name}: {said}" if said and pod.status.phase == "Failed" else ""


def _disruption(pod: client.V1Pod) -> str:
    """Why the cluster asked a pod to end (told since 1.26): for a more important one, to drain a node. Empty: it did not."""
    for each in pod.status.conditions or []:
        if each.type == "DisruptionTarget" and each.status == "True":
            return f"the cluster ended pod {pod.metadata.name}: {each.reason}: {each.message}"
    return ""


class RunningJob:
    """One trial; see watchdog.Running. Each node's files come by its output."""

    def __init__(  # noqa: PLR0917 - what a Job is
        self,
        cluster: Cluster,
        trial: Trial,
        pods: list[client.V1Pod],
        receivers: list[Receiver],
        facts: Mapping[str, Any],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster, self._trial, self._receivers, self._facts, self._say = cluster, trial, receivers, facts, say
        self._pods = [str(each.metadata.name) for each in pods]
        self._nodes = [clusters.index(each) for each in pods]  # not 0, 1, 2 where a pod failed before all of them ran
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._asked_s, self._code_s = -POLL_S, 0.0
        self._code: int | None = None
        self._lost_since: float | None = None
        self._why = self._damage = ""
        self._left = False
        self._closed = threading.Event()
        self._ends: dict[str, Ended] = {}  # of pods, which may be gone since
        self._disruptions: dict[str, str] = {}  # as they were last told of pods
        self._deleted_since: dict[str, float] = {}
        self._readers = [
            threading.Thread(target=self._read, args=(place,), name=pod, daemon=True)
            for place, pod in enumerate(self._pods)
        ]
        for each in self._readers:
            each.start()

    def lines(self) -> Iterator[str]:
        open_ = len(self._readers)
        while open_:
            line = self._lines.get()
            if line is None:
                open_ -= 1
            else:
                yield line

    def _read(self, place: int) -> None:
        """All that a pod prints, through lost connections, each line once."""
        pod, so_far = self._pods[place], ReadSoFar()
        half: CutOff | None = None  # what came of a last line without an end
        last: tuple[str, str] | None = None  # likewise, of a pod that was over
        try:
            while not self._closed.is_set():
                over = self._over(pod)  # before reading: what is read after it is all there will be
                new = False
                try:
                    for stamp, text in self._cluster.output(pod):
                        if self._closed.is_set():  # a node that was lost may come back, and the trial has its end
                            return
                        if so_far.is_new(stamp):
                            new = new or _instant(stamp) is not None  # a kubelet's own words come each time
                            self._take(place, text)
                    # a connection may be lost between two lines as well: once more, while that brings more
                    if over and not (new and self._receivers[place].missing):
                        return
                except CutOff as cut:
                    half = cut
                    if over and last == (cut.stamp, cut.text):  # twice the same: more of it was never written
                        if so_far.is_new(cut.stamp):
                            self._take(place, cut.text)
                        return
                    last = (cut.stamp, cut.text) if over else None
                except ClusterAway:
                    pass
                so_far.again()
                time.sleep(POLL_S)
        except NotSuitable as error:
            if not clusters.gone(error):
                self._lines.put(f"{pod}: its output cannot be followed: {error}")
            elif half is not None and so_far.is_new(half.stamp) and not half.text.startswith(MARK):
                self._take(place, half.text)  # nobody has more of it now
        finally:
            self._lines.put(None)

    def _over(self, pod: str) -> bool:
        try:
            found = next((each for each in self._cluster.pods(self._trial.name) if each.metadata.name == pod), None)
        except ClusterAway:
            return False
        return found is None or ended(found) is not None

    def _take(self, place: int, text: str) -> None:
        try:
            if self._receivers[place].take(text):
                return
        except (Damaged, OSError) as error:  # of a disk that is full, here; each file comes again, whole, at the end
            if not self._damage:
                self._damage = str(error)
                self._lines.put(f"{self._damage}")
            return
        self._lines.put(text if self._nodes == [0] else f"node {self._nodes[place]} | {text}")

    def poll(self) -> int | None:
        now = time.monotonic()
        if self._code is None and now - self._asked_s >= POLL_S:
            self._asked_s = now
            self._code = self._ask()
            self._code_s = time.monotonic()
        if self._code is None:
            return None
        reading = any(each.is_alive() for each in self._readers)
        return None if reading and now - self._code_s < OUTPUT_S else self._code

    def _ask(self) -> int | None:
        try:
            pods = self._cluster.pods(self._trial.name)
        except NotSuitable as error:
            if self._lost_since is None:
                self._lost_since = time.monotonic()
                self._lines.put(f"{error}. The trial goes on, and is given up after {PATIENCE_S:g} s without an answer")
            self._cluster.log_in_again(error)
            if time.monotonic() - self._lost_since < PATIENCE_S:
                return None
            self._why = f"the cluster did not answer for {PATIENCE_S:g} s: {error}"
            return 137
        if self._lost_since is not None:
            self._lines.put(f"the cluster answers again, after {time.monotonic() - self._lost_since:.0f} s")
        self._lost_since = None
        return self._judged({str(each.metadata.name): each for each in pods})

    def _judged(self, pods: Mapping[str, client.V1Pod]) -> int | None:
        """By the pods that are there. One that was drained or preempted is gone as soon as its container has ended."""
        self._disruptions |= {name: _disruption(each) for name, each in pods.items()}
        self._ends |= {name: end for name, each in pods.items() if (end := ended(each)) is not None}
        disruption = next(filter(None, self._disruptions.values()), "")
        failed = [each for each in self._ends.values() if each.code]
        if failed:  # the first that was not asked to: the others are ended for it, by nodes whose clocks may be behind
            first = min(failed, key=lambda each: (each.code in ASKED and not each.why, each.when, each.code >= 128))
            self._why = first.why or disruption
            return first.code
        running = [each for each in self._pods if each not in self._ends]
        for name in running:
            if name not in pods:
                self._why = disruption or f"pod {name} was deleted by someone else"
                return 137
            if self._overdue(pods[name]):
                self._why = disruption or f"pod {name} was deleted, and its node does not tell how it ended"
                return 137
        return None if running else 0

    def _overdue(self, pod: client.V1Pod) -> bool:
        """Whether its deletion is older than its grace, by this machine's clock: it stays for as long as its node is lost."""
        if pod.metadata.deletion_timestamp is None:
            return False
        since = self._deleted_since.setdefault(pod.metadata.name, time.monotonic())
        return time.monotonic() - since > (pod.metadata.deletion_grace_period_seconds or 0) + LOST_S

    def ask_for_stacks(self) -> str:
        said = []
        for pod in self._pods:
            try:
                said.append(f"{pod}: {self._cluster.run_in(pod, [*stacks.COMMAND]).strip()}")
            except NotSuitable as error:
                said.append(str(error))
        return "; ".join(said)

    def terminate(self) -> None:
        """Inside node 0: so the pods stay, with their exit codes and last lines. Where that cannot be, the Job is deleted."""
        with contextlib.suppress(NotSuitable):
            if 0 in self._nodes:
                self._cluster.run_in(self._pods[self._nodes.index(0)], ["sh", "-c", "kill -TERM 1"])
                return
        with contextlib.suppress(NotSuitable):  # poll() finds out
            self._cluster.delete(self._trial.name)

    def kill(self) -> None:
        with contextlib.suppress(NotSuitable):
            self._cluster.delete(self._trial.name, at_once=True)

    def owns(self, process: psutil.Process) -> bool:  # noqa: ARG002 - none of this machine
        return False

    def why(self) -> str:
        missing = [name for each in self._receivers for name in each.missing]
        reasons = (
            self._why,
            f"not known to be whole: {', '.join(missing)}" if missing else "",
            self._damage if missing else "",
            "its Job could not be deleted, or its pods were still there after that" if self._left else "",
        )
        return "; ".join(each for each in reasons if each)

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return dict(self._facts)

    def close(self) -> None:
        self._closed.set()

        def gone() -> None:
            self._cluster.delete(self._trial.name)
            if not self._cluster.wait_until_gone(self._trial.name):
                raise NotSuitable("its pods are still there")

        def end() -> None:
            away.patiently(gone, lambda _: None, CLOSING_S, POLL_S, self._cluster.log_in_again)

        self._left = not away.cleared(end, self._say, f"the Job {self._trial.name}, or pods of it,")


class ReadSoFar:
    """How far a pod's output was read, by the times of its lines: a second reading begins at the first line again.

    Or later, where a kubelet serves older lines no more. A node's clock may be set back: by that no line is an old one.
    """

    def __init__(self) -> None:
        self._last = self._newest = BEFORE  # times: of the last line, and the latest of all
        self._same = 0  # how many lines in a row had the last one's
        self._seen = 0  # of those, in this reading
        self._beyond = False  # whether this reading has passed the last line

    def is_new(self, stamp: str) -> bool:
        """Whether the line of this time comes for the first time."""
        at = _instant(stamp)
        if at is None:  # a kubelet's own words, that it cannot follow a file for example
            return True
        if not self._beyond and at <= self._newest:
            self._seen += at == self._last
            self._beyond = self._seen == self._same
            return False
        self._beyond = True
        self._same = self._same + 1 if at == self._last else 1
        self._last, self._newest = at, max(at, self._newest)
        return True

    def again(self) -> None:
        """A new reading begins."""
        self._seen, self._beyond = 0, False


def _instant(stamp: str) -> tuple[datetime.datetime, str] | None:
    """RFC 3339 with nanoseconds, of which servers leave out zeros at the end, and by a node's own offset from UTC."""
    found = STAMP.fullmatch(stamp)
    return found and (datetime.datetime.fromisoformat(f"{found[1]}{found[3]}"), f"{found[2] or '':0<9}")
