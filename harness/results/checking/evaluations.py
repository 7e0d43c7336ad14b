"""Checks of a log's evaluations: each result was known when it was logged, and the rules' epochs were evaluated."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from harness.results.checking.findings import Finding, Log, Severity
from harness.results.parts import Epoch, Evaluation
from harness.rules import Rules

KEY = "eval_accuracy"
NO_NUMBER, OFF_SCHEDULE = "accuracy: no number", "evaluation schedule"


def check_evaluations(log: Log) -> Iterator[Finding]:
    """Results that are none, that cannot have been known when they were logged, or were filled in afterwards."""
    done = sorted((each for each in log.record.evaluations if each.at_s is not None), key=lambda each: each.line)
    for each in done:
        yield from _value(log, each)
        if each.epoch is not None:
            yield from _moment(log, each, each.epoch, each.at_s or 0.0)
    for earlier, later in itertools.pairwise(done):
        if earlier.epoch is None or later.epoch is None:
            continue
        if later.epoch < earlier.epoch:
            text = f"epoch {later.epoch:g} comes after epoch {earlier.epoch:g}: filled in afterwards"
            yield _in_time(log, text, later.line)
        elif later.at_s == earlier.at_s:
            text = f"epochs {earlier.epoch:g} and {later.epoch:g} at one moment: filled in afterwards"
            yield _in_time(log, text, later.line)


def check_schedule(log: Log) -> Iterator[Finding]:
    """The epochs after which the closed division evaluates are fixed: more or fewer change when a run may stop."""
    rules = log.rules
    done = {
        each.epoch: each.line
        for each in log.record.evaluations
        if each.epoch is not None and each.at_s is not None and log.record.in_time(each)
    }
    if not log.closed or not done or not (rules.evaluation_epochs or rules.evaluation_every):
        return
    if 0 in done:  # counted from 0: no rule evaluates before the first epoch; that epochs begin so is told of by itself
        done = {epoch + 1: line for epoch, line in done.items()}
    due, late = rules.scheduled(max(done)), rules.tolerated_late
    extra = [epoch for epoch in done if epoch not in due]
    tolerated = [epoch for epoch in extra if _tolerated(rules, epoch)]
    wrong = [epoch for epoch in extra if epoch not in tolerated]
    missing = [epoch for epoch in due if epoch not in done and not (late and epoch + late in done)]
    if wrong:
        yield _off_schedule(log, f"evaluated after {_epochs(wrong)}", done[wrong[0]], "error")
    if missing:
        yield _off_schedule(log, f"no evaluation after {_epochs(missing)}", min(done.values()), "error")
    if tolerated:
        text = f"evaluated after {_epochs(tolerated)}; published entries did so too"
        yield _off_schedule(log, text, done[tolerated[0]], "warning")


def _epochs(numbers: Sequence[int | float]) -> str:
    return f"epoch{'s' * (len(numbers) > 1)} {', '.join(f'{each:g}' for each in numbers)}"


def _value(log: Log, evaluation: Evaluation) -> Iterator[Finding]:
    line = evaluation.line
    if evaluation.epoch is None:
        yield log.found("accuracy", "no metadata.epoch_num", "log the epoch with it", key=KEY, line=line)
    if evaluation.accuracy is None:
        text = f"epoch {evaluation.epoch}"
        yield log.found(NO_NUMBER, text, "see why the model diverged", key=KEY, line=line)
    elif (bounds := log.rules.quality_range) and not bounds[0] <= evaluation.accuracy <= bounds[1]:
        text = f"epoch {evaluation.epoch}: {evaluation.accuracy:g} is outside {bounds[0]:g}..{bounds[1]:g}"
        fix = "log a fraction, not percent" if bounds[1] == 1 else f"log {log.rules.metric} as the rules define it"
        yield log.found("accuracy", text, fix, key=KEY, line=line)


def _moment(log: Log, evaluation: Evaluation, epoch: int | float, at_s: float) -> Iterator[Finding]:
    record, line = log.record, evaluation.line
    trained = {each.number: each for each in record.epochs}
    from_zero = int(min(trained, default=1) == 0)  # some count so: their evaluation 1 follows epoch 0
    if trained and max(trained) + from_zero < epoch:
        text = f"epoch {epoch:g} is evaluated but only {max(trained) + from_zero:g} were trained"
        yield _in_time(log, text, line)
    early_s = _before_end(trained.get(epoch - from_zero), at_s)
    if early_s > 0:
        # An evaluation that runs beside the next epoch and takes its number is off by one, not ahead of its time; before
        # the rules fixed the epochs, some evaluated in the middle of one.
        free = not (log.rules.evaluation_epochs or log.rules.evaluation_every)
        severity: Severity = "warning" if free or _one_late(log.rules, epoch) else "error"
        text = f"epoch {epoch:g} is evaluated {early_s:.3f} s before its training ends"
        yield _in_time(log, text, line, severity)
    if record.run_start_s is not None and at_s < record.run_start_s:
        yield _in_time(log, f"epoch {epoch:g} is evaluated before run_start", line)
    if record.outcome == "success" and record.run_stop_s is not None and at_s > record.run_stop_s:
        text = f"epoch {epoch:g} is evaluated {at_s - record.run_stop_s:.3f} s after run_stop: it does not count"
        yield _in_time(log, text, line, "warning")


def _before_end(epoch: Epoch | None, at_s: float) -> float:
    if epoch is None or epoch.start_s is None or epoch.seconds is None:
        return 0.0
    return epoch.start_s + epoch.seconds - at_s


def _one_late(rules: Rules, epoch: float) -> bool:
    return bool(rules.tolerated_late) and epoch - rules.tolerated_late in rules.scheduled(epoch)


def _tolerated(rules: Rules, epoch: float) -> bool:
    every = rules.tolerated_every
    return _one_late(rules, epoch) or (every is not None and epoch % every == 0)


def _in_time(log: Log, text: str, line: int, severity: Severity = "error") -> Finding:
    fix = "evaluate after the epoch and log the result when it is known"
    return log.found("evaluation logged in time", text, fix, key=KEY, line=line, severity=severity)


def _off_schedule(log: Log, text: str, line: int, severity: Severity) -> Finding:
    every, epochs = log.rules.evaluation_every, log.rules.evaluation_epochs
    when = f"every {every} epochs" if every else "epochs " + ", ".join(map(str, epochs))
    fix = f"ruleset {log.rules.ruleset} evaluates after {when}"
    return log.found(OFF_SCHEDULE, text, fix, key=KEY, line=line, severity=severity)
