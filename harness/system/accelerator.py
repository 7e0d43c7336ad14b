"""The face that every accelerator shows the harness, whoever made it, and which of those on this machine is meant.

A vendor is a package of this folder with an attribute `VENDOR` (see `Vendor`); a vendor more is a folder more, and no other
line changes. `nvidia` is the most complete one, `cpu` the least, `generic` is for what torch knows and no folder here does.
Nothing here imports a framework: who needs torch's word asks it in a process of its own, and only where there is a reason to.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import harness.system
from harness.contract import NotSuitable, Plain

Level = Literal["ok", "warning", "problem"]

PROCESSORS = {"epyc", "ryzen", "threadripper", "xeon"}  # whose maker, before them, is not the accelerators'
ANY = "accelerator"  # run.device: whichever this machine has
CPU = "cpu"


@dataclass(frozen=True)
class Finding:
    """One thing that doctor looked at."""

    level: Level
    subject: str
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Suitability:
    """May the devices be used here, and may a result be compared with that of another driver?"""

    mode: str  # one word for a log, the vendor's own
    message: str
    fix: str = ""  # empty where nothing needs mending
    runnable: bool = False
    comparable: bool = False

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message


@dataclass(frozen=True)
class Surroundings:
    """Where a vendor looks. `root` is for tests."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=dict)
    in_container: bool = False


@dataclass(frozen=True)
class ContainerNeeds:
    """What an engine must hand to a container whose programs shall use the devices."""

    cdi_kind: str = ""  # of the Container Device Interface: "nvidia.com/gpu"
    device_request: bool = False  # the engine's own `--gpus` knows them
    nodes: tuple[str, ...] = ()  # device nodes, where neither will do; the groups that own them are needed too


@dataclass(frozen=True)
class Resource:
    """What a cluster's scheduler calls one device of a maker: Kubernetes' extended resource, as the maker's plugin names it."""

    maker: str  # as platforms name it; its first word will do, or the kind that `name` ends with
    device: str  # torch's word
    name: str  # "nvidia.com/gpu"
    kinds: tuple[str, ...] = ()  # words that name its accelerators without their maker, as _words has them


class Unavailable(Exception):
    """A reading that this device or its driver does not offer; the message says why."""


Reading = Callable[[], Plain]  # Unavailable when there is none


@dataclass(frozen=True)
class Sensors:
    """One device's readings for telemetry, by name."""

    state: Mapping[str, Reading] = field(default_factory=dict)  # does not change during a run
    counted: Mapping[str, Reading] = field(default_factory=dict)  # only grows: energy, errors, seconds of throttling
    sampled: Mapping[str, Reading] = field(default_factory=dict)


class Accelerators(Protocol):
    """One vendor's devices on this machine, as they were when it was looked at."""

    @property
    def vendor(self) -> str:
        """For people: "NVIDIA"."""
        ...

    @property
    def device(self) -> str:
        """What torch calls them, and a configuration's run.device may: "cuda", "xpu"; "" where torch does not know them."""
        ...

    @property
    def names(self) -> list[str]:
        """Of the devices that programs may use here, in the order in which torch numbers them."""
        ...

    @property
    def unusable(self) -> list[str]:
        """Names of devices that the machine has and programs cannot use."""
        ...

    @property
    def verdict(self) -> Suitability: ...

    def details(self) -> list[dict[str, Plain]]:
        """What the vendor's driver tells of each device, for a log; may list more devices than `names`.

        By `uuid`, with torch's digits, those in use are found; without it all count as used.
        """
        ...

    def software(self) -> dict[str, Plain]:
        """Driver and its libraries, for a log. `driver` is the kernel module's version, or "none"."""
        ...

    def findings(self) -> Iterator[Finding]:
        """For doctor, in the order in which a reader fixes them."""
        ...

    def container(self) -> ContainerNeeds: ...


class Vendor(Protocol):
    """What a package's `VENDOR` is."""

    rank: int  # where several could answer, the lowest does: 0 except for `generic` and `cpu`
    process_groups: Mapping[str, str]  # torch's device type: torch.distributed's backend for it
    container: ContainerNeeds  # as far as it is known without looking
    libraries: tuple[str, ...]  # beginnings of the names of shared objects that a log should name: "libcuda.so"
    resources: tuple[Resource, ...]  # by which schedulers hand the devices out

    def look(self, around: Surroundings) -> Accelerators | None:
        """What is here; None where there is no trace of this vendor."""
        ...

    def sensors(self, root: Path) -> AbstractContextManager[Sequence[Sensors]]:
        """Telemetry's readings, for as long as the block runs; empty where there are none that this torch drives."""
        ...

    def tested_drivers(self) -> Collection[str]:
        """Versions of its driver with which whole runs have met their targets."""
        ...


