"""cuDNN's plans: which one is taken and how it is kept, with a library that stands in; and that the true library makes kernels
of SSD300's own graphs for three cards, none of which need be there."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.detection.capabilities import installed
from benchmarks.ssd.kernels import plans
from tests.conftest import CHECKOUT

DEVICE = torch.device("cuda:0")
OTHER = torch.device("cuda:1")


class NotSupported(Exception):
    pass


class StandInGraph:
    """Has the plans of its text, and writes which one was built last."""

    def __init__(self, names: list[str], broken: dict[str, Exception]) -> None:
        self.names, self.broken, self.last = names, broken, ""

    def validate(self) -> None: ...

    def build_operation_graph(self) -> None: ...

    def create_execution_plans(self, _: object) -> None:
        if not self.names:
            raise NotSupported

    def get_execution_plan_count(self) -> int:
        return len(self.names)

    def get_plan_name_at_index(self, index: int) -> str:
        return self.names[index]

    def build_plan_at_index(self, index: int) -> None:
        if self.names[index] in self.broken:
            raise self.broken[self.names[index]]
        self.last = self.names[index]

    def execute(self) -> None: ...

    def execute_plan_at_index(self, index: int) -> str:
        return self.names[index]

    def get_workspace_size_plan_at_index(self, _: int) -> int:
        return 0

    def get_workspace_size(self) -> int:
        return 0

    def serialize(self) -> list[int]:
        return list(self.last.encode())

    def deserialize(self, _: object, kept: list[int]) -> None:
        """As the library itself: of bytes it can make nothing."""
        if not isinstance(kept, list) or not kept:
            raise RuntimeError("Unable to cast")
        if bytes(kept) == b"another's":
            raise NotSupported
        self.last = bytes(kept).decode()


class Library:
    """What the tests change of it, and what they ask afterwards."""

    def __init__(self) -> None:
        self.names = ["a", "b", "c", "d", "e"]
        self.broken: dict[str, Exception] = {}
        self.seconds = {"without": 3.0, "a": 2.0, "b": 1.0, "c": 4.0, "d": 5.0, "e": 0.1}
        self.measured: list[str] = []
        self.graphs: list[StandInGraph] = []
        self.version = 92400

    def module(self) -> Any:
        return SimpleNamespace(
            pygraph=self.pygraph,
            data_type=SimpleNamespace(FLOAT=0),
            heur_mode=SimpleNamespace(A=0),
            cudnnGraphNotSupportedError=NotSupported,
            backend_version=lambda: self.version,
            __version__="1",
        )

    def pygraph(self, **_: object) -> StandInGraph:
        self.graphs.append(StandInGraph(self.names, self.broken))
        return self.graphs[-1]

    def timed(self, tried: dict[str, Any]) -> dict[str, float]:
        self.measured += list(tried)
        return {name: self.seconds[name] for name in tried}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    found = Library()
    monkeypatch.setattr(plans, "_cudnn", found.module)
    monkeypatch.setattr(plans, "_handle", lambda _: 7)
    monkeypatch.setattr(plans, "_seconds", found.timed)
    monkeypatch.setattr(plans, "folder", lambda: tmp_path / "cudnn")
    monkeypatch.setattr(plans, "_CHOSEN", {})
    card = SimpleNamespace(name="a card", multi_processor_count=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    return found


RIGHT = (torch.tensor([3.0, -4.0]), torch.tensor([0.5]))


def chosen(
    text: str = "graph",
    device: torch.device = DEVICE,
    *,
    expected: Sequence[Tensor] = RIGHT,
    found: Mapping[str, Sequence[Tensor]] | None = None,
) -> plans.Plan | None:
    """`found` by the name of a plan: what it gives that is not `expected`."""

    def by_plan(plan: plans.Plan) -> Sequence[Tensor]:
        return (found or {}).get(plan._execute(), expected)  # type: ignore[call-overload,no-any-return]

    return plans.fastest(plans.Wanted(text, lambda _: None), device, by_plan, lambda: expected)


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_CHOSEN", {})


def the_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cudnn").iterdir()
    return found


def test_the_fastest_of_the_first_plans_is_taken_and_kept(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beyond TRIED are not: compiling each takes time."""
    plan = chosen()
    assert plan is not None and library.measured == ["without", "a", "b", "c", "d"]
    assert chosen() is plan and len(library.graphs) == 1, "asked once in a process"
    kept = json.loads(the_file(tmp_path).read_text())
    assert kept["best"] == "b" and base64.b64decode(kept["plan"]) == b"b" and kept["ms"]["without"] == 3000
    ((of, milliseconds),) = plans.kept()
    assert of == "graph, a card (1), cuDNN 92400 (1)"
    assert milliseconds == {"without": 3000, "a": 2000, "b": 1000, "c": 4000, "d": 5000}
    another_process(monkeypatch)
    assert chosen() is not None
    assert library.graphs[-1].last == "b" and len(library.measured) == 5, "read, not measured again"


