"""End to end in this process, data path and step by the session's own loop: choices against the configuration, in turns.

What a choice changes of the data path alone is measured with the configuration's own compiled step. cuDNN keeps the plan that
it found for a shape, so that choices of its plans want a process of their own: see run.py.

A turn of a choice opens the data path anew, since a GPU has no room for all of them, and leaves out the steps of its first
interval, which fill the queue. Turns compare: a card that rests between them is faster than a run's, which heats it.

A choice whose step has other gradients than the configuration's is not measured, nor one that breaks: that is a check which
does not pass, and the others take their turns. One that the configuration or the machine cannot have is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

from benchmarks.detection import capabilities
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.folder import Folder
from benchmarks.ssd.schedule import Schedule
from benchmarks.ssd.session import SSDSession
from harness.contract import NotSuitable
from measuring.measure import Figure, Known, against, uncounted, wall
from measuring.ssd import checks, fused, setup
from measuring.ssd.checks import Check
from measuring.ssd.sections import Batch

Tell = Callable[[str], None]
Checked = Callable[[Check], None]
# Tables of a configuration, and what of them is other
Changes = Mapping[str, Mapping[str, Any]]

Constant = tuple[ModuleType, str, Any]
# Of a part of compute.fused, the modules whose constants its kernels read; "blocks" is never without "stem"
READ_BY = {"stem": ("norm", "stem"), "stem_convolution": ("stem_convolution",), "loss": ("loss",)}


@dataclass(frozen=True)
class Choice:
    """What is other than configured: values of its tables, or of constants of DALI's graph, by their modules' names."""

    changes: Changes = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)


AS_CONFIGURED = "as configured"
ALL_PARTS = ["stem", "stem_convolution", "blocks", "convolutions", "loss", "weights"]
# Those that need no other step first
GPU_CHOICES = {
    "boxes matched on the CPU": Choice(constants={"benchmarks.ssd.data_dali.MATCHES_ON_DEVICE": False}),
    "hw_decoder_load 0.9": Choice({"data": {"hw_decoder_load": 0.9}}),
    "CUDA graphs": Choice({"compute": {"cuda_graphs": True}}),
    "CUDA graphs, and all parts of fused": Choice({"compute": {"cuda_graphs": True, "fused": ALL_PARTS}}),
}
CPU_CHOICES = {
    "DALI": Choice({"data": {"backend": "dali"}}),
    "fp16_hwc4": Choice({"data": {"backend": "dali", "image_format": "fp16_hwc4"}}),
}


@dataclass(frozen=True)
class Work:
    """What takes turns: a session, and the configuration and constants whose data path feeds it."""

    session: SSDSession
    config: SSDConfig
    constants: Mapping[str, Any] = field(default_factory=dict)


class WrongGradients(RuntimeError):
    """A choice's step learns something else than the configuration's."""


def works(
    ours: Work, choices: Mapping[str, Choice], batch: Batch, checked: Checked, tell: Tell
) -> dict[str, Callable[[], Work]]:
    """The configuration and each choice that differs from it, by what makes it: warmed up, and WrongGradients where it has.

    Choices that need the same step share a session.
    """
    by_dali = capabilities.settle(ours.config, ours.session.context).config.data.backend == "dali"
    sessions = {_step_of(ours.config): ours.session}

    def made(name: str, config: SSDConfig, constants: Mapping[str, Any]) -> Work:
        BENCHMARK.check(config, setup.context(ours.session.context.device))
        step = _step_of(config)
        if step not in sessions:
            session = setup.session(config, ours.session.context.device, ours.session.folder.path)
            session.warm_up()
            if config.data.image_format == ours.config.data.image_format:  # else it cannot read the batch
                check = fused.same_gradients(name, session, ours.session, batch)
                checked(check)
                if not check.passed:
                    raise WrongGradients(f"{check.found:g}, where {check.bound:g} is allowed")
            sessions[step] = session
        return Work(sessions[step], config, constants)

    found = {AS_CONFIGURED: lambda: ours}
    changes = {name: choice.changes for name, choice in choices.items()}
    for name, chosen in setup.possible(ours.config, changes, tell).items():
        choice = choices[name]
        if (choice.constants and by_dali) or (not choice.constants and chosen != ours.config):
            found[name] = partial(made, name, chosen, choice.constants)
    return found


def _step_of(config: SSDConfig) -> str:
    """What the compiled step depends on."""
    return f"{config.compute.model_dump_json()} {config.data.image_format}"


def end_to_end(
    ours: Work, choices: Mapping[str, Choice], batch: Batch, *, rounds: int, steps: int, tell: Tell, checked: Checked
) -> Iterator[Known]:
    """`rounds` turns of each, behind one that is not counted; after every one what is known so far. A turn is `steps` steps,
    and a quarter more before.

    `batch` is one of the configuration's, for `checked`: each other step's gradients, and what broke.
    """
    samples: dict[str, list[float]] = {}
    known: dict[str, Work] = {}
    makers = works(ours, choices, batch, checked, tell)
    with contextlib.suppress(NotSuitable), uncounted():  # which its own turn says
        # reads from the disk what all that come later find in memory
        tell(f"{AS_CONFIGURED}: {turn(ours, steps):.2f} ms a step, which does not count")
    for number in range(rounds):
        for name in list(makers)[:: 1 if number % 2 == 0 else -1]:
            try:
                if name not in known:  # made when its turn comes: the first ones need not wait
                    known[name] = makers[name]()
                spent = turn(known[name], steps)
            except NotSuitable as error:
                tell(f"{name}: left out: {error}")
                del makers[name]
                continue
            except Exception as error:
                if name == AS_CONFIGURED:
                    raise
                checked(checks.broken(name, error))
                tell(f"{name}: left out: {error}")
                del makers[name]
                continue
            samples.setdefault(name, []).append(spent)
            tell(f"{name}: {spent:.2f} ms a step")
            yield comparisons(samples, "end to end")


def turn(work: Work, steps: int) -> float:
    """Milliseconds a step."""
    session, filling = work.session, max(1, steps // 4)
    before = session.context, session.schedule
    session.context = replace(session.context, log_every_steps=filling)
    # the learning rate of a large batch would make NaN of a fresh network, and numbers that do not change cost less power
    session.schedule = Schedule(setup.LEARNING_RATE, 1, 0, (), session.schedule.steps_per_epoch)
    settled = capabilities.settle(work.config, session.context)
    folder = Folder(settled.config, session.context, settled.jpeg_on_device)
    with contextlib.ExitStack() as stack:
        for constant, value in work.constants.items():
            stack.enter_context(mock.patch(constant, value))
        session.train_data = folder.train_batches(session.default_boxes)
    try:
        intervals = session.train_epoch(1, filling + steps)
        next(intervals)
        measured = 1e3 * wall(lambda: sum(each.steps for each in intervals), session.context.device) / steps
    finally:
        session.context, session.schedule = before
        session.close()
        setup.give_back_memory(session.context.device)
    return measured


def comparisons(samples: Mapping[str, list[float]], what: str) -> Known:
    """Each choice against the configuration, and every sample that was printed."""
    figures = {name: Figure(name, "ms", mine) for name, mine in samples.items()}
    baseline = figures.pop(AS_CONFIGURED, Figure(AS_CONFIGURED, "ms", []))
    return against(what, baseline, {f"{what}, {name}": mine for name, mine in figures.items()})


# --- constants of the kernels ----------------------------------------------------------------------------------------


def constants(parts: Collection[str]) -> dict[str, list[Constant]]:
    """Of the Triton kernels of these parts of compute.fused, other values than the ones that stand there. Read at each launch:
    a compiled step takes them at once."""
    from benchmarks.ssd.kernels import loss, norm, stem, stem_convolution

    known = {
        "tiles of 8,192": [(norm, "TILE", 8192)],
        "tiles of 64 channels": [(norm, "MOST_C", 64)],
        "tiles of 128 channels": [(norm, "MOST_C", 128)],
        "528 programs that share the rows": [(norm, "PROGRAMS", 528)],
        "16 positions of the pooled map": [(stem, "POSITIONS", 16)],
        "sums that wait for each turn": [(norm, "STAGES", 1)],
        "1 cell of a gradient": [(loss, "GRADIENT_CELLS", 1)],
        "16 cells of a gradient": [(loss, "GRADIENT_CELLS", 16)],
        "64 rows of the stem's convolution": [(stem_convolution, "ROWS", 64), (stem_convolution, "PROGRAMS", 396)],
        "16 positions of its weights' gradient": [(stem_convolution, "POSITIONS", 16)],
    }  # fmt: skip
    used = {f"{norm.__package__}.{module}" for part in parts for module in READ_BY.get(part, ())}
    return {name: values for name, values in known.items() if values[0][0].__name__ in used}


def of_constants(session: SSDSession, batch: Batch, rounds: int, steps: int, tell: Tell) -> Iterator[Known]:
    """The step alone with other constants, in turns; after every one what is known so far."""
    tensors = setup.tensors(batch)
    session.recorded = None  # a graph has the constants with which it was recorded

    def several() -> None:
        for _ in range(steps):
            session.train_step(*tensors)

    named: dict[str, list[Constant]] = {AS_CONFIGURED: [], **constants(session.config.compute.fused)}
    samples: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in list(named)[:: 1 if number % 2 == 0 else -1]:
            with _set(named[name]):
                session.train_step(*tensors)  # compiles
                spent = 1e3 * wall(several, session.context.device) / steps
            samples.setdefault(name, []).append(spent)
            tell(f"{name}: {spent:.2f} ms a step")
            yield comparisons(samples, "step alone")


@contextlib.contextmanager
def _set(others: Iterable[Constant]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module, name, value in others:
            stack.enter_context(mock.patch.object(module, name, value))
        yield
