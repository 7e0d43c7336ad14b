"""That no test gives up on what must come before a busy machine has brought it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S

SHORT_S = 2  # for what must not come


def limits(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Line and seconds of each wait with a number of its own."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            waits = isinstance(call.func, ast.Attribute) and call.func.attr in {"wait", "join"}
            said = [each.value for each in call.keywords if each.arg == "timeout"] + call.args[: 1 if waits else 0]
            for each in said:
                if isinstance(each, ast.Constant) and isinstance(each.value, int | float):
                    yield call.lineno, each.value


def test_what_must_come_is_waited_for_as_long_as_anywhere() -> None:
    tests = sorted((CHECKOUT / "tests").rglob("test_*.py"))
    found = [
        f"{path.name}:{line}: {seconds} s where tests.patience.PATIENCE_S is due"
        for path in tests
        for line, seconds in limits(ast.parse(path.read_text()))
        if SHORT_S < seconds < PATIENCE_S
    ]
    assert len(tests) > 150 and found == []


def test_a_limit_of_its_own_is_found() -> None:
    assert [*limits(ast.parse("process.wait(30)\nrun(a, timeout=1.5)\n', '.join('abc')\nqueue.join()"))] == [
        (1, 30),
        (2, 1.5),
    ]
