"""Series of trials for the verb `run`: from the command line's options to a series and its launcher."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness import names, outside
from harness.cli import environment
from harness.exit_codes import TARGET_MET
from harness.request import Engine, Request
from harness.system import image, places

if TYPE_CHECKING:
    from harness.config import Configuration
    from harness.launch.admission import SeriesOrder
    from harness.launch.trial import Order
    from harness.results.sources import Code


HERE = (Engine.PROCESS, Engine.DOCKER)


def run_trials(configuration: Configuration, request: Request) -> int:
    """Run the trials of a settled request, in containers of its image or as local processes.

    Results land under out/system/benchmark. Returns the exit code; ValueError or NotSuitable when the series may not begin.
    """
    from harness.launch import watchdog
    from harness.launch.admission import SeriesOrder

    if configuration.run.nodes > 1 and request.started_by in HERE:
        raise ValueError(
            f"{configuration.source}: run.nodes = {configuration.run.nodes}, and trials are started on this machine alone; "
            "--engine slurm and --engine kubernetes start them on clusters (docs/engines.md)"
        )
    system = (
        one_name("--system", request.system)
        if request.system is not None
        else names.of_platform(configuration.submission.platform)
    )
    series = SeriesOrder(
        folder=outside.real(request.folder / system / configuration.keyword),
        configuration_name=configuration.name,
        configuration_sha256=configuration.sha256,
        trials=request.trials or 1,
        seed=request.seed,
        max_steps=request.max_steps,
        ranks=configuration.run.world_size,
        clear_caches=request.clear_caches is not False,
        resume=request.resume,
        also_as=None if request.datestamp is None else request.folder / one_name("--datestamp", request.datestamp),
        patience_s=watchdog.PATIENCE_S if request.watchdog is None else request.watchdog or None,
        code=None if request.image is not None else lambda: _code(configuration.benchmark_name),
    )
    if request.started_by is Engine.SLURM:
        return _by_slurm(series, configuration, request)
    if request.started_by is Engine.PROCESS:
        return _as_processes(series, request)
    assert request.image is not None
    if request.started_by is Engine.KUBERNETES:
        return _as_jobs(series, configuration, request)
    return _as_containers(series, configuration, request)


def _code(benchmark: str) -> Code:
    """What a trial runs that this checkout's own Python starts."""
    from harness.execution import provenance
    from harness.results.sources import Code

    return Code(*provenance.commit(image.identity({})), provenance.of_benchmark(benchmark))


def one_name(option: str, said: str) -> str:
    """What the option says. ValueError when it is more than one name: results would leave --out."""
    if said in ("", ".", "..") or "/" in said or "\0" in said:
        raise ValueError(f"{option} {said!r}: a name under --out is needed, without a slash")
    return said


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _as_processes(series: SeriesOrder, request: Request) -> int:
    from harness.launch import trials
    from harness.launch.process import LocalLauncher
    from harness.launch.reaper import Reaper

    def command(order: Order) -> list[str]:
        asked = request.of_trial(order.number, order.folder, order.seed)
        return [sys.executable, "-m", "harness", *asked.argv()]

    with Reaper() as reaper:
        return trials.run(series, LocalLauncher(command, environment.of_children(), reaper, series.id), _say)


def _for_containers(request: Request) -> Request:
    for each in unseen_in_containers(request.data_dir):
        _say(each)
    return replace(request, cache_dir=cache_of_containers(request.cache_dir, _say))


def cache_of_containers(cache_dir: Path | None, say: Callable[[str], None]) -> Path | None:
    """Of all containers of this user, so that each checks its data and compiles its kernels once, and not for each trial.

    Not the cache of runs outside: what that remembers of a data set is by its path, and a container sees it elsewhere.
    """
    assert cache_dir is not None  # the command line settles it
    folder = places.made_own(cache_dir.absolute(), "containers")
    if folder is None:
        say(
            f"{cache_dir} cannot be kept by this user alone, and so no container uses it: each checks its data and "
            "compiles again; name a folder of your own with --cache-dir"
        )
    return folder


