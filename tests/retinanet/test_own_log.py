"""The log of a run of RetinaNet, small but with all of the network's tensors, before MLPerf's checker by its rulesets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlperf_logging.compliance_checker import mlp_compliance

from harness.results.checking.findings import Log
from harness.results.checking.log import check_log
from harness.results.logfile import read
from harness.rules import rules_for
from tests.harness.execution import runs
from tests.ssd.coco_folder import Picture, write

CONFIGURATION = """
benchmark = "retinanet"

[submission]
org = "Someone"
platform = "CPU"
division = "open"
status = "research"

[run]
ruleset = "{ruleset}"
device = "cpu"
nodes = 1
accelerators_per_node = 1
epochs = 1
evaluate_after_epochs = [1]
target = 0.34
log_every_steps = 1

[model]
initial_weights = "scratch"
categories = 1
image_px = 64
trained_stages = 5

[data]
source = "coco"
train_samples = 2
eval_samples = 1
eval_images_without_boxes = true
threads = 1
backend = "torch"

[optimizer]
batch_size = 2
learning_rate = 1e-4

[compute]
precision = "fp32"
threads = 1

[evaluation]
batch_size = 1
"""
KEYWORDS = {"2.0.0": "ssd", "4.1.0": "ssd", "5.0.0": "retinanet", "5.1.0": "retinanet"}


def complies(log: str, path: Path, ruleset: str) -> bool:
    path.write_text(log)
    checker = mlp_compliance.make_checker("training", ruleset, quiet=True, werror=True)
    passed, *_ = mlp_compliance.main(str(path), f"training_{ruleset}/common.yaml", checker)
    return bool(passed)


@pytest.mark.long
@pytest.mark.parametrize("ruleset", KEYWORDS)
def test_each_ruleset_takes_our_log_in_both_divisions(tmp_path: Path, ruleset: str) -> None:
    """In the closed one with a quality that two pictures never give: keys, values, order and names of tensors are the run's."""
    box = (8, 8, 30, 30, 1)
    for half, count in (("train2017", 2), ("val2017", 1)):
        write(tmp_path / "data", [Picture(60 + level, [box]) for level in range(count)], half=half)
    (tmp_path / "small.toml").write_text(CONFIGURATION.format(ruleset=ruleset))
    done = runs.run(tmp_path / "small.toml", "--data-dir", tmp_path / "data", "--out", tmp_path / "out")
    assert done.returncode == 1, done.stdout + done.stderr  # its one epoch is spent
    path = tmp_path / "out" / "result_0.txt"
    log = path.read_text()
    record = read(path)
    assert (record.benchmark, record.ruleset, record.ruleset_is_guess) == (KEYWORDS[ruleset], ruleset, False)
    assert complies(log, tmp_path / "open.txt", ruleset)
    assert bool(record.tensors) == (ruleset == "2.0.0"), "which tensors, the checker of the closed division says"
    closed = log.replace(
        '"key": "submission_division", "value": "open"', '"key": "submission_division", "value": "closed"'
    )
    assert not complies(closed, tmp_path / "missed.txt", ruleset), "the target of the closed division"
    (quality,) = [event for event in runs.events(path) if event["key"] == "eval_accuracy"]
    reached = closed.replace(
        f'"key": "eval_accuracy", "value": {json.dumps(quality["value"])}', '"key": "eval_accuracy", "value": 0.3401'
    )
    assert reached != closed
    assert complies(reached, tmp_path / "closed.txt", ruleset)
    found = [
        each for each in check_log(Log("r", record, rules_for(record.benchmark, ruleset))) if each.severity == "error"
    ]
    assert {each.rule for each in found} == {"outcome"}
