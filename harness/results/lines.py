"""From the bytes of a result log to its events: one pass, bounded memory, no input that stops it.

Three dialects, each behind any prefix (a rank, a time, a colour):

    :::MLLOG {"time_ms": .., "key": .., "value": .., "metadata": {..}}      rulesets 0.7.0 and later
    :::MLL <seconds> <key>: {"value": .., "metadata": {..}}                 ruleset 0.6.0
    :::MLPv0.5.0 <benchmark> <seconds> (<file>:<line>) <key>: <json>        v0.5, also written :::MLLv0.5.0

A marked line that cannot be read is a Problem with its line number, never silence: MLPerf's parser fails such a file.
What lies between marked lines is skipped by a search for the marker and never decoded, so millions of lines of other
output cost little. This knows nothing of what the keys mean (see logfile.py).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from harness.results import text_json
from harness.results.text_json import shortened

MARK = b":::ML"
MLLOG = ":::MLLOG"
LINE_LIMIT = (
    1 << 18
)  # bytes of one marked line; the longest known (a whole configuration, a machine of 16) has some 20 kB
RECORDS_LIMIT = 1_000  # marks in one line; ranks that wrote into each other's lines left at most a handful

TIME_LIMIT_MS = 253_402_300_800_000.0  # the year 10000, which no calendar of Python's has

Dialect = Literal["mllog", "0.6", "0.5"]

OLD = r":::ML[LP](?:v[\d.]+)?"  # the mark of v0.5 and 0.6
_OLD = re.compile(
    OLD + r"\s+(?:(?P<benchmark>[A-Za-z_]\w*)\s+)?(?P<seconds>\d{1,12}(?:\.\d*)?)\s+"
    r"(?:\((?P<where>[^)]*)\)\s+)?(?P<key>\w+)\s*(?::\s*(?P<json>.*))?",
    re.ASCII | re.DOTALL,
)


class Event(NamedTuple):  # quicker to make than a frozen dataclass, and there are millions
    """One marked line, read."""

    line: int  # from 1
    time_ms: float  # since 1970
    key: str
    value: Any  # plain JSON; every float in it is finite
    metadata: dict[str, Any]
    dialect: Dialect
    benchmark: str | None = None  # v0.5 says it in every line
    alike: int = 0  # a hash of the line as it stands, equal for copies


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line."""

    line: int
    kind: Literal[
        "malformed", "trailing", "incomplete", "partial", "limit", "order", "order in init", "conflict", "repeated"
    ]
    text: str
    could_be_end: bool = False  # what could not be read may have been a run_stop


class Scanner:
    """Takes a log in pieces of any size and yields its events and problems in order.

    A line ends as MLPerf's parser has it: LF, CR LF, or CR alone, which progress bars write.
    """

    def __init__(self) -> None:
        self.lines = 0  # complete lines so far
        self._rest = b""  # the beginning of a line whose end has not come
        self._too_long = False
        self._return = False  # the last byte was a CR, and what follows tells whether it ends a line by itself

    def feed(self, data: bytes) -> Iterator[Event | Problem]:
        if self._return:
            data = b"\r" + data
        self._return = data.endswith(b"\r")
        if self._return:
            data = data[:-1]
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield from self._feed(data)

    def _feed(self, data: bytes) -> Iterator[Event | Problem]:
        text = self._rest + data if self._rest else data
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        if end:
            if self._too_long:  # its problem was told when it grew too long
                self._too_long = False
                start = text.index(b"\n") + 1
                self.lines += 1
            else:
                start = 0
            yield from self._complete_lines(text, start, end)
        yield from self._trim_rest()

    def finish(self) -> Iterator[Event | Problem]:
        """What a last line without its end says; call it once, at the end of the file."""
        if self._return:
            self._return = False
            yield from self._feed(b"\n")
        rest, self._rest = self._rest, b""
        mark = _next_mark(rest)
        if mark < 0 or self._too_long:
            return
        for each in _read(rest[mark:], self.lines + 1):
            if isinstance(each, Problem) and each.kind == "malformed":
                text = "the last line breaks off: still being written, or cut short"
                yield Problem(each.line, "partial", text, each.could_be_end)
            else:
                yield each

    def whole_rest(self) -> Iterator[Event | Problem]:
        """What a last line says that is whole but for its end, of a file that may still grow."""
        mark = -1 if self._too_long else _next_mark(self._rest)
        if mark < 0 or not self._rest.rstrip().endswith(b"}"):
            return
        found = list(_read(self._rest[mark:], self.lines + 1))
        if all(isinstance(each, Event) or each.kind == "incomplete" for each in found):
            self._rest = b""
            yield from found

    def _complete_lines(self, text: bytes, start: int, end: int) -> Iterator[Event | Problem]:
        counted = start
        find = _find_exact if text.count(MARK) == text.lower().count(MARK.lower()) else _next_mark
        mark = find(text, start, end)
        while mark >= 0:
            self.lines += text.count(b"\n", counted, mark)
            stop = text.index(b"\n", mark)
            if stop - mark > LINE_LIMIT:
                yield _too_long(self.lines + 1)
            elif (event := _whole_record(text[mark:stop], self.lines + 1)) is not None:
                yield event
            else:
                yield from _read(text[mark:stop], self.lines + 1)
            self.lines += 1
            counted = stop + 1
            mark = find(text, counted, end)
        self.lines += text.count(b"\n", counted, end)

    def _trim_rest(self) -> Iterator[Problem]:
        """Keep of an unfinished line only what may matter, and never more than LINE_LIMIT."""
        mark = -1 if self._too_long else _next_mark(self._rest)
        if mark < 0:
            self._rest = self._rest[-len(MARK) + 1 :]
        else:
            self._rest = self._rest[mark:]
            if len(self._rest) > LINE_LIMIT:
                self._rest = b""
                self._too_long = True
                yield _too_long(self.lines + 1)


