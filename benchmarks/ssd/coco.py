"""Ground truth in COCO form, detections as its evaluators want them, and mAP. The only importer of hotcoco and pycocotools.

hotcoco evaluates; pycocotools, which defines the metric and takes a hundred times as long, is the referee. Both get the
same parsed file, print nothing, and agree to the last digit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.ssd.detections import Detections

Evaluator = Literal["hotcoco", "pycocotools"]
# COCO's twelve, in the order in which pycocotools prints them
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MIN_SIDE_PX = np.float32(0.1)  # DALI's size_threshold


def counts(annotation: dict[str, Any]) -> bool:
    """Whether DALI's reader takes it: a box less wide or high than MIN_SIDE_PX does not count as one."""
    return bool(min(np.float32(side) for side in annotation["bbox"][2:]) >= MIN_SIDE_PX)


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve figures, by the names in METRICS; -1 where there was no ground truth to find (of a size, say)."""

    values: dict[str, float]

    @property
    def mAP(self) -> float:
        """Mean over the categories and over IoU 0.50 to 0.95, of all sizes, at most 100 detections an image."""
        return self.values["AP"]


@dataclass(frozen=True)
class GroundTruth:
    """An annotation file, without outlines."""

    path: Path
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> GroundTruth:
        """Read the file. ValueError, naming it, when it holds no ground truth that could be evaluated."""
        try:
            document = json.loads(path.read_bytes(), object_hook=_without_outline)
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); cut off or damaged, get it again") from error
        truth = cls(path, document)
        try:
            truth._complete()
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path}: not in COCO's form: {type(error).__name__} {error}; it needs images (id, file_name, width, "
                "height), categories (id, name) and annotations (image_id, category_id, bbox)"
            ) from error
        return truth

    def _complete(self) -> None:
        """Check what an evaluation relies on, and fill in what some writers of such files leave out."""
        for kind, needed in (("images", ("file_name", "width", "height")), ("categories", ("name",))):
            ids = []
            for record in self.document[kind]:
                _ = [record[key] for key in needed]
                ids.append(record["id"])
            if len(ids) != len(set(ids)):
                twice = next(number for number in ids if ids.count(number) > 1)
                raise ValueError(f"{self.path}: id {twice} is given to two {kind}; ids must be unique")
        for number, annotation in enumerate(self.document["annotations"], start=1):
            # pycocotools takes a match with id 0 for none, and loses a box whose id comes twice
            annotation["id"] = number
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
            annotation.setdefault("iscrowd", 0)
        if len(self.image_ids_with_boxes) == 0:
            raise ValueError(f"{self.path}: no image has a box, so that there is nothing to find")

    @cached_property
    def category_ids(self) -> npt.NDArray[np.int64]:
        """In the file's order, as DALI's reader numbers them: the network's label k (from 1) is category_ids[k - 1]."""
        return np.array([category["id"] for category in self.document["categories"]], dtype=np.int64)

    @cached_property
    def image_ids(self) -> npt.NDArray[np.int64]:
        return np.array([image["id"] for image in self.document["images"]], dtype=np.int64)

    @cached_property
    def image_ids_with_boxes(self) -> npt.NDArray[np.int64]:
        """Images that DALI's reader keeps with skip_empty: one box at least, crowd or not, with both sides 0.1 px."""
        boxed = {annotation["image_id"] for annotation in self.document["annotations"] if counts(annotation)}
        return np.array([number for number in self.image_ids.tolist() if number in boxed], dtype=np.int64)

    def file_name(self, image_id: int) -> str:
        return str(self._images[image_id]["file_name"])

    def boxes(self, image_id: int) -> npt.NDArray[np.float64]:
        """(G, 4) xywh_px."""
        found = [a["bbox"] for a in self.document["annotations"] if a["image_id"] == image_id]
        return np.array(found, dtype=np.float64).reshape(-1, 4)

    def category_name(self, category_id: int) -> str:
        return next(str(c["name"]) for c in self.document["categories"] if c["id"] == category_id)

    def rows(self, found: Detections, image_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N, 7) of image id, x, y, w, h in the image's own pixels, score, category id; `image_ids` (B,) of the batch."""
        sizes = [(self._images[number]["width"], self._images[number]["height"]) for number in image_ids.tolist()]
        images = found.images.cpu().numpy()
        ltrb = found.ltrb.cpu().numpy().astype(np.float64)
        scale = np.array(sizes, dtype=np.float64).reshape(-1, 2)[images]
        return np.column_stack(
            [
                image_ids[images],
                ltrb[:, :2] * scale,
                (ltrb[:, 2:] - ltrb[:, :2]) * scale,
                found.scores.cpu().numpy(),
                self.category_ids[found.labels.cpu().numpy() - 1],
            ]
        )

    @cached_property
    def _images(self) -> dict[int, dict[str, Any]]:
        return {image["id"]: image for image in self.document["images"]}

    @cached_property
    def _hotcoco(self) -> hotcoco.COCO:
        return hotcoco.COCO(self.document)

    @cached_property
    def _pycocotools(self) -> Any:
        return _pycocotools_from(self.document)


def _without_outline(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)  # most of the file; boxes are evaluated, and areas are said
    return record


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


def _by_hotcoco(ground_truth: GroundTruth, rows: npt.NDArray[np.float64], image_ids: list[int]) -> Metrics:
    truth = ground_truth._hotcoco
    evaluation = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.params.img_ids = image_ids
    evaluation.evaluate()
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


def fingerprint(halves: Sequence[tuple[Path, Path]]) -> str:
    """Hexadecimal SHA-256 of a data set: of each half the annotation file's bytes and the images' names and sizes.

    The pictures' own bytes are not read, which would take minutes of full COCO. Hidden files do not count, and neither
    does where the folders lie.
    """
    digest = hashlib.sha256()
    for annotation_file, images in halves:
        with annotation_file.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        for name, size in sorted(_files(images)):
            digest.update(f"{size} {name}\0".encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[tuple[str, int]]:
    """Relative path and size of each file below `folder`."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("."):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path.stat().st_size
