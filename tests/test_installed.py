"""The project as a distribution: what it declares, and, long, what `pip install .` gives."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness import __version__
from harness.cli import main
from tests.conftest import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"harness {__version__}\n"


def test_results_and_caches_are_placed_by_the_checkout_that_may_not_be_there() -> None:
    """ROOT is site-packages where the project is installed: nothing is written there. `measuring` kept pictures in it."""
    placed = re.compile(
        r"\b(?:out_dir|cache_dir|collection|packages|results)\((?:config\.)?ROOT\b|\bROOT / \"(?:out|results|\.cache)\""
    )
    sources = [path for room in ("harness", "measuring") for path in (CHECKOUT / room).rglob("*.py")]
    assert len(sources) > 100 and not [path for path in sources if placed.search(path.read_text())]


def test_what_linux_alone_has_is_declared_for_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install .` was promised for other systems, and found no DALI there."""
    hatchling = ModuleType("hatchling.metadata.plugin.interface")
    hatchling.MetadataHookInterface = SimpleNamespace  # type: ignore[attr-defined]
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin", hatchling.__name__):
        monkeypatch.setitem(sys.modules, name, hatchling)
    from requirements import declared

    metadata: dict[str, Any] = {}
    declared.Declared(root=str(CHECKOUT)).update(metadata)  # type: ignore[call-arg]
    asked = [Requirement(each) for each in metadata["dependencies"]]
    assert [each.name for each in asked if each.marker] == ["nvidia-dali-cuda130", "nvidia-cudnn-frontend"]
    for system in ("linux", "darwin", "win32"):
        given = {each.marker.evaluate({"sys_platform": system}) for each in asked if each.marker}
        assert given == {system == "linux"}


def pip_install(python: Path, *words: object) -> None:
    """More patient with an index that is slow to answer than pip is by default: 15 s, six times."""
    patient = {**os.environ, "PIP_DEFAULT_TIMEOUT": "120", "PIP_RETRIES": "10"}
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, env=patient, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_source_distribution_has_every_file_but_results(tmp_path: Path) -> None:
    """It lacked harness/results, and what was installed from it could not be imported."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip_install(python, "hatchling")
    making = [python, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path / "dist")]
    subprocess.run(making, cwd=CHECKOUT, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").iterdir()
    with tarfile.open(made) as archive:
        packed = {each.name.partition("/")[2] for each in archive if each.isfile()}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    there = {each for each in listed.split("\0") if each and not each.startswith("results/")}
    assert {"harness/results/score.py", "configs/ssd/embedded.toml"} < there and not there - packed


def compiled(path: Path) -> bool:
    """Python's own, or the temporary name of what another process is just compiling."""
    return "__pycache__" in path.parts


@pytest.mark.long
def test_installed_it_has_all_that_it_needs(tmp_path: Path) -> None:
    """In an environment of its own that borrows this one's packages; pip makes the wheel, from its usual index."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip_install(python, "--no-deps", CHECKOUT)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert (site / "harness").is_dir()

    def harness(*words: object) -> str:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [str(python.with_name("harness")), *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (metadata,) = site.glob("training_harness-*.dist-info/METADATA")
    files = (CHECKOUT / "requirements/run.in", CHECKOUT / "requirements/base.in")
    asked = [name for file in files for name in re.findall(r"^(\w[\w-]*)", file.read_text(), re.MULTILINE)]
    assert sorted(
        re.findall(r"^Requires-Dist: ([\w-]+)(?!.*; extra ==)", metadata.read_text(), re.MULTILINE)
    ) == sorted(asked)
    assert harness("--version") == f"harness {__version__}\n"
    there = {path.stem for path in CHECKOUT.glob("configs/*/*.toml")}
    assert {
        line.split()[0].rpartition("/")[2] for line in harness("configs").splitlines() if line[0] not in " ─-"
    } >= there
    read = "from measuring.ssd import setup; print(setup.read('bccd').model.image_px)"
    assert subprocess.run([python, "-c", read], cwd=tmp_path, check=True, capture_output=True).stdout == b"96\n"
    harness("report", "--html", tmp_path / "page")
    assert "MLPerf" in (tmp_path / "page" / "index.html").read_text()
    shipped = {path.relative_to(site).as_posix() for path in site.rglob("*") if not compiled(path)}
    for room in ("harness", "benchmarks", "measuring"):
        files = [path for path in (CHECKOUT / room).rglob("*") if path.is_file() and not compiled(path)]
        missing = {path.relative_to(CHECKOUT).as_posix() for path in files} - shipped
        assert not missing
    assert not any(name.startswith(("tests/", "configs/")) for name in shipped)
    assert platform.python_version() in SpecifierSet(PROJECT["project"]["requires-python"])
