"""Checkpoints of toys, and verbs run on them, for tests of what is done with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import config
from harness.cli import main
from harness.execution import checkpoint
from harness.execution.checkpoint import Checkpoint
from tests.toy import configuration as toy

QUALITY = 0.75


def saved(folder: Path, *, epoch: int = 2, **changes: Any) -> Path:
    """A folder as a run of the toy leaves it, whose last evaluation was its best."""
    configuration = config.parse(toy.raw(), name="toy", source="toy")
    values: dict[str, Any] = {
        **{"epoch": epoch, "seed": 7, "configuration_sha256": configuration.sha256, "state": {"quality": QUALITY}},
        **{"configuration": configuration.resolved, "configuration_name": "toy", "metric": "quality"},
        **{"quality": QUALITY, "best": QUALITY, **changes},
    }
    checkpoint.save(folder, Checkpoint(**values))
    return folder


def numbers(folder: Path, which: Sequence[int]) -> list[Path]:
    """ "Pictures" of the toy's."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.jpg" for number in which]
    for path, number in zip(paths, which, strict=True):
        path.write_bytes(b"toy %d" % number)
    return paths


def harness(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, what it said, and what it complained of."""
    code = main([str(each) for each in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
