"""Result logs as this harness writes them, made up: for tests that need many, or ones of accelerators that are not here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN_SAMPLES = 117266
START_MS = 1_790_000_000_000


@dataclass(frozen=True)
class Made:
    """What a made-up run is like."""

    system: str = "h100x8"
    org: str = "us"
    device: str = "NVIDIA H100 80GB HBM3"
    accelerators: int = 8
    batch: int = 912
    ruleset: str = "0.7.0"
    division: str = "closed"
    epoch_s: float = 6.0
    epochs: int = 50
    qualities: tuple[tuple[int, float], ...] = ((40, 0.182), (50, 0.2325))
    status: str = "success"
    demonstration: bool = False
    driver: str = "580.95.05"
    on_cpu: bool = False
    intervals: int = 4  # tracked_stats of an epoch


def write(folder: Path, number: int, made: Made, *, stretch: float = 1.0) -> Path:
    """result_`number`.txt of `made` in `folder`, `stretch` times as slow."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"result_{number}.txt"
    path.write_text("".join(lines(made, seed=1000 + number, stretch=stretch)), encoding="utf-8")
    return path


def series(results: Path, made: Made, runs: int = 5) -> Path:
    """`runs` logs in results/SYSTEM/ssd, each 0.2 % slower than the one before."""
    folder = results / made.system / "ssd"
    for number in range(runs):
        write(folder, number, made, stretch=1 + 0.002 * number)
    return folder


def lines(made: Made, *, seed: int, stretch: float) -> list[str]:
    log = _Log()
    for key, value in _head(made).items():
        log.add(key, value)
    log.add("seed", seed)
    for _ in range(made.accelerators):
        log.add("init_start", None, event_type="INTERVAL_START")
    for key, value in _machine(made).items():
        log.add(key, value)
    log.ms += 30_000
    log.add("init_stop", None, event_type="INTERVAL_END")
    log.add("run_start", None, event_type="INTERVAL_START")
    log.add("train_samples", TRAIN_SAMPLES)
    log.add("eval_samples", 4952)
    qualities = dict(made.qualities)
    for epoch in range(1, made.epochs + 1):
        log.add("epoch_start", None, event_type="INTERVAL_START", epoch_num=epoch)
        for step in range(made.intervals):
            log.ms += made.epoch_s * 1000 * stretch / made.intervals
            stats = {"loss": 8.0 / epoch, "learning_rate": 0.09, "throughput": TRAIN_SAMPLES / made.epoch_s}
            log.add("tracked_stats", stats, step=step, epoch_num=epoch)
        log.add("epoch_stop", None, event_type="INTERVAL_END", epoch_num=epoch)
        log.add("throughput", TRAIN_SAMPLES / (made.epoch_s * stretch), epoch_num=epoch)
        if epoch in qualities:
            log.add("eval_start", None, event_type="INTERVAL_START", epoch_num=epoch)
            log.ms += 3000
            log.add("eval_accuracy", qualities[epoch], epoch_num=epoch)
            log.add("eval_stop", None, event_type="INTERVAL_END", epoch_num=epoch)
    log.add("run_stop", None, event_type="INTERVAL_END", status=made.status)
    log.add("data_fingerprint", "d" * 64)
    return log.lines


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ms = float(START_MS)

    def add(self, key: str, value: Any, *, event_type: str = "POINT_IN_TIME", **metadata: Any) -> None:
        line = {
            "namespace": "",
            "time_ms": round(self.ms),
            "event_type": event_type,
            "key": key,
            "value": value,
            "metadata": {"file": "made_up.py", "lineno": 1, **metadata},
        }
        self.lines.append(f":::MLLOG {json.dumps(line)}\n")


def _head(made: Made) -> dict[str, Any]:
    run = {
        "ruleset": made.ruleset,
        "device": "cpu" if made.on_cpu else "cuda",
        "nodes": 1,
        "accelerators_per_node": made.accelerators,
        "target": 0.23,
    }
    return {
        "submission_benchmark": "ssd",
        "submission_org": made.org,
        "submission_division": made.division,
        "submission_status": "onprem",
        "submission_platform": f"{made.accelerators}x {made.device}",
        "cache_clear": True,
        "configuration_name": f"{made.system}_{made.batch}",
        "configuration": {"benchmark": "ssd", "run": run, "data": {"global_batch": made.batch}},
        "configuration_sha256": hashlib.sha256(f"{made.system} {made.batch}".encode()).hexdigest(),
    }


def _machine(made: Made) -> dict[str, Any]:
    return {
        "global_batch_size": made.batch,
        "model_bn_span": 114,
        "max_samples": 1,
        "gradient_accumulation_steps": 1,
        "opt_base_learning_rate": 0.09,
        "opt_weight_decay": 0.00013,
        "opt_learning_rate_warmup_factor": 0,
        "opt_learning_rate_warmup_steps": 650,
        "opt_learning_rate_decay_boundary_epochs": [44, 55],
        "precision": "bf16",
        "demonstration": made.demonstration,
        "quality_target": 0.23,
        "software": {"python": "3.11.7", "torch": "2.14.1", "cuda": "13.0", "driver": made.driver},
        "hardware": {"cpu": "AMD EPYC 9654", "accelerators": [] if made.on_cpu else [made.device] * made.accelerators},
        "commit": "c" * 40,
        "tree_dirty": False,
    }
