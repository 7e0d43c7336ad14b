"""The lock files, against what the packages that are installed here say that they need: nothing is fetched."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from requirements import satisfied
from tests.conftest import CHECKOUT

LOCKED = re.compile(r"^([\w.-]+==\S+(?: ; .+?)?) \\$", re.MULTILINE)
(NAMED,) = re.findall(r"for name in (.+); do", (CHECKOUT / "requirements/set_up.sh").read_text())
PYTHONS = re.findall(r"python(3\.\d+)", NAMED)


def locked(name: str) -> list[Requirement]:
    return [Requirement(each) for each in LOCKED.findall((CHECKOUT / "requirements" / name).read_text())]


def unmet(files: list[str], python: str) -> tuple[list[str], int]:
    """What the locked packages need of each other, or of Python, and do not get; and how many were looked at."""
    here = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    of_this = [each for name in files for each in locked(name) if not each.marker or each.marker.evaluate(here)]
    versions = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in of_this}
    faults, looked_at = [], 0
    for name, version in versions.items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if found.version != version:
            continue
        looked_at += 1
        if f"{python}.0" not in SpecifierSet(found.metadata.get("Requires-Python") or ""):
            faults.append(f"{name} is not for Python {python}")
        for need in map(Requirement, found.requires or ()):
            if need.marker and not need.marker.evaluate({**here, "extra": ""}):
                continue
            has = versions.get(canonicalize_name(need.name))
            if has is None or not need.specifier.contains(has, prereleases=True):
                faults.append(f"{name} needs {need}, locked is {has}")
    return faults, looked_at


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    "files", [["run.lock"], ["cuda12.lock"], ["vendor.lock"], ["run.lock", "kubernetes.lock"], ["run.lock", "export.lock"],
              ["run.lock", "dev.lock"]], ids=lambda files: files[-1]
)  # fmt: skip
def test_a_lock_file_has_all_that_its_packages_need(files: list[str], python: str) -> None:
    """On 3.13, Debian 13's, run.lock lacked a package that libcst wants there, and set-up ended the same way each time."""
    faults, looked_at = unmet(files, python)
    assert not faults and looked_at > 30


def test_the_pythons_that_set_up_looks_for_are_those_that_are_promised() -> None:
    assert PYTHONS == ["3.13", "3.12", "3.11"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert [
        f"3.{minor}" for minor in range(20, 0, -1) if f"3.{minor}" in SpecifierSet(project["requires-python"])
    ] == PYTHONS
    said = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    assert sorted(said, reverse=True) == PYTHONS
    assert "Python 3.11, 3.12 or 3.13," in (CHECKOUT / "README.md").read_text()
    assert all(each in (CHECKOUT / "requirements/set_up.sh").read_text() for each in ("(3, 11) <=", "< (3, 14)"))


def test_a_package_of_another_python_is_not_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """satisfied.py reads the one kind of marker that lock files have, without a library."""
    marked = [each for name in ("run.lock", "cuda12.lock") for each in locked(name) if each.marker]
    assert [str(each) for each in marked] == ['pyyaml-ft==8.0.0; python_version == "3.13"'] * 2
    lock = tmp_path / "run.lock"
    lock.write_text('no-such-package==8.0.0 ; python_version == "3.13" \\\n    --hash=sha256:0\n')
    for version, said in (((3, 11, 7), []), ((3, 13, 0), ["no-such-package==8.0.0, here none"])):
        monkeypatch.setattr(satisfied, "sys", SimpleNamespace(version_info=version))
        assert satisfied.differences(lock) == said
