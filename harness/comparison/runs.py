"""The two arms of a comparison: which logs, on which hosts, in which blocks; and which of them are no runs to compare."""

from __future__ import annotations

import glob
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import outside
from harness.comparison import identity
from harness.comparison.identity import Identity
from harness.comparison.planning.plan import PLACE
from harness.exit_codes import SPENT
from harness.names import natural
from harness.results import telemetry
from harness.results.logfile import read
from harness.results.record import RunRecord
from harness.results.series import find_logs, may_be_log
from harness.results.telemetry import Telemetry
from harness.system import variables

NAMES = ("A", "B")
# Beginnings of run_stop's reason with which a run of this harness has done all its work, its target met or not
LEAK = 0.25  # of a boot's shift, up to which runs taken by turns through a reboot are replicates still


@dataclass(frozen=True)
class ComparedRun:
    """One log in an arm."""

    record: RunRecord
    arm: int  # 0 is A, the baseline; 1 is B, the candidate
    alias: str = ""  # what it is called where its place must not be told
    epoch_times: float = 1.0  # by what its epoch's seconds are multiplied to be of as many images as the others'
    first_epoch_alone: bool = False  # whether its first epoch is compared, since another run trained no other one whole

    @cached_property
    def telemetry(self) -> Telemetry | None:
        return telemetry.beside(self.record)

    @cached_property
    def timed(self) -> RunRecord:
        """With the epochs whose times are compared."""
        if not self.first_epoch_alone:
            return self.record
        first = next((place for place, each in enumerate(self.record.epochs, 1) if each.seconds), None)
        return replace(self.record, epochs=self.record.epochs[:first])

    @cached_property
    def folder(self) -> Path:
        """The run's own: where a plan made one, that, though an image's log lies two deeper; else the log's."""
        above = Path(self.record.path).parents
        return next((each for each in above if PLACE.fullmatch(each.name)), above[0])

    @property
    def name(self) -> str:
        """As a person tells it from the others: the end of its path, an arm's folder included where a plan made it."""
        if self.alias:
            return self.alias
        log, folder = Path(self.record.path), self.folder
        return "/".join([*folder.parts[-2 if PLACE.fullmatch(folder.name) else -1 :], log.name])

    def above(self, levels: int) -> list[Path]:
        """The log's folder and those above it, up to so many above the run's own."""
        above = list(Path(self.record.path).parents)
        return above[: above.index(self.folder) + 1 + levels]

    @property
    def own(self) -> bool:
        """Whether this harness wrote the log."""
        return self.record.configuration_sha256 is not None

    @cached_property
    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Those that it used, of the machine that kept the log; all that there were where it does not tell."""
        return tuple(identity.gpus(self.record.hardware, self.record.device_uuids))

    @cached_property
    def host(self) -> str:
        """By which runs of one machine are found."""
        record = self.record
        known = identity.host(record.hardware, record.device_uuids)
        return known or " ".join(each for each in (record.org, record.platform) if each) or "not stated"

    @cached_property
    def boot(self) -> str:
        """Which boot of its machine; "" where the log does not tell, as older ones do not."""
        return identity.boot(self.record.hardware)

    @cached_property
    def machine(self) -> str | None:
        """By all GPUs that the machine has, used or not, as before logs told which were."""
        return identity.host(self.record.hardware)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Variables that change speed or numbers. Of an older log those that its ranks' collectives were told, if any."""
        return identity.environment(self.record)

    def tells_variable(self, name: str) -> bool:
        """Whether the log would have it if it had been set."""
        if self.record.environment is not None:
            return True
        told = isinstance(self.record.table("collectives").get("environment"), dict)
        return told and name.startswith(variables.COLLECTIVES)

    @cached_property
    def driver(self) -> Identity:
        """As the log tells it."""
        return identity.of(self.record.software, self.gpus)


def find(words: str, arm: int) -> list[ComparedRun]:
    """The runs of a path or glob; several with commas. ValueError where there is no log."""
    paths: list[Path] = []
    unread: list[str] = []
    for word in [words] if outside.is_there(words) else words.split(","):  # names may have commas, and brackets
        if not word:
            raise ValueError(f"{NAMES[arm]}: an empty path; name a folder with result_*.txt, or logs; . is this folder")
        if outside.is_there(word) or not glob.has_magic(word):
            paths += find_logs(Path(word), unread.append)
            continue
        matched = sorted(map(Path, glob.glob(word, recursive=True)), key=natural)  # noqa: PTH207 - absolute ones too
        if not matched:
            raise ValueError(f"{NAMES[arm]}: nothing matches {word}; quote a glob so that the shell does not expand it")
        # a glob such as out/* meets the pictures and telemetry beside the logs
        paths += [
            log
            for each in matched
            if outside.is_folder(each) or may_be_log(each)
            for log in find_logs(each, unread.append)
        ]
    if unread:  # what may lie there would be left out in silence
        raise ValueError(f"{NAMES[arm]}: {unread[0]}")
    if not paths:
        raise ValueError(f"{NAMES[arm]}: no result log under {words}; name a folder with result_*.txt, or logs")
    return [ComparedRun(_read(path), arm) for path in dict.fromkeys(map(outside.real, paths))]


