"""OpenImages in small, as it is published: prepared from a server that fails, converted, verified and repaired."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.download import fetching, many_files
from benchmarks.detection.download.fetching import FetchError
from benchmarks.detection.download.many_files import fetch_all
from benchmarks.detection.download.prepare import prepare
from benchmarks.retinanet import openimages_boxes
from benchmarks.retinanet.full_openimages import OpenImagesFiles
from benchmarks.retinanet.openimages import MLPERF_CLASSES, OPENIMAGES_MLPERF, Backbone, OpenImages, Split
from tests.detection.download.http_server import SOON_S, FileServer
from tests.patience import PATIENCE_S

WEIGHTS = b"weights " * 1000
HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = {"/m/01": "Apple", "/m/02": "Zebra", "/m/03": "Car", "/m/04": "Egg (Food)"}
# image, class, XMin, XMax, YMin, YMax, IsGroupOf; not in the order of the ids, and some of no wanted class
BOXES = {
    "train": [
        ("00000000000000ff", "/m/02", 0.5, 1.0, 0.25, 0.75, 0),
        ("0000000000000001", "/m/01", 0.1, 0.3, 0.0, 1.0, 0),
        ("0000000000000001", "/m/03", 0.0, 1.0, 0.0, 1.0, 0),
        ("00000000000000ff", "/m/01", 0.0, 0.125, 0.0, 0.5, 1),
        ("000000000000000a", "/m/03", 0.2, 0.4, 0.2, 0.4, 0),  # of no wanted class: the image is not wanted
        ("f000000000000000", "/m/04", 0.0, 1.0, 0.0, 1.0, 1),  # of groups alone, and beyond what int64 holds
    ],
    "validation": [("00000000000000aa", "/m/02", 0.25, 0.5, 0.25, 0.5, 0)],
}
SIZES = {
    "0000000000000001": (100, 50),
    "00000000000000ff": (64, 48),
    "f000000000000000": (40, 30),
    "00000000000000aa": (80, 60),
}


def picture(name: str) -> bytes:
    width, height = SIZES[name]
    pixels = np.random.default_rng(int(name, 16)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="jpeg")
    return file.getvalue()


def published() -> dict[str, bytes]:
    files = {
        "classes.csv": "\n".join(f"{key},{name}" for key, name in CLASSES.items()).encode(),
        "weights.pth": WEIGHTS,
    }
    for split, rows in BOXES.items():
        lines = [
            f"{i},xclick,{label},1,{x0},{x1},{y0},{y1},0,0,{group},0,0" for i, label, x0, x1, y0, y1, group in rows
        ]
        files[f"{split}.csv"] = "\n".join([HEADER, *lines, ""]).encode()
        files |= {f"{split}/{row[0]}.jpg": picture(row[0]) for row in rows if row[0] in SIZES}
    return files


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(many_files, "LONGEST_PAUSE_S", 0.0)
    for module in (fetching, many_files):
        monkeypatch.setattr(module, "TIMEOUT_S", PATIENCE_S)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FileServer]:
    headers = {"x-goog-hash": "crc32c=AAAAAA==,md5={md5_base64}", "ETag": '"{md5}"'}
    with FileServer(published(), headers=headers) as running:
        yield running


def small(server: FileServer) -> OpenImages:
    return OpenImages(
        name="a small OpenImages",
        classes=("Apple", "Egg (Food)", "Zebra"),
        classes_url=server.url("classes.csv"),
        pictures_url=server.url(""),
        splits=(Split("train", 3, server.url("train.csv")), Split("validation", 1, server.url("validation.csv"))),
        backbone=Backbone("weights.pth", server.url("weights.pth"), f"sha512:{hashlib.sha512(WEIGHTS).hexdigest()}"),
        picture_bytes=2000,
    )


class Prepared:
    def __init__(self, folder: Path, data_set: OpenImages, *, verify_only: bool = False, agree: bool = True) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.problems = prepare(
            folder,
            OpenImagesFiles(data_set),
            verify_only=verify_only,
            confirm=lambda question: self.asked.append(question) is None and agree,
            say=self.said.append,
            progress=lambda what, done, total: None,
        )


def test_the_published_facts() -> None:
    """MLPerf's 264 classes in the alphabet's order; the reference's README has the counts, its script the digest."""
    assert len(set(MLPERF_CLASSES)) == 264 and list(MLPERF_CLASSES) == sorted(MLPERF_CLASSES)
    assert {split.name: split.images for split in OPENIMAGES_MLPERF.splits} == {
        "train": 1_170_301,
        "validation": 24_781,
    }
    assert "Kitchen & dining room table" in MLPERF_CLASSES and "Personal flotation device" in MLPERF_CLASSES
    assert (
        OPENIMAGES_MLPERF.backbone.digest.startswith("sha512:15c9f0bc")
        and len(OPENIMAGES_MLPERF.backbone.digest) == 135
    )


