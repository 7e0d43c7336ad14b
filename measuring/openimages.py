"""What a folder as large as OpenImages takes before and around a run, in time and memory: `python -m measuring.openimages`.

    .venv/bin/python -m measuring.openimages FOLDER --out openimages.json    as many pictures and boxes; 8 GB of disk
    .venv/bin/python -m measuring.openimages FOLDER --share 0.01             a hundredth of them, a minute

Boxes are drawn, in number as the published files have rows; the pictures are links to a few grey ones, since what is measured
is lists and not pixels. Each stage is a process of its own: its peak is of resident memory, libraries included, and its
processor time is of all of its threads. FOLDER is made, gone on with where that broke off, and is yours to remove.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.detection import worker
from benchmarks.detection.capabilities import installed
from benchmarks.detection.data_set import annotation_file, checked
from benchmarks.retinanet import openimages_boxes
from benchmarks.retinanet.config import RetinaNetConfig
from benchmarks.retinanet.openimages import MLPERF_CLASSES, OPENIMAGES_MLPERF, Split
from harness import exit_codes
from harness.contract import Context
from measuring import arguments, study

# Of the published CSV files, by OpenImages' own description: of all classes and pictures. How many are of MLPerf's classes it
# does not say; four of five are taken here, ten for a picture of the subset
ROWS = {"train": 14_610_229, "validation": 303_980}
WANTED = 0.8
WIDTH, HEIGHT = 1024, 683
LINKS = 50_000  # to one file; ext4 knows 65,000 at most
TOGETHER = 100_000  # rows written at once
MARK = "made_by_measuring.json"  # tells a folder that was made here, and how large, from anybody's data
CACHE = "cache"
HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"


# --- a folder as large -----------------------------------------------------------------------------------------------------


def csv(folder: Path, split: Split) -> Path:
    return folder / split.boxes


def make(folder: Path, share: float) -> None:
    """CSV files and pictures, unless they are there. ValueError for a folder of anything else."""
    _claim(folder, share)
    grey = folder / "grey.jpg"
    for split in OPENIMAGES_MLPERF.splits:
        if csv(folder, split).exists():
            continue
        csv(folder, split).parent.mkdir(parents=True, exist_ok=True)
        rng, images = np.random.default_rng(len(split.name)), int(split.images * share)
        ids = rng.permutation(np.arange(1, images + 1, dtype=np.uint64) * np.uint64(2**40 + 12345))
        pictures = folder / split.pictures
        pictures.mkdir(parents=True, exist_ok=True)
        for place, number in enumerate(ids.tolist()):
            if place % LINKS == 0:
                grey.unlink(missing_ok=True)
                Image.new("RGB", (WIDTH, HEIGHT), (124, 116, 104)).save(grey)
            with contextlib.suppress(FileExistsError):  # made before it broke off
                os.link(grey, pictures / f"{number:016x}.jpg")
        part = csv(folder, split).with_suffix(".part")
        with part.open("w") as file:
            file.write(HEADER + "\n")
            for start in range(0, count := int(ROWS[split.name] * share), TOGETHER):
                file.write("".join(_rows(rng, ids, range(start, min(start + TOGETHER, count)))))
        part.rename(csv(folder, split))


def _claim(folder: Path, share: float) -> None:
    mark = folder / MARK
    if mark.exists():
        made = json.loads(mark.read_bytes())["share"]
        if made != share:
            raise ValueError(f"{folder} was made with --share {made}, not {share}: name another, or remove it")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds what this study has not made, and would write over: name a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        study.keep({"share": share}, mark)


def _rows(rng: np.random.Generator, ids: Any, numbers: range) -> Any:
    size = len(numbers)
    # the first rows go round all images, so that each has a box; group by group as the published files are
    images = ids[np.sort(np.arange(numbers.start, numbers.stop) % len(ids))]
    classes = rng.integers(0, len(MLPERF_CLASSES), size)
    wanted = (np.arange(numbers.start, numbers.stop) < len(ids)) | (rng.random(size) < WANTED)
    corner = rng.random((size, 2)) * 0.6
    ends = corner + 0.05 + rng.random((size, 2)) * 0.3
    group = (rng.random(size) < 0.05).astype(int)
    columns = (images, np.where(wanted, classes, -1), corner[:, 0], ends[:, 0], corner[:, 1], ends[:, 1], group)
    return (
        f"{image:016x},xclick,{label(kind)},1,{x0:.6f},{x1:.6f},{y0:.6f},{y1:.6f},0,0,{several},0,0\n"
        for image, kind, x0, x1, y0, y1, several in zip(*(column.tolist() for column in columns), strict=True)
    )


def label(place: int) -> str:
    """A class by OpenImages' kind of id; -1 is none of MLPerf's."""
    return f"/m/{place + 1:05x}"


# --- the stages ------------------------------------------------------------------------------------------------------------


def quiet(*_: Any) -> None:
    pass


def libraries(folder: Path) -> str:  # noqa: ARG001 - what a process of any stage takes before it does anything
    return ""


def convert(folder: Path) -> str:
    """As `harness prepare` does, once the pictures are there."""
    counts = []
    for split in OPENIMAGES_MLPERF.splits:
        wanted = {label(place): place for place in range(len(MLPERF_CLASSES))}
        boxes = openimages_boxes.read(csv(folder, split), wanted, quiet)
        sizes = np.tile(np.array([[WIDTH, HEIGHT]], dtype=np.int32), (len(boxes.ids), 1))
        openimages_boxes.write_coco(boxes, sizes, MLPERF_CLASSES, folder / split.annotations, quiet)
        counts.append(f"{len(boxes.ids):,} images, {len(boxes.images):,} boxes")
    return "; ".join(counts)


def configuration(folder: Path) -> RetinaNetConfig:
    train, evaluated = OPENIMAGES_MLPERF.splits
    counts = [sum(1 for _ in os.scandir(folder / split.pictures)) for split in (train, evaluated)]
    return RetinaNetConfig.model_validate(
        {
            "model": {"initial_weights": "scratch", "categories": len(MLPERF_CLASSES), "trained_stages": 5},
            "data": {
                **{"source": "coco", "train_samples": counts[0], "eval_samples": counts[1]},
                **{"eval_images_without_boxes": True, "threads": 1},
                **{"train_annotations": train.annotations, "train_images": train.pictures},
                **{"eval_annotations": evaluated.annotations, "eval_images": evaluated.pictures},
            },
            "optimizer": {"batch_size": 2, "learning_rate": 1e-4},
            "compute": {"precision": "fp32"},
            "evaluation": {"batch_size": 2},
        }
    )


def check(folder: Path) -> str:
    """Before a run, by each of its ranks: the first time all is read, later what was found is remembered."""
    checked.ensure(configuration(folder), folder, folder / CACHE, quiet, prepared_by="--benchmark retinanet", dali=True)
    return ""


def read(folder: Path) -> str:
    found = annotation_file.read(folder / OPENIMAGES_MLPERF.splits[0].annotations)
    return f"{len(found.images):,} boxes"


def reader(folder: Path, backend: str) -> str:
    """What a rank of eight takes to know its pictures, once the clock runs."""
    from benchmarks.detection.folder import Folder
    from benchmarks.retinanet import data

    config = configuration(folder)
    config = config.model_copy(update={"data": config.data.model_copy(update={"backend": backend})})
    ours = checked.ensure(
        config, folder, folder / CACHE, quiet, prepared_by="--benchmark retinanet", dali=backend == "dali"
    )
    context = Context("cpu", world_size=8, data_dir=ours)
    start = time.perf_counter()
    source = Folder(config, context, jpeg_on_device=False).train_source
    made = data.train_batches(source, config.augmentation, order_seed=1, augmentation_seed=1)
    return f"{made.samples:,} images, {time.perf_counter() - start:.1f} s of it after the check"


def torch_reader(folder: Path) -> str:
    return reader(folder, "torch")


def dali_reader(folder: Path) -> str:
    return reader(folder, "dali")


def fingerprint(folder: Path) -> str:
    """Of the data, for the log, once the clock has stopped."""
    from benchmarks.detection.data_set import checked

    return checked.fingerprint(
        [(folder / each.annotations, folder / each.pictures) for each in OPENIMAGES_MLPERF.splits]
    )


def measured(stage: Callable[[Path], str], folder: Path) -> dict[str, Any]:
    start = time.perf_counter(), time.process_time()
    note = stage(folder)
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    # getrusage would tell that of the process which started this one, where it is larger
    peak_mb = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024
    return {
        "stage": stage.__name__,
        "seconds": round(seconds, 1),
        "processor_s": round(processor, 1),
        "peak_mb": round(peak_mb),
        "note": note,
    }


def in_a_process(stage: Callable[[Path], str], folder: Path) -> dict[str, Any]:
    """`measured` in one of its own, which ends with this one. SystemExit where it breaks."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(stage, folder, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError:
        process.join()
        sys.stderr.write(f"error: {stage.__name__} ended with {process.exitcode}\n")
        sys.exit(exit_codes.BROKEN)
    finally:
        process.kill()
        process.join()
    return found


