"""Rules as data: found in benchmarks' folders without importing them, by keyword and ruleset; two meanings of one keyword."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import rules
from harness.results.checking.findings import Log
from harness.results.checking.log import check_log
from harness.results.checking.official import knows
from harness.results.score import score
from harness.results.series import find_series
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import harness
from tests.harness.results.logs import changed, event, events, text, without, write
from tests.harness.results.test_logfile import parsed
from tests.toy import configuration as toy


def test_nothing_of_the_benchmark_is_imported() -> None:
    code = (
        "import sys; from harness.rules import rules_for; print(rules_for('ssd', '0.7.0').target);"
        "assert not {'benchmarks', 'torch', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0.23\n"), done.stderr


def retinanet(*, target: float = 0.3401, start_year: int = 2023) -> str:
    """A log as the keyword's other meaning has it."""
    log = without(
        without(events(evaluations=((1, 0.1), (2, 0.15), (3, 0.2), (4, target))), "max_samples"), "model_bn_span"
    )
    log = without(log, "opt_learning_rate_decay_boundary_epochs")
    log = changed(log, "train_samples", lambda each: each.update(value=1170301))
    log = changed(log, "eval_samples", lambda each: each.update(value=24781))
    log.insert(16, event(log[16]["time_ms"], "opt_learning_rate_warmup_epochs", 1))
    log.insert(16, event(log[16]["time_ms"], "gradient_accumulation_steps", 1))
    for each in log:
        each["time_ms"] += (start_year - 2020) * 365 * 86_400_000
    return text(log)


@pytest.mark.parametrize(("year", "ruleset"), [(2020, "3.0.0"), (2023, "3.0.0"), (2024, "4.1.0"), (2026, "4.1.0")])
def test_the_other_meaning_of_a_keyword_is_not_called_wrong(year: int, ruleset: str) -> None:
    record = parsed(retinanet(start_year=year))
    found = rules.rules_for(record.benchmark, record.ruleset)
    assert (record.ruleset, found.target, found.task) == (ruleset, 0.34, "RetinaNet on OpenImages")
    assert [each for each in check_log(Log("result_0.txt", record, found)) if each.severity == "error"] == []


def test_the_other_meaning_has_its_own_target() -> None:
    record = parsed(retinanet(target=0.3399))
    wrong = [each.found for each in check_log(Log("r", record, rules.rules_for("ssd", record.ruleset)))]
    assert wrong == ["says success, but no mAP reached 0.34 (best 0.3399)"]


def test_one_task_under_two_keywords() -> None:
    """What a log calls it is the ruleset's word; the rules are one file of the package that trains it."""
    by_keyword = {
        (each.benchmark, each.ruleset): (each.task, each.target, each.runs, each.train_samples, each.eval_samples)
        for keyword in ("ssd", "retinanet")
        for each in rules.meanings(keyword)
    }
    retinanet = ("RetinaNet on OpenImages", 0.34, 5, 1170301, (24781,))
    since = ("2.0.0", "2.1.0", "3.0.0", "3.1.0", "4.0.0", "4.1.0")
    assert {key for key, value in by_keyword.items() if value == retinanet} == {
        *(("ssd", ruleset) for ruleset in since),
        *(("retinanet", ruleset) for ruleset in ("5.0.0", "5.1.0")),
    }
    assert [each.ruleset for each in rules.meanings("ssd")] == ["0.5.0", "0.6.0", "0.7.0", "1.0.0", "1.1.0", *since]
    assert rules.rules_for("ssd", "5.0.0").target is None and rules.rules_for("retinanet", "4.1.0").target is None


def test_a_file_may_give_each_meaning_a_keyword(tmp_path: Path) -> None:
    one = '[[meaning]]\n{}metric = "m"\nruns = 5\n[meaning.rulesets."{}"]\ntarget = 0.1\n'
    path = tmp_path / "rules.toml"
    path.write_text('keyword = "old"\n' + one.format("", "1.0.0") + one.format('keyword = "new"\n', "5.0.0"))
    assert {name: each.benchmark for name, each in rules.read(path).items()} == {"1.0.0": "old", "5.0.0": "new"}
    path.write_text(one.format("", "1.0.0") + one.format('keyword = "new"\n', "5.0.0"))
    with pytest.raises(ValueError, match=r"rules.toml: it needs keyword"):
        rules.read(path)


