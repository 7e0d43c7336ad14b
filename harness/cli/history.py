"""The verb history: every series over time and over drivers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import environment


def register(app: typer.Typer) -> None:
    app.command()(history)


def history(
    system: Annotated[
        str, typer.Argument(help="Only what holds this word: a platform, GPU, host, configuration or folder.")
    ] = "",
    folders: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Folders of results; repeatable.  [default: results]", metavar="DIR"),
    ] = None,
    delta: Annotated[str, typer.Option(help="Per cent that counts as a change.", metavar="PERCENT")] = "0.5",
    html: Annotated[Path | None, typer.Option(help="Write the page there, as history.html.", metavar="DIR")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Every series over time: trend, change points and what changed there; drivers against systems; drivers seen to work."""
    from dataclasses import asdict

    from harness.cli.compare import fraction
    from harness.comparison.history import history as histories
    from harness.comparison.history import history_page, history_text, points
    from harness.config_files import CHECKOUT
    from harness.results.table import show_json

    limit = fraction(delta)
    named = folders or environment.results(CHECKOUT)
    gathered, left_out = points.gather(named, environment.cache_dir(CHECKOUT))
    found = histories.history(gathered, left_out, system=system, delta=limit)
    if html is not None:
        sys.stderr.write(f"wrote {history_page.write(found, html)}\n")
    if json:
        show_json(asdict(found))
    elif html is None:
        sys.stdout.write("\n".join(history_text.lines(found)) + "\n")
