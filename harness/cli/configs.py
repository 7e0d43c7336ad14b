"""The verb that lists the configurations there are, and says which of them this machine could run: configs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.names import same_accelerator

if TYPE_CHECKING:
    from harness.system.accelerator import Accelerators

COLUMNS = ("configuration", "benchmark", "platform", "batch", "here", "expected time", "measured")
RECIPES = ("benchmark", "recipe", "batch", "settings", "epochs to the target (runs)")
NO_SETTING = ("name", "global_batch", "reached", "by")
HERE = COLUMNS.index("here")
TIME = re.compile(r"Expected time:.*?((?:about )?[\d.]+(?: to [\d.]+)? (?:minutes|hours|s\b))")
MEASURED = re.compile(r"Measured by this project: (?!no\b|not\b)(its speed\b)?")


def register(app: typer.Typer) -> None:
    app.command()(configs)


def configs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Show the first comment of these: recipe, expectations, what was measured.", metavar="[NAME]..."
        ),
    ] = None,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes",
            help="Show instead the published recipes, of a global batch each, that optimizer.recipe may name.",
        ),
    ] = False,
) -> None:
    """The configurations there are, as a table that says which of them run here."""
    from harness import config_files
    from harness.execution.context import this_machine
    from harness.results import table

    if recipes and names:
        raise ValueError(
            f"{' '.join(names)} --recipes: the recipes are no configuration's; leave the name out, or --recipes"
        )
    if recipes:
        table.show_table(RECIPES, published_recipes(), right=("batch",))
        return
    if names:
        for name in names:
            typer.echo(f"{name}\n" + "\n".join(f"    {line}" for line in comment(config_files.find(name))))
        return
    found = this_machine().found
    rows, broken = [], []
    for name, path in config_files.available().items():
        try:
            rows.append(row(name, path, found))
        except config_files.ConfigError as error:
            broken.append(f"warning: {error}")
    table.show_table(COLUMNS, sorted(rows, key=lambda each: not each[HERE].startswith("yes")), right=("batch",))
    typer.echo("python -m harness configs NAME says where a recipe is from, and what is expected of it")
    for line in broken:
        typer.echo(line, err=True)


def published_recipes() -> Iterator[list[str]]:
    """Rows of every benchmark's recipes.toml: `name`, `global_batch`, `reached` (runs by epoch), `by`, and the settings."""
    import tomllib

    from harness.rules import data_files

    for path in data_files("recipes.toml"):
        for recipe in tomllib.loads(path.read_text(encoding="utf-8"))["recipe"]:
            settings = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in NO_SETTING)
            reached = ", ".join(f"{epoch} ({runs})" for epoch, runs in recipe["reached"].items())
            yield [path.parent.name, recipe["name"], str(recipe["global_batch"]), settings, reached]


def comment(path: Path) -> list[str]:
    """The lines of a file's first comment. ConfigError when it cannot be read."""
    from harness.config_files import read_text

    first = itertools.takewhile(lambda line: line.startswith("#"), read_text(path).splitlines())
    return [line.removeprefix("#").strip() for line in first]


def row(name: str, path: Path, found: Sequence[Accelerators]) -> list[str]:
    """A configuration as a line of the table: whether it runs on what was `found`, and what is known of it.

    ConfigError for a file that is none; what else is wrong with it, a run says.
    """
    from harness.config_files import ConfigError, malformed, read_toml, shown

    raw = read_toml(path)
    if (wrong := malformed(raw)) is not None:
        raise ConfigError(f"{shown(path)}: {wrong}")
    run = raw["run"]
    platform = str(raw["submission"].get("platform", ""))
    said = " ".join(comment(path))
    expected, measured = TIME.search(said), MEASURED.search(said)
    return [
        name,
        str(raw.get("benchmark", "")),
        platform,
        str(_each(raw) * run.get("nodes", 1) * run.get("accelerators_per_node", 1)) if _each(raw) else "",
        "; ".join(why_not(run, platform, found)) or "yes",
        expected[1] if expected else "",
        "no" if measured is None else "speed alone" if measured[1] else "yes",
    ]


def why_not(run: Mapping[str, Any], platform: str, found: Sequence[Accelerators]) -> Iterator[str]:
    """What this machine lacks of what [run] asks for; a remark where it has another model than the platform's."""
    device, nodes, wanted = run.get("device"), run.get("nodes", 1), run.get("accelerators_per_node", 1)
    if nodes > 1:
        yield f"no: {nodes} machines"
        return
    if device == "cpu":
        return
    there = [each for each in found if device in (each.device, "accelerator") and each.names]
    names = there[0].names if there else []
    if len(names) < wanted:
        yield f"no: {wanted} accelerator{'s' * (wanted > 1)}, here {len(names) or 'none'}"
    elif not there[0].verdict.runnable:
        yield f"no: {there[0].verdict.mode}"
    elif not any(same_accelerator(platform, each) for each in names):
        yield f"yes, on another model: {names[0]}"


def _each(raw: Mapping[str, Any]) -> int:
    """The batch of one accelerator, where the benchmark says it as the others do."""
    optimizer = raw.get("optimizer")
    batch = optimizer.get("batch_size", 0) if isinstance(optimizer, dict) else 0
    return batch if isinstance(batch, int) else 0
