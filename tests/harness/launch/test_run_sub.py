"""docker/run.sub: how it asks Slurm for trials, seen by a stand-in for srun. No cluster has run it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import CHECKOUT

SRUN = """#!/bin/bash
printf '%s\\n' "$@" "MASTER=$MASTER_ADDR:$MASTER_PORT LOCAL_WORLD_SIZE=$LOCAL_WORLD_SIZE" >> "$SEEN"
exit "${CODES%% *}"
"""
PYTHON = """#!/bin/bash
echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $*"
"""


def submit(tmp_path: Path, code: int, **environment: str) -> tuple[int, list[str]]:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho node7\necho node8\n"), ("python", PYTHON)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    plain = {
        **{"PATH": f"{tools}:{os.environ['PATH']}", "SEEN": str(tmp_path / "seen"), "CODES": str(code)},
        **{"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NTASKS_PER_NODE": "8"},
        **{"CONT": "site/ssd:1", "DGXSYSTEM": "x", "LOGDIR": str(tmp_path / "logs"), "NEXP": "3", **environment},
    }
    command = ["bash", str(CHECKOUT / "docker" / "run.sub")]
    finished = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    return finished.returncode, (tmp_path / "seen").read_text().splitlines()


def test_each_trial_is_one_srun_with_its_own_number_and_seed(tmp_path: Path) -> None:
    code, seen = submit(tmp_path, 0, DATADIR="/raid/coco", BACKBONE_DIR="/raid/r34.pth")
    assert code == 0
    assert seen.count("--container-image=site/ssd:1") == 3
    mounts = f"--container-mounts={tmp_path / 'logs'}:/results,/raid/coco:/data:ro,/raid/r34.pth:/weights/r34.pth:ro"
    assert seen.count(mounts) == 3
    assert [seen[i + 1] for i, word in enumerate(seen) if word == "--number"] == ["0", "1", "2"]
    assert len({seen[i + 1] for i, word in enumerate(seen) if word == "--seed"}) == 3
    assert seen.count("MASTER=node7:20041 LOCAL_WORLD_SIZE=8") == 3


def test_tasks_are_ranks(tmp_path: Path) -> None:
    _, seen = submit(tmp_path, 0, NEXP="1")
    start = seen.index("bash")
    command = [*seen[start : seen.index("MASTER=node7:20041 LOCAL_WORLD_SIZE=8")]]
    task = {"SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16", "LOCAL_WORLD_SIZE": "8"}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    said = subprocess.run(command, env={**task, "PATH": path}, capture_output=True, text=True, check=True).stdout
    assert said.startswith("9 1 16 8 -m harness run x --out /results --number 0 --seed ")


def test_what_stands_for_all_trials_ends_the_job(tmp_path: Path) -> None:
    code, seen = submit(tmp_path, 6)
    assert code == 6
    assert seen.count("--number") == 1


def test_numbers_go_on_after_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "result_0.txt").touch()
    code, seen = submit(tmp_path, 1, NEXP="2")
    assert code == 1
    assert [seen[i + 1] for i, word in enumerate(seen) if word == "--number"] == ["1", "2"]
