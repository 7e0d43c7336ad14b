"""Correctness before speed: what measuring.ssd compares must compute the same, or its times mean nothing.

Shapes: B images, A default boxes, K classes with background 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.detection.capabilities import backend
from benchmarks.detection.data_path.pictures import read
from benchmarks.ssd import boxes, data, detections, loss
from benchmarks.ssd.config import Augmentation, SSDConfig
from benchmarks.ssd.session import SSDSession
from harness.contract import Context
from measuring.ssd import baselines, setup

LOSS_BOUND = 1e-5  # relative; sums of some thousand float32 numbers
DECODE_BOUND = 1e-5  # of the image's side, for offsets within 3 standard deviations of a network's
DETECTION_BOUND = 1e-5
PIXEL_BOUND = 0.5  # levels of 255, mean: DALI's resize is not PIL's to the last bit (0.16 on COCO)
MATCHED_BOUND = (
    0.25  # of the matched: where overlaps tie, either may be (0.11 on COCO); another rule would give 1 and more
)
# bf16 keeps 8 bits of each product, and the loss is a mean of thousands
STEP_BOUND = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 1e-2}

AS_IT_IS = Augmentation(
    crop_min_iou=(0.0,), crop_scale=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0), flip_probability=0.0,
    brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue_degrees=(0.0, 0.0),
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A difference that was found, and what it may be."""

    what: str
    found: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.found <= self.bound  # NaN does not


def broken(what: str, error: Exception) -> Check:
    """What broke before it could be measured, as a check that does not pass: the rest of a rented hour is not lost for it."""
    said = next(iter(str(error).splitlines()), "without a word")
    return Check(f"{what} works: {type(error).__name__}: {said}", 1.0, 0.0)


def of_computation(
    ours: SSDSession, plain: SSDSession, batch: dict[str, Tensor], network: tuple[Tensor, Tensor]
) -> list[Check]:
    """`batch` of `ours`; `network` is logits and offsets for it; `plain` has the same weights in float32."""
    return [
        *of_loss(ours, batch, network),
        of_decode(ours.default_boxes, network[1]),
        of_step(ours, plain, batch),
    ]


def of_loss(ours: SSDSession, batch: dict[str, Tensor], network: tuple[Tensor, Tensor]) -> Iterator[Check]:
    """The plain loss, and the fused one where it is configured, of the same `network` outputs as a loss in float64."""
    expected = loss_in_float64(*network, batch["labels"], batch["offsets"])
    named = {"plain": (loss.detection_loss, network)}
    if "loss" in ours.config.compute.fused:
        named["fused"] = (ours.detection_loss, setup.network_outputs(ours, *network))
    for name, (function, outputs) in named.items():
        found = function(*outputs, batch["labels"], batch["offsets"]).item()
        yield Check(f"loss ({name}) against float64, relative", abs(found - expected) / expected, LOSS_BOUND)


def loss_in_float64(logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor) -> float:
    """The definition, image after image, by sorting."""
    total = 0.0
    for z, o, label, t in zip(
        logits.double().cpu(), offsets.double().cpu(), labels.cpu(), targets.double().cpu(), strict=True
    ):
        positive = label > 0
        count = int(positive.sum())
        if count == 0:
            continue
        entropy = F.cross_entropy(z, label.long(), reduction="none")
        hardest = entropy.masked_fill(positive, 0.0).sort(descending=True).values[: loss.NEGATIVES_PER_POSITIVE * count]
        box = F.smooth_l1_loss(o[positive], t[positive], reduction="sum")
        total += float((box + entropy[positive].sum() + hardest.sum()) / count)
    return total / len(logits)


def of_decode(default_boxes: Tensor, offsets: Tensor) -> Check:
    found = boxes.decode(offsets, default_boxes).double().cpu().numpy()
    t, anchor = offsets.double().cpu().numpy(), default_boxes.double().cpu().numpy()
    centre = anchor[:, :2] + boxes.SCALE_XY * t[..., :2] * anchor[:, 2:]
    size = np.exp(boxes.SCALE_WH * t[..., 2:]) * anchor[:, 2:]
    expected = np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
    return Check("decoded boxes against float64, absolute", float(np.abs(found - expected).max()), DECODE_BOUND)


def of_detections(network: tuple[Tensor, Tensor], default_boxes: Tensor) -> Check:
    found, expected = (
        baselines.rows(function(*network, default_boxes)) for function in (detections.detect, baselines.detect_in_loops)
    )
    same = found.shape == expected.shape and len(found) > 0 and np.array_equal(found[:, :2], expected[:, :2])
    difference = float(np.abs(found - expected).max()) if same else float("nan")
    return Check(f"{len(found)} detections against the loop's, absolute", difference, DETECTION_BOUND)


def of_step(ours: SSDSession, plain: SSDSession, batch: dict[str, Tensor]) -> Check:
    """Loss of the first step of two sessions of equal weights, before either has trained."""
    assert plain.config.data.image_format == ours.config.data.image_format
    tensors = setup.tensors(batch)
    found, expected = (each.train_step(*tensors).item() for each in (ours, plain))
    return Check(
        f"first loss in {ours.precision} against plain fp32, relative", abs(found - expected) / expected,
        STEP_BOUND[ours.precision],
    )  # fmt: skip


def of_data(config: SSDConfig, folder: Path, default_boxes: Tensor) -> Iterator[Check]:
    """DALI's and PIL's pixels and matches of the same few pictures, as they are; on the CPU, whatever trains."""
    settings, count = config.data, config.data.train_samples
    images, annotations = folder / settings.train_images, folder / settings.train_annotations
    chosen = backend(config, Context("cpu"))
    source = data.Source(
        images, annotations, config.model.image_px, count, 1, "cpu", 0, 1, skip_empty=True, backend=chosen
    )
    batch = next(iter(data.train_batches(source, AS_IT_IS, default_boxes, order_seed=1, augmentation_seed=1)))
    pixels = data.unnormalise(batch["images"]).astype(float)

    path = baselines.PilPath(config.model.image_px, AS_IT_IS, default_boxes, np.random.default_rng(1))
    samples = [path.sample(picture) for picture in read(source)]
    shown = data.unnormalise(torch.stack([image for image, _, _ in samples])).astype(float)
    differences, matched, unlike = [], 0, 0
    for one, labels in zip(pixels, batch["labels"], strict=True):
        nearest = int(np.abs(shown - one).mean(axis=(1, 2, 3)).argmin())  # the reader's order is shuffled
        differences.append(np.abs(shown[nearest] - one).mean())
        matched += int((labels > 0).sum())
        unlike += int((samples[nearest][1] != labels).sum())
    yield Check("pixels against PIL's, mean levels of 255", float(np.mean(differences)), PIXEL_BOUND)
    yield Check("matches against the Python encoder's, share", unlike / matched, MATCHED_BOUND)
