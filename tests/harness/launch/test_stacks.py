"""Who is asked for stacks: only who answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.launch import stacks

WAIT = "import signal, sys\n{first}\nsys.stdout.write('ready\\n'); sys.stdout.flush(); signal.pause()"


def waiting(first: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WAIT.format(first=first)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_without_a_handler_is_left_alone(tmp_path: Path) -> None:
    answer = tmp_path / "stacks"
    register = f"import faulthandler; log = open({str(answer)!r}, 'w'); faulthandler.register(signal.SIGUSR1, log)"
    rank, worker = waiting(register), waiting("")
    try:
        assert stacks.ask([worker.pid, rank.pid, 2**22 + 1]) == [rank.pid]
        assert "most recent call first" in answer.read_text()
        assert worker.poll() is None
    finally:
        for each in (rank, worker):
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


def test_ranks_that_write_to_one_file_do_not_mix(tmp_path: Path) -> None:
    log = tmp_path / "log"
    register = f"import faulthandler; log = open({str(log)!r}, 'a'); faulthandler.register(signal.SIGUSR1, log)"
    ranks = [
        waiting(
            f"{register}\ndef rank_{n}():\n    sys.stdout.write('ready\\n'); sys.stdout.flush(); signal.pause()\nrank_{n}()"
        )
        for n in range(3)
    ]
    try:
        assert stacks.ask(each.pid for each in ranks) == [each.pid for each in ranks]
        text = log.read_text()
        assert [text.count(f" in rank_{n}\n") for n in range(3)] == [1, 1, 1]
        assert text.count("Current thread 0x") == 3
    finally:
        for each in ranks:
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


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
