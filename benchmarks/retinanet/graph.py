"""RetinaNet's candidates as fixed shapes, for a graph that other programs run: see benchmarks/detection/graph.py.

Shapes: B images, S image side in px, K classes without background, L anchors of one map, A anchors of all, N candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.detection.suppression import MAX_IOU, Limits
from benchmarks.retinanet.anchors import decode
from benchmarks.retinanet.detections import MAX_PER_MAP, MIN_SCORE


class Candidates(nn.Module):
    """The best of each map, whatever their class, as boxes of their own: each has a score in its class alone."""

    def __init__(self, model: nn.Module, anchors_px: Tensor, image_px: int) -> None:
        """`anchors_px` (A, 4) ltrb."""
        super().__init__()
        self.model, self.image_px = model, image_px
        self.anchors_px: Tensor
        self.register_buffer("anchors_px", anchors_px, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalised to ltrb (B, N, 4) and scores (B, K, N)."""
        logits, offsets = self.model(images)
        anchors = self.anchors_px.split([each.shape[1] for each in logits])
        boxes, scores = zip(*map(self._of_map, logits, offsets, anchors), strict=True)
        return torch.cat(boxes, dim=1).clamp(0, self.image_px) / self.image_px, torch.cat(scores, dim=2)

    def _of_map(self, logits: Tensor, offsets: Tensor, anchors_px: Tensor) -> tuple[Tensor, Tensor]:
        classes = logits.shape[2]
        best = logits.flatten(1).topk(min(MAX_PER_MAP, logits.shape[1] * classes), dim=1)  # (B, N)
        place = torch.div(best.indices, classes, rounding_mode="floor")
        of_best = torch.gather(offsets, 1, place.unsqueeze(2).expand(-1, -1, 4))
        boxes = decode(of_best.flatten(0, 1), anchors_px[place.flatten()]).unflatten(0, place.shape)
        scores = best.values.sigmoid().unsqueeze(1)
        nothing = torch.zeros_like(scores).expand(-1, classes, -1)
        return boxes, nothing.scatter(1, (best.indices % classes).unsqueeze(1), scores)


def limits(max_detections: int) -> Limits:
    """As in benchmarks/retinanet/detections.py: none of a class."""
    return Limits(MIN_SCORE, MAX_IOU, None, max_detections)
