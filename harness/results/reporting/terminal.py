"""The leaderboard in the terminal: one table by round, or a heading for each group of rows that can be compared; and as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results.reporting import text
from harness.results.reporting.leaderboard import Group, Leaderboard, Row
from harness.results.reporting.published import SCALED
from harness.results.table import WIDE, one_line

COLUMNS = (
    *("#", "system", "accelerators", "batch", "origin", "minutes", "min to max", "CV", "n"),
    *("images/s", "images/s CV", "per accel.", "epochs", "quality", "date", "driver"),
)
IN_HEADING = ("accelerators", "batch")  # of a group, all of whose rows have the same
LEFT = ("#", "system", "accelerators", "origin", "date", "driver")
# What a narrow terminal does without, the first first. The names are those of `cells`.
DROPPED = (
    "driver",
    "date",
    "images/s CV",
    "n",
    "quality",
    "epochs",
    "min to max",
    "CV",
    "images/s",
    "batch",
    "accelerators",
)
# Columns that a long text is folded to, before a narrow terminal does without another column: a table of many systems has one
# of 60, whose neighbours lost their accelerators at 120 columns
FOLDED = {"system": 32, "accelerators": 24, "driver": 24}


def show(board: Leaderboard, console: Console, *, grouped: bool = False) -> None:
    """Flat, or with `grouped` by what can be compared; what the console's encoding lacks is written otherwise.

    What was published of a task is shown where there are results of one's own, or none at all: the other tasks' are counted.
    """
    board, elsewhere = _of_interest(board)
    for count in range(len(DROPPED) + 1):
        folded = _table(board, DROPPED[:count], grouped, folded=True)
        if console.measure(folded, options=console.options.update(max_width=WIDE)).maximum <= console.width:
            break
    console.print(_table(board, DROPPED[:count], grouped))
    for note in notes(board):
        console.print(Text(one_line(note)), soft_wrap=True)
    for task, count in elsewhere.items():
        text_ = f"Published of {task}, and not shown beside other results: {count} rows; --html, --csv and --json have them."
        console.print(Text(one_line(text_)), soft_wrap=True)


def _of_interest(board: Leaderboard) -> tuple[Leaderboard, Counter[str]]:
    """Without what was published of tasks that nobody here has a result of; and how many rows that is, by task."""
    own = board.tasks_of_interest
    elsewhere = Counter(row.trains for row in board.rows if row.trains not in own)
    groups = [group for group in board.groups if group.rows[0].trains not in elsewhere]
    return board.model_copy(update={"groups": tuple(groups)}), elsewhere


def cells(row: Row, *, grouped: bool = False) -> dict[str, str]:
    """A row's text by the heading of its column."""
    time, speed = row.minutes_spread, row.images_per_s_spread
    return {
        "#": str((row.group_rank if grouped else row.rank) or text.NONE),
        "system": f"{row.system} ({row.submitter})",
        "accelerators": text.accelerators(row),
        "batch": text.whole(row.global_batch),
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
        "date": row.date or text.NONE,
        "driver": row.driver or text.NONE,
    }


def _table(board: Leaderboard, without: Sequence[str], grouped: bool, *, folded: bool = False) -> Table:
    """With `folded` long texts are in columns of FOLDED, to measure what fits; printed, they have the room that there is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in COLUMNS if name not in without and not (grouped and name in IN_HEADING)]
    for name in shown:
        table.add_column(
            name,
            justify="left" if name in LEFT else "right",
            overflow="fold",
            no_wrap=name not in LEFT,
            max_width=FOLDED.get(name) if folded else None,
        )
    parts = [(_heading(group), list(group.rows)) for group in board.groups] if grouped else board.sections
    for index, (heading, rows) in enumerate(parts):
        if index:
            table.add_row()
        table.add_row("", Text(one_line(heading), style="bold"))
        for row in rows:
            values = cells(row, grouped=grouped)
            table.add_row(*(Text(one_line(values[name])) for name in shown))
    return table


CSV = (
    *(
        "rank",
        "rank_of",
        "size",
        "benchmark",
        "ruleset",
        "date",
        "division",
        "status",
        "submitter",
        "system",
        "platform",
    ),
    *("accelerator", "accelerators", "nodes", "global_batch", "framework", "precision", "driver", "minutes"),
    *("images_per_s", "images_per_s_per_accelerator", "epochs", "quality", "origin", "unofficial", "id"),
)


def write_csv(board: Leaderboard, file: TextIO) -> None:
    """A line for each row, in the order that they are read; nothing in it is taken for a formula."""
    lines = csv.writer(file)
    lines.writerow(CSV)
    for row in board.rows:
        lines.writerow([_cell(getattr(row, name)) for name in CSV])


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        joined = "; ".join(map(str, value))
        return _cell(joined) if any(isinstance(each, str) for each in value) else joined
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def notes(board: Leaderboard) -> Iterable[str]:
    """What must be said below the table."""
    rows = board.rows
    for row in rows:
        if row.unofficial:
            yield f"{row.system} ({row.submitter}): unofficial, not ranked: {'; '.join(row.unofficial)}"
        if row.note and (row.origin == "measured" or row.note.startswith(("Its runs' times", SCALED))):
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
