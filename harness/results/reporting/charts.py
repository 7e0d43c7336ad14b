"""The page's charts as numbers: scales, ticks and marks in the units of an SVG viewBox. templates/charts.html.jinja draws them.

A chart's colours and shapes stand for accelerator families; both differ, so that neither colour vision nor a colour printer
is needed. A filled mark was measured, a hollow one published.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.names import accelerator_family
from harness.results.reporting import axes, text
from harness.results.reporting.axes import DRAWN, Scale, Tick
from harness.results.reporting.leaderboard import Row, RunEntry

WIDTH, HEIGHT = 380.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 22.0, 38.0
LABEL = 26  # characters of a label left of an axis
STYLES = 7  # colours, and as many shapes, that the page defines
FAR = 3.0  # a run longer than this many medians is left off the axis of its series' chart


@dataclass(frozen=True)
class Style:
    """A family's colour and shape, each a number below STYLES; the pair is its own for 49 families."""

    colour: int
    shape: int


@dataclass(frozen=True)
class ChartMark:
    """One row of the leaderboard at its place in a chart."""

    x: float
    y: float
    style: Style
    row_id: str
    filled: bool
    faint: bool  # unofficial
    title: str


@dataclass(frozen=True)
class Guide:
    """A line for the eye, with a word at its end."""

    start: tuple[float, float]
    end: tuple[float, float]
    label: str
    label_at: tuple[float, float]  # where the label ends

    @property
    def slope(self) -> float:
        """Degrees, as SVG turns."""
        return math.degrees(math.atan2(self.end[1] - self.start[1], self.end[0] - self.start[0]))


@dataclass(frozen=True)
class Curve:
    """One run's quality over time."""

    path: str
    end: tuple[float, float]
    title: str
    counted: bool


@dataclass(frozen=True)
class Chart:
    """One chart; its marks, guides and curves lie within `frame`."""

    name: str  # for ids
    title: str
    text: str  # what it shows, for who cannot see it
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[ChartMark, ...] = ()
    guides: tuple[Guide, ...] = ()
    curves: tuple[Curve, ...] = ()
    note: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """x0, y0 (upper left), x1, y1 (lower right) of the plot."""
        return self.left, TOP, self.width - RIGHT, self.height - BOTTOM


