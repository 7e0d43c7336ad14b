"""The session in contract order: warm-up leaves no trace, every precision trains, a restored state goes on bit for bit."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.detection.precision import candidates
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.folder import Folder
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context, Plain
from harness.execution import checkpoint
from tests.conftest import CHECKOUT, gpus
from tests.harness.execution.runs import complies, events, run
from tests.patience import PATIENCE_S
from tests.ssd import small
from tests.toy.configuration import write

pytestmark = pytest.mark.early


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _one_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as cuDNN has one: float32 in full, and algorithms that add in one order."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def opened(folder: Path, device: str = "cpu", every: int = 1, **tables: dict[str, Any]) -> SSDSession:
    tables_of_ssd: Any = config.parse(small.content(**tables), name="small", source="small").tables
    torch.manual_seed(5)
    return SSDSession(tables_of_ssd, Context(device=device, seed=5, data_dir=folder, threads=1, log_every_steps=every))


def losses(session: SSDSession, epoch: int, steps: int | None = None) -> list[float]:
    return [interval.loss for interval in session.train_epoch(epoch, steps)]


def same(expected: list[float], device: str) -> Any:
    """Of losses of the same steps: equal bits on a CPU; on a GPU a kernel may still add in any order, and batch norm over
    four pictures enlarges the difference with every step."""
    return expected if device == "cpu" else pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
def test_every_precision_trains_and_says_which_it_was(data: Path, precision: str, device: str) -> None:
    session = opened(data, device, compute={"precision": precision}, model=small.OF_32_PX)
    session.warm_up()
    session.load_data()
    found = losses(session, 1)
    assert len(found) == 3 and all(map(math.isfinite, found))
    assert 0 <= session.evaluate(1) <= 1
    properties = session.properties()
    assert properties["precision_requested"] == precision
    if precision == "auto":
        assert properties["precision"] in candidates(device)
        assert set(properties["precision_step_seconds"]) == set(candidates(device))  # type: ignore[arg-type]
    else:
        assert properties["precision"] == precision
    session.close()
    session.close()


def test_what_another_run_chose_is_not_measured_again(data: Path) -> None:
    content = small.content(compute={"precision": "auto"}, model=small.OF_32_PX)
    found: Any = config.parse(content, name="small", source="small").tables
    chosen: dict[str, Plain] = {"precision": "bf16", "threads": 1}
    session = SSDSession(found, Context(device="cpu", seed=5, data_dir=data, threads=2, chosen=chosen))
    session.warm_up()
    assert (session.precision, session.init.threads) == ("bf16", 1)
    assert session.init.precision_seconds == {} == session.init.threads_seconds
    assert session.chosen() == chosen, "for the run after this one"
    session.close()


@pytest.mark.parametrize("here", [Context(device="cpu"), Context(device="cuda:0", world_size=2)], ids=str)
def test_cuda_graphs_are_refused_where_they_have_not_been_made_for(here: Context) -> None:
    tables = config.parse(
        small.content(compute={"precision": "bf16", "cuda_graphs": True}), name="small", source="small"
    ).tables
    BENCHMARK.check(tables, Context(device="cuda:0"))
    with pytest.raises(ValueError, match="one accelerator under CUDA"):
        BENCHMARK.check(tables, here)


def test_what_is_cuda_s_alone_is_refused_elsewhere() -> None:
    tables = config.parse(small.content(compute={"autotune": "all"}), name="small", source="small").tables
    BENCHMARK.check(tables, Context(device="cuda:0"))
    with pytest.raises(ValueError, match=r"compute\.autotune = .* is for CUDA, and has no effect on cpu"):
        BENCHMARK.check(tables, Context(device="cpu"))


@pytest.mark.parametrize("backend", ["dali", pytest.param("torch", marks=pytest.mark.long)])
def test_the_timed_run_imports_nothing(data: Path, backend: str) -> None:
    """What load_data and an epoch need has been imported in init: DALI alone takes most of a second."""
    program = f"""
