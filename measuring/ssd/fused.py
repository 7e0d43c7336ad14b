"""The step with a part of `compute.fused` that no GPU has judged yet, against the step without; and what each of cuDNN's plans
took that init tried."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.session import SSDSession
from measuring.measure import Figure, Known, against, in_turns, uncounted, wall
from measuring.ssd import setup
from measuring.ssd.checks import Check
from measuring.ssd.sections import Batch

PARTS = {
    "stem_convolution": "the stem's convolution with what follows it",
    "convolutions": "convolutions with what follows them",
    "weights": "weights converted at once",
}
NEEDS = {"stem_convolution": "stem", "convolutions": "blocks"}  # another part, and a GPU
# Of gradients, relative: the median of a stage's, an extra block's or its convolutions', of the worst of these. bf16 keeps 8
# bits, and other kernels round other sums; a gradient without one of its readers, or with a mask of other bits, differs by
# about itself
GRADIENT_BOUND = 0.2
# The last batch norm's weight in a residual branch, while gradients are compared. At 1, as a network begins, 34 layers enlarge
# whatever is rounded otherwise, 1e-5 of its pictures, to 0.45 of the stem's gradient in bf16; at 0.1 to 0.09, and 1e-3 to 0.10
# (16 photographs). What a branch sends back left out of every block is 0.47 there, what goes past one of them 1.0
BRANCH = 0.1


def here(config: SSDConfig, device: str) -> list[str]:
    """Those of PARTS that this configuration can have on this device."""
    return [part for part in PARTS if part not in NEEDS or (device != "cpu" and NEEDS[part] in config.compute.fused)]


def with_and_without(
    part: str, ours: SSDSession, batch: Batch, rounds: int, steps: int, *, checked: Callable[[Check], None]
) -> Iterator[Known]:
    """The other's warm-up, its gradients to `checked`, and the steps of both in turns; after every sample what is known so far.

    `ours` is as configured, with the part or without. A sample is `steps` steps. NotSuitable where this machine lacks what the
    part needs.
    """
    device, configured, name = ours.context.device, ours.config.compute.fused, PARTS[part]
    others = [each for each in configured if each != part] if part in configured else [*configured, part]
    chosen = setup.changed(ours.config, compute={"fused": others})
    BENCHMARK.check(chosen, setup.context(device))
    other = setup.session(chosen, device, ours.folder.path)
    with uncounted():
        warmed_up_s = wall(other.warm_up, device)
    warm_up = Figure(f"warm-up, {'without' if part in configured else name}", "s", [warmed_up_s])
    yield [warm_up]
    named = {name: ours, "without": other} if part in configured else {name: other, "without": ours}
    checked(same_gradients(name, named[name], named["without"], batch))
    tensors = setup.tensors(batch)

    def several(session: SSDSession) -> None:
        for _ in range(steps):
            session.train_step(*tensors)

    for found in in_turns(
        {name: lambda each=each: 1e3 * wall(lambda: several(each), device) / steps for name, each in named.items()},  # type: ignore[misc]
        rounds,
    ):
        mine, baseline = (Figure(each, "ms", found[each]) for each in named)
        yield [warm_up, *against("training step", baseline, {f"training step, {name}": mine})]


def same_gradients(name: str, one: SSDSession, other: SSDSession, batch: Batch) -> Check:
    """The worst stage's difference of its gradients, the weights being those of `one`, but for BRANCH; NaN where any is NaN.

    Both have the weights of `one` afterwards.
    """
    state = copy.deepcopy(one.model.state_dict())
    damped = {of: torch.full_like(each, BRANCH) if of.endswith("bn2.weight") else each for of, each in state.items()}
    for each in (one, other):
        each.model.load_state_dict(damped)
    mine, theirs = (_gradients(each, batch) for each in (one, other))
    for each in (one, other):
        each.model.load_state_dict(state)
    differences = {
        of: ((mine[of] - known).norm() / known.norm()).item() if known.norm() != 0 else mine[of].norm().item()
        for of, known in theirs.items()
    }
    stages: dict[str, list[float]] = {}
    for of, difference in differences.items():
        stage = ".".join(of.split(".")[:2])
        stages.setdefault(stage, []).append(difference)
        if mine[of].dim() == 4:  # of three parameters one: without any gradient they would hide in the stage's median
            stages.setdefault(f"{stage}'s convolutions", []).append(difference)
    medians = {stage: torch.tensor(several).median().item() for stage, several in stages.items()}  # of a NaN NaN
    worst = max(medians, key=lambda stage: (medians[stage] != medians[stage], medians[stage]))
    what = f"gradients, {name} against without, relative: the median of {worst}, the worst of {len(stages)} stages"
    return Check(what, medians[worst], GRADIENT_BOUND)


def _gradients(session: SSDSession, batch: Batch) -> dict[str, Tensor]:
    """By name; unscaled, which bf16 does not need."""
    named = dict(session.model.named_parameters())
    images, *targets = setup.tensors(batch)
    loss = session.forward_loss(session.network_input(images), *targets)
    found = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
    return {name: each.double() for name, each in zip(named, found, strict=True) if each is not None}


def of_plans() -> list[Figure]:
    """Of every graph that was tried, by this process or an earlier one, the time of each plan and without one."""
    from benchmarks.ssd.kernels import plans  # needs what a CPU's environment need not have

    return [
        Figure(f"{text}: {name}", "ms", [milliseconds])
        for text, tried in plans.kept()
        for name, milliseconds in tried.items()
    ]
