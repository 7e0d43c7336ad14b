"""The schedule of a comparison, in a file of its own: which arm runs when on which host, so that only the arm can be the cause.

Arms that are drivers need a reboot, so they come in blocks: A B B A on the first host, B A A B A on the second and so on by
turns. Every block begins with a warm-up run that does not count. A closes every host's schedule: where it does not come
back to where it was, the machine changed and not the driver. On an odd host that closing block is the fourth; on an even
one it is a fifth, kept beside the comparison (folder `again`), since five blocks would not be balanced.

Arms that need no reboot (images, configurations, commits, environments) run by turns, A B B A A B B A, a warm-up of each first.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from harness import names, outside, whole

FILE = names.PLAN
VERSION = 1
PLACE = re.compile(r"host-(\d+)_block-(\d+)_run-\d+(_attempt-\d+)?")  # of a run's folder, as Plan.folder has it
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # of the environment
HOSTS_LIMIT, RUNS_LIMIT = 1000, 1000
SETTINGS = ("image", "config", "commit", "env")

Kind = Literal["warm-up", "run", "again"]


@dataclass(frozen=True)
class Arm:
    """One side. Without a setting it is a driver, which a person installs."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # for `read`

    name: str
    image: str | None = None
    config: str | None = None
    commit: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_hand(self) -> bool:
        return not (self.image or self.config or self.commit or self.env)

    def __str__(self) -> str:
        said = {"image": self.image, "configuration": self.config, "commit": self.commit}
        parts = [f"{key} {value}" for key, value in said.items() if value]
        parts += [f"{name}={value}" for name, value in self.env.items()]
        return f"{self.name} ({', '.join(parts)})" if parts else self.name


@dataclass(frozen=True)
class PlannedRun:
    """One run of the schedule."""

    index: int  # from 0, on its host
    block: int  # from 1; 0 for runs by turns
    arm: int
    kind: Kind
    number: int  # from 1, of its kind in its block

    @property
    def again(self) -> bool:
        return self.kind == "again"


@dataclass(frozen=True)
class Plan:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    configuration: str
    arms: tuple[Arm, Arm]
    hosts: int = 2
    runs: int = 5  # that count: of each block, or of each arm where arms run by turns
    max_steps: int | None = None
    epochs: int | None = None
    seed: int = 1
    options: tuple[str, ...] = ()  # for every run, as `harness run` takes them
    probe: bool = True  # whether `harness probe` is called as each arm begins on a host
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def by_hand(self) -> bool:
        """Whether a person changes the driver between blocks."""
        return self.arms[0].by_hand

    @property
    def digest(self) -> str:
        """Of all that decides what its runs are and which is which; a host more, or a probe, changes none of them."""
        told = {name: value for name, value in asdict(self).items() if name not in ("hosts", "probe")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def schedule(self, host: int) -> list[PlannedRun]:
        """Of the `host`-th host, from 1."""
        first = (host - 1) % 2
        items = self._blocks(first) if self.by_hand else self._turns(first)
        return [PlannedRun(index, *each) for index, each in enumerate(items)]

    def _blocks(self, first: int) -> Iterator[tuple[int, int, Kind, int]]:
        order = [first, 1 - first, 1 - first, first]
        for block, arm in enumerate(order, 1):
            yield block, arm, "warm-up", 1
            yield from ((block, arm, "run", number) for number in range(1, self.runs + 1))
        if first == 1:
            yield 5, 0, "warm-up", 1
            yield from ((5, 0, "again", number) for number in range(1, self.runs + 1))

    def _turns(self, first: int) -> Iterator[tuple[int, int, Kind, int]]:
        yield from ((0, arm, "warm-up", 1) for arm in (first, 1 - first))
        for number in range(1, self.runs + 1):
            for arm in (first, 1 - first) if number % 2 else (1 - first, first):
                yield 0, arm, "run", number

    def seed_of(self, host: int, item: PlannedRun) -> int:
        """Runs of both arms have the same seeds in the same order."""
        alike = [each.index for each in self.schedule(host) if (each.arm, each.kind) == (item.arm, item.kind)]
        return (self.seed + alike.index(item.index)) % 2**32

    def folder(self, root: Path, host: int, item: PlannedRun) -> Path:
        """Where a run's log goes: all that counts lies under arms/NAME."""
        place = f"host-{host}_block-{item.block}_{item.kind}-{item.number}"
        top = {"run": "arms", "warm-up": "warm-up", "again": "again"}[item.kind]
        return root / top / self.arms[item.arm].name / place


def make(
    configuration: str,
    arms: Sequence[str],
    *,
    hosts: int = 2,
    runs: int = 5,
    max_steps: int | None = None,
    epochs: int | None = None,
    seed: int = 1,
    options: Sequence[str] = (),
    probe: bool = True,
) -> Plan:
    """ValueError for what makes no comparison, with what does."""
    if len(arms) != 2:
        raise ValueError(f"--arm was given {len(arms)} times: a comparison has two arms, --arm old --arm new")
    first, second = (_arm(text) for text in arms)
    made = Plan(configuration, (first, second), hosts, runs, max_steps, epochs, seed, tuple(options), probe)
    _check(made)
    return made


def with_configurations(plan: Plan, named: Callable[[str, str | None], str]) -> Plan:
    """With each arm's own configuration as `named` calls it, by what was written and the arm's commit; likewise checked."""
    first, second = (
        each if each.config is None else replace(each, config=named(each.config, each.commit)) for each in plan.arms
    )
    made = replace(plan, arms=(first, second))
    _check(made)
    return made


def _check(plan: Plan) -> None:
    """ValueError for what is no comparison, as a person asked for it or wrote it into the file."""
    first, second = plan.arms
    for name, value, limit in (("hosts", plan.hosts, HOSTS_LIMIT), ("runs", plan.runs, RUNS_LIMIT)):
        if not 1 <= value <= limit:
            raise ValueError(f"--{name} {value}: from 1 to {limit}")
    for name, steps in (("steps", plan.max_steps), ("epochs", plan.epochs)):
        if steps is not None and steps < 1:
            raise ValueError(f"--{name} {steps}: 1 or more")
    if plan.max_steps is not None and plan.epochs is not None:
        raise ValueError("--steps or --epochs, not both: each says how long a run is")
    if not 0 <= plan.seed < 2**32:
        raise ValueError(f"--seed {plan.seed}: from 0 to {2**32 - 1}")
    for arm in plan.arms:
        if not NAME.fullmatch(arm.name):
            raise ValueError(
                f"--arm {arm.name}: a name is up to 60 letters, digits, dots, dashes and underscores; settings follow a colon"
            )
        for name in arm.env:
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"--arm {arm.name}: env={name}=...: no name of a variable; write env=NAME=VALUE")
    if first.name == second.name:
        raise ValueError(f"both arms are called {first.name}; name them apart")
    if first.by_hand != second.by_hand:
        raise ValueError(
            f"{first.name if first.by_hand else second.name} has no setting and is a driver, the other arm has one: give both "
            "one, or neither. A driver and an image at once could not be told apart"
        )
    if not first.by_hand and asdict(first) | {"name": ""} == asdict(second) | {"name": ""}:
        raise ValueError("both arms are the same; `compare noise` runs A against A")


