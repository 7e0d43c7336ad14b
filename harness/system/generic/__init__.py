"""Accelerators that torch knows and no other folder here does: AMD's, Intel's, Habana's, CoreX's and the next one's."""

from harness.system.generic.vendor import VENDOR

__all__ = ["VENDOR"]
