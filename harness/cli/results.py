"""The verbs of a result's life after the run: status, check, score, sysinfo, collect, package. report has its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Ruleset = Annotated[
    str | None,
    typer.Option(help="0.6.0, 0.7.0, 1.0.0 or 1.1.0; otherwise what the log itself says.", metavar="VERSION"),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tool."""
    for verb in (status, check, score, sysinfo):
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
    from harness.results.series import find_logs

    def show(records: list[RunRecord]) -> None:
        if json:
            table.show_json([view.as_json(record) for record in records])
        else:
            table.show_table(view.COLUMNS, map(view.row, records), right=view.FIGURES)

    last: list[RunRecord] = []

    def show_and_keep(records: list[RunRecord]) -> None:
        last[:] = records
        show(records)

    paths = [log for path in logs for log in find_logs(path)]
    if not paths:
        raise ValueError(f"no result log under {', '.join(map(str, logs))}")
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
    from harness.results import check as checking
    from harness.results import check_text, table
    from harness.results.findings import COLUMNS, FIGURES
    from harness.results.official import version
    from harness.results.rules import check_ruleset

    check_ruleset(ruleset)
    reports = checking.check(paths, ruleset)
    ok = all(report.ok for report in reports)
    if json:
        table.show_json({"ok": ok, "mlperf_logging": version(), "checked": [report.as_json() for report in reports]})
        raise typer.Exit(int(not ok))
    for report in reports:
        table.say(check_text.headline(report))
        if report.verdicts:
            table.show_table(check_text.VERDICTS, check_text.verdict_rows(report))
        if report.findings:
            table.show_table(COLUMNS, (finding.row() for finding in report.findings), right=FIGURES)
    raise typer.Exit(int(not ok))


def score(
    folders: Annotated[list[Path], typer.Argument(help="Folders of result logs; each is a series.", metavar="DIR...")],
    ruleset: Ruleset = None,
    json: Json = False,
) -> None:
    """Minutes to train by MLPerf's rules, for any number of runs. Exit 1 when a series has no score."""
    from harness.results import score as scoring
    from harness.results import score_text, table
    from harness.results.rules import check_ruleset
    from harness.results.series import find_series

    check_ruleset(ruleset)
    scores = [scoring.score(series, ruleset) for series in find_series(folders)]
    if json:
        table.show_json({"series": [scoring.as_json(each) for each in scores]})
    else:
        for each in scores:
            table.say(score_text.headline(each))
            table.show_table(score_text.COLUMNS, score_text.rows(each), right=score_text.FIGURES)
    raise typer.Exit(1 if any(each.minutes is None for each in scores) else 0)


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
    import os

    from harness.results import sysdesc, table
    from harness.system import facts

    said = assignments(given)
    if "status" in said:
        said["status"] = sysdesc.status_word(said["status"], ruleset)
    machine = facts.describe(facts.read(os.environ))
    software = {**sysdesc.installed(), **machine["software"]}
    description = sysdesc.describe(machine["hardware"], software, machine["image"], {**sysdesc.storage(), **said})
    table.show_json(description)
    if not json and (missing := sysdesc.to_fill_in(description)):
        typer.echo(f"only a person can know: {', '.join(missing)}; see --set, or edit the file", err=True)


def assignments(given: list[str] | None) -> dict[str, str]:
    """FIELD=VALUE as a table. ValueError for anything else."""
    for each in given or []:
        if "=" not in each:
            raise ValueError(f"--set {each}: write FIELD=VALUE")
    return {key: value for key, _, value in (each.partition("=") for each in given or [])}
