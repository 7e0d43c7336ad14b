"""What is tried on an accelerator of unknown make, on one that is neither "cpu" nor "cuda"; and what is asked of known ones."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.detection import capabilities
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.config import SSDConfig
from harness import config
from harness.contract import Context, NotSuitable
from tests import private_device
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.ssd import small
from tests.toy.configuration import write

CPU = Context("cpu")
NVIDIA = Context("cuda:0", vendor="NVIDIA")
AMD = Context("cuda:0", vendor="AMD")
INTEL = Context("xpu:0", vendor="Intel")


def tables(**changes: Any) -> SSDConfig:
    found: Any = config.parse(small.content(**changes), name="small", source="small").tables
    return found  # type: ignore[no-any-return]


@pytest.fixture
def without_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nvidia.dali" else original(name))


@pytest.mark.parametrize(("where", "chosen"), [(CPU, "torch"), (NVIDIA, "dali"), (AMD, "torch"), (INTEL, "torch")])
def test_whose_data_path(where: Context, chosen: str) -> None:
    pytest.importorskip("nvidia.dali")
    assert capabilities.backend(tables(), where) == chosen
    assert capabilities.backend(tables(data={"backend": "torch"}), where) == "torch"


def test_a_processors_data_path_is_dalis_where_that_is_the_point() -> None:
    """In the demonstration, which shows an accelerator's path, and for a choice that DALI alone has."""
    pytest.importorskip("nvidia.dali")
    for settings in ({"source": "embedded"}, {"decode": "whole"}, {"backend": "dali"}):
        assert capabilities.backend(tables(data=settings), CPU) == "dali"
    assert capabilities.backend(tables(data={"source": "embedded"}), INTEL) == "torch"


@pytest.mark.usefixtures("without_dali")
def test_without_dali_the_other_path_is_taken_unless_dali_was_asked_for() -> None:
    BENCHMARK.check(tables(), CPU)
    assert capabilities.backend(tables(), CPU) == "torch"
    with pytest.raises(NotSuitable, match='backend = "torch"'):
        BENCHMARK.check(tables(data={"backend": "dali"}), CPU)
    with pytest.raises(NotSuitable, match="are DALI's, which is not available here"):
        BENCHMARK.check(tables(data={"decode": "whole"}), CPU)


def test_dali_is_refused_on_devices_that_it_does_not_know() -> None:
    pytest.importorskip("nvidia.dali")
    with pytest.raises(NotSuitable, match=r"does not know AMD accelerators \(cuda:0\)"):
        BENCHMARK.check(tables(data={"backend": "dali"}), AMD)


@pytest.mark.parametrize("where", [CPU, NVIDIA], ids=["cpu", "nvidia"])
def test_nothing_is_tried_where_what_is_asked_for_is_what_is_done(where: Context) -> None:
    asked = tables(compute={"precision": "bf16", "compile": True})
    found = capabilities.settle(asked, where)

    assert found.config.compute == asked.compute
    assert (found.fused_optimizer, found.jpeg_on_device, found.left_out) == (True, True, {})


# Trains the same two epochs on the processor and on the device, and tells what it found
PROGRAM = """
import json, sys, torch
from pathlib import Path
from benchmarks.detection import capabilities
from benchmarks.ssd.benchmark import BENCHMARK
from harness.contract import Context, NotSuitable
from tests.ssd.test_capabilities import tables

found = {}
for device in ("cpu", "abacus:1"):
    here = Context(device, seed=5, data_dir=Path(sys.argv[1]), threads=1, log_every_steps=1, vendor="abacus")
    more = {} if device == "cpu" else {"compile": True, "precision": "auto"}
    asked = tables(data={"backend": "torch"}, compute=more)
    BENCHMARK.check(asked, here)
    torch.manual_seed(5)  # of the initial weights
    session = BENCHMARK.open(asked, here)
    session.warm_up()
    session.load_data()
    losses = [each.loss for epoch in (1, 2) for each in session.train_epoch(epoch)]
    found[device] = {"losses": losses, "mAP": session.evaluate(2), "properties": session.properties()}
    means = [value for name, value in session.model.state_dict().items() if name.endswith("running_var")]
    found[device]["statistics"] = [value.mean().item() for value in means]
    found[device]["parameters on"] = str(next(session.model.parameters()).device)
    session.restore(session.state())
    session.close()
try:
    capabilities.settle(tables(compute={"precision": "bf16"}), here)
except NotSuitable as error:
    found["bf16"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.long  # compiles the device once, in half a minute
@pytest.mark.skipif(not private_device.CAN_BE_BUILT, reason="no g++ and ninja to compile the stand-in device with")
def test_a_device_that_is_neither_cpu_nor_cuda_trains_as_the_processor_does(tmp_path: Path) -> None:
    small.folder(tmp_path / "data")
    environment = {**os.environ, **private_device.plugged_in(tmp_path / "plug"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    processor, device = found["cpu"], found["abacus:1"]

    assert device["parameters on"] == "abacus:1"
    assert device["losses"][:3] == pytest.approx(processor["losses"][:3], rel=1e-4)
    assert device["losses"] == pytest.approx(processor["losses"], rel=0.05)  # rounding grows, in batches of four
    assert device["statistics"] == pytest.approx(processor["statistics"], rel=0.05)
    assert device["mAP"] == pytest.approx(processor["mAP"], abs=0.05)
    assert (processor["properties"]["compiled"], processor["properties"]["left_out"]) == (False, {})
    said = device["properties"]
    assert (said["compiled"], said["memory_format"], said["data_backend"]) == (False, "channels_last", "torch")
    assert (said["precision"], said["precision_requested"]) == ("fp32", "auto")
    assert set(said["left_out"]) == {"compile", "jpeg_on_device"}
    assert "abacus" in said["left_out"]["compile"]
    assert 'compute.precision = "bf16"' in found["bf16"]


@pytest.mark.long  # compiles the device once, in half a minute
@pytest.mark.skipif(not private_device.CAN_BE_BUILT, reason="no g++ and ninja to compile the stand-in device with")
def test_an_accelerator_of_whatever_make_is_that_one(tmp_path: Path) -> None:
    """From device = "accelerator" to an evaluation in the log."""
    path = write(tmp_path, small.content(epochs=1, run={"device": "accelerator"}))
    command = runs.command(path, "--data-dir", small.folder(tmp_path / "data"), "--seed", 1, "--out", tmp_path / "out")
    environment = runs.environment(**private_device.plugged_in(tmp_path / "plug"))
    # compiled before: who looks for accelerators gives none so long
    subprocess.run([sys.executable, "-c", "import torch"], cwd=CHECKOUT, env=environment, check=True)
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # not to the target
    log = tmp_path / "out" / "result_0.txt"
    found = {event["key"]: event["value"] for event in runs.events(log)}

    assert (found["device"], found["hardware"]["accelerators"]) == ("abacus:0", [private_device.MODEL] * 2)
    assert runs.stop(log)["reason"].startswith(f"epochs spent: mAP {found['eval_accuracy']:.4f} after 1 epoch")
