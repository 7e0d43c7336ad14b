"""What a benchmark hands over, looked at before it is believed: the clock, the log and the verdict rest on it.

A benchmark is anybody's code. What it gives that harness.contract does not allow is a fault in it, said in the contract's words
where it happens: a quality beyond its range met a target, and a rank that alone meets it leaves the others waiting for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.contract import STEP_PHASES, Context, DataSummary, Interval, Session
from harness.execution import process_group
from harness.execution.events import keys
from harness.execution.run import NotFinite
from harness.execution.throughput import STARVED
from harness.rules import Rules

# Keys of the log that the harness writes: readers of a log would take a benchmark's value for the run's own
WRITTEN_BY_HARNESS = frozenset(
    (
        *(keys.SUBMISSION_BENCHMARK, keys.SUBMISSION_ORG, keys.SUBMISSION_DIVISION),
        *(keys.SUBMISSION_STATUS, keys.SUBMISSION_PLATFORM, keys.CACHE_CLEAR, keys.SEED),
        *("configuration_name", "configuration", "configuration_sha256", "quality_target", "other_task"),
        *("max_steps", "deterministic", "chosen", "cpu_binding", "collectives"),
        *("device", "device_uuids", "environment", "software", "loaded_libraries", "hardware", "image"),
        *("commit", "tree_dirty", "benchmark_sha256", keys.WEIGHTS_INITIALIZATION, "phase_seconds"),
        *(keys.INIT_START, keys.INIT_STOP, keys.RUN_START, keys.RUN_STOP, keys.TRAIN_SAMPLES, keys.EVAL_SAMPLES),
        *("steps_per_epoch", "eval_samples_trained_on", "resumed_from_epoch", keys.BLOCK_START, keys.BLOCK_STOP),
        *(keys.EPOCH_START, keys.EPOCH_STOP, keys.EVAL_START, keys.EVAL_STOP, keys.EVAL_ACCURACY),
        *("tracked_stats", "throughput", "data_wait_share", "step_ms_by_rank", "slowed_down"),
        *("batch_sha256", "tensor_sha256", "data_fingerprint", "peak_memory_bytes"),
    )
)

RESOLUTION_S = 1e-3  # of two events of a device, which may be written the other way round


class NotAsPromised(RuntimeError):
    """A benchmark gave what the contract does not allow; the message says which of its members, and what."""


def session(found: Any) -> Session:
    """What Benchmark.open returned. Looked at whole: some of it is not called before a day of training is over."""
    asked = [name for name in vars(Session) if not name.startswith("_")]
    if lacks := [name for name in asked if not callable(getattr(found, name, None))]:
        raise NotAsPromised(
            f"open returned {_shown(found)}, which lacks {', '.join(lacks)}: see harness.contract.Session"
        )
    opened: Session = found
    return opened


def told(member: str, values: Any) -> Mapping[str, Any]:
    """Names and values for the log, which must not be mistaken for what the harness says itself."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise NotAsPromised(f"{member} gave {_shown(values)}: names, each with its value, are needed")
    if taken := [name for name in values if name in WRITTEN_BY_HARNESS]:
        raise NotAsPromised(f"{member} gave {taken[0]}, which the harness says itself: another name is needed")
    return values


def summary(here: Context, found: Any) -> DataSummary:
    """What load_data returned; every rank must have as many steps, as their gradients meet in each."""
    if not isinstance(found, DataSummary):
        raise NotAsPromised(f"load_data returned {_shown(found)}: a DataSummary is needed")
    for name in ("train_samples", "eval_samples", "steps_per_epoch"):
        if not _whole(count := getattr(found, name)) or count < 1:
            raise NotAsPromised(f"load_data gave {name} = {_shown(count)}: a whole number from 1 on is needed")
    if not _whole(both := found.eval_samples_trained_on) or not 0 <= both <= found.eval_samples:
        raise NotAsPromised(
            f"load_data gave eval_samples_trained_on = {_shown(both)}: of eval_samples = {found.eval_samples} it is a part"
        )
    told("load_data's more", found.more)
    sentences = isinstance(found.remarks, Sequence) and not isinstance(found.remarks, str)
    if not sentences or not all(isinstance(each, str) for each in found.remarks):
        raise NotAsPromised(f"load_data gave remarks = {_shown(found.remarks)}: sentences are needed")
    _alike(here, "load_data gave steps_per_epoch =", found.steps_per_epoch)
    return found


def interval(found: Any) -> Interval:
    """What train_epoch yielded; whether the loss is finite is the lifecycle's to say, which logs it first."""
    if not isinstance(found, Interval):
        raise NotAsPromised(f"train_epoch yielded {_shown(found)}: an Interval is needed")
    for name in ("steps", "images"):
        if not _whole(count := getattr(found, name)) or count < 1:
            raise NotAsPromised(
                f"train_epoch's Interval has {name} = {_shown(count)}: a whole number from 1 on is needed"
            )
    for name in ("loss", "learning_rate"):
        if not _number(value := getattr(found, name)):
            raise NotAsPromised(f"train_epoch's Interval has {name} = {_shown(value)}: a Python number is needed")
    if not math.isfinite(found.learning_rate):
        raise NotFinite(f"the learning rate is {found.learning_rate}")
    phases = found.phases
    if not isinstance(phases, Mapping) or STARVED not in phases or set(phases) - set(STEP_PHASES):
        raise NotAsPromised(
            f"train_epoch's Interval has phases = {_shown(phases)}: seconds by name are needed, {STARVED} among them, "
            f"of {', '.join(STEP_PHASES)}"
        )
    for name, seconds in phases.items():
        if not _number(seconds) or not -RESOLUTION_S <= seconds < math.inf:
            raise NotAsPromised(
                f"train_epoch's Interval has {name} = {_shown(seconds)}: seconds, 0 or more, are needed"
            )
    return found


def quality(here: Context, found: Any, epoch: int, rules: Rules, target: float) -> float:
    """What evaluate returned: a number that the metric can be, and the same on every rank."""
    if not _number(found):
        raise NotAsPromised(f"evaluate returned {_shown(found)}: a Python number is needed")
    value = float(found)
    _alike(here, f"after epoch {epoch} evaluate returned", value)
    if not math.isfinite(value):
        raise NotFinite(f"the {rules.metric} after epoch {epoch} is {value}")
    if not rules.possible(value, target):
        if rules.quality_range:
            bounds = " to ".join(f"{each:g}" for each in rules.quality_range)
            why = f"{rules.metric} from {bounds} by the benchmark's rules.toml"
        else:
            usual = "0 or more" if rules.lower_is_better else f"1 or less where the target is {target:g}"
            why = f"it is {usual}, unless the benchmark's rules.toml has another quality_range"
        raise NotAsPromised(f"the {rules.metric} after epoch {epoch} is {value}, which it cannot be: {why}")
    return value


def fingerprint(found: Any) -> str:
    """By it runs of one data set are known: None, or nothing, would make all of them one."""
    if not isinstance(found, str) or not re.fullmatch("[0-9a-fA-F]+", found):
        raise NotAsPromised(f"fingerprint returned {_shown(found)}: hexadecimal digits are needed")
    return found


def _alike(here: Context, what: str, value: float) -> None:
    values = process_group.gathered(here, value)
    other = next((rank for rank, each in enumerate(values) if repr(each) != repr(values[0])), None)
    if other is not None:
        raise NotAsPromised(
            f"{what} {values[0]:.12g} on rank 0 and {values[other]:.12g} on rank {other}: it must be the same on every rank"
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    """As a log takes it; a tensor is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}{'...' * (len(text) > 80)} ({type(value).__name__})"
