"""Every way out of a run leaves a run_stop, and a success is one that its log bears out: signals, lost screens, lost logs."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from harness import config
from harness.cli import main
from harness.execution import checkpoint, ending, moment
from harness.execution import events as events_of_runs
from harness.execution.console import Lines
from harness.execution.context import Launch
from harness.execution.events import EventLog
from harness.execution.learning_curve import Evaluated, LearningCurve
from harness.execution.moment import Moment, WallClock
from harness.execution.run import Ending, Run
from harness.exit_codes import BROKEN, TARGET_MET
from harness.request import Request
from harness.results import logfile
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import Begun, begun, command, environment, events, harness, run, stop, until, wait_for
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy

pytestmark = pytest.mark.early

SECOND_EPOCH = '"epoch_num": 2'


@contextmanager
def in_second_epoch(folder: Path, fate: str = "sleeps", ranks: int = 1, first: str = "") -> Iterator[Begun]:
    with begun("run", toy.write(folder, toy.raw(fate, ranks=ranks)), "--out", folder / "out", first=first) as process:
        wait_for(folder / "out" / "result_0.txt", SECOND_EPOCH)
        yield process


def disposed(number: signal.Signals, disposition: signal.Handlers) -> str:
    """Python for a process in which the signal is so disposed before the verb begins."""
    return f"import signal; signal.signal({int(number)}, {int(disposition)})"


SELDOM = (signal.SIGQUIT, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU)


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, *(pytest.param(each, marks=pytest.mark.long) for each in SELDOM)],
    ids=lambda each: each.name,
)
def test_whatever_signal_ends_a_run_its_log_is_closed(tmp_path: Path, number: signal.Signals) -> None:
    # a shell starts what runs in its background with some signals ignored, and an ignored one stays so
    with in_second_epoch(tmp_path, first=disposed(number, signal.SIG_DFL)) as process:
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE_S) == 130
    found = stop(tmp_path / "out" / "result_0.txt")
    assert (found["status"], found["reason"]) == ("aborted", number.name)


@pytest.mark.long
def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    with in_second_epoch(tmp_path, first=disposed(signal.SIGHUP, signal.SIG_IGN)) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(AssertionError, match="goes on and on"):
            process.wait(timeout=2)
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 130
    assert stop(tmp_path / "out" / "result_0.txt")["reason"] == "SIGTERM"


def test_a_thread_that_the_benchmark_forgot_does_not_hold_the_process(tmp_path: Path) -> None:
    with begun("run", toy.write(tmp_path, toy.raw("leaves a thread")), "--out", tmp_path) as process:
        assert process.wait(PATIENCE_S) == 0
        assert "threads of the benchmark are still running (reader of beads)" in process.said("errors")
        assert "RESULT,TOY" in process.said("out")
    assert stop(tmp_path / "result_0.txt")["status"] == "success"


LEAVING = """
import atexit, concurrent.futures, sys, threading, time
from harness.execution import leaving
leaving.PATIENCE_S = {patience}
before = threading.enumerate()
executor = concurrent.futures.ThreadPoolExecutor()
executor.submit({work})
atexit.register(print, "handlers ran")
leaving.without(before, 1)
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("work", "patience", "said", "warned"),
    [("int", 6000, "handlers ran\n", False), ("time.sleep, 6000", 0.1, "", True)],
    ids=["idle", "busy"],
)
def test_an_executor_s_idle_thread_is_none_that_was_forgotten(
    work: str, patience: float, said: str, warned: bool
) -> None:
    """As torch's compiler leaves one. Its thread is no daemon and waits until Python's own exit ends it."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING.format(work=work, patience=patience)],
        cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, said), done.stderr
    assert ("threads of the benchmark are still running (ThreadPoolExecutor-0_0)" in done.stderr) is warned


AT_THE_EDGE = """
import signal, time
from harness.execution import ending, picture, signals
from harness.execution.events import EventLog
place, name, late = {call}
signals.GRACE_S = 0.5 if late else signals.GRACE_S
right = getattr(place, name)
def call(*arguments, **more):
    found = right(*arguments, **more)
    if name != "stop" or arguments[1] == "run_stop":
        print("the edge", flush=True)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(2 * late)
    return found
