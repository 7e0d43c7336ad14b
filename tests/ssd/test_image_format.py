"""Choices of the data graph that must not change what is trained: decoding whole or in part, number format, layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def
from torch import Tensor

from benchmarks.detection.data_path import image_format
from benchmarks.detection.data_path.data_dali import decoding_of
from benchmarks.ssd import augmentation, data, data_dali
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.folder import Folder
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context
from tests.ssd import coco_folder, small
from tests.ssd.coco_folder import Picture
from tests.ssd.test_data import AS_IT_IS, BOXES, PX


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def of_coco256(test_data: Path, **changes: Any) -> data.Source:
    where = test_data / "coco256"
    base = data.Source(
        where / "train2017", where / "annotations/instances_train2017.json", PX, 42, 1, "cpu", 0, 1, skip_empty=True
    )
    return replace(base, **changes)


def epoch(source: data.Source, augmentation: Augmentation) -> list[dict[str, Tensor]]:
    return list(data.train_batches(source, augmentation, BOXES, order_seed=1, augmentation_seed=1))


def with_crops_alone() -> Augmentation:
    """Crops and flips as v0.7 has them, colours as they are, so that a difference of pixels stays what it is."""
    random = Augmentation()
    return AS_IT_IS.model_copy(
        update={
            name: getattr(random, name)
            for name in ("crop_min_iou", "crop_scale", "crop_aspect_ratio", "flip_probability")
        }
    )


def test_decoding_whole_gives_the_same_batches(test_data: Path) -> None:
    """Boxes equal to the bit; pixels equal except for the chroma and the resize filter at the crop's rim."""
    region, whole = (epoch(of_coco256(test_data, whole=whole), with_crops_alone()) for whole in (False, True))
    assert len(region) == len(whole) == 3
    for a, b in zip(region, whole, strict=True):
        assert torch.equal(a["labels"], b["labels"]) and torch.equal(a["offsets"], b["offsets"])
        levels = [torch.from_numpy(data.unnormalise(x["images"])).float() for x in (a, b)]
        assert (levels[0] - levels[1]).abs().max() <= 1


def test_half_precision_hwc4_is_the_plain_batch_rounded_to_half(test_data: Path) -> None:
    plain, half = (
        epoch(of_coco256(test_data, image_format=form), Augmentation()) for form in ("fp32_chw", "fp16_hwc4")
    )
    assert len(plain) == len(half) == 3
    for a, b in zip(plain, half, strict=True):
        assert torch.equal(a["labels"], b["labels"]) and torch.equal(a["offsets"], b["offsets"])
        assert b["images"].shape == (42, PX, PX, 4) and b["images"].dtype == torch.float16
        assert torch.equal(b["images"][..., :3].permute(0, 3, 1, 2), a["images"].half())
        assert (b["images"][..., 3] == 0).all()


@pytest.fixture(scope="module")
def patterned(tmp_path_factory: pytest.TempPathFactory, gpu: str) -> data.Source:
    """Twelve pictures, decoded by CUDA alone: a JPEG engine's pixels are not CUDA's to the last bit."""
    pictures = [Picture(15 * i, [(4 + i, 5, 20 + i, 24, 1), (30, 12 + i, 28, 18, 1)]) for i in range(1, 13)]
    where = coco_folder.write(tmp_path_factory.mktemp("patterned"), pictures)
    return data.Source(where.images, where.annotations, PX, 2, 2, gpu, 0, 1, skip_empty=True, hw_decoder_load=0.0)


@pytest.mark.parametrize("form", ["fp32_chw", "fp16_hwc4"])
def test_a_batch_stays_whole_however_late_the_device_reads_it(
    patterned: data.Source, form: image_format.ImageFormat
) -> None:
    """The host asks for reading, lets the batch go, and takes the next: DALI has all of an epoch to write over it."""
    source = replace(patterned, image_format=form)
    at_once = [batch["images"].double().sum().item() for batch in epoch(source, Augmentation())]
    late = []
    for batch in data.train_batches(source, Augmentation(), BOXES, order_seed=1, augmentation_seed=1):
        torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second
        late.append(batch["images"].double().sum())
        del batch
    assert [each.item() for each in late] == at_once
    assert len(set(at_once)) == 6


def test_the_changes_are_dali_s_own() -> None:
    """Of any draw, beyond what training draws: levels that its operator makes, but for a rounding here and there."""
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    drawn = [(1.1, 0.6, 18.0, 1.4), (0.9, 1.5, -18.0, 0.5), (1.0, 1.0, 0.0, 1.0)]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def twisted(brightness: float, contrast: float, hue: float, saturation: float) -> Any:
        image = fn.external_source(source=lambda: [levels], batch=True)
        return fn.color_twist(image, brightness=brightness, contrast=contrast, hue=hue, saturation=saturation)

    for brightness, contrast, hue, saturation in drawn:
        (found,) = twisted(brightness, contrast, hue, saturation).run()
        colour = torch.from_numpy(augmentation.colour(brightness, contrast, saturation, hue))[None]
        ours = augmentation.coloured(torch.from_numpy(levels)[None].permute(0, 3, 1, 2), colour)[0].permute(1, 2, 0)
        difference = np.abs(ours.numpy() - found.as_array()[0].astype(float))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_evaluation_pictures_in_half_precision(test_data: Path) -> None:
    source = of_coco256(test_data)
    (a, *_), (b, *_) = (
        list(data.eval_batches(replace(source, image_format=form))) for form in ("fp32_chw", "fp16_hwc4")
    )
    assert torch.equal(b["images"][..., :3].permute(0, 3, 1, 2), a["images"].half())


