"""Whether a JPEG file that has its end marker breaks off before it, as half of a file does that a tool has closed.

libjpeg fills what is missing with grey and tells nobody but the terminal, without a name. The check before a run does not see
it either: it would have to decode every picture. A progressive file that was cut between two of its scans is a whole one, of
less detail.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

END = b"\xff\xd9"
MISSING = 128  # the level of what is not there
CHANCE = bytes((37 * at) % 251 for at in range(1, 500))  # no byte of them begins a marker
# pixels of chance, and between them the eight marks at which a picture that has such begins anew
MORE = b"".join(CHANCE + bytes([0xFF, 0xD0 + number]) for number in range(8)) + CHANCE


def breaks_off(file: Path, pixels: Tensor) -> bool:
    """`pixels` (3, H, W) are the file's, turned or not. It is decoded again only where a corner is grey, or none would tell."""
    with Image.open(file) as picture:
        if picture.format != "JPEG":
            return False
        tells = not picture.info.get("progressive") and picture.mode in {"L", "RGB"}
    if tells and not (pixels[:, :: _last(pixels, 1), :: _last(pixels, 2)] == MISSING).all(dim=0).any():
        return False
    content = file.read_bytes()
    before, end, after = content.rpartition(END)
    try:
        return not np.array_equal(_decoded(content), _decoded(before + MORE + end + after))
    except OSError:  # Pillow's: chance is read on where something is missing alone, and may be too much for it
        return True


def _last(pixels: Tensor, dim: int) -> int:
    """The step from the first to the last."""
    return max(1, pixels.shape[dim] - 1)


def _decoded(content: bytes) -> npt.NDArray[np.uint8]:
    """A decoder that has all of a picture passes over what follows; one that misses something takes it for that."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)
