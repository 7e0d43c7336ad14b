"""How fast the real training run is, and whether it is still right: `python -m measuring.ssd`.

Correctness first: where a check fails nothing is measured. Then what a run consists of is measured with the session's own code,
in turns with what it is compared with, in one process. The same command serves a CPU and a GPU:

    python -m measuring.ssd                                        a CPU, generated pictures, minutes
    python -m measuring.ssd --data-dir DIR --rounds 20             real photographs
    python -m measuring.ssd H100_1x1x256 --data-dir DIR --all      a GPU, if there is one, with every variant
    python -m measuring.ssd H100_1x1x256 --data-dir DIR --only end-to-end,step,data --budget 150
                                                                            a GPU that is rented by the minute

Sections are measured in the order of --only's list below, the most important first, and each figure is printed as it is there.
When --budget is over the rest is left out, and it is said which.

Exit codes: 0 measured, 1 a check failed, 2 usage, 5 something broke, or --budget was over before anything was measured, 6 no
suitable device or no room on the disk, 130 interrupted. A missed goal is shown, not an error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks.detection import precision
from benchmarks.detection.capabilities import installed
from benchmarks.detection.data_path import nvjpeg
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.session import SSDSession
from harness import exit_codes
from harness.contract import NotSuitable
from harness.execution import binding
from measuring.arguments import file
from measuring.measure import Figure, machine, surroundings, vector_units, wall
from measuring.ssd import accuracy, checks, data, fused, options, power, run, sections, setup, turns
from measuring.ssd import report as reports

FEW = 8  # images of the data path's check
FEWEST = 32  # of the data set: whole batches for every section
CPU_STEPS = 6
LOOPED = 16  # images of a batch that are detected in a Python loop
MOST_TURNS_OF_CHOICES = 5  # a dozen graphs, each opened again in each turn
FORMS = 64  # of the compiled step, at most
STEPS_OF_A_TURN = 40  # end to end, after ten that fill the queue: 3 s on an H100
STEPS_IN_BUDGET = 100  # of the end-to-end run on a GPU, where time is short: five intervals of 20


class OutOfTime(BaseException):
    """--budget is over. No Exception: a compiler that it comes to makes another of those."""


@dataclass(frozen=True)
class Workload:
    """What the sections measure on."""

    config: SSDConfig
    device: str
    folder: Path
    ours: SSDSession
    plain: SSDSession  # the same weights in float32, of setup.PLAIN
    batch: dict[str, Tensor]
    network: tuple[Tensor, Tensor]  # logits and offsets like a trained network's for the batch
    in_loops: tuple[Tensor, Tensor]  # as many of them as the loop takes seconds for
    steps: int  # of the end-to-end run


def usable_threads() -> int:
    """As a run has it: of the processors that this process may use, within a container's quota."""
    return binding.threads(len(os.sched_getaffinity(0)))


def fitted(asked: argparse.Namespace, device: str) -> SSDConfig:
    """The configuration as this machine can run it."""
    config = setup.read(asked.configuration)
    on_cpu = device == "cpu"
    batch_size = asked.batch_size or (4 if on_cpu else config.optimizer.batch_size)
    compiled = config.compute.compile and not on_cpu if asked.compile is None else asked.compile
    threads = usable_threads() if on_cpu else config.data.threads
    chosen = config.compute.precision
    if chosen == "auto":
        chosen = precision.candidates(device)[-1]
    own = any(unit.endswith("bf16") for unit in vector_units())
    # as `auto` would end there, see precision.HOPELESS; one backward pass of bf16 would take longer than a budget, whose signal
    # comes when it is through. For what a format costs in accuracy its speed is no matter
    if on_cpu and not own and asked.accuracy is None:
        chosen = "fp32"
    if asked.accuracy is not None and chosen == "fp32":
        raise ValueError(
            f"accuracy is compared with fp32's, which is what {asked.configuration} trains in: leave it out"
        )
    return setup.changed(
        config,
        model={"initial_weights": "scratch", "batch_norm_ranks": 1},  # one device measures, and shares with none
        data={"threads": min(threads, 64)},
        optimizer={"batch_size": batch_size, "decay_epochs": []},
        compute={
            "compile": compiled,
            "cuda_graphs": config.compute.cuda_graphs and not on_cpu,
            "fused": [] if on_cpu else list(config.compute.fused),  # kernels for CUDA
            "precision": chosen,
            # no session's init measures them anew, which sets them for the whole process: all that is compared has as many
            **({"threads": torch.get_num_threads()} if on_cpu else {}),
        },
        evaluation={"batch_size": min(config.evaluation.batch_size, 8) if on_cpu else config.evaluation.batch_size},
    )


