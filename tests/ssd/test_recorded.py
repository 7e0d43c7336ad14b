"""A step that is recorded and replayed learns what the step itself does: with a graph that stands in, and on a GPU."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.detection import recorded
from benchmarks.detection.phases import Phases, PhasesOfGraph
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import NotSuitable
from tests.retinanet import small as retinanet_small
from tests.ssd import small
from tests.ssd.test_session import losses, opened

GRAPHS = {"precision": "fp32", "cuda_graphs": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


class Event:
    """CUDA's, on a clock that a test reads off."""

    now = 0.0

    def __init__(self, **_: object) -> None:
        self.at = float("nan")

    def record(self) -> None:
        self.at = Event.now

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


class Graph:
    """What is recorded into it leaves no trace, and is done at each replay."""

    session: SSDSession  # whose step it is

    def __init__(self) -> None:
        self.rates: list[Any] = []
        self.batch: list[Tensor] = []
        self.places: list[int] = []

    def replay(self) -> None:
        assert self.places == places(self.session), "a graph knows tensors by where they lie"
        groups = self.session.optimizer.param_groups
        given = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate  # as it is recorded: the tensor, whose number is read now
        assert self.session.recorded is not None
        self.session.recorded.loss.copy_(self.session._step(*self.batch))
        for group, rate in zip(groups, given, strict=True):
            group["lr"] = rate


def tensors_of(session: SSDSession) -> list[Tensor]:
    """All that a step changes."""
    momenta = [each for state in session.optimizer.state.values() for each in state.values()]
    return [*session.model.state_dict().values(), *momenta]


