"""`harness detect`: what a trained model finds in pictures. A file that is no picture costs one line, never the others."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import names, outside, whole
from harness.contract import Context, Detection, Detector, Sample
from harness.execution.trained import detectors

SUFFIXES = {*(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".j2k")}
SUFFIXES |= {".ppm", ".pgm", ".pnm", ".apng"}
# What cameras and telephones, the web and editors make besides: not read, and not passed over without a word
OTHERS = {*(".heic", ".heif", ".avif", ".jxl", ".gif", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw")}
OTHERS |= {".mp4", ".mov", ".avi", ".mkv", ".webm", ".pbm", ".jpx", ".tga", ".dcm"}
ANNOTATIONS_LIMIT = 1 << 30  # bytes; COCO's training half has 450 MB
ROW = {"image_id", "category_id", "bbox", "score", "file_name"}  # of `results`
DECIMALS = 3  # of a px: a thousandth of what the network can tell


@dataclass(frozen=True)
class Looked:
    """What came of one file."""

    file: Path
    image_id: int
    sample: Sample | None = None
    found: Sequence[Detection] = ()
    fault: str = ""  # what is wrong with it


def files(given: Iterable[Path]) -> tuple[list[Path], list[str], list[str]]:
    """The pictures meant, each once, a complaint for each path that means none, and notes of what was left alone.

    Of a folder those of its files that are named so, links that lead nowhere too: what a file is is seen when it is read.
    """
    found: list[Path] = []
    complaints: list[str] = []
    notes: list[str] = []
    for path in given:
        if not outside.is_folder(path):
            found.append(path)
            continue
        try:
            inside = sorted(path.iterdir(), key=names.natural)
        except OSError as error:
            complaints.append(f"{path}: {error.strerror}")
            continue
        folders = {each for each in inside if outside.is_folder(each) and not each.name.startswith(".")}
        deeper = (
            f"{_count(len(folders), 'folder')} inside not looked into: name {'them' if len(folders) > 1 else 'it'} too"
        )
        pictures = [
            each
            for each in inside
            if each not in folders and each.suffix.lower() in SUFFIXES and not each.name.startswith(".")
        ]
        if not pictures:
            complaints.append(
                f"{path}: the folder has no file that is called a picture ({', '.join(sorted(SUFFIXES))})"
                f"{f'; {deeper}' if folders else ''}"
            )
        elif folders:
            notes.append(f"{path}: {deeper}")
        if others := [each for each in inside if each.suffix.lower() in OTHERS and each not in folders]:
            kinds = ", ".join(sorted({each.suffix.lower() for each in others}))
            notes.append(
                f"{path}: {_count(len(others), 'file')} not looked at ({kinds}): make JPEG, PNG or WebP of them first"
            )
        found += pictures
    kept = once(found)
    if again := len(found) - len(kept):
        notes.append(f"{_count(again, 'picture')} named again: looked at once")
    return kept, complaints, notes


def once(pictures: Sequence[Path]) -> list[Path]:
    """Each where it is named first, by whichever folders and links.

    A link of another name is another picture: where equal files are kept once, links alone tell which pictures there are.
    """
    named = Counter(each.name for each in pictures)
    first: dict[tuple[str, Path], Path] = {}
    for each in pictures:  # where a link leads is asked of those alone that may be one
        first.setdefault((each.name, outside.real(each) if named[each.name] > 1 else each), each)
    return list(first.values())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def image_ids(pictures: Sequence[Path]) -> list[int]:
    """COCO's: the number that a file is called, where each is called one of its own; else 1, 2, 3 in the order given."""
    stems = [each.stem for each in pictures]
    numbers = [int(each) for each in stems if each.isdecimal() and each.isascii() and len(each) < 19]
    if len(set(numbers)) == len(pictures):
        return numbers
    return list(range(1, len(pictures) + 1))


def listed_ids(pictures: Sequence[Path], annotations: Path) -> list[int]:
    """Those that a file in COCO's form gives them, by their names, and by their folders where several have one name.

    ValueError where it does not say which id a picture has, or is no such file.
    """
    content = outside.read_json(annotations, ANNOTATIONS_LIMIT)
    listed: dict[str, dict[Path, int]] = {}  # by the name without folders
    twice: list[Path] = []
    try:
        for each in content["images"]:
            name = Path(each["file_name"])
            number = _whole(each["id"])
            if listed.setdefault(name.name, {}).setdefault(name, number) != number:
                twice.append(name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{annotations}: no file in COCO's form: it needs images, each with file_name and id, a whole number"
        ) from error
    if twice:
        raise ValueError(f"{annotations} lists {twice[0]} twice, with two ids")
    of: dict[int, Path] = {}
    ids = [_listed_id(path, listed.get(path.name, {}), annotations) for path in pictures]
    for path, number in zip(pictures, ids, strict=True):
        if (other := of.setdefault(number, path)) != path:
            raise ValueError(
                f"{annotations} lists one picture {path.name} for {other} and {path}, the one of id {number}: it is of one of "
                "them; leave the other out"
            )
    return ids


