"""The strict reader of annotation files: all that a box needs is checked, all that no box needs is passed over.

COCO's own readers each take another part of a file on trust: DALI's stops without a word at the first value it does not expect,
the evaluators look at fields that no box needs, and ids that a list does not have become background or an exception. So one
reader looks at a file before any of them does and refuses it by file, place, field, value and what was expected; `document` and
`write` give the others what they read instead. What each field must be: annotation_checks.py.

OpenImages lists ten million boxes. What is read and written is there as columns, see json_tables.py: of a
box 58 bytes are kept and not the 550 of its record, and the file itself only while it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.detection.data_set import annotation_checks as checks
from benchmarks.detection.data_set.annotation_checks import F64, I64, Annotation, Category, Image
from benchmarks.detection.data_set.faults import SHOWN, TABLES, Faults, Records, shortened, shown, where
from benchmarks.detection.data_set.json_tables import Table

# DALI's size_threshold; COCO 2017 itself has boxes without height, which no reader counts
MIN_SIDE_PX = np.float32(0.1)
LEAST_SHARE = 2.0**-20  # of a picture's side, that a box must have within it: float32 knows no less next to 1
# Shares of the boxes, and of a picture's side, beyond which boxes are in another form than COCO's
MOST, SOME, BEYOND = 0.5, 0.4, 0.05
FEW = 20  # boxes: of fewer nobody can tell what form they have as a whole
BOM = b"\xef\xbb\xbf"
NOT_NUMBERS = re.compile(r"\b(NaN|Infinity)\b")  # as some libraries write them
NEAR_BYTES = 20  # before and behind a place
ROWS = 50_000  # records that are written at once


class _Document(msgspec.Struct):
    images: msgspec.Raw
    categories: msgspec.Raw
    annotations: msgspec.Raw


class Damaged(ValueError):
    """Not JSON: cut off, or changed on the way."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """A checked file of N images, K categories and M boxes, each in the file's order."""

    path: Path
    image_ids: I64  # (N,)
    file_names: Sequence[str]
    sizes: npt.NDArray[np.int32]  # (N, 2) width and height in px
    category_ids: I64  # (K,)
    category_names: Sequence[str]
    images: I64  # (M,) place of the box's image in image_ids
    categories: I64  # (M,) place in category_ids
    xywh_px: F64  # (M, 4)
    areas: F64  # (M,)
    crowd: npt.NDArray[np.bool_]  # (M,)
    difficult: npt.NDArray[np.bool_]  # (M,)

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(M,) whether DALI's reader takes it for a box: both sides MIN_SIDE_PX at least."""
        sides: npt.NDArray[np.bool_] = self.xywh_px[:, 2:].astype(np.float32) >= MIN_SIDE_PX
        return np.logical_and(sides[:, 0], sides[:, 1])

    @cached_property
    def boxed(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the image has a box that counts, crowd or not."""
        found = np.zeros(len(self.image_ids), dtype=np.bool_)
        found[self.images[self.counted]] = True
        return found

    @cached_property
    def copies(self) -> int:
        """Boxes that count and are there before: of the same image and category, at the same place and as large."""
        columns = [column[self.counted] for column in (self.images, self.categories, *self.xywh_px.T)]
        order = np.lexsort(columns)
        return int(np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns]).sum())

    def to_find(self, evaluated: npt.NDArray[np.bool_]) -> int:
        """Boxes of the images `evaluated` (N,) that an evaluator asks for: crowds are never missed."""
        return int((self.counted & ~self.crowd & evaluated[self.images]).sum())

    def document(self) -> dict[str, Any]:
        """COCO's form, for an evaluator: only what boxes need, annotations numbered from 1."""
        # pycocotools takes a match with id 0 for none, and loses a box whose id comes twice
        tables = _tables(self, self.image_ids, self.category_ids, range(len(self.category_ids)))
        return {
            name: msgspec.to_builtins(list(itertools.chain.from_iterable(pieces))) for name, pieces in tables.items()
        }

    def write(self, path: Path, category_order: I64) -> None:
        """Write it in COCO's form: only what boxes need, and small ids, from 1 in the order of the file's own.

        What is sorted by ids keeps its order so. Categories are listed as `category_order` (K,), of the file's ids, has them.
        """
        ranks = {number: rank for rank, number in enumerate(sorted(self.category_ids.tolist()), start=1)}
        place = {number: i for i, number in enumerate(self.category_ids.tolist())}
        tables = _tables(
            self,
            np.argsort(np.argsort(self.image_ids)) + 1,
            np.array([ranks[number] for number in self.category_ids.tolist()], dtype=np.int64),
            [place[number] for number in category_order.tolist()],
        )
        with path.open("wb") as file:
            for name, pieces in tables.items():
                file.write(b'%c"%s":[' % (b"{" if name == "images" else b",", name.encode()))
                for number, records in enumerate(pieces):
                    file.write(b"," * (number > 0) + msgspec.json.encode(records)[1:-1])
                file.write(b"]")
            file.write(b"}")
            file.flush()
            os.fsync(file.fileno())  # so that it is whole after a power cut, and the page cache can let it go

    def digest(self, category_order: I64) -> str:
        """Hexadecimal SHA-256 of what `write` leaves, but for the order of the boxes, which no tool need keep."""
        names = dict(zip(self.category_ids.tolist(), self.category_names, strict=True))
        lists = [[number, names[number]] for number in category_order.tolist()], list(self.file_names)
        found = hashlib.sha256(msgspec.json.encode(lists))
        for of_images in (np.argsort(np.argsort(self.image_ids)), self.sizes):
            found.update(of_images.tobytes())
        boxes = (
            self.images,
            self.category_ids[self.categories],
            *self.xywh_px.T,
            self.areas,
            self.crowd,
            self.difficult,
        )
        order = np.lexsort(boxes[::-1])
        for column in boxes:
            found.update(column[order])
        return found.hexdigest()


def _tables(
    of: Annotations, image_ids: I64, category_ids: I64, category_order: Iterable[int]
) -> dict[str, Iterator[list[Any]]]:
    """The records of each table, some at a time, in the order in which the tables are written."""

    def images(some: slice) -> list[Any]:
        columns = image_ids[some].tolist(), of.file_names[some], *of.sizes[some].T.tolist()
        return [Image(*image) for image in zip(*columns, strict=True)]

    def boxes(some: slice) -> list[Any]:
        columns = (
            range(some.start + 1, some.stop + 1),
            image_ids[of.images[some]].tolist(),
            category_ids[of.categories[some]].tolist(),
            of.xywh_px[some].tolist(),
            of.areas[some].tolist(),
            of.crowd[some].astype(int).tolist(),
            # said where any is, so that a document of COCO has COCO's fields
            of.difficult[some].astype(int).tolist() if difficult else [msgspec.UNSET] * (some.stop - some.start),
        )
        return [Annotation(*box) for box in zip(*columns, strict=True)]

    difficult = bool(of.difficult.any())
    return {
        "images": map(images, _slices(len(image_ids))),
        "categories": iter([[Category(int(category_ids[i]), of.category_names[i]) for i in category_order]]),
        "annotations": map(boxes, _slices(len(of.images))),
    }


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS))


