"""What a complete copy of Pascal VOC 2007 and 2012 is, as the SSD paper trains on it, and whether a folder holds one.

The archives lie unpacked as they are, in VOCdevkit. Beside them are two annotation files in COCO's form, which everything
else reads: trainval of both years to train on, test of 2007 to evaluate. They are made of the XML files, and made again
where they differ.

The archives were not at hand: the layout is that which torchvision and others read, the counts those of VOC's pages, and the
XML of each year is tested as others quote it. That a box lies on its picture is seen from others' code, which asserts it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detection import whole
from benchmarks.detection.data_set import picture_files, voc_annotations
from benchmarks.detection.data_set.voc_annotations import Described, Part
from benchmarks.detection.download.archives import Archived
from benchmarks.detection.download.fetching import Progress, RemoteFile, Say, downloaded_bytes
from benchmarks.detection.download.prepare import Problem, some

DEVKIT = "VOCdevkit"


@dataclass(frozen=True)
class Source:
    """One archive, and how many images its list names."""

    part: Part
    images: int
    archive: RemoteFile


@dataclass(frozen=True)
class Half:
    annotations: str  # the file that is made, within the data set's folder
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class VOC(Archived):
    """Implements benchmarks.detection.download.prepare.DataSet."""

    name: str
    halves: tuple[Half, ...]
    backbone: RemoteFile
    option: str = " --dataset voc"

    @property
    def archives(self) -> list[RemoteFile]:
        return [source.archive for half in self.halves for source in half.sources]

    def verify(self, data_dir: Path, say: Say, progress: Progress) -> list[Problem]:  # noqa: ARG002
        """Every XML file is read, of a picture beginning and end; the annotation files are compared with what they are of."""
        if problems := list(self._of_another(data_dir)):
            return problems + self.check_weights(data_dir, progress)
        for half in self.halves:
            read: dict[Part, dict[str, Described]] = {}
            found = [each for source in half.sources for each in _check(data_dir / DEVKIT, source, read, progress)]
            path = data_dir / half.annotations
            if not found and (not path.is_file() or path.read_bytes() != voc_annotations.document(read)):
                what = "is not what the XML files say" if path.is_file() else "no such file"
                found = [Problem(f"{path}: {what}", otherwise="makes it")]
            problems += found
        return problems + self.check_weights(data_dir, progress)

    def _of_another(self, data_dir: Path) -> Iterator[Problem]:
        """Years' folders with files, where neither a list of VOC's is nor the archive that an interrupted `prepare` leaves."""
        years: dict[Path, list[Source]] = {}
        for source in (source for half in self.halves for source in half.sources):
            years.setdefault(source.part.folder, []).append(source)
        for year, sources in years.items():
            kit, archives = data_dir / DEVKIT, " or ".join(source.archive.name for source in sources)
            if any(
                (kit / source.part.list).is_file() or downloaded_bytes(source.archive, data_dir) for source in sources
            ):
                continue
            folders = [kit / year / name for name in ("Annotations", "JPEGImages")]
            if own := {name for folder in folders for name, _ in picture_files.files(folder)}:
                what = f"{kit / year}: {len(own):,} files of which no list tells that they are of {self.name} ({some(own)})"
                yield Problem(f"{what}; if they are, put {archives} into {data_dir} and run again")

    def make(self, data_dir: Path, progress: Progress) -> None:
        """The annotation files, where all that they are made of is whole. A file is there whole or not at all."""
        for half in self.halves:
            read: dict[Part, dict[str, Described]] = {}
            if any(True for source in half.sources for _ in _read(data_dir / DEVKIT, source, read, progress)):
                continue
            path = data_dir / half.annotations
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.clear(path)
            with whole.replacing(path) as file:
                file.write(voc_annotations.document(read))


def _check(
    devkit: Path, source: Source, read: dict[Part, dict[str, Described]], progress: Progress
) -> Iterator[Problem]:
    problems = list(_read(devkit, source, read, progress))
    yield from problems
    if source.part in read:
        yield from _check_pictures(devkit, source, list(read[source.part]), progress)


def _read(
    devkit: Path, source: Source, read: dict[Part, dict[str, Described]], progress: Progress
) -> Iterator[Problem]:
    """Put into `read` what the source's XML files say; what is wrong with them."""
    part = source.part
    listing = devkit / part.list
    if not listing.is_file():
        yield Problem(f"{listing}: no such file", source.archive)
        return
    try:
        described, faults = voc_annotations.read(devkit, part, progress)
    except ValueError as error:
        yield Problem(str(error), None)
        return
    if len(described) + len(faults) != source.images:
        found = len(described) + len(faults)
        yield Problem(f"{listing}: {found:,} images listed, expected {source.images:,}", None)
        return
    read[part] = described
    if faults:
        texts = some(f"{name}.xml: {what}" for name, what in faults.items())
        paths = tuple(path for name in faults if (path := devkit / part.annotation(name)).exists())
        what = f"{devkit / part.folder / 'Annotations'}: {len(faults):,} of {source.images:,} files wrong ({texts})"
        yield Problem(what, source.archive, paths)


