"""The check of a COCO folder before a run: what it refuses, what it leaves, that it is done once; and DALI's own counts."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.detection import own_folder
from benchmarks.detection.data_path import reader_counts
from benchmarks.detection.data_set import annotation_file, checked, picture_files
from benchmarks.detection.folder import Folder
from benchmarks.detection.quality.coco import GroundTruth
from benchmarks.detection.session import DetectorSession
from benchmarks.ssd import BENCHMARK, data
from benchmarks.ssd.config import SSDConfig
from harness import config
from harness.contract import Context
from tests.ssd import small

Change = Callable[[dict[str, Any]], Any]


def tables(**changes: dict[str, Any]) -> SSDConfig:
    found = config.parse(small.content(**changes), name="small", source="small").tables
    assert isinstance(found, SSDConfig)
    return found


def ignore(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return small.folder(tmp_path / "data")


def edit(folder: Path, half: str, change: Change) -> Path:
    file = folder / "annotations" / f"instances_{half}.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file


def provide(folder: Path, settings: SSDConfig | None = None) -> Path:
    return BENCHMARK.provide_data(settings or tables(), folder, folder.parent / "cache", ignore)


# --- what it leaves --------------------------------------------------------------------------------------------------


def test_it_leaves_documents_of_ours_and_pictures_where_they_are(folder: Path) -> None:
    ours = provide(folder)
    train, evaluation = (checked.half(ours, tables().data, name) for name in checked.HALVES)
    assert train.images == folder / "train2017" and evaluation.images == folder / "val2017"
    assert train.original == folder / "annotations/instances_train2017.json"
    assert train.counts == checked.Counts(12, 12, 24, [8, 8, 8], 0, 0)
    assert evaluation.counts == checked.Counts(6, 6, 12, [4, 4, 4])
    assert train.forms == {"baseline": 12}
    assert {path.name for path in ours.iterdir()} == {"train.json", "eval.json", checked.MANIFEST}
    assert annotation_file.read(train.annotations).category_ids.tolist() == [2, 1, 3], "ranks of 3, 1, 7, in this order"


def test_what_an_older_check_left_may_be_a_data_set_itself(folder: Path) -> None:
    ours = provide(folder)
    manifest = json.loads((ours / checked.MANIFEST).read_text())
    for name in checked.HALVES:
        del manifest[name]["forms"]
    (ours / checked.MANIFEST).write_text(json.dumps(manifest))
    assert checked.half(ours, tables().data, "train").forms == {}


def test_it_is_done_once_until_the_data_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    original = picture_files.check
    monkeypatch.setattr(picture_files, "check", lambda *each: (looked.append(each[0]), original(*each))[1])
    first = provide(folder)
    assert provide(folder) == first and len(looked) == 2

    picture = folder / "val2017" / "000000000003.jpg"
    os.utime(picture, (1, 1))
    assert provide(folder) != first and len(looked) == 4
    edit(folder, "train2017", lambda document: document["annotations"][0].update(bbox=[4, 5, 21, 24]))
    third = provide(folder)
    assert third != first and len(looked) == 6

    (third / "train.json").write_bytes((third / "train.json").read_bytes()[:-1])
    assert provide(folder) == third and len(looked) == 8, "damaged, made again"
    assert first.is_dir(), "a run may be reading it"


def test_what_is_left_of_data_that_is_gone_goes_too(folder: Path, tmp_path: Path) -> None:
    first = provide(folder)
    killed = first.parent / ".making-x"
    killed.mkdir()
    folder = folder.rename(tmp_path / "moved")
    second = provide(folder)
    assert second != first and not killed.exists()
    assert first.exists(), "a run of another container, which sees other folders than this process, may be reading it"
    long_ago = time.time() - own_folder.UNUSED_S - 60
    os.utime(first / checked.MANIFEST, (long_ago, long_ago))
    provide(folder.rename(tmp_path / "moved again"))
    assert second.exists() and not first.exists()


def test_a_run_notes_that_it_uses_what_was_checked(folder: Path) -> None:
    mark = provide(folder) / checked.MANIFEST
    os.utime(mark, (0, 0))
    provide(folder)
    assert time.time() - mark.stat().st_mtime < own_folder.UNUSED_S / 2


def test_of_several_ranks_one_checks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    original = checked._check
    monkeypatch.setattr(checked, "_check", lambda *a, **b: (checks.append(1), original(*a, **b))[1])
    ranks = [threading.Thread(target=provide, args=(folder,)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert checks == [1]


def test_the_fingerprint_is_of_the_files_as_the_user_has_them(folder: Path) -> None:
    raw = Folder(tables(), Context(device="cpu", data_dir=folder)).fingerprint()
    assert Folder(tables(), Context(device="cpu", data_dir=provide(folder))).fingerprint() == raw


def test_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    def of(folder: Path) -> str:
        return checked.fingerprint([(folder / "annotations/instances_val2017.json", folder / "val2017")])

    folder, elsewhere = small.folder(tmp_path / "a"), small.folder(tmp_path / "b")
    first = of(folder)
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert of(elsewhere) == first
    (elsewhere / "val2017" / ".DS_Store").write_bytes(b"a desktop was here")
    assert of(elsewhere) == first

    image = folder / "val2017" / "000000000005.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:-1])
    cut_off = of(folder)
    image.rename(image.with_name("renamed.jpg"))
    renamed = of(folder)
    image.with_name("renamed.jpg").unlink()
    gone = of(folder)
    image.write_bytes(content)
    assert of(folder) == first
    edit(folder, "val2017", lambda document: document["categories"][2].update(name="class 8"))
    assert len({first, cut_off, renamed, gone, of(folder)}) == 5


def test_the_fingerprint_is_of_what_was_checked_and_not_of_what_became_of_it_during_the_run(folder: Path) -> None:
    ours = provide(folder)
    before = Folder(tables(), Context(device="cpu", data_dir=ours)).fingerprint()
    edit(folder, "train2017", lambda document: document["annotations"].pop())
    assert Folder(tables(), Context(device="cpu", data_dir=ours)).fingerprint() == before
    (folder / "annotations" / "instances_train2017.json").unlink()
    assert Folder(tables(), Context(device="cpu", data_dir=ours)).fingerprint() == before


def test_pictures_in_folders_that_are_links_are_looked_at_again_when_they_change(folder: Path) -> None:
    """As several cameras' folders are put together. A link that leads above itself is no way to more."""
    inside = folder / "val2017" / "camera"
    outside = folder / "elsewhere"
    outside.mkdir()
    inside.symlink_to(outside)
    (outside / "back").symlink_to(folder / "val2017")
    for file in (folder / "val2017").glob("*.jpg"):
        file.rename(outside / file.name)

    def move(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image["file_name"] = f"camera/{image['file_name']}"

    edit(folder, "val2017", move)
    first = provide(folder)
    before = Folder(tables(), Context(device="cpu", data_dir=first)).fingerprint()
    picture = outside / "000000000003.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")  # as one more byte behind the end, which harms nothing
    second = provide(folder)
    assert second != first
    assert Folder(tables(), Context(device="cpu", data_dir=second)).fingerprint() != before
    assert sum(name.endswith("000000000003.jpg") for name, _ in picture_files.files(folder / "val2017")) == 1


