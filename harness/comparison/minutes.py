"""Where the time to train of each arm went, which is shown and never gated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.comparison import runs as compared
from harness.comparison.runs import ComparedRun
from harness.results import score
from harness.results.by_rules import shortfall
from harness.results.record import RunRecord
from harness.rules import rules_for


@dataclass(frozen=True)
class Minutes:
    """Time to train of one arm: epochs x seconds an epoch + evaluation + rest; means in which hosts weigh alike.

    None where one of its runs does not tell. `reached` and `runs` are counts of all its runs.
    """

    epochs: float | None
    seconds_per_epoch: float | None
    evaluation_s: float | None
    rest_s: float | None
    minutes: float | None
    reached: int  # runs that met their target
    runs: int


def of_arms(runs: Sequence[ComparedRun]) -> tuple[Minutes, Minutes]:
    whole = [run for run in runs if run.record.max_steps is None and run.record.run_ms and run.record.epochs_run]
    # evaluations that run beside training take nothing of its time
    parts = {id(run): score.split(run.record) for run in whole}

    def means(value: Callable[[ComparedRun], float | None], of: Sequence[ComparedRun] = whole) -> list[float | None]:
        silent = {run.arm for run in of if value(run) is None}
        return [None if arm in silent else mean for arm, mean in enumerate(compared.of_arms(of, value))]

    def part(name: str) -> list[float | None]:
        return means(lambda run: getattr(parts[id(run)], name, None))

    epochs, trained = means(lambda run: _epochs_timed(run.record)), part("epochs_s")
    timed = means(lambda run: run.timed.epoch_seconds, runs)
    evaluation, rest = part("evaluation_s"), part("rest_s")
    total = means(lambda run: (run.record.run_ms or 0.0) / 60_000)

    def of_arm(arm: int) -> Minutes:
        its = [run.record for run in runs if run.arm == arm]
        count, seconds = epochs[arm], trained[arm]
        return Minutes(
            count,
            seconds / count if seconds is not None and count else timed[arm],
            evaluation[arm],
            rest[arm],
            total[arm],
            sum(not shortfall(each, rules_for(each.benchmark, each.ruleset)) for each in its),
            len(its),
        )

    return of_arm(0), of_arm(1)


def _epochs_timed(record: RunRecord) -> float:
    """Epochs of which the log says how long they took: what the last evaluation is called may be another number."""
    if record.epochs:
        return float(sum(each.seconds is not None for each in record.epochs))
    return float(sum(each.epoch_count or 0 for each in record.blocks if each.seconds is not None))