def test_from_nothing_to_coco_form(server: FileServer, tmp_path: Path) -> None:
    found = Prepared(tmp_path / "data", small(server))
    assert found.problems == [] and len(found.asked) == 1
    assert "a small OpenImages is complete" in found.said[-1]
    train = annotation_file.read(tmp_path / "data/train/labels/openimages-mlperf.json")
    assert list(train.file_names) == ["0000000000000001.jpg", "00000000000000ff.jpg", "f000000000000000.jpg"]
    assert train.image_ids.tolist() == [1, 2, 3] and train.sizes.tolist() == [[100, 50], [64, 48], [40, 30]]
    assert (train.category_ids.tolist(), list(train.category_names)) == ([0, 1, 2], ["Apple", "Egg (Food)", "Zebra"])
    # as the reference has it: relative corners by the picture's size, the published order within an image, groups as crowds
    expected = [
        (0, 0, (10, 0, 20, 50), 0),
        (1, 2, (32, 12, 32, 24), 0),
        (1, 0, (0, 0, 8, 24), 1),
        (2, 1, (0, 0, 40, 30), 1),
    ]
    assert train.images.tolist() == [each[0] for each in expected]
    assert train.categories.tolist() == [each[1] for each in expected]
    assert np.allclose(train.xywh_px, [each[2] for each in expected], atol=1e-3)
    assert train.crowd.tolist() == [bool(each[3]) for each in expected]
    assert train.areas == pytest.approx(train.xywh_px[:, 2:].prod(axis=1), abs=1e-2)
    evaluated = json.loads((tmp_path / "data/validation/labels/openimages-mlperf.json").read_text())
    assert evaluated["annotations"][0]["bbox"] == [20.0, 15.0, 20.0, 15.0]
    again = Prepared(tmp_path / "data", small(server))
    assert again.problems == [] and again.asked == []


def test_what_breaks_off_is_tried_again_and_what_is_damaged_is_not_taken(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "TIMEOUT_S", SOON_S)
    names = ["0000000000000001.jpg", "00000000000000ff.jpg"]
    server.faults[:] = [503, "break", "page", "stall", "wrong bytes"]
    refused = fetch_all(
        names, server.url("train/"), tmp_path, "x", lambda *_: None, wrong=lambda content: None, threads=1
    )
    assert refused == {} and server.faults == []
    assert [(tmp_path / name).read_bytes() for name in names] == [picture(name[:-4]) for name in names]
    assert {path.name for path in tmp_path.iterdir()} == set(names), "no .part stays"


def test_too_many_that_are_refused_end_it_with_one_that_was(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "MOST_REFUSED", 2)
    names = ["a.jpg", "b.jpg", "c.jpg", "0000000000000001.jpg", "00000000000000ff.jpg"]
    with pytest.raises(fetching.FetchError, match=r"3 files refused, the last [abc]\.jpg \(HTTP 404\)"):
        fetch_all(names, server.url("train/"), tmp_path, "x", lambda *_: None, wrong=lambda content: None, threads=8)


