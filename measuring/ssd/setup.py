"""What measuring.ssd measures on: a configuration as this machine can run it, a data set repeated to a length."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from benchmarks.detection.embedded import dataset as embedded
from benchmarks.detection.quality import coco
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.model import FusedHead
from benchmarks.ssd.session import SSDSession
from harness import config as configurations
from harness import config_files
from harness.contract import Context
from measuring.measure import synchronise

# As PyTorch runs a model that nobody has changed; cuDNN tries its plans for both alike (compute.autotune)
PLAIN: dict[str, Any] = {
    "precision": "fp32",
    "channels_last": False,
    "compile": False,
    "cuda_graphs": False,
    "stem": "direct",
    "fused": [],
}
LEARNING_RATE = 1e-3  # of a batch of a few images from scratch; at the configuration's a run of some steps may diverge


def read(name: str) -> SSDConfig:
    """A configuration's tables, by name or path, as the harness reads it. ValueError when there is none or it is wrong."""
    found = configurations.load(config_files.find(name))
    if not isinstance(found.tables, SSDConfig):
        raise ValueError(f'{name} says benchmark = "{found.benchmark_name}"; this measures ssd')
    return found.tables


def changed(config: SSDConfig, **tables: Mapping[str, Any]) -> SSDConfig:
    """The configuration with other values in some of its tables; checked again."""
    raw = config.model_dump(mode="json")
    for table, values in tables.items():
        raw[table] |= values
    return SSDConfig.model_validate_json(json.dumps(raw))


def possible(
    config: SSDConfig, changes: Mapping[str, Mapping[str, Mapping[str, Any]]], tell: Callable[[str], None]
) -> dict[str, SSDConfig]:
    """The configuration with each of these `changes` of its tables. One that it cannot have is told, and left out."""
    found: dict[str, SSDConfig] = {}
    for name, tables in changes.items():
        try:
            found[name] = changed(config, **tables)
        except ValidationError as error:
            why = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            tell(f"{name}: left out, which this configuration cannot have: {why}")
    return found


def folder_to_use(data_dir: Path | None, cache_dir: Path, tell: Callable[[str], object]) -> Path:
    """The user's, or the pictures that this project makes itself; each fifth of them is told."""

    def progress(done: int, total: int) -> None:
        if 5 * done % total == 0:
            tell(f"making pictures: {done} of {total}")

    return embedded.ensure(cache_dir, progress) if data_dir is None else data_dir


def check_folder(config: SSDConfig, folder: Path) -> None:
    """ValueError where it lacks what the configuration reads."""
    settings = config.data
    for needed in (
        *(settings.train_annotations, settings.train_images),
        *(settings.eval_annotations, settings.eval_images),
    ):
        if not (folder / needed).exists():
            raise ValueError(f"{folder} has no {needed}, which the configuration's [data] names")


def repeated(config: SSDConfig, folder: Path, into: Mapping[Path, tuple[int, int]]) -> list[SSDConfig]:
    """Make each of `into` a COCO folder of so many images to train with and to evaluate, those of `folder` again and again; the
    configurations that read them. All at once, since COCO's boxes take 15 s to read.

    Categories that the network has and the folder lacks are added by name, so that the network keeps its size.
    """
    check_folder(config, folder)
    settings = config.data
    for number, (half, with_boxes) in enumerate((("train", True), ("eval", not settings.eval_images_without_boxes))):
        annotations, images = (getattr(settings, f"{half}_{what}") for what in ("annotations", "images"))
        truth = coco.GroundTruth.load(folder / annotations)
        ids = truth.image_ids_with_boxes if with_boxes else truth.image_ids
        for place, counts in into.items():
            target = place / annotations
            target.parent.mkdir(parents=True, exist_ok=True)
            again = _again(truth, [*islice(cycle(ids.tolist()), counts[number])], config.model.categories)
            (place / images).mkdir(parents=True)
            for image in again["images"]:  # a file may be listed once: each time it has another name
                name, of = f"{image['id']:012}{Path(image['file_name']).suffix}", image["file_name"]
                (place / images / name).symlink_to((folder / images / of).resolve())
                image["file_name"] = name
            target.write_text(json.dumps(again))
    return [
        changed(config, data={"train_samples": train, "eval_samples": evaluation, "source": "coco"})
        for train, evaluation in into.values()
    ]


