"""Every check of ours, each with a log that breaks it and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results import score_text
from harness.results.by_rules import may_be_for, rules_for
from harness.results.checking import checker, official
from harness.results.checking.checker import check
from harness.results.checking.copies import copies
from harness.results.checking.findings import Finding, Log, is_placeholder
from harness.results.checking.ledger import check_ledgers
from harness.results.checking.log import check_log
from harness.results.checking.machine import same_accelerator, same_processor
from harness.results.checking.package import check_tree
from harness.results.checking.series import check_series, soften_one_failure
from harness.results.checking.system import FIELDS, check_agreement, check_description
from harness.results.score import as_json, score
from harness.results.series import find_series
from tests.harness.results.logs import (
    DESCRIPTION,
    HARDWARE,
    SOFTWARE,
    Event,
    changed,
    event,
    events,
    own,
    text,
    write,
    write_ledger,
    write_package,
    write_series,
)
from tests.harness.results.test_logfile import parsed, set_back


def found(log: list[Event] | str, ruleset: str | None = None) -> list[Finding]:
    record = parsed(log if isinstance(log, str) else text(log))
    return list(check_log(Log("result_0.txt", record, rules_for(record.benchmark, ruleset or record.ruleset))))


def rules(findings: list[Finding], severity: str = "error") -> list[str]:
    return [each.rule for each in findings if each.severity == severity]


@pytest.mark.parametrize("ruleset", ["0.7.0", "1.0.0"])
def test_a_good_log_has_no_finding(ruleset: str) -> None:
    assert found(events(ruleset=ruleset), ruleset) == []


def test_a_good_log_of_1_1_0_evaluates_every_five_epochs() -> None:
    assert found(events(ruleset="1.1.0"), "1.1.0") == []


def test_ranks_that_cannot_be_told_from_lines_that_are_there_twice() -> None:
    """A tee that caught the init_start lines alone: eight accelerators look like sixteen, and nothing in the log says which."""
    lines = text(events(), noise="").splitlines(keepends=True)
    (finding,) = found("".join(line * (1 + ('"init_start"' in line)) for line in lines))
    assert (finding.severity, finding.rule, finding.key) == ("warning", "once", "init_start")
    assert "16 lines" in finding.found
    said = spoilt("global_batch_size", 8)
    assert not parsed(text(said)).accelerators_in_doubt


def test_a_clock_that_was_set_before_the_run_is_no_error() -> None:
    """MLPerf's tools accept it, and the run's time is right: it was 505 errors."""
    findings = found(set_back("init_stop"))
    assert [(each.severity, each.rule) for each in findings] == [("warning", "time order")]
    told = {"monotonic_s": 9.5, "wall_ahead_s": 3600.0}
    (finding,) = found(changed(events(), "init_stop", lambda each: each["metadata"].update(told)))
    assert (finding.severity, finding.rule, finding.key) == ("warning", "clock", "init_stop")


def test_stamps_in_seconds_are_no_result(tmp_path: Path) -> None:
    """MLPerf's tools take them: 0.0051 minutes, official, and first on the board."""
    folder = write_series(tmp_path / "ssd")
    for log in folder.glob("result_*.txt"):
        log.write_text(re.sub(r'("time_ms": \d+)\d{3}', r"\1", log.read_text()))
    (series,) = find_series([folder])
    assert {each.rule for each in found((folder / "result_0.txt").read_text()) if each.severity == "error"} == {"clock"}
    assert "its stamps are of no date on which MLPerf had rules" in score(series).unofficial


def test_a_long_log_of_ordinary_lines_is_given_to_mlperfs_tools(tmp_path: Path) -> None:
    """Each step of 50 epochs: 183,389 lines, which their parser takes 24 s for, were called too long, and of no rules."""
    log = write(tmp_path / "result_0.txt", events())
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(
        "".join(lines[:-10] + [next(each for each in lines if "epoch_stop" in each)] * 150_000 + lines[-10:])
    )
    assert not official.keeps_busy(log)
    longer = next(each for each in lines if "epoch_stop" in each).replace("{", "{" + " " * 1_700, 1)
    log.write_text("".join(lines) + longer * 25_000)  # a minute and more of it
    assert official.keeps_busy(log)
    log.write_text("".join(lines) + "x" * 250_000 + lines[-1])
    assert official.keeps_busy(log)
    (series,) = find_series([tmp_path])
    assert "too long" in checker.why_no_job(series) and "no rules" not in checker.why_no_job(series)


@pytest.mark.parametrize("name", ["monotonic_s", "wall_ahead_s", "paused_s"])
@pytest.mark.parametrize("value", ["12", float("nan"), None])
def test_clocks_that_are_no_numbers(tmp_path: Path, name: str, value: object) -> None:
    """What run_stop says was ignored then, and with it the question whether somebody set the clock."""
    log = changed(events(), "run_stop", lambda each: each["metadata"].update({name: value}))
    (finding,) = found(log)
    assert (finding.severity, finding.rule) == ("error", "readable: clock")
    assert any(name in why for why in score(find_series([write(tmp_path / "result_0.txt", log)])[0]).unofficial)


def test_a_clock_that_was_ahead_on_the_way_counts_without_the_other_s_word() -> None:
    log = changed(events(), "run_stop", lambda each: each["metadata"].update(wall_ahead_s=304.0))
    assert [each.rule for each in found(log) if each.severity == "error"] == ["clock"]