def check_apart(runs: Sequence[ComparedRun]) -> None:
    """ValueError where a log, or a copy of it, is there twice: it would count as two runs."""
    seen: dict[str, ComparedRun] = {}
    for run in runs:
        other = seen.setdefault(run.record.sha256, run)
        if other is not run and run.record.events:
            where = f"both {NAMES[0]} and {NAMES[1]}" if other.arm != run.arm else NAMES[run.arm]
            raise ValueError(
                f"the same log is in {where}: {other.record.path} and {run.record.path}; a run counts once. "
                "Take one of them out"
            )


@dataclass(frozen=True)
class Invalid:
    """A run that no figure may be taken from, and why."""

    run: ComparedRun
    reason: str


def invalid(runs: Iterable[ComparedRun]) -> list[Invalid]:
    """Every run that is none: it did not finish its work, or its clocks contradict each other."""
    return [Invalid(run, reason) for run in runs if (reason := _why_invalid(run))]


def _why_invalid(run: ComparedRun) -> str:
    record = run.record
    if record.outcome in ("empty", "invalid", "unfinished"):
        return record.reason
    if record.outcome == "aborted" and run.own and not record.reason.startswith(SPENT):
        return f"it did not finish its work: {record.reason}"
    if record.malformed_count and run.own:  # whose lines are whole, or the run breaks
        first = next((each for each in record.problems if each.kind in ("malformed", "limit")), record.problems[0])
        return f"lines of it cannot be read ({record.malformed_count}), the first line {first.line}: {first.text}"
    if record.resumed_from_epoch is not None:
        return f"it was resumed from a checkpoint after epoch {record.resumed_from_epoch}: no timed run"
    if record.backwards:
        return f"{record.backwards} stops before it starts: somebody set the clock, or edited the log"
    if apart := record.clock_was_set:
        return f"its clocks disagree from run_start to run_stop: {apart}; somebody set the clock, or edited the log"
    return ""


def paired_hosts(runs: Iterable[ComparedRun]) -> set[str]:
    """Those that ran both arms: only within a host do the arms differ in nothing else."""
    hosts: dict[str, set[int]] = {}
    for run in runs:
        hosts.setdefault(run.host, set()).add(run.arm)
    return {host for host, arms in hosts.items() if len(arms) == 2}


