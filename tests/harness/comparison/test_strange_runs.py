"""What strangers hold against each other: odd names, copies, odd clocks, hosts of one arm, files that are no logs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison import comparison, runs
from harness.comparison.judging import noise
from harness.comparison.reporting import plots, terminal, words
from tests.harness.comparison import arms
from tests.harness.comparison.arms import judged
from tests.harness.results import synthetic_logs
from tests.harness.results.synthetic_logs import Made

PHASES = {"forward_loss": 2.0, "backward": 4.0}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, " ".join((out + err).split())


# --- which runs ---


@pytest.mark.parametrize("name", ["8x A100, 40 GB", "a[0-9]", "x*y", "a,b"])
def test_a_folder_s_name_is_its_name_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    a, _ = arms.in_turns(tmp_path, 2)
    folder = a.rename(tmp_path / name)
    assert len(runs.find(str(folder), 0)) == 2


def test_a_glob_that_meets_what_lies_beside_logs(tmp_path: Path) -> None:
    """`out/*`, quoted: pictures, telemetry and probes are no runs."""
    a, b = arms.in_turns(tmp_path)
    for folder in (a, b):
        (folder / "result_0.png").write_bytes(b"\x89PNG")
        (folder / "result_0.json").write_text("{}")
        (folder / "refused_7.txt").write_text("no")
        arms.telemetry(folder / "result_0.txt")
    found = comparison.compare(f"{a}/*", f"{b}/*", comparison.Question())
    assert (found.word, len(found.runs)) == ("EQUAL", 10)


def test_a_name_that_is_too_long_is_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for verb in ("score", "check", "status", "collect"):
        assert main([verb, "x" * 300, *(("--into", str(tmp_path)) if verb == "collect" else ())]) == 2
        assert "File name too long" in capsys.readouterr().err
    (tmp_path / "loop").symlink_to("loop")
    assert main(["check", str(tmp_path / "loop")]) == 2
    assert run(capsys, "x" * 300, tmp_path)[0] == 2


def test_runs_of_an_unpaired_host_enter_no_figure(tmp_path: Path) -> None:
    """One host against three: n, seconds of the phases and time to train are of the host that ran both."""
    a, b = arms.in_turns(tmp_path, a={"phases": PHASES}, b={"phases": PHASES})
    for number, host in enumerate(("GPU-2", "GPU-3"), 20):
        arms.write(b, number, turn=number, factor=3.0, gpu={"uuid": host}, phases=PHASES)
    found = judged((a, b))
    assert found.word == "EQUAL" and "n 5 + 5" in words.sentence(found)
    for phase in found.phases:
        assert phase.seconds[1] == pytest.approx(phase.seconds[0], rel=0.01)
    drawn = plots.over_time(found)
    assert drawn is not None
    (_, a_mean), (_, b_mean) = drawn.strips[0].means
    assert abs(a_mean - b_mean) < 2, "nor a line of the picture"
    assert found.minutes is not None and found.minutes[1].runs == 5
    assert found.minutes[1].seconds_per_epoch == pytest.approx(found.minutes[0].seconds_per_epoch or 0, rel=0.01)


def test_phases_of_two_machines_have_their_intervals_too(tmp_path: Path) -> None:
    folders = arms.in_turns(tmp_path, a={"phases": PHASES}, b={"phases": PHASES, "gpu": {"uuid": "GPU-2"}})
    found = judged(folders, allowed=("host", "gpu.uuid"))
    assert found.word == "EQUAL" and all(phase.interval is not None for phase in found.phases)


# --- which are none ---


def _epoch_3_ends_early(events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["key"] == "epoch_stop" and event["metadata"]["epoch_num"] == 3:
            event["time_ms"] -= 60_000


def test_an_epoch_that_stops_before_it_starts_is_no_figure(tmp_path: Path) -> None:
    """No longer left out of the median in silence."""
    a, b = arms.in_turns(tmp_path)
    arms.write(b, 9, turn=20, change=_epoch_3_ends_early)
    found = judged((a, b))
    assert found.exit_code == 5 and "epoch 3 stops before it starts" in words.sentence(found)


def test_a_log_of_ours_with_a_torn_line_is_no_run(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    log = b / "result_0.txt"
    lines = log.read_text().splitlines()
    place = next(index for index, line in enumerate(lines) if '"epoch_stop"' in line)
    lines[place] = lines[place].partition('"value"')[0]
    log.write_text("\n".join(lines) + "\n")
    found = judged((a, b))
    assert found.exit_code == 5 and f"the first line {place + 1}" in words.sentence(found)


def test_runs_at_one_time_on_one_host_are_suspect(tmp_path: Path) -> None:
    """Two at once, a clock that was set back between two, or a copy with a line more: figures are not the arms' own."""
    a, b = arms.in_turns(tmp_path)
    copy = (b / "result_1.txt").read_text()
    (b / "result_9.txt").write_text(f"# checked\n{copy}")
    found = judged((a, b))
    assert (found.word, found.exit_code) == ("SUSPECT", 7)
    assert "on the same host ended" in words.sentence(found)


