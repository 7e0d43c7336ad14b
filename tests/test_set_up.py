"""run_and_time.sh and requirements/set_up.sh as a user starts them, with a stand-in for Python and pip: nothing is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

# Writes down the steps that were asked for. Its environments are copies of it; DIES_IN kills set-up within a step
PYTHON = """#!/bin/sh
environment=$(dirname "$0")/..
packages=lib/python3.11/site-packages
case "$*" in
    *satisfied.py*cuda12.lock) [ -e "$environment/older" ] ;;
    *satisfied.py*) [ -e "$environment/whole" ] ;;
    *'version("pip")'*) [ -e "$environment/$packages/pip.dist-info" ] ;;
    -c*) ;;
    "-m venv "*)
        echo venv >> "$SEEN"
        if [ -n "$FULL" ]; then echo "No space left on device"; exit 1; fi
        for folder; do :; done
        mkdir -p "$folder/bin" "$folder/$packages/pip.dist-info"
        cp "$0" "$folder/bin/python"
        if [ "$DIES_IN" = venv ]; then kill -KILL $PPID; exit; fi
        touch "$folder/$packages/pip.dist-info/INSTALLER" ;;
    "-m pip install "*)
        echo install >> "$SEEN"
        while [ -e "$SEEN.wait" ]; do sleep 0.02; done
        torch=$environment/$packages/torch.dist-info
        if [ -e "$torch" ]; then exit; fi # installed already, says pip
        mkdir "$torch"
        touch "$environment/whole" # by its metadata
        if [ "$DIES_IN" = pip ]; then kill -KILL $PPID; exit; fi
        touch "$torch/INSTALLER" ;;
    "-P -m harness run"*) printf '%s\\0' "$PYTHONPATH" "$@" > "$SEEN.run" ;;
    *) echo "nobody expected $*" >&2; exit 99 ;;
esac
"""
KILLED = -9


@dataclass
class Checkout:
    """A checkout without an environment, in a folder with the stand-in."""

    root: Path
    beside: Path

    def begin(self, *words: str | Path, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        environment = {"PATH": f"{self.beside}/bin:{os.environ['PATH']}", "SEEN": f"{self.beside}/seen", **more}
        return subprocess.Popen(
            words or [self.root / "run_and_time.sh"],
            env=environment, cwd=cwd or self.beside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *words: str | Path, cwd: Path | None = None, **more: str) -> tuple[int, str]:
        """Exit code, and what was said."""
        begun = self.begin(*words, cwd=cwd, **more)
        said, _ = begun.communicate()
        return begun.returncode, said

    def steps(self) -> list[str]:
        return (self.beside / "seen").read_text().splitlines()

    def started(self) -> list[str]:
        """PYTHONPATH and the words of the run that was started."""
        return (self.beside / "seen.run").read_text().split("\0")[:-1]


def made(folder: Path, name: str) -> Checkout:
    root = folder / name
    root.mkdir()
    shutil.copy2(CHECKOUT / "run_and_time.sh", root)
    shutil.copytree(CHECKOUT / "requirements", root / "requirements")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    # or that of an active environment would be found, which has everything
    (folder / "bin" / "python").symlink_to("python3")
    return Checkout(root, folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return made(tmp_path, "checkout")


def test_it_installs_once_and_runs_with_that(checkout: Checkout) -> None:
    code, said = checkout.run(checkout.root / "run_and_time.sh", "embedded", "--seed", "7")
    assert code == 0, said
    assert checkout.started() == [str(checkout.root), *("-P", "-m", "harness", "run", "embedded", "--seed", "7")]
    assert checkout.run() == (0, "")
    assert checkout.steps() == ["venv", "install"]


@pytest.mark.parametrize("name", ["a checkout", "-n", "a\nline", "ends\n", "$(false) `false` ' \" * \\"])
def test_the_checkout_may_have_any_name(tmp_path: Path, name: str) -> None:
    there = made(tmp_path, name)
    code, said = there.run("bash", "run_and_time.sh", "x", cwd=there.root)
    assert (code, there.steps(), there.started()[0]) == (0, ["venv", "install"], str(there.root)), said


def test_a_name_that_python_cannot_have_on_its_path_is_said(tmp_path: Path) -> None:
    there = made(tmp_path, "at 10:30")
    code, said = there.run()
    assert code == 2 and "at 10:30: " in said and "a colon" in said


def test_a_link_to_the_script_is_the_script(checkout: Checkout) -> None:
    (checkout.beside / "train").symlink_to("checkout/run_and_time.sh")
    code, said = checkout.run("./train")
    assert (code, checkout.started()[0]) == (0, str(checkout.root)), said


def test_another_folder_of_that_name_is_not_taken_for_it(checkout: Checkout) -> None:
    """cd looks for names without a slash in the folders of CDPATH first, and prints what it found there."""
    shutil.copytree(checkout.root, checkout.beside / "elsewhere" / "checkout")
    for path in (".", f"{checkout.beside}/elsewhere"):
        code, said = checkout.run("bash", "checkout/run_and_time.sh", CDPATH=path)
        assert (code, checkout.started()[0]) == (0, str(checkout.root)), said


def test_a_package_of_results_takes_it_by_a_relative_path(checkout: Checkout) -> None:
    """Its init_datasets.sh goes into the implementation's folder first."""
    script = '. ./requirements/set_up.sh; set_up requirements/run.lock; printf "python: %s" "$python"'
    code, said = checkout.run("bash", "-euc", script, cwd=checkout.root)
    assert code == 0 and said.endswith(f"python: {checkout.root}/.venv/bin/python"), said


