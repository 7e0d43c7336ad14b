"""Two arms in, one answer out: everything that `compare` knows, as one value that the terminal, the page and JSON show.

Order matters: runs that are none end it (5), then differences that forbid a comparison (4); only then is a figure judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.comparison import bits, comparability, health, minutes, probes
from harness.comparison.bits import Bits
from harness.comparison.comparability import Comparability
from harness.comparison.health import Symptom, Watched
from harness.comparison.judging import metrics, statistics, verdict
from harness.comparison.judging.floor import Floor
from harness.comparison.judging.metrics import Metric
from harness.comparison.judging.numbers import Quality, quality
from harness.comparison.judging.observations import Observations
from harness.comparison.judging.verdict import Judged, Word
from harness.comparison.minutes import Minutes
from harness.comparison.probes import Probes
from harness.comparison.runs import (
    ComparedRun,
    Invalid,
    check_apart,
    entering,
    find,
    invalid,
    of_like_epochs,
    of_one_size,
    one_boot_each,
    ordered,
    paired_hosts,
)

DELTA = 0.005  # of one node; `compare --delta`
SHOWN = ("evaluation_seconds", "init_seconds", "joules_per_image")  # beside what is gated
EXIT = {"EQUAL": 0, "FASTER": 0, "SLOWER": 1, "WORSE": 1, "CANNOT TELL": 3, "SUSPECT": 7}
NOT_COMPARABLE, INVALID_RUNS = 4, 5
NUMBERS_EXIT = {
    True: 0,
    False: 1,
    None: 3,
}  # equal to the bit, not, or nobody can say: no deterministic runs of one seed
NUMBERS_WORDS = {True: "NUMBERS EQUAL", False: "NUMBERS DIFFERENT", None: "CANNOT TELL"}


@dataclass(frozen=True)
class Question:
    """What was asked."""

    metrics: tuple[str, ...] = ()
    delta: float = DELTA
    allowed: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()  # fields that may differ within an arm
    labels: tuple[str, str] = ("A", "B")
    numbers: bool = False  # whether the exit code says if the numbers are the same, and not which arm is slower


@dataclass(frozen=True)
class MetricRow:
    """One metric of both arms."""

    metric: Metric
    gated: bool
    means: tuple[float, float]  # geometric, in the metric's unit; hosts weigh alike, as in the ratio
    judged: Judged
    values: tuple[
        tuple[str, int, float], ...
    ]  # run, arm, figure; one for each of the comparison's runs, in their order
    hodges_lehmann_percent: float
    cliffs_delta: float


@dataclass(frozen=True)
class Phase:
    """Where the seconds of an epoch, or of the run, went in each arm."""

    name: str
    seconds: tuple[float, float]  # hosts weigh alike
    percent: float | None  # more: slower
    interval: tuple[float, float] | None
    sure: bool  # after Benjamini and Hochberg over the phases

    @property
    def difference_s(self) -> float:
        return self.seconds[1] - self.seconds[0]


@dataclass(frozen=True)
class Outlying:
    """A run that stands out of its arm; shown, and counted like the others."""

    index: int  # of the comparison's runs
    run: str
    metric: str
    percent: float


@dataclass(frozen=True)
class Comparison:
    question: Question
    runs: tuple[ComparedRun, ...]
    invalid: tuple[Invalid, ...]
    comparability: Comparability | None  # None where invalid runs ended it
    symptoms: tuple[Symptom, ...]
    rows: tuple[MetricRow, ...]
    phases: tuple[Phase, ...]
    minutes: tuple[Minutes, Minutes] | None
    quality: Quality | None
    outlying: tuple[Outlying, ...]
    notes: tuple[str, ...]
    word: Word | None  # None where there is none to give
    floor: Floor | None = None
    bits: Bits | None = None  # of deterministic runs
    watched: tuple[Watched, Watched] | None = None  # what the hardware did, by arm
    probes: Probes = field(default_factory=Probes)  # shown, and never in the word

    @property
    def exit_code(self) -> int:
        if self.invalid:
            return INVALID_RUNS
        if self.comparability is None or not self.comparability.ok or self.word is None:
            return NOT_COMPARABLE
        return NUMBERS_EXIT[self._equal] if self.question.numbers else EXIT[self.word]

    @property
    def headline(self) -> str:
        """The word that says the same as the exit code."""
        if self.word is None:
            return "NOT COMPARED"
        return NUMBERS_WORDS[self._equal] if self.question.numbers else self.word

    @property
    def _equal(self) -> bool | None:
        return None if self.bits is None else self.bits.equal


def compare(baseline: str, candidate: str, question: Question, floor: Floor | None = None) -> Comparison:
    """Of two paths or globs. ValueError for what cannot be read or makes no sense."""
    return of_runs([*find(baseline, 0), *find(candidate, 1)], question, floor)


def of_runs(runs: Sequence[ComparedRun], question: Question, floor: Floor | None = None) -> Comparison:
    chosen = metrics.named(question.metrics)
    check_apart(runs)
    found = tuple(of_like_epochs(of_one_size(ordered(runs))))
    nothing = Comparison(question, found, (), None, (), (), (), None, None, (), (), None, floor)
    nothing = replace(nothing, probes=probes.beside(found))
    if bad := invalid(found):
        return replace(nothing, invalid=tuple(bad))
    comparable = comparability.examine(found, question.allowed, question.mixed)
    nothing = replace(nothing, comparability=comparable, notes=comparable.notes)
    if not comparable.ok:
        return nothing
    return _judged(nothing, chosen, question, floor, as_one_host=not paired_hosts(found))  # else `examine` refused it


def _judged(
    base: Comparison, chosen: Sequence[Metric], question: Question, floor: Floor | None, *, as_one_host: bool
) -> Comparison:
    runs = base.runs
    compared = entering(runs)
    samples = {}
    for metric in [*chosen, *(metrics.METRICS[name] for name in SHOWN)]:
        made = metrics.sample(metric, runs)
        if made is not None:
            sample = made[0]
            samples[metric.name] = replace(sample, host=sample.host * 0) if as_one_host else sample
    median, mean = samples.get(metrics.MEDIAN), samples.get(metrics.MEAN)
    # where no epoch stands out both are one figure, shown once
    if not question.metrics and (median is None or mean is None or verdict.same(median, mean)):
        chosen = [metric for metric in chosen if metric.name != metrics.MEAN]
    gated = [metric for metric in chosen if metric.name in samples]
    missing = [metric.name for metric in chosen if metric.name not in samples]
    if (question.metrics and missing) or not gated:
        sentences = [metrics.untold(metric, runs) for metric in chosen if metric.name in missing]
        assert base.comparability is not None
        refused = replace(base.comparability, refusals=(*base.comparability.refusals, *sentences))
        return replace(base, comparability=refused)
    floors = [floor.floors.get(metric.name, 0.0) if floor is not None and not floor.unfit else 0.0 for metric in gated]
    by_name = dict(zip((metric.name for metric in gated), floors, strict=True))
    judged = verdict.holm([samples[metric.name] for metric in gated], question.delta, floors, bootstrap=True)
    rows = [_row(metric, True, samples[metric.name], each, runs) for metric, each in zip(gated, judged, strict=True)]
    for name in SHOWN:
        if name in samples and name not in {metric.name for metric in gated}:
            metric = metrics.METRICS[name]
            rows.append(_row(metric, False, samples[name], verdict.judge(samples[name], question.delta), runs))
    symptoms = tuple(health.examine(compared))
    entered = {id(run) for run in compared}
    apart = [run for run in runs if id(run) not in entered]
    aside = [f"{each.where}, which does not enter the ratio: {each.text}" for each in health.of_runs(apart)]
    watched = health.watched(compared)
    numbers = bits.compare(runs)
    word = verdict.overall(judged)
    trained = quality(compared)
    outlying = [
        Outlying(each.index, runs[each.index].name, metric.name, 100 * math.expm1(each.log_deviation))
        for metric in gated[:1]
        for each in statistics.outliers(samples[metric.name])
    ]
    return replace(
        base,
        symptoms=symptoms,
        rows=tuple(rows),
        phases=tuple(_phases(compared, as_one_host=as_one_host)),
        minutes=minutes.of_arms(compared),
        quality=trained
        if numbers is None or not numbers.equal or trained.worse
        else None,  # bits say more than a spread
        outlying=tuple(outlying),
        notes=(
            *base.notes,
            *_notes(base, judged, by_name, question, missing),
            *_untold(trained, compared),
            *aside,
            *health.notes(watched, question.delta),
        ),
        word="WORSE" if trained.worse else "SUSPECT" if symptoms else word,
        bits=numbers,
        watched=watched,
    )


def _row(metric: Metric, gated: bool, sample: Observations, judged: Judged, runs: Sequence[ComparedRun]) -> MetricRow:
    sign = 1 if metric.more_is_slower else -1
    a, b = (math.exp(sign * mean) for mean in statistics.means(sample))
    values = tuple(
        (run.name, run.arm, math.exp(sign * float(value))) for run, value in zip(runs, sample.log_slowness, strict=True)
    )
    return MetricRow(
        metric,
        gated,
        (a, b),
        judged,
        values,
        100 * math.expm1(statistics.hodges_lehmann(sample)),
        statistics.cliffs_delta(sample),
    )


def _phases(runs: Sequence[ComparedRun], *, as_one_host: bool) -> list[Phase]:
    """Exploratory: nothing is gated by them, so their p-values are held together by Benjamini and Hochberg."""
    found: list[tuple[Phase, float]] = []
    for name in dict.fromkeys([*metrics.PHASES, *(name for run in runs for name in metrics.phases(run))]):
        seconds = [[metrics.phases(run).get(name) for run in runs if run.arm == arm] for arm in (0, 1)]
        if any(value is None for values in seconds for value in values):
            continue
        timed, made = metrics.in_seconds(metrics.phase(name), runs), metrics.sample(metrics.phase(name), runs)
        if timed is not None and as_one_host:
            timed = replace(timed, host=timed.host * 0)
        means = (0.0, 0.0) if timed is None else statistics.means(timed)
        percent, interval, p = None, None, 1.0
        sample = timed if timed is None or made is None else replace(timed, log_slowness=made[0].log_slowness)
        if sample is not None and statistics.enough(sample):
            estimate = statistics.estimate(sample)
            bounds = (estimate.log_ratio, *estimate.interval())
            if made is not None:
                percent, *ends = (100 * math.expm1(each) for each in bounds)
                interval = (ends[0], ends[1])
            elif means[0]:
                percent = 100 * (means[1] / means[0] - 1)
                interval = (100 * bounds[1] / means[0], 100 * bounds[2] / means[0])
            one_sided = estimate.p_above(0.0)
            p = 2 * min(one_sided, 1 - one_sided) if not estimate.confounded else 1.0
        found.append((Phase(name, means, percent, interval, False), p))
    ordered_p = sorted(p for _, p in found)
    limit = max((p for rank, p in enumerate(ordered_p, 1) if p <= 0.05 * rank / len(found)), default=-1.0)
    return [replace(phase, sure=p <= limit) for phase, p in found]


def _untold(trained: Quality, runs: Sequence[ComparedRun]) -> list[str]:
    """That nothing is said of quality, where some of the runs tell it."""
    told = any(
        run.record.counted_evaluations or any(each.loss is not None for each in run.record.epochs) for run in runs
    )
    if trained.accuracy is not None or trained.loss is not None or not told:
        return []
    return [
        "quality and loss: there is no epoch of which every run tells either; whether the arms train alike is not compared"
    ]


def _notes(
    base: Comparison, judged: Sequence[Judged], floors: dict[str, float], question: Question, missing: Sequence[str]
) -> list[str]:
    notes = [f"{name}: not every run tells it; not compared" for name in missing]
    if cut := sorted({run.record.max_steps or 0 for run in base.runs if run.record.cut_runs_an_epoch is not None}):
        notes.append(f"seconds, of phases too, are a whole epoch's by the runs' {' and '.join(map(str, cut))} steps")
    if any(run.first_epoch_alone for run in base.runs):
        notes.append(
            "a run trained no second epoch whole: of all runs the first epoch is compared, which pays for caches and warm-up"
        )
    images = {run.record.epoch_samples or 0 for run in base.runs}
    if any(run.epoch_times != 1 for run in base.runs):
        notes.append(
            f"epochs are of {min(images):,} to {max(images):,} images: their seconds, of phases too, are as if all had "
            f"{max(images):,}"
        )
    if base.floor is not None and base.floor.unfit:
        notes.append(f"{base.floor.path}: not used: {base.floor.unfit}")
    elif base.floor is not None and max(floors.values()) > question.delta:
        # the first of those that are one figure
        wide = {floor: metric for metric, floor in reversed(list(floors.items())) if floor > question.delta}
        within = ", and ".join(f"by {wide[floor]} within {100 * floor:.2g} %" for floor in reversed(wide))
        notes.append(
            f"{within} nothing is told, though delta is {100 * question.delta:.2g} %: this machine's own floor, measured A "
            f"against A ({base.floor.path})"
        )
    assert base.comparability is not None
    alone = "one arm alone; its runs are shown and do not enter the ratio"
    notes += [f"host {name}: {alone}" for name in base.comparability.unpaired]
    if base.comparability.alike:
        notes.append(
            "the arms differ in nothing that the logs tell, neither in driver nor image, configuration or commit: A against A. "
            "Where that is not what was meant, the change was not there when B ran"
        )
    if one_boot_each(base.runs):
        notes.append(
            "no host ran both arms, and each arm ran in one boot: what a reboot alone shifts looks the same. Runs of each arm "
            "in two boots or more would tell"
        )
    first = judged[0].estimate
    if first is not None and first.drift is not None and not first.confounded:
        then = f"then: {100 * math.expm1(first.drift.log_ratio):+.2f} %" if first.drift.se else "too few runs to tell"
        notes.append(
            "the arms were not taken in turns: a word counts only where it holds with a straight drift over time taken out, "
            f"too ({then}); a step of the machine between them would look the same"
        )
    return [*notes, *_held_up(base)]


def _held_up(base: Comparison) -> list[str]:
    """Ranks that the others waited for in one arm and not in the other: a machine's matter, and no driver's."""
    slow = [Counter[tuple[int, str]](), Counter[tuple[int, str]]()]
    counts = [sum(run.arm == arm for run in base.runs) for arm in (0, 1)]
    for run in base.runs:
        found = run.record.slowest_rank
        if found is not None and found.stands_out:
            slow[run.arm][found.rank, found.host] += 1
    if slow[0].keys() == slow[1].keys():
        return []
    return [
        f"{label}: the other ranks waited for rank {rank} on {host} in {count} of {runs} runs: a machine that is slower "
        "than the others may be the difference"
        for arm, label, runs in zip(slow, base.question.labels, counts, strict=True)
        for (rank, host), count in arm.most_common(3)
    ]
