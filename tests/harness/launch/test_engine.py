"""Each way in which an engine refuses, and what the user is told. The answers are engines' own words."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from harness import holder
from harness.cli import main
from harness.contract import NotSuitable
from harness.execution.signals import Interrupted
from harness.exit_codes import NOT_SUITABLE
from harness.launch import away, engine, ledger
from harness.launch.container import ContainerLauncher, RunningContainer
from harness.launch.container_spec import ContainerSpec, EngineHost, Gpus
from harness.launch.probing import ProbeLauncher
from harness.launch.trial import Order
from harness.request import Request


def aborted(cause: OSError) -> Callable[[], Any]:
    """How the SDK fails when the socket does."""

    def make() -> Any:
        try:
            protocol = urllib3.exceptions.ProtocolError("Connection aborted.", cause)
            raise requests.exceptions.ConnectionError(protocol)
        except requests.exceptions.ConnectionError as error:
            raise DockerException(f"Error while fetching server API version: {error}") from error

    return make


def api_error(text: str, status: int = 500) -> APIError:
    response = requests.Response()
    response.status_code = status
    return APIError("500 Server Error", response=response, explanation=text)


def test_no_engine_for_real(tmp_path: Path) -> None:
    with pytest.raises(NotSuitable, match=r"no Docker engine answers.*\n.*systemctl start docker") as caught:
        engine.connect(lambda: docker.DockerClient(base_url=f"unix://{tmp_path}/docker.sock"))
    assert "without --image" in str(caught.value)


def test_a_variable_chooses_no_devices_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CUDA_VISIBLE_DEVICES=3 was somebody else's GPU 0."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    (tmp_path / "data/x").mkdir(parents=True)
    words = ["--image", "x", "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    word = "CUDA_VISIBLE_DEVICES=3 chooses no devices of a container, which is given the machine's first"
    for configuration, more, said in (
        ("H100_1x1x256", [], True),
        ("H100_1x1x256", ["--gpus", "3"], False),
        ("embedded", [], False),
    ):
        assert main(["run", configuration, *words, *more]) == NOT_SUITABLE
        assert (f"warning: {word}; --gpus chooses others" in capsys.readouterr().out) == said
    assert main(["probe", "H100_1x1x256", "--image", "x", "--out", str(tmp_path / "probe")]) == NOT_SUITABLE
    told = capsys.readouterr()
    assert word in told.out + told.err


@pytest.mark.parametrize(
    "cause", [FileNotFoundError(2, "No such file or directory"), ConnectionRefusedError(111, "refused")]
)
def test_no_engine(cause: OSError) -> None:
    with pytest.raises(NotSuitable, match="no Docker engine answers"):
        engine.connect(aborted(cause))


def test_the_engine_that_the_docker_command_uses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rootless engine's set-up makes a context of its own; root's engine was named, and how to start that."""
    described = tmp_path / "contexts/meta" / hashlib.sha256(b"rootless").hexdigest() / "meta.json"
    described.parent.mkdir(parents=True)
    socket = "unix:///run/user/4711/docker.sock"
    described.write_text(json.dumps({"Name": "rootless", "Metadata": {}, "Endpoints": {"docker": {"Host": socket}}}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(NotSuitable, match=rf"no Docker engine answers \({socket}\).*\n +systemctl --user start docker"):
        engine.connect()
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    with pytest.raises(NotSuitable, match=r"\(unix:///elsewhere.sock\).*\n +sudo systemctl start docker"):
        engine.connect()


def test_certificates_that_are_not_there_are_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(
        NotSuitable, match=r"DOCKER_TLS_VERIFY or DOCKER_CERT_PATH.* asks for certificates: .*unset them"
    ):
        engine.connect()


@pytest.mark.parametrize("content", ["{broken", "{}", "[]", '{"Name": "one"}'])
def test_a_context_that_cannot_be_read_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Nor is it looked at where DOCKER_HOST names the engine."""
    folder = tmp_path / "contexts/meta" / hashlib.sha256(b"one").hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(content)
    (tmp_path / "config.json").write_text('{"currentContext": "one"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(NotSuitable, match="context cannot be read"):
        engine.address()
    monkeypatch.setenv("DOCKER_HOST", "unix:///some.sock")
    assert engine.address().endswith("/some.sock")


def test_no_permission_on_the_socket() -> None:
    with pytest.raises(NotSuitable, match=r"may not use the Docker engine .*permission denied.*\n.*usermod -aG docker"):
        engine.connect(aborted(PermissionError(13, "Permission denied")))


def test_an_engine_on_another_machine() -> None:
    client = SimpleNamespace(ping=lambda: True, api=SimpleNamespace(base_url="http://10.0.0.7:2375"))
    with pytest.raises(NotSuitable, match=r"on another machine \(http://10\.0\.0\.7:2375\)"):
        engine.connect(lambda: client)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "install the NVIDIA Container Toolkit"),
        (
            "failed to create task: OCI runtime create failed: nvidia-container-cli: requirement error: unsatisfied "
            "condition: cuda>=13.0, please update your driver to a newer version",
            "driver is older than this image asks for",
        ),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7", "there are fewer than asked for"),
        ("nvidia-container-cli: device error: 7: unknown device", "`nvidia-smi -L` lists them"),
        ("nvidia-container-cli: initialization error: nvml error: driver/library version mismatch", "reboot"),
        ("write /var/lib/docker/tmp: no space left on device", "docker system df"),
        ("error setting rlimit type 8: operation not permitted", "may not lift limits"),
        (
            "invalid mount config for type bind: bind source path does not exist: /raid",
            "does not see this machine's folders",
        ),
        ("something new", "starting: the engine refuses: something new"),
    ],
)
def test_an_answer_of_the_engine_comes_with_what_to_do(answer: str, advice: str) -> None:
    with pytest.raises(NotSuitable) as caught, engine.explained("starting"):
        raise api_error(answer)
    assert advice in str(caught.value)
    assert answer in str(caught.value), "the engine's own words are never hidden"


def client_with_images(*tags: str) -> Any:
    def get(name: str) -> Any:
        if name == "::":
            raise api_error("invalid reference format", 400)
        if name not in tags:
            raise ImageNotFound("404")
        return SimpleNamespace(id="sha256:1")

    images = SimpleNamespace(get=get, list=lambda: [SimpleNamespace(tags=[tag]) for tag in tags])
    return SimpleNamespace(images=images)


def test_an_image_that_is_not_there_is_never_fetched_behind_the_users_back() -> None:
    client = client_with_images("ssd:latest", "debian:12")
    assert engine.image(client, "ssd:latest").id == "sha256:1"
    with pytest.raises(ValueError, match=r"no image sdd:latest on this machine; did you mean ssd:latest\?") as caught:
        engine.image(client, "sdd:latest")
    assert "docker build -t sdd:latest ." in str(caught.value)
    assert "here are: debian:12, ssd:latest" in str(caught.value)
    with pytest.raises(ValueError, match="not the name of an image"):
        engine.image(client, "::")


class Fake:
    """A container as the SDK hands it out."""

    def __init__(self, name: str, folder: Path, refuse: Exception | None = None) -> None:
        self.name, self.labels, self.status = name, {engine.FOLDER: str(folder)}, "running"
        self.removed, self._refuse = False, refuse

    def remove(self, *, force: bool, v: bool) -> None:
        if self._refuse is not None:
            raise self._refuse
        self.removed = True


def test_only_containers_of_series_that_are_gone_are_removed(tmp_path: Path) -> None:
    living, gone = tmp_path / "living", tmp_path / "gone"
    living.mkdir()
    gone.mkdir()
    (gone / ledger.FILE).touch()
    of_living, of_gone, of_nowhere = Fake("a", living), Fake("b", gone), Fake("c", tmp_path / "no" / "such")
    already = Fake("d", gone, refuse=NotFound("404"))
    everything = [of_living, of_gone, of_nowhere, already]

    def listed(**how: Any) -> list[Fake]:
        assert how["filters"] == {"label": f"harness.host={platform.node()}"}
        return everything

    client = SimpleNamespace(containers=SimpleNamespace(list=listed))
    with ledger.opened(living):
        removed = engine.remove_leftovers(client)  # type: ignore[arg-type]
    assert removed == [f"b (of {gone})", f"c (of {tmp_path / 'no' / 'such'})", f"d (of {gone})"]
    assert [each.removed for each in everything] == [False, True, True, False]


def test_a_probe_s_container_is_left_alone_while_its_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no ledger: any series or probe that began beside it removed it."""
    launcher = object.__new__(ProbeLauncher)
    launcher.series = "s"

    def waited_for_by(process: int) -> Fake:
        with monkeypatch.context() as there:
            there.setattr(holder.os, "getpid", lambda: process)
            made = Fake("probe", tmp_path)
            made.labels = launcher.labels(Order(0, tmp_path, None, caches_cleared=False))
        return made

    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine, others = waited_for_by(os.getpid()), waited_for_by(other.pid)
    client: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: [mine, others]))
    assert engine.remove_leftovers(client) == []
    other.communicate()
    assert engine.remove_leftovers(client) == [f"probe (of {tmp_path})"]
    assert (mine.removed, others.removed) == (False, True)
    assert not holder.lives(f"{os.getpid()} another boot's 7"), "its number was given again"


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(NotSuitable, match="user 4000000000 may not use the Docker engine") as refused:
        engine.connect(aborted(PermissionError(13, "Permission denied")))
    assert "usermod" not in str(refused.value)


