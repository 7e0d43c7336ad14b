"""A trial that runs as a step of a Slurm job: what srun says of it, its end, and what its log lacks; see watchdog.Running.

A node that dies is Slurm's to notice, after SlurmdTimeout; the ranks notice sooner (execution/lifeline.py) and end the run, and
then srun, which would wait for the node, is not waited for.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from harness.contract import NotSuitable
from harness.execution.events import keys
from harness.exit_codes import BROKEN, INTERRUPTED
from harness.launch import ranks
from harness.launch.controller import ControllerAway
from harness.launch.slurm import Allocation
from harness.launch.trial import Order

ENDED = re.compile(r"srun: error: (?P<node>\S+): tasks? (?P<tasks>[\d,-]+): (?P<how>.+)")
NODE_FAILED = re.compile(r"srun: error: Node failure on (\S+)")
NO_ANSWER = re.compile(r"\brank \d+ on \S+ has not answered for .*")  # a rank says so of another: execution/lifeline.py
ENDED_S = 12.0  # for srun to end the others once one has ended badly; a node that is gone would hold it up for minutes
AT_ONCE_S = 4.0  # the same where a rank has said that one is gone
OVER = {
    "NODE_FAIL": "a node failed, and Slurm ended the job",
    "TIMEOUT": "the job's time was over (--slurm-options '-t MINUTES', or sbatch -t)",
    "CANCELLED": "somebody cancelled the job",
    "PREEMPTED": "the job had to make room for another",
    "OUT_OF_MEMORY": "the job was out of memory",
    "DEADLINE": "the job's deadline was over",
}


class RunningStep:
    """One trial; see watchdog.Running."""

    def __init__(  # noqa: PLR0917 - what a step is
        self,
        process: subprocess.Popen[str],
        name: str,  # of the step
        nodes: Allocation,
        order: Order,
        others: list[Path],
        ask: Callable[[], str],
        facts: Mapping[str, Any],
    ) -> None:
        self._process, self._nodes, self._order, self._others = process, nodes, order, others
        self._name = name
        self._ask, self._facts = ask, facts
        self._drained = threading.Event()
        self._asked = False  # whether we asked it to end
        self._cause: tuple[int, str] | None = None  # of what srun said first: which task ended how
        self._caused_s = 0.0  # when, monotonic
        self._lost = ""  # the node that Slurm gave up
        self._no_answer = ""  # of which rank another said so
        self._silent = False  # whether the step does not end though its ranks had to
        self._over = ""

    @property
    def without_answer(self) -> bool:
        """Whether a node of it is gone, as far as anybody can tell before Slurm does."""
        return self._silent or bool(self._no_answer)

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._listen(line)
            yield line.rstrip("\n")
        self._drained.set()

    def _listen(self, line: str) -> None:
        if (lost := NODE_FAILED.match(line)) is not None:
            self._lost = lost[1]
        if not self._no_answer and (found := NO_ANSWER.search(line)) is not None:
            self._no_answer = found[0]
        ended = ENDED.match(line)
        if ended is None or self._cause is not None:
            return
        self._caused_s = time.monotonic()
        task, how = f"rank {ended['tasks']} on {ended['node']}", ended["how"]
        code = re.fullmatch(r"Exited with exit code (\d+)", how)
        if code is None:
            self._cause = (BROKEN, f"{task} was ended by a signal: {how}")
        else:
            known = int(code[1]) if int(code[1]) in ranks.KNOWN else BROKEN
            self._cause = (known, f"{task} ended with exit code {code[1]}")

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is None:
            patience_s = AT_ONCE_S if self._no_answer else ENDED_S
            self._silent = self._cause is not None and time.monotonic() - self._caused_s > patience_s
            return self._judged(1)[0] if self._silent else None
        self._drained.wait(5)
        return self._judged(code)[0]

    def _judged(self, code: int) -> tuple[int, str]:
        if self._lost:
            return BROKEN, f"node {self._lost} failed, and Slurm ended the job"
        if code == 0:
            return 0, signal.SIGTERM.name if self._asked else "the ranks ended without saying how"
        if self._asked:
            return INTERRUPTED, signal.SIGTERM.name
        if self._no_answer:
            return BROKEN, self._no_answer
        return self._cause or (BROKEN, f"srun ended with exit code {code}")

    def ask_for_stacks(self) -> str:
        try:
            return self._ask()
        except NotSuitable as error:
            return f"no stacks could be asked for: {error}"

    def terminate(self) -> None:
        self._asked = True
        self._signal("TERM")

    def kill(self) -> None:
        self._asked = True
        self._end(10.0)

    def _end(self, patience_s: float) -> None:
        self._signal("KILL")
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            self._process.kill()  # srun itself, where a node answers no more

    def _signal(self, name: str) -> None:
        """To its ranks; without the cluster's controller srun asks the nodes itself."""
        try:
            self._nodes.signal(self._name, name)
        except ControllerAway:
            self._process.terminate()

    def why(self) -> str:
        return self._over

    def owns(self, process: psutil.Process) -> bool:  # noqa: ARG002 - the nodes are others
        return False

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {"slurm": dict(self._facts)}

    def close(self) -> None:
        if self._silent:
            self._end(0.0)
        elif self._process.poll() is None:
            self.kill()
        code, reason = self._judged(self._process.wait())
        with contextlib.suppress(ControllerAway):  # the next trial waits for it
            self._over = OVER.get(self._nodes.state(), "")
        if self._lost:
            self._over = reason
        if self._over and not self._asked:
            reason = self._over
        ranks.closed(self._order.log, ranks.believed(code, self._order.log), reason)
        for path in self._others:
            if path.exists() and not _telling(path):
                path.unlink()


def _telling(path: Path) -> bool:
    """Whether a node's file says more than that its ranks began."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return any(f'"key": "{keys.INIT_START}"' not in line for line in lines if line.strip())
