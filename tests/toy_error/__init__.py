"""The second toy: the same number, judged by its error, of which less is better, under a keyword and rules of its own."""

from __future__ import annotations

from typing import Any

from harness.contract import Context
from tests.toy import ToyBenchmark, ToyConfig, ToySession


class ErrorSession(ToySession):
    def phase_seconds(self) -> dict[str, float]:
        return {}

    def evaluate(self, epoch: int) -> float:
        return 1 - super().evaluate(epoch)


class ErrorBenchmark(ToyBenchmark):
    name = "toy_error"

    def open(self, config: ToyConfig, context: Context) -> ErrorSession:
        return ErrorSession(config.toy, context)


BENCHMARK: Any = ErrorBenchmark()
