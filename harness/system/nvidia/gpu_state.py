"""The state of the GPUs as far as it bears on a result: one line for each thing, over all GPUs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.system.accelerator import Level
from harness.system.nvidia.nvml import Gpu

# level, subject, text, fix
State = tuple[Level, str, str, str]

# NVML's bits for "the clock is lower than it could be" that are no matter of course, as idling or a set limit are
SLOWED = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake of the supply",
}
SW_POWER_CAP = 0x04


def examine(gpus: tuple[Gpu, ...]) -> Iterator[State]:
    """One state for each subject; nothing without GPUs."""
    for gpu in gpus:
        yield _identity(gpu)
    present = [gpu for gpu in gpus if "handle" not in gpu.unavailable]
    if present:
        for subject in (
            _mode,
            _clocks,
            _slowed,
            _power,
            _ecc,
            _memory_rows,
            _recovery,
            _mig,
            _processes,
            _persistence,
            _pcie,
        ):
            yield subject(present)


def _identity(gpu: Gpu) -> State:
    if "handle" in gpu.unavailable:
        fix = "`dmesg | grep -i xid` on the host; a reset or a reboot is the usual way back"
        return "problem", f"gpu {gpu.index}", f"does not answer: {gpu.unavailable['handle']}", fix
    memory = f", {gpu.memory_mib / 1024:.0f} GiB" if gpu.memory_mib else ""
    temperature = f", {gpu.temperature_c} C" if gpu.temperature_c is not None else ""
    return "ok", f"gpu {gpu.index}", f"{gpu.name}{memory}{temperature}, {gpu.uuid}", ""


def _mode(gpus: list[Gpu]) -> State:
    closed, alone = [g for g in gpus if g.prohibited], [g for g in gpus if g.exclusive and not g.prohibited]
    fix = "nvidia-smi --compute-mode=DEFAULT"
    if closed:
        return "problem", "compute mode", f"prohibited on GPU {_numbers(closed)}: no program may use it", fix
    if alone:
        return "warning", "compute mode", f"exclusive on GPU {_numbers(alone)}: a second process is refused there", fix
    return "ok", "compute mode", "not told by the driver" if all(g.exclusive is None for g in gpus) else "default", ""


def _clocks(gpus: list[Gpu]) -> State:
    # By default it is below the maximum on many a data-centre GPU, and the clock goes beyond it all the same
    below = [g for g in gpus if _below(g.clock_sm_application_mhz, g.clock_sm_max_mhz)]
    low = [g for g in below if g.clock_sm_application_mhz != g.clock_sm_application_default_mhz]
    values = _each(gpus, lambda g: f"{_or(g.clock_sm_mhz)} of {_or(g.clock_sm_max_mhz)} MHz")
    if low:
        fix = "nvidia-smi --reset-applications-clocks, or lock all GPUs alike: nvidia-smi --lock-gpu-clocks MIN,MAX"
        return "warning", "clocks", f"{values}; application clock below the maximum on GPU {_numbers(low)}", fix
    if below:
        default = _each(gpus, lambda g: f"{_or(g.clock_sm_application_default_mhz)} MHz")
        return "ok", "clocks", f"{values}; application clock at its default, {default}", ""
    return "ok", "clocks", values, ""


def _slowed(gpus: list[Gpu]) -> State:
    found = {g.index: [text for bit, text in SLOWED.items() if (g.clock_events or 0) & bit] for g in gpus}
    slowed = {index: reasons for index, reasons in found.items() if reasons}
    if slowed:
        text = "; ".join(f"GPU {index}: {', '.join(reasons)}" for index, reasons in slowed.items())
        return "warning", "throttling", text, "look at cooling and power supply before timing anything"
    if all(g.clock_events is None for g in gpus):
        return "ok", "throttling", f"not told by the driver ({_why(gpus, 'clock_events')})", ""
    capped = [g for g in gpus if (g.clock_events or 0) & SW_POWER_CAP]
    return "ok", "throttling", f"at its power limit: GPU {_numbers(capped)}" if capped else "none", ""


def _power(gpus: list[Gpu]) -> State:
    low = [g for g in gpus if _below(g.power_limit_w, g.power_default_w)]
    values = _each(gpus, lambda g: f"{_or(g.power_limit_w)} of {_or(g.power_default_w)} W")
    if low:
        return "warning", "power limit", f"{values}: lowered on GPU {_numbers(low)}", "nvidia-smi --power-limit WATTS"
    return "ok", "power limit", values, ""


def _ecc(gpus: list[Gpu]) -> State:
    wrong = [g for g in gpus if g.ecc_uncorrected]
    if wrong:
        counts = ", ".join(f"{g.ecc_uncorrected} on GPU {g.index}" for g in wrong)
        fix = "reset the GPU; where they come back, have it replaced"
        return "problem", "ecc", f"uncorrected memory errors since the driver was loaded: {counts}", fix
    modes = {g.ecc for g in gpus}
    pending = [g for g in gpus if g.ecc is not None and g.ecc != g.ecc_pending]
    if pending:
        return (
            "warning",
            "ecc",
            f"another mode comes with the next reset on GPU {_numbers(pending)}",
            "reboot, or reset",
        )
    if len(modes) > 1:
        return "warning", "ecc", _each(gpus, lambda g: _on(g.ecc)), "the same mode on all: nvidia-smi --ecc-config=1"
    return "ok", "ecc", _on(gpus[0].ecc), ""


def _memory_rows(gpus: list[Gpu]) -> State:
    failed, pending = [g for g in gpus if g.rows_remap_failed], [g for g in gpus if g.rows_remap_pending]
    if failed:
        return "problem", "memory rows", f"remapping failed on GPU {_numbers(failed)}", "have it replaced"
    if pending:
        return "warning", "memory rows", f"to be remapped on GPU {_numbers(pending)}", "reset the GPU, or reboot"
    return "ok", "memory rows", "none waits for remapping", ""


def _recovery(gpus: list[Gpu]) -> State:
    asked = [g for g in gpus if g.recovery not in (None, "none")]
    if asked:
        text = "; ".join(f"GPU {g.index}: {g.recovery}" for g in asked)
        return "problem", "recovery", f"the driver asks for it after an error: {text}", "do it before timing anything"
    if all(g.recovery is None for g in gpus):
        return "ok", "recovery", f"not told by the driver ({_why(gpus, 'recovery')})", ""
    return "ok", "recovery", "none is asked for", ""


def _mig(gpus: list[Gpu]) -> State:
    enabled = [g for g in gpus if g.mig]
    if not enabled:
        return "ok", "mig", "off", ""
    empty = [g for g in enabled if not g.mig_instances]
    if empty:
        fix = "make instances (nvidia-smi mig -cgi ... -C), or switch it off: nvidia-smi -mig 0"
        return "problem", "mig", f"on, without an instance, on GPU {_numbers(empty)}", fix
    mixed = len(enabled) < len(gpus)
    text = f"on for GPU {_numbers(enabled)}" + (", off for others: no fair comparison" if mixed else "")
    return "warning", "mig", text, "switch it off for a whole GPU's result: nvidia-smi -mig 0"


def _processes(gpus: list[Gpu]) -> State:
    busy = [g for g in gpus if g.processes]
    if not busy:
        if all(g.processes is None for g in gpus):
            return "ok", "processes", f"not told by the driver ({_why(gpus, 'processes')})", ""
        return "ok", "processes", "no other compute process", ""
    found = "; ".join(
        f"GPU {g.index}: " + ", ".join(f"pid {p.pid} with {_or(p.memory_mib)} MiB" for p in g.processes or ())
        for g in busy
    )
    return "warning", "processes", found, "end them before a timed run; in a container the pids are the host's"


def _persistence(gpus: list[Gpu]) -> State:
    off = [g for g in gpus if g.persistence is False]
    if off:
        fix = "on the host: systemctl enable --now nvidia-persistenced"
        return "warning", "persistence", f"off on GPU {_numbers(off)}: settings are lost between runs", fix
    return "ok", "persistence", _on(gpus[0].persistence), ""


def _pcie(gpus: list[Gpu]) -> State:
    # The generation drops while a GPU idles, the width does not
    narrow = [g for g in gpus if _below(g.pcie_width, g.pcie_width_max)]
    values = _each(
        gpus, lambda g: f"x{_or(g.pcie_width)} of x{_or(g.pcie_width_max)}, generation {_or(g.pcie_generation_max)}"
    )
    if narrow:
        return "warning", "pcie", f"{values}: narrow on GPU {_numbers(narrow)}", "reseat the card, or take another slot"
    return "ok", "pcie", values, ""


def _below(value: float | None, full: float | None) -> bool:
    return value is not None and full is not None and value < full


def _each(gpus: Iterable[Gpu], text: Callable[[Gpu], str]) -> str:
    """The text of each GPU, said once where all are alike."""
    texts = {gpu.index: text(gpu) for gpu in gpus}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"GPU {index}: {each}" for index, each in texts.items())


def _numbers(gpus: Iterable[Gpu]) -> str:
    return ", ".join(str(gpu.index) for gpu in gpus)


def _or(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _on(value: bool | None) -> str:
    return "not supported" if value is None else "on" if value else "off"


def _why(gpus: list[Gpu], field: str) -> str:
    return gpus[0].unavailable.get(field, "no reason given")
