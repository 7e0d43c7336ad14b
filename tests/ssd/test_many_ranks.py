"""1, 2, 4 and 8 ranks by gloo on this CPU: one mAP to the last digit, one gradient, and batch norm over groups of ranks.

Each rank is a process forked from one that has imported everything, so that eight of them take little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.detection.gradients import averaged
from benchmarks.detection.quality import evaluation
from benchmarks.ssd import group_batch_norm
from benchmarks.ssd.session import SSDSession
from harness import config, config_files
from harness.contract import COLLECTIVE_TIMEOUT, Context, NotSuitable
from tests.forking import FORKING
from tests.ssd import coco_folder, small
from tests.ssd.coco_folder import Picture
from tests.ssd.test_data import reds, source, train

WORLDS = (1, 2, 4, 8)
IMAGES = 16  # of a global batch, and of an evaluation
Job = Callable[[int, int, Path], Any]


def run(world: int, job: Job, folder: Path) -> list[Any]:
    """What `job(rank, world, folder)` returns on each rank."""
    place = folder / f"world{world}"
    place.mkdir()
    ranks = [FORKING.Process(target=_rank, args=(job, rank, world, folder, place)) for rank in range(world)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    assert [each.exitcode for each in ranks] == [0] * world
    return [torch.load(place / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(job: Job, rank: int, world: int, folder: Path, place: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=world)
    torch.save(job(rank, world, folder), place / f"{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


# --- the same work, whatever the number of ranks -----------------------------------------------------------------------


def session(rank: int, world: int, folder: Path, **tables: dict[str, Any]) -> SSDSession:
    content = small.content(ranks=world, optimizer={"batch_size": IMAGES // world}, **tables)
    content["data"] |= {"train_samples": IMAGES, "eval_samples": IMAGES, "backend": "torch"}
    content["optimizer"]["batch_size"] = IMAGES // world
    tables_of = config.parse(content, name="small", source="small").tables
    context = Context("cpu", rank, rank, world, seed=5, data_dir=folder, threads=1, log_every_steps=1)
    torch.manual_seed(7)  # weights are rank 0's with DDP, and here every world's
    return SSDSession(tables_of, context)  # type: ignore[arg-type]


def evaluated(rank: int, world: int, folder: Path) -> dict[str, Any]:
    here = session(rank, world, folder)
    with torch.no_grad():  # so that some boxes are found: untrained, all scores are alike
        for head in here.model.heads:
            head.conv.weight.mul_(3)  # type: ignore[union-attr, operator]
    here.load_data()
    before = torch.get_rng_state().clone()
    quality = here.evaluate(1)
    seen = [int(each) for batch in here.evaluation.batches for each in batch["image_ids"].flatten()]
    trained = [len(batch["images"]) for batch in here.train_data]
    here.close()
    return {"mAP": quality, "seen": seen, "batches": trained, "unmoved": torch.equal(before, torch.get_rng_state())}


def gradients(rank: int, world: int, folder: Path) -> dict[str, Tensor]:
    """Of the detection loss over one global batch, each rank with its part of it; float64, batch norm frozen."""
    here = session(rank, world, folder)
    model = here.model.double()
    network: nn.Module = averaged(model, here.settings.compute, here.phases) if world > 1 else model
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    make = torch.Generator().manual_seed(3)
    images = torch.randn(IMAGES, 3, 64, 64, generator=make, dtype=torch.float64)
    labels = torch.randint(0, 40, (IMAGES, len(here.default_boxes)), generator=make)
    labels = torch.where(labels > 3, 0, labels)
    offsets = torch.randn(IMAGES, len(here.default_boxes), 4, generator=make, dtype=torch.float64)
    mine = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    here.detection_loss(*network(images[mine]), labels[mine], offsets[mine]).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    ids = (3, 1, 7)
    for half in ("train2017", "val2017"):
        pictures = [
            Picture(15 * i, [(4 + i, 5, 20 + i, 24, ids[i % 3]), (30, 12 + i, 28, 18, ids[(i + 1) % 3])])
            for i in range(1, IMAGES + 1)
        ]
        coco_folder.write(path, pictures, categories=ids, half=half)
    return path


@pytest.mark.long
def test_the_same_map_to_the_last_digit_and_each_image_once(sixteen: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").symlink_to(sixteen / "annotations")
    for half in ("train2017", "val2017"):
        (tmp_path / half).symlink_to(sixteen / half)
    found = {world: run(world, evaluated, tmp_path) for world in WORLDS}
    qualities = {each["mAP"] for ranks in found.values() for each in ranks}
    assert len(qualities) == 1 and 0 < min(qualities) < 1, qualities
    for world, ranks in found.items():
        seen = list(chain.from_iterable(each["seen"] for each in ranks))
        assert seen == list(range(1, IMAGES + 1)), "the shards in the file's order"
        assert [each["batches"] for each in ranks] == [[IMAGES // world]] * world
        assert all(each["unmoved"] for each in ranks), "an evaluation draws no random number"


def gradients_are_those_of_one_rank(job: Job, worlds: Sequence[int], place: Path, bound: float) -> None:
    """Those that `job` returns on every rank of each world, against one rank's of the whole batch; relative to the largest."""
    one, *more = worlds
    whole, *_ = run(one, job, place)
    for world in more:
        for rank, parts in enumerate(run(world, job, place)):
            assert parts.keys() == whole.keys()
            for name, gradient in whole.items():
                worst = (parts[name] - gradient).abs().max() / gradient.abs().max()
                assert worst < bound, f"{world} ranks, rank {rank}: {name} is off by {worst:.1e}"


