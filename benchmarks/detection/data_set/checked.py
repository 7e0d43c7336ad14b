"""A COCO folder checked before a run, and what the check leaves for it: annotation files of our own writing, beside a manifest.

Both data paths and both evaluators read those, so that all of them see one content: small ids, categories in one order for both
halves, nothing that no box needs. DALI's reader takes half of the time for them (1.5 s of 2.8 for COCO's training half). The
pictures stay where they are.

All of this happens before run_start, as a download or its verification does, and once: the check is remembered by the hash of
the annotation files and by the names, sizes and times of the pictures. A run opens the files that it leaves after run_start,
like any data; nothing that was read here stays in memory for it, nor of a picture or a document in the page cache.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.detection import own_folder
from benchmarks.detection.data_set import (
    annotation_checks,
    annotation_file,
    faults,
    json_tables,
    picture_files,
    picture_forms,
)
from benchmarks.detection.data_set.annotation_file import Annotations
from benchmarks.detection.data_set.faults import shown
from benchmarks.detection.data_set.picture_files import Listed, Looked
from benchmarks.detection.data_set.picture_forms import Form
from benchmarks.detection.tables import Data, DetectorConfig

MANIFEST, MAKING = "checked.json", ".making-"
FINGERPRINT = "fingerprint"  # of the whole data set, in the manifest
Name = Literal["train", "eval"]
HALVES: tuple[Name, ...] = ("train", "eval")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Counts:
    """What a reader of a half must find."""

    images: int
    images_with_boxes: int
    boxes: int  # that count, see Annotations.counted
    labels: list[int]  # of those, for each label from 1
    boxes_under_a_pixel: int = 0  # of those, with a side shorter than a pixel of the picture
    boxes_not_counted: int = 0  # which no reader takes for one, see annotation_file.MIN_SIDE_PX
    copies: int = 0  # of those that count, see Annotations.copies


@dataclass(frozen=True)
class Half:
    """Where the files of one half lie."""

    images: Path
    annotations: Path  # to be read
    original: Path  # what they were made from
    counts: Counts | None  # None of a folder that was not checked
    trained_on: int = 0  # pictures of this half that are used, and that the training half has too
    category_ids: list[int] | None = None  # the user's own, ascending: those in `annotations` are their places, from 1
    forms: Mapping[Form, int] = field(
        default_factory=dict
    )  # of the pictures with boxes, how many have each; {} unchecked

    def category_id(self, number: int) -> int:
        """The user's own id of a category that `annotations` calls `number`."""
        return number if self.category_ids is None else self.category_ids[number - 1]


@dataclass(frozen=True)
class Known:
    """What a check leaves to be known of a data set, as it was then, whatever has become of it since."""

    halves: dict[Name, Half]
    digest: str = ""  # see `digest`; "" unchecked
    fingerprint: str = ""  # see `fingerprint`; "" unchecked


def half(data_dir: Path, settings: Data, name: Name) -> Half:
    """Of a folder that `ensure` returned, or of a COCO folder as it is."""
    manifest = data_dir / MANIFEST
    if not manifest.is_file():
        annotations = data_dir / getattr(settings, f"{name}_annotations")
        return Half(data_dir / getattr(settings, f"{name}_images"), annotations, annotations, None)
    found = json.loads(manifest.read_bytes())[name]
    return Half(
        Path(found["images"]),
        data_dir / f"{name}.json",
        Path(found["annotations"]),
        Counts(**found["counts"]),
        found["trained_on"][settings.eval_images_without_boxes],
        found["category_ids"],
        found.get("forms", {}),  # of a folder of an older check that is given as a data set itself
    )


def digest(folder: Path) -> str:
    """Of the annotations in a folder that `ensure` returned: equal wherever the same data set lies, in any order of boxes."""
    found = json.loads((folder / MANIFEST).read_bytes())
    return hashlib.sha256("".join(str(found[name]["digest"]) for name in HALVES).encode()).hexdigest()[:12]


