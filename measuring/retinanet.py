"""How fast RetinaNet's parts are against torchvision's, in one run, in turns: `python -m measuring.retinanet`.

    .venv/bin/python -m measuring.retinanet --out retinanet.json                 a CPU: the reference's network at 320 px
    .venv/bin/python -m measuring.retinanet --only step --image-px 800 --forms bf16 fp32      at the rules' size, 10 minutes
    .venv/bin/python -m measuring.retinanet --data-dir DIR                       real photographs for the data path

Against: torchvision's own RetinaNet on the same backbone, eager, float32, plain layout, with Adam; its loop of detections;
PIL, one picture after the other. Losses and detections of both are compared first: times of other values mean nothing. On a CPU
processor seconds of one thread are counted, which other processes change little.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.v2 import functional as transforms

from benchmarks.detection.capabilities import installed
from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.image_format import blank
from benchmarks.detection.data_path.normalisation import IMAGENET_MEAN, IMAGENET_STD
from benchmarks.detection.data_path.pictures import Picture, read
from benchmarks.detection.embedded import dataset as embedded
from benchmarks.retinanet import data, detections
from benchmarks.retinanet.anchors import encode
from benchmarks.retinanet.config import Augmentation, RetinaNetConfig
from benchmarks.retinanet.session import RetinaNetSession
from harness import config_files
from harness.cli import environment
from harness.contract import Context
from measuring import arguments, study
from measuring.measure import (
    Comparison,
    Figure,
    Measure,
    interleaved,
    machine,
    processor_time_of_background_work,
    surroundings,
    wall,
)

KINDS = ("cpu", "cuda")  # for whose work the clock waits: see measure.synchronise
CLASSES = 264
PICTURES, ANNOTATIONS = "train2017", "annotations/instances_train2017.json"
BOXES = 7  # of an image; OpenImages' training half has about as many
LOSS_BOUNDS = {"fp32": 1e-4, "bf16": 1e-2}  # relative
GOALS = {"bf16 units": 2.5, "no bf16 units": 1.3, "data": 1.6, "detection": 5.0}


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16": ("bf16 channels_last", {"precision": "bf16"}),
    "fp32": ("fp32 channels_last", {"precision": "fp32"}),
    "plain": ("fp32 plain layout", {"precision": "fp32", "channels_last": False}),
    "compiled": ("bf16 channels_last, compiled", {"precision": "bf16", "compile": True}),
}


# --- the network ---------------------------------------------------------------------------------------------------------


def session(image_px: int, batch: int, device: str, **compute: Any) -> RetinaNetSession:
    """The benchmark's own network and step; no data is read."""
    tables = RetinaNetConfig.model_validate(
        {
            "model": {"initial_weights": "scratch", "categories": CLASSES, "image_px": image_px, "trained_stages": 5},
            "data": {"source": "coco", "train_samples": batch, "eval_samples": 1, "eval_images_without_boxes": True},
            "optimizer": {"batch_size": batch, "learning_rate": 1e-4},
            "compute": {"precision": "fp32", **compute},
            "evaluation": {"batch_size": 1},
        }
    )
    torch.manual_seed(1)
    made = RetinaNetSession(tables, Context(device, data_dir=Path(), threads=1))
    _freeze(made.model.backbone.body, made)
    return made


def _freeze(body: nn.Module, made: RetinaNetSession) -> None:
    """As with the backbone's file, which nobody need have for measuring: the stem and the first stage are not trained."""
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    trained = [each for each in made.model.parameters() if each.requires_grad]
    made.optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True)


