"""The verbs that hold results against each other: compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.comparison.comparison import Comparison

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
DELTA_PERCENT = 0.5


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(  # noqa: PLR0917 - typer passes options by name
    baseline: Annotated[
        str, typer.Argument(help="A: a folder of logs, a log, a glob, or several with commas.", metavar="A")
    ],
    candidate: Annotated[str, typer.Argument(help="B: the same.", metavar="B")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Gate on this; repeatable.  [default: seconds_per_epoch and images_per_s]", metavar="NAME"),
    ] = None,
    delta: Annotated[
        str, typer.Option(help="Per cent by which the arms may differ and be equal.", metavar="PERCENT")
    ] = f"{DELTA_PERCENT}",
    allow_diff: Annotated[
        list[str] | None,
        typer.Option(help="A field that may differ beside the driver's; repeatable, * for many.", metavar="FIELD"),
    ] = None,
    json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file for a CI's gate.", metavar="FILE")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown, for a bug report.", metavar="FILE")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write a tar for a driver's vendor: logs, telemetry, environment, redacted.", metavar="FILE"),
    ] = None,
) -> None:
    """Is B slower than A, faster or equal, how sure is that, and in which phase.

    Exit codes: 0 equal or faster, 1 slower, 2 usage, 3 cannot tell yet or suspect, 4 not comparable, 5 invalid runs.
    """
    from harness.comparison import comparison, terminal
    from harness.comparison import floor as floors
    from harness.comparison.runs import find

    question = comparison.Question(tuple(metric or ()), fraction(delta), tuple(allow_diff or ()))
    runs = [*find(baseline, 0), *find(candidate, 1)]
    found = comparison.of_runs(runs, question, floors.find(runs))
    write(found, junit=junit, markdown=markdown, bundle=bundle)
    if json:
        from harness.comparison import documents
        from harness.results.table import show_json

        show_json(documents.as_json(found))
    else:
        sys.stdout.write("\n".join(terminal.lines(found)) + "\n")
    raise typer.Exit(found.exit_code)


def write(found: Comparison, *, junit: Path | None, markdown: Path | None, bundle: Path | None) -> None:
    """The files that were asked for. ValueError where one cannot be written."""
    from harness.comparison import documents

    try:
        if junit is not None:
            junit.write_text(documents.junit(found), encoding="utf-8")
        if markdown is not None:
            markdown.write_text(documents.markdown(found), encoding="utf-8")
        if bundle is not None:
            from harness.comparison import bundle as bundles

            bundles.write(found, bundle)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be written: {error.strerror}") from error


def fraction(percent: str) -> float:
    """Of a percentage as a person writes it: 0.5, 0.5%. ValueError for anything else."""
    try:
        value = float(percent.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        raise ValueError(f"--delta {percent}: a percentage above 0 and below 100, such as 0.5")
    return value / 100
