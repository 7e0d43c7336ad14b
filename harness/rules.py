"""The rules as data: of a benchmark's keyword in a ruleset, and of the rulesets themselves. Imports no benchmark.

A benchmark's rules are the file rules.toml in its folder: `keyword`, and for each meaning that the keyword has had a table
[[meaning]] with fields of `Rules` and, under rulesets."X.Y.Z", those that hold in one ruleset alone. A benchmark that the
rounds have called by several keywords says each one's in its own [[meaning]]. The files are found in the folders of the package
`benchmarks`, without importing it, and in the folders that `also_search` names. A keyword that no file has is no error: its
logs are read and scored by what they say themselves.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from harness import outside

FILE = "rules.toml"
DEFAULT = "0.7.0"  # of a log that shows nothing
Division = Literal["open", "closed"]
Status = Literal["cloud", "onprem", "preview", "research"]
DIVISIONS, STATUSES = get_args(Division), get_args(Status)


@dataclass(frozen=True)
class Rules:
    """What holds for one keyword in one ruleset; None and empty where the rules say nothing that is known here."""

    benchmark: str  # the keyword
    ruleset: str
    metric: str = "quality"
    runs: int | None = None  # a result needs exactly so many
    target: float | None = None  # of the closed division
    train_samples: int | None = None
    train_samples_tolerated: tuple[int, ...] = ()
    counted_in_batches: bool = False  # train_samples and eval_samples by nearly all published logs
    eval_samples: tuple[int, ...] = ()
    decay_key: str | None = None
    decay_reference: tuple[float, ...] = ()
    evaluation_epochs: tuple[int, ...] = ()
    evaluation_every: int | None = None
    tolerated_late: int = 0
    tolerated_every: int | None = None
    task: str = ""  # what the keyword stands for
    ours: bool = False  # the package whose file this is trains it
    lower_is_better: bool = False
    quality_range: tuple[float, ...] = ()  # lowest and highest that the metric can be
    weights_logged: bool = False  # a weights_initialization line for every tensor is asked for
    keys: tuple[str, ...] = ()  # that logs of this meaning have and those of the others have not

    def scheduled(self, last: float) -> tuple[int, ...]:
        """The epochs up to `last` after which the rules evaluate."""
        if self.evaluation_every:
            return tuple(range(self.evaluation_every, int(last) + 1, self.evaluation_every))
        return tuple(each for each in self.evaluation_epochs if each <= last)

    def in_batches(self, train_samples: float | None, global_batch: float | None) -> bool:
        """Whether a log's train_samples are an epoch's global batches, as logs of this meaning may have them."""
        if not (self.counted_in_batches and self.train_samples and train_samples):
            return False
        if not global_batch:  # nobody trains with so few at a time that a hundredth of the images were the batches
            return train_samples * 100 < self.train_samples
        # whole batches of each rank's share: 0.8 % too many at the most, in all published logs
        return abs(train_samples * global_batch / self.train_samples - 1) < 0.01

    def epoch_samples(self, train_samples: int | None, global_batch: int | None) -> int | None:
        """Samples of one epoch, by which every throughput is reckoned: as the log says.

        But by the rules' number where it says nothing, counts samples too that are in the data set and not trained on
        (`train_samples_tolerated`), or counts batches: so one log has one throughput, read or published.
        """
        said = train_samples
        if said is None or said in self.train_samples_tolerated or self.in_batches(said, global_batch):
            return self.train_samples
        return said

    def met(self, quality: float, target: float) -> bool:
        """Whether a quality meets a target; a fraction's target is not met by percent, an error's not by less than none."""
        if not self.possible(quality, target):
            return False
        return quality <= target if self.lower_is_better else target <= quality

    def possible(self, quality: float, target: float) -> bool:
        """Whether it can be one at all: by quality_range alone, and where the rules say none, by what metrics mostly are."""
        if self.quality_range:
            return self.quality_range[0] <= quality <= self.quality_range[1]
        return quality >= 0 if self.lower_is_better else quality <= 1 or target > 1

    def best(self, qualities: Iterable[float]) -> float | None:
        """The best of some; None of none."""
        found = list(qualities)
        return None if not found else min(found) if self.lower_is_better else max(found)


@dataclass(frozen=True)
class Ruleset:
    """One round's ruleset, whatever the benchmark; see rulesets.toml."""

    name: str
    published: date
    dialect: str
    seeds: str  # "required", "expected" or "not asked"
    convergence_points: bool
    checkable: bool
    keys: tuple[str, ...] = ()

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.name.split("."))


# --- of benchmarks -----------------------------------------------------------------------------------------------------

_SEARCH: dict[Path, None] = {}


