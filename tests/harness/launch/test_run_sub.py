"""docker/run.sub: MLPerf's inputs as the harness's options, seen by a stand-in for Python. test_slurm.py runs it by sbatch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.cli import environment
from tests.conftest import CHECKOUT

PYTHON = """#!/bin/sh
printf '%s\\n' "$PYTHONPATH" "$@" > "{seen}"
"""


def submit(
    tmp_path: Path,
    *jobs: tuple[int, str | Path],
    submit_line: str = "",
    options: tuple[str, ...] = (),
    away: int = 0,
    **given: str,
) -> subprocess.CompletedProcess[str]:
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    script = CHECKOUT / "docker" / "run.sub"
    jobs = jobs or ((41, script),)
    known = "".join(f"JobId={number} JobName=ssd Command={path}{submit_line} WorkDir=/\n" for number, path in jobs)
    (tmp_path / "known").write_text(known)
    for name, text in (
        (
            "scontrol",
            f"#!/bin/sh\necho >> {tmp_path}/asked; [ $(wc -l < {tmp_path}/asked) -gt {away} ] && cat {tmp_path}/known",
        ),
        ("sleep", "#!/bin/sh\n"),
        ("python", PYTHON.format(seen=tmp_path / "seen")),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    plain = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": str(tools / "python"), "SLURM_JOB_ID": "41", **given}
    copied = tmp_path / "slurm_script"  # as slurmd makes it
    copied.write_text(script.read_text())
    return subprocess.run(
        ["bash", str(copied), *options], env=plain, cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_every_input_reaches_the_harness(tmp_path: Path) -> None:
    given = {
        **{"CONT": "site/ssd:1", "DGXSYSTEM": "x", "LOGDIR": "/logs", "NEXP": "3", "SEED": "7", "SYSTEM": "s"},
        **{
            "DATADIR": "/raid/coco",
            "BACKBONE_DIR": "/raid/r34.pth",
            "WATCHDOG": "9",
            "CLEAR_CACHES": "0",
            "RESUME": "1",
        },
    }
    finished = submit(tmp_path, **given)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "seen").read_text().splitlines() == [
        *(str(CHECKOUT), "-P", "-m", "harness", "run", "x", "--engine", "slurm", "--trials", "3", "--out", "/logs"),
        *("--image", "site/ssd:1", "--data-dir", "/raid/coco", "--initial-weights", "/raid/r34.pth", "--seed", "7"),
        *("--system", "s", "--watchdog", "9", "--no-clear-caches", "--resume"),
    ]


def test_the_defaults_that_submitters_know(tmp_path: Path) -> None:
    assert submit(tmp_path, DGXSYSTEM="x").returncode == 0
    words = (tmp_path / "seen").read_text().splitlines()[5:]
    assert words == ["x", "--engine", "slurm", "--trials", "5", "--out", str(tmp_path / "results")]


def test_a_job_that_was_requeued_goes_on_with_its_series(tmp_path: Path) -> None:
    """Preempted, or its node failed: Slurm runs the script again as it was, and nobody is there to say RESUME=1."""
    assert submit(tmp_path, DGXSYSTEM="x", SLURM_RESTART_COUNT="1").returncode == 0
    assert (tmp_path / "seen").read_text().splitlines()[-1] == "--resume"


def test_a_controller_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    """A requeued job ended at once with 1, as one whose trial missed its target does."""
    assert submit(tmp_path, DGXSYSTEM="x", away=3).returncode == 0
    assert len((tmp_path / "asked").read_text().splitlines()) == 4
    finished = submit(tmp_path, DGXSYSTEM="x", away=100)
    assert finished.returncode == 6 and "submit this again when it does, with RESUME=1" in finished.stderr


def test_each_task_of_an_array_is_a_series_of_its_own(tmp_path: Path) -> None:
    """The last one to begin has the array's number, for which Slurm shows all of its tasks."""
    script = CHECKOUT / "docker" / "run.sub"
    tasks = ((43, "/elsewhere/docker/run.sub"), (41, script), (42, "/elsewhere/docker/run.sub"))
    finished = submit(tmp_path, *tasks, DGXSYSTEM="x", LOGDIR="/logs", SLURM_ARRAY_TASK_ID="3")
    assert finished.returncode == 0, finished.stderr
    words = (tmp_path / "seen").read_text().splitlines()
    assert (words[0], words[-1]) == (str(CHECKOUT), "/logs/task_3")


