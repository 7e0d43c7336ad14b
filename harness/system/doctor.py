"""What stands between this machine and a good run: one finding per thing looked at, each with what to do.

"problem": a run cannot work, or its result would be wrong. "warning": it runs, slower or less repeatably than it could.
Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.names import NO_COMMIT, prepare_command
from harness.system.accelerator import CPU, Finding, Level
from harness.system.facts import Machine
from harness.system.places import Cache, Place

RESULTS_GIB, RESULTS_GIB_LEAST = 5.0, 0.2  # of logs, pictures, telemetry and the embedded data; least: of one run's log
CACHE_GIB = 1.0  # COCO's check leaves 0.1, a compiled step some 0.1
# Of one rank of the embedded run on a CPU, the smallest there is: at most 1.1 GiB resident (ru_maxrss of a run of 12 steps
# on two processors), 0.8 of them as PSS, and room for the evaluation
MEMORY_GIB = 1.5
FILES_LEAST = 1500  # the embedded pictures are 1,200 files
SHM_GIB = 1.0  # Docker gives 64 MiB, which NCCL between GPUs of one host does not do with
OPENMP_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")  # any of them binds, unless the first is "false"
MEMLOCK_GIB = 1.0  # NCCL pins its buffers, and so does RDMA


@dataclass(frozen=True)
class Reading:
    """What a configuration reads of a data set's folder."""

    configuration: str
    benchmark: str  # whose data set it is
    prepared_by: str | None  # as a configuration has it
    lacks: tuple[str, ...] = ()  # of the folder; empty where all is there
    hollow: tuple[str, ...] = ()  # what is there with nothing in it
    more: int = 0  # configurations that it is complete for, too

    @property
    def whole(self) -> bool:
        return not self.lacks and not self.hollow


def examine(
    machine: Machine,
    results: Place,
    shared_memory: Place,
    data: Place | None,
    *,
    cache: Cache | None = None,
    reading: Reading | None = None,
) -> list[Finding]:
    """Everything, in the order in which a reader fixes it."""
    chosen = machine.chosen
    several = max(len(chosen.names), len(chosen.details())) > 1
    findings = [_image(machine), *chosen.findings(), *_others(machine)]
    findings += [*_processor(machine), *_threads(machine), _memory(machine), _shared_memory(shared_memory, several)]
    findings += [_memlock(machine.host.memlock, bool(machine.accelerators)), _results(results, machine.host.container)]
    if cache is not None:
        findings.append(_cache(cache, machine.host.container))
    if data is not None:
        findings.append(_data(data, reading))
    return findings


def _image(machine: Machine) -> Finding:
    if not machine.image:
        return Finding("ok", "image", "not in our image; versions are those of this environment")
    about = machine.image
    text = f"commit {str(about['commit'])[:12]}, lock {str(about['lock_sha256'])[:12]}, SBOM {str(about['sbom_sha256'])[:12]}"
    if about["commit"] == NO_COMMIT:
        fix = "build it from a git checkout, or with --build-arg GIT_COMMIT=..."
        return Finding("warning", "image", f"{text}: nobody can tell which code this is", fix)
    if about["tree_dirty"]:
        fix = "commit, and build again, before a result that is to be published"
        return Finding("warning", "image", f"{text}, with changes that are not committed", fix)
    return Finding("ok", "image", text)


def _others(machine: Machine) -> Iterator[Finding]:
    """What the machine has besides the accelerators that a run would take."""
    for each in machine.found:
        if each is machine.chosen or each.device == CPU:
            continue
        names = each.names or each.unusable
        counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        text = f"{counted}: {each.verdict.message}" if counted else each.verdict.message
        yield Finding("ok" if each.names else "warning", "also here", text, "" if each.names else each.verdict.fix)


