"""Where detect writes: over nothing that it reads, nor over what another wrote; that is said before a picture is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.harness.execution.trained.models import harness, numbers, saved


def test_no_picture_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, (picture,) = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    code, _, errors = harness(capsys, "detect", kept, "--json", picture, picture)
    assert code == 2 and "a file called *.json is written" in errors and picture.read_bytes() == b"toy 1"
    for _ in range(2):
        assert harness(capsys, "detect", kept, picture, "--pictures", picture.parent)[0] == 0
    assert sorted(path.name for path in picture.parent.iterdir()) == ["1.jpg", "1_boxes.jpg", "1_boxes_2.jpg"]


@pytest.mark.parametrize("way", ["itself", "link", "second name"])
def test_what_is_read_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    """A data set's annotations were gone, and the exit code 0."""
    kept, (picture,) = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    listed, out = tmp_path / "listed.json", tmp_path / "out.json"
    listed.write_text(json.dumps({"images": [{"id": 70, "file_name": "1.jpg"}]}))
    odd, model = picture.rename(tmp_path / "1.json"), (kept / "best.pt").rename(kept / "best.json")
    for read, words in ((listed, (picture, "--annotations", listed)), (odd, (odd,)), (model, (picture,))):
        before = read.read_bytes()
        if way == "itself":
            named = tmp_path / "seen" / ".." / read.relative_to(tmp_path)
        else:
            named = out
            named.symlink_to(read) if way == "link" else named.hardlink_to(read)
        code, said, errors = harness(capsys, "detect", model, *words, "--json", named)
        assert code == 2 and not said and errors.startswith(f"error: --json {named}: this is one of the files"), errors
        assert read.read_bytes() == before and named.read_bytes() == before
        out.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "content",
    [
        *('{"images": []}', "[1]", "[[]]", '[{"image_id": 1, "category_id": 1, "bbox": [], "id": 1}]', "notes", "\n"),
        *("[" * 100_000, '[{"image_id": ' + "9" * 5000),
    ],
    ids=range(8),
)
def test_what_detect_did_not_write_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    kept, pictures, out = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1]), tmp_path / "out.json"
    out.write_text(content)
    code, said, errors = harness(capsys, "detect", kept, *pictures, "--json", out)
    assert code == 2 and not said and "not a file that this verb wrote; name another one" in errors
    assert out.read_text() == content


def test_what_detect_wrote_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures, out = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2]), tmp_path / "out.json"
    out.touch()  # as mktemp does
    for threshold, count in ((0, 2), (1, 0), (0, 2)):
        code, _, errors = harness(capsys, "detect", kept, *pictures, "--json", out, "--threshold", threshold)
        assert (code, errors, len(json.loads(out.read_text()))) == (0, "", count)
    out.write_text(json.dumps(json.loads(out.read_text()), indent=4))  # as people look at it
    assert harness(capsys, "detect", kept, *pictures, "--json", out)[0] == 0


@pytest.mark.parametrize("name", ["result_0.json", "plan.json", "noise.json", "host.json", "inference_3.json"])
def test_nothing_is_called_as_what_runs_and_verbs_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    code, said, errors = harness(capsys, "detect", kept, *pictures, "--json", tmp_path / name)
    assert code == 2 and not said and "called" in errors and not (tmp_path / name).exists()


def test_what_is_no_file_or_cannot_be_read_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe became a file."""
    kept, pictures, out = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1]), tmp_path / "out.json"
    os.mkfifo(out)
    code, said, errors = harness(capsys, "detect", kept, *pictures, "--json", out)
    assert code == 2 and not said and "cannot be read: no regular file" in errors and out.is_fifo()


def test_where_nothing_can_be_written_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--pictures", "/proc/x")
    assert code == 2 and not out and "--pictures /proc/x: cannot be made" in errors

    for option in (("--pictures", "/proc/self"), ("--json", "/proc/self/found.json")):
        code, out, errors = harness(capsys, "detect", kept, *pictures, *option)
        assert code == 2 and not out and f"{option[0]}: nothing can be written in /proc/self" in errors, errors
