"""What every study does around its measuring: nothing is lost on a full disk, and no end of it is a traceback."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from measuring import study


def test_a_full_disk_leaves_what_there_was(tmp_path: Path) -> None:
    study.keep({"runs": [1]}, path := tmp_path / "runs.json")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"runs\.json") as full:
            study.keep({"runs": [1] * 100}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.errno == errno.EFBIG
    assert json.loads(path.read_text()) == {"runs": [1]} and list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    (link := tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    study.keep([], link)
    assert link.is_symlink() and json.loads((tmp_path / "real.json").read_text()) == []
    study.keep([], Path(os.devnull))
    assert not Path(os.devnull).is_file()


def test_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: BaseException | None) -> None:
        if error is not None:
            raise error

    def terminated() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    try:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.json")
        for error, code, said in (
            (None, 0, ""),
            (ValueError("no such thing"), 2, "error: no such thing\n"),
            (full, 6, "error: x.json: cannot be written: No space left on device\n"),
            (KeyboardInterrupt(), 130, ""),
        ):
            assert (study.ended(lambda error=error: fails(error)), capsys.readouterr().err) == (code, said)  # type: ignore[misc]
        assert study.ended(terminated) == 130
        for unforeseen in (RuntimeError("of CUDA"), OSError(errno.EBUSY, "busy")):
            assert study.ended(lambda error=unforeseen: fails(error)) == 5  # type: ignore[misc]
            assert "Traceback" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGTERM, before)