def unsuited(asked: argparse.Namespace, config: SSDConfig, device: str) -> dict[str, str]:
    """Sections that were asked for and that this configuration or device does not have, and why."""
    found, on_cpu = {}, device == "cpu"
    if on_cpu or not turns.READ_BY.keys() & config.compute.fused:
        found["constants"] = f"of the kernels of compute.fused under CUDA, of which {asked.configuration} has none here"
    if on_cpu:
        found["plans"] = "of cuDNN's, and this device is a CPU"
    if config.data.backend == "torch" or not installed("nvidia.dali"):
        found["choices"] = f"of DALI's graph, which {asked.configuration} does not have here"
    return {name: why for name, why in found.items() if name in asked.sections}


def measure(asked: argparse.Namespace, device: str, scratch: Path, console: Console, found: reports.Report) -> None:
    """Check, then measure, into `found`; where a check fails nothing is measured."""
    config = fitted(asked, device)
    if config.compute.precision == "fp32" != (wanted := setup.read(asked.configuration).compute.precision):
        console.print(
            f"precision is fp32, not {wanted}: this processor has no units for a coarser one", highlight=False
        )
    without = unsuited(asked, config, device)
    chosen = [name for name in asked.sections if name not in without]
    if not chosen:
        raise ValueError("; ".join(f"{name} is {why}" for name, why in without.items()))
    for name, why in without.items():
        console.print(f"{name} is left out: {why}", highlight=False)
    BENCHMARK.check(config, setup.context(device))
    folder = setup.folder_to_use(asked.data_dir, asked.cache_dir, console.print)
    # from here on: pictures that a budget cut off are thrown away, and the next one would make them again
    signal.setitimer(signal.ITIMER_REAL, asked.budget or 0.0)
    on_cpu, size = device == "cpu", config.optimizer.batch_size
    an_epoch = config.data.train_samples // size if asked.budget is None else STEPS_IN_BUDGET
    steps = asked.max_steps or (CPU_STEPS if on_cpu else an_epoch)
    epoch = max(FEWEST, size * (steps + 2), size * (asked.accuracy or 0))
    evaluation = asked.evaluate or (16 if on_cpu else config.data.eval_samples)
    lengths = {scratch / "few": (FEW, FEW), scratch / "data": (epoch, evaluation)}
    few, config = setup.repeated(config, folder, lengths)

    say = console.print
    ours, plain = (
        setup.session(each, device, scratch / "data") for each in (config, setup.changed(config, compute=setup.PLAIN))
    )
    found.configuration = ours.config.model_dump(mode="json")
    found.not_as_configured = dict(ours.settled.left_out)
    for name, why in found.not_as_configured.items():
        say(f"{name} is not as configured: {why}", highlight=False)
    batch = setup.first_batch(ours)
    found.surroundings["nvjpeg"] = nvjpeg.loaded()  # the data path has loaded its own by now
    network = setup.like_a_trained_network(batch, config.model.categories + 1)
    in_loops = (network[0][:LOOPED], network[1][:LOOPED])
    say("compile, autotune ...")
    found.figures.append(Figure("warm-up in init", "s", [wall(ours.warm_up, device)]))
    say("checking ...")
    found.checks += checks.of_data(few, scratch / "few", ours.default_boxes.cpu())
    found.checks += checks.of_computation(ours, plain, batch, network)
    found.checks.append(checks.of_detections(in_loops, ours.default_boxes))
    if not found.correct:
        return
    if asked.chart.is_file():
        asked.chart.unlink()  # an earlier profile's: should this one be killed, it would stand beside other samples
    kept = reports.Kept(found, asked.json, lambda line: say(f"  {line}", highlight=False))
    work = Workload(config, device, scratch / "data", ours, plain, batch, network, in_loops, steps)
    for number, name in enumerate(chosen):
        found.left_out = [*chosen[number:], *without]
        kept.write()
        say(f"{name} ...")
        aside = len(found.aside)
        if name == "accuracy":
            _of_accuracy(asked, found, work, kept, console)
        else:
            with power.watched(name, device, scratch, found.aside):
                _measure(name, asked, found, work, kept)
        for each in found.aside[aside:]:
            kept.say(str(each))
    found.left_out = list(without)


