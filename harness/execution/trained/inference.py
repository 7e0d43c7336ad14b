"""`harness inference`: how fast a model finds things in pictures, in the terms of MLPerf Inference; no result of MLPerf's.

    single stream   one picture at a time, the next as soon as the last is answered: latency, 90th percentile first
    offline         all pictures are there at once, in batches of the size that is fastest: images/s

A query begins with the picture in the host's memory at the network's size, which is where MLPerf's begin, or as a file, JPEG
unless others are named, which is where an application's do. It ends when its detections are in the host's memory: nothing is
left to wait for. Pictures are drawn at random with a fixed seed, with replacement. Nothing here trains; every sample is
kept.

Terms and minimums: MLPerf Inference Rules 0.5 (2019), "Scenarios", the first round: 1,024 queries and 60 s of single stream,
24,576 pictures and 60 s offline. What was measured for less is marked as that. The rules of later rounds ask for 600 s.

Ctrl-C ends it with the figures that are whole by then.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.contract import Context, Detector, NotSuitable, Plain, Published, Sample
from harness.execution.trained import detectors
from harness.execution.trained.detectors import Model
from harness.system.facts import Machine

SINGLE_STREAM, OFFLINE = "single-stream", "offline"
SCENARIOS = (SINGLE_STREAM, OFFLINE)
PIXELS, FILE = "pixels", "file"  # what a query begins with
RULES = "MLPerf Inference Rules 0.5"
LEAST = {SINGLE_STREAM: {"queries": 1024, "seconds": 60}, OFFLINE: {"pictures": 24_576, "seconds": 60}}
LIBRARY = 64  # pictures that queries are drawn from; as many as those rules say for large ones
MOST_NAMED = (
    1024  # of those that are named, likewise: all of COCO's would be 30 GB of the host's memory, read for an hour first
)
SEED = 20_190_920
WARM_UP = 3  # calls that are not counted: kernels are loaded, chosen, compiled
MOST_BATCH = 1024
FEWEST_BATCHES = 3
SECONDS, QUERIES = 4.0, 100  # by default: eight measurements and the search of two batches are a minute
MOST_TIMES = 3  # the seconds asked for, that are waited for the queries asked for
SEARCHED = 1 / 10  # of the seconds asked for, for each batch that is tried
LONGEST_TRIED = 1 / 10  # of the seconds asked for: a batch that takes longer is the last
AHEAD = 2  # batches that are decoded before they are wanted
ENOUGH = 1.02  # a larger batch is taken where it is faster by more


@dataclass(frozen=True)
class Wanted:
    """What to measure, and for how long each."""

    scenarios: tuple[str, ...] = SCENARIOS
    beginnings: tuple[str, ...] = (PIXELS, FILE)
    precisions: tuple[str, ...] = ("fp32", "bf16")
    compiled: tuple[bool, ...] = (False,)
    batch: int | None = None  # offline's; None: the fastest is looked for
    seconds: float = SECONDS  # of each, at least
    queries: int = QUERIES  # of single stream, at least
    pictures: tuple[Path, ...] = ()  # none: the benchmark's own
    whole: bool = False  # as long as MLPerf asks, however long that takes

    @property
    def least_s(self) -> float:
        return max(self.seconds, *(each["seconds"] for each in LEAST.values())) if self.whole else self.seconds

    @property
    def least_queries(self) -> int:
        return max(self.queries, LEAST[SINGLE_STREAM]["queries"]) if self.whole else self.queries

    @property
    def least_pictures(self) -> int:
        return LEAST[OFFLINE]["pictures"] if self.whole else 0

    @property
    def most_s(self) -> float:
        """Of single stream, where it has not come to its queries."""
        return math.inf if self.whole else MOST_TIMES * self.seconds


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario measured in one way."""

    scenario: str
    begins_with: str  # pixels, or the files' format
    properties: dict[str, Plain]  # the detector's: precision, compiled, ...
    batch: int
    seconds: list[float]  # of each query; of each batch
    total_s: float
    detections: float  # in a picture, mean

    @property
    def images_per_s(self) -> float:
        return self.batch * len(self.seconds) / self.total_s

    def latency_ms(self, percentile: float) -> float:
        """Nearest rank: one that was measured."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[max(0, math.ceil(percentile / 100 * len(ordered)) - 1)]

    @property
    def long_enough(self) -> bool:
        """As MLPerf Inference has it."""
        least = LEAST[self.scenario]
        count = len(self.seconds) if self.scenario == SINGLE_STREAM else self.batch * len(self.seconds)
        return self.total_s >= least["seconds"] and count >= least.get("queries", least.get("pictures", 0))


@dataclass
class Measured:
    """All of one call."""

    model: Model
    here: Context
    machine: Machine
    pictures: str  # which ones
    figures: list[ScenarioResult] = field(default_factory=list)
    batches: dict[str, dict[int, float]] = field(default_factory=dict)  # images/s by batch, by variant: the search
    left_out: dict[str, str] = field(default_factory=dict)
    published: Sequence[Published] = ()
    interrupted: str = ""  # what was being measured then


def measure(
    model: Model,
    here: Context,
    machine: Machine,
    wanted: Wanted,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """All that is wanted, one after the other; after Ctrl-C what was measured till then, if anything was.

    NotSuitable where the device can do none of it.
    """
    named, told = list(wanted.pictures), f"{LIBRARY} drawn, of the size of the data set's"
    if named:
        told = f"{len(named):,} named"
    if len(named) > MOST_NAMED:
        named, told = random.Random(SEED).sample(named, MOST_NAMED), f"{MOST_NAMED:,} of {told}"
    found = Measured(model, here, machine, told, published=model.benchmark.published(model.configuration.tables))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(here.threads, "pictures") as pool:
        measuring = _Measuring(found, wanted, say, pool)
        try:
            measuring.begins("pictures", counted=False)
            paths = named or _drawn(model, Path(folder))
            for precision in wanted.precisions:
                measuring.one_format(precision, paths)
        except KeyboardInterrupt:
            if not found.figures:
                raise
            found.interrupted = measuring.what
    if not found.figures:
        raise NotSuitable("\n".join(f"{variant}: {reason}" for variant, reason in found.left_out.items()))
    return found


@dataclass
class _Measuring:
    """One call under way: which of how many measurements has begun."""

    found: Measured
    wanted: Wanted
    say: Callable[[str], None]
    pool: ThreadPoolExecutor
    done: int = 0
    what: str = ""

    def begins(self, what: str, *, counted: bool = True) -> None:
        wanted = self.wanted
        of = len(wanted.precisions) * len(wanted.compiled) * len(wanted.scenarios) * len(wanted.beginnings)
        self.done += counted
        self.what = what
        self.say(f"{self.done} of {of}: {what}" if counted else what)

    def one_format(self, precision: str, paths: Sequence[Path]) -> None:
        """Uncompiled first, whose fastest batch the compiled one takes too."""
        found, wanted, fastest = self.found, self.wanted, self.wanted.batch
        for compiled in sorted(wanted.compiled):
            variant = f"{precision}{' compiled' if compiled else ''}"
            _give_back()
            self.begins(f"{variant}: the network", counted=False)
            try:
                detector = found.model.open(found.here, precision=precision, compiled=compiled)
                library = _Library(paths, detectors.read(detector, paths, upright=False), detector, self.pool)
                if OFFLINE in wanted.scenarios and fastest is None:
                    self.begins(f"{variant}: which batch is fastest", counted=False)
                    with self._enough_memory(1):
                        found.batches[variant] = _by_batch(library, wanted.seconds)
                    fastest = _fastest(found.batches[variant])
            except NotSuitable as error:
                found.left_out[variant] = str(error)
                continue
            for scenario, begins_with in itertools.product(wanted.scenarios, wanted.beginnings):
                _give_back()
                what = f"{variant}: {scenario} from {library.told(begins_with)}"
                self.begins(f"{what}, {wanted.least_s:g} s or more")
                batch = 1 if scenario == SINGLE_STREAM else fastest or 1
                try:
                    with self._enough_memory(batch):
                        found.figures.append(_figure(library, scenario, begins_with, batch, wanted))
                except NotSuitable as error:
                    found.left_out[what] = str(error)

    def _enough_memory(self, batch: int) -> AbstractContextManager[None]:
        fewer = "--batch names fewer" if batch > 1 else "--device names another, or end what else uses it"
        return detectors.enough_memory(self.found.here, f"a batch of {batch}", fewer)


@dataclass
class _Library:
    """The pictures that queries are drawn from, as files and as the network takes them."""

    paths: Sequence[Path]
    samples: Sequence[Sample]
    detector: Detector
    pool: ThreadPoolExecutor

    @cached_property
    def form(self) -> str:
        return _format(self.paths)

    def told(self, begins_with: str) -> str:
        """For people: the files' format instead of FILE."""
        return self.form if begins_with == FILE else begins_with

    def order(self) -> Iterator[int]:
        drawn = random.Random(SEED)
        while True:
            yield drawn.randrange(len(self.paths))

    def batches(self, begins_with: str, size: int) -> Iterator[list[Sample]]:
        """For ever; from files they are decoded ahead by as many threads as there are."""
        order = self.order()
        if begins_with == PIXELS:
            while True:
                yield [self.samples[next(order)] for _ in range(size)]
        coming: deque[list[Future[Sample]]] = deque()
        try:
            while True:
                while len(coming) < AHEAD:
                    coming.append([self.pool.submit(self._read, next(order)) for _ in range(size)])
                yield [each.result() for each in coming.popleft()]
        finally:
            for each in itertools.chain(*coming):
                each.cancel()

    def first(self, count: int) -> list[Sample]:
        """So many, over again where there are fewer: of no other size than what is measured, which may be compiled for it."""
        return [self.samples[at % len(self.samples)] for at in range(count)]

    def answer(self, samples: Sequence[Sample]) -> Any:
        """What is found in them, in the host's memory."""
        return self.detector.detect(self.detector.place(samples))

    def _read(self, at: int) -> Sample:
        return self.detector.read(self.paths[at], upright=False)

    def one(self, begins_with: str, at: int) -> Any:
        return self.answer([self._read(at) if begins_with == FILE else self.samples[at]])