def read(path: Path) -> Annotations:
    """Read and check the file. ValueError that names it, what is wrong in it and where, and what was expected."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path}: not a file; an annotation file in COCO's form is expected")
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; an annotation file in COCO's form is expected") from error


def parse(content: bytes, path: Path) -> Annotations:
    """See `read`; `path` is for messages."""
    with _said_in_words(content, path):
        text = memoryview(content)[len(BOM) :] if content.startswith(BOM) else content
        document = msgspec.json.decode(text, type=_Document)
        _once(content, path)
        image_table = Table(content, document.images, "images", Image)
        category_table = Table(content, document.categories, "categories", Category)
        box_table = Table(content, document.annotations, "annotations", Annotation)
        faults = Faults(path)
        images = checks.images(image_table, faults)
        categories = checks.categories(category_table, faults)
        boxes = checks.boxes(box_table, faults)
        faults.refuse()  # before the tables are compared, which needs every value to be what it claims

        of_images = checks.places(box_table, "image_id", boxes.image_ids, images.ids, faults)
        of_categories = checks.places(box_table, "category_id", boxes.category_ids, categories.ids, faults)
        faults.refuse()
        found = Annotations(
            path,
            images.ids,
            images.names,
            images.sizes,
            categories.ids,
            categories.names,
            of_images,
            of_categories,
            boxes.xywh_px,
            boxes.areas,
            boxes.crowd,
            boxes.difficult,
        )
        _of_another_form(found, box_table, faults)
        faults.refuse()
        _within(found, box_table, faults)
        if not found.boxed.any():
            faults.add("annotations", "no image has a box, so that there is nothing to find")
        faults.refuse()
    return found


@contextlib.contextmanager
def _said_in_words(content: bytes, path: Path) -> Iterator[None]:
    """What msgspec says of the content, as this module says it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Damaged(f"{path}: cut off or damaged, not JSON (in UTF-16, not UTF-8); save it as UTF-8 or get it again")
    if content.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path}: compressed (gzip), not JSON: unpack it, `gunzip < FILE > FILE.json`")
    try:
        yield
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{path}: not in COCO's form: {error}; it needs the lists images (id, file_name, width, height), categories "
            "(id, name) and annotations (image_id, category_id, bbox)"
        ) from error
    except UnicodeDecodeError as error:
        raise Damaged(
            f"{path}: not UTF-8 ({error}): saved in another encoding, or damaged; save it as UTF-8 or get it again"
        ) from error
    except msgspec.DecodeError as error:
        near = _near(content, error)
        if NOT_NUMBERS.search(near):
            raise ValueError(
                f"{path}: not JSON, which knows neither NaN nor Infinity ({error}{near}); bbox and area are finite numbers: "
                "correct what is not, or take it out"
            ) from error
        raise Damaged(f"{path}: cut off or damaged, not JSON ({error}{near}); get it again") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deep to be an annotation file") from error


