"""Files by way of a program's output: pieces of them in lines of their own, between the lines that people read.

So a trial's files come to the machine of its series from any cluster whose output can be followed, without a volume that both
see. A piece says where in which file it belongs, so that one that comes twice, after a connection was lost, changes
nothing. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import names

MARK = ":::FILE "
LOGS = (".txt", ".log")  # the run's, and those of other nodes
PIECE = 8 << 10  # bytes; a container runtime splits lines of 16 KiB


class Damaged(ValueError):
    """What came is not what was sent; the message says what of it."""


@dataclass
class Sender:
    """The pod's side: what is new in the files of one trial, as lines."""

    folder: Path
    number: int
    _sent: dict[str, int] = field(default_factory=dict)

    def growing(self) -> Iterator[str]:
        """Of the logs, which only grow, what is new since the last call."""
        for path in self._files():
            if path.suffix in LOGS:
                yield from self._new(path)

    def rest(self) -> Iterator[str]:
        """Once the trial has ended: each file whole, and its hash.

        The logs too, though they came as they grew: a kubelet serves the newest of its files of output alone, so that a
        connection lost across a change of files loses lines.
        """
        self._sent.clear()
        for path in self._files():
            yield from self._new(path)
            content = path.read_bytes()
            yield _line(file=path.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if names.of_run(path.name, self.number) and path.is_file())

    def _new(self, path: Path) -> Iterator[str]:
        with path.open("rb") as file:
            file.seek(self._sent.get(path.name, 0))
            while piece := file.read(PIECE):
                at = self._sent.get(path.name, 0)
                data = base64.b64encode(zlib.compress(piece)).decode("ascii")
                yield _line(file=path.name, at=at, data=data)
                self._sent[path.name] = at + len(piece)


def _line(**content: Any) -> str:
    return f"{MARK}{json.dumps(content)}"


def _unpacked(data: str) -> bytes:
    """ValueError or zlib.error where it is not what _new packs: a piece whole, and no more than one."""
    unpack = zlib.decompressobj()
    piece = unpack.decompress(base64.b64decode(data, validate=True), PIECE)
    if not unpack.eof:
        raise ValueError("half a piece, or more than one")
    return piece


@dataclass
class Receiver:
    """The series' side: writes the files of one trial, those of one node, into its folder."""

    folder: Path
    number: int
    node: int = 0
    complete: set[str] = field(default_factory=set)  # whose hash has come, and is theirs
    _named: set[str] = field(default_factory=set)  # of which anything has come, as far as it could be read

    def take(self, line: str) -> bool:
        """Whether the line is a piece of a file, which is then written. Damaged where it does not fit."""
        if not line.startswith(MARK):
            return False
        try:
            content = json.loads(line.removeprefix(MARK))
            name, at = str(content["file"]), content.get("at")
            piece = None if at is None else _unpacked(content["data"])
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise Damaged(f"a line of the pod's output is no piece of a file: {line[:80]!r}") from error
        if not names.of_run(
            name, self.number, self.node
        ):  # an image may be anybody's: nothing else of this machine is written
            raise Damaged(f"the pod sends {name[:80]!r}, which is no file of trial {self.number} on node {self.node}")
        self._named.add(name)
        if piece is None:
            self._check(name, content)
        else:
            self._write(name, at, piece)
        return True

    @property
    def missing(self) -> list[str]:
        """Files here, or that the pod spoke of, of which it did not say that what came is whole."""
        there = {path.name for path in self.folder.iterdir() if names.of_run(path.name, self.number, self.node)}
        return sorted((there | self._named) - self.complete)

    def _write(self, name: str, at: object, piece: bytes) -> None:
        path = self.folder / name
        size = path.stat().st_size if path.exists() else 0
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at <= size:
            raise Damaged(f"{name}: a piece came for byte {at}, and {size} are here: the output lost lines")
        if at + len(piece) > size:
            with path.open("ab") as file:
                file.write(piece[size - at :])

    def _check(self, name: str, content: dict[str, Any]) -> None:
        path = self.folder / name
        if not path.exists() and content.get("size") == 0:
            path.touch()
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != content.get("sha256"):
            raise Damaged(f"{name}: what came here is not what the pod wrote: the output lost lines")
        self.complete.add(name)
        if name == names.refused(self.number):
            self._take_over(path)

    def _take_over(self, refused: Path) -> None:
        """The log of a run that never began got this name in the pod; what had come of it by the other is the same log."""
        begun = self.folder / names.result(self.number)
        if begun.name not in self.complete and begun.exists() and refused.read_bytes().startswith(begun.read_bytes()):
            begun.unlink()
        if not begun.exists():
            self._named.discard(begun.name)