def also_search(folders: Iterable[Path]) -> None:
    """Look for benchmarks in these folders too, as in the package `benchmarks`.

    ValueError for one by a name that an earlier folder has: the other's code would be run in its place.
    """
    for folder in folders:
        named = sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))
        for there, name in itertools.product(_folders(), named):
            if there != folder.resolve() and (there / name).is_dir():
                raise ValueError(f"{folder / name}: there is {there / name}, and a benchmark needs a name of its own")
        _SEARCH[folder.resolve()] = None
    _found.cache_clear()


def searched() -> tuple[Path, ...]:
    """The folders that `also_search` named."""
    return tuple(_SEARCH)


def rules_for(benchmark: str | None, ruleset: str | None) -> Rules:
    """The rules, as far as they are known."""
    named = _found().get(benchmark or "", {})
    if own := named.get(ruleset or ""):
        return own
    some = next((each for each in named.values() if each.ours), None) or next(iter(named.values()), None)
    if some is None:
        return Rules(benchmark or "", ruleset or "")
    return Rules(
        benchmark or "", ruleset or "", some.metric, some.runs,
        lower_is_better=some.lower_is_better, quality_range=some.quality_range,
    )  # fmt: skip


def meanings(benchmark: str | None) -> list[Rules]:
    """All that the keyword has stood for, by ruleset; the oldest first."""
    return list(_found().get(benchmark or "", {}).values())


def packages() -> list[str]:
    """The benchmarks there are, by package: benchmarks.NAME, and FOLDER.NAME where they lie elsewhere. Nothing is imported."""
    found = [(folder, path.parent.name) for folder in _folders() for path in folder.glob(f"*/{FILE}")]
    return sorted({f"{place}.{name}" for folder, name in found for place in ("benchmarks", folder.name)})


def in_folder(folder: Path) -> dict[str, Rules]:
    """The rules of the benchmark in this folder, by ruleset. ValueError where the file is wrong; {} without one."""
    path = folder / FILE
    return read(path) if path.is_file() else {}


def read(path: Path) -> dict[str, Rules]:
    """One rules.toml. ValueError, with the file and the key, for what is wrong with it."""
    try:
        content = outside.read_toml(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    told = content.pop("meaning", None)
    keywords = [content.pop("keyword", None)]
    if isinstance(told, list):
        keywords = [meaning.pop("keyword", keywords[0]) for meaning in told if isinstance(meaning, dict)]
    if not isinstance(told, list) or not all(isinstance(each, str) for each in keywords) or content:
        raise ValueError(f"{path}: it needs keyword and tables [[meaning]], and nothing else ({', '.join(content)})")
    found: dict[str, Rules] = {}
    for keyword, meaning in zip(keywords, told, strict=True):
        own = meaning.pop("rulesets", {})
        if not own or not isinstance(own, dict) or not all(isinstance(each, dict) for each in own.values()):
            raise ValueError(
                f'{path}: meaning {meaning.get("task")}: no table [meaning.rulesets."X.Y.Z"] for each ruleset'
            )
        for ruleset, values in own.items():
            if ruleset in found or ruleset not in rulesets():
                why = "has two meanings" if ruleset in found else f"is none of {', '.join(rulesets())}"
                raise ValueError(f"{path}: ruleset {ruleset} {why}")
            found[ruleset] = _rules(path, keyword, ruleset, {**meaning, **values})
    return dict(sorted(found.items(), key=lambda each: rulesets()[each[0]].number))


def _rules(path: Path, keyword: str, ruleset: str, values: Mapping[str, Any]) -> Rules:
    known = {each.name: str(each.type) for each in fields(Rules)[2:]}
    if wrong := [key for key in values if key not in known]:
        raise ValueError(f"{path}: {ruleset}: unknown key {wrong[0]} (known: {', '.join(known)})")
    if missing := [key for key in ("metric", "runs", "target") if key not in values]:
        raise ValueError(f"{path}: {ruleset}: {missing[0]} is missing")
    for key, value in values.items():
        if not _fits(value, known[key]):
            raise ValueError(f"{path}: {ruleset}: {key} = {value!r} is not of type {known[key]}")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    found = Rules(keyword, ruleset, **plain)
    for problem in _impossible(found):
        raise ValueError(f"{path}: {ruleset}: {problem}")
    return found


def _impossible(rules: Rules) -> Iterator[str]:
    for key in (
        "runs",
        "train_samples",
        "eval_samples",
        "evaluation_every",
        "evaluation_epochs",
        "train_samples_tolerated",
    ):
        value = getattr(rules, key)
        if any(each < 1 for each in (value if isinstance(value, tuple) else (value,)) if each is not None):
            yield f"{key} = {value}: 1 or more is needed"
    if list(rules.evaluation_epochs) != sorted(set(rules.evaluation_epochs)):
        yield f"evaluation_epochs = {list(rules.evaluation_epochs)} must ascend, each epoch once"
    bounds, target = rules.quality_range, rules.target
    if bounds and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        yield f"quality_range = {list(bounds)}: the lowest and the highest that the metric can be are needed"
    if target is not None and not 0 < target < math.inf:  # as run.target of a configuration
        yield (
            f"target = {target}: targets are finite and above 0, whatever quality_range says; a metric that has others needs "
            "another form: its negative, or its distance from a bound"
        )
    elif target is not None and len(bounds) == 2 and not bounds[0] <= target <= bounds[1]:
        yield f"target = {target}: a number from {bounds[0]:g} to {bounds[1]:g} is needed, as quality_range says"
    if not rules.metric.strip():
        yield "metric is empty: it is the word by which logs, pages and screens call the quality"


def _fits(value: object, annotation: str) -> bool:
    if annotation.startswith("tuple"):
        return isinstance(value, list) and all(_fits(each, annotation.partition("[")[2]) for each in value)
    if isinstance(value, bool):
        return annotation.startswith("bool")
    kinds: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str}
    kind = next((kind for name, kind in kinds.items() if annotation.startswith(name)), ())
    return isinstance(value, kind)


