"""Ground truth in COCO form, detections as its evaluators want them, and mAP. The only importer of hotcoco and pycocotools.

hotcoco evaluates; pycocotools, which defines the metric and takes a hundred times as long, is the referee. Both get the
same parsed file, print nothing, and agree to the last digit.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.data_set.annotation_file import Annotations
from benchmarks.detection.found import Detections

Evaluator = Literal["hotcoco", "pycocotools"]
# COCO's twelve, in the order in which pycocotools prints them
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# xywh_px in the place of a box that has a NaN: found, and wrong. So hotcoco counts it; pycocotools takes it for any object
NOWHERE = (-2.0, -2.0, 1.0, 1.0)


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve figures, by the names in METRICS; -1 where there was no ground truth to find (of a size, say)."""

    values: dict[str, float]

    @property
    def mAP(self) -> float:
        """Mean over the categories and over IoU 0.50 to 0.95, of all sizes, at most 100 detections an image."""
        return self.values["AP"]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What an evaluation knows of an annotation file: its evaluators get a document of ours, never the file."""

    annotations: Annotations

    @classmethod
    def load(cls, path: Path) -> GroundTruth:
        """Read the file. ValueError, naming it, when it holds no ground truth that could be evaluated."""
        return cls(annotation_file.read(path))

    @property
    def path(self) -> Path:
        return self.annotations.path

    @property
    def category_ids(self) -> npt.NDArray[np.int64]:
        """In the file's order, as DALI's reader numbers them: the network's label k (from 1) is category_ids[k - 1]."""
        return self.annotations.category_ids

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        return self.annotations.image_ids

    @property
    def image_ids_with_boxes(self) -> npt.NDArray[np.int64]:
        """Images that DALI's reader keeps with skip_empty: one box at least, crowd or not, with both sides 0.1 px."""
        return self.image_ids[self.annotations.boxed]

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) width and height in px."""
        return self.annotations.sizes

    def file_name(self, image_id: int) -> str:
        return self.annotations.file_names[self._place[image_id]]

    def boxes(self, image_id: int) -> npt.NDArray[np.float64]:
        """(G, 4) xywh_px."""
        found: npt.NDArray[np.float64] = self.annotations.xywh_px[self.annotations.images == self._place[image_id]]
        return found

    def category_name(self, category_id: int) -> str:
        name: str = self.annotations.category_names[self.category_ids.tolist().index(category_id)]
        return name

    def rows(self, found: Detections, image_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N, 7) of image id, x, y, w, h in the image's own pixels, score, category id; `image_ids` (B,) of the batch."""
        sizes = self.sizes[[self._place[number] for number in image_ids.tolist()]]
        images = found.images.cpu().numpy()
        ltrb = found.ltrb.cpu().numpy().astype(np.float64)
        scale = sizes.astype(np.float64).reshape(-1, 2)[images]
        with np.errstate(invalid="ignore"):
            sides = ltrb[:, 2:] - ltrb[:, :2]  # NaN where both are infinite
        rows = np.column_stack(
            [
                image_ids[images],
                ltrb[:, :2] * scale,
                sides * scale,
                found.scores.cpu().numpy(),
                self.category_ids[found.labels.cpu().numpy() - 1],
            ]
        )
        rows[np.isnan(rows[:, 1:5]).any(axis=1), 1:5] = NOWHERE
        return rows

    @cached_property
    def document(self) -> dict[str, Any]:
        """COCO's form."""
        return self.annotations.document()

    @cached_property
    def _place(self) -> dict[int, int]:
        return {number: place for place, number in enumerate(self.image_ids.tolist())}

    @cached_property
    def _boxes_of(self) -> dict[int, list[dict[str, Any]]]:
        """By image id, in COCO's form."""
        found: dict[int, list[dict[str, Any]]] = {}
        for each in self.document["annotations"]:
            found.setdefault(each["image_id"], []).append(each)
        return found

    @cached_property
    def _hotcoco(self) -> hotcoco.COCO:
        return hotcoco.COCO(self.document)

    @cached_property
    def _pycocotools(self) -> Any:
        return _pycocotools_from(self.document)


def evaluate(
    ground_truth: GroundTruth,
    rows: npt.NDArray[np.float64],
    *,
    evaluator: Evaluator,
    image_ids: npt.NDArray[np.int64],
) -> Metrics:
    """The twelve figures of `rows` (N, 7), see GroundTruth.rows, on the images `image_ids`. N may be 0."""
    if evaluator == "hotcoco":
        return _by_hotcoco(ground_truth, rows, image_ids.tolist())
    with contextlib.redirect_stdout(io.StringIO()):
        return _by_pycocotools(ground_truth, rows, image_ids.tolist())


class Matching:
    """Of one rank's images, as they are detected in; the parts of all ranks, together, are the evaluation.

    Detections are held against ground truth by the image. What is left, to sort the matches by their scores and sum up, is
    done for all of them at once, and takes a seventh of the whole (results/LOG.md). Only what mAP needs: no sizes, 100
    detections.
    """

    def __init__(self, ground_truth: GroundTruth) -> None:
        self._truth = ground_truth
        asked = hotcoco.Params("bbox")
        asked.area_rng, asked.area_rng_lbl, asked.max_dets = (
            asked.area_rng[:1],
            asked.area_rng_lbl[:1],
            asked.max_dets[-1:],
        )
        self._state = hotcoco.StreamingEval(ground_truth.document["categories"], "bbox", params=asked)

    def add(self, image_ids: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]) -> None:
        """Images (B,) of the file, each once over all ranks, and what was found in them, see GroundTruth.rows."""
        truth, ids = self._truth, image_ids.tolist()
        images = [truth.document["images"][truth._place[each]] for each in ids]
        self._state.update(images, [box for each in ids for box in truth._boxes_of.get(each, [])], rows)

    def to_array(self) -> npt.NDArray[np.uint8]:
        """For another rank."""
        return np.frombuffer(self._state.to_bytes(), dtype=np.uint8)


def matched(parts: Iterable[npt.NDArray[np.uint8]]) -> float:
    """mAP of all ranks' Matching, in the order of their ranks; what `evaluate` finds, to the last digit."""
    states = [hotcoco.StreamingEval.from_bytes(each.tobytes()) for each in parts]
    return _summed_up(hotcoco.StreamingEval.merge(states).finalize()).mAP


def _by_hotcoco(ground_truth: GroundTruth, rows: npt.NDArray[np.float64], image_ids: list[int]) -> Metrics:
    truth = ground_truth._hotcoco
    evaluation = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.params.img_ids = image_ids
    evaluation.evaluate()
    return _summed_up(evaluation)


def _summed_up(evaluation: hotcoco.COCOeval) -> Metrics:
    evaluation.accumulate()
    evaluation.summary_lines()  # summarize() without the printing
    found = evaluation.results()["metrics"]
    return Metrics({name: float(found[name]) for name in METRICS})


def _by_pycocotools(ground_truth: GroundTruth, rows: npt.NDArray[np.float64], image_ids: list[int]) -> Metrics:
    truth = ground_truth._pycocotools
    # loadRes reads the first row to see what it got, and so cannot read none
    found = truth.loadRes(rows) if len(rows) else _pycocotools_from({**ground_truth.document, "annotations": []})
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return Metrics(dict(zip(METRICS, map(float, evaluation.stats), strict=True)))


def _pycocotools_from(document: dict[str, Any]) -> Any:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco
