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


def silences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and number of each silence that a watchdog is told: a trial that has to begin, or to end well, within it."""
    for each in ast.walk(tree):
        if not isinstance(each, ast.Call):
            continue
        said = [keyword.value for keyword in each.keywords if keyword.arg == "patience_s"]
        words = [word.value if isinstance(word, ast.Constant) else None for word in each.args]
        if getattr(each.func, "attr", "") in ("run", "start", "begin") and "--watchdog" in words:
            said += each.args[words.index("--watchdog") + 1 :][:1]
        for number in said:
            if isinstance(number, ast.Constant):
                yield number.lineno, str(number.value)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    """Of every file of the tests but a tool, by its path."""
    found = {str(path): ast.parse(path.read_text()) for path in sorted((CHECKOUT / "tests").rglob("*.py"))}
    del found[str(CHECKOUT / "tests/make_test_data.py")]
    assert len(found) > 200
    return found


def test_what_must_come_is_waited_for_as_long_as_anywhere(trees: dict[str, ast.AST]) -> None:
    found = [
        f"{path}:{line}: {seconds} s where tests.patience.PATIENCE_S is due"
        for path, tree in trees.items()
        for line, seconds in limits(tree)
        if SHORT_S < seconds < PATIENCE_S
    ]
    assert found == []


def test_no_watchdog_is_told_a_silence_that_a_busy_machine_has_anyway(trees: dict[str, ast.AST]) -> None:
    found = [
        f"{path}:{line}: {number} s where tests.patience has a SILENCE"
        for path, tree in trees.items()
        for line, number in silences(tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code", ["lab.run('--watchdog', '2')", "place.start('--watchdog', 1)", "fakes.run(2, patience_s=1.0)"]
)
def test_a_silence_of_its_own_is_found(code: str) -> None:
    assert [line for line, _ in silences(ast.parse(code))] == [1]


def test_a_silence_of_the_tests_is_not() -> None:
    code = "lab.run('--watchdog', SILENCE_S), fakes.run(2, patience_s=SILENCE_S), words('--watchdog', '2')"
    assert not [*silences(ast.parse(code))]


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
