"""Logs of one task under two keywords, in the form of rounds 2.0 to 5.1: what published ones lack, repeat and count."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.comparability import examine
from harness.comparison.runs import ComparedRun
from harness.results import status
from harness.results.checking.checker import check
from harness.results.reporting import published, report
from harness.results.score import score
from harness.results.series import find_series
from harness.rules import rules_for
from tests import make_test_data
from tests.harness.results import logs
from tests.harness.results.logs import DESCRIPTION, Event, event, write

EPOCH_MS, EVALUATION_MS = 480_000, 55_000
QUALITIES = (0.24, 0.31, 0.331, 0.3451)


def log(
    keyword: str = "ssd",
    *,
    day: str = "2024-10-01",
    seed: int = 1,
    org: str = "SUBMISSION_ORG_PLACEHOLDER",
    platform: str = "1xSUBMISSION_PLATFORM_PLACEHOLDER",
    batch: int = 256,
    longer_ms: int = 0,
    weights: tuple[str, ...] = (),
) -> list[Event]:
    """As the scripts that most submitters take write it: one rank, an evaluation beside the next epoch, samples in batches."""
    now = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000
    found = [
        event(now, "submission_benchmark", keyword),
        event(now, "submission_org", org),
        event(now, "submission_division", "closed"),
        event(now, "submission_status", "onprem"),
        event(now, "submission_platform", platform),
        event(now + 100, "cache_clear", True),
        event(now + 200, "init_start"),
        event(now + 300, "seed", seed),
        event(now + 300, "global_batch_size", batch),
        event(now + 300, "opt_name", "adam"),
        event(now + 300, "opt_base_learning_rate", 0.0001),
        event(now + 300, "opt_weight_decay", 0),
        event(now + 300, "opt_learning_rate_warmup_epochs", 1),
        event(now + 300, "opt_learning_rate_warmup_factor", 0.001),
        event(now + 300, "gradient_accumulation_steps", 1),
        *(event(now + 300, "weights_initialization", tensor=name) for name in weights),
        event(now + 30_000, "init_stop"),
        event(now + 30_000, "run_start"),
        event(now + 31_000, "train_samples", -(-1_170_301 // batch)),
        event(now + 31_000, "eval_samples", -(-24_781 // batch)),
    ]
    now += 32_000
    for epoch, quality in enumerate(QUALITIES, start=1):
        found.append(event(now, "epoch_start", epoch_num=epoch))
        found.append(event(now + 1_000, "tracked_stats", {"throughput": 2_400.0, "loss": 1.1}, step=epoch * 100))
        now += EPOCH_MS + longer_ms
        found.append(event(now, "epoch_stop", epoch_num=epoch))
        found.append(event(now, "eval_start", epoch_num=epoch))
        now += EVALUATION_MS
        found.append(event(now, "eval_stop", epoch_num=epoch))
        found.append(event(now, "eval_accuracy", quality, epoch_num=epoch))
    found.append(event(now + 10, "run_stop", status="success"))
    return found


def series(folder: Path, **how: Any) -> Path:
    """Five runs, each epoch 100 ms longer than in the run before; numbered from 1, as in some submissions."""
    for index in range(1, 6):
        write(folder / f"result_{index}.txt", log(seed=100 + index, longer_ms=100 * index, **how))
    return folder


def package(folder: Path, keyword: str = "ssd", **how: Any) -> Path:
    series(folder / "results" / "dgxa100_test" / keyword, keyword=keyword, **how)
    (folder / "systems").mkdir()
    described = {**DESCRIPTION, "accelerators_per_node": "8", "status": "Available on premise"}
    (folder / "systems" / "dgxa100_test.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize(
    ("keyword", "day", "ruleset", "weights"),
    [
        ("ssd", "2022-05-20", "2.0.0", ("a",)),
        ("ssd", "2022-10-01", "2.1.0", ("a",)),
        ("ssd", "2022-10-01", "3.0.0", ()),  # without a line for each tensor it can be for none before
        ("ssd", "2023-10-01", "3.1.0", ()),
        ("ssd", "2024-05-01", "4.0.0", ()),
        ("ssd", "2024-10-01", "4.1.0", ()),
        ("retinanet", "2025-05-01", "5.0.0", ()),
        ("retinanet", "2025-10-01", "5.1.0", ()),
        ("retinanet", "2026-11-01", "5.1.0", ()),
    ],
)
def test_each_round_is_known_by_keyword_keys_and_date(
    tmp_path: Path, keyword: str, day: str, ruleset: str, weights: tuple[str, ...]
) -> None:
    (found,) = find_series([series(tmp_path / "system" / keyword, keyword=keyword, day=day, weights=weights)])
    assert {record.ruleset for record in found.records} == {ruleset}
    rules = rules_for(keyword, ruleset)
    assert (rules.task, rules.target, rules.runs) == ("RetinaNet on OpenImages", 0.34, 5)


def test_the_score_is_the_olympic_mean_and_the_speed_is_of_images(tmp_path: Path) -> None:
    (found,) = find_series([series(tmp_path / "system" / "ssd", org="Someone", platform="1xDGX A100")])
    result = score(found)
    one_ms = 2_000 + 4 * (EPOCH_MS + EVALUATION_MS) + 10
    assert result.minutes == round((one_ms + 4 * 300) / 60_000, 4)
    assert result.images_per_s == pytest.approx(1_170_301 / (EPOCH_MS + 300) * 1000)
    assert result.official and result.target == 0.34


@pytest.mark.parametrize(("round_", "org", "place", "numbers"), make_test_data.RETINANET)
def test_published_series(test_data: Path, round_: str, org: str, place: str, numbers: range) -> None:
    """Real logs against the table that ships: read as what they are, scored to the table's figure before MLCommons' factor."""
    folder = test_data / "mlperf-retinanet" / round_ / org / "results" / place
    if not folder.is_dir():
        pytest.skip(f"no {folder}: python -m tests.make_test_data fetches it")
    (found,) = find_series([folder])
    ruleset = f"{round_.removeprefix('v')}.0"
    result = score(found, ruleset)
    system = place.partition("/")[0]
    (entry,) = [
        each
        for table in published.rounds()
        for each in table.entries
        if (table.ruleset, each.submitter, each.system) == (ruleset, org, system)
    ]
    assert [record.benchmark for record in found.records] == [place.partition("/")[2]] * len(numbers)
    assert rules_for(found.first.benchmark, found.first.ruleset).task == "RetinaNet on OpenImages"
    converged = [each.record for each in result.runs if each.converged]
    assert [record.run_ms for record in converged] == [round(run.seconds * 1000) for run in entry.runs]
    assert len(found.records) - len(converged) == entry.failed_runs
    (row,) = [row for row in published.rows() if (row.ruleset, row.submitter, row.system) == (ruleset, org, system)]
    assert result.minutes is not None and result.minutes * entry.scaling == pytest.approx(row.minutes, abs=1e-4)
    assert result.accelerators == (entry.accelerators or None)
    assert result.images_per_s == pytest.approx(row.images_per_s, rel=1e-3)


@pytest.mark.parametrize("odd", ["all ranks", "no samples", "no batch", "no names", "blocks", "from 0"])
def test_what_submitters_do_otherwise_costs_no_figure(tmp_path: Path, odd: str) -> None:
    """Each of them a form that some round's logs have had: the score, the speed and what is said against it stay the same."""
    left_out = {
        "no samples": {"train_samples", "eval_samples"},
        "no batch": {"global_batch_size"},
        "no names": {"submission_org", "submission_platform", "submission_status"},  # from 4.1 and 5.0 on nobody asks
    }.get(odd, set())
    for index in range(1, 6):
        found = log(seed=index, longer_ms=100 * index, org="Someone", platform="1xDGX A100")
        found = [each for each in found if each["key"] not in left_out]
        if odd == "all ranks":
            found = [{**each, "time_ms": each["time_ms"] + rank} for each in found for rank in range(8)]
        if odd == "blocks":
            for each in found:
                if each["key"].startswith("epoch_"):
                    each["key"] = each["key"].replace("epoch", "block")
                    each["metadata"] |= {"first_epoch_num": each["metadata"]["epoch_num"], "epoch_count": 1}
        if odd == "from 0":
            for each in found:
                if "epoch_num" in each["metadata"]:
                    each["metadata"] = {**each["metadata"], "epoch_num": each["metadata"]["epoch_num"] - 1}
        write(tmp_path / "system" / "ssd" / f"result_{index}.txt", found)
    (read,) = find_series([tmp_path])
    result = score(read)
    one_ms = 2_000 + 4 * (EPOCH_MS + EVALUATION_MS) + 10
    assert result.minutes == pytest.approx((one_ms + 4 * 300) / 60_000, abs=2e-4)
    assert result.images_per_s == pytest.approx(1_170_301 / (EPOCH_MS + 300) * 1000, rel=1e-4)
    assert result.unofficial == ()


