"""How fast the real training run is, and whether it is still right: `python -m measuring.ssd`, see command.py."""
