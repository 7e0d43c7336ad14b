"""The Triton loss, in a process of its own: Triton chooses between compiler and interpreter when it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.ssd.benchmark import BENCHMARK
from harness import config
from harness.contract import Context
from tests.conftest import CHECKOUT
from tests.ssd import small

CASES = CHECKOUT / "tests" / "ssd" / "loss_triton_cases.py"


def test_the_cases(device: str) -> None:
    interpret = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)],
        cwd=CHECKOUT,
        env=os.environ | interpret,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
    summary = re.search(r"(\d+) passed", finished.stdout)
    assert summary is not None and int(summary[1]) >= 25 and "skipped" not in finished.stdout


def test_a_cpu_is_refused_before_anything_is_built() -> None:
    tables: Any = config.parse(small.content(compute={"loss": "fused"}), name="small", source="small").tables
    with pytest.raises(ValueError, match=r'compute\.loss = "fused".*"plain"'):
        BENCHMARK.check(tables, Context(device="cpu"))
    BENCHMARK.check(tables, Context(device="cuda:0"))


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from benchmarks.ssd import loss_triton as kernels

F, I = "*fp32", "*i32"
for number in ("*bf16", "*fp16", F):
    for kernel, types, constants in (
        (kernels._cross_entropy, [number, I, F, F, "i32", "i32"], {"ROWS": kernels.ROWS, "BLOCK_K": 128}),
        (kernels._select_and_sum, [F, I, number, F, F, F, "i32"], {"PER_POSITIVE": 3, "BLOCK_A": 16384}),
        (
            kernels._gradients,
            [F, number, number, I, F, F, F, number, number, "i32", "i32", "i32"],
            {"ROWS": kernels.ROWS, "BLOCK_K": 128},
        ),
    ):
        names = kernel.arg_names
        signature = dict(zip(names, [*types, *["constexpr"] * len(constants)], strict=True))
        source = ASTSource(kernel, signature, constexprs=constants)
        for capability in (80, 90):
            warps = kernels.IMAGE_WARPS if kernel is kernels._select_and_sum else 4
            binary = triton.compile(source, GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            assert len(binary.asm["cubin"]) > 1000
            print("compiled", kernel.__name__, number, capability, binary.metadata.shared)
"""


def test_the_kernels_compile_for_ampere_and_hopper() -> None:
    """Triton's compiler and its ptxas need no GPU: what the interpreter would forgive, a wrong type say, fails here."""
    without = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=CHECKOUT,
        env=without,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert finished.stdout.count("compiled") == 18, finished.stdout
