"""What a series asks an image before its trials, and what it leaves in an engine however it is ended; by a stand-in for one."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import config, holder
from harness.launch import engine
from harness.launch.reaper import Reaper
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.harness.launch.engine_stand_in import Engine, serving
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy


class Contexts:
    """The docker command's, of which each has an engine."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self._open = folder, ExitStack()
        self.engines: dict[str, Engine] = {}
        for name in names:
            socket = folder / f"{name}.sock"
            self.engines[name] = self._open.enter_context(serving(socket))
            described = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
            described.parent.mkdir(parents=True)
            host = {"docker": {"Host": f"unix://{socket}"}}
            described.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": host}))
        self.use(names[0])

    def use(self, name: str) -> None:
        (self.folder / "config.json").write_text(json.dumps({"currentContext": name}))

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contexts]:
    made = Contexts(tmp_path, "one", "two")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    yield made
    made.close()


def test_containers_are_removed_where_they_are_whatever_the_current_context_is_by_now(contexts: Contexts) -> None:
    """`docker context use` in another shell: the engine of that one was asked alone, and the trial held its GPUs."""
    labels = {engine.SERIES: "s"}
    for each in contexts.engines.values():
        each.create("trial", {"Labels": labels})
    with Reaper() as reaper:
        reaper.watch_containers(f"{engine.SERIES}=s", engine.address())
        contexts.use("two")
    assert [len(each.containers) for each in contexts.engines.values()] == [0, 1]


def words(folder: Path) -> list[object]:
    more = [
        "--image",
        "ssd",
        "--trials",
        "1",
        "--no-clear-caches",
        "--out",
        folder / "out",
        "--cache-dir",
        folder / "cache",
    ]
    return [toy.write(folder, toy.raw()), *more]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_the_container_that_an_image_is_asked_in_ends_with_its_series(
    contexts: Contexts, tmp_path: Path, number: signal.Signals
) -> None:
    """It had no labels, and nobody knew it for what it was: it stayed for ever."""
    one = contexts.engines["one"]
    one.ends.clear()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", *map(str, words(tmp_path))],
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CHECKOUT,
    )
    runs.until(
        lambda: [each for each in one.containers.values() if each["State"]["Status"] == "running"], "the container"
    )
    (asked,) = one.made
    assert holder.lives(asked["Labels"][engine.PROCESS]), "a series that begins meanwhile leaves it alone"
    contexts.use("two")
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_S)
    runs.until(lambda: not one.containers, lambda: f"the end of the container: {said}")


def test_what_an_entry_point_prints_is_no_answer_of_the_image(contexts: Contexts, tmp_path: Path) -> None:
    """NVIDIA's print a banner before the command: those images were "of other code"."""
    one = contexts.engines["one"]
    asked = words(tmp_path)
    banner = "\n=============\n== PyTorch ==\n=============\n\nNVIDIA Release 25.01\n\n"
    sha256 = config.load(Path(str(asked[0]))).sha256
    one.prints = f"{banner}{sha256}\n".encode()
    done = runs.run(*asked)
    assert "each trial is started as by" in done.stdout, done.stdout + done.stderr
    one.prints = f"{banner}{'0' * 64}\n".encode()
    done = runs.run(*asked, "--resume")
    assert done.returncode == 2
    assert "image ssd is of other code: it reads toy.toml as configuration 000000000000, which is" in done.stderr
    assert not one.containers