def test_without_a_plan_where_that_is_faster(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.seconds["without"] = 0.5
    assert chosen() is None
    another_process(monkeypatch)
    assert chosen() is None and len(library.measured) == 5
    assert "plan" not in json.loads(the_file(tmp_path).read_text())


@pytest.mark.parametrize("error", [NotSupported, RuntimeError])
def test_a_plan_that_does_not_compile_is_left_out(error: type[Exception], library: Library, tmp_path: Path) -> None:
    library.broken = {"b": error("no such"), "c": error("registers")}
    plan = chosen()
    assert plan is not None and library.measured == ["without", "a", "d"]
    assert json.loads(the_file(tmp_path).read_text())["left_out"] == {"b": "no such", "c": "registers"}


@pytest.mark.parametrize(
    "wrong",
    [
        (torch.tensor([3.0, -3.7]), torch.tensor([0.5])),
        (torch.tensor([3.0, -4.0]), torch.tensor([1.0])),
        (torch.tensor([3.0, -4.0]), torch.tensor([torch.nan])),
        (torch.tensor([3.0, torch.inf]), torch.tensor([0.5])),
        (torch.zeros(2), torch.tensor([0.5])),
    ],
    ids=["another number", "sums made twice", "NaN", "infinity", "zeros"],
)
def test_a_plan_that_computes_something_else_is_left_out(
    wrong: Sequence[Tensor], library: Library, tmp_path: Path
) -> None:
    """However fast; and whoever runs it hears of it."""
    with pytest.warns(UserWarning, match=r"cuDNN's b of graph, a card \(1\), cuDNN .* computes something else"):
        plan = chosen(found={"b": wrong})
    assert plan is not None and library.measured == ["without", "a", "c", "d"]
    kept = json.loads(the_file(tmp_path).read_text())
    assert kept["best"] == "a" and "something else" in kept["left_out"]["b"]


def test_a_tile_that_is_wrong_does_not_hide_in_a_large_map(library: Library) -> None:
    right = (torch.ones(1_000_000),)
    wrong = (torch.ones(1_000_000),)
    wrong[0][17:20] = 0
    with pytest.warns(UserWarning, match="something else"):
        chosen(expected=right, found={"b": wrong})
    assert "b" not in library.measured


def test_many_small_differences_do_not_hide_behind_a_large_number(library: Library) -> None:
    right, wrong = (torch.ones(100_000),), (torch.ones(100_000) * 2,)
    right[0][0] = wrong[0][0] = 100
    with pytest.warns(UserWarning, match="something else"):
        chosen(expected=right, found={"b": wrong})
    assert "b" not in library.measured


def test_rounding_is_not_something_else(library: Library) -> None:
    numbers = torch.linspace(-1, 1, 1000)
    chosen(expected=(numbers, torch.zeros(3)), found={"b": (numbers.to(torch.bfloat16).float(), torch.zeros(3))})
    assert "b" in library.measured


def test_nothing_is_judged_by_numbers_that_are_not_finite(library: Library, tmp_path: Path) -> None:
    assert chosen(expected=(torch.tensor([1.0, torch.inf]),)) is None
    assert library.measured == [] and not (tmp_path / "cudnn").exists()
    assert chosen() is not None and library.measured


def test_no_plan_at_all(library: Library) -> None:
    library.names = []
    assert chosen() is None and library.measured == ["without"]


def test_another_library_graph_or_card_is_measured_for_itself(library: Library, tmp_path: Path) -> None:
    chosen()
    chosen("another graph")
    chosen(device=OTHER)  # the same card as far as its name says: what is kept is of both
    assert len([*(tmp_path / "cudnn").iterdir()]) == 2
    library.version += 1
    plans._CHOSEN.clear()
    chosen()
    assert len([*(tmp_path / "cudnn").iterdir()]) == 3


def test_what_nobody_had_compared_is_measured_again(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of an earlier form stays as it is, and is not read."""
    chosen()
    before = the_file(tmp_path)
    another_process(monkeypatch)
    monkeypatch.setattr(plans, "FORM", plans.FORM + 1)
    chosen()
    assert len(library.measured) == 10 and before.exists() and len([*before.parent.iterdir()]) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"form": 0}',
        '{"form": 1, "plan": "YQ=="}',
        '{"form": 2, "plan": ""}',
        '{"form": 2, "plan": 3}',
        '{"form": 2, "plan": "YW5vdGhlcidz"}',
    ],
)
def test_a_file_that_is_none_of_ours_is_named(
    content: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen()
    path = the_file(tmp_path)
    path.write_text(content)
    another_process(monkeypatch)
    with pytest.raises(ValueError, match=f"{path}.*delete it"):
        chosen()
    assert len(library.measured) == 5


def test_a_run_s_tensors_reach_the_plan_by_their_numbers(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    """In the current stream, with room to work in."""
    done: list[Any] = []
    stream = SimpleNamespace(cuda_stream=11)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    module = library.module()
    module.set_stream = lambda **said: done.append(said)
    monkeypatch.setattr(plans, "_cudnn", lambda: module)
    execute = lambda pointers, workspace, handle: done.append((pointers, workspace, handle))  # noqa: E731
    one, two = torch.zeros(3), torch.ones(2)
    plans.Plan(execute, 64).run({4: one, 9: two})
    assert done[0] == {"handle": 7, "stream": 11}
    pointers, workspace, handle = done[1]
    assert pointers == {4: one.data_ptr(), 9: two.data_ptr()} and workspace != 0 and handle == 7


@pytest.mark.filterwarnings("error:cuDNN")
@pytest.mark.parametrize("number", range(plans.TRIED))
def test_what_the_plans_of_a_gpu_compute(
    number: int, gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, whichever is the fastest: each plan of each graph; and once more as it is read from the disk."""
    pytest.importorskip("cudnn")
    assert gpu.startswith("cuda")
    from tests.ssd import convolution_cases as cases  # needs Triton

    taken: list[str] = []

    def seconds(tried: dict[str, Any]) -> dict[str, float]:
        _, *names = tried
        assert names, "cuDNN has a plan of each of these"
        taken.append(names[min(number, len(names) - 1)])
        return {name: float(name != taken[-1]) for name in tried}

    monkeypatch.setattr(plans, "_seconds", seconds)
    monkeypatch.setattr(plans, "folder", lambda: tmp_path)
    for _ in range(2):
        monkeypatch.setattr(plans, "_CHOSEN", {})
        for geometry in ((3, 1, 1), (1, 1, 0)):
            cases.test_a_convolution_and_its_moments_against_float64(geometry, torch.bfloat16)
            cases.test_a_convolution_with_its_bias_and_a_relu_against_float64(geometry, torch.bfloat16)
            for readers in (1, 2):
                cases.test_a_sent_map_and_its_convolution_against_float64(geometry, readers, True, torch.bfloat16)
    assert len(taken) == len([*tmp_path.iterdir()]) == 10, "the second time nothing was chosen anew"


# --- the true library --------------------------------------------------------------------------------------------------

# A driver without a device: what cuDNN's compiler and CUDA's runtime look up, and what they must be told
DRIVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
static int absent(void) { return 100; }
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 0; return 0; }
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long flags, int *status) {
    void *known = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    *found = known ? known : (void *)absent;
    if (status) *status = 0;
    return 0;
}
"""
ABSENT = """\
cuDeviceGet cuGetExportTable cuGetErrorName cuGetErrorString cuCtxGetCurrent cuCtxGetLimit cuCtxPopCurrent cuCtxPushCurrent
cuStreamGetCtx cuLinkCreate cuLinkAddData cuLinkComplete cuLinkDestroy cuLaunchKernel cuLaunchCooperativeKernel
cuLaunchKernelEx cuLibraryLoadData cuLibraryLoadFromFile cuLibraryGetKernel cuLibraryUnload cuKernelSetAttribute
cuKernelGetAttribute cuOccupancyMaxPotentialClusterSize"""
HOPPER = {
    "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0, "maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": 132, "smClockRateKHz": 1980000,
    "memClockRateKHz": 2619000, "l2CacheSize": 52428800, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
    "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,
    "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0,
    "supportCoopLaunch": 1, "totalGlobalMem": 85029158912, "deviceName": "H100",
}  # fmt: skip
CARDS = {
    "H100": HOPPER,
    "B200": HOPPER | {"deviceVer": 1000, "multiProcessorCount": 148, "l2CacheSize": 132644864, "deviceName": "B200"},
    "A100": HOPPER | {
        "deviceVer": 800, "multiProcessorCount": 108, "l2CacheSize": 41943040, "maxSharedMemoryPerBlockOptin": 166912,
        "deviceName": "A100",
    },
}  # fmt: skip

MADE = """
import json, sys
import cudnn, torch
from benchmarks.ssd.kernels import graphs, plans
from benchmarks.ssd import fused, stem
from benchmarks.ssd.model import SSD
from benchmarks.ssd.geometry import REFERENCE_EXTRAS
from torchvision.models.resnet import BasicBlock

