"""Everything that can be said against a log, a series of logs or a package, by MLPerf's tools and by ours, as one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.names import RESULTS, number
from harness.results.by_rules import may_be_for, shortfall
from harness.results.checking import official, own
from harness.results.checking.copies import copies
from harness.results.checking.findings import Finding, Severity
from harness.results.checking.official import Job, OfficialVerdict
from harness.results.checking.package import check_tree, find_packages
from harness.results.checking.series import soften_one_failure
from harness.results.checking.system import check_description, read_description
from harness.results.record import RunRecord
from harness.results.score import four_decimals, score
from harness.results.series import Say, Series, by_folder, find_logs, find_series
from harness.rules import DEFAULT, checkable, meanings, rules_for, ruleset

MINUTES_APART = 1e-6  # between our score and the summarizer's: the last digits of floating point
FIXES = {
    "compliance checker": "log what the ruleset asks for, as it asks",
    "system description checker": "complete the description",
    "package checker": "see its words above and the findings here",
    "seed checker": "log the seed of each run once, with the file and lineno of the call",
    "RCP checker": (
        "a run that converges in fewer epochs than the reference points needs a reference run of its own batch size"
    ),
    "result summarizer": "see its words above",
}

BEYOND = "it has lines too long, or too many marks in one, which keep MLPerf's parser busy for minutes"


@dataclass(frozen=True)
class Report:
    """Of one log, one series or one package."""

    path: str
    ruleset: str
    ruleset_is_guess: bool
    runs: int
    findings: tuple[Finding, ...]
    verdicts: tuple[OfficialVerdict, ...]

    @property
    def errors(self) -> int:
        return sum(each.severity == "error" for each in self.findings)

    @property
    def ok(self) -> bool:
        return self.errors == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "ok": self.ok,
            "ruleset": self.ruleset,
            "ruleset_is_guess": self.ruleset_is_guess,
            "runs": self.runs,
            "findings": [each.as_json() for each in self.findings],
            "official": [each.as_json() for each in self.verdicts],
        }


@dataclass(frozen=True)
class _Subject:
    """One log, series or package to report on."""

    found: tuple[Series, ...]
    ruleset: str
    guess: bool
    job: Job | None  # None where MLPerf's tools have nothing to say
    package: Path | None = None
    mixed: bool = False  # whether some series are of another ruleset


def check(
    paths: Iterable[Path],
    ruleset: str | None = None,
    *,
    cache: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda *_: None,
    say: Say | None = None,
) -> list[Report]:
    """A report for each package, else for each series, at or under these paths. ValueError where there is nothing.

    MLPerf's tools run in `workers` processes, their answers are kept in `cache`; `progress` is told how many of how many are
    done, and `say` of what cannot be read.
    """
    work: list[_Subject] = []
    alone: list[Path] = []
    left_out: list[Path] = []
    for path in paths:
        packages = find_packages(path)
        work += [_package_work(package, ruleset) for package in packages]
        if packages:  # and what lies beside them
            logs = find_logs(path, say, left_out.append)
            alone += [log for log in logs if not any(log.is_relative_to(each) for each in packages)]
        else:
            alone.append(path)
    beside = by_folder(left_out)
    for series in find_series(alone, say) if alone else []:
        more = beside.pop(series.folder, [])
        work.append(_series_work(replace(series, left_out=(*series.left_out, *more)), ruleset))
    jobs = [each.job for each in work if each.job is not None]
    answers = iter(official.ask(jobs, cache=cache, workers=workers, progress=progress))
    return [_report(each, next(answers) if each.job is not None else []) for each in work]


def _series_work(series: Series, asked: str | None) -> _Subject:
    chosen, guess = _ruleset([series], asked)
    # what we refuse to read keeps their parsers busy for minutes
    logs = [record for record in series.begun if record.outcome != "empty" and not _beyond_limits(record)]
    job = None
    if logs and chosen in checkable() and official.knows(series.first.benchmark, chosen):
        closed, judged = series.first.division == "closed", ruleset(chosen)
        rcp = closed and len(logs) == rules_for(series.first.benchmark, chosen).runs
        seeds = closed and judged is not None and judged.seeds == "required"
        job = Job(chosen, tuple((Path(record.path), record.path) for record in logs), rcp, seeds=seeds)
    return _Subject((series,), chosen, guess, job)


def job_of(series: Series, ruleset: str | None) -> Job | None:
    """What MLPerf's tools are asked of one series; None where they have nothing to say."""
    return _series_work(series, ruleset).job


def why_no_job(series: Series) -> str:
    """Why there is nothing that they are asked, in words."""
    logs = [record for record in series.begun if record.outcome != "empty"]
    if logs and all(map(_beyond_limits, logs)):
        return f"MLPerf's tools are not asked: {BEYOND}"
    return "MLPerf's tools have no rules for it" if logs else "MLPerf's tools are not asked of logs that cannot be read"


