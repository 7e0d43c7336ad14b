"""Whether an image's own code reads a configuration as this checkout's does, asked before its first trial."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness import holder
from harness.contract import NotSuitable
from harness.launch import engine
from harness.launch.container_spec import Gpus
from harness.launch.trial import Order

if TYPE_CHECKING:
    from harness.launch.container import ContainerLauncher

# What an image's own code makes of a configuration: its hash
HASH = (
    "import sys; from pathlib import Path; from harness import config; "
    "org = {'org': each for each in sys.argv[3:]}; "
    "print(config.load(Path(sys.argv[1]), target=float(sys.argv[2]), **org).sha256)"
)


def must_be_alike(launcher: ContainerLauncher, order: Order, target: float, sha256: str, *, org: str | None) -> None:
    """ValueError when the image's code reads the configuration otherwise than this checkout's, or not at all.

    Seconds, where a trial in an image of older code would be found out only at its end. The container is known as a trial's
    is, and whoever ends this process leaves none.
    """
    from docker.errors import ContainerError

    reference, chosen = launcher.reference, launcher.spec(order, launcher.reference)
    (configuration, *_) = chosen.mounts
    command = ("python", "-c", HASH, str(configuration.target), repr(target), *([] if org is None else [org]))
    asking = replace(chosen, command=command, mounts=(configuration,), gpus=Gpus(), lift_limits=False)
    labels = {**launcher.labels(order), engine.PROCESS: holder.sign()}  # the series has no ledger yet
    again = f"build it from this checkout: docker build -t {reference} ."
    launcher.watched()
    try:
        with engine.explained(f"starting a container of {reference}"):
            printed = launcher.client.containers.run(**asking.arguments(), labels=labels, remove=True)
    except NotSuitable as error:
        if not isinstance(error.__cause__, ContainerError):
            raise
        said = (error.__cause__.stderr or b"").decode(errors="replace").strip().splitlines() or ["nothing"]
        raise ValueError(f"image {reference} cannot read {configuration.source.name}: {said[-1]}; {again}") from error
    # the last line: an image's entry point may print before the command, as NVIDIA's do with a banner
    *_, found = "nothing", *filter(None, map(str.strip, printed.decode(errors="replace").splitlines()))
    if found != sha256:
        raise ValueError(
            f"image {reference} is of other code: it reads {configuration.source.name} as configuration {found[:12]}, which is "
            f"{sha256[:12]} here; {again}"
        )
