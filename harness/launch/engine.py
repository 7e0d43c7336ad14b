"""The Docker engine: reaching it, what it says it can do, what is left over in it, and its errors in words with the fix.

Talks by the Docker SDK for Python. Every way in which an engine commonly refuses has a sentence here that says what to do;
`NotSuitable` (exit code 6) is a machine that cannot, `ValueError` (2) a request that cannot be met.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import holder
from harness.contract import NotSuitable
from harness.launch import away, ledger
from harness.launch.away import Answer, Away
from harness.validation import did_you_mean

if TYPE_CHECKING:
    from docker.client import DockerClient
    from docker.models.containers import Container
    from docker.models.images import Image

# Labels of every container that a series starts
SERIES, HOST, FOLDER, TRIAL = "harness.series", "harness.host", "harness.folder", "harness.trial"
PROCESS = "harness.process"  # of one that no ledger speaks for, a probe's: who waits for it, as holder.sign has it

PATIENCE_S = 60.0  # for an engine that is being restarted
AGAIN_S = 1.0  # between two tries
CDI_NAME = re.compile(
    r"""^[\s-]*"?name"?:\s*"?([^"\s,]+)""", re.MULTILINE
)  # of a device, in a YAML or JSON description

INSTALL = "--image needs the Docker SDK for Python: python -m pip install docker (it is in requirements/run.lock)"
NO_ENGINE = """no Docker engine answers ({address}). Is it installed and running?
    {start:<38} starts it; `docker context ls` shows others, DOCKER_HOST names one
    https://docs.docker.com/engine/install/  installs it
without Docker: the same command without --image runs on this machine's own Python"""
NO_PERMISSION = """user {user} may not use the Docker engine ({address}: permission denied). Either
    {join}         then log in again (members of this group are as good as root), or
    https://docs.docker.com/engine/security/rootless/  an engine of your own"""

LIMITS_REFUSED = "error setting rlimit"

# What an engine's answer contains -> what to do about it; of these, what holds for a cluster's engines too
OF_THE_DRIVER = (
    (
        "unsatisfied condition",
        "the host's NVIDIA driver is older than this image asks for (NVIDIA_REQUIRE_CUDA): install a newer driver, or use "
        "an image built for an older CUDA; `python -m harness doctor` shows both versions",
    ),
    (
        "nvml error: driver/library version mismatch",
        "the NVIDIA driver was upgraded while its old kernel module is still loaded: reboot, or unload the module",
    ),
    (
        "nvidia-container-cli: initialization error",
        "the NVIDIA driver does not work on this host; `nvidia-smi` there says why",
    ),
)
KNOWN = (
    *OF_THE_DRIVER,
    (
        "could not select device driver",
        "the Docker engine cannot give GPUs to containers: install the NVIDIA Container Toolkit, then\n"
        "    sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
    ),
    (
        "unresolvable CDI devices",
        "the engine knows no such GPU: there are fewer than asked for, or the host's CDI description is out of date:\n"
        "    sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    (
        "unknown device",
        "there is no such GPU on this machine; `nvidia-smi -L` lists them",
    ),
    (
        "no space left on device",
        "the engine's disk is full: `docker system df` shows by what, `docker system prune` frees",
    ),
    (LIMITS_REFUSED, "this engine may not lift limits (memlock, stack): it lacks some of root's rights"),
    (
        "bind source path does not exist",
        "the engine does not see this machine's folders: it runs elsewhere, or (Docker Desktop) does not share this one",
    ),
)


class EngineAway(Away):
    """Nothing answers at the engine's address: it is not running, or not yet again."""


def address() -> str:
    """Of the engine that is meant here now: DOCKER_HOST's, else that of the context which the docker command uses, a rootless
    engine's for example. `docker context use` changes it."""
    try:
        from docker.context import ContextAPI
        from docker.errors import TLSParameterError
        from docker.utils import kwargs_from_env
    except ImportError as error:
        raise NotSuitable(INSTALL) from error
    try:
        named = kwargs_from_env()
        if "base_url" not in named:
            named = ContextAPI.kwargs_from_context()
    except TLSParameterError as error:
        raise NotSuitable(
            f"DOCKER_TLS_VERIFY or DOCKER_CERT_PATH, or the docker command's context, asks for certificates: {error}; an "
            "engine on this machine needs none: unset them"
        ) from error
    except Exception as error:  # of whatever class: what the SDK makes of a damaged context's file
        raise NotSuitable(
            f"the docker command's context cannot be read: {error!r}; `docker context ls` shows them, and DOCKER_HOST names an "
            "engine"
        ) from error
    return str(named.get("base_url") or "unix:///var/run/docker.sock")


def connect(make: Callable[[], DockerClient] | None = None, named: str | None = None) -> DockerClient:
    """The engine at the address `named`, else that DOCKER_HOST or the usual socket names. NotSuitable when there is none or we
    may not use it. A socket's path is all that an address takes: engines that want TLS are on other machines, and refused.
    """
    try:
        import requests
        from docker.client import DockerClient, from_env
        from docker.errors import DockerException
    except ImportError as error:
        raise NotSuitable(INSTALL) from error
    try:
        client = make() if make is not None else DockerClient(base_url=named) if named else from_env()
        client.ping()
    except (DockerException, requests.exceptions.RequestException) as error:
        raise _unreachable(error, named) from error
    if not str(client.api.base_url).startswith("http+docker://"):
        raise NotSuitable(
            f"the Docker engine is on another machine ({client.api.base_url}), which sees neither this one's data nor its "
            "results folder: run this command there, or unset DOCKER_HOST"
        )
    return client


