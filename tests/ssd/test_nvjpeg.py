"""Which nvJPEG decodes: the package's before an older one, and whole pictures where it draws regions' edges wrong."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.detection import capabilities
from benchmarks.detection.data_path import nvjpeg
from harness import config, config_files
from harness.contract import Context
from tests.conftest import CHECKOUT
from tests.ssd import small

# As torchvision brings its own: in a file of another name than the one within it. Torchvision itself takes seconds
OWN = """
import ctypes, runpy, sys, types
from benchmarks.detection.data_path import nvjpeg
own = lambda: ctypes.CDLL(sys.argv[1])
"""
MEASURED = """
class Command(types.ModuleType):
    @property
    def main(self):
        own()
        return lambda: 0
sys.modules["measuring.ssd.command"] = Command("")
try:
    runpy.run_module("measuring.ssd", run_name="__main__")
except SystemExit:
    pass
"""
TESTED = "import tests; own()"
TOO_LATE = "own(); nvjpeg.prefer_installed()"
TOLD = """
assert nvjpeg.first() == nvjpeg.version("libnvjpeg.so.13")
print(nvjpeg.first(), *nvjpeg.loaded().values())
"""


@pytest.mark.parametrize(
    ("before", "which"), [(MEASURED, 1), (TESTED, 1), (TOO_LATE, 0)], ids=["measured", "tested", "too late"]
)
def test_who_decodes_is_the_package_s_and_else_it_is_told(before: str, which: int) -> None:
    """What is measured and tested was decoded by torchvision's, which regions are not right with, and said to be by none."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.submodule_search_locations is not None
    site = Path(spec.submodule_search_locations[0]).parent
    paths = [*site.glob("torchvision.libs/libnvjpeg.*.so.13"), *nvjpeg.installed()]
    if len(paths) != 2:
        pytest.skip("here lie no two of them")
    code = OWN + before + TOLD
    done = subprocess.run(
        [sys.executable, "-c", code, str(paths[0])], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own, the_package_s = versions = [nvjpeg.version(str(path)) for path in paths]
    assert done.stdout.startswith(f"{versions[which]} ")
    assert all(".".join(map(str, each)) in done.stdout for each in versions), "the log names both"
    assert own < nvjpeg.RIGHT_EDGES <= the_package_s, "the lock file pins one that draws regions' edges right"


BESIDE = """
import ctypes, sys
from benchmarks.detection.data_path import nvjpeg
ctypes.CDLL(sys.argv[1])
(shown,) = nvjpeg.loaded()
print(ascii(shown), nvjpeg.first() == nvjpeg.version(sys.argv[1]))
"""


@pytest.mark.parametrize("folder", [b"my projects", b"caf\xe9"])
def test_a_library_in_any_folder_is_found(tmp_path: Path, folder: bytes) -> None:
    """Of a path with a space the part behind it was opened, and every run ended."""
    if not nvjpeg.installed():
        pytest.skip("no package brings an nvJPEG here")
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder))
    place.mkdir()
    copy = shutil.copy(nvjpeg.installed()[0], place)
    done = subprocess.run(
        [sys.executable, "-c", BESIDE, copy], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*ascii(os.fsencode(copy).decode(errors="replace")).split(), "True"]


def test_a_library_that_was_replaced_meanwhile_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "maps"
    maps.write_text(f"7f0c1c000000-7f0c1c021000 r-xp 00000000 00:00 17 {tmp_path}/libnvjpeg.so.13 (deleted)\n")
    monkeypatch.setattr(nvjpeg, "_MAPS", maps)
    assert nvjpeg.loaded() == {}


@pytest.mark.parametrize(
    ("version", "device", "decode", "settled"),
    [
        ((13, 0, 1), "cuda:0", "region", "whole"),
        ((13, 2, 0), "cuda:0", "region", "region"),
        (None, "cuda:0", "region", "region"),
        ((13, 0, 1), "cuda:0", "whole", "whole"),
        ((13, 0, 1), "cpu", "region", "region"),
    ],
)
def test_an_older_one_decodes_whole_pictures_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int] | None, device: str, decode: str, settled: str
) -> None:
    monkeypatch.setattr(nvjpeg, "first", lambda: version)
    tables: Any = config.parse(small.content(data={"decode": decode}), name="small", source="small").tables
    found = capabilities.settle(tables, Context(device=device))
    assert found.config.data.decode == settled
    said = found.left_out.get("decode", "")
    assert ("nvJPEG 13.0.1 is loaded" in said) == (settled != decode)


def test_nothing_is_left_out_of_a_run_that_decodes_whole_pictures_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "first", lambda: (12, 3, 3))
    tables: Any = config.load(config_files.find("DGXH100_1x8x32")).tables
    assert capabilities.settle(tables, Context(device="cuda:0")).left_out == {}


@pytest.mark.parametrize(
    ("backend", "device", "engines", "shares"),
    [
        ("dali", "cuda:0", 7, {"jpeg_engines": 0.39, "cuda": 0.41, "other": 0.2}),
        (
            "dali",
            "cuda:0",
            0,
            {"jpeg_engines": 0.0, "cuda": 0.8, "other": 0.2},
        ),  # no GPU before Hopper but the A100 has any
        ("torch", "cuda:0", 7, {"nvjpeg": 0.8, "cpu": 0.2}),
        ("dali", "cpu", 0, {"cpu": 1.0}),
        ("torch", "xpu:0", 0, {"cpu": 1.0}),
    ],
)
def test_who_decodes_which_share_goes_by_what_the_files_are(
    monkeypatch: pytest.MonkeyPatch, backend: str, device: str, engines: int, shares: dict[str, float]
) -> None:
    monkeypatch.setattr(nvjpeg, "engines", lambda: engines)
    assert nvjpeg.shares(backend, device, 0.65, {"baseline": 60, "jpeg": 20, "other": 20}) == shares


def test_of_files_that_nobody_looked_at_no_share_is_told() -> None:
    assert nvjpeg.shares("dali", "cuda:0", 1.0, {}) == {}
