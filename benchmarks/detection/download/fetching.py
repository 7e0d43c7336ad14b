"""Published files over HTTP onto the disk, and ZIP archives unpacked; both go on where they were interrupted.

Not a general downloader: size and digest are known beforehand (of a file whose publisher names none, `described` asks the
server), so that nothing unchecked gets a file's final name and bytes of any earlier attempt can be built on. Range, 206 and
416 as RFC 9110 has them; validators (ETag, If-Range) are not needed, since a mixture of two versions fails the digest. Proxies
as urllib takes them from the environment. Thousands of small files: benchmarks/detection/download/many_files.py.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import itertools
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

Say = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]  # what, done, of how many

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0  # without a single byte
FRUITLESS_ATTEMPTS = 6  # in a row, none of which got further than those before
LONGEST_PAUSE_S = 60.0
PASSING_STATUS = {408, 425, 429}  # the client errors that another attempt may not meet


class FetchError(RuntimeError):
    """A file cannot be downloaded or an archive not be unpacked; the message says the way out."""


class InTheWay(FetchError):
    """Somebody's own file has the name of one that is wanted: what becomes of it is theirs to say."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file that never changes; sizes are in bytes."""

    name: str
    url: str
    size: int
    sha256: str = ""
    members: tuple[str, ...] = ()  # of an archive: those wanted, by the beginning of their names
    unpacked_size: int = 0  # what they take on the disk, rounded up
    digest: str = ""  # where no SHA-256 is known: "sha512:...", "md5:..."; "" of one that only its size tells

    def is_whole(self, path: Path, progress: Progress) -> bool:
        """Whether the file at `path`, of the right size, is this one."""
        algorithm, _, expected = self.checksum.partition(":")
        return not expected or digest(path, algorithm, progress) == expected

    @property
    def checksum(self) -> str:
        return f"sha256:{self.sha256}" if self.sha256 else self.digest


def gigabytes(size: int) -> str:
    """Bytes for people: 0.09 GB, 19.3 GB."""
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def fetch(remote: RemoteFile, folder: Path, say: Say, progress: Progress) -> Path:
    """`folder`/NAME, whole and checked. What is there under this name, or as NAME.part, is built on.

    But an archive under its name somebody has put there: it is taken as it is, or left as it is. A Ctrl-C leaves NAME.part for
    the next call. FetchError when the file is not available, InTheWay for such an archive, OSError of the disk.
    """
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if remote.members and target.exists():
        if (size := target.stat().st_size) == remote.size and remote.is_whole(target, progress):
            return target
        found = f"{size:,} bytes of {remote.size:,}" if size != remote.size else f"not with {remote.checksum}"
        raise InTheWay(
            f"{target}: not the published file ({found}); call it {part.name} if it is the beginning of that, else take it "
            "away; then run again"
        )
    if target.exists():
        target.replace(part)  # to be checked or completed like any other beginning
    while True:
        if part.exists() and part.stat().st_size > remote.size:
            part.unlink()  # of another file
        begun_before = part.exists()
        _Transfer(remote, part, say, progress).run()
        if remote.is_whole(part, progress):
            part.replace(target)
            return target
        part.unlink()
        if not begun_before:
            raise FetchError(
                f"{remote.url}: {remote.size:,} bytes came, but not with {remote.checksum}: something on "
                f"the way serves another file; get it elsewhere and put it at {target}"
            )
        say(f"{remote.name}: what was on the disk is another or a damaged file; downloading from the start")


def sha256(path: Path, progress: Progress) -> str:
    return digest(path, "sha256", progress)


def digest(path: Path, algorithm: str, progress: Progress) -> str:
    """In hexadecimal; `algorithm` as hashlib calls it."""
    found, total = hashlib.new(algorithm), path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            found.update(block)
            progress(f"checking {path.name}", file.tell(), total)
    return found.hexdigest()


