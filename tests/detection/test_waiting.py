"""What makes a host wait for its device is not in a training step, and memory that a device still reads is not given away.

Seen on a CPU: an operator whose result's size, or whose value, the host must know waits on every device.
"""

from __future__ import annotations

import gc
import json
import weakref
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.detection.data_path import data_dali
from benchmarks.detection.data_path.data_dali import MOST_KEPT, DaliBatches, InUse
from benchmarks.retinanet.session import RetinaNetSession
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context
from tests.retinanet import small as retinanet_small
from tests.ssd import small

# Of these the host reads a number, or how many there are
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "bincount", "equal.default")


class Waits(TorchDispatchMode):
    """The operators called under it that a host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        by_mask = name.startswith("index") and any(
            isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8)
            for part in args[1:2]
            for each in (part if isinstance(part, list | tuple) else ())
        )
        # without its output's size, which is then read from the counts
        repeated = name.startswith("repeat_interleave") and not (kwargs or {}).get("output_size")
        if name.startswith(WAITING) or by_mask or repeated:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_what_waits_is_seen() -> None:
    x = torch.tensor([1.0, 0.0, 2.0])
    with Waits() as waits:
        x.sum().item(), x[x > 0], x.nonzero(), torch.repeat_interleave(torch.tensor([1, 2]))
        x[torch.tensor([0, 1])], torch.where(x > 0, x, 0.0), x.clamp(min=0)
    assert len(waits.found) == 4


def opened(module: Any, session: type[Any], compute: dict[str, Any]) -> Any:
    tables = config.parse(module.content(compute=compute), name="small", source="small").tables
    torch.manual_seed(5)
    return session(tables, Context(device="cpu", seed=5, threads=1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("module", "session"), [(small, SSDSession), (retinanet_small, RetinaNetSession)], ids=["ssd", "retinanet"]
)
def test_a_training_step_waits_for_nothing(module: Any, session: type[Any], precision: str) -> None:
    """Matching, where it is done in the step, the loss, and the optimizer with them."""
    ours = opened(module, session, {"precision": precision})
    batch = ours.synthetic_batch()
    ours.train_step(*batch)
    with Waits() as waits:
        ours.train_step(*batch)
    assert waits.found == []


class Event:
    """CUDA's, as far as it is used; the device is past it when `done` says so."""

    made: list[Event] = []  # noqa: RUF012 - emptied by the test

    def __init__(self) -> None:
        self.done, self.waited = False, False
        Event.made.append(self)

    def record(self, stream: object) -> None:
        assert stream == "training's"

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waited = True


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    Event.made.clear()
    cuda = SimpleNamespace(Event=Event, current_stream=lambda _: "training's")
    monkeypatch.setattr(data_dali, "torch", SimpleNamespace(cuda=cuda))


@pytest.mark.usefixtures("on_a_gpu")
def test_a_batch_of_another_s_memory_is_kept_until_the_device_is_past_it() -> None:
    in_use = InUse(torch.device("cuda:0"))
    batches = [{"images": torch.full((1,), float(number))} for number in range(MOST_KEPT + 3)]
    for batch in batches[:3]:
        in_use.asked(batch)
    assert [batch for _, batch in in_use.kept] == batches[:3], "the device has finished with none"
    Event.made[0].done = Event.made[1].done = True
    in_use.asked(batches[3])
    assert [batch for _, batch in in_use.kept] == batches[2:4]
    for batch in batches[4:]:
        in_use.asked(batch)
    assert [batch for _, batch in in_use.kept] == batches[-MOST_KEPT:], "memory is not without end"
    assert Event.made[2].waited and not Event.made[3].waited, "what was let go undone was waited for"


@pytest.mark.usefixtures("on_a_gpu")
def test_it_is_kept_when_the_next_one_is_asked_for_and_when_an_epoch_is_left() -> None:
    epoch = [[{"images": torch.full((1,), float(number))}] for number in range(3)]
    source: Any = SimpleNamespace(device="cpu")
    batches = DaliBatches(iter(epoch), source, InUse(torch.device("cuda:0")), None)  # type: ignore[arg-type]
    taken = iter(batches)
    first = next(taken)
    assert batches.in_use.kept == deque(), "nothing has been asked of the device yet"
    next(taken)
    assert [float(batch["images"]) for _, batch in batches.in_use.kept] == [0.0] and float(first["images"]) == 0.0
    taken.close()  # type: ignore[attr-defined]
    assert [float(batch["images"]) for _, batch in batches.in_use.kept] == [0.0, 1.0]


