"""What a reboot alone shifts is no driver's doing: the boots that logs tell are blocks, and one boot an arm tells nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.comparison.judging import verdict
from harness.comparison.judging.observations import Observations, units
from harness.comparison.reporting import words
from harness.comparison.runs import blocks
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, NOISE, OLD, judged, put

SHIFTS = (0.0, 0.010, 0.004, -0.003)


def schedule(
    root: Path,
    order: str,
    *,
    runs: int = 5,
    boots: str | None = None,
    slower: float = 1.0,
    drivers: bool = True,
    told: bool = True,
    gpus: tuple[str, str] = ("GPU-1", "GPU-1"),
) -> tuple[Path, Path]:
    """Blocks of `runs` runs an arm in `order`; `boots`: the boot of each block, by its letter, else each its own."""
    for turn in range(runs * len(order)):
        place = turn // runs
        arm, boot = "ab".index(order[place]), (boots or "0123456789")[place]
        factor = (
            (1 + SHIFTS[int(boot, 16) % 4] * (boots is None))
            * (slower if arm else 1.0)
            * (1 + (NOISE[turn % 10] - 1) * 0.3)
        )
        arms.write(
            root / order[place],
            turn,
            turn=turn,
            factor=factor,
            software=NEW if arm and drivers else OLD,
            gpu={"uuid": gpus[arm]},
            change=put("hardware", {"boot_id": f"boot {boot}"}) if told else None,
        )
    return root / "a", root / "b"


def test_boots_are_the_blocks_wherever_the_logs_lie(tmp_path: Path) -> None:
    """Two blocks of B with a reboot between them follow each other: without the plan's folders nothing but the boot tells."""
    found = judged(schedule(tmp_path, "abba"))
    estimate = found.rows[0].judged.estimate

    assert found.word == "CANNOT TELL"
    assert estimate is not None and (estimate.level, estimate.units) == ("block", (2, 2))
    assert "more blocks an arm, each after a reboot, would" in words.sentence(found)


@pytest.mark.parametrize("told", [True, False], ids=["boots in the log", "an older log"])
@pytest.mark.parametrize("slower", [1.0, 1.02, 0.98])
def test_one_boot_an_arm_tells_no_driver_from_its_reboot(tmp_path: Path, slower: float, told: bool) -> None:
    found = judged(schedule(tmp_path, "ab", slower=slower, told=told, boots="01"))

    assert (found.word, found.exit_code) == ("CANNOT TELL", 3)
    sentence = words.sentence(found)
    assert "a reboot or an installation between them" in sentence and "A B A" in sentence
    assert slower == 1.0 or "B is 2" in sentence, "what was seen is said all the same"
    assert not any(phase.sure for phase in found.phases)


def test_one_boot_more_of_the_baseline_settles_a_large_difference(tmp_path: Path) -> None:
    assert judged(schedule(tmp_path, "aba", slower=1.10, boots="012")).word == "SLOWER"


def test_images_in_a_boot_each_are_told_no_better(tmp_path: Path) -> None:
    """The drivers are alike and the commits may be: what a reboot shifts does not ask what was compared."""
    assert judged(schedule(tmp_path, "ab", slower=1.02, boots="01", drivers=False)).word == "CANNOT TELL"


def test_arms_by_turns_are_runs_within_a_boot_and_through_a_reboot(tmp_path: Path) -> None:
    for name, boots in (("one", "0000000000"), ("through", "0000111111")):
        folders = schedule(tmp_path / name, "abbaabbaab", runs=1, slower=1.02, boots=boots, drivers=False)
        found = judged(folders)
        estimate = found.rows[0].judged.estimate
        assert found.word == "SLOWER" and estimate is not None and estimate.level == "run"


@pytest.mark.parametrize("drivers", [True, False])
def test_boots_are_the_blocks_of_two_machines_too(tmp_path: Path, drivers: bool) -> None:
    """An arm on each, by a person's word: A's first boot and B's were one block, so runs were replicates, and B was slower."""
    allowed, gpus = ("host", "gpu.uuid"), ("GPU-1", "GPU-2")
    found = judged(schedule(tmp_path / "four", "abba", drivers=drivers, gpus=gpus), allowed=allowed)
    estimate = found.rows[0].judged.estimate
    assert found.word == "CANNOT TELL"
    assert estimate is not None and (estimate.level, estimate.units) == ("block", (2, 2))
    assert not any("one boot" in note for note in found.notes)

    found = judged(
        schedule(tmp_path / "two", "ab", slower=1.02, boots="01", gpus=gpus, drivers=drivers), allowed=allowed
    )
    assert found.word == "SLOWER" and any("what a reboot alone shifts looks the same" in note for note in found.notes)


def test_two_gpus_by_turns_share_their_machines_boots(tmp_path: Path) -> None:
    for name, boots in (("one", "0000000000"), ("through", "0000111111")):
        made = schedule(tmp_path / name, "abbaabbaab", runs=1, boots=boots, drivers=False, gpus=("GPU-1", "GPU-2"))
        found = judged(made, allowed=("host", "gpu.uuid"))
        estimate = found.rows[0].judged.estimate
        assert found.word == "EQUAL" and estimate is not None and estimate.level == "run"
        assert not any("reboot" in note for note in found.notes)


def test_a_driver_reloaded_within_a_boot_begins_a_block(tmp_path: Path) -> None:
    found = judged(schedule(tmp_path, "abba", boots="0000"))
    assert set(blocks(found.runs).values()) == {0, 1, 2}


def blocked(values: list[float], arm: list[int], block: list[int]) -> Observations:
    count = len(values)
    return Observations(np.array(values), np.array(arm), np.zeros(count, int), np.array(block), 60.0 * np.arange(count))


def test_blocks_are_no_quieter_than_their_runs() -> None:
    """Two blocks that are alike by luck: what their runs' own spread leaves is not told away."""
    wild = [0.0, 0.01, -0.01, 0.0]
    made = blocked([*wild, *(v + 0.02 for v in wild), *wild], [0] * 4 + [1] * 4 + [0] * 4, [0] * 4 + [1] * 4 + [2] * 4)

    assert units(made).level == "block"
    assert verdict.judge(made, 0.005).word == "CANNOT TELL"


@pytest.mark.parametrize(("counts", "spreads"), [((20, 3), (0.1, 3)), ((20, 2), (0.1, 3)), ((2, 2), (0.1, 3))])
def test_arms_of_unlike_number_and_spread_are_slower_once_in_a_hundred(
    counts: tuple[int, int], spreads: tuple[float, float]
) -> None:
    """By permutation alone, or one variance for both, 3 to 22 times."""
    generator = np.random.default_rng(9)
    words_ = []
    for _ in range(500):
        drawn = [generator.normal(0, sd / 100, n) for n, sd in zip(counts, spreads, strict=True)]
        words_.append(verdict.judge(Observations.of(*(np.exp(each).tolist() for each in drawn)), 0.005).word)
    assert words_.count("SLOWER") <= 11  # of 500: 1 % would have more once in a hundred
