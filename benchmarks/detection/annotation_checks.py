"""What each field of an annotation file must be, table by table: types, ranges, ids that are unique and listed.

A check that finds a fault leaves zeros in its place: the file is refused once all have looked, so that one reading names all
that is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.detection.faults import Faults, where

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

MOST_PIXELS = 89_478_485  # of a picture, as Pillow bounds it: 256 MiB decoded
LONGEST_SIDE_PX = 65_535  # that a JPEG file can have
MOST_AREA = 1e10  # beyond which COCO's evaluators leave a box out
FARTHEST_PX = 1e5  # that a coordinate may lie from the origin, and a side be long: no box then has more than MOST_AREA
# A path that leads to a file below a folder, and to nowhere else; half a surrogate pair is in no file's name
INSIDE = re.compile(r"(?!/)(?!(.*/)?\.\.(/|$))(?!.*/\.?$)(?!\.$)[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
NAME = "a name relative to the folder of images, within it and without control characters"
BOX = f"four numbers of px up to {FARTHEST_PX:,.0f}, the last two, width and height, above 0"
# Share of boxes without width or height that passes: COCO 2017 has a few among its 860,001, which no reader counts
FLAT = 1e-4


class Image(msgspec.Struct, gc=False):
    id: Any = msgspec.UNSET
    file_name: Any = msgspec.UNSET
    width: Any = msgspec.UNSET
    height: Any = msgspec.UNSET


class Category(msgspec.Struct, gc=False):
    id: Any = msgspec.UNSET
    name: Any = msgspec.UNSET


class Annotation(msgspec.Struct, gc=False):
    id: Any = msgspec.UNSET
    image_id: Any = msgspec.UNSET
    category_id: Any = msgspec.UNSET
    bbox: Any = msgspec.UNSET
    area: Any = None  # width x height of the box where it is not said
    iscrowd: Any = 0
    difficult: Any = 0  # of Pascal VOC, whose metric passes over such a box


@dataclass(frozen=True)
class Columns:
    """Of the M boxes."""

    image_ids: I64  # (M,)
    category_ids: I64  # (M,)
    xywh_px: F64  # (M, 4)
    areas: F64  # (M,)
    crowd: npt.NDArray[np.bool_]  # (M,)
    difficult: npt.NDArray[np.bool_]  # (M,)


@dataclass(frozen=True)
class Range:
    """Of whole numbers, both ends included."""

    low: int
    high: int
    expected: str


ANY = Range(-(2**63), 2**63 - 1, "a whole number of 64 bits")


def images(records: list[Image], faults: Faults) -> tuple[I64, npt.NDArray[np.int32]]:
    """Ids (N,) and sizes (N, 2), width and height in px; what is wrong goes to `faults`."""
    ids = _unique_ids("images", records, faults)
    faults.values("images", _wrong([image.file_name for image in records], _is_name), records, "file_name", NAME)
    side = Range(1, LONGEST_SIDE_PX, f"a whole number of px from 1 to {LONGEST_SIDE_PX:,}")
    sides = [_integers("images", records, name, faults, side) for name in ("width", "height")]
    sizes = np.stack(sides, axis=1).astype(np.int32)
    for place in np.flatnonzero(sizes.prod(axis=1, dtype=np.int64) > MOST_PIXELS).tolist():
        width, height = sizes[place].tolist()
        what = f"{width} x {height} px, expected {MOST_PIXELS:,} px at most"
        faults.add("images", f"{where('images', place, records[place])}: {what}", place)
    return ids, sizes


def _is_name(value: Any) -> bool:
    return type(value) is str and INSIDE.fullmatch(value) is not None


def categories(records: list[Category], faults: Faults) -> I64:
    ids = _unique_ids("categories", records, faults)
    wrong = _wrong([category.name for category in records], lambda name: type(name) is str)
    faults.values("categories", wrong, records, "name", "a text")
    return ids


def _unique_ids(table: str, records: Sequence[Any], faults: Faults) -> I64:
    before = faults.count
    ids = _integers(table, records, "id", faults)
    if faults.count == before and len(np.unique(ids)) < len(ids):
        order = np.argsort(ids, kind="stable")
        again = np.sort(order[1:][ids[order][1:] == ids[order][:-1]])
        faults.values(table, again.tolist(), records, "id", f"one that none of the {table} before it has")
    return ids


def boxes(records: list[Annotation], faults: Faults) -> Columns:
    """The annotations as columns; what is wrong goes to `faults`."""
    image_ids = _integers("annotations", records, "image_id", faults)
    category_ids = _integers("annotations", records, "category_id", faults)
    crowd, difficult = (
        _integers("annotations", records, name, faults, Range(0, 1, "0 or 1")).astype(np.bool_)
        for name in ("iscrowd", "difficult")
    )
    xywh_px = _boxes(records, faults)
    return Columns(image_ids, category_ids, xywh_px, _areas(records, xywh_px, faults), crowd, difficult)


def _wrong(values: Sequence[Any], right: Callable[[Any], bool]) -> list[int]:
    return [place for place, value in enumerate(values) if not right(value)]


def _integers(table: str, records: Sequence[Any], name: str, faults: Faults, wanted: Range = ANY) -> I64:
    """A field of all records; 0 in the places of what is none, which is then a fault."""
    values = [getattr(record, name) for record in records]
    if set(map(type, values)) <= {int}:
        try:
            found = np.array(values, dtype=np.int64)
        except OverflowError:
            pass
        else:
            wrong = np.flatnonzero((found < wanted.low) | (found > wanted.high))
            faults.values(table, wrong.tolist(), records, name, wanted.expected)
            return found
    # bool is an int to Python, and was what DALI's reader stopped at
    faulty = _wrong(values, lambda value: type(value) is int and wanted.low <= value <= wanted.high)
    faults.values(table, faulty, records, name, wanted.expected)
    return np.zeros(len(values), dtype=np.int64)


def _boxes(records: list[Annotation], faults: Faults) -> F64:
    """(M, 4) xywh_px. A width or height of 0 passes where it is rare, and does not count; see FLAT and Annotations.counted."""
    boxes = [record.bbox for record in records]
    if all(type(box) is list and len(box) == 4 for box in boxes):
        numbers = list(chain.from_iterable(boxes))
        if set(map(type, numbers)) <= {int, float}:
            try:
                found = np.array(numbers, dtype=np.float64).reshape(-1, 4)
            except OverflowError:
                pass
            else:
                # comparisons with NaN are false, too
                flat = (found[:, 2:] == 0).any(axis=1)
                positive = (found[:, 2:] >= 0).all(axis=1) & (~flat | (flat.sum() <= FLAT * len(found)))
                right = (np.abs(found) <= FARTHEST_PX).all(axis=1) & positive
                faults.values("annotations", np.flatnonzero(~right).tolist(), records, "bbox", BOX)
                return np.where(right[:, None], found, 0.0)

    def is_box(value: Any) -> bool:
        return (
            type(value) is list
            and len(value) == 4
            and all(type(each) in (int, float) and abs(each) <= FARTHEST_PX for each in value)
            and min(value[2:]) >= 0
        )

    faults.values("annotations", _wrong(boxes, is_box), records, "bbox", BOX)
    return np.zeros((len(records), 4))


def _areas(records: list[Annotation], xywh_px: F64, faults: Faults) -> F64:
    """(M,) square px, of the box where a record says nothing: pycocotools and hotcoco sort boxes into sizes by it."""
    values = [record.area for record in records]
    wrong: list[int] = []
    if set(map(type, values)) <= {int, float, type(None)}:
        try:
            found = np.array(values, dtype=np.float64)  # None becomes NaN, which no JSON file holds
        except OverflowError:
            pass
        else:
            wrong = np.flatnonzero((found < 0) | (found > MOST_AREA)).tolist()
            if not wrong:
                return np.where(np.isnan(found), xywh_px[:, 2] * xywh_px[:, 3], found)
    wrong = wrong or _wrong(values, lambda v: v is None or (type(v) in (int, float) and 0 <= v <= MOST_AREA))
    faults.values("annotations", wrong, records, "area", f"a number of square px from 0 to {MOST_AREA:g}, or none")
    return np.zeros(len(records))


def places(records: list[Annotation], name: str, values: I64, ids: I64, faults: Faults) -> I64:
    """(M,) where in `ids` each of `values` is, field `name` of the records; a fault for each that is not there."""
    expected = f"the id of a listed {'image' if name == 'image_id' else 'category'}"
    if len(ids) == 0:
        faults.values("annotations", range(len(values)), records, name, expected)
        return np.zeros(len(values), dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, values, sorter=order), len(ids) - 1)]
    faults.values("annotations", np.flatnonzero(ids[place] != values).tolist(), records, name, expected)
    return place
