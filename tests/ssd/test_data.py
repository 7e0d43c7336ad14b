"""Both data paths, on the CPU and on a GPU: order, shards, boxes, categories, pixels. Each test names its trap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import pipeline_def
from PIL import Image

from benchmarks.ssd import data
from benchmarks.ssd.boxes import cxcywh_to_ltrb, decode, default_boxes
from benchmarks.ssd.config import Augmentation, Model
from tests.ssd import coco_folder
from tests.ssd.coco_folder import Folder, Picture

AS_IT_IS = Augmentation(
    crop_min_iou=(0.0,),
    crop_scale=(1.0, 1.0),
    crop_aspect_ratio=(1.0, 1.0),
    flip_probability=0.0,
    brightness=(1.0, 1.0),
    contrast=(1.0, 1.0),
    saturation=(1.0, 1.0),
    hue_degrees=(0.0, 0.0),
)
PX = 64
BOXES = default_boxes(PX, [8, 4], [8, 16], [12, 24, 48], [[2], [2, 3]])


BACKEND: Literal["dali", "torch"] = "dali"
DEVICE = "cpu"
ROUNDING = 1  # levels of 255 by which two ways to the same pixel may differ


@pytest.fixture(params=["dali", "torch"], autouse=True)
def _both_backends(request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "BACKEND", request.param)
    monkeypatch.setitem(globals(), "DEVICE", device)
    if (
        device != "cpu"
    ):  # nvJPEG's inverse transform is not libjpeg's to the last bit, nor that of the GPU's JPEG engine
        monkeypatch.setitem(globals(), "ROUNDING", 3)


def source(folder: Folder, batch_size: int = 4, **changes: object) -> data.Source:
    base = data.Source(folder.images, folder.annotations, PX, batch_size, 1, DEVICE, 0, 1, True, backend=BACKEND)
    return replace(base, **changes)  # type: ignore[arg-type]


def train(
    src: data.Source, augmentation: Augmentation = AS_IT_IS, order: int = 1, seed: int = 1, **more: bytes
) -> data.TrainBatches:
    return data.train_batches(src, augmentation, BOXES, order_seed=order, augmentation_seed=seed, **more)


def reds(batches: data.Batches) -> list[int]:
    """Which images an epoch brought: their red levels, to the nearest ten."""
    found = []
    for batch in batches:
        found += [round(int(np.median(p[..., 0])) / 10) * 10 for p in data.unnormalise(batch["images"])]
    return found


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """20 images with red levels 10, 20, ... 200 and one box each."""
    pictures = [Picture(10 * i, [(8, 8, 24, 20, 1)]) for i in range(1, 21)]
    return coco_folder.write(tmp_path_factory.mktemp("twenty"), pictures)


def test_order_differs_between_seeds_and_epochs_but_not_between_equal_seeds(twenty: Folder) -> None:
    first, again, other = (train(source(twenty), order=order) for order in (1, 1, 2))
    epoch_1, epoch_2 = reds(first), reds(first)
    assert sorted(epoch_1) == sorted(epoch_2) == list(range(10, 210, 10))
    assert epoch_1 != epoch_2
    assert [reds(again), reds(again)] == [epoch_1, epoch_2]
    assert reds(other) != epoch_1


def test_order_does_not_follow_the_augmentation_seed(twenty: Folder) -> None:
    assert reds(train(source(twenty), seed=1)) == reds(train(source(twenty), seed=2))


def test_shards_deal_out_one_order_without_overlap_in_every_epoch(twenty: Folder) -> None:
    ranks = [train(source(twenty, 5, shard=shard, shards=2), seed=shard) for shard in range(2)]
    for _ in range(3):
        parts = [reds(rank) for rank in ranks]
        assert [len(part) for part in parts] == [10, 10]
        assert sorted(parts[0] + parts[1]) == list(range(10, 210, 10))


@pytest.mark.parametrize("batch_size", [9, 10])
def test_training_has_equal_whole_batches_where_shards_straddle_one(
    twenty: Folder, tmp_path: Path, batch_size: int
) -> None:
    # 19 images in 2 shards are 9 and 10: with a batch of 10 one shard cannot fill it, with 9 one has a batch and a bit
    folder = coco_folder.write(tmp_path, [Picture(10 * i, [(8, 8, 24, 20, 1)]) for i in range(1, 20)])
    ranks = [train(source(folder, batch_size, shard=shard, shards=2)) for shard in range(2)]
    for _ in range(4):
        sizes = [[len(batch["images"]) for batch in rank] for rank in ranks]
        assert sizes == ([[9], [9]] if batch_size == 9 else [[], []])


@pytest.mark.parametrize(
    ("images", "shards", "batch_size", "whole"),
    [(19, 1, 4, 4), (23, 3, 2, 3), pytest.param(21, 2, 5, 2, id="one shard ends with a batch, the other does not")],
)
def test_an_epoch_has_no_image_twice_however_many_went_before(
    tmp_path: Path, images: int, shards: int, batch_size: int, whole: int
) -> None:
    """What a whole batch left over was missing, and the next epoch began with it: by the twentieth a fifth came twice."""
    folder = coco_folder.write(tmp_path, [Picture(10 * i, [(8, 8, 24, 20, 1)]) for i in range(1, images + 1)])
    sources = [source(folder, batch_size, shard=shard, shards=shards) for shard in range(shards)]
    ranks = [train(each) for each in sources]
    left_out = set()
    for epoch in range(12):
        if epoch == 6:
            ranks = [train(each, checkpoint=rank.state()) for each, rank in zip(sources, ranks, strict=True)]
        parts = [reds(rank) for rank in ranks]
        assert [len(part) for part in parts] == [whole * batch_size] * shards
        seen = set().union(*parts)
        assert len(seen) == whole * batch_size * shards
        left_out |= {10 * i for i in range(1, images + 1)} - seen
    assert len(left_out) > images - whole * batch_size * shards, "others each time"


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [7, 22])
def test_evaluation_gives_every_image_once(tmp_path: Path, shards: int, batch_size: int) -> None:
    ids = list(range(100, 100 + 3 * 45, 3))
    pictures = [Picture(50, [(8, 8, 24, 20, 1)] if i % 4 else [], id=i) for i in ids]
    folder = coco_folder.write(tmp_path, pictures, half="val2017")
    ranks = [
        data.eval_batches(source(folder, batch_size, shard=shard, shards=shards, skip_empty=False))
        for shard in range(shards)
    ]
    for _ in range(2):
        found = [int(i) for rank in ranks for batch in rank for i in batch["image_ids"].flatten()]
        assert sorted(found) == ids


def test_equal_seeds_give_equal_bits_for_any_number_of_threads(twenty: Folder) -> None:
    one, two = (train(source(twenty, threads=threads), Augmentation()) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name


def test_augmentation_differs_between_ranks_seeds_and_epochs(twenty: Folder) -> None:
    first, other = (train(source(twenty, 20), Augmentation(), seed=seed) for seed in (1, 2))
    a, b = next(iter(first)), next(iter(other))
    (c,) = first  # the next epoch: its one batch
    assert not torch.equal(a["images"], b["images"]) and not torch.equal(a["images"], c["images"])


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(twenty: Folder) -> None:
    straight = train(source(twenty), Augmentation())
    reds(straight)
    state = straight.state()
    resumed = train(source(twenty), Augmentation(), seed=99, checkpoint=state)
    for a, b in zip(straight, resumed, strict=True):
        assert torch.equal(a["images"], b["images"]) and torch.equal(a["offsets"], b["offsets"])


def test_boxes_beyond_the_rim_are_clamped_and_do_not_stop_the_pipeline(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(90, [(32, 24, 32.4, 24.01, 1)]), Picture(90, [(-3, -2, 40, 30, 1)])])
    for _ in range(5):
        for batch in train(source(folder, 2), Augmentation()):
            assert torch.isfinite(batch["offsets"]).all()
    (batch,) = train(source(folder, 2))
    found = decoded(batch)
    assert sorted(found.round(decimals=2).unique(dim=0).tolist()) == [
        pytest.approx([0.0, 0.0, 0.58, 0.58], abs=0.01),
        pytest.approx([0.5, 0.5, 1.0, 1.0], abs=0.01),
    ]


def test_boxes_of_less_than_a_tenth_of_a_pixel_do_not_train_and_images_with_only_such_are_left_out(
    tmp_path: Path,
) -> None:
    pictures = [
        Picture(90, [(8, 8, 0.05, 20, 1)]),
        Picture(100, [(8, 8, 24, 20, 1), (30, 30, 0.01, 5, 1)]),
        Picture(9, []),
    ]
    batches = train(source(coco_folder.write(tmp_path, pictures), 1))
    assert batches.samples == 1
    (batch,) = batches
    assert torch.isfinite(batch["offsets"]).all()
    expected = torch.tensor([[8 / 64, 8 / 48, 32 / 64, 28 / 48]])
    torch.testing.assert_close(decoded(batch), expected.expand_as(decoded(batch)), atol=1e-5, rtol=0)


def decoded(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(P, 4) ltrb of all matched default boxes."""
    return decode(batch["offsets"].cpu(), BOXES)[batch["labels"].cpu() > 0]


