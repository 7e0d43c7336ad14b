"""The question that `prepare` asks before it downloads, at a terminal and without one."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S

AT_A_TERMINAL = "import os, sys; os.login_tty(0); from harness.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(("typed", "code"), [(b"\x03", 130), (b"\x04", 1), (b"n\n", 1), (b"y\n", 0)])
def test_an_answer_is_an_exit_code(tmp_path: Path, typed: bytes, code: int) -> None:
    """Ctrl-C ended with 1, "something is missing": a script took it for a folder that is not complete."""
    ours, theirs = pty.openpty()
    words = ("prepare", "--benchmark", "tests.toy", "--data-dir", tmp_path)
    with subprocess.Popen([sys.executable, "-c", AT_A_TERMINAL, *words], cwd=CHECKOUT, stdin=theirs) as process:
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1000)
        try:
            for _ in range(int(PATIENCE_S)):
                # Again each second, as whoever sees nothing happen does: input() misses a signal between prompt and read
                os.write(ours, typed)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    break
            assert process.poll() == code, said
        finally:
            process.kill()  # else leaving the block waits for one that does not end
    os.close(ours)
