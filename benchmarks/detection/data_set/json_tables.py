"""Long lists of records in a JSON document, decoded a piece at a time.

What Python makes of a box in an annotation file takes 550 bytes, and OpenImages has ten million. So a document is looked
through once without anything being made of its tables, which finds whatever is no JSON, and then each table is decoded piece
by piece: the reader keeps columns of numbers. A record that a message is about is decoded again.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec
import numpy as np

Record = TypeVar("Record", bound=msgspec.Struct)

PIECE_BYTES = 1 << 22
CUTS_TRIED = 8  # then a longer piece is: what ends a record is the last bracket, or one of the last where records nest
NUMBERED = re.compile(r"\[(\d+)\](.*)`")


class Table(Generic[Record]):
    """The list `name` of a document: `raw` is what msgspec left of it when it decoded `content`, of which it is a part.

    msgspec.ValidationError, from any method, names the place of what is no such record.
    """

    def __init__(self, content: bytes, raw: msgspec.Raw, name: str, kind: type[Record]) -> None:
        view = memoryview(raw)
        self.name, self._content = name, content
        self._decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._start = _address(view) - _address(content)
        self._end = self._start + len(view) - 1  # of what is between the brackets
        self._pieces: list[tuple[int, int, int]] = []  # number of the first record, first byte, last byte + 1
        self._again: tuple[int, list[Record]] = (-1, [])  # number of the first record

    def pieces(self) -> Iterator[list[Record]]:
        """All of it in order; once."""
        if self._content[self._start : self._start + 1] != b"[":
            self._records(0, memoryview(self._content)[self._start : self._end + 1])  # refuses it
        first, at = 0, self._start + 1
        while at < self._end or not self._pieces:
            records, stop, following = self._piece(first, at)
            self._pieces.append((first, at, stop))
            first, at = first + len(records), following
            yield records

    def __getitem__(self, place: int) -> Record:
        """Of what `pieces` has given already."""
        first, at, stop = self._pieces[bisect.bisect_right(self._pieces, place, key=lambda piece: piece[0]) - 1]
        if self._again[0] != first:
            self._again = first, self._decoded(first, at, stop)
        return self._again[1][place - first]

    def _piece(self, first: int, at: int) -> tuple[list[Record], int, int]:
        """Records from the byte `at` on, where they end, and where the next begins.

        The document is JSON, as is known by now. So what is cut off within a record or a text does not close all that it
        opened, and is refused: whatever can be decoded was cut between two records.
        """
        length = PIECE_BYTES
        while at + length < self._end:
            stop = at + length
            for _ in range(CUTS_TRIED):
                stop = self._content.rfind(b"}", at, stop)
                if stop < 0:
                    break
                try:
                    records = self._decoded(first, at, stop + 1)
                except msgspec.ValidationError:
                    raise
                except msgspec.DecodeError:
                    continue
                comma = self._content.find(b",", stop + 1, self._end)
                return records, stop + 1, self._end if comma < 0 else comma + 1
            length *= 2
        return self._decoded(first, at, self._end), self._end, self._end

    def _decoded(self, first: int, at: int, stop: int) -> list[Record]:
        return self._records(first, b"".join((b"[", memoryview(self._content)[at:stop], b"]")))

    def _records(self, first: int, text: bytes | memoryview) -> list[Record]:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            numbered = NUMBERED.fullmatch(path)
            place = f"[{first + int(numbered[1])}]{numbered[2]}" if numbered else ""
            raise msgspec.ValidationError(f"{what} - at `$.{self.name}{place}`") from error


def _address(buffer: bytes | memoryview) -> int:
    found: int = np.frombuffer(buffer, dtype=np.uint8).ctypes.data
    return found
