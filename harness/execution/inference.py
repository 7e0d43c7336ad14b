"""`harness inference`: how fast a model finds things in pictures, in the terms of MLPerf Inference; no result of MLPerf's.

    single stream   one picture at a time, the next as soon as the last is answered: latency, 90th percentile first
    offline         all pictures are there at once, in batches of the size that is fastest: images/s

A query begins with the picture in the host's memory at the network's size, which is where MLPerf's begin, or as a JPEG file,
which is where an application's do. It ends when its detections are in the host's memory: nothing is left to wait for. Pictures
are drawn at random with a fixed seed, with replacement. Nothing here trains, and every sample is kept.

Terms and minimums: MLPerf Inference Rules 0.5 (2019), "Scenarios", the first round: 1,024 queries and 60 s of single stream,
24,576 pictures and 60 s offline. A shorter run says so.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.contract import Context, Detector, NotSuitable, Plain, Published, Sample
from harness.execution import provenance
from harness.execution.detectors import Model
from harness.system import accelerator
from harness.system.facts import Machine

VERSION = 1  # of the file's shape
SINGLE_STREAM, OFFLINE = "single-stream", "offline"
SCENARIOS = (SINGLE_STREAM, OFFLINE)
PIXELS, JPEG = "pixels", "JPEG"  # what a query begins with
PRECISIONS = ("fp32", "bf16", "fp16")
PERCENTILES = (50, 90, 99)
RULES = "MLPerf Inference Rules 0.5"
LEAST = {SINGLE_STREAM: {"queries": 1024, "seconds": 60}, OFFLINE: {"pictures": 24_576, "seconds": 60}}
LIBRARY = 64  # pictures that queries are drawn from; as many as those rules say for large ones
SEED = 20_190_920
WARM_UP = 3  # calls that are not counted: kernels are loaded, chosen, compiled
MOST_BATCH = 1024
FEWEST_BATCHES = 3
MOST_TIMES = 10  # the seconds asked for, that are waited for the queries asked for
AHEAD = 2  # batches that are decoded before they are wanted
ENOUGH = 1.02  # a larger batch is taken where it is faster by more


@dataclass(frozen=True)
class Wanted:
    """What to measure, and for how long each."""

    scenarios: tuple[str, ...] = SCENARIOS
    beginnings: tuple[str, ...] = (PIXELS, JPEG)
    precisions: tuple[str, ...] = ("fp32", "bf16")
    compiled: tuple[bool, ...] = (False,)
    batch: int | None = None  # offline's; None: the fastest is looked for
    seconds: float = 5  # of each, at least
    queries: int = 100  # of single stream, at least
    pictures: tuple[Path, ...] = ()  # none: the benchmark's own


@dataclass(frozen=True)
class Figure:
    """One scenario measured in one way."""

    scenario: str
    begins_with: str
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
    figures: list[Figure] = field(default_factory=list)
    batches: dict[str, dict[int, float]] = field(default_factory=dict)  # images/s by batch, by variant: the search
    left_out: dict[str, str] = field(default_factory=dict)
    published: Sequence[Published] = ()


def measure(
    model: Model,
    here: Context,
    machine: Machine,
    wanted: Wanted,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """All that is wanted, one after the other. NotSuitable where the device can do none of it."""
    told = f"{len(wanted.pictures)} named" if wanted.pictures else f"{LIBRARY} drawn, of the size of the data set's"
    found = Measured(model, here, machine, told, published=model.benchmark.published(model.configuration.tables))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(here.threads, "pictures") as pool:
        paths = list(wanted.pictures) or _drawn(model, Path(folder))
        for precision in wanted.precisions:
            fastest = wanted.batch
            for compiled in sorted(wanted.compiled):
                variant = f"{precision}{' compiled' if compiled else ''}"
                try:
                    detector = model.open(here, precision=precision, compiled=compiled)
                except NotSuitable as error:
                    found.left_out[variant] = str(error)
                    continue
                library = _Library(paths, [detector.read(each, upright=False) for each in paths], detector, pool)
                if OFFLINE in wanted.scenarios and fastest is None:
                    say(f"{variant}: which batch is fastest")
                    found.batches[variant] = _by_batch(library, wanted.seconds)
                    fastest = _fastest(found.batches[variant])
                for scenario, begins_with in itertools.product(wanted.scenarios, wanted.beginnings):
                    say(f"{variant}: {scenario} from {begins_with}")
                    batch = 1 if scenario == SINGLE_STREAM else fastest or 1
                    found.figures.append(_figure(library, scenario, begins_with, batch, wanted))
    if not found.figures:
        raise NotSuitable("\n".join(f"{variant}: {reason}" for variant, reason in found.left_out.items()))
    return found


@dataclass
class _Library:
    """The pictures that queries are drawn from, as files and as the network takes them."""

    paths: Sequence[Path]
    samples: Sequence[Sample]
    detector: Detector
    pool: ThreadPoolExecutor

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

    def answer(self, samples: Sequence[Sample]) -> Any:
        """What is found in them, in the host's memory."""
        return self.detector.detect(self.detector.place(samples))

    def _read(self, at: int) -> Sample:
        return self.detector.read(self.paths[at], upright=False)

    def one(self, begins_with: str, at: int) -> Any:
        return self.answer([self._read(at) if begins_with == JPEG else self.samples[at]])


def _drawn(model: Model, folder: Path) -> list[Path]:
    paths = []
    for number, content in enumerate(model.benchmark.pictures(LIBRARY)):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(content)
    return paths