def _whole(number: Any) -> int:
    """An id, also as 7.0, which some libraries write. ValueError for any other: half of one is none, 1e999 is infinite."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not float(number).is_integer():
        raise ValueError
    return int(number)


def _listed_id(path: Path, listed: Mapping[Path, int], annotations: Path) -> int:
    """Of those listed that are called as `path` the one that most of its folders agree with."""
    if not listed:
        raise ValueError(f"{annotations} lists no picture {path.name}; name another file, or leave --annotations out")
    parts = path.absolute().parts[::-1]
    agreeing = {}
    for name in listed:
        each = name.parts[::-1]
        count = next((at for at, (one, other) in enumerate(zip(each, parts, strict=False)) if one != other), len(each))
        agreeing[name] = (count == len(each), count)
    best = [name for name in listed if agreeing[name] == max(agreeing.values())]
    if len(best) > 1:
        raise ValueError(
            f"{annotations} lists {best[0]} and {best[1]}, and {path} may be either: its folders must be called as they are "
            "there"
        )
    return listed[best[0]]


def look(
    detector: Detector,
    pictures: Sequence[Path],
    ids: Sequence[int],
    *,
    batch: int,
    here: Context,
    upright: bool,
    threshold: float,
) -> Iterator[Looked]:
    """Each picture in its turn, those of a batch together; the next batch is read meanwhile.

    NotSuitable where a batch does not fit into the memory of `here`.
    """

    def read(path: Path) -> Sample | str:
        try:
            return detector.read(path, upright=upright)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        except ValueError as error:
            return str(error)
        except (MemoryError, RuntimeError) as error:
            if not detectors.lacks_memory(error):
                raise
            return detectors.TOO_LARGE

    def found_in(samples: Sequence[Sample]) -> Iterator[Sequence[Detection]]:
        fewer = "--batch takes fewer at once" if len(samples) > 1 else "end what else uses it"
        with detectors.enough_memory(here, _count(len(samples), "picture") + " at once", fewer):
            return iter(detector.detections(detector.detect(detector.place(samples)), samples))

    numbered = list(zip(pictures, ids, strict=True))
    with ThreadPoolExecutor(here.threads, thread_name_prefix="pictures") as pool:
        coming = [numbered[at : at + batch] for at in range(0, len(numbered), batch)]
        reading = [[pool.submit(read, path) for path, _ in group] for group in coming[:1]]
        for at, group in enumerate(coming):
            if at + 1 < len(coming):
                reading.append([pool.submit(read, path) for path, _ in coming[at + 1]])
            have = [each.result() for each in reading.pop(0)]
            samples = [each for each in have if isinstance(each, Sample)]
            found = found_in(samples) if samples else iter(())
            for (path, number), each in zip(group, have, strict=True):
                if isinstance(each, str):
                    yield Looked(path, number, fault=each)
                else:
                    yield Looked(
                        path, number, each, [one for one in next(found) if one.score >= threshold and _is_finite(one)]
                    )


def _is_finite(one: Detection) -> bool:
    """What overflowed is no box, and JSON has no word for it."""
    return all(map(math.isfinite, (one.score, *one.xywh_px)))


def told_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """What each is called in the results: its name, or the path as it was given where several have that name.

    What is not UTF-8 in it is \\xNN, so that any JSON reader takes it.
    """
    files: dict[str, set[Path]] = {}
    for each in pictures:
        files.setdefault(each.name, set()).add(each)
    told = {each: str(each) if len(files[each.name]) > 1 else each.name for each in pictures}
    return {each: os.fsencode(name).decode(errors="backslashreplace") for each, name in told.items()}


def results(looked: Iterable[Looked], told: Mapping[Path, str]) -> list[dict[str, Any]]:
    """COCO's results form, with the file's name in each row besides, see `told_names`."""
    return [
        {
            "image_id": each.image_id,
            "category_id": one.category_id,
            "bbox": [round(value, DECIMALS) for value in one.xywh_px],
            "score": one.score,
            "file_name": told[each.file],
        }
        for each in looked
        for one in each.found
    ]


def are_results(begins: bytes) -> bool:
    """Whether a file that begins so has `results`, as far as its first row tells."""
    text = begins.decode(errors="replace").strip()
    rows = text[1:].lstrip()
    if not text.startswith("["):
        return False
    if rows == "]":  # nothing was found
        return True
    try:
        first, _ = json.JSONDecoder().raw_decode(rows)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() == ROW


def save_picture(detector: Detector, each: Looked, folder: Path, *, upright: bool) -> Path:
    """The picture with its boxes as a JPEG file of a name of its own in `folder`. OSError when it cannot be written."""
    from PIL import Image

    pixels = Image.fromarray(detector.draw(each.file, each.found, upright=upright))
    path = folder / f"{each.file.stem}_boxes.jpg"
    for number in itertools.count(2):
        if not path.exists():
            break
        path = folder / f"{each.file.stem}_boxes_{number}.jpg"
    with whole.replacing(path) as file:
        pixels.save(file, format="JPEG", quality=90)
    return path


def lines(each: Looked) -> Iterator[str]:
    """For a terminal of 80 columns."""
    assert each.sample is not None
    count = _count(len(each.found), "thing")
    yield f"{each.file}, {each.sample.width_px} x {each.sample.height_px} px: {count if each.found else 'nothing'}"
    for one in each.found:
        sides = "".join(f"{value:>9.1f}" for value in one.xywh_px)
        yield f"{one.score:>6.2f}  {one.category[:28]:28}{sides}"


HEADINGS = f"{'score':>6}  {'what':28}{'left':>9}{'top':>9}{'width':>9}{'height':>9}"