def _package_work(package: Path, asked: str | None) -> _Subject:
    found = tuple(series for folder in _result_folders(package) for series in find_series([folder]))
    chosen, guess = _ruleset(list(found), asked)
    known = not found or any(official.knows(series.first.benchmark, chosen) for series in found)
    beyond = any(_kept_back(record) for series in found for record in series.records)
    job = Job(chosen, package=package) if known and not beyond and chosen in checkable() else None
    mixed = asked is None and not all(is_for(series, chosen) for series in found)
    return _Subject(found, chosen, guess, job, package, mixed)


def _beyond_limits(record: RunRecord) -> bool:
    return any(problem.kind == "limit" for problem in record.problems) or official.keeps_busy(Path(record.path))


def _kept_back(record: RunRecord) -> bool:
    return record.outcome != "empty" and _beyond_limits(record)


def _report(work: _Subject, answer: list[OfficialVerdict] | RuntimeError) -> Report:
    verdicts = [] if isinstance(answer, RuntimeError) else answer
    name = str(work.package or work.found[0].folder)
    findings: list[Finding] = [_no_answer(name, answer)] if isinstance(answer, RuntimeError) else []
    first = work.found[0].first if work.found else None
    if first is not None and first.events:
        if work.ruleset not in checkable():
            findings.append(_unknown_ruleset(name, work.ruleset))
        else:
            findings += _unknown_keywords(work, name)
    findings += _from_verdicts(verdicts)
    findings += [_too_long(record.path) for series in work.found for record in series.records if _kept_back(record)]
    if work.package is None:
        series = work.found[0]
        rules = rules_for(series.first.benchmark, work.ruleset)
        names = {record.path: record.path for record in series.records}
        findings = soften_one_failure(
            [*own.findings(series, rules, names, str(series.folder)), *findings], series, rules, names
        )
        name = series.records[0].path if len(series.records) == 1 else name
    else:
        findings = _of_package(work, work.package, verdicts, findings)
    runs = sum(len(series.begun) for series in work.found)
    return Report(name, work.ruleset, work.guess, runs, _errors_first(findings), tuple(verdicts))


def _of_package(
    work: _Subject, package: Path, verdicts: list[OfficialVerdict], findings: list[Finding]
) -> list[Finding]:
    """All findings of a package; `findings` are the tools' own."""
    findings = [*check_tree(package), *_descriptions(package, work.ruleset), *findings]
    if not work.found:
        fix = "add results/SYSTEM/BENCHMARK"
        findings.append(Finding("error", "results", "", None, "results", "no result log", fix))
    for series in work.found:
        rules = rules_for(series.first.benchmark, work.ruleset)
        names = {record.path: Path(record.path).relative_to(package).as_posix() for record in series.records}
        name = series.folder.relative_to(package).as_posix()
        ours = [
            replace(each, severity="error") if each.rule == "number of runs" else each
            for each in own.findings(series, rules, names, name)
        ]
        ours += _folder_named(series, name)
        ours += _scores_agree(series, work.ruleset, name, verdicts)
        findings = soften_one_failure([*findings, *ours], series, rules, names)
    if work.mixed:
        findings.append(_several_rulesets(work.found, package))
    return [*findings, *_in_two_results(work.found, package)]


def _several_rulesets(found: Sequence[Series], package: Path) -> Finding:
    """A package is of one round: judged by the rules of most of it, the others would pass by rules that are not theirs."""
    folders: dict[str, list[str]] = {}
    for series in found:
        folders.setdefault(_ruleset([series], None)[0], []).append(series.folder.relative_to(package).as_posix())
    text = "; ".join(f"{name}: {', '.join(folders[name])}" for name in sorted(folders))
    fix = "make a package for each; or name the one that all are for with --ruleset"
    return Finding("error", "results", "", None, "one ruleset", text, fix)


def _in_two_results(found: Sequence[Series], package: Path) -> Iterator[Finding]:
    """Runs that stand in two results, as where a package was made again under another name of its system."""
    records = [record for series in found for record in series.begun if record.events]
    for record, earlier, why in copies(records):
        here, there = (Path(each.path).relative_to(package) for each in (record, earlier))
        if here.parent != there.parent:
            fix = "a run is one result's: take the other out"
            yield Finding("error", here.as_posix(), "", None, "runs alike", f"a copy of {there.as_posix()}: {why}", fix)


def _errors_first(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(dict.fromkeys(findings), key=lambda each: each.severity))  # what two checks find, once


def _result_folders(package: Path) -> list[Path]:
    folders = (path for path in (package / "results").glob("*/*") if path.is_dir())
    return sorted(folder for folder in folders if any(folder.glob(RESULTS)))  # whatever stands for N, as MLPerf's tools


def _descriptions(package: Path, ruleset: str) -> Iterator[Finding]:
    """What is wrong with each description."""
    for file in sorted((package / "systems").glob("*.json")):
        name = f"systems/{file.name}"
        content = read_description(file)
        if isinstance(content, str):
            yield Finding("error", name, "", None, "system readable", content, "write it as JSON")
        else:
            yield from check_description(content, name, ruleset)


