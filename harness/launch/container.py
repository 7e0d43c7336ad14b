"""A trial as a fresh container of one image; what that container is, container_spec.py says."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from harness.contract import NotSuitable
from harness.launch import away, caches, engine, stacks
from harness.launch.away import Away
from harness.launch.container_spec import ContainerSpec, EngineHost, Gpus, gpus, spec_of
from harness.launch.reaper import Reaper
from harness.launch.trial import Order
from harness.request import Request
from harness.system import accelerator

if TYPE_CHECKING:
    from docker.client import DockerClient
    from docker.models.containers import Container
    from docker.models.images import Image

    from harness.config import Configuration

NOT_IN_A_NAME = r"[^a-zA-Z0-9_.-]"  # of a container


@dataclass
class ContainerLauncher:
    """Starts each trial as a fresh container."""

    client: DockerClient
    image: Image
    reference: str  # as the user named it
    host: EngineHost
    request: Request
    gpus: Gpus
    series: str
    name: str  # of the configuration
    reaper: Reaper
    say: Callable[[str], None]
    binds_memory: bool = False  # whether the trial's ranks ask for a NUMA node's
    address: str = ""  # of the engine
    variables: Mapping[str, str] = field(default_factory=dict)  # for each trial, beside the image's own
    may_lift_limits: bool = field(default=True, init=False)  # until the engine refuses to
    engine_version: str = field(init=False)

    here = True

    def __post_init__(self) -> None:
        with engine.explained("asking for its version"):
            self.engine_version = str(self.client.version().get("Version", ""))

    @property
    def where(self) -> str:
        return str(self.image.id)

    def spec(self, order: Order, name: str) -> ContainerSpec:
        """The container for one trial, of the image by this name."""
        return spec_of(
            *(self.host, name, order, self.request),
            image_id=self.where,
            gpus=self.gpus,
            binds_memory=self.binds_memory,
            variables=self.variables,
        )

    def labels(self, order: Order) -> dict[str, str]:
        """By which the trial's container is known, and for how long it is to be left alone."""
        return engine.labels(self.series, order.folder, order.number)

    def facts(self) -> dict[str, Any]:
        """For the ledger."""
        digests = self.image.attrs.get("RepoDigests") or []
        return {"where": self.where, "image": self.reference, "image_digests": digests, "engine": self.engine_version}

    def clear(self, folder: Path) -> list[str]:  # noqa: ARG002 - the engine knows each container's
        """Remove containers that series have left behind. Says which."""
        with contextlib.suppress(engine.EngineAway):  # starting the trial waits for it, and says so
            return engine.remove_leftovers(self.client)
        return []

    def ready(self, order: Order) -> None:
        """Nothing: this machine is there."""

    def drop_caches(self) -> caches.Dropped:
        """This machine's."""
        return caches.drop()

    def watched(self) -> None:
        """From now on the series' containers end with it."""
        self.reaper.watch_containers(f"{engine.SERIES}={self.series}", self.address)

    def start(self, order: Order) -> RunningContainer:
        """The trial, running, if need be once the engine is there again. NotSuitable, with what to do, when it refuses."""
        self.watched()
        chosen = self.spec(order, self.where)  # by id: a tag may be moved while a series runs
        lost: list[Away] = []

        def start() -> RunningContainer:
            if lost:  # an answer, and perhaps not the container
                engine.remove_labelled(self.client, f"{engine.SERIES}={self.series}")
            return self._within_limits(order, chosen)

        return engine.patiently(start, lambda text: self.say(f"{order.name}: {text}"), lost.append)

    def _within_limits(self, order: Order, chosen: ContainerSpec) -> RunningContainer:
        if self.may_lift_limits:
            try:
                return self._start(order, chosen)
            except NotSuitable as error:
                if not chosen.lift_limits or engine.LIMITS_REFUSED not in str(error):
                    raise
                self.may_lift_limits = False
                self.say(
                    "the engine may not lift the limit on locked memory; going on without --ulimit (RDMA may need it)"
                )
        return self._start(order, replace(chosen, lift_limits=False))

    def _start(self, order: Order, chosen: ContainerSpec) -> RunningContainer:
        with engine.explained(f"starting a container of {self.reference}"):
            container = self.client.containers.create(
                **chosen.arguments(),
                name=f"harness-{re.sub(NOT_IN_A_NAME, '_', self.name)}-{self.series}-{order.number}",
                labels=self.labels(order),
            )
        try:
            with engine.explained(f"starting a container of {self.reference}"):
                output = container.attach(stream=True, stdout=True, stderr=True)
                container.start()
        except BaseException:
            away.cleared(lambda: engine.remove(container), self.say, f"{order.name}: the container {container.name}")
            raise
        return RunningContainer(container, output, chosen.line(), self.facts(), self.say)


