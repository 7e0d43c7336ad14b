"""Made-up logs of two arms: the reports' synthetic runs with a time, a driver, GPUs and telemetry of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison.comparison import Comparison, Question, compare
from tests.harness.results import synthetic_logs
from tests.harness.results.synthetic_logs import Made

Change = Callable[[list[dict[str, Any]]], None]
EVERY_S = 600  # from one run's start to the next
GPU = {
    "index": 0,
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1",
    "pcie_width": 16,
    "pcie_width_max": 16,
    "ecc": True,
}
OLD = {"driver": "580.65.06", "libcuda_version": "580.65.06", "driver_mode": "NATIVE"}
NEW = {"driver": "590.44.01", "libcuda_version": "590.44.01", "driver_mode": "NATIVE"}
# Run-to-run noise of a quiet machine, as factors: what it is does not matter, that it is the same in every test does
NOISE = (1.0004, 0.9991, 1.0007, 0.9998, 1.0001, 0.9996, 1.0009, 0.9993, 1.0002, 1.0005)


def write(
    folder: Path,
    number: int,
    *,
    made: Made = Made(accelerators=1, epochs=6, qualities=((3, 0.11), (6, 0.2325))),  # noqa: B008 - frozen
    factor: float = 1.0,
    turn: int = 0,
    software: Mapping[str, Any] = OLD,
    gpu: Mapping[str, Any] | None = GPU,
    change: Change | None = None,
    phases: Mapping[str, float] | None = None,
) -> Path:
    """result_`number`.txt, started as the `turn`-th run of the day."""
    events = [
        json.loads(line.removeprefix(":::MLLOG ")) for line in synthetic_logs.lines(made, seed=7 + turn, stretch=factor)
    ]
    more: list[dict[str, Any]] = []
    for event in events:
        event["time_ms"] += turn * EVERY_S * 1000
        if event["key"] == "software":
            event["value"] |= software
        if event["key"] == "throughput" and phases is not None:
            shares = {name: seconds * factor for name, seconds in phases.items()}
            more.append({**event, "key": "phase_seconds", "value": shares, "metadata": dict(event["metadata"])})
        if event["key"] == "hardware" and gpu is not None:
            event["value"]["gpus"] = [{**GPU, **gpu}]
    events += more
    if change is not None:
        change(events)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"result_{number}.txt"
    path.write_text("".join(f":::MLLOG {json.dumps(event)}\n" for event in events), encoding="utf-8")
    return path


def in_turns(
    root: Path,
    runs: int = 5,
    *,
    slower: float = 1.0,
    a: Mapping[str, Any] | None = None,
    b: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Folders of two arms whose runs alternate A B B A; `a` and `b` go to `write`."""
    folders = root / "a", root / "b"
    order = [arm for pair in range(runs) for arm in ((0, 1) if pair % 2 == 0 else (1, 0))]
    counts = [0, 0]
    for turn, arm in enumerate(order):
        factor = NOISE[turn % len(NOISE)] * (slower if arm else 1.0)
        given: dict[str, Any] = dict((a, b)[arm] or {})
        write(folders[arm], counts[arm], factor=factor * given.pop("factor", 1.0), turn=turn, **given)
        counts[arm] += 1
    return folders


def on_two_hosts(root: Path, orders: Sequence[str], *, b: float = 1.0) -> list[Path]:
    """Folders of two arms by the order of each host's runs ("ABBA"): the second host is slower by 0.6 s, all of it in forward.

    Arms differ in the commit, and by the factor `b` in backward; clocks are 1980 and 1755 MHz.
    """
    counts, turn = {"A": 0, "B": 0}, 0
    for host, order in enumerate(orders):
        for arm in order:
            phases = {"data_starved": 0.2, "forward_loss": 2.9 + 0.6 * host, "backward": 3.0 * (b if arm == "B" else 1)}
            log = write(
                root / arm.lower(),
                counts[arm],
                factor=NOISE[turn % len(NOISE)] * sum(phases.values()) / 6.1,
                turn=turn,
                gpu={"uuid": f"GPU-{host}"},
                phases={name: seconds * 6.1 / sum(phases.values()) for name, seconds in phases.items()},
                change=put("commit", arm.lower() * 40),
            )
            telemetry(log, clock=(1980.0, 1755.0)[host])
            counts[arm] += 1
            turn += 1
    return [root / "a", root / "b"]


def judged(folders: Sequence[Path], **question: Any) -> Comparison:
    return compare(str(folders[0]), str(folders[1]), Question(**question))


def put(key: str, value: Any) -> Change:
    """Sets an event's value; several fields of a table where both are tables."""

    def change(events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["key"] == key:
                event["value"] = {**event["value"], **value} if isinstance(value, dict) else value

    return change


def telemetry(
    log: Path,
    *,
    clock: float = 1980.0,
    held: float = 0.0,
    ecc: int = 0,
    reasons: int = 0,
    power: float = 600.0,
    width: int = 16,
    xids: Sequence[int] = (),
    **more: float,
) -> None:
    """telemetry_N.jsonl beside a log of `write`, a sample a second; `more`: counters that grew."""
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines()]
    stamps = {event["key"]: event["time_ms"] for event in events}
    state = {"clock_sm_max_mhz": 1980, "pcie_width_max": 16}
    lines: list[dict[str, Any]] = [{"event": "begin", "time_ms": stamps["init_stop"] - 20_000, "gpus": [state]}]
    sampled = {"clock_sm_mhz": clock, "power_w": power, "temperature_c": 61, "clock_event_reasons": reasons}
    sampled |= {"pcie_width": width, "xids": list(xids)}
    lines += [
        {"event": "sample", "time_ms": at, "gpus": [sampled]}
        for at in range(stamps["run_start"] + 500, stamps["run_stop"], 1000)
    ]
    grown = {"energy_j": 1.0, "held_by_temperature_s": held, "held_by_power_s": 3.0, "ecc_uncorrected": ecc, **more}
    lines.append({"event": "end", "time_ms": stamps["run_stop"] + 2000, "gpus": [{"during_run": grown}]})
    path = log.with_name(log.name.replace("result_", "telemetry_")).with_suffix(".jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def made(**changes: Any) -> Made:
    return replace(Made(accelerators=1, epochs=6, qualities=((3, 0.11), (6, 0.2325))), **changes)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    """The verb's exit code, and what it said."""
    code = main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err
