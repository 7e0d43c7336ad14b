"""The history as a page beside the leaderboard: every series drawn, changes marked, drivers against systems."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from harness import whole
from harness.comparison.history import history_text
from harness.comparison.history.history import History, SystemHistory
from harness.comparison.history.points import Point
from harness.comparison.judging.metrics import MEAN
from harness.results.reporting import axes
from harness.results.reporting.axes import Tick
from harness.results.reporting.page import HISTORY as PAGE
from harness.results.reporting.page import environment_of
from harness.results.table import rounded

GENERATOR = "harness history"
TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
WIDTH, HEIGHT, LEFT = 860.0, 190.0, 70.0
DRAWN = 200  # series
COLOURS = 8  # of drivers, in comparison.css; as many drivers more are rings of the same


@dataclass(frozen=True)
class RunDot:
    """A run."""

    x: float
    y: float
    driver: str  # how its driver looks, see `_look`
    title: str


@dataclass(frozen=True)
class ChangeMark:
    """A change point."""

    x: float
    text: str
    word: str


@dataclass(frozen=True)
class Drawing:
    series: SystemHistory
    ticks: tuple[Tick, ...]
    dates: tuple[Tick, ...]
    dots: tuple[RunDot, ...]
    means: tuple[RunDot, ...]  # of the same runs' mean epochs; none where no change is theirs alone
    legend: tuple[tuple[str, str], ...]  # how a driver of these runs looks, and which it is
    changes: tuple[ChangeMark, ...]
    levels: tuple[tuple[float, float, float], ...]  # x from, x to, y: the mean between changes


def render(found: History) -> str:
    """The page; of more than DRAWN series those with changes are drawn first."""
    environment = environment_of(TEMPLATES)
    environment.filters.update(date=history_text.date, cell=history_text.cell_text, tested=history_text.tested)
    chosen = sorted(found.series, key=lambda each: -len(each.changes))[:DRAWN]
    return environment.get_template("history.html.jinja").render(
        found=found,
        drawings=[_draw(each, found.drivers) for each in chosen],
        undrawn=len(found.series) - len(chosen),
        legend=history_text.legend(cell for _, cells in found.matrix for cell in cells),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
    )


def write(found: History, folder: Path) -> Path:
    """The page as `folder`/history.html, whole or not at all. ValueError where something else than our page is there."""
    target = folder / PAGE
    try:
        if target.exists() and not is_ours(target):
            raise ValueError(f"{target}: there, and not a page that `history` wrote; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        page = render(found).encode("utf-8", "backslashreplace")
        with whole.replacing(target) as file:
            file.write(page)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}; name another folder") from error
    return target


def is_ours(target: Path) -> bool:
    """Whether it is a page that this module wrote. OSError where it cannot be read."""
    if not target.is_file():
        return False
    with target.open(encoding="utf-8", errors="replace") as page:
        return GENERATOR in page.read(1000)


def _draw(series: SystemHistory, drivers: tuple[str, ...]) -> Drawing:
    """Runs at even distances: what matters is their order, and a pause of months would squeeze them."""
    points = series.points
    values = [point.seconds_per_epoch for point in points]
    means = [point.mean_epoch_seconds for point in points if any(each.metric == MEAN for each in series.changes)]
    low, high = min([*values, *means]), max([*values, *means])
    room = max(0.15 * (high - low), 0.002 * high)
    scale, ticks = axes.inside(low - room, high + room, HEIGHT - 8, 12)
    step = (WIDTH - LEFT - 20) / len(points)
    x = [LEFT + step * (index + 0.5) for index in range(len(points))]
    looks = [_look(point.driver, drivers) for point in points]
    dots = tuple(
        RunDot(at, scale(value), look, _title(point, value, "s an epoch"))
        for at, value, look, point in zip(x, values, looks, points, strict=True)
    )
    of_means = tuple(
        RunDot(at, scale(value), look, _title(point, value, "s, the mean epoch"))
        for at, value, look, point in zip(x, means, looks, points, strict=False)
    )
    marks = tuple(
        ChangeMark(
            x[change.index] - step / 2,
            f"{history_text.date(change.at)}: {history_text.change_text(change)}; {change.why}",
            change.word.lower(),
        )
        for change in series.changes
    )
    levels = []
    for start, stop in itertools.pairwise([0, *(change.index for change in series.changes), len(points)]):
        mean = sum(values[start:stop]) / (stop - start)
        levels.append((x[start] - step / 2, x[stop - 1] + step / 2, scale(mean)))
    every = max(1, -(-len(points) // 8))
    dates = tuple(Tick(x[index], history_text.date(points[index].started)) for index in range(0, len(points), every))
    here = {point.driver for point in points}
    legend = [(_look(each, drivers), f"driver {each}") for each in drivers if each in here]
    if legend and not all(here):
        legend.append((_look(None, drivers), "no driver in the log"))
    return Drawing(series, ticks, dates, dots, of_means, tuple(legend), marks, tuple(levels))


def _look(driver: str | None, drivers: tuple[str, ...]) -> str:
    """Classes of the style sheet: one colour for a driver on the whole page, and none for runs that name no driver."""
    if not driver:
        return "driver-none"
    ring, colour = divmod(drivers.index(driver) % (2 * COLOURS), COLOURS)
    return f"driver-{colour}{' ring-of' * ring}"


def _title(point: Point, seconds: float, what: str) -> str:
    driver = f", driver {point.driver}" if point.driver else ""
    return f"{history_text.date(point.started)}: {rounded(seconds, 5)} {what}{driver}"
