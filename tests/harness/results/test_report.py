"""The leaderboard from logs: its table, its JSON, its page as text, and what it may and may not write."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import html
import io
import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import report as verb
from harness.results.collect import collect
from harness.results.reporting import page as report_page
from harness.results.reporting import report
from harness.results.reporting import terminal as report_terminal
from harness.results.reporting.leaderboard import Row
from harness.results.series import find_series
from tests.harness.results import logs, synthetic_logs
from tests.harness.results.synthetic_logs import Made

pytestmark = pytest.mark.early

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = """<img src=x onerror="alert(1)">'&amp;"""

A100 = Made(system="a100x8", device="NVIDIA A100-SXM4-40GB", epoch_s=12.0)
DEMONSTRATION = Made(
    **{"system": "demo", "division": "open", "accelerators": 1, "batch": 16, "epochs": 8, "epoch_s": 15.0},
    **{"qualities": ((4, 0.12), (8, 0.31)), "device": "", "on_cpu": True, "demonstration": True},
)


def rows(folder: Path, *, published: bool = False) -> dict[str, Row]:
    return {row.system: row for row in report.gather([folder], generated=NOW, published=published).rows}


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if isinstance(result.exception, ValueError):
        return 2, result.stdout, str(result.exception)  # as harness.cli.main has it
    return result.exit_code, result.stdout, result.stderr


# --- rows --------------------------------------------------------------------------------------------------------------


