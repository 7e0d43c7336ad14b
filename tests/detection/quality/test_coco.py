"""Ground truth, label mapping, rows and mAP, with both evaluators; label order and skipped images as DALI has them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import fn, pipeline_def

from benchmarks.detection.found import Detections
from benchmarks.detection.quality.coco import (
    METRICS,
    Evaluator,
    GroundTruth,
    Matching,
    Metrics,
    evaluate,
    matched,
)
from tests.ssd.coco_folder import Folder, Picture, write

EVALUATORS: tuple[Evaluator, ...] = ("hotcoco", "pycocotools")
F64 = npt.NDArray[np.float64]


def both(truth: GroundTruth, rows: F64, image_ids: Sequence[int] | None = None) -> Metrics:
    """The figures, which both evaluators must agree on to the last digit, and mAP by the parts of any number of ranks too."""
    ids = truth.image_ids if image_ids is None else np.array(image_ids)
    first, second = (evaluate(truth, rows, evaluator=evaluator, image_ids=ids) for evaluator in EVALUATORS)
    assert first.values == second.values
    for ranks in (1, 2, 4, 8):
        assert by_parts(truth, rows, ids, ranks) == first.mAP, f"{ranks} ranks"
    return first


def by_parts(truth: GroundTruth, rows: F64, ids: npt.NDArray[np.int64], ranks: int) -> float:
    """As ranks do it: each matches its own images, in batches, and one of them sums up."""
    parts = []
    for mine in np.array_split(ids, ranks):
        part = Matching(truth)
        for batch in (mine[at : at + 3] for at in range(0, len(mine), 3)):
            part.add(batch, rows[np.isin(rows[:, 0], batch)])
        parts.append(part.to_array())
    return matched(parts)


def detections(*found: tuple[int, int, float, tuple[float, float, float, float]]) -> Detections:
    """From (position in the batch, label, score, ltrb) each."""
    images, labels, scores, ltrb = zip(*found, strict=True) if found else ((), (), (), ())
    return Detections(
        torch.tensor(images, dtype=torch.int64),
        torch.tensor(ltrb, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_ranks_are_the_whole_with_equal_scores_crowds_and_ids_in_any_order(tmp_path: Path, seed: int) -> None:
    """Equal scores are sorted as their images come: each rank's part must keep its place."""
    make = np.random.default_rng(seed)
    ids, images = make.permutation(np.arange(3, 300, 7)), 42
    boxes = make.uniform([0, 0, 5, 5], [200, 200, 90, 90], (images * 6, 4))
    content = {
        "images": [{"id": int(each), "width": 300, "height": 300, "file_name": f"{each}.jpg"} for each in ids],
        "categories": [{"id": number, "name": str(number)} for number in (5, 2, 9)],
        "annotations": [
            {"id": n, "image_id": int(ids[n % 37]), "category_id": (5, 2, 9)[n % 3], "bbox": box, "area": box[2] * box[3],
             "iscrowd": int(n % 11 == 0)}
            for n, box in enumerate(boxes.tolist())
        ],
    }  # fmt: skip
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    truth = GroundTruth.load(path)
    rows = np.repeat(
        [[each["image_id"], *each["bbox"], 0.0, each["category_id"]] for each in content["annotations"]], 3, axis=0
    )
    rows[:, 1:5] += make.normal(0, 6, (len(rows), 4))
    rows[:, 5] = make.integers(1, 6, len(rows)) / 5
    rows = rows[np.argsort(np.argsort(ids)[np.searchsorted(np.sort(ids), rows[:, 0])], kind="stable")]
    assert 0.05 < both(truth, rows).mAP < 0.95


# --- the published figures ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(test_data: Path) -> tuple[GroundTruth, F64, list[str]]:
    """100 images of COCO val2014, detections in them, and the figures that the COCO API's authors published."""
    folder = test_data / "evaluator"
    listed = json.loads((folder / "detections.json").read_text())
    rows = np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in listed])
    figures = re.findall(r"= (-?\d\.\d{3})", (folder / "published_bbox.txt").read_text())
    return GroundTruth.load(folder / "ground_truth_100_images.json"), rows, figures


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_published_figures(evaluator: Evaluator, published: tuple[GroundTruth, F64, list[str]]) -> None:
    truth, rows, figures = published
    assert len(figures) == len(METRICS) == 12
    found = evaluate(truth, rows, evaluator=evaluator, image_ids=truth.image_ids)
    assert [f"{value:.3f}" for value in found.values.values()] == figures
    assert list(found.values) == list(METRICS)