Launcher = TypeVar("Launcher", bound=ContainerLauncher)


def launcher(
    kind: type[Launcher],
    configuration: Configuration,
    request: Request,
    *,
    series: str,
    reaper: Reaper,
    say: Callable[[str], None],
    variables: Mapping[str, str],
) -> Launcher:
    """Of `kind`, for the request's image in the engine that is here, once what series that are gone left there is removed.

    NotSuitable without an engine or enough accelerators, ValueError for an image that is not there.
    """
    assert request.image is not None
    address = engine.address()
    client = engine.connect()
    image = engine.image(client, request.image)
    with engine.explained("asking what it can do"):
        info = client.info()
    needs, there = accelerator.for_containers(configuration.run.device)
    given = gpus(configuration.run, info, needs, there, request.gpus or "")
    for each in engine.remove_leftovers(client):
        say(f"removed a container that a series left behind: {each}")
    return kind(
        client,
        image,
        request.image,
        EngineHost.here(info),
        request,
        given,
        series,
        configuration.name,
        reaper,
        say,
        configuration.run.cpu_binding != "none",
        address,
        variables,
    )


class RunningContainer:
    """One trial; see watchdog.Running."""

    def __init__(
        self,
        container: Container,
        output: Iterator[bytes],
        line: str,
        facts: Mapping[str, Any],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._container, self._output, self._line, self._facts, self._say = container, output, line, facts, say
        self._lost_since: float | None = None
        self._lost = self._out_of_memory = self._gone = False

    def lines(self) -> Iterator[str]:
        import requests

        rest = b""
        try:
            for piece in self._output:
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        except (OSError, requests.exceptions.RequestException):
            pass  # the engine went away; poll() finds out and says so
        if rest:
            yield rest.decode(errors="replace")

    def poll(self) -> int | None:
        import requests
        from docker.errors import APIError, NotFound

        try:
            self._container.reload()
        except NotFound:
            self._gone = True
            return 137
        except (requests.exceptions.RequestException, APIError):
            self._lost = True
            self._lost_since = self._lost_since or time.monotonic()
            return 137 if time.monotonic() - self._lost_since > engine.PATIENCE_S else None
        self._lost_since = None
        state = self._container.attrs["State"]
        if state["Status"] in ("created", "running", "paused", "restarting"):
            return None
        self._out_of_memory = bool(state.get("OOMKilled"))
        return int(state["ExitCode"])

    def ask_for_stacks(self) -> str:
        import requests
        from docker.errors import APIError

        try:
            done = self._container.exec_run(list(stacks.COMMAND))
        except (APIError, requests.exceptions.RequestException) as error:
            return f"no stacks could be asked for: {error}"
        return str(done.output.decode(errors="replace").strip())

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        import requests
        from docker.errors import APIError

        # ended in this moment, or its engine did: poll() finds out
        with contextlib.suppress(APIError, requests.exceptions.RequestException):
            self._container.kill(name)

    def owns(self, process: psutil.Process) -> bool:
        """Whether it runs inside, as the kernel's account of control groups says."""
        try:
            return str(self._container.id) in Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8")
        except OSError:
            return False

    def why(self) -> str:
        reasons = (
            (self._out_of_memory, "the kernel killed it for lack of memory (OOMKilled)"),
            (self._gone, "its container was removed by someone else"),
            (
                self._lost_since is not None,
                f"the Docker engine went away and was not back within {engine.PATIENCE_S:g} s",
            ),
            (self._lost, "the Docker engine did not answer for a time (was it restarted?)"),
        )
        return next((text for true, text in reasons if true), "")

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {"container": {"id": self._container.id, "docker_run": self._line, **self._facts}}

    def close(self) -> None:
        def lost(_: Away) -> None:
            self._lost = True

        def end() -> None:
            engine.patiently(lambda: engine.remove(self._container), lambda _: None, lost)

        if self._lost_since is None:  # an engine that never comes back keeps it
            away.cleared(end, self._say, f"the container {self._container.name}")
