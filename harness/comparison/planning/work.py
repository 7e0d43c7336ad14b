"""Doing what a plan says is due on this machine, with the driver that it has now, through reboots and kills.

Everything that happened is in the ledger of hosts/host-N before anything else happens, so a machine that was killed, or
rebooted for the next driver, goes on where it was: a run without an end is put aside and done again, behind a new warm-up.
"""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.comparison import identity
from harness.comparison.identity import Identity
from harness.comparison.planning import as_planned, choices, drivers, hosts, work_text
from harness.comparison.planning.choices import Choices
from harness.comparison.planning.plan import Plan, PlannedRun
from harness.comparison.runs import ComparedRun, invalid
from harness.execution import signals
from harness.exit_codes import EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE
from harness.launch import ledger
from harness.results.record import RunRecord

# What lines that continue the series may be about
PROBED = "probe"  # which arms were probed
BOOT = "boot"  # under which boot a block ran
STEPS = "steps"  # of the optimizer, that the plan's epochs are


@dataclass(frozen=True)
class Here:
    """This machine, as it is now."""

    driver: Identity
    host: str | None
    boot: str

    @classmethod
    def of(cls, facts: Mapping[str, Mapping[str, Any]], boot: str | None = None) -> Here:
        """From facts.describe's tables."""
        if boot is None:
            boot = identity.boot(facts["hardware"])
        return cls(
            identity.of(facts["software"], identity.gpus(facts["hardware"])), identity.host(facts["hardware"]), boot
        )


Probing = Callable[[Plan, int, Path], str]  # probes an arm into a folder; returns why it could not, or ""
Launch = Callable[[Plan, PlannedRun, Path], int]  # runs one item into a folder; returns its exit code
Say = Callable[[str], None]


class NotDue(Exception):
    """This machine is not what the plan's next block needs; the message says what it needs and what to type then."""


def claim(root: Path, plan: Plan, here: Here, again: str, asked: int | None = None) -> int:
    """This machine's number in the plan. NotDue where it has no driver of its own to test: it would take a place for good, as
    another machine than it is with one.
    """
    then = f"Then type\n    {again}"
    if plan.by_hand and not here.driver.present:
        a, b = (arm.name for arm in plan.arms)
        raise NotDue(
            f"this machine shows no driver, and arms {a} and {b} are drivers: nothing could tell them apart. Load its "
            f"driver, or go to a machine that has one. {then}\n"
            "Arms that need no driver have a setting: --arm NAME:image=... (or config, commit, env)"
        )
    if plan.by_hand and here.driver.replaced:
        raise NotDue(
            f"libcuda comes from {here.driver.libcuda}: an image's cuda-compat takes the place of the driver under test. "
            f"Start where the host's own is loaded. {then}"
        )
    return hosts.claim(root, plan, here.host, asked)


