"""A run's ranks on this machine, as `torchrun` starts them, with the exit code of the rank that ended it.

Of a run on several machines each is told which it is (context.Node) and does this for itself; node 0 keeps the log.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness import names
from harness.config import Configuration
from harness.execution import binding, console, meeting, signals
from harness.execution.context import NODE_RANK, Node
from harness.execution.events import EventLog, close_abandoned, keys, refused, says
from harness.exit_codes import BROKEN, EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, SPENT, TARGET_MET, USAGE
from harness.launch import killed, stacks, watchdog
from harness.request import Request
from harness.results import logfile
from harness.system import places

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

LOOPBACK, LOOPBACK_INTERFACE = "127.0.0.1", "lo"
MEETING_S = 900  # for the last node to begin
KILLED_AFTER_S = 25  # torch's agent kills, 30 s after the first failure, the ranks that have not ended when asked
KNOWN = (EPOCHS_SPENT, USAGE, BROKEN, NOT_SUITABLE, INTERRUPTED)


def run(configuration: Configuration, request: Request, node: Node | None = None) -> int:
    """Start this machine's ranks, wait, and see to it that the log ends in a run_stop. Returns the exit code.

    ValueError for several nodes of which nobody said which this is.
    """
    nodes = configuration.run.nodes
    if nodes > 1 and node is None:
        raise ValueError(
            f"{configuration.source}: run.nodes = {nodes}: start it by --engine slurm or --engine kubernetes, or "
            f"this command on every node once, with {NODE_RANK}, MASTER_ADDR and MASTER_PORT set"
        )
    if node is not None:
        binding.load_torch()  # which the nodes' meeting does too
        _must_meet(node, _place(node, request))
    with signals.as_exceptions() as guard, signals.later():
        log = _log(request, node)
        guard.overdue = functools.partial(_overdue, log)
        try:
            code, reason = _launched(configuration, request, node, log)
            if code == INTERRUPTED and (ended := _ended(log)) is not None:
                code = ended
            code = believed(code, log)
        except Exception as error:
            code, reason = BROKEN, f"{type(error).__name__}: {error}"
            raise
        finally:
            guard.end()
            abandoned = log is not None and closed(log, code, reason)
            if code not in (TARGET_MET, EPOCHS_SPENT):
                console.complain(reason)
    return BROKEN if abandoned and code == TARGET_MET else code


def _log(request: Request, node: Node | None) -> Path | None:
    """Make the run's log, where this machine keeps it, and tell the ranks of it."""
    if node is None or node.rank == 0:
        log = EventLog.create(request.folder, request.number)
        log.close()
        assert log.path is not None
        os.environ["HARNESS_LOG"] = str(log.path)
        return log.path
    if request.number is not None:  # for the stacks of this node's ranks, as a step of Slurm's has it
        own = request.folder / names.of_node(request.number, node.rank)
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
        os.environ["HARNESS_LOG"] = str(own)
    return None


def _launched(configuration: Configuration, request: Request, node: Node | None, log: Path | None) -> tuple[int, str]:
    """Start this machine's ranks and wait; the exit code and the reason of the run's end."""
    if why := places.no_temporary_files():
        return NOT_SUITABLE, why
    binding.load_torch()  # the ranks inherit where this process may run
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["HARNESS_PARENT"] = str(os.getpid())  # who is to outlive the ranks
    settings = LaunchConfig(
        min_nodes=configuration.run.nodes,
        max_nodes=configuration.run.nodes,
        nproc_per_node=configuration.run.accelerators_per_node,
        **_meeting(node),
        max_restarts=0,
        monitor_interval=0.5,
        signals_to_handle=",".join(each.name for each in signals.taken()),
    )
    # they look for modules in the current folder where this process does: one called harness in it may be somebody's own
    safely = [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]
    command = [sys.executable, *safely, "-m", "harness", *request.of_ranks(request.seed).argv()]
    kills = killed.MemoryKills()
    logging.disable(logging.ERROR)  # torch calls a rank "failed" whose run missed its target; what failed is said below
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # asks ranks for their stacks
    try:
        with signals.at_once(), _watched(log) if log is not None else nullcontext():
            elastic_launch(settings, command[0])(*command[1:])
    except ChildFailedError as error:
        return _cause(error.failures, kills)
    except SignalException as error:
        return INTERRUPTED, error.sigval.name
    except (signals.Interrupted, KeyboardInterrupt) as error:
        return INTERRUPTED, str(error)
    except (DistNetworkError, DistStoreError) as error:  # of the nodes' own meeting, before there are ranks
        if node is None:
            raise
        nodes = configuration.run.nodes
        return USAGE, (
            f"of {nodes} nodes some did not come to {_place(node, request)} within {MEETING_S:g} s, or node 0 went away "
            f"({str(error).splitlines()[0]}): start this command on every node, each with a {NODE_RANK} of its own from 0 to "
            f"{nodes - 1} and with this address and port, which all must reach"
        )
    return TARGET_MET, "the ranks ended without saying how"


def _place(node: Node, request: Request) -> meeting.MeetingPlace:
    return meeting.MeetingPlace(node.address, node.port, meeting.patience_s(request.rendezvous_timeout))


