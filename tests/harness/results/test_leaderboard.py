"""Grouping, ranking, and the published tables against their sources."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.names import accelerator_family, accelerator_model, same_accelerator
from harness.results.reporting import published as report_published
from harness.results.reporting.leaderboard import Row, build, spread, width_note
from harness.results.score import score
from harness.results.series import find_series

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

# Round v0.7, all 20 entries: submitter and system, accelerators, global batch, minutes, images/s. Computed by MLPerf's own
# result_summarizer (mlperf-logging 4.1.68) and, for the images/s, by another reader of the same logs; None where the logs
# could not be read.
V07 = {
    ("DellEMC", "C4140"): (4, 512, 43.8716, 2280),
    ("DellEMC", "2xC4140"): (8, 1024, 22.6681, 4415),
    ("DellEMC", "4xC4140"): (16, 896, 12.4398, 8047),
    ("DellEMC", "DSS8440"): (8, 1024, 25.3651, 3952),
    ("Fujitsu", "gx_V100x8_ngc20.06_pytorch"): (8, 960, 20.3961, 4883),
    ("Google", "tpu-v3-4096-JAX"): (2048, 4096, 0.5468, None),  # blocks pooled in the one, by run in the other
    ("Google", "tpu-v3-8192-TF"): (4096, 4096, 0.4622, 487998),
    ("Google", "tpu-v4-16-TF"): (8, 1024, 8.6847, 11357),
    ("Google", "tpu-v4-128-TF"): (64, 1024, 1.4342, 73873),
    ("Google", "tpu-v4-512-TF"): (256, 2048, 1.0553, 146181),
    ("Inspur", "nf5488_pytorch"): (8, 912, 10.4822, 9563),
    ("NVIDIA", "dgx1_ngc20.06_pytorch"): (8, 960, 20.6900, 4811),
    ("NVIDIA", "dgx2h_ngc20.06_pytorch"): (16, 896, 9.6549, 10499),
    ("NVIDIA", "dgx2h_n4_ngc20.06_pytorch"): (64, 1536, 3.9344, 32084),
    ("NVIDIA", "dgx2h_n64_ngc20.06_mxnet"): (1024, 2048, 1.1350, 120955),
    ("NVIDIA", "dgxa100_ngc20.06_pytorch"): (8, 912, 10.2148, 9818),
    ("NVIDIA", "dgxa100_n2_ngc20.06_pytorch"): (16, 896, 5.6779, 17944),
    ("NVIDIA", "dgxa100_n8_ngc20.06_mxnet"): (64, 1536, 2.2496, 54391),
    ("NVIDIA", "dgxa100_n64_ngc20.06_mxnet"): (512, 2048, 0.8914, 153289),
    ("NVIDIA", "dgxa100_n128_ngc20.06_mxnet"): (1024, 2048, None, None),
}
LATER = {
    ("1.0.0", "NVIDIA", "dgxa100_ngc21.05_mxnet"): (8, 912, 8.5207, 11861),
    ("1.0.0", "NVIDIA", "dgxa100_n8_ngc21.05_mxnet"): (64, 1536, 1.8990, 69553),
    ("1.0.0", "NVIDIA", "dgxa100_n128_ngc21.05_mxnet"): (1024, 3072, 0.4837, 366456),
    ("1.1.0", "NVIDIA", "dgxa100_ngc21.09_mxnet"): (8, 912, 8.2583, 12208),
    ("1.1.0", "NVIDIA", "dgxa100_n8_ngc21.09_mxnet"): (64, 1536, 1.5239, 76345),
    ("1.1.0", "NVIDIA", "dgxa100_n128_ngc21.09_mxnet"): (1024, 3072, 0.4542, 378277),
    ("1.1.0", "Inspur", "nf5488a5_mxnet"): (8, 912, 7.9792, None),
    ("1.1.0", "Supermicro", "SYS-420GP-TNAR"): (8, 912, 8.0152, 12652),
}
# RetinaNet: olympic means of run_stop - run_start by another reader of the logs, times the submission's scaling.json. One of
# each kind: a TPU, a processor, another framework with a run that did not end, scaled ones, the largest, and a preview.
LATER |= {
    ("2.0.0", "Google", "cloud-tpu-v4-4096-TF"): (2048, 2048, 2.3429, None),
    ("2.0.0", "NVIDIA", "dgxa100_ngc22.04_pytorch"): (8, 256, 84.3971, None),
    ("2.1.0", "NVIDIA", "dgxh100_preview"): (8, 256, 38.0501, None),
    ("3.0.0", "Intel", "16-nodes-SPR-pytorch"): (None, 256, 232.4046, None),
    ("3.1.0", "NVIDIA", "eos_n256_ngc23.09_pytorch"): (2048, 2048, 0.9193, None),
    ("4.0.0", "NVIDIA", "eos_n316_ngc24.04_pytorch"): (2528, 2528, 0.7780, None),
    ("4.1.0", "NVIDIA", "b200_preview_pytorch"): (8, 256, 22.5125, None),
    ("5.0.0", "tinycorp", "tinybox_green"): (6, 96, 803.5947, None),
    ("5.1.0", "NVIDIA", "tyche_ngpu512_ngc25.04_pytorch"): (512, 1024, 1.3883, None),
}
SSD = "SSD300 on COCO 2017"
RETINANET = ("2.0.0", "2.1.0", "3.0.0", "3.1.0", "4.0.0", "4.1.0", "5.0.0", "5.1.0")


def published(ruleset: str) -> dict[tuple[str, str], Row]:
    return {(row.submitter, row.system): row for row in report_published.rows() if row.ruleset == ruleset}


def made(**changes: object) -> Row:
    """Some row, changed."""
    return published("0.7.0")["NVIDIA", "dgxa100_ngc20.06_pytorch"].model_copy(update=changes)


# --- what was published ------------------------------------------------------------------------------------------------


def test_round_07_has_its_twenty_entries_with_their_scores() -> None:
    rows = published("0.7.0")
    assert set(rows) == set(V07)
    for key, (accelerators, batch, minutes, images_per_s) in V07.items():
        row = rows[key]
        assert (row.accelerators, row.global_batch, row.minutes) == (accelerators, batch, minutes), key
        if images_per_s is not None:
            assert row.images_per_s == pytest.approx(images_per_s, rel=1e-3), key


@pytest.mark.parametrize("key", LATER)
def test_later_rounds_have_their_anchors(key: tuple[str, str, str]) -> None:
    ruleset, submitter, system = key
    accelerators, batch, minutes, images_per_s = LATER[key]
    row = published(ruleset)[submitter, system]
    assert (row.accelerators, row.global_batch, row.minutes) == (accelerators, batch, minutes)
    if images_per_s is not None:
        assert row.images_per_s == pytest.approx(images_per_s, rel=1e-4)


def test_every_published_row_says_that_it_is_not_ours_and_where_it_is_from() -> None:
    rows = report_published.rows()
    ssd, retinanet = 20 + 22 + 26, 27 + 23 + 35 + 29 + 31 + 26 + 39 + 23
    assert Counter(row.task for row in rows) == {SSD: ssd, "RetinaNet on OpenImages": retinanet}
    for row in rows:
        assert row.origin == "published"
        assert row.source is not None
        assert row.source.startswith("https://github.com/mlcommons/training_results_v")
        assert row.system.replace(" ", "%20") in row.source
        assert any("not measured by this project" in text for each in row.sections for _, text in each.facts)


@pytest.mark.parametrize(
    "folder, ruleset",
    [
        ("v0.7/NVIDIA/results/dgx1_ngc20.06_pytorch", "0.7.0"),
        ("v0.7/NVIDIA/results/dgx2h_ngc20.06_pytorch", "0.7.0"),
        ("v0.7/NVIDIA/results/dgxa100_ngc20.06_pytorch", "0.7.0"),
        ("v0.7/NVIDIA/results/dgxa100_n2_ngc20.06_pytorch", "0.7.0"),
        ("v0.7/Fujitsu/results/gx_V100x8_ngc20.06_pytorch", "0.7.0"),
        ("v1.1/NVIDIA/results/dgxa100_ngc21.09_mxnet", "1.1.0"),
    ],
)
def test_published_runs_are_what_their_logs_say(test_data: Path, folder: str, ruleset: str) -> None:
    """The data that ships with the page, against this project's own reader of logs."""
    path = test_data / "mlperf-results" / folder
    row = published(ruleset)[path.parent.parent.name, path.name]
    [series] = find_series([path])
    assert row.minutes == score(series).minutes
    assert [run.name for run in row.runs] == [Path(record.path).name for record in series.records]
    for run, record in zip(row.runs, series.records, strict=True):
        assert run.minutes == pytest.approx(record.minutes, abs=1e-9)
        assert run.epochs == record.epochs_run
        assert run.images_per_s == pytest.approx(record.images_per_s, rel=1e-4)
        assert run.quality == pytest.approx(record.accuracy, abs=1e-5)
        assert [each.epoch for each in run.evaluations] == [each.epoch for each in record.evaluations]


