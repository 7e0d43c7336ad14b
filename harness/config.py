"""Strict TOML -> typed configuration.

A configuration file says `benchmark = "NAME"` (the package benchmarks.NAME; a dotted name is taken as it is), has the
tables [submission] and [run] that the harness owns, and every other table that the benchmark's `config_type` declares.
Nothing is guessed: an unknown key, a missing key, a wrong type and an impossible value are errors, reported all at once,
each with the file, the dotted key, what was found and what is allowed.

Rulesets: those from 0.7.0 on are written in full in both divisions. Beyond 0.7.0's keys 1.0.0 asks for
gradient_accumulation_steps, which the benchmark's hyperparameters carry, and 1.1.0 to 2.1.0 for a weights_initialization line
for every tensor. 0.6.0 has another line format and is not written. (mlperf-logging 4.1.68, compliance_checker/training_*.)
"""

from __future__ import annotations

import hashlib
import importlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from harness import rules
from harness.config_files import FOLDER, ConfigError, read_toml, readable, shown
from harness.contract import Benchmark, Context
from harness.names import UNNAMED
from harness.rules import Division, Rules, Status
from harness.system import accelerator, numa
from harness.validation import no_numbers, validate

ELSEWHERE = "one that lies elsewhere is there once HARNESS_BENCHMARKS names the folder above its own"
BENCHMARK_MEMBERS = (
    *("name", "config_type"),
    *("provide_data", "check", "open", "prepare"),
)

Text = Annotated[str, Field(min_length=1)]


def _printable(text: str) -> str:
    """It is in lines of the screen and names of folders; a line's end in it would begin a line of its own."""
    if any(
        unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text
    ):  # spaces of all kinds are good
        raise ValueError(f"{text!r}: one line of printable characters is needed")
    return text


Line = Annotated[Text, AfterValidator(_printable)]


def _known_device(name: str) -> str:
    if name not in accelerator.devices():
        raise PydanticCustomError("device", "no such device")  # the schema says which there are
    return name


Device = Annotated[
    str,
    AfterValidator(_known_device),
    Field(json_schema_extra=lambda schema: schema.update(enum=list(accelerator.devices()))),
]


class Table(BaseModel):
    """A strict table: an unknown key is an error and no value is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SubmissionTable(Table):
    """What the log's submission_* lines say."""

    org: Line
    platform: Line
    division: Division
    status: Status


class RunTable(Table):
    """What the harness needs to run: where, how long, and towards what."""

    ruleset: Literal["0.7.0", "1.0.0", "1.1.0", "2.0.0", "2.1.0", "3.0.0", "3.1.0", "4.0.0", "4.1.0", "5.0.0", "5.1.0"]
    device: Device  # "cpu", torch's word for an accelerator, or "accelerator" for whichever this machine has
    nodes: PositiveInt
    accelerators_per_node: PositiveInt  # on a CPU: processes
    epochs: PositiveInt  # at most so many
    evaluate_after_epochs: Annotated[list[PositiveInt], Field(min_length=1)]
    target: Annotated[float, Field(gt=0)]  # the run ends when an evaluation reaches it
    log_every_steps: PositiveInt
    # Processors and memory of each rank: as the launcher left them, those of its accelerator's NUMA node, or a part of that
    # node's cores that no other rank has (harness/execution/binding.py). The log says where each ran, whoever bound it
    cpu_binding: numa.Way = "none"

    @property
    def world_size(self) -> int:
        return self.nodes * self.accelerators_per_node

    @model_validator(mode="after")
    def _evaluations_fit(self) -> Self:
        given = self.evaluate_after_epochs
        if given != sorted(set(given)):
            raise ValueError(f"evaluate_after_epochs = {given} must ascend, each epoch once")
        if given[-1] > self.epochs:
            raise ValueError(
                f"evaluate_after_epochs ends at {given[-1]}, beyond epochs = {self.epochs}; raise the one or cut the other"
            )
        if given[-1] < self.epochs:
            raise ValueError(
                f"evaluate_after_epochs ends at {given[-1]} but epochs = {self.epochs}: the epochs after it would train for "
                f"nothing; evaluate after {self.epochs} too, or set epochs = {given[-1]}"
            )
        return self


class Own(Table):
    """The harness's part of a file."""

    benchmark: Text
    submission: SubmissionTable
    run: RunTable
    also_called: list[Text] = []  # names by which published recipes ask for it
    default: bool = False  # what runs when none is named and no accelerator is found; one file may say so