def test_a_series_of_our_own_is_a_measured_row(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    [row] = report.gather([tmp_path], generated=NOW, published=False).rows
    assert (row.origin, row.unofficial, row.rank) == ("measured", (), 1)
    assert (row.accelerator, row.accelerators, row.nodes) == ("A100-SXM4-40GB", 8, 1)
    assert (row.ruleset, row.global_batch, row.metric, row.target) == ("0.7.0", 912, "mAP", 0.23)
    # Run k takes 50 epochs of 12 s (1 + 0.002 k) and two evaluations of 3 s; the first and the last run do not count.
    assert row.minutes == pytest.approx((600 * 1.004 + 6) / 60, abs=1e-4)
    assert row.minutes_spread is not None
    assert row.minutes_spread.n == 5
    assert (row.minutes_spread.minimum, row.minutes_spread.maximum) == pytest.approx((10.1, 10.18), abs=1e-3)
    assert row.images_per_s == pytest.approx(128 * 912 / (12 * 1.004), rel=1e-3)  # whole batches
    assert [run.counted for run in row.runs] == [False, True, True, True, False]
    assert [(each.epoch, each.quality) for each in row.runs[0].evaluations] == [(40, 0.182), (50, 0.2325)]
    facts = {section.title: dict(section.facts) for section in row.sections}
    assert facts["Software"]["driver"] == "580.95.05"
    assert facts["Configuration"]["run.accelerators_per_node"] == "8"
    assert facts["Hashes (SHA-256)"]["data"] == "d" * 64
    log = tmp_path / "a100x8" / "ssd" / "result_0.txt"
    assert facts["Hashes (SHA-256)"]["result_0.txt"] == hashlib.sha256(log.read_bytes()).hexdigest()


def test_the_rank_that_a_run_waited_for_is_in_its_row(tmp_path: Path) -> None:
    folder = synthetic_logs.series(tmp_path, A100)
    table = {"slowest": 5, "host": "node1", "median_ms": 80.0, "step_ms": [80.0] * 5 + [100.0] + [80.0] * 2}
    with (folder / "result_0.txt").open("a") as log:
        for epoch in (2, 3):
            log.write(
                f":::MLLOG {json.dumps(logs.event(1_592_669_990_000, 'step_ms_by_rank', table, epoch_num=epoch))}\n"
            )
    [row] = report.gather([tmp_path], generated=NOW, published=False).rows
    facts = {section.title: dict(section.facts) for section in row.sections}
    assert facts["Slowest ranks"] == {"result_0.txt": "rank 5 on node1, 1.25 times the median rank's step"}


def test_what_was_evaluated_after_the_end_is_no_quality_of_the_run(tmp_path: Path) -> None:
    """The page had 0.31 where score had 0.2325."""
    folder = synthetic_logs.series(tmp_path, A100)
    for log in folder.iterdir():
        late = json.loads(log.read_text().splitlines()[-1].removeprefix(":::MLLOG "))["time_ms"] + 60_000
        events = [
            logs.event(late, key, value, epoch_num=55) for key, value in (("eval_start", None), ("eval_accuracy", 0.31))
        ]
        log.write_text(log.read_text() + logs.text(events))
    [row] = report.gather([tmp_path], generated=NOW, published=False).rows
    [series] = find_series([tmp_path])
    assert row.quality == (0.2325, 0.2325) and row.epochs == (50, 50)
    assert [run.quality for run in row.runs] == [record.accuracy for record in series.records]


def test_it_stands_in_one_group_with_what_was_published(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    board = report.gather([tmp_path], generated=NOW)
    [group] = [group for group in board.groups if any(row.origin == "measured" for row in group.rows)]
    assert [(row.group_rank, row.submitter, row.origin) for row in group.rows] == [
        (1, "us", "measured"),
        (2, "NVIDIA", "published"),
        (3, "Inspur", "published"),
    ]


def test_logs_of_another_benchmark_take_no_published_row_s_place(tmp_path: Path) -> None:
    """One system runs many benchmarks, and a published row has its name: the second of its group was gone."""
    for seed in range(5):
        log = [each for each in logs.events(seed=seed) if each["key"] != "submission_benchmark"]
        log[0]["value"] = "NVIDIA"  # submission_org
        log.insert(0, logs.event(logs.START_MS, "submission_benchmark", "resnet"))
        logs.write(tmp_path / f"dgxa100_ngc20.06_pytorch/resnet/result_{seed}.txt", log)
    alone, board = report.gather([], generated=NOW), report.gather([tmp_path], generated=NOW)
    ranks = {row.id: (row.rank, row.group_rank) for row in alone.rows}
    assert {row.id: (row.rank, row.group_rank) for row in board.rows if row.origin == "published"} == ranks
    [read] = [row for row in board.rows if row.origin != "published"]
    published = [row for row in board.rows if row.system == read.system and row.ruleset == read.ruleset and row != read]
    assert (read.benchmark, [row.benchmark for row in published]) == ("resnet", ["ssd"])


@pytest.mark.parametrize(
    "made, runs, reason",
    [
        (A100, 4, "4 runs; the rules want 5"),
        (Made(**{**vars(A100), "division": "open"}), 5, "division open"),
        (DEMONSTRATION, 1, "demonstration data"),
        (Made(**{**vars(A100), "qualities": ((50, 0.2299),)}), 5, "5 runs did not converge"),
    ],
)
def test_what_the_rules_do_not_let_stand_is_marked_and_not_ranked(
    tmp_path: Path, made: Made, runs: int, reason: str
) -> None:
    synthetic_logs.series(tmp_path, made, runs)
    [row] = rows(tmp_path).values()
    assert row.rank is None
    assert any(each.startswith(reason) for each in row.unofficial), row.unofficial
    page = report_page.render(report.gather([tmp_path], generated=NOW), tmp_path)
    assert html.escape(row.unofficial[0]) in page


def test_a_driver_that_changed_inside_a_series_is_told(tmp_path: Path) -> None:
    folder = synthetic_logs.series(tmp_path, A100, 4)
    synthetic_logs.write(folder, 4, Made(**{**vars(A100), "driver": "590.1"}))
    [row] = rows(tmp_path).values()
    assert row.note == "Its runs differ in software: driver."
    [software] = [section for section in row.sections if section.title == "Software"]
    assert dict(software.facts)["driver"] == "580.95.05 | 590.1"


def test_a_pause_within_a_run_is_told_in_its_row(tmp_path: Path) -> None:
    logs.write_series(tmp_path / "ssd")
    log = logs.changed(logs.events(), "run_stop", lambda each: each["metadata"].update(paused_s=40.02))
    logs.write(tmp_path / "ssd" / "result_1.txt", log)
    (row,) = rows(tmp_path).values()
    assert "result_1.txt: its time holds a pause of 40.0 s." in (row.note or "")


def test_logs_of_others_are_not_called_measured_and_take_the_place_of_the_published_row(test_data: Path) -> None:
    board = report.gather([test_data / "mlperf-results" / "v0.7"], generated=NOW)
    found = [row for row in board.rows if row.system == "dgxa100_ngc20.06_pytorch"]
    assert [(row.origin, row.minutes, row.accelerator, row.group_rank) for row in found] == [
        ("read", 10.2148, "A100-SXM4-40GB", 1)
    ]
    assert sum(row.benchmark == "ssd" and row.ruleset < "2" for row in board.rows) == 68


def test_a_file_that_is_no_log_is_named(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    broken = tmp_path / "other" / "ssd" / "result_0.txt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"\x00\xff:::MLLOG {\nTraceback")
    board = report.gather([tmp_path], generated=NOW, published=False)
    assert [row.system for row in board.rows] == ["a100x8"]
    assert [each.path for each in board.left_out] == [str(broken)]
    assert str(broken) in report_page.render(board, tmp_path)


# --- the terminal --------------------------------------------------------------------------------------------------------

# ruff: noqa: RUF001, E501 -- the table has dashes and crosses, and is wide
TABLE = """\
#  system                                  accelerators           batch  origin                minutes   min to max      CV  n  images/s  images/s CV  per accel.  epochs  quality  date
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
   SSD300 on COCO 2017: measured here
1  a100x8 (us)                             8 × A100-SXM4-40GB       912  measured                10.14  10.10–10.18  0.31 %  5     9,689       0.31 %       1,211      50   0.2325  2026-09-21
–  h100x8 (us)                             8 × H100 80GB HBM3       912  measured, unofficial    5.110  5.100–5.120  0.20 %  3    19,417       0.20 %       2,427      50   0.2325  2026-09-21

   Demonstrations, comparable with
   nothing else
–  demo (us)                               1 × CPU AMD EPYC 9654     16  measured, unofficial    2.100        2.100       –  1     7,818            –       7,818       8   0.3100  2026-09-21
h100x8 (us): unofficial, not ranked: 3 runs; the rules want 5
"""


def test_the_table(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    synthetic_logs.series(tmp_path, Made(), 3)
    synthetic_logs.series(tmp_path, DEMONSTRATION, 1)
    out = io.StringIO()
    report_terminal.show(
        report.gather([tmp_path], generated=NOW, published=False), Console(file=out, width=190, color_system=None)
    )
    shown = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    assert shown.splitlines()[: TABLE.count("\n")] == TABLE.splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 140])
def test_a_narrow_terminal_gets_fewer_columns_and_nothing_cut(tmp_path: Path, width: int) -> None:
    synthetic_logs.series(tmp_path, Made(), 3)
    out = io.StringIO()
    report_terminal.show(
        report.gather([tmp_path], generated=NOW, published=False), Console(file=out, width=width, color_system=None)
    )
    heading, line, *_ = out.getvalue().splitlines()
    assert len(line.rstrip()) <= width
    assert {"system", "origin", "minutes"} <= set(heading.split())
    assert "measured, unofficial" in out.getvalue()
    assert "5.110" in out.getvalue()


def test_a_long_name_is_folded_before_a_column_is_left_out(tmp_path: Path) -> None:
    """One of 60 columns took the accelerators and the batch of every other system from a terminal of 120."""
    synthetic_logs.series(tmp_path, Made(), 3)
    synthetic_logs.series(tmp_path, Made(system="a" * 29 + "_" + "b" * 30), 3)
    out = io.StringIO()
    report_terminal.show(
        report.gather([tmp_path], generated=NOW, published=False), Console(file=out, width=120, color_system=None)
    )
    lines = out.getvalue().splitlines()
    assert all(each in lines[0] for each in ("accelerators", "batch", "images/s"))
    assert max(len(line.rstrip()) for line in lines[:8]) <= 120
    assert "a" * 29 in out.getvalue() and "5.110" in out.getvalue()


def test_an_escape_sequence_in_a_log_does_not_reach_the_terminal(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, Made(**{**vars(A100), "org": "\x1b]0;taken over\x07us"}))
    code, out, _ = invoke(tmp_path, "--no-published")
    assert code == 0
    assert "taken over" in out
    assert "\x1b" not in out


# --- the page as text ------------------------------------------------------------------------------------------------------


def test_text_from_logs_stays_text(tmp_path: Path) -> None:
    made = Made(
        org=HOSTILE,
        device=f"NVIDIA {HOSTILE}",
        driver="</script><script>alert(2)</script>",
        system="<b>x</b>".replace("/", "_"),
    )
    synthetic_logs.series(tmp_path, made)
    page = report_page.render(report.gather([tmp_path], generated=NOW, published=False), tmp_path)
    assert "<img" not in page
    assert "<b>" not in page
    assert len(re.findall(r"<script\b", page)) == 2  # the data and the code
    assert html.escape(HOSTILE, quote=False)[:20] in page
    [row] = [row for group in data_of(page)["groups"] for row in group["rows"]]
    assert row["submitter"] == HOSTILE


def test_what_somebody_brought_is_not_folded_away(tmp_path: Path) -> None:
    """Logs of round 0.7 lay in its section, folded as history is: a page of them began without any."""
    logs.write_series(tmp_path / "system/ssd")
    board = report.gather([tmp_path], generated=NOW)
    [heading] = [heading for heading, rows in board.sections if any(row.origin == "read" for row in rows)]
    page = report_page.render(board, tmp_path)
    sections = re.findall(r'data-old="(yes|no)">.*?<span class="what">(.*?)</span>', page, re.DOTALL)
    states = {what: state for state, what in sections}
    assert heading.endswith("ruleset 0.7.0") and states[heading] == "no"
    assert states[heading.replace("0.7.0", "1.0.0")] == "yes"


def test_no_row_is_taken_for_a_part_of_the_page(tmp_path: Path) -> None:
    """富士通 with its logs in results/ was called "results", as the section of all rows is: the page showed none of them."""
    page = report_page.render(report.gather([], generated=NOW), tmp_path)
    own = [each for each in re.findall(r' id="([^"]*)"', page) if not each.startswith("row-")]
    board = report.gather([], generated=NOW)
    group = board.groups[0]
    named = [group.rows[0].model_copy(update={"id": each}) for each in own]
    board = board.model_copy(update={"groups": (group.model_copy(update={"rows": tuple(named)}),)})
    ids = re.findall(r' id="([^"]*)"', report_page.render(board, tmp_path))
    assert len(own) > 30 and len(ids) > 2 * len(own) and len(ids) == len(set(ids))


def test_a_name_is_chosen_as_it_is_written(tmp_path: Path) -> None:
    """Without a value of its own a browser's choice is its text, with two spaces made one: it matched no row."""
    synthetic_logs.series(tmp_path, Made(org="Acme  Corp"))
    page = report_page.render(report.gather([tmp_path], generated=NOW, published=False), tmp_path)
    assert '<option value="Acme  Corp">' in page
    assert "<option>" not in page


def test_the_policy_names_the_one_script_there_is(tmp_path: Path) -> None:
    page = report_page.render(report.gather([], generated=NOW), tmp_path)
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = report_page.render(report.gather([], generated=NOW), tmp_path)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"\bsrc=|@import|url\(|<iframe|<object|<embed", markup)
    assert {tag for tag, _ in re.findall(r"<(\w+)\b[^>]*\bhref=\"(https?:[^\"]*)\"", markup)} == {"a"}
    assert re.findall(r"<link [^>]*>", markup) == ['<link rel="icon" href="data:,">']


def test_every_published_row_is_marked_and_linked(tmp_path: Path) -> None:
    board = report.gather([], generated=NOW)
    page = report_page.render(board, tmp_path)
    assert "No result measured here yet" in page
    for row in board.rows:
        [line] = re.findall(rf'<tr class="row published[^"]*" id="row-{row.id}".*?</tr>', page, re.DOTALL)
        assert f'href="{row.source}"' in line
        assert "not measured by us" in line


def test_links_lead_to_the_logs_whatever_their_names(tmp_path: Path) -> None:
    folder = synthetic_logs.series(tmp_path / "some results", Made(system="a #1 100%?"))
    target = report.write(report.gather([tmp_path], generated=NOW, published=False), tmp_path / "page")
    page = target.read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]*result_\d\.txt)">', page)
    assert len(links) == 5
    for link in links:
        assert not re.search(r"[ #?]", link)
        assert (target.parent / unquote(html.unescape(link))).resolve().parent == folder