def test_on_a_cpu_nothing_is_kept() -> None:
    in_use = InUse(torch.device("cpu"))
    in_use.asked({"images": torch.zeros(1)})
    assert not in_use.kept


def test_a_gpu_s_batches_are_awaited_by_the_stream_that_is_current_when_they_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for them, and the host does not."""
    streams = iter(["training's", "evaluation's"])
    cuda = SimpleNamespace(current_stream=lambda _: next(streams))
    monkeypatch.setattr(data_dali, "torch", SimpleNamespace(cuda=cuda))

    class Pipe:
        def share_outputs(self, cuda_stream: object = None) -> object:
            return cuda_stream

    pipe: Any = Pipe()
    data_dali.give_in_order(pipe, torch.device("cuda:0"))
    assert [pipe.share_outputs(), pipe.share_outputs()] == ["training's", "evaluation's"]
    last = weakref.ref(pipe)
    gc.disable()
    del pipe
    gone = last() is None
    gc.enable()
    assert gone, "its threads and its memory end with the last reference, not at some time"


def test_a_gpu_s_memory_is_not_lent_by_dlpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is, a thread of DALI's gives back after it has waited for the whole device."""

    class OnGpu:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {"version": 2, "shape": (3,), "data": (16, False)}

        def __dlpack__(self, **_: object) -> object:
            raise AssertionError

    monkeypatch.setattr(data_dali, "TensorGPU", OnGpu)
    taken: list[Any] = []
    monkeypatch.setattr(torch, "as_tensor", taken.append)
    tensor: Any = OnGpu()
    data_dali.as_torch(tensor)
    (lent,) = taken
    assert lent.__cuda_array_interface__ is OnGpu.__cuda_array_interface__ and not hasattr(lent, "__dlpack__")
    last = weakref.ref(tensor)
    del tensor
    assert last() is not None, "PyTorch keeps what it was given, and the memory must stay with it"
    taken.clear()
    del lent
    assert last() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32, torch.int64])
def test_its_memory_is_pytorch_s_without_a_copy(dtype: torch.dtype, device: str) -> None:
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import to_torch_type

    (dali_type,) = (each for each, of_torch in to_torch_type.items() if of_torch == dtype)
    gpu = None if device == "cpu" else torch.device(device).index

    @pipeline_def(batch_size=2, num_threads=1, device_id=gpu)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        numbers = fn.constant(fdata=[float(number) for number in range(12)], shape=[3, 4])
        return fn.cast(numbers if gpu is None else numbers.gpu(), dtype=dali_type)

    (outputs,) = graph().run()
    tensor = outputs.as_tensor()
    found = data_dali.as_torch(tensor)
    assert found.data_ptr() == tensor.data_ptr() and str(found.device) == device
    del outputs, tensor
    assert torch.equal(found.cpu(), torch.arange(12).to(dtype).reshape(3, 4).expand(2, 3, 4))


def test_on_a_gpu_the_data_path_never_waits_for_the_whole_device(tmp_path: Path, gpu: str) -> None:
    """What others start meanwhile would stand still."""
    folder = small.folder(tmp_path)
    tables: Any = config.parse(small.content(data={"backend": "dali"}), name="small", source="small").tables
    session = SSDSession(tables, Context(device=gpu, seed=5, data_dir=folder, log_every_steps=1))
    session.load_data()
    sum(interval.steps for interval in session.train_epoch(1))
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for epoch in range(2, 8):
            sum(interval.steps for interval in session.train_epoch(epoch))
        torch.cuda.synchronize()
    profiled.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    waiting = {event["tid"] for event in events if event.get("name") == "cudaDeviceSynchronize"}
    assert len(waiting) == 1, "the main thread, which was asked to, alone"
