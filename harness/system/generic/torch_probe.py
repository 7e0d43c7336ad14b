"""Asks torch for the accelerators that it sees and prints one line of JSON. Run as a script, by vendor.py.

In a process of its own because importing torch takes seconds, which a verb that trains nothing must not, and a vendor's
extension that breaks on being loaded must not take its caller along.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any


def probe() -> dict[str, Any]:
    """Keys: error, device (torch's word), names, details (a table for each device), process_group."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - whatever a vendor's extension raises when it is loaded is the answer
        return {"error": f"import torch: {type(error).__name__}: {error}"}
    kind = torch.accelerator.current_accelerator()
    if kind is None or not torch.accelerator.is_available():
        return {"error": None, "device": None if kind is None else kind.type, "names": [], "details": []}
    module = torch.get_device_module(kind)
    count = int(module.device_count())
    return {
        "error": None,
        "device": kind.type,
        "names": [_name(module, index, kind.type) for index in range(count)],
        "details": [_details(module, index) for index in range(count)],
        "process_group": _process_group(kind.type),
    }


def _name(module: Any, index: int, kind: str) -> str:
    try:
        return str(module.get_device_name(index))
    except Exception:  # noqa: BLE001 - not every extension has it, and each fails in its own way
        return kind


def _details(module: Any, index: int) -> dict[str, Any]:
    """What the vendor's device properties say, as far as it is a number or a word."""
    try:
        found = module.get_device_properties(index)
        values = {name: getattr(found, name, None) for name in dir(found) if not name.startswith("_")}
    except Exception:  # noqa: BLE001
        return {}
    plain = {name: value for name, value in values.items() if isinstance(value, bool | int | str) or _finite(value)}
    if values.get("uuid") is not None:  # an object of its own
        plain["uuid"] = str(values["uuid"])
    if isinstance(memory := plain.get("total_memory"), int):
        plain["memory_mib"] = memory >> 20
    return plain


def _finite(value: Any) -> bool:
    """No log takes another float, and a run would end for it."""
    return isinstance(value, float) and math.isfinite(value)


def _process_group(kind: str) -> str | None:
    import torch.distributed as dist

    try:
        return str(dist.get_default_backend_for_device(kind)) if dist.is_available() else None
    except ValueError:
        return None


if __name__ == "__main__":
    answer = json.dumps(probe())
    sys.stdout.write(f"\n{answer}\n")  # a line of its own, after whatever an extension has printed
