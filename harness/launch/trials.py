"""A series: N trials of one configuration, one after the other, each entered in the ledger before it starts and as it ends.

How a trial is started is the launcher's matter (process.py, container.py, step.py, kubernetes/); that each starts fresh, is
followed, judged, recorded and leaves nothing behind is settled here, for all alike.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from harness import names
from harness.contract import NotSuitable
from harness.execution.signals import Interrupted, as_exceptions, at_once, later
from harness.exit_codes import BROKEN, DISK_FULL, EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE
from harness.launch import admission, caches, ledger, trial, watchdog
from harness.launch.admission import SeriesOrder
from harness.launch.ledger import Ledger, LedgerLost
from harness.launch.trial import Order
from harness.launch.watchdog import Outcome
from harness.results.sources import Code
from harness.system.neighbours import Neighbours


class StartedTrial(watchdog.Running, Protocol):
    """What a launcher's `start` returns."""

    def facts(self) -> dict[str, Any]:
        """How it was started, for the record."""
        ...

    def owns(self, process: psutil.Process) -> bool:
        """Whether this process of the machine is one of the trial's."""
        ...


class Launcher(Protocol):
    """Starts trials somewhere."""

    @property
    def here(self) -> bool:
        """Whether trials run on this machine: only then do its other processes matter to them."""
        ...

    @property
    def where(self) -> str:
        """What must be the same for all trials of a series: "local", or the image's id."""
        ...

    def facts(self) -> dict[str, Any]:
        """What of it belongs into the ledger."""
        ...

    def clear(self, folder: Path) -> list[str]:
        """End what trials before have left running, here and of series that are gone. Says what, for people."""
        ...

    def ready(self, order: Order) -> None:
        """What must be so before the trial is entered in the ledger. ValueError or NotSuitable where it is not."""
        ...

    def drop_caches(self) -> caches.Dropped:
        """The page cache of whatever machines the trial will run on."""
        ...

    def start(self, order: Order) -> StartedTrial:
        """The trial, running. NotSuitable when it cannot be started here."""
        ...


def run(series: SeriesOrder, launcher: Launcher, say: Callable[[str], None]) -> int:
    """Run what is missing of the series; returns the exit code. ValueError or NotSuitable when it may not begin,
    OSError where its ledger cannot be opened.
    """
    admission.usable_folder(series.folder)
    try:
        with ledger.opened(series.folder) as book:
            admission.may_begin(series, launcher.where, book.account)
            return _begun(_HeldSeries(series, launcher, book, say))
    except LedgerLost as error:
        say(f"{error}; what ran here is no series any more")
        return BROKEN


def _begun(work: _HeldSeries) -> int:
    """What may begin, to its end; returns the exit code. NotSuitable where the disk or the machine fails meanwhile."""
    series = work.series
    try:
        try:
            with as_exceptions():
                work.mark_broken()
                work.book.append(
                    ledger.SERIES,
                    series=series.id,
                    configuration_name=series.configuration_name,
                    configuration_sha256=series.configuration_sha256,
                    trials=series.trials,
                    max_steps=series.max_steps,
                    ranks=series.ranks,
                    resumed=series.resume,
                    host=platform.node(),
                    user=os.getuid(),
                    **work.launcher.facts(),
                )
                code = work.missing_trials()
        except ledger.LedgerError as error:  # of what somebody did meanwhile
            work.say(f"error: {error}")
            code = USAGE
        except Interrupted as interrupted:
            work.say(f"{interrupted}; {'every trial has its result' if work.complete else 'go on with --resume'}")
            code = work.verdict() if work.complete else INTERRUPTED
        work.book.check()
        work.summarize(code)
        return code
    except OSError as error:
        if error.errno in DISK_FULL:
            problem, fix = f"{series.folder}: the disk is full", "free some space"
        else:
            problem, fix = str(error), "put that right"
        raise NotSuitable(f"{problem}. What the ledger says is on the disk; {fix}, then go on with --resume") from error


