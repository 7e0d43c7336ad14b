"""What a benchmark offers the harness: the manual for adding one.

The harness owns the clock, the log, the process group, the seeds, the outer loop and the verdict; a benchmark owns
tensors. A benchmark is a package with an attribute `BENCHMARK` that satisfies `Benchmark`; a configuration names the
package (`benchmark = "ssd"` is `benchmarks.ssd`, a dotted name is taken as it is). Nothing here imports a framework,
so that a reader of results can import it too. The package's folder holds the rules of its keyword as data, rules.toml (fields:
harness/rules.py): metric and direction, target, runs, sizes, evaluation epochs, by ruleset; code repeats none of them.

The order of calls in one timed run, on every rank unless it says otherwise (only rank 0 writes the log):

    BENCHMARK.check(...)            off the clock: refuse what cannot be run, before anything is made
    BENCHMARK.provide_data(...)     off the clock: make or find the data (never inside the timed run)
    BENCHMARK.open(...)             -- init_start: build the model, the optimizer, the loss
    session.warm_up()               compile, autotune on synthetic input; all state restored afterwards -- init_stop
    session.load_data()             -- run_start: the first touch of data
    for each epoch 1, 2, ...:
        session.train_epoch(epoch)  yields an Interval at each device-synchronised point
                                    (the epoch that --max-steps cuts: train_epoch(epoch, steps), and the run ends there)
        session.evaluate(epoch)     at the configured epochs; the run ends when the result reaches the target
    session.fingerprint()           -- run_stop: off the clock again; rank 0 alone
    session.panels(n)               rank 0 alone
    session.close()                 always, on every way out

Of several ranks, torch.distributed's default group is there from `open` to `close`; of one there is none. What is given
against what stands here ends the run (harness/execution/given.py), exit code 5: numbers are Python's own, no tensor and no
numpy scalar, and no name in the log is one that the harness writes itself.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import BaseModel
    from torch import Tensor, nn

# What a log line can carry without loss.
Plain = bool | int | float | str | list["Plain"] | dict[str, "Plain"]


# A rank that waits this long for another has lost it: the timeout of torch.distributed's default group, and for those that a
# benchmark makes itself. Longer than a series' watchdog waits, which names the one that hangs
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=40)


class NotSuitable(RuntimeError):
    """This machine cannot run what was asked (no such device, driver too old); the message says the way out."""


@dataclass(frozen=True)
class Context:
    """Where one rank of a run stands. Built by harness.execution.context, which alone reads the environment."""

    device: str  # torch's: "cpu", or "cuda:<local rank>", "xpu:<local rank>" and so on
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    seed: int = 0  # of the run, equal on all ranks
    data_dir: Path | None = (
        None  # in `open` and after it what provide_data returned; None in `check`, whatever the user named
    )
    initial_weights: Path | None = None  # initial weights that the user named
    threads: int = 1  # of the CPU that this rank may use
    vendor: str = ""  # who made the accelerator: "NVIDIA", "AMD"; "" for a processor, and where nobody looked
    log_every_steps: int = 20  # steps between two Intervals; the last step that train_epoch trains always ends one
    # --deterministic: nothing may be chosen by its speed (autotuning, a number format): the run can be repeated to the bit
    deterministic: bool = False
    # what another run of the same series or comparison chose by its speed: its Session.chosen. Nothing of it is chosen anew
    chosen: Mapping[str, Plain] = field(default_factory=dict)

    @property
    def rank_seed(self) -> int:
        """For what must differ between ranks (augmentation); 32 bits, as the reference has it."""
        return (self.seed + self.rank) % 2**32


@dataclass(frozen=True)
class DataSummary:
    """How large one epoch and one evaluation are."""

    train_samples: int  # images, over all ranks
    eval_samples: int  # images, over all ranks
    steps_per_epoch: int  # of the optimizer; the same in each epoch and on every rank, as the harness counts on it
    more: Mapping[str, Plain] = field(default_factory=dict)  # what else a reader of the log should know of the data
    eval_samples_trained_on: int = 0  # of eval_samples, those that are trained on too: no quality that counts
    remarks: Sequence[str] = ()  # what whoever runs it should know of the data, a sentence each: shown as warnings


# Where the time of a step goes, as far as a session tells: the keys of Interval.phases, in their order
STEP_PHASES = ("data_starved", "forward_loss", "backward", "all_reduce_wait", "optimizer", "logging")
Precision = Literal["fp32", "bf16", "fp16"]  # formats that a network may be computed in


@dataclass(frozen=True)
class Interval:
    """What was trained since the last Interval. The device is synchronised when it is yielded, and only then."""

    steps: int
    images: int  # over all ranks
    loss: float  # mean over the interval's steps, of this rank
    learning_rate: float  # of the interval's last step
    # Seconds of this rank by phase, of what ended since the last Interval. "data_starved" must be among them: how long
    # the device had nothing to do for lack of a batch, which is not how long the host waited for one; and of several ranks
    # "all_reduce_wait", how long it waited for the others: without it the slowest cannot be told from those that wait for it
    phases: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """One thing that `harness probe` measured alone, again and again. It explains and gates nothing."""

    name: str  # "step", "decoding_by_cpu"
    unit: str
    samples: Sequence[float]
    what: str = ""  # sizes and number formats: figures are held against each other only where they are of the same


# Seconds that one call takes, a figure for each sample of many calls; the device is synchronised around each sample
SecondsOf = Callable[[Callable[[], object]], list[float]]


class Session(Protocol):
    """One run's tensors on one rank."""

    def hyperparameters(self) -> Mapping[str, Plain]:
        """The ruleset's keys (global_batch_size, opt_base_learning_rate, ...) with the values really in force."""
        ...

    def properties(self) -> Mapping[str, Plain]:
        """What else a reader of the log should know: precision as chosen, evaluator, parameters. Called after warm_up.

        `init_images_per_s`, over all ranks, if warm_up measured its step: a run that becomes much slower says so.
        `ranks_meet_in_step`, true, on every rank, where ranks wait for one another in a step before "all_reduce_wait" too, as
        batch norm that they share does: no rank's own time is known then, and none is called the slowest.
        """
        ...

    def weight_names(self) -> Sequence[str]:
        """Names of all initialised tensors as the ruleset has them; asked for by the rulesets that want them logged."""
        ...

    def warm_up(self) -> None:
        """Compile and autotune on synthetic input. Weights, buffers, optimizer and random state end as they began."""
        ...

    def chosen(self) -> Mapping[str, Plain]:
        """What warm_up chose by its speed, by name (a number format, threads); {} where it chose nothing.

        A moment's noise must not choose for one run of a series and not for the next: later ones are given this in
        Context.chosen, and then take it from there. `check` refuses a name or a value that is none.
        """
        ...

    def phase_seconds(self) -> Mapping[str, float]:
        """Seconds by phase of warm_up ("init_...") or evaluate ("evaluation_..."), whichever ended last. May be empty."""
        ...

    def first_batch(self) -> Mapping[str, Any]:
        """Tensors of the first training batch, as the data path gave them; asked for in deterministic runs alone."""
        ...

    def load_data(self) -> DataSummary:
        """Touch the data for the first time. ValueError, with the fix, when it is not what the configuration says."""
        ...

    def train_epoch(self, epoch: int, steps: int | None = None) -> Iterator[Interval]:
        """Train one epoch (1-based), or its first `steps` steps alone, fewer than it has: --max-steps ends the run there.

        Those steps are the ones that a whole epoch begins with, learning rate and order of images included. The last step
        trained always ends an Interval. The limit belongs around the loop over batches, not into the step.
        """
        ...

    def evaluate(self, epoch: int) -> float:
        """The quality after `epoch` epochs, the same number on every rank."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal digest of the data set that load_data opened. Rank 0 only: no collective."""
        ...

    def panels(self, count: int) -> list[npt.NDArray[np.uint8]]:
        """At most `count` pictures (height, width, 3) RGB that show what the model does; may be empty. Rank 0 only."""
        ...

    def state(self) -> dict[str, Any]:
        """All that a later `restore` needs to go on after a whole epoch exactly as if nothing had happened.

        It may share memory with the session: to be saved before the next epoch. Called on every rank. Tensors, numbers, texts
        and containers of them alone: a checkpoint is read without running any code of its own (torch's weights_only). A
        benchmark that is `Detecting` puts into it what `detector` needs beside the configuration, such as the categories.
        "chosen", where it is there, is what of `chosen` the run that goes on is to take from there: its Context.chosen.
        """
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `state`; called after load_data, before the first epoch to train."""
        ...

    def close(self) -> None:
        """Release what the session holds. Safe to call after any failure, and twice."""
        ...


class Benchmark(Protocol):
    """What the package's `BENCHMARK` is."""

    name: str  # a keyword of the package's rules.toml, by which people know it; a log says the one of its ruleset
    config_type: type[BaseModel]  # of the configuration's tables that the harness does not own

    def provide_data(
        self, config: Any, data_dir: Path | None, cache_dir: Path, progress: Callable[[str, int, int], None]
    ) -> Path:
        """The data folder to use, made first where the benchmark brings its own. ValueError when it must be named.

        Called by all ranks of a machine at the same time, before they have met: what is made is locked (fcntl.flock), and
        looked for again once the lock is there. `data_dir`: what the user named. `cache_dir`: a folder the benchmark may fill.
        `progress(what, done, total)` tells of long work.
        """
        ...

    def check(self, config: Any, context: Context) -> None:
        """Refuse, before anything is built, what the schema alone cannot see. ValueError or NotSuitable."""
        ...

    def open(self, config: Any, context: Context) -> Session:
        """Build model, optimizer and loss on `context.device`. Touches no data."""
        ...

    def prepare(
        self,
        data_dir: Path,
        *,
        verify_only: bool,
        confirm: Callable[[str], bool],
        say: Callable[[str], None],
        progress: Callable[[str, int, int | None], None],
    ) -> list[str]:
        """Download or verify the full data set under `data_dir`. Returns the problems found, each with its fix."""
        ...


