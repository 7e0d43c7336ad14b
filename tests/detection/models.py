"""Checkpoints of small detectors, as a run leaves them, for tests of what is done with a trained detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.detection.quality import coco
from harness import config
from harness.contract import Context
from harness.execution import checkpoint
from harness.execution.checkpoint import Checkpoint
from tests.ssd import small


@dataclass(frozen=True)
class Kept:
    """Where the checkpoint is, and what its run's last evaluation saw and found."""

    folder: Path
    pictures: Path
    state: dict[str, Any]
    rows: npt.NDArray[
        np.float64
    ]  # (N, 7), see benchmarks.detection.quality.coco.GroundTruth.rows, with the user's category ids


def small_retinanet() -> dict[str, Any]:
    """A configuration file's content, over the folder of tests/ssd/small.py."""
    found = small.content(data={"backend": "torch"})
    found["benchmark"] = "retinanet"
    found["run"] |= {"ruleset": "2.0.0"}
    found["model"] = {
        **{"initial_weights": "scratch", "categories": 3, "backbone": "resnet10", "image_px": 64, "channels": 16},
        **{"trained_stages": 5, "batch_norm": "trained", "anchor_px": [16, 32, 64]},
    }
    found["optimizer"] = {"batch_size": 4, "learning_rate": 1e-3}
    return found


def kept(folder: Path, content: dict[str, Any] | None = None, **tables: dict[str, Any]) -> Kept:
    """A network of random weights, which finds much, with statistics of one epoch; evaluated, and kept."""
    path = small.folder(folder / "data")
    configuration = config.parse(content or small.content(**tables), name="small", source="small")
    torch.manual_seed(5)
    benchmark: Any = configuration.benchmark
    # as a run does: the evaluation calls images and categories otherwise than the user's files
    checked = benchmark.provide_data(configuration.tables, path, folder / "cache", lambda *_: None)
    session = benchmark.session(configuration.tables, Context(device="cpu", seed=5, data_dir=checked, threads=1))
    if hasattr(session.model, "head"):  # a fresh RetinaNet gives every anchor the same score
        with torch.no_grad():
            for each in session.model.head.classification_head.parameters():
                each.mul_(3 if each.dim() == 4 else 1)
    session.load_data()
    list(session.train_epoch(1))
    seen: list[npt.NDArray[np.float64]] = []
    real = coco.Matching.add

    def add(matching: coco.Matching, image_ids: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]) -> None:
        seen.append(rows)
        real(matching, image_ids, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco.Matching, "add", add)
        quality = session.evaluate(1)
    state = session.state()
    saved = Checkpoint(
        1, 5, configuration.sha256, state, configuration.resolved, "small", "mAP", quality, quality, target_met=False
    )
    checkpoint.save(folder / "kept", saved)
    session.close()
    rows = np.concatenate(seen)
    own = dict(enumerate(sorted((3, 1, 7)), start=1))
    rows[:, 6] = [own[int(number)] for number in rows[:, 6]]
    return Kept(folder / "kept", path / "val2017", state, rows)