@dataclass(frozen=True)
class Configuration:
    """One configuration, complete and checked."""

    name: str
    source: str  # where it was read, for messages
    benchmark_name: str
    benchmark: Benchmark
    submission: SubmissionTable
    run: RunTable
    tables: BaseModel  # the benchmark's config_type

    @cached_property
    def rules(self) -> Rules:
        """Of the benchmark in the ruleset, from the benchmark's own rules.toml."""
        return _rules_of(self.benchmark_name)[self.run.ruleset]

    @property
    def keyword(self) -> str:
        """What the ruleset calls the benchmark: submission_benchmark, and the folder's name in a submission."""
        return self.rules.benchmark

    @cached_property
    def other_task(self) -> str:
        """What it trains where that is not what the keyword's rules speak of, in words; else ""."""
        return _other_task(self.benchmark, self.tables)

    @property
    def prepared_by(self) -> str | None:
        """The options with which `harness prepare` gets what it reads; None where none do. See harness.contract.Placed."""
        told = getattr(self.benchmark, "prepared_as", None)
        which = told(self.tables) if told is not None else ""
        return None if which is None else f"--benchmark {self.benchmark_name}{which and f' --dataset {which}'}"

    @property
    def to_be_published(self) -> bool:
        """Whether its results are meant to be."""
        return self.submission.division == "closed" or self.submission.status != "research"

    @property
    def lacks_submitter(self) -> str:
        """Where results are meant to be published and nobody is named whose they are: what follows, in words; else ""."""
        if not self.to_be_published or self.submission.org.casefold() != UNNAMED:
            return ""
        return f'{self.name} says submission.org = "{UNNAMED}": no package can be made of its logs, and logs are never edited'

    def check(self, context: Context) -> None:
        """What its benchmark refuses before anything is built, ValueError or NotSuitable: see harness.contract.Benchmark."""
        try:
            self.benchmark.check(self.tables, context)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """Every key with the value in force, defaults too; `parse` takes it back."""
        return {
            "benchmark": self.benchmark_name,
            "submission": self.submission.model_dump(mode="json"),
            "run": self.run.model_dump(mode="json"),
            **self.tables.model_dump(mode="json", by_alias=True),
        }

    @cached_property
    def sha256(self) -> str:
        """Of `resolved`: equal for two files that mean the same."""
        return hashlib.sha256(json.dumps(self.resolved, sort_keys=True).encode()).hexdigest()


def load(path: Path, *, target: float | None = None, org: str | None = None) -> Configuration:
    """Read one file; `target` replaces run.target, `org` submission.org. ConfigError with one line for each thing wrong."""
    raw = read_toml(path)
    for table, key, value in (("run", "target", target), ("submission", "org", org)):
        if value is not None and isinstance(raw.get(table), dict):
            raw[table][key] = value
    return parse(raw, name=path.stem, source=shown(path))


def parse(raw: dict[str, Any], *, name: str, source: str) -> Configuration:
    """A Configuration from a file's content. ConfigError with one line for each thing wrong."""
    problems = [*no_numbers(raw)]
    own = validate(Own, {key: value for key, value in raw.items() if key in Own.model_fields})
    tables: BaseModel | list[str]
    try:
        benchmark = find_benchmark(raw.get("benchmark"))
    except ConfigError as error:
        tables = [] if isinstance(own, list) and "benchmark" not in raw else [str(error)]
    else:
        rest = {key: value for key, value in raw.items() if key not in Own.model_fields}
        tables = validate(benchmark.config_type, rest, more_keys=Own.model_fields)
        if isinstance(own, Own):
            problems += _against_ruleset(own)
            if isinstance(tables, BaseModel) and own.submission.division == "closed":
                problems += _against_closed(benchmark, tables)
    for each in (own, tables):
        problems += each if isinstance(each, list) else []
    if problems or isinstance(own, list) or isinstance(tables, list):
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in dict.fromkeys(problems)))
    return Configuration(name, source, own.benchmark, benchmark, own.submission, own.run, tables)


def _against_closed(benchmark: Benchmark, tables: BaseModel) -> Iterator[str]:
    if task := _other_task(benchmark, tables):
        yield f'submission.division = "closed": it has no {task}; say "open", and the run says of itself what it is'
        return
    told = getattr(benchmark, "against_closed", None)
    for each in told(tables) if told is not None else ():
        yield f'submission.division = "closed": {each}, as the rules have it; take that, or say "open"'


def _other_task(benchmark: Benchmark, tables: BaseModel) -> str:
    """See harness.contract.Varied."""
    told = getattr(benchmark, "other_task", None)
    task = told(tables) if told is not None else ""
    if not isinstance(task, str):  # None in words would be another task too
        raise TypeError(
            f'other_task of benchmark {benchmark.name} gave {task!r}: a text is needed, "" where it is the rules\' task'
        )
    return task


