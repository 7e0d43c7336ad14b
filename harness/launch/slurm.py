"""Slurm by its own commands: nodes for a series, what its queue says, its signals, and its refusals in words with the fix.

What runs on the nodes: step.py. `NotSuitable` (exit code 6) is a cluster that cannot, `ValueError` (2) a request that
cannot be met. Written against Slurm 22.05 (Debian 12); every option used is in 21.08 and newer.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import shutil
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote_to_bytes

from harness.contract import NotSuitable
from harness.launch import controller, ledger
from harness.launch.controller import ControllerAway, answer
from harness.validation import did_you_mean

COMMANDS = ("salloc", "srun", "scancel", "squeue", "scontrol", "sinfo")
JOB = "SLURM_JOB_ID"  # of the job that this process is part of
PLAIN = string.punctuation.replace("%", "") + " "  # beside letters and digits
NAME = "harness-"  # begins the name of every job that a series asks for
POLL_S = 2.0  # between two looks at the queue; a busy controller asks its users for no more
LOST_S = 60.0  # for salloc to hear of the end of a job that the queue has no more
ENDING_S = 15.0  # for the nodes of a job that is over to say so; one that is lost never does
# States that a job does not come back from; COMPLETING for longer than ENDING_S is one with a node that is lost
FINAL = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
OVER = ("COMPLETING", "CANCELLED")  # of those, the ones that the queue still shows

# Reasons of a waiting job that no waiting ends (squeue's %r), and what to do
HOPELESS = {
    "PartitionDown": "the partition is down; another one, with --slurm-options '-p NAME'",
    "PartitionInactive": "the partition is closed; another one, with --slurm-options '-p NAME'",
    "PartitionTimeLimit": "the partition allows less time than was asked for: --slurm-options '-t MINUTES'",
    "PartitionNodeLimit": "the partition gives fewer nodes to one job than run.nodes; a configuration for fewer, or another "
    "partition",
    "BadConstraints": "no nodes are as --slurm-options wants them",
    "InvalidAccount": "there is no such account: --slurm-options '-A ACCOUNT'",
    "InvalidQOS": "there is no such quality of service: --slurm-options '-q QOS'",
    "JobHeldAdmin": "the cluster's administrators hold it",
    "JobHeldUser": "it is held: scontrol release lets it go",
}

USAGE = ("unrecognized option", "invalid option", "requires an argument", "ambiguous", "invalid numeric value")


@dataclass(frozen=True)
class Allocation:
    """Nodes that are ours for a time."""

    job: str
    nodes: tuple[str, ...]
    address: str  # of the first node, for the others
    own: bool  # whether we asked for it, and give it back

    def state(self) -> str:
        """Slurm's word for the job: RUNNING, NODE_FAIL, TIMEOUT, CANCELLED, ...; empty when it knows it no more.

        One that is just ending is waited for: only then does Slurm say of what. Not one that this process is part of, which
        lasts as long as we do, or until Slurm kills what has not ended KillWait (30 s, or less) after its SIGTERM.
        """
        deadline = time.monotonic() + (ENDING_S if self.own else 0)
        while True:
            found = re.search(r"\bJobState=(\S+)", _shown(self.job))
            state = found[1] if found else ""
            if state != "COMPLETING" or time.monotonic() >= deadline:
                return state
            time.sleep(0.5)

    def steps(self, name: str) -> list[str]:
        """Those of this name that run now: others of the job, and of the other tasks of its array, are somebody else's."""
        listed = answer("squeue", "--noheader", "--steps", f"--jobs={self.job}", "--format=%i\t%j").splitlines()
        return [number for number, _, named in (each.partition("\t") for each in listed) if named == name]

    def signal(self, step: str, name: str) -> None:
        """To every task of the steps that are called so."""
        for each in self.steps(step):
            answer("scancel", f"--signal={name}", each)


