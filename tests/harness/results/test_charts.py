"""Pictures of the pages as numbers: what axes say, and that everything drawn lies within its frame."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.results.reporting import axes, charts, published, report
from harness.results.reporting.leaderboard import Row
from tests.harness.results import synthetic_logs
from tests.harness.results.synthetic_logs import Made


@pytest.mark.parametrize("low, high", [(-0.044, 0.044), (-0.11, 0.11), (-1.1, 1.1), (-30.0, 30.0)])
def test_a_tick_says_its_own_sign(low: float, high: float) -> None:
    """-0.04 was written 0.04, and a difference on the wrong side of equal."""
    scale, ticks = axes.inside(low, high, 0.0, 100.0)
    assert [float(tick.text) for tick in ticks] == sorted(float(tick.text) for tick in ticks)
    assert all(tick.at == pytest.approx(scale(float(tick.text))) for tick in ticks)
    assert not any(re.fullmatch(r"-0\.?0*", tick.text) for tick in ticks)


@pytest.mark.parametrize(
    "low, high", [(0.0, 0.2325), (0.0, 0.0), (0.0, 5e-324), (1e-300, 2e-300), (-3.0, 0.0), (-0.5, 0.2325), (-5.0, -2.0)]
)
def test_a_round_axis_holds_both_ends(low: float, high: float) -> None:
    scale, ticks = axes.rounded_up(low, high, 0.0, 100.0)
    assert (ticks[0].at, ticks[-1].at) == pytest.approx((0.0, 100.0))
    assert scale(low) >= -1e-9 and scale(high) <= 100.0 + 1e-9
    assert [scale(float(tick.text)) for tick in ticks] == pytest.approx([tick.at for tick in ticks])


def of_qualities(folder: Path, *qualities: float, target: float) -> Row:
    """The row of a series of the open division that evaluated so and was to reach `target`."""
    made = Made(division="open", qualities=((40, qualities[0]), (50, qualities[1])))
    for log in synthetic_logs.series(folder, made).iterdir():
        text = log.read_text().replace(
            '"key": "quality_target", "value": 0.23', f'"key": "quality_target", "value": {target}'
        )
        assert json.dumps(target) in text
        log.write_text(text)
    board = report.gather([folder], generated=datetime(2026, 1, 2, tzinfo=UTC), published=False)
    report.write(board, folder / "page")
    [row] = board.rows
    return row


@pytest.mark.parametrize("qualities, target", [((-3.0, -2.0), -5.0), ((-0.5, 0.31), 0.3), ((0.1, 0.31), 0.3)])
def test_a_quality_below_zero_is_drawn(tmp_path: Path, qualities: tuple[float, float], target: float) -> None:
    """A log-likelihood: below its frame the curve ran through the page, and with such a target no page was made."""
    chart = charts.quality_over_time(of_qualities(tmp_path, *qualities, target=target))
    assert chart is not None and len(chart.curves) == 5
    x0, y0, x1, y1 = chart.frame
    for curve in chart.curves:
        numbers = list(map(float, re.findall(r"[\d.]+", curve.path)))
        assert all(x0 <= x <= x1 for x in numbers[::2]) and all(y0 <= y <= y1 for y in numbers[1::2])
    assert all(y0 <= guide.start[1] <= y1 for guide in chart.guides)


def test_a_clock_that_was_set_draws_nothing_outside_the_frame(tmp_path: Path) -> None:
    """Of a run whose first evaluation was stamped a year ahead a line ran through the whole page."""
    folder = synthetic_logs.series(tmp_path, Made())
    log = folder / "result_0.txt"
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines()]
    for key in ("eval_accuracy", "run_stop"):  # the first evaluation, which was in time
        next(each for each in events if each["key"] == key)["time_ms"] += 365 * 86_400_000
    log.write_text("".join(f":::MLLOG {json.dumps(each)}\n" for each in events))
    [row] = report.gather([tmp_path], generated=datetime(2026, 1, 2, tzinfo=UTC), published=False).rows
    chart = charts.quality_over_time(row)
    assert chart is not None and len(chart.curves) == 4 and "1 of the runs" in chart.note
    for curve in chart.curves:
        numbers = list(map(float, re.findall(r"[\d.]+", curve.path)))
        assert all(chart.frame[0] <= x <= chart.frame[2] for x in numbers[::2])


@pytest.mark.parametrize("count", [1, 5])
def test_runs_whose_clock_was_set_back_are_missed_in_the_chart(tmp_path: Path, count: int) -> None:
    """Their evaluations are stamped before their run_start: they were left out, and nobody told. Where it was all of them, the
    page said that no evaluation was logged."""
    for log in sorted(synthetic_logs.series(tmp_path, Made()).glob("result_*.txt"))[:count]:
        events = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines()]
        next(each for each in events if each["key"] == "eval_accuracy")["time_ms"] -= 86_400_000
        log.write_text("".join(f":::MLLOG {json.dumps(each)}\n" for each in events))
    board = report.gather([tmp_path], generated=datetime(2026, 1, 2, tzinfo=UTC), published=False)
    chart = charts.quality_over_time(board.rows[0])
    assert chart is not None and len(chart.curves) == 5 - count
    assert chart.note == f"Not drawn: {count} of the runs, whose minutes or mAP no axis holds."
    report.write(board, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert chart.note in page and "No evaluation was logged" not in page
    assert ('<g class="curve' in page) == (count < 5)


def test_an_axis_has_room_for_the_names_beside_it() -> None:
    """Of the RTX PRO 6000 Server Edition a phone showed the end."""
    rows = [row for row in published.rows() if row.trains == "RetinaNet on OpenImages"]
    assert max(len(row.accelerator) for row in rows) > charts.LABEL
    chart = charts.per_accelerator(rows, charts.families(rows))
    assert chart is not None
    names = [tick.text for tick in chart.y_ticks]
    assert len(set(names)) == len(names) and any(name.startswith("RTX PRO 6000") for name in names)
    assert max(map(len, names)) * 6.2 <= chart.left - 14.0
