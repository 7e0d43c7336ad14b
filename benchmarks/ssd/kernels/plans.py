"""cuDNN's plans for a graph of operations: the fastest is measured once, and kept on disk.

PyTorch asks cuDNN for convolutions alone, and what it measures is forgotten with the process. A graph may have more in it:
what a convolution's output is added to, masked with or summed up into while it is still in registers. Such a graph's kernels
are generated and compiled at first use, half a second each, so that its plan is kept as it is, machine code included: with
torch.compile's own, for this card and these versions alone. Compiling holds Python's lock: in `made_beside` other processes
do it.

Needs nvidia-cudnn-frontend. Nothing here knows what a graph computes.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import multiprocessing
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.detection import whole, worker

TRIED = 4  # of a graph's plans, those that cuDNN puts first; compiling one takes half a second
MOST_BESIDE = 4  # processes that make plans; each has a context on the device, half a gigabyte
REPEATS = 5  # of a measurement, in turns; the median counts
CALLS = 3  # in one measurement
# Cycles that the device waits, a millisecond, so that the host's own time is not measured with them
HEAD_START = 2_000_000
# Between a plan and doing without: rounding to 8 bits and another order of sums are below 0.01. A mask in another order, a
# reader left out or sums made twice are about 1
MOST_APART = 0.05
FORM = 2  # of the files; 1 had plans that nobody had compared


class Plan:
    """One way to compute a graph on this device."""

    def __init__(self, execute: Callable[..., None], workspace: int) -> None:
        """`execute` takes pointers by number, the workspace's and a handle; `workspace` in bytes."""
        self._execute, self._workspace = execute, workspace

    def run(self, tensors: Mapping[int, Tensor]) -> None:
        """Fill the graph's outputs, in the current stream. `tensors` by the numbers that the graph gave them."""
        device = next(iter(tensors.values())).device
        workspace = torch.empty(self._workspace, dtype=torch.uint8, device=device)
        handle = _handle(device.index)
        _cudnn().set_stream(handle=handle, stream=torch.cuda.current_stream(device).cuda_stream)
        pointers = {number: tensor.data_ptr() for number, tensor in tensors.items()}
        self._execute(pointers, workspace.data_ptr(), handle=handle)


class Wanted(NamedTuple):
    """A graph, by a text that says all that it depends on, and how to build it: `fill` gives it operations and numbers."""

    text: str
    fill: Callable[[Any], None]


class Made(NamedTuple):
    """A graph's plans with their machine code, by name, cuDNN's best first; and why others could not be made."""

    plans: dict[str, bytes]
    left_out: dict[str, str]


_CHOSEN: dict[tuple[str, int], Plan | None] = {}  # of this process, by text and device
_BESIDE: dict[str, Future[Made]] = {}  # what other processes make, by text


def fastest(
    wanted: Wanted,
    device: torch.device,
    by_plan: Callable[[Plan], Sequence[Tensor]],
    without: Callable[[], Sequence[Tensor]],
) -> Plan | None:
    """The plan with which `by_plan` takes least time, None where `without` takes less or cuDNN has no plan.

    Both give the same tensors. A plan that gives others is left out, with a warning. Measured where no earlier run has, and
    what was found is kept; not where `without` gives what is not finite, as the step of a network that diverges does.
    """
    key = (wanted.text, device.index)
    if key not in _CHOSEN:
        path = _path(wanted.text, device)
        if path.exists():
            _CHOSEN[key] = _read(path, device)
        else:
            expected = without()
            if not all(each.isfinite().all() for each in expected):
                return None
            _CHOSEN[key] = _measure(wanted, device, path, by_plan, without, expected=expected)
    return _CHOSEN[key]


def candidates(wanted: Wanted, **of_graph: Any) -> tuple[Any, list[str]]:
    """The graph and the names of its plans, cuDNN's best first; none where it has none. `of_graph`: a handle, or the
    properties of a device that need not be there."""
    cudnn = _cudnn()
    graph = cudnn.pygraph(
        compute_data_type=cudnn.data_type.FLOAT, intermediate_data_type=cudnn.data_type.FLOAT, **of_graph
    )
    wanted.fill(graph)
    graph.validate()
    try:
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A])
    except cudnn.cudnnGraphNotSupportedError:
        return graph, []
    return graph, [graph.get_plan_name_at_index(index) for index in range(graph.get_execution_plan_count())]


def made(wanted: Wanted, card: int | str) -> Made:
    """The first TRIED plans. `card`: a device's number, or the properties in JSON of one that need not be there."""
    cudnn = _cudnn()
    if isinstance(card, int):  # of its properties alone, in a process that has not used it, cuDNN had older kernels
        graph, names = candidates(wanted, handle=_handle(card))
    else:
        graph, names = candidates(wanted, device_property=cudnn.create_device_properties(card))
    found = Made({}, {})
    for index, name in enumerate(names[:TRIED]):
        try:
            graph.build_plan_at_index(index)
        # heuristics put forward what the compiler may not make, in more than one way
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            found.left_out[name] = str(error)[:300]
        else:
            found.plans[name] = bytes(graph.serialize())  # of the plan that was built last
    return found


@contextlib.contextmanager
def made_beside(all_wanted: Sequence[Wanted], device: torch.device, processes: int) -> Iterator[None]:
    """Meanwhile the plans of these graphs, as far as no file has them, are made in so many other processes at most, and in
    MOST_BESIDE.

    `fastest` waits for those of its graph. A process begins with importing PyTorch, two seconds.
    """
    missing = [each for each in all_wanted if not _path(each.text, device).exists()]
    if not missing:
        yield
        return
    pool = ProcessPoolExecutor(
        min(processes, MOST_BESIDE, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),  # a fork would have CUDA's state without its threads
        initializer=worker.begin,
    )
    try:
        _BESIDE.update({each.text: pool.submit(made, each, device.index) for each in missing})
        yield
    finally:
        _BESIDE.clear()
        pool.shutdown(wait=False, cancel_futures=True)


