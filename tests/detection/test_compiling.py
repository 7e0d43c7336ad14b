"""What is compiled is of the sources that are there, whatever an earlier checkout left in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.detection import compiling
from tests.conftest import CHECKOUT


def test_the_cache_s_key_is_of_every_module_of_the_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = torch.compiler.config
    monkeypatch.setattr(compiling, "ALL", tmp_path)
    (tmp_path / "new").mkdir()
    found = set()
    for text in ("1", "2"):
        (tmp_path / "new" / "operators.py").write_text(text)
        compiling._sources.cache_clear()
        with config.patch(cache_key_tag="his own "):
            for _ in range(2):
                compiling.compiled(len)
            found.add(config.cache_key_tag)
    compiling._sources.cache_clear()
    assert len(found) == 2 and {(each[:8], len(each)) for each in found} == {("his own ", 8 + 64)}


def test_a_pytorch_that_takes_no_key_keeps_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._functorch import config

    monkeypatch.setattr(torch.compiler, "config", object())
    with config.patch(enable_autograd_cache=True):
        compiling.compiled(len)
        assert not config.enable_autograd_cache


COMPILED = """
import torch
from benchmarks.detection.casts import all_in
from benchmarks.detection.compiling import compiled
weight = torch.ones(8, requires_grad=True)
compiled(lambda each: all_in([each], torch.bfloat16)[0])(weight).backward(torch.ones(8, dtype=torch.bfloat16))
print(weight.grad.unique().item())
"""


@pytest.mark.long
def test_a_changed_gradient_is_the_one_that_is_used(tmp_path: Path) -> None:
    """An earlier checkout's was, out of the cache."""
    shutil.copytree(CHECKOUT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    of_casts = tmp_path / "benchmarks/detection/casts.py"
    found = []
    for change in ("", "2 * "):
        of_casts.write_text(of_casts.read_text().replace("[*gradients]", f"[{change}each for each in gradients]"))
        done = subprocess.run(
            [sys.executable, "-c", COMPILED],
            cwd=tmp_path,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(float(done.stdout))
        of_casts.write_text(of_casts.read_text().replace("[each for each in gradients]", "[*gradients]"))
    assert found == [1, 2]
