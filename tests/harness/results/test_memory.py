"""Memory less what the kernel keeps is one size from boot to boot, wherever a rounding would have its edge."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from harness.comparison import identity
from harness.results import memory
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD, judged, put

EDGE = (503.51, 503.49)


def test_sizes_as_one() -> None:
    assert memory.as_one([503.4, 251.6, 503.5, 251.5]) == {503.5: 503.5, 503.4: 503.5, 251.6: 251.6, 251.5: 251.6}
    assert memory.as_one([]) == {}
    sold = [2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
    assert len(set(memory.as_one(sold).values())) == len(sold)
    assert all(not memory.same(one, other) for one, other in itertools.combinations(sold, 2))
    assert memory.same(None, None) and not memory.same(None, 503.5)


@pytest.mark.parametrize("gpu", [arms.GPU, None])
def test_another_boot_is_the_same_machine(tmp_path: Path, gpu: dict[str, object] | None) -> None:
    """On both sides of a half the arms were refused: of a machine with GPUs for its memory, of one without as two hosts."""
    told = [
        {"software": driver, "gpu": gpu, "change": put("hardware", {"memory_gib": each})}
        for driver, each in zip((OLD, NEW), EDGE, strict=True)
    ]
    found = judged(arms.in_turns(tmp_path, a=told[0], b=told[1]))
    assert found.comparability is not None and found.comparability.refusals == ()
    assert not any("memory" in each.field for each in found.comparability.differences)


def test_a_module_less_is_no_other_boot(tmp_path: Path) -> None:
    told = [{"gpu": None, "change": put("hardware", {"memory_gib": each})} for each in (503.5, 471.5)]
    found = judged(arms.in_turns(tmp_path, a=told[0], b=told[1]))
    assert found.comparability is not None
    assert found.comparability.refusals[0].startswith("hardware.memory_gib differs on AMD EPYC 9654")


def test_hosts_without_gpus_are_known_again() -> None:
    first, second = ({"cpu": "AMD EPYC 9654", "cores": 192, "memory_gib": each} for each in EDGE)
    assert identity.host(first) == identity.host(second)
