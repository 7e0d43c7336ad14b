"""A small SSD configuration over a folder of patterned pictures, for tests of the session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.ssd import coco_folder
from tests.ssd.coco_folder import Picture

# A processor without units for bf16 takes 1.7 s for a step of 64 px in it, and 0.4 for one of these
OF_32_PX: dict[str, Any] = {"image_px": 32, "scales_px": [8, 14, 22, 30]}


def folder(path: Path) -> Path:
    """12 training and 6 validation pictures; categories 3, 1 and 7, in this order."""
    ids = (3, 1, 7)
    for half, count in (("train2017", 12), ("val2017", 6)):
        pictures = [
            Picture(15 * i, [(4 + i, 5, 20 + i, 24, ids[i % 3]), (30, 12 + i, 28, 18, ids[(i + 1) % 3])])
            for i in range(1, count + 1)
        ]
        coco_folder.write(path, pictures, categories=ids, half=half)
    return path


def content(*, ranks: int = 1, epochs: int = 2, **tables: dict[str, Any]) -> dict[str, Any]:
    """A configuration file's content; `tables` are laid over it."""
    found: dict[str, Any] = {
        "benchmark": "ssd",
        "submission": {"org": "tests", "platform": "CPU", "division": "open", "status": "research"},
        "run": {
            **{"ruleset": "0.7.0", "device": "cpu", "nodes": 1, "accelerators_per_node": ranks, "epochs": epochs},
            **{"evaluate_after_epochs": [epochs], "target": 0.9, "log_every_steps": 1},
        },
        "model": {
            **{"initial_weights": "scratch", "categories": 3, "backbone": "resnet18", "image_px": 64},
            **{"extras": [[32, 64, 2, 1], [32, 64, 2, 1]], "steps_px": [8, 16, 32], "scales_px": [12, 24, 40, 60]},
            "aspect_ratios": [[2], [2], [2]],
        },
        "data": {
            **{
                "source": "coco",
                "train_samples": 12,
                "eval_samples": 6,
                "eval_images_without_boxes": True,
                "threads": 1,
            },
        },
        "optimizer": {
            **{"batch_size": 4 // ranks, "learning_rate": 1e-3, "weight_decay": 5e-4, "warmup_steps": 2},
            "decay_epochs": [],
        },
        "compute": {"precision": "fp32"},
        "evaluation": {"batch_size": 4},
    }
    for name, changes in tables.items():
        found[name] = {**found.get(name, {}), **changes}
    return found
