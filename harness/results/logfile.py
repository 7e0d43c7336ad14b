"""A result log as a RunRecord, in one pass and bounded memory; `LogReader` follows a log that is still growing.

A run is a success only where the log leaves no other reading: it started, every run_stop came later, in lines and on the
clock, and every one has status success (timeline.Clock). Ranks may repeat lines; the earliest start and stop count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness import outside
from harness.results.lines import Event, Problem, Scanner
from harness.results.parts import Entry, Progress
from harness.results.record import RunRecord
from harness.results.said import number
from harness.results.timeline import Clock, Timeline
from harness.rules import guess_ruleset

PIECE = 1 << 20  # bytes read at once
PROBLEM_LIMIT = 100  # kept; more are counted
KEY_LIMIT = 1_000  # different keys, seeds or tensors of one log
ALIKE_LIMIT = 50_000  # different lines compared; of a longer log it is not known whether its lines are there twice
PER_RANK = frozenset({"init_start", "cache_clear"})  # logged by many ranks, whose lines mix
BACKWARDS_MS = 1000  # by how much time may run backwards from line to line: ranks' clocks differ
TIMELINE = frozenset(
    {"epoch_start", "epoch_stop", "block_start", "block_stop", "eval_start", "eval_stop", "eval_accuracy"}
    | {"throughput", "data_wait_share", "phase_seconds", "tracked_stats", "step_ms_by_rank"}
)


def read(path: Path) -> RunRecord:
    """The record of one file. OSError where it cannot be read, outside.Refused where it is none; no content is an error."""
    reader = LogReader(str(path))
    with outside.opened(path, outside.LOG_LIMIT) as file:
        while piece := file.read(PIECE):
            reader.feed(piece)
    return reader.record(final=True)


def read_whatever(path: Path) -> RunRecord:
    """The record of one file; of one that cannot be read, as `unreadable`."""
    try:
        return read(path)
    except (OSError, outside.Refused) as error:
        return unreadable(path, error)


def unreadable(path: Path, error: OSError | outside.Refused) -> RunRecord:
    """The record of a file that cannot be read at all: one run that is none, with the reason."""
    return replace(LogReader(str(path)).record(final=True), reason=outside.why(path, error))


class LogReader:
    """Takes a log in pieces; `record` tells at any time what it has said so far."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._scanner = Scanner()
        self._hash = hashlib.sha256()
        self._size = 0
        self._why_empty = ""
        self._begin = b""  # the first two bytes, however few come at a time
        self._events = 0
        self._dialect: str | None = None
        self._benchmark: str | None = None
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._malformed = 0
        self._entries: dict[str, Entry] = {}
        self._seeds: dict[int, None] = {}
        self._tensors: dict[str, None] = {}
        self._ranks = 0
        self._init_starts: dict[int, int] = {}  # how often each such line is there to the letter
        self._alike: dict[int, int] = {}  # how often a line is there to the letter, by its hash
        self._run_start = 0  # its hash, of the first
        self._init_start_ms: float | None = None
        self._stats: Event | None = None  # the last tracked_stats
        self._clock = Clock()
        self._timeline = Timeline()
        self._latest: Event | None = None  # by its stamp, of the keys that one rank logs; since the last step back
        self._trained = False  # whether a line of TIMELINE was there
        self._before_start = False  # whether it was said that a line is stamped before run_start

    def feed(self, data: bytes) -> None:
        self._hash.update(data)
        if self._size < 2:
            self._begin += data[:2]
        begin = self._begin[:2]
        if begin in (b"\xff\xfe", b"\xfe\xff") or (len(begin) == 2 and begin.count(b"\0") == 1):
            self._why_empty = "its text is UTF-16, which no tool of MLPerf reads: save it as UTF-8"
        elif begin == b"\0\0":
            self._why_empty = "it begins with zeros: its transfer broke off, or its disk was cut off"
        self._size += len(data)
        self._take(self._scanner.feed(data))

    def record(self, *, final: bool) -> RunRecord:
        """With `final` the file is at its end and a last line without one counts; nothing can be fed afterwards.

        Else it counts where it is whole.
        """
        self._take(self._scanner.finish() if final else self._scanner.whole_rest())
        outcome, reason = self._clock.outcome()
        if not self._events:
            outcome, reason = "empty", self._why_empty or "no line in MLPerf's log format could be read"
        init_stop, start, stop = self._entries.get("init_stop"), self._clock.start, self._clock.stop
        ruleset, guess = self._ruleset()
        copies = self._copies()
        return RunRecord(
            path=self._path,
            sha256=self._hash.hexdigest(),
            size_bytes=self._size,
            lines=self._scanner.lines,
            events=self._events,
            dialect=self._dialect,
            line_benchmark=self._benchmark,
            ruleset=ruleset,
            ruleset_is_guess=guess,
            outcome=outcome,
            reason=reason,
            ranks=self._ranks // copies if self._ranks % copies == 0 else self._ranks,
            init_start_s=None if self._init_start_ms is None else self._init_start_ms / 1000,
            init_stop_s=init_stop.time_s if init_stop else None,
            run_start_s=start.time_ms / 1000 if start else None,
            run_stop_s=stop.time_ms / 1000 if stop else None,
            run_ms=stop.time_ms - start.time_ms if start and stop and stop.time_ms >= start.time_ms else None,
            seeds=tuple(self._seeds),
            epochs=self._timeline.epochs,
            blocks=self._timeline.blocks,
            evaluations=self._timeline.evaluations,
            entries=dict(self._entries),
            problems=tuple(self._problems),
            problem_count=self._problem_count,
            malformed_count=self._malformed,
            tensors=tuple(self._tensors),
            monotonic_s=self._clock.monotonic_s,
            wall_ahead_s=self._clock.wall_ahead_s,
            copies=copies,
            ranks_in_doubt=copies == 1 and self._ranks > 1 and all(n % 2 == 0 for n in self._init_starts.values()),
            progress=_progress(self._stats),
            last_event_s=self._latest.time_ms / 1000 if self._latest else None,
        )

    def _take(self, found: Iterable[Event | Problem]) -> None:
        for each in found:
            problem = each if isinstance(each, Problem) else self._event(each)
            if problem is not None:
                self._problem(problem)

    def _problem(self, problem: Problem) -> None:
        self._problem_count += 1
        self._malformed += problem.kind in ("malformed", "limit")
        self._clock.on_unread(problem)
        if len(self._problems) < PROBLEM_LIMIT:
            self._problems.append(problem)

    def _event(self, event: Event) -> Problem | None:
        self._events += 1
        self._dialect = self._dialect or event.dialect
        self._benchmark = self._benchmark or event.benchmark
        self._note_entry(event)
        self._note_time(event)
        self._note_copy(event)
        if event.key == "tracked_stats":
            self._stats = event
        if event.key in TIMELINE:
            self._timeline.order = self._events
            return self._timeline.on(event)
        if event.key in ("run_start", "run_stop"):
            self._clock.on(event)
        elif event.key == "init_start":
            self._ranks += 1
            self._init_starts[event.alike] = self._init_starts.get(event.alike, 0) + 1
            self._init_start_ms = min(event.time_ms, self._init_start_ms or event.time_ms)
        elif event.key == "seed":
            _collect(self._seeds, _seed(event.value), int)
        elif event.key == "weights_initialization":
            _collect(self._tensors, event.metadata.get("tensor"), str)
        return None

    def _note_entry(self, event: Event) -> None:
        entry = self._entries.get(event.key)
        if entry is not None:
            entry.count += 1
            if entry.other is None and event.value != entry.value:
                entry.other = (event.line, event.value)
        elif len(self._entries) < KEY_LIMIT:
            entry = Entry(event.value, event.line, event.time_ms / 1000, event.metadata, order=self._events)
            self._entries[event.key] = entry
        elif len(self._entries) == KEY_LIMIT:
            self._problem(Problem(event.line, "limit", f"more than {KEY_LIMIT} different keys; the rest is not kept"))
            self._entries[""] = Entry(None, event.line, 0.0, {})  # so that this is said once

    def _note_copy(self, event: Event) -> None:
        alike = event.alike
        if event.key == "run_start" and not self._run_start:
            self._run_start = alike
        if alike in self._alike or len(self._alike) < ALIKE_LIMIT:
            self._alike[alike] = self._alike.get(alike, 0) + 1

    def _note_time(self, event: Event) -> None:
        if event.key in PER_RANK or event.key.startswith("submission_"):  # some stamp the latter with 0
            return
        latest, start = self._latest, self._clock.start
        self._trained = self._trained or event.key in TIMELINE
        # a run_start that is stamped late is a shorter run; the published logs have nothing before it that stands behind it
        early = start is not None and event.time_ms < start.time_ms and event.key != "run_start"
        if latest is None or event.time_ms > latest.time_ms:
            self._latest = event
        elif event.time_ms < latest.time_ms - BACKWARDS_MS:
            # a clock that was set back before the run: its time is right, and MLPerf's tools say nothing
            in_init = start is None and not self._trained and event.key != "run_start"
            self._problem(_backwards(event, latest, "order in init" if in_init else "order"))
            self._latest, self._before_start = event, self._before_start or early  # one step is said once
        if early and start is not None and not self._before_start:
            self._problem(_backwards(event, start))
            self._before_start = True

    def _copies(self) -> int:
        """How often each line is there: as often as run_start, which one process logs once, or a multiple of that.

        A log whose every rank logs all of it in the same milliseconds looks the same; of that one its ranks cannot be told.
        """
        copies = self._alike.get(self._run_start, 1)
        whole = len(self._alike) < ALIKE_LIMIT and all(count % copies == 0 for count in self._alike.values())
        return copies if whole else 1

    def _ruleset(self) -> tuple[str | None, bool]:
        """Our own configuration names it; else what its keys, its data and its date suggest."""
        configuration = self._entries.get("configuration")
        run = configuration.value.get("run") if configuration and isinstance(configuration.value, dict) else None
        if isinstance(run, dict) and isinstance(named := run.get("ruleset"), str):
            return named, False
        if not self._events:
            return None, True
        named = self._entries.get("submission_benchmark")
        benchmark = named.value if named is not None and isinstance(named.value, str) else self._benchmark
        samples = self._entries.get("train_samples")
        count = number(samples.value) if samples is not None else None
        start = self._clock.start.time_ms if self._clock.start else None
        return guess_ruleset(benchmark, self._entries, self._dialect, start, int(count) if count else None), True


def _backwards(event: Event, earlier: Event, kind: Literal["order", "order in init"] = "order") -> Problem:
    back_s = (earlier.time_ms - event.time_ms) / 1000
    text = f"{event.key} is stamped {back_s:.3f} s before {earlier.key} of line {earlier.line}"
    return Problem(event.line, kind, text)


def _progress(stats: Event | None) -> Progress | None:
    if stats is None or not isinstance(stats.value, dict):
        return None
    step, epoch = (number(stats.metadata.get(key)) for key in ("step", "epoch_num"))
    rate = number(stats.value.get("throughput"))
    return Progress(epoch, None if step is None else int(step), rate, stats.time_ms / 1000)


def _seed(value: Any) -> Any:
    """Some log it as text, of which MLPerf's seed checker makes a number too."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value) else value


def _collect(into: dict[Any, None], value: Any, kind: type) -> None:
    if isinstance(value, kind) and not isinstance(value, bool) and len(into) < KEY_LIMIT:
        into[value] = None
