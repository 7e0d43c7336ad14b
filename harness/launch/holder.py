"""A file that says which process holds a folder, for file systems that have no locks: made by O_EXCL, left behind by a kill.

On one machine a holder that is gone is known by its number and the moment it began; of another machine's nobody here can say,
so it counts as living until someone removes its file.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import psutil


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
            process = psutil.Process()
            json.dump({"host": platform.node(), "process": process.pid, "began": process.create_time()}, file)
        return None


def living(path: Path) -> str | None:
    """Who holds it, for people; None when nobody does any more."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        host, number, began = str(said["host"]), int(said["process"]), float(said["began"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return "a process that is just writing its name"
    if host != platform.node():
        return f"process {number} on {host}"
    try:
        same = abs(psutil.Process(number).create_time() - began) < 1
    except psutil.NoSuchProcess:
        same = False
    return f"process {number}" if same else None
