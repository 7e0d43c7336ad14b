"""What a log tells of the environment: what changes speed or numbers, and no secret."""

from __future__ import annotations

import pytest

from harness.system import facts, variables


@pytest.mark.parametrize(
    "name",
    [
        *(
            "CUDA_LAUNCH_BLOCKING",
            "NVIDIA_TF32_OVERRIDE",
            "NCCL_P2P_DISABLE",
            "TORCH_NCCL_BLOCKING_WAIT",
            "OMP_NUM_THREADS",
        ),
        *("PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_MAX_AUTOTUNE", "DALI_BUFFER_GROWTH_FACTOR", "ONEDNN_MAX_CPU_ISA"),
        *("DNNL_MAX_CPU_ISA", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_LOG_LEVEL", "CUDNN_LOGDEST_DBG"),
        *("CUDA_FORCE_PTX_JIT", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "LD_PRELOAD", "LD_LIBRARY_PATH", "NCCL_IB_PKEY"),
        *("HSA_OVERRIDE_GFX_VERSION", "KMP_AFFINITY", "CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING", "MALLOC_CONF"),
    ],
)
def test_what_changes_speed_or_numbers_is_told(name: str) -> None:
    assert variables.told({name: "1", "HOME": "/home/alice", "EDITOR": "vi"}) == {name: "1"}


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA_API_KEY", "TORCH_HUB_TOKEN", "NCCL_PASSWORD", "CUDA_SECRET", "DALI_CREDENTIALS", "NVIDIA_NGC_APIKEY"),
        *("TORCHELASTIC_RUN_ID", "NCCL_COMM_ID", "NCCL_HOSTID", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH"),
        *("CUDA_VERSION", "NVIDIA_REQUIRE_CUDA", "AWS_REGION", "SSH_AUTH_SOCK", "DATADIR", "PATH", "USER"),
    ],
)
def test_what_is_secret_or_changes_neither_is_not(name: str) -> None:
    assert variables.told({name: "x"}) == {}


@pytest.mark.parametrize(
    "value",
    [
        "https://alice:hunter2@proxy:3128/x",
        "file?token=abcdef",
        "password=hunter2",
        "ghp_0123456789abcdefghij",
        "sk-0123456789abcdef0123",
    ],
)
def test_a_value_that_may_be_a_secret_is_not_told(value: str) -> None:
    assert variables.told({"NCCL_CONF_FILE": value}) == {"NCCL_CONF_FILE": variables.NOT_TOLD}


def test_bytes_that_are_no_text_and_endless_values_can_be_logged() -> None:
    told = variables.told({"LD_PRELOAD": "/lib/\udcff.so", "OMP_PLACES": "x" * 100_000})
    assert told["LD_PRELOAD"] == "/lib/\\udcff.so"
    assert len(str(told["OMP_PLACES"])) == variables.LONGEST


def test_a_comparison_s_own_are_told_whatever_they_are_called() -> None:
    assert variables.told({variables.ALSO: "X,MY_TOKEN,UNSET", "X": "1", "MY_TOKEN": "2", "Y": "3"}) == {"X": "1"}


def test_ranks_that_do_not_agree() -> None:
    ranks = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}, {"OMP_NUM_THREADS": "1"}]
    assert variables.of_ranks(ranks) == {"CUDA_VISIBLE_DEVICES": ["0", "(not set)"], "OMP_NUM_THREADS": "1"}
    assert variables.of_ranks([]) == {}


def test_every_file_that_tells_the_machine_tells_them() -> None:
    assert facts.describe(facts.read({"CUDA_LAUNCH_BLOCKING": "1", "HOME": "/"}))["environment"] == {
        "CUDA_LAUNCH_BLOCKING": "1"
    }