@pytest.mark.parametrize(
    "categories",
    [(0, 1, 2), (1, 2, 3), (7, 3, 90), (90, 13, 0)],
    ids=["from 0", "from 1", "gaps", "descending, with 0"],
)
def test_categories_become_1_to_k_and_come_back(tmp_path: Path, categories: tuple[int, ...]) -> None:
    from benchmarks.detection.quality.coco import GroundTruth

    pictures = [Picture(10 + 60 * i, [(8, 8, 24, 20, c)]) for i, c in enumerate(categories)]
    folder = coco_folder.write(tmp_path, pictures, categories)
    truth = GroundTruth.load(folder.annotations)
    seen = {}
    for batch in train(source(folder, 1)):
        (label,) = batch["labels"][batch["labels"] > 0].unique().tolist()
        red = round((int(np.median(data.unnormalise(batch["images"])[..., 0])) - 10) / 60)
        seen[categories[red]] = truth.category_ids[label - 1]
    assert seen == {c: c for c in categories}


def test_a_flip_mirrors_picture_and_boxes_alike(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(120, [(4, 6, 20, 30, 1)])])
    (plain,) = train(source(folder, 1))
    (flipped,) = train(source(folder, 1), replace_augmentation(flip_probability=1.0))
    pictures = [data.unnormalise(batch["images"])[0].astype(int) for batch in (plain, flipped)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 20
    assert np.abs(pictures[0][:, ::-1] - pictures[1]).max() <= ROUNDING
    left, top, right, bottom = decoded(plain)[0].tolist()
    assert (left, top, right, bottom) == pytest.approx((4 / 64, 6 / 48, 24 / 64, 36 / 48), abs=1e-5)
    assert decoded(flipped)[0].tolist() == pytest.approx((1 - right, top, 1 - left, bottom), abs=1e-5)


def replace_augmentation(**changes: object) -> Augmentation:
    return AS_IT_IS.model_copy(update=changes)


def test_crops_move_boxes_with_the_picture(tmp_path: Path) -> None:
    """The box covers exactly the pixels whose green and blue lie in known ranges, whatever the window."""
    folder = coco_folder.write(tmp_path, [Picture(120, [(16, 12, 32, 24, 1)])] * 8)
    augmentation = replace_augmentation(crop_min_iou=(0.3,), crop_scale=(0.5, 1.0), crop_aspect_ratio=(0.5, 2.0))
    checked = 0
    for _ in range(4):
        for batch in train(source(folder, 8), augmentation, seed=checked + 1):
            for picture, label, offset in zip(
                data.unnormalise(batch["images"]),
                batch["labels"].cpu(),
                decode(batch["offsets"].cpu(), BOXES),
                strict=True,
            ):
                if not (label > 0).any():
                    continue
                left, top, right, bottom = offset[label > 0][0].mul(PX).tolist()
                green, blue = np.median(picture[..., 1], axis=0), np.median(picture[..., 2], axis=1)
                inside_x = np.flatnonzero((green >= 255 * 16 / 63) & (green <= 255 * 47 / 63))
                inside_y = np.flatnonzero((blue >= 255 * 12 / 47) & (blue <= 255 * 35 / 47))
                assert (left, right) == pytest.approx((inside_x[0], inside_x[-1] + 1), abs=2.5)
                assert (top, bottom) == pytest.approx((inside_y[0], inside_y[-1] + 1), abs=2.5)
                checked += 1
    assert checked >= 20


def test_the_zoom_out_moves_boxes_with_the_picture_onto_a_grey_canvas(tmp_path: Path) -> None:
    """The picture covers what is not the canvas's level; the box is where it was in it; half of them stay as they are."""
    folder = coco_folder.write(tmp_path, [Picture(250, [(0, 0, 64, 48, 1)])] * 8)
    zoomed, checked, shares = replace_augmentation(expand_probability=0.5, expand_most=2.0), 0, []
    for epoch in range(12):
        for batch in train(source(folder, 8), zoomed, seed=epoch):
            for picture, label, offset in zip(
                data.unnormalise(batch["images"]),
                batch["labels"].cpu(),
                decode(batch["offsets"].cpu(), BOXES),
                strict=True,
            ):
                left, top, right, bottom = offset[label > 0][0].mul(PX).tolist()
                red = picture[..., 0] > 190  # between the canvas's 124 and the picture's 250
                columns, rows = np.flatnonzero(red.any(axis=0)), np.flatnonzero(red.any(axis=1))
                assert (left, right) == pytest.approx((columns[0], columns[-1] + 1), abs=1.5)
                assert (top, bottom) == pytest.approx((rows[0], rows[-1] + 1), abs=1.5)
                shares.append(red.mean())
                beyond = picture[~red & (np.abs(picture[..., 0].astype(int) - 124) < 20)]
                if len(beyond) > 200:
                    assert np.median(beyond, axis=0).tolist() == pytest.approx((124, 116, 104), abs=ROUNDING)
                    checked += 1
    whole = np.mean(np.array(shares) > 0.99)
    assert checked > 20 and 0.3 < whole < 0.7
    # of those that are zoomed, the sides are 1/U(1, 2): a half of the picture's area is the mean of 1/t**2
    assert np.mean([each for each in shares if each <= 0.99]) == pytest.approx(0.5, abs=0.08)


def test_grey_files_decode_to_three_equal_channels(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(120, [(8, 8, 24, 20, 1)], grey=True)])
    for batches in (train(source(folder, 1)), data.eval_batches(source(folder, 1))):
        (batch,) = batches
        picture = data.unnormalise(batch["images"])[0].astype(int)
        assert picture.std() > 10
        assert np.abs(picture - picture[..., :1]).max() <= ROUNDING


