"""Machines that misbehave: reboots that shift, drifts, outliers, arms unlike each other. For simulate.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from harness.comparison.judging.observations import Observations
from results.comparison.samples import ARMS, DELTAS, REPEATS, Floats, a_then_b, blocks, in_turns, sample, share


def reboots(generator: np.random.Generator, sd: float, reboot: float, count: int, truth: float) -> Observations:
    """A B B A of four runs a block on `count` hosts, every second in opposite order; each block has a shift of its own."""
    arms, numbers, names, values = [], [], [], []
    for host in range(count):
        arm, number = blocks(4, host % 2)
        arms += arm
        numbers += number
        names += [host] * len(arm)
        shifts = np.repeat(generator.normal(0, reboot, 4), 4)
        values.append(generator.normal(0, sd, len(arm)) + shifts + truth * np.array(arm) + generator.normal(0, 0.004))
    return sample(np.concatenate(values), arms, block=numbers, host=names)


def booted(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    """A B, A B A, A B B A and so on, five runs a block, each boot with a shift of its own: alike, and with B slower."""
    runs, sd, delta = 5, 0.0005, 0.005
    for order, reboot, slowdown in itertools.product(
        ("AB", "ABA", "ABBA", "ABBAABBA"), (0.0, 0.001, 0.003), (0.0, 0.01, 0.02)
    ):
        arm = ["AB".index(each) for each in order for _ in range(runs)]
        block = [place for place in range(len(order)) for _ in range(runs)]

        def made(
            arm: list[int] = arm, block: list[int] = block, reboot: float = reboot, slow: float = slowdown
        ) -> Observations:
            shifts = generator.normal(0, reboot, max(block) + 1)[block]
            return sample(
                generator.normal(0, sd, len(arm)) + shifts + math.log1p(slow) * np.array(arm), arm, block=block
            )

        found = share(made, delta, REPEATS)
        yield {
            "design": " ".join(order),
            "boot_spread_percent": 100 * reboot,
            "run_spread_percent": 100 * sd,
            "slowdown_percent": 100 * slowdown,
            "delta_percent": 100 * delta,
            "slower_percent": round(100 * found["SLOWER"] / REPEATS, 2),
            "equal_percent": round(100 * found["EQUAL"] / REPEATS, 1),
        }


def unlike(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Arms that are alike on average, of unlike number and spread: neither exchangeable nor of one variance."""
    delta = 0.005
    for counts, spreads in itertools.product(
        ((2, 2), (20, 2), (3, 3), (20, 3), (3, 20), (10, 5)), ((0.001, 0.001), (0.001, 0.03))
    ):
        arm = [0] * counts[0] + [1] * counts[1]
        sd = np.repeat(spreads, counts)
        zeros, never = np.zeros(len(arm), np.int64), np.full(len(arm), np.nan)
        found = share(
            lambda sd=sd, arm=arm, zeros=zeros, never=never: Observations(  # type: ignore[misc]
                generator.normal(0, 1, len(arm)) * sd, np.array(arm), zeros, zeros, never
            ),
            delta,
            2 * REPEATS,
        )
        yield {
            "runs": " + ".join(map(str, counts)),
            "spreads_percent": " and ".join(f"{100 * each:g}" for each in spreads),
            "delta_percent": 100 * delta,
            "slower_percent": round(100 * found["SLOWER"] / REPEATS / 2, 2),
            "equal_percent": round(100 * found["EQUAL"] / REPEATS / 2, 1),
        }


def hidden(generator: np.random.Generator, sd: float) -> Iterator[dict[str, Any]]:
    """B slower by 0.8 % on a machine that gets faster by as much from the middle of A's runs to that of B's."""
    for name, count in itertools.product(("in turns", "A, then B"), ARMS):
        arm = in_turns(count) if name == "in turns" else a_then_b(count)
        line = -math.log(1.008) / count * np.arange(2 * count) + math.log(1.008) * np.array(arm)
        found = share(lambda: sample(generator.normal(0, sd, 2 * count) + line, arm), 0.005, REPEATS)  # noqa: B023
        yield {
            "design": name,
            "runs_an_arm": count,
            "delta_percent": 0.5,
            "equal_percent": round(100 * found["EQUAL"] / REPEATS, 1),
            "slower_percent": round(100 * found["SLOWER"] / REPEATS, 1),
        }


