"""What the card drew and ran at while a section was measured: a short measurement may be faster than any run can stay.

On an H100 of 700 W the same convolutions took 30.8 ms of a step at the start of a process and 32.3 after half a minute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness.execution import telemetry
from harness.results import telemetry as recorded
from measuring.measure import Figure

INTERVAL_S = 0.2


@contextlib.contextmanager
def watched(section: str, device: str, scratch: Path, figures: list[Figure]) -> Iterator[None]:
    """Adds `drawn` to `figures` when the block ends, however it ends. Nothing on a CPU, or where no sensor answers."""
    path = scratch / f"{section}.jsonl"
    try:
        with telemetry.into(path, device.partition(":")[0], INTERVAL_S):
            yield
    finally:
        figures += drawn(section, path)


def drawn(section: str, path: Path) -> list[Figure]:
    """Power in W of all accelerators together, the slowest one's clock in MHz, and seconds in which a limit held it down."""
    found = recorded.read(path)
    if found is None:
        return []
    samples = {
        "power": ("W", [each.power_w for each in found.samples if each.power_w is not None]),
        "clock of the multiprocessors": (
            "MHz",
            [each.clock_sm_mhz for each in found.samples if each.clock_sm_mhz is not None],
        ),
        **{f"clock held down by {by.replace('_', ' ')}": ("s", [seconds]) for by, seconds in found.held_s.items()},
    }
    limits = {"power": found.power_limit_w, "clock of the multiprocessors": found.clock_sm_max_mhz}
    return [
        Figure(
            f"{what}, while {section} was measured",
            unit,
            values,
            f"limit {limit:g}" if (limit := limits.get(what)) else "",
        )
        for what, (unit, values) in samples.items()
        if values
    ]
