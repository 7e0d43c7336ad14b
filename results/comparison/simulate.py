"""What the verdicts of `compare` are worth, by simulation on real noise: false alarms, power, coverage, and hostile machines.

    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate
    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate worst
    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate reboots unlike_arms    # these parts again, beside what is there

reads noise/ssd_amp_hosts.csv (runs of one SSD training benchmark on 77 hosts, images/s) and noise/mlperf_ssd_runs.csv (77
published series of five runs, seconds an epoch) of the test data and writes simulation.json and simulation.md beside this
file. Everything is judged by the functions that `compare` itself calls. Minutes on one core.

A host has 3 to 15 runs: runs are drawn from its own, scaled to its unbiased spread and smoothed by a normal kernel
(Silverman and Young 1987), so that no draw repeats another to the digit, as no two runs do. Hosts with six runs or more
are split as they are, too. The rows of 65 of the 77 hosts stand in the file sorted by speed: their order is no time, and
drifts are added by us.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.judging import statistics, verdict
from harness.comparison.judging.observations import Observations

HERE = Path(__file__).resolve().parent
SEED = 20_261_126
ARMS = (3, 5, 10)
DELTAS = (0.0025, 0.005)
AA_REPEATS, REPEATS, WORST_REPEATS = 300, 2000, 4000

Floats = NDArray[np.float64]
Noise = dict[str, Floats]  # centred log slowness of each host's runs


def hosts(folder: Path) -> Noise:
    found: dict[str, list[float]] = defaultdict(list)
    with (folder / "ssd_amp_hosts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["host"]].append(-math.log(float(row["images_per_s"])))
    return _centred(found)


def series(folder: Path) -> Noise:
    found: dict[str, list[float]] = defaultdict(list)
    with (folder / "mlperf_ssd_runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["seconds_per_epoch"]:
                name = "/".join((row["round"], row["submitter"], row["system"]))
                found[name].append(math.log(float(row["seconds_per_epoch"])))
    return _centred(found)


def _centred(found: dict[str, list[float]]) -> Noise:
    return {name: np.array(values) - np.mean(values) for name, values in found.items() if len(values) >= 3}


def spread(values: Floats) -> float:
    return float(values.std(ddof=1))


def draw(generator: np.random.Generator, values: Floats, count: int) -> Floats:
    """`count` runs of a host with the shape and the unbiased spread of its own."""
    size, sd = len(values), spread(values)
    width = 1.06 * sd * size**-0.2
    drawn: Floats = generator.choice(values * math.sqrt(size / (size - 1)), count) + width * generator.normal(
        size=count
    )
    return drawn / math.sqrt(1 + (width / sd) ** 2)


def sample(
    values: Floats, arm: list[int], *, block: list[int] | None = None, host: list[int] | None = None
) -> Observations:
    """Runs in the order of time, a minute apart."""
    arms = np.array(arm)
    zeros = np.zeros(len(arms), np.int64)
    # runs taken in turns are blocks of one, and then runs are the units
    return Observations(
        values,
        arms,
        zeros if host is None else np.array(host),
        zeros if block is None else np.array(block),
        60.0 * np.arange(len(arms)),
    )


def in_turns(count: int) -> list[int]:
    """A B B A A B B A ... of `count` runs an arm, as `compare run` takes them."""
    order: list[int] = []
    for pair in range(count):
        order += [0, 1] if pair % 2 == 0 else [1, 0]
    return order


def a_then_b(count: int) -> list[int]:
    return [0] * count + [1] * count


def blocks(count: int, first: int = 0) -> tuple[list[int], list[int]]:
    """A B B A of `count` runs a block (what is left without warm-up runs): arms, and blocks."""
    order = [first, 1 - first, 1 - first, first]
    return [arm for arm in order for _ in range(count)], [number for number in range(4) for _ in range(count)]


def share(make: Callable[[], Observations], delta: float, repeats: int) -> Counter[str]:
    return Counter(verdict.judge(make(), delta).word for _ in range(repeats))


# --- the proofs ---


def false_alarms(generator: np.random.Generator, noise: Noise) -> Iterator[dict[str, Any]]:
    """A against A: how often SLOWER, on average and on the worst host."""
    for count, delta in itertools.product(ARMS, DELTAS):
        order = in_turns(count)
        rates = {}
        for name, values in noise.items():
            found: Counter[str] = Counter()
            for _ in range(AA_REPEATS):
                found[verdict.judge(sample(draw(generator, values, 2 * count), order), delta).word] += 1
            rates[name] = found
        slower = {name: 100 * found["SLOWER"] / AA_REPEATS for name, found in rates.items()}
        worst = max(slower, key=slower.__getitem__)
        total = sum(rates.values(), Counter())
        yield {
            "runs_an_arm": count,
            "delta_percent": 100 * delta,
            "slower_percent": round(float(np.mean(list(slower.values()))), 3),
            "worst_host": worst,
            "worst_host_slower_percent": round(slower[worst], 2),
            "equal_percent": round(100 * total["EQUAL"] / total.total(), 1),
            "cannot_tell_percent": round(100 * total["CANNOT TELL"] / total.total(), 1),
            "judged": total.total(),
        }


def real_splits(noise: Noise) -> Iterator[dict[str, Any]]:
    """Every way to split a host's real runs into 3 against 3: nothing drawn, nothing smoothed."""
    for delta in DELTAS:
        total: Counter[str] = Counter()
        for values in noise.values():
            for six in itertools.combinations(range(len(values)), 6) if len(values) >= 6 else ():
                for first in itertools.combinations(six, 3):
                    rest = [each for each in six if each not in first]
                    total[
                        verdict.judge(Observations.of(np.exp(values[list(first)]), np.exp(values[rest])), delta).word
                    ] += 1
                if len(values) > 8 and total.total() > 60_000:
                    break
        yield {
            "runs_an_arm": 3,
            "delta_percent": 100 * delta,
            "slower_percent": round(100 * total["SLOWER"] / total.total(), 3),
            "judged": total.total(),
        }