class Digested(Protocol):
    """What a Benchmark may also offer, for runs of several machines. It is found by its name."""

    def data_digest(self, config: Any, data_dir: Path) -> str:
        """A short word for what lies in the folder that provide_data returned, wherever it lies: machines compare it.

        Called before the clocks, so that it may read what provide_data left and no more.
        """
        ...


class Placed(Protocol):
    """What a Benchmark may also offer, each found by its name, for `doctor` and for messages on a folder of data."""

    def lacks(self, config: Any, data_dir: Path) -> list[str] | None:
        """What of the folder this configuration reads and is not there, by its name in it; looked at by name alone.

        None where the benchmark makes this configuration's data.
        """
        ...

    def hollow(self, config: Any, data_dir: Path) -> list[str]:
        """What of the folder this configuration reads and is there with nothing in it, as a download that broke off leaves it.

        By its name in the folder; no file is opened.
        """
        ...

    def prepared_as(self, config: Any) -> str | None:
        """What `prepare --dataset` calls the data set that this configuration reads, "" what is prepared without it.

        None where `prepare` has it not: no message offers to download another one in its place. Without this method "".
        """
        ...


class Varied(Protocol):
    """What a Benchmark may also offer, each found by its name: other tasks than its rules', and data sets to choose from."""

    # Names that `prepare --dataset` takes, with a line on each; the first is what is prepared without it. `prepare` then
    # has one argument more, data_set: str, one of these names, passed where the user named one
    data_sets: Mapping[str, str]

    def other_task(self, config: Any) -> str:
        """What this configuration trains, in words, where it is not what the keyword's rules speak of; "" where it is.

        Such a run is refused in the closed division, says so in its log, and is never ranked or submitted.
        """
        ...

    def against_closed(self, config: Any) -> Iterator[str]:
        """Settings that the rules' own task has otherwise, each as "TABLE.NAME = VALUE and not VALUE".

        With any the configuration is refused in the closed division: networks, pictures or detections that are not the
        reference's, which no log tells of and a score would call official.
        """
        ...


