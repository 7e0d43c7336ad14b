"""For pip: the dependencies of the installed project, which are those of run.in, each version there the least that will do.

Results are compared by the exact ones, and those are the lock file's. Called by hatchling when it builds a wheel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Declared(MetadataHookInterface):
    """Sets project.dependencies, which pyproject.toml says is dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        lines = (Path(self.root) / "requirements" / "run.in").read_text(encoding="utf-8").splitlines()
        metadata["dependencies"] = [line.replace("==", ">=") for line in lines if line and not line.startswith("#")]
