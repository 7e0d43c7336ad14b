"""The leaderboard in the terminal: one table, a heading for each group of rows that can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results import report_text as text
from harness.results.leaderboard import Group, Leaderboard, Row
from harness.results.table import printable

COLUMNS = (
    "#",
    "system",
    "origin",
    "minutes",
    f"min{text.DASH}max",
    "CV",
    "n",
    "images/s",
    "CV",
    "per accel.",
    "epochs",
    "quality",
)
LEFT = ("system", "origin")


def show(board: Leaderboard, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(
            column, justify="left" if column in LEFT else "right", overflow="fold", no_wrap=column not in LEFT
        )
    for index, group in enumerate(board.groups):
        if index:
            table.add_row()
        table.add_row("", Text(_heading(group), style="bold"))
        for row in group.rows:
            table.add_row(*(Text(printable(cell)) for cell in cells(row)))
    console.print(table)
    for note in notes(board):
        console.print(Text(printable(note)), soft_wrap=True)


def cells(row: Row) -> list[str]:
    time, speed = row.minutes_spread, row.images_per_s_spread
    return [
        str(row.rank or text.NONE),
        f"{row.system} ({row.submitter})",
        f"{row.origin}{', unofficial' if row.unofficial else ''}",
        text.minutes(row.minutes),
        text.extent((time.minimum, time.maximum), "minutes") if time else text.NONE,
        text.percent(time.cv) if time else text.NONE,
        str(time.n if time else 0),
        text.rate(row.images_per_s),
        text.percent(speed.cv) if speed else text.NONE,
        text.rate(row.images_per_s_per_accelerator),
        text.extent(row.epochs, "whole"),
        text.extent(row.quality, "quality"),
    ]


def notes(board: Leaderboard) -> Iterable[str]:
    """What must be said below the table."""
    rows = board.rows
    for row in rows:
        if row.unofficial:
            yield f"{row.system} ({row.submitter}): unofficial, not ranked: {'; '.join(row.unofficial)}"
        if row.note and row.origin == "measured":
            yield f"{row.system} ({row.submitter}): {row.note}"
    for each in board.left_out:
        yield f"{each.path}: left out: {each.reason}"
    if not any(row.origin == "measured" for row in rows):
        yield "No result measured here yet."
    if any(row.origin == "read" for row in rows):
        yield "Read: from logs that another harness wrote, not measured by us."
    if any(row.origin == "published" for row in rows):
        yield "Published: read off the logs at https://github.com/mlcommons/training_results_v*, not measured by us."


def _heading(group: Group) -> str:
    return (
        f"{text.accelerators(group)}, {group.benchmark} {group.ruleset}, global batch {text.whole(group.global_batch)}"
    )