def _folder_named(series: Series, name: str) -> Iterator[Finding]:
    benchmark = series.first.benchmark
    if benchmark and series.folder.name != benchmark:
        fix = f"name the folder {benchmark}"
        yield Finding("error", name, "submission_benchmark", None, "folder name", benchmark, fix)


def _scores_agree(series: Series, ruleset: str, name: str, verdicts: list[OfficialVerdict]) -> Iterator[Finding]:
    """Ours against the summarizer's, which takes a run for converged when it has a run_stop."""
    ours = score(series, ruleset).exact_minutes
    theirs = next((each.value for each in verdicts if each.tool == "result summarizer" and each.about == name), None)
    rules = rules_for(series.first.benchmark, ruleset)
    if ours is None or theirs is None or any(shortfall(record, rules) for record in series.records):
        return
    if any(number(path) is None for path in series.folder.glob(RESULTS)):  # they take it for a run, of which is told
        return
    if abs(float(ours) - theirs) > MINUTES_APART * theirs:
        text = f"{four_decimals(ours)} minutes, MLPerf's summarizer has {theirs:.4f}"
        yield Finding("error", name, "", None, "score", text, "see run_start and run_stop: they are not clear")


def is_for(series: Series, ruleset: str) -> bool:
    """Whether a series can be of this ruleset; logs that say nothing can be of any."""
    said = [record for record in series.records if record.ruleset]
    return not said or any(may_be_for(record, ruleset) for record in said)


def _ruleset(found: list[Series], asked: str | None) -> tuple[str, bool]:
    """Asked for, or what most of those logs say that name one; and whether it is only a guess from the keys of all."""
    if asked is not None:
        return asked, False
    records = [record for series in found for record in series.records if record.ruleset]
    if not records:
        return DEFAULT, True
    named = [record for record in records if not record.ruleset_is_guess]
    return Counter(record.ruleset for record in named or records).most_common(1)[0][0] or DEFAULT, not named


def _from_verdicts(verdicts: Iterable[OfficialVerdict]) -> Iterator[Finding]:
    for verdict in verdicts:
        if verdict.passed is False:
            for key, message, line in verdict.reasons or (("", official.gist(verdict.quote), None),):
                yield Finding("error", verdict.about, key, line, verdict.tool, message, FIXES[verdict.tool])


def _unknown_ruleset(name: str, ruleset: str) -> Finding:
    fix = f"name one with --ruleset: {', '.join(checkable())}"
    return Finding("error", name, "", None, "ruleset", f"{ruleset}, which MLPerf's tools cannot check here", fix)


def _unknown_keywords(work: _Subject, name: str) -> Iterator[Finding]:
    """Benchmarks that MLPerf's compliance checker breaks down on: an error, except for what is no benchmark of MLPerf's."""
    # with whether it lies outside of this project, as the log of a run of ours says
    said = ((record.benchmark, bool(record.benchmark_sha256)) for series in work.found for record in series.records)
    for benchmark, elsewhere in dict.fromkeys(said):
        if benchmark is None or official.knows(benchmark, work.ruleset):
            continue
        in_others = [each for each, known in official.keywords().items() if benchmark in known and not elsewhere]
        severity: Severity = "error"
        if in_others:
            text = f"{benchmark}, which MLPerf's tools know in {', '.join(in_others)}, and not in {work.ruleset}"
            fix = "name the ruleset that it was run for with --ruleset"
        elif not elsewhere and (meant := _meant(benchmark)):
            text = f"{benchmark}, which MLPerf's tools do not know; {meant} is meant?"
            fix = (
                "write it as MLPerf does, and run again; of a benchmark of your own HARNESS_BENCHMARKS names the folder"
            )
        else:
            text = f"{benchmark}, which MLPerf's tools do not know in {work.ruleset}: checked by ours alone"
            fix, severity = "name it as MLPerf does, where it is a benchmark of MLPerf", "warning"
        yield Finding(severity, name, "submission_benchmark", None, "benchmark", text, fix)


def _meant(benchmark: str) -> str | None:
    """The keyword of MLPerf's that this is nearly; none where it is one of its own, with rules here."""
    if meanings(benchmark):
        return None
    known = set[str]().union(*official.keywords().values())
    return next((each for each in sorted(known) if _letters(each) == _letters(benchmark)), None)


def _letters(keyword: str) -> tuple[int, list[str]]:
    """Alike of a keyword in other capitals, with other signs, and with a letter twice for another: SSD, mask_rcnn, sdd.

    No further: resnext, unet and bart are benchmarks that MLPerf does not have, and nearly resnet, unet3d and bert.
    """
    letters = [each for each in keyword.casefold() if each.isalnum()]
    return len(letters), sorted(set(letters))


def _too_long(name: str) -> Finding:
    text = f"{BEYOND}: not given to MLPerf's parser"
    return Finding(
        "error", name, "", None, "MLPerf's tools", text, "log each record on a line of its own, of some kB at most"
    )


def _no_answer(name: str, error: RuntimeError) -> Finding:
    return Finding(
        "error", name, "", None, "MLPerf's tools", str(error), "check again; they are part of the installation"
    )