def test_a_run_that_was_stopped_for_a_while_is_a_warning_and_a_word_beside_its_minutes(tmp_path: Path) -> None:
    """By MLPerf's rules its time stands; who reads it must know that nobody trained for a part of it."""
    folder = write_series(tmp_path / "ssd")
    told = {"paused_s": 40.02, "paused_ranks": [0]}
    log = changed(events(seed=102, epoch_ms=12_020), "run_stop", lambda each: each["metadata"].update(told))
    (finding,) = found(log)
    assert (finding.severity, finding.rule, finding.key) == ("warning", "pause", "run_stop")
    write(folder / "result_2.txt", log)
    result = score(find_series([folder])[0])
    assert result.official
    words = [row[2] for row in score_text.rows(result)]
    assert [each for each in words if "pause" in each] == ["its time holds a pause of 40.0 s"]
    assert [each["paused_s"] for each in as_json(result)["runs"]] == [0, 0, 40.02, 0, 0]


def test_real_logs_have_no_error(test_data: Path) -> None:
    count = 0
    for series in find_series([test_data / "mlperf-results"]):
        for record in series.records:
            findings = list(check_log(Log(record.path, record, rules_for(record.benchmark, record.ruleset))))
            assert rules(findings) == [], record.path
            count += 1
    assert count == 30


def move(log: list[Event], key: str, to: str) -> list[Event]:
    """The first line of `key` put before the first of `to`, with its time."""
    (line,) = [each for each in log if each["key"] == key][:1]
    rest = [each for each in log if each is not line]
    at = next(index for index, each in enumerate(rest) if each["key"] == to)
    line["time_ms"] = rest[at]["time_ms"]
    return [*rest[:at], line, *rest[at:]]


def spoilt(key: str, value: object, **how: int) -> list[Event]:
    return changed(events(**how), key, lambda each: each.update(value=value))  # type: ignore[arg-type]


DECAY = "opt_learning_rate_decay_boundary_epochs"
TWO_BATCHES = [*events()[:20], event(1_592_669_905_000, "global_batch_size", 896), *events()[20:]]
NO_EPOCH_7 = [each for each in events() if each["metadata"].get("epoch_num") != 7]


def back(epoch: int, by_ms: int) -> list[Event]:
    """The end of an epoch stamped earlier."""
    log = events()
    for each in log:
        if (each["key"], each["metadata"].get("epoch_num")) == ("epoch_stop", epoch):
            each["time_ms"] -= by_ms
    return log


NO_END_OF_7 = [each for each in events() if (each["key"], each["metadata"].get("epoch_num")) != ("epoch_stop", 7)]

BROKEN: dict[str, tuple[object, str, str]] = {
    # what: (log, the one error's rule, its key)
    "run_stop before run_start": (move(events(), "run_stop", "run_start"), "outcome", "run_stop"),
    "aborted": (events(status="aborted"), "outcome", "run_stop"),
    "success without the target": (events(evaluations=((40, 0.1), (50, 0.2299))), "target reached", "run_stop"),
    "percent": (events(evaluations=((40, 0.2), (50, 23.0), (55, 0.24))), "accuracy", "eval_accuracy"),
    "not a number": (events(evaluations=((40, float("nan")), (50, 0.24))), "accuracy: no number", "eval_accuracy"),
    "two global batch sizes": (TWO_BATCHES, "once", "global_batch_size"),
    "placeholder": (spoilt("submission_platform", "1xSUBMISSION_PLATFORM_PLACEHOLDER"), "placeholder", "submission_platform"),
    "no organization": (spoilt("submission_org", " "), "placeholder", "submission_org"),
    "Closed": (spoilt("submission_division", "Closed"), "division", "submission_division"),
    "status": (spoilt("submission_status", "available"), "status", "submission_status"),
    "caches not cleared": (spoilt("cache_clear", False), "caches cleared", "cache_clear"),
    "an epoch left out": (NO_EPOCH_7, "epoch order", "epoch_start"),
    "an epoch without end": (NO_END_OF_7, "epoch order", "epoch_stop"),
    "an epoch that ends before it begins": (back(7, 12_500), "epoch order", "run_stop"),
    "the last one does": (back(50, 12_500), "epoch order", "run_stop"),
    "an evaluation more": (events(evaluations=((40, 0.1), (45, 0.2), (50, 0.24))), "evaluation schedule", "eval_accuracy"),
    "an evaluation less": (events(evaluations=((50, 0.24),)), "evaluation schedule", "eval_accuracy"),
    "first boundary": (spoilt(DECAY, [41, 55]), "decay boundaries", DECAY),
    "second boundary": (spoilt(DECAY, [44, 51]), "decay boundaries", DECAY),
    "boundaries of two k": (spoilt(DECAY, [44, 60]), "decay boundaries", DECAY),
    "one boundary": (spoilt(DECAY, 44), "decay boundaries", DECAY),
    "train_samples": (spoilt("train_samples", 117265), "sample count", "train_samples"),
    "eval_samples": (spoilt("eval_samples", 100), "sample count", "eval_samples"),
    "run_start in the past": (changed(events(), "run_start", lambda e: e.update(time_ms=1_592_600_000_000)), "time order", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_each_check_alone(what: str) -> None:
    log, rule, key = BROKEN[what]
    findings = found(log)  # type: ignore[arg-type]
    assert rules(findings) == [rule], findings
    (finding,) = [each for each in findings if each.severity == "error"]
    assert finding.key == key
    assert finding.line is not None and finding.fix


def late(log: list[Event], epoch: int, by_ms: int) -> list[Event]:
    """The evaluation of `epoch` stamped later or earlier, and where it belongs by its stamp."""
    for each in log:
        if each["key"].startswith("eval_") and each["metadata"].get("epoch_num") == epoch:
            each["time_ms"] += by_ms
    return sorted(log, key=lambda each: each["time_ms"])


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (late(events(), 50, -8_000), "before its training ends"),
        (late(events(evaluations=((40, 0.2), (50, 0.22), (55, 0.24))), 40, 130_000), "comes after epoch 50"),
        (late(events(), 40, -490_000), "before run_start"),
        (
            [e for e in events() if not (e["key"].startswith("epoch") and e["metadata"]["epoch_num"] == 50)],
            "only 49 were trained",
        ),
    ],
)
def test_back_filled_evaluations(log: list[Event], words: str) -> None:
    findings = [each for each in found(log) if each.rule == "evaluation logged in time"]
    assert findings and {each.severity for each in findings} == {"error"}
    assert any(words in each.found for each in findings), findings


