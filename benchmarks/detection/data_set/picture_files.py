"""Whether the pictures that an annotation file lists are there, as large as it says, and whole: beginnings and ends are read,
and all of a PNG file, which has checksums.

What is not is named with what it is.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from PIL import Image

from benchmarks.detection.data_set import picture_forms
from benchmarks.detection.data_set.annotation_checks import MOST_PIXELS
from benchmarks.detection.data_set.faults import SHOWN, listed, shortened
from benchmarks.detection.data_set.picture_forms import Form

TAIL_BYTES = 1024  # some encoders pad after the end marker, which coded pixels cannot contain
HEAD_BYTES = 512
READERS = 16  # at once: what takes time is the disk, or the network to it
CHUNK = 500  # pictures between two calls of progress
TOGETHER = 4_000  # that wait for a thread: a million futures at once would take a gigabyte

Progress = Callable[[str, int, int], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture as an annotation file has it."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Looked:
    """What was found at pictures of which nothing is wrong."""

    forms: list[Form]  # of each, in their order
    not_for_dali: list[str]  # those that are not, each with what it is


@dataclass(frozen=True, slots=True)
class _Seen:
    fault: str | None = None
    rare: str | None = None  # what it is that is not for DALI
    form: Form = "other"


def check(folder: Path, pictures: Sequence[Listed], source: Path, progress: Progress) -> Looked:
    """ValueError that names the first that are missing, differ from what the annotation file `source` says, or are damaged."""
    missing = _missing(folder, pictures)
    if missing:
        raise ValueError(f"{folder} lacks what {source} lists: {listed(missing[:SHOWN], len(missing))}")
    faults: list[str] = []
    looked = Looked([], [])
    with warnings.catch_warnings(), ThreadPoolExecutor(READERS, thread_name_prefix="looking") as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # counted by us, see MOST_PIXELS
        found = looked_at(pool, lambda picture: _seen(folder / picture.name, picture), pictures)
        for done, (picture, seen) in enumerate(zip(pictures, found, strict=True), start=1):
            looked.forms.append(seen.form)
            if seen.fault is not None:
                faults.append(f"{shortened(picture.name)}: {seen.fault}")
            elif seen.rare is not None:
                looked.not_for_dali.append(f"{shortened(picture.name)}: {seen.rare}")
            if done % CHUNK == 0 or done == len(pictures):
                progress(f"looking at the pictures of {folder.name}", done, len(pictures))
    if faults:
        raise ValueError(f"{folder}: {listed(faults[:SHOWN], len(faults))}")
    return looked


def looked_at(pool: ThreadPoolExecutor, look: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What `look` finds in each, in order."""
    left = iter(items)
    while some := list(itertools.islice(left, TOGETHER)):
        yield from pool.map(look, some)


def files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and status of each file below `folder`, in no order; of a link to nowhere, its own.

    A link to a folder is looked into like a folder, as all that opens a picture does; see `_folders`.
    """
    for parent, names in _folders(folder):
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            path = f"{parent}/{name}"
            try:
                status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than its stat
            except OSError:
                if not os.path.islink(path):  # noqa: PTH114 - likewise
                    continue  # gone by now, as what a tool is still copying
                status = os.lstat(path)
            yield f"{prefix}{name}", status


def is_called_one(name: str) -> bool:
    """Whether a file's name ends as those of pictures that are read here do."""
    return Image.registered_extensions().get(os.path.splitext(name)[1].lower()) in picture_forms.FORMS  # noqa: PTH122


