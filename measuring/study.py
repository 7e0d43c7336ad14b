"""What a study's command does around its measuring: its figures are whole on the disk, its end is one line and a code."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import exit_codes, whole


def keep(content: Any, path: Path) -> None:
    """`content` as JSON at `path`, as `put` does."""
    put((json.dumps(content, indent=1) + "\n").encode(), path)


def put(content: bytes, path: Path) -> None:
    """`path` has what it had until all of the new is on the disk. OSError that names it."""
    try:
        if path.exists() and not path.is_file():  # a pipe, /dev/null
            path.write_bytes(content)
        else:
            with whole.replacing(path.resolve()) as file:  # of a link what it leads to
                file.write(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def ended(main: Callable[[], object]) -> int:
    """The exit code of `main`. What a user did, a full disk and an interruption (SIGTERM, as of a time limit, too) are no
    tracebacks; what breaks is one, and BROKEN."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except ValueError as error:
        return _said(str(error), exit_codes.USAGE)
    except OSError as error:
        if error.errno in exit_codes.DISK_FULL:
            return _said(f"{error.filename or 'a file'}: cannot be written: {error.strerror}", exit_codes.NOT_SUITABLE)
        return _broke()
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception:  # noqa: BLE001 - Python's own code would say that a check failed
        return _broke()
    return 0


def _broke() -> int:
    traceback.print_exc()
    return exit_codes.BROKEN


def _said(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code
