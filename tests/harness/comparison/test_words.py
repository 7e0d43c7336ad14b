"""What the sentence says is slower, and in which phase."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison.comparison import Comparison
from harness.comparison.judging import floor
from harness.comparison.reporting import documents, page, plots, terminal, words
from harness.contract import STEP_PHASES
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, judged

PHASES = {"data_starved": 0.05, "forward_loss": 2.0, "backward": 3.5, "optimizer": 0.4}
assert PHASES.keys() <= set(STEP_PHASES)


def stalling(events: list[dict[str, Any]]) -> None:
    """Two epochs of six take 2.4 s more, in backward."""
    late = 0
    for event in events:
        hit = event["metadata"].get("epoch_num") in (3, 5)
        late += 2400 * (hit and event["key"] == "epoch_stop")
        event["time_ms"] += late
        if hit and event["key"] == "phase_seconds":
            event["value"] = {**event["value"], "backward": event["value"]["backward"] + 2.4}


def before(place: str, key: str, value: Any) -> arms.Change:
    """One more event, right before the first of `place`."""

    def change(events: list[dict[str, Any]]) -> None:
        at = next(number for number, event in enumerate(events) if event["key"] == place)
        events.insert(at, {**events[at], "key": key, "event_type": "POINT_IN_TIME", "value": value, "metadata": {}})

    return change


def evaluating(seconds: float) -> arms.Change:
    def change(events: list[dict[str, Any]]) -> None:
        late = 0.0
        for event in events:
            late += 1000 * (seconds - 3) * (event["key"] == "eval_accuracy")
            event["time_ms"] += round(late)

    return change


def one_phase_more(
    tmp_path: Path, baseline: dict[str, float], candidate: dict[str, float], factor: float
) -> Comparison:
    """`factor`: of the whole epoch. `candidate` is in seconds as they will be logged."""
    logged = {name: seconds / factor for name, seconds in candidate.items()}
    return judged(arms.in_turns(tmp_path, slower=factor, a={"phases": baseline}, b={"phases": logged, "software": NEW}))


def test_epochs_that_stall_now_and_then_are_in_no_median(tmp_path: Path) -> None:
    found = judged(arms.in_turns(tmp_path, a={"phases": PHASES}, b={"phases": PHASES, "change": stalling}))
    rows = {row.metric.name: row.judged.word for row in found.rows}
    assert rows["seconds_per_epoch"] == "EQUAL" and rows["mean_epoch_seconds"] == "SLOWER"
    assert (found.word, found.exit_code) == ("SLOWER", 1)
    said = words.sentence(found)
    assert said.startswith("B's mean epoch is 16 % slower") and said.endswith("in backward.")
    assert judged((tmp_path / "a", tmp_path / "b"), metrics=("seconds_per_epoch",)).word == "EQUAL", "as it was asked"


def test_a_floor_of_before_the_mean_was_measured_is_the_means_too(tmp_path: Path) -> None:
    content = {"host": "h", "configuration_sha256": "c", "floors": {"seconds_per_epoch": 0.01}}
    (tmp_path / floor.FILE).write_text(json.dumps(content))
    found = floor.read(tmp_path / floor.FILE)
    assert found is not None and found.floors["mean_epoch_seconds"] == 0.01


def test_what_one_epoch_tells_is_one_figure(tmp_path: Path) -> None:
    short = {"made": arms.made(epochs=2, qualities=((2, 0.2325),))}
    found = judged(arms.in_turns(tmp_path, a=short, b=short))
    assert "mean_epoch_seconds" not in {row.metric.name for row in found.rows}


def test_what_is_slower_and_gates_nothing_is_in_the_sentence(tmp_path: Path) -> None:
    found = judged(arms.in_turns(tmp_path, b={"change": evaluating(9)}))
    assert found.word == "EQUAL" and "Not gated: B's evaluation is 200 % slower (" in words.sentence(found)
    gated = judged((tmp_path / "a", tmp_path / "b"), metrics=("evaluation_seconds",))
    assert words.sentence(gated).startswith("B's evaluation is 200 % slower") and "Not gated" not in words.sentence(
        gated
    )


def test_seconds_of_init_explain_no_epoch(tmp_path: Path) -> None:
    """Compiling takes 30 s more, once and outside the metric; backward is the whole of what an epoch lost."""
    more = {**PHASES, "backward": PHASES["backward"] + 0.12}
    folders = arms.in_turns(
        tmp_path,
        slower=1.02,
        a={"phases": PHASES, "change": before("run_start", "phase_seconds", {"init_first_step": 20.0})},
        b={
            "phases": {name: seconds / 1.02 for name, seconds in more.items()},
            "change": before("run_start", "phase_seconds", {"init_first_step": 50.0}),
        },
    )
    found = judged(folders)
    assert words.sentence(found).endswith("in backward.")
    sure = {phase.name for phase in found.phases if phase.sure}
    assert sure == {"backward", "init_first_step"}, "the table has both"
    waterfall = plots.waterfall(found)
    assert waterfall is not None and not any(bar.name.startswith("init") for bar in waterfall.bars)


def test_seconds_are_of_the_same_hosts_in_both_arms(tmp_path: Path) -> None:
    """B, slower in backward, has most of its runs on the host whose forward takes longer."""
    found = judged(arms.on_two_hosts(tmp_path, ("ABAABAA", "BABBABB"), b=1.02), allowed=("commit",))
    row = found.rows[0]
    assert found.word == "SLOWER" and row.judged.percent is not None
    assert row.means[1] / row.means[0] == pytest.approx(1 + row.judged.percent / 100)
    assert {phase.name: phase.difference_s for phase in found.phases} == pytest.approx(
        {"data_starved": 0.0, "forward_loss": 0.0, "backward": 0.06}, abs=0.003
    )
    assert [phase.name for phase in words.blamed(found)] == ["backward"]
    drawn = plots.over_time(found)
    assert drawn is not None
    (_, a), (_, b) = drawn.strips[1].means
    assert drawn.strips[1].title == "SM clock" and a == pytest.approx(b)


def test_a_phase_out_of_nothing_is_named(tmp_path: Path) -> None:
    """It has no ratio, and is the whole of the difference."""
    found = one_phase_more(tmp_path, {**PHASES, "data_starved": 0.0}, {**PHASES, "data_starved": 0.3}, 1.05)
    assert words.sentence(found).endswith("in data starved.")
    (phase,) = [each for each in found.phases if each.name == "data_starved"]
    assert phase.sure and phase.percent is None and phase.difference_s == pytest.approx(0.3, rel=1e-2)
    assert plots.forest(found) is not None


def test_a_phase_that_vanishes_is_named(tmp_path: Path) -> None:
    found = one_phase_more(tmp_path, {**PHASES, "data_starved": 0.3}, {**PHASES, "data_starved": 0.0}, 1 / 1.05)
    (phase,) = [each for each in found.phases if each.name == "data_starved"]
    assert phase.percent == pytest.approx(-100) and words.sentence(found).endswith("in data starved.")


def test_a_gate_on_a_phase_that_is_0_says_why_it_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_phase_more(tmp_path, {**PHASES, "data_starved": 0.0}, {**PHASES, "data_starved": 0.3}, 1.05)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "data_starved"]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "data_starved is 0 s in 5 of 10 runs" in said and "tells data_starved" not in said


# --- figures that agree with each other ---


def test_batches_of_unlike_size_leave_epochs_of_unlike_length(tmp_path: Path) -> None:
    """1,000 images, 100 a second: in batches of 256 an epoch is three of them, 232 images less, and no faster."""

    def of(batch: int) -> dict[str, Any]:
        images = 1000 // batch * batch
        made = arms.made(batch=batch, epoch_s=images / 100)
        phases = {"forward_loss": images / 250, "backward": images / 200, "init_threads": 2.0}
        return {"made": made, "phases": phases, "change": arms.put("train_samples", 1000)}

    folders = arms.in_turns(tmp_path, a=of(8), b=of(256))
    found = judged(folders, allowed=("configuration*", "hyperparameter.*", "global_batch_size"))
    assert found.word == "EQUAL" and {row.judged.word for row in found.rows if row.gated} == {"EQUAL"}
    assert found.rows[0].means == pytest.approx((10.0, 10.0), rel=0.001)
    assert [phase.difference_s for phase in found.phases] == pytest.approx([0.0] * 3, abs=0.02)
    assert any("epochs are of 768 to 1,000 images" in note for note in found.notes)
    assert all(run.record.images_per_s == pytest.approx(100, rel=0.002) for run in found.runs)


def cut_short(steps: int) -> arms.Change:
    """A run that --max-steps ended in its first epoch, which as it was logged is a whole one of 129 steps."""

    def change(events: list[dict[str, Any]]) -> None:
        events[:] = [
            event
            for event in events
            if event["key"] not in ("epoch_stop", "eval_start", "eval_accuracy", "eval_stop")
            and event["metadata"].get("epoch_num", 1) == 1
        ]
        for event in events:
            if event["key"] == "run_stop":
                event["metadata"] |= {"status": "aborted", "reason": f"steps spent: {steps} of --max-steps {steps}"}
            if event["key"] == "phase_seconds":
                event["value"] = {name: seconds * steps / 128.58 for name, seconds in event["value"].items()}
        before("init_start", "max_steps", steps)(events)

    return change


def test_phases_of_some_steps_are_a_whole_epochs(tmp_path: Path) -> None:
    """Its seconds an epoch are; the phases' sum was a quarter of them, and 20 steps against 40 twice as slow."""
    a, b = ({"phases": PHASES, "change": cut_short(steps)} for steps in (20, 40))
    found = judged(arms.in_turns(tmp_path, a=a, b=b), allowed=("max_steps",))
    whole = found.rows[0].means
    for arm in (0, 1):
        assert sum(phase.seconds[arm] for phase in found.phases) == pytest.approx(whole[arm], rel=0.01)
    assert all(phase.percent is not None and abs(phase.percent) < 0.5 for phase in found.phases)
    assert any("a whole epoch's by the runs' 20 and 40 steps" in note for note in found.notes)
    assert not any("whole epoch" in note for note in judged(arms.in_turns(tmp_path / "whole")).notes)


