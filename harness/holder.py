"""The right of one process to a file, which a kill gives back: a lock of the file system's.

Where that has none, a file says who holds it, made by O_EXCL and left behind by a kill. On one machine a holder that is gone is
known by its number and the moment it began; of another machine's nobody here can say, so it counts as living until someone
removes its file.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import locks, outside

LOOKED_AT_S = 1.0


class Held(ValueError):
    """Another process has it."""


@contextmanager
def held(descriptor: int, path: Path, instead: Path, words: str) -> Iterator[None]:
    """The file `path`, open as `descriptor`, is this process's inside the block; `instead` is for where there are no locks.

    Held, with these words and what is known of the other, where another has it.
    """
    locked = _taken(descriptor, path, words)
    if locked:
        yield
        return
    other = claim(instead)
    if other is not None:
        raise Held(f"{words} ({other}; if that is not so, remove {instead})")
    try:
        yield
    finally:
        instead.unlink(missing_ok=True)


def _taken(descriptor: int, path: Path, words: str) -> bool:
    """`locks.take`, again for a second: whoever looks whether it is held has it for a moment."""
    deadline = time.monotonic() + LOOKED_AT_S
    while True:
        try:
            return locks.take(descriptor, path)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise Held(words) from error
            time.sleep(0.05)


def is_held(descriptor: int, path: Path, instead: Path) -> bool:
    """Whether another process has it."""
    try:
        return not locks.take(descriptor, path) and living(instead) is not None
    except BlockingIOError:
        return True


def claim(path: Path) -> str | None:
    """Make the file for this process. None when that was possible; otherwise who holds it."""
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            if (other := living(path)) is not None:
                return other
            path.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            number = os.getpid()
            json.dump({"host": platform.node(), "process": number, "began": _began(number)}, file)
        return None


def living(path: Path) -> str | None:
    """Who holds it, for people; None when nobody does any more."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        host, number, began = str(said["host"]), int(said["process"]), said["began"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return "a process that is just writing its name"
    if host != platform.node():
        return f"process {number} on {host}"
    return f"process {number}" if began is not None and _began(number) == began else None


def sign() -> str:
    """This process, as a word by which another of this machine can ask after it."""
    return f"{os.getpid()} {_began(os.getpid())}"


def lives(sign: str) -> bool:
    """Whether the process of this word does, and not another that was given its number."""
    number, _, began = sign.partition(" ")
    return number.isdecimal() and _began(int(number)) == began


def _began(number: int) -> str | None:
    """When a process began, by its boot and the ticks since then: what psutil tells moves with a clock that is set.

    None where it has ended, its end asked for or not.
    """
    said = outside.text(Path(f"/proc/{number}/stat")).rpartition(")")[2].split()  # proc(5); its name may have anything
    boot = outside.text(Path("/proc/sys/kernel/random/boot_id"))
    return f"{boot} {said[19]}" if said and said[0] not in "ZX" else None
