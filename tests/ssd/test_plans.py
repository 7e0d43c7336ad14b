"""cuDNN's plans: which one is taken and how it is kept, with a library that stands in. The true one: test_plans_made.py."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.ssd.kernels import plans

DEVICE = torch.device("cuda:0")
OTHER = torch.device("cuda:1")


class NotSupported(Exception):
    pass


class StandInGraph:
    """Has the plans of its text, and writes which one was built last."""

    def __init__(self, names: list[str], broken: dict[str, Exception]) -> None:
        self.names, self.broken, self.last = names, broken, ""

    def validate(self) -> None: ...

    def build_operation_graph(self) -> None: ...

    def create_execution_plans(self, _: object) -> None:
        if not self.names:
            raise NotSupported

    def get_execution_plan_count(self) -> int:
        return len(self.names)

    def get_plan_name_at_index(self, index: int) -> str:
        return self.names[index]

    def build_plan_at_index(self, index: int) -> None:
        if self.names[index] in self.broken:
            raise self.broken[self.names[index]]
        self.last = self.names[index]

    def execute(self) -> str:
        return self.last

    def get_workspace_size(self) -> int:
        return 0

    def serialize(self) -> list[int]:
        return list(self.last.encode())

    def deserialize(self, _: object, kept: list[int]) -> None:
        """As the library itself: of bytes it can make nothing."""
        if not isinstance(kept, list) or not kept:
            raise RuntimeError("Unable to cast")
        if bytes(kept) == b"another's":
            raise NotSupported
        self.last = bytes(kept).decode()


class Library:
    """What the tests change of it, and what they ask afterwards."""

    def __init__(self) -> None:
        self.names = ["a", "b", "c", "d", "e"]
        self.broken: dict[str, Exception] = {}
        self.seconds = {"without": 3.0, "a": 2.0, "b": 1.0, "c": 4.0, "d": 5.0, "e": 0.1}
        self.measured: list[str] = []
        self.graphs: list[StandInGraph] = []
        self.asked: list[set[str]] = []  # what a graph was made for
        self.version = 92400

    def module(self) -> Any:
        return SimpleNamespace(
            pygraph=self.pygraph,
            data_type=SimpleNamespace(FLOAT=0),
            heur_mode=SimpleNamespace(A=0),
            create_device_properties=lambda card: card,
            cudnnGraphNotSupportedError=NotSupported,
            backend_version=lambda: self.version,
            __version__="1",
        )

    def pygraph(self, **asked: object) -> StandInGraph:
        self.asked.append({"handle", "device_property"} & asked.keys())
        self.graphs.append(StandInGraph(self.names, self.broken))
        return self.graphs[-1]

    def timed(self, tried: dict[str, Any]) -> dict[str, float]:
        self.measured += list(tried)
        return {name: self.seconds[name] for name in tried}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    found = Library()
    monkeypatch.setattr(plans, "_cudnn", found.module)
    monkeypatch.setattr(plans, "_handle", lambda _: 7)
    monkeypatch.setattr(plans, "_seconds", found.timed)
    monkeypatch.setattr(plans, "folder", lambda: tmp_path / "cudnn")
    monkeypatch.setattr(plans, "_CHOSEN", {})
    card = SimpleNamespace(name="a card", multi_processor_count=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    return found


RIGHT = (torch.tensor([3.0, -4.0]), torch.tensor([0.5]))


def chosen(
    text: str = "graph",
    device: torch.device = DEVICE,
    *,
    expected: Sequence[Tensor] = RIGHT,
    found: Mapping[str, Sequence[Tensor]] | None = None,
) -> plans.Plan | None:
    """`found` by the name of a plan: what it gives that is not `expected`."""

    def by_plan(plan: plans.Plan) -> Sequence[Tensor]:
        return (found or {}).get(plan._execute(), expected)  # type: ignore[call-overload,no-any-return]

    return plans.fastest(plans.Wanted(text, lambda _: None), device, by_plan, lambda: expected)


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_CHOSEN", {})


def the_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cudnn").iterdir()
    return found


def test_the_fastest_of_the_first_plans_is_taken_and_kept(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beyond TRIED are not: compiling each takes time."""
    plan = chosen()
    assert plan is not None and library.measured == ["without", "a", "b", "c", "d"]
    assert chosen() is plan and len(library.measured) == 5, "asked once in a process"
    kept = json.loads(the_file(tmp_path).read_text())
    assert kept["best"] == "b" and base64.b64decode(kept["plan"]) == b"b" and kept["ms"]["without"] == 3000
    ((of, milliseconds),) = plans.kept()
    assert of == "graph, a card (1), cuDNN 92400 (1)"
    assert milliseconds == {"without": 3000, "a": 2000, "b": 1000, "c": 4000, "d": 5000}
    another_process(monkeypatch)
    assert chosen() is not None
    assert library.graphs[-1].last == "b" and len(library.measured) == 5, "read, not measured again"