def test_no_line_of_the_forest_runs_through_its_figures(tmp_path: Path) -> None:
    """A phase beyond the scale: its line ended at the edge on one side alone."""
    more = {**PHASES, "data_starved": 0.5}
    found = one_phase_more(tmp_path, PHASES, more, 1.075)
    picture = plots.forest(found)
    assert picture is not None
    left, right = plots.LABELS, plots.WIDTH - plots.ROOM  # where the figures begin
    (row,) = [each for each in picture.rows if each.name == "data starved"]
    assert row.cut
    assert all(left <= each.low <= each.x <= each.high <= right for each in picture.rows)


@pytest.mark.parametrize("way", [1, -1])
def test_what_lies_beyond_the_forest_s_scale_is_an_arrow(tmp_path: Path, way: int) -> None:
    """+900 % stood at the edge as a circle, where the scale says some 9 %."""
    before, after = (PHASES, {**PHASES, "data_starved": 0.5})[::way]
    found = one_phase_more(tmp_path, before, after, 1.075**way)
    picture = plots.forest(found)
    assert picture is not None
    assert {row.name: row.beyond for row in picture.rows if row.beyond} == {"data starved": way}
    text = page.render(found)
    drawn = text.split('role="img"')[1].split("</svg>")[0]
    assert drawn.count("<path") == 1 and drawn.count("<circle") == len(picture.rows) - 1
    assert "An arrow: beyond the scale." in text
    assert "An arrow" not in page.render(judged(arms.in_turns(tmp_path / "alike")))