@pytest.mark.parametrize(
    ("said", "batch", "samples"),
    [
        *((4572, 256, 1170301), (4571, 256, 1170301), (576, 2048, 1170301), (464, 2528, 1170301)),  # as published
        *(
            (1170301, 2048, 1170301),
            (None, 256, 1170301),
            (4000, 256, 4000),
            (4572, None, 1170301),
            (40_000, None, 40_000),
        ),
    ],
)
def test_samples_that_a_log_counts_in_batches(said: int | None, batch: int | None, samples: int) -> None:
    """All but one submitter log as train_samples how many batches an epoch has: its throughput is not 256 times smaller."""
    assert rules.rules_for("ssd", "3.0.0").epoch_samples(said, batch) == samples
    assert rules.rules_for("ssd", "0.7.0").epoch_samples(457, 256) == 457


def test_a_log_that_counts_batches_has_the_throughput_of_images() -> None:
    log = [dict(json.loads(line.partition(":::MLLOG ")[2])) for line in retinanet().splitlines() if ":::MLLOG" in line]
    changed(
        changed(log, "train_samples", lambda each: each.update(value=1283)),
        "eval_samples",
        lambda e: e.update(value=28),
    )
    record = parsed(text(log))
    assert (record.epoch_samples, record.images_per_s) == (1170301, pytest.approx(1170301 / 12))
    found = list(check_log(Log("r", record, rules.rules_for("ssd", record.ruleset))))
    assert [each.severity for each in found if each.rule == "sample count"] == ["warning", "warning"]
    changed(log, "train_samples", lambda each: each.update(value=1000))
    found = list(check_log(Log("r", parsed(text(log)), rules.rules_for("ssd", record.ruleset))))
    assert [each.severity for each in found if each.rule == "sample count"] == ["error", "error"]


def test_a_keyword_without_rules_is_scored_by_its_log(tmp_path: Path) -> None:
    log = changed(events(own={"quality_target": 0.23}), "submission_benchmark", lambda each: each.update(value="other"))
    (series,) = find_series([write(tmp_path / "result_0.txt", log).parent])
    assert score(series).minutes is not None
    assert "no rules known for benchmark other in ruleset 0.7.0" in score(series).unofficial


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("keyword = 1", "it needs keyword"),
        ('keyword = "x"\n[[meaning]]\nmetric = "m"', "no table \\[meaning.rulesets"),
        ('keyword = "x"\n[[meaning]]\nruns = 5\nmetric = "m"\n[meaning.rulesets."0.7.0"]\n', "target is missing"),
        (
            'keyword = "x"\n[[meaning]]\nruns = 5\nmetric = "m"\ntraget = 1\n[meaning.rulesets."0.7.0"]\ntarget = 0.1',
            "unknown key traget",
        ),
        (
            'keyword = "x"\n[[meaning]]\nruns = "5"\nmetric = "m"\n[meaning.rulesets."0.7.0"]\ntarget = 0.1',
            "runs = '5' is not of type int",
        ),
        (
            'keyword = "x"\n[[meaning]]\nruns = 5\nmetric = "m"\n[meaning.rulesets."0.8.0"]\ntarget = 0.1',
            "ruleset 0.8.0 is none of",
        ),
        ('keyword = "x"\n[[meaning]]\nruns = 5\nmetric = "m"\nrulesets = "0.7.0"', "no table \\[meaning.rulesets"),
        (
            'keyword = "x"\n[[meaning]]\nruns = 5\nmetric = "m"\n[meaning.rulesets]\n"0.7.0" = 0.1',
            "no table \\[meaning.rul",
        ),
        *(
            (f'keyword = "x"\n[[meaning]]\n{lines}\n[meaning.rulesets."0.7.0"]\ntarget = {target}', message)
            for lines, target, message in (
                ('runs = -3\nmetric = "m"', 0.1, "runs = -3: 1 or more"),
                ('runs = 3\nmetric = ""', 0.1, "metric is empty"),
                ('runs = 3\nmetric = "m"\nevaluation_every = 0', 0.1, "evaluation_every = 0: 1 or more"),
                ('runs = 3\nmetric = "m"\neval_samples = [4, -4]', 0.1, "eval_samples = .*: 1 or more"),
                ('runs = 3\nmetric = "m"\nevaluation_epochs = [3, 1]', 0.1, "must ascend"),
                ('runs = 3\nmetric = "m"\nquality_range = [1]', 0.1, "quality_range = .1.: the lowest and the highest"),
                ('runs = 3\nmetric = "m"\nquality_range = [100, 0]', 0.1, "quality_range"),
                ('runs = 3\nmetric = "m"\nquality_range = [nan, nan]', 0.1, "quality_range"),
                ('runs = 3\nmetric = "m"\nquality_range = [0, 1]', 8.0, "target = 8.0: a number from 0 to 1 is needed"),
                (
                    'runs = 3\nmetric = "m"\nquality_range = [-9, 9]',
                    -1,
                    "target = -1: targets are finite and above 0, whatever",
                ),
                (
                    'runs = 3\nmetric = "m"\nquality_range = [-9, 0]',
                    0,
                    "target = 0: targets are finite and above 0, whatever",
                ),
                ('runs = 3\nmetric = "m"\nquality_range = [0, inf]', "inf", "target = inf: targets are finite"),
                ('runs = 3\nmetric = "m"', "nan", "target = nan"),
                ('runs = 3\nmetric = "m"', -0.1, "target = -0.1"),
            )
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "rules.toml").write_text(lines)
    with pytest.raises(ValueError, match=f"rules.toml: .*{message}"):
        rules.read(tmp_path / "rules.toml")


