"""What stands between this machine and a good run: one finding per thing looked at, each with what to do.

"problem": a run cannot work, or its result would be wrong. "warning": it runs, slower or less repeatably than it could.
Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from harness.system.facts import Machine
from harness.system.nvidia import decision, gpu_state
from harness.system.places import Place

Level = Literal["ok", "warning", "problem"]

RESULTS_GIB, RESULTS_GIB_LEAST = 5.0, 0.2  # of logs, pictures, telemetry and the embedded data; least: of one run's log
SHM_GIB = 1.0  # Docker gives 64 MiB, which NCCL between GPUs of one host does not do with
MEMLOCK_GIB = 1.0  # NCCL pins its buffers, and so does RDMA


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    level: Level
    subject: str
    text: str
    fix: str = ""


def examine(machine: Machine, results: Place, shared_memory: Place, data: Place | None) -> list[Finding]:
    """Everything, in the order in which a reader mends it."""
    several = len(machine.driver.nvml.gpus) > 1
    findings = [_image(machine), *_driver(machine)]
    for state in gpu_state.examine(machine.driver.nvml.gpus):
        findings.append(Finding(*state))
    if machine.driver.kernel_module is not None and machine.driver.nvml.error is not None:
        fix = 'in a container, NVIDIA_DRIVER_CAPABILITIES must contain "utility"'
        findings.append(Finding("warning", "nvml", f"no clocks, ECC or power: {machine.driver.nvml.error}", fix))
    findings += [*_processor(machine), _memory(machine), _shared_memory(shared_memory, several)]
    findings += [_memlock(machine.host.memlock, bool(machine.accelerators)), _results(results)]
    if data is not None:
        findings.append(_data(data))
    return findings


def _image(machine: Machine) -> Finding:
    if not machine.image:
        return Finding("ok", "image", "not in our image; versions are those of this environment")
    about = machine.image
    text = f"commit {str(about['commit'])[:12]}, lock {str(about['lock_sha256'])[:12]}, SBOM {str(about['sbom_sha256'])[:12]}"
    if about["commit"] == "unknown":
        fix = "build it from a git checkout, or with --build-arg GIT_COMMIT=..."
        return Finding("warning", "image", f"{text}: nobody can tell which code this is", fix)
    if about["tree_dirty"]:
        fix = "commit, and build again, before a result that is to be published"
        return Finding("warning", "image", f"{text}, with changes that are not committed", fix)
    return Finding("ok", "image", text)


def _driver(machine: Machine) -> Iterator[Finding]:
    found, verdict, needs = machine.driver, machine.verdict, decision.manifest()
    without = verdict.mode == "CPU-ONLY"
    level: Level = "ok" if verdict.comparable else "warning" if verdict.runnable else "problem"
    if without:
        level = "warning" if found.kernel_module else "ok"  # a machine without GPUs is no fault; a hidden driver may be
    yield Finding(level, "driver", f"{verdict.mode}: {verdict.message}", "" if level == "ok" else verdict.fix)
    if machine.requirement_bypassed:
        fix = "take it out for a result that counts"
        yield Finding(
            "warning", "driver", "NVIDIA_DISABLE_REQUIRE is set: the image's own requirement was not asked", fix
        )
    if verdict.runnable and found.kernel_module and found.kernel_module not in needs.tested_drivers:
        tested = ", ".join(needs.tested_drivers) or "none so far"
        fix = "compare a result with a published one before you trust it"
        yield Finding("warning", "driver", f"{found.kernel_module} is not among the tested drivers ({tested})", fix)
    libcuda = found.libcuda
    if libcuda.path:
        text = f"{libcuda.path}, CUDA {decision.dotted(libcuda.cuda)}, cuInit {libcuda.init_name}"
        yield Finding("ok" if libcuda.init == 0 else level, "libcuda", text)
    elif not without:
        yield Finding(level, "libcuda", libcuda.error or "not loaded")
    if verdict.runnable:
        names = machine.accelerators
        counted = ", ".join(f"{names.count(each)} x {each}" for each in dict.fromkeys(names)) or "none that CUDA sees"
        yield Finding("ok" if names or verdict.mode == "OTHER-VENDOR" else "problem", "accelerators", counted)
    else:
        yield Finding("ok" if without else level, "accelerators", "none to be used: CPU only")


def _processor(machine: Machine) -> Iterator[Finding]:
    cpu = machine.host.cpu
    text = f"{cpu.model}, {cpu.cores} cores, {cpu.threads} threads, {cpu.numa_nodes} NUMA node(s)"
    if cpu.usable < cpu.threads:
        fix = "give the container or the job the whole machine (--cpuset-cpus, the scheduler's options)"
        yield Finding("warning", "cpu", f"{text}; this process may use {cpu.usable} of them", fix)
    elif cpu.quota is not None and cpu.quota < cpu.threads:
        fix = "start the container without --cpus: a quota stops all threads at once when it is spent"
        yield Finding("warning", "cpu", f"{text}; limited to {cpu.quota:g} processors' time", fix)
    else:
        yield Finding("ok", "cpu", text)
    if not cpu.governors:
        yield Finding("ok", "governor", "not shown by this kernel, as in most virtual machines")
    elif cpu.governors == ("performance",):
        yield Finding("ok", "governor", "performance")
    else:
        fix = "on the host: cpupower frequency-set --governor performance"
        yield Finding("warning", "governor", f"{', '.join(cpu.governors)}: times vary with the clock", fix)


def _memory(machine: Machine) -> Finding:
    host = machine.host
    if host.memory_limit_gib is None:
        return Finding("ok", "memory", f"{host.memory_gib:g} GiB")
    return Finding("ok", "memory", f"{host.memory_limit_gib:g} GiB by cgroup, of {host.memory_gib:g} GiB")


def _shared_memory(place: Place, several: bool) -> Finding:
    text = f"{place.path} has {_gib(place.size_gib)}, {_gib(place.free_gib)} free"
    if place.free_gib >= SHM_GIB:
        return Finding("ok", "shared memory", text)
    fix = f"start the container with --ipc=host, or with --shm-size={SHM_GIB:g}g"
    return Finding("problem" if several else "warning", "shared memory", text, fix)


def _memlock(limit: int | None, matters: bool) -> Finding:
    text = "unlimited" if limit is None else f"{_gib(limit / (1 << 30))} may be locked"
    if limit is None or limit >= MEMLOCK_GIB * (1 << 30) or not matters:
        return Finding("ok", "memlock", text)
    return Finding("warning", "memlock", text, "start the container with --ulimit memlock=-1, or raise `ulimit -l`")


def _results(place: Place) -> Finding:
    text = f"{place.path}, {_gib(place.free_gib)} free on {place.filesystem}"
    if not place.writable:
        fix = "give it to this user, or name another folder (--out, LOGDIR)"
        return Finding("problem", "results", f"{text}: cannot be written", fix)
    if place.free_gib < RESULTS_GIB:
        level: Level = "warning" if place.free_gib >= RESULTS_GIB_LEAST else "problem"
        return Finding(level, "results", text, "make room, or name another folder (--out, LOGDIR)")
    return Finding("ok", "results", text)


def _data(place: Place) -> Finding:
    text = f"{place.path} on {place.filesystem}"
    if not place.exists:
        return Finding("problem", "data set", f"{text}: there is no such folder", "check --data-dir and the mount")
    if not place.readable:
        return Finding("problem", "data set", f"{text}: cannot be read", "let this user read it, or run as its owner")
    if place.empty:
        fix = "`python -m harness prepare` downloads the data set; in a container, check the mount"
        return Finding("problem", "data set", f"{text}: empty", fix)
    if place.remote:
        return Finding("warning", "data set", f"{text}: a network file system", "copy it to a local disk")
    return Finding("ok", "data set", text)


def _gib(value: float) -> str:
    return f"{value * 1024:.0f} MiB" if value < 1 else f"{value:.1f} GiB"