def test_names_that_only_the_description_says_keep_nothing_from_being_ranked(tmp_path: Path) -> None:
    """Of 233 published series 90 leave the scripts' placeholders in their logs."""
    (alone,) = find_series([series(tmp_path / "alone")])
    assert any("PLACEHOLDER" in reason for reason in score(alone).unofficial)
    (found,) = find_series([package(tmp_path / "Someone") / "results"])
    assert score(found).official, score(found).unofficial
    (row,) = report.gather([tmp_path / "Someone"], generated=datetime.now(UTC), published=False).rows
    assert (row.rank, row.submitter, row.task, row.accelerators) == (1, "Someone", "RetinaNet on OpenImages", 8)
    (found,) = find_series([package(tmp_path / "Other", org="Someone Else") / "results"])
    assert any("Someone Else, the system's submitter is Someone" in reason for reason in score(found).unofficial)


def test_status_counts_the_accelerators_that_the_description_has(tmp_path: Path) -> None:
    """One rank logs init_start for all of them."""
    (found,) = find_series([package(tmp_path / "Someone") / "results"])
    facts = status.as_json(found.records[0])
    assert (facts["gpus"], facts["batch"], facts["converged"], facts["epochs"]) == (8, 256, "yes", 4)
    assert facts["images_per_s"] == pytest.approx(1_170_301 / (EPOCH_MS + 100) * 1000)


