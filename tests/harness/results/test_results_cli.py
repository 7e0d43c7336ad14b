"""The verbs as a shell sees them: output, JSON, exit codes, and how fast they start."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.cli import main
from harness.results import status, table
from harness.results.checking.checker import check
from harness.results.logfile import read
from harness.results.status import as_json
from harness.rules import checkable
from tests.conftest import CHECKOUT
from tests.harness.results.logs import event, events, text, write, write_package, write_series


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("verb", ["status", "check", "score", "sysinfo", "collect", "package"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    script = f"""
import sys
import harness.cli.results
heavy = {{"torch", "pandas", "numpy", "matplotlib", "pydantic", "rich", "jinja2"}} & set(sys.modules)
from harness.cli import main
assert main(["{verb}", "--help"]) == 0
heavy |= {{"torch", "pandas", "numpy", "matplotlib", "rich", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"harness {verb}" in done.stdout


def test_the_list_of_verbs_is_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = call(capsys, "--help")
    usage, _, verbs = out.partition("Commands:")
    assert code == 0 and "[ARGS]..." in usage
    assert "..." not in verbs and max(map(len, verbs.splitlines())) <= 60


@pytest.mark.parametrize("name", ["b", "\u5bcc\u58eb\u901a" * 3, "\u5bcc\u58eb\u901a" * 8])
@pytest.mark.parametrize("columns", [40, 48, 60, 80, 100])
def test_no_figure_is_cut_off_beside_a_wide_name(name: str, columns: int) -> None:
    """A letter of Chinese takes two columns of a terminal: "306.6" was "30" beside a folder called so."""
    shown = io.StringIO()
    heading, figures = ("run", "gpus", "batch", "total", "images/s"), ("8", "912", "306.6", "19,505")
    console = Console(file=shown, width=columns, highlight=False)
    table._print(console, heading, [[f"{name}/result_0.txt", *figures]], set(heading[1:]))
    text = shown.getvalue()
    assert all(re.search(rf"(?<!\S){re.escape(each)}(?!\S)", text) for each in (*heading, *figures))
    assert max(map(cell_len, text.splitlines())) <= columns


@pytest.mark.parametrize("verb", ["status", "check", "score", "collect"])
def test_a_path_that_is_not_there_is_usage(capsys: pytest.CaptureFixture[str], verb: str, tmp_path: Path) -> None:
    code, out, err = call(capsys, verb, tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path}/nothing: no such file or folder\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("verb", ["status", "check", "score"])
def test_a_log_that_may_not_be_read_costs_a_line(capsys: pytest.CaptureFixture[str], verb: str, tmp_path: Path) -> None:
    log = write(tmp_path / "result_0.txt", events())
    log.chmod(0)
    code, out, _ = call(capsys, verb, log)
    assert code == 1 and "cannot be read: Permission denied" in out


@pytest.mark.parametrize("verb", ["status", "check", "score"])
def test_one_bad_file_among_good_ones_costs_a_line(
    capsys: pytest.CaptureFixture[str], verb: str, tmp_path: Path
) -> None:
    write_series(tmp_path / "good", 1)
    (tmp_path / "bad").mkdir()
    os.mkfifo(tmp_path / "bad/result_0.txt")
    (tmp_path / "bad/result_1.txt").symlink_to("/dev/zero")
    (tmp_path / "empty").mkdir()
    code, out, err = call(
        capsys, verb, tmp_path / "good", tmp_path / "bad", *([] if verb == "status" else [tmp_path / "empty"])
    )
    assert code == 1
    assert "no regular file" in out
    assert {"status": "608.1", "check": "good/result_0.txt: passed", "score": "10.13"}[verb] in out, (
        "the good run is there too"
    )
    assert verb == "status" or f"{tmp_path}/empty: no result log in it" in err


def test_a_log_that_goes_away_is_told(tmp_path: Path) -> None:
    from harness.results.status import Followed

    record = Followed(tmp_path / "result_0.txt").refresh()
    assert (record.outcome, record.reason) == ("empty", "cannot be read: No such file or directory")


def test_an_unknown_ruleset_is_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = write(tmp_path / "result_0.txt", events())
    for verb in ("check", "score"):
        code, _, err = call(capsys, verb, log, "--ruleset", "6.0.0")
        assert (code, err) == (2, f"error: --ruleset 6.0.0: not one of {', '.join(checkable())}\n")


# --- status ---


def test_status_is_the_table_of_mll_status(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = write(tmp_path / "result_0.txt", events())
    code, out, _ = call(capsys, "status", log)
    assert code == 0
    heading, _, row = out.splitlines()
    assert " ".join(heading.split()) == (
        "run gpus batch total converged now images/s init first epoch mean epoch epoch/seconds/quality ..."
    )
    assert " ".join(row.split()) == "result_0.txt 8 912 608.1 yes 9,772 31.0 12.00 12.00 40 3.0 0.1600 | 50 3.0 0.2301"


def test_status_of_a_clock_that_was_set_back_has_no_negative_seconds(tmp_path: Path) -> None:
    """By two minutes, before the first epoch ended: it took -108.0 s, and the run -94.0 so far."""
    log = [{**each, "time_ms": each["time_ms"] - 120_000 * (n > 27)} for n, each in enumerate(events()[:32])]
    assert log[27]["key"] == "epoch_start"
    found = as_json(read(write(tmp_path / "result_0.txt", log)))
    assert (found["first_epoch_s"], found["mean_epoch_s"], found["epochs"]) == (None, 12.0, 1), "the second one's"
    assert found["total_s"] == 2.0, "the last that is known to lie behind run_start"
    latest = (
        log[31]["time_ms"] / 1000
    )  # by the clock as it is now: by the latest stamp of all it was not known for two minutes
    ages = [as_json(read(tmp_path / "result_0.txt"), latest + later)["last_line_age_s"] for later in (-60, -1, 5)]
    assert ages == [None, 0, pytest.approx(5)]


def test_status_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    going_on = write(tmp_path / "a/result_0.txt", events()[:60])
    failed = write(tmp_path / "b/result_0.txt", events(status="aborted"))
    assert call(capsys, "status", going_on)[0] == 0
    assert call(capsys, "status", failed)[0] == 1
    assert call(capsys, "status", going_on, failed)[0] == 1


def test_status_json_of_a_run_that_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "status", "--json", write(tmp_path / "result_0.txt", events()[:60]))
    (run,) = json.loads(out)
    assert (code, run["outcome"], run["total_s"]) == (0, "unfinished", 2 + 16 * 12)
    assert (run["epochs"], run["gpus"]) == (16, 8)


def test_status_says_where_a_run_is_and_what_comes_next(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = {"configuration": {"run": {"ruleset": "0.7.0", "evaluate_after_epochs": [40, 50]}}}
    log = events(own=own)[:61]  # in its 17th epoch
    stats = event(
        log[-1]["time_ms"] + 3_000, "tracked_stats", {"loss": 3.1, "throughput": 9_876.5}, step=40, epoch_num=17
    )
    path = write(tmp_path / "a/result_0.txt", [*log, stats])
    write(tmp_path / "b/result_0.txt", events())
    _, out, _ = call(capsys, "status", tmp_path)
    going_on, ended = out.splitlines()[2:]
    assert going_on.startswith("a/result_0.txt") and ended.startswith("b/result_0.txt")
    assert "not yet" in going_on and "epoch 17, step 40, wrote" in going_on and "9,876" in going_on
    assert "evaluates after epoch 40" in going_on
    found = as_json(read(path), now_s=stats["time_ms"] / 1000 + 9)
    assert found["last_line_age_s"] == pytest.approx(9) and found["next_evaluation"]["epoch"] == 40
    assert found["next_evaluation"]["due_s"] == pytest.approx(24 * 12 - 12)


def by_rank(epoch: int, *step_ms: float) -> dict[str, Any]:
    steps = list(step_ms)
    table = {"slowest": steps.index(max(steps)), "host": "node2", "median_ms": sorted(steps)[1], "step_ms": steps}
    return event(1_592_669_990_000, "step_ms_by_rank", table, epoch_num=epoch)


def test_the_slowest_rank_is_of_the_last_epoch_while_a_run_goes_on_and_of_all_when_it_has_ended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The first epoch pays for caches: its slowest rank is nobody's fault."""
    told = [by_rank(1, 900, 100, 100), by_rank(2, 100, 100, 140), by_rank(3, 100, 100, 130), by_rank(4, 120, 100, 100)]
    write(tmp_path / "a/result_0.txt", [*events()[:61], *told])
    write(tmp_path / "b/result_0.txt", [*events(), *told])
    _, out, _ = call(capsys, "status", tmp_path)
    assert "slowest rank 0 on node2, 1.20 times the median" in out.splitlines()[2]
    found = as_json(read(tmp_path / "b/result_0.txt"))["slowest_rank"]
    assert found == {"rank": 2, "host": "node2", "times": pytest.approx(1.35), "epochs": 2, "of": 3}
    assert as_json(read(write(tmp_path / "c/result_0.txt", events())))["slowest_rank"] is None


@pytest.mark.parametrize(
    "damage",
    [
        {"slowest": 7},
        {"slowest": "1"},
        {"slowest": True},
        {"step_ms": "fast"},
        {"median_ms": 0},
        {"step_ms": [1, None, 3]},
    ],
)
def test_a_damaged_table_of_ranks_says_nothing(tmp_path: Path, damage: dict[str, Any]) -> None:
    bad = by_rank(2, 100, 140, 100)
    bad["value"] |= damage
    assert read(write(tmp_path / "result_0.txt", [*events(), bad])).slowest_rank is None


def test_status_follows_a_log_while_it_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result_0.txt"
    content = text(events()).encode()
    path.write_bytes(content[:5_000])
    more = iter([content[at : at + 9_000] for at in range(5_000, len(content), 9_000)])

    def written_meanwhile(_: float) -> None:
        with path.open("ab") as file:
            file.write(next(more))

    monkeypatch.setattr(status, "time", SimpleNamespace(time=time.time, sleep=written_meanwhile))
    code, out, _ = call(capsys, "status", "--follow", path)
    assert code == 0
    assert out.count("first epoch") == 1 + -(-(len(content) - 5_000) // 9_000) > 1
    assert "yes" in out.splitlines()[-1]


def test_no_log_can_fake_a_line_of_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = events()
    log[-1]["metadata"] = {"status": "aborted", "reason": "nan\x1b[2J\rresult_0.txt yes"}
    _, out, _ = call(capsys, "status", write(tmp_path / "result_0.txt", log))
    assert "\x1b" not in out and "\r" not in out
    assert "nan\\x1b[2J\\rresult_0.txt yes" in out


# --- score ---


def test_score_says_minutes_and_standing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path / "results/dgx/ssd")
    code, out, _ = call(capsys, "score", tmp_path)
    assert code == 0
    assert out.startswith("dgx/ssd: 10.1517 minutes (official)\n")
    assert "the mean of 3 of 5 runs, the fastest and the slowest dropped" in out
    code, out, _ = call(capsys, "score", tmp_path, "--json")
    (series,) = json.loads(out)["series"]
    assert (code, series["minutes"], series["official"], series["name"]) == (0, 10.1517, True, "dgx/ssd")
    assert [run["place"] for run in series["runs"]] == ["fastest", "counted", "counted", "counted", "slowest"]
    assert series["images_per_s_per_accelerator"] == pytest.approx(117266 / 12.02 / 8)


def test_score_of_what_has_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path / "result_0.txt", events(status="aborted"))
    code, out, _ = call(capsys, "score", tmp_path)
    assert code == 1
    assert "no score (not official: 1 run; the rules want 5)" in out


# --- check ---


def test_check_of_a_good_series(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path)
    code, out, _ = call(capsys, "check", tmp_path)
    assert code == 0, out
    assert out.startswith(f"{tmp_path}: passed, 0 errors, 0 warnings (5 runs, ruleset 0.7.0 (by its keys))")
    assert "compliance checker" in out and "SUCCESS" in out


@pytest.mark.parametrize(
    ("ruleset", "key"), [("1.0.0", "gradient_accumulation_steps"), ("1.1.0", "weights_initialization")]
)
def test_check_by_another_ruleset(capsys: pytest.CaptureFixture[str], tmp_path: Path, ruleset: str, key: str) -> None:
    log = write(tmp_path / "result_0.txt", events())
    code, out, _ = call(capsys, "check", log, "--ruleset", ruleset, "--json")
    assert code == 1
    (report,) = json.loads(out)["checked"]
    assert (key, "compliance checker") in {(each["key"], each["rule"]) for each in report["findings"]}


def test_an_official_score_is_one_that_mlperf_s_tools_accept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Asked by the verb itself: nobody had checked."""
    series = write_series(tmp_path / "series")
    assert call(capsys, "score", "--official", series)[0] == 0
    for path in series.glob("result_*.txt"):
        path.write_text("".join(line for line in path.open() if "opt_base_learning_rate" not in line))
    assert call(capsys, "score", series)[0] == 0
    code, out, _ = call(capsys, "score", "--official", series)
    assert code == 1 and "not official: MLPerf's tools refuse it" in out and "opt_base_learning_rate" in out


def test_a_run_under_another_name_is_not_dropped_in_silence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A sixth run, the slowest, as result_5_retry.txt: five were official, and MLPerf counts six."""
    series = write_series(tmp_path / "series")
    write(series / "console.LOG", events(seed=900))
    (series / "notes.txt").write_text("no log\n")
    official = call(capsys, "score", series)
    assert official[0] == 0 and "not official" not in official[1]
    assert f"{series}: left out: console.LOG: beside result_N.txt" in official[2] and "notes" not in official[2]
    retry = write(series / "result_5_retry.txt", events(seed=999, epoch_ms=30_000))
    _, out, err = call(capsys, "score", series)
    assert "not official: result_5_retry.txt: result files" in out and "console.LOG, result_5_retry.txt" in err
    assert call(capsys, "check", series)[0] == 1
    package = ("package", "--org", "Someone", "--division", "closed", "--out", tmp_path / "out")
    for verb in (("status",), ("collect", "--into", tmp_path / "into"), package):
        _, out, err = call(capsys, verb[0], series, *verb[1:])
        assert all(
            each in f"{out}{err}" for each in ("console.LOG", "result_5_retry.txt", "only files of such a name")
        ), verb
    _, out, err = call(capsys, "score", *sorted(series.glob("result_?.txt")))
    assert "left out" not in err and "not official" not in out, "who names logs has left the others out"
    (notes := retry.rename(series / "result_5_notes.txt")).write_text("MLPerf counts it by its name\n")
    assert call(capsys, "check", series)[0] == 1
    write(series / "result_4.txt", events(seed=9, own={"configuration_sha256": "cd" * 32}))  # of another series
    _, out, _ = call(capsys, "report", series, "--no-published", "--json")
    assert [Path(each["path"]).name for each in json.loads(out)["left_out"]] == [notes.name], "told once"
    notes.unlink()
    assert call(capsys, "report", series, "--no-published")[0] == 0, "a console's copy should be no result"


def test_in_a_package_a_run_under_another_name_is_one_error(tmp_path: Path) -> None:
    """It was said that run_start and run_stop are not clear, since MLPerf's summarizer counts six."""
    folder = write_package(tmp_path / "Someone") / "results/dgxa100_test/ssd"
    write(folder / "result_5_retry.txt", events(seed=999, epoch_ms=30_000))
    (report,) = check([tmp_path / "Someone"])
    found = [(each.rule, each.file) for each in report.findings if each.severity == "error"]
    assert ("result files", "results/dgxa100_test/ssd/result_5_retry.txt") in found
    assert {rule for rule, _ in found} == {"result files", "package checker"}


def test_check_of_a_package(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    before = sorted((path, path.stat().st_mtime_ns) for path in package.rglob("*"))
    code, out, _ = call(capsys, "check", tmp_path, "--json")
    content = json.loads(out)
    (report,) = content["checked"]
    assert (code, content["ok"], report["path"]) == (0, True, str(package))
    assert {each["tool"] for each in report["official"]} == {
        "compliance checker",
        "system description checker",
        "package checker",
        "RCP checker",
        "result summarizer",
    }
    assert sorted((path, path.stat().st_mtime_ns) for path in package.rglob("*")) == before


def test_the_same_in_several_files_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path, 3, evaluations=((40, 0.1), (45, 0.2), (50, 0.24)))
    code, out, _ = call(capsys, "check", tmp_path)
    assert code == 1
    (line,) = [line for line in out.splitlines() if "evaluation schedule" in line]
    assert f"{tmp_path}/result_0.txt and 2 more" in line
    code, out, _ = call(capsys, "check", tmp_path, "--json")
    findings = json.loads(out)["checked"][0]["findings"]
    assert sum(each["rule"] == "evaluation schedule" for each in findings) == 3


def test_a_series_in_a_package_is_held_against_its_system(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    path = package / "systems/dgxa100_test.json"
    series = package / "results/dgxa100_test/ssd"
    assert call(capsys, "check", series)[0] == 0
    path.write_text(path.read_text().replace('"Someone"', '"Other"'))
    code, out, _ = call(capsys, "check", series)
    assert (code, "the system's submitter is Other" in out) == (1, True)


def test_check_of_no_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    code, out, _ = call(capsys, "check", path)
    assert code == 1
    assert "no line in MLPerf's log format could be read" in out


def test_check_of_a_log_that_is_no_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    path.write_text(":::MLLOG {'key': 'run_start'}\n" + text(events()))
    code, out, _ = call(capsys, "check", path)
    assert code == 1
    assert "readable: malformed" in out and "Log lines had parsing errors." in out


def test_a_big_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    lines = text(events()).splitlines(keepends=True)
    noise = "".join(f"{rank}: step 1 loss 3.14159\n" for rank in range(1_000))
    with path.open("w") as file:
        for line in lines:
            file.write(line)
            file.write(noise)
    assert path.stat().st_size > 6_000_000
    code, _, _ = call(capsys, "check", path)
    assert code == 0


def test_ci_can_gate_on_an_official_score(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    assert call(capsys, "score", tmp_path)[0] == 0
    assert call(capsys, "score", tmp_path, "--official")[0] == 1
    write_series(tmp_path)
    assert call(capsys, "score", tmp_path, "--official")[0] == 0


@pytest.mark.parametrize("width", [20, 28, 60, 80, 100, 140])
@pytest.mark.parametrize("verb", ["score", "status"])
def test_no_figure_is_broken_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str, width: int
) -> None:
    """At 80 columns every cell was a tower of syllables, 19,42 over 8, resul over t_87. over txt; at 20 10.1517 was 10.151."""
    from rich.console import Console

    from harness.results import table

    folder = write_series(tmp_path / "x" / "ssd", 5)
    wide = main([verb, str(folder)]), capsys.readouterr().out
    monkeypatch.setattr(table, "_console", lambda: Console(highlight=False, width=width, soft_wrap=False))
    narrow = main([verb, str(folder)]), capsys.readouterr().out
    assert narrow[0] == wide[0]
    words = set(re.findall(r"(?<!\S)(?:result_\d\.txt|\d[\d,.]*)(?!\S)", wide[1].rpartition("─\n")[2]))
    assert len(words) > 10
    assert not [each for each in words if not re.search(rf"(?<!\S){re.escape(each)}(?!\S)", narrow[1])]
    table_lines = narrow[1][narrow[1].index("\nrun" if verb == "score" else "run") :].splitlines()
    assert max(map(len, table_lines)) <= width


def test_a_table_of_one_column_has_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from harness.results import table

    monkeypatch.setattr(table, "_console", lambda: Console(width=12, highlight=False))
    table.show_table(("figures",), [["1,234,567"], ["12,345,678,901"]], right=("figures",))
    assert capsys.readouterr().out.split() == ["figures:", "1,234,567", "figures:", "12,345,678,9", "01"]
    table.show_table(("figures",), [["1,234,567"]], right=("figures",))
    assert "figures:" not in capsys.readouterr().out


def test_findings_are_folded_where_a_terminal_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from harness.results import table

    for width in (60, 100, 140):
        monkeypatch.setattr(table, "_console", lambda width=width: Console(width=width, highlight=False))
        rows = [
            [
                "error",
                "results/system/ssd/result_0.txt",
                "run_stop",
                "12",
                "outcome",
                "aborted: " + "why " * 30,
                "see it",
            ]
        ]
        table.show_findings(("", "file", "key", "line", "rule", "found", "what to do"), rows, right=("line",))
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= width
        assert "result_0.txt" in out.replace("\n", "") or width == 140
        assert ("what to do" in out) == (width >= table.NARROW)


# --- sysinfo ---


def test_sysinfo_has_mlperfs_fields_all_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mlperf_logging.system_desc_checker import system_desc_checker

    code, out, err = call(capsys, "sysinfo", "--set", "submitter=Someone", "--set", "status=Available on-premise")
    description = json.loads(out)
    assert (code, len(description)) == (0, 33)
    assert all(isinstance(value, str) for value in description.values())
    assert (description["submitter"], description["status"]) == ("Someone", "onprem")
    assert "only a person can know: division, system_name" in err
    path = tmp_path / "system.json"
    path.write_text(out)
    assert system_desc_checker.check_system_desc(str(path), "training", "1.1.0")[0]


def test_sysinfo_in_the_newer_words(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "sysinfo", "--set", "status=onprem", "--ruleset", "4.1.0")
    assert json.loads(out)["status"] == "Available on-premise"


def test_sysinfo_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "sysinfo", "--set", "status=somewhere")[0] == 2
    assert call(capsys, "sysinfo", "--set", "cooling")[0] == 2
    assert call(capsys, "sysinfo", "--ruleset", "abc")[0] == 2
    assert call(capsys, "sysinfo", "--set", "unknown=1")[0] == 2


# --- collect ---


def test_collect_and_its_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path / "out", 2)
    write(tmp_path / "out/result_2.txt", [*events()[:60], event(1, "x")])
    code, out, _ = call(capsys, "collect", tmp_path / "out", "--into", tmp_path / "results", "--json")
    content = json.loads(out)
    assert code == 1
    assert [each["note"] for each in content["collected"]] == ["out/ssd/result_0.txt", "out/ssd/result_1.txt"]
    assert "no run_stop" in content["refused"][0]["note"]
    (tmp_path / "out/result_2.txt").unlink()
    code, out, _ = call(capsys, "collect", tmp_path / "out", "--into", tmp_path / "results")
    assert (code, out.count("there already")) == (0, 2)


@pytest.mark.parametrize("verb", ["package", "collect"])
def test_a_signal_ends_a_verb_that_writes_as_an_error_does(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Half of a package stayed where `report` looks: by itself SIGTERM ends Python without any `finally`."""
    closed = []

    def asked_to_end(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            closed.append(True)

    monkeypatch.setattr(f"harness.results.{verb}.{verb}", asked_to_end)
    options = ("--org", "Someone", "--division", "closed") if verb == "package" else ("--into", tmp_path / "into")
    code, _, err = call(capsys, verb, write_series(tmp_path / "out"), *options)
    assert (code, closed) == (130, [True]) and "SIGTERM" in err
