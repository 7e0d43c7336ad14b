"""Which nvJPEG decodes. Several may lie on a machine, under one name; the process has the one that it loads first.

torchvision and a system's CUDA bring older ones than the package nvidia-nvjpeg, which requirements/run.lock pins. Before 13.2
a region decoded with fancy upsampling may be wrong along the picture's edge, one pixel wide, and the decoder says so in a line
for each picture.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # capabilities imports this where there may be no Pillow, on a host that starts containers
    from benchmarks.detection.data_set.picture_forms import Form

RIGHT_EDGES = (13, 2)  # from this version on a region's edge is right: NVIDIA's decoder warns before it
NAMES = ("libnvjpeg.so.13", "libnvjpeg.so.12")  # as DALI's decoder asks, for CUDA 13 and for CUDA 12
_MAPS = Path("/proc/self/maps")


def prefer_installed() -> None:
    """Load the package's nvJPEG, so that whoever asks for one by name later gets it. Nothing where there is none."""
    for path in installed():
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return


def installed() -> list[Path]:
    """nvJPEG libraries of NVIDIA's own Python packages."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return [path for folder in folders for path in sorted(Path(folder).glob("*/lib/libnvjpeg.so.*"))]


def loaded() -> dict[str, str]:
    """Path and version of each nvJPEG in this process, in the order of their names in memory. A path that is not UTF-8 has
    question marks there."""
    return {os.fsencode(path).decode(errors="replace"): ".".join(map(str, version(path))) for path in _paths()}


def _paths() -> list[str]:
    """Those that are still there: of a file that was replaced meanwhile the kernel says "(deleted)" behind."""
    text = os.fsdecode(_MAPS.read_bytes()) if _MAPS.exists() else ""
    found = re.findall(r"^(?:\S+ +){5}(/.*/libnvjpeg\..*so.*)$", text, re.MULTILINE)
    return [path for path in dict.fromkeys(found) if Path(path).exists()]


def first() -> tuple[int, int, int] | None:
    """Version of what DALI's decoder gets when it asks for one by name; None where nothing of that name is loaded yet.

    The loader is asked, which goes by the name within a library: torchvision's own copy has a file name of its own
    (libnvjpeg.36e11081.so.13) and is what is got all the same where it was loaded first.
    """
    for name in NAMES:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
            break
    else:
        return None
    return version(name)


def engines() -> int:
    """JPEG engines of the current GPU, as the nvJPEG that is loaded tells them; 0 where it tells none, or there is none."""
    for path in _paths():
        library, handle = ctypes.CDLL(path), ctypes.c_void_p()
        if not hasattr(library, "nvjpegGetHardwareDecoderInfo"):  # an older one
            continue
        if library.nvjpegCreateSimple(ctypes.byref(handle)) != 0:
            continue
        count, cores = ctypes.c_uint(), ctypes.c_uint()
        told = library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(count), ctypes.byref(cores)) == 0
        library.nvjpegDestroy(handle)
        return count.value if told else 0
    return 0


def shares(backend: str, device: str, hw_decoder_load: float, forms: Mapping[Form, int]) -> dict[str, float]:
    """Which share of the pictures whose decoder decodes: a GPU's JPEG engines, CUDA, the processor, by what the files are.

    `forms`: how many pictures have each, nothing where nobody looked: then there is no share. DALI gives `hw_decoder_load` of
    the baseline JPEG files to the engines and all other JPEG files to CUDA; what is no JPEG ("other") goes to whatever knows
    its form. torchvision leaves the choice to nvJPEG. How busy the engines were is in the telemetry.
    """
    if not device.startswith("cuda"):
        return {"cpu": 1.0}
    if (total := sum(forms.values())) == 0:
        return {}
    baseline, other = forms.get("baseline", 0), forms.get("other", 0)
    found: dict[str, float]
    if backend == "torch":
        found = {"nvjpeg": total - other, "cpu": other}
    else:
        by_engines = baseline * hw_decoder_load if engines() else 0.0
        found = {"jpeg_engines": by_engines, "cuda": total - other - by_engines, "other": other}
    return {name: round(count / total, 6) for name, count in found.items()}


def version(path: str) -> tuple[int, int, int]:
    """As the library itself says."""
    library, found = ctypes.CDLL(path), []
    for which in range(3):  # MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL of library_types.h
        value = ctypes.c_int()
        if library.nvjpegGetProperty(which, ctypes.byref(value)) != 0:
            raise OSError(f"{path}: nvjpegGetProperty({which}) failed")
        found.append(value.value)
    return found[0], found[1], found[2]