def described(url: str, name: str, digest: str = "") -> RemoteFile:
    """A file as its server describes it: its size and, unless `digest` is known, its MD5 where the server has one.

    FetchError when the server does not tell.
    """
    for attempt in range(1, FRUITLESS_ATTEMPTS + 1):
        try:
            asked = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
                size = response.headers["Content-Length"]
                md5 = _md5(response.headers.get_all("x-goog-hash", []))
                break
        except (OSError, http.client.HTTPException) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else 500
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if attempt == FRUITLESS_ATTEMPTS or (code < 500 and code not in PASSING_STATUS):
                raise FetchError(f"{url}: {error or type(error).__name__}; run again when it can be reached") from error
            time.sleep(min(2.0**attempt, LONGEST_PAUSE_S))
    if not size or not size.isdecimal():
        raise FetchError(
            f"{url}: the server does not tell how large it is; get it elsewhere and put it there as {name}"
        )
    return RemoteFile(name, url, int(size), digest=digest or md5)


def _md5(hashes: list[str]) -> str:
    """Of Google's storage: "crc32c=...", "md5=..." in base64, in one header or two; "" where no MD5 is among them."""
    for each in ",".join(hashes).split(","):
        kind, _, value = each.strip().partition("=")
        if kind == "md5":
            return f"md5:{base64.b64decode(value).hex()}"
    return ""


class _BrokenOff(Exception):
    """This attempt ended early; the next may do better."""


