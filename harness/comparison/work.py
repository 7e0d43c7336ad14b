"""Doing what a plan says is due on this machine, with the driver that it has now, through reboots and kills.

Everything that happened is in the ledger of hosts/host-N before anything else happens, so a machine that was killed, or
rebooted for the next driver, goes on where it was: a run without an end is put aside and done again, behind a new warm-up.
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.comparison import choices, hosts, identity
from harness.comparison.choices import Choices
from harness.comparison.identity import Identity
from harness.comparison.plan import Plan, PlannedRun
from harness.comparison.runs import ComparedRun, invalid
from harness.exit_codes import EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE
from harness.launch import ledger
from harness.results.logfile import read
from harness.results.record import RunRecord
from harness.results.series import find_logs

# What lines that continue the series may be about
DRIVER = "driver"  # which driver an arm has, as seen when its first block began
PROBED = "probe"  # which arms were probed
BOOT = "boot"  # under which boot a block ran
STEPS = "steps"  # of the optimizer, that the plan's epochs are
# What an end says of the run's code and settings, by RunRecord's names
CODE, SETTINGS = ("commit", "tree_dirty"), ("configuration_sha256",)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Here:
    """This machine, as it is now."""

    driver: Identity
    host: str | None
    boot: str

    @classmethod
    def of(cls, facts: Mapping[str, Mapping[str, Any]], boot: str | None = None) -> Here:
        """From facts.describe's tables."""
        gpus = facts["hardware"].get("gpus") or []
        if boot is None:
            boot = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""
        return cls(identity.of(facts["software"], gpus), identity.host(facts["hardware"], gpus), boot)


Probing = Callable[[Plan, int, Path], str]  # probes an arm into a folder; returns why it could not, or ""
Launch = Callable[[Plan, PlannedRun, Path], int]  # runs one item into a folder; returns its exit code
Say = Callable[[str], None]


