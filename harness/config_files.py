"""Where configurations lie, which one a user means, and what of a file cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import ROOT, outside
from harness.names import same_accelerator
from harness.validation import did_you_mean

CHECKOUT = ROOT if (ROOT / "run_and_time.sh").is_file() else None
FOLDER = ROOT / "configs" if CHECKOUT else ROOT / "harness" / "configs"  # where pyproject.toml puts them in a wheel


class ConfigError(ValueError):
    """What a user asked for cannot be run; the message says where, what was found and what to do."""


def available(folder: Path = FOLDER) -> dict[str, Path]:
    """All configurations by name; where two benchmarks share a name, by benchmark/name."""
    paths = sorted(folder.glob("*/*.toml"))
    names = [path.stem for path in paths]
    return {path.stem if names.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}": path for path in paths}


def find(name: str, folder: Path = FOLDER) -> Path:
    """The file that a user means by `name`: a name among `available`, or a path. ConfigError when there is none."""
    there = available(folder)
    if not name:
        raise ConfigError(f"the name of the configuration is empty\nthere are: {', '.join(there) or 'none'}")
    if name in there:
        return there[name]
    for called, raw in readable(folder)[0].items():
        if isinstance(also := raw.get("also_called"), list) and name in also:
            return there[called]
    if name.endswith(".toml") or "/" in name:
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's raises for a user that is not there
        if not outside.is_file(path):
            raise ConfigError(f"{name}: no such file; `python -m harness configs` lists what has a name")
        return path
    begins = [each for each in there if each.lower().startswith(name.lower())]
    hint = (
        f"; did you mean {' or '.join(begins)}?" if 1 < len(begins) < 5 else did_you_mean((begins or [name])[0], there)
    )
    raise ConfigError(f"there is no configuration {name}{hint}\nthere are: {', '.join(there) or 'none'}")


def from_anywhere(path: Path) -> Path:
    """The file by a path that holds in every folder, and by the name it was asked for by: a link's is a configuration's too."""
    return path.parent.resolve() / path.name


def find_default(accelerators: list[str], folder: Path = FOLDER) -> Path:
    """What runs when no configuration is named, on a machine with these accelerators (their names).

    Without accelerators it is the one file that says `default = true`; with them it is the user's choice: ConfigError.
    """
    files, broken = readable(folder)
    defaults = [name for name, raw in files.items() if raw.get("default") is True]
    if not accelerators:
        if len(defaults) != 1:
            said = f"({', '.join(defaults) if defaults else 'none'} of them says default = true, one should)"
            lines = [f"name a configuration: {', '.join(files) or 'none found'} {said}", *map(str, broken.values())]
            raise ConfigError("\n".join(lines))
        return available(folder)[defaults[0]]
    rows = []
    for name, raw in files.items():
        if malformed(raw) is None and raw["run"].get("device") != "cpu":
            platform = str(raw["submission"].get("platform", ""))
            enough = raw["run"].get("nodes") == 1 and raw["run"].get("accelerators_per_node", 0) <= len(accelerators)
            fits = enough and any(same_accelerator(platform, each) for each in accelerators)
            rows.append((not fits, name, platform + ("   <- this machine's" if fits else "")))
    width = max((len(name) for _, name, _ in rows), default=0)
    lines = [f"  {name:{width}}  {platform}" for _, name, platform in sorted(rows)]
    found = ", ".join(f"{accelerators.count(each)}x {each}" for each in dict.fromkeys(accelerators))
    on_cpu = f"\nor {defaults[0]}, which runs on the CPU" if len(defaults) == 1 else ""
    raise ConfigError("\n".join([f"this machine has {found}: name the configuration to run, one of", *lines]) + on_cpu)


def readable(folder: Path = FOLDER) -> tuple[dict[str, dict[str, Any]], dict[str, ConfigError]]:
    """The contents of those `available`, and what is wrong with the others: a file that somebody writes stops no other."""
    found: dict[str, dict[str, Any]] = {}
    broken: dict[str, ConfigError] = {}
    for name, path in available(folder).items():
        try:
            found[name] = read_toml(path)
        except ConfigError as error:
            broken[name] = error
    return found, broken


def malformed(raw: Mapping[str, Any]) -> str | None:
    """What keeps a file's content from being shown as a configuration; what else is wrong with it, a run says."""
    run, submission = raw.get("run"), raw.get("submission")
    if not isinstance(run, dict) or not isinstance(submission, dict) or not isinstance(raw.get("benchmark"), str):
        return "no configuration: it needs benchmark = ... and the tables [submission] and [run]"
    for key in ("nodes", "accelerators_per_node"):
        if not isinstance(run.get(key, 1), int):
            return f"run.{key} = {run[key]!r}: a number is needed"
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """A file's content. ConfigError when it cannot be read."""
    with _told(path):
        return outside.read_toml(path)


def read_text(path: Path) -> str:
    """Likewise as text."""
    with _told(path):
        return outside.read_text(path, outside.TOML_LIMIT)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except outside.Refused as error:
        raise ConfigError(f"{shown(path)}{str(error).removeprefix(str(path))}") from error
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read: {error.strerror}") from error


def shown(path: Path) -> str:
    """A path as a user knows it: relative to the checkout where it lies in it."""
    resolved = outside.real(path)
    return str(resolved.relative_to(ROOT)) if CHECKOUT and resolved.is_relative_to(ROOT) else str(path)
