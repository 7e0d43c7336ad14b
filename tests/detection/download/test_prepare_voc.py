"""Preparing a small Pascal VOC as the whole one is prepared: tar archives from a server that breaks off, XML, repair."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.data_set.voc_annotations import Part
from benchmarks.detection.download import fetching, tar_archive
from benchmarks.detection.download.fetching import FetchError, RemoteFile
from benchmarks.detection.download.full_voc import VOC, VOC_0712, Half, Source
from benchmarks.detection.download.prepare import prepare
from benchmarks.ssd.model import BACKBONE_SHA256
from tests.detection.data_set.test_voc_annotations import an_object, xml
from tests.detection.download.http_server import SOON_S, FileServer
from tests.detection.download.test_prepare import User
from tests.patience import PATIENCE_S

PARTS = {
    "trainval7.tar": Part(2007, "trainval"),
    "trainval12.tar": Part(2012, "trainval"),
    "test7.tar": Part(2007, "test"),
}
NAMES = {"trainval7.tar": ["000005", "000007"], "trainval12.tar": ["2008_000002"], "test7.tar": ["000001", "000002"]}
WEIGHTS = "weights.pth"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(fetching, "TIMEOUT_S", PATIENCE_S)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        folders = sorted({parent.as_posix() for name in files for parent in Path(name).parents} - {"."})
        for name in folders if ".." not in "".join(files) else ():  # as tar writes them, with files behind
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def files_of(archive: str) -> dict[str, bytes]:
    part, found = PARTS[archive], {}
    for name in NAMES[archive]:
        picture = io.BytesIO()
        Image.new("RGB", (60, 40), (200, 10, len(found))).save(picture, format="jpeg")
        found[f"VOCdevkit/{part.picture(name)}"] = picture.getvalue()
        boxes = an_object("dog", (1, 1, 20, 20)), an_object("car", (5, 5, 60, 40), "<difficult>1</difficult>")
        size = "<size><width>60</width><height>40</height></size>"
        found[f"VOCdevkit/{part.annotation(name)}"] = xml(*boxes, size=size)
    found[f"VOCdevkit/{part.list}"] = "".join(f"{name}\n" for name in NAMES[archive]).encode()
    return found | beside(part, NAMES[archive])


def beside(part: Part, listed: list[str]) -> dict[str, bytes]:
    """What the published archives hold besides: lists of one category with a sign behind each name, lists of other tasks,
    segmentations, and images of other tasks alone, whose XML files name what is no category of detection's."""
    folder, other = f"VOCdevkit/{part.folder}", f"{part.year}_009999"
    signs = "".join(f"{name} {sign}\n" for name, sign in zip(listed, (" 1", "-1"), strict=False)).encode()
    return {
        f"{folder}/SegmentationClass/{listed[0]}.png": b"not wanted",
        f"{folder}/SegmentationObject/{listed[0]}.png": b"not wanted",
        f"{folder}/ImageSets/Main/aeroplane_{part.images}.txt": signs,
        f"{folder}/ImageSets/Segmentation/{part.images}.txt": b"2007_000032\n",
        f"{folder}/ImageSets/Layout/{part.images}.txt": b"2007_000027 1\n",
        f"{folder}/ImageSets/Action/walking_{part.images}.txt": b"2010_000001  1 -1\n",
        f"{folder}/Annotations/{other}.xml": xml(an_object("head")),
        f"{folder}/JPEGImages/{other}.jpg": b"of another task",
    }


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return {**{name: tar(files_of(name)) for name in PARTS}, WEIGHTS: os.urandom(30_000)}


@pytest.fixture
def server(published: dict[str, bytes]) -> Iterator[FileServer]:
    with FileServer(published) as running:
        yield running


def data_set(server: FileServer) -> VOC:
    def remote(name: str) -> RemoteFile:
        content = server.files[name]
        digest = hashlib.sha256(content).hexdigest()
        if name == WEIGHTS:
            return RemoteFile(name, server.url(name), len(content), digest)
        folder = f"VOCdevkit/{PARTS[name].folder}"
        members = tuple(f"{folder}/{each}/" for each in ("Annotations", "ImageSets/Main", "JPEGImages"))
        return RemoteFile(name, server.url(name), len(content), digest, members, len(content))

    sources = {name: Source(part, len(NAMES[name]), remote(name)) for name, part in PARTS.items()}
    return VOC(
        "small VOC",
        (
            Half("annotations/voc0712_trainval.json", (sources["trainval7.tar"], sources["trainval12.tar"])),
            Half("annotations/voc2007_test.json", (sources["test7.tar"],)),
        ),
        remote(WEIGHTS),
    )


