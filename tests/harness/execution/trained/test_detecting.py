"""The verb detect, on the toy: what it prints and leaves, and what one wrong file, name or checkpoint costs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from harness.contract import Context, Detection, Sample
from harness.execution.trained import detecting
from tests.harness.execution.trained.models import QUALITY, harness, numbers, saved
from tests.toy import ToyBenchmark, using
from tests.toy import configuration as toy


def test_boxes_names_and_scores_in_the_terminal_and_in_coco_s_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [12, 5])
    found = tmp_path / "found.json"
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--json", found, "--pictures", tmp_path / "drawn")
    assert (code, errors) == (0, "")
    lines = out.replace(str(tmp_path), "").splitlines()
    assert lines[0] == f"toy after epoch 2, quality {QUALITY:.4f}" and max(map(len, lines)) <= 80
    assert lines[3:] == [
        "/seen/12.jpg, 40 x 30 px: 1 thing",
        "  0.75  even                              0.0      0.0     40.0     30.0",
        "/seen/5.jpg, 40 x 30 px: 1 thing",
        "  0.75  odd                               0.0      0.0     40.0     30.0",
    ]
    assert json.loads(found.read_text()) == [
        {"image_id": 12, "category_id": 3, "bbox": [0, 0, 40, 30], "score": QUALITY, "file_name": "12.jpg"},
        {"image_id": 5, "category_id": 7, "bbox": [0, 0, 40, 30], "score": QUALITY, "file_name": "5.jpg"},
    ]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["12_boxes.jpg", "5_boxes.jpg"]


def test_a_wrong_file_is_one_line_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, folder = saved(tmp_path / "kept"), tmp_path / "seen"
    good = numbers(folder, range(1, 4))
    (folder / "2.jpg").write_bytes(b"nonsense")
    (tmp_path / "empty").mkdir()
    found = tmp_path / "found.json"
    code, out, errors = harness(
        capsys, "detect", kept, *good, tmp_path / "none.jpg", tmp_path / "empty", "--json", found, "--batch", 2
    )
    assert code == 1
    assert errors.replace(str(tmp_path), "").splitlines() == [
        f"/empty: the folder has no file that is called a picture ({', '.join(sorted(detecting.SUFFIXES))})",
        "/seen/2.jpg: not a picture of a number",
        "/none.jpg: cannot be read: No such file or directory",
        "3 of 5 could not be read; the others were",
    ]
    # an id is a file's place among all that were named, the wrong ones too: it does not depend on what was wrong
    assert [(each["image_id"], each["file_name"]) for each in json.loads(found.read_text())] == [
        (1, "1.jpg"),
        (3, "3.jpg"),
    ]
    assert "1.jpg" in out and "3.jpg" in out and "2.jpg" not in out


def test_a_folder_s_pictures_in_their_natural_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = saved(tmp_path / "kept")
    numbers(tmp_path / "seen", [10, 9, 1])
    for name in ("notes.txt", ".hidden.jpg"):
        (tmp_path / "seen" / name).write_text("no picture")
    code, out, errors = harness(capsys, "detect", kept, tmp_path / "seen")
    assert (code, errors) == (0, "")
    order = [line.partition(",")[0].rpartition("/")[2] for line in out.splitlines() if " px: " in line]
    assert order == ["1.jpg", "9.jpg", "10.jpg"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_does_not_suffice_is_said_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It ended in a traceback, and "please report it"; for a picture in an allocator's own words."""
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2, 3])

    def raises(*_: object, **__: object) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(using.ToyDetector, "detect", raises)
        for batch, says in (
            (8, "3 pictures at once does not fit into the memory of this machine: --batch takes fewer"),
            (1, "1 picture at once does not fit into the memory of this machine: end what else uses it"),
        ):
            code, _, errors = harness(capsys, "detect", kept, *pictures, "--batch", batch, "--device", "cpu")
            assert code == 6 and says in errors and "Traceback" not in errors
    with monkeypatch.context() as patch:
        patch.setattr(ToyBenchmark, "detector", raises)
        code, _, errors = harness(capsys, "detect", kept, *pictures, "--device", "cpu")
        assert (
            code == 6 and "the network does not fit into the memory of this machine: --device names another" in errors
        )
    real = using.ToyDetector.read
    monkeypatch.setattr(
        using.ToyDetector, "read", lambda *words, **how: (raises if words[1].stem == "2" else real)(*words, **how)
    )
    code, out, errors = harness(capsys, "detect", kept, *pictures)
    assert code == 1 and "3.jpg, 40 x 30 px: 1 thing" in out
    assert errors.startswith(f"{pictures[1]}: needs more memory than there is here; make it smaller\n")