def cluster() -> str:
    """Its name and Slurm's version. NotSuitable where there is no Slurm, or it does not answer."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise NotSuitable(
            f"--engine slurm needs Slurm's commands on this machine, and there is no {missing[0]}: run this on a login node of "
            "the cluster. Without --engine the same command runs on this machine alone"
        )
    said = controller.run("scontrol", "show", "config")
    if said.returncode != 0:
        raise NotSuitable(controller.explained("Slurm does not answer", said.stderr))
    values = dict(re.findall(r"^(\w+)\s+= (.*)$", said.stdout, re.MULTILINE))
    return f"{values.get('ClusterName', '?')}, Slurm {values.get('SLURM_VERSION', '?')}"


OURS = re.compile(r"-J|--j|--com")  # how options begin, also shortened, by which a series finds its job again


def site_options(text: str) -> list[str]:
    """The words of --slurm-options. ValueError for those that would take the job from the series."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"--slurm-options {text}: {error}") from error
    for each in words:
        if OURS.match(each):
            raise ValueError(
                f"--slurm-options {each}: by its name and comment a series finds its job again and gives its nodes back; leave "
                "it out. Where a site wants a name or comment of its own: sbatch docker/run.sub, where they are yours"
            )
    return words


def gres(environment: Mapping[str, str], options: list[str]) -> bool:
    """Whether accelerators are asked for already, in the site's own words."""
    words = " ".join(options)
    return bool(re.search(r"(^|\s)(--g(res|pus)|-G)", words)) or any(
        name.startswith(("SALLOC_GRES", "SALLOC_GPUS")) for name in environment
    )


def of_this_job(environment: Mapping[str, str], nodes: int) -> Allocation:
    """The job that this process is part of. ValueError where it has another number of nodes than the configuration."""
    job = environment[JOB]
    found = _allocation(job, own=False)
    if len(found.nodes) != nodes:
        raise ValueError(
            f"this job {job} has {len(found.nodes)} nodes, the configuration says run.nodes = {nodes}: give sbatch or salloc "
            f"-N {nodes}, or choose another configuration"
        )
    return found


def allocate(  # noqa: PLR0917 - all that is asked for
    name: str, folder: Path, nodes: int, ranks_per_node: int, options: list[str], say: Callable[[str], None]
) -> Allocation:
    """Nodes for a series that keeps its ledger in `folder`, waited for; the queue is told to `say`.

    ValueError and NotSuitable when Slurm refuses or never will; nothing is left in the queue then, nor on an interruption, or
    it is said what may be. A controller that does not answer costs no place in the queue, since salloc outlives its restart;
    where salloc gives up for it, it is asked once more.
    """
    words = [
        *("salloc", "--no-shell", f"--job-name={name}", f"--comment={comment(folder)}", f"--nodes={nodes}"),
        *(f"--ntasks-per-node={ranks_per_node}", "--exclusive", "--mem=0"),
        *options,
    ]
    say(f"asking Slurm for nodes: {shlex.join(words)}")
    with tempfile.TemporaryFile("w+") as said:
        try:
            code, told = _salloc(words, said, name, say)
            if code != 0 and controller.was_away(told):
                say(f"{controller.explained('Slurm does not answer', told)}\nOnce it does, salloc is asked again")
                controller.patiently(lambda: cancel(name), say)  # where the answer was lost, and not the request
                code, told = _salloc(words, said, name, say)
            if code != 0:
                raise controller.patiently(lambda: _refusal(told), say)
            # salloc may have been told to be quiet
            numbers = _granted(said) or controller.patiently(lambda: [each.number for each in _jobs(name)], say)
            if not numbers:
                raise NotSuitable(f"salloc ended well, and Slurm knows no job called {name}")
            found = controller.patiently(lambda: _allocation(numbers[0], own=True), say)
            if len(found.nodes) != nodes:
                raise ValueError(
                    f"Slurm gave {len(found.nodes)} nodes, the configuration says run.nodes = {nodes}: --slurm-options or "
                    "SALLOC_* ask for another number"
                )
        except BaseException:
            _give_back(name, _granted(said), say)
            raise
    say(f"job {found.job}: running on {', '.join(found.nodes)}")
    return found


