"""The shipped configurations against what was published: batches and learning rates of the logs, minutes of the tables."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from harness import config, config_files
from harness.results.reporting import published
from tests.retinanet import small

# Of the logs of these systems: round, system, global batch, opt_base_learning_rate, opt_learning_rate_warmup_epochs. All
# of them log a warm-up factor of 0.001 and no weight decay.
RECIPES = {
    "DGXA100_1x8x32": ("2.1.0", "dgxa100_ngc22.04_pytorch", 256, 8.5e-5, 0),
    "DGXA100_8x8x4": ("2.1.0", "dgxa100_n8_ngc22.09_pytorch", 256, 1e-4, 1),
    "DGXA100_160x8x1": ("2.1.0", "dgxa100_n160_ngc22.09_pytorch", 1280, 1e-4, 1),
    "DGXH100_1x8x32": ("4.1.0", "eos_ngc24.09_pytorch", 256, 8.5e-5, 0),
    "DGXH100_8x8x4": ("4.1.0", "eos_n8_ngc24.09_pytorch", 256, 1e-4, 1),
    "DGXH100_64x8x2": ("3.0.0", "dgxh100_n64_ngc23.04_pytorch", 1024, 1e-4, 1),
    "DGXH100_316x8x1": ("4.1.0", "eos_n316_ngc24.04_pytorch", 2528, 1.35e-4, 1),
    "H100_1x2x64": ("4.1.0", "R760x2H100NVL-PCIe-94GB", 128, 4.25e-5, 0),
    "H200_1x8x32": ("4.1.0", "h200_ngc24.04_pytorch", 256, 8.5e-5, 0),
    "H200_4x8x10": ("5.0.0", "4xSR680Ax8H200-SXM-141GB", 320, 1e-4, 0),
    "DGXB200_1x8x32": ("5.0.0", "nyx_n1_ngc25.04_pytorch", 256, 8.5e-5, 0),
}


def test_all_of_them_are_looked_at() -> None:
    shipped = {path.stem for path in (config_files.FOLDER / "retinanet").glob("*.toml")}
    assert {name for name in shipped if re.search(r"_\d+x\d+x\d+$", name)} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes(name: str) -> None:
    ruleset, system, global_batch, learning_rate, warmup_epochs = RECIPES[name]
    path = config_files.find(name)
    found = config.load(path)
    tables: Any = found.tables
    nodes, accelerators, batch = (int(part) for part in name.rsplit("_", 1)[1].split("x"))
    assert (found.run.nodes, found.run.accelerators_per_node, tables.optimizer.batch_size) == (
        nodes,
        accelerators,
        batch,
    )
    assert batch * found.run.world_size == global_batch
    assert (tables.optimizer.learning_rate, tables.optimizer.warmup_epochs) == (learning_rate, warmup_epochs)
    assert tables.optimizer.warmup_factor == 0.001
    assert (found.run.ruleset, found.submission.division, found.run.target) == (ruleset, "closed", 0.34)
    assert found.keyword == ("ssd" if ruleset < "5" else "retinanet")
    assert (tables.data.train_samples, tables.data.eval_samples, tables.model.categories) == (1170301, 24781, 264)
    assert found.run.evaluate_after_epochs == list(range(1, found.run.epochs + 1))
    (row,) = [row for row in published.rows() if (row.ruleset, row.system) == (ruleset, system)]
    assert (row.accelerators, row.global_batch) == (found.run.world_size, global_batch)
    times = sorted(run.minutes for run in row.runs if run.minutes)[1:-1]
    said = re.search(r"published: ([\d.]+), at ([\d,]+) images/s", path.read_text())
    assert said is not None
    assert float(said[1]) == pytest.approx(sum(times) / len(times), abs=0.006)
    assert float(said[2].replace(",", "")) == pytest.approx(row.images_per_s, abs=0.6)
    scored = re.search(r"scored as ([\d.]+)", path.read_text())
    assert row.minutes == pytest.approx(float((scored or said)[1]), abs=0.006)


def test_published_names_find_them() -> None:
    """As submitters' scripts are called, nodes, accelerators and batch with leading zeros."""
    assert config_files.find("DGXA100_001x08x032").stem == "DGXA100_1x8x32"
    assert config_files.find("DGXH100_316x08x001").stem == "DGXH100_316x8x1"
    assert config.load(config_files.find("H200_1x8x32")).benchmark.name == "retinanet"


