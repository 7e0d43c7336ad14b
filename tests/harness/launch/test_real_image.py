"""The project's own image, as CI builds it: its main job in two trials, one of them killed in the middle and run again.

The target is one that the first evaluation meets: to its own the job goes in .github/workflows/checks.yml. HARNESS_TEST_IMAGE
names the image.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from harness import config, config_files
from harness.launch import engine, ledger
from harness.names import of_platform
from harness.results import logfile
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(3600)]
FIRST_TARGET = 0.15  # met at the first evaluation: ten seeds reach 0.185 to 0.324 there (results/embedded/seeds.json)


def variant(path: Path, **changed: float) -> Path:
    """The main job with other values of some keys."""
    text = config_files.find_default([]).read_text().replace("default = true\n", "")
    for key, value in changed.items():
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    try:
        found = docker.from_env(timeout=int(PATIENCE_S))
        found.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    return found


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> str:
    name = os.environ.get("HARNESS_TEST_IMAGE")
    if not name:
        pytest.skip("HARNESS_TEST_IMAGE names no image to test with")
    settings = client.images.get(name).attrs["Config"]["Env"] or []
    if not any(each.startswith("HARNESS_IMAGE_") for each in settings):
        pytest.skip(f"{name} is not the project's own image")
    return name


def test_two_trials_of_the_main_job_one_of_them_killed(client: docker.DockerClient, image: str, tmp_path: Path) -> None:
    path = variant(tmp_path / "first.toml", target=FIRST_TARGET)
    chosen = config.load(path)
    folder = tmp_path / "out" / of_platform(chosen.submission.platform) / chosen.benchmark.name
    script = [str(CHECKOUT / "docker" / "run_with_docker.sh")]
    given = {"CONT": image, "DGXSYSTEM": str(path), "LOGDIR": str(tmp_path / "out"), "NEXP": "2", "CLEAR_CACHES": "0"}
    environment = {**os.environ, **given}
    series = subprocess.Popen(script, env=environment)
    log = folder / "result_1.txt"
    until(
        lambda: series.poll() is not None or (log.exists() and "epoch_start" in log.read_text()),
        "the second trial",
        1800,
    )
    assert series.poll() is None
    series.kill()
    series.wait()
    assert subprocess.run([*script, "--resume"], env=environment, check=False).returncode == 0

    account = ledger.Account.read(folder / ledger.FILE)
    attempts = [(each.number, each.attempt, each.status) for each in account.attempts]
    assert attempts == [(0, 1, "success"), (1, 1, "no end recorded"), (1, 2, "success")]
    for number, attempt in account.finished.items():
        result = folder / f"result_{number}.txt"
        record = logfile.read(result)
        assert record.outcome == "success"
        assert record.configuration_sha256 == chosen.sha256
        assert record.demonstration
        assert record.image, "the log says which image it ran in"
        assert attempt.end is not None and attempt.end["log_sha256"] == record.sha256
        assert (result.stat().st_uid, result.stat().st_gid) == (os.getuid(), os.getgid())
    assert (folder / "result_1.broken-1.txt").is_file()
    assert not engine._labelled(client, f"{engine.FOLDER}={folder}")


def test_two_ranks_without_a_network(image: str, tmp_path: Path) -> None:
    path = variant(tmp_path / "two.toml", accelerators_per_node=2)
    chosen = config.load(path)
    folder = tmp_path / "out" / of_platform(chosen.submission.platform) / chosen.benchmark.name
    given = {"CONT": image, "DGXSYSTEM": str(path), "LOGDIR": str(tmp_path / "out"), "NEXP": "1", "CLEAR_CACHES": "0"}
    script = [str(CHECKOUT / "docker" / "run_with_docker.sh"), "--max-steps", "4"]
    finished = subprocess.run(script, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    record = logfile.read(folder / "result_0.txt")
    assert record.ranks == 2 and record.reason.startswith("steps spent: 4"), record.reason
