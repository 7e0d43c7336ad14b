"""Series of fake trials as local processes: what each end becomes in the ledger, in the files, in the exit code."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.contract import NotSuitable
from harness.execution import provenance
from harness.exit_codes import BROKEN, EPOCHS_SPENT, USAGE
from harness.launch import admission, caches, killed, ledger, leftovers, process, trial, watchdog
from harness.launch.watchdog import Outcome
from harness.names import NO_COMMIT
from harness.results import logfile, sources
from harness.results.series import find_series
from harness.results.sources import Code
from harness.system import neighbours
from tests.harness.execution.runs import until
from tests.harness.launch.series import FAKE, SHA256, Fakes
from tests.patience import PATIENCE_S, SILENCE_OF_A_FAKE_S

pytestmark = pytest.mark.early


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path / "results")


look_once = functools.cache(neighbours._on_accelerators)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake trial takes a tenth of a second, less than the wait between two looks; the machine stays what it is."""
    monkeypatch.setattr(watchdog, "POLL_S", 0.05)
    monkeypatch.setattr(neighbours, "_on_accelerators", look_once)


def alive(folder: Path) -> list[psutil.Process]:
    """The fake runs that write to this folder."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        words = each.info["cmdline"] or []
        if str(FAKE) in words and str(folder) in words:
            found.append(each)
    return found


def test_every_trial_leaves_a_log_a_record_and_two_lines(fakes: Fakes) -> None:
    fakes.tell()
    assert fakes.run(2, seed=7) == 0
    assert fakes.statuses == [(0, 1, "success"), (1, 1, "success")]
    entries = fakes.account.entries
    assert [entry["event"] for entry in entries] == [
        *("series", "trial_start", "trial_end", "trial_start", "trial_end"),
    ]
    assert [entry["seed"] for entry in entries if entry["event"] == "trial_start"] == [7, 8]
    for number in range(2):
        log = fakes.folder / f"result_{number}.txt"
        end = fakes.account.finished[number].end
        assert end is not None
        assert end["log_sha256"] == ledger.sha256(log)
        record = json.loads(log.with_suffix(".json").read_text())
        assert record["status"] == "success"
        assert record["log_sha256"] == end["log_sha256"]
        assert end["record_sha256"] == ledger.sha256(log.with_suffix(".json"))
        assert record["cache_clear"] is False
        assert record["hardware"]["user"] == f"{os.getuid()}:{os.getgid()}"
    assert any(line.startswith("trial 1 | run 1 will succeed") for line in fakes.said)
    assert not list(fakes.folder.glob(".*"))


@pytest.mark.parametrize(
    ("do", "status", "code", "reason"),
    [
        ("miss", "target_not_met", 1, "epochs spent"),
        ("nan", "failed", 5, "exit code 5"),
        ("die", "failed", 5, rf"^exit code 137 \(signal 9\); {re.escape(killed.MOST_OFTEN)}$"),
        ("crash early", "failed", 5, "left no log.*RuntimeError: no log yet"),
        ("forget", "failed", 5, "its log ends as unfinished"),
        ("use another", "failed", 5, "another configuration"),
        ("refuse", "refused", 2, "the data set is another one"),
        ("fill the disk", "failed", 5, "exit code 6.*no room on the disk"),
    ],
)
def test_a_trial_is_what_its_log_and_its_exit_code_both_say(
    fakes: Fakes, do: str, status: str, code: int, reason: str
) -> None:
    fakes.tell(_0=do)
    assert fakes.run(2) == code
    first = fakes.account.attempts[0]
    assert first.status == status
    assert first.end is not None
    assert re.search(reason, first.end["reason"]), first.end["reason"]
    # a broken trial does not take the next one with it; a refused one stands for all
    assert len(fakes.account.attempts) == (1 if status == "refused" else 2)


def test_a_trial_that_the_kernel_killed_for_want_of_memory_is_told_so(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason was the last line that it had printed."""
    counted = iter((3, 4))
    monkeypatch.setattr(killed.cgroup, "memory_kills", lambda: next(counted))
    fakes.tell(_0="die")
    fakes.run(1)
    end = fakes.account.attempts[0].end
    assert end is not None and end["reason"] == f"exit code 137 (signal 9); {killed.FOR_MEMORY}"


