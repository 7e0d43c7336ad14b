"""Our own checks of one log: what MLPerf's checker lets pass and no reader of results should.

Each check takes a record and the rules and yields findings. What MLPerf's checker already tells well (a missing key, a
hyperparameter out of bounds) is left to it; see official.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from harness.results import fitness
from harness.results.by_rules import shortfall
from harness.results.checking.evaluations import check_evaluations, check_schedule
from harness.results.checking.findings import Finding, Log, Severity, is_placeholder
from harness.results.said import number
from harness.results.text_json import OF_TWO, shortened
from harness.rules import DIVISIONS, STATUSES, ruleset

ONCE = (
    "run_start",
    "run_stop",
    "init_stop",
    "submission_benchmark",
    "train_samples",
    "eval_samples",
    "global_batch_size",
)
# MLPerf's RCP checker takes the last line in which these words stand, whatever its key
SUBSTRINGS = ("global_batch_size", "submission_benchmark", "eval_accuracy", "eval_error")
FIXES = {
    "malformed": "log each record on a line of its own, from one rank only; keep progress bars out of the log",
    "trailing": "log each record on a line of its own; print nothing after it",
    "incomplete": "log every record with value and metadata, as mllog does",
    "partial": "wait for the run's end, or take the complete file",
    "limit": "take out what is no result of one run",
    "conflict": "one result for each evaluation: log from one rank only",
    "order": "log events when they happen, with one clock",
    "order in init": "keep the machine's clock in step before a run; this one's time is not touched",
    "repeated": "write each line once",
}


OF_CLOCKS = ("run_start", "run_stop")


def check_log(log: Log) -> Iterator[Finding]:
    """All checks of one log. One without a single readable line gets that finding and what kept it from being read."""
    yield from _readable(log)
    if log.record.outcome == "empty":
        yield log.found("readable", log.record.reason, "name a log of a training run (result_N.txt)")
        return
    for check in CHECKS:
        yield from check(log)


def _readable(log: Log) -> Iterator[Finding]:
    record = log.record
    for problem in record.problems:
        rule = "time order" if problem.kind.startswith("order") else f"readable: {problem.kind}"
        severity: Severity = "warning" if problem.kind == "order in init" else "error"
        yield log.found(rule, problem.text, FIXES[problem.kind], line=problem.line, severity=severity)
    if record.problem_count > len(record.problems):
        more = record.problem_count - len(record.problems)
        yield log.found("readable", f"{more} more lines with problems", "correct the first ones and check again")


def _outcome(log: Log) -> Iterator[Finding]:
    record = log.record
    if record.outcome != "success":
        fix = {
            "invalid": "one run a file, from run_start to one run_stop with metadata.status",
            "aborted": "see why the run ended; only a run that reached its target is a result",
            "unfinished": "wait for the run's end; a killed run is no result",
        }[record.outcome]
        fix = fitness.NOT_BEGUN if record.in_init else fix
        key = "run_stop" if "run_stop" in record.entries else "run_start"
        yield log.found("outcome", f"{record.outcome}: {record.reason}", fix, key=key)
    elif why := shortfall(record, log.rules):
        fix = "log success only when an evaluation reaches the target"
        yield log.found("target reached", why, fix, key="run_stop")


def _once(log: Log) -> Iterator[Finding]:
    for key in ONCE:
        entry = log.record.entries.get(key)
        if entry is None or entry.count == 1 or (entry.other is None and entry.count == log.record.copies):
            continue
        text = f"logged {entry.count} times"
        if entry.other is not None:
            text += f", {_shown(entry.value)} and (line {entry.other[0]}) {_shown(entry.other[1])}"
        severity: Severity = "error" if entry.other is not None else "warning"
        yield log.found("once", text, "log it once, from one rank only", key=key, severity=severity)


def _submission(log: Log) -> Iterator[Finding]:
    """submission_* lines: words that MLPerf's tools know, and none left from an example."""
    for key, entry in log.record.entries.items():
        if not key.startswith("submission_"):
            continue
        if not isinstance(entry.value, str) or not entry.value.strip():
            yield log.found("placeholder", f"{_shown(entry.value)}", "say what it is", key=key)
        elif is_placeholder(entry.value):
            yield log.found("placeholder", _shown(entry.value), "say whose and which system it is", key=key)
    division, status = log.record.division, log.record.status
    if division and division not in DIVISIONS:
        fix = f"write {division.lower()}" if division.lower() in DIVISIONS else f"one of {', '.join(DIVISIONS)}"
        yield log.found("division", _shown(division), fix, key="submission_division")
    if status and status not in STATUSES:
        yield log.found("status", _shown(status), f"one of {', '.join(STATUSES)}", key="submission_status")


