"""A pool's worker ends with the process that it works for."""

from __future__ import annotations

import subprocess
import sys

from harness.launch import leftovers
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S

KILLED = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from benchmarks.detection import worker
pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=worker.begin)
print(pool.submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_worker_of_a_process_that_was_killed_ends() -> None:
    """It waited for ever: each kill -9 while the embedded pictures were drawn left as many as there are processors."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=CHECKOUT, stdout=subprocess.PIPE, check=False, timeout=PATIENCE_S
    )
    until(lambda: not leftovers._is_there(int(done.stdout)), f"the end of process {int(done.stdout)}")
