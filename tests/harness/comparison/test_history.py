"""The verb history: changes found and explained, none invented, drivers against systems."""

from __future__ import annotations

import html
import json
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.comparison.history import history as histories
from harness.comparison.history import history_page, history_text, points
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD
from tests.harness.comparison.test_words import PHASES, stalling


def write(
    folder: Path, count: int, *, change_at: int = 10**9, slower: float = 1.012, seed: int = 0, uuid: str = "GPU-1"
) -> None:
    """A run a day; from `change_at` on with the other driver, and `slower` times as slow."""
    noise = np.random.default_rng(seed).normal(0, 0.001, count)
    for number in range(count):
        new = number >= change_at
        factor = (slower if new else 1.0) * (1 + float(noise[number]))
        arms.write(folder, number, factor=factor, turn=number * 144, software=NEW if new else OLD, gpu={"uuid": uuid})


def read(*folders: Path, system: str = "") -> histories.History:
    return histories.history(*points.gather(folders), system=system)


def test_a_change_is_found_where_it_was_and_explained(tmp_path: Path) -> None:
    write(tmp_path / "x", 16, change_at=9)
    (series,) = read(tmp_path).series
    (change,) = series.changes

    assert change.index == 9 and change.word == "SLOWER"
    assert change.percent == pytest.approx(1.2, abs=0.2)
    assert change.reasons == ("driver 580.65.06 -> 590.44.01",)


@pytest.mark.parametrize("slower, told", [(2.0, r"SLOWER by 100 % \(\+\d"), (1.012, r"SLOWER by 1\.\d+ % \(\+[01]\.?")])
def test_a_change_is_no_power_of_ten(tmp_path: Path, slower: float, told: str) -> None:
    """Twice as slow was "SLOWER by 1e+02 % (+1e+02 to +1e+02)"."""
    write(tmp_path / "x", 16, change_at=9, slower=slower)
    text = "\n".join(history_text.lines(read(tmp_path)))
    assert re.search(told, text) and "e+" not in text
    low, high = re.search(r"\((\+[\d.,]+) to (\+[\d.,]+)\)", text).groups()  # type: ignore[union-attr]
    assert low != high


def test_a_driver_that_stalls_now_and_then_is_seen(tmp_path: Path) -> None:
    """Two epochs of six are 16 % of the mean longer, and the median is as it was."""
    for number in range(18):
        new = 6 <= number < 12
        more: dict[str, Any] = {"change": stalling} if new else {}
        driver = NEW if new else OLD
        factor = arms.NOISE[number % 10]
        arms.write(tmp_path, number, factor=factor, turn=number * 144, software=driver, phases=PHASES, **more)
    found = read(tmp_path)
    (series,) = found.series
    told = [(change.index, change.word, change.metric) for change in series.changes]
    assert told == [(6, "SLOWER", "mean_epoch_seconds"), (12, "FASTER", "mean_epoch_seconds")]
    assert series.changes[0].percent == pytest.approx(16, abs=1)
    ((_, (_, cell)),) = found.matrix
    assert cell is not None and (cell.word, cell.metric) == ("SLOWER", "mean_epoch_seconds")
    lines = "\n".join(history_text.lines(found))
    assert "SLOWER by 16 % in the mean epoch, not the median" in lines
    assert re.search(r"-1\d\.\d% s\*$", lines, re.MULTILINE)
    assert max(map(len, lines.splitlines())) <= history_text.WIDTH
    page = history_page.render(found)
    assert page.count('class="dot of-mean driver-1"') == 6 and "6.96" in page  # of the new driver's runs


def test_series_of_other_work_have_names_of_their_own(tmp_path: Path) -> None:
    """Runs of some steps, deterministic ones and those of a changed configuration were three series of one name."""

    def deterministic(events: list[dict[str, Any]]) -> None:
        events.insert(5, {**events[0], "key": "deterministic", "value": True})

    changes: list[Any] = [None, arms.put("configuration_sha256", "ab" * 32), deterministic]
    for number, change in enumerate(changes):
        arms.write(tmp_path, number, turn=number, change=change)
    found = read(tmp_path)
    titles = [each.title for each in found.series]
    assert len(set(titles)) == 3 and "(abababab)" in titles[1] and "(deterministic, " in titles[2]
    text, page = "\n".join(history_text.lines(found)), history_page.render(found)
    assert all(title in text and title in page for title in titles)
    (alone,) = read(arms.write(tmp_path / "alone", 0).parent).series
    assert alone.title == alone.configuration


