"""MLPerf's tools through our wrapper: their verdicts on real logs, every known trap, and guards for what upstream may fix."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.results.checking import official
from harness.results.checking.checker import check
from harness.results.checking.kept import Opinions
from harness.results.checking.official import Job, OfficialVerdict
from harness.results.reporting import report
from harness.results.reporting.leaderboard import Row
from harness.results.score import score
from harness.results.series import find_series
from tests.harness.results.logs import DESCRIPTION, changed, events, text, without, write, write_package, write_series
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.early


def verdicts(folder: Path, ruleset: str = "0.7.0", *, rcp: bool = False) -> list[OfficialVerdict]:
    return answer(Job(ruleset, tuple((path, path.name) for path in sorted(folder.glob("result_*.txt"))), rcp))


def answer(job: Job, **how: Any) -> list[OfficialVerdict]:
    (found,) = official.ask([job], **how)
    assert not isinstance(found, RuntimeError)
    return found


def of_package(package: Path, ruleset: str) -> list[OfficialVerdict]:
    return answer(Job(ruleset, package=package))


@pytest.mark.long
@pytest.mark.parametrize(
    ("part", "ruleset"), [("v0.7/NVIDIA", "0.7.0"), ("v0.7/Fujitsu", "0.7.0"), ("v1.1/NVIDIA", "1.1.0")]
)
def test_published_packages_pass_all_tools(test_data: Path, part: str, ruleset: str) -> None:
    found = of_package(test_data / "mlperf-results" / part, ruleset)
    assert [each for each in found if each.passed is False] == []
    (words,) = [each.quote for each in found if each.tool == "package checker"]
    assert "PACKAGE CHECKER FOUND NO ERRORS, SUCCESS !" in words


@pytest.mark.long
def test_published_series_check_without_an_error(test_data: Path) -> None:
    """NVIDIA's pass as they are; Fujitsu's logs pass, and its description says Closed."""
    reports = {
        report.path.rsplit("/", 2)[-2] + "/" + report.path.rsplit("/", 1)[-1]: report
        for report in check([test_data / "mlperf-results"])
    }
    assert {name: report.errors for name, report in reports.items()} == {
        "v0.7/NVIDIA": 0,
        "v1.1/NVIDIA": 0,
        "v0.7/Fujitsu": 1,
    }
    (error,) = [each for each in reports["v0.7/Fujitsu"].findings if each.severity == "error"]
    assert (error.rule, error.found) == ("division", "Closed")


def test_the_ruleset_decides(tmp_path: Path) -> None:
    write(tmp_path / "result_0.txt", events())
    (seven,), (ten,) = verdicts(tmp_path), verdicts(tmp_path, "1.0.0")
    assert (seven.passed, seven.quote) == (True, "SUCCESS")
    assert (ten.passed, ten.reasons[0][0]) == (False, "gradient_accumulation_steps")


def test_our_119_names_satisfy_1_1_0(tmp_path: Path) -> None:
    """As the log of a closed run writes them: one weights_initialization line for each parameter."""
    from benchmarks.ssd.model import SSD
    from benchmarks.ssd.weight_names import mllog_names
    from tests.harness.results.logs import event

    names = mllog_names(name for name, _ in SSD("resnet34", 81, (4, 6, 6, 6, 4, 4)).named_parameters())
    log = events(ruleset="1.1.0")
    at = next(index for index, each in enumerate(log) if each["key"] == "init_stop")
    log[at:at] = [event(log[at]["time_ms"], "weights_initialization", None, tensor=name) for name in names.values()]
    write(tmp_path / "result_0.txt", log)
    assert verdicts(tmp_path, "1.1.0")[0].passed
    write(tmp_path / "result_0.txt", without(log, "weights_initialization"))
    assert not verdicts(tmp_path, "1.1.0")[0].passed


def test_every_key_that_the_ruleset_requires(tmp_path: Path) -> None:
    required = ("model_bn_span", "max_samples", "opt_weight_decay", "train_samples", "cache_clear", "submission_org")
    for index, key in enumerate(required):
        write(tmp_path / f"result_{index}.txt", without(events(), key))
    assert [(each.passed, each.reasons[0][0]) for each in verdicts(tmp_path)] == [(False, key) for key in required]


def test_what_breaks_the_checker_down_is_a_verdict_and_the_next_file_is_judged_alone(tmp_path: Path) -> None:
    write(tmp_path / "result_0.txt", changed(events(), "submission_division", lambda e: e.update(value="Closed")))
    write(tmp_path / "result_1.txt", changed(events(), "seed", lambda e: e.pop("metadata")))
    (tmp_path / "result_2.txt").write_bytes(b"\xff" * 100)
    write(tmp_path / "result_3.txt", events())
    closed, no_metadata, nothing, good = verdicts(tmp_path)
    assert not closed.passed and "FileNotFoundError" in closed.quote
    assert not no_metadata.passed and "KeyError" in no_metadata.quote
    assert not nothing.passed and "No log lines detected" in nothing.quote
    assert good.passed


def test_convergence_points(tmp_path: Path) -> None:
    write_series(tmp_path, ruleset="1.0.0")
    assert verdicts(tmp_path, "1.0.0", rcp=True)[-1].passed is True
    assert verdicts(tmp_path, "0.7.0", rcp=True)[-1].passed is None  # advice
    faster = ((40, 0.1), (45, 0.24))
    write_series(tmp_path, ruleset="1.0.0", evaluations=faster)
    verdict = verdicts(tmp_path, "1.0.0", rcp=True)[-1]
    assert verdict.passed is False
    assert "Missing RCP" in verdict.quote


def test_no_tool_writes_beside_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_package(tmp_path / "Someone", ruleset="1.0.0")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = sorted(tmp_path.rglob("*"))
    of_package(package, "1.0.0")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stale_scaling_file_scales_nothing(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    (package / "results/dgxa100_test/ssd/scaling.json").write_text(json.dumps({"scaling_factor": 2}))
    (score,) = [each.value for each in of_package(package, "0.7.0") if each.value is not None]
    assert score == pytest.approx(10.1516, abs=1e-3)


def test_a_description_that_breaks_the_tools_down(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    path = package / "systems/dgxa100_test.json"
    path.write_text(json.dumps({**DESCRIPTION, "submitter": 1}))
    found = of_package(package, "0.7.0")
    assert any("TypeError" in each.quote for each in found if each.tool == "system description checker")
    path.write_text(json.dumps({key: value for key, value in DESCRIPTION.items() if key != "number_of_nodes"}))
    found = of_package(package, "0.7.0")
    assert any("number_of_nodes" in each.quote and each.passed is False for each in found)
    assert any("NameError" in each.quote for each in found if each.tool == "result summarizer")
    path.unlink()
    found = of_package(package, "0.7.0")
    assert any("FileNotFoundError" in each.quote for each in found if each.tool == "package checker")


def test_runs_with_one_seed(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone", ruleset="1.0.0")
    for index in range(5):
        write(
            package / f"results/dgxa100_test/ssd/result_{index}.txt",
            events(ruleset="1.0.0", seed=1, epoch_ms=12_000 + index),
        )
    (verdict,) = [each for each in of_package(package, "1.0.0") if each.tool == "package checker"]
    assert not verdict.passed and "Seed checker failed" in verdict.quote


def test_seeds_of_a_series_are_judged_as_those_of_a_package(tmp_path: Path) -> None:
    """A series was accepted whose seed is logged twice at one line, or without the line, and its package refused."""
    folder = write_series(tmp_path / "series", 2, ruleset="1.0.0")
    whole = (folder / "result_1.txt").read_text()
    (seed,) = (line for line in whole.splitlines(True) if '"seed"' in line)

    def told() -> list[tuple[bool | None, bool]]:
        (report,) = check([folder])
        return [
            (each.passed, "seed checker" in {finding.rule for finding in report.findings})
            for each in report.verdicts
            if each.tool == "seed checker"
        ]

    assert told() == [(True, False)]
    for spoilt in (seed * 2, seed.replace('"file": "train.py", "lineno": 1', "")):
        (folder / "result_1.txt").write_text(whole.replace(seed, spoilt))
        assert told() == [(False, True)]
    (folder / "package_checker_params").write_text("seed-checker-bypass")
    assert told() == [(True, False)]


# --- what upstream lets pass: when one of these fails, a check of ours has become superfluous. Long, since what they try
# changes with the lock file alone ---


@pytest.mark.long
def test_upstream_still_accepts_a_run_stop_before_run_start(tmp_path: Path) -> None:
    log = changed(events(), "run_stop", lambda e: e.update(time_ms=1_592_000_000_000))
    write(tmp_path / "result_0.txt", log)
    assert verdicts(tmp_path)[0].passed


@pytest.mark.long
def test_upstream_still_accepts_any_first_boundary_and_schedule(tmp_path: Path) -> None:
    key = "opt_learning_rate_decay_boundary_epochs"
    write(tmp_path / "result_0.txt", changed(events(evaluations=((7, 0.24),)), key, lambda e: e.update(value=[41, 50])))
    assert verdicts(tmp_path)[0].passed


@pytest.mark.long
def test_upstream_still_skips_seeds_and_convergence_of_a_capital_closed(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone", ruleset="1.0.0", evaluations=((40, 0.1), (45, 0.24)))
    (package / "systems/dgxa100_test.json").write_text(json.dumps({**DESCRIPTION, "division": "Closed"}))
    (verdict,) = [each for each in of_package(package, "1.0.0") if each.tool == "package checker"]
    assert verdict.passed


def test_a_tool_that_gives_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write(tmp_path / "result_0.txt", events())
    monkeypatch.setattr(official.sys, "executable", "/bin/false")
    (report,) = check([log])
    assert not report.ok
    assert [each.rule for each in report.findings] == ["MLPerf's tools"]


def test_many_series_at_once_have_the_answers_of_each_alone_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_series(tmp_path / f"s{index}", 2) for index in range(3)]
    write(folders[1] / "result_0.txt", without(events(), "model_bn_span"))
    told: list[tuple[int, int]] = []
    cache = tmp_path / "cache"
    reports = check(folders, cache=cache, workers=2, progress=lambda *done: told.append(done))
    assert [report.ok for report in reports] == [True, False, True]
    assert told[-1] == (3, 3) and len(list(cache.iterdir())) == 2, "two are alike"
    assert all(verdict.about.startswith(str(folder)) for report, folder in zip(reports, folders, strict=True)
               for verdict in report.verdicts)  # fmt: skip
    monkeypatch.setattr(official.sys, "executable", "/bin/false")  # nothing is asked again
    assert check(folders, cache=cache) == reports
    cache.chmod(0o777)  # others can have put answers there
    assert not any(report.ok for report in check(folders, cache=cache))


def test_a_file_that_cannot_be_read_costs_its_own_answer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One took the table of all results away, and every other report."""
    good, bad = (write_package(tmp_path / name) for name in ("good", "bad"))
    read, secret = Path.read_bytes, bad / "results/dgxa100_test/ssd/notes.txt"
    secret.write_text("")

    def read_bytes(path: Path) -> bytes:
        if path == secret:  # root reads every file
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    reports = check([good, bad], cache=tmp_path / "cache")
    assert [report.ok for report in reports] == [True, False]
    assert f"{secret}: cannot be read: Permission denied" in {each.found for each in reports[1].findings}
    (of_good,), (of_bad,) = (find_series([each / "results/dgxa100_test/ssd"]) for each in (good, bad))
    told = [Opinions(tmp_path / "cache").of(each, "0.7.0").accepted for each in (of_good, of_bad)]
    assert told == [True, None]