@pytest.mark.parametrize(("keyword", "ruleset"), [("ssd", "4.1.0"), ("retinanet", "5.1.0")])
def test_both_checkers_pass_a_published_form(tmp_path: Path, keyword: str, ruleset: str) -> None:
    (found,) = check([series(tmp_path / "system" / keyword, keyword=keyword, org="Someone")], ruleset)
    errors = [(each.rule, each.found) for each in found.findings if each.severity == "error"]
    assert errors == [("placeholder", "1xSUBMISSION_PLATFORM_PLACEHOLDER")] * 5
    assert {verdict.tool: verdict.passed for verdict in found.verdicts} == {
        "compliance checker": True,
        "seed checker": True,
        "RCP checker": True,  # four epochs at batch 256, as the reference
    }
    warned = {(each.rule, each.found) for each in found.findings if each.rule == "sample count"}
    assert warned == {
        ("sample count", "4572 batches; published entries count so too"),
        ("sample count", "97 batches; published entries count so too"),
    }


def test_a_package_whose_logs_have_names_of_their_own(tmp_path: Path) -> None:
    """result_4957-240509201759121706710_1.txt: MLPerf's tools take whatever begins with result_."""
    made = package(tmp_path / "Someone")
    folder = made / "results/dgxa100_test/ssd"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("result_", "result_4957-24_"))
    (found,) = check([made], "4.1.0")
    assert not [each for each in found.findings if each.found == "no result log"]
    assert found.runs == 5


def test_a_status_in_a_rounds_own_words_is_a_warning(tmp_path: Path) -> None:
    (found,) = check([package(tmp_path / "Someone")], "3.1.0")
    assert [each.severity for each in found.findings if each.rule == "status"] == ["warning"]


def test_runs_of_two_rounds_are_compared_where_their_rulesets_are_guessed(tmp_path: Path) -> None:
    """A date decides between rulesets that ask for the same: nobody chose one. Another task is another benchmark."""
    first, second = (
        find_series([series(tmp_path / day / keyword, keyword=keyword, day=day)])[0].records
        for day, keyword in (("2024-10-01", "ssd"), ("2025-10-01", "retinanet"))
    )
    third = find_series([logs.write_series(tmp_path / "ssd300")])[0].records
    runs = [ComparedRun(record, arm) for arm, records in enumerate((first, second)) for record in records]
    assert [each.field for each in examine(runs, ("host",)).differences if each.standing == "refused"] == []
    runs = [ComparedRun(record, arm) for arm, records in enumerate((first, third)) for record in records]
    assert "benchmark" in [each.field for each in examine(runs, ("host",)).differences if each.standing == "refused"]


def test_the_page_keeps_tasks_apart(tmp_path: Path) -> None:
    series(tmp_path / "results" / "new" / "ssd", org="Someone", platform="1xDGX A100")
    logs.write_series(tmp_path / "results" / "old" / "ssd")
    board = report.gather([tmp_path / "results"], generated=datetime.now(UTC))
    assert {row.task for group in board.groups for row in group.rows if group.benchmark == "ssd"} == {
        "RetinaNet on OpenImages",
        "SSD300 on COCO 2017",
    }
    for heading, rows in board.sections:
        assert len({row.task for row in rows}) == 1 and heading.startswith(rows[0].task)
    for group in board.groups:
        assert len({row.task for row in group.rows}) == 1