def _caches(log: Log) -> Iterator[Finding]:
    entry, start = log.record.entries.get("cache_clear"), log.record.entries.get("run_start")
    if entry is None:
        return  # the compliance checker asks for it
    if entry.value is not True:
        text, fix = _shown(entry.value), "drop the page cache before the run and log true"
        yield log.found("caches cleared", text, fix, key="cache_clear", severity=log.strict)
    elif start is not None and entry.line > start.line:
        fix = "drop the page cache before run_start"
        yield log.found("caches cleared", "after run_start", fix, key="cache_clear", severity=log.strict)


def _epochs(log: Log) -> Iterator[Finding]:
    """Epochs count 1, 2, 3 and each but the last ends."""
    record = log.record
    first = (record.resumed_from_epoch or 0) + 1
    for index, epoch in enumerate(record.epochs):
        if epoch.number != first + index:
            text = f"epoch {epoch.number:g} where {first + index} is due"
            fix = "number epochs from 1, one after the other"
            severity: Severity = "warning" if index == 0 or epoch.number != int(epoch.number) else "error"
            yield log.found("epoch order", text, fix, key="epoch_start", line=epoch.line, severity=severity)
            break
    for epoch, following in zip(record.epochs, record.epochs[1:], strict=False):
        if epoch.seconds is None and not epoch.backwards:
            text = f"epoch {epoch.number:g} does not end before {following.number:g} begins"
            yield log.found(
                "epoch order", text, "log epoch_stop when the epoch ends", key="epoch_stop", line=epoch.line
            )
    if record.backwards:
        text = f"{record.backwards} stops before it starts"
        yield log.found("epoch order", text, "somebody set the clock, or edited the log: run again", key="run_stop")


def _decay(log: Log) -> Iterator[Finding]:
    """Both boundaries are the reference's times 1 + k/10, with one k. MLPerf's checker tests the second alone."""
    key, reference = log.rules.decay_key, log.rules.decay_reference
    if key is None or not log.closed or key not in log.record.entries:
        return
    value = log.record.value(key)
    fix = f"{list(reference)} times 1 + k/10, the same whole number k for both"
    found = [number(each) for each in value] if isinstance(value, list) else []
    if len(found) != len(reference) or any(each is None for each in found):
        yield log.found("decay boundaries", _shown(value), fix, key=key)
        return
    steps = [10 * ((each or 0.0) / at - 1) for each, at in zip(found, reference, strict=True)]
    whole = all(abs(step - round(step)) < 1e-5 for step in steps)
    if not whole or len({round(step) for step in steps}) > 1:
        ks = ", ".join(f"{step:g}" for step in steps)
        yield log.found("decay boundaries", f"{_shown(value)}: k = {ks}", fix, key=key)


def _counts(log: Log) -> Iterator[Finding]:
    """MLPerf's checker takes any number, and a batch of -912 was ranked."""
    for key in ("global_batch_size", "train_samples", "eval_samples"):
        entry = log.record.entries.get(key)
        if entry is not None and (log.record.integer(key) or 0) < 1:
            yield log.found(
                "count", f"{_shown(entry.value)} is no number of samples", "log what was trained on", key=key
            )


