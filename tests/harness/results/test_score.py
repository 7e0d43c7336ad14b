"""Scores: the published figures to four decimals, MLPerf's summarizer as an oracle, and every number of runs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import exit_codes
from harness.cli import main
from harness.execution.run import NotFinite
from harness.results import fitness, score_text, sources
from harness.results.checking import checker
from harness.results.checking.checker import check
from harness.results.checking.official import Job
from harness.results.package_text import readme
from harness.results.score import Score, as_json, four_decimals, score, split
from harness.results.series import find_logs, find_series
from tests.harness.results.logs import changed, event, events, text, without, write, write_package, write_series
from tests.harness.results.test_logfile import parsed

PUBLISHED = {
    "v0.7/NVIDIA/results/dgx1_ngc20.06_pytorch": "20.6900",
    "v0.7/NVIDIA/results/dgx2h_ngc20.06_pytorch": "9.6549",
    "v0.7/NVIDIA/results/dgxa100_ngc20.06_pytorch": "10.2148",
    "v0.7/NVIDIA/results/dgxa100_n2_ngc20.06_pytorch": "5.6779",
    "v0.7/Fujitsu/results/gx_V100x8_ngc20.06_pytorch": "20.3961",
    "v1.1/NVIDIA/results/dgxa100_ngc21.09_mxnet": "8.2583",
}


def scored(folder: Path) -> Score:
    (series,) = find_series([folder])
    return score(series)


@pytest.mark.parametrize(("folder", "minutes"), PUBLISHED.items())
def test_published_scores(test_data: Path, folder: str, minutes: str) -> None:
    result = scored(test_data / "mlperf-results" / folder)
    assert f"{result.minutes:.4f}" == minutes
    assert result.official, result.unofficial
    assert sorted(run.place for run in result.runs) == ["counted"] * 3 + ["fastest", "slowest"]


def test_speed_and_split_of_a_real_series(test_data: Path) -> None:
    result = scored(test_data / "mlperf-results/v0.7/NVIDIA/results/dgxa100_ngc20.06_pytorch")
    assert result.images_per_s == pytest.approx(9818, abs=1)
    assert result.images_per_s_per_accelerator == pytest.approx(1227, abs=1)
    first = as_json(result)["runs"][0]
    assert first["epochs"] == 50
    assert first["epochs_s"] + first["evaluation_s"] + first["rest_s"] == pytest.approx(first["minutes"] * 60, abs=0.01)
    assert first["init_s"] == pytest.approx(36.651, abs=0.001)


def test_a_last_epoch_that_ends_before_it_begins_has_no_part_of_the_time() -> None:
    """It has an end, and is not what the run was broken off in: it took in its own evaluation."""
    log = events(status="aborted")
    (last,) = [each for each in log if (each["key"], each["metadata"].get("epoch_num")) == ("epoch_stop", 50)]
    last["time_ms"] -= 12_500
    parts = split(parsed(text(log)))
    assert parts is not None and (parts.epochs_s, parts.evaluation_s) == (49 * 12.0, 2 * 3.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_any_number_of_runs_as_mlperf_summarizes(tmp_path: Path, count: int) -> None:
    from mlperf_logging.result_summarizer import result_summarizer

    folder = write_series(tmp_path / "ssd", count)
    ours = scored(folder)
    theirs = result_summarizer._compute_strong_score_standalone(
        *("ssd", "any", False, str(folder), "training", "0.7.0", {"submitter": "any"})
    )[0]
    if count >= 3:  # below, the summarizer has none
        assert ours.minutes == pytest.approx(theirs, abs=1e-4)
    else:
        assert theirs is None and ours.minutes is not None
    assert ours.official == (count == 5)
    assert count == 5 or f"{count} run" in ours.unofficial[0]


def test_one_run_that_did_not_converge_is_the_slowest(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ssd")
    all_converged = scored(folder)
    write(folder / "result_4.txt", events(seed=104, epoch_ms=12_345, status="aborted"))
    result = scored(folder)
    assert result.official
    assert [run.place for run in result.runs] == ["fastest", "counted", "counted", "counted", "not converged"]
    assert result.minutes == all_converged.minutes


def ends_in_init(path: Path, *, stop: bool = False, **own: object) -> Path:
    """A log up to what comes before run_start; closed by a launcher, say, where `stop`."""
    begun = events(seed=100, own=own)
    at = next(index for index, each in enumerate(begun) if each["key"] == "run_start")
    kept = [each for each in begun[:at] if each["key"] != "global_batch_size"]
    return write(path, kept + [event(begun[at]["time_ms"], "run_stop", status="aborted")] * stop)


@pytest.mark.parametrize("stop", [False, True], ids=["killed, or still to begin", "ended, and said so"])
def test_a_log_that_ends_in_its_init_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], stop: bool) -> None:
    """It took the slowest's place in the mean, differed in all that a log says later, and was the first of its series."""
    own = {"configuration": "[x]", "configuration_sha256": "ab" * 32, "configuration_name": "one"}
    folder = write_series(tmp_path / "ssd", own=own)
    five = scored(folder)
    folder.rename(tmp_path / "five")
    folder.mkdir()
    for index in range(5):
        (tmp_path / f"five/result_{index}.txt").rename(folder / f"result_{index + 1}.txt")
    ends_in_init(folder / "result_0.txt", stop=stop)
    six = scored(folder)
    assert (six.minutes, six.unofficial) == (five.minutes, (*five.unofficial, "result_0.txt has not begun"))
    assert [run.place for run in six.runs] == [run.place for run in five.runs]
    assert six.accelerators == five.accelerators and six.images_per_s == five.images_per_s
    assert as_json(six)["not_begun"] == [str(folder / "result_0.txt")]
    asked = tuple((folder / f"result_{index}.txt", str(folder / f"result_{index}.txt")) for index in range(1, 6))
    assert checker.job_of(six.series, None) == Job("0.7.0", asked, rcp=True), "its factor is the five's"
    assert main(["score", str(folder)]) == (0 if five.official else 1)
    said = capsys.readouterr().out
    assert "the mean of 3 of 5 runs, the fastest and the slowest dropped" in said and "no run: " in said
    (report,) = check([folder])
    wrong = [each for each in report.findings if each.severity == "error" and each.file.endswith("result_0.txt")]
    assert report.runs == 5 and {(each.rule, each.fix) for each in wrong} == {("outcome", fitness.NOT_BEGUN)}
    assert not any("which result_" in each.found for each in report.findings), "its seed is nobody's"

    for index in range(1, 6):
        (folder / f"result_{index}.txt").unlink()
    alone = scored(folder)
    assert alone.minutes is None and "result_0.txt has not begun" in alone.unofficial
    assert main(["score", str(folder)]) == 1
    assert "no run has begun" in capsys.readouterr().out


