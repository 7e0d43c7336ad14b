"""A series as an organization's submission: the whole tree by the round's rules, checked before it is let out.

It refuses, in words and all at once, what is no publishable result. What it builds it builds in a scratch folder beside the
target, runs `check` on it, and moves it into place only when that finds no error. A package that is there already gets one
system or benchmark more; nothing is ever overwritten.

    ORG/systems/SYSTEM.json                                   the description
    ORG/results/SYSTEM/BENCHMARK/result_0.txt ...             the logs as they are, numbered from 0
    ORG/benchmarks/BENCHMARK/implementations/NAME/            the sources of the commit that ran
    ORG/benchmarks/BENCHMARK/implementations/SYSTEM/          how this system ran them, SYSTEM_NAME.json, and its probes
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness import outside
from harness.names import NO_COMMIT, RESULTS_FOLDER, UNNAMED, all_figures_in, plain, result
from harness.results import memory, package_tree, sources, sysdesc
from harness.results.by_rules import shortfall
from harness.results.checking.checker import Report, check, is_for
from harness.results.checking.findings import is_placeholder
from harness.results.checking.kept import Opinion, factor_in
from harness.results.checking.own import judge
from harness.results.checking.package import is_package
from harness.results.checking.system import read_description
from harness.results.package_text import README, implementation_json, readme, system_files
from harness.results.record import RunRecord
from harness.results.said import number
from harness.results.series import Series, find_logs, find_series
from harness.rules import DEFAULT, DIVISIONS, Rules, checkable, rules_for

IMPLEMENTATION = "pytorch"


class Unpublishable(Exception):
    """What the series lacks to be published, a sentence each."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Submission:
    """What a person says of a submission."""

    org: str
    division: str
    out: Path
    system: str | None = None  # its id; else from the series
    description: Path | None = None  # a system description to use; else from the logs
    given: Mapping[str, str] | None = None  # fields of the description
    ruleset: str | None = None
    sources: Path | None = None  # a folder to submit as the implementation; else this project's commit
    hardware: Mapping[str, object] | None = None  # of this machine, as a log of it would have it


def package(series: Series, submission: Submission) -> tuple[Path, Report]:
    """Build and check the package. Refused where the series or the finished package is not fit, ValueError for usage."""
    _usage(submission)
    ruleset = submission.ruleset or series.first.ruleset or DEFAULT
    rules = rules_for(series.first.benchmark, ruleset)
    system = plain(submission.system or _system_of(series))
    target = submission.out / plain(submission.org)
    if outside.is_there(there := target / RESULTS_FOLDER / system / str(series.first.benchmark)):
        raise ValueError(
            f"{there} is there already and is not overwritten; name another --system, or folder with --out"
        )
    if outside.is_there(target) and not is_package(target):
        raise ValueError(f"{target} is there already and is no package; name another folder with --out")
    description = _description(series, submission, system, target, ruleset)
    reasons = [
        *refusals(series, rules, submission),
        *_unanswered(description),
        *_of_another(target, submission, ruleset),
    ]
    if reasons:
        raise Unpublishable(reasons)
    with package_tree.copied(target) as built:
        packaged, implementation = _build(
            built, series, submission, system=system, description=description, ruleset=ruleset
        )
        (report,) = check([built], ruleset)
        if not report.ok:
            wrong = [each for each in report.findings if each.severity == "error"]
            raise Unpublishable([f"{each.file}: {each.key or each.rule}: {each.found}; {each.fix}" for each in wrong])
        # only now it is known; the summary is for people, and no check reads it
        about = f"{RESULTS_FOLDER}/{system}/{series.first.benchmark}"
        factor = factor_in(each for each in report.verdicts if each.about == about)
        if factor != 1 and submission.division == "closed":
            opinion = Opinion(True, "", factor)
            _write(
                implementation.with_name(system) / README, readme(packaged, system, implementation, ruleset, opinion)
            )
        package_tree.put(built, target)
    return target, report


def _of_another(target: Path, submission: Submission, ruleset: str) -> Iterator[str]:
    """Why this cannot be part of the package that is there."""
    logs = find_logs(target / RESULTS_FOLDER) if outside.is_there(target) else []
    there = find_series(logs) if logs else []
    for word, ours, theirs in (
        ("division", submission.division, {each.first.division for each in there}),
        ("ruleset", ruleset, {each.first.ruleset for each in there if not is_for(each, ruleset)}),
    ):
        if others := sorted(str(each) for each in theirs - {ours}):
            yield f"{target} holds results of {word} {', '.join(others)}, this is of {ours}: name another folder with --out"


