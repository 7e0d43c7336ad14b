"""One evaluation: every validation image once, over all ranks, to one mAP that all ranks agree on.

Ranks detect on their own shard and hold their detections against its ground truth at once; rank 0 gathers the matches, as one
tensor a rank, checks that no image is missing or counted twice, and sums up. By pycocotools and by VOC's metric, which know no
parts, rank 0 is given the detections and does all of it.

Where its time goes, on the clock of whoever does the work (benchmarks.detection.phases):

    evaluation_data_starved   the device has nothing to do for lack of a batch
    evaluation_forward        the network, its detections, and their way to the host
    evaluation_metric         they are held against the ground truth, gathered and summed up
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.detection.found import Batches, Detections
from benchmarks.detection.phases import Phases
from benchmarks.detection.quality import coco, voc_metric

IMAGES_SHOWN = 8
T = TypeVar("T", bound=np.generic)


@dataclass
class Evaluation:
    """The validation half of a COCO folder, and what the last evaluation found in its first images."""

    batches: Batches
    ground_truth: coco.GroundTruth
    image_ids: npt.NDArray[np.int64]  # that must be evaluated, over all ranks
    evaluator: coco.Evaluator
    world_size: int
    rank: int
    phases: Phases
    metric: Literal["coco"] | voc_metric.Year = "coco"
    first_rows: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 7)))
    first_ids: list[int] = field(default_factory=list)
    phase_seconds: dict[str, float] = field(default_factory=dict)

    def run(self, detect: Callable[[Tensor], Detections]) -> float:
        """mAP of `detect`, which takes images (B, 3, S, S). The same number on every rank."""
        rows: list[npt.NDArray[np.float64]] = [np.empty((0, 7))]
        ids: list[npt.NDArray[np.int64]] = []
        by_parts = self.metric == "coco" and self.evaluator == "hotcoco"
        matching = coco.Matching(self.ground_truth) if by_parts else None
        self.phases.restart("evaluation_data_starved")
        for batch in self.batches:
            # before the ids are read: of a GPU's batch that is where the host waits for the decoders
            self.phases.begin("evaluation_forward")
            batch_ids = batch["image_ids"].flatten().cpu().numpy().astype(np.int64)
            if len(batch_ids) > 0:  # the last batch of a shard that ends where another's goes on has none
                ids.append(batch_ids)
                rows.append(self.ground_truth.rows(detect(batch["images"]), batch_ids))
                if matching is not None:
                    self.phases.begin("evaluation_metric")
                    matching.add(batch_ids, rows[-1])
            self.phases.begin("evaluation_data_starved")
        self.phases.begin("evaluation_metric")
        self.first_rows = np.concatenate(rows[:2])
        self.first_ids = ids[0][:IMAGES_SHOWN].tolist() if ids else []
        seen = np.concatenate(self._all_ranks(np.concatenate([np.empty(0, np.int64), *ids])))
        if matching is not None:
            parts = self._all_ranks(matching.to_array())
            found = self._agreed(seen, lambda: coco.matched(parts))
        else:
            all_rows = self._all_ranks(np.concatenate(rows))
            found = self._agreed(seen, lambda: self._quality(np.concatenate(all_rows)))
        self.phase_seconds = dict(self.phases.stop())
        return found

    def _all_ranks(self, mine: npt.NDArray[T]) -> list[npt.NDArray[T]]:
        """Each rank's rows (or bytes) on rank 0; elsewhere only this rank's."""
        if self.world_size == 1:
            return [mine]
        device = _group_device()
        lengths = torch.zeros(self.world_size, dtype=torch.int64, device=device)
        lengths[self.rank] = len(mine)
        dist.all_reduce(lengths)
        own = torch.from_numpy(mine.copy())  # bytes of Python's cannot be written
        padded = torch.zeros(int(lengths.max()), *mine.shape[1:], dtype=own.dtype, device=device)
        padded[: len(mine)] = own
        parts = [torch.empty_like(padded) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(padded, parts, dst=0)
        if parts is None:
            return [mine]
        return [part[:length].cpu().numpy() for part, length in zip(parts, lengths.tolist(), strict=True)]

    def _agreed(self, ids: npt.NDArray[np.int64], quality: Callable[[], float]) -> float:
        """Rank 0's mAP, or its complaint raised, on every rank."""
        found, seen, different = 0.0, len(ids), len(np.unique(ids))
        complete = np.array_equal(np.sort(ids), np.sort(self.image_ids))
        if self.rank == 0 and complete:
            found = quality()
        if self.world_size > 1:
            told = torch.tensor([found, complete, seen, different], dtype=torch.float64, device=_group_device())
            dist.broadcast(told, src=0)
            found, complete, seen, different = told.tolist()
        if not complete:
            raise RuntimeError(
                f"evaluation saw {seen:.0f} images, {different:.0f} of them different; each of {len(self.image_ids)} must come "
                "exactly once"
            )
        return float(found)

    def _quality(self, rows: npt.NDArray[np.float64]) -> float:
        if self.metric == "coco":
            return coco.evaluate(self.ground_truth, rows, evaluator=self.evaluator, image_ids=self.image_ids).mAP
        return voc_metric.evaluate(
            self.ground_truth.annotations, rows, metric=self.metric, image_ids=self.image_ids
        ).mAP


def _group_device() -> torch.device:
    """Where the ranks' tensors must lie to be exchanged."""
    here = torch.accelerator.current_accelerator()
    if here is None or "gloo" in dist.get_backend():
        return torch.device("cpu")
    return torch.device(here.type, torch.accelerator.current_device_index())


def average_running_statistics(model: nn.Module, world_size: int) -> None:
    """Give every rank the mean of all ranks' batch-norm statistics, so that they evaluate one and the same network."""
    if world_size == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                with torch.no_grad():
                    dist.all_reduce(statistic)
                    statistic.div_(world_size)
