"""One trial of a series: what it is told, how its end is judged, and result_N.json, the account beside its log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__, names, whole
from harness.exit_codes import EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, SPENT, TARGET_MET, USAGE
from harness.launch import killed, ledger
from harness.launch.watchdog import Outcome
from harness.request import variable
from harness.results import logfile
from harness.results.record import RunRecord
from harness.results.sources import Code


@dataclass(frozen=True)
class Order:
    """What one trial is told."""

    number: int
    folder: Path  # of its results
    seed: int | None  # None: the run draws its own
    caches_cleared: bool
    chosen: str | None = None  # by an earlier trial's init, of what its configuration leaves to speed: JSON

    @property
    def name(self) -> str:
        return f"trial {self.number}"

    @property
    def log(self) -> Path:
        return self.folder / names.result(self.number)

    @property
    def refused_log(self) -> Path:
        """Where the trial leaves word when it cannot begin: no result, so nobody counts it as one."""
        return self.folder / names.refused(self.number)

    @property
    def environment(self) -> dict[str, str]:
        told = {"HARNESS_CACHES_CLEARED": "1" if self.caches_cleared else "0", "PYTHONUNBUFFERED": "1"}
        return told if self.chosen is None else {**told, variable("chosen"): self.chosen}


@dataclass(frozen=True)
class TrialEnd:
    """What a trial's end is worth."""

    status: str  # of the ledger
    reason: str


def judge(
    outcome: Outcome, log: RunRecord | None, configuration_sha256: str, code_before: Code | None = None
) -> TrialEnd:
    """Believe an exit code only where the log says the same: a crash before the first line also ends with 1.

    `code_before`: of the trials that have their result; None where there is none yet.
    """
    why = f"; {outcome.why}" if outcome.why else ""
    code = outcome.exit_code
    # one that came to its end before it heard that it was to end is a result like another: to run it again would be a choice
    whole = log is not None and (
        (code == TARGET_MET and log.outcome == "success") or (code == EPOCHS_SPENT and _spent(log))
    )
    if outcome.ended_by == "watchdog" and not whole:
        return TrialEnd(
            ledger.STALLED, f"its log did not grow for as long as --watchdog lets it: stopped, exit code {code}{why}"
        )
    if outcome.ended_by == "signal" and not whole:
        return TrialEnd(ledger.INTERRUPTED, f"the series was asked to end{why}")
    if code == INTERRUPTED and not why:
        return TrialEnd(ledger.INTERRUPTED, "someone asked the trial alone to end")
    began = log is not None and bool(log.epochs)  # a disk that fills in the middle ends with 6 too
    if code in (USAGE, NOT_SUITABLE) and not began:
        return TrialEnd(ledger.REFUSED, _last_words(outcome, log))
    if code not in (TARGET_MET, EPOCHS_SPENT):
        signal = f" (signal {code - 128})" if code > 128 and code != INTERRUPTED else ""
        return TrialEnd(ledger.FAILED, f"exit code {code}{signal}; {_cause(outcome, log)}")
    if log is None:
        return TrialEnd(ledger.FAILED, f"exit code {code}, but it left no log; {_last_words(outcome, log)}")
    if log.configuration_sha256 != configuration_sha256:
        found = log.configuration_sha256
        return TrialEnd(
            ledger.FAILED, f"its log names another configuration: {found}; is the image of this checkout's code?"
        )
    ran = Code.of(log)
    if ran is not None and code_before is not None and not ran.is_as(code_before):
        # where that is an image's, it could not be known before
        return TrialEnd(ledger.FAILED, f"it ran {ran}, the trials before it {code_before}; a series has one code")
    if code == TARGET_MET and log.outcome == "success":
        return TrialEnd(ledger.SUCCESS, outcome.why)  # files beside the log may be lost
    if code == EPOCHS_SPENT and _spent(log):
        return TrialEnd(ledger.NOT_MET, f"{_last_words(outcome, log)}{why}")
    return TrialEnd(ledger.FAILED, f"exit code {code}, but its log ends as {log.outcome}: {log.reason}{why}")