def test_what_arrives_in_the_network_s_layout_is_not_copied() -> None:
    last = torch.channels_last
    cpu = torch.device("cpu")
    plain, half = (image_format.blank(form, 2, 8, cpu) for form in ("fp32_chw", "fp16_hwc4"))
    found = image_format.network_input(half, "fp16_hwc4", last, torch.bfloat16)
    assert found.data_ptr() == half.data_ptr() and found.shape == (2, 4, 8, 8)
    assert found.is_contiguous(memory_format=last)
    assert image_format.network_input(plain, "fp32_chw", torch.contiguous_format, None).data_ptr() == plain.data_ptr()
    assert image_format.network_input(plain, "fp32_chw", last, None).is_contiguous(memory_format=last)
    assert image_format.network_input(half, "fp16_hwc4", last, None).dtype == torch.float32


def test_noise_is_the_same_in_either_form_and_takes_no_random_numbers() -> None:
    cpu, before = torch.device("cpu"), torch.get_rng_state()
    plain, half = (image_format.noise(form, 2, 8, cpu) for form in ("fp32_chw", "fp16_hwc4"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(half[..., :3].permute(0, 3, 1, 2), plain.half()) and not half[..., 3].any()
    assert plain.min() < -1.9 and plain.max() > 2.4 and torch.equal(plain, image_format.noise("fp32_chw", 2, 8, cpu))


@pytest.mark.parametrize(("precision", "channels_last"), [("fp32", True), ("bf16", True), ("fp32", False)])
def test_a_session_trains_alike_on_either(folder: Path, precision: str, channels_last: bool) -> None:
    first = []
    for form in ("fp32_chw", "fp16_hwc4"):
        compute = {"precision": precision, "channels_last": channels_last}
        raw = small.content(data={"image_format": form}, compute=compute, model=small.OF_32_PX)
        tables: Any = config.parse(raw, name="small", source="small").tables
        torch.manual_seed(5)
        session = SSDSession(tables, Context(device="cpu", seed=5, data_dir=folder, log_every_steps=1))
        session.warm_up()
        session.load_data()
        # the first step is at learning rate 0, so that two losses are of one and the same network
        first.append([interval.loss for interval in session.train_epoch(1, 2)])
        assert 0 <= session.evaluate(1) <= 1
        session.close()
    assert len(first[0]) == 2
    assert first[0] == pytest.approx(first[1], rel=2e-3 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("choices", [{}, {"whole": True}, {"image_format": "fp16_hwc4"}], ids=str)
def test_a_gpu_s_graph_does_all_of_a_batch_there_and_draws_in_one_order(folder: Path, choices: dict[str, Any]) -> None:
    """As DALI is told, which needs no GPU. What draws gets its seed by its place among all that do."""
    where = folder / "train2017", folder / "annotations/instances_train2017.json"
    source = replace(data.Source(*where, PX, 2, 1, "cuda:0", 0, 1, skip_empty=True), **choices)
    told = {"batch_size": 2, "num_threads": 1, "device_id": 0, "seed": 1}
    graph = data_dali._train_graph(source, Augmentation(), [0.0, 0.0, 1.0, 1.0], 1, "nowhere", **told)
    graph._build_graph()
    named = [(each.name.strip("_").rpartition("_")[0], each.outputs) for each in graph._ops]
    heavy = {"BoxEncoder", "ImageSlice", "Image", "Slice", "Resize", "ColorTwist", "CropMirrorNormalize"}
    found = {name: {each.device for each in outputs} for name, outputs in named if name in heavy}
    assert len(found) >= 5 and set().union(*found.values()) == {"gpu"}
    assert [each.device for each in graph._graph_outputs] == ["gpu", "gpu", "gpu"]
    drawing = [name for name, _ in named if name in ("RandomBBoxCrop", "Uniform", "CoinFlip")]
    assert drawing == ["RandomBBoxCrop", *["Uniform"] * 4, "CoinFlip"]


def test_the_decoder_s_choices_reach_the_graph(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a GPU acts on is at least asked for: hw_decoder_load, whole or region."""
    seen: list[data.Source] = []
    monkeypatch.setattr(data, "train_batches", lambda source, *_, **__: seen.append(source))
    raw = small.content(data={"decode": "whole", "hw_decoder_load": 0.9, "image_format": "fp16_hwc4"})
    tables: Any = config.parse(raw, name="small", source="small").tables
    Folder(tables, Context(device="cpu", data_dir=folder)).train_batches(BOXES)
    assert (seen[0].whole, seen[0].hw_decoder_load, seen[0].image_format) == (True, 0.9, "fp16_hwc4")
    on_a_gpu = decoding_of(replace(seen[0], device="cuda:0"))
    assert (on_a_gpu["device"], on_a_gpu["hw_decoder_load"]) == ("mixed", 0.9)