def _send(stage: Callable[[Path], str], folder: Path, to: Connection) -> None:
    worker.begin()
    to.send(measured(stage, folder))


def share(text: str) -> float:
    fewest = min(split.images for split in OPENIMAGES_MLPERF.splits)
    try:
        if 1 <= float(text) * fewest <= fewest:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text}: a share from {math.ceil(1e6 / fewest) / 1e6:g} (a picture) to 1 (all) is needed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new one, or one that this study has made")
    parser.add_argument("--share", type=share, default=1.0, help="of the images and boxes (default: %(default)s)")
    parser.add_argument("--out", type=arguments.file, help="file of all figures, in JSON (default: none)")
    asked = parser.parse_args()
    make(asked.folder, asked.share)
    shutil.rmtree(asked.folder / CACHE, ignore_errors=True)  # else the first check would be a second one
    stages = [libraries, convert, read, check, check, torch_reader, *([dali_reader] * installed("nvidia.dali"))]
    rows = []
    for stage in (*stages, fingerprint):
        rows.append(in_a_process(stage, asked.folder))
        sys.stdout.write(f"{json.dumps(rows[-1])}\n")
        sys.stdout.flush()
        if asked.out:
            study.keep({"made_by": "measuring.openimages", "share": asked.share, "stages": rows}, asked.out)


if __name__ == "__main__":
    sys.exit(study.ended(main))
