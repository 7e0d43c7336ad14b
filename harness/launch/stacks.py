"""Asking the ranks of a run for their stacks: SIGUSR1, which each of them answers by faulthandler into the log.

Only processes that catch the signal get it; any other (a compiler's worker, a shell) would die of it. Standard library
only: `python -m harness.launch.stacks` does it from inside a container, for every process there, and with arguments on a node
of a cluster, for those of these trials.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
COMMAND = ("python", "-m", "harness.launch.stacks")  # inside a container
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
LIBRARIES = "site-packages"
WAITING = (
    "torch/distributed/",
    "torch/autograd/",
    "torch/nn/parallel/",
)  # of DDP, whose sums end with the backward pass
INNERMOST = 3  # frames in which a call that waits shows
MOST = 4  # ranks named
VARIABLE = "HARNESS_STEP"  # of a cluster's ranks: SERIES:NUMBER of their trial
ANSWER_S = 10.0  # at most, for one process to write its stacks: one that a dead disk holds never does
LOOK_S = 0.02


def ask(processes: Iterable[int]) -> list[int]:
    """Send SIGUSR1 to those of `processes` that catch it, one after the other: they write to one file. Returns who got it."""
    asked = []
    for process in processes:
        try:
            if catches(process, signal.SIGUSR1):
                deaf = _that_block(process, signal.SIGUSR1)
                _announce(process)
                os.kill(process, signal.SIGUSR1)
                asked.append(process)
                _wait_for_answer(process, deaf)
        except (ProcessLookupError, PermissionError, FileNotFoundError):
            continue  # ended in this moment, or another user's
    return asked


def _wait_for_answer(process: int, deaf: set[str]) -> None:
    """Until it has taken SIGUSR1 and left the handler, in which the kernel blocks it. `deaf`: threads that did so anyway."""
    deadline, quiet = time.monotonic() + ANSWER_S, 0
    while quiet < 2 and time.monotonic() < deadline:  # one look may fall between the two
        time.sleep(LOOK_S)
        pending = _has(PROC / str(process) / "status", "ShdPnd", signal.SIGUSR1)
        quiet = 0 if pending or _that_block(process, signal.SIGUSR1) - deaf else quiet + 1


def _that_block(process: int, number: signal.Signals) -> set[str]:
    """Threads of the process that do not hear this signal now."""
    found = set()
    for each in (PROC / str(process) / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            if _has(each / "status", "SigBlk", number):
                found.add(each.name)
    return found


def _announce(process: int) -> None:
    """Say in its log whose stacks come next: faulthandler names threads alone."""
    variables = environment(process)
    log = variables.get("HARNESS_LOG", "")
    if log and "RANK" in variables:
        with contextlib.suppress(OSError), open(log, "ab", buffering=0) as file:  # noqa: PTH123 - no buffer, one write
            file.write(f"stacks of rank {variables['RANK']}, process {process}:\n".encode())


def environment(process: int, proc: Path = PROC) -> dict[str, str]:
    """What the process was started with; nothing where that is not ours to see."""
    try:
        content = (proc / str(process) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(each.split("=", 1) for each in content.split("\0") if "=" in each)


@dataclass(frozen=True)
class Standing:
    """Where a rank stood when it was asked: its main thread's innermost frame outside libraries."""

    rank: int
    place: str  # FILE:LINE in FUNCTION
    waits: bool  # whether torch waits there for the other ranks, as far as a frame tells


def standing(text: str) -> list[Standing]:
    """Of every rank whose stacks a log holds, the last time that it was asked."""
    found: dict[int, Standing] = {}
    for rank, dump in re.findall(
        r"^stacks of rank (\d+), process \d+:\n(.*?)(?=^stacks of rank |\Z)", text, re.M | re.S
    ):
        # of all threads, the main one comes last
        threads = re.split(r"^(?:Current thread|Thread) 0x\w+.*\n", dump, flags=re.M)
        frames = FRAME.findall(threads[-1]) if len(threads) > 1 else []
        if not frames:
            continue
        own = next((each for each in frames if LIBRARIES not in each[0]), frames[0])
        waits = any(sign in path for path, _, _ in frames[:INNERMOST] for sign in WAITING)
        found[int(rank)] = Standing(int(rank), f"{own[0]}:{own[1]} in {own[2]}", waits)
    return sorted(found.values(), key=lambda each: each.rank)


def hanging(ranks: Sequence[Standing]) -> str:
    """Which rank the others wait for, in words; empty where their stacks do not tell."""
    alone = [each for each in ranks if not each.waits]
    if not alone or len(alone) == len(ranks):
        places = Counter(each.place for each in ranks)
        rarest = min(places.values(), default=0)
        alone = [each for each in ranks if places[each.place] == rarest] if len(places) > 1 else []
    if not alone or 2 * len(alone) > len(ranks):
        return ""
    told = "; ".join(f"rank {each.rank} hangs at {each.place}" for each in alone[:MOST])
    return f"{told}{f' and {len(alone) - MOST} more' if len(alone) > MOST else ''}, and the other ranks wait"


def catches(process: int, number: signal.Signals, proc: Path = PROC) -> bool:
    """Whether the process has a handler of its own for this signal."""
    return _has(proc / str(process) / "status", "SigCgt", number)


def _has(status: Path, mask: str, number: signal.Signals) -> bool:
    """Whether the kernel's account has the signal in this mask; proc(5)."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{mask}:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def everyone(proc: Path = PROC) -> list[int]:
    """Every process that this one sees, itself left out."""
    return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit() and int(path.name) != os.getpid())


def told(asked: list[int]) -> str:
    """For people."""
    return f"asked for stacks: {', '.join(f'process {each}' for each in asked) or 'no process takes the signal'}"


if __name__ == "__main__":
    wanted = sys.argv[1:]
    sys.stdout.write(
        f"{told(ask(each for each in everyone() if not wanted or environment(each).get(VARIABLE) in wanted))}\n"
    )