def _again(truth: coco.GroundTruth, ids: Sequence[int], categories: int) -> dict[str, Any]:
    of = truth.annotations
    chosen = np.isin(truth.image_ids, ids)[of.images]
    columns = ("images", "categories", "xywh_px", "areas", "crowd", "difficult")
    document = replace(of, **{name: getattr(of, name)[chosen] for name in columns}).document()
    images = {image["id"]: image for image in document["images"]}
    boxes: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        boxes.setdefault(annotation["image_id"], []).append(annotation)
    named = document["categories"]
    if len(named) > categories:
        raise ValueError(f"{truth.path} has {len(named)} categories, the configuration's network only {categories}")
    beyond = max(category["id"] for category in named) + 1
    named += [{"id": beyond + i, "name": f"unused {i}"} for i in range(categories - len(named))]
    found: dict[str, Any] = {"images": [], "annotations": [], "categories": named}
    for new, old in enumerate(ids, start=1):
        found["images"].append({**images[old], "id": new})
        for annotation in boxes.get(old, []):
            found["annotations"].append({**annotation, "id": len(found["annotations"]) + 1, "image_id": new})
    return found


def context(device: str) -> Context:
    """What a configuration is checked against."""
    return Context(device=device, threads=torch.get_num_threads())


def session(config: SSDConfig, device: str, data_dir: Path, seed: int = 1) -> SSDSession:
    """Opened as the harness opens it. Equal seeds give equal weights whatever else differs."""
    torch.manual_seed(seed)
    here = Context(device=device, seed=seed, data_dir=data_dir, threads=torch.get_num_threads(), log_every_steps=1)
    opened = SSDSession(config, here)
    opened.optimizer.param_groups[0]["lr"] = LEARNING_RATE
    return opened


def give_back_memory(device: str) -> None:
    """What earlier work has left in this process's caches is another process's room on the GPU."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()


def tensors(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What train_step takes."""
    return batch["images"], batch["labels"], batch["offsets"]


def first_batch(opened: SSDSession) -> dict[str, Tensor]:
    """Real images with encoded boxes, in the session's own format, kept while others are drawn."""
    batches = opened.folder.train_batches(opened.default_boxes)
    kept = {name: tensor.clone() for name, tensor in next(iter(batches)).items()}
    synchronise(opened.context.device)  # before what they are copied from goes
    return kept


def like_a_trained_network(batch: Mapping[str, Tensor], classes: int) -> tuple[Tensor, Tensor]:
    """Logits (B, A, K) and offsets (B, A, 4): background except for the matched default boxes and some more, sure to a degree.

    Some 150 of an image become detections, as many as a trained network has on COCO, whatever the data set at hand.
    """
    generator = torch.Generator().manual_seed(1)
    labels, targets = batch["labels"].cpu().long(), batch["offsets"].cpu()
    mistaken = torch.rand(labels.shape, generator=generator) < 300 / labels.shape[1]
    shown = torch.where(mistaken, torch.randint(1, classes, labels.shape, generator=generator), labels)
    logits = torch.randn(*labels.shape, classes, generator=generator)
    logits[..., 0] += 8.1
    image, anchor = shown.nonzero(as_tuple=True)
    logits[image, anchor, shown[image, anchor]] += 9 * torch.rand(len(image), generator=generator)
    offsets = targets + 0.3 * torch.randn(*targets.shape, generator=generator)
    return logits.to(batch["labels"].device), offsets.to(batch["labels"].device)


def network_outputs(opened: SSDSession, logits: Tensor, offsets: Tensor) -> tuple[Any, Any]:
    """Logits (B, A, K) and offsets (B, A, 4) as the session's loss takes them: so, or as its heads' convolutions leave them."""
    if "loss" not in opened.config.compute.fused:
        return logits, offsets
    maps, biases, first = [], [], 0
    for head, side in zip(opened.model.heads, opened.config.model.feature_sizes, strict=True):
        assert isinstance(head, FusedHead)
        last = first + head.shapes * side**2
        maps.append(head.from_rows(logits[:, first:last], offsets[:, first:last], side))
        biases.append(torch.zeros(head.conv.out_channels, device=logits.device))
        first = last
    return maps, biases
