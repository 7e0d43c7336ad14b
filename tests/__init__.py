"""The tests of this project."""

from benchmarks.detection.data_path import nvjpeg

nvjpeg.prefer_installed()  # as a run does, before torchvision brings its own: those of a GPU decode
