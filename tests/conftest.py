"""Fixtures for all tests, and which of them run: the long ones with --all alone, those of a GPU where there is one."""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from harness import git
from tests.ports import held_port

CHECKOUT = Path(__file__).resolve().parent.parent
# Before torch is imported, here and in processes that tests start. Where one takes more threads all the same, they wait for
# each other asleep: spinning, two of them took eleven times the processor time on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Within a hook they name the developer's own repository, into which tests that make one would commit
for _name in [each for each in os.environ if each.startswith("GIT_") and not each.startswith(git.KEPT)]:
    del os.environ[_name]
# Nobody is asked for a key's passphrase
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "commit.gpgsign", "GIT_CONFIG_VALUE_0": "false"}
# A shell's background job is started with Ctrl-C ignored, which every process that a test starts would inherit
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the tests marked long too")


def pytest_report_header(config: pytest.Config) -> str | None:
    left_out = [] if config.getoption("all") else ["long ones (--all runs them)"]
    if "gpu" in config.option.markexpr and not gpus():
        left_out.append("those marked gpu, since PyTorch finds no CUDA device here")
    return f"left out: {', '.join(left_out)}" if left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(item.get_closest_marker("gpu") for item in items) and not gpus():
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
    named = any("::" in argument for argument in config.args)
    if not config.getoption("all") and not named:
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    may_take = {item.path: 0.0 for item in items}
    for item in items:
        if item.get_closest_marker("slurm"):
            may_take[item.path] = math.inf  # minutes in which it mostly waits, so that others lose nothing by it
        elif item.get_closest_marker("long"):
            limit = item.get_closest_marker("timeout")
            may_take[item.path] = max(may_take[item.path], limit.args[0] if limit else float(config.getini("timeout")))
        elif item.get_closest_marker("early"):
            may_take[item.path] = max(may_take[item.path], 1.0)
    # files with long tests first, so that no process is left with one of them when the others have ended
    items.sort(key=lambda item: -may_take[item.path])


def pytest_collection_finish() -> None:
    """What collecting made stays: the collector that looks for garbage need not walk through it all, 5 % of the tests' time."""
    gc.collect()
    gc.freeze()


def trains_fast() -> bool:
    """Whether this processor has AVX-512: without it the demonstrations, which take it a minute or two, take ten and more."""
    from measuring.measure import vector_units

    return "avx512f" in vector_units()


@cache
def gpus() -> int:
    """CUDA devices that PyTorch finds."""
    import torch

    return torch.cuda.device_count()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What a test has set torch's threads to ends with it: on a busy machine those of one wait for each other spinning."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and the first GPU where there is one."""
    return str(request.param)


@pytest.fixture(scope="module", params=[pytest.param("cuda:0", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> str:
    """The first GPU; without one a test that asks for it is not collected."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def rules_of_the_toys() -> Iterator[None]:
    """The toys' rules are found as another project's would be: by this process, and by those that it starts."""
    from harness import rules

    rules.also_search([CHECKOUT / "tests"])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HARNESS_BENCHMARKS", str(CHECKOUT / "tests"))
        yield


@pytest.fixture
def free_port() -> Iterator[int]:
    """Of this machine; see tests.ports."""
    with held_port() as port:
        yield port


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photographs and logs, which is not part of the project; tests that need it skip without it."""
    named = os.environ.get("HARNESS_TEST_DATA")
    for folder in [Path(named)] if named else [CHECKOUT.parent / "shared" / "data", CHECKOUT / ".cache" / "test-data"]:
        if (folder / "README.md").is_file():
            return folder
    return pytest.skip(f"no test data at {folder}: python -m tests.make_test_data fetches it")