def _once(content: bytes, path: Path) -> None:
    """ValueError where a list is there twice, as two files that were joined have it: readers take the last and say nothing."""

    def count(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if {"images", "annotations"} <= set(names) and (twice := [name for name in TABLES if names.count(name) > 1]):
            raise ValueError(f"{path}: the list {twice[0]} is there {names.count(twice[0])} times; join them into one")
        return {}

    # the slow look, which holds nothing of what it reads, where one of the names is in the file again
    if any(content.count(b'"%s"' % name.encode()) > 1 for name in TABLES):
        json.loads(content.decode("utf-8-sig"), object_pairs_hook=count, parse_int=len)


def _near(content: bytes, error: Exception) -> str:
    """Where it is, with what stands there: NaN, which some libraries write, is no JSON, say."""
    place = re.search(r"\(byte (\d+)\)", str(error))
    if place is None:
        return ""
    start = max(0, int(place[1]) - NEAR_BYTES) + (len(BOM) if content.startswith(BOM) else 0)
    return f" near {shown(content[start : start + 2 * NEAR_BYTES].decode(errors='replace'))}"


def within(xywh_px: F64, sizes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """(M, 4) ltrb, in 0 to 1, of boxes (M, 4) in pictures (M, 2), what is outside cut off: in float32, as DALI computes."""
    ltrb = xywh_px.astype(np.float32)
    ltrb[:, 2:] += ltrb[:, :2]
    scale = sizes.astype(np.float32)
    ltrb[:, :2] /= scale
    ltrb[:, 2:] /= scale
    return ltrb.clip(0, 1, out=ltrb)


def _of_another_form(found: Annotations, records: Records, faults: Faults) -> None:
    """A fault where the boxes as a whole are not [x, y, width, height] in px: then each alone may still lie on its picture.

    Of 1,827 boxes of COCO and 4,886 of BCCD none is as small or reaches as far, and of the same as corners 73 and 72 % do.
    """
    xywh_px, sizes = found.xywh_px, found.sizes[found.images]
    if len(xywh_px) < FEW:
        return
    small = xywh_px[:, 2:].max(axis=1) <= 1
    far = ((xywh_px[:, :2] + xywh_px[:, 2:]) / sizes).max(axis=1) > 1 + BEYOND
    as_corners = ((xywh_px[:, 2:] > xywh_px[:, :2]) & (xywh_px[:, 2:] <= sizes + 1)).all()
    corners = "are too large, where all fit as corners [x1, y1, x2, y2]: write x2 - x1 and y2 - y1"
    for of, share, what in (
        (small, MOST, "are no larger than a pixel: where they are fractions, write them in px of the picture"),
        (far, SOME if as_corners else 1.0, corners),
        (far, MOST, "reach far beyond their pictures: write them in px of a picture as large as is listed"),
    ):
        if of.sum() > share * len(of):
            place = int(np.flatnonzero(of)[0])
            name, (width, height) = shortened(found.file_names[found.images[place]]), sizes[place].tolist()
            text = (
                f"bbox is {shown(records[place].bbox)} in {name}, {width} x {height} px, and {of.sum():,} of {len(of):,} "
                f"boxes {what}; expected [x, y, width, height]"
            )
            faults.add("annotations", f"{where('annotations', place, records[place])}: {text}", place)
            return


def _within(found: Annotations, records: Records, faults: Faults) -> None:
    ltrb = within(found.xywh_px, found.sizes[found.images])
    outside = found.counted & ((ltrb[:, 2:] - ltrb[:, :2]) < LEAST_SHARE).any(axis=1)
    places = np.flatnonzero(outside).tolist()
    for place in places[:SHOWN]:
        name, (width, height) = (
            shortened(found.file_names[found.images[place]]),
            found.sizes[found.images[place]].tolist(),
        )
        text = (
            f"bbox is {shown(records[place].bbox)}, expected to lie at least in part in {name}, {width} x {height} px"
        )
        faults.add("annotations", f"{where('annotations', place, records[place])}: {text}", place)
    faults.count += len(places[SHOWN:])
