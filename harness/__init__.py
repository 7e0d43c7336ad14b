"""Clocks, logs, hardware and results of training benchmarks. Knows no model and no benchmark by name."""

from pathlib import Path

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # of the checkout, or of the image's copy of it; installed: site-packages
