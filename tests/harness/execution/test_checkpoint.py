"""Checkpoints: the last good one is always there, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness import config
from harness.execution import checkpoint
from harness.execution.checkpoint import Checkpoint
from tests.toy import configuration as toy

CONFIGURATION = config.parse(toy.raw(epochs=4), name="toy", source="toy")


def saved(epoch: int) -> Checkpoint:
    return Checkpoint(epoch, 7, CONFIGURATION.sha256, {"weight": torch.ones(3) * epoch, "data": b"reader", "step": 5})


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new", saved(1))
    checkpoint.save(tmp_path / "new", saved(2))
    found = checkpoint.load(tmp_path / "new", CONFIGURATION)
    assert (found.epoch, found.seed, found.state["data"], found.state["step"]) == (2, 7, b"reader", 5)
    assert torch.equal(found.state["weight"], torch.full((3,), 2.0))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [checkpoint.NAME]


def test_an_interrupted_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, saved(1))

    def half(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, saved(2))
    assert checkpoint.load(tmp_path, CONFIGURATION).epoch == 1


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to resume from"):
        checkpoint.load(tmp_path, CONFIGURATION)
    checkpoint.save(tmp_path, saved(1))
    other = config.parse(toy.raw(epochs=5), name="toy", source="toy")
    with pytest.raises(ValueError, match="of a run with another configuration"):
        checkpoint.load(tmp_path, other)
    checkpoint.save(tmp_path, saved(4))
    with pytest.raises(ValueError, match="of the last epoch, 4: nothing is left to train"):
        checkpoint.load(tmp_path, CONFIGURATION)
    file = tmp_path / checkpoint.NAME
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
        checkpoint.load(tmp_path, CONFIGURATION)