def _spent(log: RunRecord) -> bool:
    """Whether a run that ended with EPOCHS_SPENT did so: its log says it, which that of a crash or of a signal does not."""
    return log.outcome == "aborted" and log.reason.startswith(SPENT)


def read_log(path: Path) -> RunRecord | None:
    """The log, if the trial got as far as opening one."""
    return logfile.read(path) if path.is_file() else None


def write(  # noqa: PLR0917 - all that one file says
    path: Path, order: Order, start: ledger.Entry, end: dict[str, Any], log: RunRecord | None, tail: tuple[str, ...]
) -> Path:
    """result_N.json, or refused_N.json, whole or not at all. Returns `path`."""
    seen = log.entries if log else {}
    content = {
        "schema": 1,
        "harness": __version__,
        **{key: value for key, value in start.items() if key not in ("event", "time")},
        "started": start["time"],
        "ended": ledger.now(),
        **end,
        "configuration": log.configuration if log else None,
        **{key: seen[key].value if key in seen else None for key in LOGGED},
        "telemetry": next((path.name for path in order.folder.glob(f"telemetry_{order.number}.*")), None),
        "output_tail": [] if end["status"] in ledger.FINISHED else list(tail),
    }
    with whole.replacing(path) as file:
        file.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    return path


# Of the log's keys, those that say what ran where
LOGGED = (
    *(
        "configuration_name",
        "seed",
        "quality_target",
        "max_steps",
        "precision",
        "demonstration",
        "other_task",
        "eval_samples_trained_on",
        "resumed_from_epoch",
        "cache_clear",
    ),
    *("commit", "tree_dirty", "benchmark_sha256", "software", "hardware", "image", "data_fingerprint", "cpu_binding"),
)


def may_have_left(attempt: ledger.Attempt, log: str) -> bool:
    """Whether a log of this name may be the attempt's: its end says which is; of one that was broken off nobody does."""
    return attempt.end is None or attempt.end["log"] == log


def put_aside(folder: Path, broken: ledger.Attempt) -> list[str]:
    """Give the files of a broken attempt another name, for good. Returns the new names, the log's first."""
    kinds = ("result", "refused", "telemetry")
    for path in [each for kind in kinds for each in sorted(folder.glob(f"{kind}_{broken.number}.*"))]:
        if names.BROKEN not in path.name and (path.suffix != ".txt" or may_have_left(broken, path.name)):
            stem, _, suffix = path.name.partition(".")
            path.rename(path.with_name(f"{stem}{names.BROKEN}{broken.attempt}.{suffix}"))
    # by their new names: who was killed as he did this has left some of them so, and no line in the ledger
    aside = f"{broken.number}{names.BROKEN}{broken.attempt}.*"
    kept = [each.name for kind in kinds for each in sorted(folder.glob(f"{kind}_{aside}"))]
    return sorted(kept, key=lambda name: not name.endswith(".txt"))


def _cause(outcome: Outcome, log: RunRecord | None) -> str:
    """What is known of a failure. Of SIGKILL a trial says nothing: the last line of its output is about something else."""
    if outcome.exit_code == killed.CODE:
        said = [outcome.why or killed.MOST_OFTEN, _stop_reason(log)]
    else:
        said = [outcome.why, _last_words(outcome, log)]
    return "; ".join(filter(None, said))


def _last_words(outcome: Outcome, log: RunRecord | None) -> str:
    """Why it ended: what its log's run_stop says, else its last line of output."""
    printed = (line.strip() for line in reversed(outcome.tail) if line.strip())
    return _stop_reason(log) or next(printed, "it printed nothing")


def _stop_reason(log: RunRecord | None) -> str:
    stop = log.entries.get("run_stop") if log else None
    reason = stop.metadata.get("reason") if stop is not None else None
    return reason if isinstance(reason, str) else ""
