"""Configurations of the toy, written where a test wants them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def raw(fate: str = "learns", *, ranks: int = 1, epochs: int = 4, **run: Any) -> dict[str, Any]:
    """A configuration file's content."""
    return {
        "benchmark": "tests.toy",
        "submission": {"org": "toys", "platform": "1x abacus", "division": "open", "status": "research"},
        "run": {
            **{"ruleset": "0.7.0", "device": "cpu", "nodes": 1, "accelerators_per_node": ranks, "epochs": epochs},
            **{"evaluate_after_epochs": list(range(1, epochs + 1)), "target": 0.25, "log_every_steps": 1},
            **run,
        },
        "toy": {"fate": fate},
    }


def write(folder: Path, content: dict[str, Any], name: str = "toy") -> Path:
    """The content as NAME.toml in `folder`."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for table, values in content.items():
        if isinstance(values, dict):
            lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