@cache
def _found() -> dict[str, dict[str, Rules]]:
    """By keyword and ruleset. ValueError where two files speak of the same."""
    found: dict[str, dict[str, Rules]] = {}
    told_by: dict[tuple[str, str], Path] = {}
    for path in data_files(FILE):
        for ruleset, rules in read(path).items():
            there = told_by.setdefault((rules.benchmark, ruleset), path)
            if there != path:
                raise ValueError(f"{path}: {rules.benchmark} in ruleset {ruleset} has its rules in {there} already")
            found.setdefault(rules.benchmark, {})[ruleset] = rules
    number = {name: each.number for name, each in rulesets().items()}
    return {
        keyword: {name: named[name] for name in sorted(named, key=number.__getitem__)}
        for keyword, named in found.items()
    }


def data_files(pattern: str) -> list[Path]:
    """Files of this form, relative to a benchmark's folder, of every benchmark there is."""
    return [path for folder in _folders() for path in sorted(folder.glob(f"*/{pattern}"))]


def _folders() -> list[Path]:
    """Where benchmarks lie: a package's places can be found without importing it."""
    package = importlib.util.find_spec("benchmarks")
    own = package.submodule_search_locations if package is not None else None
    return list(dict.fromkeys([*(Path(each).resolve() for each in own or ()), *_SEARCH]))


# --- of rulesets -------------------------------------------------------------------------------------------------------


@cache
def rulesets() -> Mapping[str, Ruleset]:
    """By name, the oldest first."""
    content = tomllib.loads(Path(__file__).with_name("rulesets.toml").read_text(encoding="utf-8"))
    found: dict[str, Ruleset] = {}
    for name, own in content.items():
        values: dict[str, Any] = {**own, "keys": tuple(own.get("keys", ()))}
        found[name] = Ruleset(name, **values)
    return found


def ruleset(name: str | None) -> Ruleset | None:
    return rulesets().get(name or "")


def checkable() -> tuple[str, ...]:
    """The rulesets that MLPerf's checker knows and whose logs are read here."""
    return tuple(name for name, each in rulesets().items() if each.checkable)


def guess_ruleset(
    benchmark: str | None, keys: Iterable[str], dialect: str | None, start_ms: float | None, samples: int | None = None
) -> str:
    """The ruleset of a log that does not name its own: of those that it can be for, by when it ran.

    It was made for the round published next.
    """
    possible = possible_rulesets(benchmark, keys, dialect, samples)
    day = date.min if start_ms is None else datetime.fromtimestamp(start_ms / 1000, UTC).date()
    return next((each for each in possible if each.published >= day), possible[-1]).name


def possible_rulesets(
    benchmark: str | None, keys: Iterable[str], dialect: str | None, samples: int | None = None
) -> list[Ruleset]:
    """The rulesets that a log which names none can be for, by its form and by what it has; the oldest first.

    The size of the data set, else the keys, tell which meaning of its keyword it is of; the keys, which rulesets.
    """
    have = set(keys)
    of_form = [each for each in rulesets().values() if each.dialect == (dialect or "mllog")]
    named = meanings(benchmark)
    by_samples = [each for each in named if samples and samples in (each.train_samples, *each.train_samples_tolerated)]
    by_keys = [each for each in named if have & set(each.keys)]
    meant = {each.ruleset for each in by_samples or by_keys or [each for each in named if each.ours] or named}
    possible = [each for each in of_form if not meant or each.name in meant] or of_form
    without_weights = [
        each
        for each in possible
        if "weights_initialization" in have or not rules_for(benchmark, each.name).weights_logged
    ]
    possible = without_weights or possible
    new = [each for each in of_form if each.keys and not have & set(each.keys)]  # what it lacks, later rulesets ask for
    possible = [each for each in possible if not any(each.number >= later.number for later in new)] or possible
    old = [each for each in of_form if have & set(each.keys)]
    return [each for each in possible if all(each.number >= first.number for first in old)] or possible