@pytest.mark.parametrize("lacks", [("run_start",), ("run_start", "run_stop")])
def test_a_run_that_trained_is_one_whatever_its_log_has_lost(tmp_path: Path, lacks: tuple[str, ...]) -> None:
    """Else a run that did not converge could be cut until it counts as none."""
    folder = write_series(tmp_path / "ssd")
    for index in (3, 4):
        write(folder / f"result_{index}.txt", events(seed=index, status="aborted"))
    assert scored(folder).minutes is None
    cut = [each for each in events(seed=4, status="aborted") if each["key"] not in lacks]
    write(folder / "result_4.txt", cut)
    found = scored(folder)
    assert found.minutes is None and len(found.runs) == 5 and not found.series.not_begun


@pytest.mark.parametrize(
    ("spoil", "stands"),
    [
        (lambda them: them, True),
        (lambda them: [*them[:-1], {**them[-1], "metadata": {"status": "aborted"}}], True),
        (lambda them: them[:-1], False),  # killed
        (lambda them: [*them[:-1], {**them[-1], "metadata": {}}], False),
        (lambda them: [each for each in them if each["key"] != "run_start"], False),
    ],
    ids=["whole", "aborted", "killed", "no status", "no run_start"],
)
def test_a_score_is_official_where_check_has_nothing_against_it(
    tmp_path: Path, spoil: Callable[[list[dict[str, object]]], list[dict[str, object]]], stands: bool
) -> None:
    """A killed run stood as the one that did not converge: official, and ranked first, where check had failed it."""
    folder = write_series(tmp_path / "ssd")
    write(folder / "result_4.txt", spoil(events(seed=104, epoch_ms=12_345)))
    assert scored(folder).official == stands
    (report,) = check([folder])
    ours = [each for each in report.findings if each.severity == "error" and each.rule != "compliance checker"]
    assert (not ours) == stands


