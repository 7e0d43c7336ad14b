"""The sources that a result was made with: this project at the commit that its log names, as a plain folder."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness import ROOT, git, names, outside
from harness.contract import NotSuitable
from harness.results.record import RunRecord

COMMIT = re.compile(r"[0-9a-f]{1,64}")
RECORD = "image.json"  # an image's account of what it was built from
PROGRAM = frozenset((".py", ".sh", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".rs", ".go", ".java", ".jl", ".ipynb"))
SIZE_LIMIT = 200_000_000  # bytes of all sources together; MLPerf takes files of 50 MB
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
MADE = frozenset(("out", *names.NOT_SOURCE))  # at the top alone: there are modules of these names


@dataclass(frozen=True)
class Code:
    """What ran, as a log names it."""

    commit: str
    changed: bool  # from that commit
    benchmark_sha256: str = ""  # of a benchmark that lies outside of the project, whose commit says nothing of it

    @classmethod
    def of(cls, record: RunRecord) -> Code | None:
        """None of a log that does not tell: somebody else's, of a run that broke first, or that had no answer from git."""
        if record.commit is None or record.commit == names.NO_COMMIT:
            return None
        return cls(record.commit, record.tree_dirty is True, record.benchmark_sha256 or "")

    def is_as(self, other: Code) -> bool:
        """Whether both ran the same sources, as far as is known here; of uncommitted changes nobody knows more."""
        if names.NO_COMMIT in (self.commit, other.commit):
            return True
        if (self.changed, self.benchmark_sha256) != (other.changed, other.benchmark_sha256):
            return False
        return self.commit == other.commit or not differ({self.commit, other.commit})

    def __str__(self) -> str:
        benchmark = f", benchmark's code {self.benchmark_sha256[:12]}" if self.benchmark_sha256 else ""
        return f"commit {self.commit[:12]}{' with changes' * self.changed}{benchmark}"


def unavailable(commit: str, root: Path = ROOT) -> str:
    """Why the sources of this commit are not available here; empty where they are."""
    if not COMMIT.fullmatch(commit):
        return f"{commit!r}, which the log names, is no commit"
    if git.has_repository(root):
        if git.ask(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
            return ""
        here = git.ask(root, "rev-parse", "--git-dir")
        if here.returncode != 0:  # a work tree without the clone that it is of, mounted into a container say
            return f"the commits of {root} cannot be read ({git.said(here)}): package where its repository is whole"
        return f"commit {commit} is not in this checkout: fetch it"
    built_from = _image_commit(root)
    if built_from == commit:
        return ""
    return f"the sources of commit {commit} are not here (this is {built_from or 'no checkout'}): package in a checkout"


def differ(commits: Collection[str], root: Path = ROOT) -> bool | None:
    """Whether these commits have different sources: results may have been committed in between. None where it cannot be told
    here, as where one is not in this checkout, or is none: a log may say anything.
    """
    first, *others = sorted(commits)
    if not all(map(COMMIT.fullmatch, commits)) or not git.has_repository(root):
        return None
    try:
        codes = {git.ask(root, "diff", "--quiet", first, each, "--", *names.SOURCE).returncode for each in others}
    except NotSuitable:
        return None
    return True if 1 in codes else None if codes - {0} else False


def export(commit: str, target: Path, root: Path = ROOT) -> None:
    """Write that commit's files. Names with a leading dot stay out: MLPerf's tools forbid them."""
    if not git.has_repository(root):
        copy_folder(root, target)
        return
    done = git.ask(root, "archive", "--format=tar", commit)
    if done.returncode != 0:
        raise ValueError(f"git archive {commit}: {git.said(done)}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        members = [each for each in archive if (each.isfile() or each.isdir()) and _plain(PurePosixPath(each.name))]
        archive.extractall(target, members, filter="data")


def copy_folder(folder: Path, target: Path) -> None:
    """Its regular files, readable and no more than executable. ValueError, before anything is copied, for no source tree.

    No link leads out of it, and none to a folder is followed; set-uid bits stay behind; FIFOs and devices are refused.
    """
    root = folder.resolve()
    files = list(_regular_files(root))
    if not any(path.suffix in PROGRAM for path in files):
        raise ValueError(f"{folder}: no source tree: it holds no program ({', '.join(sorted(PROGRAM))})")
    if (size := sum(path.stat().st_size for path in files)) > SIZE_LIMIT:
        raise ValueError(
            f"{folder}: no source tree: it holds {size / 1e6:,.0f} MB, sources have at most {SIZE_LIMIT // 10**6}"
        )
    for path in files:
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(outside.read_bytes(path, SIZE_LIMIT))
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def digest(folder: Path) -> str:
    """Of the files of a folder: their names, what they hold, and whether they can be executed."""
    found = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(os.fsencode(path.relative_to(folder)) + f"\0{path.stat().st_mode & 0o100}\0{content}\n".encode())
    return found.hexdigest()


def _regular_files(root: Path) -> Iterator[Path]:
    for at, folders, files in os.walk(root):
        left_out = set(LEFT_OUT(at, [*folders, *files])) | (MADE if Path(at) == root else set())
        for name in sorted({*folders, *files} - left_out):
            path = Path(at) / name
            if path.is_symlink() and not outside.real(path).is_relative_to(root):
                raise ValueError(
                    f"{path}: a link that leads out of the sources: put the file itself there, or take it out"
                )
            if path.is_symlink() and not path.is_file():
                raise ValueError(f"{path}: a link to no file: take it out")
            if path.is_file():
                yield path
            elif not path.is_dir():
                raise ValueError(f"{path}: neither file nor folder: take it out")
        folders[:] = sorted(set(folders) - left_out)


def _plain(path: PurePosixPath) -> bool:
    """Neither hidden nor a result or package of the project's own: a package holds results in one place."""
    return not any(part.startswith(".") for part in path.parts) and path.parts[0] not in names.NOT_SOURCE


def _image_commit(root: Path) -> str | None:
    try:
        return str(outside.read_json(root / RECORD)["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
