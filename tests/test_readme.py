"""The README's commands, taken from the README and run in a copy of the project, in the order in which they stand there.

With them the whole default run is tested to its target (where the processor is slow, to one that its first evaluation meets),
the log through MLPerf's checker, and the picture. It trains on
the pictures of the checkout's cache, as tests/ssd/test_embedded.py does; .ci/docker.sh makes them anew in the image.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.detection.embedded import dataset as embedded
from tests.conftest import CHECKOUT, trains_fast
from tests.harness.execution.runs import complies, environment, events

README = (CHECKOUT / "README.md").read_text()
# What cannot be run here, and why; that its options exist is looked at all the same
NEEDS_MORE = {
    "./run_tests.sh": "is what runs this test",
    "./run_and_time.sh embedded --checkpoint-dir": "the run before it keeps its model too, by HARNESS_CHECKPOINT_DIR",
    ".venv/bin/python -m harness prepare --data-dir /data/coco2017": "downloads 20 GB",
    ".venv/bin/python -m harness doctor --data-dir /data/coco2017": "looks at a folder that is not here",
    "./run_and_time.sh H100_1x1x256": "needs an H100 and COCO",
    "docker build": ".ci/docker.sh",
    "docker run": ".ci/docker.sh, and to its target .github/workflows/checks.yml",
    "export CONT=": "needs an H100 and COCO",
    "./docker/run_with_docker.sh": "tests/harness/launch",
}

# What is added to a command, so that it takes seconds: its figures are of no interest here
ADDED = {
    ".venv/bin/python -m harness inference": ["--seconds", "0.2", "--queries", "3"],
    ".venv/bin/python -m measuring.ssd": ["--rounds", "1", "--only", "detection", "--batch-size", "2"],
}
if not trains_fast():
    # two epochs, not eight, which take 20 minutes of a busy core: ten seeds reach 0.185 and more by then
    ADDED["./run_and_time.sh embedded"] = ["--target", "0.15"]
    # not the full-size network in bf16, which takes such a processor minutes to imitate
    ADDED[".venv/bin/python -m measuring.ssd"].append("embedded")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def runnable() -> list[str]:
    return [command for command in commands() if not command.startswith(tuple(NEEDS_MORE))]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a clone would have, with the environment that is here."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    if (CHECKOUT / ".venv").is_dir():
        (folder / ".venv").symlink_to(CHECKOUT / ".venv")
    made = embedded.ensure(CHECKOUT / ".cache", lambda done, total: None)
    shutil.copytree(made, folder / ".cache" / "embedded")  # of today's code, whatever the checkout calls it
    yield folder
    shutil.rmtree(folder)


def test_every_command_is_run_or_has_a_reason() -> None:
    assert len(commands()) >= 10
    for prefix in (*NEEDS_MORE, *ADDED):
        assert any(command.startswith(prefix) for command in commands()), f"{prefix} is not in the README any more"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_commands(copy: Path) -> None:
    for command in runnable():
        words = shlex.split(command)
        words += [word for prefix, added in ADDED.items() if command.startswith(prefix) for word in added]
        finished = subprocess.run(
            words,
            cwd=copy,
            env=environment(HARNESS_CHECKPOINT_DIR="out/model"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
    log = copy / "out" / "embedded" / "result_0.txt"
    assert complies(log)
    values = {event["key"]: event["value"] for event in events(log)}
    assert values["demonstration"] is True
    assert (values["submission_division"], values["submission_status"]) == ("open", "research")
    with Image.open(copy / "out" / "embedded" / "result.png") as picture:
        assert picture.width >= 1200 and picture.height >= 900
    assert (copy / "out" / "page" / "index.html").is_file()
    assert len(list((copy / "out" / "found").glob("*_boxes.jpg"))) == 200
    assert (copy / "out" / "embedded" / "inference_0.json").is_file()


def test_options_of_the_commands_that_need_more() -> None:
    for command in commands():
        verb = re.match(r"\.venv/bin/python -m harness (\w+)", command) or re.match(r"(\./run_and_time\.sh)", command)
        if verb:
            name = "run" if verb[1].startswith("./") else verb[1]
            text = help_of(name)
            for option in re.findall(r"--[a-z-]+", command):
                assert option in text, f"{option} of `{command}`"


def help_of(verb: str) -> str:
    from typer.testing import CliRunner

    from harness.cli import build

    return CliRunner().invoke(build(), [verb, "--help"]).output


def test_the_script_s_help_names_every_option() -> None:
    script = subprocess.run([CHECKOUT / "run_and_time.sh", "--help"], capture_output=True, text=True, check=True).stdout
    for option in set(re.findall(r"--[a-z-]{2,}", help_of("run"))) - {"--clear-caches"}:
        assert option in script, option
    for variable in re.findall(r"env var: (\w+)", help_of("run").replace("\n", " ")):
        assert variable in script, variable


def test_help_needs_no_environment(tmp_path: Path) -> None:
    shutil.copy2(CHECKOUT / "run_and_time.sh", tmp_path)
    finished = subprocess.run(
        [tmp_path / "run_and_time.sh", "-h"], capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    )
    assert "Exit codes: 0 target met" in finished.stdout and not (tmp_path / ".venv").exists()