@pytest.mark.parametrize(
    ("reason", "stands"),
    [
        (f"{exit_codes.OF_EPOCHS}: mAP 0.2210 after 80 epochs, target 0.23", True),
        (f"{NotFinite.__name__}: loss nan in epoch 3", True),
        ("SIGTERM", False),
        ("SIGKILL: no word from it for 600 s", False),
        ("RuntimeError: CUDA error", False),
        (f"{exit_codes.OF_STEPS}: 200 of --max-steps 200", False),
        ("", False),
    ],
)
def test_a_run_that_was_interrupted_hung_or_broke_is_none_that_did_not_converge(
    tmp_path: Path, reason: str, stands: bool
) -> None:
    """One that was ended with SIGTERM took the slowest's place: official, and packaged."""
    own = {"configuration": "[x]", "configuration_sha256": "ab" * 32, "configuration_name": "one"}
    folder = write_series(tmp_path / "ssd", own=own)
    cut = events(seed=104, epoch_ms=12_345, own=own)
    cut[-1]["metadata"] = {"status": "aborted", **({"reason": reason} if reason else {})}
    write(folder / "result_4.txt", cut)
    found = scored(folder)
    assert [run.place for run in found.runs][-1] == "not converged"
    assert any("no run that ended by itself" in each for each in found.unofficial) != stands
    (report,) = check([folder])
    failed = {each.rule for each in report.findings if each.severity == "error"}
    assert ("outcome" in failed) != stands


@pytest.mark.parametrize("commit", ["--output={}", "a\0b", "HEAD", "f" * 40])
def test_what_a_log_calls_its_commit_is_no_word_for_git(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], commit: str
) -> None:
    """By somebody else's log git wrote over any file of the reader's. Of commits that are not here nothing is known."""
    (precious := tmp_path / "file").write_text("precious")
    folder = write_series(tmp_path / "out", own={"commit": "0" * 40, "tree_dirty": False})
    other = {"commit": commit.format(precious), "tree_dirty": False}
    write(folder / "result_4.txt", events(seed=104, epoch_ms=12_345, own=other))
    assert scored(folder).official and sources.unavailable(other["commit"])
    assert main(["check", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "WARNING" in told.upper() and "commit" in told
    assert precious.read_text() == "precious"


def test_what_a_log_says_of_itself_is_no_line_of_the_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An organization with a line break in it could be a second, official score; in score, and below report's table."""
    for log in write_series(tmp_path / "x").iterdir():
        log.write_text(log.read_text().replace('"Someone"', json.dumps("Someone\nx: 1.0000 minutes (official)")))
    for arguments in (["score"], ["report", "--no-published"]):
        assert main([*arguments, str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 3 and not any(line.startswith("x: 1.0000") for line in lines)


def test_a_command_to_type_has_its_folder_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))  # where nobody has asked
    folder = write_series(tmp_path / "my runs; rm -r *" / "ssd")
    assert main(["score", str(folder)]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "not asked yet: " in line]
    assert shlex.split(line.partition("not asked yet: ")[2])[3:] == ["check", str(folder)]


def test_two_that_did_not_converge_leave_no_score(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ssd")
    for index in (2, 4):
        write(folder / f"result_{index}.txt", events(seed=index, evaluations=((40, 0.1), (50, 0.2299))))
    result = scored(folder)
    assert result.minutes is None
    assert "2 runs did not converge; the rules allow one" in result.unofficial
    assert "no mAP reached 0.23 (best 0.2299)" in result.runs[2].why


def test_a_single_run_that_did_not_converge(tmp_path: Path) -> None:
    assert scored(write(tmp_path / "result_0.txt", events(status="aborted")).parent).minutes is None


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"demonstration": True}, "demonstration data"),
        ({"other_task": "SSD300 with VGG-16"}, "another task than the benchmark's"),
        ({"resumed_from_epoch": 2}, "a resumed run"),
        ({"eval_samples_trained_on": 9}, "trained on are evaluated"),
        ({"max_steps": 500}, "--max-steps"),
        ({"tree_dirty": True}, "uncommitted"),
        ({"tree_dirty": True, "commit": "unknown"}, "the log names no commit"),
    ],
)
def test_what_makes_a_score_unofficial(tmp_path: Path, own: dict[str, object], why: str) -> None:
    result = scored(write_series(tmp_path / "ssd", own=own))
    assert result.minutes is not None
    assert any(why in each for each in result.unofficial)