def torchvision_s(image_px: int, device: str, weights: Sequence[Tensor]) -> nn.Module:
    """torchvision's RetinaNet on the same backbone, with the same weights in its own order."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnext50_32x4d", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    model: nn.Module = TorchvisionRetinaNet(
        backbone, CLASSES, min_size=image_px, max_size=image_px, detections_per_img=300
    )
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    return model.to(device).train()


def step(
    image_px: int, batch: int, device: str, rounds: int, clock: Measure, *, chosen: Sequence[str]
) -> list[Comparison]:
    """A training step, matching and optimizer included, in the `chosen` FORMS. RuntimeError where the losses differ."""
    forms = dict(FORMS[name] for name in chosen)
    ours = {name: session(image_px, batch, device, **compute) for name, compute in forms.items()}
    plain = next(iter(ours.values()))
    theirs = torchvision_s(image_px, device, [each.clone() for each in plain.model.state_dict().values()])
    optimizer = torch.optim.Adam([each for each in theirs.parameters() if each.requires_grad], lr=1e-4)

    rng = np.random.default_rng(1)
    levels = torch.from_numpy(rng.random((batch, 3, image_px, image_px), dtype=np.float32)).to(device)
    corner, size = rng.uniform(0, 0.6, (batch, BOXES, 2)), rng.uniform(0.05, 0.4, (batch, BOXES, 2))
    ltrb = torch.from_numpy(np.concatenate([corner, corner + size], axis=2)).float().to(device)
    labels = torch.from_numpy(rng.integers(1, CLASSES + 1, (batch, BOXES))).to(device)
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    images = (levels - mean) / std
    truth = [{"boxes": each * image_px, "labels": kind - 1} for each, kind in zip(ltrb, labels, strict=True)]

    def their_loss() -> Tensor:
        found: dict[str, Tensor] = theirs(list(levels), [dict(each) for each in truth])
        return torch.stack(list(found.values())).sum()

    def their_step() -> None:
        their_loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad():
        expected = their_loss().item()
    for name, own in ours.items():
        found = own.train_step(images, ltrb, labels).item()  # before the weights move
        if not abs(found - expected) <= LOSS_BOUNDS[own.precision] * expected:
            raise RuntimeError(f"{name}: the loss is {found}, torchvision's {expected}")

    def timed(action: Callable[[], object]) -> Measure:
        return lambda: 1e3 * wall(action, device, clock)

    steps = {name: timed(lambda own=own: own.train_step(images, ltrb, labels)) for name, own in ours.items()}  # type: ignore[misc]
    samples = interleaved({**steps, "torchvision": timed(their_step)}, rounds)
    baseline = Figure("torchvision, eager fp32", "ms", samples["torchvision"])
    note = f"resnext50_32x4d, {CLASSES} classes, {image_px} px, batch {batch}"
    goals = {"bf16 channels_last": GOALS["bf16 units"], "fp32 channels_last": GOALS["no bf16 units"]}
    return [
        Comparison(f"step, {name}", Figure(name, "ms", samples[name]), baseline, goals.get(name), note)
        for name in forms
    ]


# --- detections ------------------------------------------------------------------------------------------------------------


def detection(image_px: int, batch: int, device: str, rounds: int, clock: Measure) -> list[Comparison]:
    """From the network's output to detections, as a trained network gives it: things it sees, and a noise of weak scores."""
    own = session(image_px, batch, device)
    with torch.no_grad():
        logits, offsets = own.model.eval()(blank("fp32_chw", batch, image_px, torch.device(device)))
    rng = torch.Generator().manual_seed(3)
    # one in 40,000 above the threshold
    logits = [(torch.randn(each.shape, generator=rng) - 7).to(device) for each in logits]
    offsets = [torch.randn(each.shape, generator=rng).mul_(0.1).to(device) for each in offsets]
    sides = [each.shape[1] for each in logits]
    things = torch.rand(20, 4, generator=rng)
    boxes = torch.cat([things[:, :2] * 0.6, things[:, :2] * 0.6 + 0.1 + things[:, 2:] * 0.3], dim=1) * image_px
    anchors = own.anchors_px.cpu()
    towards = encode(boxes[:, None].expand(-1, len(anchors), -1).reshape(-1, 4), anchors.repeat(len(boxes), 1))
    near = towards.abs().amax(dim=1).reshape(len(boxes), -1) < 0.35
    for thing in range(len(boxes)):
        for logit, of_map in zip(logits, near[thing].split(sides), strict=True):
            logit[:, of_map.to(device), thing % CLASSES] += 6
    theirs = torchvision_s(image_px, device, [each.clone() for each in own.model.state_dict().values()]).eval()
    split = list(own.anchors_px.split(sides))

    def ours() -> Any:
        return detections.detect(logits, offsets, own.anchors_px, image_px, 300)

    def loop() -> Any:
        output = {"cls_logits": logits, "bbox_regression": offsets}
        return theirs.postprocess_detections(output, [split] * batch, [(image_px, image_px)] * batch)  # type: ignore[operator]

    mine, expected = ours(), loop()
    for row, each in enumerate(expected):
        same = mine.scores[mine.images == row]
        if len(same) != len(each["scores"]) or not torch.allclose(same, each["scores"], atol=1e-6):
            raise RuntimeError(
                f"image {row}: {len(same)} detections, torchvision's loop has {len(each['scores'])} others"
            )
    samples = interleaved(
        {"ours": lambda: 1e3 * wall(ours, device, clock), "loop": lambda: 1e3 * wall(loop, device, clock)}, rounds
    )
    above = sum(int((each > detections.MIN_LOGIT).sum()) for each in logits)
    note = (
        f"{image_px} px, batch {batch}, {CLASSES} classes, {above} scores above the threshold, {len(mine)} detections"
    )
    baseline = Figure("torchvision's loop over images and maps", "ms", samples["loop"])
    return [Comparison("detections", Figure("batched", "ms", samples["ours"]), baseline, GOALS["detection"], note)]


# --- the data path -----------------------------------------------------------------------------------------------------------


def pil(picture: Picture, image_px: int, rng: np.random.Generator) -> Tensor:
    """One picture as a plain loader makes it: decoded and resized by PIL, mirrored, to float, normalised."""
    with Image.open(picture.file) as file:
        pixels = file.convert("RGB")
    if rng.random() < 0.5:
        pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = pixels.resize((image_px, image_px), Image.Resampling.BILINEAR)
    levels = transforms.to_dtype(transforms.pil_to_tensor(pixels), scale=True)
    normalised: Tensor = transforms.normalize(levels, IMAGENET_MEAN, IMAGENET_STD)
    return normalised


