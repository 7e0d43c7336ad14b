"""A trained detector put to use: it finds what its run's evaluation found, in pictures of every kind, or says why not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from benchmarks.detection.data_path import pictures
from benchmarks.detection.graph import Pipeline
from benchmarks.detection.precision import candidates
from benchmarks.ssd.benchmark import BENCHMARK
from harness import config
from harness.contract import Context, NotSuitable
from harness.execution import checkpoint
from harness.execution.trained import detecting
from harness.execution.trained.detectors import Model
from tests.detection.models import Kept, kept, small_retinanet
from tests.harness.execution.trained.models import harness
from tests.ssd import coco_folder, small
from tests.ssd.coco_folder import Picture


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return kept(tmp_path_factory.mktemp("small"), data={"backend": "torch"})


PAPER_S: dict[str, dict[str, Any]] = {
    "data": {"backend": "torch"},
    "model": {"backbone": "vgg16", "width_divisor": 8, "extras": [[32, 64, 2, 1]], "clamped": "none"},
    "evaluation": {"min_score": 0.02, "max_iou": 0.45, "max_per_class": 400},
}


@pytest.fixture(scope="module")
def paper_s(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """VGG-16, which has a third of ResNet-18's nodes to export."""
    return kept(tmp_path_factory.mktemp("paper_s"), **PAPER_S)


@pytest.fixture(scope="module")
def photograph(trained: Kept) -> Image.Image:
    """Of another size than the network's, and alike in no two directions."""
    return Image.fromarray(Picture(90, [], width=120, height=70).pixels())


