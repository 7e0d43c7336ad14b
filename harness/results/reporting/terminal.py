"""The leaderboard in the terminal: one table, a heading for each group of rows that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results.reporting import text
from harness.results.reporting.leaderboard import Group, Leaderboard, Row
from harness.results.table import WIDE, printable

COLUMNS = (
    *("#", "system", "origin", "minutes", "min to max", "CV", "n"),
    *("images/s", "images/s CV", "per accel.", "epochs", "quality"),
)
LEFT = ("#", "system", "origin")
# What a narrow terminal does without, the first first. The names are those of `cells`.
DROPPED = ("images/s CV", "n", "quality", "epochs", "min to max", "CV", "images/s")


def show(board: Leaderboard, console: Console) -> None:
    for count in range(len(DROPPED) + 1):
        table = _table(board, without=DROPPED[:count])
        if console.measure(table, options=console.options.update(max_width=WIDE)).maximum <= console.width:
            break
    console.print(table)
    for note in notes(board):
        console.print(Text(printable(note)), soft_wrap=True)


def cells(row: Row) -> dict[str, str]:
    time, speed = row.minutes_spread, row.images_per_s_spread
    return {
        "#": str(row.rank or text.NONE),
        "system": f"{row.system} ({row.submitter})",
        "origin": f"{row.origin}{', unofficial' if row.unofficial else ''}",
        "minutes": text.minutes(row.minutes),
        "min to max": text.extent((time.minimum, time.maximum), "minutes") if time else text.NONE,
        "CV": text.percent(time.cv) if time else text.NONE,
        "n": str(time.n if time else 0),
        "images/s": text.rate(row.images_per_s),
        "images/s CV": text.percent(speed.cv) if speed else text.NONE,
        "per accel.": text.rate(row.images_per_s_per_accelerator),
        "epochs": text.extent(row.epochs, "whole"),
        "quality": text.extent(row.quality, "quality"),
    }


def _table(board: Leaderboard, without: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in COLUMNS if name not in without]
    for name in shown:
        table.add_column(name, justify="left" if name in LEFT else "right", overflow="fold", no_wrap=name not in LEFT)
    for index, group in enumerate(board.groups):
        if index:
            table.add_row()
        table.add_row("", Text(_heading(group), style="bold"))
        for row in group.rows:
            values = cells(row)
            table.add_row(*(Text(printable(values[name])) for name in shown))
    return table


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
