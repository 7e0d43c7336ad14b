"""What an exception makes of a verb: a sentence and the exit code that its kind has, never Python's own 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from harness import cli
from harness.contract import NotSuitable
from tests.conftest import CHECKOUT


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("no such thing; name another"), 2, "error: no such thing; name another\n"),
        (NotSuitable("no abacus here"), 6, "error: no abacus here\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied\n"),
        (FileExistsError(17, "File exists", "/etc/passwd"), 2, "error: /etc/passwd: File exists\n"),
        (IsADirectoryError(21, "Is a directory", "/x"), 2, "error: /x: Is a directory\n"),
        (PermissionError(13, "Permission denied", "/dev/kfd"), 6, "error: [Errno 13] Permission denied: '/dev/kfd'\n"),
        (OSError(28, "No space left on device", "/x"), 6, "error: [Errno 28] No space left on device: '/x'\n"),
        (OSError(38, "Function not implemented"), 6, "error: [Errno 38] Function not implemented\n"),
        (RuntimeError("oh"), 5, "RuntimeError: oh\nerror: nobody foresaw this; please report it\n"),
        (KeyError("series"), 5, "KeyError: 'series'\nerror: nobody foresaw this; please report it\n"),
    ],
)
def test_what_is_raised_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    def build() -> object:
        raise error

    monkeypatch.setattr(cli, "build", build)
    assert cli.main([]) == code
    found = capsys.readouterr().err
    assert found.endswith(said)
    assert ("Traceback" in found) == (code == 5)


@pytest.mark.parametrize(
    ("words", "into", "code"),
    [
        (("report", "--csv"), "/dev/full", 6),
        (("report", "--csv"), "/dev/null", 0),
        (("--version",), "/dev/full", 6),
        (("package", "-h"), "/dev/full", 0),  # one that leaves files: what it prints is not what it was asked for
    ],
)
def test_a_table_that_the_disk_had_no_room_for_is_no_success(words: tuple[str, ...], into: str, code: int) -> None:
    """`report --csv > board.csv` left a half of it on a full disk, and ended with 0."""
    with Path(into).open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], cwd=CHECKOUT, stdout=out, stderr=PIPE, check=False
        )
    assert done.returncode == code
    assert (b"error: what was printed is not whole: No space left on device" in done.stderr) == (code == 6)


@pytest.mark.parametrize(
    "words",
    [("run", "embedded", "--out", "{out}"), ("doctor", "--out", "x"), ("score", "."), ("report", "."), ("check", "."),
     ("compare", ".", "."), ("probe",)],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_folder_that_was_deleted_under_the_caller_is_said(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run had begun its log when oneMKL ended the process: it looks for PyTorch's libraries from there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main([each.format(out=tmp_path / "out") for each in words]) == 2
    assert "has been deleted; cd to another one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    cli.main(["status", str(tmp_path)])
    assert "no result log under" in capsys.readouterr().err, "a verb that does not train needs none"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["configs", "nonsense", "--recipes"], "nonsense --recipes: "),
        (["report", "--group", "--json"], "--group is of the table"),
        (["report", "--group", "--csv"], "--group is of the table"),
        (["report", "--group", "--html", "page"], "--group is of the table"),
        (["sysinfo", "--ruleset", "9.9"], "--ruleset 9.9: not one of 0."),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
