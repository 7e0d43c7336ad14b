"""The first process of a pod: starts the run, passes its output on, sends its files along, and ends with its exit code.

    python -m harness.launch.kubernetes.pod [--wait-for NAME SECONDS] [--keep FOLDER] --out FOLDER NUMBER -- run ...

NUMBER is the trial's; what stands behind `--` is for `python -m harness`. As the first process of a container it also
receives the signals that nobody else would, and buries the processes that others leave. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from harness import names
from harness.exit_codes import NOT_SUITABLE
from harness.launch.kubernetes.frames import Sender

EVERY_S = 1.0  # the log's new lines are sent
LOOK_S = 0.1  # between two looks at the run
RUN = (sys.executable, "-m", "harness")
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OUTPUT_S = 10.0  # for the run's last lines, where something that it started holds its output open


class Output:
    """Whole lines on standard output, whichever thread they come from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, lines: Iterable[str]) -> None:
        for line in lines:
            with self._lock:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()

    def pass_on(self, stream: IO[str]) -> None:
        self.write(line.rstrip("\n") for line in stream)


def main(arguments: list[str]) -> int:
    """Returns the run's exit code; 128 + the signal's number where a signal ended it."""
    parser = argparse.ArgumentParser(prog="pod")
    parser.add_argument("--wait-for", nargs=2, metavar=("NAME", "SECONDS"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("number", type=int)
    split = arguments.index("--")
    asked = parser.parse_args(arguments[:split])
    output = Output()
    for number in ENDING:  # the kernel gives a container's first process only what it asks for
        signal.signal(number, lambda taken, _: sys.exit(128 + taken))
    if asked.wait_for is not None:
        name, patience_s = asked.wait_for[0], float(asked.wait_for[1])
        if not _resolves(name, patience_s):
            output.write(
                [
                    f"{name}: node 0 has no name after {patience_s:g} s: its pod may have no node yet (`kubectl get pods`; "
                    "--rendezvous-timeout SECONDS waits longer), or the cluster's DNS does not work"
                ]
            )
            return NOT_SUITABLE
    sender = Sender(asked.out, asked.number)
    code = _follow([*RUN, *arguments[split + 1 :]], output, sender)
    output.write(sender.rest())
    if asked.keep is not None:
        output.write(_kept(asked.out, asked.keep, asked.number))
    return code


def _follow(command: list[str], output: Output, sender: Sender) -> int:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, number)

    for number in ENDING:
        signal.signal(number, pass_on)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # asks ranks for their stacks
    reader = threading.Thread(target=output.pass_on, args=(process.stdout,), daemon=True)
    reader.start()
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(EVERY_S):
            output.write(sender.growing())

    files = threading.Thread(target=send, daemon=True)
    files.start()
    status = _buried(process.pid)
    for number in ENDING:  # another pod that failed ends this one too, whose files are on their way
        signal.signal(number, signal.SIG_IGN)
    ended.set()
    reader.join(OUTPUT_S)
    files.join()
    code = process.returncode = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _buried(process: int) -> int:
    """The wait status of this child, once it has ended; those that others left are waited for on the way.

    Looks now and then: the kernel may give a signal to another thread, as it does to a process that was frozen, and nothing
    would wake a main thread that waits for a child alone.
    """
    while True:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found == process:
            return status
        if not found:
            time.sleep(LOOK_S)


def _resolves(name: str, patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    while True:
        try:
            socket.getaddrinfo(name, None)
            return True
        except OSError:
            if time.monotonic() > until:
                return False
        time.sleep(1)


def _kept(out: Path, keep: Path, number: int) -> Iterable[str]:
    """The trial's files in the claimed volume too. What cannot be written there is said; the series has them anyway."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        for path in sorted(out.iterdir()):
            if names.of_run(path.name, number):
                shutil.copy2(path, keep / path.name)
    except OSError as error:
        yield f"{keep}: the results claim does not keep the trial's files: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