def test_what_is_beyond_our_limits_is_not_given_to_their_parsers(tmp_path: Path) -> None:
    path = write(tmp_path / "result_0.txt", events())
    with path.open("a") as file:
        file.write(":::MLLOG " + "x" * 2_000_000 + "\n")
    (report,) = check([path])
    assert report.verdicts == () and {"readable: limit", "outcome"} <= {each.rule for each in report.findings}
    long = changed(
        events(), "submission_org", lambda each: each.update(value="x" * 150_000)
    )  # we read it, they would not
    (report,) = check([write(tmp_path / "long/result_0.txt", long)])
    assert report.verdicts == () and not report.ok
    assert "MLPerf's tools" in {each.rule for each in report.findings}


def test_what_lies_beside_a_package_is_checked_too(tmp_path: Path) -> None:
    write_package(tmp_path / "Someone")
    write(tmp_path / "loose/result_0.txt", events(status="aborted"))
    assert [(Path(each.path).name, each.ok) for each in check([tmp_path])] == [
        ("Someone", True),
        ("result_0.txt", False),
    ]


def test_one_failed_run_of_five_passes_a_package_and_two_do_not(tmp_path: Path) -> None:
    package = write_package(tmp_path / "Someone")
    folder = package / "results/dgxa100_test/ssd"
    (folder / "result_2.txt").write_text(
        text(events(seed=9, epoch_ms=12_345, status="aborted", evaluations=((40, 0.1), (50, 0.2))))
    )
    (report,) = check([package])
    assert report.ok, [each for each in report.findings if each.severity == "error"]
    assert {"outcome", "compliance checker"} <= {each.rule for each in report.findings}
    (folder / "result_3.txt").write_text(
        text(events(seed=10, epoch_ms=12_346, status="aborted", evaluations=((40, 0.1), (50, 0.2))))
    )
    assert not check([package])[0].ok


