"""Files that others wrote: read only where they are regular ones, no larger than what they can sensibly be.

A FIFO would hang its reader, a link to /dev/zero fill its memory, JSON nested a thousand deep end it. Each refusal is a
`Refused`, a ValueError that says which file and why, so that one bad file costs its reader one line.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

JSON_LIMIT = 8 << 20  # bytes; the longest known (an index of a thousand runs) has 1 MB
TOML_LIMIT = 1 << 20  # bytes; a configuration has three thousand
LOG_LIMIT = 512 << 20  # bytes of one result log; MLPerf takes at most 100 MiB
DEPTH_LIMIT = 64  # of nested JSON: it is walked by code that recurses


class Refused(ValueError):
    """What is there is not read."""


def why(path: Path, error: OSError | ValueError) -> str:
    """Why that file was not read, by what reading it raised; without its name, which stands beside it."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error).removeprefix(f"{path}: ")


def real(path: Path) -> Path:
    """Where a path leads, as far as it does: Path.resolve ends in an exception for a link that leads to itself."""
    return Path(os.path.realpath(path))


def is_folder(path: Path) -> bool:
    """Path.is_dir raises where a folder on the way may not be entered, and for a name that is too long: of what people type."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Likewise."""
    return os.path.isfile(path)  # noqa: PTH113


def is_there(path: Path | str) -> bool:
    """Likewise."""
    return os.path.exists(path)  # noqa: PTH110


def no_folder(path: Path) -> str:
    """What is in a folder's place, for a message, where `is_folder` says that there is none."""
    return "is a file, and a folder is needed" if is_there(path) else "there is no such folder"


def text(path: Path) -> str:
    """Of a file of the kernel's or the system's, stripped; empty where there is none or we may not read it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def opened(path: Path, limit: int) -> BinaryIO:
    """A regular file of at most `limit` bytes, open for reading. Refused for others, OSError where it cannot be opened."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # of a FIFO this does not wait for its writer
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            raise Refused(f"{path}: no regular file")
        if seen.st_size > limit:
            raise Refused(f"{path}: {seen.st_size:,} bytes, at most {limit:,} are read")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, limit: int) -> bytes:
    """The content. Refused, and OSError, as `opened`."""
    with opened(path, limit) as file:
        content = file.read(limit + 1)  # it may have grown meanwhile
    if len(content) > limit:
        raise Refused(f"{path}: more than {limit:,} bytes")
    return content


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """The content as JSON, in UTF-8 with or without a mark. Refused for anything else, OSError where it is not available."""
    text = read_text(path, limit)
    try:
        return parse_json(text)
    except ValueError as error:
        raise Refused(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The content as TOML, likewise."""
    try:
        content = tomllib.loads(read_text(path, TOML_LIMIT))
    except Refused:
        raise
    except RecursionError as error:
        raise Refused(f"{path}: not valid TOML: nested too deep") from error
    except ValueError as error:  # tomllib's own, and int's of a number with too many digits
        raise Refused(f"{path}: not valid TOML: {error}") from error
    if _too_deep(content):
        raise Refused(f"{path}: nested deeper than {DEPTH_LIMIT}")
    return content


def read_text(path: Path, limit: int) -> str:
    """The content as text in UTF-8, with or without a mark. Refused and OSError as above."""
    content = read_bytes(path, limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise Refused(f"{path}: {'UTF-16' if wide else 'not UTF-8'}: save it as UTF-8") from error


def parse_json(text: str) -> Any:
    """JSON from outside. ValueError where it is none, nested too deep, or has a number too long."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} in line {error.lineno})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON (a number or nesting too large)") from error
    if _too_deep(content):
        raise ValueError(f"nested deeper than {DEPTH_LIMIT}")
    return content


def _too_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
