"""What each field of an annotation file must be, table by table: types, ranges, ids that are unique and listed.

A check that finds a fault leaves another value in its place: the file is refused once all have looked, so that one reading
names all that is wrong with it. Records are there a piece at a time; what is kept of them are columns.

Shapes: N images, K categories, M boxes.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.detection.data_set.faults import Faults, where
from benchmarks.detection.data_set.json_tables import Table

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
NO_ID = -(2**63)  # of an annotation without one, or with one that is no whole number: no box needs it


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
class Range:
    """Of whole numbers, both ends included."""

    low: int
    high: int
    expected: str


ANY = Range(-(2**63), 2**63 - 1, "a whole number of 64 bits")


@dataclass(frozen=True)
class Images:
    ids: I64  # (N,)
    names: list[str]
    sizes: npt.NDArray[np.int32]  # (N, 2) px


@dataclass(frozen=True)
class Categories:
    ids: I64  # (K,)
    names: list[str]


@dataclass(frozen=True)
class Boxes:
    image_ids: I64  # (M,)
    category_ids: I64  # (M,)
    xywh_px: F64  # (M, 4)
    areas: F64  # (M,) square px
    crowd: npt.NDArray[np.bool_]  # (M,)
    difficult: npt.NDArray[np.bool_]  # (M,)


def images(table: Table[Image], faults: Faults) -> Images:
    """The images as columns; what is wrong goes to `faults`."""
    columns = _columns(table, {"id": _integers, "file_name": _names, "width": _integers, "height": _integers})
    names, wrong = columns["file_name"]
    faults.values("images", wrong, table, "file_name", NAME)
    # a picture that is there twice, each time with half of its boxes, makes false alarms of what is found in it
    files = [] if wrong else [posixpath.normpath(name) if "/" in name else name for name in names]  # ./a.jpg is a.jpg
    if len(set(files)) < len(files):
        faults.values("images", _again(files), table, "file_name", "one that none of the images before it has")
    side = Range(1, LONGEST_SIDE_PX, f"a whole number of px from 1 to {LONGEST_SIDE_PX:,}")
    sides = [_in_range(table, name, columns[name], faults, side) for name in ("width", "height")]
    sizes = np.stack(sides, axis=1).astype(np.int32)
    for place in np.flatnonzero(sizes.prod(axis=1, dtype=np.int64) > MOST_PIXELS).tolist():
        width, height = sizes[place].tolist()
        what = f"{width} x {height} px, expected {MOST_PIXELS:,} px at most"
        faults.add("images", f"{where('images', place, table[place])}: {what}", place)
    return Images(_unique(table, columns["id"], faults), names, sizes)


def _again(names: Sequence[str]) -> list[int]:
    """Places of those that stood before."""
    first: dict[str, int] = {}
    return [place for place, name in enumerate(names) if first.setdefault(name, place) != place]


def categories(table: Table[Category], faults: Faults) -> Categories:
    columns = _columns(table, {"id": _integers, "name": _texts})
    names, wrong = columns["name"]
    faults.values("categories", wrong, table, "name", "a text")
    ids = _unique(table, columns["id"], faults)
    return Categories(ids, [name or str(number) for name, number in zip(names, ids.tolist(), strict=True)])


def boxes(table: Table[Annotation], faults: Faults) -> Boxes:
    """The annotations as columns; what is wrong goes to `faults`."""
    whole = ("image_id", "category_id", "iscrowd", "difficult")
    other = {"bbox": _fours, "area": _numbers_or_none, "id": _integers_or_none}
    columns = _columns(table, {**dict.fromkeys(whole, _integers), **other})
    ids, _ = columns.pop("id")
    # a list joined to itself: a second copy of a box is never found beside the first. Ids that begin anew with each image are
    # no harm: ours are numbered anew
    same = (ids, columns["image_id"][0], columns["category_id"][0], *columns["bbox"][0].T)
    _refuse_again(table, [place for place in _places_again(*same) if ids[place] != NO_ID], faults)
    image_ids, category_ids = (_in_range(table, name, columns.pop(name), faults) for name in whole[:2])
    crowd, difficult = (
        _in_range(table, name, columns.pop(name), faults, Range(0, 1, "0 or 1")).astype(np.bool_) for name in whole[2:]
    )
    xywh_px, _ = columns.pop("bbox")
    # comparisons with NaN, which stands for what is no box, are false
    flat = (xywh_px[:, 2:] == 0).any(axis=1)
    right = (xywh_px[:, 2:] >= 0).all(axis=1) & (np.abs(xywh_px) <= FARTHEST_PX).all(axis=1)
    right &= ~flat | (flat.sum() <= FLAT * len(flat))  # where rare, such a box does not count: Annotations.counted
    faults.values("annotations", np.flatnonzero(~right).tolist(), table, "bbox", BOX)
    xywh_px[~right] = 0
    areas, _ = columns.pop("area")
    wrong = np.flatnonzero((areas < 0) | (areas > MOST_AREA)).tolist()
    faults.values("annotations", wrong, table, "area", f"a number of square px from 0 to {MOST_AREA:g}, or none")
    # of the box where a record says nothing: pycocotools and hotcoco sort boxes into sizes by it
    np.copyto(areas, xywh_px[:, 2] * xywh_px[:, 3], where=np.isnan(areas))
    return Boxes(image_ids, category_ids, xywh_px, areas, crowd, difficult)


def places(table: Table[Annotation], name: str, values: I64, ids: I64, faults: Faults) -> I64:
    """(M,) where in `ids` each of `values` is, field `name` of the records; a fault for each that is not there."""
    expected = f"the id of a listed {'image' if name == 'image_id' else 'category'}"
    if len(ids) == 0:
        faults.values("annotations", range(len(values)), table, name, expected)
        return np.zeros(len(values), dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, values, sorter=order), len(ids) - 1)]
    faults.values("annotations", np.flatnonzero(ids[place] != values).tolist(), table, name, expected)
    return place


# --- from records to columns ---------------------------------------------------------------------------------------------

Part = tuple[Any, list[int]]  # of a column: an array or a list, and the places of what does not belong into it


def _columns(table: Table[Any], made: dict[str, Callable[[list[Any]], Part]]) -> dict[str, Part]:
    """Each field's values, by what makes a column of some of them, and the places of what is of another type."""
    parts: dict[str, list[Any]] = defaultdict(list)
    wrong: dict[str, list[int]] = defaultdict(list)
    first = 0
    for records in table.pieces():
        for name, make in made.items():
            part, places_in_it = make([getattr(record, name) for record in records])
            parts[name].append(part)
            wrong[name] += [first + place for place in places_in_it]
        first += len(records)

    def joined(some: list[Any]) -> Any:
        return list(chain.from_iterable(some)) if isinstance(some[0], list) else np.concatenate(some)

    return {name: (joined(parts.pop(name)), wrong[name]) for name in made}


