"""A series killed fifty times at random moments, gone on with each time: nothing is lost, nothing counts twice, nobody is left.

Seeded by a number that a failure shows; HARNESS_TEST_DATA and root are not needed.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from harness.launch import ledger, leftovers
from tests.harness.launch.series import Fakes
from tests.harness.launch.test_trials import started
from tests.patience import PATIENCE_S

KILLS, TRIALS = 50, 24  # so many that there is work left at the last kill
MOMENTS_S = (0.2, 1.8)  # after the start: from reading the ledger to the third trial


def of_series(folder: Path) -> list[psutil.Process]:
    return leftovers.marked(lambda mark: mark.folder == folder)


def kill_some(series: psutil.Process, folder: Path, chance: random.Random) -> None:
    """The series, or its reaper too, or a trial alone, by a signal that leaves no time or one that does."""
    targets = {
        "series": [series],
        "series and reaper": [*series.children(), series],
        "trial": of_series(folder),
    }
    number = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
    for each in targets[chance.choice(list(targets))]:
        try:
            each.send_signal(number)
        except psutil.NoSuchProcess:
            continue


@pytest.mark.long
def test_fifty_kills(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    fakes = Fakes(tmp_path / "results")
    fakes.tell(**{f"_{number}": "work a moment" for number in range(TRIALS)})
    finished: dict[int, str | None] = {}
    for _ in range(KILLS):
        process = started(fakes.folder, TRIALS, "--resume")
        time.sleep(chance.uniform(*MOMENTS_S))
        if process.poll() is None:
            kill_some(psutil.Process(process.pid), fakes.folder, chance)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
        process.communicate()
        account = fakes.account
        for number, attempt in account.finished.items():
            assert attempt.end is not None
            before = finished.setdefault(number, attempt.end["log_sha256"])
            assert before == attempt.end["log_sha256"], f"seed {seed}: trial {number} counts twice"
            assert ledger.sha256(fakes.folder / f"result_{number}.txt") == before, f"seed {seed}"
        assert finished.keys() <= account.finished.keys(), f"seed {seed}: a finished trial is lost"
    process = started(fakes.folder, TRIALS, "--resume")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, f"seed {seed}: {said}"
    assert sorted(fakes.account.finished) == list(range(TRIALS)), f"seed {seed}"
    assert not of_series(fakes.folder), f"seed {seed}"
