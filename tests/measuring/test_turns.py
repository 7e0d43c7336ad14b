"""Choices of a GPU's training in turns: the right ones, nothing left changed, and what was measured is kept."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.ssd.kernels import loss, norm
from benchmarks.ssd.session import SSDSession
from harness import config_files
from harness.contract import Context, NotSuitable
from measuring.measure import CUT_OFF, Comparison, Figure
from measuring.ssd import checks, sections, setup, turns
from tests.ssd import small
from tests.toy.configuration import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def test_each_choice_is_one_that_the_gpu_s_configuration_can_make() -> None:
    config = setup.read("H100_1x1x256")
    chosen = {name: setup.changed(config, **choice.changes) for name, choice in turns.GPU_CHOICES.items()}
    assert all(each != config or turns.GPU_CHOICES[name].constants for name, each in chosen.items())
    for choice in turns.GPU_CHOICES.values():
        for constant, value in choice.constants.items():
            with mock.patch(constant, value):  # a name that is there
                assert pkgutil.resolve_name(constant) == value
            assert pkgutil.resolve_name(constant) != value
    steps = {name: turns._step_of(each) == turns._step_of(config) for name, each in chosen.items()}
    with_its_step = [name for name, same in steps.items() if same]
    assert with_its_step == list(turns.GPU_CHOICES)[:2], "those that need no other step come first"


def test_end_to_end_in_turns(folder: Path, tmp_path: Path) -> None:
    config = setup.read(str(write(tmp_path, small.content(data={"backend": "torch"}), "small")))
    session = setup.session(config, "cpu", folder)
    before = session.context, session.schedule, session.default_boxes
    said: list[str] = []
    work, batch, checked = turns.Work(session, config), setup.first_batch(session), list[checks.Check]()
    known = list(
        turns.end_to_end(work, turns.CPU_CHOICES, batch, rounds=2, steps=2, tell=said.append, checked=checked.append)
    )
    assert [each.what for each in known[0]] == ["end to end: as configured"], "it is compared with nothing yet"
    assert [each.what for each in known[-1]] == ["end to end, DALI", "end to end, fp16_hwc4"]
    assert all(len(each.ratios) == 2 and each.ratio > 0 for each in known[-1] if isinstance(each, Comparison))
    assert said.pop(0).endswith("does not count")
    assert [line.partition(":")[0] for line in said] == [
        *("as configured", "DALI", "fp16_hwc4"), *("fp16_hwc4", "DALI", "as configured")
    ]  # fmt: skip
    assert (session.context, session.schedule, session.default_boxes) == before
    assert not checked, "these have the configuration's step, or read other pictures"


def test_the_turn_that_reads_from_the_disk_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was the configuration's, and every choice seemed faster by what the disk takes."""
    taken: list[float] = []

    def turn(work: turns.Work, steps: int) -> float:
        taken.append(100.0 if not taken else 50.0)
        return taken[-1]

    monkeypatch.setattr(turns, "turn", turn)
    monkeypatch.setattr(turns, "works", lambda *_: dict.fromkeys((turns.AS_CONFIGURED, "the same"), lambda: None))
    known = list(turns.end_to_end(None, {}, {}, rounds=2, steps=2, tell=str, checked=str))  # type: ignore[arg-type]
    assert len(taken) == 1 + 2 * 2
    (same,) = known[-1]
    assert isinstance(same, Comparison) and same.ratios == [1.0, 1.0]


def test_a_choice_that_learns_something_else_or_breaks_takes_no_other_s_turns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = setup.read(str(write(tmp_path, small.content(data={"backend": "torch"}), "small")))
    session = setup.session(config, "cpu", folder)
    choices = {
        "half of the loss": turns.Choice({"compute": {"precision": "bf16"}}),
        "no such backend": turns.Choice({"data": {"threads": 3}}),
        "right": turns.Choice({"data": {"threads": 2}}),
    }
    right = turns.turn

    def turn(work: turns.Work, steps: int) -> float:
        if work.config.data.threads == 3:
            raise RuntimeError("out of memory\nand more")
        return right(work, steps)

    monkeypatch.setattr(turns, "turn", turn)
    forward = SSDSession._forward_loss

    def wrong(self: SSDSession, *tensors: Any) -> Any:
        found = forward(self, *tensors)
        return found / 2 if self.config.compute.precision == "bf16" else found

    monkeypatch.setattr(SSDSession, "_forward_loss", wrong)
    said, checked = list[str](), list[checks.Check]()
    work, batch = turns.Work(session, config), setup.first_batch(session)
    *_, known = turns.end_to_end(work, choices, batch, rounds=2, steps=2, tell=said.append, checked=checked.append)
    assert [(each.what, len(each.ratios)) for each in known] == [("end to end, right", 2)]
    gradients, other, broken = checked
    assert gradients.what.startswith("gradients, half of the loss") and gradients.found == pytest.approx(0.5, abs=0.1)
    assert other.what.startswith("half of the loss works: WrongGradients")
    assert broken.what == "no such backend works: RuntimeError: out of memory"
    assert not any(each.passed for each in checked)
    assert sum("left out" in each for each in said) == 2