def run(server: FileServer, folder: Path, user: User, **changes: Any) -> list[str]:
    return prepare(
        folder,
        data_set(server),
        verify_only=changes.get("verify_only", False),
        confirm=user.confirm,
        say=user.said.append,
        progress=user.progress,
    )


def test_from_nothing_in_spite_of_a_server_that_breaks_off(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", SOON_S)
    server.faults[:] = ["break", 503, "break", "no range, break", "stall"]
    user = User()
    assert run(server, tmp_path, user) == []
    assert "small VOC is complete" in "\n".join(user.said)
    train = annotation_file.read(tmp_path / "annotations/voc0712_trainval.json")
    assert list(train.file_names) == [
        "VOC2007/JPEGImages/000005.jpg",
        "VOC2007/JPEGImages/000007.jpg",
        "VOC2012/JPEGImages/2008_000002.jpg",
    ]
    assert train.difficult.tolist() == [False, True] * 3
    test = annotation_file.read(tmp_path / "annotations/voc2007_test.json")
    assert len(test.image_ids) == 2
    assert all((tmp_path / "VOCdevkit" / name).is_file() for name in (*train.file_names, *test.file_names))
    assert not list(tmp_path.rglob("SegmentationClass")) and not list(tmp_path.rglob("*.part"))
    requests, again = len(server.ranges), User()
    assert run(server, tmp_path, again) == []
    assert (again.asked, len(server.ranges)) == ([], requests), "a complete folder is only looked at"


@pytest.mark.parametrize("backend", ["dali", "torch"])
def test_what_is_prepared_trains_and_is_evaluated(server: FileServer, tmp_path: Path, backend: str) -> None:
    """Through the check of a data set and both data paths, difficult objects still apart."""
    from benchmarks.detection.data_set import checked
    from benchmarks.ssd.session import SSDSession
    from harness import config, config_files
    from harness.contract import Context
    from tests.ssd import small

    assert run(server, tmp_path / "voc", User()) == []
    full: Any = config.load(config_files.find("vgg_voc300")).tables
    files = {name: getattr(full.data, name) for name in ("train_annotations", "train_images", "eval_annotations")}
    content = small.content(
        model={"categories": 20, "backbone": "vgg16", "width_divisor": 8, "extras": [[16, 16, 2, 1]]},
        data={**files, "eval_images": full.data.eval_images, "train_samples": 3, "eval_samples": 2, "backend": backend},
        optimizer={"batch_size": 3},
        augmentation={"expand_probability": 0.5},
        evaluation={"metric": "voc2007"},
    )
    tables: Any = config.parse(content, name="small", source="small").tables
    folder = checked.ensure(
        tables, tmp_path / "voc", tmp_path / "cache", lambda *_: None, prepared_by=None, dali=backend == "dali"
    )
    session = SSDSession(tables, Context(device="cpu", data_dir=folder, log_every_steps=1))
    assert session.load_data().train_samples == 3
    assert session.evaluation.ground_truth.annotations.difficult.tolist() == [False, True] * 2
    assert len(list(session.train_epoch(1))) == 1
    assert 0 <= session.evaluate(1) <= 1


def test_what_is_damaged_is_told_and_repaired(server: FileServer, tmp_path: Path) -> None:
    assert run(server, tmp_path, User()) == []
    kit = tmp_path / "VOCdevkit"
    whole = (kit / "VOC2007/Annotations/000005.xml").read_bytes()
    (kit / "VOC2007/Annotations/000005.xml").write_bytes(whole.replace(b"<name>dog", b"<name>cow "))
    (kit / "VOC2007/Annotations/000007.xml").write_bytes(whole[:40])
    picture = kit / "VOC2012/JPEGImages/2008_000002.jpg"
    picture.write_bytes(b"<html>".ljust(picture.stat().st_size))  # of the right size
    (kit / "VOC2007/JPEGImages/000001.jpg").unlink()
    problems = run(server, tmp_path, User(), verify_only=True)
    told = "\n".join(problems)
    assert len(problems) == 3, told
    assert "Annotations: 1 of 2 files wrong (000007.xml: cut off or damaged, not XML" in told
    assert "1 images damaged (2008_000002.jpg an HTML page, not a picture)" in told
    assert "1 of 2 images missing (000001.jpg)" in told
    assert all(f"prepare --data-dir {tmp_path} --dataset voc` gets " in each for each in problems)
    assert run(server, tmp_path, User()) == []
    assert (kit / "VOC2007/Annotations/000007.xml").read_bytes() == whole


def test_an_annotation_file_that_is_not_the_xml_files_is_made_again(server: FileServer, tmp_path: Path) -> None:
    assert run(server, tmp_path, User()) == []
    path = tmp_path / "annotations/voc2007_test.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"difficult":1', b'"difficult":0'))
    (problem,) = run(server, tmp_path, User(), verify_only=True)
    assert "voc2007_test.json: is not what the XML files say" in problem and "makes it" in problem
    requests, user = len(server.ranges), User()
    assert run(server, tmp_path, user) == []
    assert (path.read_bytes(), user.asked, len(server.ranges)) == (content, [], requests)


def test_asked_not_to_it_downloads_nothing(server: FileServer, tmp_path: Path) -> None:
    problems = run(server, tmp_path / "data", User(yes=False))
    assert (server.ranges, (tmp_path / "data").exists()) == ([], False)
    assert len(problems) == 4, "three archives and the weights"


def test_another_data_set_of_voc_s_form_is_left_alone(server: FileServer, tmp_path: Path) -> None:
    kit = tmp_path / "VOCdevkit"
    for path, content in files_of("trainval7.tar").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (kit / "VOC2007/ImageSets/Main/trainval.txt").write_text("000005\n")
    user = User(yes=False)
    problems = run(server, tmp_path, user)
    assert "1 images listed, expected 2; this is another data set" in problems[0]
    assert len(user.asked) == 1 and f"({WEIGHTS})" in user.asked[0], "the weights alone"
    assert server.ranges == [] and not (tmp_path / "annotations").exists()


def test_files_that_no_list_of_voc_s_names_are_left_alone(server: FileServer, tmp_path: Path) -> None:
    """A kit of one's own with lists by other names: two years of VOC were to be unpacked into it."""
    assert run(server, tmp_path, User()) == []
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    lists = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main"
    (lists / "trainval.txt").rename(lists / "mine.txt")
    (problem,) = run(server, tmp_path, User(yes=False))
    assert problem.endswith("gets trainval7.tar (0.00 GB)"), "the list of the other half tells what the files are"
    (lists / "test.txt").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    requests, user = len(server.ranges), User()
    (problem,) = run(server, tmp_path, user)
    assert "VOC2007: 10 files of which no list tells that they are of small VOC" in problem
    assert f"put trainval7.tar or test7.tar into {tmp_path} and run again; this is another data set" in problem
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert (user.asked, len(server.ranges)) == ([], requests)
    (tmp_path / "test7.tar").write_bytes(server.files["test7.tar"])
    assert run(server, tmp_path, User()) == [], "as an interrupted one leaves it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar({"VOCdevkit/../../out": b"x"}), "leads out of"),
        (tar({"VOCdevkit/a": b"x" * 5000})[:2000], "damaged archive"),
        (b"<html>" * 2000, "damaged archive"),
    ],
)
def test_an_archive_that_is_none_or_leads_elsewhere(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(FetchError, match=message):
        tar_archive.unpack(tmp_path / "a.tar", tmp_path / "into", ("VOCdevkit/",), print, lambda *_: None)
    assert not (tmp_path.parent / "out").exists()


def test_names_may_begin_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"./VOCdevkit/a": b"x"}))
    assert tar_archive.unpack(tmp_path / "a.tar", tmp_path / "into", ("VOCdevkit/",), print, lambda *_: None) == 1
    assert (tmp_path / "into/VOCdevkit/a").read_bytes() == b"x"


