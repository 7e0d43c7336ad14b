"""SSD as the harness sees it: its keyword, its configuration, and how to open a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.detection.benchmark import DetectorBenchmark, not_the_rules
from benchmarks.detection.capabilities import installed
from benchmarks.ssd import recipes
from benchmarks.ssd.config import SSDConfig
from harness.contract import Context, NotSuitable, Published

if TYPE_CHECKING:
    from benchmarks.ssd.session import SSDSession


MAX_SAMPLES = (1, 50)  # what the rules allow


class SSDBenchmark(DetectorBenchmark):
    """Implements harness.contract.Benchmark."""

    name = "ssd"  # rules.toml has its metric and targets
    categories = 80
    config_type = SSDConfig
    data_sets: ClassVar = {
        "coco": "COCO 2017, with ResNet-34's weights",
        "voc": "Pascal VOC 2007 and 2012, with VGG-16's",
    }

    published_data: ClassVar = {
        ("annotations/instances_train2017.json", 80): "",
        ("annotations/voc0712_trainval.json", 20): "voc",
    }

    def other_task(self, config: SSDConfig) -> str:
        """See harness.contract.Varied; the rules' own task is a ResNet's SSD by COCO's metric."""
        words = [
            each for each in ("VGG-16" * (config.model.backbone == "vgg16"), config.evaluation.other_metric) if each
        ]
        return f"SSD{config.model.image_px} with {' and '.join(words)}" if words else ""

    def against_closed(self, config: SSDConfig) -> Iterator[str]:
        """See harness.contract.Varied."""
        yield from super().against_closed(config)
        yield from not_the_rules(config, "optimizer", ["momentum", "loss_over"])
        if (attempts := config.augmentation.crop_attempts) not in MAX_SAMPLES:
            yield f"augmentation.crop_attempts = {attempts} and not {' or '.join(map(str, MAX_SAMPLES))}"

    def session(self, config: SSDConfig, context: Context) -> SSDSession:
        from benchmarks.ssd.session import SSDSession

        return SSDSession(config, context)

    def check(self, config: SSDConfig, context: Context) -> None:
        if config.optimizer.recipe is not None:
            recipe = recipes.named(config.optimizer.recipe)
            batch = config.optimizer.batch_size * context.world_size
            if batch != recipe.global_batch:
                raise ValueError(
                    f"optimizer.recipe = {recipe.name!r} is for a global batch of {recipe.global_batch}, and "
                    f"optimizer.batch_size = {config.optimizer.batch_size} on {context.world_size} accelerators makes {batch}; "
                    "a recipe is never scaled"
                )
        steps_per_epoch = config.steps_per_epoch(context.world_size)
        shared = config.model.batch_norm_ranks
        if context.world_size % shared:
            raise ValueError(
                f"model.batch_norm_ranks = {shared} does not divide the {context.world_size} accelerators of run.nodes x "
                "run.accelerators_per_node into whole groups"
            )
        if config.optimizer.loss_over == "batch" and context.world_size > 1:
            raise ValueError(
                'optimizer.loss_over = "batch" divides by the matched boxes of the whole batch, of which each of the '
                f"{context.world_size} accelerators knows its own part's alone, so that an image would count by what it lies "
                'beside: train on one accelerator, or say loss_over = "image"'
            )
        first_decay = min(config.optimizer.decay_epochs, default=None)
        if first_decay is not None and 0 < first_decay * steps_per_epoch < config.optimizer.warmup_steps:
            raise ValueError(
                f"optimizer.decay_epochs: the decay after epoch {first_decay} is step {first_decay * steps_per_epoch}, "
                f"before the end of warm-up at optimizer.warmup_steps = {config.optimizer.warmup_steps}"
            )
        super().check(config, context)
        if config.compute.fused:
            _check_fused(list(config.compute.fused), context.device)

    def published(self, config: SSDConfig) -> Sequence[Published]:  # noqa: ARG002
        from benchmarks.ssd import published

        return [published.SSD300]

    def prepare(
        self,
        data_dir: Path,
        *,
        verify_only: bool,
        confirm: Callable[[str], bool],
        say: Callable[[str], None],
        progress: Callable[[str, int, int | None], None],
        data_set: str = "coco",
    ) -> list[str]:
        from benchmarks.detection.download import prepare
        from benchmarks.detection.download.full_coco import COCO_2017
        from benchmarks.detection.download.full_voc import VOC_0712

        named: dict[str, prepare.DataSet] = {"coco": COCO_2017, "voc": VOC_0712}
        return prepare.prepare(
            data_dir, named[data_set], verify_only=verify_only, confirm=confirm, say=say, progress=progress
        )


def _check_fused(parts: list[str], device: str) -> None:
    kernels = [each for each in parts if each != "weights"]
    if kernels and not device.startswith("cuda"):
        raise ValueError(
            f"compute.fused = {kernels} are Triton kernels for CUDA and cannot run on {device}; leave it out, which computes "
            'the same, or choose a configuration with run.device = "cuda"'
        )
    if kernels and not installed("triton"):
        raise NotSuitable(
            f"compute.fused = {kernels} needs Triton, which this PyTorch came without; leave it out, which computes the same"
        )
    if "convolutions" in parts and not installed("cudnn"):
        raise NotSuitable(
            f'compute.fused = {parts}: "convolutions" needs nvidia-cudnn-frontend, which is not installed; leave it out, which '
            "computes the same, or install requirements/run.lock"
        )


BENCHMARK: Any = SSDBenchmark()
