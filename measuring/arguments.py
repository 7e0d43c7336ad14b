"""Words of a study's command line that are looked at before it measures for minutes, not after."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path


def file(text: str) -> Path:
    """A file to write, in a folder that is there and takes it."""
    path = Path(text)
    try:
        path.open("a").close()
    except OSError as error:
        raise ArgumentTypeError(f"{path}: cannot be written: {error.strerror}") from error
    if not path.stat().st_size:  # nothing is left of a study that does not end
        path.unlink()
    return path


def at_least(lowest: int) -> Callable[[str], int]:
    """A whole number."""

    def whole(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < lowest:
            raise ArgumentTypeError(f"{text}: a whole number from {lowest} on is needed")
        return int(text)

    return whole