def test_the_run_that_may_fail_is_no_refusal_of_mlperf_s_tools(tmp_path: Path) -> None:
    """`check` passed the series, and then no score of it was official: their checker refuses the one log by itself."""
    cache = tmp_path / "cache"
    package = write_package(tmp_path / "Someone")
    for folder in (write_series(tmp_path / "alone"), package / "results/dgxa100_test/ssd"):
        best = events(seed=9, epoch_ms=12_345, status="aborted", evaluations=((40, 0.1), (50, 0.2)))
        write(folder / "result_2.txt", best)
    (alone,), (inside,) = (find_series([path]) for path in (tmp_path / "alone", package))

    def official_both() -> list[tuple[bool | None, bool]]:
        found = [(each, Opinions(cache).of(each, None)) for each in (alone, inside)]
        return [(opinion.accepted, score(each, opinion=opinion).official) for each, opinion in found]

    assert official_both() == [(None, True)] * 2, "nobody has asked"
    assert [each.ok for each in check([tmp_path], cache=cache)] == [True, True]
    assert official_both() == [(True, True)] * 2
    found = report.gather([tmp_path], generated=datetime.now(UTC), published=False, checks=cache)
    assert {row.unofficial for row in found.rows} == {()}
    write(tmp_path / "alone/result_3.txt", events(seed=10, epoch_ms=12_346, status="aborted"))
    (alone,) = find_series([tmp_path / "alone"])
    check([tmp_path / "alone"], cache=cache)
    assert official_both() == [(False, False), (True, True)], "two may not"