def launcher_of(containers: Any, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]) -> ContainerLauncher:
    monkeypatch.setattr(ContainerLauncher, "spec", lambda *_: ContainerSpec("ssd", ("x",), {}, (), "1000:1000"))
    return ContainerLauncher(
        cast(Any, SimpleNamespace(version=dict, containers=containers)),
        *(cast(Any, SimpleNamespace(id="sha256:1", attrs={})), "ssd", EngineHost({}, 1000, 1000, ()), Request()),
        *(Gpus(), "s", "toy", cast(Any, SimpleNamespace(watch_containers=lambda *_: None)), say),
    )


TOO_LATE = requests.exceptions.ReadTimeout("Read timed out. (read timeout=60)")
BUSY = api_error("container x: driver failed to remove root filesystem: device or resource busy")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """One that stands still until a test sets it."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(away, "time", SimpleNamespace(monotonic=lambda: found.now, sleep=lambda _: None))
    return found


@pytest.mark.parametrize(
    ("lost", "after_s"), [(requests.exceptions.ConnectionError("the engine went away"), 0), (TOO_LATE, 61)]
)
def test_an_engine_without_an_answer_between_two_trials_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, lost: Exception, after_s: float
) -> None:
    """An update restarts it in seconds, a build keeps it busy for longer than the SDK waits, and both ended a series of hours.
    Whose answer was lost, a container may be there."""
    done: list[str] = []

    class Containers:
        def create(self, **_: object) -> Any:
            if not done:
                done.append("lost")
                clock.now += after_s
                raise lost
            done.append("created")
            return SimpleNamespace(attach=lambda **_: iter(()), start=lambda: done.append("started"), id="1", name="x")

        def list(self, **asked: Any) -> list[Any]:
            assert asked["filters"] == {"label": f"{engine.SERIES}=s"}
            done.append("looked for what is there")
            return []

    said: list[str] = []
    launcher_of(Containers(), monkeypatch, said.append).start(Order(3, tmp_path, None, caches_cleared=False))
    assert done == ["lost", "looked for what is there", "created", "started"]
    assert len(said) == 2 and said[0].startswith("trial 3: waiting, 60 s at most: no Docker engine answers"), said


def test_a_removal_that_takes_too_long_costs_no_trial_its_end(clock: SimpleNamespace) -> None:
    """The SDK's ReadTimeout left the trial before its last line was in the ledger: a whole result was run again."""
    answers = iter((TOO_LATE, api_error("removal of container x is already in progress", 409)))

    def remove(**_: object) -> None:
        clock.now += 61
        raise next(answers)

    RunningContainer(cast(Any, SimpleNamespace(name="x", remove=remove)), iter(()), "", {}).close()
    assert next(answers, None) is None, "it was asked again"