class Probed(Protocol):
    """What a Benchmark may also offer. It is found by its name; a benchmark without it is probed as far as its machine."""

    def probe(self, config: Any, context: Context, seconds_of: SecondsOf) -> Iterator[Figure]:
        """Parts of a run that say where a difference comes from: its step on synthetic input, its decoder alone.

        Of one device, without a process group and without data: `context` has world_size 1 and no data_dir. `seconds_of`
        calls what it is given some times for nothing, then measures; the step is the session's own. ValueError or NotSuitable
        as of `check`, at the call if it can be: the machine's own figures are measured before the iterator is read.
        """
        ...


# --- a trained model put to use ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detection:
    """One thing found in a picture."""

    category_id: int  # the data set's
    category: str
    xywh_px: tuple[float, float, float, float]  # left, top, width, height in px of the picture
    score: float  # 0 to 1


@dataclass(frozen=True)
class Sample:
    """A picture as the network takes it, in the host's memory."""

    pixels: npt.NDArray[np.uint8]  # (3, H, W) RGB, of the network's size
    width_px: int  # of the picture that its boxes are of
    height_px: int


@dataclass(frozen=True)
class Graph:
    """A network from pixels to detections, as `harness export` writes it.

    Its input is `Sample.pixels` of any number of pictures, (B, 3, H, W) uint8. Its outputs, N rows for each picture of which
    the first `count` mean something, best first: `boxes` (B, N, 4) float32, left, top, right, bottom as fractions of the
    picture; `scores` (B, N) float32; `category_ids` (B, N) int64, the data set's; `count` (B,) int64.
    """

    module: nn.Module  # on the CPU, in evaluation, float32
    metadata: Mapping[str, str]  # for the file: how a picture becomes pixels, names of the categories
    # of operators of the benchmark's own into ONNX's, made when it is called: see torch.onnx.export's custom_translation_table
    translations: Callable[[], Mapping[Any, Callable[..., Any]]] = dict
    # (B, 3, H, W) to what the graph's one operator NonMaxSuppression takes, boxes (B, A, 4) and scores (B, C, A): compared too,
    # since pictures in which nothing is found say nothing. None where there is no such operator
    candidates: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class Published:
    """A speed of inference that others published: shown beside what is measured here, and held against nothing."""

    images_per_s: float
    what: str  # model, data and batch
    hardware: str
    source: str


