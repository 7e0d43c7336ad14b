"""Files of several pictures: frames and pages are not dropped in silence, and what only looks like them is taken."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from benchmarks.detection.data_path.pictures import Picture, decoded
from benchmarks.detection.data_set.picture_files import Listed, check, fault


def photograph(turned: int = 0) -> Image.Image:
    """48 x 48, of a gradient."""
    levels = np.linspace(0, 250, 48 * 48 * 3).reshape(48, 48, 3)
    return Image.fromarray(np.rot90(levels, turned).astype(np.uint8))


def of(form: str, count: int, **how: Any) -> bytes:
    """A file of as many pictures, of which no two are the same."""
    file, more = io.BytesIO(), [photograph(each) for each in range(1, count)]
    photograph().save(file, form, save_all=True, append_images=more, **how)
    return file.getvalue()


SEVERAL: dict[str, tuple[bytes, str]] = {
    "png": (of("PNG", 3), "an animated PNG; save "),
    "png with a picture besides": (of("PNG", 2, default_image=True), "an animated PNG; save "),
    "webp": (of("WEBP", 2), "an animated WEBP; save "),
    "gif": (of("GIF", 2), "a GIF file; convert it"),
    "tiff": (of("TIFF", 3), "a TIFF file of 3 pages; save "),
    "big tiff": (of("TIFF", 2, big_tiff=True), "a TIFF file of 2 pages; save "),
    "packed tiff": (of("TIFF", 2, compression="tiff_lzw"), "a TIFF file of 2 pages; save "),
}


def looked_at(path: Path) -> list[str]:
    """As a data set's picture."""
    return check(path.parent, [Listed(path.name, 48, 48)], path.parent / "x.json", lambda *_: None).not_for_dali


@pytest.mark.parametrize("name", SEVERAL)
def test_none_of_several_is_dropped_in_silence(name: str, tmp_path: Path) -> None:
    """Of an animated PNG and of a TIFF file's pages the first was taken, and of an animated WebP none."""
    content, says = SEVERAL[name]
    (tmp_path / "x").write_bytes(content)
    assert (fault(tmp_path / "x") or "").startswith(says)
    with pytest.raises(ValueError, match=f"x: {says}"):
        looked_at(tmp_path / "x")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "MPO"])
def test_one_is_one_in_a_form_for_several(form: str, tmp_path: Path) -> None:
    """Of MPO, a camera's, the first is the photograph."""
    (tmp_path / "x").write_bytes(of(form, 2 if form == "MPO" else 1))
    assert looked_at(tmp_path / "x") == []


@pytest.mark.parametrize(
    "of_another",
    [{254: 1}, {254: 4}, {254: 5}, {255: 2}],
    ids=["thumbnail", "mask", "mask of a thumbnail", "thumbnail by the older tag"],
)
@pytest.mark.parametrize("turn", [1, 6])
def test_thumbnails_and_masks_are_no_pages(of_another: dict[int, int], turn: int, tmp_path: Path) -> None:
    """As cameras and programs for maps leave them."""
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file) as several:
        photograph().save(several, "TIFF", tiffinfo={274: turn})
        several.newFrame()
        for _ in range(2):
            photograph().convert("L").resize((12, 12)).save(several, "TIFF", tiffinfo=of_another)
            several.newFrame()
    (tmp_path / "x.tif").write_bytes(file.getvalue())
    with Image.open(tmp_path / "x.tif") as picture:
        assert picture.n_frames == 3  # type: ignore[attr-defined]
    assert looked_at(tmp_path / "x.tif") == []
    seen = decoded(Picture(1, tmp_path / "x.tif", np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.int64)))
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), photograph())


@pytest.mark.parametrize("to", ["itself", "what is beyond its end", "its last bytes"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_pages_that_lead_nowhere_come_to_an_end(to: str, tmp_path: Path) -> None:
    content = bytearray(of("TIFF", 1))
    (begins,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, begins)
    place = {"itself": begins, "what is beyond its end": len(content) + 8, "its last bytes": len(content) - 2}[to]
    struct.pack_into("<I", content, begins + 2 + 12 * tags, place)
    (tmp_path / "x.tif").write_bytes(content)
    found = fault(tmp_path / "x.tif")
    assert found is None if to == "itself" else (found or "").startswith("cut off or damaged (it says that more")
