"""Learning rates at the points where the published recipes fix them."""

from __future__ import annotations

import pytest

from benchmarks.ssd.schedule import Schedule

DGX_A100 = Schedule(0.09, warmup_steps=650, warmup_factor=0, decay_epochs=(44, 55), steps_per_epoch=117266 // 912)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (1, 0.09 / 650),
        (325, 0.045),
        (649, 0.09 * 649 / 650),
        (650, 0.09),
        (44 * 128 - 1, 0.09),
        (44 * 128, 0.009),
        (55 * 128 - 1, 0.009),
        (55 * 128, 0.0009),
        (80 * 128, 0.0009),
    ],
)
def test_v07_dgx_a100(step: int, expected: float) -> None:
    assert DGX_A100.learning_rate(step) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_warmup_factor_raises_the_first_rate() -> None:
    schedule = Schedule(0.08, 100, 2, (), 10)
    assert schedule.learning_rate(0) == pytest.approx(0.08 * 3 / 4)
