"""What measuring.ssd measures, one function for each row or group of rows. All of it is the session's own code.

What takes turns tells after every sample what is known so far: a budget may end anywhere.

Shapes: B images, A default boxes, K classes with background 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.precision import AUTOCAST_DTYPE
from benchmarks.detection.quality import coco
from benchmarks.ssd import detections
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.session import SSDSession
from measuring.measure import Figure, Known, Measure, against, in_turns, noted, synchronise, vector_units, wall
from measuring.ssd import baselines, setup
from measuring.ssd.data import endless, made_s

Batch = Mapping[str, Tensor]
Network = tuple[Tensor, Tensor]

# One change from PLAIN each, or one from the configuration, to see what each is worth
CPU_VARIANTS: dict[str, dict[str, Any]] = {
    "fp32 channels_last": {**setup.PLAIN, "channels_last": True},
    "bf16 NCHW": {**setup.PLAIN, "precision": "bf16"},
    "bf16 channels_last": {**setup.PLAIN, "precision": "bf16", "channels_last": True},
}
COMPILED: dict[str, Any] = {**setup.PLAIN, "precision": "bf16", "channels_last": True, "compile": True}
GPU_VARIANTS: dict[str, dict[str, Any]] = {
    **CPU_VARIANTS,
    "bf16 channels_last, compiled": COMPILED,
    "bf16 channels_last, compiled, stem as space to depth": {**COMPILED, "stem": "space_to_depth"},
    **{
        f"bf16 channels_last, compiled, stem as space to depth, fused {', '.join(parts)}": {
            **COMPILED,
            "stem": "space_to_depth",
            "fused": parts,
        }
        for parts in (["stem"], ["loss"], ["stem", "blocks"])
    },
    "bf16 channels_last, compiled, CUDA graphs": {**COMPILED, "cuda_graphs": True},
}
CATEGORIES, PER_IMAGE = 80, 100  # COCO's own, and detections that its metric counts
EVAL_BATCH = 120
KERNELS = 15  # shown
STEP_GOAL, DETECTION_GOAL = 3.5, 5.0  # on a CPU; the first on one with AMX


def step(ours: SSDSession, plain: SSDSession, batch: Batch, rounds: int, clock: Measure) -> Iterator[Known]:
    """The configuration's training step against the plain one's."""
    on_cpu, with_amx = ours.context.device == "cpu", "amx_bf16" in vector_units()
    goal = STEP_GOAL if on_cpu and with_amx else None
    note = f"no AMX; with it the goal is {STEP_GOAL:g}" if on_cpu and not with_amx else ""
    yield from steps({described(ours.config): ours}, plain, batch, rounds, clock=clock, goal=goal, note=note)


def steps(
    sessions: Mapping[str, SSDSession],
    plain: SSDSession,
    batch: Batch,
    rounds: int,
    *,
    clock: Measure,
    goal: float | None = None,
    note: str = "",
) -> Iterator[Known]:
    """Training steps against the plain one's; after every sample what is known so far."""
    tensors, device = setup.tensors(batch), plain.context.device

    def timed(session: SSDSession) -> Measure:
        return lambda: 1e3 * wall(lambda: session.train_step(*tensors), device, clock)

    plain_name, of = "fp32 NCHW, eager", "training step"
    for found in in_turns({name: timed(each) for name, each in {**sessions, plain_name: plain}.items()}, rounds):
        figures = {name: Figure(name, "ms", samples) for name, samples in found.items()}
        baseline = figures.pop(plain_name)
        yield against(of, baseline, {f"{of}, {name}": each for name, each in figures.items()}, goal, note)


def described(config: SSDConfig) -> str:
    """What of a configuration decides the speed of its step, in words."""
    compute = config.compute
    return (
        f"{compute.precision} {'channels_last' if compute.channels_last else 'NCHW'}"
        f"{', compiled' if compute.compile else ''}{', CUDA graphs' if compute.cuda_graphs else ''}"
        f"{', stem as space to depth' if compute.stem == 'space_to_depth' else ''}"
        f"{', fused ' + ', '.join(compute.fused) if compute.fused else ''}"
    )