def test_an_evaluation_after_run_stop_does_not_count() -> None:
    findings = found(late(events(), 50, 10_000))
    assert rules(findings) == ["target reached"]
    assert any("it does not count" in each.found for each in findings if each.severity == "warning")


@pytest.mark.parametrize("early_ms", [101, 900, 2_900])
def test_a_run_that_stops_before_its_deciding_evaluation_is_none(early_ms: int) -> None:
    """It was a second shorter, official and packaged, beside a warning that the evaluation did not count."""
    log = changed(events(), "run_stop", lambda each: each.update(time_ms=each["time_ms"] - early_ms))
    findings = found(log)
    assert "target reached" in rules(findings)
    assert any("it does not count" in each.found for each in findings)


def test_a_run_that_stops_with_its_deciding_evaluation_is_one() -> None:
    """The clock's resolution is a millisecond."""
    assert found(changed(events(), "run_stop", lambda each: each.update(time_ms=each["time_ms"] - 100))) == []


@pytest.mark.parametrize("late_ms", [1_001, 1_900, 2_100, 2_900])
def test_a_run_that_starts_after_what_follows_is_none(late_ms: int) -> None:
    """Likewise: what stands behind run_start is stamped before it."""
    findings = found(changed(events(), "run_start", lambda each: each.update(time_ms=each["time_ms"] + late_ms)))
    assert rules(findings) and set(rules(findings)) == {"time order"}


def test_two_evaluations_at_one_moment() -> None:
    log = events(evaluations=((40, 0.2), (50, 0.22), (55, 0.24)))
    end = [each for each in log if each["key"] == "eval_accuracy"][-1]["time_ms"]
    for each in log:
        if each["key"] == "eval_accuracy":
            each["time_ms"] = end
    log.sort(key=lambda each: each["time_ms"])
    assert sum("at one moment" in each.found for each in found(log)) == 2


def test_unreadable_lines_are_errors_with_their_numbers() -> None:
    lines = text(events(), noise="").splitlines(keepends=True)
    lines[12] = lines[12].rstrip() + " 50%|##  |\n"
    lines.append(':::MLLOG {"key": "seed", "half')
    findings = found("".join(lines))
    assert [(each.rule, each.line) for each in findings] == [
        ("readable: trailing", 13),
        ("readable: partial", len(lines)),
    ]


def test_no_log_at_all() -> None:
    (finding,) = found("hello\n")
    assert (finding.rule, finding.severity) == ("readable", "error")


def test_the_open_division_is_free_in_schedule_boundaries_and_data() -> None:
    log = events(division="open", evaluations=((3, 0.3),), own={"quality_target": 0.25})
    changed(log, "train_samples", lambda e: e.update(value=12))
    changed(log, DECAY, lambda e: e.update(value=[1, 2]))
    changed(log, "cache_clear", lambda e: e.update(value=False))
    findings = found(log)
    assert rules(findings) == []
    assert rules(findings, "warning") == ["caches cleared"]


def test_what_must_not_be_published_is_a_warning_here() -> None:
    own = {"demonstration": True, "resumed_from_epoch": 0, "max_steps": 9, "tree_dirty": True, "other_task": "SSD512"}
    log = events(own=own | {"eval_samples_trained_on": 9})
    assert rules(found(log), "warning") == ["publishable"] * 6


def test_words_that_mislead_the_rcp_checker() -> None:
    log = events(ruleset="1.0.0", own={"configuration": {"global_batch_size": 8, "run": {"ruleset": "1.0.0"}}})
    assert rules(found(log)) == ["misleading word"]
    assert rules(found(log, "0.7.0")) == []


# --- benchmarks that MLPerf's compliance checker has no rules for ---


@pytest.mark.parametrize(
    ("keyword", "ruleset", "severity", "words"),
    [
        ("ssd", "5.1.0", "error", "3.1.0, 4.0.0, 4.1.0, and not in 5.1.0"),
        ("bert", "0.6.0", "error", "and not in 0.6.0"),
        ("SSD", None, "error", "ssd is meant?"),
        ("sdd", None, "error", "ssd is meant?"),
        ("Retina_Net", "4.1.0", "error", "retinanet is meant?"),
        ("common", None, "warning", "checked by ours alone"),  # for all of them: it went on for ten minutes
        ("ssd_of_mine", None, "warning", "checked by ours alone"),
        ("toy", "5.1.0", "warning", "checked by ours alone"),
        ("resnext", None, "warning", "checked by ours alone"),  # nearly resnet, and another network
        ("bart", None, "warning", "checked by ours alone"),
    ],
)
def test_a_keyword_that_mlperf_s_checker_breaks_down_on(
    tmp_path: Path, keyword: str, ruleset: str | None, severity: str, words: str
) -> None:
    """All logs of `SSD` passed, and all of ssd under a ruleset without it: FileNotFoundError: closed_SSD.yaml."""
    log = changed(events(), "submission_benchmark", lambda each: each.update(value=keyword))
    (report,) = check([write(tmp_path / "result_0.txt", log)], ruleset)
    assert report.verdicts == ()
    (said,) = (each for each in report.findings if each.rule == "benchmark")
    assert said.severity == severity and words in said.found and report.ok == (severity == "warning")


