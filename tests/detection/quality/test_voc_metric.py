"""VOC's average precision against one that goes through detections and boxes one by one, and against cases worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.data_set.annotation_file import Annotations
from benchmarks.detection.quality.voc_metric import Year, evaluate

SIDE = 200


def truth_of(boxes: list[tuple[int, int, list[float], int]], images: int = 3, categories: int = 2) -> Annotations:
    """Of (image, category, xywh, difficult)."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": 10 * k, "name": f"c{k}"} for k in range(1, categories + 1)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 10 * category, "bbox": box, "difficult": difficult}
            for n, (image, category, box, difficult) in enumerate(boxes, start=1)
        ],
    }
    return annotation_file.parse(msgspec.json.encode(content), Path("made.json"))


def one_by_one(truth: Annotations, rows: Any, metric: Year, image_ids: Any) -> list[float]:
    """The development kit's loop, in pixels that are counted from 1 with both corners in the box."""
    found = []
    for k, category in enumerate(truth.category_ids.tolist()):
        boxes: dict[int, list[dict[str, Any]]] = {}
        positives = 0
        for m in range(len(truth.images)):
            image = int(truth.image_ids[truth.images[m]])
            if truth.categories[m] != k or image not in image_ids:
                continue
            x, y, w, h = truth.xywh_px[m]
            corners = (x + 1, y + 1, x + w, y + h)
            boxes.setdefault(image, []).append({"corners": corners, "hard": bool(truth.difficult[m]), "taken": False})
            positives += not truth.difficult[m]
        if positives == 0:
            found.append(float("nan"))
            continue
        mine = [row for row in rows if row[6] == category and row[0] in image_ids]
        mine.sort(key=lambda row: -row[5])
        true, false, curve = 0, 0, []
        for row in mine:
            x, y, w, h = row[1:5]
            best, closest = -1.0, None
            for box in boxes.get(int(row[0]), []):
                left, top, right, bottom = box["corners"]
                both_w = min(right, x + w) - max(left, x + 1) + 1
                both_h = min(bottom, y + h) - max(top, y + 1) + 1
                if both_w <= 0 or both_h <= 0:
                    continue
                both = both_w * both_h
                union = w * h + (right - left + 1) * (bottom - top + 1) - both
                if both / union > best:
                    best, closest = both / union, box
            if best >= 0.5:
                assert closest is not None
                if closest["hard"]:
                    continue
                if not closest["taken"]:
                    closest["taken"] = True
                    true += 1
                else:
                    false += 1
            else:
                false += 1
            curve.append((true / positives, true / (true + false)))
        if metric == "voc2007":
            at = [max([p for r, p in curve if r >= level / 10 - 1e-9], default=0.0) for level in range(11)]
            found.append(sum(at) / 11)
        else:
            area, before = 0.0, 0.0
            for place, (recall, _) in enumerate(curve):
                area += (recall - before) * max(p for _, p in curve[place:])
                before = recall
            found.append(area)
    return found


@pytest.mark.parametrize("metric", ["voc2007", "voc2010"])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_kit_s(seed: int, metric: Year) -> None:
    rng = np.random.default_rng(seed)
    images, categories = 12, 4

    def boxes(count: int) -> Any:
        return np.column_stack([rng.integers(0, 80, (count, 2)), rng.integers(5, 60, (count, 2))]).astype(float)

    truth_boxes = boxes(60)
    owners, kinds = rng.integers(1, images + 1, 60), rng.integers(1, categories, 60)  # the last category has none
    hard = rng.random(60) < 0.2
    truth = truth_of(
        [(int(i), int(k), box.tolist(), int(d)) for i, k, box, d in zip(owners, kinds, truth_boxes, hard, strict=True)],
        images,
        categories,
    )
    # half of them near a true box, some of those twice
    near = rng.integers(0, 60, 200)
    shifted = truth_boxes[near] + rng.integers(-6, 7, (200, 4)) * [1, 1, 1, 1]
    shifted[:, 2:] = shifted[:, 2:].clip(1)
    scores = rng.permutation(400) / 400
    rows = np.concatenate(
        [
            np.column_stack([owners[near], shifted, scores[:200], 10 * kinds[near]]),
            np.column_stack(
                [rng.integers(1, images + 1, 200), boxes(200), scores[200:], 10 * rng.integers(1, categories + 1, 200)]
            ),
        ]
    )
    ids = np.arange(1, images + 1)[:-1]  # one image is not evaluated
    found = evaluate(truth, rows, metric=metric, image_ids=ids)
    np.testing.assert_allclose(found.by_category, one_by_one(truth, rows, metric, ids.tolist()), rtol=0, atol=1e-12)
    assert found.mAP == pytest.approx(np.nanmean(found.by_category))


