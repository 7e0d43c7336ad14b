"""A trained detector put to use, on any device: the session's own network and post-processing, without data and training.

What it finds in a picture is what the run's own evaluation found in it: the same code decodes, resizes, normalises, predicts
and suppresses, as on the data path without DALI; DALI's decoder and filter differ from it by a level here and there.

Shapes: B images, S image side in px, N detections of all images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from benchmarks.detection import capabilities, compiling
from benchmarks.detection.data_path import jpeg_end, pictures
from benchmarks.detection.data_path.normalisation import imagenet, normalised, preprocessing
from benchmarks.detection.data_set import picture_files
from benchmarks.detection.precision import AUTOCAST_DTYPE
from benchmarks.detection.quality import panels
from benchmarks.detection.session import DetectorSession
from benchmarks.detection.tables import DetectorConfig
from harness.contract import Context, Detection, NotSuitable, Plain, Precision, Sample

NO_MEMORY = "can't allocate memory"  # of torch's allocator, which has no class of its own for it
Opens = Callable[[Any, Context], DetectorSession]
Rows = npt.NDArray[np.float32]  # (N, 7): image of the batch, left, top, right, bottom as fractions, score, label


class SessionDetector:
    """Implements harness.contract.Detector."""

    def __init__(
        self,
        opens: Opens,
        config: DetectorConfig,
        context: Context,
        state: Mapping[str, Any] | None,
        *,
        precision: str = "",
        compiled: bool = False,
    ) -> None:
        """See harness.contract.Detecting."""
        chosen = _format(precision, config, context, state)
        plain = as_anywhere(config, chosen)
        context = replace(context, data_dir=Path(), initial_weights=None)
        self.names = _categories(config, state)
        self.session = opens(plain, context)
        if state is not None:
            load(self.session, state)
        self.session.model.eval()
        self.compiled = compiled
        if compiled:
            _refuse_without_compiler(context.device)
            compiling.compiled(self.session.model, dynamic=False)
        self.category_ids = list(self.names)
        self.statistics = imagenet(self.session.device)
        self.side_px, self.antialias = config.model.image_px, config.antialias

    @property
    def categories(self) -> Mapping[int, str]:
        return self.names

    def properties(self) -> Mapping[str, Plain]:
        told = self.session.properties()
        return {
            "precision": told["precision"],
            "compiled": self.compiled,
            "memory_format": told["memory_format"],
            "parameters": told["parameters"],
            "side_px": self.side_px,
        }

    def read(self, file: Path, *, upright: bool) -> Sample:
        what = picture_files.fault(file)
        if what is not None:
            raise ValueError(what)
        pixels = _decoded(file, upright)
        if jpeg_end.breaks_off(file, pixels):
            raise ValueError("cut off: it ends before its last line, whatever its end marker says")
        height, width = pixels.shape[1:]
        return Sample(pictures.resized(pixels, self.side_px, self.antialias).numpy(), width, height)

    def place(self, samples: Sequence[Sample]) -> Tensor:
        return torch.from_numpy(np.stack([each.pixels for each in samples])).to(self.session.device, non_blocking=True)

    @torch.no_grad()
    def detect(self, batch: Tensor) -> Rows:
        """(B, 3, S, S) uint8."""
        session = self.session
        found = session.detections(session.network_input(normalised(batch, *self.statistics)))
        columns = (found.images[:, None], found.ltrb, found.scores[:, None], found.labels[:, None])
        rows: Rows = (
            torch.cat([each.float() for each in columns], dim=1).cpu().numpy()
        )  # one copy, which waits for the device
        return rows

    def detections(self, found: Rows, samples: Sequence[Sample]) -> list[list[Detection]]:
        by_picture: list[list[Detection]] = [[] for _ in samples]
        for row in found.astype(np.float64).tolist():
            image, left, top, right, bottom, score, label = row
            sample, number = samples[int(image)], self.category_ids[int(label) - 1]
            width, height = sample.width_px, sample.height_px
            box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
            by_picture[int(image)].append(Detection(number, self.names[number], box, score))
        return by_picture

    def draw(self, file: Path, found: Sequence[Detection], *, upright: bool) -> npt.NDArray[np.uint8]:
        picture = Image.fromarray(np.ascontiguousarray(_decoded(file, upright).permute(1, 2, 0).numpy()))
        zoom = max(picture.size) / panels.PANEL_PX  # lines and letters as in a panel
        for each in reversed(found):
            panels.mark(picture, each.xywh_px, f"{each.category} {each.score:.2f}", each.category_id, zoom)
        return np.asarray(picture)


def as_anywhere(config: DetectorConfig, form: Precision) -> Any:
    """The configuration without what only some devices, or training alone, can do: the same network, by PyTorch's own means."""
    compute = type(config.compute)(precision=form, channels_last=config.compute.channels_last)
    data = config.data.model_copy(
        update={"backend": "torch", "image_format": "fp32_chw", "decode": "region", "hw_decoder_load": 0.65}
    )
    model = config.model.model_copy(update={"initial_weights": "scratch"})
    return config.model_copy(update={"compute": compute, "data": data, "model": model})


