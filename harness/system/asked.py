"""A question to a process of its own: what answers it may hang, die or leave its process changed, and that is an answer too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any


class NoAnswer(Exception):
    """Why there is none."""


def answer(command: Sequence[str], seconds: float, *, late: str, dead: str) -> dict[str, Any]:
    """The JSON of the last line that it prints. NoAnswer: `late` after so many seconds, or `dead`, how, and its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{late} within {seconds} s") from error
    said = done.stdout.strip().splitlines()
    if done.returncode != 0 or not said:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoAnswer(f"{dead} ended with {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(said[-1])
    return found
