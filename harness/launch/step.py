"""A trial as a step of a Slurm job: one task for each rank, on all nodes of the configuration, by srun.

The nodes are asked for once a series and given back at its end; inside a job (docker/run.sub) they are that job's. A node that
fails takes its job along: the next trial asks for other nodes. Ranks run in containers by pyxis or Apptainer where an image is
named, else as this checkout's own Python, which all nodes must see, as they must the results' folder.

Ranks of the first node write into the trial's log as those of one machine do. Of any other node they have a file of their own,
result_N.nodeK.log, since appending from two machines to one file of a network disk loses lines; it stays where it says more
than that its ranks began.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.config import Configuration
from harness.contract import NotSuitable
from harness.execution.events import EventLog
from harness.launch import controller, node, ranks, slurm, stacks
from harness.launch.caches import BY_SUDO, CONTROL, Dropped
from harness.launch.container_spec import CONFIGURATION, RESULTS, Mount
from harness.launch.reaper import Reaper
from harness.launch.running_step import RunningStep
from harness.launch.runtime import Runtime
from harness.launch.slurm import Allocation
from harness.launch.trial import Order
from harness.request import Request
from harness.system.accelerator import CPU

# What each task does: Slurm's numbers in torchrun's names
AS_RANK = (
    "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS HARNESS_LOG=$1; "
    '[ "$SLURM_NODEID" = 0 ] || HARNESS_LOG=${1%.txt}.node$SLURM_NODEID.log; shift; exec "$@"'
)
WAIT_S = 60  # for the other ranks when one has ended well: all leave one barrier together
PROBE_S = 300.0  # for a small step on every node: an image may have to be unpacked there
LOOPBACK = "127."
# Lines of srun about the controller. Of a node that does not answer it says the same: "Task launch for StepId=7.0 failed on
# node node2: Socket timed out on send/recv operation"
OF_THE_CONTROLLER = re.compile(
    r"srun: (error: )?Unable to (contact slurm controller|(confirm allocation|create step) for job \d+:)"
)


@dataclass
class SlurmLauncher:
    """Starts each trial as a step. A context: leaving it gives the nodes back."""

    configuration: Configuration
    request: Request
    environment: Mapping[str, str]  # of this process, for Slurm's own variables and for the ranks
    series: str
    reaper: Reaper
    say: Callable[[str], None]
    here: bool = field(default=False, init=False)
    _nodes: Allocation | None = field(default=None, init=False)
    _found: list[node.NodeReport] = field(default_factory=list, init=False)
    _last: RunningStep | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.version = slurm.cluster()
        self.options = slurm.site_options(self.request.slurm_options or "")
        run = self.configuration.run
        if run.device != CPU and not slurm.gres(self.environment, self.options):
            self.options = [f"--gpus-per-node={run.accelerators_per_node}", *self.options]
        if slurm.JOB in self.environment and self.request.slurm_options is not None:
            raise ValueError(
                "--slurm-options asks for nodes, and this runs inside a job, which has its own: give them to sbatch or salloc"
            )

    @property
    def where(self) -> str:
        return "slurm" if self.request.image is None else f"slurm, {self.request.image}"

    @property
    def name(self) -> str:
        """Of the series' job."""
        return f"{slurm.NAME}{self.series}"

    def facts(self) -> dict[str, Any]:
        """For the ledger."""
        return {"where": self.where, "cluster": self.version}

    def clear(self, folder: Path) -> list[str]:
        """Cancel jobs that series have left behind. Says which."""
        return controller.patiently(lambda: slurm.remove_leftovers(folder, self.name), self.say)

    def ready(self, order: Order) -> None:
        """Nodes, and on each of them the data, the code and the time as they should be. ValueError or NotSuitable."""
        asked, runtime = self._told(order)  # first: nobody waits in a queue to be told that there are no containers
        controller.patiently(self._drop_nodes_that_are_gone, self.say)
        if self._nodes is None:
            self._nodes = self._ask_for_nodes(order)
        controller.patiently(lambda: self._ask_each_node(asked, runtime), self.say)

    def _ask_for_nodes(self, order: Order) -> Allocation:
        run = self.configuration.run
        if slurm.JOB in self.environment:
            return controller.patiently(lambda: slurm.of_this_job(self.environment, run.nodes), self.say)
        self.reaper.watch_job(self.name, order.folder)
        return slurm.allocate(self.name, order.folder, run.nodes, run.accelerators_per_node, self.options, self.say)

    def _ask_each_node(self, asked: Request, runtime: Runtime) -> None:
        run = self.configuration.run
        words = node.words(asked, run.target)
        command = [
            *runtime.before,
            "sh",
            "-c",
            'n=$SLURMD_NODENAME; p=$1; shift; exec "$p" -m harness.launch.node "$n" "$@"',
        ]
        began = time.time()
        said = self._everywhere(runtime, [*command, "node", runtime.python, *words])
        self._found = node.NodeReport.read(said)
        if len(self._found) != run.nodes:
            lines = [line for line in said.splitlines() if line.strip() and node.MARK not in line]
            controller.must_answer("\n".join(filter(OF_THE_CONTROLLER.match, lines)))
            raise NotSuitable(
                f"only {len(self._found)} of {run.nodes} nodes could be asked whether they are ready: "
                + " / ".join(lines[-5:] or ["they said nothing"])
            )
        node.judge(self._found, self.configuration.sha256, began, time.time())

    def _drop_nodes_that_are_gone(self) -> None:
        """Slurm may know it long after us: it gives a node SlurmdTimeout."""
        if self._nodes is None:
            return
        job, state = self._nodes.job, self._nodes.state()
        if self._last is not None and self._last.without_answer:
            state = "a node does not answer"
            if not self._nodes.own:
                raise NotSuitable(f"job {job}: {state}: submit again, with --resume (RESUME=1)")
        elif not self._nodes.own:
            return
        else:
            if state == "SUSPENDED":
                self.say(f"job {job} is suspended: Slurm has lent its nodes to another; waiting for them")
            while state == "SUSPENDED":
                time.sleep(slurm.POLL_S)
                state = self._nodes.state()
            if state not in slurm.FINAL:
                return
        slurm.cancel(self.name, job)  # else it may come back, and hold nodes that nobody uses
        self.say(f"job {job} is over ({state}); asking for another")
        self._nodes, self._last = None, None

    def drop_caches(self) -> Dropped:
        """On every node, outside any container."""
        here = f"sync; echo 3 2>/dev/null > {CONTROL} || {shlex.join(BY_SUDO)} 2>/dev/null; echo dropped=$?"
        said = self._everywhere(Runtime(), ["sh", "-c", here])
        answers, nodes = re.findall(r"dropped=(\d+)", said), self.configuration.run.nodes
        if len(answers) < nodes:
            words = [line for line in said.splitlines() if line.strip() and "dropped=" not in line]
            return Dropped(
                False, f"only {len(answers)} of {nodes} nodes answered: {words[-1] if words else 'srun said nothing'}"
            )
        may_not = nodes - answers.count("0")
        return (
            Dropped(False, f"{CONTROL}: on {may_not} of {nodes} nodes this user may not") if may_not else Dropped(True)
        )

    def start(self, order: Order) -> RunningStep:
        """The trial, running."""
        assert self._nodes is not None, "ready() comes first"
        run = self.configuration.run
        asked, runtime = self._told(order)
        folder = asked.folder if self.request.image is not None else order.folder
        mark = f"{self.series}:{order.number}"
        command = [
            *self._srun(runtime, run.accelerators_per_node),
            *(f"--job-name={self.name}-{order.number}", "--kill-on-bad-exit=1", f"--wait={WAIT_S}"),
            *(*runtime.before, "sh", "-c", AS_RANK, "rank", str(folder / order.log.name)),
            *(runtime.python, "-m", "harness", *asked.argv()),
        ]
        first = next((each for each in self._found if each.name == self._nodes.nodes[0]), self._found[0])
        environment = {
            **self._surroundings(runtime),
            **order.environment,
            **{"MASTER_ADDR": self._nodes.address, "MASTER_PORT": str(first.port)},
            **{"LOCAL_WORLD_SIZE": str(run.accelerators_per_node), "HARNESS_LAUNCHER": "slurm"},
            stacks.VARIABLE: mark,
        }
        if self._nodes.address.startswith(LOOPBACK):  # all nodes are this machine: else gloo looks for its name
            environment.setdefault("GLOO_SOCKET_IFNAME", ranks.LOOPBACK_INTERFACE)
        EventLog.create(order.folder, order.number).close()
        others = [order.log.with_suffix(f".node{index}.log") for index in range(1, run.nodes)]
        for path in others:
            path.touch(exist_ok=False)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )

        def ask() -> str:
            said = self._everywhere(
                runtime, [*runtime.before, runtime.python, "-m", "harness.launch.stacks", mark]
            ).splitlines()
            return "; ".join(line for line in said if line.startswith("asked")) or f"no stacks: {said[-1:]}"

        facts = {
            "job": self._nodes.job,
            "nodes": list(self._nodes.nodes),
            "srun": shlex.join(command),
            "image": self.request.image,
            "cluster": self.version,
        }
        self._last = RunningStep(process, f"{self.name}-{order.number}", self._nodes, order, others, ask, facts)
        return self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nodes is not None and self._nodes.own:
            try:
                slurm.cancel(self.name)
            except controller.ControllerAway as away:
                self.say(
                    f"{away}\nJob {self._nodes.job} keeps its nodes until Slurm answers: it is asked again, for "
                    f"{controller.PATIENCE_S:g} s; after that, `scancel {self._nodes.job}`"
                )
            self._nodes = None

    def _told(self, order: Order) -> tuple[Request, Runtime]:
        """One trial's request as its ranks are told it, and by what they run."""
        asked, image = self.request.of_trial(order.number, order.folder, order.seed), self.request.image
        if image is None:
            return asked, Runtime.chosen(None, (), self.configuration.run.device)
        file = Path(str(asked.configuration))
        told, mounted = asked.inside(CONFIGURATION / file.name, RESULTS)
        mounts = [Mount(file, CONFIGURATION / file.name), Mount(order.folder, RESULTS, read_only=False)]
        mounts += [Mount(source, seen.of(source), read_only=not seen.writable) for source, seen in mounted]
        return told, Runtime.chosen(image, mounts, self.configuration.run.device)

    def _surroundings(self, runtime: Runtime) -> dict[str, str]:
        """Variables of what runs on the nodes; srun passes them on, into containers too."""
        if self.request.image is not None:  # which has neither the user's folders nor his home
            return {**self.environment, "PYTHONPATH": str(runtime.home), "HOME": "/tmp"}
        mine = self.environment.get("PYTHONPATH")
        return {**self.environment, "PYTHONPATH": f"{runtime.home}:{mine}" if mine else str(runtime.home)}

    def _srun(self, runtime: Runtime, tasks: int) -> list[str]:
        assert self._nodes is not None
        nodes = len(self._nodes.nodes)
        return [
            *("srun", f"--jobid={self._nodes.job}", f"--nodes={nodes}", f"--ntasks={nodes * tasks}"),
            *(
                f"--ntasks-per-node={tasks}",
                "--distribution=block",  # a node's ranks are neighbours, as torchrun's are, whatever sbatch -m said
                "--overlap",
                "--mpi=none",
                "--cpu-bind=none",
                "--input=none",
                "--export=ALL",
            ),
            *runtime.options,
        ]

    def _everywhere(self, runtime: Runtime, command: list[str]) -> str:
        """What the command prints, run once on each node; NotSuitable where it takes too long."""
        words = [*self._srun(runtime, 1), *command]
        environment = self._surroundings(runtime)
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment,
                timeout=PROBE_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotSuitable(f"the nodes gave no answer in {PROBE_S:g} s to: {shlex.join(words)}") from error
        return f"{done.stdout}{done.stderr}"
