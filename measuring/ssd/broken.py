"""Whether the embedded configuration's target is missed when the pipeline is broken, one fault at a time:

    .venv/bin/python -m measuring.ssd.broken --out broken.json [--epochs 8] [--seed 11]

Faults of the evaluation are shown to one network that was trained as it should be; faults of the training take a run each.
What is known is printed and in the file as soon as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.detection.capabilities import installed
from benchmarks.detection.found import Detections
from benchmarks.detection.quality import coco
from benchmarks.ssd import loss
from benchmarks.ssd.session import SSDSession
from harness import config_files
from harness.cli import environment
from harness.contract import Context
from measuring import arguments, study
from measuring.ssd import setup

Detect = Callable[[Tensor], Detections]


def trained(seed: int, epochs: int) -> SSDSession:
    """A session after so many epochs."""
    torch.manual_seed(seed)
    folder = setup.folder_to_use(
        None, environment.cache_dir(config_files.CHECKOUT), lambda line: sys.stderr.write(f"{line}\n")
    )
    session = SSDSession(setup.read("embedded"), Context("cpu", seed=seed, data_dir=folder, threads=1))
    session.warm_up()
    session.load_data()
    for epoch in range(1, epochs + 1):
        for _ in session.train_epoch(epoch):
            pass
    return session


def evaluation_faults(session: SSDSession) -> dict[str, float]:
    """mAP of one network, evaluated wrongly in one way after the other."""
    detect, px, truth = session.detect, session.config.model.image_px, session.evaluation.ground_truth

    def moved(images: Tensor) -> Detections:
        found = detect(images)
        return replace(found, ltrb=found.ltrb + 3 / px)

    def corner_and_size(images: Tensor) -> Detections:
        found = detect(images)
        left_top, right_bottom = found.ltrb.split(2, dim=1)
        return replace(found, ltrb=torch.cat([left_top, right_bottom - left_top], dim=1))

    def unordered(images: Tensor) -> Detections:
        found = detect(images)
        return replace(found, scores=torch.ones_like(found.scores))

    faults: dict[str, Detect] = {
        "none": detect,
        "blue and red exchanged": lambda images: detect(images[:, [2, 1, 0]].contiguous()),
        "colour lost": lambda images: detect(images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()),
        "pictures not normalised": lambda images: detect(images * 0.226 + 0.449),
        "x and y exchanged": lambda images: replace(found := detect(images), ltrb=found.ltrb[:, [1, 0, 3, 2]]),
        "boxes 3 px of the network's 80 off": moved,
        "width and height taken for right and bottom": corner_and_size,
        "scores lost": unordered,
    }
    measured = {fault: session.evaluation.run(broken) for fault, broken in faults.items()}

    rows = coco.GroundTruth.rows

    def mistaken_for(other: coco.GroundTruth) -> AbstractContextManager[object]:
        """Detections are written as if the ground truth were `other`, and held against the true one."""
        return mock.patch.object(coco.GroundTruth, "rows", lambda _, found, ids: rows(other, found, ids))

    half_a_cell = torch.tensor([4 / px, 4 / px, 0, 0])
    with mock.patch.object(session, "default_boxes", session.default_boxes - half_a_cell):
        measured["default boxes at the cells' corners"] = session.evaluation.run(detect)
    ids = truth.category_ids
    for fault, wrong in (("category ids sorted", np.sort(ids)), ("labels off by one", np.roll(ids, -1))):
        mistaken = replace(truth, annotations=replace(truth.annotations, category_ids=wrong))
        with mistaken_for(mistaken):
            measured[fault] = session.evaluation.run(detect)
    turned = replace(truth, annotations=replace(truth.annotations, sizes=truth.sizes[:, ::-1].copy()))
    with mistaken_for(turned):
        measured["width and height of the images exchanged"] = session.evaluation.run(detect)
    return measured


TRAINING_FAULTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "boxes not flipped with the picture": lambda: mock.patch(
        "benchmarks.ssd.data_dali.fn.bb_flip", lambda boxes, **_: boxes
    ),
    "no negatives in the loss": lambda: mock.patch.object(
        loss, "_hard_negatives", lambda *masks: torch.zeros_like(masks[1])
    ),
    "all negatives in the loss, none mined": lambda: mock.patch.object(
        loss, "_hard_negatives", lambda *masks: ~masks[1] & (masks[2][:, None] > 0)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=arguments.file, required=True, help="file of all figures, in JSON")
    parser.add_argument("--epochs", type=arguments.at_least(1), default=8, help="(default: %(default)s)")
    parser.add_argument("--seed", type=arguments.at_least(0), default=11, help="(default: %(default)s)")
    asked = parser.parse_args()
    if not installed("nvidia.dali"):
        parser.error("DALI is not installed, in whose graph one of the faults is")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    measured: dict[str, Any] = {"seed": asked.seed, "epochs": asked.epochs, "evaluation": {}, "training": {}}

    def tell(kind: str, faults: dict[str, float]) -> None:
        measured[kind] |= faults
        sys.stdout.write("".join(f"{mAP:.3f}  {kind}: {fault}\n" for fault, mAP in faults.items()))
        sys.stdout.flush()
        study.keep(measured, asked.out)

    tell("evaluation", evaluation_faults(trained(asked.seed, asked.epochs)))
    for fault, broken in TRAINING_FAULTS.items():
        with broken():
            tell("training", {fault: trained(asked.seed, asked.epochs).evaluate(asked.epochs)})


if __name__ == "__main__":
    sys.exit(study.ended(main))
