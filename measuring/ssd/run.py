"""The run itself, ended by --max-steps, in a process of its own: what measuring.ssd calls end to end.

No loop of ours: the harness trains as in any run, with its schedule, and the figures are read off the log that it leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.detection.capabilities import installed
from benchmarks.ssd.config import SSDConfig
from harness import ROOT, exit_codes
from harness.results import logfile
from harness.results.lines import Event, Scanner
from measuring.measure import TIMED, Figure, Span

FIRST = "its first interval alone, in which the queue fills"
WHOLE = "of the whole epoch, with its first interval, which the images a second leave out"


class RunBroke(RuntimeError):
    """The run that was to be measured ended otherwise than by --max-steps; the message holds its last words."""


def end_to_end(config: SSDConfig, device: str, folder: Path, scratch: Path, steps: int) -> Iterator[Figure]:
    """Images/s of each logging interval but the first, the share of time spent waiting for data, and init.

    RunBroke when it breaks. Where it is ended from outside, a time limit for example, first comes what its log has till then.
    """
    scratch.mkdir()
    path = scratch / "profiled.toml"
    path.write_text(configuration_file(config, device, every=max(1, min(20, steps // 5))), encoding="utf-8")
    # what the check of a scratch folder leaves goes with it; the profile's own warm-up compiled, and says how long that took
    kept = {"HARNESS_CACHE_DIR": str(scratch / "cache"), **compiled_here()}
    command = ["env", *(f"{name}={place}" for name, place in kept.items())]
    command += [sys.executable, "-m", "harness", "run", str(path), "--max-steps", str(steps)]
    command += ["--data-dir", str(folder), "--out", str(scratch / "out"), "--number", "0", "--seed", "1"]
    log, words = scratch / "out" / "result_0.txt", scratch / "said.txt"
    try:
        with words.open("w") as said:  # no pipe: whatever a run left behind would hold that open
            done = subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=False)
    except BaseException:
        if log.exists():
            TIMED.extend(spans(log))
            yield from figures(log)
        raise
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != exit_codes.EPOCHS_SPENT:
        last = words.read_text(errors="replace")[-4000:]
        raise RunBroke(f"{' '.join(command)} ended with {done.returncode}:\n{last}")
    TIMED.extend(spans(log))
    yield from figures(log)


def compiled_here() -> dict[str, str]:
    """Where this process keeps what it compiles, by the variables that name it: a run else keeps its own, with its cache."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    found = {"TORCHINDUCTOR_CACHE_DIR": cache_dir()}
    if installed("triton.knobs"):
        from triton import knobs  # type: ignore[import-untyped]

        found["TRITON_CACHE_DIR"] = knobs.cache.dir
    return found  # an older Triton goes by the variable alone, which a run is handed on as it is


def configuration_file(config: SSDConfig, device: str, every: int) -> str:
    """`config` as a file for `harness run`: one accelerator, one epoch, an open division's demonstration."""
    tables: dict[str, Any] = {
        "submission": {"org": "profile", "platform": "this machine", "division": "open", "status": "research"},
        "run": {
            **{"ruleset": "0.7.0", "device": device.partition(":")[0], "nodes": 1, "accelerators_per_node": 1},
            **{"epochs": 1, "evaluate_after_epochs": [1], "target": 0.23, "log_every_steps": every},
        },
        **config.model_dump(mode="json", exclude_none=True),  # TOML has no null
    }
    lines = ['benchmark = "ssd"']
    for table, values in tables.items():
        # numbers, strings, truth values and lists of them are written alike in JSON and TOML
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def with_all_plans(config: SSDConfig, device: str, folder: Path, scratch: Path, steps: int) -> Iterator[Figure]:
    """end_to_end with every plan of cuDNN tried, and once more with the configuration's own: the first one's other neighbour in
    time is `end_to_end` before it.
    """
    everything = config.model_copy(update={"compute": config.compute.model_copy(update={"autotune": "all"})})
    scratch.mkdir()
    for name, each in (("all of cuDNN's plans tried", everything), ("the configuration's own again", config)):
        for figure in end_to_end(each, device, folder, scratch / name.split()[0], steps):
            yield replace(figure, what=f"{figure.what}, {name}")


def figures(log: Path) -> list[Figure]:
    """From the log of a run that ended within its first epoch, or is not at its end; of what it has."""
    record = logfile.read(log)
    init = [] if record.init_seconds is None else [record.init_seconds]
    speeds = [event.value["throughput"] for event in _events(log) if event.key == "tracked_stats"]
    waits = [100 * epoch.data_wait_share for epoch in record.epochs if epoch.data_wait_share is not None]
    found = [
        Figure("init in the run, compiled before", "s", init),
        # the first interval fills the prefetch queue: of another where there is one
        Figure("end to end: JPEG to optimizer", "images/s", speeds[1:] or speeds, "" if speeds[1:] else FIRST),
        Figure("time waiting for data", "%", waits, WHOLE),
    ]
    return [figure for figure in found if figure.samples]


def spans(log: Path) -> list[Span]:
    """When it trained what its images a second are of, one span or none: init before it takes several times as long."""
    stamps_s = [event.time_ms / 1000 for event in _events(log) if event.key == "tracked_stats"]
    begun_s = [event.time_ms / 1000 for event in _events(log) if event.key == "epoch_start"]
    first, *others = stamps_s if len(stamps_s) > 1 else [*begun_s, *stamps_s]
    return [(first, others[-1])] if others else []


def _events(log: Path) -> Iterator[Event]:
    scanner = Scanner()
    for found in (*scanner.feed(log.read_bytes()), *scanner.finish()):
        if isinstance(found, Event):
            yield found
