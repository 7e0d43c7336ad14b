"""A process ends when its run has ended: a thread that a benchmark forgot would hold it for ever, and its series with it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable

from harness.execution import console

PATIENCE_S = 5.0  # for threads that end by themselves once their session is closed


def without(before: Iterable[threading.Thread], code: int) -> None:
    """Return when all threads that began since have ended, daemons aside; end this process with `code` where some do not."""
    until = time.monotonic() + PATIENCE_S
    known = {threading.main_thread(), *before}
    left = [each for each in threading.enumerate() if each not in known and not each.daemon]
    for each in left:
        each.join(max(0.0, until - time.monotonic()))
    if names := [each.name for each in left if each.is_alive()]:
        console.complain(
            f"warning: threads of the benchmark are still running ({', '.join(names)}), which its session's close is to end; "
            "the process ends without them"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
