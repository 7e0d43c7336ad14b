"""Small COCO folders for tests: pictures with a pattern, never a constant, that tell which image they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[float, float, float, float, int]  # x, y, w, h in px, category id


@dataclass(frozen=True)
class Picture:
    """One image of `red` level; green rises to the right and blue downwards, so that a flip or a shift is seen."""

    red: int
    boxes: Sequence[Box]
    width: int = 64
    height: int = 48
    grey: bool = False
    id: int | None = None  # the position in the list, from 1, unless given

    def pixels(self) -> npt.NDArray[np.uint8]:
        image = np.empty((self.height, self.width, 3), dtype=np.uint8)
        image[..., 0] = self.red
        image[..., 1] = np.linspace(0, 255, self.width)[None, :]
        image[..., 2] = np.linspace(0, 255, self.height)[:, None]
        return image


@dataclass(frozen=True)
class Folder:
    """Where `write` put the files."""

    path: Path
    images: Path
    annotations: Path
    ids: list[int] = field(default_factory=list)


def write(path: Path, pictures: Sequence[Picture], categories: Sequence[int] = (1,), half: str = "train2017") -> Folder:
    """Write one half of a COCO folder; category ids are listed in the order given."""
    images = path / half
    images.mkdir(parents=True)
    annotations = path / "annotations" / f"instances_{half}.json"
    annotations.parent.mkdir(exist_ok=True)
    listed, boxes, ids = [], [], []
    for position, picture in enumerate(pictures, start=1):
        image_id = position if picture.id is None else picture.id
        name = f"{image_id:012d}.jpg"
        pixels = Image.fromarray(picture.pixels())
        (pixels.convert("L") if picture.grey else pixels).save(images / name, quality=98, subsampling=0)
        listed.append({"id": image_id, "file_name": name, "width": picture.width, "height": picture.height})
        ids.append(image_id)
        for *box, category in picture.boxes:
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    names = [{"id": c, "name": f"class {c}"} for c in categories]
    annotations.write_text(json.dumps({"images": listed, "annotations": boxes, "categories": names}))
    return Folder(path, images, annotations, ids)