def families(rows: Iterable[Row]) -> dict[str, Style]:
    """Accelerator families with their styles, the most frequent first."""
    counted = Counter(accelerator_family(row.accelerator) for row in rows)
    names = sorted(counted, key=lambda name: (-counted[name], name))
    return {name: Style(index % STYLES, (index + index // STYLES) % STYLES) for index, name in enumerate(names)}


def scaling(rows: Sequence[Row], styles: dict[str, Style]) -> Chart | None:
    """Images per second against accelerators, with lines of equal throughput per accelerator."""
    shown = [(row, row.accelerators, row.images_per_s) for row in rows if _drawn(row.accelerators, row.images_per_s)]
    if not shown:
        return None
    x, x_ticks = axes.powers([count for _, count, _ in shown if count], LEFT, WIDTH - RIGHT, base=4)
    rates = [rate for *_, rate in shown if rate]
    y, y_ticks = axes.powers(rates, HEIGHT - BOTTOM, TOP, base=10)
    counts = [count for _, count, _ in shown if count]
    marks = [_mark(row, x(count), y(rate), styles) for row, count, rate in shown if count and rate]
    return Chart(
        name="scaling",
        title="Throughput and scale",
        text="Images per second against the number of accelerators, both logarithmic. Marks along one dashed line scale "
        "perfectly.",
        x_label="accelerators",
        y_label="images/s",
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        guides=tuple(_equal_rates(counts, rates, x, y, marks)),
        marks=tuple(marks),
    )


def time_to_train(rows: Sequence[Row], styles: dict[str, Style]) -> Chart | None:
    """The score against accelerators."""
    shown = [(row, row.accelerators, row.minutes) for row in rows if _drawn(row.accelerators, row.minutes)]
    if not shown:
        return None
    x, x_ticks = axes.powers([count for _, count, _ in shown if count], LEFT, WIDTH - RIGHT, base=4)
    y, y_ticks = axes.powers([minutes for *_, minutes in shown if minutes], HEIGHT - BOTTOM, TOP, base=10)
    return Chart(
        name="time",
        title="Time to train and scale",
        text="Minutes to the target quality against the number of accelerators, both logarithmic. Lower is better.",
        x_label="accelerators",
        y_label="minutes",
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        marks=tuple(_mark(row, x(count), y(value), styles) for row, count, value in shown if count and value),
    )


def per_accelerator(rows: Sequence[Row], styles: dict[str, Style]) -> Chart | None:
    """Images per second of one accelerator, a line for each model, the best model first."""
    by_model: dict[str, list[tuple[Row, float]]] = {}
    for row in rows:
        if row.images_per_s and row.accelerators and _drawn(row.images_per_s, row.accelerators):
            by_model.setdefault(row.accelerator, []).append((row, row.images_per_s / row.accelerators))
    if not by_model:
        return None
    models = sorted(by_model, key=lambda model: -max(rate for _, rate in by_model[model]))
    left, step = 14.0 + 6.2 * max(len(_label(model)) for model in models), 22.0
    height = max(HEIGHT, TOP + BOTTOM + step * len(models))
    step = (height - TOP - BOTTOM) / len(models)
    x, x_ticks = axes.rounded_up(0.0, max(rate for each in by_model.values() for _, rate in each), left, WIDTH - RIGHT)
    lines = {model: TOP + step * (index + 0.5) for index, model in enumerate(models)}
    return Chart(
        name="per-accelerator",
        title="Throughput per accelerator",
        text="Images per second and accelerator for each model. Marks further left in one line are systems of more "
        "accelerators, or slower ones.",
        x_label="images/s per accelerator",
        y_label="",
        x_ticks=x_ticks,
        y_ticks=tuple(Tick(at, _label(model)) for model, at in lines.items()),
        marks=tuple(
            _mark(row, x(rate), lines[model], styles) for model, each in by_model.items() for row, rate in each
        ),
        height=height,
        left=left,
    )


def _label(model: str) -> str:
    """What an axis has room for: models of one maker differ in their ends."""
    return model if len(model) <= LABEL else f"{model[: LABEL - 11]}\N{HORIZONTAL ELLIPSIS}{model[-10:]}"


def quality_over_time(row: Row) -> Chart | None:
    """Every run of a row: its evaluations against minutes since run_start. Without a plot, its note says why; none of a row
    that has no evaluations."""
    evaluated = [run for run in row.runs if run.evaluations]
    runs = [run for run in evaluated if _drawn(*(each.minutes for each in run.evaluations))]
    runs = [run for run in runs if all(abs(each.quality) < DRAWN[1] for each in run.evaluations)]
    if not evaluated:
        return None
    strange = len(evaluated) - len(runs)
    left_out = [f"{strange} of the runs, whose minutes or {row.metric} no axis holds"] * (strange > 0)
    chart = Chart(
        name=f"quality-{row.id}",
        title=f"{row.metric} over time",
        text="",
        x_label="minutes since run_start",
        y_label=row.metric,
        x_ticks=(),
        y_ticks=(),
        note=_not_drawn(left_out),
        height=230.0,
    )
    if not runs:
        return chart
    longest = [max(each.minutes for each in run.evaluations) for run in runs]  # of a clock that was set, not the last's
    typical = _middle(longest)
    near = [run for run, minutes in zip(runs, longest, strict=True) if minutes <= typical * FAR]
    last = max(minutes for minutes in longest if minutes <= typical * FAR)
    shown = [0.0, row.target or 0.0, *(each.quality for run in near for each in run.evaluations)]
    x, x_ticks = axes.rounded_up(0.0, last, LEFT, WIDTH - RIGHT)
    y, y_ticks = axes.rounded_up(min(shown), max(shown), chart.height - BOTTOM, TOP)
    far = len(runs) - len(near)
    left_out += [f"{far} of the runs, which took more than {FAR:g} times the median"] * (far > 0)
    at = (y(row.target),) if row.target else ()
    return replace(
        chart,
        text=f"{row.metric} of every evaluation of {len(near)} runs against minutes since run_start.",
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        guides=tuple(
            Guide((LEFT, each), (WIDTH - RIGHT, each), f"target {row.target:g}", (LEFT + 80, each)) for each in at
        ),
        curves=tuple(_curve(run, x, y) for run in near),
        note=_not_drawn(left_out),
    )


def _not_drawn(left_out: Sequence[str]) -> str:
    return f"Not drawn: {'; '.join(left_out)}." if left_out else ""


def _drawn(*values: float | None) -> bool:
    """Whether an axis can hold them all: what is not positive or beyond any machine stays in the table alone."""
    return all(value is not None and DRAWN[0] < value < DRAWN[1] for value in values)


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


# --- marks and lines ---------------------------------------------------------------------------------------------------


def _equal_rates(
    counts: Sequence[int], rates: Sequence[float], x: Scale, y: Scale, marks: Sequence[ChartMark]
) -> Iterable[Guide]:
    """Lines of 100, 300, 1,000 ... images/s per accelerator, as far as they lie among the marks."""
    low, high = min(counts), max(*counts, min(counts) * 4)
    for each in (100, 300, 1000, 3000):
        if min(rates) <= each * high and each * low <= max(rates):
            first = max(low, min(rates) * 0.8 / each)
            last = min(high, max(rates) * 1.2 / each)
            if last > first * 1.5:
                start, end = (x(first), y(first * each)), (x(last), y(last * each))
                yield Guide(start, end, f"{each:,} each", _clear_place(start, end, marks))


def _clear_place(
    start: tuple[float, float], end: tuple[float, float], marks: Sequence[ChartMark]
) -> tuple[float, float]:
    """The point of the line where a label that ends there keeps most distance from the marks."""
    length = math.dist(start, end) or 1.0
    middle = 25.0 / length  # of a label of 50 units, as a share of the line

    def at(share: float) -> tuple[float, float]:
        return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

    def distance(share: float) -> float:
        return min(math.dist(at(share - middle), (mark.x, mark.y)) for mark in marks)

    return at(max((1.0, 0.85, 0.7, 0.55, 0.4), key=distance))


def _mark(row: Row, x: float, y: float, styles: dict[str, Style]) -> ChartMark:
    score = f"{text.minutes(row.minutes)} min" if row.minutes else "no score"
    each = text.rate(row.images_per_s_per_accelerator)
    return ChartMark(
        x=x,
        y=y,
        style=styles[accelerator_family(row.accelerator)],
        row_id=row.id,
        filled=row.origin == "measured",
        faint=bool(row.unofficial),
        title=f"{row.submitter}, {row.system}: {text.accelerators(row)}, {score}, "
        f"{text.rate(row.images_per_s)} images/s ({each} each), {row.origin}",
    )


def _curve(run: RunEntry, x: Scale, y: Scale) -> Curve:
    points = [(x(each.minutes), y(each.quality)) for each in run.evaluations]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
    title = f"{run.name}: {text.quality(run.quality)} after {text.minutes(run.evaluations[-1].minutes)} min"
    return Curve(path=path, end=points[-1], title=title, counted=run.counted)
