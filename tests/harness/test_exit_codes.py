"""What an exception makes of a verb: a sentence and the exit code that its kind has, never Python's own 1."""

from __future__ import annotations

import pytest

from harness import cli
from harness.contract import NotSuitable


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("no such thing; name another"), 2, "error: no such thing; name another\n"),
        (NotSuitable("no abacus here"), 6, "error: no abacus here\n"),
        (PermissionError(13, "Permission denied", "/x"), 6, "error: [Errno 13] Permission denied: '/x'\n"),
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