def test_what_check_calls_failed_is_not_official(tmp_path: Path) -> None:
    """One judgement for check, score and report: copies, seeds, lines that cannot be read, a clock that was set."""
    folder = write_series(tmp_path / "ssd")
    (folder / "result_4.txt").write_bytes((folder / "result_0.txt").read_bytes())
    assert any("result_4.txt is a copy of result_0.txt" in each for each in scored(folder).unofficial)
    write(folder / "result_4.txt", events(seed=100, epoch_ms=12_345))
    assert [each for each in scored(folder).unofficial if "seeds: 100, which result_0.txt has too" in each]
    (folder / "result_4.txt").write_text(
        text(events(seed=104, epoch_ms=12_345)).replace('"epoch_stop"', '"epoch_stop', 1)
    )
    assert [each for each in scored(folder).unofficial if each.startswith("result_4.txt: readable: malformed")]
    write(
        folder / "result_4.txt",
        changed(events(seed=104, epoch_ms=12_345), "run_stop", lambda e: e["metadata"].update(monotonic_s=1.0)),
    )
    assert "the clock was set during a run" in scored(folder).unofficial
    write(folder / "result_4.txt", events(seed=104, epoch_ms=12_345))
    assert scored(folder).official


def test_runs_that_differ_are_told(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ssd")
    write(folder / "result_1.txt", changed(events(seed=7), "global_batch_size", lambda e: e.update(value=896)))
    assert "runs differ in global_batch_size: 912, 896" in scored(folder).unofficial


def test_a_series_in_two_number_formats_is_none(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ssd")
    for number, form in enumerate(["bf16", "bf16", "tf32", "bf16", "bf16"]):
        log = folder / f"result_{number}.txt"
        lines = log.read_text().splitlines(keepends=True)
        said = {**json.loads(lines[1].removeprefix(":::MLLOG ")), "key": "precision", "value": form}
        log.write_text("".join([*lines[:2], f":::MLLOG {json.dumps(said)}\n", *lines[2:]]))
    assert "runs differ in precision: bf16, tf32" in scored(folder).unofficial


def test_our_own_configurations_are_kept_apart_in_one_folder(tmp_path: Path) -> None:
    for index, name in enumerate(["A", "B", "A"]):
        own = {"configuration_name": name, "configuration_sha256": name * 64}
        write(tmp_path / f"result_{index}.txt", events(seed=index, own=own))
    assert [(series.name.split()[-1], len(series.records)) for series in find_series([tmp_path])] == [
        ("[A]", 2),
        ("[B]", 1),
    ]


def test_open_division_takes_its_target_from_the_log(tmp_path: Path) -> None:
    log = events(division="open", evaluations=((1, 0.05), (2, 0.12)), own={"quality_target": 0.1})
    result = scored(write(tmp_path / "result_0.txt", log).parent)
    assert (result.target, result.runs[0].converged) == (0.1, True)
    assert not result.official


def test_a_run_that_max_steps_ends_in_its_first_epoch_has_a_speed_and_no_score(tmp_path: Path) -> None:
    log = events(evaluations=(), status="aborted", own={"max_steps": 20})
    begun = next(place for place, each in enumerate(log) if each["key"] == "epoch_start")
    start_ms = log[begun]["time_ms"]
    cut = [event(start_ms + 2500, "throughput", 800.0, epoch_num=1), {**log[-1], "time_ms": start_ms + 2500}]
    result = scored(write(tmp_path / "result_0.txt", [*log[: begun + 1], *cut]).parent)
    assert result.minutes is None and result.runs[0].place == "not converged"
    assert result.images_per_s == 800 and as_json(result)["runs"][0]["images_per_s"] == 800
    parts = split(result.runs[0].record)
    assert parts is not None and parts.epochs_s == pytest.approx(2.5), "the epoch that it ended in"


def test_the_parts_of_the_time_add_up_where_evaluation_runs_beside_training() -> None:
    log = without(events(evaluations=((2, 0.24),)), "eval_start")
    start = next(each["time_ms"] for each in log if each["key"] == "epoch_stop")
    log[-1:-1] = [event(start, "eval_start", epoch_num=2)]  # within the second epoch
    record = parsed(text(log))
    parts = split(record)
    assert parts is not None and record.minutes is not None
    assert (parts.epochs_s, parts.evaluation_s) == (pytest.approx(24), pytest.approx(3))
    assert parts.epochs_s + parts.evaluation_s + parts.rest_s == pytest.approx(record.minutes * 60)


def test_a_package_says_how_many_accelerators_and_the_rules_how_many_images(tmp_path: Path) -> None:
    package = write_package(tmp_path, ranks=1)
    result = scored(package / "results")
    assert result.accelerators == 8
    for path in (package / "results").rglob("result_*.txt"):
        path.write_text(
            "".join(line for line in path.read_text().splitlines(keepends=True) if "train_samples" not in line)
        )
    assert scored(package / "results").images_per_s == pytest.approx(117266 / 12.02)
    (package / "systems/dgxa100_test.json").write_text("no JSON")
    assert scored(package / "results").accelerators is None


def test_logs_of_power_meters_are_no_runs(tmp_path: Path) -> None:
    """A submission with power measurement got a bogus row for each run's meters; a series that is called power is one."""
    meters = [event(1_000 * second, "power_reading", 400.0) for second in range(60)]
    package = write_package(tmp_path)
    folder = package / "results/dgxa100_test/ssd"
    for index in range(5):
        for node in ("node_0", "node_1", "sw_0"):
            write(folder / f"power/result_{index}/{node}.txt", meters)
    (series,) = find_series([tmp_path])
    assert [Path(each.path).name for each in series.records] == [f"result_{index}.txt" for index in range(5)]
    (report,) = check([package])
    assert report.ok, report.findings  # the summarizer breaks down on their energy, which is none of the times
    write_series(tmp_path / "own/power", 2)
    write_series(tmp_path / "own", 3)
    assert [len(each.records) for each in find_series([tmp_path / "own"])] == [3, 2]
    assert [len(each.records) for each in find_series([tmp_path / "own/power"])] == [2]


def test_a_run_has_one_time_wherever_it_is_told(tmp_path: Path) -> None:
    """10.21425 minutes are less in binary: headline and JSON had 10.2143, the table and a package's README 10.2142."""
    log = without(events(), "run_stop")
    began = next(each["time_ms"] for each in log if each["key"] == "run_start")
    write(tmp_path / "out/result_0.txt", [*log, event(began + 612_855, "run_stop", status="success")])
    found = scored(tmp_path / "out")
    (row,) = score_text.rows(found)
    told = [score_text.headline(found).split()[1], row[1], str(as_json(found)["runs"][0]["minutes"])]
    told += re.findall(r"^\| result_0.txt \| (\S+)", readme(found.series, "dgx", tmp_path, "0.7.0"), re.MULTILINE)
    assert told == ["10.2143"] * 4


def test_the_half_is_rounded_up() -> None:
    assert str(four_decimals(Fraction(3671289, 180000))) == "20.3961"  # 20.39605 is 20.396049... in binary


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=3, max_size=9))
def test_the_mean_lies_between_the_runs_that_count(times: list[int]) -> None:
    from harness.results.score import _mean_minutes, countable

    records = []
    for run_ms in sorted(times):
        record = parsed(text([event(0, "run_start"), event(run_ms, "run_stop", status="success")]))
        records.append(record)
    minutes = _mean_minutes(countable(records, 0), 1)
    ordered = sorted(times)[1:-1]
    assert minutes == Fraction(sum(ordered), len(ordered) * 60_000)