# --- grouping and ranks -------------------------------------------------------------------------------------------------


def test_rows_share_a_group_only_where_all_that_matters_agrees() -> None:
    rows = [
        made(id="a", minutes=10.0),
        made(id="b", minutes=9.0),
        made(id="c", global_batch=456),
        made(id="d", accelerators=16),
        made(id="e", ruleset="1.0.0"),
        made(id="f", accelerator="H100 80GB HBM3"),
        made(id="g", benchmark="toy"),
        made(id="h", demonstration=True, unofficial=("demonstration data",)),
    ]
    groups = [[row.id for row in group.rows] for group in build(rows, generated=NOW).groups]
    assert ["b", "a"] in groups
    assert sorted(groups, key=str) == sorted([["b", "a"], ["c"], ["d"], ["e"], ["f"], ["g"], ["h"]], key=str)
    assert groups[-1] == ["h"]  # a demonstration, after all that can be compared


def test_an_unofficial_row_has_no_rank_however_fast_it_is() -> None:
    rows = [
        made(id="slow", minutes=11.0),
        made(id="open", minutes=1.0, unofficial=("division open",)),
        made(id="fast", minutes=10.0),
        made(id="no-score", minutes=None),
    ]
    [group] = build(rows, generated=NOW).groups
    assert [(row.id, row.rank) for row in group.rows] == [("fast", 1), ("slow", 2), ("no-score", None), ("open", None)]


