"""The reader of Pascal VOC's XML: coordinates, what it takes, and what is wrong in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.detection.data_set import annotation_file, voc_annotations
from benchmarks.detection.data_set.voc_annotations import CATEGORIES, Part, document, parse, read

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


def test_a_box_is_cut_off_at_the_picture_s_rim() -> None:
    (dog,) = parse(xml(an_object(box=(0, 0, 354.5, 501)))).objects
    assert dog.xywh_px == (0, 0, 353, 500)


# As VOC's own files have it, each in the way of its year; values of those that others quote: 000005.xml of 2007,
# 2007_000027.xml, 2008_003483.xml, 2009_001390.xml, 2011_003279.xml and 2011_003353.xml of 2012
OF_2007 = b"""<annotation>
\t<folder>VOC2007</folder>
\t<filename>000005.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t\t<flickrid>325991873</flickrid>
\t</source>
\t<owner>
\t\t<flickrid>archintent louisville</flickrid>
\t\t<name>?</name>
\t</owner>
\t<size>
\t\t<width>500</width>
\t\t<height>375</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>chair</name>
\t\t<pose>Rear</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>263</xmin>
\t\t\t<ymin>211</ymin>
\t\t\t<xmax>324</xmax>
\t\t\t<ymax>339</ymax>
\t\t</bndbox>
\t</object>
\t<object>
\t\t<name>chair</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>1</difficult>
\t\t<bndbox>
\t\t\t<xmin>5</xmin>
\t\t\t<ymin>244</ymin>
\t\t\t<xmax>67</xmax>
\t\t\t<ymax>374</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
SIZE = "<size><width>500</width><height>500</height><depth>3</depth></size>"
HEAD = (
    "<part><name>head</name><bndbox><xmin>169</xmin><ymin>104</ymin><xmax>209</xmax><ymax>146</ymax></bndbox></part>"
    "<part><name>foot</name><bndbox><xmin>273</xmin><ymin>333</ymin><xmax>297</xmax><ymax>354</ymax></bndbox></part>"
)
QUIRKS: dict[str, tuple[str, tuple[float, float, float, float], bool]] = {
    "parts behind the box": (
        "<object><name>person</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>174</xmin><ymin>101</ymin><xmax>349</xmax><ymax>351</ymax></bndbox>{HEAD}</object>",
        (173, 100, 176, 251),
        False,
    ),
    "parts before the box and decimals": (
        f"<object><name>person</name>{HEAD}<occluded>0</occluded><bndbox><xmin>304.1916</xmin><ymin>118.2635</ymin>"
        "<xmax>482.0359</xmax><ymax>500</ymax></bndbox><difficult>1</difficult></object>",
        (303.1916, 117.2635, 178.8443, 382.7365),
        True,
    ),
    "corners in the alphabet's order": (
        "<object><name>aeroplane</name><bndbox><xmax>478</xmax><xmin>8</xmin><ymax>223</ymax><ymin>107</ymin></bndbox>"
        "<difficult>0</difficult><occluded>0</occluded><pose>0</pose><truncated>0</truncated></object>",
        (7, 106, 471, 117),
        False,
    ),
    "actions and a point": (
        "<object><name>person</name><actions><jumping>0</jumping><other>0</other><walking>1</walking></actions><bndbox>"
        "<xmax>188</xmax><xmin>109</xmin><ymax>500</ymax><ymin>307</ymin></bndbox><difficult>0</difficult>"
        "<pose>Unspecified</pose><point><x>153</x><y>374</y></point></object>",
        (108, 306, 80, 194),
        False,
    ),
    "decimals of a float32, nothing of difficult": (
        "<object><name>person</name><bndbox><xmax>191</xmax><xmin>92</xmin><ymax>299</ymax>"
        "<ymin>45.70000076293945</ymin></bndbox></object>",
        (91, 44.70000076293945, 100, 254.29999923706055),
        False,
    ),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_objects_as_voc_s_own_files_have_them(name: str) -> None:
    content, box, difficult = QUIRKS[name]
    (found,) = parse(xml(content, size=SIZE)).objects
    assert found.xywh_px == pytest.approx(box) and found.difficult is difficult


def test_a_whole_file_of_2007() -> None:
    found = parse(OF_2007)
    assert (found.width, found.height) == (500, 375)
    assert [(CATEGORIES[each.category - 1], each.xywh_px, each.difficult) for each in found.objects] == [
        ("chair", (262, 210, 62, 129), False),
        ("chair", (4, 243, 63, 131), True),
    ]


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
        (xml(an_object(box=(9, 1, 8.5, 3))), r"bndbox is 9, 1 to 8.5, 3, expected corners in ascending order"),
        (xml(an_object(box=(354, 1, 360, 3))), r"bndbox is 354, 1 to 360, 3, expected .* on 353 x 500 px"),
        (xml(an_object(box=(1, 0, 9, 0))), r"bndbox is 1, 0 to 9, 0, expected"),
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