setattr(place, name, call)
"""


@pytest.mark.parametrize(
    ("call", "code", "name", "status"),
    [
        ('EventLog, "create", False', 130, "refused_0.txt", "aborted"),
        ('EventLog, "stop", False', 0, "result_0.txt", "success"),
        ('EventLog, "settle", False', 0, "result_0.txt", "success"),
        pytest.param('picture, "save", True', 0, "result_0.txt", "success", marks=pytest.mark.long),
        pytest.param('EventLog, "settle", True', 0, "result_0.txt", "success", marks=pytest.mark.long),
        pytest.param('ending, "_last_words", False', 0, "result_0.txt", "success", marks=pytest.mark.long),
    ],
)
def test_a_signal_at_either_edge_of_a_run_leaves_one_run_stop_and_its_exit_code(
    tmp_path: Path, call: str, code: int, name: str, status: str
) -> None:
    """As the log is made it stayed empty, and kept its number. After run_stop there were two of them, or 130 or 143 beside a
    success, or a success without the model of its last epoch.
    """
    path, model = toy.write(tmp_path, toy.raw()), tmp_path / "model"
    done = run(path, "--out", tmp_path / "out", "--checkpoint-dir", model, first=AT_THE_EDGE.format(call=call))
    assert done.returncode == code and "the edge" in done.stdout, done.stdout + done.stderr
    assert [each.name for each in (tmp_path / "out").glob("*.txt")] == [name]
    assert stop(tmp_path / "out" / name)["status"] == status
    assert ("RESULT,TOY" in done.stdout) == (code == 0)
    if code == 0:
        said = {each["key"]: each for each in events(tmp_path / "out" / name)}
        assert "data_fingerprint" in said and (tmp_path / "out" / "result_0.png").is_file()
        last = said["eval_accuracy"]
        for kept in (checkpoint.NAME, checkpoint.BEST):
            saved = checkpoint.trained(model / kept).checkpoint
            assert (saved.epoch, saved.target_met) == (last["metadata"]["epoch_num"], True)


AT_THE_LAUNCHER_S_EDGE = """
import signal
from harness.execution.events import EventLog
from harness.launch import ranks
place, name = {place}
right = getattr(place, name)
def call(*arguments):
    found = right(*arguments)
    print("the edge", flush=True)
    if name == "_launched":  # torchrun took the signal when the ranks had written run_stop, and waited for them
        return 130, "SIGTERM"
    signal.raise_signal(signal.SIGTERM)
    return found
setattr(place, name, call)
"""


@pytest.mark.parametrize(
    ("place", "code", "name", "status"),
    [
        ('EventLog, "create"', 130, "refused_0.txt", "aborted"),
        pytest.param('ranks, "close_abandoned"', 0, "result_0.txt", "success", marks=pytest.mark.long),
        ('ranks, "_launched"', 0, "result_0.txt", "success"),
    ],
)
def test_a_signal_at_either_edge_of_what_starts_the_ranks_leaves_them_too(
    tmp_path: Path, place: str, code: int, name: str, status: str
) -> None:
    """It died of the first, with an empty log; and of the second, after RESULT, or gave 130 for a success."""
    path = toy.write(tmp_path, toy.raw(ranks=2))
    done = run(path, "--out", tmp_path / "out", first=AT_THE_LAUNCHER_S_EDGE.format(place=place))
    assert done.returncode == code and "the edge" in done.stdout, done.stdout + done.stderr
    assert [each.name for each in (tmp_path / "out").glob("*.txt")] == [name]
    assert stop(tmp_path / "out" / name)["status"] == status


WITH_A_CLOCK = """
import time
from harness.execution import lifecycle, moment
moment.Moment.fresh = lambda: moment.Moment(time.time())  # which else knows the clock as it was at the import
right, call = time.time, lifecycle.{within}
def and_set_it(*arguments):
    print("the edge", flush=True)
    time.time = lambda: right() + {set_by_s}
    try:
        return call(*arguments)
    finally:
        if {set_right}:
            time.time = right