def test_rows_of_one_time_share_their_rank() -> None:
    """By its name one of two equal systems was the first of its class and the other the second."""
    times = {"b": 10.0, "a": 10.0, "c": 10.5, "d": 9.0, "e": 10.5}
    [group] = build([made(id=each, minutes=minutes) for each, minutes in times.items()], generated=NOW).groups
    assert {row.id: (row.rank, row.group_rank) for row in group.rows} == {
        "d": (1, 1), "a": (2, 2), "b": (2, 2), "c": (4, 4), "e": (4, 4),
    }  # fmt: skip
    assert {row.rank_of for row in group.rows} == {5}


def test_a_row_is_ranked_in_its_round_and_class() -> None:
    """Of the 68 published rows of SSD few are alone in their class; alone in their group 45 were."""
    board = build((row for row in report_published.rows() if row.task == SSD), generated=NOW)
    assert {row.size for row in board.rows} == {"2 to 8", "9 to 64", "65 to 512", "over 512"}
    firsts = [row for row in board.rows if row.rank == 1]
    assert len(firsts) == len({row.ranked_with for row in board.rows}) == 10
    best = next(row for row in board.rows if row.ruleset == "0.7.0" and row.size == "2 to 8" and row.rank == 1)
    assert (best.system, best.rank_of, best.group_rank) == ("tpu-v4-16-TF", 8, 1)


def test_what_is_looked_for_comes_first() -> None:
    rows = [
        *report_published.rows(),
        made(id="ours", origin="measured", minutes=50.0),
        made(id="d", demonstration=True),
    ]
    sections = build(rows, generated=NOW).sections
    assert [name for name, _ in sections] == [
        *(f"{SSD}: {what}" for what in ("measured here", "ruleset 1.1.0", "ruleset 1.0.0", "ruleset 0.7.0")),
        *(f"RetinaNet on OpenImages: ruleset {each}" for each in reversed(RETINANET)),
        "Demonstrations, comparable with nothing else",
    ]
    without = build(report_published.rows(), generated=NOW).sections
    assert [name.rpartition(" ")[2] for name, _ in without] == [*reversed(RETINANET), "1.1.0", "1.0.0", "0.7.0"]