def data_path(folder: Path, image_px: int, batch: int, rounds: int) -> list[Comparison]:
    """Processor time an image of decoding, mirroring, resizing and normalising, boxes included, on one thread."""
    source = Source(
        folder / PICTURES, folder / ANNOTATIONS, image_px, batch, 1, "cpu", 0, 1, True,
        antialias=False,
    )  # fmt: skip
    backends = [each for each in ("dali", "torch") if each == "torch" or installed("nvidia.dali")]
    rng, pictures = np.random.default_rng(1), itertools.cycle(read(replace(source, backend="torch")))

    def ours(backend: str) -> Measure:
        made = data.train_batches(replace(source, backend=backend), Augmentation(), order_seed=1, augmentation_seed=1)
        epochs = _endless(made)
        return lambda: 1e3 * processor_time_of_background_work(lambda: [next(epochs) for _ in range(4)]) / (4 * batch)

    def baseline() -> float:
        start = time.thread_time()
        for _ in range(4):
            torch.stack([pil(next(pictures), image_px, rng) for _ in range(batch)])
        return 1e3 * (time.thread_time() - start) / (4 * batch)

    samples = interleaved({**{name: ours(name) for name in backends}, "pil": baseline}, rounds)
    figure = Figure("PIL and torchvision", "ms", samples["pil"])
    note = f"{image_px} px, processor time an image on one thread"
    return [
        Comparison(f"data path, {name}", Figure(name, "ms", samples[name]), figure, GOALS["data"], note)
        for name in backends
    ]


def _endless(batches: Any) -> Iterator[dict[str, Tensor]]:
    while True:
        yield from batches


def _folder(data_dir: Path | None) -> Path:
    """The user's, or the pictures that this project makes itself."""
    if data_dir is None:
        return embedded.ensure(environment.cache_dir(config_files.CHECKOUT), lambda *_: None)
    for needed in (ANNOTATIONS, PICTURES):
        if not (data_dir / needed).exists():
            raise ValueError(f"--data-dir {data_dir} has no {needed}")
    return data_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", type=arguments.device, default="cpu", help="torch's word: cpu, cuda:0 (default: cpu)"
    )
    parser.add_argument(
        "--image-px", type=arguments.at_least(64), default=320, help="side of a picture in px (default: 320)"
    )
    parser.add_argument("--batch", type=arguments.at_least(1), default=2, help="pictures of a step (default: 2)")
    parser.add_argument("--rounds", type=arguments.at_least(1), default=5, help="turns of each comparison (default: 5)")
    parser.add_argument(
        "--only",
        choices=["step", "detection", "data"],
        nargs="+",
        default=["step", "detection", "data"],
        help="parts to measure (default: all three)",
    )
    parser.add_argument(
        "--forms",
        choices=list(FORMS),
        nargs="+",
        default=["bf16", "fp32", "plain"],
        help="of the step; `compiled` takes minutes to compile on a CPU (default: the others)",
    )
    parser.add_argument("--data-dir", type=Path, help="a COCO folder; else the pictures that the project draws")
    parser.add_argument("--out", type=arguments.file, help="file of all samples, in JSON (default: none)")
    asked = parser.parse_args()
    try:
        kind = torch.device(asked.device).type
        if kind in KINDS:
            torch.zeros(1, device=asked.device)
    # torch's own, of a word that it does not know, of a device that is not there, of a build without CUDA
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {asked.device}: {str(error).splitlines()[0]}")
    if kind not in KINDS:
        parser.error(f"--device {asked.device}: cpu or cuda:N; the clock would not wait for what another one does")
    clock: Measure = time.process_time if kind == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], list[Comparison]]] = {
        "data": lambda: data_path(_folder(asked.data_dir), asked.image_px, 8, asked.rounds),
        "detection": lambda: detection(asked.image_px, asked.batch, asked.device, asked.rounds, clock),
        "step": lambda: step(asked.image_px, asked.batch, asked.device, asked.rounds, clock, chosen=asked.forms),
    }
    here = {"machine": machine(asked.device), **surroundings()}
    clocked = "processor seconds" if kind == "cpu" else "seconds"
    rows: list[dict[str, Any]] = []
    for name in (each for each in parts if each in asked.only):
        for each in parts[name]():
            goal = f", wanted {each.goal}" if each.goal else ""
            sys.stdout.write(f"{each}; {each.baseline}{goal}; {each.note}\n")
            sys.stdout.flush()
            rows.append(each.plain())
        if asked.out:  # what breaks a later part takes nothing of an earlier one
            study.keep({**here, "clock": clocked, "rows": rows}, asked.out)


if __name__ == "__main__":
    sys.exit(study.ended(main))