def test_names_that_the_model_does_not_know_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2])
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--category", "dog")
    assert code == 2 and not out
    assert errors == "error: --category dog: the model does not know it; it knows: even, odd\n"
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--category", "odd")
    assert code == 0 and "1.jpg, 40 x 30 px: 1 thing" in out and "2.jpg, 40 x 30 px: nothing" in out


def test_scores_below_the_threshold_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    for threshold, count in ((QUALITY, 1), (QUALITY + 0.01, 0)):
        found = tmp_path / "found.json"
        code, *_ = harness(capsys, "detect", kept, *pictures, "--threshold", threshold, "--json", found)
        assert code == 0 and len(json.loads(found.read_text())) == count


def test_pixels_as_stored_are_another_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    assert "30 x 40 px" in harness(capsys, "detect", kept, *pictures, "--as-stored")[1]


def test_a_disk_that_fills_costs_the_drawings_and_not_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(detecting, "save_picture", full)
    found = tmp_path / "found.json"
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--pictures", tmp_path / "drawn", "--json", found)
    assert code == 6 and errors.count("not drawn: [Errno 28] No space left on device") == 2
    assert "2.jpg, 40 x 30 px: 1 thing" in out and len(json.loads(found.read_text())) == 2


def test_ctrl_c_leaves_no_half_of_a_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, pictures, real = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2]), detecting.look

    def one(*arguments: Any, **options: Any) -> Iterator[detecting.Looked]:
        yield next(real(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(detecting, "look", one)
    found = tmp_path / "found.json"
    found.write_text("[]")
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--json", found)
    assert code == 130 and "1.jpg, 40 x 30 px: 1 thing" in out and "Traceback" not in errors
    assert found.read_text() == "[]" and len(list(tmp_path.iterdir())) == 3


def test_links_that_lead_nowhere_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, folder = saved(tmp_path / "kept"), tmp_path / "seen"
    numbers(folder, [1])
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "gone.jpg").symlink_to(tmp_path / "no such file")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    code, out, errors = harness(capsys, "detect", kept, folder, tmp_path / "round")
    assert code == 1 and "1.jpg, 40 x 30 px: 1 thing" in out
    assert errors.replace(str(tmp_path), "").splitlines() == [
        "/seen/gone.jpg: cannot be read: No such file or directory",
        "/seen/loop.jpg: cannot be read: Too many levels of symbolic links",
        "/round: cannot be read: Too many levels of symbolic links",
        "3 of 4 could not be read; the others were",
    ]


def test_folders_inside_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, folder = saved(tmp_path / "kept"), tmp_path / "seen"
    numbers(folder, [1])
    for name in ("july", "named.jpg"):
        (folder / name).mkdir()
    numbers(folder / "july", [2])
    code, out, errors = harness(capsys, "detect", kept, folder)
    assert (code, errors) == (0, f"{folder}: 2 folders inside not looked into: name them too\n") and "2.jpg" not in out
    (folder / "1.jpg").unlink()
    code, _, errors = harness(capsys, "detect", kept, folder)
    assert code == 1 and "no file that is called a picture" in errors and "2 folders inside not looked into" in errors
    assert errors.endswith("1 of 1 could not be read\n")


def test_files_that_are_not_looked_at_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, folder = saved(tmp_path / "kept"), tmp_path / "seen"
    numbers(folder, [1])
    for name in ("IMG_1.HEIC", "IMG_2.HEIC", "a.gif", "notes.txt", "found.json"):
        (folder / name).write_text("")
    code, out, errors = harness(capsys, "detect", kept, folder)
    assert code == 0 and "1.jpg" in out
    assert errors == f"{folder}: 3 files not looked at (.gif, .heic): make JPEG, PNG or WebP of them first\n"


def test_a_picture_by_a_rare_name_is_not_passed_over(tmp_path: Path) -> None:
    """Of such a folder 1.jpg alone was looked at, without a word."""
    for name in ("1.jpg", "2.JPE", "3.mpo", "4.j2k", "5.tga", "6.dcm"):
        (tmp_path / name).touch()
    found, complaints, notes = detecting.files([tmp_path])
    assert [each.name for each in found] == ["1.jpg", "2.JPE", "3.mpo", "4.j2k"] and not complaints
    assert notes == [f"{tmp_path}: 2 files not looked at (.dcm, .tga): make JPEG, PNG or WebP of them first"]


def test_a_name_of_any_bytes_is_one_line_and_a_json_that_any_reader_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, folder = saved(tmp_path / "kept"), tmp_path / "seen"
    (one,) = numbers(folder, [1])
    odd = [folder / "two\nlines, 9 x 9 px: 8 things.jpg", folder / os.fsdecode(b"caf\xe9.jpg"), folder / "\x1b[2J.jpg"]
    for path in odd:
        path.write_bytes(one.read_bytes())
    (folder / "bad\nfile.jpg").write_bytes(b"")
    found = tmp_path / "found.json"
    code, out, errors = harness(capsys, "detect", kept, folder, "--json", found, "--pictures", tmp_path / "drawn")
    assert code == 1 and "bad\\nfile.jpg: " in errors and len(errors.splitlines()) == 2
    assert "two\\nlines, 9 x 9 px: 8 things.jpg, 40 x 30 px" in out and "\x1b" not in out
    assert len(out.splitlines()) == 3 + 2 * 4
    named = {each["file_name"] for each in msgspec.json.decode(found.read_bytes())}
    assert named == {"1.jpg", "two\nlines, 9 x 9 px: 8 things.jpg", "caf\\xe9.jpg", "\x1b[2J.jpg"}
    assert len(list((tmp_path / "drawn").iterdir())) == 4


@pytest.mark.parametrize("kind", ["empty", "loop", "text", "older", "stranger's"])
def test_what_is_no_checkpoint_is_refused_before_a_picture_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    pictures, path = numbers(tmp_path / "seen", [1]), tmp_path / "best.pt"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "older":
        path = saved(tmp_path / "kept", configuration=None)
    else:
        path = saved(tmp_path / "kept", configuration={**toy.raw(), "benchmark": "of_a_stranger"})
    says = {
        **{
            "empty": "damaged or not a checkpoint",
            "text": "damaged or not a checkpoint",
            "loop": "there is no such file",
        },
        **{"older": "an older version made it", "stranger's": "of_a_stranger, which is not known here"},
    }
    code, out, errors = harness(capsys, "detect", path, *pictures)
    assert code == 2 and not out and says[kind] in errors and "Traceback" not in errors


def test_a_checkpoint_of_a_benchmark_that_detects_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, pictures = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    monkeypatch.delattr(ToyBenchmark, "detector")
    for words in (("detect", kept, *pictures), ("export", kept, tmp_path / "a.onnx"), ("inference", kept)):
        code, out, errors = harness(capsys, *words)
        assert code == 2 and not out and "the benchmark toy offers no detector" in errors, errors


def test_two_categories_of_one_name_are_both_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO's form allows it: ids count."""
    monkeypatch.setattr(using, "CATEGORIES", {3: "number", 7: "number"})
    kept, pictures, found = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2]), tmp_path / "found.json"
    for options in ((), ("--category", "number")):
        code, _, errors = harness(capsys, "detect", kept, *pictures, "--json", found, *options)
        assert (code, errors) == (0, "")
        assert [each["category_id"] for each in json.loads(found.read_text())] == [7, 3]
    code, _, errors = harness(capsys, "detect", kept, *pictures, "--category", "odd")
    assert code == 2 and errors.endswith("it knows: number\n")


