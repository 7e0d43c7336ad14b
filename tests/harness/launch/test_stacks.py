"""Who is asked for stacks: only who answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from harness.launch import ranks, stacks, watchdog
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S

ANSWERS = "sys.stdout.write('ready\\n'); sys.stdout.flush(); signal.pause()"
WAIT = f"import signal, sys\n{{first}}\n{ANSWERS}"


def waiting(first: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WAIT.format(first=first)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(processes: Iterable[subprocess.Popen[str]]) -> None:
    for each in processes:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


def test_a_process_without_a_handler_is_left_alone(tmp_path: Path) -> None:
    answer = tmp_path / "stacks"
    register = f"import faulthandler; log = open({str(answer)!r}, 'w'); faulthandler.register(signal.SIGUSR1, log)"
    rank, worker = waiting(register), waiting("")
    try:
        assert stacks.ask([worker.pid, rank.pid, 2**22 + 1]) == [rank.pid]
        assert "most recent call first" in answer.read_text()
        assert worker.poll() is None
    finally:
        ended([rank, worker])


def test_ranks_that_write_to_one_file_do_not_mix(tmp_path: Path) -> None:
    log = tmp_path / "log"
    register = f"import faulthandler; log = open({str(log)!r}, 'a'); faulthandler.register(signal.SIGUSR1, log)"
    ranks = [waiting(f"{register}\ndef rank_{n}(): {ANSWERS}\nrank_{n}()") for n in range(3)]
    try:
        assert stacks.ask(each.pid for each in ranks) == [each.pid for each in ranks]
        text = log.read_text()
        assert [text.count(f" in rank_{n}\n") for n in range(3)] == [1, 1, 1]
        assert text.count("Current thread 0x") == 3
    finally:
        ended(ranks)


def test_a_rank_that_answers_late_does_not_write_into_the_next_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the next rank's line its stacks were taken for that one's, and it had none."""
    monkeypatch.setattr(stacks, "ANSWER_S", PATIENCE_S)
    log = tmp_path / "log"
    monkeypatch.setenv("HARNESS_LOG", str(log))
    register = f"import faulthandler; log = open({str(log)!r}, 'a'); faulthandler.register(signal.SIGUSR1, log)"
    ranks = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        ranks.append(waiting(f"{register}\ndef rank_{rank}(): {ANSWERS}\nrank_{rank}()"))
    late = ranks[0]

    def wake() -> None:
        until(lambda: pending(late), "the question")
        time.sleep(1)
        late.send_signal(signal.SIGCONT)

    waking = threading.Thread(target=wake)
    try:
        late.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(late.pid).status() == psutil.STATUS_STOPPED, "a process that stands still")
        waking.start()
        assert stacks.ask(each.pid for each in ranks) == [each.pid for each in ranks]
        found = stacks.standing(log.read_text())
        assert [(each.rank, each.place.rpartition(" ")[2]) for each in found] == [(0, "rank_0"), (1, "rank_1")]
    finally:
        waking.join()
        ended(ranks)


def pending(process: subprocess.Popen[str]) -> bool:
    """Whether SIGUSR1 waits to be taken."""
    return stacks._has(Path(f"/proc/{process.pid}/status"), "ShdPnd", signal.SIGUSR1)


def test_the_mask_is_read_from_the_kernels_account(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "sys").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tpython\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000000200\n")
    (tmp_path / "8" / "status").write_text("Name:\tpython\nSigCgt:\t0000000000000002\n")
    assert stacks.catches(7, signal.SIGUSR1, tmp_path)
    assert not stacks.catches(8, signal.SIGUSR1, tmp_path)
    assert stacks.everyone(tmp_path) == [7, 8]
    assert os.getpid() not in stacks.everyone()
    with pytest.raises(FileNotFoundError):
        stacks.catches(9, signal.SIGUSR1, tmp_path)


WAITS = """stacks of rank {rank}, process {process}:
Thread 0x00007f11 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait

Thread 0x00007f22 (most recent call first):
  File "/x/site-packages/torch/autograd/graph.py", line 865 in _engine_run_backward
  File "/x/site-packages/torch/_tensor.py", line 630 in backward
  File "/ours/benchmarks/ssd/session.py", line 268 in train_step
  File "/ours/harness/execution/lifecycle.py", line 260 in _epoch
"""
READS = """stacks of rank {rank}, process {process}:
Thread 0x00007f22 (most recent call first):
  File "/ours/benchmarks/ssd/pictures.py", line 51 in decoded
  File "/ours/benchmarks/ssd/data_torch.py", line 90 in _pixels
"""


def test_the_rank_that_the_others_wait_for_is_named() -> None:
    log = "".join((READS if rank == 2 else WAITS).format(rank=rank, process=40 + rank) for rank in range(4))
    found = stacks.standing(f"epoch 1\n{log}")
    assert [each.rank for each in found] == [0, 1, 2, 3]
    assert found[0].place == "/ours/benchmarks/ssd/session.py:268 in train_step"
    assert (
        stacks.hanging(found)
        == "rank 2 hangs at /ours/benchmarks/ssd/pictures.py:51 in decoded, and the other ranks wait"
    )
    everyone = "".join(WAITS.format(rank=rank, process=rank) for rank in range(4))
    assert stacks.hanging(stacks.standing(everyone)) == "", "no rank stands out"
    assert stacks.hanging(stacks.standing("")) == ""


def test_a_run_outside_a_series_names_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "result_0.txt"
    log.write_text("".join((READS if rank == 1 else WAITS).format(rank=rank, process=rank) for rank in range(3)))
    for name in ("PATIENCE_S", "POLL_S", "STACKS_S"):
        monkeypatch.setattr(watchdog, name, 0.01)
    monkeypatch.setattr(stacks, "ask", lambda processes: [7])
    said = ""
    with ranks._watched(log):
        while "hangs" not in said:
            time.sleep(0.05)
            said += capsys.readouterr().err
    assert f"no progress in {log} for 0.01 s; asked for stacks: process 7" in said
    assert "rank 1 hangs at /ours/benchmarks/ssd/pictures.py:51 in decoded, and the other ranks wait" in said