def power(generator: np.random.Generator, sd: float) -> Iterator[dict[str, Any]]:
    """A true slowdown of 0.5 % at the median host's spread, normal, against delta 0.25 %."""
    for count in ARMS:
        order = in_turns(count)
        shift = math.log(1.005) * np.array(order)
        found = share(lambda: sample(generator.normal(0, sd, 2 * count) + shift, order), 0.0025, REPEATS)  # noqa: B023
        yield {
            "design": "in turns",
            "runs_an_arm": count,
            "slowdown_percent": 0.5,
            "delta_percent": 0.25,
            "spread_percent": round(100 * sd, 4),
            "found_percent": round(100 * found["SLOWER"] / REPEATS, 1),
        }
    order = a_then_b(5)
    shift = math.log(1.005) * np.array(order)
    found = share(lambda: sample(generator.normal(0, sd, 10) + shift, order), 0.0025, REPEATS)
    yield {
        "design": "A, then B",
        "runs_an_arm": 5,
        "slowdown_percent": 0.5,
        "delta_percent": 0.25,
        "spread_percent": round(100 * sd, 4),
        "found_percent": round(100 * found["SLOWER"] / REPEATS, 1),
    }


def coverage(generator: np.random.Generator, noise: Noise) -> Iterator[dict[str, Any]]:
    """How often the 95 % interval holds the true ratio, over all hosts; and for blocks that a reboot shifts."""
    truth = math.log(1.005)
    for count, repeats in ((3, 200), (5, 200), (10, 200), (20, 100), (30, 100), (50, 50)):
        order = in_turns(count)
        shift = truth * np.array(order)
        hits, widths, method = [], [], ""
        for values in noise.values():
            for _ in range(repeats):
                found = statistics.estimate(sample(draw(generator, values, 2 * count) + shift, order))
                low, high = found.interval()
                hits.append(low <= truth <= high)
                widths.append((high - low) / spread(values))
                method = found.method
        yield {
            "design": "in turns",
            "runs_an_arm": count,
            "method": method,
            "covered_percent": round(100 * float(np.mean(hits)), 2),
            "width_in_spreads": round(float(np.mean(widths)), 2),
            "judged": len(hits),
        }
    sd = 0.001
    for name, each_host, reboot in (
        ("A B B A, one host", 1, 0.0),
        ("A B B A, one host, a reboot shifts by one spread", 1, sd),
        ("A B B A and B A A B, two hosts", 2, 0.0),
        ("A B B A and B A A B, two hosts, a reboot shifts by one spread", 2, sd),
    ):
        hits = []
        for _ in range(REPEATS):
            made = reboots(generator, sd, reboot, each_host, truth)
            low, high = statistics.estimate(made).interval()
            hits.append(low <= truth <= high)
        yield {
            "design": name,
            "runs_an_arm": 8 * each_host,
            "method": "Welch's t on blocks",
            "covered_percent": round(100 * float(np.mean(hits)), 2),
            "judged": len(hits),
        }


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


