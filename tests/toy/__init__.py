"""A whole benchmark in one file, which proves the contract: it fits one number and can be told to fail."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from harness.contract import (
    Context,
    DataSummary,
    Detector,
    Figure,
    Graph,
    Interval,
    NotSuitable,
    Plain,
    Published,
    SecondsOf,
)

from . import using

BEYOND_PATIENCE_S = 1200  # twice tests.patience: a test sees what ends it before it would have ended by itself


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    fate: Literal["learns", "stands still", "nan", "raises", "sleeps", "bad data", "unsuitable", "rank 1 raises",
                  "stops short", "long farewell", "never returns", "naps", "knows the answers",
                  "tells its seed", "rank 1 is slow", "rank 1 hangs",
                  "exits", "beyond all", "leaves a thread", "rank 1 is sure",
                  "warms up slowly", "cannot warm up", "warms up for ever", "reads slowly", "ranks meet",
                  "rank 0 exits in init", "rank 1 exits in init",
                  "rank 0 exits in training", "rank 1 exits in training"]  # fmt: skip
    gain: float = 0.1  # of quality, an epoch
    steps: int = 2  # of an epoch


class ToyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    toy: Toy


class ToySession:
    def __init__(self, toy: Toy, context: Context) -> None:
        self.toy, self.context, self.quality = toy, context, 0.0

    def hyperparameters(self) -> Mapping[str, Plain]:
        return {
            "global_batch_size": 4 * self.context.world_size, "model_bn_span": 4, "opt_base_learning_rate": 0.1,
            "opt_learning_rate_warmup_factor": 0, "opt_learning_rate_warmup_steps": 1, "opt_weight_decay": 0.0,
            "opt_learning_rate_decay_boundary_epochs": [40, 50], "max_samples": 1, "gradient_accumulation_steps": 1,
        }  # fmt: skip

    def properties(self) -> Mapping[str, Plain]:
        met: dict[str, Plain] = {"ranks_meet_in_step": True} if self.toy.fate == "ranks meet" else {}
        return {"precision": "exact", "demonstration": True, **met}

    def weight_names(self) -> list[str]:
        return ["slope", "offset"]

    def warm_up(self) -> None:
        if self.toy.fate == "tells its seed":
            sys.stdout.write(f"rank {self.context.rank} has seed {self.context.seed}\n")
        self._exit_in("init")
        if self.toy.fate == "cannot warm up":
            raise RuntimeError("the toy broke")
        if self.toy.fate == "warms up for ever":
            _deaf_to_signals()
        time.sleep(BEYOND_PATIENCE_S if self.toy.fate == "warms up slowly" else 0)

    def load_data(self) -> DataSummary:
        if self.toy.fate == "bad data":
            raise ValueError("the folder has 7 numbers, the configuration says 8")
        time.sleep(BEYOND_PATIENCE_S if self.toy.fate == "reads slowly" else 0)
        both = 3 if self.toy.fate == "knows the answers" else 0
        remarks = ["half of the numbers are there before"] if both else []
        return DataSummary(4 * self.toy.steps, 4, self.toy.steps, eval_samples_trained_on=both, remarks=remarks)

    def train_epoch(self, epoch: int, steps: int | None = None) -> Iterator[Interval]:
        last, since = self.toy.steps if steps is None else steps, 0
        for step in range(1, last + (self.toy.fate != "stops short")):
            if self.toy.fate == "raises" and epoch == 2:
                raise RuntimeError("the toy broke")
            if self.toy.fate == "exits" and epoch == 2:
                sys.exit(0)  # as a library's own handler of an error may
            if self.toy.fate == "rank 1 raises" and self.context.rank == 1 and epoch == 2:
                raise RuntimeError("rank 1 broke")
            if epoch == 2:
                self._exit_in("training")
            if self.toy.fate == "never returns" and epoch == 2:
                _deaf_to_signals()
            time.sleep(2 if self.toy.fate == "naps" and epoch == 2 else 0)
            hangs = self.toy.fate == "rank 1 hangs" and self.context.rank == 1
            time.sleep(BEYOND_PATIENCE_S if hangs and epoch == 2 else 0)
            time.sleep(1 if self.toy.fate == "rank 1 is slow" and self.context.rank == 1 else 0)
            time.sleep(BEYOND_PATIENCE_S if self.toy.fate in ("sleeps", "rank 1 raises") and epoch == 2 else 0.001)
            loss = math.nan if self.toy.fate == "nan" and epoch == 2 else 1 - self.quality
            since += 1
            if step % self.context.log_every_steps == 0 or step == last:
                yield Interval(
                    steps=since, images=4 * since, loss=loss, learning_rate=0.1, phases={"data_starved": 0.0001}
                )
                since = 0
        self.quality += 0.0 if self.toy.fate in ("stands still", "long farewell") else self.toy.gain

    def first_batch(self) -> dict[str, Any]:
        return {}

    def chosen(self) -> dict[str, Any]:
        return {}

    def phase_seconds(self) -> dict[str, float]:
        return {}

    def evaluate(self, epoch: int) -> float:
        if self.toy.fate == "beyond all" or (self.toy.fate == "rank 1 is sure" and self.context.rank == 1):
            return 1.0 + (self.toy.fate == "beyond all")
        return self.quality

    def fingerprint(self) -> str:
        if self.toy.fate == "leaves a thread":
            threading.Thread(target=time.sleep, args=(BEYOND_PATIENCE_S,), name="reader of beads").start()
        time.sleep(5 if self.toy.fate == "long farewell" else 0)
        return "f00d"

    def panels(self, count: int) -> list[Any]:
        return []

    def state(self) -> dict[str, Any]:
        return {"quality": self.quality}

    def restore(self, state: dict[str, Any]) -> None:
        self.quality = state["quality"]

    def close(self) -> None: ...

    def _exit_in(self, part: str) -> None:
        """As a library in C does that finds its device broken: Python hears nothing of it."""
        if self.toy.fate == f"rank {self.context.rank} exits in {part}":
            ctypes.CDLL(None).exit(1)


class ToyBenchmark:
    name = "toy"  # rules.toml beside this has its rules
    config_type = ToyConfig

    def provide_data(self, config: ToyConfig, data_dir: Path | None, cache_dir: Path, progress: Any) -> Path:
        progress("making numbers", 8, 8)
        return data_dir or cache_dir

    def data_digest(self, config: ToyConfig, data_dir: Path) -> str:
        numbers = data_dir / "numbers"
        return numbers.read_text() if numbers.is_file() else ""

    def check(self, config: ToyConfig, context: Context) -> None:
        if config.toy.fate == "unsuitable":
            raise NotSuitable("no abacus here; buy one")

    def open(self, config: ToyConfig, context: Context) -> ToySession:
        return ToySession(config.toy, context)

    def probe(self, config: ToyConfig, context: Context, seconds_of: SecondsOf) -> Iterator[Figure]:
        self.check(config, context)
        seconds = seconds_of(lambda: sum(range(1000)))
        return iter([Figure("counting", "us", [1e6 * each for each in seconds], "to 1000")])

    def detector(
        self,
        config: ToyConfig,
        context: Context,
        state: Mapping[str, Any] | None,
        *,
        precision: str = "",
        compiled: bool = False,
    ) -> Detector:
        if precision not in ("", "fp32"):
            raise NotSuitable(f"an abacus has no {precision}")
        return using.ToyDetector(_trained(state), compiled=compiled)

    def graph(self, config: ToyConfig, state: Mapping[str, Any]) -> Graph:
        return using.graph(_trained(state))

    def pictures(self, count: int) -> list[bytes]:
        return [b"toy %d" % number for number in range(count)]

    def published(self, config: ToyConfig) -> list[Published]:
        return [Published(1e6, "the toy, batch 1", "1x abacus", "a tale")]

    def prepare(self, data_dir: Path, *, verify_only: bool, confirm: Callable[[str], bool], **_: Any) -> list[str]:
        return [] if confirm("Count to eight?") else ["the numbers are missing"]


def _deaf_to_signals() -> None:
    """For ever, in C, as a dead disk's read is."""
    mutex = ctypes.create_string_buffer(64)  # zeros are PTHREAD_MUTEX_INITIALIZER
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def _trained(state: Mapping[str, Any] | None) -> float:
    if state is None:
        return 0.0
    if not isinstance(state.get("quality"), float):
        raise ValueError("the checkpoint has no quality")
    return float(state["quality"])


BENCHMARK = ToyBenchmark()
