"""As many threads as are fast: ranks try the same ones, and noise decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.detection import threads


def chosen(monkeypatch: pytest.MonkeyPatch, seconds_by_threads: dict[int, float], usable: int) -> tuple[int, list[int]]:
    """What is taken where a step takes so long, and all the steps that were made."""
    now, steps = [0.0], []

    def step(count: int) -> None:
        steps.append(count)
        now[0] += seconds_by_threads[count]

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    found, seconds = threads.fastest(step, usable, lambda value: value)
    assert seconds == pytest.approx({count: seconds_by_threads[count] for count in seconds})
    return found, steps


@pytest.mark.parametrize(
    ("seconds", "usable", "expected", "tried"),
    [
        ({2: 0.08, 1: 0.15}, 2, 2, [2, 1]),
        ({2: 1.74, 1: 0.43}, 2, 1, [2, 1]),  # with a busy neighbour on one of the two
        ({2: 0.100, 1: 0.097}, 2, 2, [2, 1]),  # what noise could be
        ({64: 1.0, 32: 0.6, 16: 0.5, 8: 0.9}, 64, 16, [64, 32, 16, 8]),  # 4, 2 and 1 are hopeless
        ({6: 0.5, 3: 0.9}, 6, 6, [6, 3]),
        ({1: 0.5}, 1, 1, [1]),
    ],
)
def test_as_many_as_are_fast(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], usable: int, expected: int, tried: list[int]
) -> None:
    found, steps = chosen(monkeypatch, seconds, usable)
    assert (found, list(dict.fromkeys(steps))) == (expected, tried)


def test_a_step_that_takes_long_is_not_made_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    _, steps = chosen(monkeypatch, {2: 40.0, 1: 60.0}, 2)
    assert steps == [2, 2, 1, 1]


@pytest.mark.parametrize(("busy_s", "expected"), [(0.0, 2), (2.0, 2), (8.0, 2), (100.0, 1)])
def test_a_burst_of_other_work_decides_nothing(monkeypatch: pytest.MonkeyPatch, busy_s: float, expected: int) -> None:
    """Two threads, which were tried in it, lost to one, which came later: 43 % of the speed of the whole series."""
    now = [0.0]

    def step(count: int) -> None:
        now[0] += {2: 3.06 if now[0] < busy_s else 0.34, 1: 0.58}[count]

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    assert threads.fastest(step, 2, lambda value: value)[0] == expected


def test_ranks_make_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose own clock says otherwise, and which may use more processors, follows rank 0 to the letter."""

    def run(speed: Callable[[int], float], usable: int, agreed: Callable[[Any], Any]) -> tuple[int, list[int]]:
        now, steps = [0.0], []

        def step(count: int) -> None:
            steps.append(count)
            now[0] += speed(count)

        monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
        return threads.fastest(step, usable, agreed)[0], steps

    said: list[Any] = []

    def rank_0(value: Any) -> Any:
        said.append(value)
        return value

    first = run(lambda count: {4: 0.5, 2: 0.3, 1: 0.35}[count], 4, rank_0)
    heard = iter(said)
    other = run(lambda count: {4: 9.0, 2: 50.0, 1: 1.0}[count], 8, lambda _: next(heard))
    assert first == other == (2, first[1])