def test_a_container_that_the_engine_will_not_remove_costs_no_trial_its_end(clock: SimpleNamespace) -> None:
    def remove(**_: object) -> None:
        raise BUSY

    said: list[str] = []
    made = cast(Any, SimpleNamespace(name="x", remove=remove))
    RunningContainer(made, iter(()), "", {}, said.append).close()
    assert (
        len(said) == 1 and said[0].startswith("the container x may be left until the series ends") and "busy" in said[0]
    )


@pytest.mark.parametrize("refusal", [TOO_LATE, BUSY], ids=["away", "busy"])
def test_an_interruption_whose_container_cannot_be_removed_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, refusal: Exception
) -> None:
    """It was taken for an engine that is away, and the trial started again; later signals are ignored."""

    interruptions = iter((Interrupted(signal.SIGINT),))

    def start() -> None:
        if (interruption := next(interruptions, None)) is not None:
            raise interruption

    def remove(**_: object) -> None:
        raise refusal

    said: list[str] = []
    made = SimpleNamespace(attach=lambda **_: iter(()), start=start, remove=remove, name="x")
    launcher = launcher_of(SimpleNamespace(create=lambda **_: made, list=lambda **_: []), monkeypatch, said.append)
    with pytest.raises(Interrupted):
        launcher.start(Order(3, tmp_path, None, caches_cleared=False))
    assert len(said) == 1 and said[0].startswith("trial 3: the container x may be left until the series ends"), said


def test_an_engine_that_is_too_busy_to_be_met_is_no_traceback() -> None:
    def ping() -> None:
        raise TOO_LATE

    with pytest.raises(engine.EngineAway):
        engine.connect(lambda: cast(Any, SimpleNamespace(ping=ping)))