def detection(network: Network, default_boxes: Tensor, rounds: int, device: str, clock: Measure) -> Iterator[Known]:
    """Softmax, decode and suppression of one batch, against loops over images, classes and boxes."""
    number = len(detections.detect(*network, default_boxes)) / len(network[0])
    note, goal = f"{len(network[0])} images, {number:.0f} detections each", DETECTION_GOAL if device == "cpu" else None
    of, ours, loop = "decode and NMS, a batch", "all images and classes at once", "a Python loop"
    for found in in_turns(
        {
            name: lambda function=function: 1e3 * wall(lambda: function(*network, default_boxes), device, clock)  # type: ignore[misc]
            for name, function in ((ours, detections.detect), (loop, baselines.detect_in_loops))
        },
        rounds,
    ):
        yield against(of, Figure(loop, "ms", found[loop]), {of: Figure(ours, "ms", found[ours])}, goal, note)


def alone(session: SSDSession, batch: Batch, network: Network, rounds: int, batches: int) -> Iterator[Known]:
    """Data, step and loss, each by itself, to say which of them bounds the whole."""
    device, size = session.context.device, len(batch["labels"])
    dtype = AUTOCAST_DTYPE[session.precision] or torch.float32
    outputs = setup.network_outputs(session, *(x.to(dtype) for x in network))
    leaves = [x.requires_grad_() for part in outputs for x in ([part] if isinstance(part, Tensor) else part)]
    tensors = setup.tensors(batch)
    epochs = endless(session.folder.train_batches(session.default_boxes))

    def loss() -> object:
        return torch.autograd.grad(session.detection_loss(*outputs, batch["labels"], batch["offsets"]), leaves)

    measured: dict[str, Measure] = {
        # not `noted`: what a card draws while it decodes, for most of this section, is not what it draws in a step
        "data alone": lambda: size * batches / made_s(epochs, batches, device),
        "step alone": lambda: size / wall(lambda: session.train_step(*tensors), device),
        "loss alone, forward and backward": lambda: size / wall(loss, device),
    }
    for found in in_turns(measured, rounds):
        yield [Figure(name, "images/s", list(samples)) for name, samples in found.items() if samples]


def evaluation(session: SSDSession) -> list[Figure]:
    """One evaluation, in its parts. The network has hardly trained and finds little: see `detection` for a full load."""
    session.load_data()
    with noted(session.context.device):
        session.evaluate(1)
    images = f"{session.evaluation.batches.samples} images"
    return [
        Figure(name.replace("_", " ", 1).replace("evaluation ", "evaluation: ", 1), "s", [seconds], images)
        for name, seconds in session.phase_seconds().items()
    ]


@dataclass(frozen=True)
class Kernel:
    """A row of the profiler's table."""

    name: str
    share: float  # of the time on the device
    ms_per_step: float
    calls_per_step: float


def kernels(session: SSDSession, batch: Batch, steps: int) -> list[Kernel]:
    """Where the time of a training step goes, by kernel on a GPU, by operator on a CPU."""
    on_gpu = session.context.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    tensors = setup.tensors(batch)
    session.train_step(*tensors)
    with profile(activities=activities) as profiled, noted(session.context.device):
        for _ in range(steps):
            session.train_step(*tensors)
        synchronise(session.context.device)
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # the device's own events alone: an operator's hold the time of the kernels that it started once more
    wanted = "CUDA" if on_gpu else "CPU"
    events = [
        each for each in profiled.key_averages() if each.device_type.name == wanted and not each.is_user_annotation
    ]
    spent = {(each.key, each.count): float(getattr(each, attribute)) for each in events}
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])[:KERNELS]
    return [Kernel(name[:90], us / total, us / 1e3 / steps, count / steps) for (name, count), us in largest if us > 0]


