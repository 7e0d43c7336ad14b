"""A process ends when its run has ended: a thread that a benchmark forgot would hold it for ever, and its series with it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import NoReturn

from harness.execution import console

PATIENCE_S = 5.0  # for threads that end by themselves once their session is closed


def at_once(code: int) -> NoReturn:
    """End the process without Python's exit, in which a group of ranks is torn down: that may wait for ranks that wait for this
    one."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def without(before: Iterable[threading.Thread], code: int) -> None:
    """Let Python's exit, which follows, wait so long for threads that began since, daemons aside; then end it with `code`.

    Python's exit is what ends the idle threads of executors, so that they are no sign of anything before it.
    """
    known = {threading.main_thread(), *before}
    if _others(known):
        threading.Thread(target=_end, args=(known, code), daemon=True, name="leaving").start()


def _end(known: set[threading.Thread], code: int) -> None:
    time.sleep(PATIENCE_S)
    if not (left := _others(known)):
        return
    try:
        console.complain(
            f"warning: threads of the benchmark are still running ({', '.join(each.name for each in left)}), which its "
            "session's close is to end; the process ends without them"
        )
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a screen that takes nothing any more holds it no more than they do
        os._exit(code)


def _others(known: set[threading.Thread]) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each not in known and not each.daemon]
