"""The documentation: links lead somewhere, and a message in troubleshooting.md is one that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

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
