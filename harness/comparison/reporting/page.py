"""A comparison as one HTML page that needs nothing else and runs no script: the environment's differences first."""

from __future__ import annotations

from pathlib import Path

from harness.comparison.comparison import Comparison
from harness.comparison.reporting import plots, words
from harness.comparison.reporting.terminal import arm_text
from harness.results.reporting.page import environment_of

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def render(found: Comparison) -> str:
    """The page of one comparison."""
    environment = environment_of(TEMPLATES)
    environment.filters.update(
        figure=words.figure, signed=words.signed, interval=words.interval, spaced=lambda name: name.replace("_", " ")
    )
    comparable = found.comparability
    return environment.get_template("comparison.html.jinja").render(
        found=found,
        sentence=words.sentence(found),
        arms=[arm_text([run for run in found.runs if run.arm == arm]) for arm in (0, 1)],
        differences=comparable.differences if comparable is not None else (),
        refusals=comparable.refusals if comparable is not None else (),
        minutes=[words.minutes(each) for each in found.minutes or ()],
        watched=[text.removeprefix("hardware: ") for text in words.watched(found)],
        quality=list(words.quality(found.quality, found.question.labels)),
        forest=plots.forest(found),
        time=plots.over_time(found),
        waterfall=plots.waterfall(found),
        width=plots.WIDTH,
        labels_width=plots.LABELS,
        room=plots.ROOM,
    )
