"""The script that fetches the test data, from a server that plays the publishers."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.system import places
from tests import make_test_data, private_device
from tests.make_test_data import Hosts

FIGURE = " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505"


def document(ids: list[int]) -> dict[str, Any]:
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0} for i in ids]
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 9, "height": 9} for i in ids]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}


def published(root: Path) -> None:
    ids = list(range(200, 0, -1))  # not in order
    (root / "annotations").mkdir(parents=True)
    for year, halves in (("2017", ("train2017", "val2017")), ("2014", ("val2014",))):
        with zipfile.ZipFile(root / f"annotations/annotations_trainval{year}.zip", "w") as made:
            for half in halves:
                made.writestr(f"annotations/instances_{half}.json", json.dumps(document(ids)))
    for half in ("train2017", "val2017"):
        (root / half).mkdir()
        for i in ids:
            (root / half / f"{i:012d}.jpg").write_bytes(f"{half} {i}".encode())
    (root / "results").mkdir()
    (root / "results/instances_val2014_fakebbox100_results.json").write_text("[]")
    (root / "PythonAPI").mkdir()
    (root / "PythonAPI/pycocoEvalDemo.ipynb").write_text(json.dumps({"text": [f"{FIGURE}\n"] * 12}))
    for round_, org, place, numbers in (*make_test_data.SSD, *make_test_data.RETINANET):
        system = place.partition("/")[0]
        base = root / f"mlperf_{round_}" / "commit" / org
        (base / "systems").mkdir(parents=True, exist_ok=True)
        (base / "systems" / f"{system}.json").write_text("{}")
        (base / "results" / place).mkdir(parents=True)
        for number in numbers:
            (base / "results" / place / f"result_{number}.txt").write_text(system)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Hosts, list[str]]]:
    """The publishers, and what was asked of them."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

    published(tmp_path / "public")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "public")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    rounds = dict.fromkeys(round_ for round_, *_ in (*make_test_data.SSD, *make_test_data.RETINANET))
    yield Hosts(here, here, f"{here}/mlperf_", tuple((round_, "commit") for round_ in rounds)), asked
    server.shutdown()
    server.server_close()


def test_everything_comes_once(tmp_path: Path, hosts: tuple[Hosts, list[str]]) -> None:
    folder, (where, asked) = tmp_path / "data", hosts
    make_test_data.make(folder, where)
    for half in ("train2017", "val2017"):
        found = json.loads((folder / f"coco256/annotations/instances_{half}.json").read_text())
        assert [image["id"] for image in found["images"]] == list(range(1, 129))
        assert len(found["annotations"]) == 128 and found["annotations"][0]["segmentation"] == []
        assert len(list((folder / "coco256" / half).iterdir())) == 128
    assert len(json.loads((folder / "evaluator/ground_truth_100_images.json").read_text())["images"]) == 100
    assert (folder / "evaluator/published_bbox.txt").read_text().count("= 0.505\n") == 12
    assert len(list(folder.glob("mlperf-results/*/*/results/*/ssd/result_*.txt"))) == 30
    assert len(list(folder.glob("mlperf-retinanet/*/*/results/*/*/result_*.txt"))) == 30
    assert (folder / "README.md").is_file()
    before = len(asked)
    (folder / "coco256/val2017/000000000007.jpg").unlink()
    make_test_data.make(folder, where)
    assert asked[before:] == ["/val2017/000000000007.jpg"]


def test_what_cannot_be_had_is_an_error_and_leaves_no_whole_folder(
    tmp_path: Path, hosts: tuple[Hosts, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_test_data, "PAUSE_S", 0.0)
    (tmp_path / "public/val2017/000000000001.jpg").unlink()
    with pytest.raises(OSError, match="404"):
        make_test_data.make(tmp_path / "data", hosts[0])
    assert not (tmp_path / "data/README.md").exists()
    assert not list((tmp_path / "data").rglob("*.part"))


def test_it_makes_what_the_tests_were_written_with(test_data: Path) -> None:
    """The folder at hand has the same photographs and series."""
    for half in ("train2017", "val2017"):
        found = json.loads((test_data / f"coco256/annotations/instances_{half}.json").read_text())
        assert len(found["images"]) == make_test_data.FIRST
        assert found == make_test_data.first(found, make_test_data.FIRST)
    for name, listed in make_test_data.SERIES.items():
        if name == "mlperf-retinanet" and not (test_data / name).is_dir():
            continue  # a folder from before there was one
        for round_, org, place, numbers in listed:
            series = test_data / name / round_ / org / "results" / place
            assert {path.name for path in series.iterdir()} == {f"result_{number}.txt" for number in numbers}


def test_help_fetches_nothing_and_what_cannot_be_had_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help began the download, into a folder of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        make_test_data.main(["--help"])
    assert left.value.code == 0 and "[FOLDER]" in capsys.readouterr().out and not list(tmp_path.iterdir())
    monkeypatch.setattr(make_test_data, "ATTEMPTS", 1)
    monkeypatch.setattr(make_test_data.make, "__defaults__", (Hosts(*["http://[::1]:9/"] * 3), print))
    assert make_test_data.main(["data"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: http://[::1]:9") and "stays in data; run again to go on" in said


def test_the_checkouts_cache_stays_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Debian's umask for a user's own group it was writable for that, and then no run kept anything there."""
    monkeypatch.setattr(make_test_data, "make", lambda where, say: None)
    for name in ("data", "device"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(make_test_data, "DEFAULT", tmp_path / "data" / ".cache" / "test-data")
    monkeypatch.setattr(private_device, "BUILD", tmp_path / "device" / ".cache" / "private_device")
    before = os.umask(0o002)
    try:
        assert make_test_data.main([]) == 0
        private_device.make_build_folder()
    finally:
        os.umask(before)
    assert [places.own(tmp_path / name / ".cache") for name in ("data", "device")] == [True, True]
