"""A detector as one graph, from pixels to detections: for `harness export`, see harness.contract.Graph.

What a network finds before suppression is its own. Suppression is one operator: in PyTorch what the evaluation does, in ONNX
NonMaxSuppression, which also lets a box go when its IoU with a better one is above the limit. All sizes but the number of
pictures are fixed, so that other programs can lay it out once.

Shapes: B images, S image side in px, A boxes of an image, C classes without background, N detections given for an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data_path.normalisation import imagenet, normalised, preprocessing
from benchmarks.detection.suppression import Limits, best_first, rank_in, unsuppressed
from harness.contract import Graph

if TYPE_CHECKING:
    from benchmarks.detection.session import DetectorSession


MOST = 2**31 - 1  # that ONNX's operator may leave of a class: no limit


@torch.library.custom_op("detection::kept_scores", mutates_args=())
def kept_scores(ltrb: Tensor, scores: Tensor, min_score: float, max_iou: float) -> Tensor:
    """(B, C, A) `scores` of what suppression within each class leaves, 0 elsewhere; boxes (B, A, 4)."""
    images, classes, boxes = (scores > min_score).nonzero(as_tuple=True)
    found = scores[images, classes, boxes]
    group = images * scores.shape[1] + classes
    order = best_first(found, group)
    rank = rank_in(group[order])
    kept = order[unsuppressed(ltrb[images[order], boxes[order]], rank, max_iou)]
    out = torch.zeros_like(scores)
    out[images[kept], classes[kept], boxes[kept]] = found[kept]
    return out


@kept_scores.register_fake
def _(ltrb: Tensor, scores: Tensor, min_score: float, max_iou: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(scores)


def translations() -> Mapping[Any, Callable[..., Any]]:
    """Of `kept_scores` into ONNX."""
    import onnxscript

    op: Any = onnxscript.opset18

    def in_onnx(ltrb: Any, scores: Any, min_score: float, max_iou: float) -> Any:
        kept = op.NonMaxSuppression(
            ltrb,
            scores,
            op.Constant(value_ints=[MOST]),
            op.Constant(value_floats=[max_iou]),
            op.Constant(value_floats=[min_score]),
        )  # (.., 3): image, class, box
        nothing = op.Mul(scores, op.Constant(value_float=0.0))
        return op.ScatterND(nothing, kept, op.GatherND(scores, kept))

    return {torch.ops.detection.kept_scores.default: in_onnx}


class Pipeline(nn.Module):
    """Pixels (B, 3, S, S) uint8 to boxes (B, N, 4), scores (B, N), category ids (B, N) and their number (B,)."""

    def __init__(self, candidates: nn.Module, category_ids: Sequence[int], limits: Limits) -> None:
        """`candidates`: images (B, 3, S, S) normalised to boxes (B, A, 4) ltrb and scores (B, C, A)."""
        super().__init__()
        self.candidates, self.limits = candidates, limits
        mean, std = imagenet("cpu")
        self.mean: Tensor
        self.std: Tensor
        self.category_ids: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("category_ids", torch.tensor(category_ids), persistent=False)

    def before_suppression(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) and scores (B, C, A), 0 for those that are too many of a class."""
        ltrb, scores = self.candidates(normalised(images, self.mean, self.std))
        most = self.limits.per_class
        if most is not None and most < scores.shape[2]:
            best = scores.topk(most, dim=2)
            scores = torch.zeros_like(scores).scatter(2, best.indices, best.values)
        return ltrb, scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        limits = self.limits
        ltrb, scores = self.before_suppression(images)
        boxes = scores.shape[2]
        kept = torch.ops.detection.kept_scores(ltrb, scores, limits.min_score, limits.max_iou)
        found = kept.flatten(1).topk(min(limits.per_image, kept.shape[1] * boxes), dim=1)  # (B, N)
        place = (found.indices % boxes).unsqueeze(2).expand(-1, -1, 4)
        classes = torch.div(found.indices, boxes, rounding_mode="floor")
        return torch.gather(ltrb, 1, place), found.values, self.category_ids[classes], (found.values > 0).sum(1)


def of(session: DetectorSession, categories: Mapping[int, str]) -> Graph:
    """Of a session on the CPU in float32, its model set to evaluate."""
    candidates, limits = session.candidates()
    candidates.to(memory_format=torch.contiguous_format)
    told = metadata(preprocessing(session.settings.model.image_px, session.settings.antialias), categories, limits)
    pipeline = Pipeline(candidates, list(categories), limits).eval()
    return Graph(pipeline, told, translations, pipeline.before_suppression)


def metadata(preprocessing: Mapping[str, Any], categories: Mapping[int, str], limits: Limits) -> dict[str, str]:
    """What the file says of itself."""
    side = preprocessing["side_px"]
    return {
        "input": f"images (B, 3, {side}, {side}) uint8, channels {preprocessing['colours']}, levels 0 to 255; "
        f"{preprocessing['resize']}; mean and deviation are subtracted and divided by in the graph",
        "outputs": "boxes (B, N, 4) float32 left, top, right, bottom as fractions of the picture, not clipped; "
        "scores (B, N) float32; category_ids (B, N) int64; count (B,) int64: so many rows of a picture mean something, best "
        "first",
        "suppression": f"within a class, IoU above {limits.max_iou}, scores above {limits.min_score}; at most "
        f"{limits.per_class or 'any number'} of a class before it, {limits.per_image} of a picture after it",
        "preprocessing": json.dumps(dict(preprocessing)),
        "categories": json.dumps({str(number): name for number, name in categories.items()}, ensure_ascii=False),
    }
