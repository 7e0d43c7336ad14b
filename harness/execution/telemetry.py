"""What the accelerators did during a run: their driver's readings beside the log, once a second, by a process of its own.

telemetry_N.jsonl: a line "begin" with each device's state and counters, a line "sample" each interval, a line "end" with the
counters again. Counters (energy, seconds in which a limit held the clocks down, ECC errors, replays) are exact over the run
however seldom it samples; their differences are in the "end" line. A reading that is not offered is null, and "begin" says why.
Which readings there are is the vendor's matter (harness/system/accelerator.py: Sensors). Nothing here can
end a run: where there is nothing to read there is no file, and a sampler that dies leaves what it has written.

Own process: a driver's calls take milliseconds and Python's lock; the run's ranks must not feel them. It is niced, and ends
when its standard input does, so that it never outlives the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness import ROOT, names
from harness.contract import Plain
from harness.system import accelerator
from harness.system.accelerator import CPU, Reading, Sensors, Unavailable

INTERVAL_S = 1.0


@contextlib.contextmanager
def beside(log: Path | None, device: str, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """`into` telemetry_N.jsonl beside result_N.txt; nothing where there is no log."""
    path = None if log is None else names.telemetry(log)
    with contextlib.nullcontext() if path is None else into(path, device, interval_s):
        yield


@contextlib.contextmanager
def into(path: Path, device: str, interval_s: float) -> Iterator[None]:
    """For as long as the block runs, sample this machine's accelerators into a new file.

    `device` is run.device. Nothing for what runs on the processor.
    """
    if device == CPU:
        yield
        return
    sampler = _started(
        [sys.executable, "-m", "harness.execution.telemetry", str(path.absolute()), str(interval_s), device]
    )
    if sampler is None:
        yield
        return
    try:
        yield
    finally:
        assert sampler.stdin is not None
        sampler.stdin.close()
        try:
            sampler.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a driver that hangs
            sampler.kill()


def _started(command: list[str]) -> subprocess.Popen[bytes] | None:
    """None, said on the screen, where it cannot be started, as under a limit on processes."""
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
        )
    except OSError as error:
        sys.stderr.write(f"warning: what the accelerators do is not sampled: {error.strerror}\n")
        return None


def sample(sensors: Sequence[Sensors], path: Path, interval_s: float, stop: Callable[[float], bool]) -> None:
    """Write `path` until `stop(seconds to wait)` says so. Nothing is written where there is no device."""
    if not sensors:
        return
    with path.open("x", encoding="utf-8", buffering=1) as file:

        def line(event: str, each: list[dict[str, Any]]) -> None:
            file.write(json.dumps({"event": event, "time_ms": round(time.time() * 1000), "gpus": each}) + "\n")

        first = [read({**device.state, **device.counted, **device.sampled}) for device in sensors]
        line("begin", [{**values, "unavailable": reasons} for values, reasons in first])
        # what a device does not offer is not asked for every second
        offered = [
            {name: call for name, call in device.sampled.items() if name not in reasons}
            for device, (_, reasons) in zip(sensors, first, strict=True)
        ]
        due = now = time.monotonic()
        while not stop((due := max(due + interval_s, now)) - now):
            line("sample", [read(calls)[0] for calls in offered])
            now = time.monotonic()  # what was missed, as while the machine slept, is not made up for
        last = [read(device.counted)[0] for device in sensors]
        grown = [_grown(before, after) for (before, _), after in zip(first, last, strict=True)]
        line("end", [{**values, "during_run": each} for values, each in zip(last, grown, strict=True)])


def read(calls: Mapping[str, Reading]) -> tuple[dict[str, Plain | None], dict[str, str]]:
    """The values, None where there is none, and the reasons for these."""
    values: dict[str, Plain | None] = {}
    reasons: dict[str, str] = {}
    for name, call in calls.items():
        try:
            values[name] = call()
        except Unavailable as error:
            values[name], reasons[name] = None, str(error)
    return values, reasons


def _grown(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """By how much each counter grew; None where it is not offered, or was reset meanwhile."""
    return {
        name: after[name] - before[name]
        if None not in (before[name], after[name]) and after[name] >= before[name]
        else None
        for name in after
    }


@contextlib.contextmanager
def of_device(device: str) -> Iterator[Sequence[Sensors]]:
    """The sensors of the first vendor that has any for what run.device names and this torch drives."""
    for vendor in accelerator.vendors():
        if device in (accelerator.ANY, *vendor.process_groups):
            with vendor.sensors(Path("/")) as found:
                if found:
                    yield found
                    return
    yield []


def main(path: Path, interval_s: float, device: str, until: IO[str]) -> None:
    """Sample until the run's end of the pipe closes."""
    try:
        with of_device(device) as sensors:
            # from here on: beside busy processes the imports alone would take it longer than a short run takes
            with contextlib.suppress(OSError):
                os.nice(10)
            sample(sensors, path, interval_s, lambda wait_s: bool(select.select([until], [], [], wait_s)[0]))
    except OSError as error:  # a disk that is full or gone
        sys.exit(f"warning: {path}: what the accelerators do is no longer sampled: {error.strerror}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.stdin)
