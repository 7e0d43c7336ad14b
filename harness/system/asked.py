"""A question to a process of its own: what answers it may hang, die or leave its process changed, and that is an answer too."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from typing import Any

KILLED_S = 5  # that a killed process may take to go: one within a driver that hangs goes when that lets it, or never


class NoAnswer(Exception):
    """Why there is none."""


class Late(NoAnswer):
    """It hangs; whatever else asks the same driver would, too."""


def answer(command: Sequence[str], seconds: float, *, late: str, dead: str) -> dict[str, Any]:
    """The last JSON object that it prints on a line; what a driver's library prints besides is passed over.

    Late: `late` after so many seconds. NoAnswer: `dead`, how, and its last words.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILLED_S)
        raise Late(f"{late} within {seconds} s") from error
    except BaseException:
        process.kill()
        raise
    finally:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
    found = next(filter(None, map(_object, reversed(output.splitlines()))), None)
    if process.returncode != 0 or found is None:
        last = (errors.strip().splitlines() or output.strip().splitlines() or ["no message"])[-1]
        raise NoAnswer(f"{dead} ended with {process.returncode}: {last}")
    return found


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