def test_logs_by_the_names_of_submitters_scripts(fakes: Fakes) -> None:
    """A second name is no second result, and takes no other file's place."""
    fakes.tell(_1="nan")
    out = fakes.folder.parent
    (out / "stamp_3.log").write_text("somebody's")
    fakes.run(3, also_as=out / "stamp")
    assert (out / "stamp_1.log").read_bytes() == (fakes.folder / "result_0.txt").read_bytes()
    assert not (out / "stamp_2.log").exists(), "it broke, and its number is another attempt's"
    assert (out / "stamp_3.log").read_text() == "somebody's"
    assert any("stamp_3.log: is there already" in line for line in fakes.said)
    (series,) = find_series([out])
    assert [Path(each.path).name for each in series.records] == [f"result_{number}.txt" for number in range(3)]


def test_resume_keeps_what_is_finished_and_runs_the_broken_one_again(fakes: Fakes) -> None:
    fakes.tell(_1="die", _2="miss")
    assert fakes.run(3) == 5
    kept = {name: (fakes.folder / name).read_bytes() for name in ("result_0.txt", "result_1.txt", "result_2.txt")}
    with pytest.raises(ledger.LedgerError, match=r"holds a series already \(2 trials finished\); add --resume"):
        fakes.run(3)
    fakes.tell()
    fakes.said.clear()
    assert fakes.run(3, resume=True) == 1  # trial 2 missed the target, and that stays
    lines = [re.sub(r"\d+\.\d{3}", "0.000", line) for line in fakes.said[-4:-1]]
    assert [line.split() for line in lines] == [
        ["trial", "0", "success", "0.000", "min", "result_0.txt"],
        ["trial", "1", "success", "0.000", "min", "result_1.txt", "(attempt", "2)"],
        ["trial", "2", "target_not_met", "0.000", "min", "result_2.txt"],
    ]
    assert fakes.statuses == [(0, 1, "success"), (1, 1, "failed"), (2, 1, "target_not_met"), (1, 2, "success")]
    assert (fakes.folder / "result_1.broken-1.txt").read_bytes() == kept["result_1.txt"]
    assert (fakes.folder / "result_1.broken-1.json").is_file()
    assert (fakes.folder / "result_0.txt").read_bytes() == kept["result_0.txt"]
    assert (fakes.folder / "result_2.txt").read_bytes() == kept["result_2.txt"]
    marked = [entry for entry in fakes.account.entries if entry["event"] == "trial_broken"]
    assert [(entry["trial"], entry["attempt"], entry["files"][0]) for entry in marked] == [
        (1, 1, "result_1.broken-1.txt")
    ]
    assert marked[0]["log_sha256"] == ledger.sha256(fakes.folder / "result_1.broken-1.txt")
    # once more: nothing to do, nothing marked twice
    assert fakes.run(3, resume=True) == 1
    assert len(fakes.statuses) == 4
    assert sum(entry["event"] == "trial_broken" for entry in fakes.account.entries) == 1


def test_trials_beyond_those_asked_for_are_none_of_the_series_end(fakes: Fakes) -> None:
    """They were counted: two results of a longer series before made one of two trials whole whose first had none."""
    fakes.tell(_0="nan", _2="miss")
    assert fakes.run(3) == 5
    assert fakes.run(2, resume=True) == 5, "trial 0 broke again"
    assert "next: the same command with --resume" in fakes.said[-1]
    fakes.tell()
    assert fakes.run(2, resume=True) == 0, "trial 2 missed, and nobody asked for it"
    assert fakes.run(3, resume=True) == 1


def test_resume_refuses_another_configuration_and_a_log_it_does_not_know(fakes: Fakes) -> None:
    fakes.tell(_1="die")
    fakes.run(2)
    before = fakes.account.entries
    with pytest.raises(
        ledger.LedgerError, match=r"runs configuration fake \(abababababab\), not fake \(cdcdcdcdcdcd\)"
    ):
        fakes.run(2, resume=True, configuration_sha256="cd" * 32)
    (fakes.folder / "result_2.txt").write_text("from elsewhere")
    with pytest.raises(ledger.LedgerError, match=r"result_2\.txt: is there, but the ledger knows of no such trial"):
        fakes.run(3, resume=True)
    assert fakes.account.entries == before


def test_a_refused_series_can_be_started_again_without_resume(fakes: Fakes) -> None:
    fakes.tell(_0="refuse")
    assert fakes.run(1) == 2
    fakes.tell()
    assert fakes.run(1) == 0
    assert fakes.statuses == [(0, 1, "refused"), (0, 2, "success")]


