"""Checkpoints between epochs: one file, replaced atomically, so that the last good one is always there.

A resumed run says so in its log and is never a timed result.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import whole
from harness.config import Configuration
from harness.exit_codes import DISK_FULL

NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A session's state after `epoch` whole epochs of a run with this configuration and seed."""

    epoch: int
    seed: int
    configuration_sha256: str
    state: dict[str, Any]


def usable(folder: Path) -> None:
    """Make the folder and try it, before anything is trained. ValueError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise ValueError(
            f"--checkpoint-dir {folder}: nothing can be written there ({error.strerror}); name another folder"
        ) from error


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`; an interruption leaves the old one. OSError when it cannot be written."""
    import torch

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole.replacing(folder / NAME) as file:
            torch.save(vars(checkpoint), file)
    except OSError as error:
        raise OSError(error.errno, f"{folder}: the checkpoint cannot be written ({error.strerror})") from error


def load(folder: Path, configuration: Configuration) -> Checkpoint:
    """ValueError when there is none, it is damaged, or it is of another configuration or
    there is no epoch left to train."""
    import torch

    path = folder / NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {NAME} to resume from; leave --from-checkpoint away to start from the beginning"
        )
    try:
        found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch names no narrower class for a damaged file
        raise ValueError(f"{path} is damaged or not a checkpoint of this version ({error}); move it away") from error
    if found.configuration_sha256 != configuration.sha256:
        raise ValueError(
            f"{path} is of a run with another configuration (SHA-256 {found.configuration_sha256[:12]}, now "
            f"{configuration.sha256[:12]}); resume with the one it was made with, or name another --checkpoint-dir"
        )
    if found.epoch >= configuration.run.epochs:
        raise ValueError(f"{path} is of the last epoch, {found.epoch}: nothing is left to train")
    return found
