"""The verb report: the leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import outside
from harness.cli import environment

if TYPE_CHECKING:
    from harness.results.reporting.leaderboard import Leaderboard


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(  # noqa: PLR0917  typer's options
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of result logs; each folder with logs is a series.  [default: results]", metavar="[DIR]..."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the page there, as index.html.", metavar="DIR")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV for a spreadsheet.")] = False,
    group: Annotated[
        bool, typer.Option("--group", help="By what can be compared: accelerators, ruleset and batch.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published/--no-published", help="Show what MLCommons published beside it.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index.html that this command did not write.")
    ] = False,
) -> None:
    """The leaderboard: every series beside what was published, as a table, JSON, or one page that works offline.

    Exit codes: 0 reported, 2 usage, 5 reported, but files that should be results are none.
    """
    from datetime import UTC, datetime

    from harness.config_files import CHECKOUT
    from harness.results.reporting import report as reporting
    from harness.results.table import one_line

    if json and csv:
        raise ValueError("--json and --csv both print to stdout: choose one")
    if group and (json or csv or html is not None):
        raise ValueError("--group is of the table on the screen: leave it out, or --json, --csv and --html")
    named = folders or environment.results(CHECKOUT)
    board = reporting.gather(
        named, generated=datetime.now(UTC), published=published, checks=environment.checks(CHECKOUT)
    )
    if html is not None:
        there = outside.is_file(reporting.place(html, overwrite=overwrite).with_name(reporting.HISTORY))
        if there or any(row.origin != "published" for row in board.rows):
            _write_history(named, html)  # first: the page links to it where it is
    page = reporting.write(board, html, overwrite=overwrite) if html is not None else None
    if json:
        sys.stdout.write(board.model_dump_json(indent=2) + "\n")
    elif csv:
        from harness.results.reporting.terminal import write_csv

        write_csv(board, sys.stdout)
    elif page is None:
        _show(board, group)
    if page is not None:
        sys.stderr.write(f"wrote {page}\n")
    for each in board.left_out:
        sys.stderr.write(one_line(f"left out: {each.path}: {each.reason}") + "\n")
    raise typer.Exit(5 if board.left_out else 0)


def _write_history(folders: list[Path], html: Path) -> None:
    """Of the same runs as the page: what lies there of others is replaced too."""
    from harness.comparison.history import history, history_page, points
    from harness.config_files import CHECKOUT
    from harness.results.reporting.report import HISTORY

    found = history.history(*points.gather(folders, environment.cache_dir(CHECKOUT)))
    if found.series or history_page.is_ours(html / HISTORY):
        history_page.write(found, html)


def _show(board: Leaderboard, group: bool) -> None:
    from rich.console import Console

    from harness.results.reporting import terminal as report_terminal
    from harness.results.table import WIDE

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    report_terminal.show(board, console, grouped=group)