def test_what_was_refused_binds_nobody(fakes: Fakes) -> None:
    fakes.tell(_0="refuse")
    assert fakes.run(1, configuration_sha256="cd" * 32) == 2
    fakes.tell()
    assert fakes.run(1) == 0


def test_a_result_that_was_changed_or_taken_away_is_noticed(fakes: Fakes) -> None:
    fakes.tell(_1="die")
    fakes.run(2)
    log = fakes.folder / "result_0.txt"
    text = log.read_text()
    log.write_text(text.replace("success", "Success"))
    with pytest.raises(ledger.LedgerError, match=r"result_0\.txt: is not what the ledger says"):
        fakes.run(2, resume=True)
    log.unlink()
    with pytest.raises(ledger.LedgerError, match=r"result_0\.txt: is not what the ledger says"):
        fakes.run(2, resume=True)
    log.write_text(text)
    fakes.tell()
    assert fakes.run(2, resume=True) == 0


def test_a_series_stays_where_it_began(fakes: Fakes) -> None:
    fakes.tell()
    fakes.run(1)
    series = admission.SeriesOrder(fakes.folder, "fake", SHA256, trials=2, resume=True)
    with pytest.raises(ledger.LedgerError, match="its trials ran in local, these would run in sha256:1"):
        admission.may_begin(series, "sha256:1", fakes.account)


def test_the_trials_of_a_series_do_the_same_work(fakes: Fakes) -> None:
    fakes.tell(_1="die")
    fakes.run(2, max_steps=200)
    assert [each["max_steps"] for each in fakes.account.series] == [200]
    with pytest.raises(ledger.LedgerError, match=r"ran with --max-steps 200, these would run without --max-steps; "):
        fakes.run(2, resume=True)
    with pytest.raises(ledger.LedgerError, match=r"ran with --max-steps 200, these would run with --max-steps 201; "):
        fakes.run(2, resume=True, max_steps=201)
    fakes.tell()
    assert fakes.run(2, resume=True, max_steps=200) == 0


def test_what_the_first_result_chose_by_its_speed_holds_for_the_series(fakes: Fakes) -> None:
    """A series in two number formats would be two things."""
    fakes.tell(_0="die", _2="die")
    fakes.run(3)
    assert _chosen(fakes, 1) == {"format": "of 1"}, "the first broke off"
    fakes.tell()
    assert fakes.run(4, resume=True) == 0
    assert [_chosen(fakes, number) for number in range(4)] == [{"format": "of 1"}] * 4


def _chosen(fakes: Fakes, number: int) -> Mapping[str, Any]:
    return logfile.read(fakes.folder / f"result_{number}.txt").chosen


def test_the_trials_of_a_series_have_as_many_ranks(fakes: Fakes) -> None:
    fakes.tell()
    assert fakes.run(1, ranks=2) == 0
    with pytest.raises(ledger.LedgerError, match=r"its trials ran on 2 ranks, these would run on 4; .* Use as many"):
        fakes.run(2, ranks=4, resume=True, configuration_sha256="cd" * 32)
    assert fakes.run(2, ranks=2, resume=True) == 0


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of this checkout whose sources differ."""
    monkeypatch.setattr(sources, "differ", lambda commits: len(commits) > 1)


@pytest.mark.usefixtures("differing")
def test_the_trials_of_a_series_are_of_one_code(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on at another commit, or with changes: the package alone said so, after the hours of five runs."""
    monkeypatch.setattr(provenance, "changed_files", lambda: ["harness/run.py", "..."])
    fakes.tell(_0=f"be of {'a' * 40}", _1=f"be of {'a' * 40}")
    ours = Code("a" * 40, changed=False)
    assert fakes.run(1, code=lambda: ours) == 0
    for other in (
        replace(ours, commit="b" * 40),
        replace(ours, changed=True),
        replace(ours, benchmark_sha256="c" * 64),
    ):
        with pytest.raises(
            ledger.LedgerError, match=r"its trials ran commit aaaaaaaaaaaa, these would run commit \w{12}"
        ):
            fakes.run(2, resume=True, code=lambda other=other: other)
    assert fakes.run(2, resume=True, code=lambda: ours) == 0
    assert fakes.run(2, resume=True, code=lambda: replace(ours, commit="b" * 40)) == 0, "which begins no trial"
    changing = iter(
        (ours, ours, replace(ours, changed=True))
    )  # as it is asked for: before the series, before each trial
    assert fakes.run(4, resume=True, code=lambda: next(changing)) == USAGE
    assert fakes.statuses == [(0, 1, "success"), (1, 1, "success"), (2, 1, "success")]
    said = "\n".join(fakes.said)
    assert "these would run commit aaaaaaaaaaaa with changes: harness/run.py, ...; a series has one code" in said
    assert "next: what the error says; then the same command with --resume" in said
    unknown = Code(NO_COMMIT, changed=True)  # git was slow, or is gone
    assert fakes.run(4, resume=True, code=lambda: unknown) == 0


