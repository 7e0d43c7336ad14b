"""The log's lines that describe a run: what is submitted, in which configuration, by which software on which machine.

When each is written is the lifecycle's matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.config import Configuration
from harness.contract import Plain, Session
from harness.execution import given, provenance
from harness.execution.events import EventLog, keys
from harness.execution.process_group import Ranks
from harness.system import accelerator, facts, loaded, variables
from harness.system.facts import Machine


def submission(
    log: EventLog, configuration: Configuration, max_steps: int | None, *, deterministic: bool = False
) -> None:
    """What is known before anything is built."""
    submitted = configuration.submission
    log.point(keys.SUBMISSION_BENCHMARK, configuration.keyword)
    log.point(keys.SUBMISSION_ORG, submitted.org)
    log.point(keys.SUBMISSION_DIVISION, submitted.division)
    log.point(keys.SUBMISSION_STATUS, submitted.status)
    log.point(keys.SUBMISSION_PLATFORM, submitted.platform)
    log.point("configuration_name", configuration.name)
    log.point("configuration", configuration.resolved)
    log.point("configuration_sha256", configuration.sha256)
    log.point("quality_target", configuration.run.target)
    if configuration.other_task:
        log.point("other_task", configuration.other_task)
    if max_steps is not None:
        log.point("max_steps", max_steps)
    if deterministic:
        log.point("deterministic", True)


def not_for_submission(configuration: Configuration, *, caches_cleared: bool) -> Iterator[str]:
    """What will keep this run from being submitted, as far as it is known before anything is built; of the closed division."""
    if configuration.submission.division == "closed" and not caches_cleared:
        yield (
            "the closed division wants the page cache dropped before a run, and it was not: --trials and "
            "docker/run_with_docker.sh drop it where they are permitted to, as root"
        )


def opened(log: EventLog, configuration: Configuration, session: Session) -> None:
    """What only the open session knows."""
    hyperparameters = given.told("hyperparameters", session.hyperparameters())
    for key, value in (*hyperparameters.items(), *given.told("properties", session.properties()).items()):
        log.point(key, value)
    if configuration.rules.weights_logged:
        for name in session.weight_names():
            log.point(keys.WEIGHTS_INITIALIZATION, None, tensor=name)
    if chosen := session.chosen():
        log.point("chosen", dict(chosen))
    phases(log, session.phase_seconds())


def phases(log: EventLog, seconds: Mapping[str, float], **metadata: int) -> None:
    """Where time went, by name; nothing where nothing is told."""
    if seconds:
        log.point("phase_seconds", {name: round(value, 6) for name, value in seconds.items()}, **metadata)


def origin(log: EventLog, machine: Machine, device: str, ranks: Ranks, benchmark: str) -> None:
    """What produced the result: devices, code, libraries, driver, machine, image, variables of the environment.

    Called when all of them have been used.
    """
    log.point("device", device)
    found = facts.describe(machine)
    if used := device_uuids(machine.chosen.details(), ranks.uuids):
        log.point("device_uuids", used)
    log.point("environment", variables.of_ranks(ranks.variables))
    log.point("software", {**found["software"], **provenance.libraries()})
    log.point("loaded_libraries", loaded.libraries(accelerator.libraries()))
    log.point("hardware", found["hardware"])
    if found["image"]:
        log.point("image", found["image"])
    commit, dirty = provenance.commit(found["image"])
    log.point("commit", commit)
    log.point("tree_dirty", dirty)
    if elsewhere := provenance.of_benchmark(benchmark):
        log.point("benchmark_sha256", elsewhere)


def device_uuids(devices: Sequence[Mapping[str, Plain]], told: Sequence[str | None]) -> list[str]:
    """Of the ranks' devices, by rank, as their driver spells them; [] where rank 0's is none that the driver tells of.

    `devices`: what the driver tells of this machine's, used or not; NVML lists those that CUDA_VISIBLE_DEVICES hides, and in an
    order of its own. `told`: torch's spelling, which lacks the driver's "GPU-". Devices of other machines are spelt alike.
    """
    known = {_bare(uuid): uuid for device in devices if (uuid := str(device.get("uuid", "")))}
    bare = [_bare(uuid) for uuid in told if uuid is not None]
    if len(bare) != len(told) or not bare or bare[0] not in known:
        return []
    prefix = known[bare[0]][: -len(bare[0])]
    return [known.get(uuid, prefix + uuid) for uuid in bare]


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
