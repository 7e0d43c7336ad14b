"""Downloads from a server that fails in every way that servers do, and unpacking."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.detection.download import fetching, tar_archive
from benchmarks.detection.download.fetching import FetchError, RemoteFile, fetch, unpack
from tests.detection.download.http_server import SOON_S, Fault, FileServer
from tests.patience import PATIENCE_S

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "archive.zip"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts are noted, not made."""
    pauses: list[float] = []
    monkeypatch.setattr(fetching, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(fetching, "TIMEOUT_S", PATIENCE_S)  # a server of this busy process is not silent
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return pauses


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({NAME: CONTENT}) as running:
        yield running


class Told:
    """What the user is told."""

    def __init__(self, server: FileServer | None = None) -> None:
        self.server = server
        self.said: list[str] = []
        self.done: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, what: str, done: int, total: int | None) -> None:
        if what.startswith("downloading"):
            assert total == len(CONTENT)
            self.done.append(done)
            if self.server is not None:
                self.server.taken.release()


def remote(server: FileServer) -> RemoteFile:
    return RemoteFile(NAME, server.url(NAME), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def get(server: FileServer, folder: Path, *faults: Fault) -> Told:
    """Fetch past `faults`, and check what every success must be."""
    server.faults[:] = faults
    if "stall" in faults:
        fetching.TIMEOUT_S = SOON_S  # until the end of the test: `impatient` puts it back
    told = Told(server)
    path = fetch(remote(server), folder, told.say, told.progress)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == [NAME], "no .part stays"
    return told


def test_whole_file_with_progress(server: FileServer, tmp_path: Path) -> None:
    told = get(server, tmp_path, "slow")
    assert server.ranges == [None]
    assert told.done == sorted(told.done)
    assert told.done[-1] == len(CONTENT)
    assert len(told.done) > 5, "progress in steps, not in one"
    assert told.said == []


def test_goes_on_where_it_broke_off(server: FileServer, tmp_path: Path, impatient: list[float]) -> None:
    told = get(server, tmp_path, "break", "break", "break")
    assert server.ranges == [None, "bytes=150000-", "bytes=225000-", "bytes=262500-"]
    assert len(told.said) == len(impatient) == 3
    assert "broke off" in told.said[0]


@pytest.mark.parametrize("fault", [503, 429, 416, "stall", "other part", "no total", "no length", "no range"])
def test_one_fault_in_the_middle(fault: Fault, server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path, "break", fault)


def test_a_server_without_ranges_starts_over(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path, "no range, break", "no range, break", "no range")
    assert server.ranges == [None, "bytes=150000-", "bytes=150000-"]


def test_gives_up_on_a_server_that_always_fails(server: FileServer, tmp_path: Path, impatient: list[float]) -> None:
    """With longer and longer pauses; what came stays for the next call."""
    with pytest.raises(FetchError, match=r"given up after 6 attempts \(HTTP 503"):
        get(server, tmp_path, "break", *[503] * 6)
    assert impatient == [1, 2, 4, 8, 16, 32]
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:150_000]
    get(server, tmp_path)
    assert server.ranges[-1] == "bytes=150000-"


def test_a_server_that_gets_a_little_further_each_time_is_not_given_up(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path, *["break"] * 10)  # type: ignore[arg-type]


def test_nobody_listens(tmp_path: Path) -> None:
    with FileServer({NAME: CONTENT}) as server:
        gone = remote(server)
    with pytest.raises(FetchError, match="refused") as refusal:
        fetch(gone, tmp_path, Told().say, Told().progress)
    assert str(tmp_path / NAME) in str(refusal.value), "where to put it when got elsewhere"


def test_not_found_is_not_tried_again(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="HTTP 404"):
        get(server, tmp_path, 404)
    assert len(server.ranges) == 1


def test_a_web_page_in_place_of_the_file(server: FileServer, tmp_path: Path) -> None:
    """Refused at once, and what was downloaded before is not lost to it."""
    with pytest.raises(FetchError, match=r"serves 26 bytes, the published file has 300,000"):
        get(server, tmp_path, "break", "page")
    assert (tmp_path / f"{NAME}.part").stat().st_size == 150_000
    get(server, tmp_path)


def test_another_file_of_the_same_size(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="something on the way serves another file"):
        get(server, tmp_path, "wrong bytes")
    assert list(tmp_path.iterdir()) == [], "nothing unchecked gets the name, nothing is built on it"


