"""`python -m harness run --trials` as a user types it, with the toy benchmark as local processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from harness import config
from harness.cli.trials import _code, one_name, run_trials, unseen_in_containers
from harness.contract import NotSuitable
from harness.launch import engine, image_code, ledger
from harness.launch.container import ContainerLauncher
from harness.launch.container_spec import Mount
from harness.launch.trial import Order
from harness.names import of_platform
from harness.request import Request, check_inputs
from harness.results import logfile
from harness.results.sources import Code
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import harness as run
from tests.patience import SILENCE_S
from tests.toy import configuration as toy


def harness(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *(str(word) for word in words)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_a_trial_of_a_true_run(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    finished = harness("run", path, "--trials", 1, "--out", tmp_path / "out", "--seed", 5, "--no-clear-caches")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    record = json.loads((folder / "result_0.json").read_text())
    assert (record["status"], record["seed"], record["demonstration"]) == ("success", 5, True)
    assert record["configuration_sha256"] == config.load(path).sha256
    assert record["configuration"] == config.load(path).resolved
    assert record["software"]["python"] and record["hardware"]
    assert "trial 0 | target met" in finished.stdout
    assert Code.of(logfile.read(folder / "result_0.txt")) == _code("tests.toy"), "what the next trial is held against"
    again = harness("run", path, "--trials", 1, "--out", tmp_path / "out", "--no-clear-caches")
    assert again.returncode == 2
    assert "add --resume to go on with it" in again.stderr


def test_no_single_run_goes_into_the_folder_of_a_series_that_runs(tmp_path: Path) -> None:
    """It took the number of the next trial, and the series ended there."""
    path = toy.write(tmp_path, toy.raw())
    with ledger.opened(tmp_path):
        refused = run("run", path, "--out", tmp_path)
        assert refused.returncode == 2 and f"{tmp_path}: a series is running there" in refused.stderr, refused.stderr
    assert not list(tmp_path.glob("result_*"))
    assert run("run", path, "--out", tmp_path).returncode == 0


def test_a_configuration_that_is_a_link_has_one_name(tmp_path: Path) -> None:
    """The ledger had the link's, and the logs of its trials that of what it leads to."""
    (tmp_path / "mine.toml").symlink_to(toy.write(tmp_path, toy.raw()))
    finished = run("run", tmp_path / "mine.toml", "--trials", 1, "--out", tmp_path / "out", "--no-clear-caches")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    (series,) = ledger.Account.read(folder / ledger.FILE).series
    assert series["configuration_name"] == "mine"
    assert json.loads((folder / "result_0.json").read_text())["configuration_name"] == "mine"


@pytest.mark.parametrize(
    ("fate", "status", "reason", "code"),
    [
        ("cannot warm up", "failed", "exit code 5; RuntimeError: the toy broke", 5),
        ("bad data", "refused", "the folder has 7 numbers", 2),
    ],
)
def test_a_trial_that_never_began_is_entered_by_the_name_that_its_log_has(
    tmp_path: Path, fate: str, status: str, reason: str, code: int
) -> None:
    path = toy.write(tmp_path, toy.raw(fate))
    finished = run("run", path, "--trials", 1, "--out", tmp_path / "out", "--no-clear-caches")
    assert finished.returncode == code, finished.stdout + finished.stderr
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    (attempt,) = ledger.Account.read(folder / ledger.FILE).attempts
    assert attempt.end is not None and attempt.status == status and attempt.end["reason"].startswith(reason)
    assert attempt.end["log"] == "refused_0.txt"
    assert attempt.end["log_sha256"] == ledger.sha256(folder / "refused_0.txt")
    assert json.loads((folder / "refused_0.json").read_text())["log"] == "refused_0.txt"
    assert re.search(rf"^  trial 0  {status} .* refused_0\.txt$", finished.stdout, re.MULTILINE), finished.stdout
    assert not list(folder.glob("result_*"))


