"""Trials in true containers of a true engine. HARNESS_TEST_IMAGE names an image to build on: the project's own, or any with
`python`; the run inside is fake_run.py, so that each test decides how a trial ends.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

from harness import config
from harness.launch import container, engine, ledger, stacks, watchdog
from harness.launch.container_spec import ContainerSpec, EngineHost, spec_of
from harness.launch.trial import Order
from harness.request import Request
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import until
from tests.harness.launch.series import FAKE
from tests.patience import PATIENCE_S, SILENCE_OF_A_FAKE_S
from tests.toy import configuration as toy

pytestmark = [pytest.mark.docker, pytest.mark.long]


# Stands for the image's own reading of a configuration, which Place.tell writes into its last line
FAKE_CONFIG = """
class load:
    def __init__(self, path, target):
        self.sha256 = path.read_text().splitlines()[-1].removeprefix("# ")
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    try:
        found = docker.from_env(timeout=int(PATIENCE_S))
        found.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def image(client: Any) -> Iterator[str]:
    """The image with the fake run in the harness's place."""
    base = os.environ.get("HARNESS_TEST_IMAGE")
    if not base:
        pytest.skip("HARNESS_TEST_IMAGE names no image to test with")
    files = {
        "Dockerfile": f"FROM {base}\nCOPY --chmod=0755 harness /fake/harness\nENV PYTHONPATH=/fake\nWORKDIR /fake\n".encode(),
        "harness/__init__.py": b"",
        "harness/__main__.py": FAKE.read_bytes(),
        "harness/config.py": FAKE_CONFIG.encode(),
        "harness/launch/__init__.py": b"",
        "harness/launch/stacks.py": Path(stacks.__file__).read_bytes(),
    }
    files["Dockerfile"] = files["Dockerfile"].replace(b" --chmod=0755", b"")  # that is BuildKit's
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    name = f"harness-test-fake-run-{os.getpid()}:latest"
    client.images.build(fileobj=context, custom_context=True, tag=name, rm=True, network_mode="none")
    yield name
    client.images.remove(name, force=True)


@dataclass
class Place:
    """Where one test runs its series: as a user would, by the command line's function in a process of its own."""

    root: Path
    image: str

    @property
    def folder(self) -> Path:
        return self.root / "out" / "1x_abacus" / "toy"

    def tell(self, **do: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = toy.write(self.root, toy.raw(), "a toy")
        sha256 = config.load(path).sha256
        path.write_text(f"{path.read_text()}# {sha256}\n")
        orders = {"sha256": sha256, "do": {name.strip("_"): what for name, what in do.items()}}
        (self.folder / "fake.json").write_text(json.dumps(orders))

    def start(self, *options: str, trials: int = 2, image: str | None = None) -> Any:
        command = [
            *(sys.executable, "-m", "harness", "run", str(self.root / "a toy.toml"), "--image", image or self.image),
            *("--trials", str(trials), "--out", str(self.root / "out"), *options),
        ]
        environment = {**os.environ, "CLEAR_CACHES": "0"}  # the machine may be shared
        with (self.root / "said").open("w") as said:
            return subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=said, stderr=subprocess.STDOUT)

    def run(self, *options: str, **more: Any) -> int:
        return int(self.start(*options, **more).wait(timeout=PATIENCE_S))

    @property
    def said(self) -> str:
        return (self.root / "said").read_text()

    @property
    def statuses(self) -> list[tuple[int, int, str]]:
        account = ledger.Account.read(self.folder / ledger.FILE)
        return [(each.number, each.attempt, each.status) for each in account.attempts]

    def record(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"result_{number}.json").read_text())
        return found

    def until_trial(self, number: int) -> None:
        log = self.folder / f"result_{number}.txt"
        until(lambda: log.exists() and "run_start" in log.read_text(), lambda: f"trial {number}; {self.said}")


@pytest.fixture
def place(tmp_path: Path, image: str) -> Place:
    found = Place(tmp_path, image)
    found.tell()
    return found


def containers(client: Any, folder: Path) -> list[str]:
    return [str(each.name) for each in engine._labelled(client, f"{engine.FOLDER}={folder}")]


def a_spec(client: Any, place: Place, order: Order, **options: Any) -> ContainerSpec:
    return a_spec_for(EngineHost.here(client.info()), client, place, order, **options)


