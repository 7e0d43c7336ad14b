"""Preparing a small data set as full COCO is prepared: from a server that breaks off, with verification and repair."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks.detection.download import fetching
from benchmarks.detection.download.fetching import RemoteFile
from benchmarks.detection.download.full_coco import COCO, COCO_2017, Split
from benchmarks.detection.download.prepare import prepare
from harness.cli import main
from tests.conftest import CHECKOUT
from tests.detection.download.http_server import SOON_S, FileServer
from tests.patience import PATIENCE_S
from tests.ssd.coco_folder import Picture, write

BACKBONE = "weights.pth"
ANNOTATIONS = "annotations_trainval2017.zip"
BOX = (5, 5, 20, 20, 1)
HALVES = {
    "train2017": [Picture(level, [BOX] if level % 4 else []) for level in range(10, 30)],
    "val2017": [Picture(level, [BOX, BOX]) for level in range(40, 50)],
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(fetching, "TIMEOUT_S", PATIENCE_S)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete data set, as it is published: archives, and the folder that they hold."""
    folder = tmp_path_factory.mktemp("published")
    for half, pictures in HALVES.items():
        write(folder, pictures, half=half)
    (folder / "annotations" / "captions_val2017.json").write_text("{}")  # in the archive, and not wanted
    # one of COCO's images is a PNG by another name
    Image.fromarray(HALVES["val2017"][0].pixels()).save(folder / "val2017" / "000000000001.jpg", format="png")
    for name, inside in ((ANNOTATIONS, "annotations"), ("train2017.zip", "train2017"), ("val2017.zip", "val2017")):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in sorted((folder / inside).iterdir()):
                archive.write(path, path.relative_to(folder))
    (folder / BACKBONE).write_bytes(os.urandom(50_000))
    return folder


@pytest.fixture
def server(original: Path) -> Iterator[FileServer]:
    with FileServer({path.name: path.read_bytes() for path in original.iterdir() if path.is_file()}) as running:
        yield running


def data_set(server: FileServer) -> COCO:
    def remote(name: str, *members: str) -> RemoteFile:
        content = server.files[name]
        digest = hashlib.sha256(content).hexdigest()
        return RemoteFile(name, server.url(name), len(content), digest, members, len(content) if members else 0)

    return COCO(
        "small COCO",
        remote(ANNOTATIONS, "annotations/instances_"),
        tuple(
            Split(half, len(HALVES[half]), sum(bool(picture.boxes) for picture in HALVES[half]), archive)
            for half, archive in ((half, remote(f"{half}.zip", f"{half}/")) for half in HALVES)
        ),
        remote(BACKBONE),
    )


@dataclass
class User:
    """Who answers `yes` or not, and what they are asked and told."""

    yes: bool = True
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.yes

    def progress(self, what: str, done: int, total: int | None) -> None:
        assert total is not None
        assert 0 <= done <= total
        self.shown.append(what)


def run(server: FileServer, folder: Path, user: User, verify_only: bool = False) -> list[str]:
    return prepare(
        folder,
        data_set(server),
        verify_only=verify_only,
        confirm=user.confirm,
        say=user.said.append,
        progress=user.progress,
    )


def assert_complete(folder: Path, original: Path) -> None:
    """All that is wanted is there, byte for byte, and no remains of downloads and archives."""
    for half in HALVES:
        assert {p.name: p.read_bytes() for p in (folder / half).iterdir()} == {
            p.name: p.read_bytes() for p in (original / half).iterdir()
        }
    assert sorted(p.name for p in (folder / "annotations").iterdir()) == [
        "instances_train2017.json",
        "instances_val2017.json",
    ]
    assert (folder / BACKBONE).read_bytes() == (original / BACKBONE).read_bytes()
    assert list(folder.rglob("*.part")) == []


@pytest.fixture
def complete(server: FileServer, tmp_path: Path) -> Path:
    """A folder made by an earlier run, without the archives."""
    folder = tmp_path / "data"
    assert run(server, folder, User()) == []
    for archive in folder.glob("*.zip"):
        archive.unlink()
    server.ranges.clear()
    return folder


