"""The account of a series of trials as its ledger has it, one JSON object a line: what is written is launch/ledger.py's.

The file is only ever appended to. A last line that a crash tore is kept, and the next writer says so in the line after it. Each
line holds the hash of the one before it, and what lines say must be a story that can have happened: a line that was changed,
taken out, doubled or put in is found on reading, with its number. (Ledgers of older versions begin without hashes.)

A trial's end names the hashes of its log and record. So whoever holds the ledger finds a log that was changed or taken out,
whatever number the logs have now: a collection numbers them anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import names

FILE = "ledger.jsonl"
SERIES, START, END, BROKEN, TORN = "series", "trial_start", "trial_end", "trial_broken", "torn_line"

# How a trial ended. Only the first two are results; a trial of any other status is run again by --resume.
SUCCESS, NOT_MET = "success", "target_not_met"
FAILED, REFUSED, INTERRUPTED, STALLED = "failed", "refused", "interrupted", "stalled"
FINISHED = frozenset((SUCCESS, NOT_MET))
STATUSES = FINISHED | {FAILED, REFUSED, INTERRUPTED, STALLED}

PREVIOUS = "previous_sha256"  # of the line before, without its line end
FIRST = "0" * 64  # what the first line says of the one before it
LARGEST = 64 << 20  # bytes; ten thousand trials take five

Entry = dict[str, Any]


class LedgerError(ValueError):
    """The ledger forbids what was asked, or is not what this project wrote; the message says the way out."""


@dataclass(frozen=True)
class Attempt:
    """One start of a trial, and what became of it."""

    number: int
    attempt: int  # of this number, from 1
    start: Entry
    end: Entry | None = None  # None: nobody saw it end
    marked: Entry | None = None  # the BROKEN line: its files were put aside

    @property
    def finished(self) -> bool:
        """Whether it gave a result, good or bad."""
        return self.end is not None and self.end["status"] in FINISHED

    @property
    def log_sha256(self) -> str | None:
        """Of the log that it left; None where its ledger names none, as that of a comparison."""
        found = (self.end or {}).get("log_sha256")
        return found if isinstance(found, str) else None

    @property
    def record_sha256(self) -> str | None:
        """Likewise of result_N.json."""
        found = (self.end or {}).get("record_sha256")
        return found if isinstance(found, str) else None

    @property
    def status(self) -> str:
        return self.end["status"] if self.end is not None else "no end recorded"


@dataclass(frozen=True)
class Account:
    """What a ledger says so far."""

    entries: tuple[Entry, ...]
    torn: bool = False  # whether the last line is half a line
    last_sha256: str = FIRST  # of the last line

    @classmethod
    def read(cls, path: Path) -> Account:
        """LedgerError, with the line, where it is not what this project wrote. A half-written last line is tolerated."""
        content = _content(path)
        lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line]
        parsed = [_entry(line) for _, line in lines]
        for (number, _), entry, after in zip(lines, parsed, parsed[1:], strict=False):
            if entry is None and (after is None or after["event"] != TORN):
                raise LedgerError(f"{path}:{number}: not a line of a ledger; was it edited? Use another results folder")
        story = _Story()
        before, chained = FIRST, False
        for (number, line), entry in zip(lines, parsed, strict=True):
            if entry is not None:
                problem = _broken_chain(entry.get(PREVIOUS), before, chained) or story.problem(entry)
                if problem:
                    raise LedgerError(f"{path}:{number}: {problem}. Was it edited? Use another results folder")
                chained = chained or PREVIOUS in entry
            before = _digest(line)
        torn = bool(parsed) and (parsed[-1] is None or not content.endswith(b"\n"))
        return cls(tuple(entry for entry in parsed if entry is not None), torn, before)

    def followed_by(self, entry: Entry, line: bytes) -> Account:
        """With one line more."""
        return Account((*self.entries, entry), last_sha256=_digest(line))

    @property
    def attempts(self) -> list[Attempt]:
        """Every start, in the order of the file."""
        found: dict[tuple[int, int], Attempt] = {}
        for entry in self.entries:
            if entry["event"] in (START, END, BROKEN):
                key = (entry["trial"], entry["attempt"])
                before = found.get(key)
                found[key] = Attempt(
                    *key,
                    start=before.start if before else entry,
                    end=entry if entry["event"] == END else before.end if before else None,
                    marked=entry if entry["event"] == BROKEN else before.marked if before else None,
                )
        return list(found.values())

    @property
    def finished(self) -> dict[int, Attempt]:
        """The attempt that counts, by trial number."""
        return {each.number: each for each in self.attempts if each.finished}

    def gone(self, here: Collection[str]) -> list[Attempt]:
        """The attempts that count and whose log is not among these hashes: it was changed, or taken out."""
        return [each for _, each in sorted(self.finished.items()) if each.log_sha256 not in (None, *here)]

    def changed(self, files: Mapping[str, str]) -> dict[str, Attempt]:
        """Of files by their names, each with its hash, those that are called as a trial's log and are none of the logs."""
        known = {each.log_sha256 for each in self.attempts}
        named = {names.result(each.number): each for each in self.finished.values() if each.log_sha256 is not None}
        return {name: named[name] for name, digest in files.items() if name in named and digest not in known}

    @property
    def series(self) -> list[Entry]:
        """The lines that open or continue a series."""
        return [entry for entry in self.entries if entry["event"] == SERIES]