def test_runs_of_one_epoch_are_a_series_of_their_own(tmp_path: Path) -> None:
    """Their time is the first epoch's, which of all others is left out: among those they were a change or noise."""
    one = arms.made(epochs=1, qualities=((1, 0.2325),))
    for number in range(8):
        more: dict[str, Any] = {"made": one, "factor": 1.5} if number >= 4 else {}
        arms.write(tmp_path, number, turn=number * 144, **more)
    found = read(tmp_path)
    assert [(each.work, len(each.points), each.changes) for each in found.series] == [
        ("", 4, ()),
        ("first epoch", 4, ()),
    ]
    assert "(first epoch)" in "\n".join(history_text.lines(found))
    (alone,) = read(arms.write(tmp_path / "alone", 0, made=one).parent).series
    assert alone.work == ""


def test_a_quiet_series_has_no_changes(tmp_path: Path) -> None:
    for seed in range(6):
        write(tmp_path / str(seed), 14, seed=seed, uuid=f"GPU-{seed}")
    found = read(tmp_path)
    assert len(found.series) == 6
    assert [series.changes for series in found.series] == [()] * 6


POINT = points.Point("", "", 0.0, "", "", "", "", "", "", "", "", "", 1.0, 1.0, None, None, True, False)


def made(medians: Iterable[float], means: Iterable[float]) -> list[points.Point]:
    """Runs by the logarithms of their epochs."""
    return [
        replace(POINT, seconds_per_epoch=math.exp(median), mean_epoch_seconds=math.exp(mean))
        for median, mean in zip(medians, means, strict=True)
    ]


def of_boots(shifts: Iterable[float], generator: np.random.Generator) -> list[points.Point]:
    """Five runs in each boot, whose speed is `shifts` apart; the second half with another driver."""
    shift = np.repeat(list(shifts), 5)
    values = shift + generator.normal(0, 0.0005, len(shift))
    return [
        replace(point, boot=f"boot {number // 5}", driver="old" if number < len(shift) / 2 else "new")
        for number, point in enumerate(made(values, values))
    ]


def test_what_a_reboot_alone_shifts_is_not_laid_to_a_driver() -> None:
    """0.3 % from boot to boot: of eight boots, two series in three had a change, and one in five named the driver."""
    generator = np.random.default_rng(3)
    series = [of_boots(generator.normal(0, 0.003, 8), generator) for _ in range(60)]
    changes = [change for each in series for change in histories._changes(each, 0.005)]
    known = [change for change in changes if "a reboot, which alone may be why" not in change.reasons]
    assert len(known) <= 6 and len(changes) > 10, "of the others it is said"

    (change,) = histories._changes(of_boots([0.0, 0.004], generator), 0.002)
    assert change.reasons == ("driver old -> new", "a reboot, which alone may be why")
    slower = [0.001, -0.001, 0.0, 0.001, 0.02, 0.021, 0.019, 0.02]
    (change,) = histories._changes(of_boots(slower, generator), 0.005)
    assert change.index == 20 and change.reasons == ("driver old -> new", "a reboot")


def test_a_rate_s_per_cent_is_the_rate_s() -> None:
    """Of twice the seconds it said 100 % less beside half of the images/s."""
    cell = histories.Cell(3, 500.0, 2.0, "old", 100.0, "SLOWER")
    assert history_text.cell_text(cell) == "500 -50.0% s"
    assert history_text.cell_text(replace(cell, percent=-50.0, images_per_s=2000.0, word="FASTER")) == "2,000 +100.0% f"
    assert history_text.cell_text(replace(cell, images_per_s=None)) == "2 s +100.0% s"


def test_noise_alone_makes_no_history() -> None:
    """A spread of 0.5 %, as large as what counts as a change: the worst case."""
    generator = np.random.default_rng(1)
    series = [generator.normal(0, 0.005, (2, 30)) for _ in range(300)]
    assert sum(bool(histories._break_points(medians)) for medians, _ in series) <= 12
    found = [list(histories._changes(made(medians, medians + own), 0.005)) for medians, own in series]
    assert sum(map(bool, found)) <= 3


def test_stalls_by_chance_make_no_history() -> None:
    """In two runs of five, of 5 % on average: one in thirty such series had a change."""
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        medians = generator.normal(0, 0.001, 30)
        stalls = generator.exponential(0.05, 30) * (generator.random(30) < 0.4)
        alarms += bool(list(histories._changes(made(medians, medians + stalls), 0.005)))
    assert alarms <= 4


