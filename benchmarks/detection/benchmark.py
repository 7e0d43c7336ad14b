"""A detector as the harness sees it, as far as detectors share it: see harness.contract.Benchmark."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.detection import chosen
from benchmarks.detection.capabilities import backend, installed, runs_as_asked
from benchmarks.detection.tables import DetectorConfig, dali_defaults
from harness.contract import Context, Detector, Figure, Graph, NotSuitable, Published, SecondsOf

if TYPE_CHECKING:
    from benchmarks.detection.session import DetectorSession


# Settings of those tables that the rules leave to the submitter: model_bn_span and max_samples are hyperparameters, which a log
# has and checkers look at, and the evaluators agree
FREE = frozenset({"batch_norm_ranks", "crop_attempts", "batch_size", "evaluator"})


class DetectorBenchmark(ABC):
    """Implements harness.contract.Benchmark, Probed and Detecting, except for its name, its config_type and `prepare`."""

    name: str
    categories: int  # of the rules' data set, without the background
    # What `prepare --dataset` calls a data set ("": needs no naming), by its file to train on and its number of categories
    published_data: ClassVar[dict[tuple[str, int], str]]

    @abstractmethod
    def session(self, config: Any, context: Context) -> DetectorSession:
        """A session; called when the libraries that it needs may be imported: torch, torchvision and DALI take seconds."""

    def provide_data(
        self, config: Any, data_dir: Path | None, cache_dir: Path, progress: Callable[[str, int, int], None]
    ) -> Path:
        from benchmarks.detection.data_set import checked
        from benchmarks.detection.embedded import dataset as embedded

        if config.data.source == "embedded":
            if data_dir is not None:
                raise ValueError(
                    f'data.source = "embedded": this configuration makes its own images and cannot use {data_dir}; '
                    "leave --data-dir and DATADIR out, or choose a configuration whose source is a COCO folder"
                )
            data_dir = embedded.ensure(cache_dir, lambda done, total: progress("making images", done, total))
        if data_dir is None:
            raise ValueError("this configuration needs a COCO folder: name it with --data-dir or DATADIR")
        # Off the clock, as the verification of a download is, and before anything is built: see data_set/checked.py
        # Which device "auto" would decide for is not known here: where DALI is installed it may be DALI
        dali = config.data.backend == "dali" or (config.data.backend == "auto" and installed("nvidia.dali"))
        which = self.prepared_as(config)
        options = None if which is None else f"--benchmark {self.name}{which and f' --dataset {which}'}"
        return checked.ensure(config, data_dir, cache_dir, progress, prepared_by=options, dali=dali)

    def data_digest(self, config: Any, data_dir: Path) -> str:  # noqa: ARG002 - all of it is of the folder
        from benchmarks.detection.data_set import checked

        return checked.digest(data_dir)

    def lacks(self, config: Any, data_dir: Path) -> list[str] | None:
        if config.data.source == "embedded":
            return None
        wanted = [(getattr(config.data, f"{half}_annotations"), Path.is_file) for half in ("train", "eval")]
        wanted += [(getattr(config.data, f"{half}_images"), Path.is_dir) for half in ("train", "eval")]
        return [name for name, is_there in wanted if not is_there(data_dir / name)]

    def hollow(self, config: Any, data_dir: Path) -> list[str]:
        if config.data.source == "embedded":
            return []
        settings = config.data
        files = [name for name in (settings.train_annotations, settings.eval_annotations) if _is_empty(data_dir / name)]
        folders = [name for name in (settings.train_images, settings.eval_images) if _has_no_file(data_dir / name)]
        return files + folders

    def prepared_as(self, config: Any) -> str | None:
        """See harness.contract.Placed: the published data set of these files with so many categories."""
        if config.data.source == "embedded":
            return None
        return self.published_data.get((config.data.train_annotations, config.model.categories))

    def against_closed(self, config: Any) -> Iterator[str]:
        """See harness.contract.Varied: what has a default has the reference's, and a closed submission no other."""
        if config.model.initial_weights != "imagenet":
            yield f'model.initial_weights = "{config.model.initial_weights}" and not "imagenet"'
        if config.model.categories != self.categories:
            yield f"model.categories = {config.model.categories} and not {self.categories}"
        if config.data.source != "coco":
            yield f'data.source = "{config.data.source}" and not "coco"'
        for table in ("model", "augmentation", "evaluation"):
            if table in type(config).model_fields:
                yield from not_the_rules(config, table, type(getattr(config, table)).model_fields.keys() - FREE)

    def check(self, config: Any, context: Context) -> None:
        _check_sizes(config, context)
        _check_data_path(config, context)
        chosen.of(context)
        if config.compute.threads != "auto" and config.compute.threads > context.threads:
            raise ValueError(
                f'compute.threads = {config.compute.threads}: each rank may use {context.threads} here; say so many, or "auto"'
            )
        if config.compute.cuda_graphs and (not context.device.startswith("cuda") or context.world_size > 1):
            raise ValueError(
                f"compute.cuda_graphs = true is for one accelerator under CUDA, not for {context.world_size} on "
                f"{context.device.partition(':')[0]}: leave it out"
            )
        if config.compute.autotune == "all" and not context.device.startswith("cuda"):
            raise ValueError(
                'compute.autotune = "all" is for CUDA, and has no effect on '
                f"{context.device.partition(':')[0]}: leave it out"
            )
        if config.model.initial_weights == "imagenet" and context.initial_weights is None:
            raise ValueError(
                f'model.initial_weights = "imagenet" needs torchvision\'s {config.model.backbone} file: give its path with '
                '--initial-weights, or ask for training from scratch with initial_weights = "scratch"'
            )
        if config.model.initial_weights == "scratch" and context.initial_weights is not None:
            raise ValueError(
                f'model.initial_weights = "scratch" would leave --initial-weights {context.initial_weights} unused; '
                'say "imagenet" in the configuration'
            )

    def open(self, config: Any, context: Context) -> DetectorSession:
        if context.device.startswith("cuda"):
            from benchmarks.detection.data_path import nvjpeg

            nvjpeg.prefer_installed()  # before torchvision brings its own
        if config.compute.compile:
            _refuse_kernels_of_others()
        return self.session(config, context)

    def detector(
        self,
        config: Any,
        context: Context,
        state: Mapping[str, Any] | None,
        *,
        precision: str = "",
        compiled: bool = False,
    ) -> Detector:
        if compiled:
            _refuse_kernels_of_others()
        from benchmarks.detection.detector import SessionDetector

        return SessionDetector(self.session, config, context, state, precision=precision, compiled=compiled)

    def graph(self, config: Any, state: Mapping[str, Any]) -> Graph:
        from benchmarks.detection import graph
        from benchmarks.detection.detector import SessionDetector

        detector = SessionDetector(self.session, config, Context(device="cpu"), state, precision="fp32")
        return graph.of(detector.session, detector.categories)

    def pictures(self, count: int) -> list[bytes]:
        from benchmarks.detection import probe

        return [each.numpy().tobytes() for each in probe.jpegs(count)]

    def published(self, config: Any) -> Sequence[Published]:  # noqa: ARG002
        return ()

    def probe(self, config: Any, context: Context, seconds_of: SecondsOf) -> Iterator[Figure]:
        # which weights it begins with changes no speed, and nobody need have their file
        scratch = config.model_copy(update={"model": config.model.model_copy(update={"initial_weights": "scratch"})})
        context = replace(context, initial_weights=None)
        self.check(scratch, context)
        if context.device.startswith("cuda"):
            from benchmarks.detection.data_path import nvjpeg

            nvjpeg.prefer_installed()
        from benchmarks.detection import probe

        return probe.figures(lambda there: self.session(scratch, there), scratch, context, seconds_of)


