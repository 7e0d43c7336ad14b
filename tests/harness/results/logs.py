"""Small result logs for tests: one that every check passes, and ways to spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import names
from harness.launch import ledger

START_MS = 1_592_669_895_000
EPOCH_MS = 12_000
KEYS_OF = {"0.7.0": (), "1.0.0": ("gradient_accumulation_steps",), "1.1.0": ("gradient_accumulation_steps",)}

Event = dict[str, Any]


def event(time_ms: float, key: str, value: Any = None, **metadata: Any) -> Event:
    return {
        "namespace": "",
        "time_ms": time_ms,
        "event_type": "POINT_IN_TIME",
        "key": key,
        "value": value,
        "metadata": {"file": "train.py", "lineno": 1, **metadata},
    }


def events(
    *,
    ruleset: str = "0.7.0",
    seed: int = 1,
    epoch_ms: int = EPOCH_MS,
    evaluations: tuple[tuple[int, float], ...] | None = None,
    status: str = "success",
    ranks: int = 8,
    division: str = "closed",
    own: dict[str, Any] | None = None,
) -> list[Event]:
    """A run of the closed division that evaluates on schedule and reaches the target with its last evaluation."""
    if evaluations is None:
        on_schedule = range(5, 51, 5) if ruleset == "1.1.0" else (40, 50)
        evaluations = tuple((epoch, 0.2301 if epoch == 50 else epoch / 250) for epoch in on_schedule)
    now = START_MS
    log = [
        event(now, "submission_benchmark", "ssd"),
        event(now, "submission_org", "Someone"),
        event(now, "submission_division", division),
        event(now, "submission_status", "onprem"),
        event(now, "submission_platform", "1xDGX A100"),
        event(now + 5_000, "cache_clear", True),
        *(event(now + 9_000 - rank, "init_start") for rank in range(ranks)),
        event(now + 10_000, "seed", seed),
        event(now + 10_000, "model_bn_span", 114),
        event(now + 10_000, "global_batch_size", 912),
        event(now + 10_000, "opt_base_learning_rate", 0.09),
        event(now + 10_000, "opt_learning_rate_decay_boundary_epochs", [44, 55]),
        event(now + 10_000, "opt_weight_decay", 1.3e-4),
        event(now + 10_000, "opt_learning_rate_warmup_steps", 650),
        event(now + 10_000, "opt_learning_rate_warmup_factor", 0),
        event(now + 10_000, "max_samples", 1),
        *(event(now + 10_000, key, 1) for key in KEYS_OF[ruleset]),
        *(event(now + 10_000, key, value) for key, value in (own or {}).items()),
        event(now + 40_000, "init_stop"),
        event(now + 40_000, "run_start"),
        event(now + 41_000, "train_samples", 117266),
        event(now + 41_000, "eval_samples", 4952),
    ]
    now += 42_000
    accuracy = dict(evaluations)
    for epoch in range(1, max(accuracy, default=1) + 1):
        log.append(event(now, "epoch_start", epoch_num=epoch))
        now += epoch_ms
        log.append(event(now, "epoch_stop", epoch_num=epoch))
        if epoch in accuracy:
            log.append(event(now, "eval_start", epoch_num=epoch))
            now += 3_000
            log.append(event(now, "eval_accuracy", accuracy[epoch], epoch_num=epoch))
            log.append(event(now, "eval_stop", epoch_num=epoch))
    log.append(event(now + 100, "run_stop", status=status))
    return log


def text(log: Iterable[Event], *, noise: str = "+ set +x\n") -> str:
    return "".join(f"{noise}:::MLLOG {json.dumps(each)}\n" for each in log)


def write(path: Path, log: Iterable[Event]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(log))
    return path


def write_series(folder: Path, count: int = 5, first_seed: int = 100, first_ms: int = EPOCH_MS, **how: Any) -> Path:
    """`count` runs with seeds of their own, each epoch 10 ms longer than in the run before."""
    for index in range(count):
        write(folder / f"result_{index}.txt", events(seed=first_seed + index, epoch_ms=first_ms + 10 * index, **how))
    return folder


def write_ledger(folder: Path) -> Path:
    """That of the series in `folder`, as a series of trials writes it, with a record for each."""
    with ledger.opened(folder) as book:
        book.append(ledger.SERIES, series="s", trials=len(names.results_in(folder)))
        for log in names.results_in(folder):
            trial = {"trial": names.number(log), "attempt": 1}
            book.append(ledger.START, series="s", **trial)
            log.with_suffix(".json").write_text(json.dumps(trial))
            hashes = {"log_sha256": ledger.sha256(log), "record_sha256": ledger.sha256(log.with_suffix(".json"))}
            book.append(ledger.END, **trial, status=ledger.SUCCESS, **hashes)
    return folder / ledger.FILE


def changed(log: list[Event], key: str, change: Callable[[Event], Any], at: int = 0) -> list[Event]:
    """The log with the `at`-th event of `key` changed in place; -1 is its last."""
    chosen = [each for each in log if each["key"] == key][at]
    change(chosen)
    return log


def without(log: list[Event], key: str) -> list[Event]:
    return [each for each in log if each["key"] != key]


HARDWARE = {
    "cpu": "AMD EPYC 7742 64-Core Processor",
    "sockets": 2,
    "cores": 128,
    "threads": 256,
    "usable_threads": 64,
    "memory_gib": 2015.5,
    "accelerators": ["NVIDIA A100-SXM4-40GB"] * 8,
    "gpus": [{"memory_mib": 40960, "power_limit_w": 400.0, "clock_sm_max_mhz": 1410, "nvlinks": 12}],
}
SOFTWARE = {
    "torch": "2.14.1",
    "driver": "580.65.06",
    "cuda": "13.0",
    "cudnn": "92400",
    "nccl": "2.30.7",
    "dali": "2.4.0",
    "os": "Debian",
}


def own(**more: Any) -> dict[str, Any]:
    """Our own keys, as a run on a DGX A100 logs them."""
    return {
        "configuration_name": "DGXA100_1x8x114",
        "configuration": {"run": {"ruleset": "0.7.0", "nodes": 1, "accelerators_per_node": 8}},
        "configuration_sha256": "ab" * 32,
        "software": SOFTWARE,
        "hardware": HARDWARE,
        "image": {"id": "sha256:0123"},
        "commit": "0" * 40,
        "tree_dirty": False,
        "precision": "bf16",
        "demonstration": False,
        **more,
    }


DESCRIPTION = {
    "submitter": "Someone",
    "division": "closed",
    "status": "onprem",
    "system_name": "dgxa100_test",
    "number_of_nodes": "1",
    "host_processors_per_node": "2",
    "host_processor_model_name": "AMD EPYC 7742",
    "host_processor_core_count": "64",
    "host_processor_vcpu_count": "",
    "host_processor_frequency": "",
    "host_processor_caches": "",
    "host_processor_interconnect": "",
    "host_memory_capacity": "2 TB",
    "host_storage_type": "NVMe SSD",
    "host_storage_capacity": "30 TB",
    "host_networking": "",
    "host_networking_topology": "",
    "host_memory_configuration": "",
    "accelerators_per_node": "8",
    "accelerator_model_name": "NVIDIA A100-SXM4-40GB (400W)",
    "accelerator_host_interconnect": "",
    "accelerator_frequency": "",
    "accelerator_on-chip_memories": "",
    "accelerator_memory_configuration": "HBM2",
    "accelerator_memory_capacity": "40 GB",
    "accelerator_interconnect": "",
    "accelerator_interconnect_topology": "",
    "cooling": "",
    "hw_notes": "",
    "framework": "PyTorch 2.14",
    "other_software_stack": {"cuda_version": "13.0"},
    "operating_system": "Ubuntu 24.04",
    "sw_notes": "",
}


def write_package(folder: Path, system: str = "dgxa100_test", **how: Any) -> Path:
    """A package that passes except for its sources."""
    write_series(folder / "results" / system / "ssd", **how)
    (folder / "systems").mkdir()
    (folder / "systems" / f"{system}.json").write_text(json.dumps(DESCRIPTION))
    return folder