def test_of_a_median_that_cannot_be_told_nobody_says_that_it_is_equal() -> None:
    generator = np.random.default_rng(0)
    slower = 0.012 * np.repeat([0, 1], 12)
    medians, means = slower + generator.normal(0, 0.012, 24), slower + generator.normal(0, 0.001, 24)
    (change,) = histories._changes(made(medians, means), 0.005)
    assert (change.metric, change.median) == ("mean_epoch_seconds", "CANNOT TELL")
    assert history_text.change_text(change).endswith("in the mean epoch, perhaps the median")


def test_a_trend_is_told_apart_from_a_change(tmp_path: Path) -> None:
    for number in range(12):
        arms.write(tmp_path / "x", number, factor=1 + 0.0004 * number, turn=number * 144)
    (series,) = read(tmp_path).series
    assert series.percent_a_month == pytest.approx(1.2, rel=0.15)


def test_runs_of_one_hour_have_no_trend_by_the_month(tmp_path: Path) -> None:
    """Five runs, a minute apart and each a little slower, and five a week later were 10^15 % a month, or beyond a float."""

    def after(minutes: int) -> Any:
        return lambda events: [event.update(time_ms=event["time_ms"] + minutes * 60_000) for event in events]

    for number in range(10):
        week, run = divmod(number, 5)
        arms.write(tmp_path, number, factor=(1, 3)[week] * (1 + 0.05 * run), change=after(week * 11_520 + run))
    (series,) = read(tmp_path).series
    assert [change.index for change in series.changes] == [5]
    assert series.percent_a_month is None


def test_drivers_against_systems(tmp_path: Path) -> None:
    """Old, new, old: with one stretch of each, what a reboot shifted would be the driver's."""
    write(tmp_path / "x", 12, change_at=6, slower=1.1)
    write(tmp_path / "y", 5, uuid="GPU-2")
    once = read(tmp_path)
    assert once.drivers == ("580.65.06", "590.44.01")
    cells = {series.host: cells for series, cells in once.matrix}
    assert cells["GPU-1"][1] is not None and cells["GPU-1"][1].word == "CANNOT TELL"
    assert cells["GPU-2"][1] is None

    for number in range(12, 18):
        arms.write(tmp_path / "x", number, turn=number * 144, factor=arms.NOISE[number % 10], gpu={"uuid": "GPU-1"})
    first, second = {series.host: cells for series, cells in read(tmp_path).matrix}["GPU-1"]
    assert first is not None and second is not None
    assert (first.word, second.word, second.against) == (None, "SLOWER", "580.65.06")


def test_a_commit_that_came_with_the_driver_is_not_the_driver(tmp_path: Path) -> None:
    for number in range(12):
        new = number >= 6
        change = arms.put("commit", ("b" if new else "a") * 40)
        arms.write(
            tmp_path,
            number,
            turn=number * 144,
            factor=1.08 if new else 1.0,
            software=NEW if new else OLD,
            change=change,
        )
    found = read(tmp_path)
    ((_, (_, cell)),) = found.matrix
    assert cell is not None and (cell.percent, cell.word, cell.beside) == (None, None, "commit")
    assert "(commit)" in history_text.cell_text(cell)
    said = "(commit): no commit ran with both"
    assert said in history_page.render(found), "of this mark the page said nothing"
    assert said in " ".join(history_text.lines(found))


def test_drivers_seen_to_work_are_proposed(tmp_path: Path) -> None:
    write(tmp_path / "x", 4, change_at=2)
    found = read(tmp_path)
    assert [entry["driver"] for entry in found.tested] == ["580.65.06", "590.44.01"]
    text = "\n".join(history_text.lines(found))
    assert '[[tested]]\ndriver = "590.44.01"\ngpu = "NVIDIA H100 80GB HBM3"\ndate = 2026-' in text


def test_what_a_log_says_is_neither_a_line_nor_a_code_of_its_own(tmp_path: Path) -> None:
    """A driver's and a GPU's names went to the terminal as they were, and into the lines for drivers.toml as lines."""
    bad = 'X\x1b[31m"\n[[cuda]]'

    def change(events: list[dict[str, Any]]) -> None:
        arms.put("submission_platform", bad)(events)
        arms.put("hardware", {"accelerators": [bad] * 8})(events)

    for number in range(4):
        arms.write(tmp_path, number, turn=number * 144, change=change, software={**OLD, "driver": bad})
    found = read(tmp_path)
    lines = list(history_text.lines(found))
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("[[cuda]]") for line in lines)
    start = lines.index("[[tested]]")
    [entry] = tomllib.loads("\n".join(lines[start : start + 4]))["tested"]
    assert (entry["driver"], entry["gpu"]) == (bad, bad)
    shown = html.unescape(history_page.render(found).split("<pre>")[1].split("</pre>")[0])
    assert shown.split("\n")[:4] == lines[start : start + 4]