def test_of_two_beside_each_other_one_installs_and_the_other_waits_for_it(checkout: Checkout) -> None:
    wait = checkout.beside / "seen.wait"
    wait.touch()
    first = checkout.begin()
    assert first.stdout and first.stdout.readline().startswith("set-up: installing")
    second = checkout.begin()
    assert second.stdout and "waiting for it" in second.stdout.readline()
    wait.unlink()
    assert (first.wait(), second.wait(), checkout.steps()) == (0, 0, ["venv", "install"])
    assert "installing" not in second.stdout.read()
    first.stdout.close()
    second.stdout.close()


@pytest.mark.parametrize(
    ("where", "steps"), [("venv", ["venv", "venv", "install"]), ("pip", ["venv", "install", "install"])]
)
def test_what_a_kill_left_half_is_made_whole(checkout: Checkout, where: str, steps: list[str]) -> None:
    """Without pip, of which nothing could be installed any more; or with a package whose metadata alone are there."""
    assert checkout.run(DIES_IN=where)[0] == KILLED
    code, said = checkout.run()
    assert (code, checkout.steps()) == (0, steps), said
    assert (checkout.root / ".venv/lib/python3.11/site-packages/torch.dist-info/INSTALLER").exists()
    assert checkout.run() == (0, "")


def test_an_active_environment_that_a_kill_left_half_is_no_other_python(checkout: Checkout) -> None:
    assert checkout.run(DIES_IN="pip")[0] == KILLED
    half = checkout.root / ".venv" / "bin"
    shutil.copy2(half / "python", half / "python3")
    code, said = checkout.run(PATH=f"{half}:{checkout.beside}/bin:{os.environ['PATH']}")
    assert (code, checkout.steps()) == (0, ["venv", "install", "install"]), said


def test_a_disk_that_is_full_is_no_target_that_was_not_met(checkout: Checkout) -> None:
    """Exit code 1 is; it was that of venv."""
    code, said = checkout.run(FULL="yes")
    assert code == 2 and "No space left" in said and "no environment could be made in" in said
    assert checkout.run()[0] == 0


def test_an_environment_on_another_disk_stays_there(checkout: Checkout) -> None:
    disk = checkout.beside / "disk"
    disk.mkdir()
    (checkout.root / ".venv").symlink_to(disk)
    assert checkout.run()[0] == 0
    assert (checkout.root / ".venv").is_symlink() and (disk / "bin" / "python").exists()
    shutil.rmtree(disk)
    code, said = checkout.run()
    assert code == 2 and ".venv cannot be written" in said


