"""What `compare run` says as it goes: where in the plan it is, how long it will take, and what to do next."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path

from harness.comparison.identity import Identity
from harness.comparison.planning import drivers, hosts
from harness.comparison.planning.as_planned import record_in
from harness.comparison.planning.plan import Plan, PlannedRun
from harness.launch.ledger import Account
from harness.system import variables


def place(plan: Plan, number: int, items: list[PlannedRun], item: PlannedRun) -> str:
    name = plan.arms[item.arm].name
    of = sum(each.block == item.block and each.arm == item.arm and each.kind == item.kind for each in items)
    block = f"block {item.block} of {items[-1].block}, " if item.block else ""
    what = "warm-up, which does not count" if item.kind == "warm-up" else f"{item.kind} {item.number} of {of}"
    return f"host {number} of {plan.hosts}, {block}arm {name}, {what}"


def left(account: Account, items: list[PlannedRun]) -> str:
    """By the median of this host's runs so far."""
    todo = sum(item.index not in account.finished for item in items)
    took = [float(each.end["seconds"]) for each in account.attempts if each.finished and each.end is not None]
    if not took:
        return f"{todo} runs left here"
    minutes = todo * statistics.median(took) / 60
    return (
        f"{todo} runs left here, about {minutes:.0f} min" if minutes >= 1 else f"{todo} runs left here, under a minute"
    )


def next_block(plan: Plan, known: Mapping[str, Identity], done: PlannedRun, following: PlannedRun, again: str) -> str:
    """`known`: of the arms that a host has begun."""
    arm = plan.arms[following.arm].name
    if following.arm == done.arm:
        todo = f"Block {following.block} is of arm {arm} again: reboot, with the same driver"
    else:
        todo = f"Block {following.block} is of arm {arm}: {_install(known, arm)}"
    return f"block {done.block} is done. {todo}. Then type\n    {again}"


def _install(known: Mapping[str, Identity], arm: str) -> str:
    return f"install its driver{f' ({known[arm]})' if arm in known else ''} and reboot"


def finished(root: Path, plan: Plan, number: int, again: str) -> str:
    a, b = (shlex.quote(str(root / "arms" / arm.name)) for arm in plan.arms)
    due = {each: item for each in range(1, plan.hosts + 1) if (item := hosts.due(root, plan, each)) is not None}
    done = plan.hosts - len(due)
    text = f"all runs of host {number} are done; {done} of {plan.hosts} hosts are. {_return_check(root, plan, number)}"
    if gone := hosts.without_log(root, number):
        text += (
            f"The logs of {len(gone)} are gone, of {gone[0]} first: bring them back, or the verdict is without them. "
        )
    if due and plan.by_hand:
        following, item = next(iter(due.items()))
        arm = plan.arms[item.arm].name
        todo = _install(drivers.known(root, plan, following), arm)
        text += f"Host {following} is next, with arm {arm}: {todo} there. Then type there\n    {again}\n"
    elif due:
        text += f"On the next host type\n    {again}\n"
    return f"{text}The verdict:\n    python -m harness compare {a} {b}{_allowed(plan)}"


def _return_check(root: Path, plan: Plan, number: int) -> str:
    """Whether A came back to where it was."""
    name = plan.arms[0].name
    if not plan.by_hand:
        return ""
    blocks = {item.block: item for item in plan.schedule(number) if item.arm == 0}
    rates = {}
    for block, item in blocks.items():
        top = plan.folder(root, number, item).parent
        folders = sorted(top.glob(f"host-{number}_block-{block}_{item.kind}-*"))
        found = [record.images_per_s for folder in folders if (record := record_in(folder)) is not None]
        known = [rate for rate in found if rate]
        if known:
            rates[block] = statistics.mean(known)
    if len(rates) < 2:
        return ""
    first, last = rates[min(rates)], rates[max(rates)]
    return f"Arm {name} at the end differed by {100 * (last / first - 1):+.2f} % from its first block's speed. "


def _allowed(plan: Plan) -> str:
    """What the arms differ in beside a driver, for `compare`."""
    a, b = plan.arms
    patterns = []
    if a.image != b.image:
        patterns += ["'image.*'", "'software.*'", "'loaded.*'", "commit"]
        patterns += ["'environment.*'", "benchmark_sha256"]  # each may bring a benchmark of its own
    if a.config != b.config:
        patterns += ["'configuration.*'", "'hyperparameter.*'", "global_batch_size", "precision"]
    if a.commit != b.commit:
        patterns += ["commit", "tree_dirty"]
    if a.env != b.env:
        patterns += ["software.driver_mode", "software.driver_comparable"]
        unlike = [name for name in {**a.env, **b.env} if a.env.get(name) != b.env.get(name)]
        patterns += [f"environment.{name}" for name in unlike if variables.is_told(name, [name])]
    return "".join(f" --allow-diff {each}" for each in dict.fromkeys(patterns))