def test_deterministic_runs_are_not_held_against_others(tmp_path: Path) -> None:
    """They are slower by themselves, and only they say that they are."""

    def said(events: list[dict[str, Any]]) -> None:
        events.insert(5, {**events[0], "key": "deterministic", "value": True})

    found = judged(arms.in_turns(tmp_path, slower=1.1, b={"change": said}))
    assert found.exit_code == 4 and "deterministic differs" in words.sentence(found)


def test_deterministic_runs_are_no_change_of_a_history(tmp_path: Path) -> None:
    from harness.comparison.history import history, points

    def said(events: list[dict[str, Any]]) -> None:
        events.insert(5, {**events[0], "key": "deterministic", "value": True})

    for number in range(12):
        slow = number >= 6
        factor = arms.NOISE[number % 10] * (1.3 if slow else 1)
        arms.write(tmp_path, number, turn=number, factor=factor, change=said if slow else None)
    found = history.history(*points.gather([tmp_path]))
    assert [len(each.points) for each in found.series] == [6, 6] and not any(each.changes for each in found.series)


def test_noise_of_copies_is_no_noise(tmp_path: Path) -> None:
    """Four copies of a run have no spread at all, and their floor would let any difference through."""
    first = arms.write(tmp_path, 0)
    for number in range(1, 4):
        (tmp_path / f"result_{number}.txt").write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="a run counts once"):
        noise.measure(runs.find(str(tmp_path), 0))


# --- files that are something else ---


