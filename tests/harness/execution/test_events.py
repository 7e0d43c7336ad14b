"""The log's writer: nothing wrong passes quietly, nothing is written over, and a log that was left is closed."""

from __future__ import annotations

import errno
import json
import math
import resource
from pathlib import Path

import numpy as np
import pytest

from harness.execution import events
from harness.execution.events import EventLog, LogLost


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, [1.0, -math.inf], {"loss": math.nan}, np.float32(0.5), Path("x"), {1, 2}, b"x"],
    ids=repr,
)
@pytest.mark.parametrize("with_file", [True, False])
def test_a_value_that_json_does_not_carry_is_an_error(tmp_path: Path, value: object, with_file: bool) -> None:
    log = EventLog.create(tmp_path) if with_file else EventLog(None)
    with pytest.raises(TypeError, match=r"log key loss = .* cannot be logged"):
        log.point("loss", value)
    with pytest.raises(TypeError, match=r"log key loss's step = .* cannot be logged"):
        log.point("loss", 1.0, step=value)
    log.close()
    assert not with_file or (tmp_path / "result_0.txt").read_text() == ""


def test_lines(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path, number=3)
    log.start("epoch_start", epoch_num=1)
    log.plain("a line\nand another")
    log.point("seed", 7)
    log.stop("epoch_stop", epoch_num=1)
    log.close()
    log.close()
    lines = (tmp_path / "result_3.txt").read_text().splitlines()
    assert lines[1:3] == ["a line", "and another"]
    first, _, _, seed, last = (
        json.loads(line.partition(" ")[2]) if line.startswith(":::MLLOG ") else None for line in lines
    )
    assert first["event_type"] == "INTERVAL_START" and last["event_type"] == "INTERVAL_END"
    assert (seed["key"], seed["value"], seed["event_type"]) == ("seed", 7, "POINT_IN_TIME")
    assert seed["metadata"]["file"] == "tests/harness/execution/test_events.py", "the caller's place, from the checkout"
    assert first["metadata"]["epoch_num"] == 1


def test_numbers(tmp_path: Path) -> None:
    for name in ("result_2.txt", "result_10.txt", "result_10.json", "result_x.txt", "other.txt"):
        (tmp_path / name).touch()
    assert events.next_number(tmp_path) == 11
    with EventLog.create(tmp_path).path.open() as file:  # type: ignore[union-attr]
        assert file.name.endswith("result_11.txt")


def test_two_processes_never_share_a_number(tmp_path: Path) -> None:
    logs = [EventLog.create(tmp_path) for _ in range(5)]
    assert [log.path.name for log in logs if log.path] == [f"result_{n}.txt" for n in range(5)]
    for log in logs:
        log.close()


@pytest.mark.parametrize("torn", ["", ':::MLLOG {"namespace": "", "time_'])
def test_a_log_that_was_left_is_closed_once(tmp_path: Path, torn: str) -> None:
    log = EventLog.create(tmp_path)
    log.start("run_start")
    log.close()
    path = tmp_path / "result_0.txt"
    path.write_text(path.read_text() + torn)
    assert events.close_abandoned(path, "killed") is True
    assert events.close_abandoned(path, "again") is False
    last = json.loads(path.read_text().splitlines()[-1].removeprefix(":::MLLOG "))
    assert (last["key"], last["metadata"]["status"], last["metadata"]["reason"]) == ("run_stop", "aborted", "killed")


def test_a_plain_line_is_never_an_event_whatever_stands_in_it(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path)
    stop = ':::MLLOG {"key": "run_stop", "metadata": {"status": "success"}}'
    log.plain(f"no such file: a\n{stop}\rb{stop.lower()}\u2028{stop}\x1b[2J\x00")
    log.close()
    content = (tmp_path / "result_0.txt").read_bytes()
    assert content.count(b"run_stop") == 3
    assert content.lower().count(b":::ml") == content.lower().count(b"\\:::ml") == 3
    assert b"\x1b" not in content and b"\x00" not in content


def test_a_line_that_does_not_fit_is_no_line(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path)
    log.point("seed", 7)
    path = tmp_path / "result_0.txt"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, before[1]))  # room for half of the next line
    try:
        with pytest.raises(LogLost, match="a line could not be written") as lost:
            log.stop("run_stop", status="success")
        assert lost.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text().count("\n") == 1 and path.read_text().endswith("\n"), "the half of a line is taken back"
    log.stop("run_stop", status="aborted")
    log.settle()
    assert json.loads(path.read_text().splitlines()[1].partition(" ")[2])["metadata"]["status"] == "aborted"


def test_settle_misses_every_line_that_is_gone(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path)
    for number in range(5):
        log.point("seed", number)
    path = tmp_path / "result_0.txt"
    whole = path.read_text()
    path.write_text(whole + "of another rank\n")
    log.settle()
    lines = whole.splitlines(keepends=True)
    for gone in range(5):
        path.write_text("".join(lines[:gone] + lines[gone + 1 :]))
        with pytest.raises(LogLost, match=rf"line {gone + 1} of those written is no longer there"):
            log.settle()


def test_a_refused_log_gives_its_number_back(tmp_path: Path) -> None:
    for expected in ("refused_0.txt", "refused_1.txt"):
        log = EventLog.create(tmp_path)
        assert log.path is not None and log.path.name == "result_0.txt"
        (tmp_path / "telemetry_0.jsonl").touch()
        log.plain(expected)
        assert events.refused(log.path).read_text() == f"{expected}\n"
        log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["refused_0.txt", "refused_1.txt"]


@pytest.mark.parametrize("left", ["telemetry_0.jsonl", "result_0.png"])
def test_what_an_earlier_run_has_left_is_not_the_next_one_s(tmp_path: Path, left: str) -> None:
    """Its log alone was moved away: its GPUs' faults and its picture were shown as those of the run that took the number."""
    (tmp_path / left).write_text("of the run before")
    (tmp_path / "refused_7.txt").touch()
    with pytest.raises(ValueError, match=f"{left}: is of an earlier run whose log is gone"):
        EventLog.create(tmp_path, number=0)
    assert not (tmp_path / "result_0.txt").exists()
    log = EventLog.create(tmp_path)
    assert log.path is not None and log.path.name == "result_1.txt"
    log.close()
    assert (tmp_path / left).read_text() == "of the run before"
    with pytest.raises(ValueError, match=r"result_1\.txt: exists already"):
        EventLog.create(tmp_path, number=1)


def test_a_log_of_another_node_that_came_first_is_no_earlier_run_s(tmp_path: Path) -> None:
    (tmp_path / "result_0.node1.log").touch()
    EventLog.create(tmp_path, number=0).close()
    assert (tmp_path / "result_0.txt").exists()
