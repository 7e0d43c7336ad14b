"""Checks of a submission's tree: what belongs where (submission_rules.adoc), and what would trip MLPerf's tools."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from harness import outside
from harness.names import BROKEN, POWER, RESULTS, number
from harness.results.checking.findings import Finding, Severity
from harness.results.series import has_mark, may_be_log

SIZE_LIMIT = 50_000_000  # bytes of one file, by MLPerf's repo checker
PARAMS = "package_checker_params"  # in results/SYSTEM or results/SYSTEM/BENCHMARK: what MLPerf's package checker is to let pass
PARAMS_LIMIT = 1 << 16  # bytes
SEED_BYPASS, RCP_BYPASS = "seed-checker-bypass", "rcp-bypass"
PER_SYSTEM = ("README.md", "setup.sh", "init_datasets.sh", "run_and_time.sh")


def find_packages(path: Path) -> list[Path]:
    """The folders at or under `path` that hold one organization's submission: results/ and systems/ side by side."""
    if not outside.is_folder(path):
        return []
    if is_package(path):
        return [path]
    found = [each.parent for each in path.rglob("results") if is_package(each.parent)]
    # what has a leading dot is being made, or was when a `package` was killed
    return sorted(each for each in found if not any(part.startswith(".") for part in each.relative_to(path).parts))


def is_package(path: Path) -> bool:
    return outside.is_folder(path / "results") and outside.is_folder(path / "systems")


def check_tree(package: Path) -> Iterator[Finding]:
    """What is wrong with the tree, apart from the content of its logs and descriptions."""
    yield from _files(package)
    systems = {file.stem for file in (package / "systems").glob("*.json")}
    results = {folder.name for folder in (package / "results").iterdir() if folder.is_dir()}
    for system in sorted(results - systems):
        fix = f"add systems/{system}.json; MLPerf's package checker breaks down without it"
        yield _found(f"results/{system}", "system described", "no description", fix)
    for system in sorted(systems - results):
        fix = f"name the folder of its results {system}, or take it out"
        yield _found(f"systems/{system}.json", "system described", f"no results/{system}", fix, "warning")
    yield from _loose(package / "results", "results")
    for system in sorted(results):
        yield from _system_folder(package / "results" / system, f"results/{system}")
        path = package / "results" / system / PARAMS
        if os.path.lexists(path):
            yield from _params(path, f"results/{system}/{PARAMS}")
    for folder in sorted(path for path in (package / "results").glob("*/*") if path.is_dir() and path.name != PARAMS):
        yield from _result_folder(folder, folder.relative_to(package).as_posix())
    for benchmark in sorted({path.name for path in (package / "results").glob("*/*") if path.is_dir()}):
        yield from _sources(package, benchmark)


def _files(package: Path) -> Iterator[Finding]:
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package).as_posix()
        if path.is_symlink():
            yield _found(name, "plain files", "a link", "put the file itself there")
        elif " " in path.name or path.name.startswith("."):
            yield _found(name, "plain names", "a space or a leading dot", "rename it or take it out")
        elif path.is_file() and path.stat().st_size > SIZE_LIMIT:
            text = f"{path.stat().st_size / 1e6:.0f} MB"
            yield _found(name, "file size", text, f"at most {SIZE_LIMIT // 10**6} MB a file")


def _system_folder(folder: Path, name: str) -> Iterator[Finding]:
    """MLPerf's tools go through its folders, and of none say nothing: a system of which no run counts would pass."""
    if not any(path.is_dir() and path.name != PARAMS for path in folder.iterdir()):
        fix = f"put its runs into {name}/BENCHMARK, or take the folder out"
        yield _found(name, "result files", "no folder of a benchmark", fix)
    yield from _loose(folder, name)


