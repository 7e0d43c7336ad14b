"""SSD300 with a ResNet-34 backbone on COCO, the MLPerf Training benchmark `ssd` of v0.5 to v1.1; and, as another task, the SSD
paper's VGG-16 on Pascal VOC."""

from benchmarks.ssd.benchmark import BENCHMARK

__all__ = ["BENCHMARK"]
