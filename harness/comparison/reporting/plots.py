"""The page's pictures as plain coordinates: what the template draws and nothing of how."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.comparison.comparison import Comparison
from harness.comparison.judging import metrics
from harness.comparison.reporting import words
from harness.comparison.runs import ComparedRun, of_arms
from harness.results.reporting import axes
from harness.results.reporting.axes import Tick

WIDTH = 860
LABELS, LETTERS = 190, 24  # left of a forest plot's and a waterfall's marks, and what of a name has room there
ROOM = 210  # right of a forest plot's, for figures
YEAR_S = 180 * 86400  # between first and last run, from which a day without its year says too little
LINE = 26  # height of one of their rows


@dataclass(frozen=True)
class ForestRow:
    """One row of the forest plot; per cent slower."""

    y: float
    name: str
    x: float
    low: float
    high: float
    text: str
    word: str
    gated: bool
    cut: bool  # it reaches over the picture's edge
    beyond: int  # the value itself lies over it: -1 on the left, 1 on the right, 0 where it does not


@dataclass(frozen=True)
class Forest:
    height: float
    zero: float
    band: tuple[float, float] | None  # +-delta
    band_text: str
    ticks: tuple[Tick, ...]
    rows: tuple[ForestRow, ...]


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    arm: int
    title: str
    outlying: bool = False


@dataclass(frozen=True)
class Strip:
    """Runs in the order of time: one panel for each quantity, over the same places."""

    title: str
    unit: str
    top: float
    height: float
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    means: tuple[tuple[int, float], ...]  # arm, y


@dataclass(frozen=True)
class Time:
    strips: tuple[Strip, ...]
    height: float
    boundaries: tuple[float, ...]  # where the day or the block changes
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Bar:
    y: float
    name: str
    x: float
    width: float
    kind: str  # a, b, more, less
    text: str
    sure: bool = False


@dataclass(frozen=True)
class Waterfall:
    height: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]


def forest(found: Comparison) -> Forest | None:
    """Every metric's and phase's slowness with its interval, on one axis."""
    given: list[tuple[str, float, tuple[float, float], str, bool]] = []
    for row in found.rows:
        if row.judged.percent is not None and row.judged.percent_interval is not None:
            given.append(
                (row.metric.title, row.judged.percent, row.judged.percent_interval, row.judged.word.lower(), row.gated)
            )
    for phase in found.phases:
        if phase.percent is not None and phase.interval is not None:
            word = ("slower" if phase.percent > 0 else "faster") if phase.sure else ""
            given.append((phase.name.replace("_", " "), phase.percent, phase.interval, word, False))
    if not given:
        return None
    delta = 100 * found.rows[0].judged.delta if found.rows else 0.0
    # what is gated sets the scale; a phase of no length may be uncertain by any amount
    main = [bound for _, _, bounds, _, gated in given if gated for bound in bounds]
    middles = [each for _, each, *_ in given]
    reach = max(
        2.2 * delta, *(1.15 * abs(each) for each in [*main, *sorted(middles, key=abs)[: len(middles) * 3 // 4 + 1]])
    )
    scale, ticks = axes.inside(-reach, reach, LABELS, WIDTH - ROOM)
    rows = []
    for place, (name, percent, (low, high), word, gated) in enumerate(given):
        edge = tuple(min(max(bound, -reach), reach) for bound in (low, high))
        rows.append(
            ForestRow(
                y=14 + LINE * place,
                name=_label(name),
                x=scale(min(max(percent, -reach), reach)),
                low=scale(edge[0]),
                high=scale(edge[1]),
                text=_short(percent, low, high),
                word=word,
                gated=gated,
                cut=edge != (low, high),
                beyond=(percent > reach) - (percent < -reach),
            )
        )
    return Forest(
        14 + LINE * len(given),
        scale(0),
        (scale(-delta), scale(delta)),
        f"equal: within {delta:.3g} %",
        tuple(Tick(each.at, each.text) for each in ticks),
        tuple(rows),
    )


def _label(name: str) -> str:
    """A benchmark's phases may be called anything; they are whole in the table."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 10]}\N{HORIZONTAL ELLIPSIS}{name[-9:]}"


def _short(*percents: float) -> str:
    """A difference and its interval as there is room for them: to two decimals, and from ten per cent on to fewer."""
    most = max(map(abs, percents))
    digits = 2 if most < 9.995 else 1 if most < 99.95 else 0
    middle, low, high = (words.within(each, digits, 99_999) for each in percents)
    return f"{middle} ({low} to {high})"


