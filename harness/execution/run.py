"""One run as it is carried from phase to phase: what was asked for, what is open, what it has shown, how it ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import Configuration
from harness.execution import console, context, process_group
from harness.execution.events import EventLog, keys
from harness.execution.learning_curve import LearningCurve
from harness.execution.moment import Moment
from harness.execution.pace import Pace
from harness.execution.pauses import Heartbeat
from harness.exit_codes import TARGET_MET
from harness.request import Request


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    exit_code: int
    reason: str  # empty on success

    @property
    def status(self) -> str:
        return str(keys.SUCCESS if self.exit_code == TARGET_MET else keys.ABORTED)


class NotFinite(RuntimeError):
    """The loss or the quality is NaN or infinite."""


@dataclass
class Run:
    """What one run carries from phase to phase."""

    configuration: Configuration
    request: Request
    launch: context.Launch
    log: EventLog  # of rank 0; the others' takes events and writes nothing
    own: EventLog  # the same file for this rank's own lines: init_start, a traceback, stacks on request
    screen: console.Console
    history: LearningCurve
    pace: Pace | None = None  # once init has measured
    heartbeat: Heartbeat | None = None  # from run_start on
    counts_memory: bool = False  # whether its device does, from run_start on
    asking: bool = True  # until it trains: a ValueError means that what the user asked for cannot be done
    started: Moment | None = None  # run_start
    ending: Ending | None = None  # from run_stop on
    best_kept: float | None = (
        None  # quality of the best checkpoint so far, those of the run that this one goes on with too
    )
    resumed_after: int | None = None  # the epoch of the checkpoint that it goes on with
    has_model: bool = False  # whether what lies in --checkpoint-dir is this run's, or of the one that it goes on with
    picture: Path | None = None  # where it has drawn one
    unsaved: int | None = None  # the epoch whose checkpoint is being written, or could not be
    stopping: threading.Lock = field(default_factory=threading.Lock)  # who writes run_stop
    ranks: process_group.Ranks = field(default_factory=process_group.Ranks)  # once they know of each other
    stopped_minutes: float | None = None  # run_start to run_stop
    wall_ahead_s: float = 0.0  # likewise, as WallClock has it: of a log that is invalid, and of no result
    paused: Mapping[int, float] = field(default_factory=dict)  # likewise: seconds by rank, as Heartbeat has them
    called: Moment = field(default_factory=Moment)  # for the RESULT line

    @property
    def checkpoints(self) -> Path:
        """Of a run that was asked to keep some."""
        assert self.request.checkpoint_dir is not None
        return self.request.checkpoint_dir

    @property
    def minutes(self) -> float:
        assert self.started is not None
        return self.started.seconds / 60