def _unreachable(error: BaseException, named: str | None = None) -> NotSuitable:
    named = named or address()
    start = "systemctl --user start docker" if "/run/user/" in named else "sudo systemctl start docker"
    for cause in _causes(error):
        if isinstance(cause, PermissionError):
            return NotSuitable(NO_PERMISSION.format(address=named, **_user()))
    return EngineAway(NO_ENGINE.format(address=named, start=start))


def _user() -> dict[str, str]:
    """Who asks, and how he joins the engine's group; a user id that a container or a job was given has often no name."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return {
            "user": str(os.getuid()),
            "join": "be given the group that owns this socket (docker run --group-add, ...),",
        }
    return {"user": name, "join": f"sudo usermod -aG docker {name}"}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all it came from; urllib3 carries its cause as an argument."""
    seen: list[BaseException | None] = [error]
    while seen:
        each = seen.pop()
        if each is not None:
            yield each
            seen += [each.__cause__ or each.__context__, *(arg for arg in each.args if isinstance(arg, BaseException))]


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """The engine's refusals inside the block as NotSuitable, with the way out where we know it; its absence as EngineAway.

    One that takes longer for an answer than the SDK waits (60 s; removals beside a build) is away too.
    """
    import requests
    from docker.errors import DockerException

    try:
        yield
    except DockerException as error:
        answer = str(getattr(error, "explanation", None) or error)
        fix = next((fix for sign, fix in KNOWN if sign.lower() in answer.lower()), "")
        raise NotSuitable("\n".join([f"{doing}: the engine refuses: {answer}", *([fix] if fix else [])])) from error
    except requests.exceptions.RequestException as error:
        raise _unreachable(error) from error


def patiently(
    action: Callable[[], Answer], say: Callable[[str], None], lost: Callable[[Away], None] = lambda _: None
) -> Answer:
    """What it returns, if need be once the engine is there again. EngineAway when that is not within PATIENCE_S."""
    return away.patiently(action, say, PATIENCE_S, AGAIN_S, lost)


def image(client: DockerClient, name: str) -> Image:
    """The image of this name, which is never downloaded behind the user's back. ValueError when it is not here."""
    from docker.errors import ImageNotFound

    try:
        with explained(f"looking for image {name}"):
            try:
                return client.images.get(name)
            except ImageNotFound:
                there = sorted(tag for each in client.images.list() for tag in each.tags)
    except NotSuitable as error:
        if "invalid reference format" in str(error):
            raise ValueError(f"--image {name}: not the name of an image") from error
        raise
    raise ValueError(
        f"there is no image {name} on this machine{did_you_mean(name, there)}\n"
        f"    docker build -t {name} .    builds it, from the checkout\n"
        f"    docker pull {name}          fetches it, if it is published\n"
        f"here are: {', '.join(there) or 'none'}"
    )


def remove_labelled(client: DockerClient, label: str, *, grace_s: int = 0) -> None:
    """Stop and remove every container with this label ("key=value")."""
    for each in _labelled(client, label):
        remove(each, grace_s)


def labels(series: str, folder: Path, number: int) -> dict[str, str]:
    """By which a container is known to belong to a series."""
    return {SERIES: series, HOST: platform.node(), FOLDER: str(folder), TRIAL: str(number)}


def remove_leftovers(client: DockerClient) -> list[str]:
    """Remove the containers of series that are gone (killed, or their machine restarted). Returns them, for people.

    A series lives as long as it holds the lock on its ledger, a probe as long as its process. What another host (also: a
    container that shares the engine) or another user has started is left alone where its ledger cannot be seen from here.
    """
    removed = []
    for each in _labelled(client, f"{HOST}={platform.node()}"):
        folder = each.labels.get(FOLDER, "")
        waits = each.labels.get(PROCESS)
        try:
            alive = ledger.in_use(Path(folder)) if waits is None else holder.lives(waits)
        except PermissionError:
            continue
        if not alive:
            remove(each)
            removed.append(f"{each.name} (of {folder})")
    return removed


def _labelled(client: DockerClient, label: str) -> list[Container]:
    with explained("listing containers"):  # one that goes between the list and the look at it is passed over
        return list(client.containers.list(all=True, ignore_removed=True, filters={"label": label}))


def remove(container: Container, grace_s: int = 0) -> None:
    """Stop and remove it. A container that is gone already, or just going, is as good."""
    from docker.errors import NotFound

    try:
        with explained(f"removing container {container.name}"):
            if grace_s and container.status == "running":
                container.stop(timeout=grace_s)
            container.remove(force=True, v=True)
    except NotSuitable as error:
        cause = error.__cause__
        if not isinstance(cause, NotFound) and "already in progress" not in str(cause):
            raise


# --- what the engine is -----------------------------------------------------------------------------------------------


def has(info: dict[str, Any], option: str) -> bool:
    """Whether the engine runs with this security option: rootless, userns, selinux."""
    return any(f"name={option}" in each.split(",") for each in info.get("SecurityOptions") or [])


def cdi_gpus(info: dict[str, Any], kind: str) -> list[str] | None:
    """Names of a vendor's devices ("nvidia.com/gpu") that the engine gives by CDI; None where it does not use it.

    Engines from 28.2 on list what they found; those from 25 on only where they look.
    """
    if "DiscoveredDevices" in info:
        found = [each["ID"] for each in info["DiscoveredDevices"] or [] if each.get("Source") == "cdi"]
    else:
        folders = [Path(each) for each in info.get("CDISpecDirs") or []]
        specs = [
            path.read_text(errors="replace") for each in folders if each.is_dir() for path in sorted(each.iterdir())
        ]
        names = [name for spec in specs if kind in spec for name in CDI_NAME.findall(spec)]
        found = [f"{kind}={name}" for name in names]
    return [each.partition("=")[2] for each in found if each.startswith(f"{kind}=")] or None
