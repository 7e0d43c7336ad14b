"""The Triton kernels, in a process of its own: Triton chooses between compiler and interpreter when it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.detection import capabilities
from benchmarks.ssd import benchmark, session
from benchmarks.ssd.benchmark import BENCHMARK
from harness import config
from harness.contract import Context, NotSuitable
from tests.conftest import CHECKOUT
from tests.ssd import small

CASES = [CHECKOUT / "tests" / "ssd" / f"{name}_cases.py" for name in ("loss", "norm", "convolution")]


@pytest.mark.long
def test_the_cases(device: str) -> None:
    """All in one process, since one takes 8 s of a processor to begin."""
    interpret = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CASES],
        cwd=CHECKOUT,
        env=os.environ | interpret,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
    summary = re.search(r"(\d+) passed", finished.stdout)
    assert summary is not None and int(summary[1]) >= 150 and "skipped" not in finished.stdout


def test_a_cpu_is_refused_before_anything_is_built() -> None:
    tables: Any = config.parse(small.content(compute={"fused": ["loss"]}), name="small", source="small").tables
    with pytest.raises(ValueError, match=r"compute\.fused = \['loss'\].*leave it out"):
        BENCHMARK.check(tables, Context(device="cpu"))
    BENCHMARK.check(tables, Context(device="cuda:0"))


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from benchmarks.ssd.kernels import loss, norm, stem, stem_convolution, sums

F, I, i, f = "*fp32", "*i32", "i32", "fp32"
WIDE, NARROW = (dict(zip(("ROWS", "BLOCK_C"), norm.tile(channels))) for channels in (256, 64))
STAGES = {"STAGES": norm.STAGES}
ADDED = {"BLOCK_P": 1024, "BLOCK_C": norm.SUMMED_C}
POSITIONS = {"POSITIONS": stem.POSITIONS, "BLOCK_C": stem.BLOCK_C}
CELLS, DEFAULT_BOXES = {"CELLS": loss.CELLS, "BLOCK_K": 128, "BLOCK_D": 8}, {"PER_POSITIVE": 3, "BLOCK_A": 16384}
OF_NORM = [F, F, F, F, f]
for x in ("*bf16", F):
    gradients = {"D": 6, "EIGHTHS": True, "CELLS": loss.GRADIENT_CELLS, "BLOCK_D": 8, "BLOCK_C": 512}
    cases = [
        (loss._of_cells, [x, F, I, F, F, F, F, i, i, i, i, i, i, i], CELLS, 4),
        (loss._select_and_sum, [F, F, I, F, F, i], DEFAULT_BOXES, loss.IMAGE_WARPS),
        (loss._gradients, [F, x, F, I, F, F, F, x, F, i, i, i, i, i, i], gradients, 4),
        (norm._sums_of_rows, [x, F, i, i], {**STAGES, **WIDE}, 8),
        (norm._sums_of_rows, [x, F, i, i], {**STAGES, **NARROW}, 8),
        (norm._moments, [x, F, F, F, i, i, i], ADDED, 4),
        (norm._added, [F, F, F, i, i], ADDED, 4),
        (stem._pool, [x, *OF_NORM, x, "*i8", x, i, i, i, i, i], POSITIONS, 4),
        (stem._unpool, [x, "*i8", x, *OF_NORM, F, F, x, i, i, i, i, i, i], POSITIONS, 4),
    ]
    cases.append((sums._moments, [F, F, F, F, i, i], {"BLOCK_C": sums.BLOCK_C}, 1))
    cases.append((sums._gradients, [F, F, f, F, i], {"BLOCK_C": sums.BLOCK_C}, 1))
    for skip, relu in ((False, False), (False, True), (True, True)):
        flags = {"SKIP": skip, "RELU": relu, "BITS": skip, **WIDE}
        cases.append((norm._normalise, [x, x, *OF_NORM, x, "*u8" if skip else x, i, i], flags, 8))
    for by_bits, by_x, tile in ((False, False, WIDE), (False, True, WIDE), (True, False, WIDE), (True, False, NARROW)):
        flags = {"SECOND": by_bits, "BY_BITS": by_bits, "BY_X": by_x, "LEAVE": by_bits, **STAGES, **tile}
        bits = "*u8" if by_bits else x
        cases.append((norm._sums_of_gradients, [x, x, x, bits, *OF_NORM, x, F, i, i], flags, 8))
    for by_x, tile in ((False, WIDE), (True, WIDE), (True, NARROW)):
        cases.append((norm._gradient_of_input, [x, x, *OF_NORM, F, F, x, i, i], {"BY_X": by_x, **tile}, 8))
    if x == "*bf16":  # float32 is refused by the configuration
        tile = {"ROWS": stem_convolution.ROWS, "FILTERS": 64, "KERNEL": 7, "PADDING": 3, "LINE": 32, "WIDE": False}
        cases.append((stem_convolution._convolve, ["*fp16", x, F, x, F, i, i, i, i, i], tile, 4))
        tile = {"POSITIONS": stem_convolution.POSITIONS, "FILTERS": 64, "SPAN": 8, "LINE": 32, "WIDE": False}
        types = [x, "*i8", x, "*fp16", *OF_NORM, F, F, F, *[i] * 8]
        cases.append((stem_convolution._gradient_of_weights, types, tile, 16))
    for kernel, types, constants, warps in cases:
        names = kernel.arg_names
        signature = dict(zip(names, [*types, *["constexpr"] * len(constants)], strict=True))
        # as they are launched: what PyTorch allocates begins at a multiple of 16 bytes, and sides are multiples of 16
        aligned = {(place,): [["tt.divisibility", 16]] for place, of in enumerate(types) if of[0] in "*i"}
        source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
        for capability in (80, 90, 100):
            binary = triton.compile(source, GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            assert len(binary.asm["cubin"]) > 1000
            print("compiled", kernel.__name__, x, capability)
"""


