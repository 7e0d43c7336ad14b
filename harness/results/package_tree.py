"""One organization's tree, OUT/ORG: built aside, and put in place only when it is whole. Nothing that is there is changed.

A tree that is there already gets what it lacks: another system, another benchmark. It is copied, the copy completed and
checked, and then what is new moves over, whole folders at a time, the results last: before that a reader sees the old tree.
What lies aside has a name with a leading dot, which no verb looks into; what a killed process left of it goes with the next.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import locks, names, outside

ASIDE = ".unchecked-"


@contextmanager
def copied(target: Path) -> Iterator[Path]:
    """A copy of `target`, empty where there is none, beside it until the block ends. ValueError while another makes one, and
    where none can be made.
    """
    out = target.parent
    made = [each for each in (out, *out.parents) if not outside.is_there(each)]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out}: cannot be made: {error.strerror}; name another folder with --out") from error
    try:
        with _alone(out) as alone:
            for left in out.glob(f"{ASIDE}*") if alone else ():
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=out, prefix=ASIDE) as scratch:
                built = Path(scratch) / target.name
                if target.exists():
                    shutil.copytree(target, built, symlinks=True)
                yield built
    finally:
        with contextlib.suppress(OSError):  # something is in it
            for each in made:
                each.rmdir()


def put(built: Path, target: Path) -> None:
    """Move what `target` lacks of `built` into it: all or nothing. ValueError where a file differs."""
    if not target.exists():
        built.rename(target)
        return
    new = sorted(_lacking(built, target), key=lambda each: each.relative_to(built).parts[0] == names.RESULTS_FOLDER)
    moved: list[Path] = []
    try:
        for path in new:
            moved.append(path)  # before: a signal may come in between
            path.rename(target / path.relative_to(built))
    except BaseException:
        for path in reversed(moved):
            if (there := target / path.relative_to(built)).exists() and not path.exists():
                there.rename(path)
        raise


def _lacking(built: Path, target: Path) -> Iterator[Path]:
    for path in sorted(built.iterdir()):
        there = target / path.name
        if not os.path.lexists(there):
            yield path
        elif all(each.is_dir() and not each.is_symlink() for each in (path, there)):
            yield from _lacking(path, there)
        elif path.is_dir() or there.is_dir() or not filecmp.cmp(path, there, shallow=False):
            raise ValueError(f"{there} is there already, says something else, and is not overwritten: take it away, or name "
                             "another folder with --out")  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this process alone packages into the folder, as far as its file system can say. ValueError where another does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            alone = locks.take(descriptor, folder)
        except BlockingIOError as error:
            raise ValueError(f"{folder}: another package is being made in it; wait for its end") from error
        yield alone
    finally:
        os.close(descriptor)