class NotDue(Exception):
    """This machine is not what the plan's next block needs; the message says what it needs and what to type then."""


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
        """What is due now; returns the exit code. Refused where the driver is not the arm's."""
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
            if self.plan.epochs is not None and items and (code := self._learn_steps(items[0])):
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
                    self.say(self._next_block(item, following))
                    return 0
            self.say(self._finished())
            return 0

    # --- what is due ---

    def _due(self, items: list[PlannedRun]) -> PlannedRun | None:
        done = self.book.account.finished
        return next((item for item in items if item.index not in done), None)

    def _warm_ups(self, items: list[PlannedRun], item: PlannedRun) -> list[PlannedRun]:
        return [each for each in items if each.kind == "warm-up" and each.block == item.block]

    def _learn_steps(self, first: PlannedRun) -> int:
        """By a run of one step, whose log tells how many images an epoch has; 0 when it is known."""
        assert self.plan.epochs is not None
        known = next((entry["steps"] for entry in self._about(STEPS)), None)
        if known is None:
            folder = self.root / "warm-up" / "one-step" / f"host-{self.number}-{int(time.time())}"
            folder.mkdir(parents=True)
            self.say("one step, to learn how many an epoch has")
            code = self.launch(replace(self.plan, epochs=None, max_steps=1), first, folder)
            record = _record(folder)
            if record is None or not record.train_samples or not record.global_batch_size:
                self.say(
                    f"{folder}: its log does not tell train_samples and global_batch_size; use --steps in a new plan"
                )
                return code if code not in (TARGET_MET, EPOCHS_SPENT) else USAGE
            # a last batch that is not full counts: N epochs are whole then, whether the benchmark drops it or not
            known = self.plan.epochs * math.ceil(record.train_samples / record.global_batch_size)
            self._enter(STEPS, steps=known)
        self.plan = replace(self.plan, epochs=None, max_steps=known)
        return 0

    def _put_aside(self) -> None:
        """A start without an end was broken off: its files are no result."""
        for each in self.book.account.attempts:
            if each.end is None and each.marked is None:
                folder = Path(self.root, str(each.start["folder"]))
                put_aside(self.root, folder)
                self.book.append(ledger.BROKEN, trial=each.number, attempt=each.attempt)
                self.say(f"{folder.name} was broken off; it is done again")

    def _suits(self, items: list[PlannedRun], item: PlannedRun) -> None:
        """Refused where this is not the driver, or the boot, that the block needs; else both are entered."""
        if not self.plan.by_hand:
            return
        arm, other = self.plan.arms[item.arm].name, self.plan.arms[1 - item.arm].name
        now, known = self.here.driver, self._drivers()
        then = f"Then type\n    {self.again}"
        if not now.present:
            raise NotDue(
                f"this machine shows no driver, and arm {arm} is one: nothing could tell it from {other}. Arms that need no "
                "driver have a setting: --arm NAME:image=... (or config, commit, env)"
            )
        if now.replaced:
            raise NotDue(
                f"libcuda comes from {now.libcuda}: an image's cuda-compat takes the place of the driver under test. "
                f"Start where the host's own is loaded. {then}"
            )
        if arm in known and now.key != known[arm].key:
            said = "; ".join(identity.differences(known[arm], now))
            raise NotDue(
                f"block {item.block} is of arm {arm}, whose driver was {known[arm]} when its first block began; now {said}. "
                f"Install {arm}'s driver again and reboot. {then}"
            )
        if arm not in known and other in known and now.key == known[other].key:
            raise NotDue(
                f"block {item.block} is of arm {arm}, and the driver is still that of {other}: {now}. Install {arm}'s driver "
                f"and reboot. {then}"
            )
        before = next(reversed(self._about(BOOT)), None)
        if before is not None and before["block"] != item.block and before["boot"] == self.here.boot:
            last = next(each for each in items if each.block == before["block"])
            if last.arm == item.arm:
                raise NotDue(
                    f"block {item.block} is of arm {arm} like the block before, and this is still the same boot: what a boot "
                    f"alone changes is what two blocks are for. Reboot. {then}"
                )
        if arm not in known:
            self._enter(DRIVER, arm=arm, identity=now.plain())
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

    def _drivers(self) -> dict[str, Identity]:
        """Of each arm, as this host's first block of it had it."""
        return {entry["arm"]: identity.from_plain(entry["identity"]) for entry in reversed(self._about(DRIVER))}

    def _enter(self, about: str, **content: Any) -> None:
        """A line that continues the series, with something to remember."""
        self.book.append(ledger.SERIES, series=self.plan.id, about=about, **content)

    def _about(self, about: str) -> list[ledger.Entry]:
        return [entry for entry in self.book.account.series if entry.get("about") == about]

    # --- one run ---

    def _one(self, items: list[PlannedRun], item: PlannedRun) -> int:
        """Run it; 0 when it did its work, else the exit code with which to end."""
        attempt = 1 + sum(each.number == item.index for each in self.book.account.attempts)
        folder = self.plan.folder(self.root, self.number, item)
        if attempt > 1:
            folder = folder.with_name(f"{folder.name}_attempt-{attempt}")
        folder.mkdir(parents=True, exist_ok=True)
        self.say(f"{self._place(items, item)}; {self._left(items)}")
        arm = self.plan.arms[item.arm].name
        where = {"series": self.plan.id, "trial": item.index, "attempt": attempt, "arm": arm, "kind": item.kind}
        self.book.append(ledger.START, **where, folder=str(folder.relative_to(self.root)))
        began = self.clock()
        code = self.launch(self._choices().handed_on(self.plan, item), item, folder)
        seconds = self.clock() - began
        reason = "" if code in (TARGET_MET, EPOCHS_SPENT) else f"ended with exit code {code}"
        record = _record(folder)
        if not reason:
            reason = self._not_the_arm(record) or self._other_work(item.arm, record)
        ran = {} if record is None else {key: getattr(record, key) for key in (*CODE, *SETTINGS)}
        status = ledger.SUCCESS if not reason else ledger.INTERRUPTED if code == INTERRUPTED else ledger.FAILED
        self.book.append(
            ledger.END, **where, status=status, exit_code=code, reason=reason, seconds=round(seconds, 3), **ran
        )
        if not reason:
            if item.kind == "warm-up" and record is not None:
                self._learn_choices(item, record)
            return 0
        aside = put_aside(self.root, folder)
        self.say(f"{folder.name}: {reason}; its files are in {aside}. Go on with\n    {self.again}")
        return code if code not in (TARGET_MET, EPOCHS_SPENT) else NOT_SUITABLE

    def _not_the_arm(self, record: RunRecord | None) -> str:
        """Why the run's own account of its driver is not this machine's; empty where it is."""
        if record is None:
            return "it left no log that can be read"
        if not self.plan.by_hand:
            return ""
        gpus = record.hardware.get("gpus")
        ran = identity.of(record.software, gpus if isinstance(gpus, list) else [])
        if ran.replaced:
            return (
                f"it loaded libcuda from {ran.libcuda}: the image's cuda-compat took the place of the driver under test"
            )
        if ran.key != self.here.driver.key:
            return (
                f"it met another driver than this machine's: {'; '.join(identity.differences(self.here.driver, ran))}"
            )
        return ""

    def _other_work(self, arm: int, record: RunRecord | None) -> str:
        """Why what ran is not what ran before; a comparison would refuse it days later.

        The code is one for both arms, and so is the configuration, unless an arm brings its own.
        """
        if record is None:
            return ""
        arms = self.plan.arms
        own_code = any(each.commit or each.image for each in arms)
        own_settings = own_code or any(each.config for each in arms)
        ran = {key: getattr(record, key) for key in (*CODE, *SETTINGS)}
        if then := self._before(arm if own_code else None, CODE, ran):
            return (
                f"the code is not what {arms[arm].name if own_code else 'the plan'} began with: {_code(ran)}, was "
                f"{_code(then)}; check that out, or begin a new plan"
            )
        if then := self._before(arm if own_settings else None, SETTINGS, ran):
            return (
                f"the configuration is not what {arms[arm].name if own_settings else 'the plan'} began with: SHA-256 "
                f"{str(ran['configuration_sha256'])[:12]}, was {str(then['configuration_sha256'])[:12]}; put the file back, or "
                "begin a new plan"
            )
        return ""

    def _before(self, arm: int | None, keys: Sequence[str], ran: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the first finished run had (of `arm`, or of any), where one of the keys differs from what `ran` has."""
        name = None if arm is None else self.plan.arms[arm].name
        done = (each for each in self.book.account.attempts if each.finished)
        ends = (each.end for each in done if name in (None, each.start.get("arm")))
        first = next((end for end in ends if end is not None and all(key in end for key in keys)), None)
        return first if first is not None and any(first[key] != ran[key] for key in keys) else None

    # --- what is said ---

    def _place(self, items: list[PlannedRun], item: PlannedRun) -> str:
        name = self.plan.arms[item.arm].name
        of = sum(each.block == item.block and each.arm == item.arm and each.kind == item.kind for each in items)
        block = f"block {item.block} of {items[-1].block}, " if item.block else ""
        what = "warm-up, which does not count" if item.kind == "warm-up" else f"{item.kind} {item.number} of {of}"
        return f"host {self.number} of {self.plan.hosts}, {block}arm {name}, {what}"

    def _left(self, items: list[PlannedRun]) -> str:
        """By the median of this host's runs so far."""
        account = self.book.account
        todo = sum(item.index not in account.finished for item in items)
        took = [float(each.end["seconds"]) for each in account.attempts if each.finished and each.end is not None]
        if not took:
            return f"{todo} runs left here"
        minutes = todo * statistics.median(took) / 60
        return (
            f"{todo} runs left here, about {minutes:.0f} min"
            if minutes >= 1
            else f"{todo} runs left here, under a minute"
        )

    def _next_block(self, done: PlannedRun, following: PlannedRun) -> str:
        arm = self.plan.arms[following.arm].name
        known = self._drivers().get(arm)
        if following.arm == done.arm:
            todo = f"Block {following.block} is of arm {arm} again: reboot, with the same driver"
        else:
            todo = f"Block {following.block} is of arm {arm}: install its driver{f' ({known})' if known else ''} and reboot"
        return f"block {done.block} is done. {todo}. Then type\n    {self.again}"

    def _finished(self) -> str:
        a, b = (str(self.root / "arms" / arm.name) for arm in self.plan.arms)
        done = [number for number in range(1, self.plan.hosts + 1) if hosts.complete(self.root, self.plan, number)]
        text = f"all runs of host {self.number} are done; {len(done)} of {self.plan.hosts} hosts are. {self._return_check()}"
        if len(done) < self.plan.hosts:
            text += f"On the next host type\n    {self.again}\n"
        return f"{text}The verdict:\n    python -m harness compare {a} {b}{_allowed(self.plan)}"

    def _return_check(self) -> str:
        """Whether A came back to where it was."""
        name = self.plan.arms[0].name
        if not self.plan.by_hand:
            return ""
        blocks = {item.block: item for item in self.plan.schedule(self.number) if item.arm == 0}
        rates = {}
        for block, item in blocks.items():
            top = self.plan.folder(self.root, self.number, item).parent
            folders = sorted(top.glob(f"host-{self.number}_block-{block}_{item.kind}-*"))
            found = [record.images_per_s for folder in folders if (record := _record(folder)) is not None]
            known = [rate for rate in found if rate]
            if known:
                rates[block] = statistics.mean(known)
        if len(rates) < 2:
            return ""
        first, last = rates[min(rates)], rates[max(rates)]
        return f"Arm {name} at the end ran at {100 * (last / first - 1):+.2f} % of its first block's speed. "


def finished(folder: Path) -> bool:
    """Whether a run lies there that did its work."""
    record = _record(folder)
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


def _code(ran: Mapping[str, Any]) -> str:
    return f"commit {ran['commit']}{' with changes' * bool(ran['tree_dirty'])}"


def _allowed(plan: Plan) -> str:
    """What the arms differ in beside a driver, for `compare`."""
    a, b = plan.arms
    patterns = []
    if a.image != b.image:
        patterns += ["'image.*'", "'software.*'", "'loaded.*'", "commit"]
    if a.config != b.config:
        patterns += ["'configuration.*'", "'hyperparameter.*'", "global_batch_size", "precision"]
    if a.commit != b.commit:
        patterns += ["commit", "tree_dirty"]
    if a.env != b.env:
        patterns += ["software.driver_mode", "software.driver_comparable"]
    return "".join(f" --allow-diff {each}" for each in dict.fromkeys(patterns))


def _record(folder: Path) -> RunRecord | None:
    logs = find_logs(folder) if folder.is_dir() else []
    return read(logs[0]) if logs else None