def row(image: int, box: list[float], score: float, category: int = 1) -> list[float]:
    return [image, *box, score, 10 * category]


A, B = [10.0, 10.0, 40.0, 40.0], [100.0, 100.0, 40.0, 40.0]
IDS = np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("boxes", "rows", "eleven", "area"),
    [
        ([(1, 1, A, 0)], [row(1, A, 0.9)], 1.0, 1.0),
        # found twice: the second one is wrong, though it overlaps more
        ([(1, 1, A, 0), (2, 1, B, 0)], [row(1, [12, 10, 40, 40], 0.9), row(1, A, 0.8)], 6 / 11, 0.5),
        # a difficult box is neither missed nor found
        ([(1, 1, A, 1), (2, 1, B, 0)], [row(1, A, 0.9), row(1, A, 0.8), row(2, B, 0.7)], 1.0, 1.0),
        # the best overlap decides which box a detection goes to, not the first that is free
        ([(1, 1, A, 0), (1, 1, [16, 10, 40, 40], 0)], [row(1, A, 0.9), row(1, [11, 10, 40, 40], 0.8)], 6 / 11, 0.5),
        # exactly half is enough: 40 x 40 and 40 x 20
        ([(1, 1, A, 0)], [row(1, [10, 10, 40, 20], 0.9)], 1.0, 1.0),
        ([(1, 1, A, 0)], [row(1, [10, 10, 40, 19.9], 0.9)], 0.0, 0.0),
        # another image, another category
        ([(1, 1, A, 0), (2, 2, A, 0)], [row(2, A, 0.9), row(1, A, 0.8, 2)], 0.0, 0.0),
        ([(1, 1, A, 0)], [], 0.0, 0.0),
    ],
)
def test_by_hand(boxes: Any, rows: Any, eleven: float, area: float) -> None:
    made = np.array(rows, dtype=float).reshape(-1, 7)
    for metric, expected in (("voc2007", eleven), ("voc2010", area)):
        found = evaluate(truth_of(boxes), made, metric=metric, image_ids=IDS)  # type: ignore[arg-type]
        assert found.by_category[0] == pytest.approx(expected)


def test_without_a_box_that_counts_there_is_no_mean() -> None:
    found = evaluate(truth_of([(1, 1, A, 1)]), np.empty((0, 7)), metric="voc2007", image_ids=IDS)
    assert np.isnan(found.by_category).all() and found.mAP == 0.0


def test_it_is_no_matter_of_rounding_which_recall_is_reached() -> None:
    """Three of ten boxes found is a recall of 0.3, which 0.1 three times is not quite."""
    boxes = [(1, 1, [float(20 * n), 0.0, 10.0, 10.0], 0) for n in range(10)]
    for found_ones in range(11):
        rows = np.array([row(1, boxes[n][2], 1 - n / 20) for n in range(found_ones)], dtype=float).reshape(-1, 7)
        found = evaluate(truth_of(boxes), rows, metric="voc2007", image_ids=IDS)
        assert found.mAP == pytest.approx((found_ones + 1) / 11 if found_ones else 0.0)


def test_difficult_is_kept_by_the_file_that_a_check_leaves(tmp_path: Path) -> None:
    truth = truth_of([(1, 1, A, 1), (2, 1, B, 0)])
    truth.write(tmp_path / "written.json", truth.category_ids)
    assert annotation_file.read(tmp_path / "written.json").difficult.tolist() == [True, False]
    plain = truth_of([(1, 1, A, 0)])
    plain.write(tmp_path / "plain.json", plain.category_ids)
    assert b"difficult" not in (tmp_path / "plain.json").read_bytes(), "COCO's form has no such field"


def test_difficult_must_be_0_or_1() -> None:
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 1\): difficult is 2, expected 0 or 1"):
        truth_of([(1, 1, A, 2)])