def over_time(found: Comparison) -> Time | None:
    """The first gated metric of every run in order, and what its GPUs were at meanwhile."""
    gated = next((row for row in found.rows if row.gated), None)
    if gated is None:
        return None
    runs = found.runs
    figure_of = {id(run): value for run, (_, _, value) in zip(runs, gated.values, strict=True)}  # names may repeat
    left, right = 70.0, WIDTH - 20.0
    places = {id(run): left + (right - left) * (index + 0.5) / len(runs) for index, run in enumerate(runs)}
    outlying = {id(runs[each.index]) for each in found.outlying}
    panels: list[tuple[str, str, float, Callable[[ComparedRun], float | None]]] = [
        (gated.metric.title, gated.metric.unit, 150.0, lambda run: figure_of[id(run)]),
        ("SM clock", "MHz", 70.0, lambda run: run.telemetry.clock_sm_mhz if run.telemetry else None),
        ("power", "W", 70.0, lambda run: run.telemetry.power_w if run.telemetry else None),
        ("hottest GPU", "C", 70.0, lambda run: run.telemetry.temperature_c if run.telemetry else None),
        ("held down", "s", 70.0, lambda run: run.telemetry.held_longest_s if run.telemetry else None),
    ]
    strips, top = [], 12.0
    for title, unit, height, value in panels:
        known = [(run, each) for run in runs if (each := value(run)) is not None]
        if not known:
            continue
        figures = [each for _, each in known]
        low, high = min(figures), max(figures)
        room = max((high - low) * 0.12, 1e-4 * abs(high), 1e-9)
        scale, ticks = axes.inside(low - room, high + room, top + height - 6, top + 8, about=3 if height < 100 else 5)
        dots = tuple(
            Dot(places[id(run)], scale(each), run.arm, f"{run.name}: {words.figure(each)} {unit}", id(run) in outlying)
            for run, each in known
        )
        means = tuple((arm, scale(mean)) for arm, mean in enumerate(of_arms(runs, value)) if mean is not None)
        strips.append(Strip(title, unit, top, height, ticks, dots, means))
        top += height + 22
    return Time(tuple(strips), top, tuple(_boundaries(runs, places)), tuple(_times(runs, places)))


def _boundaries(runs: Sequence[ComparedRun], places: dict[int, float]) -> list[float]:
    """Between runs of two hosts, or of two drivers."""
    return [
        (places[id(before)] + places[id(after)]) / 2
        for before, after in itertools.pairwise(runs)
        if before.host != after.host or before.driver.key != after.driver.key
    ]


def _times(runs: Sequence[ComparedRun], places: dict[int, float]) -> list[Tick]:
    import datetime

    step = max(1, math.ceil(len(runs) / 10))
    begun = {id(run): run.record.run_start_s for run in runs if run.record.run_start_s is not None}
    years = max(begun.values(), default=0.0) - min(begun.values(), default=0.0) > YEAR_S
    shown = []
    for run in runs[::step]:
        if id(run) in begun:
            at = datetime.datetime.fromtimestamp(begun[id(run)], datetime.UTC)
            shown.append(Tick(places[id(run)], f"{at:%Y-%m-%d}" if years else f"{at:%m-%d %H:%M}"))
    return shown


def waterfall(found: Comparison) -> Waterfall | None:
    """From A's seconds to B's, phase by phase."""
    phases = [phase for phase in found.phases if phase.seconds != (0.0, 0.0) and metrics.part(phase.name) == "epoch"]
    if not phases:
        return None
    a, b = (sum(phase.seconds[arm] for phase in phases) for arm in (0, 1))
    steps = [phase.difference_s for phase in phases]
    levels = [a]
    for each in steps:
        levels.append(levels[-1] + each)
    spread = max(*levels, b) - min(*levels, b)
    low = max(0.0, min(*levels, b) - max(0.35 * spread, 0.002 * a))
    scale, ticks = axes.inside(low, max(*levels, b) + 0.05 * spread, LABELS, WIDTH - ROOM + 30)
    labels = found.question.labels
    bars = [Bar(14, labels[0], scale(low), scale(a) - scale(low), "a", f"{words.figure(a)} s")]
    for place, phase in enumerate(phases, 1):
        start, end = sorted((levels[place - 1], levels[place]))
        bars.append(
            Bar(
                14 + LINE * place,
                _label(phase.name.replace("_", " ")),
                scale(start),
                max(scale(end) - scale(start), 1.0),
                "more" if phase.difference_s > 0 else "less",
                f"{words.change(phase.difference_s)} s of {words.figure(phase.seconds[0])}",
                phase.sure,
            )
        )
    bars.append(
        Bar(14 + LINE * (len(phases) + 1), labels[1], scale(low), scale(b) - scale(low), "b", f"{words.figure(b)} s")
    )
    return Waterfall(14 + LINE * (len(phases) + 2), ticks, tuple(bars))