def test_a_png_that_is_called_jpg_is_read_as_one_of_coco_s_is(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(120, [(8, 8, 24, 20, 1)])])
    (before,) = train(source(folder, 1))
    (file,) = folder.images.iterdir()
    with Image.open(file) as picture:
        picture.save(file, format="PNG")
    (after,) = train(source(folder, 1))
    assert np.abs(data.unnormalise(before["images"]).astype(int) - data.unnormalise(after["images"])).max() <= ROUNDING


def test_a_camera_s_orientation_does_not_turn_a_picture_away_from_its_boxes(tmp_path: Path) -> None:
    folder = coco_folder.write(tmp_path, [Picture(120, [(8, 8, 24, 20, 1)])])
    (before,) = train(source(folder, 1))
    (file,) = folder.images.iterdir()
    with Image.open(file) as picture:
        turned = picture.getexif()
        turned[0x0112] = 6  # Orientation: to be shown turned by 90 degrees
        picture.save(file, format="JPEG", quality=98, subsampling=0, exif=turned)
    (after,) = train(source(folder, 1))
    assert np.abs(data.unnormalise(before["images"]).astype(int) - data.unnormalise(after["images"])).mean() < 2


def test_contrast_pivots_on_mid_grey_and_brightness_scales(twenty: Folder) -> None:
    (plain,), (strong,), (bright,) = (
        [next(iter(train(source(twenty, 20), replace_augmentation(**change))))]
        for change in ({}, {"contrast": (1.5, 1.5)}, {"brightness": (1.1, 1.1)})
    )
    before, contrast, brightness = (data.unnormalise(b["images"]).astype(float) for b in (plain, strong, bright))
    np.testing.assert_allclose(contrast, np.clip((before - 128) * 1.5 + 128, 0, 255), atol=2.5)
    np.testing.assert_allclose(brightness, np.clip(before * 1.1, 0, 255), atol=2.5)


