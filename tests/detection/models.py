"""A small SSD's checkpoint, as a run leaves it, for tests of what is done with a trained detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.detection import coco
from benchmarks.ssd.session import SSDSession
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
    rows: npt.NDArray[np.float64]  # (N, 7), see benchmarks.detection.coco.GroundTruth.rows


def kept(folder: Path, *, device: str = "cpu", **tables: dict[str, Any]) -> Kept:
    """A network of random weights, which finds much, with statistics of one epoch; evaluated, and kept."""
    path = small.folder(folder / "data")
    configuration = config.parse(small.content(**tables), name="small", source="small")
    torch.manual_seed(5)
    settings: Any = configuration.tables
    session = SSDSession(settings, Context(device=device, seed=5, data_dir=path, threads=1))
    session.load_data()
    list(session.train_epoch(1))
    seen: list[npt.NDArray[np.float64]] = []
    real = coco.evaluate

    def evaluate(truth: coco.GroundTruth, rows: npt.NDArray[np.float64], **options: Any) -> coco.Metrics:
        seen.append(rows)
        return real(truth, rows, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "evaluate", evaluate)
        quality = session.evaluate(1)
    state = session.state()
    saved = Checkpoint(
        1, 5, configuration.sha256, state, configuration.resolved, "small", "mAP", quality, quality, target_met=False
    )
    checkpoint.save(folder / "kept", saved)
    session.close()
    return Kept(folder / "kept", path / "val2017", state, seen[0])