def a_spec_for(host: EngineHost, client: Any, place: Place, order: Order, **options: Any) -> ContainerSpec:
    found = str(client.images.get(place.image).id)
    path = place.root / "a toy.toml"
    request = Request(configuration=str(path), **options)
    return replace(spec_of(host, place.image, order, request, image_id=found), lift_limits=False)


def until_none_is_left(client: Any, folder: Path) -> None:
    until(lambda: not containers(client, folder), "the end of all containers")


def test_two_trials_in_fresh_containers(client: Any, place: Place) -> None:
    assert place.run("--seed", "3", "--max-steps", "9") == 0, place.said
    assert place.statuses == [(0, 1, "success"), (1, 1, "success")]
    ids = set()
    for number in range(2):
        record = place.record(number)
        assert record["hardware"] == {"user": f"{os.getuid()}:{os.getgid()}", "network": ["lo"]}
        assert "--max-steps 9" in record["container"]["docker_run"]
        assert record["container"]["where"] == client.images.get(place.image).id
        ids.add(record["container"]["id"])
        owner = (place.folder / f"result_{number}.txt").stat()
        assert (owner.st_uid, owner.st_gid) == (os.getuid(), os.getgid())
    assert len(ids) == 2
    assert "trial 1 | run 1 will succeed" in place.said
    assert not containers(client, place.folder)


def test_the_printed_docker_run_line_makes_the_same_container(client: Any, place: Place) -> None:
    assert place.run(trials=1) == 0
    printed = re.search(r"^ +(docker run .*)$", place.said, re.MULTILINE)
    line = place.record(0)["container"]["docker_run"]  # without --ulimit where the engine may not lift limits
    assert printed is not None
    assert [w for w in shlex.split(line) if not w.startswith("sha256:")] == [
        word
        for word in shlex.split(printed[1])
        if word != place.image and ("--ulimit" in line or not word.startswith("--ulimit"))
    ]
    (place.folder / "result_0.txt").rename(place.folder / "elsewhere.txt")
    words = shlex.split(line)
    words.remove("--rm")
    name = f"by-hand-{os.getpid()}"
    finished = subprocess.run([*words[:2], f"--name={name}", *words[2:]], capture_output=True, text=True, check=False)
    try:
        assert finished.returncode == 0, finished.stderr
        assert (place.folder / "result_0.txt").is_file()
        by_hand = client.containers.get(name).attrs
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
    order = Order(0, place.folder, None, caches_cleared=False)
    cache = re.search(r"source=([^,]+),target=/cache", line)
    assert cache is not None
    chosen = a_spec(client, place, order, target=0.25, cache_dir=Path(cache[1]))
    made = client.containers.create(**replace(chosen, lift_limits="--ulimit" in line).arguments())
    ours = made.attrs
    made.remove()
    different = {
        key: (ours["HostConfig"][key], by_hand["HostConfig"][key])
        for key in ours["HostConfig"]
        if key != "RestartPolicy" and (ours["HostConfig"][key] or None) != (by_hand["HostConfig"][key] or None)
    }
    assert {ours["HostConfig"]["RestartPolicy"]["Name"], by_hand["HostConfig"]["RestartPolicy"]["Name"]} <= {"", "no"}
    assert not different
    assert ours["Image"] == by_hand["Image"]
    assert sorted(ours["Config"]["Env"]) == sorted(by_hand["Config"]["Env"])
    for key in ("User", "Cmd", "Entrypoint", "WorkingDir"):
        assert ours["Config"][key] == by_hand["Config"][key], key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_then_resume(client: Any, place: Place, number: signal.Signals) -> None:
    place.tell(_1="hang")
    series = place.start(trials=3)
    place.until_trial(1)
    series.send_signal(number)
    assert series.wait(timeout=PATIENCE_S) == 130
    assert not containers(client, place.folder)
    assert place.statuses == [(0, 1, "success"), (1, 1, "interrupted")]
    assert "run_stop" in (place.folder / "result_1.txt").read_text()
    first = (place.folder / "result_0.txt").read_bytes()
    place.tell()
    assert place.run("--resume", trials=3) == 0, place.said
    assert place.statuses == [(0, 1, "success"), (1, 1, "interrupted"), (1, 2, "success"), (2, 1, "success")]
    assert (place.folder / "result_0.txt").read_bytes() == first
    assert (place.folder / "result_1.broken-1.txt").is_file()


