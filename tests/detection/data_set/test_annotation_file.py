"""The strict reader: what it refuses and in which words, what it passes over, what it writes for the other readers."""

from __future__ import annotations

import copy
import json
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.detection.data_set import annotation_file, json_tables
from benchmarks.detection.found import Detections
from benchmarks.detection.quality.coco import GroundTruth, evaluate

Document = dict[str, Any]


def document() -> Document:
    """Two images, two categories, three boxes."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 64, "height": 48},
            {"id": 2**40, "file_name": "in/a folder/b.jpg", "width": 30, "height": 40},
        ],
        "categories": [{"id": 9, "name": "disc"}, {"id": 4, "name": "bar"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2.5, 30, 20], "area": 500, "iscrowd": 0},
            {"id": 2, "image_id": 2**40, "category_id": 4, "bbox": [-5, 0, 10, 10], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 4, "bbox": [3, 3, 9, 0.09]},
        ],
    }


def read(content: Document | bytes, tmp_path: Path) -> annotation_file.Annotations:
    path = tmp_path / "instances.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return annotation_file.read(path)


def refusal(content: Document | bytes, tmp_path: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "instances.json"))) as refused:
        read(content, tmp_path)
    return str(refused.value).removeprefix(f"{tmp_path / 'instances.json'}: ")


def test_what_is_read(tmp_path: Path) -> None:
    found = read(document(), tmp_path)
    assert found.image_ids.tolist() == [7, 2**40] and list(found.file_names) == ["a.jpg", "in/a folder/b.jpg"]
    assert found.sizes.tolist() == [[64, 48], [30, 40]]
    assert found.category_ids.tolist() == [9, 4] and list(found.category_names) == ["disc", "bar"]
    assert found.images.tolist() == [0, 1, 0] and found.categories.tolist() == [0, 1, 1]
    assert found.xywh_px.tolist() == [[1, 2.5, 30, 20], [-5, 0, 10, 10], [3, 3, 9, 0.09]]
    assert found.areas.tolist() == [500, 100, 9 * 0.09], "a box's own area where none is said"
    assert found.crowd.tolist() == [False, True, False]
    assert found.counted.tolist() == [True, True, False], "DALI counts no side below 0.1 px"
    assert found.boxed.tolist() == [True, True]
    assert found.to_find(found.boxed) == 1


# --- faults ----------------------------------------------------------------------------------------------------------

BOX = "expected four numbers of px up to 100,000"
WHOLE = "expected a whole number of 64 bits"
NAME = "expected a name relative to the folder"
VALUES: list[tuple[str, int, str, Any, str]] = [
    ("annotations", 1, "iscrowd", False, "annotations[1] (id 2): iscrowd is false, expected 0 or 1"),
    ("annotations", 1, "iscrowd", None, "iscrowd is null"),
    ("annotations", 1, "iscrowd", 0.0, "iscrowd is 0.0"),
    ("annotations", 1, "iscrowd", "0", 'iscrowd is "0"'),
    ("annotations", 1, "iscrowd", 2, "iscrowd is 2"),
    ("annotations", 0, "image_id", "7", f'annotations[0] (id 1): image_id is "7", {WHOLE}'),
    ("annotations", 0, "image_id", 7.0, f"image_id is 7.0, {WHOLE}"),
    ("annotations", 0, "image_id", 2**63, f"image_id is {2**63}, {WHOLE}"),
    ("annotations", 0, "image_id", 8, "image_id is 8, expected the id of a listed image"),
    ("annotations", 0, "image_id", ..., "image_id is missing"),
    ("annotations", 2, "category_id", True, f"category_id is true, {WHOLE}"),
    ("annotations", 2, "category_id", 55, "annotations[2] (id 3): category_id is 55, expected the id of a listed category"),
    ("annotations", 0, "bbox", ..., "bbox is missing"),
    ("annotations", 0, "bbox", [1, 2, 3], f"bbox is [1, 2, 3], {BOX}"),
    ("annotations", 0, "bbox", [1, 2, 3, 4, 5], f"bbox is [1, 2, 3, 4, 5], {BOX}"),
    ("annotations", 0, "bbox", [1, 2, "3", 4], f'bbox is [1, 2, "3", 4], {BOX}'),
    ("annotations", 0, "bbox", [1, 2, None, 4], BOX),
    ("annotations", 0, "bbox", [1, 2, True, 4], BOX),
    ("annotations", 0, "bbox", [1, 2, -3, 4], BOX),
    ("annotations", 0, "bbox", [1, 2, 0, 4], BOX),
    ("annotations", 0, "bbox", [1, 2, 3, 0.0], BOX),
    ("annotations", 0, "bbox", [1, 2, 1e300, 4], BOX),
    ("annotations", 0, "bbox", [10**400, 2, 3, 4], BOX),
    ("annotations", 0, "bbox", [1, 2, 3, 100_001], BOX),
    ("annotations", 0, "bbox", {"x": 1}, BOX),
    ("annotations", 0, "bbox", [64, 2, 3, 4], "bbox is [64, 2, 3, 4], expected to lie at least in part in a.jpg, 64 x 48"),
    ("annotations", 0, "bbox", [-3, 2, 3, 4], "at least in part in a.jpg"),
    ("annotations", 0, "bbox", [63.9999999, 2, 3, 4], "at least in part in a.jpg"),
    ("annotations", 0, "area", "900", 'area is "900", expected a number'),
    ("annotations", 0, "area", -1, "area is -1"),
    ("annotations", 0, "area", 1e11, "area is 100000000000.0"),
    ("annotations", 0, "area", 10**400, "area is 1000"),
    ("images", 1, "id", "7", f'images[1] (id "7"): id is "7", {WHOLE}'),
    ("images", 1, "id", 7, "images[1] (id 7): id is 7, expected one that none of the images before it has"),
    ("images", 0, "id", ..., "images[0]: id is missing"),
    ("images", 0, "width", 0, "images[0] (id 7): width is 0, expected a whole number of px from 1 to 65,535"),
    ("images", 0, "height", 48.5, "height is 48.5"),
    ("images", 0, "width", None, "width is null"),
    ("images", 0, "file_name", 5, f"file_name is 5, {NAME}"),
    ("images", 0, "file_name", "", f'file_name is "", {NAME}'),
    ("images", 0, "file_name", "../a.jpg", NAME),
    ("images", 0, "file_name", "b/../../a.jpg", NAME),
    ("images", 0, "file_name", "/etc/passwd", NAME),
    ("images", 0, "file_name", 'x\n:::MLLOG {"key": "run_stop"}', 'file_name is "x\\n:::MLLOG'),
    ("images", 0, "file_name", "\x1b[2J", 'file_name is "\\u001b[2J"'),
    ("images", 1, "file_name", "a.jpg", 'file_name is "a.jpg", expected one that none of the images before it has'),
    ("images", 1, "file_name", "./a.jpg", 'file_name is "./a.jpg", expected one that none of the images before it has'),
    ("categories", 0, "id", 4, "categories[1] (id 4): id is 4, expected one that none of the categories before it has"),
    ("categories", 1, "name", ..., "name is missing"),
    ("categories", 1, "name", 5, "name is 5, expected a text"),
]  # fmt: skip


@pytest.mark.parametrize("case", VALUES, ids=lambda case: f"{case[0]}-{case[2]}-{case[3]}"[:50])
def test_a_wrong_value_is_named(case: tuple[str, int, str, Any, str], tmp_path: Path) -> None:
    (table, place, name, value, complaint), wrong = case, document()
    if value is ...:
        del wrong[table][place][name]
    else:
        wrong[table][place][name] = value
    said = refusal(wrong, tmp_path)
    assert complaint in said
    assert "\n" not in said


def test_annotations_that_are_listed_twice(tmp_path: Path) -> None:
    """A list joined to itself was trained on, and bounded the mAP of perfect detections near 0.5."""
    twice = document()
    twice["annotations"] += copy.deepcopy(twice["annotations"])
    said = refusal(twice, tmp_path).splitlines()
    assert said[0].startswith("annotations[3] (id 1): id is 1, expected one that none") and len(said) == 3
    anew = document()
    anew["annotations"][2]["id"] = 1
    assert read(anew, tmp_path).copies == 0, "ids that begin anew with each image"
    for box in twice["annotations"]:
        del box["id"]
    assert read(twice, tmp_path).copies == 2, "of two that count"
    twice["annotations"][1]["id"], twice["annotations"][2]["id"] = "a", "a"
    twice["annotations"][3]["category_id"], twice["annotations"][4]["bbox"][0] = 4, -4.5
    assert read(twice, tmp_path).copies == 0


def changed_boxes(test_data: Path, change: Callable[[list[float], int, int], list[float]], share: float) -> Document:
    """COCO's own, of which every one within `share` of each ten is changed: box, width and height of its picture."""
    found: Document = json.loads((test_data / "coco256" / "annotations" / "instances_val2017.json").read_bytes())
    sizes = {image["id"]: (image["width"], image["height"]) for image in found["images"]}
    for number, box in enumerate(found["annotations"]):
        if number % 10 < 10 * share:
            box["bbox"] = change(box["bbox"], *sizes[box["image_id"]])
    return found


