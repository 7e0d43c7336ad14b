"""The verbs that train or make ready for it: run, prepare."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import exit_codes, options
from harness.cli import environment
from harness.contract import Benchmark
from harness.request import Engine, Request, check_inputs

if TYPE_CHECKING:
    from harness.config import Configuration


def register(app: typer.Typer) -> None:
    app.command()(options.verb(Request, run))
    app.command()(prepare)


def run(request: Request, named: frozenset[str]) -> None:
    """One timed run: trains to the target and leaves a log that MLPerf's checker accepts. With --trials, a series of them.

    Each option is read from the environment too: from the variable that is named beside it, else from HARNESS_ and its name
    (HARNESS_MAX_STEPS=200). The command line wins.

    Exit codes: 0 target met, 1 epochs (or --max-steps) spent without it, 2 usage or configuration, 5 the run broke, 6 no
    suitable device or driver, 130 interrupted.
    """
    from harness import config, config_files

    environment.must_be_in_a_folder()
    request, left_out = request.as_meant(named)
    passed_over = environment.passed_over(config_files.CHECKOUT) if request.cache_dir is None else []
    for sentence in (*environment.lookalikes(), *left_out, *passed_over):
        sys.stderr.write(f"warning: {sentence}\n")

    from harness.execution import leaving, lifecycle, signals
    from harness.execution.context import Launch, Node
    from harness.launch import ranks
    from harness.system import accelerator, places, preflight

    launch = Launch.of_series() if request.series else Launch.from_environment()
    if launch.parent is not None:
        signals.end_with_parent(launch.parent)
    name = request.configuration
    try:
        path = _default() if name is None else config_files.find(name)
        chosen = config.load(path, target=request.target, org=request.org)
    except config_files.ConfigError as error:
        if request.out is not None and not launch.as_rank and not request.series:
            lifecycle.refuse(request, str(error))
        raise
    alone = not launch.as_rank and environment.of_a_launcher() is None  # ranks and trials of somebody who said it
    if alone and request.max_steps is None:
        _warn_of_what_bars_a_package(chosen, request.started_by)
    request = replace(
        request,
        configuration=str(config_files.from_anywhere(path)),
        target=chosen.run.target,
        cache_dir=request.cache_dir or environment.cache_dir(config_files.CHECKOUT),
        out=request.out or environment.out_dir(config_files.CHECKOUT) / ("" if request.series else chosen.name),
    )
    if alone and environment.IN_IMAGE in os.environ and places.look(request.folder).a_layer:
        sys.stderr.write(
            f"warning: {request.folder} is gone with this container, and the log in it: give it a folder of the host, as by "
            'docker run -v "$PWD/out:/results"\n'
        )
    if alone and not request.series:
        _must_not_be_in_use(request.folder)
    if request.started_by is not Engine.SLURM:  # which looks on the nodes, where it is read
        check_inputs(request, chosen.prepared_by)
    if request.series:
        from harness.cli.trials import run_trials

        raise typer.Exit(run_trials(chosen, request))
    if chosen.run.world_size > 1 and not launch.as_rank:
        if chosen.run.device == accelerator.CPU:  # the others each look for theirs
            preflight.check(accelerator.CPU, chosen.run.accelerators_per_node)
        node = Node.from_environment(chosen.run.nodes) if chosen.run.nodes > 1 else None
        raise typer.Exit(ranks.run(chosen, request, node))
    threads = threading.enumerate()
    try:
        code = lifecycle.execute(chosen, request, launch)
    except signals.Interrupted:  # before there was a log to close
        code = exit_codes.INTERRUPTED
    if launch.rank != 0 and code == exit_codes.EPOCHS_SPENT:
        # rank 0's to say: launchers take any other code than 0 for a failure, and end the ranks that have last words
        code = exit_codes.TARGET_MET
    if launch.world_size > 1 and code not in (exit_codes.TARGET_MET, exit_codes.EPOCHS_SPENT):
        leaving.at_once(code)
    leaving.without(threads, code)
    raise typer.Exit(code)


def _must_not_be_in_use(folder: Path) -> None:
    """ValueError where a series runs: the number that is free there is that of its next trial."""
    from harness.launch import ledger

    with contextlib.suppress(OSError):  # nothing can be written there either, as the run says
        if ledger.in_use(folder):
            raise ValueError(f"{folder}: a series is running there; wait for its end, or name another --out")


def _warn_of_what_bars_a_package(chosen: Configuration, started_by: Engine) -> None:
    """Before hours are spent. Containers, and nodes of a job, have code of their own."""
    from harness.execution import provenance

    if lacks := chosen.lacks_submitter:
        sys.stderr.write(f"warning: {lacks}; --org NAME names who submits\n")
    if chosen.to_be_published and started_by is Engine.PROCESS and (said := provenance.unpublishable()):
        sys.stderr.write(f"warning: {'; '.join(said)}\n")


def _default() -> Path:
    """What runs when no configuration is named; where that is the processor on a machine with more, it is said."""
    from harness import config_files
    from harness.execution.context import this_machine

    machine = this_machine()
    path = config_files.find_default(machine.accelerators)
    for each in machine.found:
        if each.unusable:
            sys.stderr.write(f"warning: {path.stem} runs on the processor: {each.verdict}\n")
    return path


def prepare(
    data_dir: Annotated[Path, typer.Option(envvar=environment.DATA_DIR, help="Where the data set is or shall be.")],
    benchmark: Annotated[
        str, typer.Option(help="Whose data set.  [default: that of the configuration which runs by default]")
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="Which of the benchmark's data sets.  [default: its own; any other name lists them]")
    ] = "",
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Download nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloading.")] = False,
) -> None:
    """Download the full data set and the initial weights, or verify what is there.

    Safe to interrupt: it goes on where it was. Exit codes: 0 complete, 1 something is missing or damaged, 2 usage,
    130 interrupted.
    """
    from rich.progress import Progress

    from harness.config import default_benchmark, find_benchmark

    try:
        if not stat.S_ISDIR(data_dir.stat().st_mode):
            raise ValueError(f"--data-dir {data_dir}: is a file, and a folder is needed")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(f"--data-dir {data_dir}: cannot be looked into: {error.strerror}") from error
    found = find_benchmark(benchmark or default_benchmark())
    chosen = _data_set(found, dataset)
    with Progress(transient=True) as bar:
        tasks = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total, visible=done != total)

        def confirm(question: str) -> bool:
            if yes:
                return True
            bar.stop()
            if not sys.stdin.isatty():
                # no ValueError, which a benchmark may take for one of its download's
                sys.stderr.write(
                    f"error: {question} There is no terminal to answer at: say --yes, or --verify-only to look only\n"
                )
                raise typer.Exit(exit_codes.USAGE)
            try:
                answer = typer.confirm(question)
            except typer.Abort as error:  # for Ctrl-C as for the end of what is typed
                if isinstance(error.__context__, KeyboardInterrupt):
                    sys.stderr.write("\n")
                    raise typer.Exit(exit_codes.INTERRUPTED) from error
                raise
            bar.start()
            return answer

        def say(text: str) -> None:
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

        problems = found.prepare(
            data_dir, verify_only=verify_only, confirm=confirm, say=say, progress=progress, **chosen
        )
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def _data_set(benchmark: Benchmark, name: str) -> dict[str, str]:
    """What `prepare` is also told. ValueError for a name that the benchmark has not."""
    if not name:
        return {}
    offered = getattr(benchmark, "data_sets", {})
    if name not in offered:
        there = "; ".join(f"{each}: {what}" for each, what in offered.items())
        raise ValueError(f"--dataset {name}: {benchmark.name} has no such data set; there are: {there or 'no others'}")
    return {"data_set": name}
