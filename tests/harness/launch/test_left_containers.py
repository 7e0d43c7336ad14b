"""What is left in an engine by a series that was ended in any way, by a stand-in for the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.launch import engine
from harness.launch.reaper import Reaper
from tests.harness.launch.engine_stand_in import Engine, serving


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
