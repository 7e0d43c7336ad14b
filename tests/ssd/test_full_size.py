"""The full-size network on real COCO photographs: 8 training steps and one evaluation, through the harness."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import pytest

from harness.config_files import FOLDER
from tests.harness.execution.runs import events, run, stop
from tests.toy.configuration import write


def part_of(folder: Path, path: Path, **counts: int) -> Path:
    """The first pictures with boxes of each half of a COCO folder, so many as named."""
    (path / "annotations").mkdir(parents=True)
    for half, count in counts.items():
        name = f"annotations/instances_{half}.json"
        document = json.loads((folder / name).read_bytes())
        boxed = {box["image_id"] for box in document["annotations"]}
        document["images"] = [image for image in document["images"] if image["id"] in boxed][:count]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] in kept]
        (path / half).mkdir()
        for image in document["images"]:
            (path / half / image["file_name"]).symlink_to(folder / half / image["file_name"])
        (path / name).write_text(json.dumps(document))
    return path


@pytest.mark.long
def test_an_epoch_of_a_part_of_coco256(test_data: Path, tmp_path: Path) -> None:
    content = tomllib.loads((FOLDER / "ssd" / "A100_1x1x128.toml").read_text())
    content["submission"] |= {"platform": "a test", "division": "open", "status": "research"}
    content["run"] |= {"device": "cpu", "epochs": 1, "evaluate_after_epochs": [1], "log_every_steps": 4}
    content["model"]["initial_weights"] = "scratch"
    content["data"] |= {"train_samples": 16, "eval_samples": 8, "threads": 2}
    del content["optimizer"]["recipe"]
    content["optimizer"] |= {
        "batch_size": 2,
        "learning_rate": 3e-4,
        "weight_decay": 5e-4,
        "warmup_steps": 10,
        "decay_epochs": [],
    }
    content["compute"] |= {"precision": "fp32", "compile": False, "threads": 1}
    content["evaluation"]["batch_size"] = 8
    part = part_of(test_data / "coco256", tmp_path / "part", train2017=16, val2017=8)
    finished = run(write(tmp_path, content, "full_size"), "--data-dir", part, "--out", tmp_path, "--seed", 1)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    found = events(tmp_path / "result_0.txt")
    values = {event["key"]: event["value"] for event in found}
    assert values["parameters"] == 19_972_534 and values["default_boxes"] == 8732
    losses = [event["value"]["loss"] for event in found if event["key"] == "tracked_stats"]
    assert [event["metadata"]["step"] for event in found if event["key"] == "tracked_stats"] == [4, 8]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert 0 <= values["eval_accuracy"] < 0.23
    assert stop(tmp_path / "result_0.txt")["reason"].startswith("epochs spent")
