"""OpenImages' boxes from CSV to COCO's form, as the reference converts them; of millions of boxes only numbers are held.

The reference takes the images that have a box of one of its classes, groups counted, in the order of their ids, numbers them
from 1, and keeps of their boxes those of its classes: relative corners become x, y, width and height in the picture's pixels,
IsGroupOf becomes iscrowd, a class its place in the list of classes (mlcommons/training, single_stage_detector/scripts/
fiftyone_openimages.py, and what fiftyone's COCO exporter does for it). Here numbers have three decimals, and attributes that
nothing trains on stay behind.

Shapes: N images, M boxes.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from benchmarks.detection import whole
from benchmarks.detection.download.fetching import Progress

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")
BOX = '"bbox":[{:.3f},{:.3f},{:.3f},{:.3f}],"area":{:.3f}'
IMAGE_ID = re.compile("[0-9a-f]{16}")
GROUPS = ("0", "1", "-1")  # -1: nobody looked
ROWS = 100_000  # read or written between two calls of progress


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of N images, sorted by them."""

    ids: npt.NDArray[np.uint64]  # (N,) ascending; in hexadecimal an image's name
    images: npt.NDArray[np.int64]  # (M,) place in `ids`
    classes: npt.NDArray[np.int16]  # (M,) place in the list of classes
    ltrb: npt.NDArray[np.float32]  # (M, 4) 0..1
    groups: npt.NDArray[np.bool_]  # (M,) one box around several objects

    def names(self) -> list[str]:
        """(N,) file names."""
        return [f"{number:016x}.jpg" for number in self.ids.tolist()]


def class_ids(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """OpenImages' ids of these classes, each with the place of its class. ValueError where the file lacks one."""
    with path.open("rb") as file:
        named = {row[1]: row[0] for _, row in _read(path, file) if len(row) == 2}
    if missing := [name for name in classes if name not in named]:
        raise ValueError(f"{path}: no class {missing[0]} in it; delete it and run again")
    return {named[name]: place for place, name in enumerate(classes)}


def read(path: Path, classes: Mapping[str, int], progress: Progress) -> Boxes:
    """The boxes of `classes` (by OpenImages' id). ValueError that names the file, the line and what is wrong with it."""
    ids, places, corners, groups = array("Q"), array("h"), array("f"), array("b")
    with path.open("rb") as raw:
        for at, (image, label, x0, x1, y0, y1, group) in enumerate(_rows(path, raw, progress), start=2):
            place = classes.get(label)
            if place is None:
                continue
            try:
                if not IMAGE_ID.fullmatch(image):
                    raise ValueError(f"{image!r} is no id of an image")
                if group not in GROUPS:
                    raise ValueError(f"IsGroupOf is {group!r}, not one of {', '.join(GROUPS)}")
                box = float(x0), float(y0), float(x1), float(y1)
                if not all(map(math.isfinite, box)):
                    raise ValueError(f"a corner at {', '.join(map(str, box))}")
                ids.append(int(image, 16))
                corners.extend(box)
            except ValueError as error:
                raise ValueError(f"{path}: line {at:,}: {error}; delete it and run again") from error
            places.append(place)
            groups.append(group == "1")
    found, images = np.unique(np.frombuffer(ids, dtype=np.uint64), return_inverse=True)
    order = np.argsort(images, kind="stable")
    return Boxes(
        found,
        images[order],
        np.frombuffer(places, dtype=np.int16)[order],
        np.frombuffer(corners, dtype=np.float32).reshape(-1, 4)[order],
        np.frombuffer(groups, dtype=np.bool_)[order],
    )


def _rows(path: Path, raw: IO[bytes], progress: Progress) -> Iterator[tuple[str, ...]]:
    """The wanted columns of each row."""
    size = os.fstat(raw.fileno()).st_size
    reader = _read(path, raw)
    _, header = next(reader, (1, []))
    if missing := [name for name in COLUMNS if name not in header]:
        raise ValueError(f"{path}: no column {missing[0]} in its first line; delete it and run again")
    places = [header.index(name) for name in COLUMNS]
    for number, row in reader:
        if len(row) != len(header):
            raise ValueError(
                f"{path}: line {number:,} has {len(row)} of {len(header)} values: cut off? Delete it and run again"
            )
        yield tuple(row[place] for place in places)
        if number % ROWS == 0:
            progress(f"reading {path.name}", raw.tell(), size)
    progress(f"reading {path.name}", size, size)


def _read(path: Path, raw: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """The values of each line, which has a number from 1 on. ValueError for what is no CSV file in UTF-8."""
    number = 0
    try:
        for number, row in enumerate(csv.reader(line.decode("utf-8") for line in raw), start=1):
            yield number, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: line {number + 1:,}: {error}; delete it and run again") from error


def write_coco(
    boxes: Boxes, sizes: npt.NDArray[np.int32], classes: Sequence[str], path: Path, progress: Progress
) -> None:
    """Write it in COCO's form, whole or not at all, alone there. `sizes` (N, 2) are the pictures' width and height in px."""
    whole.clear(path)  # of training a gigabyte for each kill
    with whole.replacing(path) as file:
        for piece in _coco(
            boxes, sizes, classes, lambda done: progress(f"writing {path.name}", done, len(boxes.images))
        ):
            file.write(piece.encode())


def _coco(
    boxes: Boxes, sizes: npt.NDArray[np.int32], classes: Sequence[str], done: Callable[[int], None]
) -> Iterator[str]:
    categories = [{"id": place, "name": name} for place, name in enumerate(classes)]
    yield f'{{"categories":{json.dumps(categories)},\n"images":[\n'
    for start, end in _pieces(len(boxes.ids)):
        images = zip(range(start + 1, end + 1), boxes.ids[start:end].tolist(), sizes[start:end].tolist(), strict=True)
        yield ",\n" * (start > 0) + ",\n".join(
            f'{{"id":{number},"file_name":"{name:016x}.jpg","width":{width},"height":{height}}}'
            for number, name, (width, height) in images
        )
    yield '],\n"annotations":[\n'
    for start, end in _pieces(len(boxes.images)):
        places = boxes.images[start:end]
        corners = boxes.ltrb[start:end].astype(np.float64) * np.tile(sizes[places], 2)
        sides = corners[:, 2:] - corners[:, :2]
        rows = zip(
            range(start + 1, end + 1),
            (places + 1).tolist(),
            boxes.classes[start:end].tolist(),
            np.column_stack([corners[:, :2], sides, sides.prod(axis=1)]).tolist(),
            boxes.groups[start:end].tolist(),
            strict=True,
        )
        yield ",\n" * (start > 0) + ",\n".join(
            f'{{"id":{number},"image_id":{image},"category_id":{place},{BOX.format(*box)},"iscrowd":{int(group)}}}'
            for number, image, place, box, group in rows
        )
        done(end)
    yield "]}\n"


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + ROWS, count)) for start in range(0, count, ROWS))