def _wrong(values: Sequence[Any], right: Callable[[Any], bool]) -> list[int]:
    return [place for place, value in enumerate(values) if not right(value)]


def _integers(values: list[Any]) -> Part:
    """0 for what is no whole number of 64 bits."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, dtype=np.int64), []
        except OverflowError:
            pass
    # bool is an int to Python, and was what DALI's reader stopped at
    wrong = _wrong(values, lambda value: type(value) is int and ANY.low <= value <= ANY.high)
    for place in wrong:
        values[place] = 0
    return np.array(values, dtype=np.int64), wrong


def _names(values: list[Any]) -> Part:
    return values, _wrong(values, lambda value: type(value) is str and INSIDE.fullmatch(value) is not None)


def _texts(values: list[Any]) -> Part:
    return values, _wrong(values, lambda value: type(value) is str)


def _fours(values: list[Any]) -> Part:
    """(..., 4), NaN for what are not four numbers that a float64 holds."""
    if all(type(value) is list and len(value) == 4 for value in values):
        numbers = list(chain.from_iterable(values))
        if set(map(type, numbers)) <= {int, float}:
            try:
                return np.array(numbers, dtype=np.float64).reshape(-1, 4), []
            except OverflowError:
                pass

    def is_box(value: Any) -> bool:
        return type(value) is list and len(value) == 4 and all(_is_number(each, FARTHEST_PX) for each in value)

    none = [np.nan] * 4
    return np.array([value if is_box(value) else none for value in values], dtype=np.float64).reshape(-1, 4), []


def _integers_or_none(values: list[Any]) -> Part:
    """NO_ID for what is no whole number of 64 bits."""
    column, wrong = _integers(values)
    column[wrong] = NO_ID
    return column, []


def _numbers_or_none(values: list[Any]) -> Part:
    """NaN, which no JSON file holds, for none; -1 for what is no number."""
    if set(map(type, values)) <= {int, float, type(None)}:
        try:
            return np.array(values, dtype=np.float64), []
        except OverflowError:
            pass
    right = [value if value is None or _is_number(value, MOST_AREA) else -1 for value in values]
    return np.array(right, dtype=np.float64), []


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and abs(value) <= most


# --- of a column -----------------------------------------------------------------------------------------------------------


def _in_range(table: Table[Any], name: str, column: Part, faults: Faults, wanted: Range = ANY) -> I64:
    """The values of the field `name`, once its faults are known: another type, or not what is `wanted`."""
    values: I64 = column[0]
    wrong = column[1]
    outside = np.flatnonzero((values < wanted.low) | (values > wanted.high)).tolist()
    faults.values(table.name, sorted({*wrong, *outside}), table, name, wanted.expected)
    return values


def _unique(table: Table[Any], column: Part, faults: Faults) -> I64:
    ids = _in_range(table, "id", column, faults)
    if not column[1]:
        _refuse_again(table, _places_again(ids), faults)
    return ids


def _places_again(ids: I64, *others: npt.NDArray[Any]) -> list[int]:
    """Places of those whose id, and others of their values, stood together before."""
    if len(np.unique(ids)) == len(ids):
        return []
    columns = (*others, ids)
    order = np.lexsort(columns)
    again = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    found: list[int] = np.sort(order[1:][again]).tolist()
    return found


def _refuse_again(table: Table[Any], places: list[int], faults: Faults) -> None:
    faults.values(table.name, places, table, "id", f"one that none of the {table.name} before it has")