def test_from_nothing(server: FileServer, original: Path, tmp_path: Path) -> None:
    user, folder = User(), tmp_path / "not" / "yet"
    assert run(server, folder, user) == []
    assert_complete(folder, original)
    (question,) = user.asked
    assert all(name in question for name in (ANNOTATIONS, "train2017.zip", "val2017.zip", BACKBONE, str(folder)))
    assert f"small COCO is complete; --initial-weights {folder / BACKBONE}" in "\n".join(user.said)
    assert {"downloading train2017.zip", "unpacking train2017.zip", "checking train2017"} <= set(user.shown)

    again = User()
    requests = len(server.ranges)
    assert run(server, folder, again) == []
    assert (again.asked, len(server.ranges)) == ([], requests), "a complete folder is only looked at"


def test_a_second_one_at_once_waits_its_turn(server: FileServer, original: Path, tmp_path: Path) -> None:
    """Two nodes that begin with the same line: both added to one file, and were told of a proxy's page."""
    second: list[list[str]] = []

    class First(User):
        def progress(self, what: str, done: int, total: int | None) -> None:
            if what.startswith("downloading") and not second:
                second.append([])
                second[0] += run(server, tmp_path, User())

    assert run(server, tmp_path, First()) == []
    assert "another `prepare` is at work in it; wait for its end" in second[0][0]
    assert_complete(tmp_path, original)
    assert run(server, tmp_path, User()) == []


def test_asks_before_it_downloads(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    problems = run(server, folder, User(yes=False))
    assert server.ranges == []
    assert not folder.exists()
    assert len(problems) == 5, problems  # two annotation files, two folders of images, the backbone
    assert all(f"prepare --data-dir {folder}` gets " in problem for problem in problems)


def test_without_a_terminal_the_question_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was told as a download that had failed, "what was downloaded is kept, run again to go on", and ended with 1."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 50))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["prepare", "--benchmark", "ssd", "--data-dir", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: Download ") and errors.endswith("say --yes, or --verify-only to look only\n")
    assert list(tmp_path.iterdir()) == []


def test_verify_only_neither_asks_nor_downloads(server: FileServer, tmp_path: Path) -> None:
    user = User()
    assert len(run(server, tmp_path, user, verify_only=True)) == 5
    assert (user.asked, server.ranges) == ([], [])


def test_a_server_that_breaks_off_halfway(
    server: FileServer, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", SOON_S)
    server.faults[:] = ["break", "break", 503, "stall", "no range, break", "break"]
    assert run(server, tmp_path, User()) == []
    assert_complete(tmp_path, original)


def test_a_server_that_fails_is_a_problem_told_and_the_next_run_goes_on(
    server: FileServer, original: Path, tmp_path: Path
) -> None:
    server.faults[:] = ["break", *[503] * 6]
    (problem,) = run(server, tmp_path, User())
    assert "given up after 6 attempts" in problem
    assert "run again" in problem
    (part,) = tmp_path.glob("*.part")
    kept = part.stat().st_size
    assert kept > 0
    server.ranges.clear()
    assert run(server, tmp_path, User()) == []
    assert server.ranges[0] == f"bytes={kept}-"
    assert_complete(tmp_path, original)


def test_archives_put_there_by_hand_are_used(server: FileServer, original: Path, tmp_path: Path) -> None:
    for name in (ANNOTATIONS, "train2017.zip", "val2017.zip", BACKBONE):
        shutil.copy(original / name, tmp_path / name)
    user = User(yes=False)
    assert run(server, tmp_path, user) == []
    assert (user.asked, server.ranges) == ([], [])
    assert_complete(tmp_path, original)
    assert (tmp_path / "train2017.zip").exists(), "what a user put there, a user removes"
    assert "no longer needed" in user.said[-1]


@pytest.mark.parametrize("change", ["longer", "shorter", "other"])
def test_an_archive_put_there_by_hand_is_never_lost(
    change: str, server: FileServer, original: Path, tmp_path: Path
) -> None:
    """Packed by somebody else, say: it was taken for a beginning, or for a damaged one, and deleted."""
    mine = tmp_path / "train2017.zip"
    content = (original / mine.name).read_bytes()
    given = {"longer": content + b"0", "shorter": content[:-1], "other": content[:-1] + b"0"}[change]
    mine.write_bytes(given)
    (problem,) = run(server, tmp_path, User())
    assert f"{mine}: not the published file" in problem and mine.read_bytes() == given
    assert problem.endswith("else take it away; then run again"), "it is refused as long as it is there"
    mine.rename(tmp_path / "train2017.zip.part")
    assert run(server, tmp_path, User()) == []
    assert_complete(tmp_path, original)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_annotations_that_may_be_somebody_s_own_are_kept(encoding: str, server: FileServer, tmp_path: Path) -> None:
    """Both saved by a program that does not write UTF-8: they were taken for damaged ones and written over."""
    text = '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "café"}]}'
    (tmp_path / "annotations").mkdir()
    for half in HALVES:
        (tmp_path / "annotations" / f"instances_{half}.json").write_bytes(text.encode(encoding))
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "mine.gif").write_bytes(b"GIF89a, which is no picture that is read here")
    user = User()
    run(server, tmp_path, user)
    kept = [path.read_bytes() for path in (tmp_path / "annotations").iterdir()]
    assert kept.count(text.encode(encoding)) == 2 and (tmp_path / "train2017" / "mine.gif").exists()
    assert "instances_val2017.json: kept as instances_val2017.json.before_0" in "\n".join(user.said)