@dataclass
class Work:
    """One call of `compare run`."""

    root: Path
    plan: Plan
    number: int  # of this host, from 1
    here: Here
    launch: Launch
    say: Say
    again: str  # the command line that goes on
    probe: Probing | None = None
    clock: Callable[[], float] = time.monotonic
    book: ledger.Ledger = field(init=False)

    def run(self) -> int:
        """What is due now; returns the exit code. NotDue where the driver is not the arm's."""
        hosts.same_plan(self.root, self.plan)
        with ledger.opened(hosts.folder(self.root, self.number)) as self.book:
            self._enter(
                hosts.CALL,
                host=self.here.host,
                boot=self.here.boot,
                driver=self.here.driver.plain(),
                plan_sha256=self.plan.digest,
            )
            self._put_aside()
            items = self.plan.schedule(self.number)
            if self.plan.epochs is not None and items and (code := self._learn_steps(items)):
                return code
            warm: set[int] = set()  # blocks that this process has warmed up
            while (item := self._due(items)) is not None:
                if item.block not in warm:
                    self._suits(items, item)
                    warm.add(item.block)
                    for arm in dict.fromkeys(each.arm for each in items if each.block == item.block):
                        self._probe(arm)
                    for each in self._warm_ups(items, item):
                        if code := self._one(items, each):
                            return code
                    continue
                if code := self._one(items, item):
                    return code
                following = self._due(items)
                if following is not None and following.block != item.block:
                    known = drivers.known(self.root, self.plan, self.number)
                    self.say(work_text.next_block(self.plan, known, item, following, self.again))
                    return 0
            self.say(work_text.finished(self.root, self.plan, self.number, self.again))
            return 0

    # --- what is due ---

    def _due(self, items: list[PlannedRun]) -> PlannedRun | None:
        done = self.book.account.finished
        return next((item for item in items if item.index not in done), None)

    def _warm_ups(self, items: list[PlannedRun], item: PlannedRun) -> list[PlannedRun]:
        return [each for each in items if each.kind == "warm-up" and each.block == item.block]

    def _learn_steps(self, items: list[PlannedRun]) -> int:
        """By a run of one step, whose log tells how many images an epoch has; 0 when it is known.

        Of each arm where both may have a batch of their own.
        """
        assert self.plan.epochs is not None
        known = next((entry["steps"] for entry in self._about(STEPS)), None)
        if known is None:
            alike = not any(arm.config or arm.commit or arm.image for arm in self.plan.arms)
            found: dict[str, int] = {}
            for arm in (items[0].arm,) if alike else (0, 1):
                item = next(each for each in items if each.arm == arm)
                name = self.plan.arms[arm].name
                folder = self.root / "warm-up" / "one-step" / f"host-{self.number}-{name}-{int(time.time())}"
                folder.mkdir(parents=True)
                self.say(f"one step of arm {name}, to learn how many an epoch has")
                code = self.launch(replace(self.plan, epochs=None, max_steps=1), item, folder)
                if code not in (TARGET_MET, EPOCHS_SPENT):
                    return self._broken_off(folder, f"ended with exit code {code}", code)
                record = as_planned.record_in(folder)
                if record is None or not record.train_samples or not record.global_batch_size:
                    self.say(
                        f"{folder}: its log does not tell train_samples and global_batch_size; use --steps in a new plan"
                    )
                    return USAGE
                # a last batch that is not full counts: N epochs are whole then, whether the benchmark drops it or not
                found[name] = self.plan.epochs * math.ceil(record.train_samples / record.global_batch_size)
            if len(set(found.values())) > 1:
                counts = " and ".join(f"{count} steps of arm {name}" for name, count in found.items())
                self.say(
                    f"--epochs {self.plan.epochs}: these are {counts}, and a comparison is of as many steps; "
                    "use --steps in a new plan"
                )
                return USAGE
            known = next(iter(found.values()))
            self._enter(STEPS, steps=known)
        self.plan = replace(self.plan, epochs=None, max_steps=known)
        return 0

    def _put_aside(self) -> None:
        """A start without an end was broken off: its files are no result. Nor are those of a run that failed, where the call
        that saw it ended before they were put aside."""
        for each in self.book.account.attempts:
            if each.finished:
                continue
            folder = Path(self.root, str(each.start["folder"]))
            put_aside(self.root, folder)
            if each.end is None and each.marked is None:
                self.book.append(ledger.BROKEN, trial=each.number, attempt=each.attempt)
                self.say(f"{folder.name} was broken off; it is done again")

    def _suits(self, items: list[PlannedRun], item: PlannedRun) -> None:
        """NotDue where this is not the driver, or the boot, that the block needs; else both are entered."""
        if not self.plan.by_hand:
            return
        arm, now = self.plan.arms[item.arm].name, self.here.driver
        then = f"Then type\n    {self.again}"
        if why_not := drivers.why_not(self.root, self.plan, self.number, item.arm, now):
            raise NotDue(f"block {item.block} is of arm {arm}, {why_not}. Install {arm}'s driver and reboot. {then}")
        before = next(reversed(self._about(BOOT)), None)
        if before is not None and before["block"] != item.block and before["boot"] == self.here.boot:
            last = next(each for each in items if each.block == before["block"])
            if last.arm == item.arm:
                raise NotDue(
                    f"block {item.block} is of arm {arm} like the block before, and this is still the same boot: what a boot "
                    f"alone changes is what two blocks are for. Reboot. {then}"
                )
        if arm not in [entry["arm"] for entry in self._about(drivers.DRIVER)]:
            self._enter(drivers.DRIVER, arm=arm, identity=now.plain())
        self._enter(BOOT, block=item.block, boot=self.here.boot)
        self.say(f"block {item.block} of {items[-1].block}, arm {arm}: {now}")

    def _probe(self, arm: int) -> None:
        """Once for each arm on this host, as it begins; it explains, and so costs nothing where it is not available."""
        name = self.plan.arms[arm].name
        if self.probe is None or not self.plan.probe or name in [entry["arm"] for entry in self._about(PROBED)]:
            return
        self.say(f"probing arm {name}: launches, copies, products, decoders, the step; about a minute")
        why_not = self.probe(self.plan, arm, self.root / "arms" / name)
        if why_not:
            self.say(f"arm {name} has no probe: {why_not}; its runs go on without")
        self._enter(PROBED, arm=name, why_not=why_not)

    def _learn_choices(self, item: PlannedRun, record: RunRecord) -> None:
        arm, known = self.plan.arms[item.arm], self._choices()
        if not record.chosen or known.of_arm(arm.name):
            return
        common = known.of_configuration(arm.config)
        self._enter(choices.CHOSEN, arm=arm.name, config=arm.config, chosen=dict(record.chosen))
        if common is not None and common != record.chosen:
            theirs, taken = choices.listed(record.chosen), choices.listed(common)
            self.say(f"arm {arm.name} chose {theirs} by its speed; its runs take {taken}, as the other arm's do")

    def _choices(self) -> Choices:
        return Choices(self._about(choices.CHOSEN))

    def _enter(self, about: str, **content: Any) -> None:
        """A line that continues the series, with something to remember."""
        self.book.append(ledger.SERIES, series=self.plan.id, about=about, **content)

    def _about(self, about: str) -> list[ledger.Entry]:
        return [entry for entry in self.book.account.series if entry.get("about") == about]

    # --- one run ---

    def _one(self, items: list[PlannedRun], item: PlannedRun) -> int:
        """Run it; 0 when it did its work, else the exit code with which to end.

        It can be interrupted while it runs, and not between its end and the ledger's line of that: it would be run again.
        """
        with signals.later():
            return self._entered(items, item)

    def _entered(self, items: list[PlannedRun], item: PlannedRun) -> int:
        attempt = 1 + sum(each.number == item.index for each in self.book.account.attempts)
        folder = self.plan.folder(self.root, self.number, item)
        if attempt > 1:
            folder = folder.with_name(f"{folder.name}_attempt-{attempt}")
        folder.mkdir(parents=True, exist_ok=True)
        self.say(f"{work_text.place(self.plan, self.number, items, item)}; {work_text.left(self.book.account, items)}")
        arm = self.plan.arms[item.arm].name
        where = {"series": self.plan.id, "trial": item.index, "attempt": attempt, "arm": arm, "kind": item.kind}
        self.book.append(ledger.START, **where, folder=str(folder.relative_to(self.root)))
        began = self.clock()
        code = self.launch(self._choices().handed_on(self.plan, item), item, folder)
        seconds = self.clock() - began
        reason = "" if code in (TARGET_MET, EPOCHS_SPENT) else f"ended with exit code {code}"
        record = as_planned.record_in(folder)
        if not reason:
            reason = as_planned.not_the_arm(self.plan, item.arm, self.here.driver, record) or as_planned.other_work(
                self.plan,
                item.arm,
                record,
                self.book.account.attempts,
                hosts.attempts_of_others(self.root, self.plan, self.number),
            )
        ran = {} if record is None else as_planned.ran(record)
        status = ledger.SUCCESS if not reason else ledger.INTERRUPTED if code == INTERRUPTED else ledger.FAILED
        self.book.append(
            ledger.END, **where, status=status, exit_code=code, reason=reason, seconds=round(seconds, 3), **ran
        )
        if not reason:
            if item.kind == "warm-up" and record is not None:
                self._learn_choices(item, record)
            return 0
        return self._broken_off(folder, reason, code if code not in (TARGET_MET, EPOCHS_SPENT) else NOT_SUITABLE)

    def _broken_off(self, folder: Path, reason: str, code: int) -> int:
        """Put the run's files aside and say why, and how to go on; returns the exit code."""
        aside = put_aside(self.root, folder)
        self.say(f"{folder.name}: {reason}; its files are in {aside}. Go on with\n    {self.again}")
        return code


def finished(folder: Path) -> bool:
    """Whether a run lies there that did its work."""
    record = as_planned.record_in(folder)
    return record is not None and not invalid([ComparedRun(record, 0)])


def put_aside(root: Path, folder: Path) -> Path | None:
    """Move what a broken-off run left to ROOT/broken, where nothing counts it; nothing is deleted."""
    if not folder.exists():
        return None
    aside = next(
        path for number in itertools.count(1) if not (path := root / "broken" / f"{folder.name}.{number}").exists()
    )
    aside.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, aside)
    return aside
