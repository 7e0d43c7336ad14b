"""What comes before a run's clocks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.execution import preparation
from tests.harness.execution.runs import run
from tests.toy import configuration as toy


@pytest.mark.parametrize(
    ("named", "cache", "shm"),
    [("/dev/shm/sem", False, False), ("/the/cache/embedded", True, False), (None, True, True)],
)
def test_data_that_cannot_be_made_blames_what_the_error_names(named: str | None, cache: bool, shm: bool) -> None:
    """With /dev/shm and /tmp read-only it was the cache, where anything could be written."""
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), *([] if named is None else [named]))
    said = str(preparation._no_data(error, Path("/the/cache")))
    assert ("/the/cache (HARNESS_CACHE_DIR" in said, "TMPDIR" in said) == (cache, shm)
    assert named is None or named in said


def test_threads_that_cannot_be_started_name_the_limits(tmp_path: Path) -> None:
    """It was a traceback, exit code 5, that named neither the limit nor a way out."""
    without = """
from harness.execution import preparation
def pool(*_): raise RuntimeError("can't start new thread")
preparation.prepare = pool
"""
    done = run(toy.write(tmp_path, toy.raw()), "--out", tmp_path, first=without)
    assert done.returncode == 6, done.stdout + done.stderr
    assert (
        "no more threads can be started" in done.stdout and "ulimit -u: " in done.stdout and "pids.max: " in done.stdout
    )
    assert "Traceback" not in (tmp_path / "refused_0.txt").read_text()
