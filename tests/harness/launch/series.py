"""A series of fake trials as local processes."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.launch import admission, ledger, trials
from harness.launch.process import LocalLauncher
from harness.launch.reaper import Reaper
from harness.launch.trial import Order

FAKE = Path(__file__).with_name("fake_run.py")
SHA256 = "ab" * 32


def command(order: Order) -> list[str]:
    return [sys.executable, str(FAKE), "--out", str(order.folder), "--number", str(order.number)]


@dataclass
class Fakes:
    """A results folder whose trials do as they are told."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def tell(self, **do: str) -> None:
        """tell(_0="hang"): what each trial does from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        orders = {"sha256": SHA256, "do": {name.strip("_"): what for name, what in do.items()}}
        (self.folder / "fake.json").write_text(json.dumps(orders), encoding="utf-8")

    def run(self, count: int = 3, **options: object) -> int:
        asked = {"configuration_sha256": SHA256, "clear_caches": False, **options}
        series = admission.SeriesOrder(self.folder, "fake", trials=count, **asked)  # type: ignore[arg-type]
        with Reaper() as reaper:
            return trials.run(series, LocalLauncher(command, os.environ, reaper, series.id), self.said.append)

    @property
    def account(self) -> ledger.Account:
        return ledger.Account.read(self.folder / ledger.FILE)

    @property
    def statuses(self) -> list[tuple[int, int, str]]:
        return [(each.number, each.attempt, each.status) for each in self.account.attempts]


if __name__ == "__main__":
    fakes = Fakes(Path(sys.argv[1]))
    code = fakes.run(int(sys.argv[2]), resume="--resume" in sys.argv)
    sys.stdout.write("\n".join(fakes.said) + "\n")
    sys.exit(code)
