"""What the scripts of docker/ tell a host without the lock files' packages to install is all that their launching needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

# Hides every distribution but those of argv[1] and what they need; then as `python -m harness` with the rest of the words
WITH_THESE_ALONE = """
import sys
from importlib import metadata
from importlib.machinery import PathFinder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

allowed, asked = set(), sys.argv[1].split()
while asked:
    name = canonicalize_name(asked.pop())
    if name not in allowed:
        allowed.add(name)
        needs = map(Requirement, metadata.requires(name) or ())
        asked += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
hidden = {
    module for module, given in metadata.packages_distributions().items()
    if not allowed & {canonicalize_name(each) for each in given}
}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in hidden else find(name, *more)
for name in [each for each in sys.modules if each.partition(".")[0] in hidden]:
    del sys.modules[name]

if probe := sys.argv[2]:
    exec(probe)
from harness.cli import main

sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("script", "options", "refusal"),
    [
        ("run_with_docker.sh", ["--image", "x"], "no Docker engine answers"),
        ("run.sub", ["--engine", "slurm"], "Slurm"),
    ],
)
def test_what_is_installed_by_its_words_comes_as_far_as_the_engine(
    tmp_path: Path, script: str, options: list[str], refusal: str
) -> None:
    """It lacked mlperf_logging, and who had done as he was told was asked to report what nobody foresaw."""
    text = (CHECKOUT / "docker" / script).read_text()
    (names,) = re.findall(r"/pip install (.+)\" >&2", text)
    (probe,) = re.findall(r"-P -c '(import tomllib.+)' 2>", text)
    words = ["run", "embedded", "--trials", "2", "--out", tmp_path, *options]
    command = [sys.executable, "-P", "-c", WITH_THESE_ALONE, names, probe, *words]
    environment = {"PATH": "/nonexistent", "PYTHONPATH": str(CHECKOUT), "DOCKER_HOST": "unix:///nonexistent"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 6 and refusal in done.stderr, done.stderr
    assert "mlperf_logging.mllog" in probe