def test_an_interruption_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    def interrupted(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    names = [f"{row[0]}.jpg" for row in BOXES["train"] if row[0] in SIZES]
    with pytest.raises(KeyboardInterrupt):
        fetch_all(names, server.url("train/"), tmp_path, "x", interrupted, wrong=lambda content: None, threads=1)
    whole = [path for path in tmp_path.iterdir() if path.suffix == ".jpg"]
    assert whole and all(path.read_bytes() == picture(path.stem) for path in whole)


def test_a_server_that_never_answers_ends_it_and_what_came_is_kept(server: FileServer, tmp_path: Path) -> None:
    assert Prepared(tmp_path, small(server)).problems == []
    for name in ("0000000000000001", "00000000000000ff"):
        (tmp_path / f"train/data/{name}.jpg").unlink()
    (tmp_path / "train/labels/openimages-mlperf.json").unlink()
    server.faults[:] = [503] * 100
    (problem,) = Prepared(tmp_path, small(server)).problems
    assert "given up after" in problem and "is kept, run again to go on" in problem
    assert (tmp_path / "train/data/f000000000000000.jpg").is_file()
    server.faults.clear()
    server.ranges.clear()
    assert Prepared(tmp_path, small(server)).problems == []
    assert len(server.ranges) == 2, "only the two pictures are fetched again"


def test_only_the_missing_and_the_damaged_are_fetched(server: FileServer, tmp_path: Path) -> None:
    data_set = small(server)
    assert Prepared(tmp_path, data_set).problems == []
    cut = tmp_path / "train/data/00000000000000ff.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    (tmp_path / "train/data/0000000000000001.jpg").unlink()
    looked = Prepared(tmp_path, data_set, verify_only=True)
    assert looked.asked == [] and len(looked.problems) == 2
    assert "1 of 3 pictures missing (0000000000000001.jpg)" in looked.problems[0]
    assert "1 of 3 pictures damaged (00000000000000ff.jpg " in looked.problems[1]
    assert all("--benchmark retinanet` gets it" in problem for problem in looked.problems)
    assert len(Prepared(tmp_path, data_set, agree=False).problems) == 2
    server.ranges.clear()
    assert Prepared(tmp_path, data_set).problems == []
    assert len(server.ranges) == 2 and cut.read_bytes() == picture("00000000000000ff")


def test_pictures_that_no_list_names_are_another_data_set_s(server: FileServer, tmp_path: Path) -> None:
    mine = tmp_path / "train/data/00000000000000ff.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine, and no picture that is read here")
    found = Prepared(tmp_path, small(server))
    assert (found.asked, server.ranges) == ([], []) and mine.read_bytes().startswith(b"mine")
    (problem,) = (text for text in found.problems if "train/data: " in text)
    assert "1 pictures of which no list tells that they are of OpenImages (00000000000000ff.jpg)" in problem
    assert "this is another data set" in problem


def test_an_annotation_file_that_may_be_somebody_s_own_is_kept(server: FileServer, tmp_path: Path) -> None:
    mine = tmp_path / "train/labels/openimages-mlperf.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes("{}".encode("utf-16"))
    assert Prepared(tmp_path, small(server)).problems == []
    assert mine.with_name(f"{mine.name}.before_0").read_bytes() == "{}".encode("utf-16")


def test_a_picture_that_the_server_has_not_is_named(server: FileServer, tmp_path: Path) -> None:
    files = {name: content for name, content in server.files.items() if name != "train/00000000000000ff.jpg"}
    with FileServer(files) as poorer:
        (problem,) = Prepared(tmp_path, small(poorer)).problems
    assert "1 of 3 pictures cannot be downloaded (00000000000000ff.jpg: HTTP 404)" in problem
    assert not (tmp_path / "train/labels/openimages-mlperf.json").exists(), "no file that lists what is not there"
    (tmp_path / "train/data/00000000000000ff.jpg").write_bytes(picture("00000000000000ff"))  # by hand
    with FileServer(files) as poorer:
        assert Prepared(tmp_path, small(poorer)).problems == []