def test_a_label_means_the_same_in_both_halves_whatever_their_order(folder: Path) -> None:
    edit(folder, "val2017", lambda document: document["categories"].reverse())
    ours = provide(folder)
    names = {half: GroundTruth.load(ours / f"{half}.json").annotations.category_names for half in checked.HALVES}
    assert names["train"] == names["eval"] == ["class 3", "class 1", "class 7"]
    assert annotation_file.read(ours / "eval.json").categories.tolist() == [1, 2, 2, 0, 0, 1] * 2, (
        "3 is label 1, 1 is 2, 7 is 3"
    )


def test_ids_beyond_32_bits_train_and_are_evaluated(folder: Path) -> None:
    def large(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image["id"] += 2**60
        for box in document["annotations"]:
            box["image_id"] += 2**60
            box["category_id"] += 2**55
        for category in document["categories"]:
            category["id"] += 2**55

    for half in ("train2017", "val2017"):
        edit(folder, half, large)
    for backend in ("dali", "torch"):
        settings = tables(data={"backend": backend})
        session = BENCHMARK.open(settings, Context(device="cpu", seed=1, data_dir=provide(folder, settings)))
        try:
            session.load_data()
            assert len(list(session.train_epoch(1))) > 0 and 0 <= session.evaluate(1) <= 1
        finally:
            session.close()


# --- what it refuses -------------------------------------------------------------------------------------------------


def another(document: dict[str, Any]) -> None:
    document["categories"].append({"id": 9, "name": "extra"})
    document["annotations"][0]["category_id"] = 9


REFUSED: list[tuple[str, Change, str]] = [
    ("train2017", another, r"instances_train2017\.json has 4 categories, .*model\.categories = 3"),
    ("val2017", another, r"instances_val2017\.json has 4 categories"),
    ("val2017", lambda d: d["categories"][0].update(id=8), r"annotations\[3\].*category_id is 3, expected the id of a listed"),
    ("val2017", lambda d: d["categories"][0].update(name="dog"), r'category 3 is "class 3" in .*train.* and "dog" in .*val'),
    ("val2017", lambda d: [box.update(iscrowd=1) for box in d["annotations"]], "every box is a crowd"),
    ("val2017", lambda d: d.update(annotations=[]), "no image has a box"),
    ("val2017", lambda d: d["images"].pop(), r"annotations\[10\] .*image_id is 6"),
    ("train2017", lambda d: d.update(annotations=d["annotations"][2:]), r"lists 11 images with boxes, .*train_samples = 12"),
    ("train2017", lambda d: d["images"][0].update(file_name="x.jpg"), r"train2017 lacks what .*lists: x\.jpg"),
    ("val2017", lambda d: d["images"][0].update(width=48, height=64), r"val2017: 000000000001\.jpg: is 64 x 48 px, listed as"),
]  # fmt: skip


@pytest.mark.parametrize(("half", "change", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refused_before_training(half: str, change: Change, says: str, folder: Path) -> None:
    edit(folder, half, change)
    for _ in range(2):  # nothing is remembered of what was refused
        with pytest.raises(ValueError, match=says):
            provide(folder)


def test_categories_that_one_half_lacks_are_named(folder: Path) -> None:
    def other(document: dict[str, Any]) -> None:
        document["categories"][2]["id"] = 70
        for box in document["annotations"]:
            box["category_id"] = {7: 70}.get(box["category_id"], box["category_id"])

    edit(folder, "val2017", other)
    with pytest.raises(
        ValueError, match=r"instances_val2017\.json lacks category 7 \(.class 7.\) of .*train2017\.json"
    ):
        provide(folder)


def test_the_configuration_is_compared_also_with_what_was_checked_before(folder: Path) -> None:
    provide(folder)
    for changes, says in (
        ({"data": {"train_samples": 11}}, "lists 12 images with boxes, .*train_samples = 11"),
        ({"data": {"eval_samples": 7}}, "lists 6 images, .*eval_samples = 7"),
        ({"model": {"categories": 4}}, "has 3 categories"),
    ):
        with pytest.raises(ValueError, match=says):
            provide(folder, tables(**changes))


def test_a_cache_that_cannot_be_used_is_said(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"/proc/x cannot be used: .*HARNESS_CACHE_DIR"):
        BENCHMARK.provide_data(tables(), folder, Path("/proc/x"), ignore)


def test_a_disk_that_is_full_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a file's write has it: no name

    monkeypatch.setattr(annotation_file.Annotations, "write", full)
    with pytest.raises(OSError, match=re.escape(str(folder.parent / "cache"))) as refused:
        provide(folder)
    assert refused.value.errno == errno.ENOSPC


# --- DALI's own counts -----------------------------------------------------------------------------------------------


def test_a_folder_whose_name_is_not_utf_8_is_said(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    folder = small.folder(tmp_path / os.fsdecode(b"caf\xe9"))
    for backend in ("torch", "dali"):
        settings = tables(data={"backend": backend})
        session = BENCHMARK.open(settings, Context(device="cpu", seed=1, data_dir=provide(folder, settings)))
        try:
            if backend == "torch":
                assert session.load_data().eval_samples == 6
            else:
                with pytest.raises(ValueError, match=r"caf\\udce9.*DALI takes no path that is not UTF-8"):
                    session.load_data()
        finally:
            session.close()


def source(folder: Path) -> data.Source:
    file = folder / "annotations" / "instances_train2017.json"
    counts = checked.counts(*[annotation_file.read(file)] * 2)
    return data.Source(folder / "train2017", file, 64, 1, 1, "cpu", 0, 1, True, counts=counts)


@pytest.mark.parametrize("value", [False, None, 0.0, "0"])
def test_half_a_file_is_never_read_in_silence(value: object, folder: Path) -> None:
    """As if a value had been let through that stops DALI's reader."""
    from benchmarks.detection.data_path import data_dali

    src = source(folder)
    data_dali.eval_batches(src)

    def midway(document: dict[str, Any]) -> None:
        for box in document["annotations"][10:]:
            box["iscrowd"] = value

    edit(folder, "train2017", midway)
    with pytest.raises(RuntimeError, match=r"DALI's reader found .* in .*instances_train2017\.json, which holds|JSON"):
        data_dali.eval_batches(src)


def test_boxes_of_next_to_nothing_are_counted_for_the_log(folder: Path) -> None:
    """COCO itself has them: what is under 0.1 px no reader takes for a box, and of what is under a pixel nobody learns."""

    def shrink(document: dict[str, Any]) -> None:
        for box, side in zip(document["annotations"], (0.05, 0.5, 0.99, 1.0), strict=False):
            box["bbox"][2] = side

    edit(folder, "train2017", shrink)
    boxes = Folder(tables(), Context(device="cpu", data_dir=provide(folder))).boxes()
    assert boxes["train"] == {"boxes": 23, "under_a_pixel": 2, "not_counted": 1, "copies": 0}
    assert boxes["eval"] == {"boxes": 12, "under_a_pixel": 0, "not_counted": 0, "copies": 0}


def test_boxes_that_are_there_twice_are_told(folder: Path) -> None:
    """Under other ids, as where two exports were joined: the quality then has a bound that nothing in a log explains."""

    def again(document: dict[str, Any]) -> None:
        document["annotations"] += [{**box, "id": 100 + box["id"]} for box in document["annotations"][:5]]

    path = edit(folder, "val2017", again)
    found = Folder(tables(), Context(device="cpu", data_dir=provide(folder)))
    assert [found.boxes()[half]["copies"] for half in checked.HALVES] == [0, 5]  # type: ignore[index, call-overload]
    (remark,) = found.remarks()
    assert remark.startswith(f"{path}: 5 of 17 boxes are there before, in the same image and of the same category")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({}, 0),
        (
            {
                "eval_annotations": "annotations/instances_train2017.json",
                "eval_images": "train2017",
                "eval_samples": 12,
            },
            12,
        ),
        ({"eval_annotations": "annotations/instances_train2017.json", "eval_images": "same/.", "eval_samples": 12}, 12),
    ],
)
def test_pictures_to_evaluate_that_are_trained_on(folder: Path, data: dict[str, Any], found: int) -> None:
    """One annotation file for both halves was trained and evaluated on without a word; a half that overlaps is no better."""
    (folder / "same").symlink_to("train2017")
    settings = tables(data=data)
    assert (
        Folder(settings, Context(device="cpu", data_dir=provide(folder, settings))).evaluated_and_trained_on() == found
    )


def test_halves_that_share_a_picture(folder: Path) -> None:
    (folder / "train2017").rename(folder / "all")
    for file in (folder / "val2017").iterdir():
        file.rename(folder / "all" / f"val_{file.name}")
    edit(
        folder,
        "val2017",
        lambda document: [image.update(file_name=f"val_{image['file_name']}") for image in document["images"]],
    )
    settings = tables(data={"train_images": "all", "eval_images": "all"})
    assert Folder(settings, Context(device="cpu", data_dir=provide(folder, settings))).evaluated_and_trained_on() == 0
    edit(
        folder,
        "val2017",
        lambda document: document["images"][0].update(file_name=next((folder / "all").glob("0*")).name),
    )
    changed = provide(folder, settings)
    assert Folder(settings, Context(device="cpu", data_dir=changed)).evaluated_and_trained_on() == 1


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_halves_that_are_made_of_links_to_the_same_pictures(link: Callable[[Path, Path], None], folder: Path) -> None:
    """Each half a folder of links into one store, which copies nothing: what was evaluated was trained on, without a word."""
    for half in ("train2017", "val2017"):
        for file in (folder / half).iterdir():
            file.unlink()
    small.folder(folder / "store")
    for half, names in (("train2017", range(1, 13)), ("val2017", range(1, 7))):
        for number in names:
            name = f"{number:012}.jpg"
            kept = folder / "store" / ("val2017" if half == "val2017" and number > 2 else "train2017") / name
            link(folder / half / name, kept)
    assert Folder(tables(), Context(device="cpu", data_dir=provide(folder))).evaluated_and_trained_on() == 2


def test_a_picture_that_is_linked_to_be_trained_on_twice_is_evaluated_once(folder: Path) -> None:
    (folder / "train2017" / "000000000002.jpg").unlink()
    (folder / "train2017" / "000000000002.jpg").symlink_to("000000000001.jpg")
    (folder / "val2017" / "000000000001.jpg").unlink()
    (folder / "val2017" / "000000000001.jpg").symlink_to("../train2017/000000000001.jpg")
    assert Folder(tables(), Context(device="cpu", data_dir=provide(folder))).evaluated_and_trained_on() == 1


def narrow(folder: Path, half: str, number: int, width: int) -> None:
    """The picture's width, and its boxes on it."""

    def change(document: dict[str, Any]) -> None:
        image = document["images"][number - 1]
        image["width"] = width
        path = folder / half / image["file_name"]
        path.unlink()  # not written over: a reader of DALI's may have it mapped still, which a shorter file ends by SIGBUS
        Image.new("RGB", (width, image["height"])).save(path)
        for box in document["annotations"]:
            if box["image_id"] == image["id"]:
                box["bbox"] = [0, 0, width, image["height"]]

    edit(folder, half, change)


def test_a_picture_of_which_a_window_may_be_without_a_pixel_is_not_trained_on(folder: Path) -> None:
    """DALI ended the run at it sooner or later, and Pillow, which decodes it, found no picture to blame."""
    narrow(folder, "val2017", 1, 1)
    for number in range(1, 9):
        narrow(folder, "train2017", number, 4)
    ours = provide(folder)
    session = BENCHMARK.open(tables(data={"backend": "dali"}), Context(device="cpu", seed=1, data_dir=ours))
    try:
        batches = session.train_batches()
        assert sum(1 for _ in range(5) for _ in batches) == 5 * 3
    finally:
        session.close()
    narrow(folder, "train2017", 5, 3)
    with pytest.raises(ValueError, match=r'train2017\.json: "000000000005\.jpg" is 3 x 48 px: .*4 px at least'):
        provide(folder)
    assert provide(folder, tables(augmentation={"crop_scale": [0.5, 1.0]})).is_dir()
    assert provide(folder, tables(data={"backend": "torch"})).is_dir(), "which takes a pixel at least"


def test_a_picture_that_dali_reads_to_other_pixels_is_refused_where_the_data_path_is_dali_s(folder: Path) -> None:
    """It is named by the check, and by every later one of the same data."""
    picture = folder / "val2017" / "000000000002.jpg"
    with Image.open(picture) as shown:
        shown.convert("RGB").save(picture, "TIFF", compression="lzma")
    ours = provide(folder, tables(data={"backend": "torch"}))
    for backend in ("dali", "auto"):
        with pytest.raises(ValueError, match=r'val2017: 000000000002\.jpg: a TIFF file .*\(lzma\).*backend = "torch"'):
            provide(folder, tables(data={"backend": backend}))
    assert provide(folder, tables(data={"backend": "torch"})) == ours


def test_training_does_not_go_on_with_other_boxes(folder: Path) -> None:
    """The log of what goes on says which data it was: of these alone, whatever the epochs before were trained on."""
    settings = tables(data={"backend": "torch"})

    def opened() -> DetectorSession:
        session = BENCHMARK.open(settings, Context(device="cpu", seed=1, data_dir=provide(folder, settings)))
        session.load_data()
        return session

    first = opened()
    state = first.state()
    first.restore(state)
    (folder / "train2017" / "Thumbs.db").write_bytes(b"no picture that is listed")
    opened().restore(state)
    edit(folder, "train2017", lambda document: document["annotations"].reverse())
    opened().restore(state)
    edit(folder, "train2017", lambda document: document["annotations"][3].update(bbox=[4, 5, 21, 24]))
    with pytest.raises(ValueError, match="the checkpoint is of other annotations than the data"):
        opened().restore(state)


def test_which_pictures_are_evaluated_is_not_what_another_configuration_says(folder: Path) -> None:
    """A picture with boxes to train on is listed to be evaluated without any. The first to be checked decided for both."""

    def without_boxes(document: dict[str, Any]) -> None:
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] != 2]
        for image in document["images"]:
            image["file_name"] = f"{'train' if image['id'] == 2 else 'val'}2017/{image['file_name']}"

    def below(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image["file_name"] = f"train2017/{image['file_name']}"

    edit(folder, "val2017", without_boxes)
    edit(folder, "train2017", below)
    for with_empty in (True, False):
        settings = tables(
            data={
                "train_images": ".",
                "eval_images": ".",
                "eval_images_without_boxes": with_empty,
                "eval_samples": 5 + with_empty,
            }
        )
        ours = provide(folder, settings)
        found = Folder(settings, Context(device="cpu", data_dir=ours)).evaluated_and_trained_on()
        assert found == with_empty


def test_a_cache_that_is_emptied_during_the_run_takes_nothing_from_it(folder: Path) -> None:
    """Categories went into the checkpoint as 1, 2, 3, whatever the user calls them."""
    settings = tables(data={"backend": "torch"})
    ours = provide(folder, settings)
    session = BENCHMARK.open(settings, Context(device="cpu", seed=1, data_dir=ours))
    try:
        session.load_data()
        shutil.rmtree(ours)
        assert [each["id"] for each in session.state()["categories"]] == [3, 1, 7]
        session.evaluate(1)
        assert len(session.fingerprint()) == 64 and len(session.panels(2)) == 2
    finally:
        session.close()


def test_counts_in_a_form_that_is_not_known_are_no_counts(tmp_path: Path) -> None:
    counts = checked.Counts(1, 1, 2, [2])
    for name, content in (("counts.dat", [1, 2]), ("labels.dat", [2, 1, 1])):
        (tmp_path / name).write_bytes(np.array(content, dtype=np.int32).tobytes())
    reader_counts.compare(tmp_path, counts, Path("x"), with_empty=False)
    for wrong, what in (
        (checked.Counts(2, 2, 2, [2]), "1 images"),
        (checked.Counts(1, 1, 3, [3]), "2 boxes"),
        (checked.Counts(1, 1, 2, [1, 1]), "labels"),
    ):
        with pytest.raises(RuntimeError, match=re.escape(what)):
            reader_counts.compare(tmp_path, wrong, Path("x"), with_empty=False)
    (tmp_path / "labels.dat").write_bytes(b"\x01\0\0\0")
    with pytest.raises(RuntimeError, match="not known"):
        reader_counts.compare(tmp_path, counts, Path("x"), with_empty=False)


@pytest.mark.parametrize("backend", ["dali", "torch"])
def test_a_picture_that_goes_bad_after_the_check_is_named_by_either_decoder(backend: str, folder: Path) -> None:
    settings = tables(data={"backend": backend})
    session = BENCHMARK.open(settings, Context(device="cpu", seed=1, data_dir=provide(folder, settings)))
    bad = folder / "train2017" / "000000000005.jpg"
    bad.write_bytes(b"<html>gone</html>")
    try:
        session.load_data()
        with pytest.raises(RuntimeError, match=re.escape(f"{bad}: an HTML page")):
            list(session.train_epoch(1))
    finally:
        session.close()


def test_a_link_to_nowhere_matters_only_if_it_is_listed(folder: Path) -> None:
    (folder / "train2017" / "left over").symlink_to(folder / "gone")
    ours = provide(folder)
    assert len(Folder(tables(), Context(device="cpu", data_dir=ours)).fingerprint()) == 64
    picture = folder / "train2017" / "000000000002.jpg"
    picture.unlink()
    picture.symlink_to(folder / "gone")
    with pytest.raises(ValueError, match=r"000000000002\.jpg: cannot be read: No such file"):
        provide(folder)
