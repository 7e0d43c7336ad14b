"""Slurm's commands, asked: their answers, their refusals in words with the fix, and a controller that does not answer now."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from harness.launch import away
from harness.launch.away import Answer, Away

AFTER_S = 120.0  # for any of the commands but salloc and srun: a controller that is being restarted takes some
PATIENCE_S = 300.0  # for a controller that does not answer
AGAIN_S = 2.0  # between two tries; a busy controller asks its users for no more
OF_ONE_AWAY = ("unable to contact slurm controller", "socket timed out on send/recv", "zero bytes were transmitted")

# What salloc says -> what to do
KNOWN = (
    ("unable to contact slurm controller", "the cluster's controller does not answer; `scontrol ping` says whether it is up"),
    ("invalid generic resource", "this cluster does not count accelerators: name its own word with --slurm-options "
     "'--gres=NAME:N', or --slurm-options '--gres=none' where its nodes are given whole"),
    ("requested node configuration is not available", "no nodes of that partition are like that: `sinfo -Nl` lists them"),
    ("more processors requested", "its nodes have fewer processors than the configuration has ranks; `sinfo -Nl` lists them"),
    ("node count specification invalid", "the partition has fewer nodes than run.nodes, or gives a job fewer; see `sinfo`"),
    ("time limit is invalid", "the partition allows less: --slurm-options '-t MINUTES'; `sinfo` shows its limit"),
    ("invalid account", "--slurm-options '-A ACCOUNT' names another; `sacctmgr show associations user=$USER` lists them"),
    ("invalid qos", "--slurm-options '-q QOS' names another"),
    ("qos policy", "the cluster's limits for this user, account or queue; `sacctmgr show associations` lists them"),
    ("access/permission denied", "this user may not use that partition or account; `sinfo` lists the others"),
)  # fmt: skip


class ControllerAway(Away):
    """The cluster's controller does not answer now."""


def explained(doing: str, said: str) -> str:
    fix = next((fix for sign, fix in KNOWN if sign in said.lower()), "")
    return "\n".join([f"{doing}: {said.strip() or 'without a word'}", *([fix] if fix else [])])


def run(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=AFTER_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ControllerAway(f"{words[0]} gave no answer in {AFTER_S:g} s: is the cluster's controller up?") from error


def answer(*words: str) -> str:
    """Of a question whose failure is an answer too: that there is no such thing (any more).

    ControllerAway when there is no answer.
    """
    done = run(*words)
    must_answer(done.stderr)
    return done.stdout


def was_away(said: str) -> bool:
    """Whether one of Slurm's commands says that the controller was."""
    return any(sign in said.lower() for sign in OF_ONE_AWAY)


def must_answer(said: str) -> None:
    """ControllerAway when one of Slurm's commands says that it was."""
    if was_away(said):
        raise ControllerAway(explained("Slurm does not answer", said))


def patiently(action: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """What it returns, if need be once the controller answers again. ControllerAway when that is not within PATIENCE_S."""
    return away.patiently(action, say, PATIENCE_S, AGAIN_S)