def _drawn(model: Model, folder: Path) -> list[Path]:
    paths = []
    for number, content in enumerate(model.benchmark.pictures(LIBRARY)):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(content)
    return paths


def _format(paths: Sequence[Path]) -> str:
    """Of the files, as Pillow calls it, and by the name what Pillow does not know; "files" where there are several."""
    from PIL import Image

    def of(path: Path) -> str:
        try:
            with Image.open(path) as picture:
                form = picture.format or ""
        except Exception:  # noqa: BLE001 - a file that is none is named by whoever reads it
            form = path.suffix[1:].upper()
        return "JPEG" if form in {"JPG", "MPO"} else form

    found = {of(path) for path in paths}
    return found.pop() if len(found) == 1 else "files"


def _figure(library: _Library, scenario: str, begins_with: str, batch: int, wanted: Wanted) -> ScenarioResult:
    if scenario == SINGLE_STREAM:
        seconds, total_s = _single_stream(library, begins_with, wanted)
    else:
        seconds, total_s = _offline(library, begins_with, batch, wanted.least_s, least_pictures=wanted.least_pictures)
    shown = library.first(batch)
    found = library.detector.detections(library.answer(shown), shown)
    return ScenarioResult(
        scenario,
        library.told(begins_with),
        dict(library.detector.properties()),
        batch,
        seconds,
        total_s,
        sum(map(len, found)) / len(shown),
    )