def test_pixels_are_pil_s_on_real_photographs(test_data: Path) -> None:
    folder = test_data / "coco256"
    src = data.Source(
        folder / "val2017", folder / "annotations/instances_val2017.json", 300, 16, 1, DEVICE, 0, 1, skip_empty=False,
        backend=BACKEND,
    )  # fmt: skip
    batch = next(iter(data.eval_batches(src)))
    differences = []
    for image_id, found in zip(batch["image_ids"].flatten().tolist(), data.unnormalise(batch["images"]), strict=True):
        with Image.open(folder / "val2017" / f"{image_id:012d}.jpg") as file:
            expected = file.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
        differences.append(np.abs(found.astype(float) - np.asarray(expected, dtype=float)))
    assert np.mean(differences) < (0.3 if DEVICE == "cpu" else 1.0)  # levels; without antialiasing it is 2.9
    assert np.percentile(differences, 99) <= 1.5 * ROUNDING


# --- matching: DALI's encoder against a slow version of the definition -----------------------------------------------


def slow_match(truth_ltrb: npt.NDArray[np.float64], anchors_ltrb: npt.NDArray[np.float64]) -> list[set[int]]:
    """For each default box, the ground-truth boxes it may stand for (-1: none); several where overlaps tie."""
    iou = np.zeros((len(truth_ltrb), len(anchors_ltrb)))
    for g, truth in enumerate(truth_ltrb):
        for a, anchor in enumerate(anchors_ltrb):
            w = min(truth[2], anchor[2]) - max(truth[0], anchor[0])
            h = min(truth[3], anchor[3]) - max(truth[1], anchor[1])
            if w > 0 and h > 0:
                union = np.prod(truth[2:] - truth[:2]) + np.prod(anchor[2:] - anchor[:2]) - w * h
                iou[g, a] = w * h / union
    allowed: list[set[int]] = []
    tie = 1e-5
    forced_certain, forced_possible = set(), {}
    for g in range(len(truth_ltrb)):
        best = np.flatnonzero(iou[g] >= iou[g].max() - tie)
        for a in best:
            forced_possible.setdefault(int(a), set()).add(g)
        if len(best) == 1:
            forced_certain.add(int(best[0]))
    for a in range(len(anchors_ltrb)):
        top = iou[:, a].max()
        ordinary = set(np.flatnonzero(iou[:, a] >= top - tie).tolist()) if top > 0.5 - tie else set()
        options = ordinary | ({-1} if top <= 0.5 + tie else set())
        if a in forced_certain:
            options = set()
        allowed.append(options | forced_possible.get(a, set()))
    return allowed


