"""Hardware that makes a comparison suspect, and what it did at work in every output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.comparison.reporting import terminal
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, judged


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"clock": 1700.0}, "SM clocks differ: 1980 and 1700 MHz"),
        ({"held": 3.0}, "held down by temperature for 3.0 s"),
        ({"ecc": 1}, "1 uncorrected memory errors"),
        ({"reasons": 0x40}, "throttled: hardware thermal slowdown"),
        ({"slowed_by_power_brake_s": 0.2}, "throttled: power brake of the supply"),
        ({"width": 8}, "PCIe went down to x8 of x16"),
        ({"xids": [31, 79]}, "XID 79"),
    ],
)
def test_telemetry_makes_it_suspect(tmp_path: Path, bad: dict[str, Any], text: str) -> None:
    a, b = arms.in_turns(tmp_path)
    for log in a.glob("*.txt"):
        arms.telemetry(log)
    for log in b.glob("*.txt"):
        arms.telemetry(log, **bad)
    found = judged((a, b))
    assert (found.word, found.exit_code) == ("SUSPECT", 7)
    assert any(text in each.text for each in found.symptoms)


def test_a_run_that_was_stopped_for_a_while_makes_it_suspect(tmp_path: Path) -> None:
    def stopped(events: list[dict[str, Any]]) -> None:
        (end,) = [each for each in events if each["key"] == "run_stop"]
        end["metadata"]["paused_s"] = 40.02

    folders = arms.in_turns(tmp_path)
    arms.write(folders[1], 4, turn=9, change=stopped)
    found = judged(folders)
    (symptom,) = found.symptoms
    assert found.word == "SUSPECT"
    assert (symptom.where, symptom.text) == (
        "b/result_4.txt",
        "its time holds a pause of 40.0 s: it was stopped or frozen",
    )


def test_a_narrow_link_makes_it_suspect(tmp_path: Path) -> None:
    narrow = {"gpu": {"pcie_width": 8}}
    found = judged(arms.in_turns(tmp_path, a=narrow, b=narrow))
    assert found.word == "SUSPECT"


def at_work(log: Path, generation: int, memory_mhz: int, clock: float = 1980.0) -> None:
    arms.telemetry(log, clock=clock)
    path = log.with_name(log.name.replace("result_", "telemetry_")).with_suffix(".jsonl")
    more = f'"pcie_width": 16, "pcie_generation": {generation}, "clock_memory_mhz": {memory_mhz}'
    path.write_text(path.read_text().replace('"pcie_width": 16', more))


def test_a_slow_link_and_slow_memory_are_suspect(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.009, b={"software": NEW})
    for folder, generation, memory in ((a, 5, 2619), (b, 1, 810)):
        for log in folder.glob("*.txt"):
            at_work(log, generation, memory)
    found = judged((a, b))
    assert found.word == "SUSPECT"
    said = " ".join(each.text for each in found.symptoms)
    assert "memory clocks differ: 2619 and 810 MHz" in said and "PCIe generation 5 and 1 at work" in said


def test_hosts_of_unlike_clocks_are_no_symptom(tmp_path: Path) -> None:
    """More runs of A on the first host and of B on the second, as while a plan is under way."""
    folders = arms.on_two_hosts(tmp_path, ("ABAABAA", "BABBABB"))
    found = judged(folders, allowed=("commit",))
    assert found.watched is not None
    assert (found.word, found.symptoms) == ("EQUAL", ())
    assert [each.clock_sm_mhz for each in found.watched] == [(1980 + 1755) / 2] * 2
    a, b = (each.seconds_per_epoch for each in found.minutes or ())
    assert a == pytest.approx(b, rel=0.002), "B's was larger by 4 %: its runs are those of the slower host"
    assert not any("clocks" in note for note in found.notes)


def test_clocks_that_differ_on_one_host_of_two(tmp_path: Path) -> None:
    folders = arms.on_two_hosts(tmp_path, ("ABBAAB", "BAABBA"))
    for log in folders[1].glob("*.txt"):
        if "GPU-1" in log.read_text():
            arms.telemetry(log, clock=1700.0)
    found = judged(folders, allowed=("commit",))
    (symptom,) = found.symptoms
    assert found.word == "SUSPECT" and "1755 and 1700 MHz" in symptom.text and symptom.where == "A and B on GPU-1"


def test_every_output_has_what_the_hardware_did(tmp_path: Path) -> None:
    from harness.comparison.reporting import documents, page

    a, b = arms.in_turns(tmp_path, slower=1.0092, b={"software": NEW})
    for folder, clock in ((a, 1980.0), (b, 1961.0)):
        for log in folder.glob("*.txt"):
            at_work(log, 5, 2619, clock)
    found = judged((a, b))
    line = "hardware: B SM 1,961 MHz, memory 2,619 MHz, 600 W, 61 C, PCIe gen 5, PCIe x16, held 3.0 s a run by power"
    assert line in " ".join(" ".join(terminal.lines(found)).split()) and "SM 1,961 MHz" in documents.markdown(found)
    assert f"<li>{line.removeprefix('hardware: ')}</li>" in " ".join(page.render(found).split())
    assert documents.as_json(found)["hardware"]["B"]["pcie_generation"] == 5
    assert found.word == "SLOWER" and any("SM clocks differ by -0.96 %" in note for note in found.notes)
    for telemetry in b.glob("telemetry_*"):
        telemetry.unlink()
    alone = judged((a, b))
    assert any("telemetry of 5 of 5 of A's and 0 of 5 of B's" in note for note in alone.notes)
    assert "hardware: B not watched" in " ".join(" ".join(terminal.lines(alone)).split())


def test_energy_is_shown(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    for folder, power in ((a, 600.0), (b, 660.0)):
        for log in folder.glob("*.txt"):
            arms.telemetry(log, power=power)
    found = judged((a, b))
    (row,) = [row for row in found.rows if row.metric.name == "joules_per_image"]
    assert row.means[0] == pytest.approx(600 * 42 / (6 * 117266), rel=0.01)
    assert row.judged.percent == pytest.approx(10, abs=0.5)
    assert found.word == "EQUAL", "shown, not gated"


def test_a_run_that_does_not_enter_the_ratio_makes_it_no_suspect(tmp_path: Path) -> None:
    """Of a host with one arm alone: its GPU was held down by temperature, and the comparison on the other was SUSPECT."""
    folders = arms.in_turns(tmp_path, b={"software": arms.NEW})
    assert judged(folders).word == "EQUAL"
    arms.telemetry(arms.write(folders[0], 90, turn=40, gpu={"uuid": "GPU-9"}), held=30.0)
    found = judged(folders)
    assert (found.word, found.symptoms) == ("EQUAL", ())
    assert any("a/result_90.txt, which does not enter the ratio: clocks held down" in note for note in found.notes)