def test_a_box_that_overflowed_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was Infinity in the file, which is no JSON, and the verb ended with 0."""
    real = using.ToyDetector.detections

    def some_too_large(*given: Any) -> list[list[Detection]]:
        boxes = [(math.inf, 0.0, 1.0, 1.0), (0.0, 0.0, math.inf, 1.0), (0.0, -math.inf, 1.0, math.nan)]
        return [[*(replace(one, xywh_px=box) for box in boxes), one] for (one,) in real(*given)]

    monkeypatch.setattr(using.ToyDetector, "detections", some_too_large)
    kept, pictures, found = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1, 2]), tmp_path / "found.json"
    code, out, errors = harness(capsys, "detect", kept, *pictures, "--json", found)
    assert (code, errors, out.count(": 1 thing")) == (0, "", 2)
    rows = json.loads(found.read_text(), parse_constant=pytest.fail)
    assert [each["bbox"] for each in rows] == [[0, 0, 40, 30]] * 2


def test_a_batch_is_read_while_another_is_looked_at_and_none_is_mixed_up(tmp_path: Path) -> None:
    from tests.toy.using import ToyDetector

    class Slow(ToyDetector):
        def detections(self, found: list[int], samples: list[Sample]) -> list[list[Detection]]:  # type: ignore[override]
            assert len(found) == len(samples)
            return super().detections(found, samples)

    pictures = numbers(tmp_path / "seen", range(7))
    pictures[4].write_bytes(b"")
    here = Context(device="cpu", threads=3)
    looked = list(
        detecting.look(Slow(0.5, compiled=False), pictures, range(7), batch=3, here=here, upright=True, threshold=0)
    )
    assert [each.file for each in looked] == pictures
    assert [each.found[0].category if each.found else each.fault for each in looked] == [
        *("even", "odd", "even", "odd", "not a picture of a number", "odd", "even"),
    ]