def test_logs_of_other_names_are_found_and_results_come_in_natural_order(tmp_path: Path) -> None:
    for index in (0, 2, 10):
        write(tmp_path / f"a/result_{index}.txt", events(seed=index))
    (tmp_path / "a/slurm.log").write_text("not a result")
    write(tmp_path / "b/ssd_1x8x114_1.log", events())
    assert [path.name for path in find_logs(tmp_path)] == [
        "result_0.txt",
        "result_2.txt",
        "result_10.txt",
        "ssd_1x8x114_1.log",
    ]
    with pytest.raises(ValueError, match="no such file or folder"):
        find_series([tmp_path / "c"])


def test_a_linked_folder_is_looked_into_once(tmp_path: Path) -> None:
    """It was passed over without a word; a series that a link names again, or a link to what it lies in, adds none."""
    write_series(tmp_path / "nfs/system/ssd")
    write_series(tmp_path / "results/own/ssd")
    for name, target in (("linked", "../nfs/system"), ("a-latest", "own"), ("loop", "."), ("up", ".."), ("none", "x")):
        (tmp_path / "results" / name).symlink_to(target)
    found = find_logs(tmp_path / "results")
    assert {log.parent.relative_to(tmp_path).as_posix() for log in found} == {"results/linked/ssd", "results/own/ssd"}
    assert len(found) == 10


