"""The reader of Pascal VOC's XML: coordinates, what it takes, and what is wrong in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.detection import annotation_file, voc_annotations
from benchmarks.detection.voc_annotations import CATEGORIES, Part, document, parse, read

PART = Part(2007, "trainval")


def an_object(
    name: str = "dog", box: tuple[object, object, object, object] = (48, 240, 195, 371), more: str = ""
) -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><pose>Left</pose>{more}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, size: str = "<size><width>353</width><height>500</height><depth>3</depth></size>") -> bytes:
    return f"<annotation><folder>VOC2007</folder>{size}{''.join(objects)}</annotation>".encode()


def test_a_box_has_both_its_corners_and_pixels_count_from_one() -> None:
    found = parse(xml(an_object(), an_object("person", (1, 1, 353, 500), "<difficult>1</difficult>")))
    assert (found.width, found.height) == (353, 500)
    dog, person = found.objects
    assert (CATEGORIES[dog.category - 1], dog.xywh_px, dog.difficult) == ("dog", (47, 239, 148, 132), False)
    assert (CATEGORIES[person.category - 1], person.xywh_px, person.difficult) == ("person", (0, 0, 353, 500), True)


def test_parts_of_a_person_are_not_objects_and_their_boxes_not_the_person_s() -> None:
    head = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>10</xmax><ymax>10</ymax></bndbox></part>"
    (person,) = parse(xml(an_object("person", (10, 20, 30.5, "40.25"), head + "<difficult>0</difficult>"))).objects
    assert person.xywh_px == (9, 19, 21.5, 21.25)


def test_an_image_without_objects_and_a_comment_are_nothing_special() -> None:
    assert parse(b"<?xml version='1.0'?>\n<!-- made by hand -->" + xml()).objects == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (xml(an_object())[:-20], r"cut off or damaged, not XML \(.*line 1"),
        (b"", r"cut off or damaged, not XML"),
        (b"<html><body>log in</body></html>", r"its root is <html>, expected <annotation>"),
        (b"<!DOCTYPE annotation [<!ENTITY a 'aaaa'>]>" + xml(), r"declares something"),
        (xml(an_object()).decode().encode("utf-16"), r"not UTF-8"),
        (b" " * (2**20 + 1), r"1,048,577 bytes, expected 1,048,576 at most"),
        (xml(size=""), r"annotation: size is missing, expected once"),
        (
            xml(size="<size><width>353</width><height>0</height></size>"),
            r'size: height is "0", expected a whole number',
        ),
        (xml(an_object("cat"), an_object("unicorn")), r'object\[1\]: name is "unicorn", expected one of VOC\'s 20'),
        (xml("<object><name>dog</name></object>"), r"object\[0\]: bndbox is missing"),
        (xml(an_object(box=("nan", 1, 2, 3))), r'object\[0\]: bndbox: xmin is "nan", expected a number of px'),
        (xml(an_object(box=("-4", 1, 2, 3))), r'bndbox: xmin is "-4", expected a number of px'),
        (xml(an_object(box=("1e3", 1, 2, 3))), r'bndbox: xmin is "1e3"'),
        (xml(an_object(box=(9, 1, 8, 3))), r"bndbox is 9, 1 to 8, 3, expected corners in ascending order"),
        (xml(an_object(box=(1, 1, 354, 3))), r"bndbox is 1, 1 to 354, 3, expected .* within 353 x 500 px"),
        (xml(an_object(more="<difficult>yes</difficult>")), r'object\[0\]: difficult is "yes", expected 0 or 1'),
        (xml(an_object(more="<difficult>0</difficult><difficult>1</difficult>")), r"difficult is there twice"),
        (xml(an_object("\x1b[2J")), r"cut off or damaged, not XML"),
    ],
)
def test_what_is_wrong_is_said_in_words(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(content)


def devkit(folder: Path, files: dict[str, bytes], listed: str | None = None) -> Path:
    (folder / "VOC2007/Annotations").mkdir(parents=True)
    for name, content in files.items():
        (folder / PART.annotation(name)).write_bytes(content)
    (folder / PART.list).parent.mkdir(parents=True)
    (folder / PART.list).write_text("\n".join(files) + "\n" if listed is None else listed)
    return folder


def test_the_document_is_one_that_our_reader_takes(tmp_path: Path) -> None:
    files = {
        "000005": xml(an_object("chair", (1, 2, 3, 4), "<difficult>1</difficult>"), an_object()),
        "000007": xml(an_object("car", (5, 5, 50, 50))),
    }
    described, faults = read(devkit(tmp_path / "kit", files), PART, lambda *_: None)
    assert (list(described), faults) == (["000005", "000007"], {})
    path = tmp_path / "made.json"
    path.write_bytes(document({PART: described, Part(2012, "trainval"): {"2008_000002": described["000007"]}}))
    found = annotation_file.read(path)
    assert list(found.category_names) == list(CATEGORIES) and found.category_ids.tolist() == list(range(1, 21))
    assert list(found.file_names) == [
        "VOC2007/JPEGImages/000005.jpg",
        "VOC2007/JPEGImages/000007.jpg",
        "VOC2012/JPEGImages/2008_000002.jpg",
    ]
    assert found.difficult.tolist() == [True, False, False, False]
    assert found.images.tolist() == [0, 0, 1, 2]
    assert found.xywh_px[0].tolist() == [0, 1, 3, 3]
    assert sorted(each["id"] for each in json.loads(path.read_bytes())["annotations"]) == [1, 2, 3, 4]


def test_every_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    kit = devkit(tmp_path, {"a": xml(an_object()), "b": b"<annotation>", "c": xml()}, "a\nb\nc\nd\n")
    described, faults = read(kit, PART, lambda *_: None)
    assert (list(described), list(faults)) == (["a", "c"], ["b", "d"])
    assert "not XML" in faults["b"] and "No such file" in faults["d"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("a\n../../etc/passwd\n", r'trainval\.txt:2: "\.\./\.\./etc/passwd", expected an image\'s name'),
        ("a\n\nb\n", r'trainval\.txt:2: ""'),
        ("a\nb\na\n", r"a is listed twice"),
        ("", r"trainval\.txt: empty"),
    ],
)
def test_a_list_that_is_wrong(tmp_path: Path, listed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voc_annotations.names(devkit(tmp_path, {}, listed), PART)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainval\.txt: No such file .*; a list of images is expected"):
        voc_annotations.names(tmp_path, PART)
