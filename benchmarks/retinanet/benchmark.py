"""RetinaNet as the harness sees it: its keyword, its configuration, and how to open a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.detection.benchmark import DetectorBenchmark, not_the_rules
from benchmarks.retinanet.config import RetinaNetConfig
from harness.contract import Context

if TYPE_CHECKING:
    from benchmarks.retinanet.session import RetinaNetSession


class RetinaNetBenchmark(DetectorBenchmark):
    """Implements harness.contract.Benchmark."""

    name = "retinanet"  # its keyword from round 5.0 on, `ssd` before; rules.toml has both, its metric and targets
    categories = 264
    config_type = RetinaNetConfig
    published_data: ClassVar = {("train/labels/openimages-mlperf.json", 264): ""}

    def other_task(self, config: RetinaNetConfig) -> str:
        """See harness.contract.Varied."""
        metric = config.evaluation.other_metric
        return f"RetinaNet with {metric}" if metric else ""

    def against_closed(self, config: RetinaNetConfig) -> Iterator[str]:
        """See harness.contract.Varied."""
        yield from super().against_closed(config)
        yield from not_the_rules(config, "data", ["antialias"])

    def session(self, config: RetinaNetConfig, context: Context) -> RetinaNetSession:
        from benchmarks.retinanet.session import RetinaNetSession

        return RetinaNetSession(config, context)

    def prepare(
        self,
        data_dir: Path,
        *,
        verify_only: bool,
        confirm: Callable[[str], bool],
        say: Callable[[str], None],
        progress: Callable[[str, int, int | None], None],
    ) -> list[str]:
        from benchmarks.detection.download import prepare
        from benchmarks.retinanet.full_openimages import OpenImagesFiles
        from benchmarks.retinanet.openimages import OPENIMAGES_MLPERF

        return prepare.prepare(
            data_dir,
            OpenImagesFiles(OPENIMAGES_MLPERF),
            verify_only=verify_only,
            confirm=confirm,
            say=say,
            progress=progress,
        )


BENCHMARK: Any = RetinaNetBenchmark()