def _of_accuracy(
    asked: argparse.Namespace, found: reports.Report, work: Workload, kept: reports.Kept, console: Console
) -> None:
    before = list(found.figures)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=asked.accuracy)
        for found.losses in accuracy.train(work.config, work.device, work.folder, asked.accuracy):
            name, curve = list(found.losses.items())[-1]
            bar.update(task, description=f"training in {name}", completed=len(curve))
            found.figures[:] = [*before, *accuracy.figures(found.losses)]
            if len(curve) % accuracy.WINDOW == 0:
                kept.write()
    for each in found.figures[len(before) :]:
        kept.say(str(each))


def _measure(name: str, asked: argparse.Namespace, found: reports.Report, work: Workload, kept: reports.Kept) -> None:
    """One of options.SECTIONS."""
    config, device, folder = work.config, work.device, work.folder
    ours, batch, rounds = work.ours, work.batch, asked.rounds
    on_cpu, clock = device == "cpu", options.CLOCKS[asked.clock]
    size = config.optimizer.batch_size
    batches = max(2, 16 // size) if on_cpu else 20  # of the data path in a turn
    match name:
        case "end-to-end":
            setup.give_back_memory(device)
            # one by one: what comes before it breaks is kept
            kept.one_by_one(run.end_to_end(config, device, folder, folder.parent / "run", work.steps))
        case "turns":
            chosen = turns.CPU_CHOICES if on_cpu else turns.GPU_CHOICES
            how = {"rounds": rounds, "steps": min(work.steps, STEPS_OF_A_TURN)}
            mine = turns.Work(ours, config)
            kept.so_far(turns.end_to_end(mine, chosen, batch, **how, tell=kept.say, checked=found.checks.append))
        case "fused":
            _of_fused(asked, found, work, kept)
        case "constants":
            kept.so_far(turns.of_constants(ours, batch, rounds, STEPS_OF_A_TURN // 2, kept.say))
        case "plans":
            setup.give_back_memory(device)
            kept.one_by_one(run.with_all_plans(config, device, folder, folder.parent / "plans", work.steps))
        case "step":
            kept.so_far(sections.step(ours, work.plain, batch, rounds, clock))
            kept.so_far(sections.alone(ours, batch, work.network, rounds, max(8, 64 // size) if on_cpu else 20))
        case "data":
            kept.so_far(data.against_pil(config, folder, ours.default_boxes, rounds))
        case "detection":
            kept.so_far(sections.detection(work.in_loops, ours.default_boxes, rounds, device, clock))
        case "evaluation":
            kept.one_by_one(sections.evaluation(ours))
        case "kernels":
            found.kernels += sections.kernels(ours, batch, steps=1 if on_cpu else 5)
        case "variants":
            variants = sections.CPU_VARIANTS if on_cpu else sections.GPU_VARIANTS
            named = setup.possible(config, {each: {"compute": values} for each, values in variants.items()}, kept.say)
            others = {each: c for each, c in named.items() if c.compute != config.compute}
            more = {each: setup.session(c, device, folder) for each, c in others.items()}
            for session in more.values():
                session.warm_up()  # as in a run: compiled, autotuned, recorded
            kept.so_far(sections.steps(more, work.plain, batch, rounds, clock=clock))
        case "choices":
            few = min(rounds, MOST_TURNS_OF_CHOICES)
            kept.so_far(data.choices(config, device, folder, few, batches, tell=kept.say))
        case "evaluator":
            images = asked.evaluator or 500
            kept.so_far(sections.evaluators(images, rounds))
            kept.so_far(sections.evaluation_of_ranks(images, rounds))


def _of_fused(asked: argparse.Namespace, found: reports.Report, work: Workload, kept: reports.Kept) -> None:
    steps = STEPS_OF_A_TURN // 2 if work.device != "cpu" else 1
    try:
        for part in fused.here(work.config, work.device):
            how = {"rounds": asked.rounds, "steps": steps, "checked": found.checks.append}
            try:
                kept.so_far(fused.with_and_without(part, work.ours, work.batch, **how))
            except NotSuitable as error:
                kept.say(f"{part}: left out: {error}")
                continue
            except Exception as error:  # noqa: BLE001 - a check that does not pass, and the other parts are measured
                found.checks.append(checks.broken(f"fused {part}", error))
                continue
            setup.give_back_memory(work.device)
    finally:  # of what was tried, also where the time is over
        found.aside += fused.of_plans()


def main(given: Sequence[str] | None = None) -> int:
    """Returns the exit code. What was measured is shown and written on every way out, an interruption's too."""
    asked = options.arguments(given, __doc__)
    try:
        for path in (asked.json, asked.chart):
            path.parent.mkdir(parents=True, exist_ok=True)
            file(str(path))
    except (OSError, argparse.ArgumentTypeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_codes.USAGE
    console = Console(width=None if sys.stdout.isatty() else 160)
    device = asked.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        sys.stderr.write(
            f"error: --device {device}: PyTorch finds no CUDA device; `python -m harness doctor` says why\n"
        )
        return exit_codes.NOT_SUITABLE
    torch.set_num_threads(asked.threads or usable_threads())
    found = reports.Report({**machine(device), "clock": asked.clock}, surroundings(), {})
    code = 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a time limit, say: as Ctrl-C

    def out_of_time(*_: object) -> None:
        raise OutOfTime

    alarm = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with tempfile.TemporaryDirectory() as scratch, _every_form_compiled():
            measure(asked, device, Path(scratch), console, found)
    except (ValueError, NotSuitable, run.RunBroke) as error:
        sys.stderr.write(f"error: {error}\n")
        codes = {ValueError: exit_codes.USAGE, NotSuitable: exit_codes.NOT_SUITABLE}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), exit_codes.BROKEN)
    except OutOfTime:
        console.print(
            f"--budget {asked.budget:g} s are over before: {', '.join(found.left_out) or 'the checks were done'}"
        )
        code = 0 if found.measured or not found.correct else exit_codes.BROKEN
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - Python's own code would say that a check failed
        traceback.print_exc()
        full = isinstance(error, OSError) and error.errno in exit_codes.DISK_FULL
        code = exit_codes.NOT_SUITABLE if full else exit_codes.BROKEN
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGTERM, before)
        if found.checks:
            code = _leave(asked, found, console) or code
    return code or (0 if found.correct else exit_codes.EPOCHS_SPENT)


@contextlib.contextmanager
def _every_form_compiled() -> Iterator[None]:
    """A function is compiled for eight forms of what it is given, and the ninth runs uncompiled, without an error.

    Here it has as many forms as there are sessions: turns, parts of compute.fused and variants. A run has one of a
    number format.
    """
    from torch._dynamo import config

    wanted = {"recompile_limit": FORMS, "fail_on_recompile_limit_hit": True}
    with config.patch({name: value for name, value in wanted.items() if hasattr(config, name)}):
        yield


def _draw(asked: argparse.Namespace, found: reports.Report, console: Console) -> None:
    try:
        reports.draw(found, f"{asked.configuration} on {found.machine['device']}", asked.chart)
    except ImportError as error:  # a machine that is lent may have no more than what measures
        console.print(f"no chart: {error}", highlight=False)
    else:
        console.print(f"chart: {asked.chart}", highlight=False)


def _leave(asked: argparse.Namespace, found: reports.Report, console: Console) -> int:
    """Shown, and on the disk: NOT_SUITABLE where that does not take it."""
    reports.show(found, console)
    try:
        reports.write_json(found, asked.json)
        console.print(f"all samples: {asked.json}", highlight=False)
        if found.comparisons or found.losses:
            _draw(asked, found, console)
        elif asked.chart.is_file():
            asked.chart.unlink()  # an earlier profile's, which is not of these samples
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: cannot be written: {error.strerror}\n")
        return exit_codes.NOT_SUITABLE
    return 0
