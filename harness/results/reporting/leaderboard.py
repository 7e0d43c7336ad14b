"""The leaderboard as plain records: rows, ranked where rules allow it, in the order that a reader looks for them.

A row is one series: the runs of one system with one configuration. It is ranked by time among the rows of its round and class:
benchmark, ruleset and size of the system (see SIZES). Two rows can be compared run for run when accelerator model, number of
accelerators and global batch size agree too; those share a group, and have a rank in it as well. A row that the rules do not
let stand (too few runs, open division, demonstration data, ...) says why and has no rank. Published rows come from
published.py, measured ones from measured.py; nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, computed_field, model_validator

from harness import names
from harness.results.table import rounded

FORMAT = 2  # of the JSON; grows when a reader of the old form would go wrong. 2: rank is in the class, group_rank in the group
SIZES = (1, 8, 64, 512)  # accelerators up to which a system is of one class; larger ones are the last
APART = 0.1  # a coefficient of variation of a series' times that calls for a note; published ones have 0.1 % to 1 %

AS_GIVEN = "log"  # the field that keeps a path whatever its bytes are: written otherwise it leads nowhere

# measured: by this harness, as its own keys in the log show. read: from logs that someone else's code wrote.
# published: from the data that ships with this package.
Origin = Literal["measured", "read", "published"]


def printable(value: Any) -> Any:
    """With what is no text in UTF-8 written out, as bytes of a file's name or half a surrogate in JSON: no page can hold it."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return tuple(map(printable, value)) if isinstance(value, tuple | list) else value


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _printable(cls, data: Any) -> Any:
        return {key: value if key == AS_GIVEN else printable(value) for key, value in data.items()}


class Spread(Record):
    """How far the runs of a series lie apart."""

    n: int
    minimum: float
    maximum: float
    cv: float | None  # sample standard deviation / mean; None for a single run


class EvaluationEntry(Record):
    minutes: float  # since run_start
    epoch: float | None
    quality: float


class RunEntry(Record):
    """One timed run of a series."""

    name: str
    # path as given; the page links to it
    log: Annotated[str | None, PlainValidator(lambda given: given), PlainSerializer(printable)]
    sha256: str | None
    outcome: str  # "success" or the reason in a few words
    counted: bool  # enters the score; the fastest and the slowest of a series do not
    minutes: float | None
    epochs: float | None
    images_per_s: float | None
    seed: int | None
    evaluations: tuple[EvaluationEntry, ...]  # in time: a run may go on after its run_stop

    @property
    def quality(self) -> float | None:
        return self.evaluations[-1].quality if self.evaluations else None


class Section(Record):
    """Facts about a row under one heading, as text."""

    title: str
    facts: tuple[tuple[str, str], ...]