import sys
from pathlib import Path
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context, Plain
from tests.ssd import small
tables = config.parse(small.content(data={{"backend": {backend!r}}}), name="small", source="small").tables
session = SSDSession(tables, Context(device="cpu", seed=5, data_dir=Path({str(data)!r}), threads=1, log_every_steps=1))
session.warm_up()
before = set(sys.modules)
session.load_data()
list(session.train_epoch(1))
session.evaluate(1)
late = set(sys.modules) - before
packages = {{"nvidia.dali", "torchvision", "hotcoco", "pycocotools"}}  # DALI itself defers two small modules
print(sorted(name for name in late if name in packages or name.startswith("benchmarks.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("samples", "batch", "rank", "ranks", "sizes"),
    [(6, 4, 0, 1, {4, 2}), (6, 3, 0, 1, {3}), (6, 9, 0, 1, {6}), (7, 2, 0, 2, {2, 1}), (7, 2, 1, 2, {2})],
)
def test_warm_up_sees_every_shape_that_an_evaluation_has(  # noqa: PLR0917
    data: Path, monkeypatch: pytest.MonkeyPatch, samples: int, batch: int, rank: int, ranks: int, sizes: set[int]
) -> None:
    tables = config.parse(
        small.content(data={"eval_samples": samples}, evaluation={"batch_size": batch}), name="small", source="small"
    ).tables
    session = SSDSession(tables, Context(device="cpu", data_dir=data))
    here = Context(device="cpu", data_dir=data, rank=rank, world_size=ranks)
    monkeypatch.setattr(session, "folder", Folder(tables, here))
    monkeypatch.setattr(session, "train_step", lambda *_: torch.zeros(()))
    seen: list[int] = []
    monkeypatch.setattr(session, "detect", lambda images: seen.append(len(images)))
    session.warm_up()
    assert set(seen) == sizes and len(seen) == len(sizes)


def test_warm_up_leaves_no_trace(data: Path, device: str) -> None:
    cold, warm = opened(data, device), opened(data, device)
    warm.warm_up()
    random_numbers = torch.rand(3)
    torch.manual_seed(5)
    opened(data, device)
    assert torch.equal(random_numbers, torch.rand(3)), "random state is restored too"
    for (name, a), b in zip(cold.model.state_dict().items(), warm.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert warm.step == 0
    momenta = [each for state in warm.optimizer.state.values() for each in state.values() if each is not None]
    assert not any(each.any() for each in momenta)
    cold.load_data(), warm.load_data()
    assert losses(warm, 1) == same(losses(cold, 1), device), "no momentum of the synthetic steps is left"


def test_warm_up_measures_numbers_and_not_nan(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever learning rate the configuration has, to which a run warms up; and pictures that differ from each other."""
    session = opened(data, optimizer={"learning_rate": 1e12})
    found: list[float] = []
    step = session.train_step

    def told(images: torch.Tensor, *targets: torch.Tensor) -> torch.Tensor:
        assert not torch.equal(images[0], images[1]) and images.std() > 1
        loss = step(images, *targets)
        found.append(loss.item())
        return loss

    monkeypatch.setattr(session, "train_step", told)
    session.warm_up()
    assert len(found) >= 3 and found == pytest.approx([found[0]] * len(found), rel=1e-3)


def test_a_restored_state_goes_on_bit_for_bit(data: Path, tmp_path: Path, device: str) -> None:
    straight = opened(data, device)
    straight.load_data()
    losses(straight, 1)
    configuration = config.parse(small.content(), name="small", source="small")
    checkpoint.save(tmp_path, checkpoint.Checkpoint(1, 5, configuration.sha256, straight.state()))
    expected = losses(straight, 2)
    resumed = opened(data, device)
    resumed.load_data()
    resumed.restore(checkpoint.load(tmp_path, configuration).state)
    assert losses(resumed, 2) == same(expected, device)


@pytest.mark.parametrize(
    ("was", "now", "asked", "said"),
    [
        ("bf16", "fp32", "auto", """here it would be in fp32: go on in it with --chosen '{"precision": "bf16"}'"""),
        ("fp32", "bf16", "auto", """here it would be in bf16: go on in it with --chosen '{"precision": "fp32"}'"""),
        ("fp16", "bf16", "auto", "here it would be in bf16: cpu has no fp16: go on where it was trained"),
        ("bf16", "fp32", "fp32", "here it would be in fp32: --deterministic takes that: go on without it"),
    ],
)
def test_training_goes_on_in_the_number_format_it_began_in(
    data: Path, was: Any, now: Any, asked: str, said: str
) -> None:
    """It went on in another without a word, and to fp16 it was a RuntimeError of the loss scale's."""
    session = opened(data, compute={"precision": asked})
    session.load_data()
    session.init.precision = was
    state = session.state()
    assert state["chosen"] == ({"precision": was} if asked == "auto" else {}), "which the run that goes on takes"
    session.restore(state)
    session.init.precision = now
    with pytest.raises(ValueError, match=re.escape(f"the checkpoint is of training in {was}, and {said}")):
        session.restore(state)
    del state["precision"]
    session.restore(state)  # an older one
    session.close()


@pytest.mark.parametrize(("was", "here"), [("dali", "torch"), ("torch", "dali")])
def test_training_goes_on_in_the_data_path_it_began_in(data: Path, was: str, here: str) -> None:
    """Where "auto" took the other one it was a UnicodeDecodeError of the one, a failed assertion of the other."""
    before, after = (opened(data, data={"backend": each}) for each in (was, here))
    for each in (before, after):
        each.load_data()
    state = before.state()
    with pytest.raises(ValueError, match=f'data.backend = "{was}", and here "auto" takes "{here}"'):
        after.restore(state)
    before.restore(state)
    del state["data_backend"]
    before.restore(state)  # an older one
    for each in (before, after):
        each.close()


@pytest.mark.parametrize("fused", [True, None])
def test_how_the_optimizer_steps_is_not_the_checkpoint_s_matter(data: Path, fused: bool | None) -> None:
    """One that goes on elsewhere took a fused step, or left it out, against what was tried there."""
    session = opened(data)
    session.load_data()
    losses(session, 1)
    state = session.state()
    state["optimizer"]["param_groups"][0] |= {"fused": not fused, "momentum": 0.5}
    session.optimizer.param_groups[0]["fused"] = fused
    session.restore(state)
    (group,) = session.optimizer.param_groups
    assert (group["fused"], group["momentum"]) == (fused, 0.5)
    assert len(losses(session, 2)) == 3
    session.close()


def test_intervals_count_what_was_trained(data: Path) -> None:
    session = opened(data, every=2)
    session.load_data()
    intervals = list(session.train_epoch(1))
    assert [(each.steps, each.images) for each in intervals] == [(2, 8), (1, 4)]
    assert [each.learning_rate for each in intervals] == [0.0005, 0.001], (
        "of the last step: warm-up takes two from zero"
    )


@pytest.mark.parametrize("backend", ["dali", "torch"])
def test_the_first_steps_of_an_epoch_are_those_of_a_whole_one(data: Path, backend: str, device: str) -> None:
    straight, cut = (opened(data, device, data={"backend": backend}) for _ in range(2))
    assert straight.load_data().steps_per_epoch == cut.load_data().steps_per_epoch == 3
    losses(straight, 1), losses(cut, 1)
    expected = losses(straight, 2)
    assert losses(cut, 2, 2) == same(expected[:2], device)
    assert (straight.step, cut.step) == (6, 5), "not one more was trained"
    assert cut.panels(4) == [], "it was never evaluated"
    cut.close()


def test_the_last_of_the_first_steps_ends_an_interval(data: Path) -> None:
    session = opened(data, every=20)
    session.load_data()
    assert [(each.steps, each.images) for each in session.train_epoch(1, 2)] == [(2, 8)]


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("data", {"train_samples": 13}, r"found 12 images for train, the configuration says data\.train_samples = 13"),
        ("data", {"eval_samples": 5}, r"found 6 images for eval, the configuration says data\.eval_samples = 5"),
        ("model", {"categories": 4}, r"has 3 categories, the configuration says model\.categories = 4"),
    ],
)
def test_data_that_is_not_what_the_configuration_says(
    data: Path, table: str, change: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(data, **{table: change}).load_data()


def test_panels_and_fingerprint(data: Path, device: str) -> None:
    session = opened(data, device)
    session.load_data()
    before = session.fingerprint()
    session.evaluate(1)
    panels = session.panels(4)
    assert len(panels) == 4 and all(panel.ndim == 3 and panel.shape[2] == 3 for panel in panels)
    assert session.fingerprint() == before


def test_compiled_it_starts_as_it_does_uncompiled(data: Path, gpu: str) -> None:
    """With all that a configuration can ask of the compiler."""
    first = []
    parts = ["stem", "stem_convolution", "blocks", "convolutions", "loss", "weights"]
    everything: dict[str, Any] = {"compile": True, "stem": "space_to_depth", "fused": parts}
    with_graphs = {**everything, "cuda_graphs": True}
    for compute in ({}, everything, with_graphs):
        session = opened(data, gpu, compute={"precision": "bf16", **compute})
        session.warm_up()
        session.load_data()
        found = losses(session, 1)
        assert len(found) == 3 and all(map(math.isfinite, found))
        assert 0 <= session.evaluate(1) <= 1
        first.append(found[0])
    assert first == pytest.approx(first[:1] * 3, rel=2e-2), "bf16 keeps 8 bits of each product"


def test_trying_every_plan_on_a_gpu_trains_alike(data: Path, gpu: str) -> None:
    first = []
    for autotune in (True, "all"):
        compute = {"precision": "bf16", "stem": "space_to_depth", "autotune": autotune}
        session = opened(data, gpu, data={"backend": "dali"}, compute=compute)
        session.warm_up()
        session.load_data()
        found = losses(session, 1)
        assert len(found) == 3 and all(map(math.isfinite, found))
        assert 0 <= session.evaluate(1) <= 1
        session.close()
        first.append(found[0])
    assert first[1] == pytest.approx(first[0], rel=2e-2), "bf16 keeps 8 bits of each product"


def test_a_run_on_a_gpu_from_its_first_line_to_its_checkpoint(data: Path, tmp_path: Path, gpu: str) -> None:
    path = write(tmp_path, small.content(run={"device": "cuda"}))
    where = ("--data-dir", data, "--out", tmp_path, "--checkpoint-dir", tmp_path / "kept")
    finished = run(path, *where, "--max-steps", 4)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    found = {event["key"]: event["value"] for event in events(tmp_path / "result_0.txt")}
    assert torch.cuda.get_device_name(gpu) in str(found["hardware"])
    sampled = [json.loads(line) for line in (tmp_path / "telemetry_0.jsonl").read_text().splitlines()]
    assert sampled[0]["event"] == "begin" and sampled[-1]["event"] == "end"
    assert len(sampled[0]["gpus"]) == gpus()
    resumed = run(path, *where, "--resume")
    assert resumed.returncode == 1, resumed.stdout + resumed.stderr
    epochs = [e["metadata"]["epoch_num"] for e in events(tmp_path / "result_1.txt") if e["key"] == "epoch_start"]
    assert epochs == [2]


# 13 s of a processor on a CPU: two processes that each import torch, torchvision and DALI. The short form has two ranks of the
# toy's run (test_runs.py) and a session of SSD's over ranks that are forked (test_many_ranks.py)
@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_two_ranks_train_one_network_and_agree_on_one_map(data: Path, tmp_path: Path, device: str) -> None:
    if device != "cpu" and gpus() < 2:
        pytest.skip("two ranks of a run need two GPUs; test_two_ranks.py has two on one")
    finished = run(
        write(tmp_path, small.content(ranks=2, run={"device": device.partition(":")[0]})),
        "--data-dir",
        data,
        "--out",
        tmp_path,
        "--checkpoint-dir",
        tmp_path / "kept",
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    found = events(tmp_path / "result_0.txt")
    values = {event["key"]: event["value"] for event in found}
    assert (values["global_batch_size"], values["model_bn_span"]) == (4, 2)
    assert (values["train_samples"], values["eval_samples"]) == (12, 6)
    assert [event["key"] for event in found].count("init_start") == 2
    assert sum(event["key"] == "eval_accuracy" for event in found) == 1
    assert not complies(tmp_path / "result_0.txt"), "the target was not met"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, small.content())
    without = run(path, "--out", tmp_path)
    assert without.returncode == 2 and "name it with --data-dir or DATADIR" in without.stdout
    incomplete = run(path, "--out", tmp_path, "--data-dir", tmp_path)
    assert incomplete.returncode == 2 and "has no annotations/instances_train2017.json" in incomplete.stdout
