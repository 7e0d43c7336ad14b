"""Starting runs as a user does, in their own process, and reading what their logs say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlperf_logging.compliance_checker import mlp_compliance

from tests.conftest import CHECKOUT
from tests.forking import FORKING
from tests.patience import PATIENCE_S

KNOWN = '"key": "submission_benchmark", "value": "ssd"'


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "harness", "run", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    ours = ("RANK", "DGXSYSTEM", "DATADIR", "LOGDIR", "SEED")
    return {key: value for key, value in os.environ.items() if key not in ours} | more


def run(*arguments: object, first: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return harness("run", *arguments, first=first, **more)


def harness(*arguments: object, first: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """What a verb ends with."""
    with begun(*arguments, first=first, **more) as process:
        code = process.wait(None)
        return subprocess.CompletedProcess(process.words, code, process.said("out"), process.said("errors"))


class Begun:
    """A process of the harness, for tests that do something to it meanwhile."""

    def __init__(self, words: list[str], variables: dict[str, str], folder: Path, first: str) -> None:
        self.words, self._folder = words, folder
        self._process = FORKING.Process(target=_harness, args=(words, variables, str(folder), first))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = PATIENCE_S) -> int:
        """Without a limit here, pytest's own of the test ends it."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"harness {' '.join(self.words)} goes on and on"
        return self._process.exitcode

    def said(self, *names: str) -> str:
        """What it has written by now to "out" and "errors"."""
        return "".join(path.read_text() for name in names if (path := self._folder / name).is_file())


@contextmanager
def begun(*arguments: object, first: str = "", **more: str) -> Iterator[Begun]:
    """`first` is Python that its process runs before the verb."""
    with tempfile.TemporaryDirectory() as folder:
        process = Begun([*map(str, arguments)], environment(**more), Path(folder), first)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _harness(words: list[str], variables: dict[str, str], folder: str, first: str) -> None:
    """`python -m harness WORDS` in this process after `first`, its output in the files `out` and `errors` of a folder."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(CHECKOUT)
    for descriptor, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), descriptor)
    from harness.cli import main
    from harness.execution import console

    console.EVERY_S = float(os.environ.pop("EVERY_S", console.EVERY_S))
    exec(first, {})
    sys.exit(main(words))


def events(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines()
    found = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    assert sum("MLLOG" in line for line in lines) == len(found), "an event must stand at the beginning of its line"
    return found


def stop(path: Path) -> dict[str, Any]:
    """The metadata of the one run_stop, which must be there on every way out."""
    (found,) = [event["metadata"] for event in events(path) if event["key"] == "run_stop"]
    return dict(found)


def complies(path: Path, ruleset: str = "0.7.0") -> bool:
    """MLPerf's checker on a copy under a keyword that it knows: the order and form of the events are the harness's."""
    known = path.with_name(f"known_{path.name}")
    known.write_text(path.read_text().replace('"key": "submission_benchmark", "value": "toy"', KNOWN))
    assert KNOWN in known.read_text()
    checker = mlp_compliance.make_checker("training", ruleset, quiet=True, werror=True)
    passed, *_ = mlp_compliance.main(str(known), f"training_{ruleset}/common.yaml", checker)
    return bool(passed)


def wait_for(path: Path, text: str) -> None:
    def there() -> str:
        return path.read_text() if path.is_file() else "no log"

    until(lambda: text in there(), lambda: f"{text}; there is {there()}")


def until(true: Callable[[], object], what: str | Callable[[], str], seconds: float = PATIENCE_S) -> None:
    """Wait for it. `what` is said where it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.1)
