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
    log = without(without(events(evaluations=((3, 0.2), (4, target))), "max_samples"), "model_bn_span")
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


def test_a_keyword_without_rules_is_scored_by_its_log(tmp_path: Path) -> None:
    log = changed(events(own={"quality_target": 0.23}), "submission_benchmark", lambda each: each.update(value="other"))
    (series,) = find_series([write(tmp_path / "result_0.txt", log).parent])
    assert score(series).minutes is not None
    assert "no rules known for benchmark other in ruleset 0.7.0" in score(series).unofficial


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("keyword = 1", "it needs keyword"),
        ('keyword = "x"\n[[meaning]]\nmetric = "m"', "no \\[meaning.rulesets"),
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
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "rules.toml").write_text(lines)
    with pytest.raises(ValueError, match=f"rules.toml: .*{message}"):
        rules.read(tmp_path / "rules.toml")


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

    def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *map(str, arguments)]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)

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
