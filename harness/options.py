"""A dataclass as the options of a verb: each field once, with its variable of the environment, both ways.

A field's annotation holds typer's option or argument, and whatever else its reader wants to know of it (`Field.note`). `verb`
makes a command line of the fields; `argv` and `environment` say a filled-in one again. This knows of no option in particular.
`refuse_empty_paths` is for every verb, of a dataclass or not.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

from typer import BadParameter, Context
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "HARNESS_"  # of the variable of an option that names none

Asked = TypeVar("Asked", bound="DataclassInstance")
Note = TypeVar("Note")


@dataclass(frozen=True)
class Field:
    """One field of the dataclass."""

    name: str
    annotation: Any  # for typer
    default: Any
    info: ArgumentInfo | OptionInfo
    notes: tuple[object, ...]  # what else its annotation holds

    @property
    def positional(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def variable(self) -> str:
        """Of the environment."""
        return str(self.info.envvar)

    def note(self, kind: type[Note]) -> Note | None:
        """What the annotation holds of this kind, if anything."""
        return next((each for each in self.notes if isinstance(each, kind)), None)

    def spelt(self, value: Any) -> str:
        """As on a command line."""
        return f"--{'no-' if value is False else ''}{self.name.replace('_', '-')}"


@cache
def fields(kind: type[DataclassInstance]) -> tuple[Field, ...]:
    """Of a dataclass, in order."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        value, info, *notes = get_args(hints[field.name])
        if info.envvar is None:
            info.envvar, info.show_envvar = PREFIX + field.name.upper(), False
        found.append(Field(field.name, Annotated[value, info], field.default, info, tuple(notes)))
    return tuple(found)


def given(asked: DataclassInstance) -> Iterator[tuple[Field, Any]]:
    """The fields that are not as they are by default, with their values."""
    for field in fields(type(asked)):
        value = getattr(asked, field.name)
        if value != field.default:
            yield field, value


def argv(asked: DataclassInstance) -> list[str]:
    """The words of a command line that ask for the same."""
    words: list[str] = []
    for field, value in given(asked):
        if not field.positional:
            words.append(field.spelt(value))
        if not isinstance(value, bool):
            words.append(_said(value))
    return words


def environment(asked: DataclassInstance) -> dict[str, str]:
    """The variables that ask for the same."""
    return {field.variable: _said(value) for field, value in given(asked)}


def verb(kind: type[Asked], handle: Callable[[Asked, frozenset[str]], None]) -> Callable[..., None]:
    """A function for typer whose options are the fields. `handle` is given the names of those on the command line too."""

    def run(context: Context, **values: Any) -> None:
        sources = {name: context.get_parameter_source(name) for name in values}
        named = frozenset(
            name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"
        )
        handle(kind(**values), named)

    annotations = {"context": Context, **{field.name: field.annotation for field in fields(kind)}}
    defaults = {field.name: field.default for field in fields(kind)}
    run.__name__, run.__doc__, run.__annotations__ = handle.__name__, handle.__doc__, annotations
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, inspect.Parameter.empty),
                annotation=annotation,
            )
            for name, annotation in annotations.items()
        ]
    )
    return run


def path(word: str) -> Path:
    """Of a word on a command line. BadParameter for none: `Path("")` is the current folder, and nobody meant that.

    And for one within a folder that is no more.
    """
    if not word:
        raise BadParameter(
            "an empty path, as of a variable that is not set; name one, . for this folder, or leave it out"
        )
    if not Path(word).is_absolute():
        try:
            Path.cwd()
        except FileNotFoundError as error:
            raise BadParameter("the folder that this was called in has been deleted; cd to another one") from error
    return Path(word)


def refuse_empty_paths(verbs: Iterable[Callable[..., None]]) -> None:
    """Each option and argument of these functions that takes a path, or several, takes no empty one any more."""
    for each in verbs:
        each.__annotations__ = hints = get_type_hints(each, include_extras=True)
        for hint in hints.values():
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, ParameterInfo) and Path in _parts(hint):
                    info.parser, info.metavar = path, info.metavar or "<path>"


def _parts(hint: Any) -> Iterator[Any]:
    """The types that a type is made of, itself too: of list[Path] | None, Path among them."""
    yield hint
    for each in get_args(hint):
        yield from _parts(each)


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(int(value)) if isinstance(value, bool) else str(value)