def ledgers_in(folder: Path) -> list[Path]:
    """The ledgers beside the logs of a folder: its series' own, or those that a collection has taken along."""
    return sorted(folder.glob("ledger*.jsonl"))


@dataclass(frozen=True)
class Departure:
    """Something that is not as a ledger says."""

    file: Path  # a log, a record, or the ledger
    what: str


def departures(
    folder: Path, read: Mapping[str, str] | None = None, elsewhere: Collection[str] = ()
) -> Iterator[Departure]:
    """What is not as the ledgers of a folder say: logs and records that were changed, trials that were taken out.

    `read`: hashes of logs that are known already, by their names; `elsewhere`: those of logs that lie in another folder now.
    """
    ledgers = ledgers_in(folder)
    logs = names.results_in(folder) if ledgers else []
    files = {path.name: (read or {}).get(path.name) or sha256(path) or "" for path in logs}
    for path in ledgers:
        try:
            account = Account.read(path)
        except (LedgerError, OSError) as error:
            yield Departure(path, str(error).removeprefix(str(path)).strip(": "))
            continue
        changed = account.changed(files) if path.name == FILE else {}  # a collection numbers anew
        for file, attempt in changed.items():
            yield Departure(folder / file, f"not the log that trial {attempt.number} left: it was changed since")
        gone = [each for each in account.gone({*files.values(), *elsewhere}) if each not in changed.values()]
        if gone:
            which = ", ".join(str(each.number) for each in gone)
            of = f"{len(gone)} of {len(account.finished)} trials"
            yield Departure(path, f"{of} changed or taken out since they ended: {which}")
        ended = {each.log_sha256: each for each in account.finished.values()}
        for file, digest in files.items():
            trial, record = ended.get(digest), (folder / file).with_suffix(".json")
            if trial is not None and sha256(record) not in (None, trial.record_sha256 or sha256(record)):
                yield Departure(record, f"not the record that trial {trial.number} left: it was changed since")


def sha256(path: Path) -> str | None:
    """Of a file's content; None where there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> bytes:
    """What the file holds; nothing where there is none. LedgerError for what is no ledger by its kind or size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would make us wait
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > LARGEST:
            raise LedgerError(f"{path}: not a ledger: {seen.st_size} bytes, or no plain file at all")
        return file.read()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _broken_chain(previous: object, before: str, chained: bool) -> str:
    if previous is None:
        return "does not say which line it follows, as those before it do" if chained else ""
    return "" if previous == before else "does not follow the line before it: one was changed, taken out or put in"


class _Story:
    """What the lines so far have told, for what may come next."""

    def __init__(self) -> None:
        self._series: set[str] = set()
        self._started: set[tuple[int, int]] = set()
        self._ended: set[tuple[int, int]] = set()
        self._marked: set[tuple[int, int]] = set()

    def problem(self, entry: Entry) -> str:
        """Why this line cannot come now; empty when it can, and is told."""
        event = entry["event"]
        if event == SERIES:
            self._series.add(entry["series"])
        elif event in (START, END, BROKEN):
            key = (entry["trial"], entry["attempt"])
            name = f"trial {key[0]}, attempt {key[1]}"
            if event == START:
                series = entry.get("series")
                if not isinstance(series, str) or series not in self._series:
                    return f"{name} is of a series that never began"
                return self._once(self._started, key, f"{name} began twice")
            if key not in self._started:
                return f"{name} never began"
            if event == END:
                return self._once(self._ended, key, f"{name} ended twice")
            return self._once(self._marked, key, f"{name} was put aside twice")
        return ""

    @staticmethod
    def _once(told: set[tuple[int, int]], key: tuple[int, int], problem: str) -> str:
        if key in told:
            return problem
        told.add(key)
        return ""


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    event = entry.get("event") if isinstance(entry, dict) else None
    if event not in (SERIES, START, END, BROKEN, TORN):
        return None
    if event == SERIES and not isinstance(entry.get("series"), str):
        return None
    numbers = [entry.get(name) for name in ("trial", "attempt")]
    if event in (START, END, BROKEN) and not all(
        isinstance(each, int) and not isinstance(each, bool) for each in numbers
    ):
        return None
    status = entry.get("status")
    return entry if event != END or (isinstance(status, str) and status in STATUSES) else None