def test_a_target_may_be_the_range_s_end(tmp_path: Path) -> None:
    """That of a task that is to be solved whole, such as an accuracy of 1."""
    path = tmp_path / "rules.toml"
    for bounds, target in (("[0, 1]", 1.0), ("[0.5, 1]", 0.5), ("[-10, 10]", 10)):
        path.write_text(
            f'keyword = "x"\n[[meaning]]\nruns = 3\nmetric = "m"\nquality_range = {bounds}\n'
            f'[meaning.rulesets."0.7.0"]\ntarget = {target}\n'
        )
        found = rules.read(path)["0.7.0"]
        assert found.target == target and found.met(target, target)


def test_lower_is_better() -> None:
    found = rules.rules_for("toy_error", "0.7.0")
    assert [found.met(each, 0.6) for each in (0.61, 0.6, 0.1, -0.1, float("nan"))] == [False, True, True, False, False]
    assert found.best([0.5, 0.4, 0.9]) == 0.4
    assert not rules.rules_for("ssd", "0.7.0").met(23.0, 0.23)


def test_mlperfs_tools_know_some_keywords() -> None:
    assert knows("ssd", "0.7.0") and knows("ssd", "0.6.0") and knows("ssd", "4.1.0")
    assert not knows("ssd", "5.0.0") and not knows("toy", "0.7.0")


def test_a_benchmark_of_error_runs_scores_checks_and_reports(tmp_path: Path) -> None:
    """Another keyword, metric, direction and target, and no line of the harness for it."""
    content = toy.raw(target=0.65) | {"benchmark": "tests.toy_error"}
    path = toy.write(tmp_path, content)
    out = tmp_path / "out"
    ran = harness("run", path, "--out", out)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "target met: error rate 0.6000, asked for 0.65" in ran.stdout
    (scored,) = json.loads(harness("score", out, "--json").stdout)["series"]
    assert (scored["benchmark"], scored["metric"], scored["runs"][0]["converged"]) == ("toy_error", "error rate", True)
    checked = harness("check", out)
    assert checked.returncode == 0, checked.stdout
    assert "which MLPerf's tools do not know in 0.7.0: checked by ours alone" in checked.stdout
    board = json.loads(harness("report", out, "--no-published", "--json").stdout)
    (row,) = board["groups"][0]["rows"]
    assert (row["metric"], row["quality"], row["target"]) == ("error rate", [0.6, 0.6], 0.65)