def _single_stream(library: _Library, begins_with: str, wanted: Wanted) -> tuple[list[float], float]:
    order = library.order()
    seconds: list[float] = []
    for at in itertools.islice(order, WARM_UP):
        library.one(begins_with, at)
    begun = last = time.perf_counter()
    while last - begun < wanted.least_s or (len(seconds) < wanted.least_queries and last - begun < wanted.most_s):
        library.one(begins_with, next(order))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return seconds, last - begun


def _offline(
    library: _Library, begins_with: str, batch: int, least_s: float, *, least_pictures: int = 0, warm_up: int = WARM_UP
) -> tuple[list[float], float]:
    for _ in range(warm_up):
        library.answer(library.first(batch))
    seconds: list[float] = []
    batches = library.batches(begins_with, batch)
    begun = last = time.perf_counter()
    while len(seconds) < FEWEST_BATCHES or last - begun < least_s or batch * len(seconds) < least_pictures:
        library.answer(next(batches))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    batches.close()  # type: ignore[attr-defined]
    return seconds, last - begun


def _by_batch(library: _Library, seconds: float) -> dict[int, float]:
    """Images/s from pixels by batch, which doubles until that no longer pays, memory ends or a batch takes too long."""
    found: dict[int, float] = {}
    size = 1
    while size <= MOST_BATCH:
        try:
            taken, total_s = _offline(library, PIXELS, size, SEARCHED * seconds, warm_up=1)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not detectors.lacks_memory(error):
                raise
            break
        found[size] = size * len(taken) / total_s
        if _no_longer_pays(list(found.values())) or max(taken) > LONGEST_TRIED * seconds:
            break
        size *= 2
    return found


def _give_back() -> None:
    """What was allocated before is no longer held. Not while its error is, whose traceback holds the batch."""
    import torch

    if torch.accelerator.is_available():
        torch.get_device_module().empty_cache()


def _no_longer_pays(rates: Sequence[float]) -> bool:
    """Whether the last two doublings made it faster by next to nothing."""
    return len(rates) > 2 and max(rates[-2:]) <= max(rates[:-2]) * ENOUGH


def _fastest(images_per_s: dict[int, float]) -> int:
    """The smallest that none beats by much."""
    best = max(images_per_s.values())
    return next(size for size, each in images_per_s.items() if each * ENOUGH >= best)
