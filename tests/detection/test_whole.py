"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.detection import whole


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
