"""Hashes of a deterministic run's numbers: the first batch, and every tensor of its state after chosen steps.

`compare` finds by them whether another driver, image or commit computes the same, and if not, where it first differs. Losses
need no hash: in such a run every step is an interval of its own, and the log has them to the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from harness.contract import Session
from harness.execution.events import EventLog

STEPS = (1, 10, 100)
DIGITS = 16  # of a SHA-256; a tensor is not an adversary


def log_step(log: EventLog, session: Session, step: int) -> None:
    """After the `step`-th step of the run, counted from 1."""
    if step == 1:
        log.point("batch_sha256", {name: sha256(tensor) for name, tensor in session.first_batch().items()}, step=step)
    if step in STEPS:
        log.point("tensor_sha256", {name: sha256(tensor) for name, tensor in tensors(session.state())}, step=step)


def tensors(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a nested state, by a dotted name. What is not one (a step's number, a data path's place) is left out."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors(value, f"{name}.{index}")
    elif hasattr(state, "detach"):
        yield name, state


def sha256(tensor: Any) -> str:
    """Of its type, shape and bytes, in the order of its indices whatever its layout in memory."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)} ".encode()
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return hashlib.sha256(head + content).hexdigest()[:DIGITS]
