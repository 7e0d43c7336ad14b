"""How fast the real training run is, and whether it is still right: `python -m benchmarks.ssd.profile`, see command.py."""
