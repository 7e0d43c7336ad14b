"""Which forms of picture files both data paths decode, to the same pixels: JPEG, PNG and WebP of any colours, and plain BMP,
TIFF, JPEG 2000 and PNM; of the latter the data path without DALI, and `detect`, take rare forms too.

Pixels are meant as they are stored, whatever a tag says of turning them (EXIF): boxes are of those.
"""

from __future__ import annotations

import copy
import re
from typing import IO, Any, Literal

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin

# As a GPU's decoders tell them apart: its JPEG engines take the first alone, see `for_decoders`
Form = Literal["baseline", "jpeg", "other"]
ANY_COLOURS = {"JPEG", "MPO", "PNG", "WEBP"}
MOVING = {
    "PNG",
    "WEBP",
}  # may be animated; in an MPO file a camera keeps the photograph and its other sizes or other eye's
# Of these the data path without DALI takes 8-bit grey and RGB, by Pillow
PLAIN_COLOURS = {"BMP", "TIFF", "JPEG2000", "PPM"}
FORMS = ANY_COLOURS | PLAIN_COLOURS
# How such pixels may lie in a file, as Pillow calls it, and be packed in a TIFF file: of each of these DALI's decoders were
# seen to make the same. Of others (5 bits a colour, 16, a byte before the colours, levels up to 100) they make others, or none
LAYOUTS = {"L", "L;I", "L;R", "R", "RGB", "RGBX", "RGBXX", "BGR", "BGRX"}
PACKED = {"raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg", "zstd"}
SAMPLE_FORMAT, UNSIGNED = 339, 1  # a tag of TIFF's, and what it says where it is left out
WIDTH, NEW_SUBFILE_TYPE = 256, 254  # likewise: which every page has; and bits that say what a page is of another
SMALLER, MASK = 1, 4
OLD_SUBFILE_TYPE, OLD_SMALLER = 255, 2
JP2_HEAD_BYTES = 512
# 8 bits of each colour, in a JP2 file and in a bare codestream
JP2_BITS = re.compile(rb"ihdr.{10}\x07|\xff\x4f\xff\x51.{38}\x07", re.DOTALL)
JP2_OTHER_COLOURS = re.compile(rb"colr\x01..(?!\x00\x00\x00[\x10\x11])", re.DOTALL)  # than sRGB and grey
ONE_EACH = "save those of its pictures that are meant in a file each"
# Pillow turns a TIFF file as its tag says when it loads it, and no other kind of file. What turns it back:
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def unusual(picture: Image.Image) -> str | None:
    """What an open picture is that no data path takes; None for nothing."""
    form = picture.format or "?"
    if form in ANY_COLOURS:
        return f"an animated {form}; {ONE_EACH}" if form in MOVING and getattr(picture, "n_frames", 1) > 1 else None
    what = _called(form)
    if form not in PLAIN_COLOURS:
        return f"{what}; convert it to JPEG or PNG"
    if form == "TIFF" and (several := _several_pages(picture)):
        return several
    if picture.mode not in {"L", "RGB"}:
        return f"{what} of colours {picture.mode}; convert it to JPEG or PNG"
    return None


def _several_pages(picture: Any) -> str | None:
    """What is wrong with an open TIFF file that has more pages than one, not counting thumbnails and masks of another.

    By their directories alone, of which Pillow has read the first: it may not know a thumbnail's form.
    """
    directory, seen, pages = copy.copy(picture.tag_v2), {picture.tag_v2.offset}, 1
    while (place := directory.next) and place not in seen:
        seen.add(place)
        try:
            picture.fp.seek(place)
            directory.load(picture.fp)
        except (OSError, ValueError, OverflowError):
            directory.reset()
        if WIDTH not in directory:
            return f"cut off or damaged (it says that more follows its page {pages}, and none does)"
        kind = directory.get(NEW_SUBFILE_TYPE, 0)
        of_another = isinstance(kind, int) and kind & (SMALLER | MASK)
        pages += not of_another and directory.get(OLD_SUBFILE_TYPE) != OLD_SMALLER
    return f"a TIFF file of {pages} pages; {ONE_EACH}" if pages > 1 else None


def for_decoders(picture: Image.Image) -> Form:
    """What an open picture that is not loaded is to a GPU.

    Its engines decode baseline JPEG files of grey, or of three colours of which the second and third have as many pixels as the
    first, half as many or a quarter: not progressive ones, nor those of four colours.
    """
    if picture.format not in {"JPEG", "MPO"}:
        return "other"
    if picture.info.get("progressive"):
        return "jpeg"
    return "baseline" if picture.mode == "L" or JpegImagePlugin.get_sampling(picture) >= 0 else "jpeg"


def not_for_dali(picture: Image.Image, file: IO[bytes]) -> str | None:
    """What an open picture, of `file`, is that DALI does not take, or to other pixels, and the other data path does."""
    if picture.format in ANY_COLOURS or not (rare := _rare(picture, file)):
        return None
    return f"{_called(str(picture.format))} of a rare form ({rare})"


def _called(form: str) -> str:
    return f"{'an' if form[0] in 'AEIOU' else 'a'} {form} file"


def _rare(picture: Any, file: IO[bytes]) -> str:
    """What in the form of a plain file of grey or RGB is rare; "" for nothing."""
    if picture.format == "JPEG2000":
        file.seek(0)
        head = file.read(JP2_HEAD_BYTES)
        return "other colours" * bool(JP2_OTHER_COLOURS.search(head)) or "not 8 bits" * (JP2_BITS.search(head) is None)
    codec, _, _, arguments = picture.tile[0]
    if codec.startswith("ppm"):  # Pillow's for what is no plain binary
        return "text, or levels other than 0 to 255"
    layout = str(arguments if isinstance(arguments, str) else arguments[0])
    if layout not in LAYOUTS:
        return layout
    if picture.format != "TIFF":
        return ""
    if (packed := str(picture.info.get("compression"))) not in PACKED:
        return packed
    signs = picture.getexif().get(SAMPLE_FORMAT, UNSIGNED)  # of all colours, or of each
    return "" if {*(signs if isinstance(signs, tuple) else (signs,))} == {UNSIGNED} else "levels with a sign"


def as_stored(picture: Image.Image) -> Image.Image:
    """An open picture with its pixels as they are stored, of any colours; of grey in 16 bits 8, which the network sees."""
    turn = _turned_by_pillow(picture)  # which forgets it as it loads
    picture.load()
    if picture.mode.startswith("I"):  # Pillow would make white of all that is above 255
        picture = Image.fromarray(((np.asarray(picture).astype(np.int32) + 128) // 257).astype(np.uint8))
    return picture.transpose(BACK[turn]) if turn in BACK else picture


def stored_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height in px of a picture that is open and not loaded, as its pixels are stored."""
    width, height = picture.size
    return (height, width) if _turned_by_pillow(picture) >= 5 else (width, height)


def _turned_by_pillow(picture: Image.Image) -> int:
    """By which value of the tag Orientation; 1 for not at all."""
    turn = picture.getexif().get(ExifTags.Base.Orientation) if picture.format == "TIFF" else 1
    return turn if turn in BACK else 1
