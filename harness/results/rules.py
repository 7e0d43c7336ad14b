"""The rules of a benchmark and ruleset, from rules.toml. A benchmark that is not in it has no rules here, only the log."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.results.record import RunRecord

RULESETS = ("0.6.0", "0.7.0", "1.0.0", "1.1.0")  # that mlperf-logging can check and that know the log formats read here
STATUSES = ("cloud", "onprem", "preview", "research")
DIVISIONS = ("closed", "open")
_FILE = Path(__file__).with_name("rules.toml")


@dataclass(frozen=True)
class Rules:
    """What holds for one benchmark in one ruleset; None and empty where the rules say nothing that is known here."""

    benchmark: str
    ruleset: str
    metric: str
    runs: int | None  # a result needs exactly so many
    target: float | None  # of the closed division
    train_samples: int | None = None
    train_samples_tolerated: tuple[int, ...] = ()
    eval_samples: tuple[int, ...] = ()
    decay_key: str | None = None
    decay_reference: tuple[float, ...] = ()
    evaluation_epochs: tuple[int, ...] = ()
    evaluation_every: int | None = None
    tolerated_late: int = 0
    tolerated_every: int | None = None

    def scheduled(self, last: float) -> tuple[int, ...]:
        """The epochs up to `last` after which the rules evaluate."""
        if self.evaluation_every:
            return tuple(range(self.evaluation_every, int(last) + 1, self.evaluation_every))
        return tuple(each for each in self.evaluation_epochs if each <= last)


def rules_for(benchmark: str | None, ruleset: str | None) -> Rules:
    """The rules, as far as they are known."""
    named = _content().get(benchmark or "", {})
    own = named.get("rulesets", {}).get(ruleset or "")
    if own is None:
        return Rules(benchmark or "", ruleset or "", named.get("metric", "quality"), named.get("runs"), None)
    decay = named.get("decay", {})
    return Rules(
        benchmark=benchmark or "",
        ruleset=ruleset or "",
        metric=named["metric"],
        runs=named["runs"],
        target=own["target"],
        train_samples=named["train_samples"],
        train_samples_tolerated=tuple(named["train_samples_tolerated"]),
        eval_samples=tuple(named["eval_samples"]),
        decay_key=decay.get("key"),
        decay_reference=tuple(decay.get("reference", ())),
        evaluation_epochs=tuple(own.get("evaluation_epochs", ())),
        evaluation_every=own.get("evaluation_every"),
        tolerated_late=own.get("tolerated_late", 0),
        tolerated_every=own.get("tolerated_every"),
    )


def target_of(record: RunRecord, rules: Rules) -> float | None:
    """What this run had to reach: the rules' figure in the closed division, elsewhere what its own log says."""
    if record.division == "open" or rules.target is None:
        return record.quality_target
    return rules.target


def shortfall(record: RunRecord, rules: Rules) -> str:
    """Why the run is no result, in a few words; empty for one that converged."""
    target = target_of(record, rules)
    if record.outcome != "success":
        return f"{record.outcome}: {record.reason}"
    if target is not None and not record.reached(target):
        best = max((each.accuracy for each in record.evaluations if each.accuracy is not None), default=None)
        return f"says success, but no {rules.metric} reached {target:g}" + (f" (best {best:.4f})" if best else "")
    return ""


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def check_ruleset(ruleset: str | None) -> None:
    """ValueError for one that is not known here; mlperf-logging's own default knows no log of this benchmark's kind."""
    if ruleset is not None and ruleset not in RULESETS:
        raise ValueError(f"--ruleset {ruleset}: not one of {', '.join(RULESETS)}")