@pytest.mark.parametrize(
    ("name", "table", "setting", "value", "said"),
    [
        ("DGXH100_1x8x32", "evaluation", "metric", "voc2007", "it has no RetinaNet with Pascal VOC's metric of 2007"),
        ("DGXH100_1x8x32", "evaluation", "max_detections", 100, "max_detections = 100 and not 300"),
        ("DGXH100_1x8x32", "model", "image_px", 256, "image_px = 256 and not 800"),
        ("DGXH100_1x8x32", "model", "backbone", "resnet50", 'backbone = "resnet50" and not "resnext50_32x4d"'),
        ("DGXH100_1x8x32", "model", "aspect_ratios", [1.0], r"aspect_ratios = [1.0] and not [0.5, 1.0, 2.0]"),
        ("DGXH100_1x8x32", "model", "batch_norm", "trained", 'batch_norm = "trained" and not "frozen"'),
        ("DGXH100_1x8x32", "data", "antialias", True, "data.antialias = true and not false"),
        ("DGXH100_1x8x32", "augmentation", "flip_probability", 0.0, "flip_probability = 0.0 and not 0.5"),
        ("H100_1x1x256", "model", "backbone", "resnet18", 'model.backbone = "resnet18" and not "resnet34"'),
        ("H100_1x1x256", "model", "image_px", 304, "model.image_px = 304 and not 300"),
        ("H100_1x1x256", "evaluation", "min_score", 0.01, "evaluation.min_score = 0.01 and not 0.05"),
        ("A100_1x1x128", "model", "initial_weights", "scratch", 'model.initial_weights = "scratch" and not "imagenet"'),
        ("A100_1x1x128", "model", "categories", 20, "model.categories = 20 and not 80"),
        ("A100_1x1x128", "data", "source", "embedded", 'data.source = "embedded" and not "coco"'),
        ("DGXH100_1x8x32", "model", "categories", 80, "model.categories = 80 and not 264"),
        ("H100_1x1x256", "optimizer", "momentum", 0.8, "optimizer.momentum = 0.8 and not 0.9"),
        ("A100_1x1x128", "optimizer", "loss_over", "batch", 'optimizer.loss_over = "batch" and not "image"'),
        ("H100_1x1x256", "augmentation", "crop_attempts", 7, "augmentation.crop_attempts = 7 and not 1 or 50"),
        ("H100_1x1x256", "augmentation", "crop_boxes", "any", 'augmentation.crop_boxes = "any" and not "all"'),
    ],
)
def test_no_closed_submission_is_of_another_task(name: str, table: str, setting: str, value: object, said: str) -> None:
    """No log tells of another network, and five of them scored as official."""
    raw = tomllib.loads(config_files.find(name).read_text())
    raw.setdefault(table, {})[setting] = value
    with pytest.raises(config_files.ConfigError, match=f'submission.division = "closed": .*{re.escape(said)}'):
        config.parse(raw, name=name, source=name)
    raw["submission"] |= {"division": "open"}
    config.parse(raw, name=name, source=name)


def test_another_metric_is_said_of_an_open_run() -> None:
    found = config.parse(small.content(evaluation={"metric": "voc2010"}), name="small", source="small")
    assert found.other_task == "RetinaNet with Pascal VOC's metric of 2010"
    assert config.parse(small.content(), name="small", source="small").other_task == ""


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    [
        ("data", {"decode": "whole"}, 'decode = "whole" has no effect: RetinaNet trains on whole pictures'),
        ("model", {"aspect_ratios": []}, r"model.aspect_ratios = \[\]: not allowed"),
        ("model", {"anchor_px": [1, 20, 40]}, "with a ratio of 0.5 in aspect_ratios makes anchors of no area"),
        ("model", {"aspect_ratios": [1.0, 100.0]}, "with a ratio of 100.0 in aspect_ratios makes anchors of no area"),
    ],
)
def test_what_cannot_be_is_refused_by_name(table: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(config_files.ConfigError, match=said):
        config.parse(small.content(**{table: settings}), name="small", source="small")
