"""The verb that measures small things alone, to explain what `compare` found: probe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import exit_codes
from harness.cli import environment, outputs, screen

if TYPE_CHECKING:
    from harness.config import Configuration


def register(app: typer.Typer) -> None:
    app.command()(probe)


def probe(  # noqa: PLR0917 - typer passes options by name
    configuration: Annotated[
        str | None,
        typer.Argument(
            help="A name under configs/, or a path: its step and decoder too.  [default: the machine alone]",
            metavar="CONFIGURATION",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="As run.device in a configuration: cpu, cuda, xpu, musa, hpu, npu, or accelerator for "
            "whichever is here.  [default: the configuration's, or any accelerator]"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Seconds to measure for, at most.")] = 60,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of probe_N.json; beside results `compare` finds it.  [default: that of `run`, "
            "out/CONFIGURATION]",
            metavar="DIR",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Measure in a container of this image, as `run --image` would train in.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the file's content instead of a table.")] = False,
) -> None:
    """Launches, copies, matrix products, all-reduce, and a benchmark's step and decoder, each alone: explains, never gates.

    Leaves probe_N.json; `compare` shows those that lie beside both arms' results. Exit codes: 0 done, 2 usage, 6 no such
    device or image's engine, or the file could no longer be written.
    """
    from json import dumps

    environment.must_be_in_a_folder()
    from harness import config, config_files, names
    from harness.execution import probe as probing
    from harness.execution.context import keep_compiled, this_machine
    from harness.results.table import printable
    from harness.system import accelerator

    path = config_files.find(configuration) if configuration is not None else None
    chosen = config.load(path) if path is not None else None
    target = out or environment.out_dir(config_files.CHECKOUT) / (chosen.name if chosen is not None else "")
    outputs.folder_to_be("--out", target)
    if image is not None:
        if path is None or chosen is None or device is not None or json:
            raise ValueError(
                "--image needs a CONFIGURATION, which says the device, and leaves the file alone: no --json"
            )
        raise typer.Exit(_in_container(chosen, path, image, seconds, target))
    kind = device or (chosen.run.device if chosen is not None else accelerator.ANY)
    if kind not in accelerator.devices():
        raise ValueError(f"--device {kind}: not known; there are: {', '.join(accelerator.devices())}")
    machine = this_machine(kind)
    if device is None and chosen is None and not machine.accelerators:
        kind = accelerator.CPU  # nobody asked for an accelerator
    keep_compiled(
        environment.cache_dir(config_files.CHECKOUT)
    )  # what runs have compiled, a probe of the same step finds
    found = probing.measure(chosen, kind, seconds, machine, lambda what: screen.say_to_a_terminal(f"measuring {what}"))
    text = dumps(probing.document(found), indent=1) + "\n"
    written = outputs.figures(target, names.PROBE, text)
    if json:
        sys.stdout.write(text)
    else:
        here = machine.accelerators[0] if kind != accelerator.CPU else machine.host.cpu.model
        of = f"{chosen.name} on " if chosen is not None else ""
        sys.stdout.write(printable(f"{of}{found.device}, {here}, {found.seconds:.0f} s\n\n"))
        sys.stdout.write("\n".join(map(printable, probing.lines(found))) + "\n\n")
    if written is None:
        raise typer.Exit(exit_codes.NOT_SUITABLE)
    if not json:
        sys.stdout.write(printable(f"wrote {written}\nIt explains a difference; no verdict rests on it.\n"))


def _in_container(chosen: Configuration, path: Path, image: str, seconds: float, folder: Path) -> int:
    from harness import config_files
    from harness.cli.trials import cache_of_containers
    from harness.execution.signals import as_exceptions
    from harness.launch import probing
    from harness.request import Request
    from harness.system.accelerator import CPU

    cache = cache_of_containers(environment.cache_dir(config_files.CHECKOUT), screen.say)
    request = Request(configuration=str(config_files.from_anywhere(path)), image=image, cache_dir=cache)
    if chosen.run.device != CPU and (unheard := environment.unheard_by_the_engine()):
        screen.say(f"warning: {unheard}")
    with as_exceptions():
        return probing.probe(chosen, request, folder, seconds, screen.say, variables=environment.of_containers())