def places(session: SSDSession) -> list[int]:
    return [each.data_ptr() for each in tensors_of(session)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[SSDSession], SSDSession]:
    """For CUDA's graphs, on a CPU; it is told whose step they record."""

    @contextlib.contextmanager
    def recording(graph: Graph, **_: object) -> Iterator[None]:
        session = graph.session
        graph.rates = [group["lr"] for group in session.optimizer.param_groups]
        tensors, graph.places = tensors_of(session), places(session)
        kept = copy.deepcopy(tensors)
        yield
        with torch.no_grad():
            for one, other in zip(tensors, kept, strict=True):
                one.copy_(other)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(recorded, "_stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Phases, "replayed", lambda *_: None)

    def told(session: SSDSession) -> SSDSession:
        monkeypatch.setattr(Graph, "session", session, raising=False)
        return session

    return told


def record(session: SSDSession) -> None:
    session.record()
    assert session.recorded is not None
    if isinstance(session.recorded.graph, Graph):
        session.recorded.graph.batch = session.recorded.batch


def test_it_learns_what_the_step_itself_does(data: Path, stand_in: Callable[[SSDSession], SSDSession]) -> None:
    """With a learning rate that is another one at each step, in float32; and nothing is learnt while it is recorded."""
    plain, ours = opened(data), stand_in(opened(data, compute=GRAPHS))
    for session in (plain, ours):
        session.schedule = replace(session.schedule, warmup_steps=3, warmup_factor=2)
        session.load_data()
    record(ours)
    assert losses(ours, 1) == pytest.approx(losses(plain, 1), rel=1e-6) and ours.recorded is not None
    assert ours.optimizer.param_groups[0]["lr"] == plain.optimizer.param_groups[0]["lr"]
    for (name, a), b in zip(ours.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7), name
    for a, b in zip(
        ours.optimizer.state_dict()["state"].values(), plain.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert torch.allclose(a["momentum_buffer"], b["momentum_buffer"], rtol=1e-5, atol=1e-7)


def test_after_a_restore_it_is_recorded_anew(data: Path, stand_in: Callable[[SSDSession], SSDSession]) -> None:
    """An optimizer that loads its state takes other tensors: the old graph would go on with the old ones."""
    before = opened(data)
    before.load_data()
    losses(before, 1)
    state = copy.deepcopy(before.state())
    known = losses(before, 2)
    after = stand_in(opened(data, compute=GRAPHS))
    after.load_data()
    record(after)
    old = after.recorded
    after.restore(state)
    assert after.recorded is not None and after.recorded is not old
    after.recorded.graph.batch = after.recorded.batch  # type: ignore[attr-defined]
    assert losses(after, 2) == pytest.approx(known, rel=1e-6)


def test_a_batch_of_another_shape_is_refused(data: Path, stand_in: Callable[[SSDSession], SSDSession]) -> None:
    """Copied, a batch of one would be every picture of it."""
    session = stand_in(opened(data, compute=GRAPHS))
    record(session)
    images, labels, offsets = session.synthetic_batch()
    for batch in ((images[:1], labels[:1], offsets[:1]), (images, labels.long(), offsets)):
        with pytest.raises(ValueError, match="takes batches of one shape"):
            session.train_step(*batch)


def test_another_optimizer_than_the_fused_one_is_refused(
    data: Path, stand_in: Callable[[SSDSession], SSDSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = stand_in(opened(data, compute=GRAPHS))
    left_out = {"fused_optimizer": "not for this device"}
    monkeypatch.setattr(session, "settled", replace(session.settled, fused_optimizer=False, left_out=left_out))
    with pytest.raises(NotSuitable, match=r"fused one alone.*not for this device"):
        session.record()


@pytest.mark.parametrize("precision", ["fp16", "auto"])
def test_what_leaves_out_steps_is_not_recorded(precision: str) -> None:
    with pytest.raises(ValueError, match="gradients overflow"):
        config.parse(small.content(compute={**GRAPHS, "precision": precision}), name="small", source="small")


def test_retinanet_s_batches_have_no_one_shape() -> None:
    with pytest.raises(ValueError, match="as many boxes as their pictures"):
        config.parse(retinanet_small.content(compute=GRAPHS), name="small", source="small")


# --- phases of a graph -----------------------------------------------------------------------------------------------


def test_steps_are_timed_each_and_divided_as_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "nvtx", SimpleNamespace(range_start=lambda _: 0, range_end=lambda _: None))
    found = Phases(torch.device("cuda"))

    def at(second: float, begin: Callable[[str], None], name: str) -> None:
        monkeypatch.setattr(Event, "now", second)
        begin(name)

    with found.of_graph() as graph:
        for name in ("forward_loss", "backward", "optimizer"):
            at(0, found.begin, name)
    assert isinstance(graph, PhasesOfGraph) and found.chain == [], "no phase of the run"
    at(10, found.restart, "data_starved")
    at(11, found.begin, "forward_loss")  # of 8 seconds, whose events the next one writes over
    found.replayed(graph)
    at(19, found.begin, "data_starved")
    at(21, found.begin, "forward_loss")  # of 4, of which the copying of the batch is the first half
    for (_, event), second in zip(graph.events, (21.5, 22, 24), strict=True):
        monkeypatch.setattr(Event, "now", second)
        event.record()
    found.replayed(graph)
    at(25, found.begin, "logging")
    seconds = found.seconds()
    assert seconds == pytest.approx({
        "data_starved": 1 + 2, "forward_loss": 12 * 0.5 / 3.5, "backward": 12 * 2 / 3.5, "optimizer": 12 * 1 / 3.5
    })  # fmt: skip
    at(26, found.begin, "data_starved")
    assert found.seconds() == {"logging": 1}, "an interval without a replay divides nothing"


# --- on a GPU --------------------------------------------------------------------------------------------------------


def test_on_a_gpu_it_learns_what_the_step_itself_does(data: Path, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as two runs of the step itself do: batch norm over four pictures enlarges whatever else differs a hundredfold."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    found = {}
    for name, compute in (("step", {"precision": "fp32"}), ("graph", GRAPHS)):
        session = opened(data, gpu, compute=compute)
        session.warm_up()
        session.load_data()
        found[name] = list(itertools.chain.from_iterable(losses(session, epoch) for epoch in (1, 2)))
        assert (session.recorded is not None) == (name == "graph")
        assert 0 <= session.evaluate(2) <= 1
        state = copy.deepcopy(session.state())  # which is the tensors that training writes
        again = losses(session, 3)
        session.restore(state)
        assert losses(session, 3) == pytest.approx(again, rel=1e-2)
    assert found["graph"] == pytest.approx(found["step"], rel=2e-2)
    assert len({*found["graph"]}) == len(found["graph"]), "each step has a batch and weights of its own"


def test_on_a_gpu_its_phases_are_the_step_s(data: Path, gpu: str) -> None:
    session = opened(data, gpu, every=3, compute=GRAPHS)
    session.warm_up()
    session.load_data()
    (interval, *_) = session.train_epoch(1)
    parts = {name: interval.phases[name] for name in ("forward_loss", "backward", "optimizer")}
    assert all(seconds > 0 for seconds in parts.values())
