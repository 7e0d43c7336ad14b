"""Stands for a machine whose driver is changed: recorded answers of NVML and libcuda, and runs that only write their log.

    python -m tests.harness.comparison.standin PLAN DRIVER BOOT [DIE_AT]

does what `compare run PLAN` does on a machine with that driver under that boot. In the DIE_AT-th run of this call it is
killed with half a log written, as a machine is that loses power or reboots.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.comparison.planning import plan, work
from harness.comparison.planning.plan import Plan, PlannedRun
from harness.system import facts
from harness.system.nvidia.driver import Driver
from harness.system.nvidia.nvml import ask
from tests.harness.comparison import arms
from tests.harness.system import recorded

OLD, NEW = "580.65.06", "590.44.01"


def machine(
    driver: str, *, libcuda: str | None = None, firmware: str | None = None, uuid: str = "GPU-1"
) -> dict[str, Any]:
    """What facts.describe says of an H100 with this driver; another libcuda or firmware where they did not change with it."""
    gpu = {**recorded.H100, "GetGspFirmwareVersion": firmware or driver, "GetUUID": uuid}
    loaded = replace(recorded.LIBCUDA, path=libcuda or f"/usr/lib/x86_64-linux-gnu/libcuda.so.{driver}")
    answers = ask(recorded.Recorded(gpu, driver=driver))
    return facts.describe(recorded.machine(Driver(driver, "open", True, loaded, answers)))


def speed(driver: str, slower: float) -> float:
    return slower if driver == NEW else 1.0


class Machine:
    """Runs items of a plan by writing what a run on this machine would."""

    def __init__(
        self,
        driver: str,
        *,
        slower: float = 1.0,
        die_at: int = 0,
        inside: dict[str, Any] | None = None,
        change: arms.Change | None = None,
    ) -> None:
        self.tables = machine(driver)
        self.inside = inside or self.tables  # what a container sees
        self.driver, self.slower, self.die_at, self.started = driver, slower, die_at, 0
        self.change = change
        self.ran: list[str] = []

    def launch(self, made: Plan, item: PlannedRun, folder: Path) -> int:
        self.started += 1
        self.ran.append(folder.name)
        turn = 100 * item.block + 10 * ("warm-up", "run", "again").index(item.kind) + item.number
        log = arms.write(
            folder,
            0,
            factor=arms.NOISE[turn % 10] * speed(self.driver, self.slower),
            turn=turn,
            software=self.inside["software"],
            gpu=self.inside["hardware"]["gpus"][0],
            change=self.change,
        )
        if self.started == self.die_at:
            text = log.read_text()
            log.write_text(text[: len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return 0


def go(  # noqa: PLR0917
    root: Path,
    on: Machine,
    boot: str,
    said: list[str] | None = None,
    host: int | None = None,
    probe: work.Probing | None = None,
) -> int:
    """One call of `compare run`. work.NotDue where it refuses."""
    made = plan.read(root)
    here = work.Here.of(on.tables, boot)
    again = f"python -m harness compare run {root}"
    number = work.claim(root, made, here, again, host)
    say = said.append if said is not None else lambda text: None
    return work.Work(root, made, number, here, on.launch, say, again, probe).run()


if __name__ == "__main__":
    root, driver, boot, *die_at = sys.argv[1:]
    try:
        sys.exit(go(Path(root), Machine(driver, die_at=int(die_at[0]) if die_at else 0), boot))
    except work.NotDue as refused:
        sys.exit(f"refused: {refused}")
