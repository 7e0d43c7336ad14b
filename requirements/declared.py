"""For pip: the installed project needs the packages that run.in names, in any version, as several kinds of torch will do.

Results are compared by exact versions, and those are the lock files'. Called by hatchling when it builds a wheel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def names(path: Path) -> Iterator[str]:
    """Of the packages that a requirements file asks for, and those files that it includes."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from names(path.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            yield line.partition("==")[0]


LINUX = ("nvidia-dali-cuda130", "nvidia-cudnn-frontend")  # macOS has wheels of neither, and Windows none of DALI


class Declared(MetadataHookInterface):
    """Sets project.dependencies, which pyproject.toml says is dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        asked = names(Path(self.root) / "requirements" / "run.in")
        metadata["dependencies"] = [f"{each}; sys_platform == 'linux'" if each in LINUX else each for each in asked]
