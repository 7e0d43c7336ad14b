"""JPEG files that were cut off and closed by a tool, of every form; and whole ones that look like it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.detection.data_path import jpeg_end, pictures
from benchmarks.detection.data_set import picture_files

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "usual": ("RGB", {}),
    "all colours": ("RGB", {"subsampling": 0}),
    "grey": ("L", {}),
    "restarted": ("RGB", {"restart_marker_blocks": 5}),
    "progressive": ("RGB", {"progressive": True}),
    "cmyk": ("CMYK", {}),
}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Grey; Pillow's own is another each time."""
    levels = np.random.default_rng(seed).normal(128, 60, (height, width))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def file(form: str, picture: Image.Image) -> bytes:
    mode, how = FORMS[form]
    content = io.BytesIO()
    picture.convert(mode).save(content, "JPEG", quality=90, **how)
    return content.getvalue()


def breaks_off(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    assert picture_files.fault(path) is None, "what is cheap to see is seen there"
    return jpeg_end.breaks_off(path, pictures.decode(path, upright=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_closed_too_early_is_found_and_a_whole_one_is_not(form: str, tmp_path: Path) -> None:
    whole = file(form, noise(130, 90))
    begin = whole.rindex(b"\xff\xda") if form != "progressive" else len(whole) // 3
    assert not breaks_off(tmp_path / "x.jpg", whole)
    for part in (0.1, 0.3, 0.5, 0.7, 0.9):
        cut = whole[: begin + 20 + int((len(whole) - begin - 20) * part)]
        try:
            found = breaks_off(tmp_path / "x.jpg", cut + jpeg_end.END)
        except RuntimeError as error:  # a progressive one that was cut within a marker: no decoder takes it
            found = "x.jpg" in str(error)
        assert found, part


@pytest.mark.parametrize("form", FORMS)
def test_a_grey_border_is_a_border(form: str, tmp_path: Path) -> None:
    """As pictures have that were brought to one size, in the very grey of what is missing."""
    pixels = np.asarray(noise(160, 160)).copy()
    pixels[96:] = jpeg_end.MISSING
    whole = file(form, Image.fromarray(pixels))
    for behind in (b"", bytes(400), b"\xff\xd9", b"of a telephone"):
        assert not breaks_off(tmp_path / "x.jpg", whole + behind)


def test_a_turned_one_is_found_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    noise(130, 90).convert("RGB").save(content, "JPEG", quality=90, exif=exif)
    half = content.getvalue()[: len(content.getvalue()) // 2]
    assert breaks_off(tmp_path / "x.jpg", half + jpeg_end.END)


def test_no_photograph_is_taken_for_one(test_data: Path) -> None:
    for path in sorted(test_data.glob("coco256/**/*.jpg")):
        assert not jpeg_end.breaks_off(path, pictures.decode(path)), path
