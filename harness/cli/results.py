"""The verbs of a result's life after the run: status, check, score, sysinfo, collect, package. report has its own file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import environment

if TYPE_CHECKING:
    from harness.results.checking.checker import Report

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Ruleset = Annotated[
    str | None,
    typer.Option(help="As 0.7.0 or 1.1.0; otherwise what the log itself says.", metavar="VERSION"),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tool."""
    for verb in (status, check, score, sysinfo, collect, package):
        app.command()(verb)


def status(
    logs: Annotated[list[Path], typer.Argument(help="Logs, or folders of them.", metavar="LOG...")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the logs grow, until their runs end.")
    ] = False,
    json: Json = False,
) -> None:
    """How runs stand: time, epochs and every evaluation, also while they run. Exit 1 when one ended without its target."""
    from harness.results import status as view
    from harness.results import table
    from harness.results.record import RunRecord
    from harness.results.series import find_logs, left_out_words

    def show(records: list[RunRecord]) -> None:
        if json:
            table.show_json([view.as_json(record) for record in records])
        else:
            show_rows = table.show_again if follow else table.show_table
            show_rows(view.COLUMNS, view.rows(records), right=view.FIGURES)

    last: list[RunRecord] = []

    def show_and_keep(records: list[RunRecord]) -> None:
        last[:] = records
        show(records)

    unread: list[str] = []
    left_out: list[Path] = []
    paths = [log for path in logs for log in find_logs(path, unread.append, left_out.append)]
    if not paths:
        raise ValueError("\n".join(unread) or f"no result log under {', '.join(map(str, logs))}")
    named = set(paths)
    for each in (*unread, *left_out_words(each for each in left_out if each not in named)):
        typer.echo(table.one_line(each), err=True)
    view.follow(paths, show_and_keep, stop=lambda: not follow)
    raise typer.Exit(view.exit_code(last))


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Logs, folders of logs, or packages (systems/ beside results/).", metavar="PATH..."),
    ],
    ruleset: Ruleset = None,
    json: Json = False,
) -> None:
    """All that is wrong with results, by MLPerf's own tools and by checks that they lack. Exit 1 on an error."""
    from harness.config_files import CHECKOUT
    from harness.results import table
    from harness.results.by_rules import check_ruleset
    from harness.results.checking import checker as checking
    from harness.results.checking import text as check_text
    from harness.results.checking.official import version

    check_ruleset(ruleset)
    unread: list[str] = []
    cache = environment.checks(CHECKOUT)
    with table.progress("asking MLPerf's tools", "series") as told:
        reports = checking.check(
            paths, ruleset, cache=cache, workers=os.cpu_count() or 1, progress=told, say=unread.append
        )
    ok = all(report.ok for report in reports) and not unread
    for each in unread:
        typer.echo(table.one_line(each), err=True)
    if json:
        table.show_json({"ok": ok, "mlperf_logging": version(), "checked": [report.as_json() for report in reports]})
        raise typer.Exit(int(not ok))
    for report in reports:
        table.say(table.one_line(check_text.headline(report)))
        _show(report)
    raise typer.Exit(int(not ok))


def _show(report: Report) -> None:
    """What MLPerf's tools say, and what there is to find fault with."""
    from harness.results import table
    from harness.results.checking import text as check_text
    from harness.results.checking.findings import COLUMNS, FIGURES

    if report.verdicts:
        table.show_table(check_text.VERDICTS, check_text.verdict_rows(report))
    if report.findings:
        table.show_findings(COLUMNS, list(check_text.finding_rows(report)), right=FIGURES)


