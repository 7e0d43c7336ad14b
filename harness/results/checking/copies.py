"""Runs of a series that are one run: the same file, or the same moments since run_start under another seed or another hour.

No two runs take the same milliseconds to each of their epochs and evaluations. Of all pairs of runs in the 330 series that were
published of rounds 0.7 to 5.1 none has more than 16 % of its moments in common; a copy has all of them. Runs may well overlap
in time, on several machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from harness.results.record import RunRecord

IN_COMMON = 0.5  # of the moments of two runs, from which on they are one
MOMENTS = 3  # at least; so few agree by chance once in a million pairs
LONG_ENOUGH_S = 10  # of two runs of a second many moments agree by chance

Moments = dict[tuple[str, float | None], int]  # what happened, in which epoch -> ms since run_start


def copies(records: Iterable[RunRecord]) -> Iterator[tuple[RunRecord, RunRecord, str]]:
    """Each run that an earlier one is too, that one, and what says so."""
    files: dict[str, RunRecord] = {}
    seen: list[tuple[RunRecord, Moments]] = []
    at: dict[tuple[object, int], list[int]] = {}  # a moment -> the runs that have it
    for record in records:
        if record.sha256 in files:
            yield record, files[record.sha256], "to the byte"
            continue
        files[record.sha256] = record
        moments = moments_of(record) if (record.run_ms or 0) >= LONG_ENOUGH_S * 1000 else {}
        same = Counter(index for moment in moments.items() for index in at.get(moment, ()))
        for index, count in same.most_common(1):
            earlier, its = seen[index]
            both = len(moments.keys() & its.keys())
            if both >= MOMENTS and count >= IN_COMMON * both:
                yield (
                    record,
                    earlier,
                    f"{count} of {both} moments of its epochs and evaluations are as long after run_start",
                )
        for moment in moments.items():
            at.setdefault(moment, []).append(len(seen))
        seen.append((record, moments))


def moments_of(record: RunRecord) -> Moments:
    """When its epochs, blocks and evaluations began and ended, and when it stopped."""
    start = record.run_start_s
    if start is None:
        return {}
    found: dict[tuple[str, float | None], float | None] = {("stop", None): record.run_stop_s}
    for epoch in record.epochs:
        found["epoch begins", epoch.number] = epoch.start_s
        found["epoch ends", epoch.number] = _end(epoch.start_s, epoch.seconds)
    for block in record.blocks:
        found["block begins", block.first_epoch] = block.start_s
        found["block ends", block.first_epoch] = _end(block.start_s, block.seconds)
    for evaluation in record.evaluations:
        found["evaluation begins", evaluation.epoch] = evaluation.start_s
        found["evaluation ends", evaluation.epoch] = evaluation.at_s
    return {what: round((at - start) * 1000) for what, at in found.items() if at is not None}


def _end(start_s: float | None, seconds: float | None) -> float | None:
    return None if start_s is None or seconds is None else start_s + seconds
