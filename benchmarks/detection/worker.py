"""A process that a pool has started to work for this one: it leaves Ctrl-C to it, and ends when it does, whatever ends it.

A pool's worker holds both ends of the pipe that its work comes through, so that it never sees the other one closed: where its
parent was killed it would wait for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def begin() -> None:
    """A pool's `initializer`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_it, name="parent", daemon=True).start()