def _salloc(words: list[str], said: IO[str], name: str, say: Callable[[str], None]) -> tuple[int, str]:
    """Its exit code and what it says, once it has ended."""
    said.seek(0)
    said.truncate()
    # a session of its own: a Ctrl-C reaches it by us alone
    asking = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        _wait_for(asking, name, say)
    except BaseException:
        asking.kill()
        asking.wait()
        raise
    said.seek(0)
    return asking.returncode, said.read()


def _granted(said: IO[str]) -> list[str]:
    """Numbers of the jobs that salloc has spoken of."""
    said.seek(0)
    return list(dict.fromkeys(re.findall(r"job allocation (\d+)", said.read())))


def _give_back(name: str, numbers: list[str], say: Callable[[str], None]) -> None:
    """Jobs of a request that failed or was interrupted, which is what its caller is to hear of, whatever this meets."""
    try:
        cancel(name, *numbers)
    except ControllerAway as away:
        by_hand = "; ".join(f"scancel {each}" for each in (f"--name={name}", *numbers))
        say(
            f"{away}\nThe job {name} may be left until Slurm answers: it is asked again, for {controller.PATIENCE_S:g} s; "
            f"after that, `{by_hand}`"
        )


def cancel(name: str, *numbers: str) -> None:
    """Give back whatever jobs have this name, waiting or running, and those of these numbers."""
    answer("scancel", f"--name={name}")
    for number in numbers:  # a site's plugin may have given it another name
        answer("scancel", number)


def waiting_or_running(name: str) -> bool:
    """Whether there is a job of this name, also one that is just ending."""
    return bool(answer("squeue", "--noheader", f"--name={name}", "--format=%i").strip())


def _wait_for(asking: subprocess.Popen[bytes], name: str, say: Callable[[str], None]) -> None:
    """Until salloc ends. NotSuitable where it would wait for ever: a controller that dies forgets what it was asked in its last
    seconds, and salloc does not hear of that."""
    told, away = "", False
    seen_s: float | None = None  # when the job was last there, or nobody could tell
    while asking.poll() is None:
        jobs = []
        try:
            jobs = _jobs(name)
            if jobs:
                seen_s = time.monotonic()
            elif seen_s is not None and time.monotonic() - seen_s > LOST_S:
                raise NotSuitable(
                    f"Slurm knows no job called {name} any more, and salloc waits for it: the same again, with --resume"
                )
        except ControllerAway as error:
            seen_s = seen_s and time.monotonic()  # None stays None
            if not away:
                say(f"{error}\nsalloc waits on for job {name}")
                away = True
        for each in jobs:
            if each.state != "PENDING":
                continue
            expected = f"; Slurm expects it to begin at {each.begins}" if each.begins != "N/A" else ""
            text = f"job {each.number}: waiting in partition {each.partition} ({each.reason}){expected}"
            if each.reason in HOPELESS:
                raise NotSuitable(
                    f"job {each.number} would wait in partition {each.partition} for ever ({each.reason}): "
                    f"{HOPELESS[each.reason]}"
                )
            if each.reason != told:
                say(text)
                told = each.reason
        with contextlib.suppress(subprocess.TimeoutExpired):
            asking.wait(POLL_S)


