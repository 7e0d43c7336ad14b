"""Which processes are left of series that are gone: none of one that lives, in a container beside this one too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.launch import leftovers
from harness.launch.leftovers import TrialMark

NOBODY = 2**30  # no process has this number
SLEEPING = "import time; print(flush=True); time.sleep(600)"
APART = ("unshare", "--user", "--map-root-user", "--fork", "--pid")  # as a container's


@contextmanager
def trial(folder: Path, launcher: int, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says it is a trial's, of a series in `folder`; it runs once this is entered."""
    mark = TrialMark("another", 0, launcher, folder)
    words = [*before, "env", f"{leftovers.VARIABLE}={mark}", sys.executable, "-c", SLEEPING]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process
        finally:
            leftovers.stop(lambda: leftovers.marked(lambda each: each == mark), 0)


def ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_trial_in_a_container_is_not_taken_for_one_of_a_series_that_is_gone(tmp_path: Path) -> None:
    """It names its launcher, and its folder, as the container has them: a host's series ended it."""
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user may make a PID namespace here")
    with trial(tmp_path, NOBODY, *APART) as theirs, trial(tmp_path / "elsewhere", NOBODY) as ours:
        leftovers.remove("mine", tmp_path, 0)
        assert ended(ours) and not ended(theirs)


def test_a_series_that_was_killed_is_gone_though_nobody_asked_for_its_end(tmp_path: Path) -> None:
    """Its number is still there, as under a PID 1 that waits for none of its children."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    with trial(tmp_path / "elsewhere", gone.pid) as left, trial(tmp_path / "alive", os.getpid()) as living:
        leftovers.remove("mine", tmp_path, 0)
        assert ended(left) and not ended(living)
    gone.wait()
