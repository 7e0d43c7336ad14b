"""What the card drew and ran at while a section was measured: a short measurement may be faster than any run can stay.

On an H100 of 700 W the same convolutions took 30.8 ms of a step at the start of a process and 32.3 after half a minute.

Power and clock are those of the time that was measured (measure.TIMED): init, compiling and opening, which come with it, take
several times as long. A section in which no accelerator was timed has neither. The seconds in which a limit held the clock down
are a driver's counters, read at the beginning of a section and at its end, and are told as that. NVML's power is a mean over a
second: of steps that are timed one by one it has the pauses between them, of a run and of turns it has not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.execution import telemetry
from harness.results import telemetry as recorded
from measuring.measure import TIMED, Figure, Span

INTERVAL_S = 0.2


@contextlib.contextmanager
def watched(section: str, device: str, scratch: Path, figures: list[Figure]) -> Iterator[None]:
    """Adds `drawn` to `figures` when the block ends, however it ends. Nothing on a CPU, or where no sensor answers."""
    path = scratch / f"{section}.jsonl"
    TIMED.clear()
    try:
        with telemetry.into(path, device.partition(":")[0], INTERVAL_S):
            yield
    finally:
        figures += drawn(section, path, TIMED)


def drawn(section: str, path: Path, spans: Sequence[Span]) -> list[Figure]:
    """Power in W of all accelerators together and the slowest one's clock in MHz within `spans`, the time that was measured.

    And of the whole section the seconds in which a limit held the clock down.
    """
    found = recorded.read(path)
    if found is None:
        return []
    inside = [each for each in found.samples if any(start <= each.at_s <= stop for start, stop in spans)]
    power = [each.power_w for each in inside if each.power_w is not None]
    clock = [each.clock_sm_mhz for each in inside if each.clock_sm_mhz is not None]
    samples = (
        ("power", "W", power, found.power_limit_w),
        ("clock of the multiprocessors", "MHz", clock, found.clock_sm_max_mhz),
    )
    return [
        *(
            Figure(f"{what}, while {section} was measured", unit, values, f"limit {limit:g}" if limit else "")
            for what, unit, values, limit in samples
            if values
        ),
        *(
            Figure(
                f"clock held down by {by.replace('_', ' ')}, from the beginning of {section} to its end", "s", [held]
            )
            for by, held in found.held_s.items()
        ),
    ]
