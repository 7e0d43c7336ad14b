"""recipes.toml against the published results that it was read off, and configurations that name a row of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ssd import recipes
from harness import config, config_files
from harness.config_files import ConfigError
from harness.contract import Context
from tests.conftest import CHECKOUT

FOLDER = CHECKOUT / "benchmarks/ssd/published"
# by the folder of the logs that the tests' data have, and the row
LOGS = {
    "v0.7/NVIDIA/results/dgx1_ngc20.06_pytorch": "960-0.0875-650",
    "v0.7/NVIDIA/results/dgx2h_ngc20.06_pytorch": "896-0.09-650",
    "v0.7/NVIDIA/results/dgxa100_ngc20.06_pytorch": "912-0.09-650",
    "v0.7/NVIDIA/results/dgxa100_n2_ngc20.06_pytorch": "896-0.09-650",
    "v0.7/Fujitsu/results/gx_V100x8_ngc20.06_pytorch": "960-0.0875-650",
    "v1.1/NVIDIA/results/dgxa100_ngc21.09_mxnet": "912-0.089974-642",
}


def published() -> dict[str, dict[str, Any]]:
    """Entries of the published tables by "round submitter system"."""
    tables = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    return {
        f"{table['round']} {each['submitter']} {each['system']}": each for table in tables for each in table["entries"]
    }


@pytest.mark.parametrize("name", recipes.read())
def test_a_row_is_what_its_entries_did(name: str) -> None:
    row, entries = recipes.read()[name], published()
    assert name == f"{row.global_batch}-{round(row.learning_rate, 6):.12g}-{row.warmup_steps}"
    if row.by[0].startswith("reference convergence point"):
        return
    epochs: Counter[int] = Counter()
    for each in row.by:
        assert entries[each]["global_batch"] == row.global_batch
        epochs.update(run["epochs"] for run in entries[each]["runs"])
    assert epochs == row.reached


def test_the_reference_s_points_are_those_of_the_installed_package() -> None:
    from mlperf_logging import rcp_checker

    folder = Path(rcp_checker.__file__).parent
    tables = [json.loads((folder / f"training_{ruleset}/rcps_ssd.json").read_text()) for ruleset in ("1.0.0", "1.1.0")]
    rows = {row.by[0].split()[3]: row for row in recipes.read().values() if row.by[0].startswith("reference")}
    assert rows.keys() == tables[1].keys()
    for name, row in rows.items():
        found = tables[1][name]
        base = tables[0].get(name, found)["Hyperparams"]["opt_base_learning_rate"]
        assert row.global_batch == found["BS"]
        assert row.learning_rate == pytest.approx(base * row.global_batch / 32)
        assert Counter(found["Epochs to converge"]) == row.reached
        assert list(row.decay_epochs) == found["Hyperparams"]["opt_learning_rate_decay_boundary_epochs"]
        assert row.weight_decay == found["Hyperparams"]["opt_weight_decay"]


@pytest.mark.parametrize("folder", LOGS)
def test_a_row_is_what_the_logs_say(test_data: Path, folder: str) -> None:
    row = recipes.read()[LOGS[folder]]
    logs = sorted((test_data / "mlperf-results" / folder / "ssd").glob("result_*.txt"))
    assert len(logs) == 5
    for log in logs:
        lines = [line.partition(":::MLLOG ")[2] for line in log.read_text(errors="replace").splitlines()]
        said = {event["key"]: event["value"] for line in lines if line for event in [json.loads(line)]}
        assert said["opt_base_learning_rate"] == pytest.approx(row.learning_rate)
        assert said["opt_learning_rate_warmup_steps"] == row.warmup_steps
        assert said["opt_learning_rate_warmup_factor"] == row.warmup_factor
        assert tuple(said["opt_learning_rate_decay_boundary_epochs"]) == row.decay_epochs
        assert said["opt_weight_decay"] == pytest.approx(row.weight_decay)
        assert (said["global_batch_size"], said["max_samples"]) == (row.global_batch, 1)
        assert said["model_bn_span"] in row.model_bn_span


def test_from_128_to_4096() -> None:
    batches = [row.global_batch for row in recipes.read().values()]
    assert batches == sorted(batches)
    assert {128, 256, 456, 512, 896, 912, 960, 1024, 1140, 1536, 2048, 3072, 4096} == set(batches)


def raw(**optimizer: Any) -> dict[str, Any]:
    found = config_files.read_toml(config_files.find("DGXA100_1x8x114"))
    return {**found, "optimizer": {"batch_size": 114, **optimizer}}


def load(**optimizer: Any) -> config.Configuration:
    return config.parse(raw(**optimizer), name="x", source="x.toml")


WRITTEN_OUT = {"learning_rate": 0.09, "weight_decay": 1.3e-4, "warmup_steps": 650, "decay_epochs": [44, 55]}


def test_a_recipe_means_what_it_says_written_out() -> None:
    named, written = load(recipe="912-0.09-650"), load(**WRITTEN_OUT)
    assert named.resolved == written.resolved
    assert named.sha256 == written.sha256 == load(recipe="912-0.09-650", **WRITTEN_OUT).sha256
    assert config.parse(named.resolved, name="x", source="x").sha256 == named.sha256


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ({"recipe": "912-0.09-650", "learning_rate": 0.1}, "learning_rate = 0.1: recipe 912-0.09-650 says 0.09"),
        (
            {"recipe": "912-0.09-650", "decay_epochs": [40, 50]},
            "decay_epochs = (40, 50): recipe 912-0.09-650 says (44, 55)",
        ),
        ({"recipe": "912"}, "recipe = '912': no such recipe is published; there are: 912-0.089974-642, 912-0.09-650"),
        ({"recipe": "1"}, "no such recipe is published; there are: 128-0.0114-4809, 256-"),
        ({"recipe": 912}, "no such recipe"),
    ],
)
def test_what_is_not_the_recipe_is_refused(optimizer: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**optimizer)
    assert said in str(refused.value)


def test_a_recipe_is_for_its_own_global_batch_alone() -> None:
    found = load(recipe="912-0.09-650")
    with pytest.raises(
        ValueError, match=r"is for a global batch of 912, .* on 4 accelerators makes 456; a recipe is never scaled"
    ):
        found.benchmark.check(found.tables, Context(device="cuda:0", world_size=4, initial_weights=Path("some.pth")))


CLUSTERS = [
    path.stem
    for path in config_files.available().values()
    if path.parent.name == "ssd" and path.stem.startswith(("DGXA100_", "DGXH100_")) and "_1x8x" not in path.stem
]


def test_there_are_configurations_of_clusters() -> None:
    nodes = sorted((name.split("_")[0], int(name.split("_")[1].split("x")[0])) for name in CLUSTERS)
    assert nodes == [(machine, count) for machine in ("DGXA100", "DGXH100") for count in (2, 4, 8, 16, 64)]


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_s_configuration_is_a_published_recipe(name: str) -> None:
    found = config.load(config_files.FOLDER / "ssd" / f"{name}.toml")
    tables: Any = found.tables
    nodes, accelerators, batch = map(int, name.rsplit("_", 1)[1].split("x"))
    assert (found.run.nodes, found.run.accelerators_per_node, tables.optimizer.batch_size) == (
        nodes,
        accelerators,
        batch,
    )
    row = recipes.named(tables.optimizer.recipe)
    assert row.global_batch == batch * found.run.world_size
    span = batch * tables.model.batch_norm_ranks
    assert span in row.model_bn_span, "batch norm over as many images as published"
    assert max(row.reached) <= found.run.epochs
    assert found.submission.platform.startswith(f"{found.run.world_size}x NVIDIA {name[3:7]}")
