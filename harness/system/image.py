"""Which image this runs in, if it is ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness import ROOT
from harness.contract import Plain

RECORD = ROOT / "image.json"  # written by docker/image_record.py when the image is built
ID_VARIABLE = "HARNESS_IMAGE_ID"  # an image cannot know its own id: whoever starts the container says it


def identity(environment: Mapping[str, str], record: Path = RECORD) -> dict[str, Plain]:
    """The image's id ("unknown" where the container was started without it), commit, hashes; {} outside our image."""
    try:
        found: dict[str, Plain] = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {"id": environment.get(ID_VARIABLE) or "unknown", **found}
