"""A process that has imported what runs and ranks import, and forks one for each: the imports alone take seven seconds.

There is one in each process of tests, with the preload that was named when it started: hence here, once.
"""

from __future__ import annotations

import multiprocessing

METHOD = "forkserver"
FORKING = multiprocessing.get_context(METHOD)
FORKING.set_forkserver_preload(
    [
        *("torch", "matplotlib.figure", "harness.execution.lifecycle", "harness.cli.run"),
        *("tests.ssd.test_many_ranks", "tests.retinanet.test_many_ranks"),
    ]
)