lifecycle.{within} = and_set_it
"""


@pytest.mark.parametrize(
    ("within", "set_by_s", "code", "said"),
    [
        ("_evaluate", 0.9, 0, "no RESULT: the machine's clock went +0.9 s"),
        pytest.param("_evaluate", 3600, 0, "no RESULT: the machine's clock went +3600.0 s", marks=pytest.mark.long),
        ("_evaluate", -3600, 5, "aborted: the machine's clock was set back"),
        ("_opened", 3600, 0, "RESULT,TOY"),
    ],
)
def test_a_clock_that_is_set_between_run_start_and_run_stop_makes_no_result(
    tmp_path: Path, within: str, set_by_s: float, code: int, said: str
) -> None:
    """It was one of an hour, or of -3590 seconds, and a success whose log every reader calls invalid; and in init, where
    chronyd sets it at a boot, it cost a good run its result.
    """
    path = toy.write(tmp_path, toy.raw())
    words = [path, "--out", tmp_path / "out", "--checkpoint-dir", tmp_path / "model"]
    done = run(*words, first=WITH_A_CLOCK.format(within=within, set_by_s=set_by_s, set_right=False))
    assert done.returncode == code and said in done.stdout, done.stdout + done.stderr
    assert "the edge" in done.stdout and ("RESULT," in done.stdout) == (within == "_opened")
    log = tmp_path / "out" / "result_0.txt"
    assert stop(log)["status"] == ("success" if code == 0 else "aborted")
    assert code != 0 or bool(logfile.read(log).clock_was_set) == (within != "_opened"), "one criterion"
    assert (tmp_path / "model" / "best.pt").is_file(), "what it learned is its model all the same"


def test_a_clock_that_is_set_and_set_right_again_makes_no_result(tmp_path: Path) -> None:
    """At the end there was nothing to be seen: RESULT, with an evaluation stamped behind the run_stop."""
    path = toy.write(tmp_path, toy.raw())
    done = run(
        *(path, "--out", tmp_path / "out"),
        first=WITH_A_CLOCK.format(within="_evaluate", set_by_s=3600, set_right=True),
    )
    assert done.returncode == 0 and "RESULT," not in done.stdout, done.stdout + done.stderr
    assert "no RESULT: the machine's clock went +3600.0 s" in done.stdout
    log = tmp_path / "out" / "result_0.txt"
    assert stop(log)["wall_ahead_s"] == pytest.approx(3600, abs=1)
    assert "s ahead of the monotonic one on the way" in logfile.read(log).clock_was_set


def test_what_the_clocks_may_be_apart_is_judged_by_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.3 s in its first minute cost a run of 15 minutes its RESULT, of which readers allow 0.9 s."""
    wall, steady = [1_700_000_000.0], [0.0]
    monkeypatch.setattr(moment.time, "time", lambda: wall[0])
    monkeypatch.setattr(moment.time, "perf_counter", lambda: steady[0])
    watched = WallClock(Moment(wall[0], steady[0]))

    def goes_on(seconds: float, set_by_s: float = 0.0) -> float:
        steady[0] += seconds
        wall[0] += seconds + set_by_s
        watched.look()
        return round(watched.wall_ahead_s, 3)

    assert [goes_on(1), goes_on(1, 0.3), goes_on(60, 0.0)] == [0, 0.3, 0.3]
    assert goes_on(900) == 0
    assert [goes_on(10, -5), goes_on(10, 5)] == [-4.7, -4.7], "set right again"


def test_a_clock_that_stands_in_1970_is_said(tmp_path: Path) -> None:
    """It was RESULT without a word, for a log that no score takes."""
    path = toy.write(tmp_path, toy.raw())
    first = WITH_A_CLOCK.format(within="_opened", set_by_s=-1_700_000_000, set_right=False)
    done = run(path, "--out", tmp_path / "out", first=first)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: the machine's clock stands at 19" in done.stdout


@pytest.mark.parametrize("set_by_s", [-3600, 3600])
def test_a_clock_that_is_set_in_init_is_said_and_costs_no_result(tmp_path: Path, set_by_s: float) -> None:
    """Back: RESULT, of a log that no check accepted. Forth: an init of an hour, and no word."""
    path = toy.write(tmp_path, toy.raw())
    done = run(
        *(path, "--out", tmp_path / "out"),
        first=WITH_A_CLOCK.format(within="_opened", set_by_s=set_by_s, set_right=False),
    )
    assert done.returncode == 0 and "RESULT," in done.stdout, done.stdout + done.stderr
    assert f"warning: the machine's clock went {set_by_s:+.1f} s" in done.stdout
    record = logfile.read(tmp_path / "out" / "result_0.txt")
    assert record.outcome == "success" and record.init_ahead_s == pytest.approx(set_by_s, abs=1)
    assert record.init_seconds is not None and 0 < record.init_seconds < 600