@pytest.mark.parametrize(
    ("made", "own", "count"),
    [("plan.json", "arms", 1), ("plan.json", "baseline", 4), ("noise.json", "runs", 1), ("notes.txt", "arms", 4)],
)
def test_what_a_comparison_does_not_count_is_found_where_it_is_named_itself(
    tmp_path: Path, made: str, own: str, count: int
) -> None:
    """Warm-ups and runs that were put aside were runs of every series; folders of somebody's own of these names are series."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / made).write_text("{}")
    for top in (own, "warm-up", "again", "broken"):
        write_series(tmp_path / "x" / top / "warm-up/ssd")
    assert len(find_logs(tmp_path)) == len(find_logs(tmp_path / "x")) == 5 * count
    for top in ("warm-up", "again", "broken"):
        assert len(find_logs(tmp_path / "x" / top)) == 5


def test_many_series_of_noisy_logs(tmp_path: Path) -> None:
    noise = "+ set +x\n" * 20  # 80 kB a log, as the real ones
    content = text(events(), noise=noise).encode()
    for series in range(20):
        folder = tmp_path / f"system_{series}/ssd"
        folder.mkdir(parents=True)
        for run in range(5):
            (folder / f"result_{run}.txt").write_bytes(
                content.replace(b'"key": "seed", "value": 1', f'"key": "seed", "value": {run}'.encode())
            )
    scores = [score(series) for series in find_series([tmp_path])]
    assert len(scores) == 20 and all(each.minutes for each in scores)


def test_a_log_that_says_nothing_is_a_run_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was a series of its own, of no configuration, and the other four were scored as if there were no fifth."""
    own = {"configuration": "[x]", "configuration_sha256": "ab" * 32, "configuration_name": "one"}
    folder = write_series(tmp_path / "ssd", own=own)
    (folder / "result_2.txt").write_bytes(b"\0\0\0\0")
    (series,) = find_series([folder])
    assert len(series.records) == 5
    result = score(series)
    assert result.minutes is not None and not result.official
    assert main(["score", str(folder)]) == 1
    assert f"{folder}/result_2.txt: it begins with zeros" in capsys.readouterr().err
    write(
        folder / "result_3.txt", events(own={**own, "configuration_sha256": "cd" * 32, "configuration_name": "other"})
    )
    assert sorted(len(each.records) for each in find_series([folder])) == [1, 1, 3]  # of which it was nobody knows
