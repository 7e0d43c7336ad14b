"""The leaderboard's page in a real browser: Debian's Chromium, headless, the page opened from disk."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.history import history, history_page, points
from harness.comparison.reporting import page as comparison_page
from harness.results.reporting import report
from harness.results.reporting.text import NONE, TIMES
from tests.harness.comparison import arms
from tests.harness.comparison.test_words import PHASES
from tests.harness.results import synthetic_logs
from tests.harness.results.synthetic_logs import Made
from tests.harness.results.test_leaderboard import RETINANET, SSD
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.browser, pytest.mark.long]

ROWS = 6 + 68 + 233  # made here, published of SSD and of RetinaNet
FOLDED = 42 + 233  # all that was published but SSD's newest round
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = '<img src=x onerror="document.title=1">'
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}

# What stands between text and the page's background where contrast is reckoned by WCAG 2.2.
CONTRAST = """
() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("script, .unseen")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [channels(element.closest("svg") ? style.fill : style.color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className.baseVal ?? element.className}`);
  }
  return { seen, poor: [...new Set(poor)] };
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r requirements/dev.lock")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=1000 * PATIENCE_S)
        yield started
        started.close()


def new_page(browser: Any, **options: Any) -> Any:
    """In a context of its own, which is the caller's to close."""
    context = browser.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE_S)
    return context.new_page()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything: official, unofficial, open, demonstration, hostile, left out, and history."""
    folder = tmp_path_factory.mktemp("leaderboard")
    a100 = {"device": "NVIDIA A100-SXM4-40GB"}
    for made, runs in (
        (Made(system="ours", **a100, epoch_s=11.6, driver="580.105.08"), 5),
        (Made(system="ours-open", **a100, epoch_s=5.0, division="open"), 5),
        (Made(system="three", device="NVIDIA H200", accelerators=1, batch=456, epoch_s=33.0), 3),
        (Made(system="demo", device="", on_cpu=True, demonstration=True, accelerators=1, batch=16, division="open"), 1),
        (Made(system=f"bad {HOSTILE}", org=HOSTILE, driver=f"</script>{HOSTILE}"), 5),
        (
            Made(
                system="a_very_long_system_name_without_any_place_to_break_" + "x" * 60, org="W" * 150, device="Q" * 150
            ),
            5,
        ),
    ):
        synthetic_logs.series(folder / "results", made, runs)
    (folder / "results" / "none" / "ssd").mkdir(parents=True)
    (folder / "results" / "none" / "ssd" / "result_0.txt").write_text(HOSTILE)
    board = report.gather([folder / "results"], generated=datetime(2026, 1, 2, tzinfo=UTC))
    return report.write(board, folder / "page").as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page; in the end nothing may have been said on the console, nor anything asked of a network."""
    contexts, said, asked = [], [], []

    def open_page(where: str = address, **options: Any) -> Any:
        page = new_page(browser, **{"viewport": WIDE, **options})
        contexts.append(page.context)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(where)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def systems(page: Any) -> list[str]:
    """Of the rows that show, in their order."""
    return texts(page, "tr.row:visible .open")


def texts(page: Any, selector: str) -> list[str]:
    return [each.strip() for each in page.locator(selector).all_inner_texts()]


# --- it shows ----------------------------------------------------------------------------------------------------------


def test_it_loads_without_a_word_on_the_console(visit: Any) -> None:
    page = visit()
    assert page.title() == "Time to train: leaderboard"
    assert page.locator("#count").inner_text() == f"{ROWS} of {ROWS} results, {FOLDED} of them folded away"
    assert page.locator("figure.chart:visible").count() == 6
    page.wait_for_timeout(200)


def test_no_result_at_all_is_a_page_too(visit: Any, tmp_path: Path) -> None:
    board = report.gather([tmp_path], generated=datetime(2026, 1, 2, tzinfo=UTC), published=False)
    page = visit(report.write(board, tmp_path).as_uri())
    assert "No result measured here yet" in page.inner_text("header")
    assert "Nothing to compare yet" in page.inner_text("main")
    assert page.locator("table:visible, #controls:visible, figure:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == WIDE["width"]


def test_text_from_logs_is_never_markup(visit: Any) -> None:
    page = visit()
    assert page.locator("img").count() == 0
    assert f"bad {HOSTILE}" in systems(page)
    assert page.title() == "Time to train: leaderboard"


def test_a_script_that_got_in_would_not_run(visit: Any, browser: Any, address: str) -> None:
    page = new_page(browser)
    page.goto(address)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    page.wait_for_timeout(200)
    assert page.title() == "Time to train: leaderboard"
    page.context.close()


def test_without_its_script_every_row_stands_open(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("tr.row:visible").count() == ROWS
    assert page.locator("tr.more:visible").count() == ROWS
    assert page.locator("#controls:visible").count() == 0


def test_history_begins_folded_and_is_found(visit: Any, address: str) -> None:
    page = visit()
    assert texts(page, "tbody.group:visible .head .what") == [
        *(f"{SSD}: {what}" for what in ("measured here", "ruleset 1.1.0", "ruleset 1.0.0", "ruleset 0.7.0")),
        *(f"RetinaNet on OpenImages: ruleset {each}" for each in reversed(RETINANET)),
        "Demonstrations, comparable with nothing else",
    ]
    assert "dgx1_ngc20.06_pytorch" not in systems(page) and len(systems(page)) == ROWS - FOLDED
    page.click(f"[aria-label='show {SSD}: ruleset 0.7.0']")
    assert "dgx1_ngc20.06_pytorch" in systems(page)
    page.select_option("#by-ruleset", "1.0.0")  # a filter looks into what is folded
    assert len(systems(page)) == 22


def test_two_rows_side_by_side(visit: Any) -> None:
    page = visit()
    for row in ("us-ours", "us-three"):
        page.locator(f"#row-{row} .open").click()
        page.locator(f"[id='row-{row}--more'] input.beside").check()
    assert page.locator("#beside").is_visible()
    assert "H200" in page.locator("#beside").inner_text()
    assert "second / first" in page.locator("#beside").inner_text()
    page.click("#apart")
    assert not page.locator("#beside").is_visible()


def as_csv(page: Any) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click("#csv")
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_shown_as_csv(visit: Any) -> None:
    page = visit()
    page.select_option("#by-origin", "measured")
    lines = as_csv(page)
    assert len(lines) == 6 and list(lines[0])[:3] == ["rank", "rank_of", "size"]
    assert not any(line["rank"].startswith("=") for line in lines)


def test_what_is_folded_away_is_not_in_the_csv(visit: Any) -> None:
    """It had all 307 rows where the page showed 32; in the order that the page has."""
    page = visit()

    def shown() -> None:
        assert [line["system"] for line in as_csv(page)] == systems(page)

    shown()
    assert len(systems(page)) == ROWS - FOLDED
    page.click(f"[aria-label='show {SSD}: ruleset 0.7.0']")
    shown()
    page.click(f"[aria-label='hide {SSD}: measured here']")
    shown()
    page.select_option("#by-ruleset", "1.0.0")  # a filter looks into what is folded
    shown()
    page.select_option("#by-ruleset", "")
    page.select_option("#sort", "minutes")  # and so does what sorts or groups
    assert len(systems(page)) == ROWS
    shown()
    page.select_option("#group", "comparable")
    shown()
    page.select_option("#group", "")
    page.select_option("#sort", "")
    assert len(systems(page)) < ROWS
    shown()


def test_by_submitter(visit: Any) -> None:
    page = visit()
    page.select_option("#by-submitter", "Inspur")
    assert len(systems(page)) > 2
    assert {each.split(" ")[0] for each in texts(page, "tr.row:visible .system .sub")} == {"Inspur"}


def test_ranks_are_for_official_rows_of_a_group(visit: Any) -> None:
    page = visit()
    page.select_option("#group", "comparable")
    [group] = page.locator("tbody.group").filter(has=page.locator("#row-us-ours-open")).all()
    ranks = group.locator("tr.row .rank").all_inner_texts()
    names = [each.strip() for each in group.locator("tr.row .open").all_inner_texts()]
    assert names == ["ours", "dgxa100_ngc20.06_pytorch", "nf5488_pytorch", "ours-open"]
    assert ranks[3] == NONE
    assert [int(each) for each in ranks[:3]] == sorted(int(each) for each in ranks[:3]), "in the round and class"
    assert "division open" in group.locator("tr.row").nth(3).inner_text()


# --- it answers --------------------------------------------------------------------------------------------------------


def test_a_column_sorts_both_ways_and_says_so(visit: Any) -> None:
    page = visit()
    head = page.locator('th[data-sort="each"]')
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    official = "tr.row:not(.unofficial):visible .each .value"
    best = [float(each.replace(",", "")) for each in texts(page, official) if each != NONE]
    assert len(best) > 60 and best == sorted(best, reverse=True)
    assert "demo" in systems(page)[-1]  # whatever its figure
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.locator("th[aria-sort]").count() == 1
    page.select_option("#sort", "minutes")
    assert page.locator('th[data-sort="minutes"]').get_attribute("aria-sort") == "ascending"
    ranked = [each == NONE for each in texts(page, "tr.row:visible .rank")]
    assert ranked == sorted(ranked), "what is not ranked comes after what is"


def test_versions_sort_by_their_numbers(visit: Any) -> None:
    """As text 580.105.08 is before 580.95.05, and a system of 16 nodes before one of 2."""
    page = visit(viewport={"width": 1600, "height": 900})  # on a narrower one there is no such column
    for click, first, last in ((1, "580.105.08", "580.95.05"), (2, "580.95.05", "580.105.08")):
        page.click('th[data-sort="driver"] button')
        drivers = texts(page, "tr.row:not(.unofficial):visible .driver")
        assert drivers.index(first) < drivers.index(last), f"after {click} clicks"
    page.select_option("#sort", "system")
    names = [each for each in systems(page) if each.startswith("dgxa100_n") and each.endswith("_ngc20.06_mxnet")]
    counts = [int(found[1]) for each in names if (found := re.match(r"dgxa100_n(\d+)_", each))]
    assert len(counts) >= 3 and counts == sorted(counts)


def test_filters_narrow_rows_and_marks(visit: Any) -> None:
    page = visit()
    page.select_option("#by-origin", "measured")
    assert set(systems(page)) >= {"ours", "ours-open", "three", "demo"}
    assert page.locator("#count").inner_text() == f"6 of {ROWS} results"
    page.select_option("#by-origin", "official")
    assert "ours" in systems(page)
    assert "ours-open" not in systems(page)
    page.select_option("#by-origin", "")
    page.select_option("#by-family", "A100")
    page.select_option("#by-ruleset", "0.7.0")
    page.fill("#find", "nvidia 450.36")  # a submitter, and a driver that only the opened row shows
    assert set(systems(page)) == {
        "dgxa100_ngc20.06_pytorch",
        "dgxa100_n2_ngc20.06_pytorch",
        "dgxa100_n8_ngc20.06_mxnet",
        "dgxa100_n64_ngc20.06_mxnet",
        "dgxa100_n128_ngc20.06_mxnet",
    }
    assert page.locator("figure .mark:not(.away)").count() == 12  # four of the five have figures, in three charts
    page.fill("#find", "nothing like this")
    assert systems(page) == []
    page.click("#clear")
    assert page.locator("#count").inner_text().startswith(f"{ROWS} of {ROWS}")


def test_a_row_opens_to_its_runs_and_their_logs(visit: Any, address: str) -> None:
    page = visit()
    button = page.locator("#row-us-ours .open")
    assert button.get_attribute("aria-expanded") == "false"
    more = page.locator(f"[id='{button.get_attribute('aria-controls')}']")
    assert not more.is_visible()
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert more.is_visible()
    assert more.locator(".curve").count() == 5
    assert texts(page, "#row-us-ours--more h4") == ["System", "Software", "Configuration", "Hashes (SHA-256)"]
    link = more.locator(".runs a").first
    page.goto(link.evaluate("a => a.href"))
    assert page.content().count(":::MLLOG") > 100


def test_an_address_with_a_row_opens_it(visit: Any, address: str) -> None:
    page = visit(f"{address}#v0-7-nvidia-dgx1-ngc20-06-pytorch")
    assert page.locator("[id='row-v0-7-nvidia-dgx1-ngc20-06-pytorch--more']").is_visible()


def test_a_mark_in_a_chart_tells_and_opens_its_row(visit: Any) -> None:
    page = visit()
    mark = page.locator('figure .mark[data-row="us-three"]').first
    mark.hover()
    assert "three" in page.locator("#tip").inner_text()
    mark.click()
    assert page.locator("#row-us-three--more").is_visible()


def test_the_theme_follows_the_system_until_it_is_chosen(visit: Any) -> None:
    page = visit(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.click("#theme")
    light = page.evaluate(paper)
    assert (page.locator("#theme").inner_text(), light != dark) == ("Theme: light", True)
    page.reload()
    assert page.evaluate(paper) == light
    page.click("#theme")
    assert page.evaluate(paper) == dark


def test_the_data_can_be_taken_along(visit: Any) -> None:
    page = visit()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "leaderboard.json"
    assert '"system": "ours"' in Path(download.value.path()).read_text(encoding="utf-8")


# --- for everyone, everywhere --------------------------------------------------------------------------------------------


def test_nothing_is_wider_than_the_screen(visit: Any) -> None:
    page = visit(viewport=PHONE)
    for button in page.locator("tr.row .open").all()[:12]:
        button.click()
    assert page.locator("tr.more:visible").count() == 12
    for width in (360, 480, 600, 735, 740, 800, 955, 965, 1024, 1280):
        page.set_viewport_size({"width": width, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("tr.row:visible .system").first.bounding_box()["width"] > 130


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_against_its_background(visit: Any, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.click(f"[aria-label='show {SSD}: ruleset 0.7.0']")
    for row in ("us-ours", "us-ours-open", "v0-7-nvidia-dgx1-ngc20-06-pytorch"):
        page.locator(f"#row-{row} .open").click()
    found = page.evaluate(CONTRAST)
    assert found["seen"] > 1000
    assert found["poor"] == []


def test_every_control_has_a_name_and_the_table_its_headings(visit: Any) -> None:
    page = visit()
    names = page.eval_on_selector_all(
        "input, select, button, a",
        "all => all.filter((e) => e.checkVisibility()).map((e) => "
        "(e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim())",
    )
    assert len(names) > 80
    assert all(names)
    ids = page.eval_on_selector_all("[id]", "all => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("#board > thead th[scope=col]").count() == 12
    assert page.locator("tr.row > th[scope=row]").count() == ROWS
    assert page.locator("#board > caption").count() == 1


def test_who_wants_no_motion_gets_none(visit: Any) -> None:
    page = visit(reduced_motion="reduce")
    moving = page.eval_on_selector_all(
        "*", "all => all.filter((e) => !/^0s(, 0s)*$/.test(getComputedStyle(e).transitionDuration)).length"
    )
    assert moving == 0


def test_a_comparison_prints_on_white(browser: Any, tmp_path: Path) -> None:
    """In a dark browser its letters were as light as the paper."""
    page_file = tmp_path / "page.html"
    page_file.write_text(comparison_page.render(arms.judged(arms.in_turns(tmp_path, 2, slower=1.1))), encoding="utf-8")
    page = new_page(browser, color_scheme="dark")
    page.goto(page_file.as_uri())
    paper, ink = (f"getComputedStyle(document.body).{each}" for each in ("backgroundColor", "color"))
    assert page.evaluate(paper) != "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", page.evaluate(ink)))) < 60
    page.context.close()


@pytest.mark.parametrize("width", [360, 680])
def test_a_comparison_s_tables_have_no_column_of_single_letters(browser: Any, tmp_path: Path, width: int) -> None:
    """How a figure was judged stood in 27 px, a letter a line, and rows were higher than the screen."""
    phases: dict[str, Any] = {"phases": PHASES}
    found = arms.judged(arms.in_turns(tmp_path, slower=1.1, a=phases, b={**phases, "software": arms.NEW}))
    page_file = tmp_path / "page.html"
    page_file.write_text(comparison_page.render(found), encoding="utf-8")
    page = new_page(browser, viewport={"width": width, "height": 900})
    page.goto(page_file.as_uri())
    heights = page.eval_on_selector_all("tbody tr", "all => all.map((e) => e.getBoundingClientRect().height)")
    assert len(heights) > 20 and max(heights) < 200
    assert page.evaluate("document.documentElement.scrollWidth") == width, "tables scroll, the page does not"
    page.context.close()


def test_a_history_is_no_wider_than_a_phone_whatever_its_runs_are_called(browser: Any, tmp_path: Path) -> None:
    long = {"driver": "9" * 300, "libcuda_version": "", "driver_mode": "NATIVE"}
    arms.write(tmp_path / "x", 0, software=long, made=arms.made(system="W" * 300), gpu={"uuid": "U" * 300})
    history_page.write(history.history(*points.gather([tmp_path])), tmp_path)
    page = new_page(browser, viewport=PHONE)
    page.goto((tmp_path / history_page.PAGE).as_uri())
    assert page.locator("pre").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.context.close()


def test_it_prints(visit: Any, tmp_path: Path) -> None:
    page = visit(color_scheme="dark", viewport={"width": 690, "height": 980})  # of A4
    page.locator("#row-us-ours .open").click()
    page.emulate_media(media="print", color_scheme="dark")
    assert "division open" in page.locator("#row-us-ours-open").inner_text(), (
        "why it has no rank, which no button can tell"
    )
    assert f"8 {TIMES} A100" in page.locator("#row-us-ours").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 690
    assert page.locator("#controls").is_visible() is False
    assert page.locator("#row-us-ours--more").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Type /Page\n") >= 5
