"""The strict reader of Pascal VOC's XML files, one for each image, into the one annotation file that everything else reads.

VOC numbers pixels from 1 and counts both corners as part of a box: xmin 1 to xmax 10 are ten pixels, here x 0 and width 10.
A box is cut off at the picture's rim, as everywhere here; one that has nothing on it is a fault.
Difficult objects, which VOC's metric passes over, are trained on like others, as the SSD paper's code does. What a file says
beyond its size and its objects (parts of a person, with names and boxes of their own, poses, actions, points) is passed over.

A document that declares anything (a document type, and so entities) is refused before it is parsed: VOC's declare nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from benchmarks.detection.data_set.annotation_checks import LONGEST_SIDE_PX
from benchmarks.detection.data_set.faults import shown

# In VOC's own order, which is the alphabet's; the network's label is the place, from 1
CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LONGEST_BYTES = 2**20  # of a file; VOC's longest has 24 kB
NAME = re.compile(r"[A-Za-z0-9_]+")  # of an image, in a list of ImageSets
NUMBER = re.compile(
    r"[0-9]{1,5}(\.[0-9]{1,20})?"
)  # some of 2008 and 2011 are no whole pixels: 304.1916, 45.70000076293945
CORNERS = ("xmin", "ymin", "xmax", "ymax")
CHUNK = 500  # files between two calls of progress

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Object:
    category: int  # from 1
    xywh_px: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class Described:
    """An image as its file has it."""

    width: int
    height: int
    objects: tuple[Object, ...]


class _Fault(Exception):
    """What is wrong in a file, and where in it."""


def parse(content: bytes) -> Described:
    """One file. ValueError that says what is wrong, where, and what was expected."""
    try:
        return _parsed(content)
    except _Fault as fault:
        raise ValueError(str(fault)) from fault


def _parsed(content: bytes) -> Described:
    if len(content) > LONGEST_BYTES:
        raise _Fault(f"{len(content):,} bytes, expected {LONGEST_BYTES:,} at most")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _Fault("not UTF-8, expected Pascal VOC's XML") from error
    if re.search(r"<!(?!--)", text):
        raise _Fault("it declares something (<!...), which no file of Pascal VOC does")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise _Fault(f"cut off or damaged, not XML ({error}); get it again") from error
    if root.tag != "annotation":
        raise _Fault(f"its root is <{_short(root.tag)}>, expected <annotation>")
    size = _child(root, "size", "annotation")
    width, height = (_whole(size, name, "size") for name in ("width", "height"))
    objects = [_object(each, number, width, height) for number, each in enumerate(root.findall("object"))]
    return Described(width, height, tuple(objects))


def _object(element: ElementTree.Element, number: int, width: int, height: int) -> Object:
    where = f"object[{number}]"
    name = _text(element, "name", where)
    if name not in CATEGORIES:
        raise _Fault(f"{where}: name is {shown(name)}, expected one of VOC's {len(CATEGORIES)} categories")
    box = _child(element, "bndbox", where)
    xmin, ymin, xmax, ymax = (_number(box, corner, f"{where}: bndbox") for corner in CORNERS)
    left, top = max(xmin - 1, 0.0), max(ymin - 1, 0.0)
    right, bottom = min(xmax, float(width)), min(ymax, float(height))
    if not (xmin <= xmax and ymin <= ymax and left < right and top < bottom):
        found = f"{xmin:g}, {ymin:g} to {xmax:g}, {ymax:g}"
        raise _Fault(
            f"{where}: bndbox is {found}, expected corners in ascending order on {width} x {height} px, from 1"
        )
    difficult = "0" if element.find("difficult") is None else _text(element, "difficult", where)
    if difficult not in ("0", "1"):
        raise _Fault(f"{where}: difficult is {shown(difficult)}, expected 0 or 1")
    return Object(CATEGORIES.index(name) + 1, (left, top, right - left, bottom - top), difficult == "1")


def _child(element: ElementTree.Element, name: str, where: str) -> ElementTree.Element:
    found = element.findall(name)
    if len(found) != 1:
        raise _Fault(f"{where}: {name} is {'missing' if not found else 'there twice'}, expected once")
    return found[0]


def _text(element: ElementTree.Element, name: str, where: str) -> str:
    return (_child(element, name, where).text or "").strip()


def _whole(element: ElementTree.Element, name: str, where: str) -> int:
    text = _text(element, name, where)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= LONGEST_SIDE_PX:
        raise _Fault(f"{where}: {name} is {shown(text)}, expected a whole number of px from 1 to {LONGEST_SIDE_PX:,}")
    return int(text)


def _number(element: ElementTree.Element, name: str, where: str) -> float:
    text = _text(element, name, where)
    if not NUMBER.fullmatch(text):
        raise _Fault(f"{where}: {name} is {shown(text)}, expected a number of px")
    return float(text)


def _short(tag: str) -> str:
    return shown(tag)[1:-1]


# --- of a data set -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One list of images of one year's folder: the file ImageSets/Main/`images`.txt of VOCdevkit/VOC`year`."""

    year: int
    images: str

    @property
    def folder(self) -> Path:
        return Path(f"VOC{self.year}")

    @property
    def list(self) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{self.images}.txt"

    def annotation(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def picture(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"


def names(devkit: Path, part: Part) -> list[str]:
    """Of the part's images. ValueError that names the file and the line."""
    path = devkit / part.list
    try:
        lines = path.read_bytes().decode().split("\n")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; a list of images is expected") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text; a list of images is expected") from error
    found = [line.strip() for line in lines]
    while found and not found[-1]:
        found.pop()
    for number, name in enumerate(found, start=1):
        if not NAME.fullmatch(name):
            raise ValueError(f"{path}:{number}: {shown(name)}, expected an image's name without folder and ending")
    if len(set(found)) < len(found):
        again = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"{path}: {again} is listed twice")
    if not found:
        raise ValueError(f"{path}: empty; a list of images is expected")
    return found


def read(devkit: Path, part: Part, progress: Progress) -> tuple[dict[str, Described], dict[str, str]]:
    """The part's images by name, in the list's order, and of those whose file is wrong what is wrong with it.

    ValueError where the list is.
    """
    described: dict[str, Described] = {}
    faults: dict[str, str] = {}
    listed = names(devkit, part)
    for number, name in enumerate(listed, start=1):
        try:
            described[name] = parse(_content(devkit / part.annotation(name)))
        except OSError as error:
            faults[name] = error.strerror or str(error)
        except ValueError as error:
            faults[name] = str(error)
        if number % CHUNK == 0 or number == len(listed):
            progress(f"reading the XML files of {part.folder}, {part.images}", number, len(listed))
    return described, faults


def document(parts: Mapping[Part, Mapping[str, Described]]) -> bytes:
    """The parts in COCO's form, images numbered from 1 and by their path within the development kit's folder."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for part, described in parts.items():
        for name, image in described.items():
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": part.picture(name).as_posix(),
                    "width": image.width,
                    "height": image.height,
                }
            )
            annotations += [
                {
                    "id": number,
                    "image_id": len(images),
                    "category_id": each.category,
                    "bbox": each.xywh_px,
                    "iscrowd": 0,
                    "difficult": int(each.difficult),
                }
                for number, each in enumerate(image.objects, start=len(annotations) + 1)
            ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    return msgspec.json.encode({"images": images, "categories": categories, "annotations": annotations})


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep a reader waiting for ever
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LONGEST_BYTES + 1)
