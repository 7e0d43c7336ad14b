"""A candidate that trains worse is no pass, however fast it is."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.comparison.comparison import Comparison
from harness.comparison.judging import numbers
from harness.comparison.judging.numbers import Met, quality
from harness.comparison.reporting import documents, page, terminal, words
from harness.comparison.runs import find
from harness.rules import Rules
from tests.harness.comparison import arms
from tests.harness.comparison.arms import judged, made, put
from tests.harness.comparison.test_comparability import with_max_steps
from tests.harness.comparison.test_words import cut_short


def spent(events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["key"] == "run_stop":
            event["metadata"] |= {"status": "aborted", "reason": "epochs spent: quality 0.0011"}


BROKEN: dict[str, Any] = {"made": made(qualities=((3, 0.0007), (6, 0.0011))), "change": spent}


def against(tmp_path: Path, b: Mapping[str, Any], runs: int = 5, **a: Any) -> Comparison:
    return judged(arms.in_turns(tmp_path, runs, a=a, b=b))


def test_a_driver_under_which_nothing_is_learned_is_not_faster(tmp_path: Path) -> None:
    found = against(tmp_path, {**BROKEN, "factor": 0.98})
    assert (found.word, found.exit_code) == ("WORSE", 1)
    said = words.sentence(found)
    assert said.startswith(
        "B trains worse than A: quality after epoch 6 is 0.0011 against 0.2325, and 0 of 5 runs met the target"
    )
    assert (
        "B is 2 % faster" in said
        and documents.markdown(found).startswith("**WORSE**")
        and 'class="word worse"' in page.render(found)
    )
    case = ET.fromstring(documents.junit(found)).find("testcase[@name='training is not worse']/failure")
    assert case is not None and "trains worse" in str(case.get("message"))
    content = json.loads(json.dumps(documents.as_json(found)))
    assert content["training"]["worse"] == ["quality", "target"] and content["training"]["target"]["met"] == {
        "A": 5,
        "B": 0,
    }


def test_sick_hardware_does_not_hide_it(tmp_path: Path) -> None:
    folders = arms.in_turns(tmp_path, b=BROKEN)
    for folder in folders:
        for number in range(5):
            arms.telemetry(folder / f"result_{number}.txt", ecc=int(folder == folders[1]))
    found = judged(folders)
    assert (found.word, found.exit_code) == ("WORSE", 1) and "Suspect, too: " in words.sentence(found)


def test_the_target_alone(tmp_path: Path) -> None:
    """Quality after the last common epoch may be alike, and one arm still never gets there."""
    found = against(tmp_path, {"change": spent})
    assert found.word == "WORSE" and found.quality is not None and found.quality.worse == (Met((5, 0), (5, 5)),)
    three = against(tmp_path / "3", {"change": spent}, runs=3)
    assert three.word != "WORSE", "3 of 3 against 0 of 3 is chance in 1 of 20"


@pytest.mark.parametrize(
    ("met", "runs", "p"),
    [((5, 0), (5, 5), 1 / 252), ((5, 4), (5, 5), 0.5), ((5, 5), (5, 5), 1.0), ((3, 1), (4, 4), 17 / 70)],
)
def test_fisher(met: tuple[int, int], runs: tuple[int, int], p: float) -> None:
    assert Met(met, runs).p_worse == pytest.approx(p)


def test_better_is_not_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = {"made": made(qualities=((3, 0.11), (6, 0.24)))}
    assert against(tmp_path / "1", better).word == "EQUAL"
    monkeypatch.setattr(numbers, "rules_for", lambda *_: Rules("", "", lower_is_better=True))
    found = against(tmp_path / "2", better)
    assert found.word == "WORSE" and "quality after epoch 6 is 0.24 against 0.2325" in words.sentence(found)


def test_loss_speaks_where_no_epoch_was_evaluated(tmp_path: Path) -> None:
    def worse(events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["key"] == "tracked_stats":
                event["value"]["loss"] *= 1.3

    short: dict[str, Any] = {"made": made(qualities=())}
    assert against(tmp_path / "1", short, **short).word == "EQUAL"
    found = against(tmp_path / "2", {**short, "change": worse}, **short)
    assert found.word == "WORSE" and "loss after epoch 6" in words.sentence(found)
    assert against(tmp_path / "3", {"change": worse}).word == "EQUAL", "quality is what training is for"


def test_losses_after_unlike_steps_say_nothing(tmp_path: Path) -> None:
    """7.5 after 200 steps was worse than 6.0 after 400, "after epoch 1", where the steps alone were to differ."""

    def short(steps: int, loss: float) -> dict[str, Any]:
        def change(events: list[dict[str, Any]]) -> None:
            cut_short(steps)(events)
            for event in events:
                if event["key"] == "tracked_stats":
                    event["value"]["loss"] = loss * (1 + event["time_ms"] % 7 / 1000)

        return {"change": change}

    folders = arms.in_turns(tmp_path / "unlike", a=short(400, 6.0), b=short(200, 7.5))
    found = judged(folders, allowed=("max_steps",))
    assert (found.word, found.exit_code) == ("EQUAL", 0) and found.quality is not None and found.quality.loss is None

    found = judged(arms.in_turns(tmp_path / "alike", a=short(400, 6.0), b=short(400, 7.8)))
    said = words.sentence(found)
    assert found.word == "WORSE" and "loss after 400 steps is 7.8" in said and "epoch 1" not in said
    assert documents.as_json(found)["training"]["loss"]["steps"] == 400


def test_losses_of_epochs_that_ended_are_compared_whatever_ended_the_next(tmp_path: Path) -> None:
    def stopped(steps: int, factor: float) -> dict[str, Any]:
        def change(events: list[dict[str, Any]]) -> None:
            events[:] = [
                each for each in events if (each["key"], each["metadata"].get("epoch_num")) != ("epoch_stop", 6)
            ]
            with_max_steps(steps)(events)
            for event in events:
                if event["key"] == "tracked_stats":
                    event["value"]["loss"] *= factor

        return {"change": change, "made": made(qualities=())}

    folders = arms.in_turns(tmp_path, a=stopped(700, 1.0), b=stopped(740, 1.3))
    found = judged(folders, allowed=("max_steps",))
    assert found.word == "WORSE" and "loss after epoch 5 is" in words.sentence(found)


def test_an_epoch_that_ended_in_one_arm_and_was_cut_in_the_other_tells_no_loss(tmp_path: Path) -> None:
    """The end of a second epoch, by the larger batch, was held against a part of one, "after 600 steps"."""

    def batch(size: int, cut: bool) -> dict[str, Any]:
        def change(events: list[dict[str, Any]]) -> None:
            with_max_steps(700)(events)
            put("global_batch_size", size)(events)
            for event in list(events):
                if cut and event["metadata"].get("epoch_num") == 6 and event["key"] == "epoch_stop":
                    events.remove(event)
                if cut and event["metadata"].get("epoch_num") == 6 and event["key"] == "tracked_stats":
                    event["value"]["loss"] *= 1.3

        return {"change": change, "made": made(qualities=())}

    folders = arms.in_turns(tmp_path, a=batch(914, False), b=batch(912, True))
    found = judged(folders, allowed=("global_batch_size",))
    assert found.word == "EQUAL" and found.quality is not None and found.quality.loss is not None
    assert (found.quality.loss.after, found.quality.loss.difference) == ("epoch 5", pytest.approx(0, abs=1e-9))


def test_a_success_without_a_quality_is_none(tmp_path: Path) -> None:
    """An arm whose every quality was NaN was equal, its line of quality missing without a word."""
    found = against(tmp_path, {"change": put("eval_accuracy", math.nan)})
    assert found.word == "WORSE" and "0 of 5 runs met the target against 5 of 5" in words.sentence(found)


def test_that_nothing_is_told_of_quality_is_said(tmp_path: Path) -> None:
    def silent(events: list[dict[str, Any]]) -> None:
        events[:] = [each for each in events if each["key"] != "tracked_stats"]

    short: dict[str, Any] = {"made": made(qualities=())}
    found = against(tmp_path / "one arm", {**short, "change": silent}, **short)
    assert [note for note in found.notes if "not compared" in note] and found.word == "EQUAL"
    none = against(tmp_path / "neither", {**short, "change": silent}, **short, change=silent)
    assert not [note for note in none.notes if "not compared" in note]


def test_of_one_seed_a_little_is_that_seeds_luck(tmp_path: Path) -> None:
    """The spread over runs of one seed is not that over seeds: it may be nothing at all."""
    one = put("seed", 1)
    little = made(qualities=((3, 0.11), (6, 0.2300)))
    assert against(tmp_path / "1", {"made": little, "change": one}, change=one).word == "EQUAL"
    assert against(tmp_path / "2", {"made": little}).word == "WORSE"

    def broken(events: list[dict[str, Any]]) -> None:
        one(events)
        spent(events)

    assert against(tmp_path / "3", {**BROKEN, "change": broken}, change=one).word == "WORSE"


def test_arms_alike_are_hardly_ever_worse(tmp_path: Path) -> None:
    """At most once in a hundred: 1,000 pairs of arms of SSD's spread over seeds, 5 + 5 and 5 + 1."""
    a, b = arms.in_turns(tmp_path)
    runs = [*find(str(a), 0), *find(str(b), 1)]
    generator = np.random.default_rng(5)
    for few in (5, 1):
        chosen = [*runs[:5], *runs[5 : 5 + few]]
        worse = 0
        for _ in range(1000):
            for run in chosen:
                last = run.record.counted_evaluations[-1]
                object.__setattr__(last, "accuracy", float(generator.normal(0.2325, 0.0015)))
            worse += bool(quality(chosen).worse)
        assert worse <= 18, "of 10 expected, 3 standard deviations"
    assert worse > 0, "the level is used"


def test_a_run_alone_is_judged_by_the_other_arms_spread(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    for number, extra in enumerate((0.0, 0.001, 0.002, -0.001, 0.0005)):
        arms.write(a, number, turn=3 * number, made=made(qualities=((3, 0.11), (6, 0.2325 + extra))))
    for log in sorted(b.iterdir())[1:]:
        log.unlink()
    arms.write(b, 0, turn=1, **BROKEN)
    found = judged((a, b))
    assert found.word == "WORSE" and any("different" in line for line in terminal.lines(found))