def _folders(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """`folder`, those in it and those that links in it lead to, with the names of what is in them and is no folder.

    Not where a link leads to what it lies in or what `folder` lies in: there is what is no part of the data, a cache say. Nor
    links behind a link, of which there may be as many ways as orders of folders.
    """
    links: list[Path] = []
    for parent, folders, names in os.walk(folder):
        yield parent, names
        links += [link for name in folders if os.path.islink(link := Path(parent, name))]  # noqa: PTH114 - also where it is gone
    beside = os.path.realpath(folder.absolute().parent)  # of a folder that is a link itself
    for link in links:
        there = os.path.realpath(link)
        if not any(Path(each).is_relative_to(there) for each in (beside, os.path.realpath(link.parent))):
            yield from ((parent, names) for parent, _, names in os.walk(link))


def lying_in(folder: Path, names: Iterable[str]) -> dict[str, set[str]]:
    """What lies in each folder that one of `names` is of, by that folder's part of the name; nothing in one that is not there.

    One look at each folder, which is faster than one at each file.
    """
    present: dict[str, set[str]] = {}
    for name in names:
        parent, _, _ = name.rpartition("/")
        if parent not in present:
            try:
                present[parent] = {entry.name for entry in os.scandir(folder / parent)}
            except OSError:
                present[parent] = set()
    return present


def _missing(folder: Path, pictures: Sequence[Listed]) -> list[str]:
    present = lying_in(folder, (picture.name for picture in pictures))
    alike: dict[str, dict[str, str]] = {}  # of a folder that lacks one
    missing = []
    for picture in pictures:
        parent, _, name = picture.name.rpartition("/")
        if name not in present[parent]:
            folded = alike.setdefault(parent, {_folded(each): each for each in present[parent]})
            other = folded.get(_folded(name))
            missing.append(shortened(picture.name) + ("" if other is None else f" (there is {other!a}, not {name!a})"))
    return missing


def _folded(name: str) -> str:
    """Equal for names that people take for one: an accent of its own or not, as file systems and archives change it; case."""
    return unicodedata.normalize("NFC", name).casefold()


def fault(path: Path, said: Listed | None = None) -> str | None:
    """What is wrong with the picture, or None. Pixels are decoded only where the end of a file does not tell."""
    return _seen(path, said).fault


def _seen(path: Path, said: Listed | None) -> _Seen:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep a reader waiting for ever
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return _Seen("not a file")
            # Read beginning and end alone, and leave neither in memory: the timed run finds on the disk what was there
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            try:
                return _looked_into(file, status.st_size, said)
            finally:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        return _Seen(f"cannot be read: {error.strerror or error}")


def first_damaged(folder: Path, names: Sequence[str]) -> str | None:
    """Of the pictures the first that is not whole or that Pillow cannot decode, all its pixels, with what is wrong; None if
    there is none."""

    def look(name: str) -> str | None:
        path = folder / name
        if what := fault(path):  # of a PNG file a checksum, which Pillow passes over and DALI does not
            return f"{path}: {what}"
        try:
            with Image.open(path) as picture:
                picture.load()
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is about the file
            return f"{path}: {error}"
        return None

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decoding")
    try:
        return next((found for found in pool.map(look, names) if found), None)
    finally:
        pool.shutdown(cancel_futures=True)


def faults_and_sizes(
    folder: Path, names: Sequence[str], what: str, progress: Progress
) -> Iterator[tuple[str, str | None, tuple[int, int]]]:
    """Each name with what is wrong with its picture, if anything, and its width and height in px. `what` is being done."""

    def look(name: str) -> tuple[str, str | None, tuple[int, int]]:
        found = fault(folder / name)
        if found is not None:
            return name, found, (0, 0)
        with Image.open(folder / name) as picture:
            return name, None, picture_forms.stored_size(picture)

    with warnings.catch_warnings(), ThreadPoolExecutor(READERS, thread_name_prefix="looking") as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for done, found in enumerate(looked_at(pool, look, names), start=1):
            yield found
            if done % CHUNK == 0 or done == len(names):
                progress(what, done, len(names))


def _looked_into(file: IO[bytes], size: int, said: Listed | None) -> _Seen:
    if size == 0:
        return _Seen("empty")
    try:
        with Image.open(file) as picture:
            if (wrong := _not_as_said(picture, said) or picture_forms.unusual(picture)) is not None:
                return _Seen(wrong)
            # which a loaded one no longer tells
            rare, form = picture_forms.not_for_dali(picture, file), picture_forms.for_decoders(picture)
            return _Seen(_cut_off(picture, file, size), rare, form)
    except Image.DecompressionBombError:
        return _Seen(f"more than {2 * MOST_PIXELS:,} px, expected {MOST_PIXELS:,} at most")
    except Exception:  # noqa: BLE001 - whatever a decoder raises is about the file
        file.seek(0)
        return _Seen(kind(file.read(HEAD_BYTES)))


def _not_as_said(picture: Image.Image, said: Listed | None) -> str | None:
    width, height = picture_forms.stored_size(picture)
    if width * height > MOST_PIXELS:
        return f"{width} x {height} px, expected {MOST_PIXELS:,} px at most"
    if said is None or (width, height) == (said.width, said.height):
        return None
    what = f"is {width} x {height} px, listed as {said.width} x {said.height}"
    if (height, width) == (said.width, said.height):
        what += ": a tool turned it by its camera's tag (EXIF), and so its boxes are not of these pixels"
    return what


def _cut_off(picture: Image.Image, file: IO[bytes], size: int) -> str | None:
    form = picture.format
    if form == "PNG":
        return _wrong_checksum(picture, file)
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    if form == "WEBP":
        file.seek(4)
        return None if int.from_bytes(file.read(4), "little") + 8 <= size else "cut off"
    if form in {"JPEG", "MPO"} and b"\xff\xd9" in tail:
        return None
    try:
        file.seek(0)
        picture.load()
    except Exception as error:  # noqa: BLE001 - likewise
        return f"cut off or damaged ({error})"
    return None


def _wrong_checksum(picture: Image.Image, file: IO[bytes]) -> str | None:
    """A PNG file is in parts, each with its checksum: of all of them, which takes all of the file to be read.

    Its pixels are not decoded: that takes twenty times as long, and finds only what an encoder wrote wrong.
    """
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    try:
        picture.verify()
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises is about the file
        return f"cut off or damaged ({error})"
    return None


VIDEO = "a video, not a picture: `mkdir frames && ffmpeg -i VIDEO frames/%06d.png` takes its frames out"
KINDS = (
    (rb"\s*(<!doctype html|<html|<head)", "an HTML page, not a picture"),
    (rb"\s*<", "an XML page, not a picture"),
    (rb"\s*[\[{]", "JSON, not a picture"),
    (rb"version https://git-lfs", "a Git LFS pointer, not a picture: `git lfs pull` gets it"),
    (
        rb"....(ftyp(?!heic|heix|mif1|avif|avis)|moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF....AVI ",
        VIDEO,
    ),  # MP4, MOV, MKV, AVI
    (rb"\x00\x00\x01[\xb3\xba]|G.{187}G|FLV\x01|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS", VIDEO),  # MPEG, FLV, WMV, Ogg
    (rb"....ftyp(heic|heix|mif1)", "a HEIC file; convert it to JPEG or PNG"),
    (rb"PK\x03\x04", "a ZIP archive, not a picture"),
    (rb"\x1f\x8b", "a gzip archive, not a picture"),
    (rb"\x00+\Z", "zeros, not a picture: its transfer broke off"),
    (rb"\s+(\xff\xd8\xff|\x89PNG)", "a picture behind white space: something put it before the file's first byte"),
    (rb"\xff\xd8", "a JPEG file cut off or damaged in its header"),
    (rb"RIFF....WEBP", "a WebP file cut off or damaged"),
    (rb"GIF8[79]a", "a GIF file cut off or damaged; convert it to JPEG or PNG"),
    (rb"\x89PNG", "a PNG file cut off or damaged in its header"),
)


def kind(head: bytes) -> str:
    """What a file that is no picture is, from how it begins."""
    for pattern, name in KINDS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return name
    return f"not a picture of a known kind (it begins with the bytes {head[:8].hex(' ')})"
