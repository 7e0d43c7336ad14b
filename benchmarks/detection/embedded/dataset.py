"""The data set that this project makes itself on first use: generated pictures in COCO form, for a run without any download.

It is a demonstration, not COCO: a target reached on it says that a pipeline learns, and nothing about accuracy on photographs.
The annotations are the same bytes everywhere, which a checksum proves; the JPEG files may differ with the version of Pillow.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.detection import own_folder, worker
from benchmarks.detection.embedded.paint import paint
from benchmarks.detection.embedded.scene import HALVES, Scene, scene
from benchmarks.detection.embedded.shapes import CATEGORIES

SEED = 2017
IMAGES = dict(zip(HALVES, (1000, 200), strict=True))  # with those that have no boxes
ANNOTATIONS_SHA256 = {
    "train2017": "4d0a621eada506112750d6bd387e731e2a7a9a95bd4418899ca32f9118943925",
    "val2017": "e8cd978540bf6567fab4e46e81781cbd1a8305b08f0a30aabaecc8f8b82c1d94",
}
NAME, MANIFEST = "embedded", "manifest.json"
JPEG_QUALITY = 90
CHUNK = 20  # images between two calls of progress
MOST_PROCESSES = 8

Described = tuple[dict[str, Any], list[dict[str, Any]]]  # an image and its boxes, as COCO writes them


def ensure(cache_dir: Path, progress: Callable[[int, int], None]) -> Path:
    """The data set's folder in `cache_dir`, made unless it is there and whole. `progress(done, total)` counts images.

    A folder that is incomplete or damaged is made again. It appears at once and complete, or not at all; of several processes
    one makes it and the others wait. Where another version's pictures have the name, and a run may be reading them, it has
    a longer one.
    """
    own_folder.make(cache_dir)
    folder = _place(cache_dir)
    if is_whole(folder):
        own_folder.used(folder / MANIFEST)
        if folder.exists():  # nobody has taken it away meanwhile, who had found it unused
            return folder
    with own_folder.alone(cache_dir / f".{NAME}.lock") as locked:
        folder = _place(cache_dir)
        if is_whole(folder):  # another process was faster
            return folder
        if locked:  # nobody else is making one
            _clear(cache_dir, folder)
        making = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=cache_dir))
        try:
            _make(making / "new", progress)
            folder = _place(cache_dir)  # a run of another version may have begun meanwhile
            if is_whole(folder):  # of another process, where there are no locks
                return folder
            if folder.exists() or folder.is_symlink():
                folder.rename(making / "damaged")
            (making / "new").rename(folder)
        finally:
            shutil.rmtree(making)
    return folder


def _place(cache_dir: Path) -> Path:
    """Where this version's pictures are, or are to be."""
    generator = _generator()
    usual, own = cache_dir / NAME, cache_dir / f"{NAME}-{generator[:12]}"
    try:
        others = json.loads((usual / MANIFEST).read_text(encoding="utf-8"))["generator"] != generator
    except (OSError, ValueError, KeyError, TypeError):
        others = False
    if own.exists() or (others and not own_folder.unused(usual / MANIFEST)):
        return own
    return usual


def _clear(cache_dir: Path, but: Path) -> None:
    """What was interrupted, and what other versions made and no run has begun with for a week; 30 MB each."""
    ours = [each for each in cache_dir.iterdir() if re.fullmatch(rf"{NAME}-[0-9a-f]{{12}}", each.name)]
    unneeded = [each for each in ours if each != but and not each.is_symlink() and own_folder.unused(each / MANIFEST)]
    own_folder.clear(cache_dir, f".{NAME}-", unneeded)


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds what `ensure` makes: of this generator and seed, the right annotations, every picture's bytes."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return False
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = _manifest(folder)
        checksums = {half: hashlib.sha256(_annotation_path(folder, half).read_bytes()).hexdigest() for half in HALVES}
    except (OSError, ValueError):
        return False
    return bool(manifest == found and checksums == ANNOTATIONS_SHA256)


def _make(folder: Path, progress: Callable[[int, int], None]) -> None:
    (folder / "annotations").mkdir(parents=True)
    done, total = 0, sum(IMAGES.values())
    progress(done, total)
    processes = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
    # spawned, not forked: the caller may have threads
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=worker.begin) as pool:
        try:
            parts = {half: _start(pool, folder, half) for half in HALVES}
            for part in as_completed([each for half in HALVES for each in parts[half]]):
                done += len(part.result())
                progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for half in HALVES:
        written = annotation_file([made for part in parts[half] for made in part.result()])
        found = hashlib.sha256(written).hexdigest()
        if found != ANNOTATIONS_SHA256[half]:
            raise RuntimeError(
                f"the annotations of {half} have SHA-256 {found}, expected {ANNOTATIONS_SHA256[half]}: this installation "
                "draws other scenes than the target was set with; install the versions in requirements/*.lock"
            )
        _annotation_path(folder, half).write_bytes(written)
    (folder / MANIFEST).write_text(json.dumps(_manifest(folder)), encoding="utf-8")


def _start(pool: ProcessPoolExecutor, folder: Path, half: str) -> list[Future[list[Described]]]:
    (folder / half).mkdir()
    starts = range(0, IMAGES[half], CHUNK)
    return [pool.submit(_write_images, folder / half, half, range(i, min(i + CHUNK, IMAGES[half]))) for i in starts]


def _write_images(folder: Path, half: str, indices: range) -> list[Described]:
    described = []
    for index in indices:
        made = scene(SEED, half, index)
        paint(made, SEED).save(folder / made.file_name, quality=JPEG_QUALITY)
        described.append(describe(made))
    return described


def describe(made: Scene) -> Described:
    """The entries of one image for the annotation file; the boxes have no ids yet."""
    image = {"id": made.image_id, "file_name": made.file_name, "width": made.width, "height": made.height}
    boxes = [
        {"image_id": made.image_id, "category_id": category_id, "bbox": list(box), "area": seen_px, "iscrowd": 0}
        for category_id, box, seen_px in made.boxes()
    ]
    return image, boxes


def annotation_file(described: Sequence[Described]) -> bytes:
    """COCO's JSON for the images of a half, in their order."""
    boxes = [box for _, of_image in described for box in of_image]
    content = {
        "info": {"description": "Generated pictures: a demonstration, not COCO", "seed": SEED},
        "images": [image for image, _ in described],
        "annotations": [{"id": number, **box, "segmentation": []} for number, box in enumerate(boxes, start=1)],
        "categories": [{"id": shape.category_id, "name": shape.name} for shape in CATEGORIES],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _annotation_path(folder: Path, half: str) -> Path:
    return folder / "annotations" / f"instances_{half}.json"


def _manifest(folder: Path) -> dict[str, Any]:
    """What the folder holds, and by what it was made."""
    pictures = {
        half: {entry.name: hashlib.sha256(Path(entry).read_bytes()).hexdigest() for entry in os.scandir(folder / half)}
        for half in HALVES
    }
    return {"generator": _generator(), "seed": SEED, "pictures": pictures}


def _generator() -> str:
    """Hexadecimal SHA-256 of the code that makes the pictures."""
    generator = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        generator.update(source.read_bytes())
    return generator.hexdigest()