def refusals(series: Series, rules: Rules, submission: Submission) -> Iterator[str]:
    """Why this series cannot be published."""
    records, failed = series.records, list[str]()
    for each in judge(series, rules):
        if not each.publishable:
            yield f"{each.what}: {each.fix}"
    if submission.sources is None and not any(record.tree_dirty for record in records):
        yield from _unknown_sources(series)
    for record in series.begun:
        if why := shortfall(record, rules):
            failed.append(f"{Path(record.path).name} did not converge ({why}); the rules allow one such run")
    if len(failed) > 1:
        yield from failed
    for key, wanted in (("submission_org", submission.org), ("submission_division", submission.division)):
        said = {str(record.value(key)) for record in records}
        if said != {wanted}:
            words = ", ".join(sorted(said))
            how = "name it with run's --org" if key == "submission_org" else "set it in the configuration"
            yield f"the logs say {key} = {words}, not {wanted}: logs are never edited; {how} and run"
    platforms = {record.platform or "" for record in records}
    if any(not each or is_placeholder(each) for each in platforms):
        yield f"the logs' submission_platform is a placeholder: {', '.join(sorted(platforms))}"


def _unknown_sources(series: Series) -> Iterator[str]:
    if any(record.benchmark_sha256 for record in series.records):
        yield (
            "the benchmark's code lies outside of this project, whose commit has none of it: name the folder of the sources "
            "that ran with --sources"
        )
        return
    commits = {str(record.commit) for record in series.records}
    if commits & {"None", NO_COMMIT}:
        yield "the logs name no commit, so the sources that ran are not known: name their folder with --sources"
    else:
        yield from (why for commit in sorted(commits) if (why := sources.unavailable(commit)))


def _usage(submission: Submission) -> None:
    if submission.division not in DIVISIONS:
        raise ValueError(f"--division {submission.division}: one of {', '.join(DIVISIONS)}")
    if not _is_name(submission.org):
        raise ValueError(f"--org {submission.org}: name the organization that submits")
    if submission.ruleset is not None and submission.ruleset not in checkable():
        raise ValueError(f"--ruleset {submission.ruleset}: one of {', '.join(checkable())}")
    if submission.sources is not None and not outside.is_folder(submission.sources):
        raise ValueError(f"--sources {submission.sources}: {outside.no_folder(submission.sources)}")


def _is_name(text: str) -> bool:
    """Whether somebody is named: what configurations have that belong to nobody yet is no name."""
    return bool(text.strip()) and not is_placeholder(text) and text.strip().casefold() != UNNAMED


def _system_of(series: Series) -> str:
    folder = series.folder.resolve()
    if folder.name == series.first.benchmark:
        return folder.parent.name
    return series.first.configuration_name or series.first.platform or folder.name


def _description(series: Series, submission: Submission, system: str, target: Path, ruleset: str) -> dict[str, object]:
    """The one that is named, that the package has already or that lies beside the series, else one of what the logs say.

    --set wins, but changes none that the package has: it is of other results too.
    """
    given = dict(submission.given or {})
    if unknown := [key for key in given if key not in sysdesc.FIELDS]:
        raise ValueError(f"--set {unknown[0]}: no field of a system description")
    if "status" in given:
        given["status"] = sysdesc.status_word(given["status"], ruleset)
    packaged = target / "systems" / f"{system}.json"
    if packaged.exists():
        found = _read(packaged)
        said = {**(_read(submission.description) if submission.description is not None else found), **given}
        if differs := [key for key in said if said[key] != found.get(key)]:
            raise ValueError(
                f"{packaged} is there already, and its {differs[0]} is {found.get(differs[0])}, not {said[differs[0]]}: it "
                "describes one system; name another with --system"
            )
        return found
    if content := _read(submission.description) if submission.description is not None else series.description:
        return {**content, **given}
    return dict(_described(series, submission, system, given, ruleset))


def _read(path: Path) -> dict[str, object]:
    content = read_description(path)
    if isinstance(content, str):
        raise ValueError(f"{path}: {content}")
    return content


