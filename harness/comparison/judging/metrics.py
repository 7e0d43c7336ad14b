"""What of a run is compared: its figures by name, each with its unit, which way is better, and how finely its log tells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.comparison.judging.observations import Floats, Observations
from harness.comparison.runs import ComparedRun, blocks
from harness.contract import STEP_PHASES
from harness.results import telemetry

STAMPS_S = 0.001 / math.sqrt(6)  # standard deviation of the difference of two stamps of whole milliseconds

# Parts of an epoch or a run that are timed in every run, in the order of a step and of the run
EVALUATION_PHASES = ("evaluation_data_starved", "evaluation_forward", "evaluation_metric")
# precision: the formats that `auto` tried; first_step: compiling and autotuning; evaluation: the same for its shapes
INIT_PHASES = ("init_threads", "init_precision", "init_first_step", "init_further_steps", "init_evaluation")
PHASES = (*STEP_PHASES, *EVALUATION_PHASES, *INIT_PHASES)


Part = Literal["epoch", "evaluation", "init"]


def part(name: str) -> Part:
    """Of what a phase is one, or what a metric is of: seconds of init explain no epoch."""
    return "evaluation" if name.startswith("evaluation") else "init" if name.startswith("init") else "epoch"


@dataclass(frozen=True)
class Metric:
    """A figure of one run; `value` is None where the log does not tell it."""

    name: str
    unit: str
    title: str
    more_is_slower: bool
    value: Callable[[ComparedRun], float | None]
    resolution_s: float = 0.0  # standard deviation that the log's stamps bring to a value in seconds


def _evaluation(run: ComparedRun) -> float | None:
    times = [each.seconds for each in run.record.evaluations if each.seconds]
    return sum(times) / len(times) if times else None


def _seconds_per_epoch(run: ComparedRun) -> float | None:
    record = run.timed
    if record.epoch_seconds:
        return record.epoch_seconds * run.epoch_times
    rate = record.images_per_s
    return record.epoch_samples / rate * run.epoch_times if record.epoch_samples and rate else None


def _mean_epoch_seconds(run: ComparedRun) -> float | None:
    """Epochs that stall now and then are in no median; where single epochs are not told, the same as that."""
    times = run.timed.counted_epoch_seconds
    return run.epoch_times * sum(times) / len(times) if times else _seconds_per_epoch(run)


def _images_per_s(run: ComparedRun) -> float | None:
    return run.timed.images_per_s


def _joules_per_image(run: ComparedRun) -> float | None:
    return None if run.telemetry is None else telemetry.joules_per_image(run.record, run.telemetry)


def phase(name: str) -> Metric:
    """Seconds of one phase, an epoch's or the run's."""
    return Metric(name, "s", name.replace("_", " "), True, lambda run: phases(run).get(name))


def phases(run: ComparedRun) -> Mapping[str, float]:
    """Seconds by phase as the run's log has them, an epoch's of as many images as the others' have; {} of a log without."""
    times = run.epoch_times
    return {name: seconds * times if part(name) == "epoch" else seconds for name, seconds in run.timed.phases.items()}


METRICS: dict[str, Metric] = {
    each.name: each
    for each in (
        Metric("seconds_per_epoch", "s", "seconds an epoch", True, _seconds_per_epoch, STAMPS_S),
        Metric("mean_epoch_seconds", "s", "mean epoch", True, _mean_epoch_seconds, STAMPS_S),
        Metric("images_per_s", "images/s", "images a second", False, _images_per_s),
        Metric("evaluation_seconds", "s", "an evaluation", True, _evaluation, STAMPS_S),
        Metric("init_seconds", "s", "init", True, lambda run: run.record.init_seconds, STAMPS_S),
        Metric("joules_per_image", "J", "energy an image", True, _joules_per_image),
        *(phase(name) for name in PHASES),
    )
}
MEDIAN, MEAN = "seconds_per_epoch", "mean_epoch_seconds"
DEFAULT = (MEDIAN, MEAN, "images_per_s")
NEVER = {
    "time_to_train": "an evaluation point more or less moves it by ten per cent while nothing changed: it is shown as "
    "epochs x seconds an epoch + evaluation + rest, and the rate is what is gated"
}


def named(names: Sequence[str]) -> list[Metric]:
    """ValueError for a name that is none, with what was meant."""
    found = []
    for name in names or DEFAULT:
        if name in NEVER:
            raise ValueError(f"--metric {name}: never gated: {NEVER[name]}")
        if name not in METRICS:
            from harness.validation import did_you_mean

            hint = did_you_mean(name, [*METRICS, *NEVER]) or f"; known are {', '.join(METRICS)}"
            raise ValueError(f"--metric {name}: no such metric{hint}")
        found.append(METRICS[name])
    return list(dict.fromkeys(found))


def sample(metric: Metric, runs: Sequence[ComparedRun]) -> tuple[Observations, list[ComparedRun]] | None:
    """The metric of all runs for the statistics, and the runs in its order; None where a run does not tell it.

    Nothing is left out: a metric that one run lacks is not compared.
    """
    values = [metric.value(run) for run in runs]
    if not values or any(value is None or not value > 0 or not math.isfinite(value) for value in values):
        return None
    return _observations(metric, np.array(values, float), runs), list(runs)


def in_seconds(metric: Metric, runs: Sequence[ComparedRun]) -> Observations | None:
    """The same of a metric that is 0 in some runs, which has no ratio: in its own unit, and not its logarithm."""
    values = [metric.value(run) for run in runs]
    if not any(values) or any(value is None or not math.isfinite(value) for value in values):
        return None
    figures = np.array(values, float)
    return replace(_observations(metric, np.ones(len(runs)), runs), log_slowness=figures)


def untold(metric: Metric, runs: Sequence[ComparedRun]) -> str:
    """Why there is no sample of it."""
    values = [metric.value(run) for run in runs]
    nothing = [run.name for run, value in zip(runs, values, strict=True) if value == 0]
    if nothing and None not in values:
        return (
            f"{metric.name} is 0 {metric.unit} in {len(nothing)} of {len(runs)} runs, the first {nothing[0]}: nothing is no "
            f"ratio's part; gate on {MEDIAN}, and see the phase's difference in seconds"
        )
    return f"no run, or not every run, tells {metric.name}: the arms have no such metric in common"


def _observations(metric: Metric, figures: Floats, runs: Sequence[ComparedRun]) -> Observations:
    hosts = {name: number for number, name in enumerate(dict.fromkeys(run.host for run in runs))}
    block = blocks(runs)
    times = [math.nan if run.record.run_start_s is None else run.record.run_start_s for run in runs]
    resolution = metric.resolution_s
    epochs = [run.timed.epoch_seconds for run in runs if run.timed.epoch_seconds]
    if metric.name == "images_per_s" and len(epochs) == len(runs):  # made from stamps as well
        resolution = STAMPS_S / float(np.mean(epochs))
    elif resolution:
        resolution /= float(figures.mean())
    return Observations(
        np.log(figures) * (1 if metric.more_is_slower else -1),
        np.array([run.arm for run in runs]),
        np.array([hosts[run.host] for run in runs]),
        np.array([block[index] for index in range(len(runs))]),
        np.array(times, float),
        resolution,
    )
