"""The score of a series by MLPerf's rules: the fastest and the slowest run dropped, the mean of the rest, in minutes.

One run that did not converge may take the place of the slowest; with more there is no score. The rules want an exact number
of runs (harness.rules); any other number is scored the same way and said to be unofficial. Runs that converged sooner than the
reference's have their mean multiplied by MLPerf's factor, where it is known (harness.results.checking.kept). Nothing is written
anywhere: MLPerf's package checker leaves a scaling.json behind that changes the summarizer's next answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from harness.results import telemetry
from harness.results.by_rules import images_per_s, shortfall, target_of
from harness.results.checking.own import judge
from harness.results.parts import Block, Epoch
from harness.results.record import RunRecord, median
from harness.results.series import Series
from harness.rules import rules_for

if TYPE_CHECKING:
    from harness.results.checking.kept import Opinion

Place = Literal["counted", "fastest", "slowest", "not converged"]


@dataclass(frozen=True)
class TimeSplit:
    """Where a run's seconds went. Evaluation that runs beside training costs nothing, and counts nothing here."""

    init_s: float | None  # before the clock
    epochs_s: float
    evaluation_s: float
    rest_s: float


@dataclass(frozen=True)
class ScoredRun:
    """One run of a scored series."""

    record: RunRecord
    place: Place
    why: str  # it did not converge

    @property
    def converged(self) -> bool:
        return not self.why


@dataclass(frozen=True)
class Score:
    """A series' time to train, and what each of its runs had to do with it."""

    series: Series
    ruleset: str | None
    target: float | None
    metric: str
    runs: tuple[ScoredRun, ...]  # those that began
    exact_minutes: Fraction | None
    unofficial: tuple[str, ...]  # why this is no official score; empty when it is one
    factor: float = 1.0  # of MLPerf's, and in exact_minutes already

    @property
    def minutes(self) -> float | None:
        """To four decimals, the half rounded up."""
        return None if self.exact_minutes is None else float(four_decimals(self.exact_minutes))

    @property
    def official(self) -> bool:
        return not self.unofficial

    @property
    def accelerators(self) -> int | None:
        return self.series.accelerators

    @property
    def images_per_s(self) -> float | None:
        """The median over the converged runs of each one's median epoch."""
        return median(self.speed(each.record) for each in self.runs if each.converged or len(self.runs) == 1)

    def speed(self, record: RunRecord) -> float | None:
        """Images per second of one run; see results.by_rules."""
        return images_per_s(record, rules_for(record.benchmark, self.ruleset))

    @property
    def images_per_s_per_accelerator(self) -> float | None:
        speed, count = self.images_per_s, self.accelerators
        return speed / count if speed and count else None


def score(series: Series, ruleset: str | None = None, opinion: Opinion | None = None) -> Score:
    """The score of a series; `ruleset` in place of what the logs say, `opinion` what MLPerf's tools say of it."""
    first = series.first
    ruleset = ruleset or first.ruleset
    rules = rules_for(first.benchmark, ruleset)
    begun = series.begun
    reasons = {id(record): shortfall(record, rules) for record in begun}
    converged = sorted((record for record in begun if not reasons[id(record)]), key=lambda record: record.run_ms or 0.0)
    failed = len(begun) - len(converged)
    counted = countable(converged, failed)
    places: dict[int, Place] = {id(record): "counted" for record in counted}
    if converged and counted and counted[0] is not converged[0]:
        places[id(converged[0])] = "fastest"
    if converged and counted and counted[-1] is not converged[-1]:
        places[id(converged[-1])] = "slowest"
    return Score(
        series=series,
        ruleset=ruleset,
        target=target_of(first, rules),
        metric=rules.metric,
        runs=tuple(
            ScoredRun(
                record,
                places.get(id(record), "not converged" if reasons[id(record)] else "counted"),
                reasons[id(record)],
            )
            for record in begun
        ),
        exact_minutes=_mean_minutes(counted, 1.0 if opinion is None else opinion.factor),
        unofficial=(*(each.what for each in judge(series, rules)), *_refusal(opinion)),
        factor=1.0 if opinion is None else opinion.factor,
    )


def _refusal(opinion: Opinion | None) -> Iterable[str]:
    if opinion is not None and opinion.accepted is False:
        yield "MLPerf's tools refuse it"
    elif opinion is not None and opinion.broke:
        yield "MLPerf's tools gave no answer"


def countable(converged: Sequence[Any], failed: int) -> Sequence[Any]:
    """What enters the mean, of converged runs (or their times) by time; nothing where there is no score."""
    total = len(converged) + failed
    if failed > 1 or (failed and total < 3):
        return []
    if total < 3:
        return converged
    return converged[1:] if failed else converged[1:-1]