@pytest.mark.parametrize("keyword", ["gnn", "sdd"])
def test_a_benchmark_from_elsewhere_may_be_called_as_it_likes(tmp_path: Path, keyword: str) -> None:
    """One called gnn, run by this harness, was refused: MLPerf's tools know the word in other rulesets."""
    log = changed(events(own={"benchmark_sha256": "2" * 64}), "submission_benchmark", lambda e: e.update(value=keyword))
    (report,) = check([write(tmp_path / "result_0.txt", log)])
    (said,) = (each for each in report.findings if each.rule == "benchmark")
    assert said.severity == "warning" and report.ok


def test_a_keyword_with_rules_here_is_no_misspelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "meanings", lambda keyword: [rules_for("toy", "0.7.0")] * (keyword == "ssd_"))
    log = changed(events(), "submission_benchmark", lambda each: each.update(value="ssd_"))
    assert check([write(tmp_path / "result_0.txt", log)])[0].ok


# --- series ---


def of_series(folder: Path) -> list[Finding]:
    (series,) = find_series([folder])
    return list(check_series(series, rules_for("ssd", "0.7.0"), "ssd"))


def test_a_good_series(tmp_path: Path) -> None:
    assert of_series(write_series(tmp_path)) == []


@pytest.mark.parametrize(
    ("log", "rule", "words"),
    [
        (events(seed=100, epoch_ms=12_345), "seeds", "100, which result_0.txt has too"),
        (spoilt("submission_org", "Other", seed=9, epoch_ms=12_345), "runs alike", "Someone, Other"),
        (spoilt("opt_weight_decay", 1e-4, seed=9, epoch_ms=12_345), "runs alike", "0.00013, 0.0001"),
        (events(seed=9, epoch_ms=12_345, ranks=4), "runs alike", "8, 4"),
    ],
)
def test_runs_that_do_not_belong_together(tmp_path: Path, log: list[Event], rule: str, words: str) -> None:
    write_series(tmp_path)
    write(tmp_path / "result_4.txt", log)
    findings = of_series(tmp_path)
    assert rules(findings) == [rule]
    assert findings[0].found == words


def of_machines(folder: Path, *machines: dict[str, object]) -> list[Finding]:
    """A run of ours on each, told by what their logs say other than on the first."""
    for index, differing in enumerate(machines):
        write(folder / f"result_{index}.txt", events(seed=index, epoch_ms=12_000 + 10 * index, own=own(**differing)))
    return [each for each in of_series(folder) if each.rule != "number of runs"]


@pytest.mark.parametrize(
    ("key", "differing"),
    [
        ("hardware.accelerators", {"hardware": {**HARDWARE, "accelerators": ["NVIDIA H100 80GB HBM3"] * 8}}),
        ("hardware.accelerators", {"hardware": {**HARDWARE, "accelerators": ["NVIDIA A100-SXM4-40GB"] * 7}}),
        ("hardware.cpu", {"hardware": {**HARDWARE, "cpu": "Intel(R) Xeon(R) Platinum 8480C"}}),
        ("hardware.cores", {"hardware": {**HARDWARE, "cores": 64}}),
        ("software.driver", {"software": {**SOFTWARE, "driver": "590.11.02"}}),
        ("software.torch", {"software": {**SOFTWARE, "torch": "1.13"}}),
        ("image.id", {"image": {"id": "sha256:4567"}}),
        ("image", {"image": {}}),
        ("hardware", {"hardware": {}}),
        ("data_fingerprint", {"data_fingerprint": "ab" * 31 + "cd"}),
        ("data_backend", {"data_backend": "torchvision"}),
    ],
)
def test_runs_of_another_system_are_another_result(tmp_path: Path, key: str, differing: dict[str, object]) -> None:
    """What `collect` keeps apart by the logs' own words, and whatever else is not that machine or that data."""
    said = {"data_fingerprint": "ab" * 32, "data_backend": "dali"}
    findings = of_machines(tmp_path, said, {**said, **differing})
    assert [(each.key, each.severity) for each in findings] == [(key, "error")]
    (series,) = find_series([tmp_path])
    assert any(f"runs differ in {key}: " in each for each in score(series).unofficial)


@pytest.mark.parametrize(
    ("key", "differing"),
    [
        ("software.kernel", {"software": {**SOFTWARE, "kernel": "6.12"}}),
        ("hardware.memory_gib", {"hardware": {**HARDWARE, "memory_gib": 1007.3}}),
        ("hardware.gpus.power_limit_w", {"hardware": {**HARDWARE, "gpus": [{**HARDWARE["gpus"][0], "power_limit_w": 300.0}]}}),
    ],
)  # fmt: skip
def test_what_may_have_changed_a_systems_speed_is_said(tmp_path: Path, key: str, differing: dict[str, object]) -> None:
    findings = of_machines(tmp_path, {"software": {**SOFTWARE, "kernel": "6.6"}}, differing)
    assert (key, "warning") in [(each.key, each.severity) for each in findings] and rules(findings) == []


def test_what_no_log_says_and_what_varies_by_itself_is_no_difference(tmp_path: Path) -> None:
    """Memory that the kernel keeps, an older version's log without a key, and a run that broke before its fingerprint."""
    older = {key: value for key, value in SOFTWARE.items() if key != "dali"}
    machines: list[dict[str, object]] = [
        {"data_fingerprint": "ab" * 32},
        {"hardware": {**HARDWARE, "memory_gib": 2015.6}},
        {"software": older},
    ]
    assert of_machines(tmp_path, *machines) == []


def test_a_copy_counts_once(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "result_4.txt").write_bytes((tmp_path / "result_0.txt").read_bytes())
    assert rules(of_series(tmp_path)) == ["seeds", "runs alike"]


def shifted(log: list[Event], by_ms: int) -> list[Event]:
    """The run at another hour."""
    for each in log:
        each["time_ms"] += by_ms
    return log


