"""Runs that --max-steps ends: exactly there, wherever it is, and never as a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.contract import DataSummary
from harness.execution.budget import Budget
from tests.harness.execution.runs import events, run, stop
from tests.toy import configuration as toy

STEPS = 5  # of the toy's epoch here; logged every 3


def written(folder: Path, fate: str = "learns", **how: Any) -> Path:
    content = toy.raw(fate, log_every_steps=3, **how)
    content["toy"]["steps"] = STEPS
    return toy.write(folder, content)


def trained(log: Path) -> list[tuple[int, int]]:
    """Epoch and step, counted within it, of each interval's end."""
    return [
        (each["metadata"]["epoch_num"], each["metadata"]["step"])
        for each in events(log)
        if each["key"] == "tracked_stats"
    ]


@pytest.mark.parametrize(
    ("steps", "intervals", "quality", "whole"),
    [
        (1, [(1, 1)], "", 0),
        (3, [(1, 3)], "", 0),
        (4, [(1, 3), (1, 4)], "", 0),
        (7, [(1, 3), (1, 5), (2, 2)], "accuracy 0.1000 after epoch 1, ", 1),
        (10, [(1, 3), (1, 5), (2, 3), (2, 5)], "accuracy 0.2000 after epoch 2, ", 2),
    ],
)
def test_the_last_step_trained_is_step_n(
    tmp_path: Path, steps: int, intervals: list[tuple[int, int]], quality: str, whole: int
) -> None:
    finished = run(written(tmp_path), "--out", tmp_path, "--max-steps", steps)
    log = tmp_path / "result_0.txt"
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert trained(log) == intervals
    assert "RESULT" not in finished.stdout + log.read_text()
    stopped = stop(log)
    assert stopped["status"] == "aborted"
    assert stopped["reason"] == f"steps spent: {steps} of --max-steps {steps}, {quality}target 0.25"
    assert f"aborted: {stopped['reason']}" in finished.stdout
    found = events(log)
    order = [each["key"] for each in found]
    assert [each["value"] for each in found if each["key"] == "max_steps"] == [steps]
    for key in ("epoch_stop", "block_stop", "eval_accuracy"):
        assert order.count(key) == whole, f"{key}: of whole epochs alone"
    begun = intervals[-1][0]
    for key in ("throughput", "data_wait_share"):
        epochs = [each["metadata"]["epoch_num"] for each in found if each["key"] == key]
        assert epochs == list(range(1, begun + 1)), f"{key}: of the cut epoch too"
        assert order.index("run_stop") > max(place for place, each in enumerate(order) if each == key)
    part = f"epoch {begun}/4  cut after step {steps - STEPS * whole}  loss"
    assert (part in finished.stdout) == (begun > whole)


def test_an_epoch_that_ends_with_step_n_needs_no_evaluation(tmp_path: Path) -> None:
    assert run(written(tmp_path, evaluate_after_epochs=[2, 4]), "--out", tmp_path, "--max-steps", STEPS).returncode == 1
    order = [each["key"] for each in events(tmp_path / "result_0.txt")]
    assert (order.count("epoch_stop"), order.count("block_stop"), order.count("eval_start")) == (1, 0, 0)
    assert stop(tmp_path / "result_0.txt")["reason"] == "steps spent: 5 of --max-steps 5, target 0.25"


@pytest.mark.parametrize("steps", [3 * STEPS, 1000])
def test_a_target_met_in_time_is_met(tmp_path: Path, steps: int) -> None:
    finished = run(written(tmp_path), "--out", tmp_path, "--max-steps", steps)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert stop(tmp_path / "result_0.txt")["status"] == "success"
    assert "RESULT,TOY,," in finished.stdout
    assert trained(tmp_path / "result_0.txt")[-1] == (3, STEPS)


@pytest.mark.parametrize(("steps", "reason"), [(4 * STEPS, "steps spent: 20 of --max-steps 20"), (21, "epochs spent")])
def test_no_step_comes_after_the_last_epoch(tmp_path: Path, steps: int, reason: str) -> None:
    assert run(written(tmp_path, "stands still"), "--out", tmp_path, "--max-steps", steps).returncode == 1
    assert stop(tmp_path / "result_0.txt")["reason"].startswith(reason)
    assert trained(tmp_path / "result_0.txt")[-1] == (4, STEPS)


@pytest.mark.long
def test_every_rank_ends_there(tmp_path: Path) -> None:
    # a rank 1 that nobody told would go on to epoch 2, and raise
    finished = run(written(tmp_path, "rank 1 raises", ranks=2), "--out", tmp_path, "--max-steps", 4)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "rank 1 broke" not in finished.stdout + finished.stderr
    assert trained(tmp_path / "result_0.txt") == [(1, 3), (1, 4)]
    assert stop(tmp_path / "result_0.txt")["reason"].startswith("steps spent: 4")


def test_a_resumed_run_counts_from_the_beginning_of_the_whole(tmp_path: Path) -> None:
    path, kept = written(tmp_path), ("--checkpoint-dir", tmp_path / "kept")
    assert run(path, "--out", tmp_path, *kept, "--max-steps", 7).returncode == 1
    resumed = run(path, "--out", tmp_path, *kept, "--from-checkpoint", "--max-steps", 12)
    assert resumed.returncode == 1, resumed.stdout + resumed.stderr
    assert trained(tmp_path / "result_1.txt") == [(2, 3), (2, 5), (3, 2)]
    none_left = run(path, "--out", tmp_path, *kept, "--from-checkpoint", "--max-steps", 10)
    assert none_left.returncode == 2
    assert "the checkpoint is after 10 steps, which leaves none of --max-steps 10" in none_left.stdout


def test_no_step_at_all_is_no_wish(tmp_path: Path) -> None:
    refused = run(written(tmp_path), "--out", tmp_path, "--max-steps", 0)
    assert refused.returncode == 2 and "--max-steps" in refused.stderr
    assert not (tmp_path / "result_0.txt").exists()


def test_the_steps_that_a_budget_leaves() -> None:
    data = DataSummary(train_samples=41, eval_samples=4, steps_per_epoch=10)
    every, some = Budget(data), Budget(data, max_steps=25)
    assert [every.cut(epoch) for epoch in (1, 2, 3)] == [None, None, None]
    assert [some.cut(epoch) for epoch in (1, 2, 3)] == [None, None, 5]
    assert Budget(data, max_steps=20).cut(2) is None, "all of it"
    assert [Budget(data, max_steps=20).spent(epochs) for epochs in (0, 1, 2, 3)] == [False, False, True, True]
    assert not every.spent(1000)
    assert (every.images(4), some.images(4), some.images(2)) == (4 * 41, 2.5 * 41, 2 * 41)
