"""What DALI's reader found in an annotation file, compared with what the strict reader found in it.

The reader stops at a value that it does not expect and says nothing; half of the boxes, all of them background, train to the
end. It can be told to save what it has read: `counts.dat` and `labels.dat`, int32, the first number how many follow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.detection.data_set.checked import Counts


def compare(saved: Path, expected: Counts, annotations: Path, *, with_empty: bool) -> None:
    """RuntimeError unless images, boxes and labels are as many as `expected`. `with_empty`: images without boxes count, too."""
    counts, labels = _column(saved / "counts.dat"), _column(saved / "labels.dat")
    found = {
        "images": len(counts),
        "boxes": int(counts.sum()),
        "labels": np.bincount(labels, minlength=len(expected.labels) + 1).tolist(),
    }
    wanted = {
        "images": expected.images if with_empty else expected.images_with_boxes,
        "boxes": expected.boxes,
        "labels": [0, *expected.labels],
    }
    for what, value in found.items():
        if value != wanted[what]:
            raise RuntimeError(
                f"DALI's reader found {value} {what} in {annotations}, which holds {wanted[what]}: it read a part of the file"
            )


def _column(path: Path) -> npt.NDArray[np.int32]:
    found = np.fromfile(path, dtype=np.int32)
    if len(found) == 0 or found[0] != len(found) - 1:
        raise RuntimeError(
            f"DALI's reader saved {path.name} in a form that is not known here: another version of DALI?"
        )
    return found[1:]
