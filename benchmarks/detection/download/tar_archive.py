"""Plain tar archives unpacked, as fetching.py unpacks ZIP: a call after an interruption does the rest."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from benchmarks.detection.download.fetching import FetchError, Progress, Say, telling_kept, write_member


def unpack(archive: Path, folder: Path, members: tuple[str, ...], say: Say, progress: Progress) -> int:
    """Unpack the files whose names begin with one of `members`; returns how many were written.

    A file that is there with the right size is left alone, one of another size kept under another name. Tar has no checksums
    of what it holds: the archive's own has been checked. FetchError: cut off, a name that leads out of `folder`, or one of
    `members` that is no plain file.
    """
    written, size = 0, archive.stat().st_size
    try:
        with tarfile.open(archive, "r:") as opened, telling_kept(archive, say) as kept:
            for info in opened:
                if str(PurePosixPath(info.name)).startswith(members) and not info.isdir():  # ./a is a
                    written += _unpack(opened, info, folder, kept)
                progress(f"unpacking {archive.name}", min(opened.offset, size), size)
    except tarfile.TarError as error:
        raise FetchError(f"{archive}: damaged archive ({error}); delete it and run again") from error
    progress(f"unpacking {archive.name}", size, size)
    return written


def _unpack(archive: tarfile.TarFile, info: tarfile.TarInfo, folder: Path, kept: list[Path]) -> bool:
    name = PurePosixPath(info.name)
    if name.is_absolute() or ".." in name.parts or "\\" in info.name or not info.isreg():
        what = (
            f"member {info.name!r} leads out of {folder}" if info.isreg() else f"member {info.name!r} is no plain file"
        )
        raise FetchError(f"{archive.name!s}: {what}; delete this archive")
    target = folder / name
    if target.is_file() and target.stat().st_size == info.size:
        return False
    source = archive.extractfile(info)
    assert source is not None  # of a plain file
    with source:
        write_member(source, target, kept)
    return True