def jittered(log: list[Event]) -> list[Event]:
    """The run with its seed and every other evaluation at other moments."""
    for index, each in enumerate(each for each in log if each["key"].startswith("eval_")):
        each["time_ms"] += index % 2
    return log


@pytest.mark.parametrize(
    "copy",
    [events(seed=9), shifted(events(seed=9), 3_600_123), jittered(events(seed=9))],
    ids=["under another seed", "an hour later", "with some moments changed"],
)
def test_a_copy_is_known_by_its_moments(tmp_path: Path, copy: list[Event]) -> None:
    """Five copies of one run with five seeds were official: every stamp was the same to the millisecond."""
    write_series(tmp_path)
    write(tmp_path / "result_4.txt", copy)
    findings = of_series(tmp_path)
    assert rules(findings) == ["runs alike"]
    assert findings[0].found.startswith("result_4.txt is a copy of result_0.txt: ")
    (series,) = find_series([tmp_path])
    assert any("is a copy of" in each for each in score(series).unofficial)


def test_runs_at_one_time_on_several_machines_are_no_copies(tmp_path: Path) -> None:
    """Nor are runs of a second, of which many moments agree by chance."""
    for index in range(5):
        write(tmp_path / f"at_once/result_{index}.txt", events(seed=index, epoch_ms=12_000 + 3 * index))
        write(tmp_path / f"short/result_{index}.txt", events(seed=index, epoch_ms=3, evaluations=((3, 0.3),)))
    assert of_series(tmp_path / "at_once") == []
    assert "runs alike" not in rules(of_series(tmp_path / "short"))


def test_published_runs_are_no_copies_of_each_other(test_data: Path) -> None:
    for series in find_series([test_data / "mlperf-results"]):
        assert list(copies(series.records)) == []


def test_number_and_names_of_runs(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    (tmp_path / "result_2.txt").rename(tmp_path / "result_7.txt")
    assert rules(of_series(tmp_path), "warning") == ["number of runs", "file names"]


def test_one_failure_of_five_is_allowed_and_two_are_not(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(tmp_path / "result_3.txt", events(seed=9, epoch_ms=12_345, status="aborted"))

    def errors() -> list[str]:
        (series,) = find_series([tmp_path])
        ruleset = rules_for("ssd", "0.7.0")
        findings = [each for record in series.records for each in check_log(Log(record.path, record, ruleset))]
        findings += check_series(series, ruleset, "ssd")
        return rules(soften_one_failure(findings, series, ruleset, {r.path: r.path for r in series.records}))

    assert errors() == []
    write(tmp_path / "result_4.txt", events(seed=10, epoch_ms=12_346, status="aborted"))
    assert errors() == ["outcome", "outcome", "convergence"]


@pytest.mark.parametrize(
    "evaluations",
    [((40, 0.1), (50, float("nan"))), ((40, 0.1), (43, 0.12)), ((3, 0.01),)],
    ids=["a loss that became NaN", "given up off schedule", "given up early"],
)
def test_the_one_run_that_may_fail_may_have_diverged(
    tmp_path: Path, evaluations: tuple[tuple[int, float], ...]
) -> None:
    """MLPerf's tools take it as the slowest; four that are whole keep their figure."""
    write_series(tmp_path)
    assert score(find_series([tmp_path])[0]).official
    write(tmp_path / "result_3.txt", events(seed=9, epoch_ms=12_345, status="aborted", evaluations=evaluations))
    (series,) = find_series([tmp_path])
    assert score(series).unofficial == ()
    write(tmp_path / "result_3.txt", events(seed=9, epoch_ms=12_345, evaluations=((40, 0.1), (43, 0.12), (50, 0.24))))
    (series,) = find_series([tmp_path])
    assert any("evaluation schedule" in each for each in score(series).unofficial), (
        "of a run that counts it is an error"
    )


def test_seeds_as_text_are_seeds(tmp_path: Path) -> None:
    """MLPerf's seed checker makes numbers of them; equal ones are equal still."""
    write_series(tmp_path, ruleset="1.1.0")
    for index in range(5):
        log = events(ruleset="1.1.0", epoch_ms=12_000 + 10 * index)
        for each in log:
            if each["key"] == "seed":
                each["value"] = f" {700 + min(index, 3)}"
        write(tmp_path / f"result_{index}.txt", log)
    (series,) = find_series([tmp_path])
    assert [each.seeds for each in series.records] == [(700,), (701,), (702,), (703,), (703,)]
    assert rules(list(check_series(series, rules_for("ssd", "1.1.0"), "ssd"))) == ["seeds"]
    assert parsed(text(spoilt("seed", "7 runs"))).seeds == ()


@pytest.mark.parametrize(
    ("params", "severity"), [("seed-checker-bypass", "warning"), ("seed-checker-bypass\n", "error")]
)
def test_seeds_that_the_package_checker_lets_pass(tmp_path: Path, params: str, severity: str) -> None:
    package = write_package(tmp_path)
    folder = package / "results/dgxa100_test/ssd"
    write(folder / "result_4.txt", events(seed=100, epoch_ms=12_345))
    (folder.parent / "package_checker_params").write_text(params)
    assert [(each.rule, each.severity) for each in of_series(folder)] == [("seeds", severity)]


# --- system descriptions ---


def test_a_good_description() -> None:
    assert len(FIELDS) == 33
    assert list(check_description(DESCRIPTION, "s.json", "0.7.0")) == []


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("division", "Closed", "division"),
        ("division", "other", "division"),
        ("status", "somewhere", "status"),
        ("number_of_nodes", 1, "system texts"),
        ("accelerators_per_node", "eight", "system counts"),
        ("framework", "", "system answered"),
        ("host_memory_capacity", "FILL IN: total memory", "placeholder"),
        ("submitter", "<your organization>", "placeholder"),
        ("other_software_stack", {"cuda_version": 13.0}, "system texts"),
    ],
)
def test_each_fault_of_a_description(key: str, value: object, rule: str) -> None:
    findings = list(check_description({**DESCRIPTION, key: value}, "s.json", "0.7.0"))
    assert [(each.rule, each.severity) for each in findings] == [(rule, "error")]


