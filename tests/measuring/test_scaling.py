"""The scaling on paper: its arithmetic, what it is held against, and that the files in results/ are what it says."""

from __future__ import annotations

import json

import pytest

from measuring import scaling
from measuring.scaling import A100, H100, LATENCY_MS, Step
from tests.conftest import CHECKOUT

STEP = Step(fixed_ms=4.0, each_ms=0.5, backward=0.6, source="made up")


def test_the_bytes_are_the_model_s() -> None:
    """79.9 MB that reach the output, and the heads' padding, which is summed too."""
    padding = 4 * (344 - 340 + 510 % 2) * 256 * 9
    assert 4 * 19_972_534 < scaling.gradient_bytes() < 4 * 19_972_534 + 8 * 6 * padding


def test_an_all_reduce_is_ring_bytes_over_bandwidth() -> None:
    assert scaling.all_reduce_ms(80e6, 1, 1, A100) == 0
    assert scaling.all_reduce_ms(80e6, 8, 1, A100) == pytest.approx(LATENCY_MS + 2 * 7 / 8 * 80 / 232.54)
    assert scaling.all_reduce_ms(80e6, 8, 2, A100) == pytest.approx(LATENCY_MS + 2 * 7 / 8 * 80 / 175.5)
    assert scaling.all_reduce_ms(80e6, 16, 2, H100) < scaling.all_reduce_ms(80e6, 16, 2, A100)


@pytest.mark.parametrize("backward_ms", [0.01, 1.0, 50.0])
def test_overlapped_hides_all_but_the_last_buckets_where_there_is_time(backward_ms: float) -> None:
    whole = scaling.all_reduce_ms(80e6, 64, 8, A100)
    last = scaling.all_reduce_ms(80e6 - (76 << 20), 64, 8, A100)  # after buckets of 1, 25, 25 and 25 MiB
    late = scaling.exposed_ms(80e6, 64, 8, A100, backward_ms)
    assert last <= late * 1.0001
    assert late <= whole + 4 * LATENCY_MS
    if backward_ms > 2 * whole:  # the one before it came a moment earlier
        assert late <= last + scaling.all_reduce_ms(25 << 20, 64, 8, A100)


def test_a_prediction_is_a_step_and_what_is_late_of_the_sum() -> None:
    alone = scaling.predict("one", 1, 1, 32, STEP, A100, 80e6)
    assert alone.images_per_s == pytest.approx(1000 * 32 / 20)
    delayed = scaling.predict("delayed", 64, 8, 32, STEP, A100, 80e6, overlapped=False)
    overlapped = scaling.predict("overlapped", 64, 8, 32, STEP, A100, 80e6)
    assert delayed.exposed_ms == delayed.all_reduce_ms
    assert delayed.images_per_s < overlapped.images_per_s < 64 * alone.images_per_s


def test_it_is_held_against_every_entry_of_several_nodes_and_fitted_to_none() -> None:
    step, records = scaling.against_records(scaling.gradient_bytes())
    assert len(records) == 10
    assert {each.accelerators for each in records} == {8, 16, 64, 512, 1024}
    assert all(each.published and each.ratio for each in records)
    assert step.fixed_ms > 0
    assert 0.5 < step.each_ms < 0.7, "1,500 to 1,600 images/s on one A100"


def test_the_files_in_results_are_what_it_says_now() -> None:
    kept = json.loads((CHECKOUT / "results/scaling/scaling.json").read_text())
    step, records = scaling.against_records(scaling.gradient_bytes())
    ours = scaling.of_configurations(step, scaling.gradient_bytes())
    for found, listed in ((records, kept["against_records"]), (ours, kept["configurations"])):
        assert [each.what for each in found] == [each["what"] for each in listed]
        assert [each.images_per_s for each in found] == pytest.approx([each["images_per_s"] for each in listed])