card = cudnn.create_device_properties(sys.argv[1])
with torch.device("meta"):
    model = SSD("resnet34", 81, (4, 6, 6, 6, 4, 4), REFERENCE_EXTRAS)
shapes, backwards = {}, {}

def seen(layer, inputs, _):
    (x,) = inputs
    shape = graphs.shape_of(x.to(torch.bfloat16), layer.weight, layer.stride[0], layer.padding[0])
    shapes[shape] = None
    if layer.stride[0] == 1 and layer.kernel_size[0] == 3:
        backwards[shape] = None

for block in model.modules():
    if isinstance(block, BasicBlock):
        for layer in (block.conv1, block.conv2, *([block.downsample[0]] if block.downsample else [])):
            layer.register_forward_hook(seen)
extras = []
for layer in fused.convolutions_with_relu(model):
    layer.register_forward_hook(lambda layer, inputs, _: extras.append(
        graphs.shape_of(inputs[0].to(torch.bfloat16), layer.weight, layer.stride[0], layer.padding[0])
    ))
model(torch.empty(256, 3, 300, 300, device="meta"))
first = model.backbone[0]
stem_shape = graphs.shape_of(
    stem.blocks(torch.empty(256, 3, 300, 300, device="meta", dtype=torch.bfloat16)), stem.block_weights(first.weight), 1, 0
)
all_wanted = [graphs.forward_graph(shape) for shape in (stem_shape, *shapes)]
all_wanted += [graphs.relu_graph(shape) for shape in extras]
all_wanted += [graphs.backward_graph(shape, second=second) for shape in backwards for second in (False, True)]
for wanted in all_wanted:
    graph, names = plans.candidates(wanted, device_property=card)
    assert names, wanted.text
    if sys.argv[2] == "all" or wanted in all_wanted[-2:]:
        graph.build_plan_at_index(0)
        print("made", names[0], len(bytes(graph.serialize())), wanted.text)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("card", "built", "count"), [("H100", "all", 8 + 4 + 2 * 4), ("B200", "two", 2), ("A100", "two", 2)]
)
def test_cudnn_makes_kernels_of_every_graph_of_ssd300(card: str, built: str, count: int, tmp_path: Path) -> None:
    """In bf16, 256 images, as on the card itself: its heuristics and its compiler need its properties alone. Compiling takes
    most of the time, and so on two cards only the largest two are."""
    compiler = shutil.which("cc")
    if not installed("cudnn") or compiler is None:
        pytest.skip("needs nvidia-cudnn-frontend and a C compiler")
    source = tmp_path / "driver.c"
    source.write_text(DRIVER + "".join(f"int {name}(void) {{ return 100; }}\n" for name in ABSENT.split()))
    driver = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", driver, source, "-ldl"], check=True)
    finished = subprocess.run(
        [sys.executable, "-c", MADE, json.dumps(CARDS[card]), built],
        cwd=CHECKOUT,
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    made = [line.split() for line in finished.stdout.splitlines() if line.startswith("made")]
    assert len(made) == count, finished.stdout
    assert all(int(size) > 20_000 for _, _, size, *_ in made), "a plan has its machine code with it"
