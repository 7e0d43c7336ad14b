"""The leaderboard as plain records: rows, grouped by what can be compared, ranked where rules allow it.

A row is one series: the runs of one system with one configuration. Two rows can be compared when benchmark, ruleset,
accelerator model, number of accelerators and global batch size agree; only then do they share a group, and ranks run
inside a group. A row that the rules do not let stand (too few runs, open division, demonstration data, ...) says why and
has no rank. Published rows come from published.py, measured ones from measured.py; nothing here reads a file.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

FORMAT = 1  # of the JSON; grows when a reader of the old form would go wrong

# measured: by this harness, as its own keys in the log show. read: from logs that someone else's code wrote.
# published: from the data that ships with this package.
Origin = Literal["measured", "read", "published"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(Record):
    """How far the runs of a series lie apart."""

    n: int
    minimum: float
    maximum: float
    cv: float | None  # sample standard deviation / mean; None for a single run


class Evaluation(Record):
    minutes: float  # since run_start
    epoch: float | None
    quality: float


class Run(Record):
    """One timed run of a series."""

    name: str
    log: str | None  # path as given; the page links to it
    sha256: str | None
    outcome: str  # "success" or the reason in a few words
    counted: bool  # enters the score; the fastest and the slowest of a series do not
    minutes: float | None
    epochs: float | None
    images_per_s: float | None
    seed: int | None
    evaluations: tuple[Evaluation, ...]

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
    rank: int | None  # inside the group
    origin: Origin
    source: str | None  # address of what was published
    unofficial: tuple[str, ...]  # why it cannot be ranked; empty when it can
    note: str | None

    benchmark: str
    metric: str  # what the benchmark's quality is called
    ruleset: str
    division: str
    submitter: str
    system: str
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
    runs: tuple[Run, ...]
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

    @property
    def comparable(self) -> tuple[object, ...]:
        return (
            self.demonstration,
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
    format: int = FORMAT
    generated: str  # ISO 8601, UTC
    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def build(rows: Iterable[Row], *, generated: datetime, left_out: Iterable[LeftOut] = ()) -> Leaderboard:
    """Group and rank `rows`; groups go by accelerators, then by their best score, demonstrations last."""
    together: dict[tuple[object, ...], list[Row]] = {}
    for row in _unique_ids(rows):
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


def median(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return statistics.median(given) if given else None


def accelerator_name(reported: str) -> str:
    """A model's name without what varies between those who report it: maker, power limit, case of PCIe.

    "NVIDIA A100-SXM4-40GB (400W)", as a system description has it, and the driver's "NVIDIA A100-SXM4-40GB" are one model.
    """
    name = re.sub(r"\s*\(\s*\d+\s*W\s*\)", "", reported, flags=re.IGNORECASE)
    name = re.sub(r"\b(nvidia|tesla)\b\s*", "", name, flags=re.IGNORECASE)
    name = re.sub(r"\bPCI-?E\b", "PCIe", name, flags=re.IGNORECASE)
    return " ".join(name.split()) or "unknown"


# --- ordering ----------------------------------------------------------------------------------------------------------


def _group(members: Sequence[Row]) -> Group:
    ordered = sorted(members, key=lambda row: (bool(row.unofficial), row.minutes or math.inf, row.system, row.id))
    ranked: list[Row] = []
    for row in ordered:
        stands = not row.unofficial and row.minutes is not None
        ranked.append(row.model_copy(update={"rank": len(ranked) + 1 if stands else None}))
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
    """Each id once: two systems of one name become name and name-2."""
    seen: dict[str, int] = {}
    unique = []
    for row in rows:
        slug = re.sub(r"[^a-z0-9]+", "-", row.id.lower()).strip("-") or "row"
        seen[slug] = seen.get(slug, 0) + 1
        number = seen[slug]
        unique.append(row.model_copy(update={"id": slug if number == 1 else f"{slug}--{number}"}))
    return unique


def _range(values: Iterable[float | None]) -> tuple[float, float] | None:
    given = [value for value in values if value is not None]
    return (min(given), max(given)) if given else None
