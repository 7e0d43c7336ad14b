"""What a card drew while a section was measured, from the file that telemetry's own sampler writes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution import telemetry
from harness.system.accelerator import Sensors, Unavailable
from measuring import measure
from measuring.measure import Figure
from measuring.ssd import data, fused, power, run, sections, turns


def sensors(clocks: Iterator[int], held: Iterator[float]) -> Sensors:
    def unavailable() -> float:
        raise Unavailable("not offered")

    state = {"power_limit_w": lambda: 700.0, "clock_sm_max_mhz": lambda: 1980}
    counted = {"held_by_power_s": lambda: next(held), "held_by_temperature_s": unavailable}
    return Sensors(state, counted, {"power_w": lambda: 690.5, "clock_sm_mhz": lambda: next(clocks)})


def test_power_clock_and_what_held_it_down_are_figures(tmp_path: Path) -> None:
    path = tmp_path / "telemetry_step.jsonl"
    turns = iter([False, False, False, True])
    telemetry.sample([sensors(iter([345, 1700, 1500, 1600]), iter([2.0, 5.5]))], path, 0.0, lambda _: next(turns))
    found = {each.what: each for each in power.drawn("step", path, [(0.0, math.inf)])}
    assert found["power, while step was measured"].samples == [690.5, 690.5, 690.5]
    assert found["power, while step was measured"].note == "limit 700"
    clock = found["clock of the multiprocessors, while step was measured"]
    assert (clock.samples, clock.unit, clock.note) == ([1700, 1500, 1600], "MHz", "limit 1980")
    assert found["clock held down by power, from the beginning of step to its end"].samples == [3.5]
    assert len(found) == 3, "what is not offered is left out"


def test_a_section_that_breaks_off_keeps_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    seen: list[tuple[str, Path]] = []

    def drawn(section: str, path: Path, _: object) -> list[Figure]:
        seen.append((section, path))
        return [Figure(section, "W", [1.0])]

    monkeypatch.setattr(power, "drawn", drawn)
    with pytest.raises(KeyboardInterrupt), power.watched("step", "cpu", tmp_path, figures):
        raise KeyboardInterrupt
    assert [each.what for each in figures] == ["step"]
    assert seen == [("step", tmp_path / "step.jsonl")]


def test_on_a_cpu_there_is_nothing_to_tell(tmp_path: Path) -> None:
    figures: list[Figure] = []
    with power.watched("step", "cpu", tmp_path, figures):
        pass
    assert figures == [] and list(tmp_path.iterdir()) == []


# --- the time that was measured alone ----------------------------------------------------------------------------------

INIT_W, TRAINING_W = 120.0, 690.0


def telemetry_of(path: Path, power_w: dict[int, float]) -> Path:
    """As the sampler leaves it: by the second what the card drew, and its clock, which is high where it rests."""
    at = [("begin", 0, {"power_limit_w": 700, "clock_sm_max_mhz": 1980})]
    at += [("sample", s, {"power_w": w, "clock_sm_mhz": 1980 if w < 500 else 1750}) for s, w in power_w.items()]
    at += [("end", max(power_w), {"during_run": {"held_by_power_s": 5.5}})]
    lines = [{"event": event, "time_ms": 1000 * s, "gpus": [gpu]} for event, s, gpu in at]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_the_card_draws_in_init_is_not_what_it_draws_while_it_trains(tmp_path: Path) -> None:
    """25 s at 120 W and 6 s at 690 W were 120 W "while end-to-end was measured"."""
    path = telemetry_of(tmp_path / "t.jsonl", {s: INIT_W if s < 25 else TRAINING_W for s in range(31)})
    found = {each.what: each for each in power.drawn("end-to-end", path, [(25.0, 28.0), (29.5, 31.0)])}
    assert found["power, while end-to-end was measured"].samples == [TRAINING_W] * 5
    assert found["clock of the multiprocessors, while end-to-end was measured"].samples == [1750] * 5
    assert found["clock held down by power, from the beginning of end-to-end to its end"].samples == [5.5]


def test_a_section_in_which_nothing_was_timed_has_no_power(tmp_path: Path) -> None:
    path = telemetry_of(tmp_path / "t.jsonl", dict.fromkeys(range(5), INIT_W))
    assert [each.unit for each in power.drawn("data", path, [])] == ["s"]


def test_each_section_begins_without_the_times_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[measure.Span]] = []
    monkeypatch.setattr(power, "drawn", lambda _, __, spans: seen.append(list(spans)) or [])
    for section, span in (("step", (1.0, 2.0)), ("turns", (3.0, 4.0))):
        with power.watched(section, "cpu", tmp_path, []):
            measure.TIMED.append(span)
    assert seen == [[(1.0, 2.0)], [(3.0, 4.0)]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[measure.Span]:
    """Where an accelerator that is not there is timed."""
    for module in (measure, sections):
        monkeypatch.setattr(module, "synchronise", lambda _: None)
    monkeypatch.setattr(measure, "_until_quiet", lambda: None)
    measure.TIMED.clear()
    return measure.TIMED


def test_turns_that_count_are_timed_and_nothing_else(timed: list[measure.Span]) -> None:
    """The first of each compiles; what takes no accelerator says nothing of one."""
    done: list[float] = []

    def on(device: str) -> measure.Measure:
        return lambda: measure.wall(lambda: done.append(time.time()), device)

    measure.interleaved({"ours": on("cuda:0"), "on the processor": on("cpu")}, rounds=3)
    assert len(done) == 2 * 4 and len(timed) == 3
    assert all(any(start <= each <= stop for each in done[2:]) for start, stop in timed)

    def broken() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.wall(broken, "cuda:0")
    with pytest.raises(KeyboardInterrupt):
        measure.interleaved({"ours": on("cuda:0"), "broken": broken}, 1)  # type: ignore[dict-item]
    assert len(timed) == 3, "a sample that was cut off is none"


def test_the_turn_and_the_warm_up_that_do_not_count_are_not_timed(
    timed: list[measure.Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn(*_: object) -> float:
        return measure.wall(lambda: None, "cuda:0")

    monkeypatch.setattr(turns, "turn", turn)
    monkeypatch.setattr(turns, "works", lambda *_: {turns.AS_CONFIGURED: lambda: None})
    list(turns.end_to_end(None, {}, {}, rounds=2, steps=2, tell=str, checked=str))  # type: ignore[arg-type]
    assert len(timed) == 2
    ours: Any = SimpleNamespace(
        context=SimpleNamespace(device="cuda:0"),
        config=SimpleNamespace(compute=SimpleNamespace(fused=[])),
        folder=SimpleNamespace(path=None),
        warm_up=lambda: None,
    )
    for name in ("changed", "session"):
        monkeypatch.setattr(fused.setup, name, lambda *_, **__: ours)
    monkeypatch.setattr(fused.BENCHMARK, "check", lambda *_: None)
    next(iter(fused.with_and_without("weights", ours, {}, 1, 1, checked=str)))  # type: ignore[arg-type]
    assert len(timed) == 2, "warming up compiles"


def test_of_an_evaluation_opening_its_data_is_not_timed(timed: list[measure.Span]) -> None:
    opened: list[float] = []
    session: Any = SimpleNamespace(
        context=SimpleNamespace(device="cuda:0"),
        load_data=lambda: opened.append(time.time()),
        evaluate=lambda _: opened.append(len(timed)),
        evaluation=SimpleNamespace(batches=SimpleNamespace(samples=3)),
        phase_seconds=dict,
    )
    sections.evaluation(session)
    ((start, _),) = timed
    assert start >= opened[0] and opened[1:] == [0]


def test_of_a_run_the_time_is_that_of_its_images_a_second(tmp_path: Path) -> None:
    """From the second interval on, as they are; init and opening the data are long before."""
    stamps = [("init_start", 0), ("init_stop", 20), ("run_start", 20), ("epoch_start", 23)]

    def log(*ends: int) -> Path:
        told = [*stamps, *(("tracked_stats", end) for end in ends), ("run_stop", 40)]
        lines = [{"time_ms": 1000 * s, "event_type": "", "key": key, "value": {}, "metadata": {}} for key, s in told]
        path = tmp_path / "result_0.txt"
        path.write_text("".join(f":::MLLOG {json.dumps(line)}\n" for line in lines))
        return path

    assert run.spans(log(25, 27, 29)) == [(25.0, 29.0)]
    assert run.spans(log(25)) == [(23.0, 25.0)], "of one interval alone"
    assert run.spans(log()) == []


def test_what_a_card_draws_while_it_decodes_is_no_step_s(timed: list[measure.Span]) -> None:
    """Of the section `step` making batches alone is the longest part by far."""
    batches: Any = iter(lambda: None, 1)
    data.made_s(batches, 3, "xpu:0")
    assert timed == []
