"""A system's series over time and over drivers: trend, change points and what changed there, drivers seen to work.

Change points are those of ruptures (kernel change point detection with the linear kernel, exact, with a penalty), and each is
then held to the standard of every other difference: the runs before it against those after it, by verdict.py, and where it
lies at a reboot their boots, each of which shifts the speed a little. What that does not call slower or faster is not shown, so
that a noisy series has no history of alarms; one boot before and one after, of which nobody can tell what the reboot alone did,
are shown as that. As in a comparison the median epoch is judged and the mean one beside it, for what stalls now and then is in
that alone.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.comparison.history.points import OF_A_DRIVER, TELLABLE, LeftOut, Point
from harness.comparison.judging import verdict
from harness.comparison.judging.metrics import MEAN, MEDIAN
from harness.comparison.judging.observations import Floats, Observations
from harness.system import accelerator

DELTA = 0.005
GATED = (MEDIAN, MEAN)  # fields of a point, too
NOT_TOLD = "not told"
PENALTY = 5.0  # times the logarithm of the number of runs, in units of the noise's variance
SHORTEST = 3  # runs between two change points
MONTH_S = 30 * 86400
TREND_S = 7 * 86400  # between two runs that tell of a trend by the month


@dataclass(frozen=True)
class Change:
    """From one run to the next a series became slower or faster, and stayed so for three runs at least."""

    index: int  # of the first run after it
    at: float
    percent: float  # more: slower
    interval: tuple[float, float]
    word: verdict.Word
    metric: str  # of metrics.py: whose change it is, the median epoch's where both changed
    median: verdict.Word  # of the median epoch
    reasons: tuple[str, ...]  # what else changed between the two runs
    told: tuple[str, ...]  # of points.TELLABLE, what the logs of both tell

    @property
    def why(self) -> str:
        """In words: the reasons; else what is known not to have changed, as both logs tell it."""
        if self.reasons:
            return "; ".join(self.reasons)
        *others, last = self.told or TELLABLE
        if not self.told:
            return f"no {', '.join(others)} or {last} is told by both"
        return f"neither {', '.join(others)} nor {last} changed" if others else f"the {last} did not change"


@dataclass(frozen=True)
class SystemHistory:
    """Runs of the same work on one host, in the order of time."""

    benchmark: str
    system: str
    configuration: str
    host: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    work: str  # in words, what of it the names do not say: steps, determinism, which configuration of that name
    percent_a_month: float | None  # Theil and Sen's slope between changes; None with under four runs or a week

    @property
    def title(self) -> str:
        return f"{self.configuration} ({self.work})" if self.work else self.configuration

    @property
    def name(self) -> str:
        return f"{self.benchmark}, {self.title}, {self.system}, {self.host}"


@dataclass(frozen=True)
class Cell:
    """One driver on one host."""

    runs: int
    images_per_s: float | None
    seconds_per_epoch: float
    against: str  # the driver before it on this host; "" for the first
    percent: float | None
    word: verdict.Word | None
    metric: str = ""  # of metrics.py: which made the word
    median: verdict.Word | None = None  # of the median epoch
    beside: str = ""  # what changed with the driver, so that no difference is the driver's; empty where nothing did


@dataclass(frozen=True)
class History:
    series: tuple[SystemHistory, ...]
    drivers: tuple[str, ...]  # in the order in which they were first seen
    matrix: tuple[tuple[SystemHistory, tuple[Cell | None, ...]], ...]  # of the series that tell a driver
    tested: tuple[dict[str, str], ...]  # proposed for drivers.toml
    left_out: tuple[LeftOut, ...]


def history(
    points: Sequence[Point], left_out: Sequence[LeftOut] = (), *, system: str = "", delta: float = DELTA
) -> History:
    """Of all points, or of those whose system, host, GPU, configuration or path holds `system`; ValueError: none does."""
    chosen = _with_flavours([point for point in points if _about(point, system)])
    if system and not chosen:
        there = ", ".join(sorted({point.system for point in points})) or "none"
        raise ValueError(f"no run of a system {system}; there are: {there}")
    groups: dict[tuple[str, ...], list[Point]] = {}
    for point in chosen:
        groups.setdefault((point.benchmark, point.system, point.configuration, point.work, point.host), []).append(
            point
        )
    alike: dict[tuple[str, ...], set[str]] = {}
    for benchmark, platform, configuration, work, host in groups:
        alike.setdefault((benchmark, platform, configuration, host), set()).add(work)
    series = tuple(_series(group, delta, _work(key[3], alike[(*key[:3], key[4])])) for key, group in groups.items())
    drivers = tuple(dict.fromkeys(point.driver for point in chosen if point.driver))
    matrix = tuple(
        (each, tuple(_cells(each.points, drivers, delta)))
        for each in series
        if any(point.driver for point in each.points)
    )
    return History(series, drivers, matrix, tuple(_tested(chosen)), tuple(left_out))


def _with_flavours(points: Sequence[Point]) -> list[Point]:
    """Two drivers of one version, as the open and the proprietary module are, have names of their own."""
    flavours: dict[str, set[str]] = {}
    for point in points:
        flavours.setdefault(point.driver, set()).add(_flavour(point))
    return [
        replace(point, driver=f"{point.driver} {_flavour(point)}") if len(flavours[point.driver]) > 1 else point
        for point in points
    ]


def _flavour(point: Point) -> str:
    return point.software.get("driver_flavour", NOT_TOLD)


def _about(point: Point, word: str) -> bool:
    told = (point.system, point.host, point.gpu, point.configuration, point.log)
    return not word or any(word.lower() in text.lower() for text in told)


def _work(own: str, all_of_the_name: Iterable[str]) -> str:
    """What of Point.work tells one from the others: steps, determinism, a single epoch, another configuration of the name."""
    (sha256, steps, deterministic, one_epoch), *others = (json.loads(each) for each in (own, *all_of_the_name))
    words = [f"{steps} steps" if steps is not None else "", "deterministic" if deterministic else ""]
    if one_epoch and len({each[3] for each in others}) > 1:
        words.append("first epoch")
    if len({each[0] for each in others}) > 1:
        words.append(f"{sha256}"[:8])
    return ", ".join(filter(None, words))


def _series(points: Sequence[Point], delta: float, work: str) -> SystemHistory:
    first = points[0]
    changes = tuple(_changes(points, delta))
    return SystemHistory(
        first.benchmark,
        first.system,
        first.configuration,
        first.host,
        tuple(points),
        changes,
        work,
        _trend(points, _logs(points, MEDIAN), [change.index for change in changes if change.metric == MEDIAN]),
    )


def _changes(points: Sequence[Point], delta: float) -> Iterable[Change]:
    found = _break_points(_logs(points, MEDIAN))
    # what is a change of the median is one of the mean a run or two earlier or later
    found += [
        at
        for at in _break_points(_logs(points, MEAN), rare=True)
        if all(abs(at - other) >= SHORTEST for other in found)
    ]
    bounds = [0, *sorted(found), len(points)]
    for before, at, after in zip(bounds, bounds[1:], bounds[2:], strict=False):
        both = _judged(points[before:at], points[at:after], delta, by_boots=_rebooted(points[at - 1], points[at]))
        by_runs = any(each.estimate is not None and each.estimate.confounded for each in both)
        if by_runs:
            both = _judged(points[before:at], points[at:after], delta, by_boots=False)
        words = [each.word for each in both]
        word = next((word for word in ("SLOWER", "FASTER") if word in words), None)
        if word is not None:
            index = words.index(word)
            percent, interval = both[index].percent, both[index].percent_interval
            assert percent is not None and interval is not None
            reasons = tuple(_reasons(points[at - 1], points[at], alone=by_runs))
            told = tuple(each for each in TELLABLE if each in points[at - 1].told and each in points[at].told)
            yield Change(at, points[at].started, percent, interval, word, GATED[index], words[0], reasons, told)


def _judged(
    before: Sequence[Point], after: Sequence[Point], delta: float, *, by_boots: bool
) -> Sequence[verdict.Judged]:
    def seconds(points: Sequence[Point], name: str) -> list[float]:
        return [getattr(point, name) for point in points]

    samples = [
        _observed(before, after, name) if by_boots else Observations.of(seconds(before, name), seconds(after, name))
        for name in GATED
    ]
    return verdict.holm(samples, delta, [0.0] * len(samples))


def _rebooted(before: Point, after: Point) -> bool:
    return bool(before.boot and after.boot and before.boot != after.boot)


def _logs(points: Sequence[Point], metric: str) -> Floats:
    return np.log([getattr(point, metric) for point in points])


def _break_points(values: Floats, *, rare: bool = False) -> list[int]:
    """`rare`: where noise is rare and large, as stalls are, of which the median difference knows nothing."""
    count = len(values)
    if count < 2 * SHORTEST:
        return []
    # of the differences between neighbours, so that a change itself does not count as noise
    steps = np.diff(values)
    noise = float(np.median(np.abs(steps - np.median(steps)))) * 1.4826 / math.sqrt(2)
    noise = max(noise, float(np.std(steps)) / (math.sqrt(2) if rare else 10), 1e-6)
    from ruptures.detection import KernelCPD

    found = KernelCPD(kernel="linear", min_size=SHORTEST).fit((values / noise)[:, None])
    return [int(index) for index in found.predict(pen=PENALTY * math.log(count))[:-1]]


def _reasons(before: Point, after: Point, *, alone: bool) -> Iterable[str]:
    """`alone`: there is one boot before the change and one after it."""
    if before.driver != after.driver:
        then, now = (each.driver or each.software.get("driver") or NOT_TOLD for each in (before, after))
        yield f"driver {then} -> {now}"
    if before.commit != after.commit:
        yield f"commit {before.commit[:10] or NOT_TOLD} -> {after.commit[:10] or NOT_TOLD}"
    for name in sorted({*before.software, *after.software}):
        then, now = (each.software.get(name, NOT_TOLD) for each in (before, after))
        if then != now and not name.startswith(OF_A_DRIVER):
            yield f"{name} {then} -> {now}"
    if _rebooted(before, after):
        yield "a reboot, which alone may be why" if alone else "a reboot"


def _trend(points: Sequence[Point], values: Floats, breaks: Sequence[int]) -> float | None:
    """Median of the slopes within the stretches, in per cent a month; more is slower. None where no stretch is long enough.

    Of runs that lie apart by TREND_S at least: by the month, the noise between two runs of one hour is any figure.
    """
    times = np.array([point.started for point in points])
    slopes: list[Floats] = []
    bounds = [0, *breaks, len(points)]
    for start, stop in itertools.pairwise(bounds):
        if stop - start >= 4:
            rows, columns = np.triu_indices(stop - start, 1)
            elapsed = times[start:stop][columns] - times[start:stop][rows]
            risen = values[start:stop][columns] - values[start:stop][rows]
            slopes.append(risen[elapsed >= TREND_S] / elapsed[elapsed >= TREND_S])
    together = np.concatenate(slopes) if slopes else np.array([])
    if not len(together):
        return None
    return 100 * math.expm1(float(np.median(together)) * MONTH_S)


def _cells(points: Sequence[Point], drivers: Sequence[str], delta: float) -> Iterable[Cell | None]:
    before: tuple[str, list[Point]] | None = None
    for driver in drivers:
        own = [point for point in points if point.driver == driver]
        if not own:
            yield None
            continue
        rates = [point.images_per_s for point in own if point.images_per_s]
        seconds = [point.seconds_per_epoch for point in own]
        percent, word, metric, median, beside = None, None, "", None, ""
        if before is not None:
            # of one commit: what the code changed is not the driver's
            common = {point.commit for point in before[1]} & {point.commit for point in own}
            earlier, later = ([point for point in side if point.commit in common] for side in (before[1], own))
            beside = "" if common else "commit"
            if common:
                judged = verdict.holm([_observed(earlier, later, name) for name in GATED], delta, [0.0] * len(GATED))
                word, median = verdict.overall(judged), judged[0].word
                metric, percent = next(
                    (name, each.percent) for name, each in zip(GATED, judged, strict=True) if each.word == word
                )
        yield Cell(
            len(own),
            sum(rates) / len(rates) if rates else None,
            math.exp(float(np.mean(np.log(seconds)))),
            before[0] if before is not None else "",
            percent,
            word,
            metric,
            median,
            beside,
        )
        before = (driver, own)


def _observed(before: Sequence[Point], after: Sequence[Point], metric: str) -> Observations:
    """Two drivers on one host, in blocks between which the driver or the boot changed, as compare has them."""
    both = sorted(
        [*((point, 0) for point in before), *((point, 1) for point in after)], key=lambda each: each[0].started
    )
    block, numbers = 0, []
    for (earlier, was), (point, arm) in itertools.pairwise([both[0], *both]):
        block += (arm, point.boot) != (was, earlier.boot)
        numbers.append(block)
    return Observations(
        _logs([point for point, _ in both], metric),
        np.array([arm for _, arm in both]),
        np.zeros(len(both), np.int64),
        np.array(numbers),
        np.array([point.started for point, _ in both]),
    )


def _tested(points: Sequence[Point]) -> Iterable[dict[str, str]]:
    """A driver and a GPU on which one whole timed run met its target, that drivers.toml does not have yet; no demonstration."""
    import datetime

    known = accelerator.tested_drivers()
    proposed: dict[tuple[str, str], dict[str, str]] = {}
    for point in points:
        key = (point.driver_version, point.gpu)
        if point.whole and not point.demonstration and all(key) and key[0] not in known and key not in proposed:
            date = datetime.datetime.fromtimestamp(point.started, datetime.UTC).date().isoformat()
            proposed[key] = {"driver": key[0], "gpu": key[1], "date": date, "log": point.log}
    return proposed.values()