def test_evaluators_agree_to_the_last_digit(published: tuple[GroundTruth, F64, list[str]]) -> None:
    truth, rows, _ = published
    assert both(truth, rows).mAP == pytest.approx(0.505, abs=0.0005)
    generator = np.random.default_rng(0)
    for share in (0.9, 0.5, 0.1):
        some = rows[generator.random(len(rows)) < share]
        some[:, 1:5] += generator.normal(0, 4, (len(some), 4))
        some[:, 3:5] = np.maximum(some[:, 3:5], 0.5)
        both(truth, some)
        both(truth, some, truth.image_ids[::2].tolist())


def test_nothing_is_printed(published: tuple[GroundTruth, F64, list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    truth, rows, _ = published
    both(GroundTruth.load(truth.path), rows)
    both(truth, np.empty((0, 7)))
    assert capfd.readouterr() == ("", "")


def test_order_of_rows_and_images_does_not_matter(published: tuple[GroundTruth, F64, list[str]]) -> None:
    """Ranks hand in their shards' rows in another order than one rank alone."""
    truth, rows, _ = published
    generator = np.random.default_rng(1)
    expected = both(truth, rows).mAP
    shuffled = generator.permutation(truth.image_ids)
    moved = np.concatenate([rows[rows[:, 0] == image_id] for image_id in shuffled])
    assert not np.array_equal(moved, rows)
    assert both(truth, moved, shuffled.tolist()).mAP == expected


# --- ids ---------------------------------------------------------------------------------------------------------------

ODD_IDS = (90, 0, 7, 3)  # neither sorted nor without gaps, one of them 0


def odd_folder(tmp_path: Path) -> Folder:
    """Boxes of each category; images without any, with a box that DALI does not count, with one that it just counts."""
    return write(
        tmp_path,
        [
            Picture(10, [(2, 3, 30, 20, 90), (30, 20, 20, 20, 0)], id=0),
            Picture(20, [(1, 1, 10, 10, 7)], id=500),
            Picture(30, [], id=3),
            Picture(40, [(5, 5, 0.09, 10, 3)], id=2),
            Picture(50, [(5, 5, 0.1, 0.1, 3)], id=9),
            Picture(60, [(10, 10, 40, 20, 3)], id=2**31 - 1, width=200, height=100),
        ],
        categories=ODD_IDS,
    )


def what_dali_reads(folder: Folder, skip_empty: bool) -> dict[int, tuple[list[int], F64]]:
    """Labels and ltrb by image id."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph() -> Any:
        _, boxes, labels, ids = fn.readers.coco(
            file_root=str(folder.images),
            annotations_file=str(folder.annotations),
            skip_empty=skip_empty,
            image_ids=True,
            ltrb=True,
            ratio=True,
            name="reader",
        )
        return boxes, labels, ids

    pipe = graph()
    pipe.build()
    found = {}
    for _ in range(pipe.reader_meta("reader")["epoch_size"]):
        boxes, labels, ids = (output.at(0) for output in pipe.run())
        found[int(ids[0])] = (labels.flatten().tolist(), boxes)
    return found


def test_labels_and_skipped_images_are_dalis(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path)
    truth = GroundTruth.load(folder.annotations)
    assert truth.category_ids.tolist() == list(ODD_IDS)
    whole, with_boxes = what_dali_reads(folder, skip_empty=False), what_dali_reads(folder, skip_empty=True)
    assert sorted(truth.image_ids.tolist()) == sorted(whole)
    assert sorted(truth.image_ids_with_boxes.tolist()) == sorted(with_boxes) == [0, 9, 500, 2**31 - 1]
    written = {0: [90, 0], 500: [7], 3: [], 2: [], 9: [3], 2**31 - 1: [3]}
    for image_id, (labels, _) in whole.items():
        assert [int(truth.category_ids[label - 1]) for label in labels] == written[image_id]


def test_what_dali_reads_comes_back_as_a_perfect_score(tmp_path: Path) -> None:
    """Labels and boxes as the reader gives them, returned as detections, find everything: no id or size goes astray."""
    folder = odd_folder(tmp_path)
    truth = GroundTruth.load(folder.annotations)
    read = what_dali_reads(folder, skip_empty=True)
    ids = np.array(list(read))
    found = detections(
        *(
            (position, label, 0.9, tuple(box))
            for position, image_id in enumerate(ids.tolist())
            for label, box in zip(*read[image_id], strict=True)
        )
    )
    rows = truth.rows(found, ids)
    assert rows.dtype == np.float64
    # IoU of the 0.1 px box depends on float32's rounding, so only up to 0.5 is sure
    assert both(truth, rows, ids.tolist()).values["AP50"] == pytest.approx(1.0)
    last = rows[rows[:, 0] == 2**31 - 1][0]
    np.testing.assert_allclose(last[1:5], (10, 10, 40, 20), rtol=1e-6)
    assert last[6] == 3


def test_rows(tmp_path: Path) -> None:
    truth = GroundTruth.load(odd_folder(tmp_path).annotations)
    found = detections((1, 2, 0.75, (-0.25, 0.5, 0.5, 1.25)), (0, 4, 0.5, (0.0, 0.0, 1.0, 1.0)))
    rows = truth.rows(found, np.array([2**31 - 1, 500, 3]))
    assert rows.tolist() == [[500, -16, 24, 48, 36, 0.75, 0], [2**31 - 1, 0, 0, 200, 100, 0.5, 3]]
    assert truth.rows(detections(), np.array([3])).shape == (0, 7)


@pytest.mark.parametrize("overflowed", [(math.nan, 0, 1, 1), (math.inf, 0, math.inf, 1), (0, -math.inf, 1, -math.inf)])
def test_a_box_that_is_no_number_is_a_wrong_one(tmp_path: Path, overflowed: tuple[float, float, float, float]) -> None:
    """pycocotools took it for the object: with that it was a perfect score, and hotcoco's was another."""
    truth = GroundTruth.load(write(tmp_path, [Picture(90, [(10, 10, 40, 20, 3)], id=5)], categories=(3,)).annotations)
    right = truth.rows(detections((0, 1, 0.5, (0, 0, 1, 1))), np.array([5]))
    right[0, 1:5] = truth.boxes(5)[0]
    rows = np.concatenate([truth.rows(detections((0, 1, 0.9, overflowed)), np.array([5])), right])
    assert np.isfinite(rows).all()
    assert both(truth, rows).mAP == pytest.approx(0.5), "one wrong before the right one"


def test_lookups(tmp_path: Path) -> None:
    truth = GroundTruth.load(odd_folder(tmp_path).annotations)
    assert truth.file_name(500) == "000000000500.jpg"
    assert truth.boxes(0).tolist() == [[2, 3, 30, 20], [30, 20, 20, 20]]
    assert truth.boxes(3).shape == (0, 4)
    assert truth.category_name(0) == "class 0"


def test_an_annotation_of_id_0_counts(tmp_path: Path) -> None:
    """pycocotools alone would take its match for none."""
    folder = odd_folder(tmp_path)
    document = json.loads(folder.annotations.read_text())
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = number
    folder.annotations.write_text(json.dumps(document))
    truth = GroundTruth.load(folder.annotations)
    assert both(truth, np.array([[0.0, 2, 3, 30, 20, 0.9, 90]]), [0]).mAP == pytest.approx(0.5)


# --- little or nothing found -------------------------------------------------------------------------------------------


def test_no_detections_give_0(tmp_path: Path) -> None:
    truth = GroundTruth.load(odd_folder(tmp_path).annotations)
    assert both(truth, np.empty((0, 7))).mAP == 0.0
    assert both(truth, np.empty((0, 7)), truth.image_ids_with_boxes.tolist()).mAP == 0.0


def test_images_without_detections_cost_the_others_nothing(tmp_path: Path) -> None:
    """A perfect detection stays one; the categories never found count 0 in the mean of four."""
    truth = GroundTruth.load(odd_folder(tmp_path).annotations)
    assert both(truth, np.array([[500.0, 1, 1, 10, 10, 0.9, 7]])).mAP == pytest.approx(0.25)


def test_detections_outside_of_the_images_evaluated_do_not_count(tmp_path: Path) -> None:
    truth = GroundTruth.load(odd_folder(tmp_path).annotations)
    rows = np.array([[500.0, 1, 1, 10, 10, 0.9, 7], [3, 1, 1, 10, 10, 0.99, 7]])
    assert both(truth, rows, [500]).mAP == pytest.approx(1.0)
    assert both(truth, rows, [3, 500]).mAP == pytest.approx(0.5)


@pytest.mark.parametrize("missing", ["area", "iscrowd", "id", "segmentation"])
def test_files_without_what_a_box_does_not_need(missing: str, tmp_path: Path) -> None:
    folder = odd_folder(tmp_path)
    document = json.loads(folder.annotations.read_text())
    for annotation in document["annotations"]:
        del annotation[missing]
    folder.annotations.write_text(json.dumps(document))
    assert both(GroundTruth.load(folder.annotations), np.array([[500.0, 1, 1, 10, 10, 0.9, 7]])).mAP == pytest.approx(
        0.25
    )


# --- files that are no ground truth ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"images": [', "not JSON"),
        ("[]", "not in COCO's form"),
        ('{"images": [], "annotations": []}', "categories"),
        ('{"images": [IMAGE], "annotations": [], "categories": [CLASS]}', "nothing to find"),
    ],
)
def test_refused_with_the_files_name(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    image, category = '{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}', '{"id": 0, "name": "zero"}'
    path.write_text(text.replace("IMAGE", image).replace("CLASS", category))
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        GroundTruth.load(path)
    assert complaint in str(refusal.value)
