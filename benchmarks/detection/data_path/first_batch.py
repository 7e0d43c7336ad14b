"""Training batches that keep a copy of the first one, for a run that is asked whether its numbers are those of another."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from benchmarks.detection.data_path.data import TrainBatches


class Remembered:
    """TrainBatches around others."""

    def __init__(self, batches: TrainBatches) -> None:
        self._batches = batches
        self.first: dict[str, Tensor] = {}  # empty until there was one

    @property
    def samples(self) -> int:
        return self._batches.samples

    def state(self) -> bytes:
        return self._batches.state()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._batches:
            if not self.first:
                self.first = {name: tensor.clone() for name, tensor in batch.items()}
            yield batch
