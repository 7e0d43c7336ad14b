"""`harness export`: a trained model as an ONNX file, from pixels to detections, checked against the model before it is kept.

The only importer of onnx, onnxscript and onnxruntime, which come with the extra `export`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import whole
from harness.contract import Context, Detection, Detector, Graph, NotSuitable, Sample
from harness.execution.trained import detectors
from harness.execution.trained.detectors import Model

INPUT, OUTPUTS = "images", ("boxes", "scores", "category_ids", "count")
OPSET = 18
NEEDED = ("onnx", "onnxscript", "onnxruntime")
PICTURES = 4  # that it is checked with, unless some are named
TOLERANCE_SCORE, TOLERANCE_PX = 1e-4, 0.05  # float32 of two programs that add in other orders


class Differs(RuntimeError):
    """What was exported does not find what the model finds."""


@dataclass(frozen=True)
class Exported:
    """What was written and how it was checked."""

    path: Path
    inputs: str
    opset: int
    checked: int  # pictures
    detections: int  # in them
    worst_score: float  # largest difference from the model's
    worst_px: float
    metadata: dict[str, str]


def export(model: Model, path: Path, pictures: Sequence[Path] = ()) -> Exported:
    """Write `path`, whole or not at all. ValueError, NotSuitable without the packages, Differs where the check fails."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NotSuitable(
            f"export needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed: "
            "pip install -r requirements/export.lock, or the extra `export`"
        )
    assert model.state is not None
    graph = model.benchmark.graph(model.configuration.tables, model.state)
    graph = replace(graph, metadata={"model": model.told, **graph.metadata})
    detector = model.open(Context(device="cpu"), precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        paths = list(pictures)
        for number, content in enumerate(model.benchmark.pictures(PICTURES) if not paths else []):
            paths.append(Path(folder) / f"{number}.jpg")
            paths[-1].write_bytes(content)
        samples = detectors.read(detector, paths, upright=True)
    content = _written(graph, samples[0])
    checked = _checked(content, detector, samples)
    with whole.replacing(path) as file:
        file.write(content)
    return Exported(path, _shape(samples[0]), OPSET, len(samples), *checked, metadata=dict(graph.metadata))


def _shape(sample: Sample) -> str:
    return f"{INPUT} (B, {', '.join(map(str, sample.pixels.shape))}) uint8 RGB"


def _written(graph: Graph, sample: Sample) -> bytes:
    """The file's content; its size is bounded by ONNX's 2 GB."""
    import onnx
    import torch

    example = torch.from_numpy(sample.pixels).unsqueeze(0).repeat(2, 1, 1, 1)  # a size of 1 would be taken for fixed
    for name in ("torch.onnx", "onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own insides
        program = torch.onnx.export(
            graph.module,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            custom_translation_table=dict(graph.translations()),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(graph.metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _checked(content: bytes, detector: Detector, samples: Sequence[Sample]) -> tuple[int, float, float]:
    """Number of detections, and the largest differences of score and px from the detector's. Differs where too large.

    One by one and all together: the number of pictures is not fixed in the graph.
    """
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = detector.detections(detector.detect(detector.place(samples)), samples)
    worst_score = worst_px = 0.0
    batches = [[at] for at in range(len(samples))] + ([list(range(len(samples)))] if len(samples) > 1 else [])
    for batch in batches:
        pixels = np.stack([samples[at].pixels for at in batch])
        try:
            values = session.run(list(OUTPUTS), {INPUT: pixels})
        except Exception as error:  # ONNX Runtime's classes have no common one
            raise Differs(f"ONNX Runtime does not run the exported graph: {error}") from error
        outputs = dict(zip(OUTPUTS, values, strict=True))
        for row, at in enumerate(batch):
            found = _detections(outputs, row, samples[at])
            score, px = _difference(expected[at], found)
            worst_score, worst_px = max(worst_score, score), max(worst_px, px)
    return sum(map(len, expected)), worst_score, worst_px


def _detections(outputs: dict[str, Any], row: int, sample: Sample) -> list[Detection]:
    """Of one picture in the graph's outputs, see harness.contract.Graph."""
    found = []
    for at in range(int(outputs["count"][row])):
        left, top, right, bottom = map(float, outputs["boxes"][row, at])
        box = (
            left * sample.width_px,
            top * sample.height_px,
            (right - left) * sample.width_px,
            (bottom - top) * sample.height_px,
        )
        found.append(Detection(int(outputs["category_ids"][row, at]), "", box, float(outputs["scores"][row, at])))
    return found


def _difference(expected: Sequence[Detection], found: Sequence[Detection]) -> tuple[float, float]:
    """Largest of scores and of px, each detection held against the nearest of its category that no other has taken."""
    if len(expected) != len(found):
        raise Differs(f"the exported graph finds {len(found)} things in a picture, the model {len(expected)}")
    left, worst_score, worst_px = list(found), 0.0, 0.0
    for one in expected:
        near = [each for each in left if each.category_id == one.category_id]
        if not near:
            raise Differs(
                f"the exported graph finds no {one.category} where the model finds one of score {one.score:.4f}"
            )
        best = min(near, key=lambda each: (abs(each.score - one.score) > TOLERANCE_SCORE, _px(one, each)))
        left.remove(best)
        worst_score, worst_px = max(worst_score, abs(best.score - one.score)), max(worst_px, _px(one, best))
    if worst_score > TOLERANCE_SCORE or worst_px > TOLERANCE_PX:
        raise Differs(
            f"the exported graph's scores differ by up to {worst_score:.2g}, its boxes by up to {worst_px:.2g} px"
        )
    return worst_score, worst_px


def _px(one: Detection, other: Detection) -> float:
    return max(abs(a - b) for a, b in zip(one.xywh_px, other.xywh_px, strict=True))