def _described(
    series: Series, submission: Submission, system: str, given: Mapping[str, str], ruleset: str
) -> dict[str, str]:
    """By what the logs say of their machine."""
    first = series.first
    run = first.configuration.get("run")
    nodes = run.get("nodes") if isinstance(run, dict) else None
    said = {"submitter": submission.org, "division": submission.division, "system_name": system}
    with contextlib.suppress(ValueError):  # of neither vocabulary: check says so
        said["status"] = first.status or ""
        said["status"] = sysdesc.status_word(said["status"], ruleset)
    if isinstance(nodes, int):
        said["number_of_nodes"] = str(nodes)
    if submission.hardware is not None and _same_machine(first.hardware, submission.hardware):
        said |= sysdesc.storage()  # what sysinfo finds out here, nobody has to say
    return sysdesc.describe(first.hardware, first.software, first.image, {**said, **given})


def _same_machine(logged: Mapping[str, object], here: Mapping[str, object]) -> bool:
    """Whether the logs are of a machine like this one in all that tells machines apart."""
    keys = ("cpu", "sockets", "cores", "threads", "accelerators")
    alike = bool(logged) and all(logged.get(key) == here.get(key) for key in keys)
    return alike and memory.same(number(logged.get("memory_gib")), number(here.get("memory_gib")))


def _unanswered(description: Mapping[str, object]) -> Iterator[str]:
    for key, value in description.items():
        if isinstance(value, str) and (is_placeholder(value) or (key == "submitter" and not _is_name(value))):
            yield f'the system description lacks {key} ("{value}"): say it with --set {key}=..., or name a file with --describe'


def _build(
    package: Path,
    series: Series,
    submission: Submission,
    *,
    system: str,
    description: Mapping[str, object],
    ruleset: str,
) -> tuple[Series, Path]:
    """The series as it lies in the package, beside its system's description, and the folder of the sources."""
    first, benchmark = series.first, str(series.first.benchmark)
    results, systems = package / RESULTS_FOLDER / system / benchmark, package / "systems"
    for folder in (results, systems):
        folder.mkdir(parents=True, exist_ok=True)
    if not (systems / f"{system}.json").exists():
        _write(systems / f"{system}.json", json.dumps(description, indent=2) + "\n")
    for index, record in enumerate(series.records):
        shutil.copyfile(record.path, results / result(index))
    implementations = package / "benchmarks" / benchmark / "implementations"
    implementation = _sources(
        implementations, first, submission, {path.name for path in (package / RESULTS_FOLDER).iterdir()}
    )
    packaged, own = replace(series, folder=results), implementations / system
    if any((each / _data_sheet(each.name, system)).exists() for each in implementations.iterdir()):
        raise ValueError(
            f"--system {system}: the package has the sources of another system in a folder of this name; name it otherwise"
        )
    own.mkdir(exist_ok=True)
    for name, text in system_files(packaged, system, implementations / implementation, ruleset).items():
        _write(own / name, text)
        if name.endswith(".sh"):
            (own / name).chmod(0o755)
    for name, content in _figures(series.folder):
        (own / name).write_bytes(content)
    _write(own / _data_sheet(system, implementation), json.dumps(implementation_json(first), indent=2) + "\n")
    return packaged, implementations / implementation


def _figures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What verbs left beside the logs, by name: nothing rests on it, and one that cannot be read is left out."""
    for _, path in all_figures_in(folder):
        with contextlib.suppress(OSError, outside.Refused):
            yield path.name, outside.read_bytes(path, outside.JSON_LIMIT)


def _data_sheet(system: str, implementation: str) -> str:
    return f"{system}_{implementation}.json"


def _sources(implementations: Path, first: RunRecord, submission: Submission, systems: Collection[str]) -> str:
    """The folder of the sources: one that is there where they are the same, as of two systems that ran one commit.

    A system's own folder lies beside it and is never it, whatever the system is called.
    """
    fresh = implementations / ".fresh"
    if submission.sources is not None:
        sources.copy_folder(submission.sources, fresh)
    else:
        sources.export(str(first.commit), fresh)
    digest = sources.digest(fresh)
    names = (IMPLEMENTATION, f"{IMPLEMENTATION}_{digest[:8]}", f"{IMPLEMENTATION}_{digest}")
    for name in (each for each in names if each not in systems):
        if not (implementations / name).exists():
            fresh.rename(implementations / name)
            return name
        if sources.digest(implementations / name) == digest:
            break
    shutil.rmtree(fresh)
    return name


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
