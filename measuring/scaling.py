"""Images/s of N nodes on paper: from a step, the bytes of its all-reduce and measured bandwidths; held against the records.

    .venv/bin/python -m measuring.scaling --out results/scaling

A step of b images on one accelerator is taken to last fixed + each * b milliseconds, by least squares over the published
entries of one node. The sum of the gradients takes 2 (N - 1) / N of their bytes through the narrowest link (the bus bandwidth
of nccl-tests) and a latency for every bucket. Overlapped, bucket after bucket begins when its gradients are there, which
are taken to come evenly over the backward pass; delayed, all of it comes after. What this leaves out: ranks that wait for
the slowest, batch norm over several ranks, input that does not keep up. The published entries show what that amounts to.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import config, config_files
from harness.results.reporting import published
from measuring import arguments, study

BUCKET_MIB, FIRST_BUCKET_MIB = 25, 1  # of PyTorch's DistributedDataParallel
LATENCY_MS = 0.047  # of one all-reduce of a few bytes, 16 ranks on two nodes: NVIDIA/nccl, issue 1244


@dataclass(frozen=True)
class Link:
    """What carries the sum of the gradients."""

    name: str
    one_node_gb_s: float  # bus bandwidth of nccl-tests' all_reduce_perf
    several_gb_s: float
    source: str


A100 = Link(
    "8x A100, 8 HDR ports",
    232.54,
    2 * 87.75,
    "one node: NVIDIA/nccl, issue 1048; several: twice the 87.75 GB/s that 24 A100 with four HDR ports a node reach with "
    "33.6 MB (NVIDIA/nccl-tests, issue 119), since a DGX A100 has eight",
)
H100 = Link(
    "8x H100, 8 NDR ports",
    476.0,
    362.2,
    "one node: NVIDIA/nccl-tests, issue 290; several: 16 ranks, driver 535 (NVIDIA/nccl-tests, issue 297)",
)


@dataclass(frozen=True)
class Step:
    """Of one accelerator, without the sum of the gradients."""

    fixed_ms: float
    each_ms: float  # an image
    backward: float  # its share
    source: str

    def ms(self, images: float) -> float:
        return self.fixed_ms + self.each_ms * images

    def times(self, factor: float, source: str) -> Step:
        return Step(self.fixed_ms * factor, self.each_ms * factor, self.backward, source)


@dataclass(frozen=True)
class Prediction:
    """Of one configuration."""

    what: str
    accelerators: int
    batch: float  # of one accelerator
    step_ms: float
    all_reduce_ms: float
    exposed_ms: float  # of it, with nothing else going on
    images_per_s: float
    published: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.published is None else self.images_per_s / self.published


def all_reduce_ms(bytes_: float, accelerators: int, nodes: int, link: Link) -> float:
    """The sum of so many bytes over all accelerators, in one go."""
    if accelerators == 1:
        return 0.0
    gb_s = link.one_node_gb_s if nodes == 1 else link.several_gb_s
    return LATENCY_MS + 2 * (accelerators - 1) / accelerators * bytes_ / gb_s / 1e6


def exposed_ms(gradients: float, accelerators: int, nodes: int, link: Link, backward_ms: float) -> float:
    """How much later than the backward pass the overlapped sum of all buckets is ready."""
    ready = done = 0.0
    came, size = 0.0, float(FIRST_BUCKET_MIB << 20)
    while came < gradients:
        bucket = min(size, gradients - came)
        came, size = came + bucket, float(BUCKET_MIB << 20)
        ready = backward_ms * came / gradients
        done = max(ready, done) + all_reduce_ms(bucket, accelerators, nodes, link)
    return done - backward_ms


def predict(  # noqa: PLR0917 - all that a prediction depends on
    what: str,
    accelerators: int,
    nodes: int,
    batch: float,
    step: Step,
    link: Link,
    gradients: float,
    *,
    overlapped: bool = True,
    published_images_per_s: float | None = None,
) -> Prediction:
    alone = step.ms(batch)
    whole = all_reduce_ms(gradients, accelerators, nodes, link)
    late = (
        exposed_ms(gradients, accelerators, nodes, link, step.backward * alone)
        if overlapped and accelerators > 1
        else whole
    )
    speed = 1000 * accelerators * batch / (alone + late)
    return Prediction(what, accelerators, batch, alone, whole, late, speed, published_images_per_s)


# --- what it rests on ----------------------------------------------------------------------------------------------------


def gradient_bytes() -> int:
    """Of SSD300-ResNet34 in float32, padded channels of the heads too: what the ranks really sum."""
    import torch

    from benchmarks.ssd.geometry import shapes_per_cell
    from benchmarks.ssd.model import SSD

    found: Any = config.load(config_files.find("DGXA100_1x8x114")).tables
    with torch.device("meta"):
        model = SSD(found.model.backbone, found.model.categories + 1, shapes_per_cell(found.model.aspect_ratios))
    return sum(each.numel() * 4 for each in model.parameters())


@dataclass(frozen=True)
class Entry:
    """A published result, as far as it matters here."""

    name: str
    framework: str
    nodes: int
    accelerators: int
    batch: float  # of one accelerator
    images_per_s: float

    @property
    def step_ms(self) -> float:
        return 1000 * self.accelerators * self.batch / self.images_per_s


def entries(accelerator: str, *rounds: str) -> list[Entry]:
    """Published ones of SSD on this accelerator, in these rounds."""
    return [
        Entry(
            each.id.replace("-", " ", 1),
            each.framework or "",
            each.nodes,
            each.accelerators,
            each.global_batch / each.accelerators,
            each.images_per_s,
        )
        for each in published.rows()
        if each.id.split("-")[0] in rounds and each.accelerator == accelerator and each.benchmark == "ssd"
        if each.accelerators and each.nodes and each.global_batch and each.images_per_s
    ]


def fitted(rows: Sequence[Entry], link: Link, gradients: float, backward: float) -> Step:
    """Least squares over entries of one node, the exposed part of their all-reduce taken off."""
    alone = [
        each.step_ms - exposed_ms(gradients, each.accelerators, each.nodes, link, backward * each.step_ms)
        for each in rows
    ]
    slope, intercept = statistics.linear_regression([each.batch for each in rows], alone)
    batches = ", ".join(f"{batch:g}" for batch in sorted({each.batch for each in rows}))
    return Step(intercept, slope, backward, f"{len(rows)} published entries of one node, {batches} images each")


# --- against the records, and for what nobody has published ------------------------------------------------------------------

BACKWARD = 0.61  # 39.6 of 64.4 ms on an H100: results/profile/h100_2026-11-26.json
H100_STEP_MS, H100_BATCH = 64.3, 256  # 3,979 images/s end to end, there
HALF = 0.5  # of float32's bytes: what these entries summed, in 16 bits


def against_records(gradients: float) -> tuple[Step, list[Prediction]]:
    """The fitted step, and every published entry of several nodes of A100-SXM4, to none of which it was fitted."""
    newer, older = entries("A100-SXM4-80GB", "v1.0", "v1.1"), entries("A100-SXM4-40GB", "v0.7")
    step = fitted([each for each in newer if each.nodes == 1], A100, HALF * gradients, BACKWARD)
    (one_node,) = (each for each in older if each.name == "v0.7 NVIDIA-dgxa100_ngc20.06_pytorch")
    factor = one_node.step_ms / step.ms(one_node.batch)
    earlier = step.times(factor, f"{factor:.3f} times the later rounds', by v0.7's entry of one node")
    found = [
        predict(
            each.name,
            each.accelerators,
            each.nodes,
            each.batch,
            its,
            A100,
            HALF * gradients,
            overlapped="PyTorch" not in each.framework,  # v0.7's PyTorch summed all of it after backward
            published_images_per_s=each.images_per_s,
        )
        for rows, its in ((older, earlier), (newer, step))
        for each in rows
        if each.nodes > 1
    ]
    return step, sorted(found, key=lambda each: (each.accelerators, each.what))


def of_configurations(step: Step, gradients: float) -> list[Prediction]:
    """Ours of several nodes, gradients in float32, overlapped as PyTorch does it unless told otherwise."""
    h100 = Step(
        step.fixed_ms,
        (H100_STEP_MS - step.fixed_ms) / H100_BATCH,
        BACKWARD,
        f"{H100_STEP_MS} ms for {H100_BATCH} images, measured on one H100; the fixed part is the A100's, for lack of another",
    )
    found = []
    for name, path in config_files.available().items():
        its = config.load(path)
        tables: Any = its.tables
        if its.run.nodes > 1 and its.benchmark_name == "ssd":
            one, link = (h100, H100) if "H100" in its.submission.platform else (step, A100)
            found.append(
                predict(name, its.run.world_size, its.run.nodes, tables.optimizer.batch_size, one, link, gradients)
            )
    return sorted(found, key=lambda each: (each.what.split("_")[0], each.accelerators))


def draw(records: Sequence[Prediction], ours: Sequence[Prediction], step: Step, path: Path) -> None:
    """Images/s by accelerators, predicted and published, as a picture at `path`."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 7.5), dpi=110, layout="constrained")
    speed, share = canvas.subplots(2, 1, height_ratios=[2, 1])
    speed.plot(
        [each.accelerators for each in records],
        [each.published or 0 for each in records],
        "o",
        color="black",
        label="published",
    )
    speed.plot(
        [each.accelerators for each in records],
        [each.images_per_s for each in records],
        "_",
        markersize=16,
        markeredgewidth=2,
        color="#D55E00",
        label="predicted for it",
    )
    for machine, colour in (("DGXA100", "#56B4E9"), ("DGXH100", "#009E73")):
        mine = [each for each in ours if each.what.startswith(machine)]
        points = [each.accelerators for each in mine], [each.images_per_s for each in mine]
        speed.plot(*points, "x-", color=colour, linewidth=1, label=f"predicted, configs/ssd/{machine}_*")
    speed.set_xscale("log", base=2)
    counts = sorted({each.accelerators for each in (*records, *ours)})
    speed.set_xticks(counts, [str(each) for each in counts])
    speed.set_xlabel("accelerators")
    speed.set_yscale("log")
    speed.set_ylabel("images/s")
    canvas.suptitle("SSD300-ResNet34 on several nodes: on paper, and as published", fontsize=11)
    speed.legend(fontsize=8)
    for place, each in enumerate(records):
        assert each.ratio is not None
        share.barh(
            place, each.ratio - 1, left=1, color="#D55E00" if abs(each.ratio - 1) > 0.1 else "#009E73", height=0.6
        )
        share.annotate(f" {each.ratio:.2f}", (max(each.ratio, 1), place), va="center", fontsize=8)
    names = [f"{each.what}, {each.accelerators} x {each.batch:g}" for each in records]
    share.set_yticks(range(len(records)), names, fontsize=7)
    share.invert_yaxis()
    share.set_xlim(0.9, 1.08 * max(each.ratio or 1 for each in records))
    share.axvline(1, color="black", linewidth=0.8)
    share.set_xlabel(
        f"predicted / published; a step: {step.fixed_ms:.2f} ms + {step.each_ms:.3f} ms an image", fontsize=8
    )
    for axes in (speed, share):
        axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    canvas.savefig(drawn)
    study.put(drawn.getvalue(), path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m measuring.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=arguments.folder, required=True, help="folder of scaling.json and scaling.png")
    out = parser.parse_args().out
    gradients = gradient_bytes()
    step, records = against_records(gradients)
    ours = of_configurations(step, gradients)
    content = {
        "gradient_bytes": gradients,
        "step": asdict(step),
        "links": [asdict(each) for each in (A100, H100)],
        "latency_ms": LATENCY_MS,
        "against_records": [{**asdict(each), "ratio": each.ratio} for each in records],
        "configurations": [asdict(each) for each in ours],
    }
    study.keep(content, out / "scaling.json")
    draw(records, ours, step, out / "scaling.png")
    say = sys.stdout.write
    say(f"gradients {gradients / 1e6:.1f} MB; a step {step.fixed_ms:.2f} ms + {step.each_ms:.3f} ms an image\n")
    for each in (*records, *ours):
        held = "" if each.ratio is None else f"   published {each.published:,.0f}: {each.ratio:.2f}"
        parts = f"step {each.step_ms:6.2f} ms, all-reduce {each.all_reduce_ms:5.2f}, exposed {each.exposed_ms:5.2f}"
        say(
            f"{each.what:50} {each.accelerators:5} x {each.batch:<4g} {parts}: {each.images_per_s:9,.0f} images/s{held}\n"
        )


if __name__ == "__main__":
    sys.exit(study.ended(main))
