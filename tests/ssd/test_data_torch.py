"""What the data path without DALI has of its own; what both must do is in test_data.py."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from benchmarks.detection.data_path import data_torch, pictures
from benchmarks.detection.tables import Data
from benchmarks.ssd import data
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.data_torch import TrainBatches
from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S
from tests.ssd import coco_folder, small
from tests.ssd.coco_folder import Picture
from tests.ssd.test_data import BOXES, PX


def source(path: Path, count: int = 6, **changes: object) -> data.Source:
    """A folder of so many pictures, 12 at most, with one to three boxes."""
    boxes = [(8, 8, 24, 20, 1), (20, 10, 30, 30, 1), (2, 20, 40, 20, 1)]
    folder = coco_folder.write(path, [Picture(20 * i, boxes[: 1 + i % 3]) for i in range(1, count + 1)])  # type: ignore[arg-type]
    base = data.Source(folder.images, folder.annotations, PX, 3, 2, "cpu", 0, 1, True, backend="torch")
    return replace(base, **changes)  # type: ignore[arg-type]


def epoch(src: data.Source) -> list[dict[str, torch.Tensor]]:
    return list(data.train_batches(src, Augmentation(), BOXES, order_seed=1, augmentation_seed=2))


def test_half_precision_hwc4_is_the_plain_batch_rounded_to_half(tmp_path: Path, device: str) -> None:
    src = source(tmp_path, device=device)
    for a, b in zip(epoch(src), epoch(replace(src, image_format="fp16_hwc4")), strict=True):
        assert b["images"].shape == (3, PX, PX, 4) and b["images"].dtype == torch.float16
        assert torch.equal(b["images"][..., :3].permute(0, 3, 1, 2), a["images"].half())
        assert (b["images"][..., 3] == 0).all() and torch.equal(a["labels"], b["labels"])


@pytest.mark.long
def test_compiled_is_the_same_and_compiles_nothing_after_warm_up(tmp_path: Path, device: str) -> None:
    src = source(tmp_path, device=device)
    compiled = replace(src, compiled=True)
    data.warm_up(compiled)
    with torch.compiler.set_stance("fail_on_recompile"):
        found = epoch(compiled)
    for a, b in zip(epoch(src), found, strict=True):
        assert torch.equal(a["labels"], b["labels"]) and torch.equal(a["offsets"], b["offsets"])
        assert (a["images"] - b["images"]).abs().mean() < 1e-3  # a level may be rounded the other way
        assert (a["images"] - b["images"]).abs().max() < 0.02


def damaged_png() -> bytes:
    """With one flipped bit among its pixels."""
    file = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(file, "PNG")
    content = bytearray(file.getvalue())
    content[content.index(b"IDAT") + 1000] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.write_bytes(b"not a picture"), "not a picture of a known kind"),
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "cut off or damaged"),
        (lambda p: p.unlink(), "No such file"),
        (lambda p: p.write_bytes(damaged_png()), "cut off or damaged"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, spoil: object, says: str, device: str) -> None:
    src = source(tmp_path, device=device)
    spoil(src.images / "000000000002.jpg")  # type: ignore[operator]
    with pytest.raises(
        RuntimeError, match=rf"000000000002\.jpg: .*{says}" if device == "cpu" else r"000000000002\.jpg"
    ):
        epoch(src)


def test_what_is_no_jpeg_or_not_one_for_nvjpeg_comes_from_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU's decoder is played by the CPU's, which takes a list likewise."""
    src = source(tmp_path)
    files = sorted(src.images.iterdir())
    with Image.open(files[1]) as picture:
        picture.save(files[1], format="PNG")
    batches = data.train_batches(src, Augmentation(), BOXES, order_seed=1, augmentation_seed=2)
    assert isinstance(batches, TrainBatches)
    asked: list[int] = []

    def nvjpeg(jpegs: list[torch.Tensor], **_: object) -> list[torch.Tensor]:
        asked.append(len(jpegs))
        return [decode_jpeg(each) for each in jpegs]

    monkeypatch.setattr(data_torch, "decode_jpeg", nvjpeg)
    found = batches._by_nvjpeg(batches.pictures)
    assert asked == [5]
    for pixels, picture in zip(found, batches.pictures, strict=True):
        assert torch.equal(pixels, pictures.decoded(picture))
    monkeypatch.setattr(data_torch, "decode_jpeg", lambda *_, **__: nvjpeg([torch.zeros(9, dtype=torch.uint8)]))
    for pixels, picture in zip(batches._by_nvjpeg(batches.pictures), batches.pictures, strict=True):
        assert torch.equal(pixels, pictures.decoded(picture))
    files[2].write_bytes(b"no")
    with pytest.raises(RuntimeError, match=r"000000000003\.jpg: "):
        batches._by_nvjpeg(batches.pictures)
    files[2].unlink()
    with pytest.raises(RuntimeError, match=r"000000000003\.jpg: .*No such file"):
        batches._by_nvjpeg(batches.pictures)