def _samples(log: Log) -> Iterator[Finding]:
    rules = log.rules
    if not log.closed:
        return
    batches = rules.in_batches(number(log.record.value("train_samples")), log.record.global_batch_size)
    for key, allowed, tolerated in (
        ("train_samples", tuple(filter(None, (rules.train_samples,))), rules.train_samples_tolerated),
        ("eval_samples", rules.eval_samples, ()),
    ):
        entry = log.record.entries.get(key)
        if entry is None or not allowed or entry.value in allowed:
            continue  # that it is missing, the compliance checker says
        whole = " or ".join(str(each) for each in allowed)
        if batches and isinstance(entry.value, int) and 0 < entry.value < max(allowed):
            text, fix = f"{entry.value} batches; published entries count so too", f"log the samples: {whole}"
            yield log.found("sample count", text, fix, key=key, severity="warning")
            continue
        severity: Severity = "warning" if entry.value in tolerated else "error"
        yield log.found(
            "sample count", _shown(entry.value), f"use the whole data set: {whole}", key=key, severity=severity
        )


def _misleading_words(log: Log) -> Iterator[Finding]:
    judged = ruleset(log.rules.ruleset)
    if judged is None or not judged.convergence_points:
        return
    for key, entry in log.record.entries.items():
        text = json.dumps([entry.value, dict(entry.metadata)], default=str)
        for word in SUBSTRINGS:
            if word in text and key != word:
                fix = "keep the word out of other lines: MLPerf's RCP checker takes any line that has it"
                yield log.found("misleading word", f"{word} in the line of {key}", fix, key=key, severity=log.strict)


def _provenance(log: Log) -> Iterator[Finding]:
    for each in fitness.of_run(log.record):
        if each.key not in OF_CLOCKS:  # of which there is more to say
            yield log.found("publishable", each.what, each.fix, key=each.key, severity="warning")


def _clock(log: Log) -> Iterator[Finding]:
    """A clock that was set during the run makes its minutes wrong by as much; in init, the time that init seems to take."""
    record = log.record
    if text := record.clock_was_set:
        fix = "the clock was set during the run: keep it in step before, and run again"
        yield log.found("clock", text, fix, key="run_stop")
    for key in ("init_stop", "run_stop"):
        entry = record.entries.get(key)
        for name in ("monotonic_s", "wall_ahead_s", "paused_s"):
            if entry is not None and name in entry.metadata and number(entry.metadata[name]) is None:
                fix = "log seconds, as a number"
                yield log.found("readable: clock", f"{name} is {_shown(entry.metadata[name])}, no number", fix, key=key)
    if record.paused:
        fix = "by MLPerf's rules the time stands; a run that nobody stops or freezes (SIGSTOP, docker pause) is shorter"
        yield log.found("pause", record.paused, fix, key="run_stop", severity="warning")
    if record.before_mlperf:
        text = f"run_start is stamped {datetime.fromtimestamp(record.run_start_s or 0, UTC):%Y-%m-%d}"
        fix = "log milliseconds since 1970: these may be seconds, or since something else"
        yield log.found("clock", text, fix, key="run_start")
    if ahead_s := record.init_ahead_s:
        text = f"the clock was set by {ahead_s:+.3f} s during init, which took {record.init_seconds or 0:.3f} s"
        fix = "MLPerf's checker allows 20 minutes between the stamps: keep the clock in step before; the run's time stands"
        yield log.found("clock", text, fix, key="init_stop", severity="warning")


def _copies(log: Log) -> Iterator[Finding]:
    if log.record.copies > 1:
        text = f"every line is there {log.record.copies} times"
        fix = "write the log once, by a logger or by a tee; ranks are counted once for each copy"
        yield log.found("once", text, fix, severity="warning")
    elif log.record.accelerators_in_doubt:
        text = f"{log.record.ranks} lines, each an even number of times to the letter"
        fix = (
            "ranks that began in one millisecond, or lines logged twice: nothing else in the log tells how many accelerators "
            "there were, and here each line counts as one"
        )
        yield log.found("once", text, fix, key="init_start", severity="warning")


def _shown(value: object) -> str:
    return shortened(value if isinstance(value, str) and value else json.dumps(value, default=str), OF_TWO)


CHECKS: tuple[Callable[[Log], Iterator[Finding]], ...] = (
    *(
        _outcome,
        _clock,
        _copies,
        _once,
        _submission,
        _caches,
        _counts,
        _epochs,
        check_evaluations,
        check_schedule,
        _decay,
        _samples,
    ),
    *(_misleading_words, _provenance),
)