_ANY_MARK = re.compile(re.escape(MARK), re.IGNORECASE)  # in bytes, as `_MARK` in text


def _find_exact(text: bytes, start: int, end: int) -> int:
    return text.find(MARK, start, end)


def _next_mark(text: bytes, start: int = 0, end: int | None = None) -> int:
    """Of a mark in any case: what is not written as it must be is told, not passed over."""
    found = _ANY_MARK.search(text, start, len(text) if end is None else end)
    return found.start() if found else -1


def _too_long(line: int) -> Problem:
    return Problem(line, "limit", f"a marked line of more than {LINE_LIMIT} bytes; not read", could_be_end=True)


def _whole_record(raw: bytes, line: int) -> Event | None:
    """The event of a line that is one complete record and nothing else, as nearly all are; None: see `_read`."""
    if not raw.startswith(b":::MLLOG") or any(each in raw for each in STRICTLY):
        return None
    text = raw[len(MLLOG) :].decode("utf-8", "replace")
    try:
        content = text_json.decode(text)
    except (ValueError, RecursionError):
        return None
    if type(content) is not dict or "value" not in content:
        return None
    key: Any = content.get("key")
    time_ms: Any = content.get("time_ms")
    metadata: Any = content.get("metadata")
    if type(key) is not str or not key or type(metadata) is not dict:
        return None
    if type(time_ms) not in (int, float) or not 0 <= time_ms < TIME_LIMIT_MS:
        return None
    return Event(line, float(time_ms), key, content["value"], metadata, "mllog", None, hash(raw))


STRICTLY = (b"run_st", b"eval_acc", b"\\u")  # what an object that says a key twice could falsify, or hide
_MARK = re.compile(r":::ML", re.IGNORECASE)
_SPACE = re.compile(r"\s*")
_OLD_MARK = re.compile(rf"{OLD}\s")
_ODDLY = re.compile(rf":::MLLOG\W|{OLD}\s", re.IGNORECASE)  # a mark in letters that MLPerf's parser does not look for


def _read(raw: bytes, line: int) -> Iterator[Event | Problem]:
    """The events of one line, from its first mark on: usually one, more where ranks wrote into each other's lines."""
    text = raw.decode("utf-8", "replace").rstrip("\r")
    at, count = 0, 0
    while at >= 0:
        count += 1
        if count > RECORDS_LIMIT:
            excess = f"more than {RECORDS_LIMIT} marks in one line; the rest is not read"
            yield Problem(line, "limit", excess, could_be_end=True)
            return
        if text.startswith(MLLOG, at):
            at = yield from _read_record(text, at, line)
        elif _OLD_MARK.match(text, at):
            yield _read_old(text[at:], line)
            return
        else:  # any other word after the colons is no log line, except for ours written otherwise
            if text[at : at + 5] != ":::ML" and _ODDLY.match(text, at):
                problem = f"the mark is not written {MLLOG}, and MLPerf's parser passes it over: {shortened(text[at:].strip())}"
                yield Problem(line, "malformed", problem, could_be_end(text[at:]))
            at = _mark_after(text, at + 5)