def stepping(generator: np.random.Generator, sd: float) -> Iterator[dict[str, Any]]:
    """Arms that are alike, on a machine that is slower or faster from some run on: between any two with equal chance."""
    for name, count, size, delta in itertools.product(("in turns", "A, then B"), (5, 10), (0.01, 0.03), DELTAS):
        order = in_turns(count) if name == "in turns" else a_then_b(count)

        def made(order: list[int] = order, count: int = count, size: float = size) -> Observations:
            since = np.arange(2 * count) >= generator.integers(1, 2 * count)
            return sample(generator.normal(0, sd, 2 * count) + size * generator.choice((-1, 1)) * since, order)

        found = share(made, delta, REPEATS)
        yield {
            "design": name,
            "runs_an_arm": count,
            "step_percent": 100 * size,
            "delta_percent": 100 * delta,
            "slower_percent": round(100 * found["SLOWER"] / REPEATS, 2),
            "faster_percent": round(100 * found["FASTER"] / REPEATS, 2),
        }


def hostile(generator: np.random.Generator, sd: float) -> Iterator[dict[str, Any]]:
    """Arms that are alike, on machines that misbehave: how often SLOWER at the median host's spread."""

    def heavy(count: int) -> Floats:
        drawn: Floats = generator.standard_t(2, count) * sd
        return drawn

    def contaminated(count: int) -> Floats:
        drawn: Floats = generator.normal(0, 1, count) * np.where(generator.random(count) < 0.1, 10 * sd, sd)
        return drawn

    cases: list[tuple[str, int, Callable[[], Observations]]] = []
    for count in ARMS:
        order = in_turns(count)
        cases.append(("heavy tails: Student's t of 2", count, lambda n=count, o=order: sample(heavy(2 * n), o)))
        cases.append(
            (
                "heavy tails: each tenth run of ten times the spread",
                count,
                lambda n=count, o=order: sample(contaminated(2 * n), o),
            )
        )
        for size in (0.005, 0.02, 0.1):
            extra = size * (np.arange(2 * count) == max(i for i, arm in enumerate(order) if arm == 1))
            cases.append(
                (
                    f"one run of B {100 * size:g} % slower",
                    count,
                    lambda n=count, o=order, e=extra: sample(generator.normal(0, sd, 2 * n) + e, o),
                )
            )
        for name, arms in (("in turns", order), ("A, then B", a_then_b(count))):
            for total in (0.005, 0.01, 0.03):
                line = np.linspace(0, total, 2 * count)
                cases.append(
                    (
                        f"{name}, slower by {100 * total:g} % from first to last run",
                        count,
                        lambda n=count, o=arms, d=line: sample(generator.normal(0, sd, 2 * n) + d, o),
                    )
                )
    arms, number = blocks(4)
    for first in (0, 1):
        arms, number = blocks(4, first)
        said = "A B B A" if first == 0 else "B A A B"
        for total in (0.005, 0.01, 0.03):
            line = np.linspace(0, total, 16)
            cases.append(
                (
                    f"blocks {said}, slower by {100 * total:g} % from first to last run",
                    8,
                    lambda o=arms, b=number, d=line: sample(generator.normal(0, sd, 16) + d, o, block=b),
                )
            )
            cold = total * np.exp(-np.arange(16) / 4)
            cases.append(
                (
                    f"blocks {said}, {100 * total:g} % slower at first, then as it should be",
                    8,
                    lambda o=arms, b=number, d=cold: sample(generator.normal(0, sd, 16) + d, o, block=b),
                )
            )
    for name, count, make in cases:
        for delta in DELTAS:
            found = share(make, delta, REPEATS)
            yield {
                "machine": name,
                "runs_an_arm": count,
                "delta_percent": 100 * delta,
                "slower_percent": round(100 * found["SLOWER"] / REPEATS, 2),
                "equal_percent": round(100 * found["EQUAL"] / REPEATS, 1),
            }
