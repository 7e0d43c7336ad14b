"""A small data set of generated pictures, so that a run to a target needs no download: see dataset.py."""
