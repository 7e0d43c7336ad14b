"""The verbs that train or make ready for it: run, prepare, configs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import environment


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(prepare)
    app.command()(configs)


def run(  # noqa: PLR0917 - typer passes options by name
    configuration: Annotated[
        str | None,
        typer.Argument(
            envvar=environment.CONFIGURATION, help="A name under configs/, or a path. `configs` lists them."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar=environment.DATA_DIR, help="The data set, a folder in COCO form.")
    ] = None,
    backbone_path: Annotated[
        Path | None, typer.Option(help="Initial weights, where the configuration wants them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            envvar=environment.OUT, help="Folder of the log result_N.txt.  [default: out/CONFIGURATION in the checkout]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(envvar=environment.SEED, min=0, max=2**32 - 1, help="Drawn anew for each run when left out."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End after so many optimizer steps of the whole run, its schedule unchanged: equal work, to compare speeds.",
        ),
    ] = None,
    target: Annotated[float | None, typer.Option(help="Quality at which the run ends; open division only.")] = None,
    number: Annotated[int | None, typer.Option(min=0, help="N of result_N.txt.  [default: the next free one]")] = None,
    checkpoint_dir: Annotated[Path | None, typer.Option(help="Keep a checkpoint there after each epoch.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on: of a run from its checkpoint, never a timed result; of a series of trials."
        ),
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="So many runs, each started afresh and entered in a ledger.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Run each trial in a container of this image.")] = None,
    system: Annotated[
        str | None, typer.Option(help="Trials land in OUT/SYSTEM/BENCHMARK.  [default: from the platform's name]")
    ] = None,
    clear_caches: Annotated[
        bool,
        typer.Option(envvar="CLEAR_CACHES", help="Drop the page cache before each trial, where that is permitted."),
    ] = True,
    watchdog: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds without a line in the log after which a trial is stopped; 0 for never."),
    ] = None,
    gpus: Annotated[
        str, typer.Option(help="Of a container: indices or UUIDs, with commas.  [default: the first ones]")
    ] = "",
    shm_size: Annotated[
        str | None, typer.Option(help="Of a container: its own shared memory, such as 8g, instead of the host's.")
    ] = None,
) -> None:
    """One timed run: trains to the target and leaves a log that MLPerf's checker accepts. With --trials, a series of them.

    Exit codes: 0 target met, 1 epochs (or --max-steps) spent without it, 2 usage or configuration, 5 the run broke, 6 no
    suitable device or driver, 130 interrupted.
    """
    for sentence in environment.lookalikes():
        sys.stderr.write(f"warning: {sentence}\n")
    series = trials is not None or image is not None
    if resume and not series and checkpoint_dir is None:
        raise typer.BadParameter(
            "--resume needs --checkpoint-dir, where the checkpoint lies, or --trials, a series to go on with"
        )
    if series and (number is not None or checkpoint_dir is not None):
        raise typer.BadParameter("--number and --checkpoint-dir are for a single run, not for a series of trials")

    from harness import config
    from harness.execution import lifecycle
    from harness.execution.context import Launch
    from harness.execution.run import Request
    from harness.launch import ranks

    launch = Launch.from_environment()
    try:
        path = config.find(configuration) if configuration else _default()
        chosen = config.load(path, target=target)
    except config.ConfigError as error:
        if out is not None and not launch.as_rank and not series:
            lifecycle.refuse(Request(out=out, number=number), str(error))
        raise
    if series:
        from harness.cli.trials import run_trials

        code = run_trials(
            chosen,
            path,
            trials=1 if trials is None else trials,
            out=out or environment.out_dir(config.CHECKOUT),
            image=image,
            system=system,
            data_dir=data_dir,
            backbone_path=backbone_path,
            seed=seed,
            max_steps=max_steps,
            clear_caches=clear_caches,
            resume=resume,
            watchdog_s=watchdog,
            gpus=[each for each in gpus.split(",") if each],
            shm_size=shm_size,
        )
        raise typer.Exit(code)
    request = Request(
        out=out or environment.out_dir(config.CHECKOUT) / chosen.name,
        number=number,
        seed=seed,
        data_dir=data_dir,
        backbone_path=backbone_path,
        cache_dir=environment.cache_dir(config.CHECKOUT),
        checkpoint_dir=checkpoint_dir,
        resume=resume,
        max_steps=max_steps,
    )
    if chosen.run.world_size > 1 and not launch.as_rank:
        raise typer.Exit(ranks.run(chosen, path, request))
    raise typer.Exit(lifecycle.execute(chosen, request, launch))


def _default() -> Path:
    """What runs when no configuration is named; where that is the processor on a machine with more, it is said."""
    from harness import config
    from harness.execution.context import this_machine

    machine = this_machine()
    path = config.find_default(machine.accelerators)
    for each in machine.found:
        if each.unusable:
            sys.stderr.write(f"warning: {path.stem} runs on the processor: {each.verdict}\n")
    return path


def prepare(
    data_dir: Annotated[Path, typer.Option(envvar=environment.DATA_DIR, help="Where the data set is or shall be.")],
    benchmark: Annotated[str, typer.Option(help="Whose data set.  [default: the only one there is]")] = "",
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Download nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloading.")] = False,
) -> None:
    """Download the full data set and the initial weights, or verify what is there.

    Safe to interrupt: it goes on where it was. Exit codes: 0 complete, 1 something is missing or damaged, 130 interrupted.
    """
    from rich.progress import Progress

    from harness.config import find_benchmark, only_benchmark

    found = find_benchmark(benchmark or only_benchmark())
    with Progress(transient=True) as bar:
        tasks = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total, visible=done != total)

        def confirm(question: str) -> bool:
            if yes:
                return True
            if not sys.stdin.isatty():
                raise ValueError(
                    f"{question} There is no terminal to answer at: say --yes, or --verify-only to look only"
                )
            bar.stop()
            answer = typer.confirm(question)
            bar.start()
            return answer

        def say(text: str) -> None:
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

        problems = found.prepare(data_dir, verify_only=verify_only, confirm=confirm, say=say, progress=progress)
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def configs() -> None:
    """The configurations there are, each with the first comment of its file."""
    from harness import config

    for name, path in config.available().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = [
            line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]
        ]
        typer.echo(f"{name}\n" + "\n".join(f"    {line}" for line in comment))