@pytest.mark.parametrize("slower", [1.16, 2.5, 400.0])
def test_the_forest_has_room_for_its_figures(tmp_path: Path, slower: float) -> None:
    """From ten per cent on the interval's end was cut off: "+16.02 (+15.85 to +16.1"."""
    picture = plots.forest(judged(arms.in_turns(tmp_path, slower=slower)))
    assert picture is not None
    assert picture.rows[0].text.startswith("+") and picture.rows[0].word == "slower"
    assert 7.0 * max(len(row.text) for row in picture.rows) <= plots.ROOM - 10  # a digit has 6.8 units at most


def test_a_phase_of_few_runs_keeps_to_its_column(tmp_path: Path) -> None:
    """Of two runs an arm the interval of a phase that now and then waited had 29 digits, in the table, Markdown and picture."""
    for turn, (arm, waited) in enumerate([("a", 0.00001), ("b", 0.2), ("b", 0.0002), ("a", 0.004)]):
        phases = {"data_starved": waited, "forward_loss": 3.0, "backward": 3.0 - waited}
        arms.write(tmp_path / arm, turn, turn=turn, factor=arms.NOISE[turn], phases=phases)
    found = judged((tmp_path / "a", tmp_path / "b"))
    lines = list(terminal.lines(found))
    assert max(map(len, lines)) <= 80
    assert any(re.search(r" >\+999 % +-100 to >\+999 ", line) for line in lines)
    assert "| >+999 % | -100 to >+999 |" in documents.markdown(found)
    picture = plots.forest(found)
    assert picture is not None and "+3,062 (-100 to >+99,999)" in [row.text for row in picture.rows]
    assert 7.0 * max(len(row.text) for row in picture.rows) <= plots.ROOM - 10


