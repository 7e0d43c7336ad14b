"""SSD300 with a ResNet-34 backbone on COCO, the MLPerf Training benchmark `ssd` of v0.5 to v1.1."""

from benchmarks.ssd.benchmark import BENCHMARK

__all__ = ["BENCHMARK"]
