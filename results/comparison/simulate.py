"""What the verdicts of `compare` are worth, by simulation on real noise: false alarms, power, coverage, and hostile machines.

    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate
    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate worst
    HARNESS_TEST_DATA=DIR python -m results.comparison.simulate reboots unlike_arms    # these parts again, beside what is there

reads noise/ssd_amp_hosts.csv (runs of one SSD training benchmark on 77 hosts, images/s) and noise/mlperf_ssd_runs.csv (77
published series of five runs, seconds an epoch) of the test data and writes simulation.json and simulation.md beside this
file. Everything is judged by the functions that `compare` itself calls. Minutes on one core.

Hosts with six runs or more are split as they are, beside what is drawn (samples.py). The rows of 65 of the 77 hosts stand in
the file sorted by speed: their order is no time, and drifts are added by us (machines.py).
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.comparison.judging import statistics, verdict
from harness.comparison.judging.observations import Observations
from results.comparison.machines import booted, hidden, hostile, reboots, stepping, unlike
from results.comparison.samples import (
    ARMS,
    DELTAS,
    REPEATS,
    Noise,
    a_then_b,
    draw,
    hosts,
    in_turns,
    sample,
    series,
    share,
    spread,
)

HERE = Path(__file__).resolve().parent
SEED = 20_261_126
AA_REPEATS, WORST_REPEATS = 300, 4000
# Spread of a run's mean epoch beside its median one, in spreads of the median: the median and the worst of the six published
# series whose epochs are at hand (mlperf-results of the test data; 0.15 to 0.64)
MEAN_BESIDE = (0.25, 0.64)


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


def gated_pair(sd: float) -> Iterator[dict[str, Any]]:
    """What `compare` gates by itself: the median epoch and the mean one of the same runs, over both by Holm."""
    generator = np.random.default_rng(SEED + 2)
    for beside, count, delta, slowdown in itertools.product(MEAN_BESIDE, ARMS, DELTAS, (0.0, 0.005, 0.01)):
        order = in_turns(count)
        shift = math.log1p(slowdown) * np.array(order)
        found: Counter[str] = Counter()
        for _ in range(REPEATS):
            median = generator.normal(0, sd, 2 * count) + shift
            mean = median + generator.normal(0, beside * sd, 2 * count)
            found[
                verdict.overall(verdict.holm([sample(each, order) for each in (median, mean)], delta, [0.0, 0.0]))
            ] += 1
        yield {
            "runs_an_arm": count,
            "mean_beside_median_in_spreads": beside,
            "slowdown_percent": 100 * slowdown,
            "delta_percent": 100 * delta,
            "slower_percent": round(100 * found["SLOWER"] / REPEATS, 2),
            "equal_percent": round(100 * found["EQUAL"] / REPEATS, 1),
        }


def stalling(sd: float) -> Iterator[dict[str, Any]]:
    """Arms that are alike, and whose runs' mean epochs some stall makes longer by chance: how often that makes a difference."""
    generator = np.random.default_rng(SEED + 3)
    for chance, size, count, delta in itertools.product((0.2, 0.4), (0.02, 0.05), ARMS, DELTAS):
        order = in_turns(count)
        found: Counter[str] = Counter()
        for _ in range(REPEATS):
            median = generator.normal(0, sd, 2 * count)
            mean = median + generator.exponential(size, 2 * count) * (generator.random(2 * count) < chance)
            both = [sample(each, order) for each in (median, mean)]
            found[verdict.overall(verdict.holm(both, delta, [0.0, 0.0]))] += 1
        yield {
            "runs_that_stall_percent": 100 * chance,
            "by_percent": 100 * size,
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
        "median_and_mean_epoch_together": lambda: gated_pair(median),
        "alike_runs_that_stall_by_chance": lambda: stalling(median),
        "a_drift_that_hides_a_slower_b": lambda: hidden(generator, median),
        "a_machine_that_steps": lambda: stepping(generator, median),
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