def _figure(library: _Library, scenario: str, begins_with: str, batch: int, wanted: Wanted) -> Figure:
    if scenario == SINGLE_STREAM:
        seconds, total_s = _single_stream(library, begins_with, wanted)
    else:
        seconds, total_s = _offline(library, begins_with, batch, wanted.seconds)
    shown = library.samples[:batch]
    found = library.detector.detections(library.answer(shown), shown)
    return Figure(
        scenario,
        begins_with,
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
    while last - begun < wanted.seconds or (
        len(seconds) < wanted.queries and last - begun < MOST_TIMES * wanted.seconds
    ):
        library.one(begins_with, next(order))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return seconds, last - begun


def _offline(library: _Library, begins_with: str, batch: int, least_s: float) -> tuple[list[float], float]:
    for _ in range(WARM_UP):
        library.answer([library.samples[at % len(library.samples)] for at in range(batch)])
    seconds: list[float] = []
    batches = library.batches(begins_with, batch)
    begun = last = time.perf_counter()
    while len(seconds) < FEWEST_BATCHES or last - begun < least_s:
        library.answer(next(batches))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    batches.close()  # type: ignore[attr-defined]
    return seconds, last - begun


def _by_batch(library: _Library, least_s: float) -> dict[int, float]:
    """Images/s from pixels by batch, which doubles until that no longer pays, memory ends or a batch takes too long."""
    import torch

    found: dict[int, float] = {}
    size = 1
    while size <= MOST_BATCH:
        try:
            seconds, total_s = _offline(library, PIXELS, size, least_s / 10)
        except torch.OutOfMemoryError:
            torch.get_device_module().empty_cache()
            break
        found[size] = size * len(seconds) / total_s
        last_two = list(found.values())[-2:]
        if max(last_two) < max(found.values()) or max(seconds) > least_s / 2:
            break  # two in a row that are no faster than a smaller one
        size *= 2
    return found


def _fastest(images_per_s: dict[int, float]) -> int:
    """The smallest that none beats by much."""
    best = max(images_per_s.values())
    return next(size for size, each in images_per_s.items() if each * ENOUGH >= best)


# --- what is left of it ------------------------------------------------------------------------------------------------


def document(found: Measured) -> dict[str, Any]:
    """All of it: the machine as a run's log tells it, every figure with every sample."""
    configuration = found.model.configuration
    return {
        "version": VERSION,
        "note": f"in the terms of {RULES}; no result of MLPerf's",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": found.model.told,
        "trained": found.model.state is not None,
        "configuration_name": configuration.name,
        "configuration_sha256": configuration.sha256,
        "device": found.here.device,
        "threads": found.here.threads,
        "pictures": found.pictures,
        **provenance.surroundings(found.machine),
        "figures": [
            {
                "scenario": each.scenario,
                "begins_with": each.begins_with,
                "batch": each.batch,
                "images_per_s": each.images_per_s,
                **{f"latency_ms_p{of}": each.latency_ms(of) for of in PERCENTILES if each.scenario == SINGLE_STREAM},
                "long_enough_for_mlperf": each.long_enough,
                "total_s": each.total_s,
                "detections_per_picture": each.detections,
                **each.properties,
                "n": len(each.seconds),
                "seconds": each.seconds,
            }
            for each in found.figures
        ],
        "images_per_s_by_batch": {
            variant: {str(size): rate for size, rate in each.items()} for variant, each in found.batches.items()
        },
        "left_out": dict(found.left_out),
        "published": [vars(each) for each in found.published],
    }


def lines(found: Measured) -> Iterator[str]:
    """For a terminal of 80 columns."""
    import textwrap

    on = found.machine.accelerators[0] if found.here.device != accelerator.CPU else found.machine.host.cpu.model
    yield from textwrap.wrap(f"{found.model.told}; {found.here.device}, {on}, {found.here.threads} threads", 80)
    yield f"pictures: {found.pictures}"
    single = [each for each in found.figures if each.scenario == SINGLE_STREAM]
    if single:
        yield ""
        percentiles = "".join(f"{f'p{of}':>9}" for of in PERCENTILES)
        yield f"{'single stream':22}{'begins with':>12}{percentiles}{'queries':>13}"
        for each in single:
            latencies = "".join(f"{each.latency_ms(of):>9.2f}" for of in PERCENTILES)
            yield f"{_variant(each):22}{each.begins_with:>12}{latencies} ms{len(each.seconds):>10,}"
    offline = [each for each in found.figures if each.scenario == OFFLINE]
    if offline:
        yield ""
        yield f"{'offline':22}{'begins with':>12}{'batch':>9}{'images/s':>18}{'pictures':>13}"
        for each in offline:
            count = each.batch * len(each.seconds)
            yield f"{_variant(each):22}{each.begins_with:>12}{each.batch:>9}{each.images_per_s:>18,.1f}{count:>13,}"
    yield ""
    for variant, reason in found.left_out.items():
        yield from textwrap.wrap(f"not measured: {variant}: {reason}", 80, subsequent_indent="    ")
    if not all(each.long_enough for each in found.figures):
        yield f"Shorter than {RULES} asks for: 60 s of 1,024 queries or"
        yield "24,576 pictures (--seconds 60 --queries 1024)."
    for paper in found.published:
        text = f"published: {paper.images_per_s:g} images/s, {paper.what}, on {paper.hardware} ({paper.source})"
        yield from textwrap.wrap(text, 80, subsequent_indent="    ")


def _variant(each: Figure) -> str:
    return f"{each.properties.get('precision', '')}{', compiled' if each.properties.get('compiled') else ''}"
