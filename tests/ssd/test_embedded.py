"""The embedded data: the same everywhere, a whole COCO folder or none, and pictures that their boxes fit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks.detection import own_folder
from benchmarks.detection.embedded import dataset as embedded
from benchmarks.detection.embedded import paint as embedded_paint
from benchmarks.detection.embedded.scene import HALVES, LEAST_SEEN, Item, Scene, scene
from benchmarks.detection.embedded.shapes import CATEGORIES
from benchmarks.ssd import BENCHMARK
from harness import config, config_files
from harness.contract import Context
from tests.conftest import CHECKOUT

SMALL = {"train2017": 6, "val2017": 2}


def ignore(done: int, total: int) -> None:
    pass


def read(folder: Path, half: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "annotations" / f"instances_{half}.json").read_bytes())
    return document


def scenes(half: str, count: int) -> list[Scene]:
    return [scene(embedded.SEED, half, index) for index in range(count)]


@pytest.fixture(scope="module")
def whole() -> Path:
    """The real data set, the checkout's own: of today's generator, or it is made again. Its annotations have the checksum."""
    return embedded.ensure(CHECKOUT / ".cache", ignore)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of 8 images in 4 parts instead of the real one."""
    described = {half: [embedded.describe(each) for each in scenes(half, SMALL[half])] for half in HALVES}
    checksums = {half: hashlib.sha256(embedded.annotation_file(described[half])).hexdigest() for half in HALVES}
    monkeypatch.setattr(embedded, "IMAGES", SMALL)
    monkeypatch.setattr(embedded, "ANNOTATIONS_SHA256", checksums)
    monkeypatch.setattr(embedded, "CHUNK", 2)
    monkeypatch.setattr(embedded, "MOST_PROCESSES", 1)


