"""A small RetinaNet configuration over a folder of patterned pictures, for tests of the session."""

from __future__ import annotations

from typing import Any


def content(*, ranks: int = 1, epochs: int = 2, **tables: dict[str, Any]) -> dict[str, Any]:
    """A configuration file's content for tests.ssd.small.folder; `tables` are laid over it."""
    found: dict[str, Any] = {
        "benchmark": "retinanet",
        "submission": {"org": "tests", "platform": "CPU", "division": "open", "status": "research"},
        "run": {
            **{"ruleset": "5.1.0", "device": "cpu", "nodes": 1, "accelerators_per_node": ranks, "epochs": epochs},
            **{"evaluate_after_epochs": list(range(1, epochs + 1)), "target": 0.9, "log_every_steps": 1},
        },
        "model": {
            **{"initial_weights": "scratch", "categories": 3, "backbone": "resnet18", "image_px": 64},
            **{"trained_stages": 5, "channels": 16, "anchor_px": [8, 16, 32]},
        },
        "data": {
            **{"source": "coco", "train_samples": 12, "eval_samples": 6, "eval_images_without_boxes": True},
            "threads": 1,
        },
        "optimizer": {"batch_size": 4 // ranks, "learning_rate": 1e-3},
        "compute": {"precision": "fp32"},
        "evaluation": {"batch_size": 4},
    }
    for name, changes in tables.items():
        found[name] |= changes
    return found