@pytest.mark.long
def test_the_gradient_of_all_ranks_is_that_of_one_with_the_whole_batch(sixteen: Path, tmp_path: Path) -> None:
    gradients_are_those_of_one_rank(gradients, WORLDS, tmp_path, 1e-12)


@pytest.mark.parametrize("backend", ["dali", "torch"])
def test_an_epoch_has_the_same_images_once_whatever_the_number_of_ranks(sixteen: Path, backend: str) -> None:
    half = coco_folder.Folder(sixteen, sixteen / "train2017", sixteen / "annotations" / "instances_train2017.json")
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    expected: list[int] = []
    for world in WORLDS:
        ranks = [train(source(half, 2, shard=rank, shards=world, backend=backend), seed=rank) for rank in range(world)]
        for _ in range(2):
            epoch = sorted(chain.from_iterable(reds(each) for each in ranks))
            assert len(set(epoch)) == len(epoch) == IMAGES
            expected = expected or epoch
            assert epoch == expected


# --- rows of detections, from rank to rank -----------------------------------------------------------------------------


def gathered(rank: int, world: int, folder: Path) -> Any:
    """As many rows as the rank's number: rank 0 has none."""
    here = evaluation.Evaluation(None, None, None, "hotcoco", world, rank, None)  # type: ignore[arg-type]
    mine = torch.arange(7 * rank, dtype=torch.float64).reshape(rank, 7).numpy() + 1 / 3 + 2.0**40 * rank
    ids = torch.full((rank,), 2**31 - 1 - rank, dtype=torch.int64).numpy()
    return np.concatenate(here._all_ranks(mine)), np.concatenate(here._all_ranks(ids)), mine


def test_rows_travel_as_tensors_and_arrive_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(4, gathered, tmp_path)
    rows, ids, _ = found[0]
    assert rows.tolist() == [row for _, _, mine in found for row in mine.tolist()]
    assert ids.tolist() == [2**31 - 1 - rank for rank in range(4) for _ in range(rank)] and ids.dtype == "int64"
    source = Path(evaluation.__file__).read_text()
    assert "_object" not in source, "no pickling of a rank's rows"


# --- batch norm over a group of ranks ----------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers).double()


def images() -> Tensor:
    """(IMAGES, 3, 9, 9), whose mean and spread differ from image to image."""
    make = torch.Generator().manual_seed(2)
    spread = torch.linspace(0.5, 4, IMAGES, dtype=torch.float64)[:, None, None, None]
    return torch.randn(IMAGES, 3, 9, 9, generator=make, dtype=torch.float64) * spread + spread