@pytest.mark.parametrize(("rank", "code"), [(0, BROKEN), (1, TARGET_MET)])
def test_a_clock_that_was_set_back_counts_where_it_stamps_the_log(rank: int, code: int) -> None:
    """Another machine's rank ended a good run with 5 by a clock of its own."""
    ahead: Any = SimpleNamespace(
        stopping=threading.Lock(), ending=None, started=Moment(wall_s=time.time() + 3600), log=EventLog(None),
        launch=SimpleNamespace(rank=rank), minutes=0.0, heartbeat=None,
    )  # fmt: skip
    assert ending.stop(ahead, Ending(TARGET_MET, "")).exit_code == code


def test_a_main_thread_that_never_comes_back_is_ended_too(tmp_path: Path) -> None:
    with in_second_epoch(tmp_path, "never returns") as process:
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 130
        said = process.said("out", "errors")
    assert "SIGTERM, and it did not stop by itself within" in stop(tmp_path / "out" / "result_0.txt")["reason"]
    assert "RESULT" not in said


@pytest.mark.parametrize(
    "screen", ["full", *(pytest.param(each, marks=pytest.mark.long) for each in ("closed", "a reader that goes away"))]
)
def test_a_run_does_not_depend_on_its_screen(tmp_path: Path, screen: str) -> None:
    path = toy.write(tmp_path, toy.raw())
    redirected = {
        "full": "> /dev/full 2>&1",
        "closed": ">&- 2>&-",
        "a reader that goes away": "2>&1 | head -1; exit ${PIPESTATUS[0]}",
    }
    words = " ".join(command(path, "--out", tmp_path / "out"))
    finished = subprocess.run(
        ["bash", "-c", f"{words} {redirected[screen]}"], cwd=CHECKOUT, env=environment(), check=False
    )
    assert finished.returncode == 0
    log = tmp_path / "out" / "result_0.txt"
    assert stop(log)["status"] == "success" and "RESULT,TOY" in log.read_text()


def take_away(log: Path) -> None:
    log.unlink()


def take_folder(log: Path) -> None:
    log.parent.rename(log.parent.with_name("elsewhere"))


def cut(log: Path) -> None:
    os.truncate(log, 500)


def replace(log: Path) -> None:
    text = log.read_text()
    log.unlink()
    log.write_text(text)


@pytest.mark.parametrize(
    "harm",
    [take_away, pytest.param(take_folder, marks=pytest.mark.long), cut, pytest.param(replace, marks=pytest.mark.long)],
)
def test_a_log_that_was_taken_away_is_no_success(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    content = toy.raw("naps")
    content["toy"]["steps"] = 5  # 10 s of an epoch, for this process to wake up in
    path = toy.write(tmp_path, content)
    log = tmp_path / "out" / "result_0.txt"
    with begun("run", path, "--out", log.parent) as process:
        wait_for(log, SECOND_EPOCH)
        harm(log)
        code, said = process.wait(timeout=PATIENCE_S), process.said("out", "errors")
    assert code == 5, said
    assert "RESULT" not in said and "Traceback" not in said
    assert str(log) in said
    if harm is cut:
        assert any('"status": "aborted"' in line for line in log.read_text().splitlines()), "in a line of its own"


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (11_000, 11_000))"
    finished = run(path, "--out", tmp_path / "out", first=limit)
    assert finished.returncode == 6, finished.stdout + finished.stderr
    assert "a line could not be written (File too large)" in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr and "RESULT" not in finished.stdout


FULL_AFTER_THE_END = """
import resource
from harness.execution import lifecycle
after = lifecycle._after
def full(run, *more):
    room = run.log.path.stat().st_size + {room}
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    return after(run, *more)
lifecycle._after = full
"""


