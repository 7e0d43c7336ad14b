"""Data sets and weights that others published: fetched, verified and laid out as a run wants them."""