@pytest.mark.long
def test_the_kernels_compile_for_ampere_hopper_and_blackwell() -> None:
    """Triton's compiler and its ptxas need no GPU: what the interpreter would forgive, a wrong type say, fails here. In one
    process: one takes 8 s of a processor to begin, and 31 for a card's kernels where Triton's cache has none of them."""
    without = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=CHECKOUT,
        env=without,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert finished.stdout.count("compiled") == 3 * 44, finished.stdout


ALL_PARTS = ["stem", "blocks", "convolutions", "loss"]


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        ({"fused": ["stem", "convolutions"]}, 'are those of "blocks"; name both'),
        ({"fused": ["stem", "stem_convolution"]}, 'stem = "space_to_depth"; say both'),
        ({"fused": ["stem", "stem_convolution"], "stem": "space_to_depth", "precision": "auto"}, "is for tensor cores"),
        ({"fused": ALL_PARTS, "autotune": False}, "chosen by their speed, which autotune = false forbids"),
    ],
)
def test_convolutions_that_cannot_be(compute: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config.parse(small.content(compute=compute), name="small", source="small")


def test_convolutions_need_cudnn_s_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: Any = config.parse(small.content(compute={"fused": ALL_PARTS}), name="small", source="small").tables
    monkeypatch.setattr(benchmark, "installed", lambda name: name != "cudnn")
    with pytest.raises(NotSuitable, match="nvidia-cudnn-frontend, which is not installed"):
        BENCHMARK.check(tables, Context(device="cuda:0"))
    monkeypatch.undo()
    BENCHMARK.check(tables, Context(device="cuda:0"))


def test_equal_bits_leave_out_what_sums_up_in_no_order() -> None:
    """And the log says so: its list of parts has the rest, and `left_out` the reason."""
    tables: Any = config.parse(small.content(compute={"fused": ALL_PARTS}), name="small", source="small").tables
    for deterministic, parts in ((True, ("stem", "blocks", "loss")), (False, tuple(ALL_PARTS))):
        context = Context(device="cuda:0", deterministic=deterministic)
        settled = session._parts_that_fit(capabilities.settle(tables, context), context)
        assert settled.config.compute.fused == parts
        assert ("no order" in settled.left_out.get("fused", "")) == deterministic