def test_a_choice_that_the_machine_lacks_something_for_is_no_check_that_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of cuDNN's graphs, which a choice of all parts of compute.fused needs: the profile ended as a wrong one does."""
    config = setup.read(str(write(tmp_path, small.content(data={"backend": "torch"}), "small")))
    session = setup.session(config, "cpu", folder)

    def check(chosen: Any, _: Context) -> None:
        if chosen.data.threads == 2:
            raise NotSuitable("needs nvidia-cudnn-frontend")

    monkeypatch.setattr(turns, "turn", lambda *_: 1.0)
    monkeypatch.setattr(turns.BENCHMARK, "check", check)
    said, checked = list[str](), list[checks.Check]()
    choices = {name: turns.Choice({"data": {"threads": n}}) for name, n in (("with graphs", 2), ("right", 3))}
    how = {"rounds": 1, "steps": 1, "tell": said.append, "checked": checked.append}
    *_, known = turns.end_to_end(turns.Work(session, config), choices, setup.first_batch(session), **how)
    assert [each.what for each in known] == ["end to end, right"] and not checked
    assert "with graphs: left out: needs nvidia-cudnn-frontend" in said


def test_a_constant_of_dali_s_graph_is_no_choice_without_it(folder: Path, tmp_path: Path) -> None:
    choices = {"other": turns.Choice(constants={"benchmarks.ssd.data_dali.MATCHES_ON_DEVICE": False})}
    for backend, names in (("torch", ["as configured"]), ("dali", ["as configured", "other"])):
        config = setup.read(str(write(tmp_path, small.content(data={"backend": backend}), backend)))
        session = setup.session(config, "cpu", folder)
        assert list(turns.works(turns.Work(session, config), choices, {}, lambda _: None, print)) == names


@pytest.mark.parametrize("name", [name for name, path in config_files.available().items() if path.parent.name == "ssd"])
def test_a_choice_that_a_configuration_cannot_have_costs_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of fp16 has no CUDA graphs, one of another stem no kernels for it: the first of them ended the section, with what
    came after it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    said: list[str] = []
    config = setup.read(name)
    session: Any = SimpleNamespace(context=Context(device="cuda:0"), config=config)
    works = turns.works(turns.Work(session, config), turns.GPU_CHOICES, {}, lambda _: None, said.append)
    assert "as configured" in works
    variants = setup.possible(config, {each: {"compute": c} for each, c in sections.GPU_VARIANTS.items()}, said.append)
    assert set(sections.CPU_VARIANTS) <= set(variants)
    assert all(": left out, which this configuration cannot have: " in each for each in said)
    if name == "H100_1x1x256":
        assert not said and list(works)[1:] == list(turns.GPU_CHOICES)
    if name == "A100_1x1x128":
        [one] = [each for each in said if each.startswith("CUDA graphs, and all parts")]
        assert '"stem_convolution" is of "stem"' in one


def test_every_sample_that_was_measured_before_the_time_was_over_is_kept() -> None:
    """Of the second round, which runs backwards, all but the last was taken away, and of the first what had come alone."""
    found = turns.comparisons({"as configured": [2.0, 3.0], "a": [1.0], "b": [1.0, 1.0, 1.5]}, "step alone")
    compared, alone = found[:2], found[2:]
    assert [(each.what, each.ratios) for each in compared if isinstance(each, Comparison)] == [
        *(("step alone, a", [2.0]), ("step alone, b", [2.0, 3.0]))
    ]
    assert alone == [Figure("step alone: b", "ms", [1.5], CUT_OFF)], "the configuration's second is compared with b's"
    assert turns.comparisons({"as configured": [2.0]}, "x") == [Figure("x: as configured", "ms", [2.0], CUT_OFF)]
    assert turns.comparisons({}, "x") == []


def test_constants_are_set_for_their_turn_alone() -> None:
    values = (norm.MOST_C, norm.PROGRAMS, loss.GRADIENT_CELLS)
    seen: list[tuple[Any, ...]] = []

    def train_step(*_: object) -> None:
        seen.append((norm.MOST_C, norm.PROGRAMS, loss.GRADIENT_CELLS))

    compute = SimpleNamespace(fused=("stem", "blocks", "loss"))
    session: Any = SimpleNamespace(
        context=SimpleNamespace(device="cpu"), train_step=train_step, config=SimpleNamespace(compute=compute)
    )
    batch = dict.fromkeys(("images", "labels", "offsets"), torch.zeros(1))
    known = list(turns.of_constants(session, batch, 2, 3, lambda _: None))
    assert [each.what for each in known[-1]] == [f"step alone, {name}" for name in turns.constants(compute.fused)]
    assert len(turns.constants(turns.ALL_PARTS)) == len(known[-1]) + 2, "those of the stem's convolution are its own"
    assert list(turns.constants(["loss", "weights"])) == ["1 cell of a gradient", "16 cells of a gradient"]
    assert all(len(each.ratios) == 2 for each in known[-1])
    assert {(64, *values[1:]), (values[0], 528, values[2]), (*values[:2], 1), values} <= set(seen)
    assert values == (norm.MOST_C, norm.PROGRAMS, loss.GRADIENT_CELLS)
