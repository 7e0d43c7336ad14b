"""A series of trials as it was asked for, and whether it may begin, or go on, in its folder.

Refused is what would mix two series, lose a result, or fail after hours: another configuration, code, image or amount of work
than the trials that are there, a log that the ledger does not know or that is no longer what it was, a disk that is full.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import names
from harness.contract import NotSuitable
from harness.execution import provenance
from harness.exit_codes import DISK_FULL
from harness.launch import ledger, trial, watchdog
from harness.launch.ledger import Account
from harness.results.record import RunRecord
from harness.results.sources import Code

DISK_FREE = 64 << 20  # bytes that a trial's log, record, picture and telemetry may need


@dataclass(frozen=True)
class SeriesOrder:
    """What the user asked a series for."""

    folder: Path
    configuration_name: str
    configuration_sha256: str
    trials: int
    seed: int | None = None  # of trial 0; trial N has seed + N
    max_steps: int | None = None  # of each trial
    ranks: int = 1  # of each trial
    clear_caches: bool = True
    resume: bool = False
    patience_s: float | None = watchdog.PATIENCE_S
    code: Callable[[], Code] | None = None  # what a trial runs that starts now; None: an image's, which its log tells
    also_as: Path | None = None  # without _N.log: what else each trial's log is called
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def seed_of(self, number: int) -> int | None:
        """Of this trial; None: it draws its own."""
        return None if self.seed is None else (self.seed + number) % 2**32


def usable_folder(folder: Path) -> None:
    """Make the results folder. ValueError when it cannot be written, NotSuitable when its disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise ValueError(
                f"{folder}: results cannot be written there ({error.strerror}); name another folder with --out, "
                f"or give it to user id {os.getuid()}"
            ) from error
        free = 0
    else:
        free = shutil.disk_usage(folder).free
    if free < DISK_FREE:
        raise NotSuitable(
            f"{folder}: its disk is full ({free >> 20} MiB free, a trial may need {DISK_FREE >> 20}); free some, or "
            "name a folder on another disk with --out"
        )


def may_begin(series: SeriesOrder, where: str, account: Account) -> None:
    """LedgerError when the folder holds what this series must not touch or cannot continue."""
    folder = series.folder
    # what was refused before it ran binds nobody
    attempts = [each for each in account.attempts if each.status != ledger.REFUSED]
    if attempts and not series.resume:
        raise ledger.LedgerError(
            f"{folder}: holds a series already ({len(account.finished)} trials finished); add --resume to go on with it, "
            "or name another --out or --system"
        )
    lines = {entry["series"]: entry for entry in account.series}
    for each in attempts:
        before = lines[each.start["series"]]
        ranks = before.get("ranks", series.ranks)  # the ledgers of older versions have none
        if ranks != series.ranks:
            raise ledger.LedgerError(
                f"{folder}: its trials ran on {ranks} ranks, these would run on {series.ranks}; a series has one number of "
                "them. Use as many, or name another --out or --system"
            )
        if before["configuration_sha256"] != series.configuration_sha256:
            raise ledger.LedgerError(
                f"{folder}: its series runs configuration {before['configuration_name']} "
                f"({before['configuration_sha256'][:12]}), not {series.configuration_name} "
                f"({series.configuration_sha256[:12]}); a series has one. Name another --out or --system"
            )
        if before.get("max_steps") != series.max_steps:  # the ledgers of older versions have none
            there, here = (_max_steps(steps) for steps in (before.get("max_steps"), series.max_steps))
            raise ledger.LedgerError(
                f"{folder}: its trials ran {there}, these would run {here}; a series does the same work each "
                "time. Use the same, or name another --out or --system"
            )
        if each.finished and before["where"] != where:
            raise ledger.LedgerError(
                f"{folder}: its trials ran in {before['where']}, these would run in {where}; a series has one "
                "image. Use the same, or name another --out or --system"
            )
    _each_seed_once(series, account)
    if any(number not in account.finished for number in range(series.trials)):
        of_one_code(series, account)
    for number, each in account.finished.items():
        log = folder / names.result(number)
        if each.end is not None and ledger.sha256(log) != each.end["log_sha256"]:
            raise ledger.LedgerError(
                f"{log}: is not what the ledger says this trial left; it was changed or taken away"
            )
        told = each.end.get("record_sha256") if each.end is not None else None
        if told is not None and ledger.sha256(log.with_suffix(".json")) != told:
            raise ledger.LedgerError(
                f"{log.with_suffix('.json')}: is not the record that the ledger says this trial left; it was changed or taken "
                "away"
            )
    last = {each.number: each for each in account.attempts}
    for number in sorted({*range(series.trials), *last}):
        log, of = folder / names.result(number), last.get(number)
        if log.exists() and (of is None or of.marked is not None or not trial.may_have_left(of, log.name)):
            raise stranger(log)
        # else the trial itself would be refused, after others have taken their hours
        if (of is None or of.marked is not None) and (left := names.taken_for_its_own(log)):
            raise stranger(left[0])


def _each_seed_once(series: SeriesOrder, account: Account) -> None:
    seeds = {each.start.get("seed"): number for number, each in account.finished.items()}
    for number in range(series.trials):
        seed = series.seed_of(number)
        if number not in account.finished and seed is not None and seed in seeds:
            raise ledger.LedgerError(
                f"{series.folder}: trial {number} would have seed {seed}, as trial {seeds[seed]} had; a series has each seed "
                "once. Go on with the --seed that it began with, or without one"
            )


def of_one_code(series: SeriesOrder, account: Account) -> None:
    """LedgerError where a trial that starts now would run other code than those that have their result."""
    if series.code is None or (before := first_of(series, account)) is None:
        return
    there, here = Code.of(before), series.code()
    if there is not None and not here.is_as(there):
        changed = f": {', '.join(provenance.changed_files())}" if here.changed else ""
        raise ledger.LedgerError(
            f"{series.folder}: its trials ran {there}, these would run {here}{changed}; a series has one code. Put that back, "
            "or name another --out or --system"
        )


def first_of(series: SeriesOrder, account: Account) -> RunRecord | None:
    """The log of the first trial that has its result."""
    return next((trial.read_log(series.folder / names.result(number)) for number in sorted(account.finished)), None)


def stranger(left: Path) -> ledger.LedgerError:
    """What to raise where a log, or what lies beside one, is of no trial that the ledger knows."""
    return ledger.LedgerError(
        f"{left}: is there, but the ledger knows of no such trial; move it away, or name another --out or --system"
    )


def _max_steps(steps: int | None) -> str:
    return "without --max-steps" if steps is None else f"with --max-steps {steps}"
