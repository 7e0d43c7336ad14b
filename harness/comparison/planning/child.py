"""One run of a plan as a process of its own: `harness run`, in the arm's checkout and environment, watched like any trial."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness import ROOT, git
from harness.comparison.planning.plan import Arm, Plan
from harness.execution import signals
from harness.exit_codes import INTERRUPTED
from harness.launch import watchdog
from harness.launch.process import LocalLauncher, LocalProcess
from harness.launch.reaper import Reaper
from harness.launch.trial import Order
from harness.system import variables

PROBE_LIMIT_S = 900  # it measures for a minute, and compiles before


def command(plan: Plan, arm: Arm, folder: Path, seed: int, checkout: Path) -> list[str]:
    """What is started; `env` sets the arm's place and variables."""
    words = ["env", "-C", str(checkout), *_variables(plan, arm)]
    words += [*_python(), "-m", "harness", "run", arm.config or plan.configuration, "--out", str(folder)]
    words += ["--seed", str(seed), *plan.options]
    if plan.max_steps is not None:
        words += ["--max-steps", str(plan.max_steps)]
    if arm.image is not None:
        words += ["--image", arm.image, "--trials", "1"]
    return words


def _python() -> list[str]:
    """`env` takes a path with an equals sign in it for a variable."""
    return ["sh", "-c", 'exec "$0" "$@"', sys.executable] if "=" in sys.executable else [sys.executable]


def _variables(plan: Plan, arm: Arm) -> list[str]:
    """NAME=VALUE of the arm's, and that the log is to tell those of both arms, whatever they are called."""
    names = dict.fromkeys(name for each in plan.arms for name in each.env)
    also = [f"{variables.ALSO}={','.join(names)}"] if names else []
    return [*also, *(f"{name}={value}" for name, value in arm.env.items())]


def start(
    plan: Plan,
    arm: Arm,
    folder: Path,
    *,
    seed: int,
    root: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> int:
    """Run it to its end; returns its exit code. A signal that comes when it has ended is raised once nothing of it is left."""
    folder = folder.resolve()
    words = command(plan, arm, folder, seed, checkout(arm, root))
    # a series in containers watches its trial itself, and its log lies deeper
    patience = None if arm.image is not None else watchdog.PATIENCE_S
    with _running(words, folder, environment) as running:
        try:
            with signals.at_once():
                return watchdog.follow(running, folder / "result_0.txt", patience, say, name=arm.name).exit_code
        except signals.Interrupted:
            watchdog.halt(running)
            return INTERRUPTED


@contextmanager
def _running(words: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[LocalProcess]:
    """Nothing of it is left behind the block, nor where this process is killed. Signals wait; see `start`."""
    with signals.later(), Reaper() as reaper:
        launcher = LocalLauncher(lambda _: words, environment, reaper, uuid.uuid4().hex)
        running = launcher.start(Order(0, folder, None, caches_cleared=False))
        try:
            yield running
        finally:
            running.close()


def probe(plan: Plan, number: int, folder: Path, *, root: Path, environment: Mapping[str, str]) -> str:
    """`harness probe` of an arm, into `folder`, which is above its runs' own. Why it could not be made, or ""."""
    folder = folder.resolve()
    arm = plan.arms[number]
    words = ["env", "-C", str(checkout(arm, root)), *_variables(plan, arm)]
    words += [
        *_python(),
        "-m",
        "harness",
        "probe",
        arm.config or plan.configuration,
        "--out",
        str(folder),
        *(("--image", arm.image) if arm.image is not None else ()),
    ]
    try:
        with _running(words, folder, environment) as running:
            try:
                with signals.at_once():  # nothing is looked for in its log, so that this is a limit of time
                    done = watchdog.follow(running, folder / "no-log", PROBE_LIMIT_S, lambda _: None, name="probe")
            except signals.Interrupted:
                watchdog.halt(running)
                raise
    except OSError as error:
        return str(error)
    if done.ended_by == "watchdog":
        return f"it did not end within {PROBE_LIMIT_S} s"
    return "" if done.exit_code == 0 else _last_line(done.tail) or f"it ended with exit code {done.exit_code}"


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def pinned(plan: Plan) -> Plan:
    """With each arm's commit as its full hash: a branch moves on while blocks wait for a reboot. ValueError: no commit."""
    arms = []
    for arm in plan.arms:
        commit = arm.commit
        if commit is not None:
            if not git.has_repository(ROOT):
                raise ValueError(
                    f"arm {arm.name}: commit={commit}: this is no clone of the project, but installed or a copy without its "
                    "repository, and has no commits: plan in a clone"
                )
            done = git.ask(ROOT, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
            if done.returncode != 0:
                raise ValueError(f"arm {arm.name}: {commit} is no commit of this checkout: {git.said(done)}")
            commit = done.stdout.decode().strip()
        arms.append(replace(arm, commit=commit))
    return replace(plan, arms=(arms[0], arms[1]))


def has(commit: str, path: str) -> bool:
    """Whether this project's files at a commit have such a one, from their root."""
    return git.ask(ROOT, "cat-file", "-e", f"{commit}:{os.path.normpath(path)}").returncode == 0


def checkout(arm: Arm, root: Path) -> Path:
    """This project's files at the arm's commit: the checkout itself, or a work tree of it in the plan's folder."""
    if arm.commit is None:
        return ROOT
    place = (root / "checkouts" / arm.name).resolve()
    if place.exists():
        return place
    # It has its name when it is whole: a part of it, of a call that was killed or of another host's, was taken for all
    making = place.with_name(f".{arm.name}-{uuid.uuid4().hex[:12]}")
    making.parent.mkdir(parents=True, exist_ok=True)
    # A plan's folder that was deleted is registered still, and without force its place is refused
    done = git.ask(ROOT, "worktree", "add", "--force", "--detach", str(making), arm.commit, limit_s=None)
    if done.returncode != 0:
        raise ValueError(f"arm {arm.name}, commit {arm.commit}: {git.said(done)}")
    try:
        making.rename(place)
    except OSError:
        if not place.exists():
            raise
        git.ask(ROOT, "worktree", "remove", "--force", str(making))  # another host was sooner
    else:
        git.ask(ROOT, "worktree", "repair", str(place))  # else git's next clearing up takes it for gone
    return place