def test_no_result_at_all_makes_a_page_too(tmp_path: Path) -> None:
    target = report.write(report.gather([tmp_path], generated=NOW, published=False), tmp_path / "page")
    page = target.read_text(encoding="utf-8")
    assert "No result measured here yet" in page
    assert data_of(page)["groups"] == []


def test_the_same_results_make_the_same_page(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    pages = {report_page.render(report.gather([tmp_path], generated=NOW), tmp_path) for _ in range(2)}
    assert len(pages) == 1


def data_of(page: str) -> dict:
    [content] = re.findall(r'<script type="application/json" id="leaderboard">(.*?)</script>', page, re.DOTALL)
    return json.loads(content)


# --- writing -----------------------------------------------------------------------------------------------------------


def test_a_page_of_ours_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    assert invoke(tmp_path, "--html", tmp_path / "page")[0] == 0
    first = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    synthetic_logs.series(tmp_path / "results", A100)
    assert invoke(tmp_path, "--html", tmp_path / "page")[0] == 0
    assert (tmp_path / "page" / "index.html").read_text(encoding="utf-8") != first

    foreign = tmp_path / "site" / "index.html"
    foreign.parent.mkdir()
    foreign.write_text("<h1>mine</h1>")
    code, _, said = invoke(tmp_path, "--html", foreign.parent)
    assert code == 2
    assert "--overwrite" in said
    assert foreign.read_text() == "<h1>mine</h1>"
    assert invoke(tmp_path, "--html", foreign.parent, "--overwrite")[0] == 0
    assert report_page.is_ours(foreign.read_text(encoding="utf-8"))


def test_a_page_that_breaks_off_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    board = report.gather([], generated=NOW)
    target = report.write(board, tmp_path)
    before = target.read_bytes()
    monkeypatch.setattr(report_page, "render", lambda *_: "half a page")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="cannot be written: No space left"):
        report.write(board, tmp_path)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, said = invoke(tmp_path, "--html", tmp_path / "file" / "page")
    assert code == 2
    assert "cannot be written" in said


