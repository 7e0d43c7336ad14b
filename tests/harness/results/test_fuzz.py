"""A million mutated lines: nothing crashes, and no aborted run becomes a success."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from harness.results.by_rules import rules_for
from harness.results.checking.findings import Log
from harness.results.checking.log import check_log
from harness.results.logfile import LogReader
from harness.results.status import as_json
from tests.harness.results.logs import events, text

LINES = 100_000
SEED = 20200629

Mutation = Callable[[random.Random, bytes], bytes]


def cut(chance: random.Random, line: bytes) -> bytes:
    return line[: chance.randrange(len(line) + 1)]


def flip(chance: random.Random, line: bytes) -> bytes:
    at = chance.randrange(len(line)) if line else 0
    return line[:at] + bytes([chance.randrange(256)]) + line[at + 1 :]


def insert(chance: random.Random, line: bytes) -> bytes:
    at = chance.randrange(len(line) + 1)
    pieces = (
        b'"',
        b"{",
        b"}",
        b"[" * 40,
        b":::MLLOG ",
        b":::mllog ",
        b"\r",
        b"\x0c",
        b"\\ud800",
        b"NaN",
        b"1e999",
        b"9" * 5000,
    )
    return line[:at] + chance.choice(pieces) + line[at:]


def drop(chance: random.Random, line: bytes) -> bytes:
    at = chance.randrange(len(line) + 1)
    return line[:at] + line[at + chance.randrange(40) :]


def twice(chance: random.Random, line: bytes) -> bytes:
    return line + chance.choice((b"\n", b"", b" ", b"\r")) + line


def value(chance: random.Random, line: bytes) -> bytes:
    """Another plain value in the place of one."""
    try:
        content = json.loads(line.removeprefix(b":::MLLOG "))
    except ValueError:
        return line
    odd = chance.choice((None, True, -1, 0, 1e308, "x" * 3000, [], {}, [[]], "\u2028", "\x1b[2J", 10**30))
    content[chance.choice(("value", "time_ms", "metadata", "key"))] = odd
    return b":::MLLOG " + json.dumps(content).encode()


MUTATIONS: tuple[Mutation, ...] = (cut, flip, insert, drop, twice, value)


def mutated(chance: random.Random, lines: list[bytes], count: int) -> bytes:
    changed = list(lines)
    for at in chance.sample(range(len(lines)), count):
        changed[at] = chance.choice(MUTATIONS)(chance, changed[at])
    if chance.random() < 0.2:
        chance.shuffle(changed)
    return b"\n".join(changed) + b"\n"


@pytest.mark.parametrize("lines", [pytest.param(LINES, marks=pytest.mark.long), 20_000])
def test_mutated_lines(lines: int) -> None:
    aborted = text(events(status="aborted", evaluations=((1, 0.1), (2, 0.24))), noise="").encode().splitlines()
    chance, done = random.Random(SEED), 0
    while done < lines:
        count = chance.choice((1, 2, 5, len(aborted), len(aborted)))
        content = mutated(chance, aborted, count)
        reader = LogReader("result_0.txt")
        reader.feed(content)
        record = reader.record(final=True)
        done += count
        assert record.outcome != "success", content
        rules = rules_for(record.benchmark, record.ruleset)
        json.dumps([each.as_json() for each in check_log(Log("result_0.txt", record, rules))], allow_nan=False)
        json.dumps(as_json(record), allow_nan=False)