def _refusal(said: str) -> ValueError | NotSuitable:
    lines = [line.removeprefix("salloc: ").removeprefix("error: ").strip() for line in said.splitlines()]
    if any("invalid partition" in line.lower() for line in lines):
        there = [each.rstrip("*") for each in dict.fromkeys(answer("sinfo", "--noheader", "--format=%P").split())]
        asked = next((line.rpartition(":")[2].strip() for line in lines if "invalid partition specified" in line), "")
        return ValueError(
            f"Slurm refuses: there is no partition {asked}{did_you_mean(asked, there)}; there are: {', '.join(there)}. "
            "--slurm-options '-p NAME' names one"
        )
    said = " / ".join(line for line in lines if line and "Pending" not in line and "queued and waiting" not in line)
    if any(sign in said.lower() for sign in USAGE):
        return ValueError(f"salloc does not take --slurm-options or a SALLOC_* variable: {said}")
    return NotSuitable(controller.explained("Slurm refuses", said))


def _allocation(job: str, *, own: bool) -> Allocation:
    shown = _shown(job)
    listed = re.search(r"\sNodeList=(\S+)", shown)
    nodes = answer("scontrol", "show", "hostnames", listed[1]).split() if listed else []
    if not nodes:
        state = re.search(r"\bJobState=(\S+)", shown)
        raise NotSuitable(
            f"job {job} has no nodes: {f'it is {state[1]}' if state else 'Slurm does not know it'}. A shell that was opened in "
            f"a job keeps {JOB} after the job's end: unset it, or submit again"
        )
    # not the node's name, which need not resolve
    address = re.search(r"\bNodeAddr=(\S+)", answer("scontrol", "show", "node", nodes[0], "-o"))
    return Allocation(job, tuple(nodes), address[1] if address else nodes[0], own)


def _shown(job: str) -> str:
    """What Slurm says of a job; of the one that has its array's number it would show all of the array's."""
    lines = answer("scontrol", "show", "job", job, "-o").splitlines()
    return next((each for each in lines if each.startswith(f"JobId={job} ")), "")


# --- jobs that series have left behind --------------------------------------------------------------------------------


def comment(folder: Path) -> str:
    """By which a job is known to belong to a series: the machine that holds its ledger, and where.

    As a URL has a path, where it is more than plain words: the queue is read by lines.
    """
    return f"{platform.node()}:{quote(bytes(folder), safe=PLAIN)}"


def _folder(comment: str) -> Path | None:
    """Of a series of this machine's."""
    host, _, place = comment.partition(":")
    return Path(os.fsdecode(unquote_to_bytes(place))) if host == platform.node() else None


def remove_leftovers(folder: Path, ours: str) -> list[str]:
    """Cancel jobs of series that are gone (killed, or their machine restarted), except for the one named `ours`. Says which.

    A series lives as long as it holds the lock on its ledger; `folder` is the caller's own, and its ledger held by him. Jobs
    of this folder are waited for, ENDING_S at most: their ranks write into its logs until they have ended.
    """
    removed, of_folder = [], []
    for each in _listed():
        place = _folder(each.comment)
        if place is None or each.name == ours:
            continue
        if place == folder:
            of_folder.append(each.name)
        try:
            alive = each.state in OVER or (place != folder and ledger.in_use(place))
        except PermissionError:
            continue
        if not alive:
            answer("scancel", each.number)
            removed.append(f"job {each.number} (of {place})")
    deadline = time.monotonic() + ENDING_S
    while any(map(waiting_or_running, of_folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return removed


@dataclass(frozen=True)
class _Job:
    number: str
    state: str
    reason: str
    begins: str
    partition: str
    name: str
    comment: str


def _jobs(name: str) -> list[_Job]:
    """Those of this name that wait or run."""
    return [each for each in _listed(name) if each.state not in OVER]


def _listed(name: str | None = None) -> list[_Job]:
    """This user's, of this name or of any series; those that are just ending too."""
    form = "\t".join(("%i", "%T", "%r", "%S", "%P", "%j", "%k"))
    chosen = [] if name is None else [f"--name={name}"]
    listed = answer("squeue", "--noheader", f"--user={os.getuid()}", f"--format={form}", *chosen)
    jobs = [_Job(*line.split("\t", 6)) for line in listed.split("\n") if line.count("\t") >= 6]
    return [each for each in jobs if each.name.startswith(NAME)]