def loss_of(out: Tensor) -> Tensor:
    return (
        (out * torch.linspace(-1, 1, out.numel() // len(out), dtype=out.dtype).reshape(out.shape[1:])).square().mean()
    )


def spans(rank: int, world: int, folder: Path) -> dict[int, dict[str, Any]]:
    """With groups of 1, 2, 4 and 8 ranks: output, gradients and running statistics of this rank."""
    found = {}
    for ranks in WORLDS:
        model = network()
        group_batch_norm.share(model, world, ranks)
        wrapped = DistributedDataParallel(model, static_graph=True, broadcast_buffers=False)
        mine = images()[rank * IMAGES // world : (rank + 1) * IMAGES // world].requires_grad_()
        out = wrapped(mine)
        loss_of(out).backward()
        assert mine.grad is not None
        gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
        found[ranks] = {
            "out": out.detach(), "input": mine.grad, "gradients": gradients, "state": model.state_dict(),
            "evaluated": model.eval()(images()).detach(),
        }  # fmt: skip
    return found


@pytest.mark.long
def test_group_batch_norm_is_that_of_one_process_with_the_groups_batch(tmp_path: Path) -> None:
    world = 8
    found = run(world, spans, tmp_path)
    for ranks in WORLDS:
        share = IMAGES // world * ranks  # images of a group
        groups = []
        for first in range(0, IMAGES, share):
            model, batch = network(), images()[first : first + share].requires_grad_()
            out = model(batch)
            loss_of(out).backward()
            groups.append((model, batch, out.detach()))
        mean = {
            name: sum(dict(model.named_parameters())[name].grad for model, *_ in groups) / len(groups)
            for name, _ in groups[0][0].named_parameters()
        }
        for rank, each in enumerate(found):
            model, batch, out = groups[rank // ranks]
            place = slice(rank % ranks * IMAGES // world, (rank % ranks + 1) * IMAGES // world)
            close(each[ranks]["out"], out[place])
            close(each[ranks]["input"], batch.grad[place] * ranks)  # its loss is the mean over 1/ranks of the images
            for name, gradient in each[ranks]["gradients"].items():
                close(gradient, mean[name])
            for name, value in model.state_dict().items():
                close(each[ranks]["state"][name], value)
            close(each[ranks]["evaluated"], model.eval()(images()))


def close(found: Tensor, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def patience(rank: int, world: int, folder: Path) -> Any:
    """How long batch norm's group waits for another rank, and whether the harness is told that it does."""
    here = session(rank, world, folder, model={"batch_norm_ranks": world})
    group = next(each.group for each in here.model.modules() if isinstance(each, group_batch_norm.GroupBatchNorm2d))
    return group._get_backend(torch.device("cpu")).options._timeout, here.properties().get("ranks_meet_in_step")


def test_batch_norms_group_waits_as_long_as_the_worlds(tmp_path: Path) -> None:
    """By PyTorch's own 10 minutes with NCCL it gave a run up before the watchdog could name the rank that hangs."""
    assert run(2, patience, tmp_path) == [(COLLECTIVE_TIMEOUT, True)] * 2


def test_a_session_with_shared_batch_norm(tmp_path: Path, sixteen: Path) -> None:
    one = {"model": {"batch_norm_ranks": 4}}
    content = small.content(ranks=4, **one)
    content["optimizer"]["batch_size"] = 2
    tables = config.parse(content, name="small", source="small").tables
    from benchmarks.ssd.benchmark import BENCHMARK

    for world in (2, 6):
        with pytest.raises(ValueError, match=rf"batch_norm_ranks = 4 does not divide the {world} accelerators"):
            BENCHMARK.check(tables, Context("cpu", world_size=world))
    with pytest.raises(config_files.ConfigError, match="batch_norm_ranks = 4 sums over ranks inside batch norm"):
        config.parse(small.content(compute={"compile": True}, **one), name="small", source="small")
    with pytest.raises(config_files.ConfigError, match='has no effect with all_reduce = "delayed"'):
        config.parse(small.content(compute={"all_reduce": "delayed", "bucket_mb": 5}), name="small", source="small")


def test_a_loss_over_the_whole_batch_is_one_ranks() -> None:
    """Each divided by its own boxes: where those were unlike, the gradient was another than one rank's."""
    from benchmarks.ssd.benchmark import BENCHMARK

    tables = config.parse(small.content(optimizer={"loss_over": "batch"}), name="small", source="x").tables
    BENCHMARK.check(tables, Context("cpu"))
    with pytest.raises(
        ValueError, match=r'loss_over = "batch" divides .* of the 2 accelerators .* say loss_over = "image"'
    ):
        BENCHMARK.check(tables, Context("cpu", world_size=2))


def test_more_ranks_than_images_are_refused_before_anything_is_read() -> None:
    from benchmarks.ssd.benchmark import BENCHMARK

    tables = config.parse(small.content(data={"train_samples": 64, "eval_samples": 4}), name="small", source="x").tables
    size = tables.optimizer.batch_size  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"data\.train_samples = 64.*an epoch would have no step"):
        BENCHMARK.check(tables, Context("cpu", world_size=64 // size + 1))
    with pytest.raises(ValueError, match=r"data\.eval_samples = 4 is less than the 5 accelerators"):
        BENCHMARK.check(tables, Context("cpu", world_size=5))


def too_large(rank: int, world: int, folder: Path) -> str:
    """What init says of a batch that does not fit in fp32."""
    here = session(rank, world, folder, compute={"precision": "auto"})

    def forward_loss(*_: Tensor) -> Tensor:
        assert here.precision == "fp32", "no other format is tried"
        raise torch.OutOfMemoryError("CUDA out of memory")

    here.forward_loss = forward_loss
    try:
        here.warm_up()
    except NotSuitable as error:
        return str(error)
    return "went on"


def test_several_ranks_go_on_to_no_other_format_from_one_that_does_not_fit(tmp_path: Path) -> None:
    """DDP averaged nothing after a backward pass that was broken off, and each rank trained a network of its own."""
    for said in run(2, too_large, tmp_path):
        assert 'instead of compute.precision = "auto" name one, "bf16", or take a smaller' in said


def stepped(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Three steps on synthetic pictures under each way of summing gradients."""
    found: dict[str, Any] = {}
    for name, compute in (
        ("overlapped", {}), ("small", {"bucket_mb": 1}), ("delayed", {"all_reduce": "delayed"}), ("shared", {}),
    ):  # fmt: skip
        here = session(
            rank, world, folder, compute=compute, model={"batch_norm_ranks": world if name == "shared" else 1}
        )
        make = torch.Generator().manual_seed(rank)
        size, boxes = IMAGES // world, len(here.default_boxes)
        labels = torch.randint(0, 4, (size, boxes), generator=make, dtype=torch.int32)
        for _ in range(3):
            here.train_step(
                torch.randn(size, 3, 64, 64, generator=make), labels, torch.randn(size, boxes, 4, generator=make)
            )
        sums = here.phases.seconds()
        assert "all_reduce_wait" in sums
        weights = torch.cat([each.detach().flatten() for each in here.model.parameters()])
        found[name] = {"weights": weights, "span": here.hyperparameters()["model_bn_span"]}
    return found


@pytest.mark.long
def test_how_gradients_are_summed_changes_no_weight(tmp_path: Path) -> None:
    one, other = run(2, stepped, tmp_path)
    for name in one:
        assert torch.equal(one[name]["weights"], other[name]["weights"]), name
    for name in ("small", "delayed"):
        torch.testing.assert_close(one[name]["weights"], one["overlapped"]["weights"], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one["shared"]["weights"], one["overlapped"]["weights"], rtol=1e-5, atol=1e-6)
    assert (one["overlapped"]["span"], one["shared"]["span"]) == (8, 16)
