"""The step with a part of `compute.fused` against the step without: the right two, and gradients that differ are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ssd.session import SSDSession
from harness.contract import Context, NotSuitable
from measuring.measure import Figure
from measuring.ssd import command, fused, setup
from measuring.ssd.checks import Check
from tests.ssd import small
from tests.toy.configuration import write

NAME = "weights converted at once"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def session(folder: Path, place: Path, parts: list[str], **data: str) -> SSDSession:
    content = small.content(
        compute={"fused": parts, "precision": "bf16"},
        data={"backend": "torch", **data},
        model=small.OF_32_PX,
        optimizer={"batch_size": 2},
    )
    return setup.session(setup.read(str(write(place, content, "small"))), "cpu", folder)


@pytest.mark.parametrize("form", ["fp32_chw", "fp16_hwc4"])
@pytest.mark.parametrize("configured", [[], ["weights"]], ids=["without", "with it"])
def test_whichever_is_configured_the_part_is_compared_with_its_absence(
    configured: list[str], form: str, folder: Path, tmp_path: Path
) -> None:
    ours = session(folder, tmp_path, configured, image_format=form)
    checked: list[Check] = []
    of = {"rounds": 2, "steps": 1, "checked": checked.append}
    begun, *_, (warm_up, comparison) = fused.with_and_without("weights", ours, setup.first_batch(ours), **of)
    [check] = checked
    assert begun == [warm_up], "of a budget that ends in the first turn"
    assert check.found == 0 and check.passed and f"{NAME} against without" in check.what
    assert (comparison.ours.what, comparison.baseline.what) == (NAME, "without")
    assert len(comparison.ratios) == 2 and comparison.ratio > 0
    assert warm_up.what == f"warm-up, {'without' if configured else NAME}"


@pytest.mark.parametrize("configured", [[], ["weights"]], ids=["without", "with it"])
def test_the_two_are_the_one_with_the_part_and_the_one_without(
    configured: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, compared, trained = session(folder, tmp_path, configured), [], []
    step = SSDSession.train_step

    def told(self: SSDSession, *batch: torch.Tensor) -> torch.Tensor:
        trained.append(self.config.compute.fused)
        return step(self, *batch)

    def gradients(_: str, one: SSDSession, other: SSDSession, batch: Any) -> Check:
        compared.append((one.config.compute.fused, other.config.compute.fused))
        trained.clear()
        return Check("", 0, 0)

    def in_turns(measured: dict[str, Any], _: int) -> Iterator[dict[str, list[float]]]:
        yield {name: [float(len(trained)) for _ in [measure()]] for name, measure in measured.items()}

    monkeypatch.setattr(SSDSession, "train_step", told)
    monkeypatch.setattr(fused, "same_gradients", gradients)
    monkeypatch.setattr(fused, "in_turns", in_turns)
    of = {"rounds": 1, "steps": 1, "checked": lambda _: None}
    *_, (_, comparison) = fused.with_and_without("weights", ours, setup.first_batch(ours), **of)
    assert compared == [(("weights",), ())] and trained == [("weights",), ()]
    assert comparison.ours == Figure(NAME, "ms", [1.0])


def test_gradients_that_differ_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it in one extra block alone; not those of weights that are not the same."""
    one, other = session(folder, tmp_path, []), session(folder, tmp_path, [])
    batch = setup.first_batch(one)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    assert fused.same_gradients("a part", one, other, batch).found == 0
    right = fused._gradients

    def disturbed(by: float, name: str, which: slice) -> None:
        """Of the parameters that begin with `name`, in the second session."""

        def gradients(of: SSDSession, batch: Any) -> dict[str, torch.Tensor]:
            found = right(of, batch)
            chosen = [each for each in found if each.startswith(name)][which] if of is other else []
            return found | {each: by * found[each] for each in chosen}

        monkeypatch.setattr(fused, "_gradients", gradients)

    disturbed(2.0, "extras.0", slice(1, None))
    found = fused.same_gradients("a part", one, other, batch)
    assert not found.passed and found.found == pytest.approx(0.5) and "median of extras.0" in found.what
    disturbed(2.0, "backbone.6", slice(0, None, 4))
    assert fused.same_gradients("a part", one, other, batch).passed, "rounding of a few small ones is no fault"
    disturbed(0.0, "backbone.6", slice(0, None, 3))
    assert "backbone.6's convolutions" in fused.same_gradients("a part", one, other, batch).what, (
        "they are one of three"
    )
    disturbed(float("nan"), "heads.1", slice(0, None))
    assert not fused.same_gradients("a part", one, other, batch).passed, "NaN is no small difference"


def test_what_is_but_rounded_otherwise_is_no_fault(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However deep the network: of one at its start a difference of 1e-5 becomes half of a gradient."""
    content = small.content(
        compute={"precision": "bf16"},
        data={"backend": "torch"},
        model={"backbone": "resnet34", **small.OF_32_PX},
    )
    path = write(tmp_path, content, "small")
    one, other = (setup.session(setup.read(str(path)), "cpu", folder) for _ in range(2))
    as_they_come = other.network_input
    monkeypatch.setattr(other, "network_input", lambda images: as_they_come(images) * (1 + 1e-5))
    batch, before = setup.first_batch(one), copy.deepcopy(one.model.state_dict())
    assert fused.same_gradients("a part", one, other, batch).passed
    for session in (one, other):
        for name, tensor in session.model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
    monkeypatch.setattr(fused, "BRANCH", 1.0)
    assert not fused.same_gradients("a part", one, other, batch).passed, "what the weights are damped for"


def test_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path, small.content(compute={"precision": "bf16"}, model=small.OF_32_PX), "small")
    out = ["--json", str(tmp_path / "p.json"), "--chart", str(tmp_path / "p.png")]
    few = ["--threads", "1", "--rounds", "1", "--max-steps", "2", "--evaluate", "6"]
    assert command.main([str(path), "--data-dir", str(folder), "--device", "cpu", *out, *few, "--only", "fused"]) == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert [each["what"] for each in found["comparisons"]] == [f"training step, {NAME}"]
    assert any(NAME in each["what"] and each["passed"] for each in found["checks"])


def test_a_part_that_the_machine_lacks_something_for_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without nvidia-cudnn-frontend "convolutions" was a check that failed."""
    right = fused.BENCHMARK.check

    def check(config: Any, context: Context) -> None:
        if "weights" in config.compute.fused:
            raise NotSuitable("needs what is not installed")
        right(config, context)

    monkeypatch.setattr(fused.BENCHMARK, "check", check)
    path = write(tmp_path, small.content(model=small.OF_32_PX), "small")
    out = ["--json", str(tmp_path / "p.json"), "--chart", str(tmp_path / "p.png")]
    few = ["--threads", "1", "--rounds", "1", "--max-steps", "2", "--evaluate", "6"]
    assert command.main([str(path), "--data-dir", str(folder), "--device", "cpu", *out, *few, "--only", "fused"]) == 0
    assert "weights: left out: needs what is not installed" in capsys.readouterr().out


def test_which_parts_there_are() -> None:
    config = setup.read("H100_1x1x256")
    assert fused.here(config, "cuda:0") == ["stem_convolution", "convolutions", "weights"] and fused.here(
        config, "cpu"
    ) == ["weights"]
    assert set(fused.PARTS).isdisjoint(config.compute.fused), "what a configuration has, a GPU has judged"