def test_a_trial_whose_code_nobody_can_tell_is_a_result_all_the_same(fakes: Fakes) -> None:
    """Git did not answer a trial in time, or has not the commits here: what had met its target counted as failed."""
    fakes.tell(_0=f"be of {'a' * 40}", _1=f"be of {NO_COMMIT}", _2=f"be of {'b' * 40}")
    assert fakes.run(3) == 0


@pytest.mark.usefixtures("differing")
def test_a_trial_of_an_image_that_has_another_code_is_no_result(fakes: Fakes) -> None:
    """A tag was moved, or an image's file replaced, between two trials."""
    fakes.tell(_0=f"be of {'a' * 40}", _1=f"be of {'b' * 40}")
    assert fakes.run(2) == BROKEN
    assert [status for _, _, status in fakes.statuses] == ["success", "failed"]
    assert "it ran commit bbbbbbbbbbbb, the trials before it commit aaaaaaaaaaaa" in "\n".join(fakes.said)


def test_the_trials_of_a_series_have_each_seed_once(fakes: Fakes) -> None:
    """Of trials with one seed no score is official, which was said when all of them had run."""
    fakes.tell()
    assert fakes.run(2, seed=1) == 0
    with pytest.raises(ValueError, match="trial 2 would have seed 2, as trial 1 had"):
        fakes.run(3, seed=0, resume=True)
    assert fakes.run(3, seed=1, resume=True) == 0
    assert fakes.run(4, resume=True) == 0
    assert [each.start["seed"] for each in fakes.account.attempts] == [1, 2, 3, None]


def test_the_ledgers_of_before_max_steps_are_of_whole_runs(fakes: Fakes) -> None:
    fakes.tell(_1="die")
    fakes.run(2)
    book = fakes.folder / ledger.FILE
    older = re.sub(r', "previous_sha256": "[0-9a-f]*"', "", book.read_text())
    book.write_text(older.replace('"max_steps": null, ', ""))
    assert "max_steps" not in book.read_text()
    fakes.tell()
    assert fakes.run(2, resume=True) == 0


