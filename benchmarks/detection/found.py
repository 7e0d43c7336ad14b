"""What a detector gives and what an evaluation takes: a batch of detections, and the batches of images that they are of.

Shapes: B images, N detections of all images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Those of a batch, image after image, within an image from the highest score to the lowest."""

    images: Tensor  # (N,) int64, position in the batch
    ltrb: Tensor  # (N, 4) float32, not clipped to the image
    scores: Tensor  # (N,) float32
    labels: Tensor  # (N,) int64, 1 to K - 1

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, wanted: Tensor) -> Detections:
        """Those at the positions `wanted`, or where it is true."""
        return Detections(self.images[wanted], self.ltrb[wanted], self.scores[wanted], self.labels[wanted])


class Batches(Protocol):
    """An epoch after epoch of batches."""

    @property
    def samples(self) -> int:
        """Images of the whole data set that are used, over all shards."""
        ...

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """One epoch."""
        ...
