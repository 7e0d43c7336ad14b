"""Files by way of a pod's output: whole or not believed, each line once, and nowhere but where they belong."""

from __future__ import annotations

import base64
import ctypes
import datetime
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client.exceptions import ApiException

from harness.contract import NotSuitable
from harness.launch import trial
from harness.launch.kubernetes import pod as pod_command
from harness.launch.kubernetes import running as running_jobs
from harness.launch.kubernetes.cluster import CutOff
from harness.launch.kubernetes.frames import MARK, PIECE, Damaged, Receiver, Sender
from harness.launch.kubernetes.manifests import Trial
from harness.launch.kubernetes.running import Ended, ReadSoFar, RunningJob, ended
from harness.launch.stacks import catches
from harness.launch.watchdog import Outcome
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


def sent(folder: Path, content: dict[str, bytes]) -> list[str]:
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return list(Sender(folder, 0).rest())


def test_files_arrive_as_they_were(tmp_path: Path) -> None:
    files = {
        "result_0.txt": b":::MLLOG {}\n" * 5000,
        "result_0.png": os.urandom(3 * PIECE + 1),
        "telemetry_0.jsonl": b"",
    }
    lines = sent(tmp_path / "pod", {**files, "result_1.txt": b"another's", "notes.txt": b"nobody's"})
    assert max(map(len, lines)) < 16 << 10, "a container runtime splits longer lines"
    here = tmp_path / "here"
    here.mkdir()
    receiver = Receiver(here, 0)
    assert all(receiver.take(line) for line in lines)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == files
    assert receiver.missing == []
    assert not receiver.take(":::MLLOG {}")


def test_each_node_sends_its_own_file_alone(tmp_path: Path) -> None:
    lines = sent(tmp_path / "pod", {"result_0.node1.log": b"stacks of rank 8"})
    receiver = Receiver(tmp_path, 0, node=1)
    assert all(receiver.take(line) for line in lines)
    assert receiver.complete == {"result_0.node1.log"}
    with pytest.raises(Damaged, match="no file of trial 0 on node 1"):
        receiver.take(piece("result_0.txt", 0, b"x"))


def test_a_log_that_grows_comes_as_it_grows(tmp_path: Path) -> None:
    pod, here = tmp_path / "pod", tmp_path / "here"
    pod.mkdir()
    here.mkdir()
    sender, receiver = Sender(pod, 0), Receiver(here, 0)
    assert list(sender.growing()) == []
    with (pod / "result_0.txt").open("wb", buffering=0) as log:
        for piece in (b"one\n", b"tw", b"o\n"):
            log.write(piece)
            for line in sender.growing():
                receiver.take(line)
            assert (here / "result_0.txt").read_bytes() == (pod / "result_0.txt").read_bytes()
    assert receiver.missing == ["result_0.txt"], "nobody has said yet that this is all"
    for line in sender.rest():
        receiver.take(line)
    assert receiver.missing == []


def test_the_log_of_a_run_that_never_began_comes_by_its_last_name_alone(tmp_path: Path) -> None:
    pod, here = tmp_path / "pod", tmp_path / "here"
    pod.mkdir()
    here.mkdir()
    sender, receiver = Sender(pod, 0), Receiver(here, 0)
    (pod / "result_0.txt").write_bytes(b"one\n")
    lines = list(sender.growing())
    with (pod / "result_0.txt").open("ab") as log:
        log.write(b"and why not\n")
    (pod / "result_0.txt").rename(pod / "refused_0.txt")
    lines += sender.rest()
    for _ in range(2):  # an output may be read again
        assert all(receiver.take(line) for line in lines)
        assert {path.name: path.read_bytes() for path in here.iterdir()} == {"refused_0.txt": b"one\nand why not\n"}
        assert receiver.missing == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=6), st.binary(max_size=5 * PIECE))
def test_what_is_read_again_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("again")
    lines = sent(folder / "pod", {"result_0.txt": data})
    here = folder / "here"
    here.mkdir()
    receiver = Receiver(here, 0)
    for cut in cuts:  # a connection that is lost there, and begins again
        for line in lines[:cut]:
            receiver.take(line)
    for line in lines:
        receiver.take(line)
    assert (here / "result_0.txt").read_bytes() == data
    assert receiver.missing == []