# --- the verb ------------------------------------------------------------------------------------------------------------


def test_json_for_programs(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    code, out, said = invoke(tmp_path, "--json", "--no-published", "--html", tmp_path / "page")
    assert code == 0
    assert f"wrote {tmp_path / 'page' / 'index.html'}" in said
    content = json.loads(out)
    [group] = content["groups"]
    [row] = group["rows"]
    assert (row["system"], row["minutes"], row["rank"]) == ("a100x8", 10.14, 1)
    assert content["left_out"] == []


def test_exit_codes(tmp_path: Path) -> None:
    assert invoke(tmp_path / "nowhere")[0] == 2
    assert invoke(tmp_path)[0] == 0
    (tmp_path / "result_0.txt").write_text("no log")
    code, _, said = invoke(tmp_path)
    assert code == 5
    assert "result_0.txt" in said


def test_csv_for_a_spreadsheet(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, Made(**{**vars(A100), "org": "=cmd()"}))
    code, out, _ = invoke(tmp_path, "--csv", "--no-published")
    head, line = csv.reader(io.StringIO(out))
    row = dict(zip(head, line, strict=True))
    assert (code, row["minutes"], row["rank"], row["submitter"]) == (0, "10.14", "1", "'=cmd()")


def test_no_reason_in_a_spreadsheet_is_a_formula(tmp_path: Path) -> None:
    """Reasons begin with the names of logs."""
    log = synthetic_logs.write(tmp_path, 0, A100)
    log.write_text(log.read_text().replace('"value": 0.182', '"value": 7'))
    log.rename(tmp_path / "=cmd().txt")
    code, out, _ = invoke(tmp_path, "--csv", "--no-published")
    head, line = csv.reader(io.StringIO(out))
    reasons = dict(zip(head, line, strict=True))["unofficial"]
    assert code == 0 and "=cmd().txt: accuracy" in reasons
    row = rows(tmp_path)[tmp_path.name].model_copy(update={"unofficial": ("=cmd().txt: accuracy", "more")})
    assert report_terminal._cell(row.unofficial) == "'=cmd().txt: accuracy; more"
    assert report_terminal._cell((-0.5, 0.3)) == "-0.5; 0.3"


def test_what_is_collected_and_published_and_there_twice_is_one_row(test_data: Path, tmp_path: Path) -> None:
    """By the hashes of its logs, by its names, or, whatever the folders and organizations are called, by its runs' times."""
    source = test_data / "mlperf-results/v0.7/NVIDIA"
    collect([source], tmp_path / "collection")
    shutil.copytree(source / "results/dgx1_ngc20.06_pytorch", tmp_path / "elsewhere/our_box")
    board = report.gather([source, tmp_path / "collection", tmp_path / "elsewhere"], generated=NOW)
    found = [row for row in board.rows if row.minutes == 20.69]
    assert [(row.origin, row.submitter) for row in found] == [("read", "NVIDIA")]
    assert sum(row.benchmark == "ssd" and row.ruleset < "2" for row in board.rows) == 68
    collected = report.gather([tmp_path / "collection"], generated=NOW, published=False).rows
    assert {row.accelerator for row in collected} == {"A100-SXM4-40GB", "V100-SXM2-16GB", "V100-SXM3-32GB"}


def test_one_odd_value_takes_no_report_away(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, A100)
    odd = synthetic_logs.series(tmp_path, Made(system="odd"))
    log = odd / "result_0.txt"
    for old, new in (
        ('"accelerators_per_node": 8', '"accelerators_per_node": 1e308'),
        ('"nodes": 1', '"nodes": 1e308'),
        ('"key": "train_samples", "value": 117266', '"key": "train_samples", "value": 1e300'),
        ('"time_ms": 1790000030000', '"time_ms": 1e14'),
        ('"value": 0.182', '"value": -1e300'),
        ('"driver": "580.95.05"', '"driver": {"a": [1, {"b": null}]}'),
    ):
        content = log.read_text()
        assert old in content
        log.write_text(content.replace(old, new))
        board = report.gather([tmp_path], generated=NOW, published=False)
        report_page.render(board, tmp_path)
        assert "a100x8" in {row.system for row in board.rows}
        json.dumps(board.model_dump(mode="json"), allow_nan=False)
        log.write_text(content)


def test_no_text_of_a_log_is_longer_than_a_table_has_room_for(tmp_path: Path) -> None:
    """A task of 5,000 letters was the page's first sentence, a heading, a chart's title and a column of the terminal."""
    long = "W" * 5_000
    folder = synthetic_logs.series(tmp_path, Made(org=long, driver=long, device=long, division=long))
    for log in folder.iterdir():
        event = logs.event(synthetic_logs.START_MS, "other_task", long)
        text = log.read_text().replace('"precision", "value": "bf16"', f'"precision", "value": "{long}"')
        log.write_text(f":::MLLOG {json.dumps(event)}\n{text.replace('0.7.0', long)}")
    [row] = report.gather([tmp_path], generated=NOW, published=False).rows
    shown = [value for value in row.model_dump(exclude={"sections", "runs"}).values() if isinstance(value, str)]
    assert sum(value.startswith("WWW") for value in shown) >= 6
    assert max(map(len, [*shown, *row.unofficial])) <= 500


def test_a_name_from_right_to_left_turns_nothing_else_round(tmp_path: Path) -> None:
    synthetic_logs.series(tmp_path, Made(org="\u05e9\u05dc\u05d5\u05dd \u202e"))
    page = report_page.render(report.gather([tmp_path], generated=NOW, published=False), tmp_path)
    assert "<bdi>\u05e9\u05dc\u05d5\u05dd \u202e</bdi>" in page


def test_a_page_of_many_series(tmp_path: Path) -> None:
    for index in range(40):
        synthetic_logs.series(tmp_path, Made(system=f"s{index:03}", epoch_s=5 + index / 100, batch=128 + index // 8))
    board = report.gather([tmp_path], generated=NOW)
    report.write(board, tmp_path / "page")
    assert sum(row.origin == "measured" for row in board.rows) == 40


@pytest.mark.parametrize("kind", ["name", "description"])
def test_what_is_no_text_takes_no_other_row_away(tmp_path: Path, kind: str) -> None:
    """A folder's name in Latin-1, or half a surrogate in a description, left neither page nor JSON of all results."""
    folder = Path(os.fsdecode(bytes(tmp_path / "out") + b"/r\xe9sultats")) if kind == "name" else tmp_path / "out/odd"
    package = logs.write_package(folder / "Someone")
    if kind == "description":
        said = {**logs.DESCRIPTION, "submitter": "Some\ud83done", "system_name": "x\ud83d", "hw_notes": "\ud83d"}
        (package / "systems/dgxa100_test.json").write_text(json.dumps(said))
    code, out, _ = invoke(tmp_path / "out", "--no-published", "--json", "--html", tmp_path / "page")
    assert code == 0
    written = "r\\udce9sultats" if kind == "name" else "Some\\ud83done"
    assert json.dumps(written)[1:-1] in out
    page = (tmp_path / "page/index.html").read_text(encoding="utf-8")
    assert ("r%E9sultats/Someone/results" in page) == (kind == "name"), "the link leads to the log"
