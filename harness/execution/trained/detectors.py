"""A trained model opened on a device of this machine: what detect, export and inference begin with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness import config, config_files, outside
from harness.config import Configuration
from harness.contract import Context, Detecting, Detector, NotSuitable, Sample
from harness.execution import checkpoint, context
from harness.execution.context import this_machine
from harness.system import accelerator
from harness.system.facts import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# In what torch's allocator of the host, CUDA's runtime and cuBLAS or cuDNN say; makers' own runtimes say the second, too
NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
TOO_LARGE = "needs more memory than there is here; make it smaller"


@dataclass(frozen=True)
class Model:
    """A configuration with the weights of a checkpoint, or with those that training would begin with."""

    configuration: Configuration
    state: Mapping[str, Any] | None
    told: str  # in words, for people
    benchmark: Detecting
    path: Path | None = None  # of the checkpoint

    @classmethod
    def trained(cls, path: Path) -> Model:
        """ValueError for what is no checkpoint, or of a benchmark that detects nothing."""
        found = checkpoint.trained(path)
        benchmark = _detecting(found.configuration)
        return cls(found.configuration, found.checkpoint.state, found.told, benchmark, found.path)

    @classmethod
    def named(cls, name: str) -> Model:
        """A checkpoint by its path, or a configuration by its name or path: then nothing is trained."""
        path = Path(name)
        if (
            name
            and name not in config_files.available()
            and (outside.is_folder(path) or (outside.is_file(path) and path.suffix != ".toml"))
        ):
            return cls.trained(path)
        found = config.load(config_files.find(name))
        return cls(found, None, f"{found.name}, not trained", _detecting(found))

    def open(self, here: Context, *, precision: str = "", compiled: bool = False) -> Detector:
        """ValueError or NotSuitable as harness.contract.Detecting.detector says."""
        with enough_memory(here, "the network", "--device names another, or end what else uses it"):
            return self.benchmark.detector(
                self.configuration.tables, here, self.state, precision=precision, compiled=compiled
            )


def read(detector: Detector, paths: Sequence[Path], *, upright: bool) -> list[Sample]:
    """All of them, for a verb that takes none that is wrong. ValueError that names the first."""
    samples = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of decoders, about pictures
                samples.append(detector.read(path, upright=upright))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise NotSuitable(f"{path}: {TOO_LARGE}") from error
    return samples


def lacks_memory(error: Exception) -> bool:
    """Whether it says that memory, a device's or the host's, does not suffice: no fault of ours, and one can do something."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(each in str(error) for each in NO_MEMORY)


@contextmanager
def enough_memory(here: Context, what: str, instead: str) -> Iterator[None]:
    """NotSuitable, with what to do `instead`, where `what` does not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        where = "this machine" if here.device == accelerator.CPU else here.device
        raise NotSuitable(f"{what} does not fit into the memory of {where}: {instead}") from error


def _detecting(configuration: Configuration) -> Detecting:
    if not hasattr(configuration.benchmark, "detector"):
        raise ValueError(
            f"the benchmark {configuration.benchmark.name} offers no detector (harness.contract.Detecting): its models cannot "
            "be put to use by this verb"
        )
    return cast("Detecting", configuration.benchmark)


def device(asked: str | None) -> tuple[Context, Machine, str]:
    """One device of this machine, the machine, and which kind it is; an accelerator where there is one and none is named.

    ValueError for a kind that nobody knows, NotSuitable for one that is not there.
    """
    if asked is not None and asked not in accelerator.devices():
        raise ValueError(f"--device {asked}: not known; there are: {', '.join(accelerator.devices())}")
    kind = asked or accelerator.ANY
    machine = this_machine(kind)
    if asked is None and not machine.accelerators:
        kind = accelerator.CPU
    return context.alone(kind), machine, kind
