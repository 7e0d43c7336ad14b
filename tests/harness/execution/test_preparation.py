"""What comes before a run's clocks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.execution import preparation


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
