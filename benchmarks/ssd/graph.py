"""SSD's candidates as fixed shapes, for a graph that other programs run: see benchmarks/detection/graph.py.

Shapes: B images, S image side in px, A default boxes, K classes with background 0.
"""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.detection.suppression import Limits
from benchmarks.ssd import detections
from benchmarks.ssd.boxes import decode
from benchmarks.ssd.config import EvaluationTable


def limits(settings: EvaluationTable) -> Limits:
    """As benchmarks/ssd/detections.py has them from the configuration."""
    return Limits(settings.min_score, settings.max_iou, settings.max_per_class, detections.MAX_PER_IMAGE)


class Candidates(nn.Module):
    """Every default box in every class."""

    def __init__(self, model: nn.Module, default_boxes: Tensor) -> None:
        """`default_boxes` (A, 4) cxcywh."""
        super().__init__()
        self.model = model
        self.default_boxes: Tensor
        self.register_buffer("default_boxes", default_boxes, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalised to ltrb (B, A, 4) and scores (B, K - 1, A)."""
        logits, offsets = self.model(images)
        return decode(offsets, self.default_boxes), logits.softmax(dim=-1)[..., 1:].transpose(1, 2)
