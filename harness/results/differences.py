"""In what runs of one result are not alike, and whether they are one result all the same.

MLPerf's rules for training have a result of one system: its processors and accelerators, and specific versions of the drivers,
libraries and framework (training_rules.adoc, "System"). What of these makes another system is listed here once, for `collect`,
which keeps such runs apart, and for every verb that judges a series. The rest of what a log says of its machine is told of
where it differs: a kernel, a power limit. What no log of a series says differs in nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results import memory, sources
from harness.results.record import RunRecord
from harness.results.said import number

SUBMITTED = ("submission_benchmark", "submission_org", "submission_platform", "submission_division")
# Each run of `auto` may have chosen its own, where no series handed the first one's on
CHOSEN = ("precision", "data_backend", "device")
SYSTEM_HARDWARE = ("accelerators", "cpu", "sockets", "cores", "threads")
SYSTEM_SOFTWARE = ("driver", "cuda", "cudnn", "nccl", "dali", "torch", "python")
OF_A_GPU = (
    "memory_mib",
    "power_limit_w",
)  # of the list of GPUs; the rest of it varies from run to run, or is a reading
SHOWN = 40  # characters of a value
UNSAID = "not said"


@dataclass(frozen=True)
class Disparity:
    """One key, or one entry of a table as table.entry, that is not the same in all runs."""

    key: str
    values: tuple[str, ...]  # as texts, each once, in the order of the runs
    other_result: bool  # these runs are not one result

    @property
    def shown(self) -> str:
        return ", ".join(each if len(each) <= SHOWN else f"{each[: SHOWN - 3]}..." for each in self.values)


def system_of(record: RunRecord) -> dict[str, Any]:
    """What tells a system from another of its configuration, as a run of ours logs it; `collect` names folders by it."""
    return {
        "accelerators": record.hardware.get("accelerators"),
        "cpu": record.hardware.get("cpu"),
        "image": record.image.get("id"),
        **{key: record.software.get(key) for key in SYSTEM_SOFTWARE},
    }


def differences(records: Iterable[RunRecord]) -> Iterator[Disparity]:
    """In what runs that should be alike are not; of a log without a line nothing is known."""
    said = [record for record in records if record.events]
    keys = {*SUBMITTED, *CHOSEN, *(key for record in said for key in record.hyperparameters)}
    for key in sorted(keys):
        yield from _compared(key, [_text(record.value(key)) for record in said])
    yield from _compared("number of ranks", [str(record.ranks) for record in said])
    # logged when the clock has stopped, so not of a run that broke
    yield from _compared("data_fingerprint", [each for record in said if (each := record.data_fingerprint)])
    if commits := {record.commit for record in said if record.commit}:
        if len(commits) > 1 and (differ := sources.differ(commits)) is not False:
            yield from _compared("commit", sorted(commits), other_result=differ is True)
        yield from _compared(
            "benchmark_sha256", [record.benchmark_sha256 or UNSAID for record in said if record.commit]
        )
    begun = [record for record in said if record.run_start_s is not None]
    yield from _of_table("hardware", [record.hardware for record in begun], SYSTEM_HARDWARE)
    yield from _of_table("software", [record.software for record in begun], SYSTEM_SOFTWARE)
    yield from _of_table("image", [record.image for record in begun], ("id",))


def _of_table(name: str, tables: Sequence[Mapping[str, Any]], of_system: tuple[str, ...]) -> Iterator[Disparity]:
    """An entry that a table lacks is one of another version of ours; a table that only some runs have is a difference."""
    yield from _compared(name, ["said" if table else UNSAID for table in tables])
    told = [{**table, **_of_gpus(table.get("gpus"))} for table in tables if table]
    for key in (*of_system, *sorted({key for table in told for key in table}.difference(of_system, ("gpus",)))):
        values = [table[key] for table in told if key in table]
        if key == "memory_gib":
            sizes = [number(each) for each in values]
            one = memory.as_one(size for size in sizes if size is not None)
            values = [None if size is None else one[size] for size in sizes]
        yield from _compared(f"{name}.{key}", [_text(each) for each in values], other_result=key in of_system)


def _of_gpus(gpus: Any) -> dict[str, Any]:
    if not isinstance(gpus, list):
        return {}
    each = [gpu for gpu in gpus if isinstance(gpu, dict)]
    return {f"gpus.{key}": [gpu.get(key) for gpu in each] for key in OF_A_GPU}


def _compared(key: str, values: Iterable[str], *, other_result: bool = True) -> Iterator[Disparity]:
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) > 1:
        yield Disparity(key, distinct, other_result)


def _text(value: Any) -> str:
    """For people; a list of the same devices is their number and their name."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return " + ".join(f"{value.count(each)}x {each}" for each in dict.fromkeys(value))
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, dict) else str(value)