def _processor(machine: Machine) -> Iterator[Finding]:
    cpu = machine.host.cpu
    text = f"{cpu.model}, {cpu.cores} cores, {cpu.threads} threads, {cpu.numa_nodes} NUMA node(s)"
    if cpu.usable < cpu.threads:
        fix = "give the container or the job the whole machine (--cpuset-cpus, the scheduler's options)"
        yield Finding("warning", "cpu", f"{text}; this process may use {cpu.usable} of them", fix)
    if cpu.quota is not None and cpu.quota < cpu.usable:
        fix = "start the container without --cpus: a quota stops all threads at once when it is spent"
        yield Finding("warning", "cpu", f"{text}; limited to {cpu.quota:g} processors' time", fix)
    elif cpu.usable >= cpu.threads:
        yield Finding("ok", "cpu", text)
    if not cpu.governors:
        yield Finding("ok", "governor", "not shown by this kernel, as in most virtual machines")
    elif cpu.governors == ("performance",):
        yield Finding("ok", "governor", "performance")
    else:
        fix = "on the host: cpupower frequency-set --governor performance"
        yield Finding("warning", "governor", f"{', '.join(cpu.governors)}: times vary with the clock", fix)


def _threads(machine: Machine) -> Iterator[Finding]:
    """What the environment tells OpenMP of where its threads are to run."""
    told = machine.variables
    binding = [name for name in OPENMP_BINDING if str(told.get(name, "")).strip()]
    if not binding or str(told.get("OMP_PROC_BIND", "")).strip().lower() == "false":
        return
    text = (
        f"{', '.join(f'{name}={told[name]}' for name in binding)}: OpenMP keeps each of its threads on one processor, "
        "also where another thread or another rank is busy there"
    )
    yield Finding("warning", "threads", text, f"unset {' '.join(binding)}; whole ranks are bound by run.cpu_binding")


def _memory(machine: Machine) -> Finding:
    limit, whole = machine.host.memory_limit_gib, machine.host.memory_gib
    text = f"{whole:g} GiB" if limit is None else f"{limit:g} GiB by cgroup, of {whole:g} GiB"
    if (whole if limit is None else limit) >= MEMORY_GIB:
        return Finding("ok", "memory", text)
    fix = "give the container or the job more (--memory, --mem); the kernel kills a run that wants more than there is"
    return Finding("warning", "memory", f"{text}; the smallest run needs {MEMORY_GIB:g} GiB, each rank", fix)


def _shared_memory(place: Place, several: bool) -> Finding:
    text = f"{place.path} has {_gib(place.size_gib)}, {_gib(place.free_gib)} free"
    if not (place.exists and place.writable):
        fix = "start the container without --ipc=none; elsewhere `mount -t tmpfs -o mode=1777 tmpfs /dev/shm`"
        return Finding("problem", "shared memory", f"{place.path} is not there, or this user may not write in it", fix)
    if place.free_gib >= SHM_GIB:
        return Finding("ok", "shared memory", text)
    fix = f"start the container with --ipc=host, or with --shm-size={SHM_GIB:g}g"
    return Finding("problem" if several else "warning", "shared memory", text, fix)


def _memlock(limit: int | None, matters: bool) -> Finding:
    text = "unlimited" if limit is None else f"{_gib(limit / (1 << 30))} may be locked"
    if limit is None or limit >= MEMLOCK_GIB * (1 << 30) or not matters:
        return Finding("ok", "memlock", text)
    return Finding("warning", "memlock", text, "start the container with --ulimit memlock=-1, or raise `ulimit -l`")


def _results(place: Place, in_container: bool) -> Finding:
    text = f"{place.path}, {_gib(place.free_gib)} free on {place.filesystem}"
    if not place.writable:
        fix = "give it to this user, or name another folder (--out, LOGDIR)"
        return Finding("problem", "results", f"{text}: {_unwritable(place)}", fix)
    if few := _few_files(place):
        return Finding("problem", "results", text + few, "remove files, or name another folder (--out, LOGDIR)")
    if place.free_gib < RESULTS_GIB:
        level: Level = "warning" if place.free_gib >= RESULTS_GIB_LEAST else "problem"
        return Finding(level, "results", text, "make room, or name another folder (--out, LOGDIR)")
    if in_container and place.a_layer:
        fix = 'give it a folder of the host: docker run -v "$PWD/out:/results"'
        return Finding("warning", "results", f"{text}: gone with this container", fix)
    return Finding("ok", "results", text)


