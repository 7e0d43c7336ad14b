"""A score as text: one sentence with the figure and its standing, and a table with a line for each run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.results import telemetry
from harness.results.score import Score, four_decimals, minutes_of, split
from harness.results.table import figure, one_line

COLUMNS = (
    *("run", "minutes", "", "epochs", "quality", "images/s", "per accelerator"),
    *("init s", "epochs s", "evaluation s", "rest s"),
)
FIGURES = (COLUMNS[1], *COLUMNS[3:])
TELEMETRY = ("run", "J an image", "W", "SM MHz", "hottest C", "GiB used", "held down, s", "trouble")


def headline(score: Score) -> str:
    """The result in two lines: the minutes and whether it is official; what it is of."""
    first = score.series.first
    minutes = "no score" if score.exact_minutes is None else f"{four_decimals(score.exact_minutes)} minutes"
    standing = "official" if score.official else "not official: " + "; ".join(score.unofficial)
    accelerators = f"{score.accelerators or '?'} accelerator{'s' * (score.accelerators != 1)}"
    target = "" if score.target is None else f", {score.metric} {score.target:g}"
    scaled = "" if score.factor == 1 else f", multiplied by MLPerf's {score.factor:.4f} as the runs converged too soon"
    guessed = " (by its keys)" if first.ruleset_is_guess and score.ruleset == first.ruleset else ""
    org, platform = ((each or "?")[:200] for each in (first.org, first.platform))
    lines = (
        f"{score.series.name}: {minutes}{scaled} ({standing})",
        f"  {org}, {platform}, {accelerators}, batch {first.global_batch_size or '?'}, "
        f"{first.benchmark or '?'} {score.ruleset or '?'}{guessed}{target}; {_rule(score)}",
    )
    return "\n".join(map(one_line, lines))


def rows(score: Score) -> Iterator[list[str]]:
    """A line of the table for each run."""
    for run in score.runs:
        record, parts = run.record, split(run.record)
        speed, count = score.speed(record), score.accelerators
        yield [
            Path(record.path).name,
            "-" if record.run_ms is None else str(minutes_of(record)),
            "; ".join(
                filter(None, (run.why or ("" if run.place == "counted" else f"{run.place}, dropped"), record.paused))
            ),
            "-" if record.epochs_run is None else f"{record.epochs_run:g}",
            figure(record.accuracy, 4),
            figure(speed),
            figure(speed / count if speed and count else None),
            figure(record.init_seconds, 1),
            figure(parts.epochs_s if parts else None, 1),
            figure(parts.evaluation_s if parts else None, 1),
            figure(parts.rest_s if parts else None, 1),
        ]
    for record in score.series.not_begun:
        rest = ["-"] * (len(COLUMNS) - 3)
        yield [Path(record.path).name, "-", f"no run: {record.reason}", *rest]


def telemetry_rows(score: Score) -> Iterator[list[str]]:
    """What the accelerators of each run drew and ran at; nothing where none was watched."""
    for run in score.runs:
        found = telemetry.beside(run.record)
        if found is None:
            continue
        held = ", ".join(f"{by.replace('_', ' ')} {seconds:.1f}" for by, seconds in found.held_s.items() if seconds > 0)
        yield [
            Path(run.record.path).name,
            figure(telemetry.joules_per_image(run.record, found), 3),
            figure(found.power_w),
            figure(found.clock_sm_mhz),
            figure(found.temperature_c),
            figure(None if found.memory_used_mib is None else found.memory_used_mib / 1024, 1),
            held or "-",
            found.problem or ", ".join([*found.slowed, *(f"XID {code}" for code in found.xid)]) or "-",
        ]


def _rule(score: Score) -> str:
    counted = sum(run.place == "counted" and run.converged for run in score.runs)
    if not score.runs:
        return "no run has begun"
    if score.exact_minutes is None:
        return f"{sum(not run.converged for run in score.runs)} of {len(score.runs)} runs did not converge"
    if counted == len(score.runs):
        return "the run's own time" if counted == 1 else f"the mean of {counted} runs"
    slowest = "one that did not converge" if any(not run.converged for run in score.runs) else "the slowest"
    return f"the mean of {counted} of {len(score.runs)} runs, the fastest and {slowest} dropped"