@pytest.mark.long
def test_trials_of_so_many_steps(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    options = ("--trials", 1, "--out", tmp_path / "out", "--no-clear-caches")
    finished = harness("run", path, *options, "--max-steps", 1)  # before any evaluation
    assert finished.returncode == 1, finished.stdout + finished.stderr
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    ends = [each.end for each in ledger.Account.read(folder / ledger.FILE).attempts]
    assert [(end["status"], end["reason"]) for end in ends if end is not None] == [
        ("target_not_met", "steps spent: 1 of --max-steps 1, target 0.25")
    ]
    assert json.loads((folder / "result_0.json").read_text())["max_steps"] == 1
    other = harness("run", path, *options, "--max-steps", 2, "--resume")
    assert other.returncode == 2 and "a series does the same work each time" in other.stderr
    again = harness("run", path, *options, "--max-steps", 1, "--resume")
    assert again.returncode == 1 and "trial 0: has its result already" in again.stdout


def test_trials_in_containers_are_told_how_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    mounts: list[Mount] = []

    def looked_at(launcher: ContainerLauncher, order: Order, *_: Any, **__: Any) -> None:
        chosen = launcher.spec(order, launcher.reference)
        words.extend(chosen.command)
        mounts.extend(chosen.mounts)
        raise NotSuitable("seen enough")

    monkeypatch.setattr(engine, "connect", lambda: SimpleNamespace(info=dict, version=dict))
    monkeypatch.setattr(engine, "image", lambda client, name: SimpleNamespace(id="sha256:1"))
    monkeypatch.setattr(engine, "remove_leftovers", lambda client: [])
    monkeypatch.setattr(image_code, "must_be_alike", looked_at)
    path = toy.write(tmp_path, toy.raw())
    asked = Request(configuration=str(path), trials=1, out=tmp_path, image="ssd", cache_dir=tmp_path / "cache")
    for max_steps in (200, None):
        with pytest.raises(NotSuitable, match="seen enough"):
            run_trials(config.load(path), replace(asked, max_steps=max_steps))
        assert words
        assert ("--max-steps 200" in " ".join(words)) == (max_steps == 200)
        words.clear()
    # one for all trials, and not the one of runs outside, which remembers the same data set by another path
    assert Mount(tmp_path / "cache/containers", PurePosixPath("/cache"), read_only=False) in mounts
    (tmp_path / "cache/containers").chmod(0o777)
    with pytest.raises(NotSuitable, match="seen enough"):
        run_trials(config.load(path), asked)
    assert "--cache-dir" not in words, "what others may write in is not trusted"


def test_links_that_lead_out_of_the_data_are_said_for_containers(tmp_path: Path) -> None:
    """On this machine they are seen: what a trial then lacked, as /data/train, was there for whoever looked."""
    data, disk = tmp_path / "data", tmp_path / "disk"
    for folder in (data / "val", disk):
        folder.mkdir(parents=True)
    (data / "also").symlink_to("val")
    (data / "train").symlink_to("../disk")
    (tmp_path / "link").symlink_to(data)
    (data / "whole").symlink_to(data / "val")  # in the data, and by a name that is the host's
    said, absolute = unseen_in_containers(tmp_path / "link")
    assert f"whole is a link to {data}/val, " in absolute and "make the link relative" in absolute
    assert f"train is a link to {disk}, which a container does not see" in said
    assert not list(unseen_in_containers(None)) and not list(unseen_in_containers(tmp_path / "on the nodes"))


@pytest.mark.long
def test_the_rank_that_hangs_is_named_in_the_ledger(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw("rank 1 hangs", ranks=3))
    options = ("--trials", 1, "--watchdog", SILENCE_S, "--out", tmp_path / "out", "--no-clear-caches")
    finished = harness("run", path, *options)
    assert finished.returncode == 5, finished.stdout + finished.stderr
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    (attempt,) = ledger.Account.read(folder / ledger.FILE).attempts
    assert attempt.end is not None and attempt.status == "stalled"
    assert "rank 1 hangs at " in attempt.end["reason"] and "in train_epoch" in attempt.end["reason"]
    assert "tests/toy/__init__.py" in attempt.end["reason"] and "rank 0" not in attempt.end["reason"]


@pytest.mark.long
def test_a_run_of_two_ranks_that_hangs_leaves_both_stacks(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw("sleeps", ranks=2))
    options = ("--trials", 1, "--watchdog", SILENCE_S, "--out", tmp_path / "out", "--no-clear-caches")
    assert harness("run", path, *options).returncode == 5
    folder = tmp_path / "out" / "1x_abacus" / "toy"
    log = (folder / "result_0.txt").read_text()
    assert log.count(" in train_epoch\n") == 2
    assert '"status": "aborted"' in log[log.index(" in train_epoch\n") :]
    assert [each.status for each in ledger.Account.read(folder / ledger.FILE).attempts] == ["stalled"]


def test_what_is_to_be_mounted_must_be_there(tmp_path: Path) -> None:
    check_inputs(Request(), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no such folder"):
        check_inputs(Request(data_dir=tmp_path / "absent"), None)
    (tmp_path / "data.zip").touch()
    with pytest.raises(ValueError, match=r"data\.zip: is a file, and a folder is needed"):
        check_inputs(Request(data_dir=tmp_path / "data.zip"), None)
    with pytest.raises(
        ValueError, match=r"the folder is empty; is its disk mounted.*prepare --benchmark toy --data-dir "
    ):
        check_inputs(Request(data_dir=tmp_path / "empty"), "--benchmark toy")
    with pytest.raises(ValueError, match=r"is its disk mounted\?$"):
        check_inputs(Request(data_dir=tmp_path / "empty"), None)
    with pytest.raises(ValueError, match=r"--initial-weights .*: there is no such file"):
        check_inputs(Request(initial_weights=tmp_path / "empty"), None)


def test_several_nodes_are_slurms_matter(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw(nodes=2))
    with pytest.raises(ValueError, match=r"run\.nodes = 2, .* --engine slurm"):
        run_trials(config.load(path), Request(configuration=str(path), trials=1, out=tmp_path))


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("8x NVIDIA A100-SXM4-40GB", "8x_nvidia_a100-sxm4-40gb"),
        ("../../etc", "etc"),
        ("2 Kerne, ältere CPU", "2_kerne_ltere_cpu"),
        ("天", "system"),
    ],
)
def test_a_platforms_folder(platform: str, folder: str) -> None:
    assert of_platform(platform) == folder


@pytest.mark.parametrize("system", ["../../x", "a/b", "..", ".", ""])
def test_results_never_leave_out(system: str) -> None:
    assert one_name("--system", "dgx a100+") == "dgx a100+"
    with pytest.raises(ValueError, match="a name under --out is needed, without a slash"):
        one_name("--system", system)
