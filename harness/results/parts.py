"""Parts of a run as its log tells them: the lines of one key, epochs, blocks, evaluations.

Times of day are Unix seconds; `seconds` are durations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.results.slowest import Slowest


@dataclass(slots=True)
class Entry:
    """All lines of one key: its first value and place, and whether a later line contradicts it."""

    value: Any
    line: int
    time_s: float
    metadata: Mapping[str, Any]
    count: int = 1
    other: tuple[int, Any] | None = None  # line and value of the first later line that says something else
    order: int = 0  # of its first line among the events: lines can hold several


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, as far as its log tells it."""

    number: int | float
    line: int
    start_s: float | None
    seconds: float | None
    throughput: float | None  # images per second as logged
    data_wait_share: float | None  # 0..1, as logged
    loss: float | None  # the last one logged in the epoch
    phases: Mapping[str, float] = field(default_factory=dict)  # name -> seconds of rank 0, as logged
    slowest: Slowest | None = None  # of its ranks
    backwards: bool = False  # stamped to stop before it starts, which leaves it no seconds


@dataclass(frozen=True, slots=True)
class Block:
    """Epochs that a submitter timed together; some log no single epochs."""

    first_epoch: int | float | None
    epoch_count: int | float | None
    line: int
    start_s: float | None
    seconds: float | None
    backwards: bool = False  # stamped to stop before it starts, which leaves it no seconds


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation, with a result or broken off."""

    epoch: int | float | None
    line: int  # of the result, or of what there is
    start_s: float | None
    seconds: float | None
    accuracy: float | None  # None also where the log has NaN
    at_s: float | None  # when the result was logged
    order: int = 0  # of the result among the events
    backwards: bool = False  # as an epoch's


@dataclass(frozen=True, slots=True)
class Progress:
    """Where in its training a run was when it last said so."""

    epoch: int | float | None
    step: int | None
    images_per_s: float | None
    at_s: float
