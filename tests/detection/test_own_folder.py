"""Folders that only this user writes in: who could have been there first is refused, links are not followed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from benchmarks.detection import own_folder
from benchmarks.detection.embedded import dataset as embedded
from benchmarks.ssd import BENCHMARK
from harness import config
from harness.contract import Context
from tests.ssd import small


def test_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = own_folder.make(tmp_path / "a" / "b")
    assert folder.is_dir() and folder.stat().st_mode & 0o777 == 0o700
    (folder / "kept").touch()
    assert own_folder.make(folder) == folder and (folder / "kept").exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_may_write_in_is_refused(mode: int, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(ValueError, match=r"others may write in .*shared.*chmod go-w .*HARNESS_CACHE_DIR"):
        own_folder.make(tmp_path / "shared")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_another_user_s_folder_or_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(ValueError, match="belongs to user 12345"):
        own_folder.make(tmp_path / "theirs")
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert own_folder.make(tmp_path / "link") == tmp_path / "link", "a link of our own is a choice of our own"
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(ValueError, match="not to you"):
        own_folder.make(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_compiled_code_is_not_taken_from_another_user_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    settings = config.parse(small.content(compute={"compile": True}), name="small", source="small").tables
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ValueError, match=r"belongs to user 12345.*TORCHINDUCTOR_CACHE_DIR"):
        BENCHMARK.open(settings, Context(device="cpu"))
    os.chown(tmp_path, 0, 0)
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError, match="others may write"):
        BENCHMARK.open(settings, Context(device="cpu"))
    tmp_path.chmod(0o775)
    BENCHMARK.open(settings, Context(device="cpu")).close()


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x")):
        with pytest.raises(ValueError, match=r"(is no folder|cannot be used).*HARNESS_CACHE_DIR"):
            own_folder.make(folder)


def test_a_lock_that_is_a_link_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").write_text("ssh-ed25519 AAAA")
    (tmp_path / "lock").symlink_to(tmp_path / "authorized_keys")
    with pytest.raises(ValueError, match="cannot be opened"), own_folder.alone(tmp_path / "lock"):
        pass
    assert (tmp_path / "authorized_keys").read_text() == "ssh-ed25519 AAAA"


def test_the_embedded_data_is_neither_made_in_nor_taken_from_a_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    (cache / ".embedded.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="others may write"):
        embedded.ensure(cache, lambda *_: None)
    assert (tmp_path / "victim").read_text() == "keep"


def test_a_full_disk_is_no_lock_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inodes there was none, and the way out was to remove it."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left") as opening, own_folder.alone(tmp_path / "lock"):
            pass
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left") as making:
        own_folder.make(tmp_path / "cache")
    assert opening.value.errno == making.value.errno == errno.ENOSPC


def test_without_locks_it_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_folder.alone(tmp_path / "lock") as locked:
        assert locked

    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with own_folder.alone(tmp_path / "lock") as locked:
        assert not locked
