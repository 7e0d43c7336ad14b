"""The walls of the house, by a walk over the syntax trees: who may import whom, and who may read the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

ROOMS = ("harness", "benchmarks", "measuring")
SOURCES = sorted(path for room in ROOMS for path in CHECKOUT.glob(f"{room}/**/*.py"))

# What only these files may import, in whole or in part
ONE_IMPORTER = {
    "mlperf_logging.mllog": {
        "harness/execution/events.py",
        "harness/execution/lifecycle.py",
    },  # the latter: its key names
    "nvidia.dali": {
        "benchmarks/detection/data_path/data_dali.py",
        "benchmarks/retinanet/data_dali.py",
        "benchmarks/ssd/data_dali.py",
    },
    "pycocotools": {"benchmarks/detection/quality/coco.py"},
    "hotcoco": {"benchmarks/detection/quality/coco.py"},
}
ENVIRONMENT = (
    *("harness/execution/context.py", "harness/execution/process_group.py"),  # torchrun's variables
    "harness/cli/",  # the command line's
    "harness/launch/ranks.py",  # what is set for the ranks of a run
    "harness/launch/leftovers.py",  # other processes' marks
    "harness/git.py",  # what git is not told of it
)
WITHOUT_FRAMEWORKS = (
    "harness/results/",
    "harness/comparison/",
    "harness/cli/",
    "harness/system/",
    "harness/contract.py",
)

# The rooms of harness/, and which others each may look into; what lies at its top is for all of them
BELOW = {
    "": {"system"},  # config.py: which devices there may be
    "system": set(),
    "results": set(),
    "execution": {"system"},
    "launch": {"system", "execution", "results"},
    "comparison": {"system", "execution", "results", "launch"},
    "cli": {"system", "execution", "results", "launch", "comparison"},
}

# The rooms within a room, and the modules at its top that are for them: what else of the room each may look into
INNER: dict[str, dict[str, set[str]]] = {
    "benchmarks/detection": {
        "found": set(),
        "own_folder": set(),
        "phases": set(),
        "tables": set(),
        "whole": set(),
        "worker": set(),
        "data_set": {"own_folder", "tables"},
        "download": {"data_set", "whole"},
        "data_path": {"data_set", "found", "tables"},
        "quality": {"data_set", "found", "phases"},
        "embedded": {"own_folder", "worker"},
    },
    "harness/execution": {
        "trained": {"checkpoint", "context", "provenance"},
    },
    "harness/comparison": {
        "identity": set(),
        "planning": {"identity", "runs"},
        "judging": {"runs"},
        "history": {"judging", "runs"},
        "minutes": {"runs"},
        "reporting": {"comparability", "comparison", "judging", "minutes", "probes", "runs"},
    },
}


def name(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def imports(path: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Modules that a file imports; with `at_import_only` those that importing it imports too."""
    tree = ast.parse(path.read_text())
    skipped = set()
    if at_import_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _type_checking(node):
                skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: say the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_one_place_compiles() -> None:
    """What it finds in its cache is else of other sources: see benchmarks/detection/compiling.py."""
    texts = {name(path): path.read_text() for path in SOURCES}
    called = {
        file: {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
        for file, text in texts.items()
        if ".compile(" in text
    }
    compiled = {
        file: {each for each in calls if each.endswith(".compile")} - {"re.compile"} for file, calls in called.items()
    }
    assert [file for file, calls in compiled.items() if calls] == ["benchmarks/detection/compiling.py"]


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_walls(path: Path) -> None:
    file = name(path)
    for module in imports(path):
        assert file.startswith("measuring/") or not of(module, "measuring"), (
            f"{file} imports {module}: nothing needs it"
        )
        if file.startswith("harness/"):
            assert not of(module, "benchmarks"), f"{file} imports {module}: the harness knows no benchmark"
        elif file.startswith("benchmarks/"):
            ours = of(module, "harness") and not of(module, "harness.contract")
            assert not ours, f"{file} imports {module}: a benchmark knows harness.contract alone"
        if file.startswith("benchmarks/detection/"):
            ours = of(module, "benchmarks") and not of(module, "benchmarks.detection")
            assert not ours, f"{file} imports {module}: what detectors share knows none of them"
        assert not of(module, "tests"), f"{file} imports {module}"
        for package, allowed in ONE_IMPORTER.items():
            assert not of(module, package) or file in allowed, f"{file} imports {module}: only {sorted(allowed)} may"
        if file.startswith(("harness/results/", "harness/comparison/")):
            assert not of(module, "torch") and not of(module, "nvidia"), f"{file} imports {module}"
    if file.startswith(WITHOUT_FRAMEWORKS):
        for module in imports(path, at_import_only=True):
            for heavy in ("torch", "pandas", "matplotlib", "scipy", "mlperf_logging", "docker", "kubernetes"):
                assert not of(module, heavy), f"{file} imports {heavy} when it is imported: verbs must start at once"


def room_of(module: str) -> str:
    """Of a module of the harness; "" for one at its top."""
    return next((part for part in module.split(".")[1:2] if part in BELOW), "")


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("harness/")], ids=name)
def test_no_arrow_runs_up(path: Path) -> None:
    own = room_of(name(path).removesuffix(".py").replace("/", "."))
    for module in imports(path):
        if of(module, "harness") and name(path) != "harness/__main__.py":
            other = room_of(module)
            assert other in {"", own, *BELOW[own]}, f"{name(path)} imports {module}, which is above it"


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith(tuple(INNER))], ids=name)
def test_no_arrow_runs_up_within_a_room(path: Path) -> None:
    room = next(room for room in INNER if name(path).startswith(room))
    own = name(path).removeprefix(f"{room}/").split("/")[0].removesuffix(".py")
    for module in imports(path) if own in INNER[room] else ():
        if of(module, room.replace("/", ".")):
            other = module.split(".")[2]
            assert other in {own, *INNER[room][own]}, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_environment_is_read_in_few_places(path: Path) -> None:
    reads = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]
    assert not reads or name(path).startswith(ENVIRONMENT), f"{name(path)} reads the environment at lines {reads}"


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("harness/")], ids=name)
def test_the_harness_names_no_benchmark(path: Path) -> None:
    there = {each.name for each in (CHECKOUT / "benchmarks").iterdir() if each.is_dir()} - {"__pycache__"}
    for node in ast.walk(ast.parse(path.read_text())):
        named = node.value if isinstance(node, ast.Constant) else getattr(node, "id", getattr(node, "attr", None))
        assert named not in there, f"{name(path)}:{node.lineno} names a benchmark"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("harness/")], ids=name)