def test_matching_and_offsets_against_the_definition_in_float64(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures, truths = [], []
    for i in range(12):
        corner, extent = rng.uniform(0, 0.5, (4, 2)), rng.uniform(0.08, 0.5, (4, 2))
        px = np.concatenate([corner, extent], axis=1) * [64, 48, 64, 48]
        truths.append(np.concatenate([px[:, :2], px[:, :2] + px[:, 2:]], axis=1) / [64, 48, 64, 48])
        pictures.append(Picture(10 + 20 * i, [(*box, j % 3 + 1) for j, box in enumerate(px.tolist())]))  # type: ignore[misc]
    folder = coco_folder.write(tmp_path, pictures, categories=(1, 2, 3))
    anchors = BOXES.double()
    corners = cxcywh_to_ltrb(anchors).numpy()
    matched = 0
    for batch in train(source(folder, 1)):
        which = round((int(np.median(data.unnormalise(batch["images"])[..., 0])) - 10) / 20)
        truth = truths[which]
        allowed = slow_match(truth, corners)
        found = decode(batch["offsets"][0].cpu().double(), anchors).numpy()
        for a, label in enumerate(batch["labels"][0].tolist()):
            if label == 0:
                assert -1 in allowed[a], f"image {which}, default box {a} must be matched"
                continue
            nearest = int(np.abs(truth - found[a]).sum(axis=1).argmin())
            assert nearest in allowed[a] and label == nearest % 3 + 1
            np.testing.assert_allclose(found[a], truth[nearest], atol=2e-5)
            matched += 1
    assert matched > 60


def areas_by_dali(src: data.Source, epochs: int, windows_of: Augmentation) -> Iterator[npt.NDArray[Any]]:
    from benchmarks.detection.data_path.data_dali import reader
    from benchmarks.ssd import data_dali

    @pipeline_def(batch_size=126, num_threads=1, device_id=None, seed=4)
    def windows() -> object:
        _, boxes, labels = reader(src)
        _, size, _, _ = data_dali._random_crop(boxes, labels, windows_of)
        return size

    pipe = windows()
    for _ in range(epochs):
        yield np.prod(pipe.run()[0].as_array(), axis=1)


def areas_by_numpy(src: data.Source, epochs: int, windows_of: Augmentation) -> Iterator[npt.NDArray[Any]]:
    from benchmarks.detection.data_path.pictures import read
    from benchmarks.ssd import augmentation

    pictures, rng = read(src), np.random.default_rng(4)
    for _ in range(epochs):
        windows = np.stack([augmentation.random_window(rng, each.ltrb, windows_of)[0] for each in pictures])
        yield np.prod(windows[:, 2:] - windows[:, :2], axis=1)


@pytest.mark.parametrize(
    ("windows_of", "whole", "mean_area"),
    [
        pytest.param(Augmentation(), 0.523, 0.746, id="as MLPerf's reference draws them"),
        # a transcription of its sampler.cpp, which draws size and shape, not width and height: 0.22 to 0.25, and 0.605
        pytest.param(Augmentation(crop_boxes="any", crop_attempts=50), 0.235, 0.6, id="as the paper's own code does"),
    ],
)
def test_crop_statistics_on_real_boxes(
    test_data: Path, windows_of: Augmentation, whole: float, mean_area: float
) -> None:
    """How many windows are whole images, and the mean share of an image."""
    folder = test_data / "coco256"
    src = data.Source(
        folder / "train2017", folder / "annotations/instances_train2017.json", 300, 126, 1, DEVICE, 0, 1, True
    )

    areas = np.concatenate(list((areas_by_dali if BACKEND == "dali" else areas_by_numpy)(src, 40, windows_of)))
    assert np.mean(areas == 1) == pytest.approx(whole, abs=0.02)  # 5,040 draws: standard error 0.007
    assert areas.mean() == pytest.approx(mean_area, abs=0.015)


def test_reference_geometry_reaches_the_encoder(twenty: Folder) -> None:
    model = Model(initial_weights="imagenet", categories=80)
    boxes = default_boxes(300, model.feature_sizes, model.steps_px, model.scales_px, model.aspect_ratios)
    batches = data.train_batches(
        source(twenty, 2, image_px=300), Augmentation(), boxes, order_seed=1, augmentation_seed=1
    )
    batch = next(iter(batches))
    assert batch["images"].shape == (2, 3, 300, 300)
    assert {tensor.device for tensor in batch.values()} == {torch.device(DEVICE)}
    assert (batch["offsets"].shape, batch["labels"].shape) == ((2, 8732, 4), (2, 8732))