@pytest.mark.parametrize("room", [100, 500], ids=["for no event", "for the fingerprint"])
def test_a_disk_that_is_full_after_run_stop_takes_no_result_away(tmp_path: Path, room: int) -> None:
    """It ended with 6 and without RESULT, a failed trial, while its log was a success that score counted."""
    path = toy.write(tmp_path, toy.raw())
    done = run(path, "--out", tmp_path / "out", first=FULL_AFTER_THE_END.format(room=room))
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "\nRESULT,TOY,," in done.stdout, said
    assert "warning: the log has not all of these last lines: " in done.stderr and "Traceback" not in said
    log = tmp_path / "out" / "result_0.txt"
    assert logfile.read(log).outcome == "success" and log.read_text().endswith("\n"), "no half a line"


def test_a_run_stop_that_is_gone_at_the_last_words_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration, log = config.parse(toy.raw(), name="toy", source="toy"), EventLog.create(tmp_path)
    history = LearningCurve("accuracy", 0.25, 4)
    history.evaluations.append(Evaluated(1, 0.3, 0.1, 0.1))
    done = Run(configuration, Request(), Launch(), log, log, Lines(log.plain), history, asking=False)
    how = ending.settled(done, ending.stop(done, Ending(TARGET_MET, "")))
    assert how.exit_code == TARGET_MET and log.path is not None
    log.path.unlink()
    assert ending.conclude(done, how).exit_code == BROKEN
    found = capsys.readouterr()
    assert "RESULT" not in found.out and "the log is not on the disk" in found.err


WITHOUT_ROOM = """
import errno
from tests.toy import ToyBenchmark
def provide_data(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
ToyBenchmark.provide_data = provide_data
"""


def test_a_picture_of_an_earlier_run_is_not_called_the_run_s(tmp_path: Path) -> None:
    """Its log alone was moved away, and a launcher made one of the same number for a run that broke."""
    (log := tmp_path / "result_0.txt").touch()
    (tmp_path / "result_0.png").touch()
    broken = run(
        toy.write(tmp_path, toy.raw("raises")), "--out", tmp_path, HARNESS_LOG=str(log), RANK="0", WORLD_SIZE="1"
    )
    assert broken.returncode == 5 and f"log      {log}" in broken.stdout, broken.stdout + broken.stderr
    assert "picture  " not in broken.stdout and "picture  " not in log.read_text()


def test_which_disk_has_no_room_for_data_that_is_made_is_said(tmp_path: Path) -> None:
    words = [toy.write(tmp_path, toy.raw()), "--out", tmp_path, "--cache-dir", tmp_path / "cache"]
    done = run(*words, first=WITHOUT_ROOM)
    assert done.returncode == 6, done.stdout + done.stderr
    assert f"No space left on device, while data was made in {tmp_path / 'cache'}" in done.stdout


def test_a_checkpoint_folder_that_cannot_be_used_is_said_before_training(tmp_path: Path) -> None:
    refused = run(toy.write(tmp_path, toy.raw()), "--out", tmp_path, "--checkpoint-dir", "/proc/x")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "--checkpoint-dir /proc/x: nothing can be written there" in refused.stdout
    text = (tmp_path / "refused_0.txt").read_text()
    assert '"run_start"' not in text and not (tmp_path / "result_0.txt").exists()
    assert '"submission_benchmark"' in text, "what was to be run"


def test_a_refused_run_gives_its_number_back(tmp_path: Path) -> None:
    bad = toy.write(tmp_path, toy.raw("bad data"), "bad")
    for number in range(2):
        assert run(bad, "--out", tmp_path).returncode == 2
        assert stop(tmp_path / f"refused_{number}.txt")["status"] == "aborted"
    assert run(toy.write(tmp_path, toy.raw()), "--out", tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.glob("result_*.txt")) == ["result_0.txt"]


