"""One evaluation: every validation image once, over all ranks, to one mAP that all ranks agree on.

Ranks detect on their own shard; rank 0 gathers the rows, checks that no image is missing or counted twice, and evaluates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.detection import coco, voc_metric
from benchmarks.detection.found import Batches, Detections

IMAGES_SHOWN = 8


@dataclass
class Evaluation:
    """The validation half of a COCO folder, and what the last evaluation found in its first images."""

    batches: Batches
    ground_truth: coco.GroundTruth
    image_ids: npt.NDArray[np.int64]  # that must be evaluated, over all ranks
    evaluator: coco.Evaluator
    world_size: int
    rank: int
    metric: Literal["coco"] | voc_metric.Year = "coco"
    first_rows: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 7)))
    first_ids: list[int] = field(default_factory=list)
    phase_seconds: dict[str, float] = field(default_factory=dict)

    def run(self, detect: Callable[[Tensor], Detections]) -> float:
        """mAP of `detect`, which takes images (B, 3, S, S). The same number on every rank."""
        rows: list[npt.NDArray[np.float64]] = [np.empty((0, 7))]
        ids: list[npt.NDArray[np.int64]] = []
        start, self.batches.wait_s = time.perf_counter(), 0.0
        for batch in self.batches:
            batch_ids = batch["image_ids"].flatten().cpu().numpy().astype(np.int64)
            if len(batch_ids) == 0:  # the last batch of a shard that ends where another's goes on
                continue
            ids.append(batch_ids)
            rows.append(self.ground_truth.rows(detect(batch["images"]), batch_ids))
        self.first_rows = np.concatenate(rows[:2])
        self.first_ids = ids[0][:IMAGES_SHOWN].tolist() if ids else []
        detected = time.perf_counter()
        found = self._agreed(self._all_ranks(np.concatenate(rows)), self._all_ranks(np.concatenate([[], *ids])))
        waited = self.batches.wait_s  # each batch is waited for until its detections are there: so does the device
        self.phase_seconds = {
            "evaluation_data_starved": waited,
            "evaluation_forward": detected - start - waited,
            "evaluation_metric": time.perf_counter() - detected,
        }
        return found

    def _all_ranks(self, mine: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The rows of all ranks on rank 0; elsewhere only this rank's."""
        if self.world_size == 1:
            return mine
        parts: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(mine, parts, dst=0)
        return mine if parts is None else np.concatenate(parts)

    def _agreed(self, rows: npt.NDArray[np.float64], ids: npt.NDArray[Any]) -> float:
        """Rank 0's mAP, or its complaint raised, on every rank."""
        box: list[Any] = [0.0, self._incomplete(ids) if self.rank == 0 else None]
        if self.rank == 0 and box[1] is None:
            box[0] = self._quality(rows)
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise RuntimeError(box[1])
        return float(box[0])

    def _quality(self, rows: npt.NDArray[np.float64]) -> float:
        if self.metric == "coco":
            return coco.evaluate(self.ground_truth, rows, evaluator=self.evaluator, image_ids=self.image_ids).mAP
        return voc_metric.evaluate(
            self.ground_truth.annotations, rows, metric=self.metric, image_ids=self.image_ids
        ).mAP

    def _incomplete(self, ids: npt.NDArray[Any]) -> str | None:
        if sorted(ids.tolist()) == sorted(self.image_ids.tolist()):
            return None
        return (
            f"evaluation saw {len(ids)} images, {len(np.unique(ids))} of them different; "
            f"each of {len(self.image_ids)} must come exactly once"
        )


def average_running_statistics(model: nn.Module, world_size: int) -> None:
    """Give every rank the mean of all ranks' batch-norm statistics, so that they evaluate one and the same network."""
    if world_size == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                with torch.no_grad():
                    dist.all_reduce(statistic)
                    statistic.div_(world_size)