FORMS: dict[str, tuple[Callable[[list[float], int, int], list[float]], str]] = {
    "fractions": (
        lambda box, w, h: [box[0] / w, box[1] / h, box[2] / w, box[3] / h],
        "boxes are no larger than a pixel: where they are fractions, write them in px of the picture",
    ),
    "corners": (
        lambda box, w, h: [box[0], box[1], box[0] + box[2], box[1] + box[3]],
        "too large, where all fit as corners [x1, y1, x2, y2]: write x2 - x1 and y2 - y1; expected",
    ),
    "another size": (lambda box, w, h: [2 * value for value in box], "as large as is listed; expected [x, y, width, height]"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_boxes_in_another_form_are_refused_as_a_whole(form: str, test_data: Path, tmp_path: Path) -> None:
    """Each alone lies on its picture, and all were trained on without a word."""
    change, says = FORMS[form]
    said = refusal(changed_boxes(test_data, change, 1.0), tmp_path)
    assert re.match(r"annotations\[\d+\] \(id \d+\): bbox is \[.* in \d{12}\.jpg, \d+ x \d+ px, and \d+ of 898 ", said)
    assert says in said and "\n" not in said
    if form != "another size":  # of which what lies beside its picture is refused alone
        read(changed_boxes(test_data, change, 0.4), tmp_path)


def test_corners_of_boxes_that_lie_near_the_origin_are_refused_too(tmp_path: Path) -> None:
    """More than half then still end within their pictures."""
    boxes = document()
    near, far = (
        {"image_id": 7, "category_id": 9, "bbox": [n, 2, *corner]} for n, corner in ((1, (31, 22)), (20, (60, 48)))
    )
    boxes["annotations"] = [far] * 9 + [near] * 11
    assert "and 9 of 20 boxes are too large, where all fit as corners" in refusal(boxes, tmp_path)
    boxes["annotations"][-1] = {**near, "bbox": [32, 2, 31, 22]}
    read(boxes, tmp_path)


def test_boxes_of_one_large_thing_in_each_picture_are_no_corners(tmp_path: Path) -> None:
    """Portraits, whose boxes are wider than they lie from the left; of some, a part lies beyond the picture."""
    boxes = document()
    within, beyond = ({"image_id": 7, "category_id": 9, "bbox": box} for box in ([10, 4, 40, 40], [10, 14, 40, 40]))
    boxes["annotations"] = [beyond] * 7 + [within] * 13
    read(boxes, tmp_path)
    boxes["annotations"] = [beyond] * 19
    read(boxes, tmp_path)


def test_a_picture_of_too_many_pixels_is_refused_by_its_listed_size(tmp_path: Path) -> None:
    wrong = document()
    wrong["images"][0] |= {"width": 20_000, "height": 20_000}
    assert "20000 x 20000 px, expected 89,478,485 px at most" in refusal(wrong, tmp_path)


def test_a_box_without_height_among_ten_thousand_passes_and_does_not_count(tmp_path: Path) -> None:
    """COCO 2017 has some."""
    some = document()
    some["annotations"] = [{**some["annotations"][0], "id": i} for i in range(20_000)]
    some["annotations"][7]["bbox"] = [3, 3, 9, 0]
    assert read(some, tmp_path).counted.sum() == 19_999
    for place in (3, 5):
        some["annotations"][place]["bbox"] = [3, 3, 0, 9]
    assert refusal(some, tmp_path).startswith("annotations[3] (id 3): bbox is [3, 3, 0, 9], expected four numbers")


def test_the_first_ten_and_how_many_in_all(tmp_path: Path) -> None:
    wrong = document()
    wrong["annotations"] = [{**wrong["annotations"][0], "id": i, "iscrowd": None} for i in range(25)]
    wrong["images"][1]["width"] = "30"
    lines = refusal(wrong, tmp_path).splitlines()
    assert lines[0].startswith('images[1] (id 1099511627776): width is "30"') and lines[0].endswith("; and 25 more:")
    assert lines[1].strip().startswith("annotations[0] (id 0): iscrowd is null")
    assert len(lines) == 11 and lines[-1] == "  ... 26 in all"


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    wrong = document()
    wrong["annotations"][0]["bbox"] = list(range(10_000))
    assert len(refusal(wrong, tmp_path)) < 250


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"images": [', "not JSON"),
        (b"", "not JSON"),
        (
            b'{"images": NaN}',
            "not JSON, which knows neither NaN nor Infinity (JSON is malformed: invalid character (byte 11) near "
            '"{\\"images\\": NaN}"); bbox and area are finite numbers',
        ),
        (b'{"images": [], "annotations": [], "categories": ["\xff"]}', "not"),
        (json.dumps(document()).encode("utf-16"), "UTF-16"),
        (json.dumps(document(), ensure_ascii=False).replace("a folder", "été").encode("latin-1"), "save it as UTF-8"),
        (b"[]", "not in COCO's form"),
        (b"\x1f\x8b\x08\x00", "compressed (gzip)"),
        (b'{"images": {}, "annotations": [], "categories": []}', "$.images"),
        (b'{"images": [1], "annotations": [], "categories": []}', "$.images[0]"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b'{"images": [{"id": 1' + b"0" * 5_000 + b'}], "annotations": [], "categories": []}', "images[0]"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_such_file(content: bytes, complaint: str, tmp_path: Path) -> None:
    assert complaint in refusal(content, tmp_path)


@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_a_list_that_is_there_twice_is_not_read_by_half(table: str, tmp_path: Path) -> None:
    """Two files joined by hand: JSON's readers take the last list and say nothing."""
    text = json.dumps(document())
    twice = f'{text[:-1]}, "{table}": {json.dumps(document()[table])}}}'
    assert refusal(twice.encode(), tmp_path) == f"the list {table} is there 2 times; join them into one"


def test_the_name_of_a_list_may_stand_elsewhere(tmp_path: Path) -> None:
    found = read({"info": {"images": "annotations", "categories": [1, 10**400]}, **document()}, tmp_path)
    assert len(found.images) == 3


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, says in ((tmp_path, "not a file"), (tmp_path / "pipe", "not a file"), (tmp_path / "x", "No such file")):
        with pytest.raises(ValueError, match=says):
            annotation_file.read(path)


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400),
    *(0.0, -0.0, 1.5, 1e-320, 1e300, "", "x", "\n", "\x00", "\x1b[2J", "a" * 5000, 7, 9, 4),
    *([], [1], [1, 2, 3, 4], [[1, 2, 3, 4]], [0] * 4, [1e308] * 4, [0, 0, 1e-9, 1e-9], {}, {"a": 1}),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in it with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutated(rng: random.Random) -> bytes:
    found = document()
    for _ in range(rng.choice([1, 1, 2, 3])):
        container, key = rng.choice([*places(found)])
        if (what := rng.random()) < 0.15:
            container.pop(key)
        elif what < 0.25 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = copy.deepcopy(rng.choice(ODD))
        if not found:
            break
    content = bytearray(json.dumps(found).encode())
    if rng.random() < 0.1:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("count", [300, pytest.param(3_000, marks=pytest.mark.long)])
def test_any_file_is_refused_in_words_or_evaluated_alike_by_both(count: int, tmp_path: Path) -> None:
    rng = random.Random(count)
    read_well = 0
    for _ in range(count):
        content = mutated(rng)
        try:
            found = annotation_file.parse(content, Path("x"))
        except ValueError as error:
            said = str(error)
            assert len(said) < 3000 and not re.search(r"[\x00-\x09\x0b-\x1f]", said)
            assert all(line.startswith("  ") for line in said.splitlines()[1:]), "no line of it is the data's own"
            continue
        found.write(tmp_path / "ours.json", found.category_ids)
        truth = GroundTruth.load(tmp_path / "ours.json")
        if found.to_find(found.boxed) and read_well % 10 == 0:
            rows = np.array(
                [[image, 1, 2.5, 30, 20, 0.9, truth.category_ids[0]] for image in truth.image_ids], dtype=float
            )
            one, other = (
                evaluate(truth, rows, evaluator=each, image_ids=truth.image_ids)
                for each in ("hotcoco", "pycocotools")  # type: ignore[arg-type]
            )
            assert one == other and one.mAP >= 0
        read_well += 1
    assert read_well > count / 20


# --- in pieces ---------------------------------------------------------------------------------------------------------


def said(content: bytes) -> str | list[Any]:
    try:
        found = annotation_file.parse(content, Path("x"))
    except ValueError as error:
        return str(error)
    arrays = (value.tolist() if isinstance(value, np.ndarray) else value for value in vars(found).values())
    return list(arrays)


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_file_says_the_same_however_small_the_pieces(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, places and values: a fault in the third piece is at its place in the file."""
    rng = random.Random(count)
    contents = [json.dumps(document(), indent=2).encode(), *(mutated(rng) for _ in range(count))]
    whole = [said(content) for content in contents]
    for size in (1, 30, 100, 250):
        monkeypatch.setattr(json_tables, "PIECE_BYTES", size)
        for content, expected in zip(contents, whole, strict=True):
            assert said(content) == expected, (size, content)


def test_brackets_within_a_record_are_no_ends_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_tables, "PIECE_BYTES", 20)
    tricky = document()
    for record, name in zip(tricky["annotations"], ("}, {", '"}],[{', '\\"}'), strict=True):
        record["segmentation"] = {"counts": [{"x": {}}] * 12, "size": [{}, {}], name: [name, {name: name}]}
        record["id"] = name
    tricky["images"][0]["file_name"] = "}{a},{ ].jpg"
    found = annotation_file.parse(json.dumps(tricky, indent=1).encode(), Path("x"))
    assert found.xywh_px.tolist() == [[1, 2.5, 30, 20], [-5, 0, 10, 10], [3, 3, 9, 0.09]]
    assert list(found.file_names) == ["}{a},{ ].jpg", "in/a folder/b.jpg"]
    tricky["annotations"][2]["bbox"] = [1]
    with pytest.raises(ValueError, match=r"annotations\[2\] .*: bbox is \[1\], expected four numbers"):
        annotation_file.parse(json.dumps(tricky).encode(), Path("x"))


def many(boxes: int) -> bytes:
    found = document()
    found["images"] = [{"id": i, "file_name": f"{i:016x}.jpg", "width": 640, "height": 480} for i in range(boxes // 8)]
    box = {"category_id": 4, "bbox": [10.125, 20.25, 300.5, 200.75], "area": 60325.375, "iscrowd": 0}
    found["annotations"] = [{"id": i, "image_id": i % (boxes // 8), **box} for i in range(boxes)]
    return json.dumps(found).encode()


def test_memory_stays_small_however_many_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenImages lists ten million, which were 550 bytes each while they were records, read or written."""
    monkeypatch.setattr(json_tables, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(annotation_file, "ROWS", 1_000)
    count = 40_000
    content = many(count)
    tracemalloc.start()
    found = annotation_file.parse(content, Path("x"))
    kept, reading = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    found.write(tmp_path / "ours.json", found.category_ids)
    writing = tracemalloc.get_traced_memory()[1] - kept
    tracemalloc.stop()
    assert kept / count < 100 and reading / count < 200
    assert writing / count < 50


def test_what_is_written_in_pieces_is_what_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte: logs name a data set by the digest of what is written."""
    found = annotation_file.parse(many(80), Path("x"))
    written = []
    for rows in (1, 7, 1000):
        monkeypatch.setattr(annotation_file, "ROWS", rows)
        found.write(tmp_path / "ours.json", found.category_ids)
        written.append((tmp_path / "ours.json").read_bytes())
    assert written[0] == written[1] == written[2]
    assert json.dumps(json.loads(written[0]), separators=(",", ":")).encode() == written[0]
    assert list(json.loads(written[0])) == ["images", "categories", "annotations"]


# --- what never matters ----------------------------------------------------------------------------------------------


def put(table: str, **fields: Any) -> Callable[[Document], None]:
    def change(found: Document) -> None:
        for record in found[table]:
            record.update(fields)

    return change


HARMLESS: list[Callable[[Document], Any]] = [
    put("images", date_captured=0, license="", coco_url=None, flickr_url=[1]),
    put("annotations", segmentation={"counts": "x", "size": [1, 2]}, keypoints=None, score="high", id="twice"),
    put("categories", supercategory=1, skeleton={}),
    lambda found: found.update(info=5, licenses="none", more=[{}]),
    lambda found: found["annotations"][0].pop("iscrowd"),
    lambda found: found["annotations"][0].update(area=None),
]


@pytest.mark.parametrize("change", HARMLESS, ids=range(len(HARMLESS)))
def test_what_no_box_needs_changes_nothing(change: Callable[[Document], Any], tmp_path: Path) -> None:
    rows = np.array([[7.0, 1, 2.5, 30, 20, 0.9, 9], [7, 3, 3, 9, 9, 0.5, 4]])

    def figures(content: Document) -> list[dict[str, float]]:
        truth = GroundTruth(read(content, tmp_path))
        both = [evaluate(truth, rows, evaluator=each, image_ids=truth.image_ids) for each in ("hotcoco", "pycocotools")]  # type: ignore[arg-type]
        return [each.values for each in both]

    plain, changed = document(), document()
    plain["annotations"][0]["area"] = 600
    changed["annotations"][0]["area"] = 600
    change(changed)
    expected, found = figures(plain), figures(changed)
    assert expected == found and expected[0] == expected[1] and expected[0]["AP50"] > 0


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    found = read(b"\xef\xbb\xbf" + json.dumps(document()).encode(), tmp_path)
    assert found.image_ids.tolist() == [7, 2**40]


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_written_file_says_the_same_with_small_ids_in_the_same_order(tmp_path: Path) -> None:
    original = read(document() | {"info": "x"}, tmp_path)
    original.write(tmp_path / "ours.json", np.array([4, 9]))
    ours = annotation_file.read(tmp_path / "ours.json")
    assert ours.image_ids.tolist() == [1, 2]
    assert ours.category_ids.tolist() == [1, 2] and list(ours.category_names) == ["bar", "disc"]
    assert ours.categories.tolist() == [1, 0, 0]
    for name in ("file_names", "sizes", "images", "xywh_px", "areas", "crowd"):
        assert np.array_equal(getattr(ours, name), getattr(original, name)), name
    written = json.loads((tmp_path / "ours.json").read_bytes())
    assert set(written) == {"images", "categories", "annotations"}
    assert [annotation["id"] for annotation in written["annotations"]] == [1, 2, 3]


def test_small_ids_change_no_figure(test_data: Path, tmp_path: Path) -> None:
    """Detections by label, over the file as it is and over the one that is written from it: the last digit too."""
    original = annotation_file.read(test_data / "coco256" / "annotations" / "instances_val2017.json")
    shuffled = np.random.default_rng(2).permutation(
        original.category_ids
    )  # the order in which a training file could list them
    original.write(tmp_path / "ours.json", shuffled)
    raw, ours = GroundTruth(original), GroundTruth.load(tmp_path / "ours.json")
    rng = np.random.default_rng(1)
    places = np.repeat(np.arange(len(original.image_ids)), 40)
    ltrb = np.sort(rng.random((len(places), 2, 2)), axis=1).reshape(-1, 4)
    categories, scores = rng.integers(0, 80, len(places)), rng.random(len(places)).round(2)  # ties among the scores
    known = rng.permutation(len(places))[: len(original.images)]  # and the ground truth itself
    places[known], categories[known] = original.images, original.categories
    ltrb[known] = annotation_file.within(original.xywh_px, original.sizes[original.images])
    order = np.argsort(places, kind="stable")

    def figures(truth: GroundTruth, labels: npt.NDArray[np.int64]) -> dict[str, float]:
        found = Detections(
            torch.from_numpy(places[order]),
            torch.from_numpy(ltrb[order].astype(np.float32)),
            torch.from_numpy(scores[order]),
            torch.from_numpy(labels[order]),
        )
        rows = truth.rows(found, truth.image_ids)
        return evaluate(truth, rows, evaluator="hotcoco", image_ids=truth.image_ids).values

    label_of = {number: label for label, number in enumerate(shuffled.tolist(), start=1)}
    theirs = np.array([label_of[number] for number in original.category_ids.tolist()])[categories]
    found = figures(raw, categories + 1)
    assert found == figures(ours, theirs) and found["AP"] > 0.1
