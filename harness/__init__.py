"""Clocks, logs, hardware and results of training benchmarks. Knows no model and no benchmark by name."""

__version__ = "0.1.0"
