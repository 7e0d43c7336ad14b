"""A history for a terminal of 80 columns: a line for each series, its changes, and drivers against systems."""

from __future__ import annotations

import datetime
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from harness.comparison.history.history import Cell, Change, History, SystemHistory
from harness.comparison.judging.metrics import MEAN, MEDIAN
from harness.results.table import one_line, printable, rounded

WIDTH = 80
BARS = "▁▂▃▄▅▆▇█"
SPARK = 24  # characters of a series' course
MEDIANS = {"EQUAL": "not the median", "CANNOT TELL": "perhaps the median", "FASTER": "against the median"}
DRIVERS = 3  # columns of the matrix; the page has all


def lines(found: History) -> Iterator[str]:
    for each in found.series:
        yield from _series(each)
    if found.matrix:
        yield ""
        yield from _matrix(found)
    if found.tested:
        yield ""
        yield "for drivers.toml, from runs that met their target:"
        for entry in found.tested:
            yield from tested(entry)
    if found.left_out:
        yield ""
        count, first = len(found.left_out), found.left_out[0]
        said = f"{count} log{'s' * (count != 1)} of no whole run{'s' * (count != 1)}"
        yield f"left out: {said}; the first: {_cut(first.log, 40)}"
        yield f"  {_cut(first.reason, WIDTH - 2)}"
    if not found.series:
        yield "no runs yet: `harness run` makes one and `harness collect` brings it here"


def tested(entry: Mapping[str, str]) -> Iterator[str]:
    """As drivers.toml has it: a JSON string is one of TOML."""
    yield "[[tested]]"
    yield from (f"{key} = {printable(json.dumps(entry[key], ensure_ascii=False))}" for key in ("driver", "gpu"))
    yield f"date = {entry['date']}"


def _series(each: SystemHistory) -> Iterator[str]:
    yield _cut(each.name, WIDTH)
    first, last = each.points[0], each.points[-1]
    trend = "" if each.percent_a_month is None else f"  trend {each.percent_a_month:+.2f} % a month"
    dates = f"{date(first.started)} to {date(last.started)}" if len(each.points) > 1 else date(first.started)
    runs = f"{len(each.points)} run{'s' * (len(each.points) != 1)}"
    yield f"  {spark(each):{SPARK}}  {runs}, {rounded(last.seconds_per_epoch, 5)} s an epoch  {dates}"
    if trend:
        yield f" {trend}: more is slower"
    for change in each.changes:
        low, high = _apart(*change.interval)
        yield f"  {date(change.at)}  {change_text(change)} ({low} to {high})"
        yield f"              {_cut(change.why, WIDTH - 14)}"


def _apart(low: float, high: float) -> tuple[str, str]:
    """An interval's ends by as many digits as they need to differ."""
    texts = ((rounded(low, digits, "+"), rounded(high, digits, "+")) for digits in range(2, 9))
    return next((each for each in texts if each[0] != each[1]), (rounded(low, 2, "+"), rounded(high, 2, "+")))


def change_text(change: Change) -> str:
    of = f" in the mean epoch, {MEDIANS[change.median]}" if change.metric != MEDIAN else ""
    return f"{change.word} by {rounded(abs(change.percent), 2)} %{of}"


def spark(each: SystemHistory) -> str:
    """Seconds an epoch from the first run to the last; higher is slower."""
    values = [point.seconds_per_epoch for point in each.points][-SPARK:]
    low, high = min(values), max(values)
    if high - low < 1e-3 * high:  # nothing that an eye should see
        return BARS[0] * len(values)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in values)


def _matrix(found: History) -> Iterator[str]:
    shown = found.drivers[-DRIVERS:]
    yield from textwrap.wrap(legend(cell for _, cells in found.matrix for cell in cells[-DRIVERS:]), WIDTH)
    yield f"{'':20}" + "".join(f"{_cut(driver, 18):>20}" for driver in shown)
    for series, cells in found.matrix:
        texts = (cell_text(cell) for cell in cells[-DRIVERS:])
        yield f"{_cut(f'{series.title} {series.host}', 19):20}" + "".join(f"{text:>20}" for text in texts)
    if len(found.drivers) > DRIVERS:
        yield f"and {len(found.drivers) - DRIVERS} older drivers; --html and --json have all"


def legend(cells: Iterable[Cell | None]) -> str:
    """What the matrix is of, and what the marks of these cells mean."""
    shown = [cell for cell in cells if cell is not None]
    told = (
        "images/s by driver, and against the driver before on the same host: s slower, f faster, = equal, "
        "? cannot be told, as by one stretch of each"
    )
    if any(cell.beside for cell in shown):
        told += "; (commit): no commit ran with both"
    if any(map(stalls, shown)):
        told += "; * of the mean epoch, which has what stalls now and then, the median is equal"
    return told


def cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    rate = f"{cell.images_per_s:,.0f}" if cell.images_per_s else f"{rounded(cell.seconds_per_epoch, 4)} s"
    # the judged one is of seconds: of twice as many a rate is the half, 50 % less
    percent = 100 * (1 / (1 + (cell.percent or 0.0) / 100) - 1) if cell.images_per_s else cell.percent
    if cell.percent is None:
        return f"{rate} ({cell.beside})" if cell.beside else rate
    mark = {"SLOWER": "s", "FASTER": "f", "EQUAL": "="}.get(cell.word or "", "?")
    return f"{rate} {percent:+.1f}% {mark}{'*' * stalls(cell)}"


def stalls(cell: Cell | None) -> bool:
    """Whether the figure is of the mean epoch, where the median one has not changed."""
    return cell is not None and cell.metric == MEAN and cell.median == "EQUAL"


def date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _cut(text: str, width: int) -> str:
    text = one_line(text)
    return text if len(text) <= width else f"{text[: width - 2]}.."
