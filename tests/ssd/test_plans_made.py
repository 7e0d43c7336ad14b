"""The true cuDNN makes kernels of SSD300's own graphs for three cards, none of which need be there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
import sys, time
from pathlib import Path
from types import SimpleNamespace
import torch
from benchmarks.ssd import fused, stem
from benchmarks.ssd.geometry import REFERENCE_EXTRAS
from benchmarks.ssd.kernels import plans
from benchmarks.ssd.model import SSD

card, count, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = SSD("resnet34", 81, (4, 6, 6, 6, 4, 4), REFERENCE_EXTRAS)
stem.replace(model, stem.SpaceToDepth)
fused.fuse_stem(model)
fused.fuse_blocks(model, convolutions=True)
wanted = fused.graphs_of_step(model, 256, 300)
assert len(wanted) == 8 + 4 + 7, [each.text for each in wanted]
began = time.perf_counter()
if processes == 0:
    plans.TRIED = 1
    found = [plans.made(each, card) for each in wanted[-count:]]
else:
    plans._path = lambda text, device: Path("nowhere")
    with plans.made_beside(wanted[-count:], SimpleNamespace(index=card), processes):
        found = [plans._BESIDE[each.text].result() for each in wanted[-count:]]
for each, made in zip(wanted[-count:], found):
    assert made.plans, (each.text, made.left_out)
    for name, plan in made.plans.items():
        print("made", name, len(plan), each.text)
print("seconds", time.perf_counter() - began)
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, int, int], list[list[str]]]:
    """Name and size of the plans of a step's last `count` graphs on a card, made in so many processes beside; 0: each graph's
    first, in one process."""
    compiler = shutil.which("cc")
    if not installed("cudnn") or compiler is None:
        pytest.skip("needs nvidia-cudnn-frontend and a C compiler")
    source = tmp_path / "driver.c"
    source.write_text(DRIVER + "".join(f"int {name}(void) {{ return 100; }}\n" for name in ABSENT.split()))
    driver = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", driver, source, "-ldl"], check=True)

    def made(card: str, count: int, processes: int) -> list[list[str]]:
        finished = subprocess.run(
            [sys.executable, "-c", MADE, json.dumps(CARDS[card]), str(count), str(processes)],
            cwd=CHECKOUT,
            env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
        found = [line.split() for line in finished.stdout.splitlines() if line.startswith("made")]
        assert all(int(size) > 20_000 for _, _, size, *_ in found), "a plan has its machine code with it"
        return found

    return made


@pytest.mark.long
@pytest.mark.parametrize(("card", "count"), [("H100", 19), ("B200", 2), ("A100", 2)])
def test_cudnn_makes_kernels_of_every_graph_of_ssd300(
    card: str, count: int, make: Callable[[str, int, int], list[list[str]]]
) -> None:
    """In bf16, 256 images, as on the card itself: its heuristics and its compiler need its properties alone. Compiling takes
    most of the time, and so on two cards only the last two are."""
    assert len(make(card, count, 0)) == count


@pytest.mark.long
def test_other_processes_make_the_same_plans(make: Callable[[str, int, int], list[list[str]]]) -> None:
    in_one = make("H100", 2, 0)
    in_two = make("H100", 2, 2)
    assert len(in_two) > len(in_one) and all(plan in in_two for plan in in_one)