def entering(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The runs that figures are made from: those of paired hosts; all where there is none, which takes a person's word."""
    hosts = paired_hosts(runs)
    return [run for run in runs if not hosts or run.host in hosts]


def of_one_size(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Epochs of unlike numbers of images, as whole batches of unlike sizes leave, as if all had the largest's."""
    images = [run.record.epoch_samples for run in runs]
    most = max((each for each in images if each), default=0)
    if not all(images) or set(images) == {most}:
        return list(runs)
    return [replace(run, epoch_times=most / (each or most)) for run, each in zip(runs, images, strict=True)]


def of_like_epochs(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Where a run trained one epoch whole, or a part of one, the first is compared of all: it pays for caches and warm-up.

    By each run's own count the first would be in one arm and not in the other: of a batch by which the same steps end sooner,
    of seeds that met their target at once.
    """
    whole = [sum(bool(each.seconds) for each in run.record.epochs) for run in runs if run.record.epochs]
    if not whole or min(whole) > 1 or max(whole) <= 1:
        return list(runs)
    return [replace(run, first_epoch_alone=True) for run in runs]


def by_host(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """The runs that figures are made from, each host's by themselves; all as one host's where a person's word makes them so."""
    hosts: dict[str, list[ComparedRun]] = {}
    paired = paired_hosts(runs)
    for run in entering(runs):
        hosts.setdefault(run.host if paired else "", []).append(run)
    return list(hosts.values())


def of_arms(
    runs: Sequence[ComparedRun],
    value: Callable[[ComparedRun], float | None],
    middle: Callable[[Sequence[float]], float] = statistics.fmean,
) -> tuple[float | None, float | None]:
    """Of each arm the mean over hosts of each host's middle; None of an arm without any.

    Of the hosts that tell it of both arms, if any does: the difference of the arms is then within hosts.
    """
    told = [
        tuple([found for run in own if run.arm == arm and (found := value(run)) is not None] for arm in (0, 1))
        for own in by_host(runs)
    ]
    chosen = [each for each in told if all(each)] or told
    middles = [[middle(each[arm]) for each in chosen if each[arm]] for arm in (0, 1)]
    a, b = (statistics.fmean(each) if each else None for each in middles)
    return a, b


def ordered(runs: Iterable[ComparedRun]) -> list[ComparedRun]:
    """By the time at which they started; those without one last."""
    return sorted(runs, key=lambda run: (run.record.run_start_s is None, run.record.run_start_s or 0.0))


def blocks(runs: Sequence[ComparedRun]) -> dict[int, int]:
    """Each run's block, by its index. A block of both arms has its runs for replicates; one of one arm is a replicate itself.

    A reboot, or a driver's installation, may shift all runs up to the next: these are what was repeated, and not the runs. They
    are the boots that the logs tell, parted where the driver changed within one. Where only the drivers tell that there was
    a reboot, as in older logs, a plan's folders name the blocks (two of one arm may follow each other), or else they are
    the runs between which the arm did not change. Where both arms ran in the same boots, as two images by turns, each run is
    a replicate: all 0 here. So it is where no host is paired and each arm has one block (see `one_boot_each`).
    """
    drivers = [{run.driver.key for run in runs if run.arm == arm} for arm in (0, 1)]
    one = dict.fromkeys(range(len(runs)), 0)
    if any(run.record.run_start_s is None for run in runs):
        return one
    booted, apart = all(run.boot for run in runs), not paired_hosts(runs)
    if booted and (apart or drivers[0] == drivers[1]):
        if _leak(runs) <= LEAK or one_boot_each(runs):
            return one
        return _numbered([(run.boot, run.arm) for run in runs])
    if drivers[0] == drivers[1]:
        return one
    if booted:
        return _stretches(runs)
    places = [run.folder for run in runs]
    named = [PLACE.fullmatch(place.name) for place in places]
    if all(named):  # of several plans each has its own block 1
        return _numbered([(place.parents[2], found[2]) for place, found in zip(places, named, strict=True) if found])
    return _stretches(runs)


def one_boot_each(runs: Sequence[ComparedRun]) -> bool:
    """Whether no host ran both arms, and each arm in one boot, another than the other's: a person's word says that the hosts
    are alike, and nothing says what a boot shifts.
    """
    boots = [{run.boot for run in runs if run.arm == arm} for arm in (0, 1)]
    return not paired_hosts(runs) and all(len(each) == 1 and "" not in each for each in boots) and boots[0] != boots[1]


def _leak(runs: Sequence[ComparedRun]) -> float:
    """The largest share of what one boot shifts that is left in the difference of the arms: 1 with a boot for each arm."""
    shares = [Counter[tuple[str, str]](), Counter[tuple[str, str]]()]
    own = paired_hosts(runs)  # else all are taken as one host's
    hosts = [run.host if own else "" for run in runs]
    whole = [Counter(host for run, host in zip(runs, hosts, strict=True) if run.arm == arm) for arm in (0, 1)]
    for run, host in zip(runs, hosts, strict=True):
        if whole[1 - run.arm][host]:
            shares[run.arm][host, run.boot] += 1
    return max(
        (
            abs(shares[0][key] / whole[0][key[0]] - shares[1][key] / whole[1][key[0]])
            for key in {*shares[0], *shares[1]}
        ),
        default=0.0,
    )


def _numbered(keys: Sequence[Hashable]) -> dict[int, int]:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return {index: numbers[key] for index, key in enumerate(keys)}


def _stretches(runs: Sequence[ComparedRun]) -> dict[int, int]:
    """Runs that followed each other on a host with neither the arm nor the boot changed."""
    found: dict[int, int] = {}
    last: dict[str, tuple[tuple[int, str], int]] = {}  # host -> arm and boot, number of its block
    for index in sorted(range(len(runs)), key=lambda i: runs[i].record.run_start_s or 0.0):
        run = runs[index]
        key = run.arm, run.boot
        before, number_ = last.get(run.host, (key, 0))
        number_ += key != before
        last[run.host] = (key, number_)
        found[index] = number_
    return found


def _read(path: Path) -> RunRecord:
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