def test_one_system_of_many(tmp_path: Path) -> None:
    write(tmp_path / "x", 3)
    write(tmp_path / "y", 3, uuid="GPU-2")
    assert len(read(tmp_path, system="gpu-2").series) == 1
    with pytest.raises(ValueError, match="no run of a system B200"):
        read(tmp_path, system="B200")


def test_logs_that_are_no_runs_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "x", 3)
    log = tmp_path / "x/result_1.txt"
    log.write_text(log.read_text()[:4000])
    found = read(tmp_path)
    assert len(found.series[0].points) == 2
    assert found.left_out[0].log == str(log)
    assert "left out: 1 log of no whole run; " in "\n".join(history_text.lines(found))


def test_the_page_says_what_is_left_out_of_it(tmp_path: Path) -> None:
    """Of fifty logs it drew three, and not a word of the others; whatever they are called, their names are text."""
    write(tmp_path / "x", 3)
    for name in ("x", "y<b>"):
        log = arms.write(tmp_path / name, 7)
        log.write_text(log.read_text()[:4000])
    found = read(tmp_path)
    _, told = history_page.render(found).split("Left out</h2>")
    assert len(found.left_out) == 2 and "2 logs could not be taken as a whole run." in told
    for each in found.left_out:
        assert html.escape(each.log) in told and html.escape(each.reason) in told
    assert "Left out" not in history_page.render(replace(found, left_out=()))


def test_what_was_read_once_is_kept_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, cache = tmp_path / "results", tmp_path / "cache"
    write(results, 3)
    there = set(results.iterdir())
    first = points.gather([results], cache)
    reads: list[Path] = []
    monkeypatch.setattr(points, "_read", reads.append)
    assert points.gather([results], cache) == first and not reads
    monkeypatch.undo()
    arms.write(results, 1, factor=1.5, turn=144)
    assert points.gather([results], cache) != first
    (kept,) = cache.iterdir()
    kept.write_text("not JSON")
    assert len(points.gather([results], cache)[0]) == 3
    assert set(results.iterdir()) == there, "nothing is written into the results"


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    write(tmp_path / "x", 14, change_at=7)
    assert main(["history", "--from", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "SLOWER by 1.1 %" in out and "driver 580.65.06 -> 590.44.01" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["history", "--from", str(tmp_path), "--json", "--html", str(tmp_path / "page")]) == 0
    assert json.loads(capsys.readouterr().out)["series"][0]["changes"][0]["word"] == "SLOWER"
    page = (tmp_path / "page" / history_page.PAGE).read_text()
    assert "<script" not in page and 'class="change slower"' in page
    assert main(["history", "--from", str(tmp_path / "nowhere")]) == 2


def test_the_leaderboard_s_page_has_it_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    write(tmp_path / "results/x/ssd", 3)
    assert main(["report", str(tmp_path / "results"), "--html", str(tmp_path / "page")]) == 0
    assert '<a href="history.html">' in (tmp_path / "page/index.html").read_text()
    assert "Seconds an epoch of ssd" in (tmp_path / "page" / history_page.PAGE).read_text()


def test_the_history_beside_a_page_is_of_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of other results, or of none, linked to what an earlier report had left there."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    write(tmp_path / "results/x/ssd", 3)
    (tmp_path / "nothing").mkdir()
    page = tmp_path / "page" / history_page.PAGE
    for source, told in (("results", True), ("nothing", False)):
        assert main(["report", str(tmp_path / source), "--html", str(page.parent)]) == 0
        assert ("Seconds an epoch of ssd" in page.read_text()) == told


def test_where_no_page_may_be_written_no_history_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    write(tmp_path / "results/x/ssd", 3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")
    assert main(["report", str(tmp_path / "results"), "--html", str(tmp_path / "site")]) == 2
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]


def test_each_driver_has_a_colour_of_its_own_and_a_legend_says_which(tmp_path: Path) -> None:
    """The fifth looked like the first, and so did a run that named none."""
    for number in range(11):
        software = {"driver": f"5{number}0.1", "libcuda_version": f"5{number}0.1", "driver_mode": "NATIVE"}
        arms.write(
            tmp_path,
            number,
            turn=number * 144,
            software=software if number < 10 else {"driver": "", "libcuda_version": ""},
        )
    found = read(tmp_path)
    (drawing,) = (history_page._draw(each, found.drivers) for each in found.series)
    assert len({dot.driver for dot in drawing.dots}) == 11
    legend = dict(drawing.legend)
    assert [legend[dot.driver] for dot in drawing.dots[:3]] == ["driver 500.1", "driver 510.1", "driver 520.1"]
    assert legend[drawing.dots[10].driver] == "no driver in the log"
    page = history_page.render(found)
    styles = (history_page.TEMPLATES / "comparison.css").read_text()
    assert all(f".{look.split()[0]} {{" in styles for look in legend) and all(text in page for text in legend.values())


def test_another_s_page_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "results", 3)
    (tmp_path / "history.html").write_text("my own")
    assert main(["history", "--from", str(tmp_path / "results"), "--html", str(tmp_path)]) == 2
    assert (tmp_path / "history.html").read_text() == "my own"


