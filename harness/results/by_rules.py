"""What the rules make of one run: what it had to reach, and whether it did. The rules themselves are harness.rules."""

from __future__ import annotations

from harness.exit_codes import NOT_FINITE, OF_EPOCHS
from harness.results.record import RunRecord
from harness.results.said import NUMBER_LIMIT
from harness.rules import Rules, checkable, possible_rulesets, rules_for

__all__ = ["Rules", "check_ruleset", "images_per_s", "may_be_for", "rules_for", "shortfall", "target_of"]


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
    qualities = [each.accuracy for each in record.counted_evaluations if each.accuracy is not None]
    if target is not None and not any(rules.met(each, target) for each in qualities):
        best = rules.best(each for each in qualities if rules.possible(each, target))
        told = f" ({qualities[-1]:g} is none)" if qualities else ""
        return f"says success, but no {rules.metric} reached {target:g}" + (
            told if best is None else f" (best {best:.4f})"
        )
    return ""


def may_stand(record: RunRecord) -> bool:
    """Whether the rules let it be the one run of a series that did not converge: it came to an end of its own, and says so.

    Of this harness's logs an aborted one tells which end that was: its epochs were spent or its loss was none, or it was
    interrupted, hung or broke.
    """
    if record.outcome == "aborted" and record.configuration_sha256 is not None:
        return record.reason.startswith((OF_EPOCHS, NOT_FINITE))
    return record.outcome in ("aborted", "success")


def may_be_for(record: RunRecord, ruleset: str) -> bool:
    """Whether the log is for this ruleset: as it says, or of one that says none, as its date alone would contradict."""
    if record.ruleset == ruleset or not record.ruleset_is_guess:
        return record.ruleset == ruleset
    possible = possible_rulesets(record.benchmark, record.entries, record.dialect, record.train_samples)
    return ruleset in [each.name for each in possible]


def images_per_s(record: RunRecord, rules: Rules) -> float | None:
    """Samples of an epoch by the median epoch's time; of a run that ended in its first epoch, as it logged."""
    samples = record.epoch_samples_by(rules)
    if samples and record.epoch_seconds:
        speed = samples / record.epoch_seconds
        return speed if speed < NUMBER_LIMIT else None
    return record.images_per_s


def check_ruleset(ruleset: str | None) -> None:
    """ValueError for one that is not known here; mlperf-logging's own default knows no log of this benchmark's kind."""
    if ruleset is not None and ruleset not in checkable():
        raise ValueError(f"--ruleset {ruleset}: not one of {', '.join(checkable())}")