def load(session: DetectorSession, state: Mapping[str, Any]) -> None:
    """The weights. ValueError where they are another network's, or no numbers: with them nothing is found, in any picture."""
    try:
        session.model.load_state_dict(state["model"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        said = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise ValueError(f"the checkpoint's weights are not of its configuration's network: {said[:300]}") from error
    if wrong := [name for name, each in session.model.state_dict().items() if not torch.isfinite(each).all()]:
        raise ValueError(
            f"the checkpoint's weights are no finite numbers ({len(wrong)} tensors, the first is {wrong[0]}): training had "
            "broken down before it was kept"
        )


def _format(form: str, config: DetectorConfig, context: Context, state: Mapping[str, Any] | None) -> Precision:
    asked = form or (state or {}).get("precision") or config.compute.precision
    if asked == "auto":
        asked = "fp32"
    chosen = next((each for each in AUTOCAST_DTYPE if each == asked), None)
    if chosen is None:
        raise ValueError(f"the number format {asked!r} is not known; known are: {', '.join(AUTOCAST_DTYPE)}")
    on, _, _ = context.device.partition(":")
    if on == "cuda" and chosen == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        if not form:
            return "fp32"
        raise NotSuitable(f"{context.device} computes no bf16; fp16 is what it has next to fp32")
    dtype = AUTOCAST_DTYPE[chosen]
    if dtype is not None and not capabilities.autocasts(on, dtype):
        raise NotSuitable(f"this PyTorch does not cast automatically to {chosen} on {on}")
    return chosen


def _categories(config: DetectorConfig, state: Mapping[str, Any] | None) -> dict[int, str]:
    """Names by the data set's ids, in the order of the network's labels. ValueError where they are another model's."""
    if state is None:
        return {number: f"category {number}" for number in range(1, config.model.categories + 1)}
    found, made = state.get("categories"), state.get("preprocessing")
    if not isinstance(found, list) or not isinstance(made, dict):
        raise ValueError("the checkpoint says neither its categories nor its preprocessing; it is of another version")
    try:
        names = {int(each["id"]): str(each["name"]) for each in found}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("the checkpoint's categories are no list of ids and names") from error
    if len(names) != config.model.categories:
        raise ValueError(
            f"the checkpoint names {len(names)} categories, its configuration says model.categories = {config.model.categories}"
        )
    ours = preprocessing(config.model.image_px, config.antialias)
    if different := [key for key in (*ours, *made) if ours.get(key) != made.get(key)]:
        key = different[0]
        raise ValueError(
            f"the checkpoint was trained on pictures made otherwise: {key} {made.get(key)}, here {ours.get(key)}"
        )
    return names


def _decoded(file: Path, upright: bool) -> Tensor:
    try:
        return pictures.decode(file, upright=upright)
    except RuntimeError as error:
        if NO_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        raise ValueError(str(error).removeprefix(f"{file}: ").strip().splitlines()[0]) from error


def _refuse_without_compiler(device: str) -> None:
    """What torch.compile needs on a processor, which not every machine has. NotSuitable."""
    if device != "cpu":
        return
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise NotSuitable("torch.compile needs a C++ compiler on a processor, and finds none; g++ is one") from error
