"""The step with a part of `compute.fused` against the step without: the right two, and gradients that differ are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ssd.session import SSDSession
from measuring.ssd import parts, setup
from tests.ssd import small
from tests.toy.configuration import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def session(folder: Path, place: Path, fused: list[str]) -> SSDSession:
    content = small.content(compute={"fused": fused, "precision": "bf16"}, data={"backend": "torch"})
    return setup.session(setup.read(str(write(place, content, "small"))), "cpu", folder)


@pytest.mark.parametrize("configured", [[], ["weights"]], ids=["without", "with it"])
def test_whichever_is_configured_the_part_is_compared_with_its_absence(
    configured: list[str], folder: Path, tmp_path: Path
) -> None:
    ours = session(folder, tmp_path, configured)
    check, comparison, warm_up = parts.with_and_without("weights", ours, setup.first_batch(ours), rounds=2, steps=1)
    assert check.found == 0 and check.passed and "weights converted at once against without" in check.what
    assert (comparison.ours.what, comparison.baseline.what) == ("weights converted at once", "without")
    assert len(comparison.ratios) == 2 and comparison.ratio > 0
    assert warm_up.what == f"warm-up, {'without' if configured else 'weights converted at once'}"


def test_gradients_that_differ_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = session(folder, tmp_path, []), session(folder, tmp_path, [])
    batch = setup.first_batch(one)
    assert parts.same_gradients("a part", one, other, batch).passed
    twice = other.forward_loss
    monkeypatch.setattr(other, "forward_loss", lambda *tensors: 2 * twice(*tensors))
    found = parts.same_gradients("a part", one, other, batch)
    assert not found.passed and found.found == pytest.approx(0.5)
    monkeypatch.setattr(other, "forward_loss", lambda *tensors: float("nan") * twice(*tensors))
    assert not parts.same_gradients("a part", one, other, batch).passed, "NaN is no small difference"