def score(
    folders: Annotated[list[Path], typer.Argument(help="Folders of result logs; each is a series.", metavar="DIR...")],
    ruleset: Ruleset = None,
    official: Annotated[bool, typer.Option("--official", help="Exit 1 also for a score that is not official.")] = False,
    json: Json = False,
) -> None:
    """Minutes to train by MLPerf's rules, for any number of runs. Exit 1 when a series has no score or a log cannot be read.

    --official asks MLPerf's own tools too, as check does.
    """
    from harness.config_files import CHECKOUT
    from harness.results import score as scoring
    from harness.results import score_text, table
    from harness.results.by_rules import check_ruleset
    from harness.results.checking.kept import Opinions
    from harness.results.series import find_series, left_out_words

    check_ruleset(ruleset)
    unread: list[str] = []
    opinions = Opinions(environment.checks(CHECKOUT))
    found = list(find_series(folders, unread.append))
    if official:
        with table.progress("asking MLPerf's tools", "series") as told:
            opinions.ask(found, ruleset, workers=os.cpu_count() or 1, progress=told)
    said = [opinions.of(series, ruleset) for series in found]
    scores = [scoring.score(series, ruleset, opinion) for series, opinion in zip(found, said, strict=True)]
    unread += [f"{log.path}: {log.reason}" for each in scores for log in each.series.unread]
    for line in (*unread, *left_out_words(path for each in found for path in each.left_out)):
        typer.echo(table.one_line(line), err=True)
    if json:
        table.show_json(
            {
                "series": [
                    {**scoring.as_json(each), "mlperf": opinion.as_json()}
                    for each, opinion in zip(scores, said, strict=True)
                ]
            }
        )
    else:
        for each, opinion in zip(scores, said, strict=True):
            table.say(f"{score_text.headline(each)}\n  {opinion.said}")
            table.show_table(score_text.COLUMNS, score_text.rows(each), right=score_text.FIGURES)
            if watched := list(score_text.telemetry_rows(each)):
                table.show_table(score_text.TELEMETRY, watched, right=score_text.TELEMETRY[1:6])
    failed = unread or any(each.minutes is None or (official and not each.official) for each in scores)
    raise typer.Exit(1 if failed else 0)


def sysinfo(
    given: Annotated[
        list[str] | None, typer.Option("--set", help="A field that you know better; repeatable.", metavar="FIELD=VALUE")
    ] = None,
    ruleset: Annotated[
        str, typer.Option(help="Decides the words for status; they changed in 4.0.", metavar="VERSION")
    ] = "0.7.0",
    json: Json = False,
) -> None:
    """This machine as MLPerf's system description, in JSON. What only a person can know is marked FILL IN."""
    from harness.results import sysdesc, table
    from harness.system import facts

    said = assignments(given)
    sysdesc.check_ruleset(ruleset)
    if "status" in said:
        said["status"] = sysdesc.status_word(said["status"], ruleset)
    machine = facts.describe(facts.read(os.environ))
    software = {**sysdesc.installed(), **machine["software"]}
    description = sysdesc.describe(machine["hardware"], software, machine["image"], {**sysdesc.storage(), **said})
    table.show_json(description)
    if not json and (missing := sysdesc.to_fill_in(description)):
        typer.echo(f"only a person can know: {', '.join(missing)}; see --set, or edit the file", err=True)


def collect(
    paths: Annotated[list[Path], typer.Argument(help="Folders of result logs, or logs.", metavar="DIR...")],
    into: Annotated[
        Path | None,
        typer.Option(help="The collection.  [default: results, the checkout's where it has one]", metavar="DIR"),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="Folder in the collection.  [default: configuration and a hash of the machine]")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Take collected files that were changed since as they are now."),
    ] = False,
    json: Json = False,
) -> None:
    """Copy finished runs into results/SYSTEM/BENCHMARK, never over another, and index them. Exit 1 if one is refused."""
    from harness.config_files import CHECKOUT
    from harness.results import collect as collecting
    from harness.results import collection, table

    into = into or environment.collection(CHECKOUT)
    with _ended_by_signals("what is missing, the same command collects"):
        outcome = collecting.collect(paths, into, system=system or None, rebuild=rebuild)
    if json:
        table.show_json({**outcome.as_json(), "index": str(into / collection.INDEX)})
    else:
        for source, target in outcome.collected:
            table.say(f"{source} -> {into / target}")
        for source, target in outcome.already:
            table.say(f"{source}: there already, {into / target}")
        for each in (*outcome.unread, *outcome.left_out):
            table.say(each)
        for source, why in outcome.refused:
            table.say(f"{source}: not collected: {why}")
        for ledger, what in outcome.missing:
            table.say(f"{ledger}: {what}; put it back: no run is taken out of a series")
        for file, other in outcome.copies:
            table.say(f"{into / file}: is a copy of {into / other}: one run counts once, take one of them out")
        for file, why in outcome.changed:
            table.say(f"{into / file}: {why}; put it back, or take it as it is with --rebuild")
    raise typer.Exit(int(not outcome.ok))


