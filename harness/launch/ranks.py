"""One run of several ranks on this machine, as `torchrun` starts them, with the exit code of the rank that ended it."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from harness.config import Configuration
from harness.execution import console
from harness.execution.events import EventLog, close_abandoned
from harness.execution.run import Request
from harness.exit_codes import BROKEN, EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE

KNOWN = (EPOCHS_SPENT, USAGE, BROKEN, NOT_SUITABLE, INTERRUPTED)


def run(configuration: Configuration, path: Path, request: Request) -> int:
    """Start all ranks of a one-node run, wait, and see to it that the log ends in a run_stop. Returns the exit code.

    ValueError for several nodes: there the site's launcher starts the ranks (docker/run.sub).
    """
    if configuration.run.nodes > 1:
        raise ValueError(
            f"{configuration.source}: run.nodes = {configuration.run.nodes}; start this command by torchrun or srun on every "
            "node, as docker/run.sub does"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    log = EventLog.create(request.out, request.number)
    log.close()
    assert log.path is not None
    os.environ["HARNESS_LOG"] = str(log.path)  # for the ranks
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=configuration.run.accelerators_per_node,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    command = [sys.executable, "-m", "harness", *arguments(configuration, path, request)]
    code, reason = TARGET_MET, "the ranks ended without saying how"
    try:
        elastic_launch(settings, command[0])(*command[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode if failure.exitcode in KNOWN else BROKEN
        reason = f"rank {rank} ended with exit code {failure.exitcode}"
    except (SignalException, KeyboardInterrupt) as error:
        code, reason = INTERRUPTED, f"interrupted: {error}"
    finally:
        abandoned = close_abandoned(log.path, reason)
        if code not in (TARGET_MET, EPOCHS_SPENT):
            console.complain(reason)
    return BROKEN if abandoned and code == TARGET_MET else code


def arguments(configuration: Configuration, path: Path, request: Request) -> list[str]:
    """The command line of a rank of this run: the request with all that must be equal on every rank settled."""
    from harness.execution import seeding

    seed = request.seed
    if seed is None and not request.resume:  # a checkpoint has its own
        seed = seeding.draw()
    found = ["run", str(path.resolve()), "--out", str(request.out), "--target", repr(configuration.run.target)]
    for option, value in (
        ("--seed", seed),
        ("--max-steps", request.max_steps),
        ("--data-dir", request.data_dir),
        ("--backbone-path", request.backbone_path),
        ("--checkpoint-dir", request.checkpoint_dir),
    ):
        if value is not None:
            found += [option, str(value)]
    return [*found, *(["--resume"] if request.resume else [])]
