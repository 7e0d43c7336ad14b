"""What is left to speed: noise decides nothing, and what another run chose is taken as it is or refused."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.detection import chosen, precision
from harness.contract import Context, NotSuitable, Precision


def test_the_format_is_what_each_turn_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 takes half as long, but for a burst of other work in the middle, which makes everything eight times as slow."""
    now, steps = [0.0], []

    def step(form: Precision) -> None:
        steps.append(form)
        now[0] += {"fp32": 0.2, "bf16": 0.1}[form] * (8 if len(steps) in (4, 5, 6) else 1)

    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    found, seconds = precision.fastest(step, "cpu", lambda said: said)
    assert found == "bf16"
    assert seconds == pytest.approx({"fp32": 0.2, "bf16": 0.1}, rel=7.1)
    assert steps == ["fp32", "bf16"] * 4, "in turns, after one of each"


@pytest.mark.parametrize(
    ("slow", "tried"),
    [({0, 1}, 2), ({0}, 4), ({1}, 4)],
    ids=["by nature", "in its first step", "in its second step"],
)
def test_a_format_that_is_far_slower_is_not_tried_again(
    slow: set[int], tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of two steps one may be slow by chance."""
    now, steps = [0.0], {"fp32": 0, "bf16": 0}

    def step(form: Precision) -> None:
        now[0] += 1.2 if form == "bf16" and steps[form] in slow else 0.2
        steps[form] += 1

    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    found, seconds = precision.fastest(step, "cpu", lambda said: said)
    assert found == "fp32" and steps["bf16"] == tried
    assert seconds == pytest.approx({"fp32": 0.2, "bf16": 1.2 if tried == 2 else 0.2})


def test_all_ranks_try_what_the_first_of_them_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their steps wait for each other's gradients."""
    now, steps = [0.0], {"fp32": 0, "bf16": 0}

    def step(form: Precision) -> None:
        now[0] += {"fp32": 0.1, "bf16": 0.9}[form]
        steps[form] += 1

    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    said_by_rank_0 = iter([["bf16"], "bf16"])
    found, _ = precision.fastest(step, "cpu", lambda _: next(said_by_rank_0), ranks=2)
    assert (found, steps) == ("bf16", {"fp32": 4, "bf16": 4})


def test_as_another_run_chose() -> None:
    assert chosen.of(Context(device="cpu")) == chosen.Chosen()
    known = chosen.of(Context(device="cpu", threads=2, chosen={"precision": "bf16", "threads": 2}))
    assert (known.precision, known.threads) == ("bf16", 2)
    assert precision.available("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"precison": "bf16"}, "--chosen: precison: Extra inputs are not permitted; it is what another run's log has"),
        ({"precision": "int4"}, "--chosen: precision: Input should be 'fp32', 'bf16' or 'fp16'"),
        ({"threads": 0}, "--chosen: threads: Input should be greater than 0"),
        (
            {"threads": 3},
            "^3 threads .* by the first trial of this series .* may use 2 here now .*: give it as many as then, or begin",
        ),
    ],
)
def test_what_no_run_can_have_chosen(said: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        chosen.of(Context(device="cpu", threads=2, chosen=said))


def test_a_format_of_another_machine() -> None:
    with pytest.raises(
        NotSuitable,
        match=r"precision fp16 was chosen .* by the first trial of this series .* and on cpu auto chooses among fp32, bf16",
    ):
        precision.available("fp16", "cpu")