def test_a_number_that_cannot_be_given_back_changes_no_ending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an inode for another name what was refused with 2 and a reason ended with 6 and [Errno 28]."""

    def full(_: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(events_of_runs, "refused", full)
    configuration, log = config.parse(toy.raw(), name="toy", source="toy"), EventLog.create(tmp_path)
    history = LearningCurve("accuracy", 0.25, 4)
    refused = Run(configuration, Request(), Launch(), log, log, Lines(log.plain), history)
    how = ending.stop(refused, ending.of_error(refused, ValueError("the folder has 7 numbers")))
    how = ending.conclude(refused, ending.settled(refused, how))
    assert (how.exit_code, how.reason) == (2, "the folder has 7 numbers")
    found = capsys.readouterr()
    assert "aborted: the folder has 7 numbers" in found.out
    assert found.err == f"{log.path}: the run never began, and its log keeps its number (No space left on device)\n"
    # nor where there is no configuration
    assert main(["run", "nope", "--out", str(tmp_path / "other")]) == 2
    found = capsys.readouterr()
    assert "error: there is no configuration nope" in found.err and "No space left on device" in found.err
    assert main(["run", "nope", "--out", str(tmp_path), "--number", "0"]) == 2
    found = capsys.readouterr()
    assert "error: there is no configuration nope" in found.err and "result_0.txt: exists already" in found.err


@pytest.mark.parametrize(
    ("fate", "begun_with", "ranks"),
    [
        ("warms up slowly", "init_start", 1),
        ("reads slowly", "run_start", 1),
        ("warms up slowly", "init_start", 2),
        pytest.param("warms up for ever", "init_start", 1, marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_interrupted_before_it_trains_takes_no_number_and_spoils_no_series(
    tmp_path: Path, fate: str, begun_with: str, ranks: int
) -> None:
    out = tmp_path / "out"
    with begun("run", toy.write(tmp_path, toy.raw(fate, ranks=ranks)), "--out", out) as process:
        wait_for(out / "result_0.txt", begun_with)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
        told = process.said("out", "errors")
        assert (ranks > 1 or fate == "warms up for ever") or f"log      {out / 'refused_0.txt'}" in process.said(
            "out"
        ), told
    assert [path.name for path in out.iterdir()] == ["refused_0.txt"]
    assert (stop(out / "refused_0.txt")["status"], stop(out / "refused_0.txt")["reason"][:6]) == ("aborted", "SIGINT")
    path = toy.write(tmp_path, toy.raw())
    assert run(path, "--out", out).returncode == 0
    scored = harness("score", out)
    assert "1 run" in scored.stdout and "differ" not in scored.stdout, scored.stdout + scored.stderr
    assert "result_0.txt" in scored.stdout


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_breaks_before_it_trains_takes_none_either(tmp_path: Path, ranks: int) -> None:
    broken = toy.write(tmp_path, toy.raw("cannot warm up", ranks=ranks))
    finished = run(broken, "--out", tmp_path / "out")
    assert finished.returncode == 5, finished.stdout + finished.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["refused_0.txt"]
    assert stop(tmp_path / "out" / "refused_0.txt")["reason"] == "RuntimeError: the toy broke"
    assert "Traceback" in (tmp_path / "out" / "refused_0.txt").read_text()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def rank(of: Begun, number: int) -> psutil.Process:
    (found,) = [each for each in psutil.Process(of.pid).children() if each.environ().get("RANK") == str(number)]
    return found


def test_a_rank_that_is_killed_is_named_in_the_log(tmp_path: Path) -> None:
    with in_second_epoch(tmp_path, ranks=2) as process:
        rank(process, 1).kill()
        assert process.wait(timeout=PATIENCE_S) == 5
    assert stop(tmp_path / "out" / "result_0.txt")["reason"].startswith("rank 1 was ended by SIGKILL: ")


def test_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    with in_second_epoch(tmp_path, ranks=2) as process:
        ranks = [rank(process, 0), rank(process, 1)]
        process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=PATIENCE_S)
        assert not alive
    assert stop(tmp_path / "out" / "result_0.txt")["reason"] == "SIGTERM"


def test_a_rank_that_is_stopped_does_not_outlive_its_launcher(tmp_path: Path) -> None:
    """It lay there for ever, with its accelerator's memory: SIGTERM waits in what is stopped, SIGKILL alone does not."""
    hurried = "from harness.execution import signals; signals.GRACE_S = 0.5"
    with in_second_epoch(tmp_path, ranks=2, first=hurried) as process:
        ranks = [rank(process, number) for number in (0, 1)]
        ranks[1].suspend()
        try:
            process.terminate()
            assert process.wait(PATIENCE_S) == 130
            _, alive = psutil.wait_procs(ranks, timeout=PATIENCE_S / 20)
            assert not alive
        finally:
            with suppress(psutil.NoSuchProcess):
                ranks[1].kill()
    assert stop(tmp_path / "out" / "result_0.txt")["reason"] == "SIGTERM"


