"""Two ranks of one session: equal weights after every step, and the same mAP, on the CPU and on one or two GPUs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context
from tests import forking
from tests.ssd import small
from tests.ssd.ranks import WORLD, joined


def as_rank(rank: int, folder: Path, device: str) -> None:
    """Train an epoch, evaluate, and write down the losses, the mAP and a digest of the weights."""
    here = joined(rank, folder, device)
    try:
        tables = config.parse(small.content(ranks=WORLD), name="small", source="small").tables
        context = Context(here, rank, rank, WORLD, seed=5, data_dir=folder, threads=1, log_every_steps=1)
        torch.manual_seed(context.rank_seed)
        session = SSDSession(tables, context)  # type: ignore[arg-type]
        session.warm_up()
        session.load_data()
        losses = [interval.loss for interval in session.train_epoch(1)]
        weights = torch.cat([each.detach().flatten().cpu() for each in session.model.parameters()])
        found = {
            "losses": losses,
            "mAP": session.evaluate(1),
            "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
            "moved": session.step,
        }
        (folder / f"rank{rank}.json").write_text(json.dumps(found))
        session.close()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_two_ranks_have_one_network(tmp_path: Path, device: str) -> None:
    small.folder(tmp_path)
    torch.multiprocessing.start_processes(as_rank, args=(tmp_path, device), nprocs=WORLD, start_method=forking.METHOD)
    one, other = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(WORLD))
    assert one["weights"] == other["weights"]
    assert one["mAP"] == other["mAP"]
    assert one["moved"] == other["moved"] == 3
    assert one["losses"] != other["losses"], "each has pictures of its own"
    assert one["losses"] == pytest.approx(other["losses"], rel=1.0)