def test_a_gpu_s_decoder_takes_a_name_that_is_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI, which takes none, sends its users here."""
    src = source(tmp_path)
    odd = os.fsdecode(os.fsencode(src.images) + b"_caf\xe9")
    src.images.rename(odd)
    src = replace(src, images=Path(odd))
    batches = data.train_batches(src, Augmentation(), BOXES, order_seed=1, augmentation_seed=2)
    assert isinstance(batches, TrainBatches)
    monkeypatch.setattr(data_torch, "decode_jpeg", lambda jpegs, **_: [decode_jpeg(each) for each in jpegs])
    for pixels, picture in zip(batches._by_nvjpeg(batches.pictures), batches.pictures, strict=True):
        assert torch.equal(pixels, pictures.decoded(picture))


def test_a_box_outside_of_its_picture_is_named(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(9, [(8, 8, 24, 20, 1), (70, 10, 20, 20, 1)])])
    src = data.Source(folder.images, folder.annotations, PX, 1, 1, "cpu", 0, 1, True, backend="torch")
    with pytest.raises(
        ValueError, match=r"bbox is \[70, 10, 20, 20\], expected to lie at least in part in 000000000001\.jpg"
    ):
        epoch(src)


def test_an_epoch_that_is_left_makes_no_more_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], data_torch.decoded
    monkeypatch.setattr(
        data_torch, "decoded", lambda picture: (made.append(picture.id), time.sleep(0.05))[1] or original(picture)
    )
    batches = data.train_batches(source(tmp_path, 12), Augmentation(), BOXES, order_seed=1, augmentation_seed=2)
    taken = iter(batches)
    next(taken)
    taken.close()  # type: ignore[attr-defined]
    assert isinstance(batches, data_torch.TorchBatches)
    batches._foreman.shutdown(wait=True)
    assert len(made) <= 6, "the batch under way at most, not the one after it"


def test_batches_are_made_ahead_and_waiting_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = data_torch.decoded
    monkeypatch.setattr(data_torch, "decoded", lambda picture: (made.append(picture.id), original(picture))[1])
    batches = data.train_batches(source(tmp_path, 12), Augmentation(), BOXES, order_seed=1, augmentation_seed=2)
    taken = iter(batches)
    next(taken)
    assert len(made) >= 3
    until = time.monotonic() + PATIENCE_S
    while len(made) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    assert 6 <= len(made) <= 9, "one batch taken, one more is ready before it is asked for, not the whole epoch"


@pytest.mark.long
def test_without_dali_the_configuration_says_what_to_do_and_the_other_backend_trains(tmp_path: Path) -> None:
    """As on a machine where the package is not: its import fails."""
    (tmp_path / "data").mkdir()
    small.folder(tmp_path / "data")
    program = f"""
import sys
sys.modules["nvidia.dali"] = None
from pathlib import Path
from benchmarks.ssd.benchmark import BENCHMARK
from harness import config
from harness.contract import Context, NotSuitable
from tests.ssd import small
here = Context(device="cpu", seed=5, data_dir=Path({str(tmp_path / "data")!r}), threads=1, log_every_steps=1)
def tables(**data):
    return config.parse(small.content(data=data), name="small", source="small").tables
session = BENCHMARK.open(tables(backend="torch"), here)
session.warm_up(); session.load_data()
print(len([x.loss for x in session.train_epoch(1)]), 0 <= session.evaluate(1) <= 1, session.properties()["data_backend"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout.split() == ["3", "True", "torch"], done.stderr


@pytest.mark.parametrize("choice", [{"decode": "whole"}, {"hw_decoder_load": 0.5}])
def test_dali_s_choices_are_refused_for_the_other_backend(choice: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="DALI"):
        Data(source="coco", train_samples=1, eval_samples=1, eval_images_without_boxes=True, backend="torch", **choice)  # type: ignore[arg-type]


def test_a_window_less_than_a_pixel_wide_is_one_pixel_wide() -> None:
    picture = pictures.Picture(
        1, Path("x"), pictures.WHOLE[None], torch.tensor([1]).numpy(), torch.tensor([0.999, 0.0, 1.0, 1.0]).numpy()
    )
    pixels = torch.arange(3 * 5 * 7, dtype=torch.uint8).view(3, 5, 7)
    found = pictures.cut(pixels, picture, 4)
    assert found.shape == (3, 4, 4) and torch.equal(found[:, :, 0], found[:, :, 3])
