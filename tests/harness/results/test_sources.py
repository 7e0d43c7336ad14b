"""The sources that a package has: of a commit, or of a folder that is named, its regular files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.results import sources


def test_sources_of_an_image_without_git(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text(json.dumps({"commit": "abc"}))
    (tmp_path / "train.py").write_text("")
    assert sources.unavailable("abc", tmp_path) == ""
    assert "not here" in sources.unavailable("def", tmp_path)
    sources.export("abc", tmp_path / "copy", tmp_path)
    assert (tmp_path / "copy/train.py").is_file()


def test_a_work_tree_without_its_clone_is_not_told_to_fetch(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /gone/worktrees/copy\n")
    said = sources.unavailable("abc", tmp_path)
    assert said.startswith(f"the commits of {tmp_path} cannot be read (fatal: ") and "fetch" not in said


def test_sources_hold_regular_files_of_their_own_tree_alone(tmp_path: Path) -> None:
    tree = tmp_path / "src"
    (tree / "lib").mkdir(parents=True)
    (tree / "train.py").write_text("print()")
    (tree / "lib/run.sh").write_text("true")
    (tree / "lib/run.sh").chmod(0o6777)
    (tree / "same.py").symlink_to("train.py")
    for name in ("results/log.txt", "out/log.txt", "harness/results/score.py"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("")
    sources.copy_folder(tree, tmp_path / "copy")
    there = {
        path.relative_to(tmp_path / "copy").as_posix(): path
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    }
    assert set(there) == {"train.py", "same.py", "lib/run.sh", "harness/results/score.py"}
    assert not any(path.is_symlink() for path in there.values())
    assert there["lib/run.sh"].stat().st_mode & 0o7777 == 0o755
    assert there["same.py"].read_text() == "print()"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree: (tree / "x").symlink_to("/etc/hostname"), "a link that leads out of the sources"),
        (lambda tree: (tree / "x").symlink_to(tree.parent), "a link that leads out of the sources"),
        (lambda tree: (tree / "x").symlink_to(tree), "a link to no file"),
        (lambda tree: (tree / "x").symlink_to("nowhere"), "a link to no file"),
        (lambda tree: os.mkfifo(tree / "x"), "neither file nor folder"),
        (lambda tree: (tree / "train.py").rename(tree / "train.txt"), "no source tree"),
    ],
)
def test_what_is_no_source_tree_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    tree = tmp_path / "src"
    tree.mkdir()
    (tree / "train.py").write_text("print()")
    spoil(tree)
    with pytest.raises(ValueError, match=words):
        sources.copy_folder(tree, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
