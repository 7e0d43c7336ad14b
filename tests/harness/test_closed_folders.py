"""A path in a folder that one may not enter is refused as any other that is wrong: Path's own questions raise there.

For root no folder is closed, and the tests may be root's: so the kernel's answer is made up.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness.comparison import arms
from tests.harness.execution.trained.models import harness, numbers, saved
from tests.toy import configuration as toy


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, stat, scandir = tmp_path / "closed", os.stat, os.scandir
    folder.mkdir()

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and f"{os.fspath(path)}/".startswith(f"{folder}/in/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def seen(path: Any, *more: Any, **options: Any) -> os.stat_result:
        refuse(path)
        return stat(path, *more, **options)

    def listed(path: Any = ".") -> Any:
        refuse(path)
        return scandir(path)

    monkeypatch.setattr(os, "stat", seen)
    monkeypatch.setattr(os, "scandir", listed)
    return folder / "in"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "TOY", "--data-dir", "CLOSED"), "--data-dir {}: there is no such folder"),
        (("run", "TOY", "--initial-weights", "CLOSED/w.pth"), "--initial-weights {}/w.pth: there is no such file"),
        (("run", "CLOSED/x.toml"), "{}/x.toml: no such file"),
        (("prepare", "--data-dir", "CLOSED"), "--data-dir {}: cannot be looked into: Permission denied"),
        (("detect", "CLOSED", "x.jpg"), "{}: there is no such file; `harness run CONFIGURATION --checkpoint-dir"),
        (("detect", "KEPT", "x.jpg", "--json", "CLOSED/x.json"), "--json {}/x.json: {} is no folder"),
        (("export", "KEPT", "CLOSED/x.onnx"), "OUT {}/x.onnx: {} is no folder"),
        (("inference", "KEPT", "--images", "CLOSED"), "--images {}: there is no such folder"),
        (("inference", "CLOSED/x.pt"), "{}/x.pt: no such file"),
        (("compare", "CLOSED", "CLOSED"), "{}: Permission denied"),
        (("compare", "run", "CLOSED"), "{}: No such file or directory; `compare plan` writes one"),
        (
            ("report", "--no-published", "LOGS", "--html", "CLOSED"),
            "{}/history.html: cannot be written: Permission denied",
        ),
        (("check", "CLOSED"), "{}: Permission denied"),
    ],
)
def test_a_path_in_a_closed_folder_is_a_wrong_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], closed: Path, words: tuple[str, ...], said: str
) -> None:
    """Path.is_dir and its like raise there up to Python 3.13: a bare [Errno 13], 6 as of a machine that lacks a device."""
    arms.write(tmp_path / "logs", 0)
    known = {
        "LOGS": str(tmp_path / "logs"),
        "TOY": str(toy.write(tmp_path, toy.raw())),
        "KEPT": str(saved(tmp_path / "kept")),
    }
    words = tuple(known.get(word, word.replace("CLOSED", str(closed))) for word in words)
    code, out, errors = harness(
        capsys, *words, *(("--out", tmp_path / "out") if words[0] in ("run", "inference") else ())
    )
    assert code == 2, out + errors
    assert said.format(closed, closed) in errors and "[Errno" not in errors


def test_a_closed_folder_costs_detect_one_line_and_not_the_other_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], closed: Path
) -> None:
    kept, good = saved(tmp_path / "kept"), numbers(tmp_path / "seen", [1])
    code, out, errors = harness(capsys, "detect", kept, closed / "x.jpg", *good)
    assert code == 1 and f"{good[0]}, 40 x 30 px: 1 thing" in out
    assert errors.splitlines()[-1] == "1 of 2 could not be read; the others were"
