"""The toy's number put to use: it finds in every "picture" one thing, the whole of it, as sure as its quality is high."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract import Detection, Graph, Plain, Sample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CATEGORIES = {3: "even", 7: "odd"}  # of the number that a picture is of


class ToyDetector:
    def __init__(self, quality: float, *, compiled: bool) -> None:
        self.quality, self.compiled, self.answered = quality, compiled, 0

    @property
    def categories(self) -> Mapping[int, str]:
        return CATEGORIES

    def properties(self) -> Mapping[str, Plain]:
        return {"precision": "exact", "compiled": self.compiled}

    def read(self, file: Path, *, upright: bool) -> Sample:
        """A picture of the number N has the content `toy N`; upright it is wide, as stored it is high."""
        import numpy as np

        begin, _, number = file.read_bytes().partition(b" ")
        if begin != b"toy" or not number.isdigit():
            raise ValueError("not a picture of a number")
        pixels = np.full((3, 1, 1), int(number) % 256, dtype=np.uint8)
        return Sample(pixels, *((40, 30) if upright else (30, 40)))

    def place(self, samples: Sequence[Sample]) -> list[int]:
        return [int(each.pixels[0, 0, 0]) for each in samples]

    def detect(self, batch: list[int]) -> list[int]:
        self.answered += len(batch)
        return [7 if number % 2 else 3 for number in batch]

    def detections(self, found: list[int], samples: Sequence[Sample]) -> list[list[Detection]]:
        boxes = [(0.0, 0.0, float(each.width_px), float(each.height_px)) for each in samples]
        return [[Detection(k, CATEGORIES[k], box, self.quality)] for k, box in zip(found, boxes, strict=True)]

    def draw(self, file: Path, found: Sequence[Detection], *, upright: bool) -> npt.NDArray[np.uint8]:
        import numpy as np

        sample = self.read(file, upright=upright)
        return np.full((sample.height_px, sample.width_px, 3), 255 * len(found), dtype=np.uint8)


def graph(quality: float) -> Graph:
    import torch
    from torch import Tensor, nn

    class Finding(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(images.shape[0], 1, 4)  # len() would fix the number
            odd = images[:, 0, 0, :].to(torch.int64) % 2
            ids = torch.where(odd == 1, torch.full_like(odd, 7), torch.full_like(odd, 3))
            return whole, torch.full_like(ids, 0, dtype=torch.float32) + quality, ids, torch.ones_like(ids[:, 0])

    metadata: dict[str, Any] = {"categories": str(CATEGORIES)}
    return Graph(Finding().eval(), metadata)
