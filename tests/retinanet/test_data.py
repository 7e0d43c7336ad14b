"""RetinaNet's training batches, DALI's and those without it by the same tests: pictures and boxes that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.detection.data_path.data import Source, TrainBatches, eval_batches
from benchmarks.detection.data_path.normalisation import unnormalise
from benchmarks.retinanet import data
from benchmarks.retinanet.config import Augmentation
from tests.ssd import coco_folder
from tests.ssd.coco_folder import Folder, Picture

PX = 64
BACKENDS = ["dali", "torch"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """11 pictures of which the i-th has i % 3 + 1 boxes, one beside the other; red tells which it is."""
    boxes = [(4.0, 6.0, 12.0, 20.0), (24.0, 10.0, 16.0, 30.0), (48.0, 2.0, 10.0, 8.0)]
    pictures = [Picture(20 * i, [(*box, 1 + k) for k, box in enumerate(boxes[: i % 3 + 1])]) for i in range(1, 12)]
    return coco_folder.write(tmp_path_factory.mktemp("eleven"), pictures, categories=(1, 2, 3))


@pytest.fixture(params=BACKENDS)
def source(folder: Folder, request: pytest.FixtureRequest) -> Source:
    return Source(
        folder.images, folder.annotations, PX, 4, 1, "cpu", 0, 1, True, backend=request.param, antialias=False
    )  # fmt: skip


def batches(source: Source, flip: float = 0.5, seed: int = 1, checkpoint: bytes | None = None) -> TrainBatches:
    augmentation = Augmentation(flip_probability=flip)
    return data.train_batches(source, augmentation, order_seed=seed, augmentation_seed=seed, checkpoint=checkpoint)


def rows(epoch: Iterator[dict[str, Tensor]]) -> list[tuple[np.ndarray, Tensor, Tensor]]:  # type: ignore[type-arg]
    """Picture (S, S, 3), boxes (G, 4) and labels (G,) of each image, what fills up left out."""
    found = []
    for batch in epoch:
        pictures = unnormalise(batch["images"])
        for picture, ltrb, labels in zip(pictures, batch["ltrb"], batch["labels"], strict=True):
            found.append((picture, ltrb[labels > 0], labels[labels > 0]))
    return found


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_go_where_the_picture_goes(source: Source, flip: float) -> None:
    found = rows(iter(batches(source, flip)))
    assert len(found) == 8, "the last three make no whole batch"
    for picture, ltrb, labels in found:
        number = round(picture[..., 0].mean() / 20)
        assert labels.tolist() == [1, 2, 3][: number % 3 + 1], "each picture has its own boxes"
        left, right = picture[:, :4, 1].mean(), picture[:, -4:, 1].mean()
        assert (left > right) == bool(flip), "green rises to the right, and to the left in a mirror"
        expected = torch.tensor([[4, 6, 16, 26], [24, 10, 40, 40], [48, 2, 58, 10]])[: len(labels)] / torch.tensor(
            [64, 48, 64, 48]
        )
        if flip:
            expected = torch.stack([1 - expected[:, 2], expected[:, 1], 1 - expected[:, 0], expected[:, 3]], dim=1)
        torch.testing.assert_close(ltrb, expected, atol=1e-5, rtol=0)


def test_a_batch_is_as_wide_as_its_fullest_image(source: Source) -> None:
    for batch in batches(source):
        assert batch["images"].shape == (4, 3, PX, PX) and batch["images"].dtype == torch.float32
        there = batch["labels"] > 0
        assert batch["ltrb"].shape == (4, int(there.sum(dim=1).max()), 4) and there[:, 0].all()
        assert not batch["ltrb"][~there].any()


def test_half_of_the_pictures_are_mirrored_and_each_epoch_has_another_order(source: Source) -> None:
    made = batches(replace(source, batch_size=1))
    epochs = [rows(iter(made)) for _ in range(8)]
    mirrored = [picture[:, :4, 1].mean() > picture[:, -4:, 1].mean() for epoch in epochs for picture, *_ in epoch]
    assert 24 < sum(mirrored) < 64, f"{sum(mirrored)} of 88"
    orders = {tuple(round(picture[..., 0].mean() / 20) for picture, *_ in epoch) for epoch in epochs}
    assert len(orders) == 8 and {tuple(sorted(order)) for order in orders} == {tuple(range(1, 12))}


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(source: Source) -> None:
    straight = batches(source)
    rows(iter(straight))
    again = batches(source, checkpoint=straight.state())
    for mine, other in zip(straight, again, strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in ("images", "ltrb", "labels"))


def test_ranks_share_an_epoch(source: Source) -> None:
    parts = [rows(iter(batches(replace(source, batch_size=2, shard=shard, shards=2)))) for shard in range(2)]
    numbers = [{round(picture[..., 0].mean() / 20) for picture, *_ in part} for part in parts]
    assert len(numbers[0]) == len(numbers[1]) == 4 and not numbers[0] & numbers[1]


def test_both_see_one_picture_and_it_is_interpolated_as_the_reference_does(folder: Folder) -> None:
    """Between four pixels whatever the scale: PyTorch's interpolate without antialiasing, to a level of rounding."""
    found = {}
    for name in BACKENDS:
        half = Source(
            folder.images, folder.annotations, 40, 11, 1, "cpu", 0, 1, True, backend=name, antialias=False
        )  # fmt: skip
        (batch,) = eval_batches(half)
        found[name] = unnormalise(batch["images"]).astype(int)
    assert np.abs(found["dali"] - found["torch"]).max() <= 1
    whole = Source(folder.images, folder.annotations, 64, 11, 1, "cpu", 0, 1, True, backend="torch")
    smooth = Source(folder.images, folder.annotations, 40, 11, 1, "cpu", 0, 1, True, backend="torch")
    assert whole.antialias and smooth.antialias, "what other detectors do stays as it is"


def test_the_folder_s_antialias_is_the_configuration_s(tmp_path: Path) -> None:
    from typing import Any

    from benchmarks.retinanet.session import Folder as OfRun
    from harness import config
    from harness.contract import Context
    from tests.retinanet import small
    from tests.ssd import small as ssd_small

    path = ssd_small.folder(tmp_path)
    for wanted in (False, True):
        raw = small.content(data={"antialias": wanted})
        tables: Any = config.parse(raw, name="small", source="small").tables
        assert OfRun(tables, Context("cpu", data_dir=path)).train_source.antialias is wanted