def _check_pictures(devkit: Path, source: Source, names: list[str], progress: Progress) -> Iterator[Problem]:
    folder = devkit / source.part.picture("").parent
    files = [(devkit / source.part.picture(name)).name for name in names]
    present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    missing = [name for name in files if name not in present]
    what = f"looking at the pictures of {source.part.folder}, {source.part.images}"
    seen = picture_files.faults_and_sizes(folder, [name for name in files if name in present], what, progress)
    damaged = {name: fault for name, fault, _ in seen if fault}
    if missing:
        yield Problem(f"{folder}: {len(missing):,} of {len(names):,} images missing ({some(missing)})", source.archive)
    if damaged:
        texts = some(f"{name} {fault}" for name, fault in damaged.items())
        paths = tuple(folder / name for name in damaged)
        yield Problem(f"{folder}: {len(damaged):,} images damaged ({texts})", source.archive, paths)


def _archive(year: int, name: str, size: int, sha256: str, unpacked: int) -> RemoteFile:
    folder = f"{DEVKIT}/VOC{year}"
    return RemoteFile(
        name=name,
        url=f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/{name}",
        size=size,
        sha256=sha256,
        members=tuple(f"{folder}/{each}/" for each in ("Annotations", "ImageSets/Main", "JPEGImages")),
        unpacked_size=unpacked,
    )


# Addresses: torchvision 0.29, datasets/voc.py. Digests: pytorch/vision, prototype/datasets/_builtin/voc.py, the same in several
# projects that had downloaded them; their MD5, which torchvision itself checks, are c52e279531787c972589f7e41ab4ae64,
# b6e924de25625d8de591ea690078ad9f and 6cd6e144f989b92b3379bac3b3de84fd. Sizes: of the same files, as others recorded them.
# Counts: the lists of ImageSets/Main, as VOC's own pages have them.
VOC_0712 = VOC(
    name="Pascal VOC 2007 and 2012",
    halves=(
        Half(
            "annotations/voc0712_trainval.json",
            (
                Source(
                    Part(2007, "trainval"),
                    5_011,
                    _archive(
                        2007,
                        "VOCtrainval_06-Nov-2007.tar",
                        460_032_000,
                        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
                        450_000_000,
                    ),
                ),
                Source(
                    Part(2012, "trainval"),
                    11_540,
                    _archive(
                        2012,
                        "VOCtrainval_11-May-2012.tar",
                        1_999_639_040,
                        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                        2_000_000_000,
                    ),
                ),
            ),
        ),
        Half(
            "annotations/voc2007_test.json",
            (
                Source(
                    Part(2007, "test"),
                    4_952,
                    _archive(
                        2007,
                        "VOCtest_06-Nov-2007.tar",
                        451_020_800,
                        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
                        450_000_000,
                    ),
                ),
            ),
        ),
    ),
    # torchvision's IMAGENET1K_V1, with the classifier that fc6 and fc7 are made of
    backbone=RemoteFile(
        name="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        size=553_433_881,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
)