def test_runs_that_lie_far_apart_have_a_note() -> None:
    row = published("0.7.0")["Google", "tpu-v3-8192-TF"]
    assert row.note is not None and "lie far apart, from 0.4" in row.note and "CV 22" in row.note


def test_minutes_are_no_power_of_ten() -> None:
    """Of a clock that was set a year on: "from 3.443 to 5.76e+05 minutes"."""
    assert "from 3.443 to 576,000 minutes" in (width_note(spread([3.44321, 5.1, 576_005.12])) or "")


def test_one_model_by_any_of_its_names() -> None:
    assert same_accelerator("8x NVIDIA V100-SXM2-16GB", "Tesla V100-SXM2-16GB")
    assert not same_accelerator("8x Iluvatar BI-V100", "Tesla V100-SXM2-16GB")
    assert not same_accelerator("A100-SXM4-80GB", "H100 80GB HBM3")
    assert [accelerator_family(each) for each in ("A100-SXM4-40GB", "TPU v4", "")] == ["A100", "TPU v4", ""]


def test_ids_are_unique_and_fit_for_html() -> None:
    rows = [made(id="A b/c"), made(id="a-b-c"), made(id="a--b  c"), made(id="<>")]
    ids = [row.id for row in build(rows, generated=NOW).rows]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"(a-b-c|row)-[0-9a-f]{6}", each) for each in ids)
    fewer = [row.id for row in build(rows[:2], generated=NOW).rows]
    assert set(fewer) < set(ids), "a link to a row stays what it is when others come or go"


def test_spread_knows_what_one_run_cannot_tell() -> None:
    assert spread([]) is None
    assert spread([None]) is None
    one = spread([2.0, None])
    assert one is not None
    assert (one.n, one.minimum, one.maximum, one.cv) == (1, 2.0, 2.0, None)
    three = spread([9.0, 10.0, 11.0])
    assert three is not None
    assert three.cv == pytest.approx(0.1)


@pytest.mark.parametrize(
    "reported, name",
    [
        ("NVIDIA A100-SXM4-40GB (400W)", "A100-SXM4-40GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2-16GB"),
        ("Nvidia Tesla V100", "V100"),
        ("NVIDIA A100-PCIE-40GB (250W)", "A100-PCIe-40GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB HBM3"),
        ("Iluvatar BI-V100", "Iluvatar BI-V100"),
        ("A100-SXM-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-SXM-80 GB (500W)", "A100-SXM4-80GB"),
        ("Tesla V100-SXM3-32GB", "V100-SXM3-32GB"),
        ("Intel(R) Xeon(R) Platinum 8490H", "Xeon Platinum 8490H"),
        ("NVIDIA GeForce RTX(TM) 4090", "GeForce RTX 4090"),
        ("", "unknown"),
    ],
)
def test_one_model_has_one_name(reported: str, name: str) -> None:
    assert accelerator_model(reported) == name


def test_json_is_plain_and_whole() -> None:
    board = build(report_published.rows(), generated=NOW)
    content = json.loads(board.model_dump_json(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert content["format"] == 2
    assert content["generated"] == "2026-01-02T03:04:00+00:00"
    rows = [row for group in content["groups"] for row in group["rows"]]
    [ours] = [row for row in rows if row["system"] == "dgxa100_ngc20.06_pytorch"]
    assert ours["minutes"] == 10.2148
    assert (ours["rank"], ours["group_rank"]) == (2, 1)
    assert ours["epochs"] == [50, 50]
    assert ours["quality"] == pytest.approx([0.2319, 0.2333], abs=6e-5)
    assert ours["images_per_s_per_accelerator"] == pytest.approx(1227.25, abs=0.1)
    assert ours["minutes_spread"]["n"] == 5
    assert len(ours["runs"]) == 5
