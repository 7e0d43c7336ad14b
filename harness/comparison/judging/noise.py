"""A against A: how fine a difference a machine can show, how often it cries wolf, and how many runs a difference needs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import whole
from harness.comparison.judging import metrics, statistics, verdict
from harness.comparison.judging.floor import FILE, steps_of
from harness.comparison.judging.observations import Floats, Observations
from harness.comparison.runs import ComparedRun, check_apart, invalid, of_like_epochs, ordered

ARMS = (3, 5, 10, 20)
DELTAS = (0.001, 0.0025, 0.005, 0.01, 0.02)
DIFFERENCES = (0.0025, 0.005, 0.01, 0.02, 0.05)
REPEATS = 300  # simulated comparisons of each size
SEED = 20_261_126


@dataclass(frozen=True)
class Noise:
    """Of one metric on one machine."""

    metric: str
    runs: int
    spread: float  # standard deviation of a run's logarithm, a drift over the whole session included
    floor: (
        float | None
    )  # the smallest delta with which these runs, dealt into two arms by turns, are EQUAL; None: too few
    false_alarms: dict[tuple[float, int], float]  # (delta, runs an arm) -> share of A/A comparisons that say SLOWER
    needed: dict[tuple[float, float], int | None]  # (difference, delta) -> runs an arm that find it in 4 of 5 cases


def measure(runs: Sequence[ComparedRun]) -> list[Noise]:
    """Of every default metric that the runs tell. ValueError where they are no A/A set."""
    if bad := invalid(runs):
        raise ValueError(f"{bad[0].run.record.path}: {bad[0].reason}; noise is measured on whole runs")
    check_apart(runs)
    hosts = {run.host for run in runs}
    kinds = {(run.record.configuration_sha256, run.record.max_steps, run.driver.key, run.record.commit) for run in runs}
    if len(hosts) > 1 or len(kinds) > 1:
        raise ValueError(
            f"{len(hosts)} hosts and {len(kinds)} kinds of runs (configuration, steps, driver, commit): noise is what is left "
            "when all of that is the same"
        )
    if len(runs) < 4:
        raise ValueError(f"{len(runs)} runs: noise needs four or more, ten are good")
    dealt = of_like_epochs(
        [ComparedRun(run.record, (0, 1, 1, 0)[place % 4]) for place, run in enumerate(ordered(runs))]
    )
    told = {
        name: made[0] for name in metrics.DEFAULT if (made := metrics.sample(metrics.METRICS[name], dealt)) is not None
    }
    if not told:
        raise ValueError("the runs tell no seconds an epoch: too short, or not this harness's")
    family = len(verdict.unlike(list(told.values())))  # gated together, as `compare` does
    return [_of(name, sample, family) for name, sample in told.items()]


def _of(name: str, sample: Observations, family: int) -> Noise:
    spread = max(float(sample.log_slowness.std(ddof=1)), sample.resolution)
    estimate = statistics.estimate(sample)
    reach = max(abs(bound) for bound in estimate.interval(1 - 2 * verdict.BEYOND_DELTA))
    generator = np.random.default_rng(SEED)
    alarms = {(delta, count): 0.0 for delta in DELTAS for count in ARMS}
    for count in ARMS:
        for _ in range(REPEATS):
            pair = _drawn(generator, sample.log_slowness, count)
            for delta in DELTAS:  # ascending: what is not slower by a small one is not by a large one
                if verdict.judge(pair, delta).word != "SLOWER":
                    break
                alarms[delta, count] += 1 / REPEATS
    needed = {
        (difference, delta): verdict.runs_for(spread, difference, delta, family)
        for difference in DIFFERENCES
        for delta in DELTAS
        if delta < difference
    }
    return Noise(name, len(sample.arm), spread, math.expm1(reach), alarms, needed)


def _drawn(generator: np.random.Generator, values: Floats, count: int) -> Observations:
    """Two arms from the machine's own runs, smoothed so that none repeats another to the digit."""
    size, sd = len(values), float(values.std(ddof=1))
    width = 1.06 * sd * size**-0.2
    shrink = math.sqrt(1 + (width / sd) ** 2) if sd > 0 else 1.0
    drawn = generator.choice((values - values.mean()) * math.sqrt(size / (size - 1)), 2 * count)
    drawn = (drawn + width * generator.normal(size=2 * count)) / shrink
    return Observations.of(np.exp(drawn[:count]).tolist(), np.exp(drawn[count:]).tolist())


def write(found: Sequence[Noise], runs: Sequence[ComparedRun], folder: Path) -> Path:
    """`folder`/noise.json, which `compare` finds above the logs of this system."""
    content = {
        "host": runs[0].host,
        "configuration_name": runs[0].record.configuration_name,
        "configuration_sha256": runs[0].record.configuration_sha256,
        "steps": steps_of(runs[0].record.max_steps),
        "driver": runs[0].driver.plain(),
        "driver_key": list(runs[0].driver.key),
        "runs": [{"log": run.record.path, "sha256": run.record.sha256} for run in runs],
        "floors": {each.metric: each.floor for each in found},
        "spreads": {each.metric: each.spread for each in found},
        "false_alarms": [
            {"metric": each.metric, "delta": delta, "runs_an_arm": count, "share": share}
            for each in found
            for (delta, count), share in each.false_alarms.items()
        ],
        "runs_needed": [
            {"metric": each.metric, "difference": difference, "delta": delta, "runs_an_arm": count}
            for each in found
            for (difference, delta), count in each.needed.items()
        ],
    }
    target = folder / FILE
    try:
        with whole.replacing(target) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def lines(found: Sequence[Noise], run: ComparedRun) -> Iterator[str]:
    """For a terminal of 80 columns; `run`: one of them."""
    # images a second are seconds turned over
    unlike = [each for i, each in enumerate(found) if not any(math.isclose(each.spread, o.spread) for o in found[:i])]
    yield f"A against A on {run.host}, {found[0].runs} runs"
    yield f"  of {steps_of(run.record.max_steps)} steps each, driver {run.record.software.get('driver') or 'none'}"
    for each in unlike:
        spread, floor = 100 * each.spread, 100 * (each.floor or math.nan)
        yield f"  {each.metric.replace('_', ' ')}: run-to-run spread {spread:.3f} %, floor {floor:.3f} %"
    yield "  `compare` calls no difference within a metric's floor SLOWER or FASTER, and"
    yield "  where that is larger than --delta it calls none EQUAL"
    yield ""
    each = max(
        unlike, key=lambda every: math.inf if every.floor is None else every.floor
    )  # a comparison takes all of them
    yield f"by {each.metric.replace('_', ' ')}{', the worst' * (len(unlike) > 1)}:"
    yield "false SLOWER, % of comparisons, by runs an arm"
    yield f"{'delta':>10}" + "".join(f"{count:>8}" for count in ARMS)
    for delta in DELTAS:
        yield f"{100 * delta:>8.3g} %" + "".join(f"{100 * each.false_alarms[delta, count]:>8.1f}" for count in ARMS)
    yield ""
    yield "runs an arm that find a difference (4 of 5 times), by delta"
    yield f"{'difference':>10}" + "".join(f"{100 * delta:>7.3g}%" for delta in DELTAS)
    for difference in DIFFERENCES:
        cells = []
        for delta in DELTAS:
            count = each.needed.get((difference, delta))
            cells.append("" if delta >= difference else "1000+" if count is None else str(count))
        yield f"{100 * difference:>8.3g} %" + "".join(f"{cell:>8}" for cell in cells)
