"""The COCO folder of a run, as one rank reads it: what the configuration and the rank make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.detection import capabilities
from benchmarks.detection.data_path import data
from benchmarks.detection.data_set import checked
from benchmarks.detection.data_set.picture_forms import Form
from benchmarks.detection.phases import Phases
from benchmarks.detection.quality import coco
from benchmarks.detection.quality.evaluation import Evaluation
from benchmarks.detection.tables import DetectorConfig
from harness.contract import Context, Plain

COPIES = 1e-3  # share of boxes that are there before, above which it is said: published data sets have a few


@dataclass(frozen=True)
class Folder:
    """Nothing is read before a method is called."""

    config: DetectorConfig
    context: Context
    jpeg_on_device: bool = True

    @property
    def path(self) -> Path:
        assert self.context.data_dir is not None  # Benchmark.provide_data refused it
        return self.context.data_dir

    @property
    def eval_images(self) -> Path:
        return self._half("eval").images

    @property
    def train_source(self) -> data.Source:
        return self._source("train", self.config.optimizer.batch_size, True)

    def evaluation(self) -> Evaluation:
        """ValueError where the ground truth is not what the configuration says."""
        settings = self.config.data
        ground_truth = coco.GroundTruth.load(self._half("eval").annotations)
        if len(ground_truth.category_ids) != self.config.model.categories:
            raise ValueError(
                f"{ground_truth.path} has {len(ground_truth.category_ids)} categories, the configuration says "
                f"model.categories = {self.config.model.categories}"
            )
        batches = data.eval_batches(
            self._source("eval", self.config.evaluation.batch_size, not settings.eval_images_without_boxes)
        )
        return Evaluation(
            batches,
            ground_truth,
            ground_truth.image_ids if settings.eval_images_without_boxes else ground_truth.image_ids_with_boxes,
            self.config.evaluation.evaluator,
            self.context.world_size,
            self.context.rank,
            Phases(torch.device(self.context.device)),
            self.config.evaluation.metric,
        )

    def check(self, train_samples: int, eval_samples: int) -> None:
        """Whether so many images, as the readers found, are what the configuration says. ValueError if not."""
        settings = self.config.data
        wanted = {"train": settings.train_samples, "eval": settings.eval_samples}
        for half, found in zip(checked.HALVES, (train_samples, eval_samples), strict=True):
            if (expected := wanted[half]) != found:
                raise ValueError(
                    f"{self._half(half).original}: the reader found {found:,} images for {half}, the configuration says "
                    f"data.{half}_samples = {expected:,}; complete the folder or correct the configuration"
                )

    def boxes(self) -> dict[str, Plain]:
        """Of each half, how many there are to learn from, and how many are next to nothing; {} unchecked."""
        counted = {name: self._half(name).counts for name in checked.HALVES}
        return {
            name: {
                "boxes": found.boxes,
                "under_a_pixel": found.boxes_under_a_pixel,
                "not_counted": found.boxes_not_counted,
                "copies": found.copies,
            }
            for name, found in counted.items()
            if found is not None
        }

    def remarks(self) -> list[str]:
        """What is strange about the boxes of each half, a sentence each; none unchecked."""
        counted = {name: self._half(name).counts for name in checked.HALVES}
        return [
            f"{self._half(name).original}: {found.copies:,} of {found.boxes:,} boxes are there before, in the same image and "
            "of the same category: a detection finds one of them alone, so that the quality stays below 1; take them out"
            for name, found in counted.items()
            if found is not None and found.copies > COPIES * found.boxes
        ]

    def evaluated_and_trained_on(self) -> int:
        """How many pictures to evaluate are among those to learn from; 0 unchecked."""
        return self._half("eval").trained_on

    def forms(self) -> Mapping[Form, int]:
        """How many of the pictures to learn from are of which form to a GPU's decoders; {} unchecked."""
        return self._half("train").forms

    def eval_batch_sizes(self) -> set[int]:
        """Numbers of images that this rank's batches of an evaluation have; the last one may be shorter."""
        samples, rank, ranks = self.config.data.eval_samples, self.context.rank, self.context.world_size
        mine = samples * (rank + 1) // ranks - samples * rank // ranks
        size = self.config.evaluation.batch_size
        return {min(size, mine), mine % size or size}

    def category_id(self, number: int) -> int:
        """The user's own id of a category that the evaluation calls `number`."""
        return self._half("eval").category_id(number)

    def digest(self) -> str:
        """Of what is trained and evaluated on, see benchmarks.detection.data_set.checked.digest; "" unchecked."""
        return self._known.digest

    def fingerprint(self) -> str:
        """See benchmarks.detection.data_set.checked.fingerprint; of the files as the user had them when they were checked."""
        halves = self._known.halves.values()
        return self._known.fingerprint or checked.fingerprint([(half.original, half.images) for half in halves])

    @cached_property
    def _known(self) -> checked.Known:
        """Read once: of a cache that is emptied during the run, categories in a checkpoint had other ids."""
        return checked.known(self.path, self.config.data)

    def _half(self, name: checked.Name) -> checked.Half:
        return self._known.halves[name]

    def _source(self, name: checked.Name, batch_size: int, skip_empty: bool) -> data.Source:
        half = self._half(name)
        return data.Source(
            images=half.images,
            annotations=half.annotations,
            counts=half.counts,
            image_px=self.config.model.image_px,
            batch_size=batch_size,
            threads=self.config.data.threads,
            device=self.context.device,
            shard=self.context.rank,
            shards=self.context.world_size,
            skip_empty=skip_empty,
            image_format=self.config.data.image_format,
            backend=capabilities.backend(self.config, self.context),
            jpeg_on_device=self.jpeg_on_device,
            whole=self.config.data.decode == "whole",
            hw_decoder_load=self.config.data.hw_decoder_load,
            antialias=self.config.antialias,
            compiled=self.config.compute.compile,
        )
