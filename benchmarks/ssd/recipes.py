"""recipes.toml: what was published for a global batch, for a configuration to name. Never interpolated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_name("recipes.toml")


class Recipe(BaseModel):
    """A row; the head of the file says what each column means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    global_batch: int
    learning_rate: float
    warmup_steps: int
    warmup_factor: int
    decay_epochs: tuple[int, ...]
    weight_decay: float
    model_bn_span: tuple[int, ...]
    reached: Mapping[int, int]
    by: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What it says of a configuration's table [optimizer]."""
        names = ("learning_rate", "warmup_steps", "warmup_factor", "decay_epochs", "weight_decay")
        return {name: getattr(self, name) for name in names}


@cache
def read() -> dict[str, Recipe]:
    """All rows by name, in the order of their batches."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["recipe"]
    return {row["name"]: Recipe(**row) for row in rows}


def named(name: object) -> Recipe:
    """ValueError, with the names there are for its batch, else all, when there is none."""
    found = read().get(name) if isinstance(name, str) else None
    if found is None:
        alike = [each for each in read() if each.partition("-")[0] == str(name).partition("-")[0]]
        raise ValueError(
            f"recipe = {name!r}: no such recipe is published; there are: {', '.join(alike or read())}; `configs --recipes` "
            "shows them"
        )
    return found