def test_where_the_file_system_has_no_locks_it_installs_all_the_same(checkout: Checkout) -> None:
    flock = checkout.beside / "bin" / "flock"
    flock.write_text("#!/bin/sh\nexit 71\n")
    flock.chmod(0o755)
    code, said = checkout.run()
    assert (code, checkout.steps()) == (0, ["venv", "install"]), said


def test_a_python_that_the_lock_files_do_not_know_is_passed_over_for_one_that_they_do(checkout: Checkout) -> None:
    """3.14 was taken, and pip found no ruptures for it; and an environment of it that stands there is made anew."""
    newer = checkout.beside / "bin" / "python3"
    shutil.copy2(newer, newer.with_name("python3.13"))
    newer.write_text('#!/bin/sh\n[ "$*" != --version ] || { echo Python 3.14.0; exit; }\nexit 1\n')
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy2(newer, checkout.root / ".venv" / "bin" / "python")
    code, said = checkout.run()
    assert (code, checkout.steps()) == (0, ["venv", "install"]), said
    shutil.rmtree(checkout.root / ".venv")
    (newer.parent / "python3.13").unlink()
    for name in ("python3.13", "python3.12", "python3.11"):
        shutil.copy2(newer, newer.with_name(name))
    code, said = checkout.run()
    assert code == 2 and "for Python 3.11, 3.12 and 3.13, and python3 on PATH is Python 3.14.0; install one" in said


def test_an_environment_of_cuda_12_is_left_alone(checkout: Checkout) -> None:
    """Whose GPU or driver is too old for CUDA 13 was told to make it, and the next call put CUDA 13 over it."""
    code, said = checkout.run("bash", "requirements/set_up.sh", "requirements/cuda12.lock", cwd=checkout.root)
    assert code == 0 and "/.venv/bin/python has all of it" in said
    (checkout.root / ".venv" / "whole").rename(checkout.root / ".venv" / "older")
    assert checkout.run() == (0, "")
    assert checkout.steps() == ["venv", "install"] and checkout.started()


def test_one_of_cuda_12_that_was_not_finished_is_gone_on_with(checkout: Checkout) -> None:
    command = ("bash", "requirements/set_up.sh", "requirements/cuda12.lock")
    assert checkout.run(*command, cwd=checkout.root, DIES_IN="pip")[0] == KILLED
    assert checkout.run()[0] == 0 and checkout.started()
    assert (checkout.root / ".venv" / "made-of").read_text() == "cuda12.lock\n"


def test_an_environment_of_another_cuda_is_made_anew(checkout: Checkout) -> None:
    """Both have libraries in the same folders, and pip leaves there what the other's wheels had."""
    assert checkout.run()[0] == 0
    code, said = checkout.run("bash", "requirements/set_up.sh", "requirements/cuda12.lock", cwd=checkout.root)
    assert (code, checkout.steps()) == (0, ["venv", "install"] * 2), said
    (checkout.root / ".venv" / "whole").unlink()
    assert checkout.run()[0] == 0
    assert (checkout.root / ".venv" / "made-of").read_text() == "cuda12.lock\n"


def test_more_is_installed_by_one_command_with_pip_in_the_environment_or_without(checkout: Checkout) -> None:
    """The documentation named .venv/bin/pip, which is not there where Debian's python3-venv is not."""
    for page in ("engines.md", "inference.md", "troubleshooting.md"):
        text = (CHECKOUT / "docs" / page).read_text()
        assert ".venv/bin/pip" not in text and "bash requirements/set_up.sh requirements/run.lock requirements/" in text
    command = ("bash", "requirements/set_up.sh", "requirements/run.lock", "requirements/export.lock")
    code, said = checkout.run(*command, cwd=checkout.root)
    assert (code, checkout.steps()) == (0, ["venv", "install"]), said
    assert checkout.run("bash", "requirements/set_up.sh", cwd=checkout.root)[0] == 2
