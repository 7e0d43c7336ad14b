"""The folder as large as OpenImages, half a thousandth of it: what is made is a data set that every stage takes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.retinanet.openimages import OPENIMAGES_MLPERF
from measuring import openimages


def test_every_stage_takes_what_is_made(tmp_path: Path) -> None:
    openimages.make(tmp_path, 0.0005)
    assert openimages.convert(tmp_path).startswith(f"{int(OPENIMAGES_MLPERF.splits[0].images * 0.0005):,} images, ")
    assert openimages.read(tmp_path).endswith(" boxes")
    openimages.check(tmp_path)
    assert openimages.torch_reader(tmp_path).startswith("585 images, ")
    assert len(openimages.fingerprint(tmp_path)) == 64
    found = openimages.measured(openimages.libraries, tmp_path)
    assert found["stage"] == "libraries" and found["peak_mb"] > 10
