"""MLPerf's subset of OpenImages and the backbone's weights: what a whole folder is, and how its parts are got.

What `python -m harness prepare --benchmark retinanet` does, by benchmarks/detection/download. The folder is the reference's.
Pictures are files of their own at the publisher's, so that what is missing or damaged is got alone.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.detection.data_set import picture_files
from benchmarks.detection.download.fetching import (
    Progress,
    RemoteFile,
    Say,
    described,
    digest,
    fetch,
    gigabytes,
    set_aside,
)
from benchmarks.detection.download.many_files import fetch_all
from benchmarks.detection.download.prepare import Needs, Problem, some
from benchmarks.retinanet import openimages_boxes
from benchmarks.retinanet.openimages import OpenImages, Split

CLASSES = "class-descriptions-boxable.csv"
FILE_NAME = re.compile(rb'"file_name"\s*:\s*"([^"\\]{1,200})"')
CHUNK_BYTES = 1 << 20
RECORD_BYTES = 3_300  # of annotations on the disk for one image, CSV and JSON
GETS = "gets it"  # what `prepare` does about a problem: see Problem.otherwise


@dataclass(frozen=True)
class OpenImagesFiles:
    """Implements benchmarks.detection.download.prepare.DataSet."""

    data_set: OpenImages

    @property
    def name(self) -> str:
        return self.data_set.name

    @property
    def option(self) -> str:
        return " --benchmark retinanet"

    @property
    def weights(self) -> str:
        return self.data_set.backbone.name

    @property
    def archives(self) -> Sequence[RemoteFile]:
        return ()

    def verify(self, data_dir: Path, say: Say, progress: Progress) -> list[Problem]:  # noqa: ARG002
        """The names, counts and pictures of both halves, and the weights. Of a picture beginning and end are looked at."""
        problems = []
        for split in self.data_set.splits:
            names, found = _listed(data_dir / split.annotations, split, progress)
            problems += found
            if all(problem.fixed_by for problem in found):
                # an interrupted `prepare` leaves the boxes that are published, which it gets before any picture
                begun = names is not None or (data_dir / split.boxes).is_file()
                problems += _pictures(data_dir / split.pictures, names, split, progress, begun=begun)
        weights = data_dir / self.weights
        algorithm, _, expected = self.data_set.backbone.digest.partition(":")
        if not weights.is_file():
            problems.append(Problem(f"{weights}: no such file", otherwise=GETS))
        elif digest(weights, algorithm, progress) != expected:
            what = f"{weights}: damaged: its {algorithm.upper()} is not {expected[:16]}..."
            problems.append(Problem(what, damaged=(weights,), otherwise=GETS))
        return problems

    def needs(self, data_dir: Path, problems: Sequence[Problem]) -> Needs:
        data_set = self.data_set
        there = sum(len(_present(data_dir / split.pictures)) for split in data_set.splits)
        pictures = max(0, data_set.images - there) + sum(path.suffix == ".jpg" for path in _damaged(problems))
        needed = pictures * data_set.picture_bytes + data_set.images * RECORD_BYTES
        return Needs(
            f"{pictures:,} pictures and the annotations to download, about {gigabytes(needed)}",
            needed,
            f"Download about {gigabytes(needed)} to {data_dir} ({data_set.name})?",
        )

    def get(self, data_dir: Path, problems: Sequence[Problem], say: Say, progress: Progress) -> list[str]:
        """Download and convert. ValueError, besides, where what is published is not in the form that it was."""
        data_set, damaged = self.data_set, _damaged(problems)
        weights = data_dir / self.weights
        if not weights.is_file() or weights in damaged:
            backbone = data_set.backbone
            fetch(described(backbone.url, backbone.name, backbone.digest), data_dir, say, progress)
        wanted = openimages_boxes.class_ids(
            _file(data_set.classes_url, data_dir / CLASSES, say, progress), data_set.classes
        )
        left = []
        for split in sorted(
            data_set.splits, key=lambda split: split.images
        ):  # what is small shows first that all is well
            left += _split(data_dir, data_set, split, wanted, damaged=damaged, say=say, progress=progress)
        return left

    def make(self, data_dir: Path, progress: Progress) -> None:
        """The annotation files are made as what they are of is got."""


def _damaged(problems: Sequence[Problem]) -> set[Path]:
    return {path for problem in problems for path in problem.damaged}


# --- what is there -------------------------------------------------------------------------------------------------------


def _listed(path: Path, split: Split, progress: Progress) -> tuple[set[str] | None, list[Problem]]:
    """The names of the pictures that the file lists (None without one), and what is wrong with it."""
    if not path.is_file():
        return None, [Problem(f"{path}: no such file", otherwise=GETS)]
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
        what = f"{path}: damaged: it does not end as JSON does"
        return None, [Problem(what, damaged=(path,), otherwise=GETS)]
    if count != split.images or len(names) != count:
        return None, [Problem(f"{path}: {len(names):,} images listed, expected {split.images:,}")]
    return names, []


def _pictures(
    folder: Path, names: set[str] | None, split: Split, progress: Progress, *, begun: bool
) -> Iterator[Problem]:
    present = _present(folder)
    if not begun and 0 < len(present) < split.images:
        what = (
            f"{folder}: {len(present):,} pictures of which no list tells that they are of OpenImages ({some(present)})"
        )
        yield Problem(f"{what}; if they are, put the boxes that are published, {split.boxes_url}, at {split.boxes}")
        return
    if names is None:
        if len(present) < split.images:
            yield Problem(f"{folder}: {len(present):,} pictures, expected {split.images:,}", otherwise=GETS)
        names = present
    if missing := names - present:
        what = f"{folder}: {len(missing):,} of {len(names):,} pictures missing ({some(missing)})"
        yield Problem(what, otherwise=GETS)
    damaged = {name: fault for name, fault, _ in _looked_at(folder, sorted(names & present), progress) if fault}
    if damaged:
        told = some(f"{name} {fault}" for name, fault in damaged.items())
        paths = tuple(folder / name for name in damaged)
        what = f"{folder}: {len(damaged):,} of {len(names):,} pictures damaged ({told})"
        yield Problem(what, damaged=paths, otherwise=GETS)


def _present(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".jpg")}


def _looked_at(
    folder: Path, names: Sequence[str], progress: Progress
) -> Iterator[tuple[str, str | None, tuple[int, int]]]:
    what = f"looking at the pictures of {folder.parent.name}"
    return picture_files.faults_and_sizes(folder, names, what, progress)


# --- what is not ---------------------------------------------------------------------------------------------------------


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
            f"{folder}: {len(faults):,} of {len(names):,} pictures damaged ({some(faults)}); run again to replace them"
        ]
    if annotations in damaged:  # or somebody's own, in another encoding
        say(f"{annotations}: kept as {set_aside(annotations).name}")
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
