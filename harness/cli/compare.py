"""The verb that holds results against each other: compare A B. What makes them, compare plan, run and noise: plans.py."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from harness import outside, whole
from harness.cli import environment, outputs, plans

if TYPE_CHECKING:
    from harness.comparison.comparison import Comparison

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
DELTA_PERCENT = 0.5


class Plain(TyperCommand):
    """What Group takes for granted is not in its usage."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path.removesuffix(" results"), " ".join(self.collect_usage_pieces(ctx)))


class CompareGroup(TyperGroup):
    """`compare A B` beside `compare plan`: what is no verb of its own is two sets of results."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["results", *(args or ["--help"])]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(cls=CompareGroup, add_completion=False, rich_markup_mode=None)
    verbs.command("results", cls=Plain)(compare)
    verbs.command("plan")(plans.plan)
    verbs.command("run")(plans.run)
    verbs.command("noise")(plans.noise)
    app.add_typer(verbs, name="compare", help="Is B slower than A, faster or equal; and: compare plan, run, noise.")


def compare(  # noqa: PLR0917 - typer passes options by name
    baseline: Annotated[
        str, typer.Argument(help="A: a folder of logs, a log, a glob, or several with commas.", metavar="A")
    ],
    candidate: Annotated[str, typer.Argument(help="B: the same.", metavar="B")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Gate on this; repeatable.  [default: seconds_per_epoch, mean_epoch_seconds and images_per_s]",
            metavar="NAME",
        ),
    ] = None,
    delta: Annotated[
        str, typer.Option(help="Per cent by which the arms may differ and be equal.", metavar="PERCENT")
    ] = f"{DELTA_PERCENT}",
    allow_diff: Annotated[
        list[str] | None,
        typer.Option(help="A field that may differ beside the driver's; repeatable, * for many.", metavar="FIELD"),
    ] = None,
    allow_mixed: Annotated[
        list[str] | None,
        typer.Option(help="A field, not the driver, that may vary within an arm; repeatable.", metavar="FIELD"),
    ] = None,
    numbers: Annotated[
        bool,
        typer.Option(
            "--numbers", help="Gate on equal numbers, to the bit, in place of speed: of --deterministic runs."
        ),
    ] = False,
    json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file for a CI's gate.", metavar="FILE")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown, for a bug report.", metavar="FILE")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page with all pictures.", metavar="FILE")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write a tar for a driver's vendor: logs, telemetry, environment, redacted.", metavar="FILE"),
    ] = None,
) -> None:
    """Is B slower than A, faster or equal, how sure is that, and in which phase.

    Exit codes: 0 equal or faster, 1 slower or trains worse, 2 usage, 3 cannot tell yet, 4 not comparable, 5 invalid runs, 7
    suspect; with --numbers 0 equal to the bit, 1 different, 3 cannot tell.

    Also: `compare plan` and `compare run` make such results, `compare noise` measures what a machine can show; each has --help.
    """
    environment.must_be_in_a_folder()  # A and B are no paths to typer, which looks after those
    from harness.comparison import comparison
    from harness.comparison.judging import floor as floors
    from harness.comparison.reporting import terminal
    from harness.comparison.runs import find

    question = comparison.Question(
        tuple(metric or ()), fraction(delta), tuple(allow_diff or ()), tuple(allow_mixed or ()), numbers=numbers
    )
    runs = [*find(baseline, 0), *find(candidate, 1)]
    found = comparison.of_runs(runs, question, floors.find(runs))
    write(found, junit=junit, markdown=markdown, html=html, bundle=bundle)
    if json:
        from harness.comparison.reporting import documents
        from harness.results.table import show_json

        show_json(documents.as_json(found))
    else:
        sys.stdout.write("\n".join(terminal.lines(found)) + "\n")
    raise typer.Exit(found.exit_code)


def write(
    found: Comparison, *, junit: Path | None, markdown: Path | None, html: Path | None, bundle: Path | None
) -> None:
    """The files that were asked for. ValueError where one cannot be written, or would take the place of a result."""
    from harness.comparison.reporting import documents

    targets = [target for target in (junit, markdown, html, bundle) if target is not None]
    logs = [Path(run.record.path) for run in found.runs]
    for target in targets:
        outputs.takes_no_place(str(target), target, logs)
    files = Counter(outside.real(each) for each in targets if outside.is_file(each) or not outside.is_there(each))
    if twice := [each for each, count in files.items() if count > 1]:
        raise ValueError(f"{twice[0]}: two options name this one file; name one for each")
    if junit is not None:
        _put(junit, documents.junit(found))
    if markdown is not None:
        _put(markdown, documents.markdown(found))
    if html is not None:
        from harness.comparison.reporting import page

        _put(html, page.render(found))
    if bundle is not None:
        from harness.comparison.reporting import bundle as bundles

        bundles.write(found, bundle)


def _put(target: Path, text: str) -> None:
    """Whole or not at all, where it is a file and no /dev/stdout."""
    content = text.encode("utf-8", "replace")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
        else:
            with whole.replacing(target) as file:
                file.write(content)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}") from error


def fraction(percent: str) -> float:
    """Of a percentage as a person writes it: 0.5, 0.5%. ValueError for anything else."""
    try:
        value = float(percent.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        raise ValueError(f"--delta {percent}: a percentage above 0 and below 100, such as 0.5")
    return value / 100
