"""Ports that a test may give to what listens later, in whatever process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port of this machine that nobody else is given inside the block: one that was free may soon be another test's.

    It is bound and nobody listens on it, so that to reach it is refused. Whoever says SO_REUSEADDR too, as torch's store and
    Slurm's daemons do, may listen on it. Of this address alone: IPv6's ports are others.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield int(held.getsockname()[1])
