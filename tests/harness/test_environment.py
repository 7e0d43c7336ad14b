"""Environment variables: ours, those that look like ours, and where a launcher says that a process is a rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import environment
from harness.execution.context import Launch


@pytest.mark.parametrize(
    ("name", "meant"),
    [("DATA_DIR", "DATADIR"), ("datadir", "DATADIR"), ("LOG_DIR", "LOGDIR"), ("DGX_SYSTEM", "DGXSYSTEM"), ("SEEDS", "SEED"),
     ("DATADIRS", "DATADIR"), ("HARNESS_CACHEDIR", "HARNESS_CACHE_DIR"), ("CLEAR_CACHE", "CLEAR_CACHES")],
)  # fmt: skip
def test_lookalikes(name: str, meant: str) -> None:
    (sentence,) = environment.lookalikes({name: "x", "PATH": "/bin"})
    assert sentence == f"the environment variable {name} is not read; did you mean {meant}?"


def test_what_is_ours_and_what_is_nobodys_business() -> None:
    ours = dict.fromkeys(environment.DECLARED, "x")
    others = dict.fromkeys(
        ("PATH", "HOME", "LANG", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LOGNAME", "USER", "TERM"), "x"
    )
    assert environment.lookalikes(ours | others | {"HARNESS_IMAGE_COMMIT": "x"}) == []


def test_an_unknown_name_with_our_prefix() -> None:
    (sentence,) = environment.lookalikes({"HARNESS_BATCH": "4"})
    assert sentence.startswith("the environment variable HARNESS_BATCH is not read; known are DGXSYSTEM")


def test_cache_dir(tmp_path: Path) -> None:
    assert environment.cache_dir(tmp_path, {}) == tmp_path / ".cache"
    assert environment.cache_dir(tmp_path, {"HARNESS_CACHE_DIR": "/somewhere"}) == Path("/somewhere")


def test_launch() -> None:
    assert Launch.from_environment({}) == Launch()
    ranks = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "HARNESS_LOG": "log"}
    assert Launch.from_environment(ranks) == Launch(3, 1, 4, 2, as_rank=True, log=Path("log"))
    assert Launch.from_environment({"HARNESS_CACHES_CLEARED": "1"}).caches_cleared
    for broken in ({"RANK": "0"}, {**ranks, "RANK": "zero"}):
        with pytest.raises(ValueError, match="RANK is set, so this is taken for a rank of torchrun"):
            Launch.from_environment(broken)


def test_out_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.out_dir(tmp_path) == tmp_path / "out"
    monkeypatch.setattr(environment.os, "access", lambda *_: False)
    assert environment.out_dir(tmp_path) == Path("out")
