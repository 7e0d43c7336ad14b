"""Which variables of an environment change how fast a run is or what it computes, for its log: an allow-list.

Whatever is on no list is not told, nor what names a secret or holds one, nor what only says where files lie, which version
of a library an image has, or how the ranks of this one run meet.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from harness.contract import Plain

# Of the libraries that move tensors between ranks
COLLECTIVES = ("NCCL_", "TORCH_NCCL_", "RCCL_", "CCL_", "GLOO_", "UCX_", "FI_", "OFI_", "MCCL_", "HCCL_", "CNCL_")
PREFIXES = (
    *COLLECTIVES,
    # NVIDIA's driver and libraries
    *("CUDA_", "CUBLAS", "CUDNN_", "CUFFT_", "CUTLASS_", "NVIDIA_", "NVJPEG_", "NVIMGCODEC_", "DALI_"),
    # PyTorch and its compilers
    *("TORCH", "PYTORCH_", "ATEN_", "TRITON_", "DNNL_", "ONEDNN_", "IPEX_", "XLA_", "PJRT_"),
    # threads and products of matrices on the processor; how memory is handed out
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_", "MALLOC_", "TCMALLOC", "JEMALLOC"),
    # other makers' drivers and libraries
    *("HIP_", "HIPBLASLT_", "HSA_", "ROCR_", "ROCBLAS_", "ROCM_", "MIOPEN_", "TENSILE_", "AMD_"),
    *("SYCL_", "UR_", "ZE_", "ONEAPI_", "MUSA_", "ASCEND_", "PT_HPU_", "HABANA_", "MLU_"),
)
NAMES = (
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_BIND_NOW", "GLIBC_TUNABLES", "GPU_DEVICE_ORDINAL", "GPU_MAX_HW_QUEUES"),
    *("LRU_CACHE_CAPACITY", "PYTHONOPTIMIZE", "PYTHONMALLOC", "PYTHONDEVMODE", "PYTHONHASHSEED", "PYTHON_GIL"),
    "HSA_OVERRIDE_GFX_VERSION",
)
# Of these prefixes, but without an effect on either: see the head of this file
LEFT_OUT = (
    *(
        "TORCHELASTIC_*",
        "NCCL_COMM_ID",
        "NCCL_HOSTID",
        "*_CACHE_DIR",
        "*_CACHE_PATH",
        "TORCH_HOME",
        "TORCH_EXTENSIONS_DIR",
    ),
    *("*_VERSION", "NVIDIA_REQUIRE_*", "NVIDIA_BUILD_*", "NVIDIA_PRODUCT_NAME"),
)
# Which devices programs see: where a log has their UUIDs, how they were named says nothing more
SELECTING = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    "GPU_DEVICE_ORDINAL",
)
ALSO = "HARNESS_ALSO_LOG"  # names of more, with commas: those in which a comparison's arms differ
SECRET = re.compile(
    r"(?:^|_)(?:API|ACCESS|AUTH|PRIVATE|SECRET|SIGNING)?_?KEYS?(?:_|$)|(?:^|_)AUTH|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"://[^\s/@]*@|(?:token|secret|passw(?:or)?d|passphrase|api_?key|access_?key|credential)\w*=|PRIVATE KEY"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}|\b(?:gh[pousr]_|hf_|glpat-|xox[abp]-|sk-)[\w-]{16}",
    re.IGNORECASE,
)
NOT_SET = "(not set)"
NOT_TOLD = "(not told: it may hold a password)"
LONGEST = 4000  # characters of a value


def told(environment: Mapping[str, str]) -> dict[str, Plain]:
    """Those of the list, by name."""
    also = environment.get(ALSO, "").split(",")
    return {name: shown(environment[name]) for name in sorted(environment) if is_told(name, also)}


def is_told(name: str, also: Sequence[str] = ()) -> bool:
    """Whether a log tells this variable where it is set."""
    if SECRET.search(name):
        return False
    left_out = any(fnmatch.fnmatchcase(name, each) for each in LEFT_OUT)
    return name in (*NAMES, *also) or (name.startswith(PREFIXES) and not left_out)


def of_ranks(each: Sequence[Mapping[str, Plain]]) -> dict[str, Plain]:
    """As one table; where the ranks do not agree a list of the values that there are, in the ranks' order."""
    found: dict[str, Plain] = {}
    for name in sorted({name for one in each for name in one}):
        values = list(dict.fromkeys(str(one.get(name, NOT_SET)) for one in each))
        found[name] = values[0] if len(values) == 1 else [*values]
    return found


def shown(text: str) -> str:
    """A value as a log has it."""
    plain = text.encode("utf-8", "backslashreplace").decode()  # bytes that are no UTF-8 are surrogates here
    return NOT_TOLD if SECRET_VALUE.search(plain) else plain[:LONGEST]
