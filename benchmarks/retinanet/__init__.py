"""RetinaNet with a ResNeXt-50 32x4d backbone on OpenImages: MLPerf Training's `ssd` of v2.0 to v4.1 and `retinanet` of v5.x."""

from benchmarks.retinanet.benchmark import BENCHMARK

__all__ = ["BENCHMARK"]
