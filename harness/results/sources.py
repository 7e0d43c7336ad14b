"""The sources that a result was made with: this project at the commit that its log names, as a plain folder."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, or of the image's copy of it
RECORD = "image.json"  # an image's account of what it was built from
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "out", "results")


def unavailable(commit: str, root: Path = ROOT) -> str:
    """Why the sources of this commit cannot be had here; empty where they can."""
    if (root / ".git").exists():
        done = _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
        return "" if done.returncode == 0 else f"commit {commit} is not in this checkout: fetch it"
    built_from = _image_commit(root)
    if built_from == commit:
        return ""
    return f"the sources of commit {commit} are not here (this is {built_from or 'no checkout'}): package in a checkout"


def export(commit: str, target: Path, root: Path = ROOT) -> None:
    """Write that commit's files. Names with a leading dot stay out: MLPerf's tools forbid them."""
    if not (root / ".git").exists():
        copy_folder(root, target)
        return
    done = _git(root, "archive", "--format=tar", commit)
    if done.returncode != 0:
        raise ValueError(f"git archive {commit}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        members = [each for each in archive if (each.isfile() or each.isdir()) and _plain(PurePosixPath(each.name))]
        archive.extractall(target, members, filter="data")


def copy_folder(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target, ignore=LEFT_OUT)


def _plain(path: PurePosixPath) -> bool:
    """Neither hidden nor a result of its own: a package holds results in one place."""
    return not any(part.startswith(".") for part in path.parts) and path.parts[:1] != ("results",)


def _image_commit(root: Path) -> str | None:
    try:
        return str(json.loads((root / RECORD).read_text(encoding="utf-8"))["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