def rows_of(found: Kept, *options: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `harness detect` finds in the pictures of the evaluation, as (N, 7) rows."""
    out = found.folder / "found.json"
    words = ("detect", found.folder, found.pictures, "--threshold", "0", "--as-stored", "--json", out, *options)
    code, _, errors = harness(capsys, *words)
    assert (code, errors) == (0, "")
    return np.array(
        [[each["image_id"], *each["bbox"], each["score"], each["category_id"]] for each in json.loads(out.read_text())]
    )


def apart(found: Any, expected: Any) -> float:
    """The largest difference of an expected row from the nearest found of its image and category: px, and scores x 100."""
    nearest = []
    for row in expected:
        alike = found[(found[:, 0] == row[0]) & (found[:, 6] == row[6])]
        differences = np.abs(alike[:, 1:6] - row[1:6]) * [1, 1, 1, 1, 100]
        nearest.append(differences.max(axis=1).min(initial=np.inf))
    return float(max(nearest))


# --- the same detections ---------------------------------------------------------------------------------------------


def test_what_the_run_s_own_evaluation_found(trained: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows_of(trained, capsys=capsys)
    assert len(found) == len(trained.rows) > 100
    assert set(found[:, 6]) <= {3, 1, 7} and len(set(found[:, 0])) == 6
    assert apart(found, trained.rows) < 2e-3 and apart(trained.rows, found) < 2e-3


def test_in_the_number_format_that_it_was_evaluated_in(
    tmp_path: Path, trained: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = kept(tmp_path, data={"backend": "torch"}, compute={"precision": "bf16"}, model=small.OF_32_PX)
    found = rows_of(
        coarse, "--batch", "4", capsys=capsys
    )  # the evaluation's: bf16 sums in other orders for other sizes
    assert len(found) == len(coarse.rows) and apart(found, coarse.rows) < 2e-3
    other = rows_of(coarse, "--precision", "fp32", capsys=capsys)
    assert apart(other, found) > 2e-3, "another format is another model"


def test_where_dali_fed_the_evaluation_nearly_all_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its JPEG decoder and its filter differ from the other data path's by a level or two: 99.9 % and 0.003 were seen."""
    pytest.importorskip("nvidia.dali")
    by_dali = kept(tmp_path, data={"backend": "dali"})
    found = rows_of(by_dali, capsys=capsys)
    scores_apart = []
    for row in by_dali.rows:
        alike = found[(found[:, 0] == row[0]) & (found[:, 6] == row[6])]
        overlap = iou(row[1:5], alike[:, 1:5])
        if overlap.max() > 0.9:
            scores_apart.append(abs(alike[overlap.argmax(), 5] - row[5]))
    assert len(scores_apart) > 0.97 * len(by_dali.rows) and max(scores_apart) < 0.02


def iou(one: Any, others: Any) -> Any:
    """(N,) of a box (4,) and others (N, 4), all xywh."""
    begin = np.maximum(one[:2], others[:, :2])
    end = np.minimum(one[:2] + one[2:], others[:, :2] + others[:, 2:])
    both = np.clip(end - begin, 0, None).prod(axis=1)
    return both / (one[2:].prod() + others[:, 2:].prod(axis=1) - both)


def test_on_any_device_and_in_every_format(trained: Kept, device: str) -> None:
    model = Model.trained(trained.folder)
    files = sorted(trained.pictures.iterdir())
    for form in candidates(device):
        detector = model.open(Context(device=device), precision=form)
        assert detector.properties()["precision"] in (form, "tf32")
        here = Context(device=device, threads=2)
        looked = list(detecting.look(detector, files, range(6), batch=4, here=here, upright=True, threshold=0.05))
        assert all(each.found and not each.fault for each in looked)
        scores = [one.score for one in looked[0].found]
        assert scores == sorted(scores, reverse=True)


def test_the_training_s_own_means_are_left_out(trained: Kept) -> None:
    """A checkpoint of a run that compiled, with kernels for CUDA and another layout of pictures, is used on a CPU."""
    tables = small.content(
        data={"image_format": "fp16_hwc4"},
        compute={
            "precision": "bf16",
            "compile": True,
            "fused": ["stem", "blocks"],
            "stem": "direct",
            "cuda_graphs": True,
        },
    )
    settings = config.parse(tables, name="small", source="small").tables
    plain = BENCHMARK.detector(
        config.parse(small.content(), name="small", source="small").tables, Context(device="cpu"), trained.state
    )
    other = BENCHMARK.detector(settings, Context(device="cpu"), trained.state, precision="fp32")
    file = sorted(trained.pictures.iterdir())[0]
    samples = [plain.read(file, upright=True)]
    assert np.array_equal(plain.detect(plain.place(samples)), other.detect(other.place(samples)))


# --- pictures of every kind ------------------------------------------------------------------------------------------


def sixteen_bits(image: Image.Image, path: Path) -> None:
    levels = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(levels).save(path)


KINDS: dict[str, Callable[[Image.Image, Path], None]] = {
    "grey.jpg": lambda image, path: image.convert("L").save(path, quality=95),
    "cmyk.jpg": lambda image, path: image.convert("CMYK").save(path, quality=95),
    "progressive.jpg": lambda image, path: image.save(path, quality=95, progressive=True),
    "rgba.png": lambda image, path: image.convert("RGBA").save(path),
    "palette.png": lambda image, path: image.quantize(200).save(path),
    "bilevel.png": lambda image, path: image.convert("1").save(path),
    "sixteen.png": sixteen_bits,
    "grey with alpha.png": lambda image, path: image.convert("LA").save(path),
    "plain.webp": lambda image, path: image.save(path, quality=95),
    "plain.bmp": lambda image, path: image.save(path),
    "plain.tiff": lambda image, path: image.save(path),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture(trained: Kept, photograph: Image.Image, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    KINDS[name](photograph, path)
    detector = Model.trained(trained.folder).open(Context(device="cpu"))
    sample = detector.read(path, upright=True)
    assert (sample.width_px, sample.height_px) == photograph.size and sample.pixels.shape == (3, 64, 64)
    grey = name.startswith(("grey", "sixteen", "bilevel"))
    expected = np.asarray(
        photograph.convert("L" if grey else "RGB").convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
    )
    apart = np.abs(sample.pixels.transpose(1, 2, 0).astype(int) - expected)
    assert apart.mean() < (40 if name.startswith("bilevel") else 6), "it is the same picture"
    (found,) = detector.detections(detector.detect(detector.place([sample])), [sample])
    assert found and all(each.category == f"class {each.category_id}" for each in found)
    assert detector.draw(path, found[:3], upright=True).shape == (70, 120, 3)


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"caf\xe9.bmp"), "two\nlines.png"])
def test_a_name_of_any_bytes(trained: Kept, photograph: Image.Image, tmp_path: Path, name: str) -> None:
    photograph.save(tmp_path / name)
    detector = Model.trained(trained.folder).open(Context(device="cpu"))
    assert detector.read(tmp_path / name, upright=True).pixels.shape == (3, 64, 64)
    assert detector.draw(tmp_path / name, [], upright=True).shape == (70, 120, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_s_turn_is_undone(photograph: Image.Image, tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photograph.save(path, exif=exif, quality=100, **({"subsampling": 0} if suffix == "jpg" else {}))
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    found = pictures.decode(path, upright=True).permute(1, 2, 0).numpy()
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 3
    assert pictures.decode(path).shape == (3, 70, 120), "an evaluation takes them as stored"


def test_boxes_are_of_the_picture_as_it_is_seen(
    trained: Kept, photograph: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A telephone's portrait, and the same picture stored upright: equal boxes; and other ones as it is stored."""
    upright, stored = tmp_path / "1.png", tmp_path / "2.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photograph.save(stored, exif=exif)
    photograph.transpose(Image.Transpose.ROTATE_270).save(upright)
    found = {}
    for options in ((), ("--as-stored",)):
        out = tmp_path / "found.json"
        code, said, _ = harness(
            capsys, "detect", trained.folder, upright, stored, "--json", out, "--threshold", "0.1", *options
        )
        assert code == 0
        rows = json.loads(out.read_text())
        found[options] = [
            [(*row["bbox"], row["score"]) for row in rows if row["image_id"] == number] for number in (1, 2)
        ]
        assert said.count("70 x 120 px") == (1 if options else 2)
    one, other = found[()]
    assert len(one) > 3 and one == other
    one, other = found["--as-stored",]
    assert one != other


def wrong_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that are no pictures, by name, with what is said of each."""
    whole = folder / "whole.jpg"
    Image.effect_noise((400, 300), 80).convert("RGB").save(whole, quality=90)
    content = whole.read_bytes()
    Image.effect_noise((40, 30), 80).convert("RGB").save(whole, format="PNG")
    flipped = bytearray(whole.read_bytes())
    flipped[flipped.index(b"IDAT") + 1000] ^= 1
    whole.unlink()
    for name, data, says in (
        ("flipped bit.png", bytes(flipped), "cut off or damaged"),
        ("truncated.jpg", content[: len(content) // 2], "cut off"),
        ("closed.jpg", content[: len(content) // 2] + b"\xff\xd9", "cut off"),
        ("header.jpg", content[:300], "cut off or damaged in its header"),
        ("empty.jpg", b"", "empty"),
        ("page.jpg", b"<!DOCTYPE html><html>404</html>", "an HTML page, not a picture"),
        ("text.png", b"not a picture at all", "not a picture of a known kind"),
        ("video.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video, not a picture"),
        ("film.webm", b"\x1a\x45\xdf\xa3 and so on", "a video, not a picture"),
        ("film.mov", b"\0\0\0\x08wide\0\0\0\0mdat", "a video, not a picture"),
        ("film.mpg", b"\0\0\x01\xba" + bytes(60), "a video, not a picture"),
        ("film.ts", (b"G" + bytes(187)) * 3, "a video, not a picture"),
        ("weights.png", b"PK\x03\x04 an archive", "a ZIP archive, not a picture"),
    ):
        (folder / name).write_bytes(data)
        yield name, says
    Image.new("RGB", (8, 8)).save(folder / "moving.gif")
    yield "moving.gif", "a GIF file; convert it to JPEG or PNG"
    Image.new("CMYK", (8, 8)).save(folder / "cmyk.tiff")
    yield "cmyk.tiff", "a TIFF file of colours CMYK; convert it to JPEG or PNG"


def test_what_is_no_picture_is_a_line_each_and_the_good_ones_are_found(
    trained: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = dict(wrong_files(tmp_path))
    good = sorted(trained.pictures.iterdir())[:2]
    named = [good[0], *(tmp_path / name for name in wrong), good[1]]
    code, said, errors = harness(capsys, "detect", trained.folder, *named, "--pictures", tmp_path / "drawn")
    assert code == 1
    lines = errors.splitlines()
    assert (
        len(lines) == len(wrong) + 1
        and lines[-1] == f"{len(wrong)} of {len(wrong) + 2} could not be read; the others were"
    )
    for line, (name, says) in zip(lines[:-1], wrong.items(), strict=True):
        assert line.startswith(f"{tmp_path / name}: ") and says in line, line
    assert all(str(path) in said for path in good)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [f"{path.stem}_boxes.jpg" for path in good]


# --- a model of one configuration asked with another's -----------------------------------------------------------------


def opened(state: dict[str, Any], **tables: dict[str, Any]) -> Any:
    settings = config.parse(small.content(**tables), name="small", source="small").tables
    return BENCHMARK.detector(settings, Context(device="cpu"), state)


@pytest.mark.parametrize(
    ("change", "tables", "says"),
    [
        ({}, {"model": {"categories": 4}}, r"names 3 categories, its configuration says model.categories = 4"),
        (
            {"categories": [{"id": 1, "name": "one"}]},
            {},
            r"names 1 categories, its configuration says model.categories = 3",
        ),
        ({"categories": [{"number": 1}] * 3}, {}, "no list of ids and names"),
        ({"categories": None}, {}, "says neither its categories nor its preprocessing"),
        ({}, {"model": {"extras": [[32, 48, 2, 1], [32, 64, 2, 1]]}}, "weights are not of its configuration's network"),
        ({"model": {}}, {}, "weights are not of its configuration's network"),
        ({"model": 7}, {}, "weights are not of its configuration's network"),
        ({}, {"model": {"image_px": 80}}, "pictures made otherwise: side_px 64, here 80"),
        ({"precision": "fp8"}, {}, "the number format 'fp8' is not known"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    trained: Kept, change: dict[str, Any], tables: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        opened({**trained.state, **change}, **tables)


def test_weights_that_are_no_numbers_find_nothing_and_are_refused(trained: Kept) -> None:
    weights = dict(trained.state["model"])
    name = next(name for name, each in weights.items() if each.is_floating_point())
    weights[name] = torch.full_like(weights[name], float("nan"))
    with pytest.raises(ValueError, match=rf"no finite numbers \(1 tensors, the first is {re.escape(name)}\)"):
        opened({**trained.state, "model": weights})


def test_boxes_that_overflow_leave_a_file_that_any_reader_takes(
    trained: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights may be finite and their boxes not, after a run that diverged: exp() of 88.8 and more is infinite in float32."""
    state = torch.load(trained.folder / "best.pt", weights_only=True)
    weights = state["state"]["model"]
    for each in (each for name, each in weights.items() if name.startswith("heads.") and name.endswith("bias")):
        each[len(each) // 2 :] = 600.0  # of the offsets; the box coder takes a fifth
    torch.save(state, tmp_path / "best.pt")
    found = tmp_path / "found.json"
    options = ("--threshold", "0", "--json", found, "--pictures", tmp_path / "drawn")
    code, _, errors = harness(capsys, "detect", tmp_path, trained.pictures, *options)
    assert (code, errors) == (0, "")
    assert json.loads(found.read_text(), parse_constant=pytest.fail) == []


def test_a_name_of_another_data_set_s_is_refused(trained: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = harness(capsys, "detect", trained.folder, trained.pictures, "--category", "dog")
    assert code == 2 and "--category dog: the model does not know it; it knows: class 1, class 3, class 7" in errors


def test_training_does_not_go_on_with_other_categories(trained: Kept, tmp_path: Path) -> None:
    """As many, called otherwise: what was learned as class 7 would be gone on with as class 9."""
    from benchmarks.ssd.session import SSDSession

    for half, count in (("train2017", 12), ("val2017", 6)):
        shown = [Picture(15 * i, [(4, 5, 20, 24, 9), (30, 12, 28, 18, 1)]) for i in range(1, count + 1)]
        coco_folder.write(tmp_path, shown, categories=(3, 1, 9), half=half)
    settings: Any = config.parse(small.content(data={"backend": "torch"}), name="small", source="small").tables
    session = SSDSession(settings, Context(device="cpu", seed=5, data_dir=tmp_path, threads=1))
    session.load_data()
    with pytest.raises(
        ValueError, match=r"of other categories than the data: .*class 7.* where the data has .*class 9"
    ):
        session.restore(trained.state)
    older = {
        key: value for key, value in trained.state.items() if key not in ("categories", "preprocessing", "precision")
    }
    session.restore(older)  # which does not say, and could always be gone on with
    session.close()


def test_bf16_is_refused_where_a_gpu_only_imitates_it(trained: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.parse(small.content(compute={"precision": "bf16"}), name="small", source="small").tables
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(NotSuitable, match="cuda:0 computes no bf16"):
        BENCHMARK.detector(settings, Context(device="cuda:0"), trained.state, precision="bf16")


# --- as a graph, and how fast ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_exported_graph_finds_what_the_model_finds(
    trained: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the photographs of the evaluation, one by one and together; ONNX Runtime decodes and suppresses in the graph."""
    runtime = pytest.importorskip("onnxruntime", reason="of requirements/export.lock, is not installed")
    pytest.importorskip("onnxscript")
    out = tmp_path / "small.onnx"
    checks = [word for path in sorted(trained.pictures.iterdir()) for word in ("--check", path)]
    code, said, errors = harness(capsys, "export", trained.folder, out, *checks)
    assert (code, errors) == (0, "")
    assert f"checked with ONNX Runtime: {len(trained.rows)} detections in 6 pictures" in said
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [(each.name, each.type, each.shape[1:]) for each in session.get_inputs()] == [
        ("images", "tensor(uint8)", [3, 64, 64])
    ]
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["categories"]) == {"3": "class 3", "1": "class 1", "7": "class 7"}
    assert json.loads(told["preprocessing"])["side_px"] == 64 and told["model"].startswith("small after epoch 1, mAP ")
    assert "IoU above 0.5, scores above 0.05" in told["suppression"]


@pytest.mark.long
def test_where_nothing_is_found_the_exported_boxes_are_compared_before_suppression(
    paper_s: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same weights with a threshold that nothing reaches: "0 detections, scores within 0" would say nothing."""
    pytest.importorskip("onnxruntime", reason="of requirements/export.lock, is not installed")
    pytest.importorskip("onnxscript")
    sure = small.content(**{**PAPER_S, "evaluation": {"min_score": 0.9999}})
    configuration = config.parse(sure, name="small", source="small")
    saved = replace(checkpoint.trained(paper_s.folder).checkpoint, configuration=configuration.resolved)
    checkpoint.save(tmp_path / "kept", replace(saved, configuration_sha256=configuration.sha256))
    code, said, errors = harness(capsys, "export", tmp_path / "kept", tmp_path / "small.onnx")
    assert (code, errors) == (0, "")
    assert (
        "checked with ONNX Runtime: 0 detections in 4 pictures\nbefore suppression: the best 400 boxes of them" in said
    )

    monkeypatch.setattr(
        Pipeline, "before_suppression", lambda *each, real=Pipeline.before_suppression: darker(*real(*each))
    )
    (tmp_path / "small.onnx").unlink()
    code, _, errors = harness(capsys, "export", tmp_path / "kept", tmp_path / "small.onnx")
    assert code == 5 and "before suppression" in errors and not (tmp_path / "small.onnx").exists()


def darker(ltrb: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """As an operator would that another program translates wrongly."""
    return ltrb, scores * (1.0 if torch.compiler.is_exporting() else 0.99)


def test_the_operator_of_the_graph_is_what_the_evaluation_does(trained: Kept) -> None:
    """Fixed shapes against lists, on scores with ties, none and many candidates."""
    from benchmarks.detection.suppression import Limits

    settings = config.parse(small.content(), name="small", source="small").tables
    detector = BENCHMARK.detector(settings, Context(device="cpu"), trained.state, precision="fp32")
    candidates, limits = detector.session.candidates()
    pipeline = Pipeline(candidates, list(detector.categories), limits).eval()
    samples = [detector.read(path, upright=True) for path in sorted(trained.pictures.iterdir())]
    images = detector.place(samples)
    with torch.no_grad():
        _boxes, scores, ids, count = pipeline(images)
    expected = detector.detections(detector.detect(images), samples)
    assert count.tolist() == [len(each) for each in expected] and min(count.tolist()) > 0
    for at, (found, _sample) in enumerate(zip(expected, samples, strict=True)):
        assert scores[at, : count[at]].tolist() == pytest.approx([each.score for each in found], abs=1e-6)
        assert sorted(ids[at, : count[at]].tolist()) == sorted(each.category_id for each in found)
    assert limits == Limits(0.05, 0.5, 200, 200), "MLPerf's"


def test_inference_in_mlperf_s_terms(trained: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, errors = harness(
        capsys, "inference", trained.folder, "--seconds", "0.2", "--queries", "3", "--device", "cpu", "--out", tmp_path
    )
    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "inference_0.json").read_text())
    measured = {(each["precision"], each["scenario"], each["begins_with"]) for each in found["figures"]}
    assert len(measured) == 8 and {form for form, _, _ in measured} == {"fp32", "bf16"}
    assert all(each["compiled"] is False and each["parameters"] > 0 for each in found["figures"])
    assert "published: 58 images/s" in said and "Titan X" in said and "arXiv:1512.02325" in said
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 80


@pytest.mark.long
def test_the_paper_s_ssd_likewise(paper_s: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VGG-16 with its own default boxes and VOC's limits: found, and exported."""
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="of requirements/export.lock, is not installed")
    found = paper_s
    assert len(found.rows) > 100
    again = rows_of(found, capsys=capsys)
    assert len(again) == len(found.rows) and apart(again, found.rows) < 2e-3
    checks = [word for path in sorted(found.pictures.iterdir()) for word in ("--check", path)]
    code, said, errors = harness(capsys, "export", found.folder, tmp_path / "small.onnx", *checks)
    assert (code, errors) == (0, ""), errors
    assert f"checked with ONNX Runtime: {len(found.rows)} detections in 6 pictures" in said
    assert "IoU above 0.45, scores above 0.02" in said


@pytest.mark.long
def test_retinanet_likewise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures made smaller its own way, maps that each give their best, boxes cut off at the rim: found, and exported."""
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="of requirements/export.lock, is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.retinanet.model.PRIOR", 0.1)  # so that a fresh network finds something
        found = kept(tmp_path, small_retinanet())
    assert len(found.rows) > 100
    again = rows_of(found, capsys=capsys)
    assert len(again) == len(found.rows) and apart(again, found.rows) < 2e-3
    checks = [word for path in sorted(found.pictures.iterdir()) for word in ("--check", path)]
    code, said, errors = harness(capsys, "export", found.folder, tmp_path / "small.onnx", *checks)
    assert (code, errors) == (0, ""), errors
    assert f"checked with ONNX Runtime: {len(found.rows)} detections in 6 pictures" in said
    assert (
        "bilinear between four pixels" in said and "at most any number of a class before it, 300 of a picture" in said
    )


def test_drawn_pictures_are_jpeg_files_of_photographs_size() -> None:
    import io

    for content in BENCHMARK.pictures(2):
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "JPEG" and picture.size == (640, 480)
