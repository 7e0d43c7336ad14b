"""What MLCommons published for the benchmarks there are, as rows: history that a new result stands beside.

The files published/*.json in a benchmark's folder hold, for each round, every entry with the time, throughput and evaluations
of each of its runs, read off the result logs at the commit that the file names. None of it was measured by this project, and
each row says so.
"""

from __future__ import annotations

import functools
from fractions import Fraction

from pydantic import Field

from harness.names import accelerator_model
from harness.results.record import median
from harness.results.reporting.leaderboard import (
    EvaluationEntry,
    Record,
    Row,
    RunEntry,
    Section,
    scaling_note,
    spread,
    width_note,
)
from harness.results.score import countable, four_decimals
from harness.rules import data_files, rules_for, ruleset

FILES = "published/*.json"
SCALED = "MLCommons multiplied"


class PublishedRun(Record):
    """One run of a published series, as its log has it."""

    file: str
    seconds: float = Field(gt=0)  # run_stop - run_start
    epochs: float
    images_per_s: float = Field(gt=0)
    evaluations: tuple[tuple[float, float, float], ...]  # seconds after run_start, epoch, quality


class PublishedEntry(Record):
    """One system's published result."""

    submitter: str
    system: str
    accelerator: str
    accelerators: int | None = Field(gt=0)  # None: of processors alone
    nodes: int = Field(gt=0)
    division: str
    status: str
    framework: str
    global_batch: int
    throughput_from: str | None
    scaling: float = 1.0  # by which MLCommons multiplied the mean, of runs that converged sooner than the reference's
    failed_runs: int = Field(default=0, ge=0)  # that did not meet the target, and are not among `runs`
    note: str | None = None
    description: dict[str, str]
    runs: tuple[PublishedRun, ...]


class PublishedRound(Record):
    """A file of benchmarks/NAME/published: one round's results, and where they are from."""

    round: str
    ruleset: str
    benchmark: str
    target: float
    repository: str
    commit: str
    licence: str
    provenance: str
    method: str
    entries: tuple[PublishedEntry, ...]


@functools.cache
def rounds() -> tuple[PublishedRound, ...]:
    """Of every benchmark, the oldest first."""
    found = [PublishedRound.model_validate_json(path.read_bytes()) for path in data_files(FILES)]
    return tuple(sorted(found, key=lambda each: [int(part) for part in each.ruleset.split(".")]))


def rows() -> list[Row]:
    return [_row(round_, entry) for round_ in rounds() for entry in round_.entries]


def _row(round_: PublishedRound, entry: PublishedEntry) -> Row:
    folder = f"{entry.submitter}/results/{entry.system}/{round_.benchmark}"
    code = f"{entry.submitter}/benchmarks/{round_.benchmark}/implementations"
    tree = f"{round_.repository}/tree/{round_.commit}"
    times = spread(run.seconds / 60 for run in entry.runs)
    known, rules = ruleset(round_.ruleset), rules_for(round_.benchmark, round_.ruleset)
    scaled = None if entry.scaling == 1 else scaling_note("MLCommons", entry.scaling)
    return Row(
        id=f"{round_.round}-{entry.submitter}-{entry.system}",
        rank=None,
        origin="published",
        source=f"{tree}/{folder}".replace(" ", "%20"),
        unofficial=(),
        note=" ".join(filter(None, (entry.note, scaled, width_note(times)))) or None,
        benchmark=round_.benchmark,
        task=rules.task,
        metric=rules.metric,
        ruleset=round_.ruleset,
        division=entry.division,
        status=entry.status,
        date=known.published.isoformat() if known is not None else None,
        submitter=entry.submitter,
        system=entry.system,
        code=f"{tree}/{code}".replace(" ", "%20"),
        accelerator=accelerator_model(entry.accelerator),
        accelerators=entry.accelerators,
        nodes=entry.nodes,
        framework=entry.framework,
        precision=None,
        global_batch=entry.global_batch,
        target=round_.target,
        demonstration=False,
        minutes=_score(entry),
        minutes_spread=times,
        images_per_s=median(run.images_per_s for run in entry.runs),
        images_per_s_spread=spread(run.images_per_s for run in entry.runs),
        throughput_from=entry.throughput_from,
        runs=_runs(entry),
        sections=(
            Section(title="System", facts=tuple((_words(key), text) for key, text in entry.description.items())),
            Section(
                title="Source",
                facts=(
                    ("provenance", round_.provenance),
                    ("repository", round_.repository),
                    ("commit", round_.commit),
                    ("status", entry.status),
                    ("licence", round_.licence),
                ),
            ),
        ),
    )


def _score(entry: PublishedEntry) -> float | None:
    """MLPerf's rule: the fastest and the slowest do not count, and one that did not meet the target is the slowest."""
    inner = countable(sorted(Fraction(str(run.seconds)) for run in entry.runs), entry.failed_runs)
    mean = sum(inner, Fraction(0)) / len(inner) / 60 if inner else None
    return None if mean is None else float(four_decimals(mean * Fraction(str(entry.scaling))))


def _runs(entry: PublishedEntry) -> tuple[RunEntry, ...]:
    by_time = sorted(range(len(entry.runs)), key=lambda index: entry.runs[index].seconds)
    counted = set(countable(by_time, entry.failed_runs))
    return tuple(
        RunEntry(
            name=run.file,
            log=None,
            sha256=None,
            outcome="success",
            counted=index in counted,
            minutes=run.seconds / 60,
            epochs=run.epochs,
            images_per_s=run.images_per_s,
            seed=None,
            evaluations=tuple(
                EvaluationEntry(minutes=round(seconds / 60, 4), epoch=epoch, quality=quality)
                for seconds, epoch, quality in run.evaluations
            ),
        )
        for index, run in enumerate(entry.runs)
    )


def _words(key: str) -> str:
    return key.replace("_", " ")