@pytest.mark.parametrize("what", ["fifo", "deep", "folder", "list", "endless"])
def test_telemetry_that_is_none_costs_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    a, b = arms.in_turns(tmp_path)
    path = b / "telemetry_0.jsonl"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "endless":
        path.symlink_to("/dev/zero")
    else:
        arms.telemetry(b / "result_0.txt")
        odd = {"deep": "[" * 100_000, "list": '{"event": "end", "time_ms": 5, "gpus": [{"during_run": [1]}]}'}[what]
        path.write_text(f"{odd}\n{path.read_text()}")
    readable = what in ("deep", "list")
    code, out = run(capsys, a, b)
    assert code == (0 if readable else 7), out
    assert readable or "what its hardware did is not known" in out
    assert main(["score", str(b)]) == 0 and main(["history", "--from", str(b)]) == 0
    assert main(["report", str(b), "--no-published"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_noise_file_that_is_none_is_passed_over(tmp_path: Path) -> None:
    from harness.comparison.judging import floor

    a, _ = arms.in_turns(tmp_path)
    os.mkfifo(tmp_path / "noise.json")
    assert floor.find(runs.find(str(a), 0)) is None


def test_one_bad_log_leaves_the_others_their_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        arms.write(tmp_path / "h100" / "ssd", number, turn=number)
    os.mkfifo(tmp_path / "h100" / "ssd" / "result_7.txt")
    (tmp_path / "h100" / "ssd" / "result_8.txt").symlink_to("nowhere")
    assert main(["history", "--from", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["series"][0]["points"]) == 4
    reasons = {Path(each["log"]).name: each["reason"] for each in found["left_out"]}
    assert reasons.keys() == {"result_7.txt", "result_8.txt"} and "no regular file" in reasons["result_7.txt"]


def test_a_folder_that_may_not_be_looked_into_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """report said "No result measured here yet" with exit code 0, the others that there was no log."""
    a, b = arms.in_turns(tmp_path, 2)
    closed, look = a / "more", os.scandir
    closed.mkdir()

    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(closed))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for words_, code in ((["compare", a, b], 2), (["compare", closed, b], 2)):
        assert main(list(map(str, words_))) == code
        assert f"{closed}: cannot be read: Permission denied" in capsys.readouterr().err
    for verb, code in (("status", 2), ("score", 2), ("check", 2), ("report", 5)):
        assert main([verb, str(closed), *(["--no-published"] if verb == "report" else [])]) == code, verb
        assert f"{closed}: cannot be read: Permission denied" in capsys.readouterr().err


def test_a_log_that_cannot_be_read_is_no_series_of_its_own_to_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic_logs.series(tmp_path, Made())
    (folder / "result_2.txt").unlink()
    os.mkfifo(folder / "result_2.txt")
    assert main(["package", str(folder), "--org", "us", "--division", "closed", "--out", str(tmp_path / "p")]) == 2
    said = capsys.readouterr().err
    assert f"{folder / 'result_2.txt'}: no regular file" in said and "2 series" not in said


def test_a_link_to_itself_costs_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = arms.write(tmp_path / "a", 0)
    for name in ("result_1.txt", "train.log"):
        (tmp_path / "a" / name).symlink_to(name)
    for given, code in (
        (["status", "a"], 1),
        (["check", "a"], 1),
        (["score", "a"], 1),
        (["report", "a", "--no-published"], 5),
        (["history", "--from", "a"], 0),
        (["collect", "a", "--into", "c"], 1),
        (["compare", "a", str(log)], 2),
    ):
        arguments = [str(tmp_path / word) if word in ("a", "c") else word for word in given]
        assert main(arguments) == code, given
        said = "".join(capsys.readouterr())
        assert "Too many levels" in said


@pytest.mark.parametrize("value", ["0", "-912", "9" * 400, '"912"', "912.5", "true"])
def test_a_batch_that_is_none_is_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    """MLPerf's checker takes any number, and the leaderboard had a first place of batch -912."""
    folder = synthetic_logs.series(tmp_path, Made())
    for log in folder.glob("*.txt"):
        log.write_text(
            log.read_text().replace('"global_batch_size", "value": 912', f'"global_batch_size", "value": {value}')
        )
    assert main(["score", str(folder), "--official"]) == 1
    assert "is no number of samples" in capsys.readouterr().out


def test_a_quality_that_is_none_is_not_called_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = synthetic_logs.write(tmp_path, 0, Made(qualities=((40, 0.18), (50, 23.25))))
    assert main(["status", str(log)]) == 1
    assert "no mAP reached 0.23 (best 0.1800)" in capsys.readouterr().out
    synthetic_logs.write(tmp_path, 0, Made(qualities=((50, 23.25),)))
    assert main(["status", str(log)]) == 1
    assert "no mAP reached 0.23 (23.25 is none)" in capsys.readouterr().out


def test_only_a_target_that_was_met_proposes_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not what a log calls a success, nor a demonstration."""
    for system, made in (
        ("good", Made()),
        ("boast", Made(qualities=((50, 23.25),), driver="590.1")),
        ("toy", Made(demonstration=True, driver="590.2")),
    ):
        synthetic_logs.write(tmp_path / system / "ssd", 0, made)
    assert main(["history", "--from", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "580.95.05" in out.partition("for drivers.toml")[2] and "590." not in out.partition("for drivers.toml")[2]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_wide_text_without_its_mark_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    log = arms.write(tmp_path, 0)
    log.write_bytes(log.read_text().encode(encoding))
    assert main(["status", str(log)]) == 1 and "UTF-16" in capsys.readouterr().out


def test_figures_that_are_equal_in_every_run_are_not_different(tmp_path: Path) -> None:
    """The mean of nine times 0.2325 is not 0.2325 to numpy, and there is no spread that hides it."""
    a, b = arms.in_turns(tmp_path, 8)
    arms.write(b, 20, turn=40)
    found = judged((a, b))
    assert found.quality is not None and found.quality.accuracy is not None
    assert found.quality.accuracy.difference == 0 and found.quality.accuracy.within
    assert any(
        "quality after epoch 6" in line and "the same in every run" in line
        for line in words.quality(found.quality, ("A", "B"))
    )


def test_a_difference_is_told_once_and_an_interval_has_two_ends(tmp_path: Path) -> None:
    """Of two published systems: the batch was refused by two names, and "54 % faster (54 to 54"."""
    other = {"made": arms.made(batch=456), "factor": 0.46}
    found = judged(arms.in_turns(tmp_path, b=other))
    assert found.comparability is not None
    assert sum("global_batch_size differs" in each for each in found.comparability.refusals) == 1
    found = judged(arms.in_turns(tmp_path / "2", b=other), allowed=("*",))
    low, high = re.findall(r"faster \(([\d.]+) to ([\d.]+), n", words.sentence(found))[0]
    assert low != high


def test_a_value_of_a_book_s_length_is_cut_in_the_sentence(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, 2, a={"change": arms.put("commit", "c" * 5_000)})
    found = judged((a, b))
    assert found.exit_code == 4 and len(words.sentence(found)) < 500


def test_no_result_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path, 2)
    before = (a / "result_0.txt").read_bytes()
    for option in ("--html", "--junit", "--markdown", "--bundle"):
        for target in (a / "result_0.txt", tmp_path / "telemetry_3.jsonl"):
            assert run(capsys, a, b, option, target)[0] == 2
    assert (a / "result_0.txt").read_bytes() == before


# --- what is written leaves the house ---


def test_a_bundle_tells_nothing_of_people_and_places(tmp_path: Path) -> None:
    import tarfile

    from harness.comparison.reporting import bundle

    secrets = {
        "alice": "the folder's owner",
        "node17": "a host, in a table and in a sentence",
        "/projects/secret lab/coco": "a path with a blank",
        "10.20.30.40": "an address at a line's end",
        "hunter2": "a password",
        "hf_abcdefghijklmnopqrstuv": "a token",
        "fe80::1ff:fe23:4567:890a": "an address of the newer kind",
        "7f3e4a0b": "a boot's id",
    }
    plain = (
        "rank 3 on node17 is the slowest\nNCCL INFO NET/Socket : Using 10.20.30.40\npassword: hunter2 "
        "HF_TOKEN=hf_abcdefghijklmnopqrstuv\nfrom fe80::1ff:fe23:4567:890a\n"
    )
    a, b = arms.in_turns(tmp_path / "alice_home", a={"change": _slowest}, b={"change": _slowest})
    a, b = a.rename(a.with_name("alice")), b.rename(b.with_name("alice_new"))
    for log in (*a.glob("*.txt"), *b.glob("*.txt")):
        log.write_text(plain + log.read_text())
    (a / "result_0.txt").rename(a / "alice.txt")
    (a / "result_1.txt").unlink()
    for log in a.glob("result_*.txt"):
        log.rename(a / log.name.replace("result_", "alice_"))
    target = tmp_path / "bundle.tar"
    bundle.write(judged((a, b)), target)
    with tarfile.open(target) as archive:
        files = {each.name: archive.extractfile(each).read().decode() for each in archive}  # type: ignore[union-attr]
        assert {(each.uname, each.gname, each.mtime) for each in archive.getmembers()} == {("", "", 0)}
    for name, text in files.items():
        for secret, what in secrets.items():
            assert secret not in name + text, f"{name}: {what}"
    log = files["comparison/B/001_result_0.txt"]
    assert log.count(":::MLLOG ") > 30 and "/usr/lib/x86_64-linux-gnu/libcuda.so.580" in log
    (stand_in,) = set(re.findall(r"on (redacted-\w{8}) is", log))
    assert f'"host": "{stand_in}"' in log, "one stand-in for one thing"


def _slowest(events: list[dict[str, Any]]) -> None:
    event = {**events[0], "key": "slowest_rank", "value": {"host": "node17", "data": "/projects/secret lab/coco"}}
    arms.put("hardware", {"boot_id": "0c5d1a5e-7f3e4a0b"})(events)
    events += [event, {**event, "value": {"libcuda": "/usr/lib/x86_64-linux-gnu/libcuda.so.580"}}]


def test_stand_ins_cannot_be_found_by_trying_names() -> None:
    from harness.comparison.reporting.redaction import Redaction

    one, other = (Redaction([("user", "alice")])("alice and alice") for _ in range(2))
    assert one != other and len(set(one.split(" and "))) == 1


def test_eighty_columns_of_all_this(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    (b / "result_9.txt").write_text(f"# {'x' * 200}\n{(b / 'result_1.txt').read_text()}")
    assert max(map(len, terminal.lines(judged((a, b))))) <= 80


# --- unlike epochs ---


def slow_at_first(events: list[dict[str, Any]]) -> None:
    """Half as long again for the first epoch, which everything after it waits for."""
    (end,) = [each for each in events if each["key"] == "epoch_stop" and each["metadata"]["epoch_num"] == 1]
    after = end["time_ms"]
    for event in events:
        event["time_ms"] += 3000 if event["time_ms"] >= after else 0
        if event["key"] == "phase_seconds" and event["metadata"]["epoch_num"] == 1:
            event["value"] = {name: 1.5 * seconds for name, seconds in event["value"].items()}


def test_an_arm_that_trained_one_epoch_is_compared_by_the_first_of_the_other(tmp_path: Path) -> None:
    """The first was left out of the arm that had another alone: 50 % slower, and faster the other way round."""
    many: dict[str, Any] = {"change": slow_at_first, "phases": PHASES}
    once = {**many, "made": arms.made(epochs=1, qualities=((1, 0.2325),))}
    for number, (a, b) in enumerate(((many, once), (once, many))):
        found = judged(arms.in_turns(tmp_path / str(number), a=a, b=b))
        assert found.word == "EQUAL", words.sentence(found)
        assert [round(100 * abs(row.means[1] / row.means[0] - 1)) for row in found.rows if row.gated] == [0, 0]
        assert {phase.name: round(phase.percent or 0) for phase in found.phases} == dict.fromkeys(PHASES, 0)
        assert any("of all runs the first epoch is" in note for note in found.notes)
    plain = judged(arms.in_turns(tmp_path / "plain", a=many, b=many))
    assert plain.rows[0].means[0] < 0.7 * found.rows[0].means[0], "without its first epoch, where all have another"
    assert not any("the first epoch is" in note for note in plain.notes)