def test_a_newer_slurm_shows_how_the_job_was_submitted_too(tmp_path: Path) -> None:
    """Between Command= and WorkDir=, which was taken for a part of the script's path."""
    script = CHECKOUT / "docker" / "run.sub"
    for submitted in (
        "sbatch -N 1 docker/run.sub",
        "sbatch --comment='a WorkDir=/b Command=/c SubmitLine=/d' docker/run.sub",
    ):
        jobs = ((410, "/elsewhere/docker/run.sub"), (41, script), (42, "/elsewhere/docker/run.sub"))
        finished = submit(tmp_path, *jobs, submit_line=f" SubmitLine={submitted}", DGXSYSTEM="x")
        assert finished.returncode == 0, finished.stderr
        assert (tmp_path / "seen").read_text().splitlines()[0] == str(CHECKOUT)


def test_a_script_that_sbatch_leaves_relative_is_found_where_it_was_submitted(tmp_path: Path) -> None:
    finished = submit(tmp_path, (41, "docker/run.sub"), DGXSYSTEM="x", SLURM_SUBMIT_DIR=str(CHECKOUT))
    assert finished.returncode == 0, finished.stderr


def test_a_link_to_the_script_is_the_script(tmp_path: Path) -> None:
    (tmp_path / "job").symlink_to(CHECKOUT / "docker" / "run.sub")
    assert submit(tmp_path, (41, tmp_path / "job"), DGXSYSTEM="x").returncode == 0
    assert (tmp_path / "seen").read_text().splitlines()[0] == str(CHECKOUT)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    finished = submit(tmp_path)
    assert finished.returncode == 2 and "DGXSYSTEM is not set" in finished.stderr
    finished = submit(tmp_path, DGXSYSTEM="x", SLURM_JOB_ID="")
    assert finished.returncode == 2 and "sbatch docker/run.sub" in finished.stderr


@pytest.mark.parametrize("name", ["RESUME", "CLEAR_CACHES"])
def test_what_is_neither_yes_nor_no_is_refused(tmp_path: Path, name: str) -> None:
    """RESUME=yes was no, and the series was refused for having begun; CLEAR_CACHES=no was yes."""
    finished = submit(tmp_path, DGXSYSTEM="x", **{name: "yes"})
    assert (finished.returncode, finished.stderr) == (2, f"{name}=yes: 1 or 0 is needed\n")
    assert not (tmp_path / "seen").exists()
    assert submit(tmp_path, DGXSYSTEM="x", **{name: ""}).returncode == 0, "as left out"


@pytest.mark.parametrize("shown", ["", " --max-steps 20 --org 'Ada & Co'"], ids=["older Slurm", "newer Slurm"])
def test_options_reach_the_harness(tmp_path: Path, shown: str) -> None:
    """They were dropped without a word; a newer Slurm shows them behind the script's path, which may have spaces itself."""
    (tmp_path / "a b").symlink_to(CHECKOUT)
    job = (41, f"{tmp_path / 'a b' / 'docker' / 'run.sub'}{shown}")
    finished = submit(tmp_path, job, options=("--max-steps", "20", "--org", "Ada & Co"), DGXSYSTEM="x", RESUME="0")
    assert finished.returncode == 0, finished.stderr
    words = (tmp_path / "seen").read_text().splitlines()
    assert words[0] == str(CHECKOUT)
    assert words[-4:] == ["--max-steps", "20", "--org", "Ada & Co"]


def test_no_variable_of_its_own_looks_like_a_mistake() -> None:
    names = (
        "CONT",
        "DGXSYSTEM",
        "DATADIR",
        "BACKBONE_DIR",
        "LOGDIR",
        "NEXP",
        "SEED",
        "SYSTEM",
        "WATCHDOG",
        "PYTHON",
        "RESUME",
    )
    assert environment.lookalikes(dict.fromkeys(names, "x")) == []
