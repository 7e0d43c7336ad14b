"""Fetches the real photographs and logs that the strongest tests use, none of which is part of the project:

    .venv/bin/python -m tests.make_test_data [FOLDER]

FOLDER is .cache/test-data in the checkout, where the tests look for it, unless named; then HARNESS_TEST_DATA must name it too.
About 550 MB come over the network, most of them two archives of annotations that are thrown away afterwards, and 47 MB stay.
What is there already is not fetched again. Everything comes from where its owners publish it, and its licence is its owners'.

    coco256/           the first 128 photographs of COCO's train2017 and val2017, with their boxes
    evaluator/         100 images' ground truth of val2014, detections in them and the figures published for these
    mlperf-results/    six series of MLPerf Training, SSD300 in rounds 0.7 and 1.1, with their system descriptions
    mlperf-retinanet/  likewise six of RetinaNet, rounds 2.0 to 5.1
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT = CHECKOUT / ".cache" / "test-data"
FIRST = 128  # images of each half, by id
EVALUATED = 100  # likewise, as in the COCO API's demonstration
BOX_FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
ATTEMPTS, PAUSE_S = 4, 2.0
# Round, organisation, system and benchmark, numbers of its results
SSD = (
    *(
        ("v0.7", "NVIDIA", f"{name}_ngc20.06_pytorch/ssd", range(5))
        for name in ("dgx1", "dgx2h", "dgxa100", "dgxa100_n2")
    ),
    ("v0.7", "Fujitsu", "gx_V100x8_ngc20.06_pytorch/ssd", range(1, 6)),
    ("v1.1", "NVIDIA", "dgxa100_ngc21.09_mxnet/ssd", range(5)),
)
# A TPU, a wall of weights, a processor, a rank for each seed, a run that does not end, placeholders, another keyword
RETINANET = (
    ("v2.0", "Google", "cloud-tpu-v4-4096-TF/ssd", range(5)),
    ("v2.1", "NVIDIA", "dgxa100_n8_ngc22.09_pytorch/ssd", range(5)),
    ("v3.0", "Intel", "16-nodes-SPR-pytorch/ssd", range(5)),
    ("v4.1", "NVIDIA", "h200_ngc24.04_pytorch/ssd", range(5)),
    ("v5.0", "tinycorp", "tinybox_green/retinanet", range(5)),
    ("v5.1", "University-of-Florida", "hpg.dgxb200x8.n1/retinanet", range(5)),
)
SERIES = {"mlperf-results": SSD, "mlperf-retinanet": RETINANET}


@dataclass(frozen=True)
class Hosts:
    """Where things are published."""

    coco: str = "http://images.cocodataset.org"  # has no certificate of its own
    coco_api: str = "https://raw.githubusercontent.com/cocodataset/cocoapi/master"
    mlperf: str = "https://raw.githubusercontent.com/mlcommons/training_results_"
    commits: tuple[tuple[str, str], ...] = (
        ("v0.7", "c66406115bb3c60cb9c49889b076727ccecba31e"),
        ("v1.1", "f6f044353a3e73cb7c76e971ef3df2b8badd6283"),
        ("v2.0", "8437fbb78349aa3c3054aeccb1d47d2a315a80e7"),
        ("v2.1", "158189d4cbfbee366c10da1f0f086c85d8f15b5f"),
        ("v3.0", "63e326c400f5d8bb8c6070a9ab08332d4931152e"),
        ("v4.1", "b87b9e396f771345d4ef122ba33456304f15228d"),
        ("v5.0", "0fdc28f013256aea84fa36fdaf1e0fa46094b18c"),
        ("v5.1", "441d65f4445cd59687466533fd9f55399136e7a4"),
    )


def make(folder: Path, hosts: Hosts = Hosts(), say: Callable[[str], object] = lambda text: None) -> None:
    """Complete `folder`. OSError where something is not available; what came until then stays."""
    folder.mkdir(parents=True, exist_ok=True)
    say("results of MLPerf Training ...")
    for name in SERIES:
        mlperf_results(folder / name, hosts)
    say("COCO 2017: annotations (253 MB), photographs ...")
    coco256(folder / "coco256", hosts)
    say("COCO 2014: annotations (253 MB), the evaluator's published figures ...")
    evaluator(folder / "evaluator", hosts)
    (folder / "README.md").write_text(
        "Made by tests/make_test_data.py, which says what it is and where it comes from.\n"
    )


def mlperf_results(folder: Path, hosts: Hosts) -> None:
    wanted = []
    for round_, org, place, numbers in SERIES[folder.name]:
        system = place.partition("/")[0]
        base = f"{hosts.mlperf}{round_}/{dict(hosts.commits)[round_]}/{org}"
        wanted.append((f"{base}/systems/{system}.json", folder / round_ / org / "systems" / f"{system}.json"))
        for number in numbers:
            name = f"results/{place}/result_{number}.txt"
            wanted.append((f"{base}/{name}", folder / round_ / org / name))
    all_of(wanted)


def coco256(folder: Path, hosts: Hosts) -> None:
    halves = ("train2017", "val2017")
    files = {half: folder / "annotations" / f"instances_{half}.json" for half in halves}
    if not all(file.is_file() for file in files.values()):
        with archive(f"{hosts.coco}/annotations/annotations_trainval2017.zip") as opened:
            for file in files.values():
                document = first(json.loads(opened.read(f"annotations/{file.name}")), FIRST)
                document["annotations"] = [
                    {**{name: box[name] for name in BOX_FIELDS}, "segmentation": []} for box in document["annotations"]
                ]
                write(file, json.dumps(document).encode())
    for half, file in files.items():
        names = [image["file_name"] for image in json.loads(file.read_text())["images"]]
        all_of([(f"{hosts.coco}/{half}/{name}", folder / half / name) for name in names])


def evaluator(folder: Path, hosts: Hosts) -> None:
    truth = folder / "ground_truth_100_images.json"
    if not truth.is_file():
        with archive(f"{hosts.coco}/annotations/annotations_trainval2014.zip") as opened:
            document = json.loads(opened.read("annotations/instances_val2014.json"))
        write(truth, json.dumps(first(document, EVALUATED)).encode())
    found = f"{hosts.coco_api}/results/instances_val2014_fakebbox100_results.json"
    all_of([(found, folder / "detections.json")])
    figures = folder / "published_bbox.txt"
    if not figures.is_file():
        notebook = fetched(f"{hosts.coco_api}/PythonAPI/pycocoEvalDemo.ipynb").decode()
        lines = re.findall(r"Average (?:Precision|Recall)\s+\(A[PR]\) @\[[^\]]*\] = -?\d\.\d{3}", notebook)
        if len(lines) != 12:
            raise OSError(f"{hosts.coco_api}: the notebook has {len(lines)} figures, 12 were published")
        write(figures, "\n".join(lines).encode() + b"\n")


def first(document: dict[str, Any], count: int) -> dict[str, Any]:
    """The document of its first images by id."""
    images = sorted(document["images"], key=lambda image: image["id"])[:count]
    ids = {image["id"] for image in images}
    boxes = [box for box in document["annotations"] if box["image_id"] in ids]
    return {**document, "images": images, "annotations": boxes}


def all_of(wanted: list[tuple[str, Path]]) -> None:
    """Each address into its file, some at a time; those that are there are left alone."""
    with ThreadPoolExecutor(8) as several:
        missing = [each for each in wanted if not each[1].is_file()]
        list(several.map(lambda each: write(each[1], fetched(each[0])), missing))


def write(path: Path, content: bytes) -> None:
    """The whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def fetched(address: str) -> bytes:
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return bytes(answer.read())
        except OSError as error:
            if attempt + 1 == ATTEMPTS:
                raise OSError(f"{address}: {error}") from error
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def archive(address: str) -> zipfile.ZipFile:
    """A ZIP file of some hundred megabytes, kept for as long as it is open."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the archive
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            shutil.copyfileobj(answer, kept, 1 << 20)
    except OSError as error:
        raise OSError(f"{address}: {error}") from error
    return zipfile.ZipFile(kept)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.make_test_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default=DEFAULT)
    where: Path = parser.parse_args(words).folder
    if where == DEFAULT:  # whatever the umask: a cache in which a group can write is trusted by nobody
        DEFAULT.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        make(where, say=lambda text: sys.stdout.write(f"{text}\n"))
    except OSError as error:
        sys.stderr.write(
            f"error: {error}\nWhat came until then stays in {where}; run again to go on, or name another FOLDER\n"
        )
        return 1
    sys.stdout.write(
        f"{where} is complete; the tests find it "
        + ("by themselves\n" if where == DEFAULT else f"with HARNESS_TEST_DATA={where}\n")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
