"""One run of several ranks on this machine, as `torchrun` starts them, with the exit code of the rank that ended it."""

from __future__ import annotations

import os
import sys
import uuid

from harness.config import Configuration
from harness.execution import console, seeding
from harness.execution.events import EventLog, close_abandoned
from harness.exit_codes import BROKEN, EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE
from harness.request import Request

KNOWN = (EPOCHS_SPENT, USAGE, BROKEN, NOT_SUITABLE, INTERRUPTED)


def run(configuration: Configuration, request: Request) -> int:
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

    log = EventLog.create(request.folder, request.number)
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
    seed = request.seed
    if seed is None and not request.from_checkpoint:  # a checkpoint has its own
        seed = seeding.draw()
    command = [sys.executable, "-m", "harness", *request.of_ranks(seed).argv()]
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
