"""Checkpoints between epochs: files replaced atomically, so that the last good one is always there.

    checkpoint.pt   after the last whole epoch: what `run --from-checkpoint` goes on from
    best.pt         after the best evaluation so far: what `detect`, `export` and `inference` take of a folder

They are of one run: where one starts afresh in a folder that has another's, those are set aside at its first checkpoint, as
earlier_N/ in the folder, and stay as they are. A checkpoint says what it is of, so that using a trained model takes no other
file. It is read without running code of its own.
A resumed run says so in its log and is never a timed result.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from harness import config, locks, outside, rules, whole
from harness.config import ELSEWHERE, Configuration
from harness.config_files import ConfigError
from harness.exit_codes import DISK_FULL

NAME = "checkpoint.pt"
BEST = "best.pt"
LOCK = ".checkpoint.lock"  # who keeps checkpoints in the folder
_PLAIN = frozenset((bool, int, float, complex, str, bytes, bytearray, type(None)))
EARLIER = "earlier_"  # begins the name of a folder with what an earlier run has left


@dataclass(frozen=True)
class Checkpoint:
    """A session's state after `epoch` whole epochs of a run with this configuration and seed."""

    epoch: int
    seed: int
    configuration_sha256: str
    state: dict[str, Any]
    # what older ones do not say
    configuration: dict[str, Any] | None = None  # as resolved; config.parse takes it
    configuration_name: str = ""
    metric: str = ""
    quality: float | None = None  # of the evaluation after this epoch; None where there was none
    best: float | None = None  # of all evaluations so far
    target_met: bool = False
    ranks: int = 0  # that trained


@dataclass(frozen=True)
class Trained:
    """A checkpoint to be used, with its configuration."""

    path: Path
    configuration: Configuration
    checkpoint: Checkpoint

    @property
    def told(self) -> str:
        """What it is, in words."""
        saved = self.checkpoint
        quality = f", {saved.metric} {saved.quality:.4f}" if saved.quality is not None else ", not evaluated"
        return f"{saved.configuration_name} after epoch {saved.epoch}{quality}"


