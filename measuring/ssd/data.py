"""The data path alone: its speed, both backends against PIL, and DALI's choices against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.detection import capabilities
from benchmarks.detection.capabilities import installed
from benchmarks.detection.data_path.data_torch import AHEAD
from benchmarks.detection.data_path.pictures import read
from benchmarks.detection.quality import coco
from benchmarks.detection.tables import dali_defaults
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.data import Batches
from measuring.measure import (
    Figure,
    Known,
    Measure,
    against,
    in_turns,
    noted,
    processor_time_of_background_work,
)
from measuring.ssd import baselines, setup

GOAL = 1.6  # of a processor's time for an image
SPENT = "processor time an image"


def endless(batches: Batches) -> Iterator[dict[str, Tensor]]:
    while True:
        yield from batches


def made_s(batches: Iterator[object], count: int, device: str, clock: Measure = time.perf_counter) -> float:
    """Seconds in which `count` batches are made: none is when the clock starts, and no more is under way then than at the end.

    Those that were made before are taken first, and one that has to be waited for: the queue is then as empty as it is at the
    end, where another has been waited for. From a full queue 4 batches of 4 came at 84 to 123 images/s, and 40 at 39 to 73.
    """

    def take(number: int) -> None:
        for _ in range(number):
            next(batches)
        if device.startswith("cuda"):  # not the device, which goes on with what is made ahead
            torch.cuda.current_stream(device).synchronize()

    take(AHEAD + 1)
    start = clock()
    take(count)
    return clock() - start


def against_pil(config: SSDConfig, folder: Path, default_boxes: Tensor, rounds: int) -> Iterator[Known]:
    """Processor time for an image of either backend on the CPU, against PIL and torchvision on one thread; after every sample
    what is known so far."""
    size, batches = 8, 8  # of a turn: fewer pictures, and it matters which
    one_thread = {"threads": 1, "image_format": "fp32_chw", **dali_defaults()}
    sessions = {
        name: setup.session(
            setup.changed(
                config, data={**one_thread, "backend": name}, optimizer={"batch_size": size}, compute=setup.PLAIN
            ),
            "cpu",
            folder,
        )
        for name in (("dali", "torch") if installed("nvidia.dali") else ("torch",))
    }
    path = baselines.PilPath(config.model.image_px, config.augmentation, default_boxes.cpu(), np.random.default_rng(1))
    pictures = cycle(read(sessions["torch"].folder.train_source))

    def ours(name: str) -> Measure:
        epochs = endless(sessions[name].folder.train_batches(sessions[name].default_boxes))

        def measure() -> float:
            spent = processor_time_of_background_work(lambda: [next(epochs) for _ in range(batches)])
            return 1e3 * spent / (batches * size)

        return measure

    def pil() -> float:
        start = time.thread_time()
        for _ in range(batches):
            torch.stack([path.sample(next(pictures))[0] for _ in range(size)])
        return 1e3 * (time.thread_time() - start) / (batches * size)

    truth = coco.GroundTruth.load(folder / config.data.train_annotations)
    sizes = truth.sizes.mean(axis=0)
    note = f"pictures of {sizes[0]:.0f} x {sizes[1]:.0f} px on average"
    rows = {"dali": ("data path", "DALI"), "torch": ("data path without DALI", "torch")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for found in in_turns({**{name: ours(name) for name in sessions}, "pil": pil}, rounds):
            baseline = Figure("PIL and torchvision", "ms", found["pil"])
            others = {f"{rows[name][0]}, {SPENT}": Figure(rows[name][1], "ms", found[name]) for name in sessions}
            yield against(f"data path, {SPENT}", baseline, others, GOAL, note)
    finally:
        torch.set_num_threads(threads)


def choices(
    config: SSDConfig, device: str, folder: Path, rounds: int, batches: int, *, tell: Callable[[str], None]
) -> Iterator[Known]:
    """The data path alone with each choice of the graph, against the configuration's own. One that this device does not do as
    it says is told, and left out: it would be another's figure."""
    graphs: dict[str, dict[str, Any]] = {
        f"{decode}, {form}, hardware decoder {load}": {"decode": decode, "image_format": form, "hw_decoder_load": load}
        for decode in ("region", "whole")
        for form in ("fp32_chw", "fp16_hwc4")
        for load in ((0.0, 0.65, 0.9, 1.0) if device.startswith("cuda") else (0.65,))
    }
    for name, values in list(graphs.items()):
        if without := capabilities.settle(setup.changed(config, data=values), setup.context(device)).left_out:
            tell(f"{name}: left out: {'; '.join(without.values())}")
            del graphs[name]

    def timed(values: Mapping[str, Any]) -> Measure:
        def measure() -> float:
            opened = setup.session(setup.changed(config, data=values, compute=setup.PLAIN), device, folder)
            # again in each turn: a GPU has no room for all of them
            epochs = endless(opened.folder.train_batches(opened.default_boxes))

            def consume() -> None:
                for _ in range(batches):
                    next(epochs)

            consume()
            if device == "cpu":
                spent = processor_time_of_background_work(consume)
            else:
                with noted(device):
                    spent = made_s(epochs, batches, device)
            return 1e3 * spent / (batches * config.optimizer.batch_size)

        return measure

    of, ours = f"data path, {SPENT if device == 'cpu' else 'time an image'}", "as configured"
    for found in in_turns({name: timed(values) for name, values in {ours: {}, **graphs}.items()}, rounds):
        figures = {name: Figure(name, "ms", samples) for name, samples in found.items()}
        baseline = figures.pop(ours)
        yield against(of, baseline, {f"{of}: {name}": each for name, each in figures.items()})
