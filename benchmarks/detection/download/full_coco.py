"""What a complete copy of COCO 2017 is, with the backbone's weights, and whether a folder holds one.

Only looks: benchmarks.detection.download.prepare downloads. A folder in COCO form that holds something else is told from a
damaged copy, so that nothing is ever downloaded over it. Where nothing lists its pictures, what an interrupted `prepare`
leaves tells: it unpacks the lists first, and takes away no archive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detection.data_set import annotation_file, picture_files
from benchmarks.detection.download.archives import Archived
from benchmarks.detection.download.fetching import Progress, RemoteFile, Say, downloaded_bytes
from benchmarks.detection.download.prepare import Problem, some


@dataclass(frozen=True)
class Split:
    """One half of the data set: the images `name`/*.jpg that annotations/instances_`name`.json lists."""

    name: str
    images: int
    # Images with at least one annotation, crowd or not. Leaving out boxes without width or height, as DALI's
    # reader does, gives the same number in COCO 2017: v0.7's logs of that reader say 117,266.
    images_with_boxes: int
    archive: RemoteFile

    @property
    def annotations(self) -> str:
        return f"annotations/instances_{self.name}.json"


@dataclass(frozen=True)
class COCO(Archived):
    """What a complete folder holds, and where it comes from. Implements benchmarks.detection.download.prepare.DataSet."""

    name: str
    annotations: RemoteFile
    splits: tuple[Split, ...]
    backbone: RemoteFile
    option: str = ""

    @property
    def archives(self) -> list[RemoteFile]:
        return [self.annotations, *(split.archive for split in self.splits)]

    def verify(self, data_dir: Path, say: Say, progress: Progress) -> list[Problem]:
        """Every file that a run reads, and the counts. Of an image only beginning and end are looked at."""
        problems: list[Problem] = []
        read = [
            (split, *_check_annotations(data_dir / split.annotations, split, self.annotations, progress))
            for split in self.splits
        ]
        a_list = any(listed is not None for _, listed, _ in read)
        for split, listed, found in read:
            problems += found
            folder, archive = data_dir / split.name, split.archive
            if not a_list and not downloaded_bytes(archive, data_dir) and (own := _not_all(folder, split)):
                what = (
                    f"{folder}: {len(own):,} pictures of which no list tells that they are of {self.name} ({some(own)})"
                )
                problems.append(Problem(f"{what}; if they are, put {archive.name} into {data_dir} and run again"))
                continue
            remedy = None if any(problem.remedy is None for problem in found) else archive
            problems += _check_images(folder, listed, split, remedy, say=say, progress=progress)
        return problems + self.check_weights(data_dir, progress)


# Digests of the archives and all counts: pytorch/vision, torchvision/prototype/datasets/_builtin/coco.py.
# Sizes: the Content-Length in public logs. The image host has no certificate of its own (https fails on Amazon's);
# the digests make plain http safe. The backbone is torchvision's IMAGENET1K_V1; its name has the digest's start.
COCO_2017 = COCO(
    name="COCO 2017",
    annotations=RemoteFile(
        name="annotations_trainval2017.zip",
        url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        size=252_907_541,
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        members=("annotations/instances_",),
        unpacked_size=500_000_000,
    ),
    splits=(
        Split(
            name="train2017",
            images=118_287,
            images_with_boxes=117_266,
            archive=RemoteFile(
                name="train2017.zip",
                url="http://images.cocodataset.org/zips/train2017.zip",
                size=19_336_861_798,
                sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                members=("train2017/",),
                unpacked_size=20_000_000_000,
            ),
        ),
        Split(
            name="val2017",
            images=5_000,
            images_with_boxes=4_952,
            archive=RemoteFile(
                name="val2017.zip",
                url="http://images.cocodataset.org/zips/val2017.zip",
                size=815_585_330,
                sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                members=("val2017/",),
                unpacked_size=850_000_000,
            ),
        ),
    ),
    backbone=RemoteFile(
        name="resnet34-333f7ec4.pth",
        url="https://download.pytorch.org/models/resnet34-333f7ec4.pth",
        size=87_306_240,
        sha256="333f7ec4c6338da2cbed37f1fc0445f9624f1355633fa1d7eab79a91084c6cef",
    ),
)


def _check_annotations(
    path: Path, split: Split, remedy: RemoteFile, progress: Progress
) -> tuple[set[str] | None, list[Problem]]:
    """The names of the images that the file lists (None when it does not tell), and what is wrong with it."""
    if not path.is_file():
        return None, [Problem(f"{path}: no such file", remedy)]
    progress(f"reading {path.name}", 0, 1)
    try:
        annotations = annotation_file.read(path)
    except annotation_file.Damaged as error:
        return None, [Problem(str(error), remedy, aside=(path,))]
    except ValueError as error:
        return None, [Problem(str(error), None)]
    progress(f"reading {path.name}", 1, 1)
    problems = [
        Problem(f"{path}: {found:,} images {what}, expected {expected:,}", None)
        for what, found, expected in (
            ("listed", len(annotations.file_names), split.images),
            ("with boxes", int(annotations.boxed.sum()), split.images_with_boxes),
        )
        if found != expected
    ]
    return set(annotations.file_names), problems


def _not_all(folder: Path, split: Split) -> set[str]:
    """The pictures below `folder`; none where they are as many as the half has, which somebody unpacked."""
    pictures = {name for name, _ in picture_files.files(folder) if picture_files.is_called_one(name)}
    return set() if len(pictures) == split.images else pictures


def _check_images(
    folder: Path,
    listed: set[str] | None,
    split: Split,
    archive: RemoteFile | None,
    *,
    say: Say,
    progress: Progress,
) -> list[Problem]:
    present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    problems = []
    if listed is None and len(present) < split.images:
        problems.append(Problem(f"{folder}: {len(present):,} files, expected {split.images:,}", archive))
    pictures = listed if listed is not None else {name for name in present if name.endswith(".jpg")}
    there = picture_files.lying_in(folder, pictures)
    missing = {name for name in pictures if name.rpartition("/")[2] not in there[name.rpartition("/")[0]]}
    # a folder that pictures are listed in is none of them; what else lies in it is not looked at
    unlisted = present - {os.path.normpath(name).partition("/")[0] for name in pictures}
    if missing:
        what = f"{folder}: {len(missing):,} of {len(pictures):,} images missing ({some(missing)})"
        problems.append(Problem(what, archive))
    if unlisted and listed is not None:
        say(f"{folder}: {len(unlisted):,} files not in the annotations, never read ({some(unlisted)})")
    # One image of train2017, 000000320612.jpg, is a PNG in truth (NVIDIA/DALI warns of it in its SSD test)
    seen = picture_files.faults_and_sizes(folder, sorted(pictures - missing), f"checking {folder.name}", progress)
    damaged = {name: fault for name, fault, _ in seen if fault}
    if damaged:
        names = some(f"{name} {what}" for name, what in damaged.items())
        # whose pictures these are, and so which may be replaced, is not known where nothing lists them
        paths = () if listed is None else tuple(folder / name for name in damaged)
        problems.append(Problem(f"{folder}: {len(damaged):,} images damaged ({names})", archive, paths))
    return problems