def _mark_after(text: str, at: int) -> int:
    found = _MARK.search(text, at)
    return found.start() if found else -1


def _read_record(text: str, mark: int, line: int) -> Generator[Event | Problem, None, int]:
    """One MLLOG record of a line; returns where the next mark is, or -1."""
    at = mark + len(MLLOG)
    begin = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
    try:
        content, end = text_json.decode_at(text, begin)
    except (ValueError, RecursionError) as error:
        following = _mark_after(text, at)
        piece = text[at : following if following >= 0 else len(text)]
        yield Problem(line, "malformed", f"{text_json.reason(error)}: {shortened(piece.strip())}", could_be_end(piece))
        return following
    yield from _event(content, line)
    following = _mark_after(text, end)
    trailing = text[end:].strip()
    if f"{MLLOG} " in trailing:
        yield Problem(line, "trailing", "another record after this one: MLPerf's parser takes the last of a line alone")
    elif trailing:
        told = f"text after the record, which MLPerf's parser rejects: {shortened(trailing)}"
        yield Problem(line, "trailing", told)
    return following


_KEY = re.compile(r'"key"\s*:\s*"([^"]{0,200})"')


def could_be_end(text: str) -> bool:
    """Whether what cannot be read may have been a run_stop: it names it, or no other key as a whole."""
    keys = _KEY.findall(text)
    return "run_stop" in text.lower() or not keys or any("\\" in key for key in keys)


def _event(content: Any, line: int) -> Iterator[Event | Problem]:
    """An Event of a decoded MLLOG object, and what it lacks."""
    if not isinstance(content, dict):
        yield Problem(line, "malformed", "the record is no JSON object", could_be_end=True)
        return
    key, time_ms = content.get("key"), content.get("time_ms")
    if not isinstance(key, str) or not key:
        yield Problem(line, "malformed", "the record has no key", could_be_end=True)
        return
    if isinstance(time_ms, bool) or not isinstance(time_ms, int | float) or not 0 <= time_ms < TIME_LIMIT_MS:
        text = f"{shortened(key)}: time_ms = {shortened(repr(time_ms))} is no time"
        yield Problem(line, "malformed", text, could_be_end=key.strip().lower() == "run_stop")
        return
    metadata = content.get("metadata")
    if not isinstance(metadata, dict):
        yield Problem(line, "incomplete", f"{shortened(key)}: no metadata, which MLPerf's checker needs")
        metadata = {}
    if "value" not in content:
        yield Problem(line, "incomplete", f"{shortened(key)}: no value, which MLPerf's parser needs")
    alike = hash((time_ms, key, str(content.get("value")), str(metadata)))
    yield Event(line, float(time_ms), key, content.get("value"), metadata, "mllog", None, alike)


def _read_old(text: str, line: int) -> Event | Problem:
    match = _OLD.fullmatch(text)
    if match is None:
        return Problem(
            line, "malformed", f"not '<seconds> <key>: <json>': {shortened(text.strip())}", could_be_end=True
        )
    try:
        content = text_json.decode(match["json"], strict=True) if match["json"] and match["json"].strip() else None
    except (ValueError, RecursionError) as error:
        end = match["key"].lower() == "run_stop" or "run_stop" in text.lower()
        return Problem(line, "malformed", f"{text_json.reason(error)}: {shortened(text.strip())}", could_be_end=end)
    time_ms = float(match["seconds"]) * 1000
    if time_ms >= TIME_LIMIT_MS:
        text = f"{match['key']}: {match['seconds']} s is no time"
        return Problem(line, "malformed", text, could_be_end=match["key"].lower() == "run_stop")
    if isinstance(content, dict) and isinstance(content.get("metadata"), dict) and "value" in content:
        return Event(line, time_ms, match["key"], content["value"], content["metadata"], "0.6", None, hash(text))
    metadata: dict[str, Any] = {}
    value = content
    if isinstance(content, dict):  # v0.5 has {"epoch": .., "value": ..} and {"success": true}
        value = content.get("value", content)
        if "epoch" in content:
            metadata["epoch_num"] = content["epoch"]
        if "success" in content:  # some write "true" for true
            metadata["status"] = "success" if content["success"] in (True, "true") else "aborted"
    return Event(line, time_ms, match["key"], value, metadata, "0.5", match["benchmark"], hash(text))
