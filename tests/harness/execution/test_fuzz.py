"""A million mutated lines of a run that was aborted: its reader never breaks, and never takes one for a success."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.execution.events import EventLog, keys
from harness.results.logfile import LogReader

LINES = 1_000_000


def aborted(folder: Path) -> list[bytes]:
    log = EventLog.create(folder)
    log.point("submission_benchmark", "toy")
    log.point("configuration", {"run": {"ruleset": "0.7.0", "target": 0.23}})
    log.start("init_start")
    log.stop("init_stop")
    log.start("run_start")
    for epoch in range(1, 6):
        log.start("epoch_start", epoch_num=epoch)
        log.point("tracked_stats", {"loss": 1 / epoch, "throughput": 10.5}, step=2, epoch_num=epoch)
        log.stop("epoch_stop", epoch_num=epoch)
        log.start("eval_start", epoch_num=epoch)
        log.point("eval_accuracy", 0.01 * epoch, epoch_num=epoch)
        log.stop("eval_stop", epoch_num=epoch)
    log.stop(keys.RUN_STOP, status=keys.ABORTED, reason="epochs spent")
    log.plain("Traceback (most recent call last):\n  File x\nKeyError: 'y'")
    log.close()
    assert log.path is not None
    return log.path.read_bytes().splitlines(keepends=True)


Mutation = Callable[[random.Random, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (
    lambda chance, line: line[: chance.randrange(len(line))],
    lambda chance, line: line[chance.randrange(len(line)) :],
    lambda chance, line: line + line,
    lambda chance, line: bytes(b ^ (1 << chance.randrange(8)) if chance.random() < 0.02 else b for b in line),
    lambda chance, line: line.replace(b'"', b"'", chance.randrange(4)),
    lambda chance, line: line.replace(b"{", b"{" * chance.randrange(1, 50), 1),
    lambda chance, line: line.replace(b"\n", chance.choice((b"\r", b"\x0b", b"\x0c", b"\xe2\x80\xa8", b"\x00\n"))),
    lambda chance, line: line.upper() if chance.random() < 0.5 else line.lower(),
    lambda chance, line: chance.randbytes(chance.randrange(200)) + line,
    lambda chance, line: b"",
)


@pytest.mark.long
def test_a_million_mutated_lines(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    original = aborted(tmp_path)
    fed = 0
    while fed < LINES:
        lines = [chance.choice(MUTATIONS)(chance, line) if chance.random() < 0.2 else line for line in original]
        if chance.random() < 0.3:
            chance.shuffle(lines)
        reader = LogReader("fuzzed")
        reader.feed(b"".join(lines))
        record = reader.record(final=True)
        assert record.outcome != "success", f"seed {seed}: {b''.join(lines)!r}"
        fed += len(lines)