def test_a_killed_series_leaves_no_container(client: Any, place: Place) -> None:
    place.tell(_0="hang")
    series = place.start()
    place.until_trial(0)
    assert len(containers(client, place.folder)) == 1
    series.kill()
    series.wait()
    until_none_is_left(client, place.folder)
    assert place.statuses == [(0, 1, "no end recorded")]


def test_a_container_that_even_the_reaper_left_is_removed_at_the_next_start(client: Any, place: Place) -> None:
    """By whichever series of the machine begins first: where that was another test's, once more."""
    labels = engine.labels("gone", place.folder, 0)
    stranger = client.containers.create(place.image, ["true"], labels={**labels, engine.HOST: "elsewhere"})
    for tried in range(9):
        name = f"harness-left-behind-{os.getpid()}-{tried}"
        client.containers.create(place.image, ["true"], labels=labels, name=name)
        assert place.run("--resume", trials=1) == 0
        until(lambda: containers(client, place.folder) == [stranger.name], "the end of that one, and of no other")
        if f"removed a container that a series left behind: {name}" in place.said:
            break
    else:
        pytest.fail(f"none was removed by this series: {place.said}")
    stranger.remove()


def test_a_trial_killed_from_outside_is_failed_and_the_next_one_runs(client: Any, place: Place) -> None:
    place.tell(_0="hang for ever")
    series = place.start()
    place.until_trial(0)
    (name,) = containers(client, place.folder)
    client.containers.get(name).kill()
    assert series.wait(timeout=PATIENCE_S) == 5
    assert place.statuses == [(0, 1, "failed"), (1, 1, "success")]
    assert "exit code 137 (signal 9)" in place.said


def test_the_watchdog_gets_the_stacks_out_of_the_container(client: Any, place: Place) -> None:
    place.tell(_0="hang")
    assert place.run("--watchdog", str(SILENCE_OF_A_FAKE_S)) == 5
    assert place.statuses == [(0, 1, "stalled"), (1, 1, "success")]
    log = (place.folder / "result_0.txt").read_text()
    assert "most recent call first" in log and " in work\n" in log
    assert log.index("most recent call first") < log.index("run_stop")
    assert "asked for stacks: process" in place.said


