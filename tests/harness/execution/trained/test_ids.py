"""Which id a picture has in detect's results, and that each picture has one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.execution.trained import detecting
from tests.harness.execution.trained.models import harness, numbers, saved


def test_ids_of_an_annotation_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2])
    listed, found = tmp_path / "listed.json", tmp_path / "found.json"
    words = ("detect", kept, *pictures, "--json", found, "--annotations", listed)
    for kind in (int, float):  # as libraries of tables write whole numbers
        listed.write_text(
            json.dumps({"images": [{"id": kind(70 + at), "file_name": f"seen/{at}.jpg"} for at in (2, 1)]})
        )
        assert harness(capsys, *words)[0] == 0
        assert [each["image_id"] for each in json.loads(found.read_text())] == [71, 72]
    for content, says in (
        ({"images": [{"id": 70, "file_name": "1.jpg"}]}, "lists no picture 2.jpg"),
        ([1], "no file in COCO's form"),
        ({"images": [{"id": 70}]}, "no file in COCO's form"),
        ({"images": [{"id": 70.5, "file_name": "1.jpg"}]}, "id, a whole number"),
        ({"images": [{"id": math.inf, "file_name": "1.jpg"}]}, "id, a whole number"),
        ({"images": [{"id": at, "file_name": "1.jpg"} for at in (1, 2)]}, "lists 1.jpg twice, with two ids"),
    ):
        listed.write_text(json.dumps(content))
        code, out, errors = harness(capsys, *words)
        assert code == 2 and says in errors and not out


def in_folders(tmp_path: Path, *folders: str) -> list[Path]:
    """A "picture" 1.jpg in each."""
    (tmp_path / "seen").mkdir()
    return [numbers(tmp_path / "seen" / each, [1])[0] for each in folders]


@pytest.mark.parametrize(
    ("listed", "ids"),
    [
        ({"a/1.jpg": 11, "b/1.jpg": 22}, [11, 22]),
        ({"b/1.jpg": 22, "a/1.jpg": 11}, [11, 22]),
        ({"images/a/1.jpg": 11, "images/b/1.jpg": 22}, [11, 22]),
        ({"1.jpg": 33, "b/1.jpg": 22, "c/1.jpg": 44}, [33, 22]),
    ],
)
def test_pictures_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    listed: dict[str, int],
    ids: list[int],
) -> None:
    kept, pictures, found = saved(tmp_path / "kept"), in_folders(tmp_path, "a", "b"), tmp_path / "found.json"
    document = {"images": [{"id": number, "file_name": name} for name, number in listed.items()]}
    (tmp_path / "listed.json").write_text(json.dumps(document))
    words = ("--json", found, "--annotations", tmp_path / "listed.json")
    code, _, errors = harness(capsys, "detect", kept, *pictures, *words)
    assert (code, errors) == (0, "")
    rows = json.loads(found.read_text())
    assert [(each["image_id"], each["file_name"]) for each in rows] == [*zip(ids, map(str, pictures), strict=True)]
    monkeypatch.chdir(tmp_path / "seen" / "b")  # whose name is then not in the path
    assert harness(capsys, "detect", kept, "1.jpg", *words)[0] == 0
    assert [each["image_id"] for each in json.loads(found.read_text())] == ids[1:]


def test_a_picture_that_is_named_twice_is_looked_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids were 1, 2, 3 and not the files' numbers, and with annotations its rows stood twice."""
    kept, (one, _), found = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [139, 285]), tmp_path / "found.json"
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "139.jpg").symlink_to(one)
    (tmp_path / "all").symlink_to(tmp_path / "seen")
    (tmp_path / "listed.json").write_text(
        json.dumps({"images": [{"id": 100 + each, "file_name": f"{each}.jpg"} for each in (139, 285)]})
    )
    monkeypatch.chdir(tmp_path)
    for again in (one, "seen/139.jpg", "seen/../seen/139.jpg", "all/139.jpg", "chosen", "chosen/139.jpg"):
        for words, ids in (((), [139, 285]), (("--annotations", "listed.json"), [239, 385])):
            code, out, errors = harness(capsys, "detect", kept, "seen", again, "--json", found, *words)
            assert (code, errors) == (0, "1 picture named again: looked at once\n"), again
            rows = json.loads(found.read_text())
            assert [each["image_id"] for each in rows] == ids
            assert [each["file_name"] for each in rows] == ["139.jpg", "285.jpg"]
            assert out.count(" px: ") == 2
    code, _, errors = harness(capsys, "detect", kept, "seen", "all", "gone.jpg", "gone.jpg", "--json", found)
    assert code == 1 and errors.startswith("3 pictures named again") and errors.count("gone.jpg: cannot be read") == 1


def test_a_link_of_another_name_is_another_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So git-annex and its like keep two pictures whose content is equal; each has its id."""
    kept, (one,), found = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [139]), tmp_path / "found.json"
    (tmp_path / "seen" / "285.jpg").symlink_to(one)
    assert harness(capsys, "detect", kept, tmp_path / "seen", "--json", found)[::2] == (0, "")
    assert [each["image_id"] for each in json.loads(found.read_text())] == [139, 285]


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ({"c/1.jpg": 11, "d/1.jpg": 22}, "lists c/1.jpg and d/1.jpg, and "),
        ({"b/1.jpg": 22}, "the one of id 22: it is of one of them"),
    ],
)
def test_where_a_picture_s_id_cannot_be_told_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: dict[str, int], says: str
) -> None:
    kept, pictures, found = saved(tmp_path / "kept"), in_folders(tmp_path, "a", "b"), tmp_path / "found.json"
    document = {"images": [{"id": number, "file_name": name} for name, number in listed.items()]}
    (tmp_path / "listed.json").write_text(json.dumps(document))
    words = ("--json", found, "--annotations", tmp_path / "listed.json")
    code, out, errors = harness(capsys, "detect", kept, *pictures, *words)
    assert code == 2 and says in errors and not out and not found.exists()


def test_ids_are_the_files_numbers_where_each_has_one_of_its_own() -> None:
    def of(*stems: str) -> list[int]:
        return detecting.image_ids([Path(f"{stem}.jpg") for stem in stems])

    assert of("000000000139", "000000000285") == [139, 285]
    assert of("7", "007") == [1, 2], "two files, one number"
    assert of("7", "street") == [1, 2]
    assert of("٣", "4") == [1, 2], "a digit, but none of a file of COCO's"
