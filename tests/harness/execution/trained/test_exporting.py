"""The verb export, on the toy: the file is one that ONNX Runtime runs, and one that finds other things is not kept."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from harness.contract import Detection, Graph
from harness.execution.trained import exporting
from tests.harness.execution.trained.models import QUALITY, harness, numbers, saved
from tests.toy import ToyBenchmark, using

onnx = pytest.importorskip("onnx", reason="onnx, of requirements/export.lock, is not installed")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def test_a_file_that_another_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "toy.onnx"
    code, said, errors = harness(capsys, "export", saved(tmp_path / "kept"), out)
    assert (code, errors) == (0, "")
    assert "input    images (B, 3, 1, 1) uint8 RGB\noutputs  boxes, scores, category_ids, count\n" in said
    assert "checked with ONNX Runtime: 4 detections in 4 pictures, scores within 0" in said and f"wrote {out}" in said
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {
        "model": f"toy after epoch 2, quality {QUALITY:.4f}",
        "categories": str(using.CATEGORIES),
    }
    for pictures in (1, 3):
        pixels = np.arange(3 * pictures, dtype=np.uint8).reshape(pictures, 3, 1, 1)
        boxes, scores, ids, count = session.run(list(exporting.OUTPUTS), {exporting.INPUT: pixels})
        assert boxes.shape == (pictures, 1, 4) and count.tolist() == [1] * pictures
        assert scores.ravel().tolist() == [QUALITY] * pictures
        assert ids.ravel().tolist() == [7 if number % 2 else 3 for number in pixels[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [("score", "scores differ by up to 0.01"), ("more", "finds 2 things")],
)
def test_one_that_finds_other_things_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    class Other(nn.Module):
        def __init__(self, right: nn.Module) -> None:
            super().__init__()
            self.right = right

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            boxes, scores, ids, count = self.right(images)
            if change == "score":
                return boxes, scores + 0.01, ids, count
            return boxes.repeat(1, 2, 1), scores.repeat(1, 2), ids.repeat(1, 2), 2 * count

    def graph(self: ToyBenchmark, config: Any, state: Any) -> Graph:
        right = using.graph(QUALITY)
        return Graph(Other(right.module).eval(), right.metadata)

    monkeypatch.setattr(ToyBenchmark, "graph", graph)
    out = tmp_path / "toy.onnx"
    before = b"\x08\x0a\x12\x07pytorch: the one before"
    out.write_bytes(before)
    code, _, errors = harness(capsys, "export", saved(tmp_path / "kept"), out)
    assert code == 5 and says in errors and "nothing was written" in errors
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "toy.onnx"]


def test_nothing_that_was_compared_is_not_called_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing(nn.Module):
        def __init__(self, right: nn.Module) -> None:
            super().__init__()
            self.right = right

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            boxes, scores, ids, count = self.right(images)
            return boxes, scores, ids, 0 * count

    monkeypatch.setattr(
        ToyBenchmark, "graph", lambda *_: Graph(Nothing(using.graph(QUALITY).module).eval(), {"categories": ""})
    )
    monkeypatch.setattr(using.ToyDetector, "detections", lambda _, found, samples: [[] for _ in samples])
    code, said, errors = harness(capsys, "export", saved(tmp_path / "kept"), tmp_path / "toy.onnx")
    assert (code, errors) == (0, "")
    assert "not checked: nothing is found in 4 pictures; name others, in which there is something, with --check" in said
    assert "\nchecked" not in said


def test_before_suppression_order_does_not_matter_and_other_boxes_do() -> None:
    rng = np.random.default_rng(3)
    boxes, scores = rng.uniform(0, 300, (500, 4)), rng.uniform(0, 1, (3, 500))
    shuffled = rng.permutation(500)
    found = exporting._from_nearest(boxes, scores, boxes[shuffled], scores[:, shuffled])
    assert found == exporting.Agreement(exporting.BEST, 0, 0)
    best = int(scores.max(axis=0).argmax())
    for change in ([0.1, 0, 0, 0], [np.nan, 0, 0, 0]):
        moved = boxes.copy()
        moved[best] += change
        with pytest.raises(exporting.Differs, match=r"before suppression .* are other ones than the model's"):
            exporting._from_nearest(boxes, scores, moved, scores)
    with pytest.raises(exporting.Differs, match=r"differs by 0\.0002"):
        exporting._from_nearest(boxes, scores, boxes, scores + 2e-4)
    alike = np.full_like(scores, 0.01)  # a network that tells none from another, of whose boxes a limit leaves any
    assert exporting._from_nearest(boxes[:250], alike[:, :250], boxes[250:], alike[:, 250:]).count == 0


@pytest.mark.parametrize("digits", [1, 6], ids=["many that are equal", "few"])
@pytest.mark.parametrize("unknown", [0, 0.5, 0.99], ids=["without NaN", "half NaN", "nearly all NaN"])
@pytest.mark.parametrize("boxes", [10, 50, 400])
def test_the_best_are_those_of_a_stable_sort(boxes: int, unknown: float, digits: int) -> None:
    random = np.random.default_rng(1)
    scores = random.random((2, boxes)).round(digits).astype(np.float32)
    scores[random.random(scores.shape) < unknown] = np.nan
    expected = np.argsort(-scores, axis=None, kind="stable")[: exporting.BEST]
    assert exporting._best(scores).tolist() == expected.tolist()


def test_pictures_of_one_s_own_to_check_it_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one, other) = numbers(tmp_path / "seen", [1, 2])
    code, said, _ = harness(
        capsys,
        "export",
        saved(tmp_path / "kept"),
        tmp_path / "toy.onnx",
        "--check",
        one,
        "--check",
        other,
        "--check",
        one,
    )
    assert code == 0 and "2 detections in 2 pictures" in said


def test_a_picture_to_check_with_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = numbers(tmp_path / "seen", [1])
    one.write_bytes(b"nonsense")
    for path, says in ((one, "not a picture of a number"), (tmp_path / "no.jpg", "No such file or directory")):
        code, _, errors = harness(capsys, "export", saved(tmp_path / "kept"), tmp_path / "toy.onnx", "--check", path)
        assert code == 2 and f"{path}: " in errors and says in errors and not (tmp_path / "toy.onnx").exists()


def test_a_file_of_another_kind_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = saved(tmp_path / "kept")
    best = kept / "best.pt"
    code, _, errors = harness(capsys, "export", kept, best)
    assert code == 2 and "a file called *.onnx is written; name it so" in errors and best.stat().st_size > 0
    code, _, errors = harness(capsys, "export", kept, tmp_path / "no folder" / "toy.onnx")
    assert code == 2 and "is no folder" in errors


def test_what_is_read_or_is_no_export_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, out = saved(tmp_path / "kept"), tmp_path / "toy.onnx"
    (one,) = numbers(tmp_path / "seen", [1])
    out.write_text("notes")
    code, _, errors = harness(capsys, "export", kept, out)
    assert code == 2 and "not a file that this verb wrote; name another one" in errors and out.read_text() == "notes"
    for read in (one, kept / "best.pt"):
        out.unlink()
        out.hardlink_to(read)
        code, _, errors = harness(capsys, "export", kept, out, "--check", one)
        assert code == 2 and f"toy.onnx: this is one of the files that are read, {read}" in errors
        assert out.read_bytes() == read.read_bytes()
    out.unlink()
    for _ in range(2):  # what it wrote itself
        assert harness(capsys, "export", kept, out)[0] == 0


def test_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnxruntime" else real(name))
    code, _, errors = harness(capsys, "export", saved(tmp_path / "kept"), tmp_path / "toy.onnx")
    assert code == 6 and "export needs onnxruntime, which is not installed: bash requirements/set_up.sh " in errors


def test_equal_scores_may_come_in_another_order() -> None:
    boxes = [(float(at), 0.0, 5.0, 5.0) for at in range(3)]
    found = [Detection(1, "", box, 0.5) for box in boxes]
    assert exporting._difference(found, found[::-1]) == (0, 0)
    with pytest.raises(exporting.Differs, match="boxes by up to 1 px"):
        exporting._difference(found, [found[0], found[0], found[2]])
    with pytest.raises(exporting.Differs, match=r"finds no one where the model finds one of score 0\.5"):
        exporting._difference([Detection(2, "one", boxes[0], 0.5)], found[:1])
