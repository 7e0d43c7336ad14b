"""Which files this process has really loaded of a driver and its libraries.

What a container or a path variable has put in their place shows here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.contract import Plain

MAPS = Path("/proc/self/maps")


def libraries(beginnings: Sequence[str], maps: str | None = None) -> dict[str, Plain]:
    """The paths behind file names that begin so ("libcuda.so"), as the kernel resolved them; a list where there are several.

    Of a file that is gone, as after a driver update under a running system, it says " (deleted)" behind.
    """
    text = MAPS.read_text(encoding="utf-8", errors="replace") if maps is None else maps
    paths = sorted({match[1] for match in re.finditer(r"^(?:\S+ +){5}(/.*\.so.*)$", text, re.MULTILINE)})
    found: dict[str, Plain] = {}
    for beginning in beginnings:
        mine: list[Plain] = [path for path in paths if Path(path).name.startswith(beginning)]
        if mine:
            found[beginning.removesuffix(".so")] = mine if len(mine) > 1 else mine[0]
    return found
