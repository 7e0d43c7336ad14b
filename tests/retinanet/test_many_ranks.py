"""RetinaNet on 1, 2 and 4 ranks by gloo: one mAP to the last digit, one gradient, one network after an epoch."""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.detection.gradients import averaged
from benchmarks.retinanet.session import RetinaNetSession
from harness import config
from harness.contract import Context
from tests.retinanet import small
from tests.ssd import coco_folder
from tests.ssd.coco_folder import Picture
from tests.ssd.test_many_ranks import gradients_are_those_of_one_rank, run

WORLDS = (1, 2, 4)
IMAGES = 16  # of a global batch, of an epoch and of an evaluation
GRADIENT_BOUND = 1e-5  # relative: the loss is in float32, whatever the network is in


def session(rank: int, world: int, folder: Path, batch_norm: str = "frozen") -> RetinaNetSession:
    content = small.content(ranks=world, model={"batch_norm": batch_norm}, data={"backend": "torch"})
    content["data"] |= {"train_samples": IMAGES, "eval_samples": IMAGES}
    content["optimizer"]["batch_size"] = IMAGES // world
    read: Any = config.parse(content, name="small", source="small").tables
    context = Context("cpu", rank, rank, world, seed=5, data_dir=folder, threads=1, log_every_steps=1)
    torch.manual_seed(7)  # weights are rank 0's with DDP, and here every world's
    return RetinaNetSession(read, context)


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, ids = tmp_path_factory.mktemp("ranks"), (3, 1, 7)
    for half in ("train2017", "val2017"):
        pictures = [
            Picture(15 * i, [(4 + i, 5, 20 + i, 24, ids[i % 3]), (30, 12 + i, 28, 18, ids[(i + 1) % 3])][: 1 + i % 2])
            for i in range(1, IMAGES + 1)
        ]
        coco_folder.write(path, pictures, categories=ids, half=half)
    return path


def evaluated(rank: int, world: int, folder: Path) -> dict[str, Any]:
    here = session(rank, world, folder, "trained")
    with torch.no_grad():  # so that there are detections: a fresh network gives each class one in a hundred
        last = here.model.head.classification_head.cls_logits
        last.bias.add_(3)
        last.weight.mul_(20)
    here.load_data()
    quality = here.evaluate(1)
    seen = [int(each) for batch in here.evaluation.batches for each in batch["image_ids"].flatten()]
    here.close()
    return {"mAP": quality, "seen": seen}


def gradients(rank: int, world: int, folder: Path) -> dict[str, Tensor]:
    """Of the loss over one global batch, each rank with its part of it; the network in float64."""
    here = session(rank, world, folder)
    model = here.model.double()
    here.network = averaged(model, here.settings.compute, here.phases) if world > 1 else model
    make = torch.Generator().manual_seed(3)
    images = torch.randn(IMAGES, 3, 64, 64, generator=make, dtype=torch.float64)
    corner, size = torch.rand(IMAGES, 5, 2, generator=make) * 0.6, torch.rand(IMAGES, 5, 2, generator=make) * 0.3 + 0.1
    # as many boxes as the image's number, up to five: what an image's sum is divided by is its own
    labels = torch.randint(1, 4, (IMAGES, 5), generator=make) * (torch.arange(5) <= torch.arange(IMAGES)[:, None])
    mine = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    here.forward_loss(images[mine], torch.cat([corner, corner + size], dim=2)[mine], labels[mine]).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def trained(rank: int, world: int, folder: Path) -> dict[str, Any]:
    here = session(rank, world, folder, "trained")
    here.warm_up()
    here.load_data()
    losses = [interval.loss for interval in chain(here.train_epoch(1), here.train_epoch(2))]
    weights = torch.cat([each.detach().flatten() for each in here.model.parameters()])
    quality = here.evaluate(2)
    statistics = [each.running_mean for each in here.model.modules() if isinstance(each, nn.BatchNorm2d)]
    here.close()
    return {
        "losses": losses,
        "mAP": quality,
        "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
        "statistics": torch.cat([each for each in statistics if each is not None]),
    }


@pytest.mark.long
def test_the_same_map_to_the_last_digit_and_each_image_once(sixteen: Path, tmp_path: Path) -> None:
    _linked(tmp_path, sixteen)
    found = {world: run(world, evaluated, tmp_path) for world in WORLDS}
    qualities = {each["mAP"] for ranks in found.values() for each in ranks}
    assert len(qualities) == 1 and 0 < min(qualities) < 1, qualities
    for ranks in found.values():
        assert list(chain.from_iterable(each["seen"] for each in ranks)) == list(range(1, IMAGES + 1))


@pytest.mark.long
def test_the_gradient_of_all_ranks_is_that_of_one_with_the_whole_batch(sixteen: Path, tmp_path: Path) -> None:
    _linked(tmp_path, sixteen)
    gradients_are_those_of_one_rank(gradients, WORLDS, tmp_path, GRADIENT_BOUND)


@pytest.mark.long
def test_two_ranks_have_one_network(sixteen: Path, tmp_path: Path) -> None:
    """After two epochs of their own pictures: the weights, and what batch norm remembers once it is evaluated."""
    _linked(tmp_path, sixteen)
    one, other = run(2, trained, tmp_path)
    assert one["weights"] == other["weights"] and one["mAP"] == other["mAP"]
    assert torch.equal(one["statistics"], other["statistics"])
    assert one["losses"] != other["losses"] and len(one["losses"]) == 2, "each has pictures of its own"


def _linked(place: Path, folder: Path) -> None:
    for part in ("annotations", "train2017", "val2017"):
        (place / part).symlink_to(folder / part)