class Detector(Protocol):
    """A trained model on one device: without optimizer, data set or process group. Called from one thread except for `read`."""

    @property
    def categories(self) -> Mapping[int, str]:
        """Names by the data set's ids."""
        ...

    def properties(self) -> Mapping[str, Plain]:
        """What a reader of a speed should know: precision as chosen, compiled or not, parameters, side of the input."""
        ...

    def read(self, file: Path, *, upright: bool) -> Sample:
        """Decode and resize a picture as an evaluation does. Called by several threads at once.

        `upright` turns it as its camera's tag (EXIF) says, as every viewer does; an evaluation takes pixels as they are
        stored. ValueError that says what is wrong with the file, without its name.
        """
        ...

    def place(self, samples: Sequence[Sample]) -> Any:
        """A batch on the device, as `detect` takes it. It need not have arrived when this returns."""
        ...

    def detect(self, batch: Any) -> Any:
        """All that the network and its post-processing find in a batch; it is in the host's memory when this returns."""
        ...

    def detections(self, found: Any, samples: Sequence[Sample]) -> list[list[Detection]]:
        """What `detect` returned, for each picture from the highest score to the lowest."""
        ...

    def draw(self, file: Path, found: Sequence[Detection], *, upright: bool) -> npt.NDArray[np.uint8]:
        """The picture (height, width, 3) RGB with boxes, names and scores on it."""
        ...


class Detecting(Protocol):
    """What a Benchmark may also offer, for `harness detect`, `export` and `inference`. Found by the name `detector`."""

    def detector(
        self,
        config: Any,
        context: Context,
        state: Mapping[str, Any] | None,
        *,
        precision: str = "",
        compiled: bool = False,
    ) -> Detector:
        """A model of this configuration on `context.device`, whatever device the configuration trains on.

        `state`: of a checkpoint, see Session.state; None for a network as training would begin it. `precision`: a number
        format by name, "" for the one that the checkpoint was evaluated in. ValueError where state and configuration do not fit
        together, NotSuitable for what the device cannot do.
        """
        ...

    def graph(self, config: Any, state: Mapping[str, Any]) -> Graph:
        """The same model as one graph, for another program to run. ValueError as `detector`."""
        ...

    def pictures(self, count: int) -> list[bytes]:
        """So many JPEG files, in size like those of the data set; the same each time."""
        ...

    def published(self, config: Any) -> Sequence[Published]:
        """Speeds of models such as this one, from papers; may be empty."""
        ...
