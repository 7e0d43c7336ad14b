"""Series of trials for the verb `run`: from the command line's wishes to a series and its launcher."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from docker.client import DockerClient
    from docker.models.images import Image

    from harness.config import Configuration
    from harness.launch.plan import Plan
    from harness.launch.record import Order
    from harness.launch.trials import Series


def run_trials(
    configuration: Configuration,
    path: Path,
    *,
    trials: int,
    out: Path,
    image: str | None = None,
    system: str | None = None,
    data_dir: Path | None = None,
    backbone_path: Path | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
    clear_caches: bool = True,
    resume: bool = False,
    watchdog_s: float | None = None,
    gpus: Sequence[str] = (),
    shm_size: str | None = None,
) -> int:
    """Run `trials` trials of the configuration read from `path`, in containers of `image` or as local processes.

    `watchdog_s`: None for the usual patience, 0 for none. Results land under out/system/benchmark. Returns the exit code;
    ValueError or NotSuitable when the series may not begin.
    """
    from harness.launch import watchdog
    from harness.launch.trials import Series

    check_inputs(data_dir, backbone_path)
    if configuration.run.nodes > 1:
        raise ValueError(
            f"{configuration.source}: run.nodes = {configuration.run.nodes}, and trials are started on this machine alone; "
            "docker/run.sub is for a cluster with Slurm"
        )
    series = Series(
        folder=(out / (system or slug(configuration.submission.platform)) / configuration.benchmark.name).resolve(),
        configuration_name=configuration.name,
        configuration_sha256=configuration.sha256,
        trials=trials,
        seed=seed,
        max_steps=max_steps,
        clear_caches=clear_caches,
        resume=resume,
        patience_s=watchdog.PATIENCE_S if watchdog_s is None else watchdog_s or None,
    )
    data, backbone = (each.resolve() if each is not None else None for each in (data_dir, backbone_path))
    told = ["--target", repr(configuration.run.target), *_option("--max-steps", max_steps)]
    if image is None:
        options = [*told, *_option("--data-dir", data), *_option("--backbone-path", backbone)]
        return _as_processes(series, path.resolve(), options)

    from harness.launch import engine
    from harness.launch import plan as containers
    from harness.system import accelerator

    def plan(order: Order, name: str) -> Plan:
        return containers.plan(
            host,
            name,
            order,
            image_id=str(found.id),
            configuration=path.resolve(),
            options=told,
            data_dir=data,
            backbone_path=backbone,
            gpus=chosen,
            shm_size=shm_size,
        )

    client = engine.connect()
    found = engine.image(client, image)
    info = client.info()
    host = containers.Host.here(info)
    needs, there = accelerator.for_containers(configuration.run.device)
    chosen = containers.gpus(configuration.run, info, needs, there, gpus)
    return _as_containers(series, client, found, image, plan=plan, target=configuration.run.target)


def check_inputs(data_dir: Path | None, backbone_path: Path | None) -> None:
    """ValueError when what is to be mounted or read is not there."""
    if data_dir is not None:
        if not data_dir.is_dir():
            raise ValueError(f"--data-dir {data_dir}: there is no such folder")
        if next(data_dir.iterdir(), None) is None:
            raise ValueError(
                f"--data-dir {data_dir}: the folder is empty; is its disk mounted? "
                f"`python -m harness prepare --data-dir {data_dir}` fills it"
            )
    if backbone_path is not None and not backbone_path.is_file():
        raise ValueError(f"--backbone-path {backbone_path}: there is no such file")


def slug(platform: str) -> str:
    """A folder's name out of submission.platform: "8x NVIDIA A100-SXM4-40GB" is 8x_nvidia_a100-sxm4-40gb."""
    return re.sub(r"[^a-z0-9.-]+", "_", platform.lower()).strip("_.") or "system"


def _option(name: str, value: Path | int | None) -> list[str]:
    return [] if value is None else [name, str(value)]


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _as_processes(series: Series, path: Path, options: Sequence[str]) -> int:
    from harness.launch import trials
    from harness.launch.process import LocalLauncher
    from harness.launch.reaper import Reaper

    def command(order: Order) -> list[str]:
        seed = [] if order.seed is None else ["--seed", str(order.seed)]
        run = [sys.executable, "-m", "harness", "run", str(path)]
        return [*run, "--out", str(order.folder), "--number", str(order.number), *options, *seed]

    with Reaper() as reaper:
        return trials.run(series, LocalLauncher(command, os.environ, reaper), _say)


def _as_containers(
    series: Series, client: DockerClient, image: Image, name: str, *, plan: Callable[[Order, str], Plan], target: float
) -> int:
    from harness.launch import engine, trials
    from harness.launch.container import ContainerLauncher, same_configuration
    from harness.launch.reaper import Reaper
    from harness.launch.record import Order

    for each in engine.remove_leftovers(client):
        _say(f"removed a container that a series left behind: {each}")
    first = plan(Order(0, series.folder, series.seed, caches_cleared=False), name)
    same_configuration(client, first, name, target, series.configuration_sha256)
    _say(f"each trial is started as by (with its own number):\n    {first.line()}")
    with Reaper() as reaper:
        launcher = ContainerLauncher(client, image, name, plan, series.id, series.configuration_name, reaper, _say)
        return trials.run(series, launcher, _say)