def _arm(text: str) -> Arm:
    """NAME, or NAME:image=REF,config=NAME,commit=REV,env=KEY=VALUE with one or more of these."""
    name, _, rest = text.partition(":")
    settings: dict[str, str] = {}
    environment: dict[str, str] = {}
    for setting in rest.split(",") if rest else ():
        key, equals, value = setting.partition("=")
        if key not in SETTINGS or not equals or not value:
            raise ValueError(f"--arm {text}: {setting}: write one of {', '.join(f'{each}=...' for each in SETTINGS)}")
        if key == "env":
            variable, equals, content = value.partition("=")
            if not equals:
                raise ValueError(f"--arm {text}: write env=NAME=VALUE")
            environment[variable] = content
        elif key in settings:
            raise ValueError(f"--arm {text}: {key} twice")
        else:
            settings[key] = value
    return Arm(name, settings.get("image"), settings.get("config"), settings.get("commit"), environment)


def write(plan: Plan, root: Path) -> Path:
    """ROOT/plan.json. ValueError where there is one already: what it began is never mixed with another."""
    path = root / FILE
    if outside.is_there(path):
        raise ValueError(f"{path}: there already; `compare run {root}` goes on with it, or name another --out")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with whole.replacing(path) as file:
            file.write(json.dumps({"plan": VERSION, **asdict(plan)}, indent=1).encode() + b"\n")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def read(root: Path) -> Plan:
    """ValueError where there is no plan, or one that this version does not know."""
    from pydantic import TypeAdapter, ValidationError

    path = root / FILE if outside.is_folder(root) else root
    try:
        content = outside.read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; `compare plan` writes one") from error
    if not isinstance(content, dict) or content.pop("plan", None) != VERSION:
        raise ValueError(f"{path}: no plan that this version can read; `compare plan` writes one")
    try:
        found = TypeAdapter(Plan).validate_json(json.dumps(content), strict=True)
        _check(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: no sound plan: {key} = {first['input']!r:.80}: {first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"{path}: no sound plan: {error}") from error
    return found
