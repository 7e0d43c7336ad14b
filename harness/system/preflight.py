"""The check before a run: are the accelerators there that the configuration asks for, behind a driver that carries them?"""

from __future__ import annotations

import os

from harness.contract import NotSuitable
from harness.system import accelerator, host
from harness.system.accelerator import CPU, Accelerators, Surroundings

RANKS_A_PROCESSOR = 16  # more is a slip of the hand, and takes the memory of all else: each is some 300 MB


def check(device: str, count: int) -> Accelerators | None:
    """The ones that run.device means; None for the processor. NotSuitable when this machine has not `count` of them.

    Looks at the machine before a framework is loaded, and in processes of its own, so that no driver is touched in this one.
    """
    if device == CPU:
        processors = os.cpu_count() or 1
        if count > RANKS_A_PROCESSOR * processors:
            raise NotSuitable(
                f'run.accelerators_per_node = {count} is so many processes where run.device is "{CPU}", and this machine has '
                f"{processors} processors: choose one of as many or fewer"
            )
        return None
    found = accelerator.choose(accelerator.look(Surroundings(in_container=host.in_container())), device)
    if found.device == CPU:
        raise NotSuitable(
            f'run.device = "{device}": {found.verdict.message}\n'
            f'install its driver, or choose a configuration with run.device = "{CPU}"; '
            "`python -m harness doctor` looks at the rest of this machine too"
        )
    if not found.verdict.runnable:
        raise NotSuitable(f"{found.verdict}\n`python -m harness doctor` looks at the rest of this machine too")
    if len(found.names) < count:
        raise NotSuitable(too_few(count, found.names))
    return found


def too_few(wanted: int, names: list[str]) -> str:
    """What to say when a configuration asks for more accelerators than there are."""
    there = f"{len(names)} ({', '.join(sorted(set(names)))})" if names else "none"
    return (
        f"the configuration asks for {wanted} accelerators on this machine, and programs see {there}\n"
        f"choose a configuration with run.accelerators_per_node = {max(len(names), 1)} or fewer, or look at the variable that "
        "hides devices (CUDA_VISIBLE_DEVICES or its like) and at what the container was given"
    )
