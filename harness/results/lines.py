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

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

MARK = b":::ML"
MLLOG = ":::MLLOG"
LINE_LIMIT = 1 << 20  # bytes of one marked line; the longest known (a whole configuration) has some 10 kB

TIME_LIMIT_MS = 1e15  # the year 33658

Dialect = Literal["mllog", "0.6", "0.5"]

_OLD = re.compile(
    r":::ML[LP](?:v(?P<version>[\d.]+))?\s+(?:(?P<benchmark>[A-Za-z_]\w*)\s+)?(?P<seconds>\d{1,12}(?:\.\d*)?)\s+"
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


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line."""

    line: int
    kind: Literal["malformed", "trailing", "incomplete", "partial", "limit", "order", "conflict"]
    text: str


class Scanner:
    """Takes a log in pieces of any size and yields its events and problems in order."""

    def __init__(self) -> None:
        self.lines = 0  # complete lines so far
        self._rest = b""  # the beginning of a line whose end has not come
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Event | Problem]:
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
        rest, self._rest = self._rest, b""
        mark = rest.find(MARK)
        if mark < 0 or self._too_long:
            return
        for each in _read(rest[mark:], self.lines + 1):
            if isinstance(each, Problem) and each.kind == "malformed":
                yield Problem(each.line, "partial", "the last line breaks off: still being written, or cut short")
            else:
                yield each

    def _complete_lines(self, text: bytes, start: int, end: int) -> Iterator[Event | Problem]:
        counted = start
        mark = text.find(MARK, start, end)
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
            mark = text.find(MARK, counted, end)
        self.lines += text.count(b"\n", counted, end)

    def _trim_rest(self) -> Iterator[Problem]:
        """Keep of an unfinished line only what may matter, and never more than LINE_LIMIT."""
        mark = -1 if self._too_long else self._rest.find(MARK)
        if mark < 0:
            self._rest = self._rest[-len(MARK) + 1 :]
        else:
            self._rest = self._rest[mark:]
            if len(self._rest) > LINE_LIMIT:
                self._rest = b""
                self._too_long = True
                yield _too_long(self.lines + 1)


def _too_long(line: int) -> Problem:
    return Problem(line, "limit", f"a marked line of more than {LINE_LIMIT} bytes; not read")


def _whole_record(raw: bytes, line: int) -> Event | None:
    """The event of a line that is one complete record and nothing else, as nearly all are; None: see `_read`."""
    if not raw.startswith(b":::MLLOG"):
        return None
    text = raw[len(MLLOG) :].decode("utf-8", "replace")
    try:
        content = _decode(text)
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
    return Event(line, float(time_ms), key, content["value"], metadata, "mllog")


def _read(raw: bytes, line: int) -> Iterator[Event | Problem]:
    """The events of one line, from its first mark on: usually one, more where ranks wrote into each other's lines."""
    text = raw.decode("utf-8", "replace").rstrip("\r")
    if not text.startswith(MLLOG):
        if re.match(r":::ML[LP](?:v[\d.]+)?\s", text):  # any other word after the colons is no log line
            yield _read_old(text, line)
        elif (later := text.find(":::ML", 5)) >= 0:
            yield from _read(text[later:].encode("utf-8", "surrogatepass"), line)
        return
    try:
        yield from _event(_decode(text[len(MLLOG) :]), line)
        return
    except (ValueError, RecursionError):
        pass
    at = 0
    while at >= 0:
        at += len(MLLOG)
        try:
            begin = at + len(text[at:]) - len(text[at:].lstrip())
            content, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            yield Problem(line, "malformed", f"{_reason(error)}: {_shortened(text[at:])}")
            end = at
        else:
            yield from _event(_clean(content, text), line)
        next_at = text.find(MLLOG, end)
        trailing = text[end : next_at if next_at >= 0 else len(text)].strip()
        if end > at and (trailing or next_at >= 0):
            shown = _shortened(trailing) or "another record"
            yield Problem(line, "trailing", f"text after the record, which MLPerf's parser rejects: {shown}")
        at = next_at


def _event(content: Any, line: int) -> Iterator[Event | Problem]:
    """An Event of a decoded MLLOG object, and what it lacks."""
    if not isinstance(content, dict):
        yield Problem(line, "malformed", "the record is no JSON object")
        return
    key, time_ms = content.get("key"), content.get("time_ms")
    if not isinstance(key, str) or not key:
        yield Problem(line, "malformed", "the record has no key")
        return
    if isinstance(time_ms, bool) or not isinstance(time_ms, int | float) or not 0 <= time_ms < TIME_LIMIT_MS:
        yield Problem(line, "malformed", f"{_shortened(key)}: time_ms = {_shortened(repr(time_ms))} is no time")
        return
    metadata = content.get("metadata")
    if not isinstance(metadata, dict):
        yield Problem(line, "incomplete", f"{_shortened(key)}: no metadata, which MLPerf's checker needs")
        metadata = {}
    if "value" not in content:
        yield Problem(line, "incomplete", f"{_shortened(key)}: no value, which MLPerf's parser needs")
    yield Event(line, float(time_ms), key, content.get("value"), metadata, "mllog")


def _read_old(text: str, line: int) -> Event | Problem:
    match = _OLD.fullmatch(text)
    if match is None:
        return Problem(line, "malformed", f"not '<seconds> <key>: <json>': {_shortened(text)}")
    try:
        content = _decode(match["json"]) if match["json"] and match["json"].strip() else None
    except (ValueError, RecursionError) as error:
        return Problem(line, "malformed", f"{_reason(error)}: {_shortened(text)}")
    time_ms = float(match["seconds"]) * 1000
    if isinstance(content, dict) and isinstance(content.get("metadata"), dict) and "value" in content:
        return Event(line, time_ms, match["key"], content["value"], content["metadata"], "0.6")
    metadata: dict[str, Any] = {}
    value = content
    if isinstance(content, dict):  # v0.5 has {"epoch": .., "value": ..} and {"success": true}
        value = content.get("value", content)
        if "epoch" in content:
            metadata["epoch_num"] = content["epoch"]
        if "success" in content:  # some write "true" for true
            metadata["status"] = "success" if content["success"] in (True, "true") else "aborted"
    return Event(line, time_ms, match["key"], value, metadata, "0.5", match["benchmark"])


# --- JSON ---


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


# NaN, Infinity and 1e999, which are no JSON numbers, stay text: what reads a number then finds none.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=str)


def _decode(text: str) -> Any:
    return _clean(_DECODER.decode(text), text)


def _clean(content: Any, text: str) -> Any:
    """JSON's escapes can spell half a character, which no file or terminal takes."""
    if "\\ud" not in text and "\\uD" not in text:
        return content
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    if isinstance(content, list):
        return [_clean(each, text) for each in content]
    if isinstance(content, dict):
        return {_clean(key, text): _clean(each, text) for key, each in content.items()}
    return content


def _reason(error: Exception) -> str:
    return (
        f"not JSON ({error.msg})"
        if isinstance(error, json.JSONDecodeError)
        else "not JSON (a number or nesting too large)"
    )


def _shortened(text: str, limit: int = 80) -> str:
    text = text.strip().encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."