def usable(folder: Path) -> None:
    """Make the folder and try it, before anything is trained. ValueError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise ValueError(
            f"--checkpoint-dir {folder}: nothing can be written there ({error.strerror}); name another folder"
        ) from error


@contextmanager
def of_one_run(folder: Path) -> Iterator[None]:
    """Inside the block the folder, which is there, is this process's: two runs would take each other's checkpoints away.

    What runs that were killed left of a checkpoint, each as large as one, is removed. ValueError where another run has it;
    nobody can tell where the file system has no locks.
    """
    running = (
        f"--checkpoint-dir {folder}: another run keeps its checkpoints there; wait for its end, or name another folder"
    )
    with locks.alone(folder / LOCK, running) as alone:
        for each in [path for name in (NAME, BEST) for path in whole.unfinished(folder / name) if alone]:
            each.unlink(missing_ok=True)
        yield


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier run has left in `folder` into a new one below it, which is returned; None where there is nothing.

    OSError when that cannot be done.
    """
    there = [path for name in (BEST, NAME) if (path := folder / name).exists()]
    if not there:
        return None
    try:
        for number in itertools.count():
            aside = folder / f"{EARLIER}{number}"
            with contextlib.suppress(FileExistsError):
                aside.mkdir()
                break
        for path in there:
            path.rename(aside / path.name)
    except OSError as error:
        raise OSError(
            error.errno, f"{folder}: the checkpoints of an earlier run cannot be set aside ({error.strerror})"
        ) from error
    return aside


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`, and the best one where this is it; an interruption leaves the old ones.

    OSError when it cannot be written, TypeError when it could not be read again.
    """
    if not isinstance(checkpoint.state, dict):
        raise TypeError(f"the session's state is of type {type(checkpoint.state).__name__}: a dict is needed")
    for place, kind in _not_plain(vars(checkpoint)):
        raise TypeError(
            f"{place} is of type {kind}, with which no checkpoint can be read again: a session's state is made of tensors, "
            "Python's numbers and texts, and dicts, lists and tuples of them"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole.replacing(folder / NAME) as file:
            _write(vars(checkpoint), file)
        keep_best(folder, checkpoint)
    except OSError as error:
        raise OSError(error.errno, f"{folder}: the checkpoint cannot be written ({error.strerror})") from error


def _write(content: dict[str, Any], file: BinaryIO) -> None:
    """What ends a write of its own is raised as it is: a full disk, a signal."""
    import torch

    before = sys.exception()  # what is being handled already ended no write of this
    try:
        torch.save(content, file)
    except RuntimeError as error:  # torch's, of a file that ends too early: it takes the place of what ended the write
        reason = error.__context__
        while reason is not before and isinstance(reason, Exception) and not isinstance(reason, OSError):
            reason = reason.__context__
        raise error if reason is None or reason is before else reason  # noqa: B904 - it came before


def keep_best(folder: Path, last: Checkpoint) -> None:
    """Make the folder's last checkpoint, which `last` is, its best one too where it is that; again where it is already.

    Who goes on from one does so first: a kill, or a full disk, may have come between the two, and the last is soon another.
    """
    if last.quality is not None and last.quality == last.best:
        whole.same(folder / BEST, folder / NAME)


def _not_plain(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Where in it there is what torch.load refuses to read without running code, and of which type that is."""
    kind = type(value)
    if kind in _PLAIN or _read_by_torch(value):
        return
    if kind in (dict, OrderedDict, Counter):
        if {*map(type, value), *map(type, value.values())} <= _PLAIN:
            return
        for key, each in value.items():
            yield from _not_plain(key, f"the key {place}[{key!r}]")
            yield from _not_plain(each, f"{place}[{key!r}]" if place else str(key))
    elif kind in (list, tuple, set):
        if set(map(type, value)) <= _PLAIN:  # 0.02 s for the order of a million images, at every save; one by one 0.6
            return
        for index, each in enumerate(value):
            yield from _not_plain(each, f"{place}[{index}]")
    else:
        yield place, f"{kind.__module__}.{kind.__qualname__}"


def _read_by_torch(value: Any) -> bool:
    """Whether it is torch's own, or of a type that the benchmark has told torch to read."""
    import torch

    own = (torch.Tensor, torch.Size, torch.dtype, torch.device, torch.layout, torch.qscheme)
    if isinstance(value, (*own, torch.TypedStorage, torch.UntypedStorage)):
        return True
    told = torch.serialization.get_safe_globals()  # some with the name that they have in the file
    return any(type(value) is (each[0] if isinstance(each, tuple) else each) for each in told)


def load(folder: Path, configuration: Configuration) -> Checkpoint:
    """To go on training. ValueError when there is none, it is damaged, or it is of another configuration or
    there is no epoch left to train."""
    path = folder / NAME
    if not outside.is_file(path):
        raise ValueError(
            f"{folder} has no {NAME} to resume from; leave --from-checkpoint out to start from the beginning"
        )
    found = _read(path, "move it away")
    ranks = configuration.run.world_size
    if found.ranks not in (0, ranks):
        raise ValueError(
            f"{path} is of a run on {found.ranks} ranks, and the configuration asks for {ranks}: each rank's place in the data "
            "and its random numbers are in it, and batches would be others. Resume on as many, or start over"
        )
    if found.configuration_sha256 != configuration.sha256:
        other = ", ".join(_other(found.configuration or {}, configuration.resolved))
        raise ValueError(
            f"{path} is of a run with another configuration ({other or 'an older version does not say in what'}); resume with "
            "the one it was made with, or name another --checkpoint-dir"
        )
    if found.epoch >= configuration.run.epochs:
        raise ValueError(f"{path} is of the last epoch, {found.epoch}: nothing is left to train")
    if found.target_met:
        raise ValueError(
            f"{path} is of epoch {found.epoch}, whose {found.metric} of {found.quality} met the target: nothing is left to "
            "train"
        )
    return found


def _other(then: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The keys that two configurations do not have alike, with both values; nothing where one does not say any."""
    for key in dict.fromkeys([*then, *now] if then else ()):
        before, after = then.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _other(before, after, f"{place}{key}.")
        elif before != after:
            yield f"{place}{key} was {json.dumps(before)} and is {json.dumps(after)}"


def to_use(folder: Path) -> Path | None:
    """Which of a folder's checkpoints is meant where one is to be used."""
    return next((folder / name for name in (BEST, NAME) if outside.is_file(folder / name)), None)


def trained(path: Path) -> Trained:
    """A checkpoint to be used, by its path or its folder's. ValueError when it is none or does not say what it is of."""
    if outside.is_folder(path):
        found = to_use(path)
        if found is None:
            raise ValueError(
                f"{path} has neither {BEST} nor {NAME}; `harness run CONFIGURATION --checkpoint-dir {path}` leaves them there"
            )
        path = found
    if not outside.is_file(path):
        raise ValueError(
            f"{path}: there is no such file; `harness run CONFIGURATION --checkpoint-dir DIR` makes checkpoints"
        )
    saved = _read(path, "name one that `harness run --checkpoint-dir` made")
    raw = saved.configuration
    if raw is None:
        raise ValueError(
            f"{path} does not say what it is of: an older version made it. `run --from-checkpoint` with its configuration, "
            "where an epoch is left to train, makes one that does"
        )
    _of_a_known_benchmark(path, raw)
    try:
        configuration = config.parse(raw, name=saved.configuration_name, source=f"the configuration in {path}")
    except ConfigError as error:
        raise ValueError(f"{error}\n(of another version of this program, or of a hand that changed it)") from error
    return Trained(path, configuration, saved)


def _of_a_known_benchmark(path: Path, raw: dict[str, Any]) -> None:
    """Of the benchmarks here or of those that HARNESS_BENCHMARKS names: importing whatever a file names would run it."""
    name = str(raw.get("benchmark"))
    module = config.module_name(name)
    known = rules.packages()
    if not any(module == each or module.endswith(f".{each}") for each in known):
        raise ValueError(
            f"{path} is of the benchmark {name}, which is not known here; known are: {', '.join(known)}; {ELSEWHERE}"
        )


def _read(path: Path, fix: str) -> Checkpoint:
    """ValueError, ending in `fix`, for what is none; nothing in the file is run."""
    import torch

    try:
        with path.open("rb") as file:
            begun = file.read(2)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle of a kind that torch does not write: it is refused anyway
            _check_sums(path, begun)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no narrower class for a damaged file
        # torch's own words end in the advice to read it with weights_only=False, which runs what is in it
        if not begun.startswith((b"PK", b"\x80")):  # of torch.save's, now and formerly
            reason = "it begins like none"
        elif "Unsupported" in str(error):
            reason = "it would run code when read"
        elif isinstance(error, zipfile.BadZipFile):
            reason = str(error)
        else:
            reason = type(error).__name__
        raise ValueError(f"{path} is damaged or not a checkpoint of this version ({reason}); {fix}") from error
    names = {each.name: each.type for each in fields(Checkpoint)}
    if not isinstance(content, dict) or set(content) - set(names):
        raise ValueError(f"{path} is damaged or not a checkpoint of this version (it has other content); {fix}")
    try:
        found = Checkpoint(**content)
        if not _plausible(found):
            raise TypeError
    except TypeError as error:
        raise ValueError(
            f"{path} is damaged or not a checkpoint of this version (it lacks something); {fix}"
        ) from error
    return found


def _check_sums(path: Path, begun: bytes) -> None:
    """BadZipFile where a checksum is wrong, as torch.save writes them: torch.load passes over them, and takes other weights."""
    if begun == b"PK":  # torch's former form has none
        with zipfile.ZipFile(path) as parts:
            if (wrong := parts.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of its part {wrong} is wrong")


def _plausible(found: Checkpoint) -> bool:
    return (
        all(isinstance(each, int) for each in (found.epoch, found.seed))
        and all(isinstance(each, str) for each in (found.configuration_sha256, found.configuration_name, found.metric))
        and isinstance(found.state, dict)
        and isinstance(found.configuration, dict | None)
        and all(isinstance(each, float | None) for each in (found.quality, found.best))
    )