def test_score_and_report_quote_what_check_was_told_last(tmp_path: Path) -> None:
    """For exactly these logs: one byte more and nobody has been asked. In a package, of that system alone."""
    cache = tmp_path / "cache"
    good, bad = write_series(tmp_path / "good"), write_series(tmp_path / "bad")
    for path in sorted(bad.glob("result_*.txt"))[:2]:
        path.write_text(path.read_text().replace('"global_batch_size"', '"global_batch"'))
    package = write_package(tmp_path / "package")

    def said(folder: Path) -> tuple[bool | None, str]:
        (series,) = find_series([folder])
        found = Opinions(cache).of(series, series.first.ruleset)
        return found.accepted, found.said

    inside = next((package / "results").glob("*/*"))
    for folder in (good, bad, inside):
        assert said(folder) == (None, f"MLPerf's tools were not asked yet: python -m harness check {folder}")
    check([good, bad, package], cache=cache)
    assert said(good) == said(inside) == (True, f"MLPerf's tools (mlperf-logging {official.version()}) accept it")
    accepted, words = said(bad)
    assert accepted is False and "refuse it: compliance checker, result_0.txt: " in words and "; and " in words
    with next(good.glob("result_*.txt")).open("a") as log:
        log.write("\n")
    assert said(good)[0] is None
    (row,) = report.gather([bad], generated=datetime.now(UTC), published=False, checks=cache).rows
    assert row.mlperf == words


SUMMARIZED = """
import sys
from mlperf_logging.package_checker import package_checker
from mlperf_logging.result_summarizer import result_summarizer

folder = sys.argv[1]
package_checker.check_training_package(folder, "training", "1.0.0", False, False, False, False, False, "nowhere")
series = f"{folder}/results/dgxa100_test/ssd"
score, *_ = result_summarizer._compute_strong_score_standalone(
    "ssd", "dgxa100_test", False, series, "training", "1.0.0", {"submitter": ""}
)
print("minutes", score)
"""


def soon_converged(folder: Path, **how: Any) -> Path:
    """Five runs of batch 4096 that took 85 epochs, of which the reference takes 85 to 90."""
    package = write_package(
        folder,
        ruleset="1.0.0",
        evaluations=tuple((at, 0.2301 if at == 85 else 0.1) for at in (40, 50, 55, 60, 65, 70, 75, 80, 85)),
        **how,
    )
    for path in package.rglob("result_*.txt"):
        path.write_text(path.read_text().replace('batch_size", "value": 912', 'batch_size", "value": 4096'))
    return package


