"""What makes runs that can be held against each other: compare plan, run and noise."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import exit_codes, outside
from harness.cli import environment, screen

if TYPE_CHECKING:
    from harness.comparison.planning.plan import Plan

WEIGHTS = "--backbone-path"  # the older name of --initial-weights: an arm may be a commit that knows no other


def plan(  # noqa: PLR0917 - typer passes options by name
    configuration: Annotated[str, typer.Argument(help="A name under configs/, or a path.", metavar="CONFIG")],
    arm: Annotated[
        list[str],
        typer.Option(
            help="Twice. A driver's name (--arm old --arm new), or a name with a setting (--arm a:image=ssd:1 --arm "
            "b:image=ssd:2), one or more with commas: image=REF, config=NAME, commit=REV, env=KEY=VALUE.",
            metavar="NAME",
        ),
    ],
    hosts: Annotated[int, typer.Option(min=1, help="Machines, every second in opposite order.")] = 2,
    runs: Annotated[int, typer.Option(min=1, help="Runs that count, of each block; by turns: of each arm.")] = 5,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of a run.  [default: to the target]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a run, in place of --steps.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of each arm's first run; the next has one more.")
    ] = 1,
    data_dir: Annotated[Path | None, typer.Option(envvar=environment.DATA_DIR, help="As of `run`.")] = None,
    initial_weights: Annotated[
        Path | None, typer.Option("--initial-weights", "--backbone-path", help="As of `run`.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="`harness probe` as each arm begins on a host, a minute.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="The plan's folder.  [default: out/compare_ARM_ARM in the checkout]", metavar="DIR"),
    ] = None,
) -> None:
    """Write a schedule: blocks A B B A of a driver each, or runs of two arms by turns where no reboot is needed."""
    from harness.comparison.planning import child
    from harness.comparison.planning import plan as plans
    from harness.config_files import CHECKOUT

    options = [*_option("--data-dir", data_dir), *_option(WEIGHTS, initial_weights)]
    made = plans.make(
        _named(configuration),
        arm,
        hosts=hosts,
        runs=runs,
        max_steps=steps,
        epochs=epochs,
        seed=seed,
        options=options,
        probe=probe,
    )
    made = plans.with_configurations(child.pinned(made), _of_arm)
    _check_runs(made)
    root = out or environment.out_dir(CHECKOUT) / f"compare_{made.arms[0].name}_{made.arms[1].name}"
    path = plans.write(made, root)
    sys.stdout.write(f"wrote {path}\n")
    for host in range(1, hosts + 1):
        schedule = made.schedule(host)
        blocks = dict.fromkeys((item.block, made.arms[item.arm].name) for item in schedule)
        order = " ".join(name for _, name in blocks) if made.by_hand else "by turns"
        counted = sum(item.kind != "warm-up" for item in schedule)
        sys.stdout.write(f"host {host}: {order}; {counted} runs and {len(schedule) - counted} warm-ups\n")
    sys.stdout.write(f"on each of them type\n    {_again(root)}\n")


def _named(configuration: str) -> str:
    """A configuration as runs are to name it that start in another directory. What is wrong with it is said before any does."""
    from harness.config import load
    from harness.config_files import find, from_anywhere

    found = find(configuration)
    load(found)
    return str(from_anywhere(found)) if found.suffix == Path(configuration).suffix else configuration


def _check_runs(made: Plan) -> None:
    """ValueError for what each run of the plan would be refused for, whichever machine it is on, as a run says it.

    What a machine cannot do is left to the first run on it, and what is of another commit to that commit's code.
    """
    from harness.config import load
    from harness.config_files import find
    from harness.contract import Context, NotSuitable
    from harness.system.accelerator import CPU

    given = dict(itertools.pairwise(made.options))
    weights = next((given[name] for name in (WEIGHTS, "--initial-weights") if name in given), None)
    runs = [
        (arm.config or made.configuration, weights or arm.env.get("HARNESS_INITIAL_WEIGHTS"))
        for arm in made.arms
        if arm.commit is None
    ]
    for configuration, file in dict.fromkeys(runs):
        chosen = load(find(configuration))
        # of the most able machine there may be: a plan is written on any
        device = CPU if chosen.run.device == CPU else "cuda:0"
        own = None if file is None else Path(file)
        there = Context(device, world_size=chosen.run.world_size, initial_weights=own, threads=sys.maxsize)
        with contextlib.suppress(NotSuitable):
            chosen.check(there)


def _of_arm(configuration: str, commit: str | None) -> str:
    """Likewise; a name, or a path that the arm's commit has, is the commit's own."""
    from harness.comparison.planning import child

    if commit is not None and (Path(configuration).suffix != ".toml" or child.has(commit, configuration)):
        return configuration
    return _named(configuration)


def run(
    folder: Annotated[Path, typer.Argument(help="What `compare plan` wrote.", metavar="PLAN")],
    host: Annotated[
        int | None, typer.Option(min=1, help="Which host of the plan this is.  [default: the next]")
    ] = None,
) -> None:
    """Do what the plan says is due on this machine, with the driver it has now; goes on after reboots and kills.

    Exit codes: 0 done, or done up to the next driver; 2 usage; 6 this is not the driver that is due; those of `run`.
    """
    from harness.comparison.planning import child, work
    from harness.comparison.planning import plan as plans
    from harness.contract import NotSuitable
    from harness.execution.signals import Interrupted, as_exceptions
    from harness.launch.ledger import LedgerLost
    from harness.system import facts

    made = plans.read(folder)
    _check_runs(made)
    root = folder if folder.is_dir() else folder.parent
    here = work.Here.of(facts.describe(facts.read(os.environ)))
    variables = _of_runs()

    def launch(plan: plans.Plan, item: plans.PlannedRun, target: Path) -> int:
        seed, arm = plan.seed_of(number, item), plan.arms[item.arm]
        return child.start(plan, arm, target, seed=seed, root=root, environment=variables, say=screen.say)

    def probe(plan: plans.Plan, arm: int, target: Path) -> str:
        return child.probe(plan, arm, target, root=root, environment=variables)

    try:
        with as_exceptions():
            number = work.claim(root, made, here, _again(root), host)
            code = work.Work(root, made, number, here, launch, screen.say, _again(root), probe).run()
    except work.NotDue as refused:
        sys.stderr.write(f"refused: {refused}\n")
        code = exit_codes.NOT_SUITABLE
    except Interrupted as interrupted:
        sys.stderr.write(f"{interrupted}; go on with\n    {_again(root)}\n")
        code = exit_codes.INTERRUPTED
    except LedgerLost as error:
        sys.stderr.write(f"{error}; what ran here is no part of the plan any more\n")
        code = exit_codes.BROKEN
    except OSError as error:
        if error.errno not in exit_codes.DISK_FULL:
            raise
        raise NotSuitable(
            f"{root}: the disk is full. What the ledger says is on it; make room, then go on with\n    {_again(root)}"
        ) from error
    raise typer.Exit(code)


def noise(  # noqa: PLR0917 - typer passes options by name
    source: Annotated[
        str, typer.Argument(help="A configuration to run, or a folder of runs that are alike.", metavar="CONFIG|DIR")
    ],
    runs: Annotated[int, typer.Option(min=4, help="How many to make.")] = 10,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of a run.  [default: to the target]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(envvar=environment.DATA_DIR, help="As of `run`.")] = None,
    initial_weights: Annotated[
        Path | None, typer.Option("--initial-weights", "--backbone-path", help="As of `run`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where runs and noise.json go.  [default: out/noise_CONFIG in the checkout]")
    ] = None,
) -> None:
    """A against A on this machine: its floor, its false alarms at each delta, and how many runs a difference needs."""
    from harness.comparison.judging import noise as measuring
    from harness.comparison.runs import find as find_runs

    target = logs = Path(source)
    if not (source and outside.is_folder(logs)):
        from harness.config import load
        from harness.config_files import CHECKOUT, find

        name = load(find(source)).name  # what is wrong with it is said before a run
        target = out or environment.out_dir(CHECKOUT) / f"noise_{name}"
        options = [*_option("--data-dir", data_dir), *_option(WEIGHTS, initial_weights)]
        logs = target / "runs"
        _alike(source, target, runs, steps, options)
    found = find_runs(str(logs), 0)
    measured = measuring.measure(found)
    path = measuring.write(measured, found, target)
    sys.stdout.write("\n".join(measuring.lines(measured, found[0])) + f"\n\nwrote {path}\n")


def _alike(configuration: str, target: Path, runs: int, steps: int | None, options: list[str]) -> None:
    """What is missing of `runs` runs and a warm-up, each in a process of its own. typer.Exit where one fails.

    ValueError where another call makes them in this moment, since it would put aside what is running, and where runs of
    something else lie there.
    """
    from harness import locks
    from harness.cli import outputs
    from harness.comparison.planning import plan as plans

    arm = plans.Arm("noise")
    made = plans.Plan(_named(configuration), (arm, arm), max_steps=steps, options=tuple(options))
    _check_runs(made)
    outputs.folder("--out", target)
    running = f"--out {target}: another `compare noise` is running there; wait for its end"
    with locks.alone(target / ".noise.lock", running):
        _check_earlier(made, target)
        _missing(made, target, runs)


def _check_earlier(made: Plan, target: Path) -> None:
    """ValueError where a finished run there is not what is asked for now: it would be measured in the place of one that is."""
    from harness.comparison.planning import as_planned, work
    from harness.config import load
    from harness.config_files import find
    from harness.execution import provenance
    from harness.system import facts

    earlier = [folder for folder in (target / "warm-up", *sorted(target.glob("runs/*"))) if work.finished(folder)]
    if not earlier:
        return
    told = facts.describe(facts.read(os.environ))
    here, code = work.Here.of(told), provenance.commit(told["image"])
    sha256 = load(find(made.configuration)).sha256
    for folder in earlier:
        record = as_planned.record_in(folder)
        assert record is not None  # as it is finished
        if why := as_planned.not_asked(
            record,
            max_steps=made.max_steps,
            configuration_sha256=sha256,
            driver=here.driver,
            host=here.host,
            code=code,
        ):
            raise ValueError(f"--out {target}: the run in {folder.relative_to(target)} is {why}; name another --out")


def _missing(made: Plan, target: Path, runs: int) -> None:
    from harness.comparison.planning import child, work
    from harness.execution.signals import Interrupted, as_exceptions

    variables = _of_runs()
    for number in range(runs + 1):
        folder = target / "warm-up" if number == 0 else target / "runs" / f"run-{number}"
        if work.finished(folder):
            continue
        work.put_aside(target, folder)
        folder.mkdir(parents=True)
        screen.say("warm-up, which does not count" if number == 0 else f"run {number} of {runs}")
        try:
            with as_exceptions():
                code = child.start(
                    made, made.arms[0], folder, seed=number, root=target, environment=variables, say=screen.say
                )
        except Interrupted:  # as the run came to its end
            code = exit_codes.INTERRUPTED
        if code not in (exit_codes.TARGET_MET, exit_codes.EPOCHS_SPENT):
            raise typer.Exit(code)


def _of_runs() -> dict[str, str]:
    """The environment of runs that a plan decides: what a shell says to `run` is not for them, except for where things lie.

    What it says to libraries and drivers they need as any run does: it is named.
    """
    from harness.results.table import printable
    from harness.system import variables

    kept = environment.of_children()
    kept |= {name: os.environ[name] for name in (environment.DATA_DIR, environment.CACHE_DIR) if name in os.environ}
    if left_out := sorted(os.environ.keys() - kept.keys()):
        sys.stderr.write(
            f"warning: {', '.join(left_out)} of the environment: not for these runs, which are all alike\n"
        )
    if handed_on := variables.told(kept):
        told = ", ".join(f"{name}={value}" for name, value in handed_on.items())
        sys.stderr.write(f"of the environment, for every run that is in no container: {printable(told)}\n")
    return kept


def _option(name: str, value: Path | int | None) -> list[str]:
    return [] if value is None else [name, str(value.resolve() if isinstance(value, Path) else value)]


def _again(root: Path) -> str:
    return f"python -m harness compare run {shlex.quote(str(root))}"