def test_a_vendor_s_folder_is_its_own(path: Path) -> None:
    """What is asked of one is asked by harness/system/accelerator.py, of all of them."""
    vendors = [each.parent.name for each in (CHECKOUT / "harness/system").glob("*/__init__.py")]
    assert "nvidia" in vendors
    for module in imports(path):
        for vendor in vendors:
            inside = name(path).startswith(f"harness/system/{vendor}/")
            assert inside or not of(module, f"harness.system.{vendor}"), f"{name(path)} imports {module}"


def test_no_drawer_for_odds_and_ends() -> None:
    odd = {"util", "utils", "common", "helpers", "misc", "manager", "trainer"}
    assert not [name(path) for path in SOURCES if path.stem in odd]


def test_names_of_results_are_given_in_one_place() -> None:
    """The pattern of a run's log, and the folder that its system gets: harness/names.py."""
    patterns = ("result_(", "result_{")
    allowed = {"harness/names.py", "harness/results/checking/series.py"}  # the latter in a sentence
    for path in SOURCES:
        found = [pattern for pattern in patterns if pattern in path.read_text()]
        assert not found or name(path) in allowed, f"{name(path)} spells {found[0]} itself: use harness.names"


def test_a_class_of_the_harness_has_a_name_of_its_own() -> None:
    """One meaning for each: Sample, Judged, History, Series, Node, Place, Refused, Row and Mark had two or three."""
    same = {"Finding", "LeftOut"}  # what a look found, doctor's and check's; a file that is left out, and why
    where: dict[str, list[str]] = {}
    for path in SOURCES:
        if name(path).startswith("harness/"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    where.setdefault(node.name, []).append(name(path))
    assert {each: files for each, files in where.items() if len(files) > 1 and each not in same} == {}
