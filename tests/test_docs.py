"""The documentation: links lead somewhere, and a message in troubleshooting.md is one that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from harness.cli import build
from tests.conftest import CHECKOUT

PAGES = [
    *CHECKOUT.glob("*.md"),
    *CHECKOUT.glob("docs/*.md"),
    *CHECKOUT.glob("results/*.md"),
    *CHECKOUT.glob("requirements/*.md"),
]
TROUBLE = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
GAP = "…"


def texts(source: str) -> Iterator[str]:
    """All text constants of a module, GAP in the place of what is put in when it runs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def said() -> str:
    """Everything that the code may say, a line for each text."""
    python = [
        text
        for room in ("harness", "benchmarks")
        for path in (CHECKOUT / room).rglob("*.py")
        for text in texts(path.read_text())
    ]
    shell = [path.read_text() for path in (*CHECKOUT.glob("*.sh"), *CHECKOUT.glob("requirements/*.sh"))]
    return "\n".join(re.sub(r"\s+", " ", text) for text in (*python, *shell))


@pytest.mark.parametrize("message", re.findall(r"^### `(.+)`$", TROUBLE, re.MULTILINE))
def test_the_message_is_one_of_the_code_s(message: str) -> None:
    assert message in said()


def test_every_heading_of_a_message_was_found() -> None:
    assert TROUBLE.count("\n### ") == len(re.findall(r"^### `(.+)`$", TROUBLE, re.MULTILINE)) >= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_that_are_named_are_there() -> None:
    """In the guides of docs/: a path with a folder of the project's, in backticks."""
    for page in CHECKOUT.glob("docs/*.md"):
        for name in re.findall(r"`((?:harness|benchmarks|configs|tests|results)/[\w./-]+)`", page.read_text()):
            assert (CHECKOUT / name).exists(), f"{page.name} names {name}"


def written() -> list[tuple[str, list[str]]]:
    """Each command of the tool that a page shows, with the page: in a block, or in backticks."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        spans = [
            *re.findall(r"`([^`\n]+)`", text),
            *re.findall(r"^(?:    |\$ )?((?:\S*python|harness) .+)$", text, re.MULTILINE),
        ]
        for span in spans:
            match = re.match(r"(?:(?:\S*/)?python3? -m )?harness ((?:compare )?[a-z]+.*)", span.strip())
            if match is not None:
                found.append((page.name, match[1].split()))
    return found


def test_every_verb_and_option_of_a_written_command_exists() -> None:
    known = verbs((), get_command(build()))
    commands = written()
    assert len(commands) > 40
    for page, words in commands:
        name = next((n for n in (tuple(words[:2]), tuple(words[:1])) if n in known), None)
        if name is None and words[0] == "compare":
            name = ("compare", "results")
        assert name is not None, f"{page}: harness {' '.join(words)}: there is no such verb"
        for word in words:
            option = re.match(r"\[?(--[a-z][a-z-]*)", word)
            assert option is None or option[1] in known[name], (
                f"{page}: harness {' '.join(words)}: no option {option[1]}"
            )


def test_every_option_says_what_it_is() -> None:
    """One had its default alone, another "Of the cluster"."""
    for name, command in each_verb((), get_command(build())):
        for option in command.params:
            said = re.sub(r"\[.*?\]", "", getattr(option, "help", None) or "").strip()
            assert said and not said.startswith("Of "), f"{' '.join(name)}: {option.name}: {said!r}"


def each_verb(name: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, each in (inner or {}).items():
        yield from each_verb((*name, word), each)


def verbs(name: tuple[str, ...], command: Any) -> dict[tuple[str, ...], set[str]]:
    """The options of each verb, by its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {name: {"--help", *(word for each in command.params for word in (*each.opts, *each.secondary_opts))}}
    return {key: found for word, each in inner.items() for key, found in verbs((*name, word), each).items()}
