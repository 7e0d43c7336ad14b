"""Weights converted at once are the weights that autocast converts one by one, to the bit, and so is what is learnt."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.fx import GraphModule

from benchmarks.detection import capabilities
from benchmarks.ssd import benchmark, session
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context
from tests.ssd import small

PARTS: dict[str, list[str]] = {"one by one": [], "at once": ["weights"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def opened(folder: Path, fused: list[str], precision: str = "bf16") -> SSDSession:
    content = small.content(compute={"fused": fused, "precision": precision}, model=small.OF_32_PX)
    tables: Any = config.parse(content, name="small", source="small").tables
    torch.manual_seed(5)
    return SSDSession(tables, Context(device="cpu", seed=5, data_dir=folder, log_every_steps=1))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_is_the_same_to_the_bit(data: Path, precision: str) -> None:
    found = []
    for parts in PARTS.values():
        ours = opened(data, parts, precision=precision)
        batch = ours.synthetic_batch()
        loss = ours.train_step(*batch), ours.train_step(*batch)
        found.append((loss, ours.model.state_dict(), ours.optimizer.state_dict()["state"]))
        assert ours.properties()["fused"] == parts
    one_by_one, at_once = found
    assert one_by_one[0] == at_once[0] and one_by_one[0][0] != one_by_one[0][1]
    assert list(one_by_one[1]) == list(at_once[1]), "a checkpoint's names"
    for a, b in zip(one_by_one[1].values(), at_once[1].values(), strict=True):
        assert torch.equal(a, b)
    for number, of_parameter in one_by_one[2].items():
        assert torch.equal(of_parameter["momentum_buffer"], at_once[2][number]["momentum_buffer"])


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_nothing_is_converted_one_by_one(data: Path, parts: list[str]) -> None:
    """In the graphs that the compiler gets, forwards and backwards; of the other session it is all of them."""
    ours = opened(data, parts)
    graphs: list[GraphModule] = []

    def kept(graph: GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch.compiler.reset()  # after other networks in this process it would make sizes symbols
    backend = aot_autograd(fw_compiler=kept, bw_compiler=kept)
    compiled = torch.compile(ours.network, backend=backend, fullgraph=True, dynamic=False)
    images, *_ = ours.synthetic_batch()
    with ours.autocast():
        logits, offsets = compiled(images)
    (logits.sum() + offsets.sum()).backward()
    weights = sum(each.dim() == 4 for each in ours.model.parameters())
    shapes = Counter(each.shape for each in ours.model.parameters() if each.dim() == 4)
    assert len(graphs) == 2 and weights > 20
    for graph in graphs:
        conversions = [
            node for node in graph.graph.nodes
            if node.target is torch.ops.aten._to_copy.default and node.meta["val"].shape in shapes
        ]  # fmt: skip
        copies = [node for node in graph.graph.nodes if node.target is torch.ops.detection.all_in.default]
        assert (len(conversions), len(copies)) == ((0, 1) if parts else (weights, 0))


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_compiled_the_gradients_are_those_of_one_by_one(data: Path, backend: str) -> None:
    """Of an autograd.Function torch.compile 2.11 made zeros of them; seen on a GPU."""
    found = []
    for parts in PARTS.values():
        ours = opened(data, parts)
        images, *_ = ours.synthetic_batch()
        torch.compiler.reset()
        # one by one as it is, since what the compiler makes of it is the same to the bit
        network = torch.compile(ours.network, backend=backend, dynamic=False) if parts else ours.network
        with ours.autocast():
            logits, offsets = network(images)
        (logits.float().square().mean() + offsets.float().square().mean()).backward()
        found.append({name: each.grad for name, each in ours.model.named_parameters()})
    for name, gradient in found[0].items():
        assert gradient is not None and gradient.any() and torch.equal(gradient, found[1][name]), name


def test_with_several_ranks_gradients_come_back_as_they_are_found(data: Path) -> None:
    content = small.content(compute={"fused": ["weights"]})
    tables: Any = config.parse(content, name="small", source="small").tables
    context = Context(device="cpu", seed=5, data_dir=data, world_size=2)
    found = session._parts_that_fit(capabilities.settle(tables, context), context)
    assert found.config.compute.fused == () and "to average beside" in found.left_out["fused"]


def test_it_needs_neither_cuda_nor_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "installed", lambda _: False)
    for fused in (["weights"], ["weights", "loss"]):
        tables: Any = config.parse(small.content(compute={"fused": fused}), name="small", source="small").tables
        refused = (
            pytest.raises(ValueError, match=r"\['loss'\] are Triton kernels") if "loss" in fused else nullcontext()
        )
        with refused:
            benchmark.BENCHMARK.check(tables, Context(device="cpu"))
