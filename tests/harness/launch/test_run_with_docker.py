"""docker/run_with_docker.sh: MLPerf's inputs as the harness's options, seen by a stand-in for Python that writes them down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

SCRIPT = CHECKOUT / "docker" / "run_with_docker.sh"
STAND_IN = """#!/bin/sh
if [ "$2" = -c ]; then exec {python} "$@"; fi
printf '%s\\n' "$@" > "{seen}"
"""


@dataclass
class Checkout:
    """A folder that looks like one, with the stand-in as its Python."""

    root: Path

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        plain = {"PATH": os.environ["PATH"], "HOME": str(self.root), **environment}
        command = ["bash", str(self.root / "docker" / SCRIPT.name), *options]
        return subprocess.run(command, env=plain, cwd=self.root, capture_output=True, text=True, check=False)

    def arguments(self, *options: str, **environment: str) -> list[str]:
        finished = self.run(*options, **environment)
        assert finished.returncode == 0, finished.stderr
        return (self.root / "seen").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "docker").mkdir()
    shutil.copy(SCRIPT, tmp_path / "docker")
    (tmp_path / "harness").symlink_to(CHECKOUT / "harness")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(python=sys.executable, seen=tmp_path / "seen"))
    python.chmod(0o755)
    return Checkout(tmp_path)


def test_the_defaults_that_submitters_know(checkout: Checkout) -> None:
    assert checkout.arguments(CONT="ssd", DGXSYSTEM="A100_1x1x128") == [
        *("-P", "-m", "harness", "run", "A100_1x1x128", "--image", "ssd", "--trials", "5"),
        *("--out", str(checkout.root / "results"), "--clear-caches"),
    ]


def test_every_input_reaches_the_harness(checkout: Checkout) -> None:
    (checkout.root / "weights").mkdir()
    (checkout.root / "weights" / "resnet34-333f7ec4.pth").touch()
    given = {
        **{
            "CONT": "ssd",
            "DGXSYSTEM": "x",
            "DATADIR": "/raid/my coco",
            "LOGDIR": "/r",
            "NEXP": "2",
            "CLEAR_CACHES": "0",
        },
        **{"BACKBONE_DIR": f"{checkout.root}/weights", "SEED": "7", "NV_GPU": "2,3", "SYSTEM": "s", "WATCHDOG": "60"},
    }
    assert checkout.arguments("--resume", **given) == [
        *("-P", "-m", "harness", "run", "x", "--image", "ssd", "--trials", "2", "--out", "/r"),
        *("--data-dir", "/raid/my coco", "--seed", "7", "--system", "s", "--gpus", "2,3", "--watchdog", "60"),
        *("--no-clear-caches", "--initial-weights", f"{checkout.root}/weights/resnet34-333f7ec4.pth", "--resume"),
    ]
    given["PRETRAINED_DIR"] = f"{given.pop('BACKBONE_DIR')}/resnet34-333f7ec4.pth"
    assert given["PRETRAINED_DIR"] in checkout.arguments(**given)


def test_the_harness_has_every_option_that_the_script_passes() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "harness", "run", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    passed = set(re.findall(r"--[a-z-]+", re.sub(r"HELP.*HELP", "", SCRIPT.read_text(), flags=re.DOTALL)))
    missing = [option for option in passed - {"--help"} if option not in help_text]
    assert not missing


def test_a_link_to_the_script_is_the_script(checkout: Checkout) -> None:
    """Nor is a folder of the same name, in which the shell looks for those of CDPATH, taken for its own."""
    (checkout.root / "elsewhere" / "docker").mkdir(parents=True)
    (checkout.root / "timed").symlink_to(f"docker/{SCRIPT.name}")
    for called in ("timed", f"docker/{SCRIPT.name}"):
        begun = subprocess.run(
            ["bash", called], cwd=checkout.root, capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "CDPATH": "elsewhere", "CONT": "ssd", "DGXSYSTEM": "x"},
        )  # fmt: skip
        assert begun.returncode == 0, begun.stderr
        assert (checkout.root / "seen").read_text().startswith("-P\n-m\nharness\n")
        (checkout.root / "seen").unlink()


def test_help_lists_every_variable_that_the_script_reads(checkout: Checkout) -> None:
    shown = checkout.run("--help")
    assert shown.returncode == 0
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", SCRIPT.read_text())) - {"PYTHONPATH", "PWD", "BASH_SOURCE"}
    assert read and all(re.search(rf"^  {name} ", shown.stdout, re.MULTILINE) for name in read)


def test_what_is_missing_is_said_and_what_was_meant(checkout: Checkout) -> None:
    refused = checkout.run(CONT_="ssd", NEXPS="2")
    assert refused.returncode == 2
    assert "CONT is not set" in refused.stderr and "DGXSYSTEM is not set" in refused.stderr
    assert "did you mean CONT?" in refused.stderr
    assert not (checkout.root / "seen").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"CLEAR_CACHES": "yes"}, "CLEAR_CACHES=yes: 1 or 0 is needed"),
        ({"BACKBONE_DIR": "docker"}, "one .pth file is expected there"),
    ],
)
def test_a_wrong_input_is_said(checkout: Checkout, given: dict[str, str], said: str) -> None:
    refused = checkout.run(CONT="ssd", DGXSYSTEM="x", **given)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_without_the_few_packages_it_says_how_to_get_them(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / ".venv")
    nothing = checkout.root / "bin"
    nothing.mkdir()
    for tool in ("bash", "readlink", "cat"):
        (nothing / tool).symlink_to(str(shutil.which(tool)))
    refused = checkout.run(CONT="ssd", DGXSYSTEM="x", PATH=str(nothing))
    assert refused.returncode == 6
    assert "pip install docker" in refused.stderr