@pytest.mark.parametrize("value", ["-1", "many", "6.5"])
def test_a_count_of_cores_is_one(value: str) -> None:
    (finding,) = check_description({**DESCRIPTION, "host_processor_core_count": value}, "s.json", "0.7.0")
    assert (finding.rule, finding.severity) == ("system counts", "warning")


@pytest.mark.parametrize(
    ("status", "ruleset", "wanted"),
    [
        ("onprem", "1.1.0", None),
        ("Available on-premise", "1.1.0", "onprem"),
        ("onprem", "5.1.0", "Available on-premise"),
        ("Available on-premise", "5.1.0", None),
        ("available on-premise", "5.1.0", "Available on-premise"),
        ("Research, Development, or Internal (RDI)", "5.1.0", None),
        (
            "available",
            "5.1.0",
            "one of Available on-premise, Available cloud, Preview, Research, Development, or Internal (RDI)",
        ),
    ],
)
def test_a_status_is_asked_for_in_the_rounds_words(status: str, ruleset: str, wanted: str | None) -> None:
    """Submitters of 5.1 were told to write onprem, which MLPerf's checker refuses there."""
    found = list(check_description({**DESCRIPTION, "status": status}, "s.json", ruleset))
    fixes = [] if wanted is None else [("status", "warning", f"write {wanted}, as ruleset {ruleset} has it")]
    assert [(each.key, each.severity, each.fix) for each in found] == fixes


def test_a_missing_field() -> None:
    description = {key: value for key, value in DESCRIPTION.items() if key != "number_of_nodes"}
    assert [(each.rule, each.key) for each in check_description(description, "s.json", "0.7.0")] == [
        ("system fields", "number_of_nodes")
    ]


@pytest.mark.parametrize(
    ("key", "value", "log_key", "severity"),
    [
        ("submitter", "NVIDIA", "submission_org", "error"),
        ("division", "open", "submission_division", "error"),
        ("status", "cloud", "submission_status", "warning"),
        ("status", "Available cloud", "submission_status", "warning"),
        ("accelerators_per_node", "4", "init_start", "warning"),
    ],
)
def test_logs_that_speak_of_another_system(key: str, value: str, log_key: str, severity: str) -> None:
    record = parsed(text(events()))
    for same in (DESCRIPTION, {**DESCRIPTION, "status": "Available on-premise"}):
        assert list(check_agreement(same, "dgxa100_test", [("result_0.txt", record)])) == []
    (finding,) = check_agreement({**DESCRIPTION, key: value}, "dgxa100_test", [("result_0.txt", record)])
    assert (finding.key, finding.severity) == (log_key, severity)


@pytest.mark.parametrize(
    ("key", "value", "severity"),
    [
        ("number_of_nodes", "2", "error"),
        ("accelerators_per_node", "1", "error"),
        ("accelerators_per_node", "0", "error"),
        ("accelerator_model_name", "NVIDIA T4", "error"),
        ("accelerator_model_name", "NVIDIA A10", "error"),
        ("accelerator_model_name", "NVIDIA A100-SXM4-80GB", "error"),
        ("accelerator_model_name", "NVIDIA A100-PCIE-40GB", "error"),
        ("host_processor_model_name", "Intel Atom", "error"),
        ("host_processor_model_name", "AMD EPYC 7763", "error"),
        ("host_processors_per_node", "1", "warning"),
        ("host_processor_core_count", "1", "warning"),
        ("framework", "TensorFlow 1.0", "warning"),
        ("framework", "PyTorch 1.13", "warning"),
        ("operating_system", "CentOS 7", "warning"),
    ],
)
def test_a_description_of_another_machine_than_the_log_states(key: str, value: str, severity: str) -> None:
    """One of a T4 beside an Atom ranked eight A100s first among single accelerators."""
    record = parsed(text(events(own=own(software={**SOFTWARE, "os": "Ubuntu 24.04.3 LTS"}))))
    assert list(check_agreement(DESCRIPTION, "dgxa100_test", [("result_0.txt", record)])) == []
    findings = list(check_agreement({**DESCRIPTION, key: value}, "dgxa100_test", [("result_0.txt", record)]))
    assert [each.severity for each in findings] == [severity], findings


@pytest.mark.parametrize(
    ("logged", "described"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100-SXM5-80GB (700W)"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100 40 GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100-PCI-E-80GB"),
        ("AMD Instinct MI300X", "AMD MI300X-192GB"),
        ("NVIDIA GeForce RTX 4090", "8x RTX 4090"),
    ],
)
def test_one_accelerator_in_the_words_of_two(logged: str, described: str) -> None:
    assert same_accelerator(logged, described)


@pytest.mark.parametrize(
    ("logged", "described", "same"),
    [
        ("Intel(R) Xeon(R) CPU E5-2698 v4 @ 2.20GHz", "Intel Xeon E5-2698 v4", True),
        ("Intel(R) Xeon(R) Platinum 8480C", "Intel(R) Xeon(R) Platinum 8480C CPU", True),
        ("AMD EPYC 7742 64-Core Processor", "EPYC 7742", True),
        ("Intel(R) Xeon(R) Processor", "Intel Xeon Platinum 8480C", True),  # as a virtual machine names it
        ("Intel(R) Xeon(R) Platinum 8480C", "Intel(R) Xeon(R) Platinum 8168", False),
    ],
)
def test_one_processor_in_the_words_of_two(logged: str, described: str, same: bool) -> None:
    assert same_processor(logged, described) is same


