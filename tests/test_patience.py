"""That no test gives up on what must come before a busy machine has brought it: no wait has a number of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S

SHORT_S = 2  # for what must not come
PLACES = {
    "wait": 0,
    "join": 0,
    "communicate": 1,
    "wait_procs": 1,
    "until": 2,
}  # of the seconds among a call's arguments


def limits(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Line and seconds of each wait, and of each moment that is so far ahead."""
    for each in ast.walk(tree):
        said: list[ast.expr] = []
        if isinstance(each, ast.Call):
            name = each.func.attr if isinstance(each.func, ast.Attribute) else getattr(each.func, "id", "")
            said = [keyword.value for keyword in each.keywords if keyword.arg == "timeout"]
            said += each.args[PLACES[name] :][:1] if name in PLACES else []
        elif isinstance(each, ast.BinOp) and "monotonic()" in ast.unparse(each.left):
            said = [each.right]
        for seconds in said:
            if isinstance(seconds, ast.Constant) and isinstance(seconds.value, int | float):
                yield seconds.lineno, seconds.value


def test_what_must_come_is_waited_for_as_long_as_anywhere() -> None:
    files = [path for path in sorted((CHECKOUT / "tests").rglob("*.py")) if path.name != "make_test_data.py"]  # a tool
    found = [
        f"{path.name}:{line}: {seconds} s where tests.patience.PATIENCE_S is due"
        for path in files
        for line, seconds in limits(ast.parse(path.read_text()))
        if SHORT_S < seconds < PATIENCE_S
    ]
    assert len(files) > 200 and found == []


@pytest.mark.parametrize(
    "code",
    [
        *("process.wait(30)", "thread.join(30.0)", "process.communicate(None, 30)", "run(words, timeout=30)"),
        *("until(there, 'a log', 30)", "runs.until(there, 'a log', 30)", "deadline = time.monotonic() + 30"),
        "psutil.wait_procs(them, 30)",
    ],
)
def test_a_limit_of_its_own_is_found(code: str) -> None:
    assert [seconds for _, seconds in limits(ast.parse(code))] == [30]


@pytest.mark.parametrize(
    "code", ["', '.join(['abc'])", "queue.join()", "process.wait(PATIENCE_S)", "until(there, 'a log')"]
)
def test_others_are_not(code: str) -> None:
    assert not [*limits(ast.parse(code))]
