"""The commit in a log: whose checkout it is, and how long git takes, change nothing about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract import NotSuitable
from harness.execution import provenance
from harness.results import sources
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


def another_repository(folder: Path) -> Path:
    """With a commit of its own and one file."""
    folder.mkdir(exist_ok=True)
    (folder / "theirs.py").write_text("")
    for words in (["init", "-q"], ["add", "."], [*WHO, "commit", "-q", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


def test_within_another_repository_s_hook_the_commit_is_this_one_s(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git rebase --exec` and hooks set them: the log had the commit of what was rebased."""
    ours, theirs = provenance.commit({}), another_repository(tmp_path_factory.mktemp("theirs"))
    assert len(ours[0]) == 40 and not ours[1]
    for name, value in (
        ("GIT_DIR", theirs / ".git"),
        ("GIT_WORK_TREE", theirs),
        ("GIT_INDEX_FILE", theirs / ".git/index"),
        ("GIT_OBJECT_DIRECTORY", theirs / ".git/objects"),
        ("GIT_COMMON_DIR", theirs / ".git"),
        ("GIT_LITERAL_PATHSPECS", 1),
    ):
        with monkeypatch.context() as alone:
            alone.setenv(name, str(value))
            assert provenance.commit({}) == ours, name
            assert sources.unavailable(ours[0], checkout) == "", name
            (checkout / "new.py").write_text("")
            assert provenance.commit({}) == (ours[0], True), name
            (checkout / "new.py").unlink()


@pytest.mark.parametrize("left", ["nothing", "an empty .git", "a .git that leads nowhere"])
def test_a_copy_in_another_repository_has_not_that_one_s_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    copy = another_repository(tmp_path / "theirs") / "copy"
    copy.mkdir()
    if left == "an empty .git":
        (copy / ".git").mkdir()
    elif left != "nothing":
        (copy / ".git").write_text("gitdir: /gone/worktrees/copy\n")
    monkeypatch.setattr(provenance, "ROOT", copy)
    assert provenance.commit({}) == ("unknown", True)


def test_a_work_tree_of_a_checkout_has_its_own_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = provenance.commit({})
    subprocess.run(["git", "-C", str(checkout), "worktree", "add", "-q", "--detach", "tree"], check=True)
    monkeypatch.setattr(provenance, "ROOT", checkout / "tree")
    assert provenance.commit({}) == ours
    (checkout / "tree/code.py").unlink()
    assert provenance.commit({}) == (ours[0], True)


def test_a_new_module_is_a_change_whatever_its_user_s_git_leaves_out(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """status.showUntrackedFiles = no, as large repositories advise: the log said that nothing had changed."""
    (checkout / "settings").write_text("[status]\n\tshowUntrackedFiles = no\n")
    subprocess.run(["git", "-C", str(checkout), "add", "settings"], check=True)
    subprocess.run(["git", "-C", str(checkout), *WHO, "commit", "-q", "-m", "second"], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(checkout / "settings"))
    assert not provenance.commit({})[1]
    (checkout / "new.py").write_text("")
    assert provenance.commit({})[1]


def test_without_git_a_verb_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package` ended with "[Errno 2] No such file or directory: 'git'"."""
    monkeypatch.setenv("PATH", str(checkout))
    assert provenance.commit({}) == ("unknown", True)
    with pytest.raises(NotSuitable, match=r"git cannot be started \(No such file or directory\).*install it"):
        sources.unavailable("abc", checkout)


def test_a_git_that_hangs_says_nothing(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "GIT_LIMIT_S", 0.1)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "git").write_text("#!/bin/sh\nexec sleep 5\n")
    (bin_ / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    assert provenance.commit({}) == ("unknown", True)


def test_these_tests_commit_into_no_repository_of_their_caller_s() -> None:
    """Run from a hook, they left their commits in the repository whose hook it was."""
    told = "import os, tests.conftest; print(*sorted(each for each in os.environ if each.startswith('GIT_')))"
    found = subprocess.run(
        [sys.executable, "-c", told],
        cwd=CHECKOUT,
        env={**os.environ, "GIT_DIR": "/somebody's", "GIT_INDEX_FILE": "/somebody's/index", "GIT_SSH": "ssh"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not {"GIT_DIR", "GIT_INDEX_FILE"} & {*found.split()} and "GIT_SSH" in found.split()
