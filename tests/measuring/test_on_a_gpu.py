"""The script that asks a GPU: what is wrong is said before it measures, and an interruption ends it with what it began."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.detection.data_path import nvjpeg
from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S
from tests.ssd import small
from tests.toy.configuration import write

SCRIPT = CHECKOUT / "measuring/on_a_gpu.sh"
# In place of Python: a machine that has everything, on which every part says what it is, and hangs where `hangs` is there
STANDIN = """#!/usr/bin/env bash
[[ $1 == -c ]] && exit 0
echo "asked: $*"
if [[ -e $HERE/hangs ]]; then
    trap 'kill $!; echo told to end; exit 130' INT
    sleep 600 &
    touch "$HERE/begun"
    wait
fi
[[ -e $HERE/orphan ]] && (setsid sh -c 'while [ -e "$0/orphan" ]; do sleep 0.1; done' "$HERE" &)
[[ $* == *'--only fused'* ]] && exit 1
exit 0
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "data").mkdir()
    (python := tmp_path / "bin/python").write_text(STANDIN)
    python.chmod(0o755)
    return tmp_path


def begun(place: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """From `place`, with names as somebody types them there."""
    told = {"DATA": "data", "PYTHON": "bin/python", "OUT": "out", "HERE": str(place), **more}
    return subprocess.Popen(
        [str(SCRIPT), *words],
        cwd=place,
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (["H100_1x1x256", "turns,fused"], {}, "there is no part turns,fused; one or more of correct turns"),
        (["H100_1x1x256", ""], {}, "no part is named; one or more of correct turns"),
        ([], {"DATA": ""}, "DATA=FOLDER names a folder"),
        ([], {"PYTHON": "/nowhere/python"}, "/nowhere/python: No such file"),
    ],
)
def test_what_cannot_be_asked(place: Path, words: list[str], more: dict[str, str], said: str) -> None:
    """A part that does not exist was none, and success; DATA from another folder was not found after two minutes."""
    out, err = (run := begun(place, *words, **more)).communicate()
    assert (run.returncode, out) == (2, "") and said in err


def test_what_python_lacks_is_named_for_the_parts_that_need_it(place: Path) -> None:
    """In an environment of run.lock alone three parts of seven failed, each in the middle of a lease."""
    for module in ("xdist", "torch"):
        (place / f"{module}.py").write_text(f"raise ImportError('there is no {module}')")
    for parts, said in (
        ([], "correct, kernels, tests run with (requirements/dev.lock): there is no xdist"),
        (["kernels", "turns"], "kernels run with (requirements/dev.lock): there is no xdist"),
        (["turns", "end_to_end", "fused", "parts"], "(requirements/run.lock): there is no torch"),
    ):
        run = begun(place, "H100_1x1x256", *parts, PYTHON=sys.executable, PYTHONPATH=str(place))
        out, err = run.communicate()
        assert (run.returncode, out) == (2, "") and said in err


@pytest.mark.parametrize("module", ["mlperf_logging", "hotcoco", "pydantic"])
def test_what_a_run_needs_too_is_missed_at_once(place: Path, module: str) -> None:
    """The run itself said it after its step was compiled, or the look beforehand ended with a traceback."""
    (place / f"{module}.py").write_text(f"raise ImportError('there is no {module}')")
    run = begun(place, "H100_1x1x256", "end_to_end", PYTHON=sys.executable, PYTHONPATH=str(place))
    out, err = run.communicate()
    assert (run.returncode, out) == (2, "")
    assert err.startswith("error: ") and f"(requirements/run.lock): there is no {module}" in err, err


def test_which_nvjpeg_decodes_is_said_before_anything_is_measured(place: Path) -> None:
    """Of an older one a lease measured whole pictures, and nothing said so."""
    if not (installed := nvjpeg.installed()):
        pytest.skip("needs nvidia-nvjpeg")
    small.folder(place / "data")
    path = write(place, small.content(model=small.OF_32_PX, data={"backend": "dali"}), "small")
    with_a_gpu(place, "from benchmarks.detection.data_path import nvjpeg", "nvjpeg.RIGHT_EDGES = (99, 0)")
    out, err = (run := begun(place, str(path), "turns", PYTHONPATH=str(place))).communicate()
    assert run.returncode == 0, err
    version = ".".join(map(str, nvjpeg.version(str(installed[0]))))
    assert f"nvJPEG {version} {installed[0].resolve()}\n" in out
    assert f"decode is not as configured: whole pictures: nvJPEG {version} is loaded" in out.partition("== turns")[0]