def _loose(folder: Path, name: str) -> Iterator[Finding]:
    """Logs above the folders of benchmarks, where MLPerf's tools do not look."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and path.name != PARAMS and (path.match(RESULTS) or (may_be_log(path) and has_mark(path))):
            fix = "put it into results/SYSTEM/BENCHMARK, or take it out"
            yield _found(
                f"{name}/{path.name}", "result files", "a log in no benchmark's folder: it counts nowhere", fix
            )


def _result_folder(folder: Path, name: str) -> Iterator[Finding]:
    if not any(number(path) is not None for path in folder.iterdir()):
        fix = (
            "put its runs there, or take the folder out: MLPerf's package checker counts no run of as many as it wants"
        )
        yield _found(name, "result files", "no result_N.txt", fix)
    for path in sorted(folder.iterdir()):
        file = f"{name}/{path.name}"
        if number(path) is not None:
            if path.is_dir():
                fix = "take the folder out: MLPerf's package checker takes it for a run, and breaks down"
                yield _found(file, "result files", "a folder", fix)
        elif path.name == "scaling.json" and path.is_dir():
            yield _found(file, "result files", "a folder", "take it out: MLPerf's result summarizer breaks down on it")
        elif path.name == "scaling.json":
            yield _found(
                file, "stale scaling", "it multiplies the score", "take it out; reviewers may add it", "warning"
            )
        elif path.name == PARAMS:
            yield from _params(path, file)
        elif path.name == POWER and path.is_dir():
            if not any(path.iterdir()):
                fix = "take it out: MLPerf's power checker breaks down on it"
                yield _found(file, "power", "empty folder", fix)
        else:
            yield misnamed(path, file)


def misnamed(path: Path, file: str) -> Finding:
    """Of what lies beside result_N.txt under another name; MLPerf's package checker counts more of them than we do."""
    if path.match(RESULTS):
        text = "no result_N.txt, and MLPerf's package checker counts it"
        run = "name it as the next run, or " * (BROKEN not in path.name)  # no attempt that broke down is one
        return _found(file, "result files", text, f"{run}take it out of the result's folder")
    return _found(file, "result files", "no result_N.txt", "take it out of the result's folder", "warning")


def _params(path: Path, file: str) -> Iterator[Finding]:
    try:
        content = outside.read_bytes(path, PARAMS_LIMIT)
    except (OSError, outside.Refused) as error:
        fix = "make it a file, or take it out: MLPerf's package checker breaks down on it"
        yield _found(file, PARAMS, outside.why(path, error), fix)
        return
    if content.endswith(b"\n"):
        fix = "end its last line without a newline: MLPerf's package checker compares it whole"
        yield _found(file, PARAMS, "ends with a newline", fix, "warning")
    if said := bypasses(path.parent):
        fix = "have the reasons ready: MLPerf's reviewers decide whether it stands"
        yield _found(file, PARAMS, ", ".join(sorted(said)), fix, "warning")


def bypasses(folder: Path) -> frozenset[str]:
    """What MLPerf's package checker lets pass of a result's folder; read as it does, a line with its end is another word."""
    known, said = frozenset((SEED_BYPASS, RCP_BYPASS)), set[str]()
    for path in params_of(folder):
        with contextlib.suppress(OSError, outside.Refused):
            said.update(outside.read_bytes(path, PARAMS_LIMIT).decode("utf-8", "replace").splitlines(keepends=True))
    return known & said


def params_of(folder: Path) -> list[Path]:
    """The files that say so: the result's own, and its system's."""
    return [path for path in (folder / PARAMS, folder.parent / PARAMS) if path.is_file()]


def _sources(package: Path, benchmark: str) -> Iterator[Finding]:
    """MLPerf's tools never look here; reviewers do."""
    implementations = package / "benchmarks" / benchmark / "implementations"
    name = implementations.relative_to(package).as_posix()
    if not implementations.is_dir():
        yield _found(name, "sources", "not there", "add the sources that were run", "warning")
        return
    for system in sorted(path.parent.name for path in (package / "results").glob(f"*/{benchmark}")):
        there = {path.name for path in (implementations / system).glob("*")}
        for missing in (each for each in PER_SYSTEM if each not in there):
            fix = "say how this system is set up, gets its data and runs"
            yield _found(f"{name}/{system}", "sources", f"no {missing}", fix, "warning")


def _found(file: str, rule: str, text: str, fix: str, severity: Severity = "error") -> Finding:
    return Finding(severity, file, "", None, rule, text, fix)