def by_hand(folder: Path, *words: tuple[object, ...], port: int, machines: int = 1) -> list[tuple[int, str]]:
    """Ranks as any launcher starts them: by their environment alone, which says that they are on so many machines."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    of, here = len(words), len(words) // machines
    with ExitStack() as stack:
        started = []
        for number, each in enumerate(words):
            said_to_it = {"RANK": number, "LOCAL_RANK": number % here, "WORLD_SIZE": of, "LOCAL_WORLD_SIZE": here}
            rank = {name: str(value) for name, value in said_to_it.items()}
            started.append(stack.enter_context(begun("run", *each, "--out", folder / "out", **meeting, **rank)))
        return [(process.wait(), process.said("out", "errors")) for process in started]


def test_ranks_that_were_asked_for_different_things_say_so(tmp_path: Path, free_port: int) -> None:
    one = toy.write(tmp_path, toy.raw(ranks=2), "one")
    other = toy.write(tmp_path, toy.raw(ranks=2, target=0.1), "other")
    ended = by_hand(tmp_path, (one,), (other,), port=free_port)
    assert [code for code, _ in ended] == [2, 2], ended
    assert "rank 1 was started with the configuration of SHA-256" in ended[0][1]


@pytest.mark.long
def test_ranks_by_hand_share_the_seed_that_rank_0_drew(tmp_path: Path, free_port: int) -> None:
    path = toy.write(tmp_path, toy.raw("tells its seed", ranks=2))
    ended = by_hand(tmp_path, (path,), (path,), port=free_port)
    assert [code for code, _ in ended] == [0, 0], ended
    text = (tmp_path / "out" / "result_0.txt").read_text()
    (logged,) = re.findall(r'"key": "seed", "value": (\d+)', text)
    told = sorted(found for _, said in ended for found in re.findall(r"rank \d has seed \d+", said))
    assert told == [f"rank 0 has seed {logged}", f"rank 1 has seed {logged}"]


DYING = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1200,)).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread alone
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="exit(2) has another number there")
def test_a_launcher_whose_first_thread_is_gone_is_dying_though_its_number_is_still_the_parent_s() -> None:
    """Its rank was told that it dies, and left it to the launcher to close the log."""
    with subprocess.Popen([sys.executable, "-c", DYING]) as launcher:
        try:
            until(lambda: ending._has_begun_to_die(launcher.pid), "the end of its first thread")
            assert launcher.poll() is None
        finally:
            launcher.kill()
    assert not ending._has_begun_to_die(os.getpid())


def test_a_port_that_is_taken_is_said(tmp_path: Path, taken_port: int) -> None:
    path = toy.write(tmp_path, toy.raw(ranks=2))
    (code, said), *_ = by_hand(tmp_path, (path,), ("no-such",), port=taken_port)
    assert code == 2, said
    assert (
        f"the ranks cannot meet at 127.0.0.1:{taken_port} (MASTER_ADDR, MASTER_PORT)" in said
        and "Traceback" not in said
    )


def test_a_log_that_no_launcher_made(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    refused = run(path, "--out", tmp_path, HARNESS_LOG="/no/where", **alone)
    assert refused.returncode == 2 and "HARNESS_LOG names /no/where" in refused.stderr


@pytest.mark.long
def test_two_ranks_meet_where_nothing_resolves_the_machines_own_name(tmp_path: Path) -> None:
    """What a container without a network has: the loopback interface, and a name that nobody knows."""
    path = toy.write(tmp_path, toy.raw(ranks=2))
    alone = ["unshare", "-n", "-u", "sh", "-c", 'ip link set lo up && hostname 4f2d9c1a7e0b && exec "$@"', "sh"]
    if shutil.which("ip") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces need root here")
    whole = [*alone, *command(path, "--out", tmp_path)]
    finished = subprocess.run(
        whole, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert stop(tmp_path / "result_0.txt")["status"] == "success"


@pytest.mark.long
def test_torch_has_no_last_word_where_a_target_was_missed(tmp_path: Path) -> None:
    finished = run(toy.write(tmp_path, toy.raw("stands still", ranks=2, epochs=1)), "--out", tmp_path)
    assert finished.returncode == 1
    assert "failed" not in finished.stdout + finished.stderr and "Traceback" not in finished.stderr
