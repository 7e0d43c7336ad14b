"""A question to a process of its own: what answers it may hang, die or leave its process changed, and that is an answer too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any


class NoAnswer(Exception):
    """Why there is none."""


def answer(command: Sequence[str], seconds: float, *, late: str, dead: str) -> dict[str, Any]:
    """The last JSON object that it prints on a line; what a driver's library prints besides is passed over.

    NoAnswer: `late` after so many seconds, or `dead`, how, and its last words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{late} within {seconds} s") from error
    found = next(filter(None, map(_object, reversed(done.stdout.splitlines()))), None)
    if done.returncode != 0 or found is None:
        last = (done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no message"])[-1]
        raise NoAnswer(f"{dead} ended with {done.returncode}: {last}")
    return found


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
