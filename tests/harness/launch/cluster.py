"""A true Slurm cluster of two nodes on this machine, for tests: munged, slurmctld and a slurmd for each node, as root.

It lies in a folder of its own and answers to whoever has SLURM_CONF; no other Slurm of the machine is touched. The second node
sees nothing in the folder `data`, which is full for everyone else, and starts each task as `prolog` says. It can have a network
of its own, with a cable that can be pulled.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.harness.execution.runs import until
from tests.ports import held_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "salloc", "unshare")
MERCY_S = 20  # for a daemon that was asked to end, before it is killed
CONF = """
ClusterName=harness
SlurmctldHost={host}({addresses[0]})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/task_prolog
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
EnforcePartLimits=ALL
ReturnToService=2
SlurmdTimeout={patience_s}
KillWait=10
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=node1 NodeHostname={host} NodeAddr={addresses[0]} Port={ports[0]} CPUs={cpus} RealMemory=1000 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr={addresses[1]} Port={ports[1]} CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=node[1-2] Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes=node[1-2] MaxTime=60 State=DOWN
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {absent[0]} here: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd runs as root alone"


@dataclass
class Cluster:
    folder: Path
    ports: tuple[int, ...]  # of the controller and the two nodes
    cable: str = ""  # between the nodes, by its name at both ends; empty: they share a network
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SALLOC", "SBATCH"))}
        return {**kept, "SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def data(self) -> Path:
        """Has a file in it, but not on node2."""
        return self.folder / "data"

    def ask(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False).stdout

    def jobs(self) -> list[str]:
        """Those that wait or run, or are just ending."""
        return self.ask("squeue", "--noheader", "--format=%i %T %j").splitlines()

    def tasks(self, node: str) -> list[psutil.Process]:
        """What runs on a node of this cluster, and of no other on the machine: its steps' daemons, and their processes."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                named = variables.get("SLURMD_NODENAME") == node
                step = process.name().startswith("slurmstepd") and self._keeps(process, node)
                if self._ours(process) and (named or step) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _ours(self, process: psutil.Process) -> bool:
        """By the bytes of its environment: a step's daemon has written its title over the first of them."""
        with contextlib.suppress(OSError):
            content = Path(f"/proc/{process.pid}/environ").read_bytes()
            return f"SLURM_CONF={self.folder}/slurm.conf\0".encode() in content
        return False

    def _keeps(self, process: psutil.Process, node: str) -> bool:
        return any(each.environ().get("SLURMD_NODENAME") == node for each in process.children())

    def prolog(self, *lines: str) -> None:
        """What the task prolog says on node2 from now on: export NAME=VALUE."""
        (self.folder / "node2.prolog").write_text("".join(f"{line}\n" for line in lines))

    def start(self, name: str) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        inside = ["slurmd", "-D", "-N", name, "-L", str(self.folder / f"{name}.log")]
        if name == "node2":
            hidden = f"mount -t tmpfs none {self.data} && exec {' '.join(inside)}"
            alone = ["unshare", "--mount", "--propagation", "private"]
            if self.cable:
                alone.append("--net")
                hidden = f"until ip address show {self.cable} 2>/dev/null | grep -q inet; do sleep 0.1; done; {hidden}"
            inside = [*alone, "sh", "-c", hidden]
        self._daemon(name, inside)
        if self.cable and name == "node2":
            self._plug_in(self.daemons[name].pid)

    def control(self) -> None:
        """Start the controller, also one that was killed."""
        self._daemon("slurmctld", ["slurmctld", "-D", "-L", str(self.folder / "slurmctld.log")])

    def kill(self, name: str) -> None:
        """The daemon alone: what it has started goes on."""
        self.daemons[name].kill()
        self.daemons[name].wait()

    def lose(self, node: str) -> None:
        """As a machine that loses its power: its daemon, and all that runs there."""
        self.kill(node)
        for process in self.tasks(node):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended in this moment
                process.kill()

    @property
    def addresses(self) -> tuple[str, str]:
        """Of the nodes."""
        if not self.cable:
            return "127.0.0.1", "127.0.0.1"
        third = int(self.cable.removeprefix("slurm")) % 250
        return f"10.213.{third}.1", f"10.213.{third}.2"

    def _plug_in(self, process: int) -> None:
        """A cable from here to the network of the process, which `unshare` makes in a moment."""
        here = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{process}/ns/net").readlink() != here, "a network of its own")
        there = ["nsenter", f"--net=/proc/{process}/ns/net", "ip"]
        for command in (
            f"ip link add {self.cable} type veth peer name {self.cable} netns {process}",
            f"ip address add {self.addresses[0]}/24 dev {self.cable}",
            f"ip link set {self.cable} up",
        ):
            subprocess.run(command.split(), check=True)
        for words in (
            "link set lo up",
            f"address add {self.addresses[1]}/24 dev {self.cable}",
            f"link set {self.cable} up",
        ):
            subprocess.run([*there, *words.split()], check=True)

    def pull_the_cable(self) -> None:
        """Nothing comes from node2 any more, and nothing says so; what runs there goes on."""
        daemon = self.daemons["node2"].pid
        subprocess.run(["nsenter", f"--net=/proc/{daemon}/ns/net", "ip", "link", "set", self.cable, "down"], check=True)

    def _daemon(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)

    def begin(self) -> None:
        for each in ("munge", "state", "data"):
            (self.folder / each).mkdir()
        (self.folder / "data" / "numbers").write_text("8")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        prolog = self.folder / "task_prolog"
        prolog.write_text(f"#!/bin/sh\n[ $SLURMD_NODENAME != node2 ] || cat {self.folder}/node2.prolog\n")
        prolog.chmod(0o755)
        self.prolog()
        # no plugin uses control groups: what has a word for that is told so, and v1 asks for nothing at start
        version = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout.split()[-1]
        none = "disabled" if tuple(map(int, version.split(".")[:2])) >= (23, 11) else "cgroup/v1"
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={none}\n")
        controller, *ports = self.ports
        (self.folder / "slurm.conf").write_text(
            CONF.format(
                host=platform.node(), folder=self.folder, controller=controller, ports=ports, cpus=os.cpu_count(),
                addresses=self.addresses, patience_s=300 if self.cable else 30,
            )
        )  # fmt: skip
        munge = [f"--{name}-file={self.folder}/munge/{name}" for name in ("pid", "log", "seed")]
        self._daemon(
            "munged",
            ["munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket", f"--key-file={key}", *munge],
        )
        until((self.folder / "munge" / "socket").exists, "munged")
        self.control()
        for node in ("node1", "node2"):
            self.start(node)
        self.idle()

    def idle(self) -> None:
        """Wait until both nodes are free."""
        until(
            lambda: self.ask("sinfo", "--noheader", "--partition=main", "--format=%D %T").split() == ["2", "idle"],
            "nodes",
        )

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.ask("scancel", "--user=root", "--signal=KILL")
            self.ask("scancel", "--user=root")
        for name in ("node1", "node2", "slurmctld", "munged"):
            if name in self.daemons:
                self.daemons[name].send_signal(signal.SIGTERM)
        for each in self.daemons.values():
            try:
                each.wait(MERCY_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        for process in psutil.process_iter():  # also a step's daemon that lost its tasks and its node
            with contextlib.suppress(psutil.Error):
                if self._ours(process):
                    process.kill()


@contextlib.contextmanager
def running(*, cable: bool = False) -> Iterator[Cluster]:
    """A cluster, for as long as the block runs; with a `cable` its second node has a network of its own, and Slurm gives a
    silent node as long as it does by default."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path has room for a hundred letters
    folder.chmod(0o755)
    with contextlib.ExitStack() as held:
        ports = tuple(held.enter_context(held_port()) for _ in range(3))
        cluster = Cluster(folder, ports, f"slurm{os.getpid()}" if cable else "")
        try:
            cluster.begin()
            yield cluster
        finally:
            cluster.end()
            shutil.rmtree(folder, ignore_errors=True)