def vendors() -> list[Vendor]:
    """Every package of this folder, in the order of their ranks and names."""
    packages = sorted(each.name for each in pkgutil.iter_modules(harness.system.__path__) if each.ispkg)
    found: list[Any] = [importlib.import_module(f"{harness.system.__name__}.{name}").VENDOR for name in packages]
    return sorted(found, key=lambda vendor: vendor.rank)


def look(around: Surroundings) -> tuple[Accelerators, ...]:
    """All that this machine has, the most useful first: devices that programs may use, then others, then the processor."""
    found = [each for vendor in vendors() if (each := vendor.look(around)) is not None]
    return tuple(sorted(found, key=lambda each: (each.device == CPU, not each.names, not each.verdict.runnable)))


def choose(found: Sequence[Accelerators], device: str = ANY) -> Accelerators:
    """The ones that a configuration's run.device means. NotSuitable, with what there is, where there are none such."""
    if device == ANY:
        return found[0]
    matching = next((each for each in found if each.device == device), None)
    if matching is not None:
        return matching
    there = ", ".join(f'"{each.device}" ({each.vendor})' for each in found if each.names) or "none but the processor"
    unusable = "".join(f"\n{each.verdict}" for each in found if each.unusable)
    raise NotSuitable(
        f'run.device = "{device}": programs see no such accelerator here; there are: {there}{unusable}\n'
        f'run.device = "{ANY}" takes whichever there is, "{CPU}" none'
    )


def devices() -> tuple[str, ...]:
    """What a configuration's run.device may say: torch's words that a folder here knows, and ANY."""
    known = dict.fromkeys(name for each in reversed(vendors()) for name in each.process_groups)
    return (CPU, ANY, *(name for name in known if name != CPU))


def process_group(device: str) -> str | None:
    """torch.distributed's backend for a device type, where a folder here knows it."""
    return next((each.process_groups[device] for each in vendors() if device in each.process_groups), None)


def resource(device: str, platform: str) -> str | None:
    """The cluster's name of the devices that run.device means on such a platform; None where nobody here knows."""
    known = [each for vendor in vendors() for each in vendor.resources if device in (ANY, each.device)]
    said = {*_words(platform)}
    named = [
        each for each in known if said & _kind(each) or any(word.startswith(_words(each.maker)[0]) for word in said)
    ]
    if named:
        return max(named, key=lambda each: _likeness(each, said)).name
    return known[0].name if known and device != ANY else None


def _kind(of: Resource) -> set[str]:
    return {*_words(of.name.partition("/")[2]), *of.kinds} - {"gpu"}  # which is several makers'


def _likeness(of: Resource, said: set[str]) -> tuple[int, int]:
    """More where more of its words are said, then where fewer are not: Intel alone is not Intel's Habana."""
    own = {*_words(of.maker), *_kind(of)}
    return len(own & said), -len(own)


def hands_out(name: str) -> bool:
    """Whether a cluster's resource is accelerators, of whatever kind or share, of a maker that a folder here knows."""
    domains = {each.name.partition("/")[0] for vendor in vendors() for each in vendor.resources}
    return name.partition("/")[0] in domains


def _words(text: str) -> list[str]:
    """Without digits, numbers ("8xH100") and marks: "Intel(R) Gaudi3" is intel gaudi; without the makers of processors."""
    found = re.findall(r"[a-z]+", re.sub(r"\d+x|\((r|tm)\)", " ", text.lower()))
    return [word for word, after in zip(found, [*found[1:], ""], strict=True) if after not in PROCESSORS]


def for_containers(device: str) -> tuple[ContainerNeeds, int | None]:
    """What an engine must hand to a container for run.device, and how many devices the host knows; None where unseen."""
    if device == CPU:
        return ContainerNeeds(), None
    try:
        found = choose(look(Surroundings()), device)
    except NotSuitable:  # the engine may know more than this process sees, and says so otherwise
        unseen = next(each for each in vendors() if device in each.process_groups)
        return unseen.container, None
    return found.container(), max(len(found.names), len(found.details())) or None


def tested_drivers() -> frozenset[str]:
    """Versions of any vendor's driver with which whole runs have met their targets."""
    return frozenset(version for each in vendors() for version in each.tested_drivers())


def libraries() -> tuple[str, ...]:
    """Beginnings of names of the shared objects that a log should name, of all vendors."""
    return tuple(dict.fromkeys(name for each in vendors() for name in each.libraries))
