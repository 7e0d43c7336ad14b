"""A process that outlives its series by a moment: when the series is gone, however it went, what it started is stopped.

`kill -9` leaves no one to stop a trial that still holds the accelerator. This process reads from a pipe whose other end
only the series holds; at its end it stops the processes of the series' trials and removes its containers and Jobs. After a
series that ended by itself there are none. (A machine that loses power takes both; the next series removes what is left.)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harness import ROOT
from harness.contract import NotSuitable
from harness.launch import leftovers

GRACE_S = 20
# In the series' own directory, since paths in its environment may be relative (KUBECONFIG, SLURM_CONF, DOCKER_CONFIG, those of
# programs that renew a token); and without what modules may lie there (-P)
START = "import runpy, sys; name, root = sys.argv[1:]; sys.path.insert(0, root); runpy.run_module(name, run_name='__main__')"


class Reaper:
    """The series' end of the pipe. A context: leaving it is the end of the series."""

    def __init__(self) -> None:
        self._orders: dict[str, None] = {}
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", START, "harness.launch.reaper", str(ROOT)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def watch_processes(self, series: str) -> None:
        """Stop the processes of this series' trials when it is gone."""
        self._tell(series=series)

    def watch_containers(self, label: str, engine: str) -> None:
        """Remove the containers with this label from the engine at this address, too."""
        self._tell(label=label, engine=engine)

    def watch_jobs(self, series: str, context: str | None, namespace: str) -> None:
        """Delete this series' Jobs in a cluster, too."""
        self._tell(jobs_of=series, context=context or "", namespace=namespace)

    def watch_job(self, name: str, folder: Path) -> None:
        """Cancel the Slurm jobs of this name, and close the logs that their ranks leave open in `folder`."""
        self._tell(job=name, folder=str(folder))

    def _tell(self, **content: str) -> None:
        """Called before each trial: a reaper that somebody killed is replaced, and told everything again."""
        self._orders[json.dumps(content)] = None
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{order}\n" for order in self._orders))
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def main(orders: IO[str]) -> None:
    """Read orders until the series is gone, then carry them out."""
    told = [json.loads(line) for line in orders]
    series = {order["series"] for order in told if "series" in order}
    leftovers.stop(lambda: leftovers.marked(lambda mark: mark.series in series), GRACE_S)
    for jobs in (order for order in told if "jobs_of" in order):
        _delete_jobs(jobs)
    for label, engine in dict.fromkeys((order["label"], order["engine"]) for order in told if "label" in order):
        _remove_containers(label, engine)
    for order in told:
        if "job" in order:
            _cancel(order["job"], Path(order["folder"]))


def _cancel(job: str, folder: Path) -> None:
    from harness import names
    from harness.execution.events import close_abandoned
    from harness.launch import controller, ledger, slurm

    def gone() -> bool:
        return not slurm.waiting_or_running(job)

    try:
        if controller.patiently(gone, _say):
            return
        controller.patiently(lambda: slurm.cancel(job), _say)
        deadline = time.monotonic() + GRACE_S
        while not controller.patiently(gone, _say) and time.monotonic() < deadline:
            time.sleep(1)
    except NotSuitable as error:
        _say(f"the job {job} may be left; the next series cancels it, or `scancel --name={job}`. {error}")
    with contextlib.suppress(PermissionError):
        if ledger.in_use(folder):  # by one that goes on there: the log that is open may be its own
            return
    for log in names.results_in(folder):
        close_abandoned(log, "the series was killed")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _remove_containers(label: str, address: str) -> None:
    from harness.launch import engine

    def remove() -> None:
        engine.remove_labelled(engine.connect(named=address), label, grace_s=GRACE_S)

    try:
        engine.patiently(remove, _say)
    except NotSuitable as error:
        _say(f"containers may be left ({label}) in {address}; the next series there removes them. {error}")


def _delete_jobs(order: dict[str, str]) -> None:
    from harness.launch import away
    from harness.launch.kubernetes.cluster import Cluster
    from harness.launch.kubernetes.running import PATIENCE_S, POLL_S

    def delete() -> None:
        Cluster.connect(order["context"] or None, order["namespace"]).delete_series(order["jobs_of"])

    try:
        away.patiently(delete, _say, PATIENCE_S, POLL_S)
    except (NotSuitable, ValueError) as error:
        _say(f"Jobs may be left in namespace {order['namespace']}; the next series deletes them. {error}")


if __name__ == "__main__":
    main(sys.stdin)