def test_the_class_of_a_result_is_its_logs_own(tmp_path: Path) -> None:
    package = write_package(tmp_path, own=own())
    (series,) = find_series([package])
    assert series.accelerators == 8
    description = {**DESCRIPTION, "accelerators_per_node": "1"}
    (package / "systems/dgxa100_test.json").write_text(json.dumps(description))
    (series,) = find_series([package])
    assert series.accelerators == 8
    assert any("8 accelerators a node, the system has 1" in each for each in score(series).unofficial)


def test_odd_values_of_a_description_cost_a_finding_each() -> None:
    odd = {
        "hardware": {"accelerators": [None, {}], "cpu": " ", "sockets": "x"},
        "software": {"os": " ", "torch": "\u0968"},
    }
    record = parsed(text(events(own=own(**odd))))
    for value in ("9" * 5_000, "\u0968", "x" * 300_000, "<" * 300_000, {"a": [None]}, None, True):
        description = {**DESCRIPTION, "number_of_nodes": value, "system_name": value}
        description |= dict.fromkeys(("accelerator_model_name", "host_processor_model_name", "operating_system"), value)
        list(check_description(description, "s.json", "0.7.0"))
        list(check_agreement(description, "dgxa100_test", [("result_0.txt", record)]))


def test_a_platform_of_another_machine() -> None:
    record = parsed(text(spoilt("submission_platform", "4xC4140")))
    (finding,) = check_agreement(DESCRIPTION, "dgxa100_test", [("result_0.txt", record)])
    assert (finding.key, finding.severity) == ("submission_platform", "error")


@pytest.mark.parametrize(
    "words", ["1xSUBMISSION_PLATFORM_PLACEHOLDER", "TODO", "<org>", "Your Company", "FILL IN: x", "$DGXSYSTEM"]
)
def test_placeholders(words: str) -> None:
    assert is_placeholder(words)


@pytest.mark.parametrize(
    "words",
    ["NVIDIA", "1xNVIDIA DGX A100", "Intel(R) Xeon(R) CPU E5-2698 v4 @ 2.20GHz", "N/A", "none", "6x 25GT/s NVLink"],
)
def test_real_names_are_no_placeholders(words: str) -> None:
    assert not is_placeholder(words)


# --- trees ---


def test_a_package_of_two_rulesets(tmp_path: Path) -> None:
    """It was judged whole by the ruleset of most of its logs, and passed with a system that fails by itself."""
    package = write_package(tmp_path / "Someone", own=own())
    later = own(configuration={"run": {"ruleset": "1.0.0", "nodes": 1, "accelerators_per_node": 8}})
    write_series(package / "results/other/ssd", 5, first_seed=700, first_ms=11_000, own=later)
    (package / "systems/other.json").write_text((package / "systems/dgxa100_test.json").read_text())
    (report,) = check([package])
    (said,) = (each for each in report.findings if each.rule == "one ruleset")
    assert said.found == "0.7.0: results/dgxa100_test/ssd; 1.0.0: results/other/ssd" and not report.ok
    assert "one ruleset" not in {each.rule for each in check([package], "0.7.0")[0].findings}, "that one was named"


def test_what_logs_name_is_before_what_others_are_guessed_to_be(tmp_path: Path) -> None:
    """Two logs that may be of either round outvoted one that says which."""
    log = changed(events(ruleset="1.0.0"), "submission_benchmark", lambda each: each.update(value="bert"))
    write(tmp_path / "result_0.txt", log)
    write(tmp_path / "result_1.txt", log)
    later = own(configuration={"run": {"ruleset": "1.1.0"}})
    write(
        tmp_path / "named/result_0.txt",
        [*log, *(event(log[-1]["time_ms"], key, value) for key, value in later.items())],
    )
    assert checker._ruleset(find_series([tmp_path]), None) == ("1.1.0", False)
    assert all(checker.is_for(series, "1.1.0") for series in find_series([tmp_path]))


def test_a_date_alone_makes_no_other_ruleset() -> None:
    """What published logs are for is a guess: by their keys no earlier round, by their date any later one."""
    log = changed(events(ruleset="1.0.0"), "submission_benchmark", lambda each: each.update(value="bert"))
    record = parsed(text(shifted(log, 450 * 86_400_000)))
    assert (record.ruleset, record.ruleset_is_guess) == ("1.1.0", True)
    assert [may_be_for(record, each) for each in ("0.7.0", "1.0.0", "1.1.0", "2.0.0")] == [False, True, True, True]
    assert not may_be_for(parsed(text(events(own=own()))), "1.0.0"), "it says 0.7.0"


