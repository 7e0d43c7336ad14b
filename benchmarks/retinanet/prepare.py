"""MLPerf's subset of OpenImages and the backbone's weights: verified where they are, downloaded where they are not.

What `python -m harness prepare --benchmark retinanet` does. It goes by what lies in the folder, which is the reference's, and
keeps no state: after an interruption it does the rest, on a complete folder it only looks. A folder that holds another data set
in this form is reported and nothing is downloaded over it.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.detection import picture_files
from benchmarks.detection.download import FetchError, Progress, Say, described, digest, fetch, gigabytes
from benchmarks.detection.many_files import fetch_all
from benchmarks.retinanet import openimages_boxes
from benchmarks.retinanet.openimages import OPENIMAGES_MLPERF, OpenImages, Split

CLASSES = "class-descriptions-boxable.csv"
FILE_NAME = re.compile(rb'"file_name"\s*:\s*"([^"\\]{1,200})"')
CHUNK_BYTES = 1 << 20
TOGETHER = 4_000  # pictures looked at between two calls of progress
SHOWN = 3  # names in a message
RECORD_BYTES = 3_300  # of annotations on the disk for one image, CSV and JSON


@dataclass(frozen=True)
class Problem:
    """What is wrong and where."""

    what: str
    mends: bool = True  # a download mends it; else another data set lies there
    damaged: tuple[Path, ...] = ()


def prepare(
    data_dir: Path,
    *,
    verify_only: bool,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
    data_set: OpenImages = OPENIMAGES_MLPERF,
) -> list[str]:
    """Make `data_dir` a complete copy of `data_set` with the backbone's weights. Returns the problems left.

    `confirm` is asked before anything is downloaded. A Ctrl-C keeps what was downloaded: pictures, and files as NAME.part.
    """
    try:
        problems = verify(data_dir, data_set, progress)
        if problems and not verify_only and all(problem.mends for problem in problems):
            if refusal := _mend(data_dir, data_set, problems, confirm=confirm, say=say, progress=progress):
                return refusal
            problems = verify(data_dir, data_set, progress)
    except (FetchError, OSError, ValueError) as error:
        return [f"{error}; what was downloaded in {data_dir} is kept, run again to go on"]
    if not problems:
        say(f"{data_dir}: {data_set.name} is complete; --initial-weights {data_dir / data_set.backbone.name}")
    return [f"{problem.what}; {_remedy(problem, data_dir, data_set)}" for problem in problems]


def _remedy(problem: Problem, data_dir: Path, data_set: OpenImages) -> str:
    if problem.mends:
        return f"`python -m harness prepare --benchmark retinanet --data-dir {data_dir}` gets it"
    return f"this is another data set, which needs no preparing: for {data_set.name} name another --data-dir"


# --- what is there -------------------------------------------------------------------------------------------------------


def verify(data_dir: Path, data_set: OpenImages, progress: Progress) -> list[Problem]:
    """Check the names, counts and pictures of both halves, and the weights. Of a picture beginning and end are looked at."""
    problems = []
    for split in data_set.splits:
        names, found = _listed(data_dir / split.annotations, split, progress)
        problems += found
        if all(problem.mends for problem in found):
            problems += _pictures(data_dir / split.pictures, names, split, progress)
    weights = data_dir / data_set.backbone.name
    algorithm, _, expected = data_set.backbone.digest.partition(":")
    if not weights.is_file():
        problems.append(Problem(f"{weights}: no such file"))
    elif digest(weights, algorithm, progress) != expected:
        problems.append(
            Problem(f"{weights}: damaged: its {algorithm.upper()} is not {expected[:16]}...", damaged=(weights,))
        )
    return problems


def _listed(path: Path, split: Split, progress: Progress) -> tuple[set[str] | None, list[Problem]]:
    """The names of the pictures that the file lists (None without one), and what is wrong with it"""
    if not path.is_file():
        return None, [Problem(f"{path}: no such file")]
    names: set[str] = set()
    count, size, rest, tail = 0, path.stat().st_size, b"", b""
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            rest += block
            end = 0
            for match in FILE_NAME.finditer(rest):
                names.add(match[1].decode(errors="replace"))
                count, end = count + 1, match.end()
            rest = rest[max(end, len(rest) - 300) :]
            tail = (tail + block)[-100:]
            progress(f"reading {path.name}", file.tell(), size)
    if not tail.rstrip().endswith(b"}"):
        return None, [Problem(f"{path}: damaged: it does not end as JSON does", damaged=(path,))]
    if count != split.images or len(names) != count:
        return None, [Problem(f"{path}: {len(names):,} images listed, expected {split.images:,}", mends=False)]
    return names, []


def _pictures(folder: Path, names: set[str] | None, split: Split, progress: Progress) -> Iterator[Problem]:
    present = _present(folder)
    if names is None:
        if len(present) < split.images:
            yield Problem(f"{folder}: {len(present):,} pictures, expected {split.images:,}")
        names = present
    if missing := names - present:
        yield Problem(f"{folder}: {len(missing):,} of {len(names):,} pictures missing ({_some(missing)})")
    damaged = {}
    for name, fault, _ in _looked_at(folder, sorted(names & present), progress):
        if fault:
            damaged[name] = fault
    if damaged:
        what = _some(f"{name} {fault}" for name, fault in damaged.items())
        paths = tuple(folder / name for name in damaged)
        yield Problem(f"{folder}: {len(damaged):,} of {len(names):,} pictures damaged ({what})", damaged=paths)


def _present(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".jpg")}


def _looked_at(
    folder: Path, names: Sequence[str], progress: Progress
) -> Iterator[tuple[str, str | None, tuple[int, int]]]:
    """Each name with what is wrong with its picture, if anything, and its width and height in px."""

    def look(name: str) -> tuple[str, str | None, tuple[int, int]]:
        fault = picture_files.fault(folder / name)
        if fault is not None:
            return name, fault, (0, 0)
        with Image.open(folder / name) as picture:
            return name, None, picture.size

    left, done = iter(names), 0
    with warnings.catch_warnings(), ThreadPoolExecutor(picture_files.READERS, thread_name_prefix="looking") as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        while some := list(itertools.islice(left, TOGETHER)):  # a million futures at once would take a gigabyte
            yield from pool.map(look, some)
            done += len(some)
            progress(f"looking at the pictures of {folder.parent.name}", done, len(names))


def _some(names: Iterator[str] | set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


# --- what is not ---------------------------------------------------------------------------------------------------------


def _mend(
    data_dir: Path,
    data_set: OpenImages,
    problems: Sequence[Problem],
    *,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
) -> list[str]:
    """Download and convert what is missing. Returns why not, or nothing."""
    damaged = {path for problem in problems for path in problem.damaged}
    there = sum(len(_present(data_dir / split.pictures)) for split in data_set.splits)
    pictures = max(0, data_set.images - there) + sum(path.suffix == ".jpg" for path in damaged)
    needed = pictures * data_set.picture_bytes + data_set.images * RECORD_BYTES
    free = _free_bytes(data_dir)
    plan = f"{pictures:,} pictures and the annotations to download, about {gigabytes(needed)}, {gigabytes(free)} free"
    if needed > free:
        return [f"{data_dir}: {plan}; nothing was downloaded: make room or name another --data-dir"]
    say(f"{data_dir}: {plan}")
    if not confirm(f"Download about {gigabytes(needed)} to {data_dir} ({data_set.name})?"):
        return [f"{problem.what}; {_remedy(problem, data_dir, data_set)}" for problem in problems]
    data_dir.mkdir(parents=True, exist_ok=True)
    weights = data_dir / data_set.backbone.name
    if not weights.is_file() or weights in damaged:
        backbone = data_set.backbone
        fetch(described(backbone.url, backbone.name, backbone.digest), data_dir, say, progress)
    wanted = openimages_boxes.class_ids(
        _file(data_set.classes_url, data_dir / CLASSES, say, progress), data_set.classes
    )
    left = []
    for split in sorted(data_set.splits, key=lambda split: split.images):  # what is small shows first that all is well
        left += _split(data_dir, data_set, split, wanted, damaged=damaged, say=say, progress=progress)
    return left


def _split(
    data_dir: Path,
    data_set: OpenImages,
    split: Split,
    wanted: dict[str, int],
    *,
    damaged: set[Path],
    say: Say,
    progress: Progress,
) -> list[str]:
    """The pictures and the annotation file of one half. Returns why they are not available, or nothing."""
    folder, annotations = data_dir / split.pictures, data_dir / split.annotations
    folder.mkdir(parents=True, exist_ok=True)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    boxes = openimages_boxes.read(_file(split.boxes_url, data_dir / split.boxes, say, progress), wanted, progress)
    names = boxes.names()
    if len(names) != split.images:
        what = f"{data_dir / split.boxes}: {len(names):,} images with a box of the classes, expected {split.images:,}"
        return [f"{what}: the published file has changed, or this one is of another version; delete it and run again"]
    present = _present(folder)
    missing = [name for name in names if name not in present or folder / name in damaged]
    url = f"{data_set.pictures_url}{split.name}/"
    refused = fetch_all(missing, url, folder, f"downloading the pictures of {split.name}", progress, wrong=_no_picture)
    if refused:
        (first, why), of = min(refused.items()), f"{len(refused):,} of {len(names):,}"
        return [f"{url}: {of} pictures cannot be downloaded ({first}: {why}); put them into {folder}, and run again"]
    if missing:
        say(f"{folder}: {len(missing):,} pictures downloaded")
    sizes = np.zeros((len(names), 2), dtype=np.int32)
    faults = _sizes(folder, names, sizes, progress)
    if faults:
        return [
            f"{folder}: {len(faults):,} of {len(names):,} pictures damaged ({_some(set(faults))}); run again to replace them"
        ]
    openimages_boxes.write_coco(boxes, sizes, data_set.classes, annotations, progress)
    say(f"{annotations}: {len(names):,} images, {len(boxes.images):,} boxes")
    return []


def _sizes(folder: Path, names: Sequence[str], sizes: npt.NDArray[np.int32], progress: Progress) -> list[str]:
    """Fill in `sizes` (N, 2), width and height in px. Returns what is damaged."""
    faults = []
    for place, (name, fault, size) in enumerate(_looked_at(folder, names, progress)):
        if fault:
            faults.append(f"{name} {fault}")
        sizes[place] = size
    return faults


def _no_picture(content: bytes) -> str | None:
    """What is wrong with a downloaded picture: cut off is what its length tells."""
    try:
        with Image.open(io.BytesIO(content)):
            return None
    except Exception:  # noqa: BLE001 - whatever a decoder raises is about the file
        return f"no picture but {picture_files.kind(content[: picture_files.HEAD_BYTES])}"


def _file(url: str, path: Path, say: Say, progress: Progress) -> Path:
    """A published file at `path`, unless it is there: what is wrong with it shows when it is read."""
    return path if path.is_file() else fetch(described(url, path.name), path.parent, say, progress)


def _free_bytes(data_dir: Path) -> int:
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
