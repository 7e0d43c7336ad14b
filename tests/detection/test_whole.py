"""Files that are there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.detection import whole
from tests.conftest import CHECKOUT


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole.replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    with whole.replacing(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path], "no half-written file stays"


def test_two_writers_of_one_process_number_do_not_write_into_each_other(tmp_path: Path) -> None:
    """Ranks in containers, each of which has the same number in its own."""
    path = tmp_path / "file"
    with whole.replacing(path) as first, whole.replacing(path) as second:
        first.write(b"all of it" * 1000)
        second.write(b"all of another")
    assert path.read_bytes() == b"all of it" * 1000
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.detection import whole
with whole.replacing(Path(sys.argv[1])) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Each kill while OpenImages' boxes were written left a gigabyte under a hidden name."""
    path = tmp_path / "a.json"
    for each in (path, other := tmp_path / "b.json"):
        subprocess.run([sys.executable, "-c", KILLED, each], cwd=CHECKOUT, check=False)
    (mine := tmp_path / ".a.json.mine.part").touch()
    assert len(list(tmp_path.iterdir())) == 3
    whole.clear(path)
    assert {each.name[:8] for each in tmp_path.iterdir()} == {mine.name[:8], f".{other.name}."[:8]}
    assert mine.exists() and len(list(tmp_path.iterdir())) == 2
