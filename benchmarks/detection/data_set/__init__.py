"""A data set on a disk: its annotations and pictures read, and checked before anything is trained on them. Needs no torch."""
