"""What is wrong with data out of a file, in words: where, which field, its value, what was expected; the first of many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

SHOWN = 10  # faults in a message
LONGEST_VALUE = 60  # characters of a value in a message
TABLES = ("images", "categories", "annotations")


class Records(Protocol):
    """By their number in a table."""

    def __getitem__(self, place: int, /) -> Any: ...


@dataclass
class Faults:
    """What is wrong with a file: all are counted, the first are kept in words."""

    path: Path
    count: int = 0
    _kept: list[tuple[int, int, str]] = field(default_factory=list)  # table, place in it, text

    def add(self, table: str, text: str, place: int = -1) -> None:
        self.count += 1
        self._kept.append((TABLES.index(table), place, text))

    def values(self, table: str, places: Sequence[int], records: Records, name: str, expected: str) -> None:
        """Field `name` of the records at `places`."""
        for place in places[:SHOWN]:
            value = getattr(records[place], name)
            found = "is missing" if value is msgspec.UNSET else f"is {shown(value)}"
            self.add(table, f"{where(table, place, records[place])}: {name} {found}, expected {expected}", place)
        self.count += len(places[SHOWN:])

    def refuse(self) -> None:
        """ValueError if there are any."""
        if self.count:
            first = [text for *_, text in sorted(self._kept)[:SHOWN]]
            raise ValueError(f"{self.path}: {listed(first, self.count)}")


def listed(first: Sequence[str], count: int) -> str:
    """The first of `count` faults and, on a line each, those that come next, and how many more there are."""
    if count == 1:
        return first[0]
    lines = [f"{first[0]}; and {count - 1:,} more:", *(f"  {text}" for text in first[1:])]
    return "\n".join([*lines, f"  ... {count:,} in all"] if count > len(first) else lines)


def shown(value: Any) -> str:
    """A value out of a file on one line, without anything that a terminal or a log would take for its own."""
    try:
        text = json.dumps(value)
    except (ValueError, TypeError, RecursionError):  # a number of more digits than Python writes, say
        text = f"a {type(value).__name__} that cannot be shown"
    return shortened(text)


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def where(table: str, place: int, record: Any) -> str:
    """A record as one finds it in the file."""
    return f"{table}[{place}]" + ("" if record.id is msgspec.UNSET else f" (id {shown(record.id)})")