def damage(folder: Path) -> dict[str, str]:
    """Break a complete folder in every way; returns what must be told of each."""
    val, train = folder / "val2017", folder / "train2017"
    (val / "000000000002.jpg").write_bytes((val / "000000000002.jpg").read_bytes()[:-300])
    (val / "000000000003.jpg").write_bytes(b"")
    size = (val / "000000000004.jpg").stat().st_size
    (val / "000000000004.jpg").write_bytes(b"<html>".ljust(size))  # the right size
    (train / "000000000007.jpg").unlink()
    (train / "000000000008.jpg").unlink()
    (train / "notes.txt").write_text("mine")
    weights = (folder / BACKBONE).read_bytes()
    (folder / BACKBONE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    return {
        "val2017: 3 images damaged": "2.jpg cut off; 3.jpg empty; 4.jpg an HTML page",
        "train2017: 2 of 20 images missing": "000000000007.jpg, 000000000008.jpg",
        BACKBONE: "SHA-256",
    }


def test_verify_counts_what_is_missing_and_damaged(server: FileServer, complete: Path) -> None:
    expected = damage(complete)
    user = User()
    problems = run(server, complete, user, verify_only=True)
    assert len(problems) == len(expected)
    for begin, detail in expected.items():
        (problem,) = (p for p in problems if begin in p)
        assert all(each in problem for each in detail.split("; "))
    assert "1 files not in the annotations, never read (notes.txt)" in "\n".join(user.said)


def test_repairs_what_is_damaged_and_touches_nothing_else(server: FileServer, complete: Path, original: Path) -> None:
    damage(complete)
    untouched = complete / "train2017" / "000000000001.jpg"
    before = untouched.stat().st_mtime_ns
    assert run(server, complete, User()) == []
    assert len(server.ranges) == 3, "not the annotations"
    assert untouched.stat().st_mtime_ns == before
    (complete / "train2017" / "notes.txt").unlink()
    assert_complete(complete, original)


@pytest.mark.parametrize("content", [b'{"images": [{"id": 1,', b"\xff\xfe"], ids=["cut off", "not text"])
def test_annotations_cut_off(content: bytes, server: FileServer, complete: Path, original: Path) -> None:
    (complete / "annotations" / "instances_val2017.json").write_bytes(content)
    (problem,) = run(server, complete, User(), verify_only=True)
    assert "instances_val2017.json: cut off or damaged, not JSON" in problem
    assert run(server, complete, User()) == []
    kept = complete / "annotations" / "instances_val2017.json.before_0"
    assert kept.read_bytes() == content
    kept.unlink()
    assert_complete(complete, original)


def test_pictures_in_folders_of_their_own_are_found(server: FileServer, complete: Path) -> None:
    """As a file of one's own may list them; a run read them, and they were called missing."""
    val, path = complete / "val2017", complete / "annotations" / "instances_val2017.json"
    (val / "sub").mkdir()
    content = path.read_text()
    for number, name in ((1, "sub/000000000001.jpg"), (2, "./000000000002.jpg"), (3, "sub/000000000003.jpg")):
        content = content.replace(f'"00000000000{number}.jpg"', f'"{name}"')
    path.write_text(content)
    (val / "000000000001.jpg").rename(val / "sub" / "000000000001.jpg")
    user = User()
    (problem,) = run(server, complete, user, verify_only=True)
    assert "val2017: 1 of 10 images missing (sub/000000000003.jpg)" in problem
    assert "1 files not in the annotations, never read (000000000003.jpg)" in "\n".join(user.said)


def test_without_annotations_what_is_damaged_is_named_and_kept(server: FileServer, complete: Path) -> None:
    """Pictures may be another data set's. They were looked at no more."""
    damage(complete)
    (complete / "annotations" / "instances_val2017.json").unlink()
    (complete / "val2017" / "notes.txt").write_text("mine")
    found = data_set(server).verify(complete, print, User().progress)
    (problem,) = (each for each in found if "images damaged" in each.what)
    assert "val2017: 3 images damaged (000000000002.jpg cut off" in problem.what
    assert problem.remedy is not None and problem.damaged == ()


def test_pictures_that_no_list_names_are_another_data_set_s(server: FileServer, original: Path, tmp_path: Path) -> None:
    """Annotation files by other names beside pictures in train2017: it was taken for empty, and its pictures replaced."""
    write(tmp_path, [Picture(level, [BOX]) for level in (200, 201, 202)])
    (tmp_path / "annotations" / "instances_train2017.json").rename(tmp_path / "annotations" / "mine.json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = run(server, tmp_path, no := User(yes=False))
    (problem,) = (text for text in told if "train2017: " in text)
    assert "train2017: 3 pictures of which no list tells that they are of small COCO (000000000001.jpg, " in problem
    assert f"if they are, put train2017.zip into {tmp_path} and run again; this is another data set" in problem
    assert [BACKBONE in question and "zip" not in question for question in no.asked] == [True]
    assert [text for text in run(server, tmp_path, User()) if "` gets " in text] == []
    assert {path: path.read_bytes() for path in before} == before and not (tmp_path / "val2017").exists()

    shutil.copy(original / "train2017.zip", tmp_path)
    user = User()
    assert run(server, tmp_path, user) == [], "its owner says that they are to be completed"
    assert "train2017.zip: what had a name of its files in another size is kept: " in "\n".join(user.said)
    for name in ("000000000001.jpg", "000000000002.jpg", "000000000003.jpg"):
        mine = tmp_path / "train2017" / name
        assert before[mine] in (mine.read_bytes(), mine.with_name(f"{name}.before_0").read_bytes())


def test_an_unpacking_that_was_interrupted_goes_on(server: FileServer, original: Path, tmp_path: Path) -> None:
    class Interrupting(User):
        def progress(self, what: str, done: int, total: int | None) -> None:
            if what == "unpacking train2017.zip" and done == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, Interrupting())
    for listed in (tmp_path / "annotations").iterdir():
        listed.unlink()
    assert len(list((tmp_path / "train2017").iterdir())) == 7
    assert run(server, tmp_path, User()) == []
    assert_complete(tmp_path, original)


def test_all_pictures_unpacked_by_hand_need_no_archive(server: FileServer, original: Path, tmp_path: Path) -> None:
    for half in HALVES:
        shutil.copytree(original / half, tmp_path / half)
    assert run(server, tmp_path, User()) == []
    assert not list(tmp_path.glob("*2017.zip"))[1:] and (tmp_path / ANNOTATIONS).exists()


def another(folder: Path) -> None:
    """Make the folder's half for validation another data set's, which lacks a picture."""
    write(folder / "other", [*HALVES["val2017"][:4], Picture(1, [])], half="val2017")
    shutil.copytree(folder / "other", folder, dirs_exist_ok=True)
    (folder / "val2017" / "000000000003.jpg").unlink()


def test_another_data_set_is_left_alone(server: FileServer, complete: Path) -> None:
    """A folder of other counts, though it is also incomplete, is no copy to be completed."""
    another(complete)
    (complete / "train2017" / "000000000007.jpg").unlink()
    (complete / BACKBONE).write_bytes(b"mine")
    user = User()
    problems = run(server, complete, user)
    assert (user.asked, server.ranges) == ([], [])
    assert any("instances_val2017.json: 5 images listed, expected 10" in problem for problem in problems)
    assert any("4 images with boxes, expected 10" in problem for problem in problems)
    assert len([problem for problem in problems if "val2017" in problem]) == 3
    assert len(problems) == 5
    assert all("needs no preparing" in problem for problem in problems), "no download is offered over another's files"


def test_beside_another_data_set_the_weights_are_got(server: FileServer, complete: Path, original: Path) -> None:
    """They were promised by the text, `prepare ... gets weights.pth`, and never got: the command was the one just run."""
    another(complete)
    (complete / BACKBONE).unlink()
    before = {path: path.stat().st_mtime_ns for path in complete.rglob("*") if path.is_file()}
    told = run(server, complete, no := User(yes=False))
    assert (no.asked, server.ranges) == ([f"Download 0.00 GB to {complete} ({BACKBONE})?"], [])
    assert [text for text in told if "` gets " in text] == [text for text in told if BACKBONE in text] != []
    user = User()
    problems = run(server, complete, user)
    assert len(problems) == 3 and all("needs no preparing" in problem for problem in problems)
    assert (complete / BACKBONE).read_bytes() == (original / BACKBONE).read_bytes()
    assert f"{BACKBONE} is there; --initial-weights {complete / BACKBONE}" in user.said
    assert before == {path: path.stat().st_mtime_ns for path in before}, "all else is as it was"


def test_json_that_is_not_cocos(server: FileServer, complete: Path) -> None:
    (complete / "annotations" / "instances_val2017.json").write_text("[1, 2]")
    user = User()
    problems = run(server, complete, user)
    assert "not in COCO's form" in problems[0]
    assert (user.asked, server.ranges) == ([], [])


def test_no_room(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    user = User()
    (problem,) = run(server, tmp_path / "data", user)
    assert "make room" in problem
    assert (user.asked, server.ranges) == ([], [])


def test_a_file_in_the_folders_place_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    (problem,) = run(server, tmp_path / "data", User())
    assert str(tmp_path / "data") in problem


def test_ctrl_c_in_a_process_of_its_own(server: FileServer, original: Path, tmp_path: Path) -> None:
    """A real SIGINT while it waits for the network; then a second run completes the folder."""
    published = data_set(server)
    script = (
        "from pathlib import Path\n"
        "from benchmarks.detection.download.full_coco import COCO, Split\n"
        "from benchmarks.detection.download.fetching import RemoteFile\n"
        "from benchmarks.detection.download.prepare import prepare\n"
        f"prepare(Path({str(tmp_path)!r}), {published!r}, verify_only=False, confirm=lambda question: True,\n"
        "        say=print, progress=lambda what, done, total: print(what, done, flush=True))\n"
    )
    server.faults[:] = ["stall"]
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line.startswith("downloading") for line in process.stdout), "it began"
    time.sleep(0.1)  # and waits for what does not come
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    (part,) = tmp_path.glob("*.part")
    kept = part.stat().st_size
    assert kept > 0
    server.ranges.clear()
    assert run(server, tmp_path, User()) == []
    assert server.ranges[0] == f"bytes={kept}-"
    assert_complete(tmp_path, original)


# --- the real thing ----------------------------------------------------------------------------------------------------


def test_a_small_copy_of_coco_is_told_from_the_whole(test_data: Path) -> None:
    user = User(yes=False)
    problems = prepare(
        test_data / "coco256",
        COCO_2017,
        verify_only=False,
        confirm=user.confirm,
        say=user.said.append,
        progress=user.progress,
    )
    assert all(COCO_2017.backbone.name in question and "zip" not in question for question in user.asked)
    text = "\n".join(problems)
    assert "instances_train2017.json: 128 images listed, expected 118,287" in text
    assert "instances_val2017.json: 128 images listed, expected 5,000" in text
    assert "damaged" not in text
    assert "missing" not in text


def test_coco_2017_is_named_as_published() -> None:
    assert [(s.name, s.images, s.images_with_boxes) for s in COCO_2017.splits] == [
        ("train2017", 118_287, 117_266),
        ("val2017", 5_000, 4_952),
    ]
    assert COCO_2017.backbone.sha256.startswith("333f7ec4")
    for remote in (*COCO_2017.archives, COCO_2017.backbone):
        assert remote.url.startswith(("http://images.cocodataset.org/", "https://download.pytorch.org/models/"))
        assert remote.url.endswith(f"/{remote.name}")
        assert len(bytes.fromhex(remote.sha256)) == 32
    assert 20e9 < sum(remote.size for remote in (*COCO_2017.archives, COCO_2017.backbone)) < 21e9
