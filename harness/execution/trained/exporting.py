"""`harness export`: a trained model as an ONNX file, from pixels to detections, checked against the model before it is kept.

The only importer of onnx, onnxscript and onnxruntime, which come with the extra `export`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import whole
from harness.contract import Context, Detection, Detector, Graph, NotSuitable, Sample
from harness.execution.trained import detecting, detectors
from harness.execution.trained.detectors import Model

INPUT, OUTPUTS = "images", ("boxes", "scores", "category_ids", "count")
OPSET = 18
NEEDED = ("onnx", "onnxscript", "onnxruntime")
# As protobuf writes a model of torch's exporter: its version of the form, in a byte, and who made it
BEGINS = re.compile(rb"\x08.\x12\x07pytorch", re.DOTALL)
PICTURES = 4  # that it is checked with, unless some are named
BEST = 100  # candidates of each, compared before suppression: fewer than any limit leaves, at whose end chance decides
AS_GOOD = 1e-6  # scores of the same float32 maths
TOLERANCE_SCORE, TOLERANCE_PX = 1e-4, 0.05  # float32 of two programs that add in other orders


class Differs(RuntimeError):
    """What was exported does not find what the model finds."""


@dataclass(frozen=True)
class Agreement:
    """So many boxes of the graph's and of the model's, and the largest differences between them."""

    count: int
    score: float
    px: float


@dataclass(frozen=True)
class Exported:
    """What was written and how it was checked."""

    path: Path
    inputs: str
    pictures: int  # that it was checked with
    found: Agreement
    before_suppression: Agreement | None  # of a graph that says what that is
    metadata: dict[str, str]

    @property
    def checked(self) -> bool:
        """Whether there was anything to compare."""
        return bool(self.found.count) or self.before_suppression is not None


def export(model: Model, path: Path, pictures: Sequence[Path] = ()) -> Exported:
    """Write `path`, whole or not at all. ValueError, NotSuitable without the packages, Differs where the check fails."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NotSuitable(
            f"export needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed: "
            "bash requirements/set_up.sh requirements/run.lock requirements/export.lock, or the extra `export`"
        )
    assert model.state is not None
    graph = model.benchmark.graph(model.configuration.tables, model.state)
    graph = replace(graph, metadata={"model": model.told, **graph.metadata})
    detector = model.open(Context(device="cpu"), precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        paths = detecting.once(pictures)
        for number, content in enumerate(model.benchmark.pictures(PICTURES) if not paths else []):
            paths.append(Path(folder) / f"{number}.jpg")
            paths[-1].write_bytes(content)
        samples = detectors.read(detector, paths, upright=True)
    content = _written(graph, samples[0])
    found, before = _checked(content, detector, samples), _before_suppression(content, graph, samples)
    with whole.replacing(path) as file:
        file.write(content)
    return Exported(path, _shape(samples[0]), len(samples), found, before, dict(graph.metadata))


def is_exported(begins: bytes) -> bool:
    """Whether a file that begins so is one that `export` wrote, or another of torch's exporter."""
    return BEGINS.match(begins) is not None


def lines(of: Exported) -> Iterator[str]:
    """What was compared, for a terminal."""
    pictures = f"{of.pictures} picture{'s' if of.pictures > 1 else ''}"
    if not of.checked:
        yield f"not checked: nothing is found in {pictures}; name others, in which there is something, with --check"
        return
    found, before = of.found, of.before_suppression
    yield f"checked with ONNX Runtime: {found.count} detections in {pictures}" + (_within(found) if found.count else "")
    if before is not None:
        yield f"before suppression: the best {before.count} boxes of them{_within(before)}"


def _within(of: Agreement) -> str:
    return f", scores within {of.score:.1g}, boxes within {of.px:.1g} px"


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


def _checked(content: bytes, detector: Detector, samples: Sequence[Sample]) -> Agreement:
    """Its detections with the detector's. Differs where they are too far apart.

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
    return Agreement(sum(map(len, expected)), worst_score, worst_px)


def _before_suppression(content: bytes, graph: Graph, samples: Sequence[Sample]) -> Agreement | None:
    """The best of each picture's candidates, whatever their scores: where nothing is found they say as much. Differs."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    if graph.candidates is None:
        return None
    proto = onnx.load_from_string(content)
    inputs = next(list(each.input[:2]) for each in proto.graph.node if each.op_type == "NonMaxSuppression")
    proto.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, inputs))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    count, score, px = 0, 0.0, 0.0
    for sample in samples:
        size = np.array([sample.width_px, sample.height_px] * 2, dtype=np.float32)
        with torch.no_grad():
            model = [each[0].numpy() for each in graph.candidates(torch.from_numpy(sample.pixels[None]))]
        exported = [each[0] for each in session.run(inputs, {INPUT: sample.pixels[None]})]
        for boxes, others in ((model, exported), (exported, model)):
            far = _from_nearest(boxes[0] * size, boxes[1], others[0] * size, others[1])
            score, px = max(score, far.score), max(px, far.px)
        count += far.count
    return Agreement(count, score, px) if count else None


def _from_nearest(boxes: Any, scores: Any, other_boxes: Any, other_scores: Any) -> Agreement:
    """How far the best candidates are from the nearest of the others' of their class; boxes (A, 4) px, scores (C, A).

    Not place by place: of candidates that are as good as each other, either program may have another order. Differs.
    """
    import numpy as np

    best = _best(scores)
    count, worst_score, worst_px = 0, 0.0, 0.0
    for k, at in zip(*np.unravel_index(best, scores.shape), strict=True):
        by_score = np.abs(other_scores[k] - scores[k, at])
        by_px = np.abs(other_boxes - boxes[at]).max(axis=1)
        nearest = int(np.argmin(np.maximum(by_score / TOLERANCE_SCORE, by_px / TOLERANCE_PX)))
        if not (by_score[nearest] <= TOLERANCE_SCORE and by_px[nearest] <= TOLERANCE_PX):  # NaN too
            if (by_score <= AS_GOOD).sum() >= BEST:  # of a network that tells none from another: any of them is kept
                continue
            raise Differs(
                "before suppression the exported graph's boxes are other ones than the model's: one of score "
                f"{scores[k, at]:.4f} differs by {by_score[nearest]:.2g} and {by_px[nearest]:.2g} px"
            )
        count += 1
        worst_score, worst_px = max(worst_score, float(by_score[nearest])), max(worst_px, float(by_px[nearest]))
    return Agreement(count, worst_score, worst_px)


def _best(scores: Any) -> Any:
    """Places of the BEST largest in the flattened `scores`, best first, of equal ones the first; NaN after all others.

    No more are sorted than are as good as the last of them: all 32 million of a RetinaNet took 8 s.
    """
    import numpy as np

    flat = -scores.ravel()
    if flat.size > BEST and not np.isnan(last := np.partition(flat, BEST - 1)[BEST - 1]):
        few = np.flatnonzero(flat <= last)
    else:
        few = np.arange(flat.size)
    return few[np.argsort(flat[few], kind="stable")][:BEST]


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