def _detections(truth_images: int) -> tuple[coco.GroundTruth, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Made-up ground truth of full COCO's density, detections in it, see GroundTruth.rows, and its images' ids."""
    rng = np.random.default_rng(0)
    ids = np.arange(1, truth_images + 1)
    boxes = rng.uniform(0, 300, (truth_images * 7, 4))
    document = {
        "images": [{"id": int(i), "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in ids],
        "categories": [{"id": c, "name": str(c)} for c in range(1, CATEGORIES + 1)],
        "annotations": [
            {"id": n, "image_id": n % truth_images + 1, "category_id": int(rng.integers(1, CATEGORIES + 1)),
             "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, box in enumerate(boxes.tolist(), start=1)
        ],
    }  # fmt: skip
    truth = coco.GroundTruth(annotation_file.parse(json.dumps(document).encode(), Path("synthetic")))
    of = np.repeat(ids, PER_IMAGE)
    rows = np.column_stack(
        [of, rng.uniform(0, 300, (len(of), 4)), rng.uniform(0.05, 1, len(of)), rng.integers(1, CATEGORIES + 1, len(of))]
    )
    # the ground truth itself among them, so that there is something to agree on
    rows[: len(boxes), 0] = [a["image_id"] for a in document["annotations"]]
    rows[: len(boxes), 1:5] = boxes
    rows[: len(boxes), 6] = [a["category_id"] for a in document["annotations"]]
    return truth, rows, ids


def evaluators(truth_images: int, rounds: int) -> Iterator[Known]:
    """hotcoco against pycocotools on synthetic detections of full COCO's density."""
    truth, rows, ids = _detections(truth_images)
    results: dict[str, coco.Metrics] = {}

    def timed(evaluator: coco.Evaluator) -> Measure:
        def evaluate() -> None:
            results[evaluator] = coco.evaluate(truth, rows, evaluator=evaluator, image_ids=ids)

        return lambda: wall(evaluate, "cpu")

    note = f"{truth_images} images, {PER_IMAGE} detections each, {CATEGORIES} categories; the twelve figures equal"
    for found in in_turns({"hotcoco": timed("hotcoco"), "pycocotools": timed("pycocotools")}, rounds):
        if results["hotcoco"] != results["pycocotools"]:
            raise RuntimeError(f"the evaluators disagree: {results}")
        ours, theirs = (Figure(name, "s", samples) for name, samples in found.items())
        yield against("COCOeval", theirs, {"COCOeval": ours}, note=note)


def evaluation_of_ranks(truth_images: int, rounds: int, ranks: int = 64) -> Iterator[Known]:
    """How long all ranks are busy with COCO's metric: one's own part and rank 0's sum of all, against all of it on rank 0."""
    truth, rows, ids = _detections(truth_images)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    ranks = min(ranks, truth_images)
    shards = np.array_split(ids, ranks)
    ends = np.searchsorted(rows[:, 0], [each[-1] for each in shards], side="right")
    of_rank = np.split(rows, ends[:-1])
    parts = [_part(truth, each, own) for each, own in zip(shards, of_rank, strict=True)]
    results: dict[str, float] = {}

    def all_of_it() -> None:
        results["whole"] = coco.evaluate(truth, rows, evaluator="hotcoco", image_ids=ids).mAP

    def in_parts() -> None:
        own = _part(truth, shards[0], of_rank[0])
        results["parts"] = coco.matched([own, *parts[1:]])

    def timed(work: Callable[[], None]) -> Measure:
        return lambda: wall(work, "cpu")

    of, gathered = "COCOeval over ranks", sum(each.nbytes for each in parts) / 1e6
    note = f"{truth_images} images, {PER_IMAGE} detections each, {gathered:.1f} MB gathered; equal mAP"
    for found in in_turns({f"{ranks} ranks": timed(in_parts), "rank 0 alone": timed(all_of_it)}, rounds):
        if results["whole"] != results["parts"]:
            raise RuntimeError(f"the parts are not the whole: {results}")
        ours, whole = (Figure(name, "s", samples) for name, samples in found.items())
        yield against(of, whole, {of: ours}, note=note)


def _part(truth: coco.GroundTruth, ids: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """One rank's, as its evaluation makes it."""
    found = coco.Matching(truth)
    for mine in (ids[at : at + EVAL_BATCH] for at in range(0, len(ids), EVAL_BATCH)):
        first, last = np.searchsorted(rows[:, 0], [mine[0], mine[-1] + 1])
        found.add(mine, rows[first:last])
    return found.to_array()
