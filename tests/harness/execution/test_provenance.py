"""The commit in a log: whose checkout it is, and how long git takes, change nothing about it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.execution import provenance
from tests.conftest import CHECKOUT

WHO = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text("")
    for words in (["init", "-q"], ["add", "."], [*WHO, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return tmp_path


def test_a_clean_checkout_and_a_changed_one(checkout: Path) -> None:
    commit, dirty = provenance.commit({})
    assert len(commit) == 40 and not dirty
    (checkout / "code.py").write_text("changed")
    assert provenance.commit({}) == (commit, True)


def test_results_are_no_source(checkout: Path) -> None:
    """After `collect` and `package` in a clean clone no later run could be published: its source counted as changed."""
    (checkout / "results/system").mkdir(parents=True)
    (checkout / "results/index.json").write_text("{}")
    for words in (["add", "."], [*WHO, "commit", "-q", "-m", "second"]):
        subprocess.run(["git", "-C", str(checkout), *words], check=True)
    (checkout / "results/index.json").write_text("changed")
    (checkout / "results/system/result_0.txt").write_text("")
    (checkout / "packages/Someone").mkdir(parents=True)
    (checkout / "packages/Someone/x.json").write_text("")
    assert not provenance.commit({})[1]
    (checkout / "harness/results").mkdir(parents=True)
    (checkout / "harness/results/new.py").write_text("")  # of that name, and source
    assert provenance.commit({})[1]


def test_what_lies_on_another_disk_is_no_change(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """out, .cache and .venv as links: a fresh clone's first run called its source changed."""
    (checkout / ".gitignore").write_bytes((CHECKOUT / ".gitignore").read_bytes())
    subprocess.run(["git", "-C", str(checkout), "add", ".gitignore"], check=True)
    subprocess.run(["git", "-C", str(checkout), *WHO, "commit", "-q", "-m", "second"], check=True)
    for name in ("out", ".cache", ".venv"):
        (checkout / name).symlink_to(tmp_path_factory.mktemp("elsewhere"))
    assert not provenance.commit({})[1]


def test_a_checkout_of_another_user_is_not_changed(checkout: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    for path in (checkout, *checkout.rglob("*")):
        os.lchown(path, 12345, 12345)
    commit, dirty = provenance.commit({})
    assert len(commit) == 40 and not dirty


def test_code_that_lies_elsewhere_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a benchmark by HARNESS_BENCHMARKS the log named the harness's commit alone: its code could change unseen."""
    package = tmp_path / "of_mine" / "beads"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "rules.toml", "deep/kernel.cu"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (package / "deep/__init__.py").write_text("")
    found = [provenance.of_benchmark("of_mine.beads.deep"), provenance.of_benchmark("of_mine.beads")]
    (package / "__pycache__/x.pyc").parent.mkdir(exist_ok=True)
    for name in ("out", "build", ".git"):
        (package / name).mkdir()
    for name in (
        "__pycache__/x.pyc",
        ".swp",
        "beads.py~",
        "out/result_0.txt",
        "build/kernel.so",
        ".git/x.py",
    ):  # not its code
        (package / name).write_text("")
    assert provenance.of_benchmark("of_mine.beads") == found[1]
    (package / "deep/kernel.cu").write_text("changed")
    found += [provenance.of_benchmark("of_mine.beads")]
    (package / "deep/kernel.cu").rename(package / "deep/other.cu")
    found += [provenance.of_benchmark("of_mine.beads")]
    assert len(set(found)) == 4 and all(len(each) == 64 for each in found)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)  # beside the project's own, as in an environment, or below out/
    assert len(provenance.of_benchmark("of_mine.beads")) == 64
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.of_benchmark("tests.toy") == "", "the commit has it"


def test_a_git_that_hangs_says_nothing(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "GIT_LIMIT_S", 0.1)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "git").write_text("#!/bin/sh\nexec sleep 5\n")
    (bin_ / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    assert provenance.commit({}) == ("unknown", True)