def test_a_probe_of_an_image_is_made_in_its_container(client: Any, place: Place) -> None:
    out = place.root / "probes"
    words = ["probe", str(place.root / "a toy.toml"), "--image", place.image, "--out", str(out), "--seconds", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("probed\n"), done.stderr  # behind what the engine cannot do
    told = json.loads((out / "probe_0.json").read_text())
    assert told == ["probe", "/configuration/a toy.toml", "--out", "/results", "--seconds", "5"]
    until_none_is_left(client, out.resolve())


def test_run_with_docker_is_the_same_thing(client: Any, place: Place) -> None:
    """The script that submitters know, from trial 0 through a kill in the middle to the end."""
    place.tell(_1="hang")
    script = [str(CHECKOUT / "docker" / "run_with_docker.sh")]
    given = {
        **{"CONT": place.image, "DGXSYSTEM": str(place.root / "a toy.toml"), "LOGDIR": str(place.root / "out")},
        **{"NEXP": "2", "CLEAR_CACHES": "0", "SYSTEM": "1x_abacus"},
    }
    environment = {**os.environ, **given}
    series = subprocess.Popen(script, env=environment, stdout=subprocess.DEVNULL)
    place.until_trial(1)
    series.kill()
    series.wait()
    until_none_is_left(client, place.folder)
    place.tell()
    resumed = subprocess.run([*script, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert place.statuses == [(0, 1, "success"), (1, 1, "no end recorded"), (1, 2, "success")]
    assert not containers(client, place.folder)
    there = {path.name for path in place.folder.iterdir()} - {"fake.json"}
    assert there == {
        *("ledger.jsonl", "result_0.txt", "result_0.json", "result_1.txt", "result_1.json", "result_1.broken-1.txt"),
    }


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to someone else")
def test_results_belong_to_a_caller_without_rights(client: Any, place: Place) -> None:
    os.chown(place.folder, 12345, 54321)
    order = Order(0, place.folder, None, caches_cleared=False)
    host = EngineHost(client.info(), 12345, 54321, ())
    made = client.containers.create(**a_spec_for(host, client, place, order).arguments())
    made.start()
    assert made.wait()["StatusCode"] == 0, made.logs()
    made.remove()
    owner = (place.folder / "result_0.txt").stat()
    assert (owner.st_uid, owner.st_gid) == (12345, 54321)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(client: Any, place: Place) -> None:
    (place.root / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place.root / "small")]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        assert place.run("--out", str(place.root / "small" / "out")) == 6
        assert "its disk is full (1 MiB free, a trial may need 64)" in place.said
        assert not list((place.root / "small").rglob("*.*"))
    finally:
        subprocess.run(["umount", str(place.root / "small")], check=True)


def test_results_that_cannot_be_written(place: Place) -> None:
    (place.root / "file").touch()
    assert place.run("--out", str(place.root / "file" / "out")) == 2
    assert "results cannot be written there" in place.said


def test_no_such_image(place: Place) -> None:
    assert place.run(image="harness-no-such-image") == 2
    assert "there is no image harness-no-such-image on this machine" in place.said
    assert not (place.folder / ledger.FILE).exists()


def test_an_image_of_other_code_is_found_out_before_a_trial(place: Place) -> None:
    path = place.root / "a toy.toml"
    text = path.read_text()
    path.write_text(f"{text}# {'0' * 64}\n")
    assert place.run() == 2
    assert re.search(r"is of other code: it reads a toy\.toml as configuration 0{12}, which is \w+ here", place.said)
    path.write_text(f"{text}# \n\n")  # the stand-in makes nothing of it
    assert place.run(image=os.environ["HARNESS_TEST_IMAGE"]) == 2
    assert "cannot read a toy.toml: " in place.said and "docker build -t" in place.said
    assert not (place.folder / ledger.FILE).exists()


def test_an_empty_data_folder(place: Place) -> None:
    (place.root / "data").mkdir()
    assert place.run("--data-dir", str(place.root / "data")) == 2
    assert "the folder is empty" in place.said
    assert not (place.folder / ledger.FILE).exists()


def test_the_data_can_be_read_and_not_written(client: Any, place: Place) -> None:
    (place.root / "data").mkdir()
    (place.root / "data" / "image").write_text("pixels")
    order = Order(0, place.folder, None, caches_cleared=False)
    chosen = a_spec(client, place, order, data_dir=place.root / "data")
    made = client.containers.create(**{**chosen.arguments(), "command": ["sh", "-c", "cat /data/image; touch /data/x"]})
    made.start()
    assert made.wait()["StatusCode"] == 1
    assert b"pixels" in made.logs() and b"Read-only file system" in made.logs()
    made.remove()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without rights")
def test_no_permission_on_the_socket(client: Any) -> None:
    socket = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    if socket.stat().st_mode & 0o002:
        pytest.skip("everyone may write to this engine's socket")
    program = (
        "import os, docker.client, harness.launch.engine as engine; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "engine.connect()"
    )
    tried = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert re.search(r"NotSuitable: user \w+ may not use the Docker engine .*permission denied", tried.stderr), (
        tried.stderr
    )


def test_the_engine_goes_away_meanwhile(client: Any, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the series sees it: an API that stops answering, and one that comes back."""
    import requests

    monkeypatch.setattr(engine, "PATIENCE_S", 0.5)
    order = Order(0, place.folder, None, caches_cleared=False)
    place.tell(_0="hang")
    chosen = a_spec(client, place, order)
    made = client.containers.create(**chosen.arguments(), labels={engine.FOLDER: str(place.folder)})
    running = container.RunningContainer(made, made.attach(stream=True), "", {})
    made.start()
    try:
        place.until_trial(0)
        assert running.poll() is None

        def away() -> None:
            raise requests.exceptions.ConnectionError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(made, "reload", away)
            assert running.poll() is None
            time.sleep(0.6)
            assert running.poll() == 137
            assert "went away and was not back" in running.why()
        assert running.poll() is None
        assert running.why() == "the Docker engine did not answer for a time (was it restarted?)"
        assert watchdog.halt(running) == 130
    finally:
        running.close()
    assert not containers(client, place.folder)
