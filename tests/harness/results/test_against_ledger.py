"""A series whose ledger says otherwise is no result: for check, score, package and collect, and under any numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import names
from harness.launch import ledger
from harness.results.checking.checker import check
from harness.results.checking.own import judge
from harness.results.collect import collect
from harness.results.package import Submission, Unpublishable, package
from harness.results.series import find_series
from harness.rules import rules_for
from tests.harness.results.logs import write_ledger, write_series


def keep_the_fast(folder: Path) -> None:
    """Of ten trials, and nobody sees it by the names."""
    for number in range(5, 10):
        (folder / names.result(number)).unlink()
        (folder / f"result_{number}.json").unlink()


def keep_the_last(folder: Path) -> None:
    for number in range(5):
        (folder / names.result(number + 5)).rename(folder / names.result(number))


def take_one_out(folder: Path) -> None:
    (folder / names.result(9)).unlink()


def edit(folder: Path) -> None:
    log = folder / names.result(3)
    log.write_text(log.read_text().replace("0.2301", "0.2401"))


def edit_the_record(folder: Path) -> None:
    (folder / "result_2.json").write_text("{}")


def edit_the_ledger(folder: Path) -> None:
    path = folder / ledger.FILE
    path.write_text(path.read_text().replace('"success"', '"failed"', 1))


SPOILT = [
    (
        keep_the_fast,
        ledger.FILE,
        "5 of 10 trials changed or taken out since they ended: 5, 6, 7, 8, 9",
    ),
    (take_one_out, ledger.FILE, "1 of 10 trials changed or taken out since they ended: 9"),
    (edit, "result_3.txt", "not the log that trial 3 left: it was changed since"),
    (edit_the_record, "result_2.json", "not the record that trial 2 left: it was changed since"),
    (edit_the_ledger, ledger.FILE, "4: does not follow the line before it: one was changed, taken out or put in"),
]


@pytest.mark.parametrize(("spoil", "file", "words"), SPOILT, ids=lambda each: str(each)[:20])
def test_what_the_ledger_says_otherwise_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], None], file: str, words: str
) -> None:
    folder = write_series(tmp_path / "out", 10)
    write_ledger(folder)
    assert not found(folder)
    spoil(folder)
    ((where, what),) = found(folder)
    assert where.endswith(f"/{file}") and words in what
    (series,) = find_series([folder])
    assert any(words in each.what for each in judge(series, rules_for("ssd", "0.7.0")))
    with pytest.raises(Unpublishable, match="ledger: "):
        package(series, Submission("Someone", "closed", tmp_path / "packages"))


def found(folder: Path) -> list[tuple[str, str]]:
    (report,) = check([folder])
    return [(each.file, each.found) for each in report.findings if each.rule == "ledger"]


def test_logs_that_were_numbered_anew_are_told_by_their_content(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "out", 10)
    write_ledger(folder)
    for number in range(5):
        (folder / names.result(number)).unlink()
    keep_the_last(folder)
    assert found(folder)[0][1].startswith("5 of 10 trials changed or taken out since they ended")


def test_attempts_without_a_result_are_told(tmp_path: Path) -> None:
    """Who breaks slow runs off and goes on with --resume has a good series; a reviewer sees it."""
    folder = write_series(tmp_path / "out")
    write_ledger(folder)
    with ledger.opened(folder) as book:
        for status in (ledger.INTERRUPTED, ledger.REFUSED):
            trial = {"trial": 5, "attempt": 1 + (status == ledger.REFUSED)}
            book.append(ledger.START, series="s", **trial)
            book.append(ledger.END, **trial, status=status)
    (report,) = check([folder])
    (warning,) = [each for each in report.findings if each.rule == "ledger"]
    assert (warning.severity, warning.found) == (
        "warning",
        "1 attempt without a result: trial 5, attempt 1 (interrupted)",
    )


def test_collect_says_what_the_ledger_misses_and_so_does_the_collection(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "out", 6)
    write_ledger(folder)
    edit(folder)
    take = folder / names.result(4)
    kept = take.read_bytes()
    take.unlink()
    into = tmp_path / "results"
    outcome = collect([folder], into)
    assert len(outcome.collected) == 4 and not outcome.ok
    assert outcome.refused == [(str(folder / "result_3.txt"), "not the log that trial 3 left: it was changed since")]
    ((_, what),) = outcome.missing
    assert what.startswith("1 of 6 trials changed or taken out since they ended") and what.endswith(": 4")
    (series,) = find_series([into])
    assert found(series.folder)[0][1].endswith(": 3, 4")
    take.write_bytes(kept)
    (folder / names.result(3)).unlink()
    assert len(collect([folder], into).collected) == 1
    assert found(series.folder)[0][1].endswith(": 3")


def test_what_was_collected_may_be_deleted_where_it_was_made(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "out", 5)
    write_ledger(folder)
    into = tmp_path / "results"
    assert collect([folder], into).ok
    take_one_out_of = folder / names.result(0)
    take_one_out_of.unlink()
    assert collect([folder], into).ok
    (series,) = find_series([into])
    assert not found(series.folder)
