"""The verb that looks at the machine: doctor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import exit_codes
from harness.cli import environment

if TYPE_CHECKING:
    from harness.system.accelerator import Finding
    from harness.system.doctor import Reading

COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    configuration: Annotated[
        str | None,
        typer.Argument(
            help="Whose data to look for in --data-dir.  [default: that of any configuration]", metavar="CONFIGURATION"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar=environment.DATA_DIR, help="Look at this data set's folder too.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            envvar=environment.OUT,
            help="Where results are going to be written.  [default: where `run` puts them]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that was found, as JSON.")] = False,
) -> None:
    """What stands between this machine and a good run: driver, libcuda, GPUs, clocks, limits, disk.

    The same inside the image and outside. Exit codes: 0 nothing but warnings, 6 a problem.
    """
    from harness.config_files import CHECKOUT
    from harness.system import doctor as examination
    from harness.system import facts, places

    if configuration is not None and data_dir is None:
        raise ValueError("CONFIGURATION says whose data to look for: name its folder with --data-dir")
    data = places.look(data_dir) if data_dir is not None else None
    reading = _reading(data_dir, configuration) if data_dir and data and data.exists and data.readable else None
    machine = facts.read(os.environ)
    findings = examination.examine(
        machine,
        results=places.look(out or environment.out_dir(CHECKOUT)),
        shared_memory=places.look(Path("/dev/shm")),
        data=data,
        cache=places.look_at_cache(environment.cache_dir(CHECKOUT)),
        reading=reading,
    )
    if configuration is not None:
        findings += _publishing(configuration)
    if as_json:
        import json

        whole = {
            "verdict": asdict(machine.verdict),
            "findings": [asdict(each) for each in findings],
            **facts.describe(machine),
        }
        typer.echo(json.dumps(whole, indent=1))
    else:
        _show(findings)
    raise typer.Exit(exit_codes.NOT_SUITABLE if any(each.level == "problem" for each in findings) else 0)


def _publishing(configuration: str) -> Iterator[Finding]:
    """What keeps results from being published that are meant to be."""
    from harness import config, config_files
    from harness.execution import provenance
    from harness.system.accelerator import Finding

    chosen = config.load(config_files.find(configuration))
    if lacks := chosen.lacks_submitter:
        yield Finding("warning", "submitter", lacks, "for results to be published: run with --org NAME")
    if chosen.to_be_published and (said := provenance.unpublishable()):
        yield Finding("warning", "code", *said)


def _reading(data_dir: Path, configuration: str | None) -> Reading | None:
    """What the named configuration misses in the folder; else the first that misses nothing, or the one that misses least."""
    from harness import config, config_files
    from harness.system.doctor import Reading

    named = configuration is not None
    found: list[Reading] = []
    for path in [config_files.find(configuration)] if configuration is not None else config_files.available().values():
        try:
            chosen = config.load(path)
        except config_files.ConfigError:
            if named:
                raise
            continue  # somebody is writing it
        look = getattr(chosen.benchmark, "lacks", None)
        lacks = None if look is None else look(chosen.tables, data_dir)
        if lacks is not None:
            look = getattr(chosen.benchmark, "hollow", None)
            hollow = () if look is None else tuple(look(chosen.tables, data_dir))
            found.append(Reading(chosen.name, chosen.benchmark_name, chosen.prepared_by, tuple(lacks), hollow))
    if not found:
        return None
    usual = config.default_benchmark()  # of an empty folder all lack as much
    best = min(found, key=lambda each: (len(each.lacks), len(each.hollow), each.benchmark != usual))
    complete = sum(each.whole for each in found)
    return best if not best.whole else replace(best, more=complete - 1)


def _show(findings: list[Finding]) -> None:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = max(len(each.subject) for each in findings)
    for each in findings:
        level = f"{each.level:7}"
        shown = typer.style(level, fg=COLOURS[each.level], bold=each.level == "problem") if colour else level
        typer.echo(f"{shown}  {each.subject:{width}}  {each.text}")
        for line in each.fix.splitlines():
            typer.echo(f"{'':7}  {'':{width}}  -> {line}")
    warnings, problems = (sum(each.level == level for each in findings) for level in ("warning", "problem"))
    typer.echo(f"{warnings} warning{'s' * (warnings != 1)}, {problems} problem{'s' * (problems != 1)}")
