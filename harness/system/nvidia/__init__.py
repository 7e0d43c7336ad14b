"""NVIDIA's GPUs: the kernel module, the libcuda that is really loaded, NVML, and what follows from them."""

from harness.system.nvidia.vendor import VENDOR

__all__ = ["VENDOR"]
