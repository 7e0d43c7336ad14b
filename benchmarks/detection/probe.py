"""What `harness probe` measures of a detector: its training step on synthetic input, and its JPEG decoder by itself.

The step is the session's own, after the session's own warm-up; the decoder is the one that the configuration's data path has.
Where a run is slower and these are not, look at what lies between them: reading, augmentation, evaluation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from benchmarks.detection import capabilities, precision
from benchmarks.detection.data_path import nvjpeg
from benchmarks.detection.session import DetectorSession
from benchmarks.detection.tables import DetectorConfig
from harness.contract import Context, Figure, SecondsOf

PICTURES = 8  # different ones; a batch repeats them
WIDTH, HEIGHT = 640, 480  # COCO's most frequent size
QUALITY = 95  # gives 150 kB a picture; COCO's training files have 163 kB on average
SEED = 20_261_126


Opens = Callable[[Context], DetectorSession]  # a session of the configuration that is probed


def figures(opens: Opens, config: DetectorConfig, context: Context, seconds_of: SecondsOf) -> Iterator[Figure]:
    yield _step(opens, config, context, seconds_of)
    files = jpegs(config.optimizer.batch_size)
    what = f"{len(files)} of {sum(map(len, files)) / len(files) / 1000:.0f} kB"
    for name, threads, decode in _decoders(config, context, files):
        seconds = seconds_of(decode)
        told = f", {threads} threads" if threads is not None else ""
        yield Figure(f"decoding_by_{name}", "images/s", [len(files) / each for each in seconds], what + told)


def _step(opens: Opens, config: DetectorConfig, context: Context, seconds_of: SecondsOf) -> Figure:
    with tempfile.TemporaryDirectory() as folder:  # where a run has its data; nothing is read
        session = opens(replace(context, data_dir=Path(folder)))
        try:
            session.warm_up()
            session.stand_still()
            batch = session.synthetic_batch()
            seconds = seconds_of(lambda: session.train_step(*batch))
        finally:
            session.close()
    form = precision.named(session.precision, context.device)
    what = f"batch {config.optimizer.batch_size}, {config.model.image_px} px, {form}"
    return Figure("step", "ms", [1000 * each for each in seconds], what)


def jpegs(count: int) -> list[Tensor]:
    """Files (bytes,) uint8 of pictures with shapes of all sizes and some noise, as photographs have; the same each time."""
    rng = np.random.default_rng(SEED)
    made = []
    for _ in range(PICTURES):
        pixels = torch.zeros(3, HEIGHT, WIDTH)
        for side in (1, 4, 16, 64, 256):  # px across: the larger the structure, the stronger
            coarse = torch.from_numpy(rng.normal(size=(1, 3, HEIGHT // side + 2, WIDTH // side + 2)).astype(np.float32))
            fine = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")[0]
            pixels += fine * 10 * side**0.3
        made.append(encode_jpeg((128 + pixels).clamp(0, 255).byte(), QUALITY))
    return [made[number % PICTURES] for number in range(count)]


def _decoders(
    config: DetectorConfig, context: Context, files: Sequence[Tensor]
) -> Iterator[tuple[str, int | None, Callable[[], object]]]:
    """Who decodes, with how many threads of the CPU where it is one's, and what does it to all files once."""
    threads, on_cuda = config.data.threads, context.device.startswith("cuda")
    if capabilities.backend(config, context) == "torch":
        with ThreadPoolExecutor(threads) as pool:
            yield "cpu", threads, lambda: list(pool.map(lambda file: decode_jpeg(file, mode=ImageReadMode.RGB), files))
        if on_cuda and capabilities.runs_as_asked(context):
            # torchvision leaves it to nvJPEG which part of the GPU does it
            device = torch.device(context.device)
            yield "gpu", None, lambda: decode_jpeg(list(files), mode=ImageReadMode.RGB, device=device)
        return

    from benchmarks.detection.data_path import data_dali

    bytes_ = [file.numpy() for file in files]
    gpu = torch.device(context.device).index or 0
    parts: dict[str, tuple[int | None, float]] = {"cpu": (None, 0.0)}
    if on_cuda:
        parts["cuda"] = (gpu, 0.0)
        torch.cuda.set_device(gpu)
        if nvjpeg.engines():
            parts["engines"] = (gpu, 1.0)
    for name, (where, load) in parts.items():
        pipe = data_dali.decoder(bytes_, threads, where, load)
        yield name, threads if where is None else None, pipe.run