class Row(Record):
    """One series."""

    id: str  # unique in a leaderboard, fit for an HTML id
    rank: int | None  # in its round and class
    rank_of: int = 0  # ranked rows there
    group_rank: int | None = None  # among the rows that can be compared run for run
    origin: Origin
    source: str | None  # address of what was published
    unofficial: tuple[str, ...]  # why it cannot be ranked; empty when it can
    note: str | None
    mlperf: str | None = None  # what MLPerf's own tools said of its logs, if they were asked

    benchmark: str  # the keyword, which has meant one task and another
    task: str = ""  # what is trained, on which data; "" where no rules are known
    metric: str  # what the benchmark's quality is called
    lower_is_better: bool = False  # of the metric
    ruleset: str
    division: str
    status: str | None = None  # availability: cloud, onprem, preview, research
    date: str | None = None  # ISO 8601: when the first run began; of a published row, when its round came out
    submitter: str
    system: str
    platform: str | None = None  # as submitted
    driver: str | None = None
    code: str | None = None  # address of the sources that ran
    accelerator: str
    accelerators: int | None
    nodes: int | None
    framework: str
    precision: str | None
    global_batch: int | None
    target: float | None
    demonstration: bool  # trained on data that a benchmark brings along: comparable with nothing else

    minutes: float | None  # the score
    minutes_spread: Spread | None
    images_per_s: float | None  # median of the runs
    images_per_s_spread: Spread | None
    throughput_from: str | None  # "epochs", "part of an epoch", or "blocks" where a log has no single ones
    runs: tuple[RunEntry, ...]
    sections: tuple[Section, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def images_per_s_per_accelerator(self) -> float | None:
        if self.images_per_s is None or not self.accelerators:
            return None
        return self.images_per_s / self.accelerators

    @computed_field  # type: ignore[prop-decorator]
    @property
    def epochs(self) -> tuple[float, float] | None:
        """Fewest and most epochs of the runs that met the target."""
        return _range(run.epochs for run in self.runs if run.outcome == "success")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def quality(self) -> tuple[float, float] | None:
        """Lowest and highest final quality of the runs that met the target."""
        return _range(run.quality for run in self.runs if run.outcome == "success")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> str:
        """The class of its size, in accelerators: "1", "2 to 8", ..., "over 512"; "unknown"."""
        if self.accelerators is None:
            return "unknown"
        below = 0
        for most in SIZES:
            if self.accelerators <= most:
                return f"{most}" if most == below + 1 else f"{below + 1} to {most}"
            below = most
        return f"over {below}"

    @property
    def trains(self) -> str:
        """What rows must have in common to stand in one chart."""
        return self.task or self.benchmark

    @property
    def ranked_with(self) -> tuple[object, ...]:
        return self.demonstration, self.benchmark, self.ruleset, self.size

    @property
    def stands(self) -> bool:
        return not self.unofficial and self.minutes is not None

    @property
    def comparable(self) -> tuple[object, ...]:
        return (
            self.demonstration,
            self.trains,
            *(getattr(self, key) for key in ("benchmark", "ruleset", "accelerator", "accelerators", "global_batch")),
        )


class Group(Record):
    """Rows that can be compared, the ranked ones first."""

    benchmark: str
    ruleset: str
    accelerator: str
    accelerators: int | None
    global_batch: int | None
    demonstration: bool
    rows: tuple[Row, ...]


class LeftOut(Record):
    """A file that is no result, and why."""

    path: str
    reason: str


class Leaderboard(Record):
    """All of the page: groups of rows that may be ranked against one another, and what could not be a row."""

    format: int = FORMAT
    generated: str  # ISO 8601, UTC
    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def rows(self) -> list[Row]:
        """All, as a reader looks for them: measured ones, then the newest round first; small systems and fast ones first.

        Of what was published, the tasks come first of which there is something else here too.
        """
        found = [row for group in self.groups for row in group.rows]
        own = self.tasks_of_interest
        return sorted(found, key=lambda row: _reading_order(row, own))

    @property
    def tasks_of_interest(self) -> set[str]:
        """What is trained in the rows that were not published; of a board without such, everything."""
        found = [row for group in self.groups for row in group.rows]
        return {row.trains for row in found if row.origin != "published"} or {row.trains for row in found}

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """The rows by the heading that they stand under, in the order of `rows`."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(_section(row), []).append(row)
        return list(found.items())


def build(rows: Iterable[Row], *, generated: datetime, left_out: Iterable[LeftOut] = ()) -> Leaderboard:
    """Rank and group `rows`; groups go by accelerators, then by their best score, demonstrations last."""
    together: dict[tuple[object, ...], list[Row]] = {}
    for row in _ranked(_unique_ids(rows)):
        together.setdefault(row.comparable, []).append(row)
    groups = [_group(members) for members in together.values()]
    groups.sort(key=_order)
    stamp = generated.astimezone(UTC).isoformat(timespec="seconds")
    return Leaderboard(generated=stamp, groups=tuple(groups), left_out=tuple(left_out))


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of what there is; None when there is nothing."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    mean = statistics.fmean(given)
    cv = statistics.stdev(given) / mean if len(given) > 1 and mean else None
    return Spread(n=len(given), minimum=min(given), maximum=max(given), cv=cv)


def width_note(given: Spread | None) -> str | None:
    """What a reader must know of runs whose times lie far apart."""
    if given is None or given.cv is None or given.cv <= APART:
        return None
    low, high = (rounded(each, 4) for each in (given.minimum, given.maximum))
    return (
        f"Its runs' times lie far apart, from {low} to {high} minutes (CV {given.cv:.0%}): the "
        "score, which drops the slowest and the fastest, says little of what a run takes."
    )


def scaling_note(who: str, factor: float) -> str:
    """What a reader must know of a score that is no mean of its runs."""
    return f"{who} multiplied the mean of its runs by {factor:.4f}: they converged sooner than the reference's."


# --- ordering ----------------------------------------------------------------------------------------------------------


def _by_time(row: Row) -> tuple[object, ...]:
    return bool(row.unofficial), math.inf if row.minutes is None else row.minutes, row.system, row.id


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Each with its rank in its round and class."""
    classes: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.stands:
            classes.setdefault(row.ranked_with, []).append(row)
    return [
        row.model_copy(update={"rank": _place(row, members), "rank_of": len(members)})
        for row, members in ((row, classes.get(row.ranked_with, [])) for row in rows)
    ]


def _place(row: Row, among: Sequence[Row]) -> int | None:
    """1 for the fastest of those that stand; rows of one time share a place, and the next one's counts them all."""
    if not row.stands:
        return None
    return 1 + sum(each.stands and (each.minutes or 0.0) < (row.minutes or 0.0) for each in among)


def _reading_order(row: Row, own: set[str]) -> tuple[object, ...]:
    newest = [-int(part) for part in row.ruleset.split(".") if part.isdecimal()]
    size = next((at for at, most in enumerate(SIZES) if row.accelerators and row.accelerators <= most), len(SIZES))
    return row.demonstration, row.origin != "measured", row.trains not in own, newest, size, *_by_time(row)


def _section(row: Row) -> str:
    if row.demonstration:
        return "Demonstrations, comparable with nothing else"
    if row.origin == "measured":
        return f"{row.trains}: measured here"
    return f"{row.trains}: ruleset {row.ruleset}"


def _group(members: Sequence[Row]) -> Group:
    ordered = sorted(members, key=_by_time)
    ranked = [row.model_copy(update={"group_rank": _place(row, members)}) for row in ordered]
    first = members[0]
    return Group(
        benchmark=first.benchmark,
        ruleset=first.ruleset,
        accelerator=first.accelerator,
        accelerators=first.accelerators,
        global_batch=first.global_batch,
        demonstration=first.demonstration,
        rows=tuple(ranked),
    )


def _order(group: Group) -> tuple[object, ...]:
    best = min((row.minutes or math.inf for row in group.rows), default=math.inf)
    return group.demonstration, group.accelerators or math.inf, best, group.accelerator, group.ruleset


def _unique_ids(rows: Iterable[Row]) -> list[Row]:
    """Each id once, and the same whatever else is shown: of rows with one name each ends in a hash of its runs."""
    named = [(names.anchor(row.id), row) for row in rows]
    count = Counter(slug for slug, _ in named)
    seen: Counter[str] = Counter()
    unique = []
    for slug, row in named:
        identity = slug
        if count[slug] > 1 or slug == "row":
            runs = [row.id, row.ruleset, row.system, *(run.sha256 or f"{run.name} {run.minutes}" for run in row.runs)]
            identity += "-" + hashlib.sha256(repr(runs).encode("utf-8", "replace")).hexdigest()[:6]
        seen[identity] += 1
        number = seen[identity]
        unique.append(row.model_copy(update={"id": identity if number == 1 else f"{identity}--{number}"}))
    return unique


def _range(values: Iterable[float | None]) -> tuple[float, float] | None:
    given = [value for value in values if value is not None]
    return (min(given), max(given)) if given else None