def package(
    folder: Annotated[Path, typer.Argument(help="A folder with the runs of one series.", metavar="SERIES")],
    *,
    org: Annotated[str, typer.Option(help="The organization that submits, as its logs say.")],
    division: Annotated[str, typer.Option(help="closed or open, as its logs say.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The package is OUT/ORG, new or one more in it.  [default: packages]", metavar="DIR"),
    ] = None,
    system: Annotated[str | None, typer.Option(help="Id of the system.  [default: from the series]")] = None,
    describe: Annotated[
        Path | None, typer.Option(help="A system description (see sysinfo).  [default: from the logs]", metavar="FILE")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the description; repeatable.", metavar="FIELD=VALUE")
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(help="The sources that ran.  [default: this project at the logs' commit]", metavar="DIR"),
    ] = None,
    ruleset: Ruleset = None,
    json: Json = False,
) -> None:
    """A submission's whole tree, checked before it is let out. Exit 1, and no package, where the series is not fit."""
    from harness.config_files import CHECKOUT
    from harness.results import package as packaging
    from harness.results import table
    from harness.results.series import find_series, left_out_words
    from harness.system import facts

    found = find_series([folder])
    if unread := [f"{each.path}: {each.reason}" for series in found for each in series.unread]:
        raise ValueError("\n".join(unread))
    if len(found) != 1:
        apart = len({each.folder for each in found}) == len(found)
        todo = "name one of them" if apart else "move the runs of each into a folder of its own, and name one of these"
        raise ValueError(f"{folder} holds {len(found)} series ({', '.join(each.name for each in found)}); {todo}")
    for line in left_out_words(found[0].left_out):
        typer.echo(table.one_line(line), err=True)
    hardware = facts.describe(facts.read(os.environ))["hardware"]
    submission = packaging.Submission(
        org,
        division,
        out or environment.packages(CHECKOUT),
        system,
        describe,
        assignments(given),
        ruleset,
        sources,
        hardware,
    )
    try:
        with _ended_by_signals("nothing is packaged"):
            built, report = packaging.package(found[0], submission)
    except packaging.Unpublishable as refused:
        if json:
            table.show_json({"package": None, "refused_because": refused.reasons})
        else:
            table.say(f"{folder}: not packaged:")
            for reason in refused.reasons:
                table.say(f"- {reason}")
        raise typer.Exit(1) from refused
    if json:
        table.show_json(
            {"package": str(built), "refused_because": [], "check": {**report.as_json(), "path": str(built)}}
        )
    else:
        _show(report)
        table.say(f"{built}: packaged, and check finds no error in it")


@contextmanager
def _ended_by_signals(so: str) -> Iterator[None]:
    """What was being made is taken away, as on an error: a signal alone ends Python without it."""
    from harness import exit_codes
    from harness.execution.signals import Interrupted, as_exceptions

    try:
        with as_exceptions():
            yield
    except Interrupted as interrupted:
        typer.echo(f"{interrupted}: {so}", err=True)
        raise typer.Exit(exit_codes.INTERRUPTED) from interrupted


def assignments(given: list[str] | None) -> dict[str, str]:
    """FIELD=VALUE as a table. ValueError for anything else."""
    for each in given or []:
        if "=" not in each:
            raise ValueError(f"--set {each}: write FIELD=VALUE")
    return {key: value for key, _, value in (each.partition("=") for each in given or [])}