@dataclass
class _HeldSeries:
    """A series that holds its ledger."""

    series: SeriesOrder
    launcher: Launcher
    book: Ledger
    say: Callable[[str], None]
    asked_to_end: bool = False  # by a signal, which a trial that ended well meanwhile has outlived

    def mark_broken(self) -> None:
        """Put the files of every attempt without a result aside, and say so in the ledger."""
        broken = [each for each in self.book.account.attempts if not each.finished and each.marked is None]
        if broken:
            self.clear()  # what still runs writes on into a renamed log, and leaves its picture by the old name
        for each in broken:
            names = trial.put_aside(self.series.folder, each)
            self.book.append(
                ledger.BROKEN,
                trial=each.number,
                attempt=each.attempt,
                reason=each.status,
                files=names,
                log_sha256=ledger.sha256(self.series.folder / names[0]) if names else None,
            )
            kept = f"kept as {', '.join(names)}" if names else "it left no file"
            self.say(f"trial {each.number}, attempt {each.attempt}: {each.status}; {kept}")

    def clear(self) -> None:
        """End what earlier trials have left running."""
        for each in self.launcher.clear(self.series.folder):
            self.say(f"ended what an earlier trial has left running: {each}")

    def missing_trials(self) -> int:
        """Run each trial that has no result yet; returns the exit code of the series."""
        told = not self.series.clear_caches
        for number in range(self.series.trials):
            if number in self.book.account.finished:
                self.say(f"trial {number}: has its result already")
                continue
            admission.usable_folder(self.series.folder)
            admission.of_one_code(self.series, self.book.account)
            self.clear()
            seed = self.series.seed_of(number)
            order = Order(number, self.series.folder, seed, caches_cleared=False, chosen=self.chosen())
            self.launcher.ready(order)
            dropped = self.launcher.drop_caches() if self.series.clear_caches else caches.Dropped(False)
            if not dropped.cleared and not told:
                self.say(f"caches are not dropped between trials, and the logs will say so: {dropped.why_not}")
                told = True
            with later(f"{order.name} has its line in the ledger"):
                end = self.one(replace(order, caches_cleared=dropped.cleared))
            if end["status"] == ledger.INTERRUPTED or (self.asked_to_end and not self.complete):
                self.say("the series ends here; go on with --resume")
                return INTERRUPTED
            if end["status"] == ledger.REFUSED:
                self.say("no trial can run as asked; the series ends here")
                return int(end["exit_code"])
        return self.verdict() if self.complete else BROKEN

    @property
    def complete(self) -> bool:
        """Whether every trial that was asked for has its result; a folder may hold more, of a longer series before."""
        return all(number in self.book.account.finished for number in range(self.series.trials))

    def verdict(self) -> int:
        """The exit code of a series that is complete."""
        finished = self.book.account.finished
        missed = any(finished[number].status == ledger.NOT_MET for number in range(self.series.trials))
        return EPOCHS_SPENT if missed else TARGET_MET

    def chosen(self) -> str | None:
        """By speed in the init of the first trial that has its result: a series has one number format."""
        log = admission.first_of(self.series, self.book.account)
        return None if log is None or not log.chosen else json.dumps(log.chosen)

    def one(self, order: Order) -> ledger.Entry:
        """One trial from its first line in the ledger to its last, which is returned.

        It can be interrupted while it runs, and not between its end and that line: a result would be run again.
        """
        if order.log.exists():
            raise admission.stranger(order.log)
        refused_before = order.refused_log.exists()
        self.say(f"{order.name}: beginning trial {order.number + 1} of {self.series.trials}")
        start = self.book.append(
            ledger.START,
            series=self.series.id,
            trial=order.number,
            attempt=1 + sum(each.number == order.number for each in self.book.account.attempts),
            configuration_sha256=self.series.configuration_sha256,
            caches_cleared=order.caches_cleared,
            seed=order.seed,
        )
        facts: dict[str, Any] = {}
        running: StartedTrial | None = None
        neighbours = (
            Neighbours(lambda process: running is not None and running.owns(process)) if self.launcher.here else None
        )
        try:
            with at_once():
                running = self.launcher.start(order)
                facts = running.facts()
                outcome = watchdog.follow(running, order.log, self.series.patience_s, self.say, name=order.name)
        except Interrupted as interrupted:  # from here on further signals are ignored
            self.asked_to_end = True
            self.say(f"{order.name}: {interrupted}, ending it")
            code = watchdog.halt(running) if running is not None else INTERRUPTED
            outcome = Outcome(code, "signal", why=str(interrupted))
        except NotSuitable as error:
            self._enter_end(order, start, Outcome(NOT_SUITABLE, tail=(str(error),)), facts, refused_before)
            raise
        finally:
            if running is not None:
                if neighbours is not None:
                    facts["beside"] = neighbours.seen()
                running.close()
        if running is not None and outcome.ended_by != "signal":
            outcome = replace(outcome, why="; ".join(filter(None, (outcome.why, running.why()))))
        end = self._enter_end(order, start, outcome, facts, refused_before)
        self.say(f"{order.name}: {end['status']}{': ' * bool(end['reason'])}{end['reason']}")
        return end

    def _enter_end(
        self, order: Order, start: ledger.Entry, outcome: Outcome, facts: dict[str, Any], refused_before: bool
    ) -> ledger.Entry:
        """`refused_before`: whether a log of a refused run lay there when the trial began, which is somebody else's."""
        self.book.check()  # where its folder was moved away, nothing else can be said
        path = order.log
        # what a trial that never began leaves has no result's name; a log of that name would be somebody else's
        if outcome.exit_code == USAGE or not path.is_file():
            path = order.refused_log
        left = path.is_file() and not (refused_before and path == order.refused_log)
        log = trial.read_log(path) if left else None
        first = admission.first_of(self.series, self.book.account)
        verdict = trial.judge(outcome, log, self.series.configuration_sha256, None if first is None else Code.of(first))
        end = {
            "trial": order.number,
            "attempt": start["attempt"],
            "status": verdict.status,
            "reason": verdict.reason,
            "exit_code": outcome.exit_code,
            "minutes": log.minutes if log else None,
            "log": path.name if log else None,
            "log_sha256": log.sha256 if log else None,
        }
        written = path if left else order.refused_log if verdict.status == ledger.REFUSED else order.log
        written = trial.write(written.with_suffix(".json"), order, start, {**end, **facts}, log, outcome.tail)
        entered = self.book.append(ledger.END, **end, record_sha256=ledger.sha256(written))
        if verdict.status in ledger.FINISHED and self.series.also_as is not None:
            self._name_again(path, self.series.also_as.with_name(f"{self.series.also_as.name}_{order.number + 1}.log"))
        return entered

    def _name_again(self, log: Path, link: Path) -> None:
        """A second name costs no trial its result."""
        try:
            link.symlink_to(os.path.relpath(log.resolve(), link.resolve().parent))
        except FileExistsError:
            if link.resolve() != log.resolve():
                self.say(f"{link}: is there already, and is not {log}; it stays as it is")
        except OSError as error:
            self.say(f"{link}: cannot be made a link to {log}: {error.strerror}")

    def summarize(self, code: int) -> None:
        """One line for each trial, and what to type next."""
        self.say(f"{self.series.folder}:")
        last = {each.number: each for each in self.book.account.attempts if each.marked is None}
        for number in range(self.series.trials):
            each = last.get(number)
            if each is None:
                self.say(f"  trial {number}  has no result yet")
                continue
            minutes = (each.end or {}).get("minutes")
            took = f"{minutes:9.3f} min" if minutes is not None else " " * 13
            again = f"  (attempt {each.attempt})" if each.attempt > 1 else ""
            left = (each.end or {}).get("log", names.result(number)) or "no log"
            self.say(f"  trial {number}  {each.status:16} {took}  {left}{again}")
        if code in (TARGET_MET, EPOCHS_SPENT):
            self.say(f"next: python -m harness score {shlex.quote(str(self.series.folder))}")
        elif code in (BROKEN, USAGE):
            first = "what the error says; then " * (code == USAGE)
            self.say(f"next: {first}the same command with --resume runs again what has no result")
