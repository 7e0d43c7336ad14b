"""The leaderboard as one HTML page that needs nothing else: style, script and data inline, no request to anywhere.

It is jinja2 with autoescape on, so that text from logs stays text; on top, the page's own Content-Security-Policy names the
hash of its one script and allows no other. Without its script the page still shows everything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.names import accelerator_family
from harness.results.fitness import OF_RUN
from harness.results.reporting import charts, text
from harness.results.reporting.charts import Chart, Style
from harness.results.reporting.leaderboard import Leaderboard, Row
from harness.results.reporting.published import rounds

GENERATOR = "harness report"
TITLE = "Time to train: leaderboard"
COLUMNS = 12
QUALITY = "Quality"  # where benchmarks have different words for it
HISTORY = (
    "history.html"  # beside the page, where `history` or `report` wrote it (harness/comparison/history/history_page.py)
)
TEMPLATES = Path(__file__).resolve().parent / "templates"
SORTS = (
    ("accelerators", "accelerators"),
    ("minutes", "time"),
    ("images_per_s", "images/s"),
    ("each", "images/s per accelerator"),
    ("epochs", "epochs"),
    ("quality", "quality"),
    ("global_batch", "global batch"),
    ("date", "date"),
    ("driver", "driver"),
    ("system", "system"),
)


def render(board: Leaderboard, folder: Path) -> str:
    """The page, for a place in `folder`: links to logs are relative to it."""
    rows = board.rows
    drawn = [row for row in rows if not row.demonstration]
    styles = charts.families(drawn)
    tasks = sorted({row.trains for row in rows})
    words = {row.metric for row in rows}
    logs = {run.log for row in rows for run in row.runs if run.log is not None}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            board=board,
            history=HISTORY if (folder / HISTORY).is_file() else "",
            generator=GENERATOR,
            title=TITLE,
            columns=COLUMNS,
            sorts=SORTS,
            tasks=tasks,
            rulesets=sorted({row.ruleset for row in rows}),
            submitters=sorted({row.submitter for row in rows}, key=str.casefold),
            measured=sum(row.origin == "measured" and not row.demonstration for row in rows),
            read=sum(row.origin == "read" for row in rows),
            others=[(count, what) for count, what in _others(rows) if count],
            sections=board.sections,
            old=_old(board),
            sizes=sorted(
                {row.size for row in rows if row.accelerators},
                key=lambda size: int(size.split()[-1]) + size.startswith("over"),
            ),
            obstacles=[each.obstacle.what for each in OF_RUN],
            metric=words.pop() if len(words) == 1 else QUALITY,
            styles=styles,
            shares=_shares(drawn),
            curves={row.id: charts.quality_over_time(row) for row in rows},
            charts={name: drawings for name in tasks if (drawings := _drawings(drawn, name, styles))},
            links={log: text.link(Path(log), folder) for log in logs},
            sources=rounds(),
            data=board.model_dump(mode="json"),
            css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            js=Markup(script),
            script_hash=_hash(script),
        )
    )


def _others(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """What a page has beside results that were measured here."""
    return [
        (sum(row.origin == "published" for row in rows), "published by MLCommons"),
        (sum(row.origin == "read" for row in rows), "read from logs of others"),
        (sum(row.demonstration for row in rows), "made with demonstration data"),
    ]


def _old(board: Leaderboard) -> set[str]:
    """Headings of the sections that begin folded: what was published, except for the newest round of what the page is about.

    What somebody brought here is never folded, others' logs neither.
    """
    published = [(heading, rows) for heading, rows in board.sections if all(row.origin == "published" for row in rows)]
    newest: dict[str, str] = {}
    for heading, rows in board.sections:
        if any(row.origin != "measured" for row in rows):
            newest.setdefault(rows[0].trains, heading)
    return {heading for heading, _ in published} - {newest[task] for task in board.tasks_of_interest if task in newest}


def _summary(row: Row) -> list[tuple[str, str]]:
    """All columns of a row, for a screen that has no room for them."""
    facts = (
        ("accelerators", text.accelerators(row)),
        ("global batch", text.whole(row.global_batch)),
        ("images/s", text.rate(row.images_per_s)),
        ("per accelerator", text.rate(row.images_per_s_per_accelerator)),
        ("epochs", text.extent(row.epochs, "whole")),
        (row.metric, text.extent(row.quality, "quality")),
        ("ruleset", row.ruleset),
        ("date", row.date or text.NONE),
        ("division", f"{row.division}{f', {row.status}' if row.status else ''}"),
        ("driver", row.driver or text.NONE),
        ("MLPerf's checker", row.mlperf or text.NONE),
        ("rank", f"{row.rank} of {row.rank_of}, {row.size} accelerators" if row.rank else "none"),
    )
    return [(key, value) for key, value in facts if value != text.NONE]


def _drawings(rows: Sequence[Row], task: str, styles: dict[str, Style]) -> list[Chart]:
    own = [row for row in rows if row.trains == task]
    drawings = (draw(own, styles) for draw in (charts.time_to_train, charts.scaling, charts.per_accelerator))
    return [drawing for drawing in drawings if drawing is not None]


def _shares(rows: Sequence[Row]) -> dict[str, float]:
    """Each row's images/s per accelerator in percent of the best of its task."""
    best: dict[str, float] = {}
    for row in rows:
        best[row.trains] = max(best.get(row.trains, 0.0), row.images_per_s_per_accelerator or 0.0)
    return {row.id: 100 * (row.images_per_s_per_accelerator or 0.0) / (best[row.trains] or 1.0) for row in rows}


def is_ours(page: str) -> bool:
    """Whether this command wrote `page`, which then may be replaced."""
    return f'<meta name="generator" content="{GENERATOR}">' in page[:1000]


def _hash(script: str) -> str:
    """As a Content-Security-Policy names a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _breakable(name: str) -> Markup:
    """Long names may break after - _ . and nowhere else."""
    return Markup("").join(
        Markup("{}<wbr>").format(part) if part in "-_." else part for part in re.split(r"([-_.])", name)
    )


def environment_of(templates: Path) -> Environment:
    """Jinja's for a folder of templates and those here: what is put in is escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count_of"] = lambda count, noun: f"{count:,} {noun}" + ("" if count == 1 else "s")
    return environment


def _environment() -> Environment:
    environment = environment_of(TEMPLATES)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters.update(
        breakable=_breakable,
        n=lambda value: f"{value:.1f}".removesuffix(".0"),
        minutes=text.minutes,
        rate=text.rate,
        quality=text.quality,
        whole=text.whole,
        extent=text.extent,
        spread=text.spread,
        accelerators=text.accelerators,
        summary=_summary,
        family=accelerator_family,
    )
    return environment