@pytest.mark.parametrize(("do", "code"), [("hang", 130), pytest.param("hang for ever", 137, marks=pytest.mark.long)])
def test_the_watchdog_leaves_stacks_in_the_log_and_stops_the_trial(
    fakes: Fakes, do: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STACKS_S", 0.5)
    if do == "hang for ever":
        monkeypatch.setattr(watchdog, "GRACE_S", 1.0)
    fakes.tell(_0=do)
    assert fakes.run(2, patience_s=SILENCE_OF_A_FAKE_S) == 5
    assert fakes.statuses == [(0, 1, "stalled"), (1, 1, "success")]
    end = fakes.account.attempts[0].end
    assert end is not None
    assert end["exit_code"] == code
    log = (fakes.folder / "result_0.txt").read_text()
    assert "most recent call first" in log
    assert " in work\n" in log
    assert ("run_stop" in log) == (code == 130)


def test_a_trial_that_ends_well_while_the_watchdog_looks_at_it_is_a_result(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its whole log, success, was called stalled, and it was run again: a second throw of the dice."""
    monkeypatch.setattr(watchdog, "STACKS_S", 0.5)
    fakes.tell(_0="end well when asked")
    assert fakes.run(1, patience_s=SILENCE_OF_A_FAKE_S) == 0
    assert fakes.statuses == [(0, 1, "success")]
    assert "most recent call first" in (fakes.folder / "result_0.txt").read_text()


def started(folder: Path, count: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.harness.launch.series", str(folder), str(count), *options]
    return subprocess.Popen(command, cwd=FAKE.parents[3], text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_trial_closes_its_log_and_the_series_goes_on_later(
    fakes: Fakes, number: signal.Signals
) -> None:
    fakes.tell(_1="hang")
    series = started(fakes.folder, 3)
    until(lambda: "run_start" in read(fakes.folder / "result_1.txt"), "trial 1")
    series.send_signal(number)
    said, _ = series.communicate(timeout=PATIENCE_S)
    assert series.returncode == 130
    assert "go on with --resume" in said
    assert fakes.statuses == [(0, 1, "success"), (1, 1, "interrupted")]
    assert "run_stop" in read(fakes.folder / "result_1.txt")
    assert not alive(fakes.folder)
    fakes.tell()
    assert fakes.run(3, resume=True) == 0
    assert sorted(fakes.account.finished) == [0, 1, 2]


@pytest.mark.parametrize(
    ("do", "trials", "code", "status"),
    [
        ("end well when asked", 2, 130, "success"),
        ("end well when asked", 1, 0, "success"),
        ("miss when asked", 1, 1, "target_not_met"),
    ],
)
def test_a_signal_ends_the_series_though_its_trial_ends_by_itself(
    fakes: Fakes, do: str, trials: int, code: int, status: str
) -> None:
    """The trial is a result, also one that nobody would choose; the next one is not begun. Every later signal is ignored, so
    that it would run to its end."""
    fakes.tell(_0=do, _1="hang")
    series = started(fakes.folder, trials)
    until(lambda: "run_start" in read(fakes.folder / "result_0.txt"), "trial 0")
    series.send_signal(signal.SIGTERM)
    series.communicate(timeout=PATIENCE_S)
    assert series.returncode == code
    assert fakes.statuses == [(0, 1, status)]


# Writes to the disk of a series of two: its line, trial 0's first line, record and last line, trial 1's likewise
@pytest.mark.parametrize(
    ("moment", "code", "statuses"),
    [
        (2, 130, [(0, 1, "interrupted")]),
        (3, 130, [(0, 1, "success")]),
        (4, 130, [(0, 1, "success")]),
        (6, 0, [(0, 1, "success"), (1, 1, "success")]),
    ],
)
def test_a_signal_while_a_trial_is_entered_loses_neither_the_line_nor_the_result(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, moment: int, code: int, statuses: list[tuple[int, int, str]]
) -> None:
    """The line is on the disk, and was taken for somebody else's; a result without its last line would be run again."""
    writes, to_disk = itertools.count(1), os.fsync

    def fsync(descriptor: int) -> None:
        to_disk(descriptor)
        if next(writes) == moment:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", fsync)
    fakes.tell()
    assert fakes.run(2) == code
    assert fakes.statuses == statuses
    assert not any("changed by someone else" in line for line in fakes.said)


@pytest.mark.long
@pytest.mark.parametrize("do", ["hang", "hang for ever"])
def test_kill_9_leaves_no_trial_running_and_the_ledger_shows_it(fakes: Fakes, do: str) -> None:
    fakes.tell(_1=do)
    series = started(fakes.folder, 3)
    until(lambda: "run_start" in read(fakes.folder / "result_1.txt"), "trial 1")
    assert len(alive(fakes.folder)) == 1
    series.kill()
    series.wait()
    assert fakes.statuses == [(0, 1, "success"), (1, 1, "no end recorded")]
    until(lambda: not alive(fakes.folder), "the end of all runs")
    fakes.tell()
    assert fakes.run(3, resume=True) == 0
    assert fakes.statuses[1:] == [(1, 1, "no end recorded"), (1, 2, "success"), (2, 1, "success")]
    assert (fakes.folder / "result_1.broken-1.txt").is_file()


def test_files_are_put_aside_when_nobody_writes_them_any_more(fakes: Fakes) -> None:
    """The trial of a killed series wrote on into the renamed log, whose hash the ledger had by then, and left its picture by
    the old name, for which the next trial was refused."""
    fakes.tell(_0="hang, then linger")
    series = started(fakes.folder, 1)
    until(lambda: "run_start" in read(fakes.folder / "result_0.txt"), "trial 0")
    series.kill()
    fakes.tell()
    assert fakes.run(1, resume=True) == 0
    series.communicate()
    (marked,) = [each for each in fakes.account.entries if each["event"] == ledger.BROKEN]
    assert marked["files"] == ["result_0.broken-1.txt", "result_0.broken-1.png"]
    assert marked["log_sha256"] == ledger.sha256(fakes.folder / "result_0.broken-1.txt")
    assert "data_fingerprint" in read(fakes.folder / "result_0.broken-1.txt")


def test_a_signal_while_earlier_trials_are_being_ended_is_an_interruption(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.tell(_0="nan")
    assert fakes.run(1) == 5
    monkeypatch.setattr(process.LocalLauncher, "clear", lambda *_: signal.raise_signal(signal.SIGINT))
    assert fakes.run(1, resume=True) == 130
    assert fakes.statuses == [(0, 1, "failed")]


def rank_of(log: Path) -> int:
    (number,) = re.findall(r"^rank (\d+)$", log.read_text(), re.MULTILINE)
    return int(number)


def test_what_outlives_its_trial_is_ended_before_the_next_one(fakes: Fakes) -> None:
    fakes.tell(_0="leave a rank behind")
    assert fakes.run(2) == 5
    number = rank_of(fakes.folder / "result_0.txt")
    assert not leftovers._is_there(number)
    end = fakes.account.attempts[0].end
    assert end is not None
    assert "exit code 137 (signal 9); 1 of its processes outlived it and were ended" in end["reason"]
    assert fakes.statuses == [(0, 1, "failed"), (1, 1, "success")]


def test_a_record_says_what_else_used_the_machine(fakes: Fakes) -> None:
    fakes.tell(_0="work a while")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert fakes.run(1) == 0
        finally:
            busy.kill()
    beside = json.loads((fakes.folder / "result_0.json").read_text())["beside"]
    assert busy.pid in [each["process"] for each in beside["other_processes"]] or beside["more_processes"]
    assert beside["load_before"] >= 0 and beside["on_accelerators_before"] == []


def test_a_series_outlives_its_reaper(fakes: Fakes) -> None:
    fakes.tell(_0="hang")
    series = started(fakes.folder, 2)
    until(lambda: "run_start" in read(fakes.folder / "result_0.txt"), "trial 0")
    (reaper,) = [each for each in psutil.Process(series.pid).children() if "harness.launch.reaper" in each.cmdline()]
    reaper.kill()
    (trial,) = alive(fakes.folder)
    trial.terminate()
    series.communicate(timeout=PATIENCE_S)
    assert series.returncode == 130 and fakes.statuses == [(0, 1, "interrupted")]
    fakes.tell()
    assert fakes.run(2, resume=True) == 0


def test_a_trial_whose_series_and_reaper_were_killed_is_ended_before_the_next(tmp_path: Path) -> None:
    """By whichever series of the machine begins first: where that was another test's, once more."""
    said: list[str] = []
    for tried in range(9):
        fakes = Fakes(tmp_path / str(tried), said)
        fakes.tell(_0="hang")
        series = started(fakes.folder, 1)
        until(lambda log=fakes.folder / "result_0.txt": "run_start" in read(log), "trial 0")
        children = psutil.Process(series.pid).children()
        (reaper,) = [each for each in children if "harness.launch.reaper" in each.cmdline()]
        reaper.kill()
        series.kill()
        series.wait()
        fakes.tell()
        assert fakes.run(1, resume=True) == 0
        assert not alive(fakes.folder)
        if any(line.startswith("ended what an earlier trial has left running: process ") for line in said):
            return
    pytest.fail(f"none was ended by the next of its series: {said}")


@pytest.mark.parametrize("harm", ["delete", "edit", "move"])
def test_a_ledger_that_is_touched_while_a_series_runs_breaks_it(fakes: Fakes, harm: str) -> None:
    fakes.tell(_1="hang")
    series = started(fakes.folder, 2)
    until(lambda: "run_start" in read(fakes.folder / "result_1.txt"), "trial 1")
    book = fakes.folder / ledger.FILE
    text = book.read_text()
    (trial,) = alive(fakes.folder)
    if harm == "move":
        fakes.folder.rename(fakes.folder.with_name("elsewhere"))
    else:
        book.unlink()
    if harm == "edit":
        book.write_text(text.replace("success", "failed"))
    trial.terminate()
    said, _ = series.communicate(timeout=PATIENCE_S)
    assert series.returncode == 5, said
    assert "the ledger was " in said and "is no series any more" in said


def test_a_log_that_cannot_be_looked_at_for_a_while_costs_no_trial(tmp_path: Path) -> None:
    """Its folder was shut for a second, or its file server away: the series ended, and its trial with it."""
    log = tmp_path / "folder" / "result_0.txt"
    log.parent.touch()  # no folder: as EACCES, which root is never given
    now = itertools.count()
    growth = watchdog.LogGrowth(log, clock=lambda: float(next(now)))
    assert growth.silent_s() == 1
    log.parent.unlink()
    log.parent.mkdir()
    log.write_text("begun\n")
    assert growth.silent_s() == 1
    away = log.parent.rename(tmp_path / "away")
    log.parent.touch()
    assert growth.silent_s() > 1
    log.parent.unlink()
    away.rename(log.parent)
    assert growth.silent_s() > 2, "nothing came in between"


def test_a_trial_that_cannot_be_started_leaves_a_series_that_can_go_on(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    fakes.tell()
    with monkeypatch.context() as patched:
        patched.setattr(process.LocalLauncher, "start", none)  # as fork under a limit on processes
        with pytest.raises(NotSuitable, match=r"Resource temporarily unavailable.*go on with --resume"):
            fakes.run(1)
    assert fakes.run(1, resume=True) == 0


def test_a_ledger_that_cannot_be_opened_is_no_series_that_could_go_on(fakes: Fakes) -> None:
    """A link in its place: it was told of a ledger on the disk, and to go on with --resume."""
    fakes.tell()
    (fakes.folder / ledger.FILE).symlink_to("elsewhere")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*ledger\.jsonl"):
        fakes.run(1)


@pytest.mark.parametrize("ended_by", ["signal", "watchdog"])
def test_a_trial_that_was_ended_has_missed_its_target_only_where_its_log_says_so(fakes: Fakes, ended_by: str) -> None:
    """A library's exit ends a signalled process with 1 too: what had an evaluation by then counted as a result."""
    fakes.tell(_0="miss")
    fakes.run(1)
    log = trial.read_log(fakes.folder / "result_0.txt")
    assert log is not None and log.evaluations
    outcome = Outcome(EPOCHS_SPENT, ended_by)  # type: ignore[arg-type]
    assert trial.judge(outcome, log, SHA256).status == ledger.NOT_MET
    assert trial.judge(outcome, replace(log, reason="SIGTERM"), SHA256).status not in ledger.FINISHED


def test_a_strangers_log_is_never_entered_for_a_trial(fakes: Fakes) -> None:
    fakes.tell(_0="leave another's log")
    stranger = fakes.folder / "result_1.txt"
    assert fakes.run(2) == USAGE
    said = next(
        index for index, line in enumerate(fakes.said) if re.search(r"result_1\.txt: is there, but the ledger", line)
    )
    assert "trial 0  success" in (rest := "\n".join(fakes.said[said:])) and "--resume" in rest
    assert fakes.statuses == [(0, 1, "success")]
    assert stranger.read_text() == ":::MLLOG {}\n"


@pytest.mark.parametrize("name", ["telemetry_1.jsonl", "result_1.png"])
def test_what_an_earlier_run_left_beside_its_log_is_said_before_the_first_trial(fakes: Fakes, name: str) -> None:
    """The second trial would be refused for it, when the first has taken its hours."""
    fakes.tell()
    (fakes.folder / name).write_text("of a run whose log was moved away")
    with pytest.raises(ledger.LedgerError, match=f"{name}: is there, but the ledger knows of no such trial"):
        fakes.run(2)
    assert fakes.statuses == []
    (fakes.folder / name).unlink()
    assert fakes.run(2) == 0


def test_a_log_that_a_refused_trial_did_not_leave_is_not_put_aside_as_its(fakes: Fakes) -> None:
    """Somebody's result was renamed, for good, to what a broken attempt had left, and so entered."""
    fakes.tell(_0="refuse")
    assert fakes.run(1) == 2
    before = fakes.account.entries
    stranger = fakes.folder / "result_0.txt"
    stranger.write_text("a result of hours")
    fakes.tell()
    for resume in (False, True):
        with pytest.raises(ledger.LedgerError, match=r"result_0\.txt: is there, but the ledger knows of no such trial"):
            fakes.run(1, resume=resume)
    assert (stranger.read_text(), fakes.account.entries) == ("a result of hours", before)
    stranger.unlink()
    assert fakes.run(1) == 0


@pytest.mark.parametrize("renamed", [1, 2])
def test_what_was_put_aside_by_one_who_was_killed_meanwhile_is_entered(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """The ledger said of it that it had left no file."""
    fakes.tell(_0="nan")
    assert fakes.run(1) == 5
    log_sha256 = ledger.sha256(fakes.folder / "result_0.txt")
    left = itertools.count(1)
    rename = Path.rename

    def killed(path: Path, to: Path) -> Path:
        moved = rename(path, to)
        if next(left) == renamed:
            raise KeyboardInterrupt
        return moved

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            fakes.run(1, resume=True)
    fakes.tell()
    assert fakes.run(1, resume=True) == 0
    (marked,) = [each for each in fakes.account.entries if each["event"] == "trial_broken"]
    assert marked["files"] == ["result_0.broken-1.txt", "result_0.broken-1.json"]
    assert marked["log_sha256"] == log_sha256


def test_a_word_of_refusal_that_lay_there_before_is_not_the_trial_s(fakes: Fakes) -> None:
    """What somebody else was told last week was entered as why the trial could not run."""
    fakes.tell(_0="refuse")
    stop = {"key": "run_stop", "value": None, "metadata": {"status": "aborted", "reason": "last week's"}}
    text = f":::MLLOG {json.dumps({'namespace': '', 'time_ms': 1, 'event_type': 'INTERVAL_END', **stop})}\n"
    earlier = fakes.folder / "refused_0.txt"
    earlier.write_text(text)
    assert fakes.run(1) == 2
    end = fakes.account.attempts[0].end
    assert end is not None
    assert (end["reason"], end["log"], end["log_sha256"]) == ("the data set is another one", None, None)
    assert json.loads((fakes.folder / "refused_0.json").read_text())["reason"] == end["reason"]
    fakes.tell()
    assert fakes.run(1) == 0
    assert earlier.read_text() == text, "nor is it put aside with what the trial left"


def test_a_record_that_was_changed_is_noticed(fakes: Fakes) -> None:
    fakes.tell(_1="die")
    fakes.run(2)
    record = fakes.folder / "result_0.json"
    text = record.read_text()
    for harm in (lambda: record.write_text(text.replace("success", "failed")), record.unlink):
        harm()
        with pytest.raises(ledger.LedgerError, match=r"result_0\.json: is not the record that the ledger says"):
            fakes.run(2, resume=True)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_folder_that_cannot_be_written_is_said_before_anything_is(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"results cannot be written there \(Not a directory\); name another folder"):
        admission.usable_folder(tmp_path / "file" / "results")
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr(admission.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(NotSuitable, match=r"its disk is full \(1 MiB free, a trial may need 64\)"):
        fakes.run(1)
    assert not (fakes.folder / ledger.FILE).exists()


def test_a_disk_that_fills_meanwhile_ends_the_series_and_resume_takes_it_up(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.tell()

    def full(descriptor: int) -> None:
        if b'"trial_end", ' in (fakes.folder / ledger.FILE).read_bytes().split(b"\n")[-2]:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ledger.os, "fsync", full)
        with pytest.raises(NotSuitable, match=r"the disk is full.*go on with --resume"):
            fakes.run(2)
    assert fakes.statuses == [(0, 1, "no end recorded")]
    assert fakes.run(2, resume=True) == 0
    assert fakes.statuses == [(0, 1, "no end recorded"), (0, 2, "success"), (1, 1, "success")]


def test_caches_are_dropped_where_that_may_be_done_and_the_log_says_so(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tmp_path / "drop_caches"
    assert caches.drop(control) == caches.Dropped(True)
    assert control.read_text() == "3\n"
    refused = caches.drop(tmp_path / "no" / "such", by_sudo=("false",))
    assert not refused.cleared
    assert "false: exit code 1" in refused.why_not
    assert caches.drop(tmp_path / "no" / "such", by_sudo=("true",)).cleared

    answers = iter((caches.Dropped(True), refused, refused))
    monkeypatch.setattr(caches, "drop", lambda: next(answers))
    fakes.tell()
    assert fakes.run(3, clear_caches=True) == 0
    logged = [json.loads((fakes.folder / f"result_{n}.json").read_text())["cache_clear"] for n in range(3)]
    assert logged == [True, False, False]
    assert sum("caches are not dropped" in line for line in fakes.said) == 1