@pytest.mark.parametrize("missing", ["cudnn", "matplotlib", "nvidia.dali"])
def test_what_is_missing_keeps_no_part_from_being_measured_that_goes_without(place: Path, missing: str) -> None:
    """Nothing but parts of compute.fused is computed by cuDNN's graphs, and the whole lease was refused without them."""
    small.folder(place / "data")
    path = write(place, small.content(model=small.OF_32_PX, data={"backend": "dali"}), "small")
    # as where it is not installed: by its finder's word too
    with_a_gpu(
        place,
        "import importlib.util",
        f"find, sys.modules[{missing!r}] = importlib.util.find_spec, None",
        f"importlib.util.find_spec = lambda name, *more: None if name == {missing!r} else find(name, *more)",
    )
    out, err = (run := begun(place, str(path), "turns", "kernels", PYTHONPATH=str(place))).communicate()
    if missing != "nvidia.dali":
        assert run.returncode == 0 and "\n== kernels" in out, err
        name, lost = {
            "cudnn": ("its graphs", "tests of them and convolutions of compute.fused"),
            "matplotlib": ("matplotlib", "charts"),
        }[missing]
        assert f"{name}: missing (" in out and f": without {lost}" in out
    else:
        assert (run.returncode, out) == (2, "") and "error: turns cannot be measured here: " in err
        assert 'backend = "torch"' in err and "or name other parts" in err
        out, err = (run := begun(place, str(path), "kernels", PYTHONPATH=str(place))).communicate()
        assert run.returncode == 0 and "DALI: missing (" in out, err


def test_accuracy_of_fp32_itself_is_refused_before_anything_is_measured(place: Path) -> None:
    small.folder(place / "data")
    path = write(place, small.content(model=small.OF_32_PX, compute={"precision": "fp32"}), "small")
    with_a_gpu(place)
    out, err = (run := begun(place, str(path), "accuracy", PYTHONPATH=str(place))).communicate()
    assert (run.returncode, out) == (2, "") and "accuracy is compared with fp32's" in err


def with_a_gpu(place: Path, *first: str) -> None:
    """What is looked at beforehand is looked at by this Python, for which there is one; parts are the stand-in's still."""
    says = (
        *("torch.cuda.is_available = lambda: True", "torch.cuda.get_device_name = lambda *_: 'H100'"),
        "torch.backends.cudnn.version = lambda: 92400",
    )
    words = ("import sys, torch", f"sys.path.append({str(CHECKOUT)!r})", *says, *first)
    (place / "sitecustomize.py").write_text("\n".join(words))
    (python := place / "bin/python").write_text(
        STANDIN.replace("exit 0\n", f'exec {shlex.quote(sys.executable)} "$@"\n', 1)
    )
    assert python.read_text() != STANDIN


def test_each_part_is_shown_kept_and_judged(place: Path) -> None:
    out, _ = (run := begun(place, "mine.toml", "fused", "turns", "tests")).communicate()
    assert run.returncode == 1, "fused failed, and kept no other from being measured"
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("==")] == [
        "== turns",
        "== fused",
        "== tests",
    ]
    for part in ("turns", "fused"):
        kept = (place / f"out/{part}.txt").read_text()
        assert kept in out and f"measuring.ssd mine.toml --data-dir {place}/data --only {part}" in kept
    out, _ = (run := begun(place, "mine.toml", "turns", "accuracy")).communicate()
    assert run.returncode == 0
    assert "--only accuracy --budget 210 --rounds 3" in out and "accuracy.png --batch-size 64\n" in out


def test_a_process_that_a_part_left_behind_is_not_waited_for(place: Path) -> None:
    """It holds the part's output, and with it a limit was none: the lease ended before the next part began."""
    (place / "orphan").touch()
    run = begun(place, "mine.toml", "turns", "end_to_end")
    try:
        out, err = run.communicate(timeout=PATIENCE_S)
    finally:
        (place / "orphan").unlink()  # which they live for
    assert run.returncode == 1 and out.count("asked: ") == 2 and "turns left a process behind" in err
    assert "asked: " in (place / "out/turns.txt").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_runs_and_begins_nothing_else(place: Path, how: signal.Signals) -> None:
    """`timeout` is in a group of its own, which a terminal's Ctrl-C does not reach: the part went on without anybody."""
    (place / "hangs").touch()
    run = begun(place, "mine.toml", "turns", "fused")
    while not (place / "begun").exists():
        time.sleep(0.05)
    run.send_signal(how)
    out, _ = run.communicate()
    assert run.returncode == 130 and "told to end" in out and "== fused" not in out
