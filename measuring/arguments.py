"""Words of a study's command line that are looked at before it measures for minutes, not after."""

from __future__ import annotations

import errno
import os
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path


def file(text: str) -> Path:
    """A file to write, in a folder that is there and takes it. What is there already is left as it is, be it a device."""
    path = Path(text)
    folder = path.resolve().parent  # takes a new file each time: see study.keep
    try:
        if not os.path.lexists(path):
            path.open("x").close()
            path.unlink()  # nothing is left of a study that does not end
        elif path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif not os.access(path if path.exists() else folder, os.W_OK) or (
            path.is_file() and not os.access(folder, os.W_OK)
        ):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ArgumentTypeError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def folder(text: str) -> Path:
    """One to write into, made where it is not there."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ArgumentTypeError(f"{path}: cannot be written into: {error.strerror}") from error
    return path


def device(text: str) -> str:
    """Torch's word; of "cuda" with its number, as a run has it: streams and plans are kept by it."""
    return "cuda:0" if text == "cuda" else text


def at_least(lowest: int) -> Callable[[str], int]:
    """A whole number."""

    def whole(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < lowest:
            raise ArgumentTypeError(f"{text}: a whole number from {lowest} on is needed")
        return int(text)

    return whole