def test_a_link_in_an_archive_is_no_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("VOCdevkit/a")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(FetchError, match="is no plain file"):
        tar_archive.unpack(tmp_path / "a.tar", tmp_path / "into", ("VOCdevkit/",), print, lambda *_: None)


def test_the_published_one_is_the_configurations() -> None:
    from harness import config, config_files

    images = [sum(source.images for source in half.sources) for half in VOC_0712.halves]
    for name in ("vgg_voc300", "vgg_voc512"):
        tables: Any = config.load(config_files.find(name)).tables
        assert [tables.data.train_samples, tables.data.eval_samples] == images == [16_551, 4_952]
        assert [tables.data.train_annotations, tables.data.eval_annotations] == [
            half.annotations for half in VOC_0712.halves
        ]
    assert VOC_0712.backbone.sha256 == BACKBONE_SHA256["vgg16"]


def test_the_command_line_offers_it(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.conftest import CHECKOUT

    def prepared(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", "prepare", "--data-dir", str(tmp_path), "--benchmark", "ssd"]
        return subprocess.run(
            [*command, "--verify-only", *words],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    voc = prepared("--dataset", "voc")
    assert voc.returncode == 1 and "VOCtest_06-Nov-2007.tar (0.45 GB)" in voc.stderr, voc.stdout + voc.stderr
    wrong = prepared("--dataset", "vok")
    assert wrong.returncode == 2 and "coco: COCO 2017" in wrong.stderr and "voc: Pascal VOC" in wrong.stderr