def _is_empty(file: Path) -> bool:
    return file.is_file() and file.stat().st_size == 0


def _has_no_file(folder: Path) -> bool:
    """Whether a folder is there and, as far as it can be looked into, nothing in it, at whatever depth, but what is hidden."""
    left, seen = [str(folder)] if folder.is_dir() else [], set()
    known_empty = bool(left)
    while left:
        here = os.path.realpath(left.pop())
        if here in seen:  # by a link to a folder above
            continue
        seen.add(here)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not entry.is_dir():
                        return False
                    left.append(entry.path)
        except OSError:
            known_empty = False
    return known_empty


def not_the_rules(config: DetectorConfig, table: str, names: Iterable[str]) -> Iterator[str]:
    """See harness.contract.Varied.against_closed: those of `names` that have a default, and here another value."""
    found = getattr(config, table)
    for name, field in type(found).model_fields.items():
        if name in names and not field.is_required() and getattr(found, name) != field.default:
            yield f"{table}.{name} = {json.dumps(getattr(found, name))} and not {json.dumps(field.default)}"


def _check_sizes(config: DetectorConfig, context: Context) -> None:
    if config.steps_per_epoch(context.world_size) < 1:
        raise ValueError(
            f"optimizer.batch_size = {config.optimizer.batch_size} on {context.world_size} accelerators is more than "
            f"data.train_samples = {config.data.train_samples}: an epoch would have no step"
        )
    if config.data.eval_samples < context.world_size:
        raise ValueError(
            f"data.eval_samples = {config.data.eval_samples} is less than the {context.world_size} accelerators, "
            "each of which evaluates at least one image"
        )


def _check_data_path(config: DetectorConfig, context: Context) -> None:
    if config.data.backend == "dali" and not installed("nvidia.dali"):
        raise NotSuitable(
            'data.backend = "dali" needs the package nvidia-dali-cuda130, which is not installed; install it from '
            'requirements/run.lock, or say backend = "torch", which needs torchvision alone'
        )
    if config.data.backend == "dali" and not runs_as_asked(context):
        raise NotSuitable(
            f'data.backend = "dali" does not know {context.vendor or "these"} accelerators ({context.device}); leave it '
            'out, or say backend = "torch"'
        )
    if backend(config, context) == "torch" and any(
        getattr(config.data, name) != value for name, value in dali_defaults().items()
    ):
        raise NotSuitable(
            f"{' and '.join(dali_defaults())} are DALI's, which is not available here: leave them out, or install DALI"
        )


def _refuse_kernels_of_others() -> None:
    """What torch.compile finds in its cache it runs, and that is a folder in /tmp whose name anyone can tell beforehand."""
    from torch._inductor.codecache import cache_dir  # type: ignore[attr-defined]

    from benchmarks.detection import own_folder

    # a group may write: it is the user's own where new folders are made so
    own_folder.refuse_of_others(Path(cache_dir()), "name a folder of your own with TORCHINDUCTOR_CACHE_DIR")