def find_benchmark(name: object) -> Benchmark:
    """The BENCHMARK of the package that `name` stands for. ConfigError when there is none."""
    if not isinstance(name, str) or not name:
        return _no_benchmark(f"benchmark = {name!r}: the name of a benchmark is needed")
    if any(not part or set(part) & set("/\\\0") for part in name.split(".")):  # others Python imports by name
        return _no_benchmark(f"benchmark = {json.dumps(name)}: no package can be called that")
    package = module_name(name)
    try:
        if "." not in name:
            _take_in(rules.searched())
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise  # the package is there but lacks something it needs
        return _no_benchmark(f'benchmark = "{name}": there is no package {package}')
    except SystemExit as error:  # it would pass for the end of a verb that has done its work
        raise ImportError(f"{package} ends the program while it is imported") from error
    benchmark: Any = getattr(module, "BENCHMARK", None)
    missing = [member for member in BENCHMARK_MEMBERS if not hasattr(benchmark, member)]
    if missing:
        raise ConfigError(
            f'benchmark = "{name}": {package}.BENCHMARK lacks {", ".join(missing)}; see harness/contract.py'
        )
    kind = benchmark.config_type
    if isinstance(benchmark, type) or not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise ConfigError(
            f'benchmark = "{name}": {package}.BENCHMARK must be an object, no class, and its config_type a class of '
            "pydantic's BaseModel; see harness/contract.py"
        )
    if taken := [key for key in kind.model_fields if key in Own.model_fields]:
        raise ConfigError(
            f'benchmark = "{name}": {package}.BENCHMARK.config_type has {", ".join(taken)}, which the harness reads itself: '
            "another name is needed"
        )
    found: Benchmark = benchmark
    return found


def _take_in(folders: Iterable[Path]) -> None:
    """Make the package `benchmarks` one that reaches into these too, after its own: their benchmarks are benchmarks.NAME."""
    places = importlib.import_module("benchmarks").__path__
    for folder in folders:
        if str(folder) not in places:
            places.append(str(folder))


def module_name(name: str) -> str:
    """Of the package that a configuration's `benchmark` names."""
    return name if "." in name else f"benchmarks.{name}"


def default_benchmark(folder: Path = FOLDER) -> str:
    """The one benchmark there is, else that of the configuration which says `default = true`. ConfigError without either."""
    there = _benchmarks()
    if len(there) != 1:
        there = [str(raw.get("benchmark")) for raw in readable(folder)[0].values() if raw.get("default") is True]
    if len(there) != 1:
        raise ConfigError(f"name a benchmark with --benchmark; there are: {', '.join(_benchmarks()) or 'none'}")
    return there[0]


def _benchmarks() -> list[str]:
    # what several benchmarks share is a package there too, without rules of its own
    return sorted({path.parent.name for path in rules.data_files(rules.FILE)})


def _no_benchmark(problem: str) -> Benchmark:
    raise ConfigError(f"{problem}; there are: {', '.join(_benchmarks()) or 'none'}; {ELSEWHERE}")


def _against_ruleset(own: Own) -> Iterator[str]:
    try:
        of_benchmark = _rules_of(own.benchmark)
    except ValueError as error:
        yield str(error)
        return
    ruleset, closed, target = own.run.ruleset, own.submission.division == "closed", own.run.target
    if ruleset not in of_benchmark:
        allowed = " | ".join(
            f'"{each}"' for each in get_args(RunTable.model_fields["ruleset"].annotation) if each in of_benchmark
        )
        yield f'run.ruleset = "{ruleset}": benchmark {own.benchmark} is not part of it; allowed: {allowed}'
        return
    found = of_benchmark[ruleset]
    if closed and found.target is not None and target != found.target:
        yield (
            f"run.target = {target}: the closed division of {ruleset} fixes it at "
            f'{found.target}; use that, or submission.division = "open"'
        )
    elif found.quality_range and not found.quality_range[0] <= target <= found.quality_range[1]:
        low, high = found.quality_range
        above = f">= {low:g}" if low > 0 else "> 0"
        yield f"run.target = {target}: not allowed; allowed: a number {above} and <= {high:g}, as {found.metric} is"
    given, due = tuple(own.run.evaluate_after_epochs), found.scheduled(own.run.epochs)
    if closed and due and given != due:
        yield (
            f"run.evaluate_after_epochs = {list(given)}: the closed division of {ruleset} evaluates after "
            f'{list(due)} of {own.run.epochs} epochs; use those, or submission.division = "open"'
        )


def _rules_of(benchmark_name: str) -> dict[str, Rules]:
    """What the benchmark's folder says of the keywords that it trains. ConfigError where it says nothing."""
    benchmark = find_benchmark(benchmark_name)
    module = importlib.import_module(module_name(benchmark_name))
    folder = Path(str(module.__file__)).parent
    found = {ruleset: each for ruleset, each in rules.in_folder(folder).items() if each.ours}
    if benchmark.name not in {each.benchmark for each in found.values()}:
        raise ConfigError(
            f'benchmark = "{benchmark_name}": {folder / rules.FILE} has no rules for the keyword {benchmark.name} that are '
            "its own (ours = true); see harness/rules.py"
        )
    return found