def _mean_minutes(records: Sequence[RunRecord], factor: float) -> Fraction | None:
    times = [Fraction(record.run_ms) for record in records if record.run_ms is not None]
    return sum(times, Fraction(0)) / len(times) / 60_000 * Fraction(factor) if times else None


def four_decimals(value: Fraction | float) -> Decimal:
    """Half up: a mean of whole milliseconds can lie exactly between, where binary fractions go either way."""
    fraction = Fraction(value)
    exact = Decimal(fraction.numerator) / Decimal(fraction.denominator)
    return exact.quantize(Decimal("0.0001"), ROUND_HALF_UP)


def minutes_of(record: RunRecord) -> Decimal | None:
    """One run's, as the score has them; of its milliseconds, which RunRecord.minutes no longer has to the last digit."""
    return None if record.run_ms is None else four_decimals(Fraction(record.run_ms) / 60_000)


# --- where the time went -----------------------------------------------------------------------------------------------


def split(record: RunRecord) -> TimeSplit | None:
    """The parts of one run; None where it has no end."""
    start, stop = record.run_start_s, record.run_stop_s
    if start is None or stop is None or stop <= start:
        return None
    trained: tuple[Epoch, ...] | tuple[Block, ...] = record.epochs or record.blocks
    spans = [(each.start_s, each.seconds) for each in trained]
    unended = record.outcome == "aborted" and trained and trained[-1].seconds is None and not trained[-1].backwards
    if unended and (begun := trained[-1].start_s):
        spans[-1] = (begun, stop - begun)  # the run ended within it
    epochs = _union(_within(spans))
    both = _union([*epochs, *_within((each.start_s, each.seconds) for each in record.evaluations)])
    epochs = _clip(epochs, start, stop)
    both = _clip(both, start, stop)
    epochs_s, both_s = _length(epochs), _length(both)
    return TimeSplit(record.init_seconds, epochs_s, both_s - epochs_s, stop - start - both_s)


def _within(spans: Iterable[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    return [
        (start, start + length) for start, length in spans if start is not None and length is not None and length > 0
    ]


def _union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _clip(spans: list[tuple[float, float]], start: float, stop: float) -> list[tuple[float, float]]:
    return [(max(a, start), min(b, stop)) for a, b in spans if a < stop and b > start]


def _length(spans: list[tuple[float, float]]) -> float:
    return sum(stop - start for start, stop in spans)


# --- as JSON -----------------------------------------------------------------------------------------------------------


def as_json(result: Score) -> dict[str, Any]:
    """Plain values; times in the units that their names say."""
    first = result.series.first
    return {
        "name": result.series.name,
        "folder": str(result.series.folder),
        "minutes": result.minutes,
        "factor": result.factor,
        "official": result.official,
        "unofficial_because": list(result.unofficial),
        "benchmark": first.benchmark,
        "ruleset": result.ruleset,
        "ruleset_is_guess": first.ruleset_is_guess and result.ruleset == first.ruleset,
        "org": first.org,
        "platform": first.platform,
        "division": first.division,
        "metric": result.metric,
        "target": result.target,
        "accelerators": result.accelerators,
        "global_batch_size": first.global_batch_size,
        "images_per_s": result.images_per_s,
        "images_per_s_per_accelerator": result.images_per_s_per_accelerator,
        "runs": [_run_json(run, result.speed(run.record)) for run in result.runs],
        "not_begun": [record.path for record in result.series.not_begun],
        "left_out": [str(path) for path in result.series.left_out],
    }


def _run_json(run: ScoredRun, images_per_s: float | None) -> dict[str, Any]:
    record, parts, minutes = run.record, split(run.record), minutes_of(run.record)
    return {
        "file": record.path,
        "sha256": record.sha256,
        "minutes": None if minutes is None else float(minutes),
        "place": run.place,
        "converged": run.converged,
        "why_not": run.why or None,
        "epochs": record.epochs_run,
        "accuracy": record.accuracy,
        "seeds": list(record.seeds),
        "images_per_s": images_per_s,
        "init_s": record.init_seconds,
        "epochs_s": parts.epochs_s if parts else None,
        "evaluation_s": parts.evaluation_s if parts else None,
        "rest_s": parts.rest_s if parts else None,
        "paused_s": record.paused_s,
        "telemetry": _telemetry_json(record),
    }


def _telemetry_json(record: RunRecord) -> dict[str, Any] | None:
    found = telemetry.beside(record)
    if found is None:
        return None
    return {"joules_per_image": telemetry.joules_per_image(record, found), **found.plain()}