@pytest.fixture
def makes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Where the data set was made, once for each time."""
    made: list[Path] = []
    make = embedded._make

    def counted(folder: Path, progress: Callable[[int, int], None]) -> None:
        made.append(folder)
        make(folder, progress)

    monkeypatch.setattr(embedded, "_make", counted)
    yield made


# --- the real one ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_configuration_finds_what_it_says(whole: Path) -> None:
    tables = config.load(config_files.find("embedded")).tables
    session = BENCHMARK.open(tables, Context(device="cpu", data_dir=whole))
    try:
        found = session.load_data()  # DALI opens both halves; raises where its counts are not the configuration's
    finally:
        session.close()
    with_boxes = {box["image_id"] for box in read(whole, "train2017")["annotations"]}
    assert found.train_samples == len(with_boxes) < embedded.IMAGES["train2017"]
    assert found.eval_samples == embedded.IMAGES["val2017"]


@pytest.mark.long
def test_it_has_what_trips_pipelines_up(whole: Path) -> None:
    grey = []
    for half in HALVES:
        document = read(whole, half)
        ids = [category["id"] for category in document["categories"]]
        assert len(ids) >= 12 and ids != sorted(ids) and max(ids) > 2 * len(ids) and min(ids) > 1
        assert {box["category_id"] for box in document["annotations"]} == set(ids), "every class occurs in both halves"
        sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
        assert sizes.keys() - {box["image_id"] for box in document["annotations"]}, "some images have no boxes"
        assert len(set(sizes.values())) >= 3
        for box in document["annotations"]:
            x, y, w, h = box["bbox"]
            assert 0 <= x < x + w <= sizes[box["image_id"]][0] and 0 <= y < y + h <= sizes[box["image_id"]][1]
            assert 0 < box["area"] <= w * h and min(w, h) >= 10
        for image in document["images"]:
            with Image.open(whole / half / image["file_name"]) as picture:
                assert picture.size == sizes[image["id"]]
                grey += [image["id"]] if picture.mode == "L" else []
    assert len(grey) == 1


# --- scenes and pictures ---------------------------------------------------------------------------------------------


def test_a_seed_is_a_data_set() -> None:
    one, again = (
        embedded.annotation_file([embedded.describe(each) for each in scenes("val2017", 5)]) for _ in range(2)
    )
    other = embedded.annotation_file([embedded.describe(scene(embedded.SEED + 1, "val2017", i)) for i in range(5)])
    assert one == again != other
    train, val = scenes("train2017", 5), scenes("val2017", 5)
    assert [each.items for each in train] != [each.items for each in val]
    picture, repeated, another = (np.asarray(embedded_paint.paint(train[0], seed)) for seed in (1, 1, 2))
    assert np.array_equal(picture, repeated) and not np.array_equal(picture, another)


def test_boxes_are_tight_and_nothing_is_hidden() -> None:
    overlapping = 0
    for made in scenes("train2017", 60):
        kinds = [item.shape.category_id for item in made.items]
        assert len(made.boxes()) == sum(kind is not None for kind in kinds)
        things = [i for i, kind in enumerate(kinds) if kind is not None]
        for i, (_, (x, y, w, h), seen_px) in zip(things, made.boxes(), strict=True):
            mask = made.seen[i]
            assert mask[y : y + h, x : x + w].sum() == mask.sum() == seen_px
            assert all(edge.any() for edge in (mask[y, :], mask[y + h - 1, :], mask[:, x], mask[:, x + w - 1]))
            assert seen_px >= LEAST_SEEN * made.whole[i]
            overlapping += seen_px < made.whole[i]
    assert overlapping > 20, "occlusion and cut off things are part of the task"


def test_the_picture_shows_a_thing_where_its_box_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def blue(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
        return np.full((height, width, 3), (0.1, 0.1, 0.7), dtype=np.float32)

    monkeypatch.setattr(embedded_paint, "BACKGROUNDS", (blue,))
    for centre in ((60.0, 150.0), (12.0, 40.0), (300.0, 220.0)):
        made = Scene("train2017", 0, 320, 240)
        item = Item("red marble", centre, 40.0, 0.0, 1.1, mirrored=False)
        made.items.append(item)
        x, y = np.arange(320)[None, :] + 0.5, np.arange(240)[:, None] + 0.5
        made.seen.append(item.shape.outline(*item.plane(x, y)) > 0)
        ((_, (left, top, width, height), _),) = made.boxes()

        pixels = np.asarray(embedded_paint.paint(made, seed=1)).astype(int)
        red = pixels[..., 0] > pixels[..., 2] + 20
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(found - (left, top, left + width, top + height)).max() <= 2


def test_the_grey_picture_asks_for_no_colour() -> None:
    (grey,) = [each for each in scenes("train2017", 40) if each.grey]
    assert embedded_paint.paint(grey, embedded.SEED).mode == "L"
    assert grey.boxes() and not any("marble" in item.name for item in grey.items)


def test_names_and_ids_are_unique() -> None:
    assert (
        len({shape.name for shape in CATEGORIES}) == len({shape.category_id for shape in CATEGORIES}) == len(CATEGORIES)
    )
    ids = [Scene(half, index, 1, 1).image_id for half in HALVES for index in range(embedded.IMAGES[half])]
    assert len(set(ids)) == len(ids)


# --- whole or not there ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_scenes_are_those_that_the_target_was_set_with() -> None:
    """As they are drawn now, whatever lies in the cache: what is there already was drawn by older packages."""
    for half, count in embedded.IMAGES.items():
        written = embedded.annotation_file([embedded.describe(each) for each in scenes(half, count)])
        assert hashlib.sha256(written).hexdigest() == embedded.ANNOTATIONS_SHA256[half]


@pytest.mark.usefixtures("small")
def test_several_processes_make_what_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = embedded.ensure(tmp_path / "one", ignore)
    monkeypatch.setattr(embedded, "MOST_PROCESSES", 2)
    monkeypatch.setattr(embedded.os, "sched_getaffinity", lambda _: {0, 1})
    two = embedded.ensure(tmp_path / "two", ignore)
    manifest = json.loads((one / embedded.MANIFEST).read_text())
    assert manifest == json.loads((two / embedded.MANIFEST).read_text()) and len(manifest["pictures"]["train2017"]) == 6


@pytest.mark.usefixtures("small")
def test_damage_is_found_and_repaired(tmp_path: Path, makes: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    folder = embedded.ensure(tmp_path, lambda *each: told.append(each))
    assert told == [(0, 8), (2, 8), (4, 8), (6, 8), (8, 8)]
    embedded.ensure(tmp_path, ignore)
    assert len(makes) == 1, "a whole folder is left as it is"

    picture = next((folder / "train2017").iterdir())
    labels = folder / "annotations" / "instances_val2017.json"
    manifest = folder / embedded.MANIFEST
    damages: list[tuple[Path, Callable[[], object]]] = [
        (picture, lambda: picture.write_bytes(picture.read_bytes()[:-100])),
        (picture, lambda: picture.write_bytes(picture.read_bytes()[:-100] + bytes(100))),
        (labels, lambda: labels.write_bytes(labels.read_bytes().replace(b'"bbox":[1', b'"bbox":[2', 1))),
        (manifest, lambda: manifest.write_text("{")),
        (manifest, manifest.unlink),
        (picture, picture.unlink),
    ]
    for file, damage in damages:
        kept = file.read_bytes()
        damage()
        assert not embedded.is_whole(folder)
        file.write_bytes(kept)
        assert embedded.is_whole(folder)

    picture.unlink()
    embedded.ensure(tmp_path, ignore)
    assert embedded.is_whole(folder) and picture.is_file() and len(makes) == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("what", ["generator", "seed"])
def test_pictures_of_another_generator_or_seed_are_made_again(what: str, tmp_path: Path, makes: list[Path]) -> None:
    folder = embedded.ensure(tmp_path, ignore)
    manifest = json.loads((folder / embedded.MANIFEST).read_text())
    manifest[what] = "another"
    (folder / embedded.MANIFEST).write_text(json.dumps(manifest))
    assert not embedded.is_whole(folder)
    assert embedded.is_whole(embedded.ensure(tmp_path, ignore)) and len(makes) == 2


@pytest.mark.usefixtures("small")
def test_pictures_of_another_version_stay_while_a_run_may_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images on one cache each took the other's for damaged, and away."""

    def as_version(letter: str) -> Path:
        with monkeypatch.context() as patched:
            patched.setattr(embedded, "_generator", lambda: letter * 64)
            folder = embedded.ensure(tmp_path, ignore)
            assert embedded.is_whole(folder)
            return folder

    def unused(*folders: Path) -> None:
        for each in folders:
            os.utime(each / embedded.MANIFEST, (0, 0))

    foreign = tmp_path / "embedded_systems" / embedded.MANIFEST  # the user's own
    foreign.parent.mkdir()
    foreign.touch()
    unused(foreign.parent)
    first, second = as_version("a"), as_version("b")
    assert (first.name, second.name) == ("embedded", f"embedded-{'b' * 12}")
    assert (as_version("a"), as_version("b")) == (first, second)
    unused(first, second)
    assert as_version("b") == second, "it stays where it is"
    assert time.time() - (second / embedded.MANIFEST).stat().st_mtime < own_folder.UNUSED_S / 2, "used"
    assert as_version("c") == first, "no run has begun with what was there"
    third = as_version("d")
    assert third.exists() and second.exists()
    unused(second)
    shutil.rmtree(third)
    assert as_version("d") == third and not second.exists() and first.exists()
    assert foreign.exists() and {each.name for each in tmp_path.iterdir()} == {
        *("embedded", third.name, "embedded_systems", ".embedded.lock"),
    }


