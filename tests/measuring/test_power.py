"""What a card drew while a section was measured, from the file that telemetry's own sampler writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execution import telemetry
from harness.system.accelerator import Sensors, Unavailable
from measuring.measure import Figure
from measuring.ssd import power


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
    found = {each.what: each for each in power.drawn("step", path)}
    assert found["power, while step was measured"].samples == [690.5, 690.5, 690.5]
    assert found["power, while step was measured"].note == "limit 700"
    clock = found["clock of the multiprocessors, while step was measured"]
    assert (clock.samples, clock.unit, clock.note) == ([1700, 1500, 1600], "MHz", "limit 1980")
    assert found["clock held down by power, while step was measured"].samples == [3.5]
    assert len(found) == 3, "what is not offered is left out"


def test_a_section_that_breaks_off_keeps_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    seen: list[tuple[str, Path]] = []

    def drawn(section: str, path: Path) -> list[Figure]:
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
