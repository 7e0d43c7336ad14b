"""How fast SSD was where it was published: hardware of 2015, so beside a figure of today's and never held against it."""

from __future__ import annotations

from harness.contract import Published

PAPER = "Liu et al., SSD: Single Shot MultiBox Detector, arXiv:1512.02325, abstract"
TITAN_X = "one NVIDIA Titan X, with Caffe"
SSD300 = Published(58, "SSD300 with VGG-16 on VOC2007 at 72.1 % mAP, batch 1", TITAN_X, PAPER)