@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
@pytest.mark.parametrize(
    ("on_disk", "requests"),
    [
        (CONTENT, []),
        (CONTENT[:1000], ["bytes=1000-"]),
        (bytes(1000), ["bytes=1000-", None]),  # another beginning: found by the digest, then all of it
        (bytes(len(CONTENT)), [None]),
        (bytes(len(CONTENT) + 1), [None]),
    ],
    ids=["whole", "beginning", "other beginning", "damaged", "too long"],
)
def test_what_is_on_the_disk_is_built_on(
    name: str, on_disk: bytes, requests: list[str | None], server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(on_disk)
    get(server, tmp_path)
    assert server.ranges == requests


def test_an_interruption_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if done > 50_000:
            raise KeyboardInterrupt
        server.taken.release()

    server.faults.append("slow")
    with pytest.raises(KeyboardInterrupt):
        fetch(remote(server), tmp_path, Told().say, interrupt)
    part = tmp_path / f"{NAME}.part"
    kept = part.stat().st_size
    assert kept > 50_000
    assert part.read_bytes() == CONTENT[:kept]
    get(server, tmp_path)
    assert server.ranges[-1] == f"bytes={kept}-"


def test_a_full_disk_is_an_error_of_the_disk(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not taken for one of the network, which would be tried again."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr(fetching, "opened", lambda path, how: full.open("wb"))
    with pytest.raises(OSError, match="No space left"):
        get(server, tmp_path)
    assert len(server.ranges) == 1


# --- archives ----------------------------------------------------------------------------------------------------------


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def tar(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return made.getvalue()


def quiet(what: str, done: int, total: int | None) -> None:
    pass


def test_unpack_does_only_what_is_left_to_do(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"val/": b"", "val/1.jpg": b"one", "val/2.jpg": b"two", "other/3.jpg": b"three"})
    assert unpack(path, tmp_path, ("val/",), print, quiet) == 2
    assert not (tmp_path / "other").exists()
    kept = (tmp_path / "val/1.jpg").stat().st_mtime_ns
    (tmp_path / "val/2.jpg").unlink()
    assert unpack(path, tmp_path, ("val/",), print, quiet) == 1
    assert (tmp_path / "val/2.jpg").read_bytes() == b"two"
    assert (tmp_path / "val/1.jpg").stat().st_mtime_ns == kept
    assert sorted(entry.name for entry in (tmp_path / "val").iterdir()) == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unpack_replaces_nothing_that_it_did_not_write(kind: str, tmp_path: Path) -> None:
    """Somebody's own pictures by the same names were gone, without a word."""
    members = {f"val/{number}.jpg": b"of the archive" for number in range(1, 5)}
    path = archive(tmp_path / "a.zip", members)
    if kind == "tar":
        path = tmp_path / "a.tar"
        path.write_bytes(tar(members))
    (tmp_path / "val").mkdir()
    (tmp_path / "val/1.jpg").write_bytes(b"mine")
    (tmp_path / "val/1.jpg.before_0").symlink_to("mine, and not there now")
    (tmp_path / "val/2.jpg").symlink_to(tmp_path / "mine")
    (tmp_path / "val/3.jpg").mkdir()
    said: list[str] = []
    assert (unpack if kind == "zip" else tar_archive.unpack)(path, tmp_path, ("val/",), said.append, quiet) == 4
    assert all((tmp_path / name).read_bytes() == content for name, content in members.items())
    assert (tmp_path / "val/1.jpg.before_1").read_bytes() == b"mine"
    assert (tmp_path / "val/1.jpg.before_0").is_symlink() and (tmp_path / "val/2.jpg.before_0").is_symlink()
    assert (tmp_path / "val/3.jpg.before_0").is_dir()
    (told,) = said
    assert told == (
        f"{path.name}: what had a name of its files in another size is kept: {tmp_path / 'val/1.jpg.before_1'} and 2 more "
        "likewise"
    )


@pytest.mark.parametrize("name", ["val/../../out.jpg", "val/..\\out.jpg"])
def test_unpack_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(FetchError, match="leads out of"):
        unpack(archive(folder / "a.zip", {name: b"x"}), folder, ("val/",), print, quiet)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.zip"]


@pytest.mark.parametrize("at", [0, 45, -5])
def test_a_damaged_archive_is_named(at: int, tmp_path: Path) -> None:
    """In a member's header, its content, the directory at the end."""
    path = archive(tmp_path / "a.zip", {"val/1.jpg": b"one" * 100})
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content[:-4] if at < 0 else content)
    with pytest.raises(FetchError, match=r"a\.zip: damaged archive"):
        unpack(path, tmp_path, ("val/",), print, quiet)
    assert not (tmp_path / "val/1.jpg").exists()


def test_a_link_in_a_file_s_place_is_not_followed(server: FileServer, tmp_path: Path) -> None:
    """Where others may write in the folder, somebody could have put it there."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("ssh-ed25519 AAAA")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        get(server, tmp_path / "data")
    assert victim.read_text() == "ssh-ed25519 AAAA"