def worst_again(noise: Noise, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The worst of 77 is the unluckiest, too: each judged again, on draws of its own."""
    generator = np.random.default_rng(SEED + 1)
    for row in rows:
        count, values, delta = row["runs_an_arm"], noise[row["worst_host"]], row["delta_percent"] / 100
        order = in_turns(count)
        found: Counter[str] = Counter()
        for _ in range(WORST_REPEATS):
            found[verdict.judge(sample(draw(generator, values, 2 * count), order), delta).word] += 1
        yield {
            "host": row["worst_host"],
            "runs_an_arm": count,
            "delta_percent": row["delta_percent"],
            "slower_percent": round(100 * found["SLOWER"] / WORST_REPEATS, 2),
            "judged": WORST_REPEATS,
        }


def main() -> None:
    folder = Path(os.environ["HARNESS_TEST_DATA"]) / "noise"
    if sys.argv[1:] == ["worst"]:  # beside what is there
        result = json.loads((HERE / "simulation.json").read_text(encoding="utf-8"))
        result["worst_hosts_again"] = [
            *worst_again(hosts(folder), result["false_alarms_hosts"]),
            *worst_again(series(folder), result["false_alarms_published_series"]),
        ]
        write(result)
        return
    generator = np.random.default_rng(SEED)
    amp, published = hosts(folder), series(folder)
    median = float(np.median([spread(values) for values in amp.values()]))
    began = time.perf_counter()
    result = {
        "seed": SEED,
        "hosts": len(amp),
        "series": len(published),
        "median_spread_percent": round(100 * median, 4),
    }
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "false_alarms_hosts": lambda: false_alarms(generator, amp),
        "false_alarms_published_series": lambda: false_alarms(generator, published),
        "false_alarms_real_splits": lambda: real_splits(amp),
        "power": lambda: power(generator, median),
        "coverage": lambda: coverage(generator, amp),
        "hostile_machines": lambda: hostile(generator, median),
        "reboots": lambda: booted(generator),
        "unlike_arms": lambda: unlike(generator),
        "a_drift_that_hides_a_slower_b": lambda: hidden(generator, median),
    }
    asked = sys.argv[1:]
    if unknown := set(asked) - set(parts):
        sys.exit(f"no such parts: {', '.join(sorted(unknown))}; there are: worst, {', '.join(parts)}")
    if asked:
        result = json.loads((HERE / "simulation.json").read_text(encoding="utf-8"))
    for name in asked or parts:
        result[name] = list(parts[name]())
        sys.stderr.write(f"{name}: {time.perf_counter() - began:.0f} s\n")
    write(result)


def write(result: dict[str, Any]) -> None:
    (HERE / "simulation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (HERE / "simulation.md").write_text(markdown(result), encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# What the verdicts of `compare` are worth",
        "",
        f"Made by simulate.py on {result['hosts']} hosts and {result['series']} published series; the median host's run-to-run "
        f"spread is {result['median_spread_percent']} %. All figures are in simulation.json.",
    ]
    for name, rows in result.items():
        if not isinstance(rows, list):
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += ["", f"## {name.replace('_', ' ')}", "", f"| {' | '.join(c.replace('_', ' ') for c in columns)} |"]
        lines.append("|" + "---|" * len(columns))
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