def test_counts_that_are_not_the_rules(server: FileServer, tmp_path: Path) -> None:
    data_set = small(server)
    more = replace(data_set, splits=(replace(data_set.splits[0], images=4), data_set.splits[1]))
    (problem,) = Prepared(tmp_path, more).problems
    assert "3 images with a box of the classes, expected 4" in problem
    assert Prepared(tmp_path, data_set).problems == []
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = Prepared(tmp_path, more)
    assert found.asked == [] and "another data set, which needs no preparing" in found.problems[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000000000000001,x,/m/01,1,0.1", "line 2 has 5 of 13 values: cut off"),
        ("1,x,/m/01,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "line 2: '1' is no id of an image"),
        ("0000000000000001,x,/m/01,1,here,0.2,0.1,0.2,0,0,0,0,0", "line 2: could not convert string to float"),
        ("0x00000000000001,x,/m/01,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "line 2: '0x00000000000001' is no id of an image"),
        ("0000000000000001,x,/m/01,1,nan,0.2,0.1,0.2,0,0,0,0,0", "line 2: a corner at nan, 0.1, 0.2"),
        ("0000000000000001,x,/m/01,1,0.1,0.2,0.1,0.2,0,0,True,0,0", "line 2: IsGroupOf is 'True'"),
        ("0000000000000001,\udcff,/m/01,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "line 2: 'utf-8' codec can't decode byte 0xff"),
        (f'"{"x" * 200_000}', "line 2: field larger than field limit"),
    ],
)
def test_what_is_wrong_with_published_boxes(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"{HEADER}\n{line}\n", errors="surrogateescape")
    with pytest.raises(ValueError, match=f"boxes.csv: {message}"):
        openimages_boxes.read(path, {"/m/01": 0}, lambda *_: None)
    path.write_bytes(b"/m/01,Apple\n/m/02,\xff\n")
    with pytest.raises(ValueError, match=r"boxes.csv: line 2: 'utf-8' codec"):
        openimages_boxes.class_ids(path, ["Apple"])
    path.write_text("ImageID,LabelName\n")
    with pytest.raises(ValueError, match="no column XMin"):
        openimages_boxes.read(path, {}, lambda *_: None)
    path.write_text("/m/01,Apple\n")
    with pytest.raises(ValueError, match="no class Zebra in it"):
        openimages_boxes.class_ids(path, ("Apple", "Zebra"))


def test_no_network_is_a_problem_with_a_way_out(tmp_path: Path) -> None:
    with FileServer({}) as server:
        data_set = small(server)
    (problem,) = Prepared(tmp_path / "data", data_set).problems
    assert "weights.pth" in problem and "run again" in problem
    with pytest.raises(FetchError, match="HTTP Error 404"), FileServer({}) as server:
        fetching.described(server.url("none"), "none")


def test_memory_stays_small_however_many_boxes(tmp_path: Path) -> None:
    """27 bytes a box are held, and not 600 as of a list of records: 14.6 million rows of training fit anywhere."""
    count, boxes_an_image = 4_000, 5
    path = tmp_path / "boxes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        for number in range(count):
            for box in range(boxes_an_image):
                writer.writerow([f"{number:016x}", "x", "/m/01", 1, 0.1, 0.2 + box / 10, 0.1, 0.9, 0, 0, 0, 0, 0])

    def peak(call: Any) -> tuple[Any, int]:
        tracemalloc.start()
        found = call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, most

    found, reading = peak(lambda: openimages_boxes.read(path, {"/m/01": 0}, lambda *_: None))
    assert len(found.images) == count * boxes_an_image
    assert reading / len(found.images) < 150
    sizes = np.full((count, 2), 100, dtype=np.int32)
    openimages_boxes.ROWS, rows = 1000, openimages_boxes.ROWS
    try:
        _, writing = peak(
            lambda: openimages_boxes.write_coco(found, sizes, ("Apple",), tmp_path / "coco.json", lambda *_: None)
        )
    finally:
        openimages_boxes.ROWS = rows
    assert writing < 2_000_000
    assert len(annotation_file.read(tmp_path / "coco.json").images) == count * boxes_an_image