def piece(name: str, at: object, data: bytes) -> str:
    return MARK + json.dumps({"file": name, "at": at, "data": base64.b64encode(zlib.compress(data)).decode()})


@pytest.mark.parametrize(
    "line",
    [
        piece("../result_0.txt", 0, b"x"),
        piece("/etc/passwd", 0, b"x"),
        piece("ledger.jsonl", 0, b"x"),
        piece("result_1.txt", 0, b"x"),
        piece("result_0.node1.log", 0, b"x"),  # another node's
        piece("result_0.txt", 5, b"x"),  # bytes before it are missing
        piece("result_0.txt", -1, b"x"),
        piece("result_0.txt", "0", b"x"),
        piece("result_0.txt", 0, bytes(1 << 24)),  # more than a piece holds
        MARK + "no JSON",
        MARK + "[]",
        MARK + json.dumps({"file": "result_0.txt", "at": 0, "data": "!"}),
        MARK + json.dumps({"file": "result_0.txt", "size": 1, "sha256": "0"}),
    ],
)
def test_what_does_not_fit_writes_nothing(tmp_path: Path, line: str) -> None:
    """An image may be anybody's, and its output too."""
    here = tmp_path / "here"
    here.mkdir()
    with pytest.raises(Damaged):
        Receiver(here, 0).take(line)
    assert not list(here.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_lines_of_an_output_that_is_read_again_come_once() -> None:
    """By their times, of which several lines may have the same, and of which servers leave out zeros."""
    stamps = ["2026-11-26T10:00:00.1Z", "2026-11-26T10:00:00.1Z", "2026-11-26T10:00:00.12Z", "2026-11-26T10:00:01Z"]
    place = ReadSoFar()
    assert [place.is_new(each) for each in stamps[:2]] == [True, True]
    place.again()
    assert [place.is_new(each) for each in stamps] == [False, False, True, True]
    place.again()
    assert [place.is_new(each) for each in [*stamps, stamps[-1]]] == [False, False, False, False, True]


BACK = ["2026-11-26T10:00:30Z", "2026-11-26T10:00:10Z", "2026-11-26T10:00:29Z", "2026-11-26T10:00:31Z"]
WINTER = ["2026-10-25T02:59:59.9+02:00", "2026-10-25T02:00:00.9+01:00", "2026-10-25T02:30:00+01:00"]


@pytest.mark.parametrize("stamps", [BACK, WINTER], ids=["a clock set back", "the end of summer time"])
def test_lines_of_a_node_whose_time_goes_back_are_no_old_ones(stamps: list[str]) -> None:
    """They were left out for as long as the step was, the whole copies of the files at the end too."""
    for cut in range(len(stamps) + 1):  # where the connection is lost
        place = ReadSoFar()
        assert [place.is_new(each) for each in stamps[:cut]] == [True] * cut
        place.again()
        assert [place.is_new(each) for each in stamps] == [False] * cut + [True] * (len(stamps) - cut)


def test_a_kubelets_own_words_in_an_output_make_no_line_an_old_one() -> None:
    """They have no time, and stood behind all times as text."""
    place = ReadSoFar()
    stamps = [
        "2026-11-26T10:00:00Z",
        "failed",
        "2026-11-26T10:00:01Z",
    ]  # to create fsnotify watcher: too many open files
    assert [place.is_new(each) for each in stamps] == [True, True, True]
    place.again()
    assert [place.is_new(each) for each in stamps[::2]] == [False, False]


def test_lines_beyond_those_that_a_kubelet_serves_no_more_are_new() -> None:
    place = ReadSoFar()
    assert [place.is_new(each) for each in BACK[:3]] == [True, True, True]
    place.again()
    assert [place.is_new(each) for each in BACK[3:]] == [True]


def test_a_pod_that_is_asked_to_end_after_its_run_sends_its_files_first(tmp_path: Path) -> None:
    """Another node's pod that failed ends this one too: its code was 1 then, as of a missed target, and its files cut off."""
    (tmp_path / "telemetry_0.jsonl").write_bytes(os.urandom(1 << 20))  # more than a pipe takes
    quick = "import sys; from harness.launch.kubernetes import pod; pod.RUN = (sys.executable, '-c', 'raise SystemExit(5)'); "
    words = ["--out", str(tmp_path), "0", "--", "run"]
    command = [sys.executable, "-c", f"{quick}sys.exit(pod.main(sys.argv[1:]))", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None and process.stderr is not None
        first = next(line for line in process.stdout if "telemetry_0" in line)  # the run is over, and the pipe is full
        process.send_signal(signal.SIGTERM)
        said = [first, *process.stdout]
        assert process.wait(PATIENCE_S) == 5, process.stderr.read()
    (tmp_path / "home").mkdir()
    receiver = Receiver(tmp_path / "home", 0)
    for line in said:
        receiver.take(line.rstrip("\n"))
    assert receiver.complete == {"telemetry_0.jsonl"}


def test_a_pod_hears_a_signal_that_another_of_its_threads_was_given(tmp_path: Path) -> None:
    """As the kernel does after a freeze, 17 times of 20: the main thread waited for its run alone, and nothing woke it."""
    long = "import sys; from harness.launch.kubernetes import pod; pod.RUN = (sys.executable, '-c', {run!r}); "
    run = "import time; print('begun', flush=True); time.sleep(1200)"
    words = ["--out", str(tmp_path), "0", "--", "run"]
    command = [sys.executable, "-c", f"{long.format(run=run)}sys.exit(pod.main(sys.argv[1:]))", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            others = [each.id for each in psutil.Process(process.pid).threads() if each.id != process.pid]
            assert ctypes.CDLL(None).tgkill(process.pid, others[0], signal.SIGTERM) == 0
            assert process.wait(PATIENCE_S) == 143
        finally:
            process.kill()


def test_a_pod_that_waits_for_another_can_be_ended(tmp_path: Path) -> None:
    """The kernel drops what a container's first process has not asked for: it took no SIGTERM, for ten minutes."""
    words = ["--wait-for", "no-such-host.invalid", "600", "--out", str(tmp_path), "0", "--", "run"]
    command = [sys.executable, "-m", "harness.launch.kubernetes.pod", *words]
    as_first = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", *command]
    if subprocess.run([*as_first[:6], "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    with subprocess.Popen(as_first, cwd=CHECKOUT) as process:
        outside = psutil.Process(process.pid)
        until(
            lambda: [each for each in outside.children() if catches(each.pid, signal.SIGTERM)],
            "the pod's first process",
        )
        outside.children()[0].terminate()
        assert process.wait(PATIENCE_S) == 143


def test_a_pod_that_waited_in_vain_says_for_whom_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DNS alone was asked about, where node 0's pod had no node."""
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(pod_command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(pod_command, "_resolves", lambda *those: asked.append(those))
    assert pod_command.main(["--wait-for", "first.job", "7200", "--out", str(tmp_path), "0", "--", "run"]) == 6
    assert asked == [("first.job", 7200.0)]
    assert "first.job: node 0 has no name after 7200 s: its pod may have no node yet" in capsys.readouterr().out


def test_a_disk_that_is_full_here_is_said_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that read the output died of it, and the trial's reason was that its log had no end."""
    pieces = sent(tmp_path / "pod", {"result_0.txt": b"a log\n"})
    (tmp_path / "home").mkdir()
    receiver = Receiver(tmp_path / "home", 0)
    running = RunningJob(cast(Any, None), cast(Trial, None), [], [receiver], {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "result_0.txt")

    with monkeypatch.context() as changed:
        changed.setattr(Receiver, "_write", full)
        running._take(0, pieces[0])
    (tmp_path / "home/result_0.txt").touch()
    assert "No space left on device" in running.why()
    for each in pieces:
        running._take(0, each)
    assert not running.why()


def pod(
    name: str, code: int, second: int = 0, condition: Any = None, *, reason: str = "Error", message: str = ""
) -> Any:
    """One whose container has ended."""
    when = datetime.datetime(2026, 1, 1, 12, 0, second, tzinfo=datetime.UTC)
    terminated = SimpleNamespace(exit_code=code, reason=reason, message=message, finished_at=when)
    status = SimpleNamespace(name="trial", state=SimpleNamespace(terminated=terminated))
    said = SimpleNamespace(container_statuses=[status], conditions=condition and [condition], phase="Failed")
    said.reason = said.message = None  # of the pod
    return SimpleNamespace(metadata=SimpleNamespace(name=name), status=said)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),
        ("Evicted", "The node was low on resource: memory."),  # by clusters before 1.26, without a condition
    ],
)
def test_a_whole_pod_that_the_cluster_ends_was_interrupted_by_nobody(reason: str, message: str) -> None:
    """Its run takes the SIGTERM and ends with 130: the series went home, as if someone had asked it to."""
    found = pod("p", 130)
    found.status.reason, found.status.message = reason, message
    end = ended(found)
    assert end == Ended("2026-01-01T12:00:00+00:00", 130, f"the cluster ended pod p: {reason}: {message}")
    assert trial.judge(Outcome(end.code, why=end.why), None, "").status == "failed"
    own = ended(pod("p", 130))
    assert own is not None
    assert trial.judge(Outcome(own.code, why=own.why), None, "").status == "interrupted"


def test_an_end_that_was_not_the_containers_own_is_said_in_the_clusters_words() -> None:
    """A node that was restarted gave "exit code 255 (signal 127); it printed nothing"."""
    gone = "The container could not be located when the pod was terminated"
    found = [
        ended(pod("p", 255, reason="Unknown")),
        ended(pod("p", 137, reason="ContainerStatusUnknown", message=gone)),
    ]
    assert [each and each.why for each in found] == [
        "pod p ended as Unknown: no word why; was its node restarted?",
        f"pod p ended as ContainerStatusUnknown: {gone}",
    ]
    own = [ended(pod("p", 5, message="the container's last words")), ended(pod("p", 0, reason="Completed"))]
    assert [each and each.why for each in own] == ["", ""]


def test_the_pod_that_failed_first_is_the_cause_whatever_the_nodes_clocks_say(tmp_path: Path) -> None:
    """Node 0, asked to end for node 1's sake, said so half a minute before by its clock: the series took that for a Ctrl-C."""

    def judged(*pods: Any) -> int | None:
        cluster = cast(Any, SimpleNamespace(pods=lambda _: list(pods)))
        return RunningJob(cluster, cast(Any, SimpleNamespace(name="job")), [], [], {})._ask()

    assert judged(pod("0", 130, 1), pod("1", 5, 31)) == 5
    assert judged(pod("0", 143, 1), pod("1", 2, 31)) == 2
    drained = SimpleNamespace(type="DisruptionTarget", status="True", reason="EvictionByEvictionAPI", message="drain")
    assert judged(pod("0", 130, 1, drained), pod("1", 5, 9)) == 130
    assert judged(pod("0", 130, 2), pod("1", 130, 3)) == 130


def disrupted(reason: str, status: str = "True") -> Any:
    return SimpleNamespace(type="DisruptionTarget", status=status, reason=reason, message="so it is")


def at_work(name: str, condition: Any = None, *, deleted: bool = False) -> Any:
    """A pod that runs."""
    status = SimpleNamespace(name="trial", state=SimpleNamespace(terminated=None))
    metadata = SimpleNamespace(name=name, deletion_timestamp=None, deletion_grace_period_seconds=None)
    if deleted:
        metadata.deletion_timestamp, metadata.deletion_grace_period_seconds = "2026-01-01T12:00:00Z", 60
    said = SimpleNamespace(container_statuses=[status], conditions=condition and [condition], phase="Running")
    return SimpleNamespace(metadata=metadata, status=said)


def followed(names: list[str], *polls: list[Any]) -> tuple[list[int | None], str]:
    """What each look at the pods finds, up to an end, and why."""
    answers = iter(polls)
    running = RunningJob(
        cast(Any, SimpleNamespace(pods=lambda _: next(answers))), cast(Any, SimpleNamespace(name="job")), [], [], {}
    )
    running._pods = names
    codes: list[int | None] = []
    while len(codes) < len(polls) and (not codes or codes[-1] is None):
        codes.append(running._ask())
    return codes, running.why()


def test_a_pod_that_is_gone_as_soon_as_it_has_ended_was_drained_for_the_reason_told_before() -> None:
    """It was "deleted by someone else"; and what a condition said that was taken back is no reason."""
    drain = disrupted("EvictionByEvictionAPI")
    words = "the cluster ended pod a: EvictionByEvictionAPI: so it is"
    drained = at_work("a", drain, deleted=True)
    assert followed(["a"], [at_work("a")], [drained], []) == ([None, None, 137], words)
    # and the other's pod is asked to end by its Job, which is not told as the cluster's doing
    assert followed(["a", "b"], [drained, at_work("b")], [pod("b", 130)]) == ([None, 130], words)
    never = at_work("a", disrupted("PreemptionByScheduler", "False"))
    assert followed(["a"], [at_work("a", drain)], [never], [pod("a", 130)]) == ([None, None, 130], "")


def test_a_pod_that_somebody_deleted_is_an_end_whatever_others_say() -> None:
    """One of two had ended well, and the trial never ended."""
    by_hand = ([None, 137], "pod b was deleted by someone else")
    well = pod("a", 0, reason="Completed")
    assert followed(["a", "b"], [well, at_work("b")], [well]) == by_hand
    assert followed(["a", "b"], [at_work("a"), at_work("b")], [at_work("a")]) == by_hand
    both = followed(["a", "b"], [well, at_work("b")], [pod("b", 0, reason="Completed")])
    assert both == ([None, 0], ""), "the first was seen to end well before it was gone"


def test_a_pod_on_a_lost_node_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays as one that runs until its node is back: the watchdog alone ended that, as stalled."""
    clock = itertools.count(0.0, 30.0)  # two looks in its grace of 60 s, one on time, and then it is late
    monkeypatch.setattr(running_jobs.time, "monotonic", lambda: next(clock))
    lost = at_work("a", disrupted("DeletionByTaintManager"), deleted=True)
    codes, why = followed(["a"], *[[lost]] * 9)
    assert (codes[0], codes[-1]) == (None, 137), codes
    assert why == "the cluster ended pod a: DeletionByTaintManager: so it is"
    codes, why = followed(["a"], *[[at_work("a", deleted=True)]] * 9)  # before 1.26
    assert codes[-1] == 137, codes
    assert why == "pod a was deleted, and its node does not tell how it ended"
    assert followed(["a"], *[[at_work("a")]] * 9)[0] == [None] * 9


def test_a_node_that_comes_back_after_the_trials_end_changes_none_of_its_files(tmp_path: Path) -> None:
    """The ledger has the log's hash by then."""
    (late,) = sent(tmp_path / "pod", {"result_0.txt": b"late\n"})[:1]
    back, asked = threading.Event(), threading.Event()

    def output(_: str) -> Iterator[tuple[str, str]]:
        asked.set()
        back.wait(PATIENCE_S)
        yield "2026-01-01T00:00:00Z", late

    there = at_work("a")
    there.metadata.annotations = None
    cluster = SimpleNamespace(
        pods=lambda _: [] if back.is_set() else [there],
        output=output,
        delete=lambda _: None,
        wait_until_gone=lambda _: True,
        log_in_again=None,
    )
    running = RunningJob(
        cast(Any, cluster), cast(Any, SimpleNamespace(name="job")), [there], [Receiver(tmp_path, 0)], {}
    )
    assert asked.wait(PATIENCE_S)
    running.close()
    back.set()
    assert list(running.lines()) == []
    assert not (tmp_path / "result_0.txt").exists()


def read(folder: Path, *readings: list[str], without_time: str = "") -> tuple[list[str], RunningJob]:
    """Lines for people, and the trial, of a pod that is over and whose output is read so; one without an end is cut off."""
    not_found = NotSuitable("pods a not found")
    not_found.__cause__ = cast(Any, ApiException(status=404))
    answers = iter(readings)

    def output(pod: str) -> Iterator[tuple[str, str]]:
        for number, line in enumerate(next(answers)):
            stamp = f"2026-01-01T00:00:{number:02}Z"
            if line == "GONE\n":
                raise not_found
            if without_time and line.startswith(without_time):
                stamp = "failed"
            if not line.endswith("\n"):
                raise CutOff(pod, stamp, line)
            yield stamp, line.rstrip("\n")

    cluster = SimpleNamespace(pods=lambda _: [], output=output)
    over = SimpleNamespace(metadata=SimpleNamespace(name="a", annotations=None))
    running = RunningJob(
        cast(Any, cluster), cast(Any, SimpleNamespace(name="job")), [cast(Any, over)], [Receiver(folder, 0)], {}
    )
    lines = list(running.lines())
    assert next(answers, None) is None, "read as often as it could bring more"
    return lines, running


def test_a_last_line_without_an_end_is_believed_once_it_came_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_jobs, "POLL_S", 0.0)
    assert read(tmp_path, ["one\n", "kill"], ["one\n", "killed"], ["one\n", "killed"])[0] == ["one", "killed"]
    assert read(tmp_path, ["one\n", "tw"], ["one\n", "two\n"])[0] == ["one", "two"]


def test_what_a_kubelet_says_of_its_own_brings_no_more_of_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a time it is new in each reading: a pod that was killed, with files missing, was read for a minute."""
    monkeypatch.setattr(running_jobs, "POLL_S", 0.0)
    files = [f"{each}\n" for each in sent(tmp_path / "pod", {"result_0.png": os.urandom(3 * PIECE)})][:1]
    own = "failed to create fsnotify watcher: too many open files"
    lines, _ = read(tmp_path, [*files, f"{own}\n"], [*files, f"{own}\n"], without_time=own)
    assert lines == [own, own]


def test_the_last_words_of_a_pod_that_is_deleted_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held back until they came twice, which of a drained node's pod they never do."""
    monkeypatch.setattr(running_jobs, "POLL_S", 0.0)
    assert read(tmp_path, ["one\n", "CUDA error"], ["GONE\n"])[0] == ["one", "CUDA error"]
    assert read(tmp_path, ["one\n", f"{MARK}{{"], ["GONE\n"])[0] == ["one"]


def test_a_file_of_which_nothing_came_whole_is_said_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither was one that is not here, nor any beside a log that says success."""
    monkeypatch.setattr(running_jobs, "POLL_S", 0.0)
    files = {"result_0.png": os.urandom(3 * PIECE), "result_0.txt": b"a log\n"}
    lines = [f"{each}\n" for each in sent(tmp_path / "pod", files)]
    (tmp_path / "home").mkdir()
    _, running = read(tmp_path / "home", lines[1:], lines[1:])
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["result_0.txt"]
    assert running.why().startswith("not known to be whole: result_0.png; result_0.png: a piece came for byte 8192")
    (tmp_path / "again").mkdir()
    _, running = read(tmp_path / "again", lines[:2], lines)
    assert running.why() == "", "a connection that was lost between two lines"
    log: Any = SimpleNamespace(outcome="success", configuration_sha256="ab", epochs=[1])
    monkeypatch.setattr(trial.Code, "of", lambda _: None)
    for outcome, code, status in (("success", 0, "success"), ("aborted", 1, "target_not_met")):
        log.outcome, log.reason, log.entries = outcome, "epochs spent: 3 of 3", {}
        found = trial.judge(Outcome(code, why="not known to be whole: x"), log, "ab")
        assert found.status == status and found.reason.endswith("not known to be whole: x")


def test_a_pod_is_the_node_that_its_index_says_where_others_never_ran(tmp_path: Path) -> None:
    """Of two nodes the first was never there: the second was called node 0, and asked to end in its place."""
    done: list[Any] = []
    cluster = SimpleNamespace(
        pods=lambda _: [],
        output=lambda _: iter([("2026-01-01T00:00:00Z", "no room on this disk")]),
        run_in=lambda *words: done.append(words),
        delete=done.append,
    )

    def running(*indices: int) -> RunningJob:
        pods = [
            SimpleNamespace(
                metadata=SimpleNamespace(name=f"pod-{each}", annotations={COMPLETION_INDEX: str(each)}),
            )
            for each in indices
        ]
        receivers = [Receiver(tmp_path, 0, each) for each in indices]
        return RunningJob(cast(Any, cluster), cast(Any, SimpleNamespace(name="job")), cast(Any, pods), receivers, {})

    second = running(1)
    assert list(second.lines()) == ["node 1 | no room on this disk"]
    second.terminate()
    assert done == ["job"]
    both = running(0, 2)
    assert sorted(both.lines()) == ["node 0 | no room on this disk", "node 2 | no room on this disk"]
    both.terminate()
    assert done[1][0] == "pod-0"
    assert list(running(0).lines()) == ["no room on this disk"]
