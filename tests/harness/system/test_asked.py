"""What answers a question may print more than its answer, or none: no verb ends for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from harness.system import asked


@pytest.mark.parametrize(
    "code",
    [
        "print('{\"a\": 1}')",
        "import atexit; atexit.register(print, 'the extension says goodbye'); print('{\"a\": 1}')",
        "import sys; sys.stdout.buffer.write(b'\\xff loaded\\n{\"a\": 1}\\n')",
    ],
)
def test_the_answer_is_found(code: str) -> None:
    assert asked.answer([sys.executable, "-c", code], 60, late="late", dead="it") == {"a": 1}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('no answer')", "it ended with 0: no answer"),
        ("print('[1]')", r"it ended with 0: \[1\]"),
        ("raise SystemExit('broken')", "it ended with 1: broken"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with -9: no message"),
    ],
)
def test_there_is_none(code: str, said: str) -> None:
    with pytest.raises(asked.NoAnswer, match=said):
        asked.answer([sys.executable, "-c", code], 60, late="late", dead="it")


def test_it_comes_late() -> None:
    with pytest.raises(asked.Late, match="late within 1 s"):
        asked.answer([sys.executable, "-c", "import time; time.sleep(60)"], 1, late="late", dead="it")


def test_it_hangs_where_no_signal_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a driver's call: asking waited for its end, and with it the verb, for ever."""
    killed: list[subprocess.Popen[str]] = []

    def in_vain(process: subprocess.Popen[str]) -> None:
        killed.append(process)

    monkeypatch.setattr(subprocess.Popen, "kill", in_vain)
    monkeypatch.setattr(asked, "KILLED_S", 0.1)
    try:
        with pytest.raises(asked.Late, match=r"late within 0\.1 s"):
            asked.answer([sys.executable, "-c", "import time; time.sleep(600)"], 0.1, late="late", dead="it")
        assert killed[0].poll() is None, "it still hangs"
    finally:
        os.kill(killed[0].pid, signal.SIGKILL)
        killed[0].wait()
