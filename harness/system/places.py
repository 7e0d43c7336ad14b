"""The folders that a run reads and writes: whether they are there, how much room they have, what they lie on."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.system.host import GIB

COMPILED = "compiled"  # in the cache: what PyTorch, Triton and a driver compile
LAYERS = ("overlay", "fuse-overlayfs", "aufs", "vfs")  # of a container's own
NETWORK_FILESYSTEMS = (  # as /proc/mounts calls them
    *("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "afs", "ceph", "lustre", "gpfs", "beegfs", "wekafs", "pvfs2"),
    *("fuse.sshfs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"),
)


@dataclass(frozen=True)
class Place:
    """A folder; where it does not exist yet, room and rights are those of the nearest one above that does."""

    path: str
    exists: bool
    empty: bool
    readable: bool
    writable: bool
    size_gib: float
    free_gib: float
    filesystem: str  # "ext4", "nfs4", ...
    occupied: bool = False  # by what is no folder
    free_files: int | None = None  # that can be made yet; None where the file system sets no number
    unreachable: str = ""  # why it cannot be told whether there is such a folder, or what is in it: "Permission denied"

    @property
    def remote(self) -> bool:
        return self.filesystem in NETWORK_FILESYSTEMS

    @property
    def a_layer(self) -> bool:
        """Whether it ends with its container, where this is one."""
        return self.filesystem in LAYERS


def look(path: Path, mounts: Path = Path("/proc/mounts")) -> Place:
    """Look at one folder. `mounts` is for tests."""
    path = path.absolute()
    there = next(each for each in (path, *path.parents) if os.access(each, os.F_OK))
    usage, counted = shutil.disk_usage(there), os.statvfs(there)
    readable = os.access(there, os.R_OK | os.X_OK)
    exists, occupied, empty, unreachable = False, False, False, ""
    try:
        exists = stat.S_ISDIR(path.stat().st_mode)
        occupied = not exists
        empty = exists and readable and next(path.iterdir(), None) is None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a folder above that lets nobody through, a file server that has forgotten it
        unreachable = error.strerror or str(error)
    return Place(
        path=str(path),
        exists=exists,
        empty=empty,
        readable=readable,
        writable=not unreachable and there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        size_gib=usage.total / GIB,
        free_gib=usage.free / GIB,
        filesystem=_filesystem(there.resolve(), mounts),
        occupied=occupied,
        # file systems that set no number say 0 of 0 (Btrfs), or -1 (CephFS)
        free_files=counted.f_favail if counted.f_files and counted.f_favail >= 0 else None,
        unreachable=unreachable,
    )


def no_temporary_files() -> str:
    """Why a run has nowhere to keep files for its time, as torch and processes that meet do; empty where it has."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return (
            "a run needs a folder for temporary files, and in none of the usual ones can anything be written "
            f"({error.strerror}): name one with TMPDIR, on a disk that has room"
        )
    return ""


@dataclass(frozen=True)
class Cache:
    """Where a run keeps what the next one can use."""

    place: Place
    own: bool  # nobody else may write in it, or it is yet to be made
    compiled_gib: float


def look_at_cache(path: Path) -> Cache:
    """The folder, and how much there is of what PyTorch, Triton and the driver have compiled."""
    size = 0
    for folder, _, files in os.walk(path / COMPILED):
        for name in files:
            with contextlib.suppress(OSError):  # somebody compiles in this moment
                size += (Path(folder) / name).lstat().st_size
    return Cache(look(path), own(path), size / GIB)


def own(folder: Path) -> bool:
    """Whether it is a folder that this user, and nobody else, can write in, or a link of his to one, or can be made."""
    try:
        found, link = folder.stat(), folder.lstat()
    except FileNotFoundError:
        return os.access(next(parent for parent in folder.parents if parent.exists()), os.W_OK)
    except OSError:
        return False
    alone = {found.st_uid, link.st_uid} == {os.geteuid()} and not found.st_mode & 0o022
    return stat.S_ISDIR(found.st_mode) and alone and os.access(folder, os.W_OK | os.X_OK)  # no: mounted read-only


def made_own(parent: Path, name: str) -> Path | None:
    """The folder `name` in `parent`, both made for this user alone unless they are there; None where others could write in it.

    What is kept there is trusted later.
    """
    folder = parent / name
    try:
        parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder if own(parent) and own(folder) else None


def _filesystem(path: Path, mounts: Path) -> str:
    best, found = Path("/"), "unknown"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, kind, *_ = line.split(" ")
        point = Path(mounted.replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, found = point, kind
    return found