def test_the_score_is_multiplied_as_mlperf_multiplies_it(tmp_path: Path) -> None:
    """By their package checker's factor, in their summarizer; known as soon as they were asked, alone or in a package."""
    package, scratch = soon_converged(tmp_path / "Someone"), tmp_path / "scratch"
    shutil.copytree(package, scratch)
    done = subprocess.run(
        [sys.executable, "-c", SUMMARIZED, scratch],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    theirs = float(done.stdout.split("minutes")[-1])
    (series,) = find_series([package / "results/dgxa100_test/ssd"])
    opinions = Opinions(None)
    plain = score(series, opinion=opinions.of(series, "1.0.0"))
    opinions.ask([series], None)
    scaled = score(series, opinion=opinions.of(series, "1.0.0"))
    assert plain.factor == 1 < scaled.factor < 1.1
    assert plain.minutes is not None and plain.minutes * scaled.factor == pytest.approx(theirs, abs=2e-4)
    assert scaled.minutes == pytest.approx(theirs, abs=1e-4)
    cache = tmp_path / "cache"
    check([package], cache=cache)
    assert Opinions(cache).of(series, "1.0.0").factor == scaled.factor
    (row,) = report.gather([package], generated=datetime.now(UTC), published=False, checks=cache).rows
    assert row.minutes == scaled.minutes and "MLPerf's tools multiplied the mean" in (row.note or "")


def of_open_division(package: Path) -> Path:
    (package / "systems/dgxa100_test.json").write_text(json.dumps({**DESCRIPTION, "division": "open"}))
    return package


def test_the_convergence_of_the_open_division_is_not_tested(tmp_path: Path) -> None:
    """As MLPerf's package checker has it: soon converged, such a package was refused, or its score multiplied."""
    soon = {"ruleset": "1.0.0", "division": "open", "evaluations": ((40, 0.1), (45, 0.2301))}
    (report,) = check([of_open_division(write_package(tmp_path / "soon/Someone", **soon))])
    assert report.ok, report.findings
    package, cache = of_open_division(soon_converged(tmp_path / "Someone", division="open")), tmp_path / "cache"
    (report,) = check([package], cache=cache)
    assert report.ok and not [each for each in report.verdicts if each.tool == "RCP checker"]
    (series,) = find_series([package / "results/dgxa100_test/ssd"])
    found = score(series, opinion=Opinions(cache).of(series, "1.0.0"))
    (theirs,) = [each.value for each in report.verdicts if each.about == "results/dgxa100_test/ssd" and each.value]
    assert (found.factor, found.minutes, theirs) == (1, *[pytest.approx(17.5133, abs=1e-4)] * 2)


@pytest.mark.parametrize(("own", "factor"), [(None, 1.05), ({"configuration_sha256": "0" * 64}, 1.0)])
def test_what_reviewers_left_beside_others_logs_counts(
    tmp_path: Path, own: dict[str, Any] | None, factor: float
) -> None:
    """Beside our own it can only be of an earlier check."""
    folder = write_series(tmp_path / "series", own=own)
    (folder / "scaling.json").write_text('{"scaling_factor": 1.05}')
    (series,) = find_series([folder])
    assert Opinions(None).of(series, None).factor == factor
    for nonsense in ('{"scaling_factor": "x"}', "[]", "{", '{"scaling_factor": 0.5}'):
        (folder / "scaling.json").write_text(nonsense)
        assert Opinions(None).of(series, None).factor == 1


def test_what_mlperf_s_tools_refused_is_not_ranked(tmp_path: Path) -> None:
    """Their rules that ours do not repeat, a key that is missing say."""
    cache = tmp_path / "cache"
    package = write_package(tmp_path / "Someone")
    for path in package.rglob("result_*.txt"):
        path.write_text("".join(line for line in path.open() if "opt_base_learning_rate" not in line))

    def row() -> Row:
        (found,) = report.gather([package], generated=datetime.now(UTC), published=False, checks=cache).rows
        return found

    assert row().rank == 1, "nobody has asked"
    assert not check([package], cache=cache)[0].ok
    assert (row().rank, row().unofficial) == (None, ("MLPerf's tools refuse it",))


@pytest.mark.parametrize("place", ["results/dgxa100_test", "results/dgxa100_test/ssd"])
def test_what_the_package_checker_lets_pass_is_no_refusal(tmp_path: Path, place: str) -> None:
    """Of a batch without reference points, as of NVIDIA's 316 nodes in v4.0: by the package, and by the series in it alone."""
    package = write_package(tmp_path / "Someone", ruleset="1.0.0")
    for path in package.rglob("result_*.txt"):
        path.write_text(path.read_text().replace('batch_size", "value": 912', 'batch_size", "value": 2048'))
    params = package / place / "package_checker_params"
    folder = package / "results/dgxa100_test/ssd"
    for said, passes in (("rcp-bypass\n", False), ("rcp-bypass", True)):
        params.write_text(said)
        reports = [*check([package]), *check([folder])]
        told = [
            each for report in reports for each in report.verdicts if each.tool in ("RCP checker", "package checker")
        ]
        assert [each.passed for each in told] == [passes] * 3, told
        assert [each.value for each in told if each.tool == "RCP checker"] == [1.0 if passes else None] * 2
