"""What a benchmark gives against the contract ends the run with what it gave, and never passes for a result."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.contract import Context, DataSummary, Interval
from harness.execution import given
from harness.execution.events import keys
from harness.execution.run import NotFinite
from harness.rules import Rules
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import run, stop
from tests.toy import ToySession
from tests.toy import configuration as toy

HERE = Context("cpu")
SUMMARY = DataSummary(8, 4, 2)
INTERVAL = Interval(2, 8, 0.5, 0.1, {"data_starved": 0.0})
PERCENT = Rules("toy", "0.7.0", metric="error", lower_is_better=True, quality_range=(0, 100))
ACCURACY = Rules("toy", "0.7.0", metric="accuracy")


def test_what_the_contract_allows_passes() -> None:
    assert given.summary(HERE, SUMMARY) is SUMMARY
    assert given.interval(INTERVAL) is INTERVAL
    nan = replace(INTERVAL, loss=math.nan)
    assert given.interval(nan) is nan  # the log has it before the run ends
    found = given.quality(HERE, np.float64(8), 1, PERCENT, 8.0)
    assert (found, type(found)) == (8.0, float)  # of numpy's own type no checkpoint could be read again
    assert given.told("properties", {"precision": "fp32"}) == {"precision": "fp32"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train_samples": 0}, "train_samples = 0 "),
        ({"eval_samples": np.int64(4)}, "eval_samples = .*int64"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch = 2.5"),
        ({"steps_per_epoch": True}, "steps_per_epoch = True"),
        ({"eval_samples_trained_on": 5}, "eval_samples_trained_on = 5"),
        ({"remarks": "a sentence"}, "remarks = 'a sentence'"),
        ({"remarks": None}, "remarks = None"),
        ({"remarks": [1]}, r"remarks = \[1\]"),
        ({"more": {"train_samples": 9}}, "load_data's more gave train_samples, which the harness says itself"),
    ],
)
def test_a_summary(values: dict[str, Any], said: str) -> None:
    with pytest.raises(given.NotAsPromised, match=said):
        given.summary(HERE, replace(SUMMARY, **values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images": -8}, "images = -8"),
        ({"steps": 0}, "steps = 0"),
        ({"loss": torch.tensor(0.5)}, r"loss = tensor\(0.5000\)"),
        ({"learning_rate": None}, "learning_rate = None"),
        ({"phases": {}}, "data_starved among them"),
        ({"phases": {"data_starved": 0.0, "all_reduce_wai": 1.0}}, "all_reduce_wai"),
        ({"phases": {"data_starved": -5.0}}, "data_starved = -5.0"),
        ({"phases": {"data_starved": math.nan}}, "data_starved = nan"),
    ],
)
def test_an_interval(values: dict[str, Any], said: str) -> None:
    with pytest.raises(given.NotAsPromised, match=said):
        given.interval(replace(INTERVAL, **values))


def test_a_quality() -> None:
    for found in (torch.tensor(8.0), np.float32(8), True, None, "8"):
        with pytest.raises(given.NotAsPromised, match="a Python number is needed"):
            given.quality(HERE, found, 1, PERCENT, 8.0)
    for found, rules in ((-1.0, PERCENT), (150.0, PERCENT), (23.0, ACCURACY)):
        with pytest.raises(given.NotAsPromised, match="which it cannot be"):
            given.quality(HERE, found, 1, rules, 0.23)
    for found, low, high, lower, target in (
        (-0.5, -10, 10, True, 0.1),  # a log-likelihood
        (1.2, 0, 100, False, 0.5),  # per cent, of which less than one is asked
    ):
        wide = Rules("toy", "0.7.0", lower_is_better=lower, quality_range=(low, high))
        assert given.quality(HERE, found, 1, wide, target) == found  # the range alone decides where there is one
        assert wide.met(found, target)
    said = r"1\.3, which it cannot be: it is 1 or less where the target is 0\.9, unless .*rules\.toml has another quality_range"
    with pytest.raises(given.NotAsPromised, match=said):
        given.quality(HERE, 1.3, 1, ACCURACY, 0.9)
    with pytest.raises(NotFinite, match="the error after epoch 3 is nan"):
        given.quality(HERE, math.nan, 3, PERCENT, 8.0)


def test_other_kinds_of_thing() -> None:
    for look, said in (
        (lambda: given.summary(HERE, None), "load_data returned None"),
        (lambda: given.interval({"steps": 2}), "train_epoch yielded .*an Interval is needed"),
        (lambda: given.told("hyperparameters", None), "hyperparameters gave None"),
        (lambda: given.told("properties", {"eval_accuracy": 1.0}), "properties gave eval_accuracy"),
        (lambda: given.session(None), "open returned None .*lacks hyperparameters"),
    ):
        with pytest.raises(given.NotAsPromised, match=said):
            look()

    for wrong in (None, "", "f00 d", b"f00d", 7):
        with pytest.raises(given.NotAsPromised, match="hexadecimal digits are needed"):
            given.fingerprint(wrong)
    assert given.fingerprint("f00D") == "f00D"

    class Half(ToySession):
        fingerprint = None  # type: ignore[assignment]

    with pytest.raises(given.NotAsPromised, match="lacks fingerprint: see"):
        given.session(object.__new__(Half))


def test_ranks_that_do_not_agree_are_told_apart(tmp_path: Path) -> None:
    finished = run(toy.write(tmp_path, toy.raw("rank 1 is sure", ranks=2)), "--out", tmp_path)  # it waited for ever
    assert finished.returncode == 5, finished.stdout + finished.stderr
    said = "after epoch 1 evaluate returned 0.1 on rank 0 and 1 on rank 1: it must be the same on every rank"
    assert said in stop(tmp_path / "result_0.txt")["reason"]


def test_every_key_that_the_harness_writes_is_its_own() -> None:
    written = {key for path in (CHECKOUT / "harness" / "execution").glob("*.py") for key in _written(path)}
    assert {"eval_accuracy", "seed", "commit", "tracked_stats"} <= written
    assert not written - given.WRITTEN_BY_HARNESS


def _written(path: Path) -> Iterator[str]:
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
            logs = call.func.attr in ("point", "start", "stop")
            match call.args[0]:
                case ast.Constant(value=str(key)) if logs:
                    yield key
                case ast.Attribute(value=ast.Name(id="keys"), attr=name) if logs:
                    yield getattr(keys, name)