@pytest.mark.parametrize(
    ("key", "words"),
    [("series", "of a series that never began"), ("status", "not a line of a ledger")],
)
def test_a_ledger_with_lists_for_words_is_one_finding(tmp_path: Path, key: str, words: str) -> None:
    """Of the ledger, not a traceback of the whole check."""
    folder = write_series(tmp_path, 2)
    lines = [json.loads(line) for line in write_ledger(folder).read_text().splitlines()]
    for line in lines:
        line.pop("previous_sha256")
    lines = [{**line, key: [line[key]]} if key in line and line["event"] != "series" else line for line in lines]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    (series,) = find_series([folder])
    (said,) = check_ledgers(series, "ssd")
    assert said.rule == "ledger" and words in said.found


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.symlink_to("/nowhere/result_4.txt")])
def test_what_is_no_file_in_a_package_is_one_error(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Check waited for ever for a FIFO's writer, and of a link to nowhere had no report."""
    log = write_package(tmp_path / "Someone") / "results/dgxa100_test/ssd/result_4.txt"
    log.unlink()
    spoil(log)
    (report,) = check([tmp_path / "Someone"])
    assert [each for each in report.findings if each.severity == "error" and Path(each.file).name == "result_4.txt"]
    assert official.keeps_busy(write(tmp_path / "result_0.txt", events())) is False
    with pytest.raises((ValueError, OSError)):
        official.keeps_busy(log)


@pytest.mark.parametrize("place", ["dgxa100_test/resnet", "second/ssd", "dgxa100_test/ssd/result_5.txt"])
def test_a_folder_without_files_is_seen_by_mlperfs_checker_too(tmp_path: Path, place: str) -> None:
    """Its copy had none: check passed, with SUCCESS as MLPerf's word, what its package checker rejects or breaks down on."""
    package = write_package(tmp_path / "Someone")
    (package / "results" / place).mkdir(parents=True)
    (package / "systems/second.json").write_text((package / "systems/dgxa100_test.json").read_text())
    (report,) = check([package])
    wrong = [each for each in report.findings if each.severity == "error" and each.rule == "result files"]
    assert [each.file for each in wrong] == [f"results/{place}"]
    (said,) = (each for each in report.verdicts if each.tool == "package checker")
    assert not said.passed, said.quote


def test_what_lies_behind_a_link_to_a_folder_is_no_success_of_mlperfs(tmp_path: Path) -> None:
    """The copy had a folder without runs in its place, of which the tools say SUCCESS."""
    package = write_package(tmp_path / "Someone")
    (package / "results/dgxa100_test").rename(tmp_path / "elsewhere")
    (package / "results/dgxa100_test").symlink_to(tmp_path / "elsewhere")
    (report,) = check([package])
    assert not report.ok and not [each for each in report.verdicts if each.tool == "package checker" and each.passed]


def test_a_folder_named_scaling_json_takes_no_report_away(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    (folder := package / "results/dgxa100_test/ssd/scaling.json").mkdir()
    (folder / "1").touch()
    (report,) = check([package])
    assert [each.found for each in report.findings if each.severity == "error"] == ["a folder"]


@pytest.mark.parametrize("place", ["dgxa100_test", "dgxa100_test/ssd"])
@pytest.mark.parametrize("spoil", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
def test_params_that_are_no_file_are_one_error(tmp_path: Path, place: str, spoil: Callable[[Path], None]) -> None:
    """A folder or a link to nowhere took the whole report away, and a FIFO's writer was waited for."""
    package = write_package(tmp_path / "Someone")
    spoil(package / "results" / place / "package_checker_params")
    errors = [each for each in check_tree(package) if each.severity == "error" and each.rule != "plain files"]
    assert [(each.file, each.rule) for each in errors] == [
        (f"results/{place}/package_checker_params", "package_checker_params")
    ]


def test_a_good_tree_lacks_only_its_sources(tmp_path: Path) -> None:
    findings = list(check_tree(write_package(tmp_path)))
    assert [(each.rule, each.severity) for each in findings] == [("sources", "warning")]


def test_faults_of_a_tree(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    folder = package / "results/dgxa100_test/ssd"
    (folder / "scaling.json").write_text(json.dumps({"scaling_factor": 2}))
    (folder / "package_checker_params").write_text("rcp-bypass\n")
    (folder / "power").mkdir()
    (folder / "nvidia smi.log").write_text("")
    (package / "results/other").mkdir()
    (package / "systems/unused.json").write_text("{}")
    (package / "systems/.DS_Store").write_text("")
    (package / "link").symlink_to("systems")
    faults = {(each.file, each.rule, each.severity) for each in check_tree(package) if each.rule != "sources"}
    name = "results/dgxa100_test/ssd"
    assert faults == {
        ("link", "plain files", "error"),
        ("systems/.DS_Store", "plain names", "error"),
        (f"{name}/nvidia smi.log", "plain names", "error"),
        (f"{name}/nvidia smi.log", "result files", "warning"),
        (f"{name}/scaling.json", "stale scaling", "warning"),
        (f"{name}/package_checker_params", "package_checker_params", "warning"),
        (f"{name}/power", "power", "error"),
        ("results/other", "system described", "error"),
        ("results/other", "result files", "error"),
        ("systems/unused.json", "system described", "warning"),
    }


def test_an_attempt_that_broke_down_is_to_become_no_run(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    write(package / "results/dgxa100_test/ssd/result_1.broken-1.txt", events(seed=999, epoch_ms=30_000))
    (report,) = check([package])
    errors = [each for each in report.findings if each.severity == "error"]
    assert {each.rule for each in errors} == {"result files", "package checker"}
    assert [each.fix for each in errors if each.rule == "result files"] == ["take it out of the result's folder"]


def test_logs_that_no_benchmark_s_folder_holds(tmp_path: Path) -> None:
    """A second system whose benchmark's folder was forgotten passed, and nobody counted it; MLPerf's tools say nothing."""
    package = write_package(tmp_path)
    for name in ("other", "empty"):
        (package / f"systems/{name}.json").write_text((package / "systems/dgxa100_test.json").read_text())
        (package / "results" / name).mkdir()
    write(package / "results/other/result_0.txt", events())
    write(package / "results/stray.log", events())
    (package / "results/result_old.txt").write_text("")
    (package / "results/README.txt").write_text("what these are\n")
    (package / "results/README.md").write_text('such lines as :::MLLOG {"key": "run_start"}\n')
    (package / "results/empty/package_checker_params").write_text("rcp-bypass")
    errors = {(each.file, each.rule) for each in check_tree(package) if each.severity == "error"}
    places = ("empty", "other", "other/result_0.txt", "stray.log", "result_old.txt")
    assert errors == {(f"results/{each}", "result files") for each in places}
