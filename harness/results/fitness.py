"""What keeps a run or a series from being published or ranked: the one list that score, check, package and the page share.

A log that our checks call failed is not ranked either: `judge` takes their errors for obstacles like the others. MLPerf's own
tools, which take seconds for each log, are left to `check` and `package`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.results.by_rules import may_stand, shortfall
from harness.results.differences import differences
from harness.results.record import RunRecord
from harness.results.series import Series
from harness.rules import Rules


@dataclass(frozen=True)
class Obstacle:
    """One reason, in words that stand alone."""

    what: str
    fix: str
    key: str = ""  # of the log, where one says it
    publishable: bool = False  # it keeps from being ranked, not from being submitted


NAMED = 3  # errors of checks; how many more there are is said
NOT_BEGUN = "wait for its run_start, or take the file away where its process is gone: it is no run's and counts as none"


@dataclass(frozen=True)
class _OfRun:
    obstacle: Obstacle
    holds: Callable[[RunRecord], bool]


OF_RUN = (
    _OfRun(
        Obstacle("demonstration data", "run with the real data set: a demonstration is no benchmark", "demonstration"),
        lambda record: record.demonstration,
    ),
    _OfRun(
        Obstacle(
            "another task than the benchmark's",
            "the log's other_task says which: results of it are no submission, and compare with each other alone",
            "other_task",
        ),
        lambda record: bool(record.other_task),
    ),
    _OfRun(
        Obstacle(
            "images that were trained on are evaluated",
            "the configuration's [data] names the files: evaluate on images that no training saw",
            "eval_samples_trained_on",
        ),
        lambda record: record.eval_samples_trained_on > 0,
    ),
    _OfRun(
        Obstacle("a resumed run", "a result is one run without a break, on one clock: run again", "resumed_from_epoch"),
        lambda record: record.resumed_from_epoch is not None,
    ),
    _OfRun(
        Obstacle(
            "a run that --max-steps was to end",
            "a result is a run to the target or the last epoch: run without it",
            "max_steps",
        ),
        lambda record: record.max_steps is not None,
    ),
    _OfRun(
        Obstacle("a deterministic run", "its speed is not training's: run without --deterministic", "deterministic"),
        lambda record: record.value("deterministic") is True,
    ),
    _OfRun(
        Obstacle(
            "the source had uncommitted changes", "nobody can know what ran: commit, then run again", "tree_dirty"
        ),
        lambda record: record.tree_dirty is True and not record.of_no_commit,
    ),
    _OfRun(
        Obstacle(
            "the log names no commit",
            "nobody can know what ran, as of what pip installed and of copies without their repository: run in a clone, with "
            "git installed, or in an image that was built from one",
            "commit",
        ),
        lambda record: record.of_no_commit,
    ),
    _OfRun(
        Obstacle(
            "the clock was set during a run", "keep the machine's clock in step before a run, and run again", "run_stop"
        ),
        lambda record: bool(record.clock_was_set),
    ),
    _OfRun(
        Obstacle(
            "its stamps are of no date on which MLPerf had rules",
            "log milliseconds since 1970, by the clock",
            "run_start",
        ),
        lambda record: record.before_mlperf,
    ),
)


def of_run(record: RunRecord) -> Iterator[Obstacle]:
    """What the log itself says of how it was made."""
    return (each.obstacle for each in OF_RUN if each.holds(record))


def of_series(series: Series, rules: Rules) -> Iterator[Obstacle]:
    """What is wrong with the runs as one result, without looking closer at each log."""
    records, first = series.begun, series.first
    if rules.target is None:
        text = f"no rules known for benchmark {first.benchmark or 'unknown'} in ruleset {rules.ruleset or 'unknown'}"
        yield Obstacle(
            text,
            "name a ruleset that knows it, or let HARNESS_BENCHMARKS name the folder that has its folder",
            "submission_benchmark",
        )
    yield from _number(len(records), rules)
    for record in series.not_begun:
        yield Obstacle(f"{Path(record.path).name} has not begun", NOT_BEGUN, "run_start")
    failed = [record for record in records if shortfall(record, rules)]
    for record in failed:
        if not may_stand(record):
            what = f"{Path(record.path).name} is no run that ended by itself: {record.outcome}, {record.reason}"
            yield Obstacle(
                what, "the rules allow a run that did not converge, and no broken log: run again", "run_stop"
            )
    if len(failed) > 1:
        yield Obstacle(
            f"{len(failed)} runs did not converge; the rules allow one", "see why, and run again", "run_stop"
        )
    yield from dict.fromkeys(each for record in records for each in of_run(record))
    if first.division != "closed":
        text = f"division {first.division or 'unknown'}: reported beside the closed one, not ranked in it"
        yield Obstacle(text, "", "submission_division", publishable=True)
    for each in differences(records):
        if each.other_result:
            yield Obstacle(
                f"runs differ in {each.key}: {each.shown}",
                "a result is one configuration and code on one system",
                each.key,
            )
    if rules.ruleset and first.ruleset and rules.ruleset != first.ruleset and not first.ruleset_is_guess:
        text = f"run for ruleset {first.ruleset}, scored by {rules.ruleset}"
        yield Obstacle(text, "", publishable=True)


def of_findings(found: Iterable[tuple[str, str, str]]) -> Iterator[Obstacle]:
    """What checks call an error, each as (file, what, fix); the same in several files once, the first NAMED by name."""
    files: dict[tuple[str, str], list[str]] = {}
    for file, what, fix in found:
        files.setdefault((what, fix), []).append(file)
    for (what, fix), where in list(files.items())[:NAMED]:
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        yield Obstacle(f"{where[0]}{more}: {what}", fix)
    if len(files) > NAMED:
        yield Obstacle(f"{len(files) - NAMED} more errors that check finds", "see check")


def _number(count: int, rules: Rules) -> Iterator[Obstacle]:
    wanted = rules.runs
    if wanted is None or count == wanted:
        return
    fix = (
        f"run {wanted - count} more"
        if count < wanted
        else "choose consecutive ones by their order, not by their times, and put them into a folder of their own"
    )
    yield Obstacle(f"{count} run{'s' * (count != 1)}; the rules want {wanted}", fix)
