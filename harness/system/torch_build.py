"""For which accelerators the installed PyTorch was built, by its version file: importing it would take seconds."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TorchBuild:
    """`cuda`, `hip` and `xpu` are versions; None where PyTorch was built without."""

    version: str | None = None  # None: no PyTorch is installed
    cuda: str | None = None
    hip: str | None = None
    xpu: str | None = None
    plugins: tuple[str, ...] = ()  # packages that bring torch a device of their own

    @property
    def text(self) -> str:
        """For people: what it was built for."""
        if self.version is None:
            return "no PyTorch is installed"
        kinds = {"CUDA": self.cuda if not self.hip else None, "ROCm": self.hip, "XPU": self.xpu}
        built = ", ".join(f"{name} {value}" for name, value in kinds.items() if value) or "the CPU alone"
        return f"PyTorch {self.version}, built for {built}" + "".join(f", with {each}" for each in self.plugins)


def read() -> TorchBuild:
    """Of the PyTorch that `import torch` would bring."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchBuild()
    found = parse(Path(spec.origin).with_name("version.py").read_text(encoding="utf-8"))
    points = importlib.metadata.entry_points(group="torch.backends")
    return TorchBuild(**found, plugins=tuple(sorted({point.value.partition(":")[0] for point in points})))


def parse(text: str) -> dict[str, str | None]:
    """The constants of torch/version.py that say what it was built for."""
    found: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                found[target.id] = value.value
    return {"version": found.get("__version__")} | {key: found.get(key) for key in ("cuda", "hip", "xpu")}


def uuid(spelt: str, hip: str | None) -> str | None:
    """A device's UUID as its maker's driver has it, from what torch's get_device_properties has; None for one of zeros.

    HIP's sixteen bytes are the letters of the sixteen digits that amdgpu's unique_id has: 38653561-3162-3263-3364-346535663630
    is 8e5a1b2c3d4e5f60. Of a card without such a number they say XX, which is no name.
    """
    digits = spelt.replace("-", "")
    if not digits.strip("0"):
        return None
    if not hip:
        return spelt
    try:
        letters = bytes.fromhex(digits).decode("ascii")
    except ValueError:
        return None
    return letters.lower() if re.fullmatch("[0-9a-fA-F]{16}", letters) else None