def test_real_logs(test_data: Path) -> None:
    found = read(test_data / "mlperf-results")
    assert len(found.series) == 5
    changed = [(series.system, change.word) for series in found.series for change in series.changes]
    assert changed == [("1xNVIDIA DGX A100", "FASTER")], "from round 0.7 to 1.1"
    assert "is told by both" in "\n".join(history_text.lines(found))


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"torch": "2.9.0"}, {"torch": "2.9.1"}, "torch 2.9.0 -> 2.9.1"),
        (
            {"driver_flavour": "open"},
            {"driver_flavour": "proprietary"},
            "driver 580.65.06 open -> 580.65.06 proprietary",
        ),
        ({}, {}, "neither driver, commit nor libraries changed"),
        ({"driver": "", "libcuda_version": ""}, {}, "driver not told -> 580.65.06"),
    ],
)
def test_what_changed_with_the_speed_is_named(
    tmp_path: Path, then: dict[str, str], now: dict[str, str], said: str
) -> None:
    """Of another torch, or the other kernel module of one version, it said that nothing that the logs tell had changed."""
    noise = np.random.default_rng(0).normal(0, 0.001, 16)
    for number in range(16):
        new = number >= 9
        factor = (1.012 if new else 1.0) * (1 + float(noise[number]))
        software = {**OLD, **(now if new else then)}
        arms.write(tmp_path, number, factor=factor, turn=number * 144, software=software)
    found = read(tmp_path)
    (series,) = found.series
    assert len(series.changes) == 1 and said in "\n".join(history_text.lines(found))
    assert len(found.drivers) == 1 + ("driver_flavour" in now)


TELLING: dict[str, Any] = {"environment": {}, "hardware": {"boot_id": "0a1b"}}


@pytest.mark.parametrize(
    ("silent", "told_before", "told_after", "said"),
    [
        ((), TELLING, TELLING, "neither driver, commit, libraries, variables nor boot changed"),
        ((), TELLING, {}, "neither driver, commit nor libraries changed"),
        (("software",), TELLING, TELLING, "neither commit, variables nor boot changed"),
        (("software", "commit"), TELLING, {"environment": {}}, "the variables did not change"),
        (("software", "commit"), {}, {}, "no driver, commit, libraries, variables or boot is told by both"),
        (("software", "commit"), {}, TELLING, "no driver, commit, libraries, variables or boot is told by both"),
    ],
)
def test_nothing_is_unchanged_that_the_logs_do_not_tell(
    tmp_path: Path, silent: tuple[str, ...], told_before: dict[str, Any], told_after: dict[str, Any], said: str
) -> None:
    """Of two published logs, which name neither driver nor commit nor libraries, it said that none of them had changed."""
    noise = np.random.default_rng(0).normal(0, 0.001, 16)
    for number in range(16):
        new = number >= 9

        def change(events: list[dict[str, Any]], told: dict[str, Any] = told_after if new else told_before) -> None:
            events[:] = [each for each in events if each["key"] not in silent]
            for key, value in told.items():
                if key not in {each["key"] for each in events}:
                    events.insert(5, {**events[0], "key": key, "value": {}})
                arms.put(key, value)(events)

        factor = (1.012 if new else 1.0) * (1 + float(noise[number]))
        arms.write(tmp_path, number, factor=factor, turn=number * 144, change=change)
    found = read(tmp_path)
    (change_found,) = found.series[0].changes
    assert change_found.why == said
    lines = list(history_text.lines(found))
    assert f"{'':14}{said}" in lines and max(map(len, lines)) <= history_text.WIDTH
    assert f"; {said}</li>" in history_page.render(found)