def test_what_other_processes_make_is_measured_here(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the graphs that no file has, each once; after it nobody waits for them."""
    pools: list[Any] = []

    class Elsewhere:
        """A pool whose processes are this one."""

        def __init__(self, processes: int, **_: object) -> None:
            self.processes, self.asked = processes, list[tuple[str, int]]()
            pools.append(self)

        def submit(self, function: Any, wanted: plans.Wanted, card: int) -> Future[plans.Made]:
            done: Future[plans.Made] = Future()
            self.asked.append((wanted.text, card))
            done.set_result(function(wanted, card))
            return done

        def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
            assert not wait and cancel_futures
            self.processes = 0

    monkeypatch.setattr(plans, "ProcessPoolExecutor", Elsewhere)
    chosen("kept")
    wanted = [plans.Wanted(text, lambda _: None) for text in ("kept", "new", "broken")]
    with pytest.raises(KeyError), plans.made_beside(wanted, DEVICE, 8):
        assert pools[0].asked == [("new", 0), ("broken", 0)] and pools[0].processes == 2
        library.names = ["z"]  # what is made from here on
        assert chosen("new") is not None
        assert library.measured[-5:] == ["without", "a", "b", "c", "d"]
        raise KeyError
    assert pools[0].processes == 0 and not plans._BESIDE
    with plans.made_beside(wanted[:2], DEVICE, 8):
        assert len(pools) == 1, "all of them are kept"


def test_where_other_processes_cannot_make_them_this_one_does(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card in exclusive mode refuses theirs, and one of them may be killed: init ended."""
    failed: Future[plans.Made] = Future()
    failed.set_exception(RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nmore"))
    monkeypatch.setattr(plans, "_BESIDE", {"graph": failed})
    with pytest.warns(UserWarning, match=r"\(CUDA-capable device\(s\) is/are busy or unavailable\): this one does"):
        assert chosen() is not None
    assert library.measured == ["without", "a", "b", "c", "d"]


def test_without_a_plan_where_that_is_faster(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.seconds["without"] = 0.5
    assert chosen() is None
    another_process(monkeypatch)
    assert chosen() is None and len(library.measured) == 5
    assert "plan" not in json.loads(the_file(tmp_path).read_text())


@pytest.mark.parametrize("error", [NotSupported, RuntimeError])
def test_a_plan_that_does_not_compile_is_left_out(error: type[Exception], library: Library, tmp_path: Path) -> None:
    library.broken = {"b": error("no such"), "c": error("registers")}
    plan = chosen()
    assert plan is not None and library.measured == ["without", "a", "d"]
    assert json.loads(the_file(tmp_path).read_text())["left_out"] == {"b": "no such", "c": "registers"}


@pytest.mark.parametrize(
    "wrong",
    [
        (torch.tensor([3.0, -3.7]), torch.tensor([0.5])),
        (torch.tensor([3.0, -4.0]), torch.tensor([1.0])),
        (torch.tensor([3.0, -4.0]), torch.tensor([torch.nan])),
        (torch.tensor([3.0, torch.inf]), torch.tensor([0.5])),
        (torch.zeros(2), torch.tensor([0.5])),
    ],
    ids=["another number", "sums made twice", "NaN", "infinity", "zeros"],
)
def test_a_plan_that_computes_something_else_is_left_out(
    wrong: Sequence[Tensor], library: Library, tmp_path: Path
) -> None:
    """However fast; and whoever runs it hears of it."""
    with pytest.warns(UserWarning, match=r"cuDNN's b of graph, a card \(1\), cuDNN .* computes something else"):
        plan = chosen(found={"b": wrong})
    assert plan is not None and library.measured == ["without", "a", "c", "d"]
    kept = json.loads(the_file(tmp_path).read_text())
    assert kept["best"] == "a" and "something else" in kept["left_out"]["b"]


def test_a_tile_that_is_wrong_does_not_hide_in_a_large_map(library: Library) -> None:
    right = (torch.ones(1_000_000),)
    wrong = (torch.ones(1_000_000),)
    wrong[0][17:20] = 0
    with pytest.warns(UserWarning, match="something else"):
        chosen(expected=right, found={"b": wrong})
    assert "b" not in library.measured


def test_many_small_differences_do_not_hide_behind_a_large_number(library: Library) -> None:
    right, wrong = (torch.ones(100_000),), (torch.ones(100_000) * 2,)
    right[0][0] = wrong[0][0] = 100
    with pytest.warns(UserWarning, match="something else"):
        chosen(expected=right, found={"b": wrong})
    assert "b" not in library.measured


def test_rounding_is_not_something_else(library: Library) -> None:
    numbers = torch.linspace(-1, 1, 1000)
    chosen(expected=(numbers, torch.zeros(3)), found={"b": (numbers.to(torch.bfloat16).float(), torch.zeros(3))})
    assert "b" in library.measured


def test_nothing_is_judged_by_numbers_that_are_not_finite(library: Library, tmp_path: Path) -> None:
    assert chosen(expected=(torch.tensor([1.0, torch.inf]),)) is None
    assert library.measured == [] and not (tmp_path / "cudnn").exists()
    assert chosen() is not None and library.measured


def test_no_plan_at_all(library: Library) -> None:
    library.names = []
    assert chosen() is None and library.measured == ["without"]


def test_another_library_graph_or_card_is_measured_for_itself(library: Library, tmp_path: Path) -> None:
    chosen()
    chosen("another graph")
    chosen(device=OTHER)  # the same card as far as its name says: what is kept is of both
    assert len([*(tmp_path / "cudnn").iterdir()]) == 2
    library.version += 1
    plans._CHOSEN.clear()
    chosen()
    assert len([*(tmp_path / "cudnn").iterdir()]) == 3


def test_what_nobody_had_compared_is_measured_again(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of an earlier form stays as it is, and is not read."""
    chosen()
    before = the_file(tmp_path)
    another_process(monkeypatch)
    monkeypatch.setattr(plans, "FORM", plans.FORM + 1)
    chosen()
    assert len(library.measured) == 10 and before.exists() and len([*before.parent.iterdir()]) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"form": 0}',
        '{"form": 1, "plan": "YQ=="}',
        '{"form": 2, "plan": ""}',
        '{"form": 2, "plan": 3}',
        '{"form": 2, "plan": "YW5vdGhlcidz"}',
    ],
)
def test_a_file_that_is_none_of_ours_is_named(
    content: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen()
    path = the_file(tmp_path)
    path.write_text(content)
    another_process(monkeypatch)
    with pytest.raises(ValueError, match=f"{path}.*delete it"):
        chosen()
    assert len(library.measured) == 5


def test_a_run_s_tensors_reach_the_plan_by_their_numbers(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    """In the current stream, with room to work in."""
    done: list[Any] = []
    stream = SimpleNamespace(cuda_stream=11)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    module = library.module()
    module.set_stream = lambda **said: done.append(said)
    monkeypatch.setattr(plans, "_cudnn", lambda: module)
    execute = lambda pointers, workspace, handle: done.append((pointers, workspace, handle))  # noqa: E731
    one, two = torch.zeros(3), torch.ones(2)
    plans.Plan(execute, 64).run({4: one, 9: two})
    assert done[0] == {"handle": 7, "stream": 11}
    pointers, workspace, handle = done[1]
    assert pointers == {4: one.data_ptr(), 9: two.data_ptr()} and workspace != 0 and handle == 7


def test_a_card_that_is_there_is_asked_itself(library: Library) -> None:
    """In a process that had not used it, its properties gave cuDNN's older kernels alone; seen on an H100."""
    plans.made(plans.Wanted("a graph", lambda _: None), 0)
    plans.made(plans.Wanted("a graph", lambda _: None), "{}")
    assert library.asked == [{"handle"}, {"device_property"}]


def test_on_a_gpu_other_processes_make_the_plans_that_are_made_here(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cudnn")
    from benchmarks.ssd.kernels import graphs

    monkeypatch.setattr(plans, "folder", lambda: tmp_path)
    wanted = graphs.forward_graph(graphs.Shape(8, 64, 16, 16, 64, 3, 1, 1, torch.bfloat16))
    with plans.made_beside([wanted], torch.device(gpu), 1):
        beside = plans._BESIDE[wanted.text].result()
    here = plans.made(wanted, 0)
    assert [*beside.plans] == [*here.plans] and here.plans


@pytest.mark.filterwarnings("error:cuDNN")
@pytest.mark.parametrize("number", range(plans.TRIED))
def test_what_the_plans_of_a_gpu_compute(
    number: int, gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, whichever is the fastest: each plan of each graph; and once more as it is read from the disk."""
    pytest.importorskip("cudnn")
    assert gpu.startswith("cuda")
    from tests.ssd import convolution_cases as cases  # needs Triton

    taken: list[str] = []

    def seconds(tried: dict[str, Any]) -> dict[str, float]:
        _, *names = tried
        assert names, "cuDNN has a plan of each of these"
        taken.append(names[min(number, len(names) - 1)])
        return {name: float(name != taken[-1]) for name in tried}

    monkeypatch.setattr(plans, "_seconds", seconds)
    monkeypatch.setattr(plans, "folder", lambda: tmp_path)
    for _ in range(2):
        monkeypatch.setattr(plans, "_CHOSEN", {})
        for geometry in ((3, 1, 1), (1, 1, 0)):
            cases.test_a_convolution_and_its_moments_against_float64(geometry, torch.bfloat16)
            cases.test_a_convolution_with_its_bias_and_a_relu_against_float64(geometry, torch.bfloat16)
            for readers in (1, 2):
                cases.test_a_sent_map_and_its_convolution_against_float64(geometry, readers, True, torch.bfloat16)
    assert len(taken) == len([*tmp_path.iterdir()]) == 10, "the second time nothing was chosen anew"