@pytest.mark.usefixtures("small")
def test_a_link_in_the_folder_s_place_is_not_taken_for_it(tmp_path: Path, makes: list[Path]) -> None:
    elsewhere = embedded.ensure(tmp_path / "a", ignore)
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / elsewhere.name).symlink_to(elsewhere)
    found = embedded.ensure(tmp_path / "b", ignore)
    assert not found.is_symlink() and embedded.is_whole(found) and embedded.is_whole(elsewhere) and len(makes) == 2


@pytest.mark.usefixtures("small")
def test_an_interrupted_making_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    killed = tmp_path / ".embedded-killed" / "new" / "train2017"  # what SIGKILL leaves
    killed.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        embedded.ensure(tmp_path, interrupt)
    assert [path.name for path in tmp_path.iterdir()] == [".embedded.lock"]


@pytest.mark.usefixtures("small")
def test_of_two_at_once_one_makes_it(tmp_path: Path, makes: list[Path]) -> None:
    both = [threading.Thread(target=embedded.ensure, args=(tmp_path, ignore)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert embedded.is_whole(tmp_path / "embedded") and len(makes) == 1


@pytest.mark.usefixtures("small")
def test_other_scenes_than_expected_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded.ANNOTATIONS_SHA256, "val2017", "0" * 64)
    with pytest.raises(
        RuntimeError, match=r"annotations of val2017 have SHA-256 .* install the versions in requirements"
    ):
        embedded.ensure(tmp_path, ignore)
    assert not [*tmp_path.glob("embedded*")]
