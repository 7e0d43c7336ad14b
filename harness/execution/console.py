"""What a person sees of a run: a progress bar on a terminal, plain lines in a file or pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from harness.contract import Interval
from harness.execution.learning_curve import Evaluated, LearningCurve
from harness.execution.throughput import Rate

EVERY_S = 30.0  # between two lines about an epoch that goes on, where there is no bar


class Console(Protocol):
    """Takes what happens as it happens. `say` is for whole lines at any time, `show` for those that the log does not get.

    `images`: that the run may train at most, `done` of them by the run that it goes on with. `cut`: steps of an epoch that ends
    before its last one.
    """

    def say(self, text: str) -> None: ...
    def show(self, text: str) -> None: ...
    def working(self, what: str, done: int, total: int) -> None: ...
    def started(self, history: LearningCurve, images: float, done: float) -> None: ...
    def interval(self, epoch: int, interval: Interval, rate: Rate) -> None: ...
    def epoch(self, epoch: int, loss: float, rate: Rate, cut: int | None) -> None: ...
    def evaluated(self, evaluated: Evaluated) -> None: ...
    def close(self) -> None: ...


def for_rank(rank: int, tee: Callable[[str], None]) -> Console:
    """Rank 0 speaks, to a terminal if stdout is one; all it says goes to `tee` too. The other ranks are silent."""
    if rank != 0:
        return Silent()
    return Terminal(tee) if RichConsole().is_terminal else Lines(tee)


def complain(text: str) -> None:
    """What a rank without a console has to say before it ends."""
    sys.stderr.write(f"{text}\n")


class Silent:
    """For ranks other than 0."""

    def say(self, text: str) -> None: ...
    def show(self, text: str) -> None: ...
    def working(self, what: str, done: int, total: int) -> None: ...
    def started(self, history: LearningCurve, images: float, done: float) -> None: ...
    def interval(self, epoch: int, interval: Interval, rate: Rate) -> None: ...
    def epoch(self, epoch: int, loss: float, rate: Rate, cut: int | None) -> None: ...
    def evaluated(self, evaluated: Evaluated) -> None: ...
    def close(self) -> None: ...


class Lines:
    """A line for each epoch and each evaluation, flushed at once so that `tail -f` and `docker logs` follow."""

    def __init__(self, tee: Callable[[str], None]) -> None:
        self._tee = tee
        self._history: LearningCurve
        self._total: float
        self._images: float
        self._shown: float  # monotonic, when a line about an interval was printed last
        self._tenth = (-1, "")  # of the work told of last

    def say(self, text: str) -> None:
        self._tee(text)  # first: what the log does not take is not claimed
        self.show(text)

    def working(self, what: str, done: int, total: int) -> None:
        tenth = (10 * done // max(total, 1), what)
        if tenth != self._tenth:
            self._tenth = tenth
            self.show(f"{what}: {done} of {total}")

    def started(self, history: LearningCurve, images: float, done: float) -> None:
        self._history, self._total, self._images, self._shown = history, images, done, time.monotonic()

    def interval(self, epoch: int, interval: Interval, rate: Rate) -> None:
        """A line now and then; the log's tracked_stats have them all."""
        self._images += interval.images
        if (now := time.monotonic()) - self._shown >= EVERY_S:
            self._shown = now
            self.show(
                f"epoch {epoch}/{self._history.epochs}  {self._images / self._total:.1%} of the run's images  "
                f"loss {interval.loss:.3f}  {rate.images_per_s:,.0f} images/s"
            )

    def epoch(self, epoch: int, loss: float, rate: Rate, cut: int | None) -> None:
        part = "" if cut is None else f"  cut after step {cut}"
        self.say(
            f"epoch {epoch}/{self._history.epochs}{part}  loss {loss:.4f}  {rate.images_per_s:,.1f} images/s  "
            f"waited for data {rate.data_wait_share:.1%}"
        )

    def evaluated(self, evaluated: Evaluated) -> None:
        self.say(
            f"epoch {evaluated.epoch}  {self._history.metric} {evaluated.quality:.4f}  "
            f"(target {self._history.target:g})  evaluated in {evaluated.seconds:.1f} s"
        )

    def close(self) -> None: ...

    def show(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201


class Terminal(Lines):
    """A bar over all the images that the run may take, with loss, images/s, time left and the quality reached."""

    def __init__(self, tee: Callable[[str], None]) -> None:
        super().__init__(tee)
        self._rich = RichConsole(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._rich,
        )
        self._work = self._bar.add_task("", visible=False, numbers="")
        self._training = self._bar.add_task("", visible=False, numbers="")
        self._bar.start()

    def working(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._work, description=what, completed=done, total=total, visible=done < total)

    def started(self, history: LearningCurve, images: float, done: float) -> None:
        super().started(history, images, done)
        self._bar.update(self._training, total=images, completed=done, visible=True)

    def interval(self, epoch: int, interval: Interval, rate: Rate) -> None:
        best = self._history.best
        reached = "" if best is None else f"  {self._history.metric} {best:.3f}/{self._history.target:g}"
        self._bar.update(
            self._training,
            advance=interval.images,
            description=f"epoch {epoch}/{self._history.epochs}",
            numbers=f"loss {interval.loss:.3f}  {rate.images_per_s:,.0f} images/s{reached}",
        )

    def epoch(self, epoch: int, loss: float, rate: Rate, cut: int | None) -> None:
        """The bar shows it; the log has it."""

    def close(self) -> None:
        self._bar.stop()

    def show(self, text: str) -> None:
        self._rich.print(text, markup=False, soft_wrap=True)