def _few_files(place: Place) -> str:
    """Where there are bytes and hardly an inode, as after millions of small files: "No space left on device" too."""
    few = place.free_files is not None and place.free_files < FILES_LEAST
    return f": only {place.free_files:,} more files can be made there (df -i)" if few else ""


def _unwritable(place: Place) -> str:
    return f"cannot be written{f' ({place.unreachable})' if place.unreachable else ''}"


def _cache(cache: Cache, in_container: bool) -> Finding:
    place = cache.place
    text = f"{place.path}, {_gib(place.free_gib)} free on {place.filesystem}"
    text += (
        f", {_gib(cache.compiled_gib)} of it compiled by earlier runs"
        if cache.compiled_gib
        else ", nothing compiled yet"
    )
    if not place.writable:
        return Finding("problem", "cache", f"{text}: {_unwritable(place)}", "name another folder (HARNESS_CACHE_DIR)")
    if not cache.own:
        fix = "name a folder that only you may write in with HARNESS_CACHE_DIR; what is kept there is trusted"
        return Finding("warning", "cache", f"{text}: others may write in it", fix)
    if few := _few_files(place):
        return Finding("problem", "cache", text + few, "remove files, or name another folder (HARNESS_CACHE_DIR)")
    if in_container and place.a_layer:
        fix = "keep it in a volume (docker run -v NAME:/cache): else each container checks its data and compiles again"
        return Finding("ok", "cache", f"{text}: gone with this container", fix)
    if place.free_gib < CACHE_GIB:
        return Finding("warning", "cache", text, "make room, or name another folder (HARNESS_CACHE_DIR)")
    return Finding("ok", "cache", text)


def _data(place: Place, reading: Reading | None) -> Finding:
    text = f"{place.path} on {place.filesystem}"
    if place.unreachable:
        fix = "let this user into all folders above it; a network file system's is mounted again"
        return Finding("problem", "data set", f"{text}: cannot be looked at ({place.unreachable})", fix)
    if place.occupied:
        fix = "name the folder that holds the annotations and the pictures"
        return Finding("problem", "data set", f"{text}: is a file, and a folder is needed", fix)
    if not place.exists:
        return Finding("problem", "data set", f"{text}: there is no such folder", "check --data-dir and the mount")
    if not place.readable:
        return Finding("problem", "data set", f"{text}: cannot be read", "let this user read it, or run as its owner")
    if place.empty:
        fix = "in a container, check the mount"
        if reading is None or reading.prepared_by is not None:
            options = None if reading is None else reading.prepared_by
            command = "python -m harness prepare" if options is None else prepare_command(options, place.path)
            fix = f"`{command}` downloads the data set; {fix}"
        return Finding("problem", "data set", f"{text}: empty", fix)
    if reading is not None and not reading.whole:
        found = (("lacks", reading.lacks), ("has nothing in", reading.hollow))
        missing = " and ".join(f"{what} {', '.join(names)}" for what, names in found if names)
        fix = "one of your own needs a configuration that names its files: doctor CONFIGURATION"
        if reading.prepared_by is not None:
            fix = f"`{prepare_command(reading.prepared_by, place.path)}` completes a known data set; {fix}"
        return Finding("problem", "data set", f"{text}: it {missing}, which {reading.configuration} reads", fix)
    if reading is not None:
        more = f" and {reading.more} more" if reading.more else ""
        text += f", with the files that {reading.configuration}{more} read{'' if reading.more else 's'}"
    if place.remote:
        return Finding("warning", "data set", f"{text}: a network file system", "copy it to a local disk")
    return Finding("ok", "data set", text)


def _gib(value: float) -> str:
    return f"{value * 1024:.0f} MiB" if value < 1 else f"{value:.1f} GiB"
