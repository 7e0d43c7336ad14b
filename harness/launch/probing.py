"""`harness probe` in a container of an image, as a trial's would be: what the image's own code and libraries do here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness import holder
from harness.config import Configuration
from harness.execution.signals import Interrupted
from harness.exit_codes import INTERRUPTED
from harness.launch import container, container_spec, engine, watchdog
from harness.launch.container import ContainerLauncher
from harness.launch.container_spec import ContainerSpec
from harness.launch.reaper import Reaper
from harness.launch.trial import Order
from harness.request import Request


@dataclass
class ProbeLauncher(ContainerLauncher):
    """A trial's container in everything but what it does."""

    seconds: float = 60.0

    def spec(self, order: Order, name: str) -> ContainerSpec:
        """The container, which reads the configuration and writes the results folder where a trial would."""
        of_trial = super().spec(order, name)
        inside = str(of_trial.mounts[0].target)
        words = (
            "python",
            "-m",
            "harness",
            "probe",
            inside,
            "--out",
            str(container_spec.RESULTS),
            "--seconds",
            f"{self.seconds:g}",
        )
        return replace(of_trial, command=words)

    def labels(self, order: Order) -> dict[str, str]:
        """A trial's, and this process: no ledger says that the container has somebody who waits for it."""
        return {**super().labels(order), engine.PROCESS: holder.sign()}


def probe(
    configuration: Configuration,
    request: Request,
    folder: Path,
    seconds: float,
    say: Callable[[str], None],
    *,
    variables: Mapping[str, str],
) -> int:
    """Leaves probe_N.json in `folder`, which is made; returns the exit code. `request` is settled and names the image."""
    folder.mkdir(parents=True, exist_ok=True)
    order = Order(0, folder.resolve(), None, caches_cleared=False)
    with Reaper() as reaper:
        launcher = container.launcher(
            ProbeLauncher, configuration, request, series=uuid.uuid4().hex, reaper=reaper, say=say, variables=variables
        )
        launcher.seconds = seconds
        running = launcher.start(order)
        try:
            return watchdog.follow(
                running, order.log, None, lambda line: say(line.removeprefix("probe | ")), name="probe"
            ).exit_code
        except Interrupted:
            watchdog.halt(running)
            return INTERRUPTED
        finally:
            running.close()
