"""The true cuDNN makes kernels of SSD300's own graphs for three cards, none of which need be there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.detection.capabilities import installed
from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S

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
from pathlib import Path
from types import SimpleNamespace
from benchmarks.ssd import fused, stem
from benchmarks.ssd.geometry import REFERENCE_EXTRAS
from benchmarks.ssd.kernels import plans
from benchmarks.ssd.model import SSD

CARDS = {name: json.dumps(each) for name, each in json.loads(sys.argv[1]).items()}
model = SSD("resnet34", 81, (4, 6, 6, 6, 4, 4), REFERENCE_EXTRAS)
stem.replace(model, stem.SpaceToDepth)
fused.fuse_stem(model)
fused.fuse_blocks(model, convolutions=True)
wanted = fused.graphs_of_step(model, 256, 300)
assert len(wanted) == 8 + 4 + 7, [each.text for each in wanted]

def tell(where, graphs, found):
    for each, made in zip(graphs, found, strict=True):
        assert made.plans, (where, each.text, made.left_out)
        for name, plan in made.plans.items():
            print("made", where, name, len(plan), each.text)

small = wanted[8:10]
assert all("bias and ReLU" in each.text for each in small)
plans._path = lambda text, device: Path("nowhere")
with plans.made_beside(small, SimpleNamespace(index=CARDS["H100"]), 2):
    tell("beside", small, [plans._BESIDE[each.text].result() for each in small])
plans.TRIED = 1
for card, count in (("H100", len(wanted)), ("B200", 2), ("A100", 2)):
    tell(card, wanted[-count:], [plans.made(each, CARDS[card]) for each in wanted[-count:]])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Name, size and graph of the plans that were made, by card: each graph's first, and beside, in two other processes, all of
    two graphs on an H100. In one process: to import the network takes it 8 s of a processor."""
    compiler = shutil.which("cc")
    if not installed("cudnn") or compiler is None:
        pytest.skip("needs nvidia-cudnn-frontend and a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = folder / "driver.c"
    source.write_text(DRIVER + "".join(f"int {name}(void) {{ return 100; }}\n" for name in ABSENT.split()))
    driver = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", driver, source, "-ldl"], check=True)
    finished = subprocess.run(
        [sys.executable, "-c", MADE, json.dumps(CARDS)],
        cwd=CHECKOUT,
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found: dict[str, list[str]] = {}
    for line in finished.stdout.splitlines():
        if line.startswith("made"):
            _, where, plan = line.split(maxsplit=2)
            found.setdefault(where, []).append(plan)
            assert int(plan.split()[1]) > 20_000, "a plan has its machine code with it"
    return found


@pytest.mark.long
@pytest.mark.parametrize(("card", "count"), [("H100", 19), ("B200", 2), ("A100", 2)])
def test_cudnn_makes_kernels_of_every_graph_of_ssd300(card: str, count: int, made: dict[str, list[str]]) -> None:
    """In bf16, 256 images, as on the card itself: its heuristics and its compiler need its properties alone. Compiling takes
    most of the time, and so on two cards only the last two are."""
    assert len(made[card]) == count


@pytest.mark.long
def test_other_processes_make_the_same_plans(made: dict[str, list[str]]) -> None:
    """Of the two graphs that take least to compile, as many plans each as are tried."""
    graphs = {plan.split(maxsplit=2)[2] for plan in made["beside"]}
    in_one = [plan for plan in made["H100"] if plan.split(maxsplit=2)[2] in graphs]
    assert len(graphs) == len(in_one) == 2
    assert len(made["beside"]) > 2 and all(plan in made["beside"] for plan in in_one)
