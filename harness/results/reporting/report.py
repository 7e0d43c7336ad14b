"""The leaderboard from logs to a file: gathers rows, and writes the page without ever harming what is not ours.

What the rows are is in leaderboard.py; the table in the terminal is terminal.py, the page page.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from harness import outside, whole
from harness.results.reporting import leaderboard
from harness.results.reporting import measured as report_measured
from harness.results.reporting import page as report_page
from harness.results.reporting import published as report_published
from harness.results.reporting.leaderboard import Leaderboard, Row

PAGE, HISTORY = "index.html", report_page.HISTORY


def gather(
    folders: Sequence[Path], *, generated: datetime, published: bool = True, checks: Path | None = None
) -> Leaderboard:
    """Every series under `folders` beside what was published. ValueError where a folder is not there.

    `checks` is where `check` keeps what MLPerf's tools said.
    """
    try:
        measured, left_out = report_measured.rows(folders, checks)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read: {error.strerror}") from error
    shown = {identity for row in measured for identity in _identities(row)}
    history = [row for row in report_published.rows() if not shown & set(_identities(row))] if published else []
    return leaderboard.build([*measured, *history], generated=generated, left_out=left_out)


def place(folder: Path, *, overwrite: bool = False) -> Path:
    """`folder`/index.html. ValueError where something else than our page is there."""
    target = folder / PAGE
    if not overwrite and outside.is_there(target) and not _ours(target):
        raise ValueError(
            f"{target}: there, and not a page that `report` wrote; name another folder, or say --overwrite to replace it"
        )
    return target


def write(board: Leaderboard, folder: Path, *, overwrite: bool = False) -> Path:
    """The page at its `place`, whole or not at all. ValueError as there."""
    target = place(folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = report_page.render(board, folder).encode("utf-8", "backslashreplace")
        with whole.replacing(target) as file:
            file.write(page)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}; name another folder") from error
    return target


def _identities(row: Row) -> list[tuple[object, ...]]:
    """By which a published row is found again among logs that were read: its names, or the times of its runs to the ms."""
    competition = (row.ruleset, row.benchmark)
    times = sorted(round(run.minutes * 60_000) for run in row.runs if run.minutes is not None)
    by_times: list[tuple[object, ...]] = [("times", *competition, *times)] if len(times) > 1 else []
    return [("names", *competition, row.submitter.casefold(), row.system), *by_times]


def _ours(target: Path) -> bool:
    if not target.is_file():
        return False
    with target.open(encoding="utf-8", errors="replace") as page:
        return report_page.is_ours(page.read(1000))