def fingerprint(halves: Sequence[tuple[Path, Path]]) -> str:
    """Hexadecimal SHA-256 of a data set: of each half the annotation file's bytes and the images' names and sizes.

    The pictures' own bytes are not read, which would take minutes of full COCO. Hidden files do not count, and neither
    does where the folders lie.
    """
    digest = hashlib.sha256()
    for listed, images in halves:
        digest.update(bytes.fromhex(_sha256(listed)))
        found = picture_files.files(images)
        sizes = sorted((name, status.st_size) for name, status in found if not name.rpartition("/")[2].startswith("."))
        for name, size in sizes:
            digest.update(f"{size} {name}\0".encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def known(data_dir: Path, settings: Data) -> Known:
    """Of a folder that `ensure` returned, or of a COCO folder as it is."""
    halves = {name: half(data_dir, settings, name) for name in HALVES}
    manifest = data_dir / MANIFEST
    if not manifest.is_file():
        return Known(halves)
    return Known(halves, digest(data_dir), json.loads(manifest.read_bytes())[FINGERPRINT])


def ensure(
    config: DetectorConfig, data_dir: Path, cache_dir: Path, progress: Progress, *, prepared_by: str | None, dali: bool
) -> Path:
    """A folder for `half`, made in `cache_dir` unless it is there. ValueError that names what is wrong with `data_dir`.

    `prepared_by`: the options with which `prepare` gets it, where it is a published one. `dali`: whether the data path may be
    DALI's, which does not take all that the other one does.
    """
    originals = {name: _original(data_dir, config.data, name, prepared_by) for name in HALVES}
    cache = own_folder.make(own_folder.make(cache_dir) / "coco")
    folder = cache / _identity(originals.values())
    with own_folder.alone(cache / ".lock") as locked:  # of several ranks one checks, the others wait
        manifest = _manifest(folder)
        if manifest is None:
            if locked:  # nobody else is making one
                _clear(cache)
            manifest = _check(config, originals, folder, progress)
        else:
            own_folder.used(folder / MANIFEST)
    for name in HALVES:
        found = Counts(**manifest[name]["counts"])
        _as_many_categories(config, originals[name].annotations, len(found.labels))
        _as_many_images(config, originals[name].annotations, name, found)
    if dali:
        _for_dali(originals, manifest)
        _large_enough(config, originals["train"].annotations, manifest["train"]["narrowest"])
    return folder


def _original(data_dir: Path, settings: Data, name: Name, prepared_by: str | None) -> Half:
    """ValueError when it is not there."""
    found = half(data_dir, settings, name)
    for path, is_it in ((found.annotations, Path.is_file), (found.images, Path.is_dir)):
        if not is_it(path):
            relative = path.relative_to(data_dir) if path.is_relative_to(data_dir) else path
            command = f"python -m harness prepare {prepared_by} --data-dir {shlex.quote(str(data_dir))}"
            raise ValueError(
                f"{data_dir} has no {relative}: a configuration's [data] table names what is called otherwise"
                + (f"; what is published `{command}` gets" if prepared_by is not None else "")
            )
    return Half(found.images.absolute(), found.annotations.absolute(), found.annotations.absolute(), None)


def _identity(originals: Iterable[Half]) -> str:
    """Of the checked folder's name: of all that the check depends on. It never changes under a run that reads it."""
    digest = hashlib.sha256()
    for source in (
        annotation_checks.__file__,
        annotation_file.__file__,
        faults.__file__,
        json_tables.__file__,
        picture_files.__file__,
        picture_forms.__file__,
        __file__,
    ):
        digest.update(Path(source).read_bytes())
    for each in originals:
        digest.update(f"{each.annotations}\0{each.images}\0".encode(errors="surrogateescape"))
        digest.update(_sha256(each.annotations).encode())
        for line in sorted(_marks(each.images)):
            digest.update(line)
    return digest.hexdigest()[:32]


def _marks(folder: Path) -> Iterator[bytes]:
    for path, status in picture_files.files(folder):
        yield f"{path}\0{status.st_size} {status.st_mtime_ns}\0".encode(errors="surrogateescape")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What `_check` wrote, None where it is not whole."""
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        whole = all(_sha256(folder / f"{name}.json") == found[name]["sha256"] for name in HALVES)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if whole else None


def _sha256(path: Path) -> str:
    """Of a file's content, which is not left in memory: the timed run finds on the disk what was there."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest


def _check(config: DetectorConfig, originals: dict[Name, Half], folder: Path, progress: Progress) -> dict[str, Any]:
    """Read and check all, and leave `folder`. Returns the manifest."""
    read = {}
    for number, name in enumerate(HALVES):
        progress("checking the annotations", number, len(HALVES))
        read[name] = annotation_file.read(originals[name].annotations)
    progress("checking the annotations", len(HALVES), len(HALVES))
    for each in read.values():
        _as_many_categories(config, each.path, len(each.category_ids))
    _same_categories(read["train"], read["eval"])
    if read["eval"].to_find(read["eval"].boxed) == 0:
        raise ValueError(f"{read['eval'].path}: every box is a crowd (iscrowd 1), so that there is nothing to find")
    for name in HALVES:
        _as_many_images(config, read[name].path, name, counts(read[name], read["train"]))
    looked: dict[Name, Looked] = {}
    for name in HALVES:
        listed = [Listed(*each) for each in zip(read[name].file_names, *read[name].sizes.T.tolist(), strict=True)]
        looked[name] = picture_files.check(originals[name].images, listed, read[name].path, progress)
    # of pictures to evaluate that have boxes, and of all: which are evaluated is the configuration's to say
    trained_on = {"train": [0, 0], "eval": _in_both(originals, read)}
    manifest: dict[str, Any] = {
        FINGERPRINT: fingerprint([(originals[name].original, originals[name].images) for name in HALVES])
    }
    making = Path(tempfile.mkdtemp(prefix=MAKING, dir=folder.parent))
    try:
        for name in HALVES:
            read[name].write(making / f"{name}.json", read["train"].category_ids)
            manifest[name] = {
                "images": str(originals[name].images),
                "annotations": str(originals[name].annotations),
                "digest": read[name].digest(read["train"].category_ids),
                "sha256": _sha256(making / f"{name}.json"),
                "counts": asdict(counts(read[name], read["train"])),
                "trained_on": trained_on[name],
                "category_ids": sorted(read[name].category_ids.tolist()),
                "narrowest": _narrowest(read[name]),
                "not_for_dali": [looked[name].not_for_dali[: faults.SHOWN], len(looked[name].not_for_dali)],
                "forms": Counter(itertools.compress(looked[name].forms, read[name].boxed)),
            }
        (making / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        if folder.exists():
            if (there := _manifest(folder)) is not None:  # of another process, where there are no locks
                return there
            shutil.rmtree(folder)  # damaged
        making.rename(folder)
    except OSError as error:
        raise OSError(
            error.errno, f"{folder.parent}: what the check of the data leaves cannot be written ({error.strerror})"
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return manifest


def _clear(cache: Path) -> None:
    """What was interrupted, and what is left of data that is no longer there; 100 MB for COCO.

    What is not there may be so for this process alone: containers of one user share a cache, and each sees its own data.
    """

    def gone(folder: Path) -> bool:
        manifest = _manifest(folder)
        # not Path's, which raises where a folder on the way may not be entered any more
        return manifest is not None and not any(os.path.exists(manifest[each]["annotations"]) for each in HALVES)  # noqa: PTH110

    # its age first: to read a manifest is to hash the annotations beside it
    unneeded = [each for each in cache.iterdir() if own_folder.unused(each / MANIFEST) and gone(each)]
    own_folder.clear(cache, MAKING, unneeded)


def counts(found: Annotations, train: Annotations) -> Counts:
    """Labels count up in the order in which `train` lists the categories."""
    label = {number: place for place, number in enumerate(train.category_ids.tolist())}
    labels = np.array([label[number] for number in found.category_ids.tolist()])[found.categories[found.counted]]
    return Counts(
        len(found.image_ids),
        int(found.boxed.sum()),
        int(found.counted.sum()),
        np.bincount(labels, minlength=len(label)).tolist(),
        int((found.counted & (found.xywh_px[:, 2:] < 1).any(axis=1)).sum()),
        int((~found.counted).sum()),
        found.copies,
    )


def _in_both(originals: dict[Name, Half], read: dict[Name, Annotations]) -> list[int]:
    """Pictures to evaluate that are trained on too: of those that have boxes, and of all.

    By the files that their names lead to: one list for both halves, two that overlap, and a half that is made of links. Within
    a half a file may have several names, as where rare pictures are linked to be trained on more often.
    """

    def file(name: Name, place: int) -> tuple[int, int]:
        # a Path for each of a million files takes longer than its stat
        status = os.stat(f"{originals[name].images}/{read[name].file_names[place]}")  # noqa: PTH116
        return status.st_dev, status.st_ino

    trained = {file("train", place) for place in np.flatnonzero(read["train"].boxed).tolist()}
    both = [file("eval", place) in trained for place in range(len(read["eval"].file_names))]
    return [int((read["eval"].boxed & both).sum()), sum(both)]


def _same_categories(train: Annotations, evaluated: Annotations) -> None:
    """By id, never by order."""
    names = [dict(zip(of.category_ids.tolist(), of.category_names, strict=True)) for of in (train, evaluated)]
    for (one, other), (has, lacks) in ((names, (train, evaluated)), (names[::-1], (evaluated, train))):
        if alone := [number for number in one if number not in other]:
            raise ValueError(
                f"{lacks.path} lacks category {alone[0]} ({shown(one[alone[0]])}) of {has.path}"
                + (f", and {len(alone) - 1} more" if len(alone) > 1 else "")
                + "; both files must list the same categories, in any order"
            )
    for number, name in names[0].items():
        if names[1][number] != name:
            raise ValueError(
                f"category {number} is {shown(name)} in {train.path} and {shown(names[1][number])} in {evaluated.path}; an id "
                "must mean the same in both"
            )


def _as_many_categories(config: DetectorConfig, path: Path, found: int) -> None:
    if found != config.model.categories:
        raise ValueError(
            f"{path} has {found} categories, the configuration says model.categories = {config.model.categories}"
        )


def _as_many_images(config: DetectorConfig, path: Path, name: Name, listed: Counts) -> None:
    settings = config.data
    with_empty = name == "eval" and settings.eval_images_without_boxes
    found, expected = listed.images if with_empty else listed.images_with_boxes, getattr(settings, f"{name}_samples")
    if found != expected:
        raise ValueError(
            f"{path} lists {found:,} images{'' if with_empty else ' with boxes'}, the configuration says "
            f"data.{name}_samples = {expected:,}; complete the folder or correct the configuration"
        )


def _for_dali(originals: dict[Name, Half], manifest: dict[str, Any]) -> None:
    for name in HALVES:
        first, count = manifest[name]["not_for_dali"]
        if count:
            raise ValueError(
                f"{originals[name].images}: {faults.listed(first, count)}: DALI makes other pixels of such, or none; convert "
                'to JPEG or PNG, or say data.backend = "torch"'
            )


def _narrowest(found: Annotations) -> list[tuple[str, int, int]]:
    """Of the pictures with boxes the first few by their shorter side: name, width, height."""
    boxed = np.flatnonzero(found.boxed)
    few = boxed[np.argsort(found.sizes[boxed].min(axis=1), kind="stable")][: faults.SHOWN]
    return [(found.file_names[place], *found.sizes[place].tolist()) for place in few.tolist()]


def _large_enough(config: DetectorConfig, path: Path, narrowest: Sequence[tuple[str, int, int]]) -> None:
    least = config.least_side_px
    if small := [f"{shown(name)} is {w} x {h} px" for name, w, h in narrowest if min(w, h) < least]:
        raise ValueError(
            f"{path}: {'; '.join(small)}{', and maybe more' * (len(small) == faults.SHOWN)}: too small to be trained on, "
            f"expected sides of {least} px at least, of which the smallest part that DALI cuts out has a pixel; leave it out, "
            'or say data.backend = "torch"'
        )
