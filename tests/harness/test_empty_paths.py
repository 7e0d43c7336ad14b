"""An empty path, as of a shell's variable that is not set, is refused by every verb; Path("") would be the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from harness import cli

NAMES = ("configuration", "baseline", "source", "model")  # words that a verb looks up by itself, paths among them
NEEDED = {"doctor": ("--data-dir", ".")}  # before a verb looks at such a word


def paths() -> list[tuple[str, ...]]:
    """A command line for each parameter of each verb that takes a path, with that empty."""
    return [
        (*words, *NEEDED.get(words[0], ()), *_empty(command, parameter))
        for words, command in _commands((), typer.main.get_command(cli.build()))
        for parameter in command.params
        if any(Path in _within(each) for name, each in _hints(command).items() if name == parameter.name)
        or parameter.name in NAMES
    ]


def _commands(words: tuple[str, ...], command: Any) -> list[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(words, command)]
    return [found for name, each in inner.items() for found in _commands((*words, name), each)]


def _hints(command: Any) -> dict[str, Any]:
    function = command.callback
    return get_type_hints(getattr(function, "__wrapped__", function), include_extras=True)


def _within(hint: Any) -> set[Any]:
    return {hint}.union(*map(_within, get_args(hint)))


def _empty(command: Any, parameter: Any) -> list[str]:
    if parameter.param_type_name == "option":
        return [parameter.opts[0], ""]
    before = [each for each in command.params if each.param_type_name == "argument"]
    count = before.index(parameter)
    needed = sum(each.required for each in before[count + 1 :])
    options = [word for each in command.params if each.param_type_name == "option" and each.required
               for word in (each.opts[0], "x")]  # fmt: skip
    return ["."] * count + [""] + ["."] * needed + options


def test_all_kinds_are_among_them() -> None:
    found = paths()
    assert len(found) > 40
    for words in (("run", "--out", ""), ("status", ""), ("compare", "run", ""), ("history", "--from", ""), ("run", ""),
                  ("inference", "")):  # fmt: skip
        assert words in found


@pytest.mark.parametrize("words", paths(), ids=lambda words: " ".join(word or "''" for word in words))
def test_an_empty_path(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert "empty" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