def _must_meet(node: Node, place: meeting.MeetingPlace) -> None:
    """Node 0's port is free, and the others wait until it answers there. ValueError where that cannot be."""
    if node.rank == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", node.port))
            except OSError as error:
                raise ValueError(
                    f"node 0 cannot wait for the others at {place}: {error.strerror}; choose another port"
                ) from error
        return
    # its store answers as the ranks' does; this connection was to find out
    meeting.store(f"node {node.rank}", place, 1, keeps=False)


def _overdue(log: Path | None, interrupted: signals.Interrupted) -> None:
    """The main thread sits in a call that takes no exception (a node that never comes): the run ends without it.

    Not one that has its run_stop: its ranks write what comes after it, for as long as torchrun lets them. Of any other no rank
    may outlive it: one that is stopped (SIGSTOP) hears no SIGTERM, the kernel's at its parent's death neither, and would keep
    its accelerator for ever. Where the log is another node's, only such are ended: the run may have its run_stop.
    """
    if _ended(log) is not None:
        return
    for each in psutil.Process().children(recursive=True):  # asked to end when this process was
        with suppress(psutil.NoSuchProcess):
            if log is not None or each.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
                each.kill()
    if log is not None:
        closed(log, INTERRUPTED, str(interrupted))
    os._exit(INTERRUPTED)


def _ended(log: Path | None) -> int | None:
    """The exit code of a run that had come to its end by itself before its ranks were asked to: its log says so."""
    if log is None or not log.is_file():
        return None
    try:
        record = logfile.read(log)
    except OSError:
        return None
    spent = record.outcome == "aborted" and record.reason.startswith(SPENT)
    return TARGET_MET if record.outcome == "success" else EPOCHS_SPENT if spent else None


def believed(code: int, log: Path | None) -> int:
    """EPOCHS_SPENT only where the log says that they are: a library's exit(1), or Python's own, is a rank that broke.

    `log`: None where another machine keeps it, and has rank 0, which alone ends so.
    """
    return BROKEN if code == EPOCHS_SPENT and _ended(log) != EPOCHS_SPENT else code


def _meeting(node: Node | None) -> dict[str, Any]:
    """Where the ranks meet, for LaunchConfig."""
    if node is None:
        # for gloo, which else looks for the host's own name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK_INTERFACE)
        # no name to resolve: a container without a network knows not even its own
        return {
            "run_id": uuid.uuid4().hex,
            "rdzv_backend": "c10d",
            "rdzv_endpoint": f"{LOOPBACK}:0",
            "local_addr": LOOPBACK,
        }
    return {
        "run_id": "harness",  # every node must say the same
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{node.address}:{node.port}",
        "rdzv_configs": {"rank": node.rank, "timeout": MEETING_S},
    }


@contextmanager
def _watched(log: Path) -> Iterator[None]:
    """Inside the block a log that stands still for long gets the stacks of every rank, and the one that hangs is named.

    It goes on then: a run may be slow, and torch ends one whose ranks have lost each other.
    """
    over = threading.Event()

    def watch() -> None:
        progress = watchdog.LogGrowth(log)
        while not over.wait(watchdog.POLL_S):
            if progress.silent_s() > watchdog.PATIENCE_S:
                children = sorted(each.pid for each in psutil.Process().children(recursive=True))
                console.complain(
                    f"no progress in {log} for {watchdog.PATIENCE_S:g} s; {stacks.told(stacks.ask(children))}"
                )
                time.sleep(watchdog.STACKS_S)
                console.complain(stacks.hanging(stacks.standing(log.read_text(encoding="utf-8", errors="replace"))))
                return

    watching = threading.Thread(target=watch, name="watching the log", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()


def _cause(failures: Mapping[int, ProcessFailure], kills: killed.MemoryKills) -> tuple[int, str]:
    """Exit code and reason of the rank that took the others with it: one that was killed, else the first to end by itself."""
    first = min(each.timestamp for each in failures.values())

    def order(rank: int) -> tuple[bool, bool, int]:
        code, later_s = failures[rank].exitcode, failures[rank].timestamp - first
        # torchrun ends the others so, and with SIGKILL those that are still there half a minute later
        asked = code in (-signals.FROM_LAUNCHER, INTERRUPTED) or (code == -signal.SIGKILL and later_s > KILLED_AFTER_S)
        return asked, code > 0, failures[rank].timestamp

    rank = min(failures, key=order)
    code = failures[rank].exitcode
    if code < 0:
        why = f": {kills.why()}" if code == -signal.SIGKILL else ""
        return BROKEN, f"rank {rank} was ended by {signal.Signals(-code).name}{why}"
    return (code if code in KNOWN else BROKEN), f"rank {rank} ended with exit code {code}"


def closed(path: Path, code: int, reason: str) -> bool:
    """See to it that the log has its run_stop, and its name if it never began. Says whether it was left without one."""
    if not path.exists():  # rank 0 gave its number back (it never began), or somebody took the log away
        return False
    try:
        abandoned = close_abandoned(path, reason)
        if code not in (TARGET_MET, EPOCHS_SPENT) and not says(path, keys.EPOCH_START):
            refused(path)
    except OSError as error:
        console.complain(f"{path}: the log could not be closed: {error.strerror}")
        return True
    return abandoned
