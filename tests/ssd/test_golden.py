"""Twenty training steps in float32, from JPEG to loss, against losses recorded before.

On a CPU they are in golden_losses.json. The same CPU model, vector capability and torch must give the same bits; elsewhere
kernels sum in another order, and 20 steps may drift apart by EARLY_BOUND in the first three steps and by LATE_BOUND after them.
A GPU that computes on the CPU's batches must stay within the same bounds of the same file. With its own batches, whose
pixels nvJPEG decodes, it is compared with golden_losses_gpu.json, one entry for each model of GPU; a model that has none is
not compared. Record again, after a change that is meant to change the maths, or on another model of GPU:
    python -m tests.ssd.test_golden [cpu | cuda:0]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ssd import data
from benchmarks.ssd.boxes import default_boxes
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.geometry import REFERENCE_EXTRAS, feature_sizes, shapes_per_cell
from benchmarks.ssd.loss import detection_loss
from benchmarks.ssd.model import SSD
from benchmarks.ssd.schedule import Schedule
from tests.ssd import coco_folder
from tests.ssd.coco_folder import Picture

FILE = Path(__file__).with_name("golden_losses.json")
GPU_FILE = Path(__file__).with_name("golden_losses_gpu.json")
STEPS = 20
# Batch norm over four images of few cells enlarges a rounding difference a hundredfold at each step. Measured between the
# AVX-512, AVX2 and plain kernels of one machine: 4e-4 at worst in the first three steps, 8 % at worst in all twenty.
EARLY_BOUND = 2e-3
LATE_BOUND = 0.16


def losses(folder: Path, device: str = "cpu", decoder: str = "cpu") -> list[float]:
    """Losses of the first 20 steps on 16 patterned pictures; `decoder` is the device that makes the batches."""
    pictures = [
        Picture(12 * i, [(6 + i, 5, 20 + i, 24, 1 + i % 3), (30, 14 + i, 28, 16, 1 + (i + 1) % 3)])
        for i in range(1, 17)
    ]
    written = coco_folder.write(folder, pictures, categories=(1, 2, 3))
    aspect_ratios, px = ((2,), (2,), (2,)), 64
    sizes = feature_sizes(px, REFERENCE_EXTRAS[:2])
    boxes = default_boxes(px, sizes, [px / size for size in sizes], [12, 24, 40, 60], aspect_ratios)
    source = data.Source(written.images, written.annotations, px, 4, 1, decoder, 0, 1, skip_empty=True)
    batches = data.train_batches(source, Augmentation(), boxes, order_seed=1, augmentation_seed=2)

    with one_order_of_sums():
        torch.manual_seed(3)
        model = SSD("resnet18", 4, shapes_per_cell(aspect_ratios), REFERENCE_EXTRAS[:2]).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4, fused=True)
        schedule = Schedule(0.002, warmup_steps=5, warmup_factor=0, decay_epochs=(3,), steps_per_epoch=4)
        found: list[float] = []
        while len(found) < STEPS:
            for batch in batches:
                optimizer.param_groups[0]["lr"] = schedule.learning_rate(len(found))
                images, labels, targets = (batch[name].to(device) for name in ("images", "labels", "offsets"))
                logits, offsets = model(images)
                loss = detection_loss(logits, offsets, labels, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
    return found[:STEPS]


@contextmanager
def one_order_of_sums() -> Iterator[None]:
    """One thread on a CPU; under CUDA float32 in full and, where cuDNN has them, algorithms that add in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
    torch.set_num_threads(threads)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What must be equal for equal bits. A CPU's maker matters too: the maths library picks its kernels by it."""
    if device != "cpu":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return {
            **{"gpu": torch.cuda.get_device_name(device), "capability": capability, "torch": torch.__version__},
            **{"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        }
    cpuinfo = Path("/proc/cpuinfo").read_text()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    cpu = " ".join(fields.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    return {"cpu": cpu, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def close(found: list[float], golden: list[float]) -> None:
    assert found[:3] == pytest.approx(golden[:3], rel=EARLY_BOUND)
    assert found == pytest.approx(golden, rel=LATE_BOUND)
    assert found[-1] < 0.8 * found[0]


def test_losses(tmp_path: Path, device: str) -> None:
    """Of the same batches: the CPU makes them for a GPU too."""
    golden = json.loads(FILE.read_text())
    found = losses(tmp_path, device)
    if machine(device) == golden["machine"]:
        assert found == golden["losses"]
    close(found, golden["losses"])


def test_losses_of_a_gpu_s_own_batches(tmp_path: Path, gpu: str) -> None:
    here = machine(gpu)
    recorded = json.loads(GPU_FILE.read_text()) if GPU_FILE.is_file() else {}
    if here["gpu"] not in recorded:
        pytest.skip(f"no losses recorded on {here['gpu']}: python -m tests.ssd.test_golden {gpu}")
    golden = recorded[here["gpu"]]
    found = losses(tmp_path, gpu, gpu)
    if here == golden["machine"] and golden["repeats_exactly"]:
        assert found == golden["losses"]
    close(found, golden["losses"])


def record(device: str) -> str:
    """Run here and write down; what was written."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        found = {"machine": machine(device), "losses": losses(Path(one), device, device)}
        if device == "cpu":
            FILE.write_text(json.dumps(found, indent=1) + "\n")
            return f"{FILE}: {found}"
        found["repeats_exactly"] = losses(Path(other), device, device) == found["losses"]
    recorded = json.loads(GPU_FILE.read_text()) if GPU_FILE.is_file() else {}
    recorded[found["machine"]["gpu"]] = found
    GPU_FILE.write_text(json.dumps(recorded, indent=1) + "\n")
    return f"{GPU_FILE}: {found}"


if __name__ == "__main__":
    sys.stdout.write(f"{record(*(sys.argv[1:] or ['cpu']))}\n")