def _made_somewhere(wanted: Wanted, device: torch.device) -> Made:
    """Beside, where that works: a card in exclusive mode, or a full one, has no room for another process's context."""
    beside = _BESIDE.get(wanted.text)
    if beside is not None:
        try:
            return beside.result()
        except Exception as error:  # noqa: BLE001 - whatever it was, the plans can be made here
            why = next(iter(str(error).splitlines()), type(error).__name__)
            warnings.warn(
                f"no other process makes plans of cuDNN's ({why}): this one does, which takes longer", stacklevel=2
            )
    return made(wanted, device.index)


def _measure(
    wanted: Wanted,
    device: torch.device,
    path: Path,
    by_plan: Callable[[Plan], Sequence[Tensor]],
    without: Callable[[], Sequence[Tensor]],
    *,
    expected: Sequence[Tensor],
) -> Plan | None:
    found = _made_somewhere(wanted, device)
    tried: dict[str, Callable[[], object]] = {"without": without}
    plans: dict[str, Plan] = {}
    left_out = dict(found.left_out)
    for name, serialized in found.plans.items():
        plan = _loaded(serialized, device)
        apart = _furthest(by_plan(plan), expected)
        if not apart <= MOST_APART:  # nor where it is NaN
            left_out[name] = f"computes something else: {apart:.2g} of it"
            warnings.warn(
                f"cuDNN's {name} of {_whole(wanted.text, device)} {left_out[name]}; it is left out", stacklevel=2
            )
            continue
        plans[name] = plan
        tried[name] = functools.partial(by_plan, plan)
    seconds = _seconds(tried)
    best = min(seconds, key=lambda name: seconds[name])
    content: dict[str, object] = {"form": FORM, "of": _whole(wanted.text, device), "left_out": left_out}
    content["ms"] = {name: 1e3 * each for name, each in seconds.items()}
    if best in plans:
        content |= {"best": best, "plan": base64.b64encode(found.plans[best]).decode()}
    _write(path, content)
    return plans.get(best)


def _furthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of a tensor by its norm, and by its largest number alone: a tile that is wrong hides in the first.

    Relative; zeros differ by nothing from zeros, and by infinity from others. NaN where there is one.
    """
    worst = torch.zeros((), device=expected[0].device)
    for one, other in zip(found, expected, strict=True):
        for order in (2, torch.inf):
            away, size = (torch.linalg.vector_norm(each, order, dtype=torch.float32) for each in (one - other, other))
            worst = torch.maximum(worst, torch.where(away == 0, away, away / size))
    return worst.item()


def _seconds(tried: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Of each, on the device: the median of turns. Each has run once before, for what it gives."""
    found: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(REPEATS):
        for name, each in tried.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(HEAD_START)
            begin.record()
            for _ in range(CALLS):
                each()
            end.record()
            end.synchronize()
            found[name].append(begin.elapsed_time(end) / 1e3 / CALLS)
    return {name: statistics.median(times) for name, times in found.items()}


# --- on disk ---------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where plans are kept: beside what torch.compile keeps."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "cudnn"


def kept() -> Iterator[tuple[str, dict[str, float]]]:
    """What was measured, by any process: of each graph and card the text and the milliseconds of each plan and without one."""
    for path in sorted(folder().glob("*.json")):
        content = json.loads(path.read_text())
        yield content["of"], content["ms"]


def _whole(text: str, device: torch.device) -> str:
    """All that a measurement is of."""
    card, cudnn = torch.cuda.get_device_properties(device), _cudnn()
    return f"{text}, {card.name} ({card.multi_processor_count}), cuDNN {cudnn.backend_version()} ({cudnn.__version__})"


def _path(text: str, device: torch.device) -> Path:
    return folder() / f"{hashlib.sha256(f'{FORM} {_whole(text, device)}'.encode()).hexdigest()}.json"


def _read(path: Path, device: torch.device) -> Plan | None:
    """ValueError for a file that is none of ours."""
    try:
        content = json.loads(path.read_text())
        if content["form"] != FORM:
            raise ValueError(f"form {content['form']}, known is {FORM}")
        serialized = content.get("plan")
        return None if serialized is None else _loaded(base64.b64decode(serialized), device)
    except (ValueError, KeyError, TypeError, RuntimeError, _cudnn().cudnnGraphNotSupportedError) as error:
        raise ValueError(
            f"{path}: no plan of cuDNN's can be read from it ({error}); delete it, and it is made anew"
        ) from error


def _loaded(serialized: bytes, device: torch.device) -> Plan:
    handle = _handle(device.index)
    graph = _cudnn().pygraph(handle=handle)
    graph.deserialize(handle, list(serialized))  # of bytes it takes none
    return Plan(graph.execute, graph.get_workspace_size())


def _write(path: Path, content: Mapping[str, object]) -> None:
    """All of it or nothing: ranks write the same file at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole.replacing(path) as file:
        file.write(json.dumps(content).encode())


# --- the library -----------------------------------------------------------------------------------------------------


@functools.cache
def _cudnn() -> Any:
    import cudnn

    return cudnn


@functools.cache
def _handle(device_index: int) -> int:
    with torch.cuda.device(device_index):
        handle: int = _cudnn().create_handle()
    return handle