@pytest.mark.parametrize(
    ("percent", "text"),
    [(-38.26, "-38.26"), (99.994, "+99.99"), (99.996, "+100"), (999.4, "+999"), (999.6, ">+999"), (-5e28, "<-999")],
)
def test_a_percentage_has_six_characters(percent: float, text: str) -> None:
    assert words.within(percent) == text


def test_a_phase_s_name_has_room_beside_its_bar(tmp_path: Path) -> None:
    """Of "evaluation data starved" the first letter was cut off, of a benchmark's own longer ones the first words."""
    phases = {"evaluation_data_starved": 1.0, **PHASES, "gradient_synchronization_between_the_nodes": 0.0498}
    found = judged(arms.in_turns(tmp_path, slower=1.02, a={"phases": phases}, b={"phases": phases}))
    forest, waterfall = plots.forest(found), plots.waterfall(found)
    assert forest is not None and waterfall is not None
    names = [row.name for row in forest.rows] + [bar.name for bar in waterfall.bars]
    assert "evaluation data starved" in names and any(name.startswith("gradient sync") for name in names)
    assert 7.0 * max(map(len, names)) <= plots.LABELS - 14
    assert all(bar.x + bar.width + 6 + 6.8 * len(bar.text) <= plots.WIDTH for bar in waterfall.bars)


def test_what_takes_some_time_is_not_100_per_cent_faster(tmp_path: Path) -> None:
    """Of 6 s an epoch against 2 ms the sentence was "100 % faster (100 to 100"."""
    found = judged(arms.in_turns(tmp_path, slower=0.0004))
    assert re.match(r"B is 99\.9\d* % faster \(99\.9\d* to 99\.9\d*, n", words.sentence(found))


def test_a_difference_in_seconds_is_no_power_of_ten() -> None:
    assert [words.change(each) for each in (1396.64, -0.0121, 0.00151, 0.0)] == ["+1,400", "-0.0121", "+0.00151", "+0"]


def test_the_p_that_is_shown_is_the_one_that_decided(tmp_path: Path) -> None:
    """Three blocks an arm can be dealt in 20 ways: the permutation's least p is 0.05, and nothing rests on it."""
    few = judged(arms.in_turns(tmp_path / "3", 3, slower=1.02))
    tested = few.rows[0].judged.no_change
    assert few.word == "SLOWER" and tested is not None and tested.by == "t" and tested.p < 0.01
    (content, *_) = documents.as_json(few)["metrics"]
    assert (
        content["no_change"] == {"p_one_sided": tested.p, "by": "t", "level": 0.01} and "permutation_p" not in content
    )
    assert f"no change: one-sided p {tested.p:.2g} by t" in page.render(few)
    many = judged(arms.in_turns(tmp_path / "8", 8, slower=1.02)).rows[0].judged.no_change
    assert many is not None and many.p <= 0.01