@dataclass
class _Transfer:
    """One download across its attempts."""

    remote: RemoteFile
    part: Path
    say: Say
    progress: Progress

    def run(self) -> None:
        """Fill `part` up to the known size."""
        farthest, fruitless = self._have(), 0
        while self._have() != self.remote.size:
            try:
                self._attempt()
            except _BrokenOff as reason:
                have = self._have()
                fruitless = 0 if have > farthest else fruitless + 1
                farthest = max(farthest, have)
                if fruitless == FRUITLESS_ATTEMPTS:
                    raise FetchError(
                        f"{self.remote.url}: given up after {fruitless} attempts ({reason}); run again to go "
                        f"on at {gigabytes(have)}, or get it elsewhere and put it at {self.part.with_suffix('')}"
                    ) from reason
                pause_s = min(2.0**fruitless, LONGEST_PAUSE_S)
                at = gigabytes(have)
                self.say(f"{self.remote.name}: broke off at {at} ({reason}), again in {pause_s:.0f} s")
                time.sleep(pause_s)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        have = self._have()
        with self._open(have) as response:
            if self._begin(response) != have:
                self.part.unlink()  # the server sends all of it, whatever was asked for
            with opened(self.part, os.O_APPEND) as file:
                self._receive(response, file)

    def _open(self, have: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.remote.url, headers={"Accept-Encoding": "identity"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)  # also where the whole file was asked for
                raise _BrokenOff("the server's file is shorter than what was on the disk") from error
            if error.code < 500 and error.code not in PASSING_STATUS:
                raise FetchError(
                    f"{self.remote.url}: HTTP {error.code} {error.reason}; get the file elsewhere and put it "
                    f"at {self.part.with_suffix('')}: it is checked before use"
                ) from error
            raise _BrokenOff(f"HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(f"{error or type(error).__name__}") from error

    def _begin(self, response: http.client.HTTPResponse) -> int:
        """Where in the file the answer begins: where it was asked to, or at 0. Another file is refused by its size."""
        have, size = self._have(), self.remote.size
        if response.status == http.client.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
            if match is None or int(match[1]) != have:
                raise _BrokenOff(f"asked for bytes from {have:,}, answered {response.headers['Content-Range']}")
            self._check_size(size if match[2] == "*" else int(match[2]))
            return have
        # without the header (chunked) the bytes are counted as they come
        self._check_size(int(response.headers["Content-Length"] or size))
        return 0

    def _check_size(self, total: int) -> None:
        if total != self.remote.size:
            raise FetchError(
                f"{self.remote.url}: serves {total:,} bytes, the published file has {self.remote.size:,}: a "
                f"proxy's page or another file; get it elsewhere and put it at {self.part.with_suffix('')}"
            )

    def _receive(self, response: http.client.HTTPResponse, file: IO[bytes]) -> None:
        while True:
            try:
                block = response.read1(CHUNK_BYTES)  # what came is written at once, and outlives an interruption
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenOff(f"{error or type(error).__name__}") from error
            if not block:
                break
            file.write(block)
            if file.tell() > self.remote.size:
                self._check_size(file.tell())
            self.progress(f"downloading {self.remote.name}", file.tell(), self.remote.size)
        if file.tell() < self.remote.size:  # read1 does not complain of a connection closed early
            raise _BrokenOff("connection closed")


def unpack(archive: Path, folder: Path, members: tuple[str, ...], say: Say, progress: Progress) -> int:
    """Unpack the members whose names begin with one of `members`; returns how many were written.

    A file that is there with the right size is left alone, so that a call after an interruption does the rest; one of
    another size is kept under another name. The CRC of each one written is checked. FetchError: damaged archive, or a name
    that leads out of `folder`.
    """
    try:
        with zipfile.ZipFile(archive) as content, telling_kept(archive, say) as kept:
            return _unpack(content, folder, members, kept, progress)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FetchError(f"{archive}: damaged archive ({error}); delete it and run again") from error


def _unpack(
    archive: zipfile.ZipFile, folder: Path, members: tuple[str, ...], kept: list[Path], progress: Progress
) -> int:
    wanted = [info for info in archive.infolist() if info.filename.startswith(members) and not info.is_dir()]
    what = f"unpacking {Path(archive.filename or '').name}"
    written = 0
    for position, info in enumerate(wanted, start=1):
        name = PurePosixPath(info.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename:
            raise FetchError(f"{archive.filename}: member {info.filename!r} leads out of {folder}; delete this archive")
        target = folder / name
        if not (target.is_file() and target.stat().st_size == info.file_size):
            with archive.open(info) as source:
                write_member(source, target, kept)
            written += 1
        progress(what, position, len(wanted))
    return written


def write_member(source: IO[bytes], target: Path, kept: list[Path]) -> None:
    """A file of an archive. It gets its name whole, so that size alone tells one: what has the name in another size was not
    written here. That is set aside, and added to `kept`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with opened(part, os.O_TRUNC) as file:
        shutil.copyfileobj(source, file, CHUNK_BYTES)
    if os.path.lexists(target):
        kept.append(set_aside(target))
    part.replace(target)


@contextlib.contextmanager
def telling_kept(archive: Path, say: Say) -> Iterator[list[Path]]:
    """What is added to the list is said at the end, an interruption's too."""
    kept: list[Path] = []
    try:
        yield kept
    finally:
        if kept:
            more = f" and {len(kept) - 1:,} more likewise" if len(kept) > 1 else ""
            say(f"{archive.name}: what had a name of its files in another size is kept: {kept[0]}{more}")


def set_aside(path: Path) -> Path:
    """Give it a name that nothing has yet, which is returned."""
    names = (path.with_name(f"{path.name}.before_{number}") for number in itertools.count())
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def opened(path: Path, how: int) -> IO[bytes]:
    """For writing. Where others may write in the folder somebody could have put a link in its place: it is not followed."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how, 0o666), "wb")


def downloaded_bytes(remote: RemoteFile, folder: Path) -> int:
    """What `fetch` would build on."""
    files = (folder / remote.name, folder / f"{remote.name}.part")
    return min(remote.size, max(file.stat().st_size if file.exists() else 0 for file in files))


def unpacked_bytes(remote: RemoteFile, folder: Path) -> int:
    """What lies in `folder` of the wanted members, `remote.unpacked_size` at most."""
    total = 0
    for parent, _, start in (member.rpartition("/") for member in remote.members):
        if (folder / parent).is_dir():
            with os.scandir(folder / parent) as entries:
                total += sum(entry.stat().st_size for entry in entries if entry.name.startswith(start))
    return min(total, remote.unpacked_size)
