"""A process that outlives its series by a moment: when the series is gone, however it went, what it started is stopped.

`kill -9` leaves no one to stop a trial that still holds the accelerator. This process reads from a pipe whose other end
only the series holds; at its end it stops the processes it was told of and removes the containers of the series. After a
series that ended by itself there are none. (A machine that loses power takes both; the next series removes what is left.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

import psutil

from harness.config import ROOT
from harness.contract import NotSuitable

GRACE_S = 20


class Reaper:
    """The series' end of the pipe. A context: leaving it is the end of the series."""

    def __init__(self, command: list[str] | None = None) -> None:
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "harness.launch.reaper"],
            stdin=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def watch_process(self, process: int) -> None:
        """Stop this process, too, when the series is gone."""
        self._tell(process=process)

    def watch_containers(self, label: str) -> None:
        """Remove the containers with this label, too."""
        self._tell(label=label)

    def _tell(self, **content: int | str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content) + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(orders: IO[str]) -> None:
    """Read orders until the series is gone, then carry them out."""
    processes: list[psutil.Process] = []
    labels: list[str] = []
    for line in orders:
        order = json.loads(line)
        if "label" in order:
            labels.append(order["label"])
        else:
            try:
                processes.append(psutil.Process(order["process"]))
            except psutil.NoSuchProcess:
                continue
    _stop(processes)
    for label in dict.fromkeys(labels):
        _remove_containers(label)


def _remove_containers(label: str) -> None:
    from harness.launch import engine

    try:
        engine.patiently(lambda: engine.remove_labelled(engine.connect(), label, grace_s=GRACE_S))
    except NotSuitable as error:
        sys.stderr.write(f"containers may be left ({label}); the next series removes them. {error}\n")


def _stop(processes: list[psutil.Process]) -> None:
    """SIGTERM to each run, time to close its log, then SIGKILL to it and to what it started."""
    everyone = [each for process in processes for each in family(process)]
    for each in processes:
        try:
            each.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(everyone, timeout=GRACE_S)
    end(alive)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants; empty when it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each that still lives; never to another that was given its number."""
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    main(sys.stdin)