def unseen_in_containers(data_dir: Path | None) -> Iterator[str]:
    """A sentence for each link in the folder that leads out of it, where a container has nothing, or a file of the image.

    No refusal: what of the folder is read, the benchmark alone knows.
    """
    if data_dir is None or not outside.is_folder(data_dir):  # of nodes, perhaps, and not of this machine
        return
    folder = outside.real(data_dir)
    for each in sorted(folder.iterdir()):
        if not each.is_symlink():
            continue
        leads = outside.real(each)
        here = leads.is_relative_to(folder)
        if not here or each.readlink().is_absolute():
            do = "make the link relative" if here else "move that to here"
            yield f"--data-dir {data_dir}: {each.name} is a link to {leads}, which a container does not see; {do}"


def _by_slurm(series: SeriesOrder, configuration: Configuration, request: Request) -> int:
    from harness.launch import trials
    from harness.launch.reaper import Reaper
    from harness.launch.step import SlurmLauncher

    if request.image is not None:
        request = _for_containers(request)
    with (
        Reaper() as reaper,
        SlurmLauncher(configuration, request, environment.of_children(), series.id, reaper, _say) as launcher,
    ):
        return trials.run(series, launcher, _say)


def _as_containers(series: SeriesOrder, configuration: Configuration, request: Request) -> int:
    from harness.launch import image_code, trials
    from harness.launch.container import ContainerLauncher, launcher
    from harness.launch.reaper import Reaper
    from harness.launch.trial import Order
    from harness.system.accelerator import CPU

    request = _for_containers(request)
    assert request.image is not None
    if configuration.run.device != CPU and request.gpus is None and (unheard := environment.unheard_by_the_engine()):
        _say(f"warning: {unheard}; --gpus chooses others")
    with Reaper() as reaper:
        variables = environment.of_containers()
        made = launcher(
            ContainerLauncher, configuration, request, series=series.id, reaper=reaper, say=_say, variables=variables
        )
        first = Order(0, series.folder, series.seed, caches_cleared=False)
        target, sha256 = configuration.run.target, series.configuration_sha256
        image_code.must_be_alike(made, first, target, sha256, org=request.org)
        line = made.spec(first, request.image).line()
        _say(f"each trial is started as by (with its own number):\n    {line}")
        return trials.run(series, made, _say)


def _as_jobs(series: SeriesOrder, configuration: Configuration, request: Request) -> int:
    from harness.launch import trials
    from harness.launch.kubernetes import checks
    from harness.launch.kubernetes.cluster import Cluster
    from harness.launch.kubernetes.launcher import JobLauncher
    from harness.launch.kubernetes.manifests import Site, of_trial
    from harness.launch.reaper import Reaper
    from harness.launch.trial import Order

    site = Site.read(configuration, request)
    first = Order(0, series.folder, series.seed, caches_cleared=False)
    if request.dry_run:
        typer.echo(of_trial(configuration, request, site, first, series.id, host=platform.node()).yaml(), nl=False)
        return TARGET_MET
    cluster = Cluster.connect(request.kube_context, request.namespace)
    for each in cluster.delete_leftovers():
        _say(f"deleted a Job that a series left behind: {each}")
    with Reaper() as reaper:
        launcher = JobLauncher(cluster, configuration, request, site, series.id, reaper, _say)
        checks.must_suit(cluster, site, configuration.run, launcher.trial(first), _say)
        if "@sha256:" not in site.image:
            _say(f"--image {site.image} is a tag, which may be moved; NAME@sha256:... is one image for ever")
        _say(
            f"each trial is a Job in namespace {cluster.namespace} of Kubernetes {cluster.version}; --dry-run shows it"
        )
        return trials.run(series, launcher, _say)
