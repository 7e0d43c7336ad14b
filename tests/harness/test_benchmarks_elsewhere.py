"""A benchmark in a folder of somebody's own, by docs/benchmark.md alone: HARNESS_BENCHMARKS and its name, nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import rules
from harness.cli.environment import benchmark_folders, of_children
from harness.results.logfile import read
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import environment, harness
from tests.toy import configuration as toy


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The folder above the benchmark `mine`, a toy by another keyword; beside it a configuration."""
    folder = tmp_path / "ext"
    shutil.copytree(CHECKOUT / "tests" / "toy", folder / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (
        ("__init__.py", 'name = "toy"', 'name = "mine"'),
        ("rules.toml", 'keyword = "toy"', 'keyword = "mine"'),
    ):
        path = folder / "mine" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    for ranks in (1, 2):
        toy.write(tmp_path, {**toy.raw(ranks=ranks), "benchmark": "mine"}, f"my-{ranks}")
    return folder


def test_the_page_s_own_files_make_one_that_runs(tmp_path: Path) -> None:
    """docs/benchmark.md, word for word, in a folder of somebody's own."""
    page = (CHECKOUT / "docs" / "benchmark.md").read_text()
    shell, tables = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("sh", "toml"))
    makes, runs = (block.replace("/path/to/this/project", str(CHECKOUT)) for block in shell)
    words = [makes]
    for name, table in zip(("mine/beads/rules.toml", "my.toml"), tables, strict=True):
        assert f"`{name}`" in page
        words.append(f"cat > {name} <<'END'\n{table}END")
    done = subprocess.run(
        ["bash", "-ec", "\n".join([*words, runs])],
        cwd=tmp_path, env=environment(HARNESS_BENCHMARKS=""), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "out").glob("result_*.txt")
    record = read(log)
    assert record.benchmark == "beads" and len(record.benchmark_sha256 or "") == 64
    assert harness("check", tmp_path / "out", HARNESS_BENCHMARKS=str(tmp_path / "mine")).returncode == 0


def test_it_is_run_on_ranks_used_and_scored(tmp_path: Path, elsewhere: Path) -> None:
    there = {"HARNESS_BENCHMARKS": str(elsewhere)}
    kept = tmp_path / "kept"
    done = harness("run", tmp_path / "my-2.toml", "--out", tmp_path / "out", "--checkpoint-dir", kept, **there)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "1.jpg").write_bytes(b"toy 1")
    assert "0.30  odd" in harness("detect", kept, tmp_path / "1.jpg", **there).stdout
    assert "the rules want 3" in harness("score", tmp_path / "out", **there).stdout
    (log,) = (tmp_path / "out").glob("result_*.txt")
    assert len(read(log).benchmark_sha256 or "") == 64, "the commit says nothing of its code"
    unknown = harness("run", tmp_path / "my-1.toml", "--out", tmp_path / "out", HARNESS_BENCHMARKS="")
    assert unknown.returncode == 2
    assert "there is no package benchmarks.mine" in unknown.stderr and "once HARNESS_BENCHMARKS names" in unknown.stderr


@pytest.mark.parametrize("name", ["3d_toy", "my-toy"])
def test_a_folder_s_name_need_not_be_one_of_python_s(tmp_path: Path, elsewhere: Path, name: str) -> None:
    """An import statement cannot name them, and none does."""
    module, path = elsewhere / "mine" / "__init__.py", tmp_path / "my-1.toml"
    module.write_text(module.read_text().replace("from benchmarks.mine import", "from . import"))
    path.write_text(path.read_text().replace('"mine"', f'"{name}"'))
    (elsewhere / "mine").rename(elsewhere / name)
    there, kept = {"HARNESS_BENCHMARKS": str(elsewhere)}, tmp_path / "kept"
    done = harness("run", path, "--out", tmp_path / "out", "--checkpoint-dir", kept, **there)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "1.jpg").write_bytes(b"toy 1")
    assert harness("detect", kept, tmp_path / "1.jpg", **there).returncode == 0


@pytest.mark.parametrize(("variable", "value"), [("HARNESS_BENCHMARKS", "ext"), ("PYTHONPATH", ".")])
def test_trials_start_elsewhere_and_find_it_by_a_relative_path(
    tmp_path: Path, elsewhere: Path, variable: str, value: str
) -> None:
    path = tmp_path / "my-1.toml"
    if variable == "PYTHONPATH":  # then by its dotted name
        path.write_text(path.read_text().replace('"mine"', '"ext.mine"'))
        module = elsewhere / "mine" / "__init__.py"
        module.write_text(module.read_text().replace("from benchmarks.mine", "from ext.mine"))
    variables = environment(PYTHONPATH=str(CHECKOUT), HARNESS_BENCHMARKS="")
    variables[variable] = os.pathsep.join(filter(None, (value, variables[variable])))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness", "run", path.name, "--trials", "1", "--out", "out", "--no-clear-caches"],
        cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_that_is_none_is_said(tmp_path: Path, elsewhere: Path) -> None:
    assert benchmark_folders({"HARNESS_BENCHMARKS": f"{elsewhere}:"}) == [elsewhere]
    (tmp_path / "empty").mkdir()
    for folder, said in (
        (tmp_path / "typo", "there is no such folder"),
        (tmp_path / "empty", r"no folder in it has a rules\.toml"),
        (elsewhere / "mine", rf"is {elsewhere} meant"),
    ):
        with pytest.raises(ValueError, match=rf"HARNESS_BENCHMARKS names {folder}: .*{said}"):
            benchmark_folders({"HARNESS_BENCHMARKS": str(folder)})
    missing = harness("configs", HARNESS_BENCHMARKS=str(tmp_path / "typo"))
    assert (missing.returncode, missing.stdout) == (2, "") and "there is no such folder" in missing.stderr


def test_what_children_are_told_is_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = of_children({"PYTHONPATH": ".:/a::b", "HARNESS_BENCHMARKS": "ext", "OTHER": "ext"})
    here = str(tmp_path)
    assert told == {"PYTHONPATH": f"{here}:/a:{here}:{here}/b", "HARNESS_BENCHMARKS": f"{here}/ext", "OTHER": "ext"}
    assert of_children({"PYTHONPATH": ""}) == {"PYTHONPATH": ""}


def test_names_of_those_elsewhere() -> None:
    assert {"benchmarks.ssd", "tests.toy", "benchmarks.toy"} <= set(rules.packages())
    assert "benchmarks.detection" not in rules.packages()


def test_a_name_is_one_benchmark_s(tmp_path: Path, elsewhere: Path) -> None:
    """Python takes the first package of a name: the project's own was run where somebody's `ssd` was meant."""
    (elsewhere / "mine").rename(elsewhere / "ssd")
    done = harness("configs", HARNESS_BENCHMARKS=str(elsewhere))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{elsewhere / 'ssd'}: there is {CHECKOUT / 'benchmarks' / 'ssd'}" in done.stderr
    (elsewhere / "ssd").rename(elsewhere / "mine")
    shutil.copytree(elsewhere, tmp_path / "second")
    done = harness("configs", HARNESS_BENCHMARKS=f"{elsewhere}:{tmp_path / 'second'}")
    assert done.returncode == 2 and f"{tmp_path / 'second' / 'mine'}: there is {elsewhere / 'mine'}" in done.stderr
    assert harness("score", tmp_path, HARNESS_BENCHMARKS=f"{elsewhere}:{elsewhere}/").returncode != 5


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("sys.exit(0)", 5, "benchmarks.mine ends the program while it is imported"),
        ("sys.exit('no licence')", 5, "benchmarks.mine ends the program"),
        ("BENCHMARK = ToyBenchmark", 2, "BENCHMARK must be an object, no class"),
        (
            "ToyBenchmark.other_task = lambda self, config: None",
            5,
            "other_task of benchmark mine gave None: a text is needed",
        ),
        (
            "class Mine(ToyConfig):\n    run: Toy\nToyBenchmark.config_type = Mine",
            *(2, "config_type has run, which the harness reads itself"),
        ),
        ("ToyBenchmark.config_type = dict", 2, "its config_type a class of pydantic's BaseModel"),
    ],
)
def test_what_is_no_benchmark(tmp_path: Path, elsewhere: Path, line: str, code: int, said: str) -> None:
    with (elsewhere / "mine" / "__init__.py").open("a") as file:
        file.write(f"{line}\n")
    done = harness("run", tmp_path / "my-1.toml", "--out", tmp_path / "out", HARNESS_BENCHMARKS=str(elsewhere))
    assert done.returncode == code and said in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_typo_in_a_table_of_its_own_is_told_where_its_model_would_not(tmp_path: Path, elsewhere: Path) -> None:
    module = elsewhere / "mine" / "__init__.py"
    module.write_text(module.read_text().replace('extra="forbid", ', ""))
    path = tmp_path / "my-1.toml"
    path.write_text(path.read_text() + "gian = 0.2\n\n[compute]\nfused = true\n")
    done = harness("run", path, "--out", tmp_path / "out", HARNESS_BENCHMARKS=str(elsewhere))
    assert done.returncode == 2
    assert "toy.gian: unknown key; did you mean gain?" in done.stderr and "compute: unknown key" in done.stderr


def test_a_key_by_an_alias_comes_back_from_a_checkpoint(tmp_path: Path, elsewhere: Path) -> None:
    module, path = elsewhere / "mine" / "__init__.py", tmp_path / "my-1.toml"
    text = module.read_text().replace("gain: float = 0.1", 'gain: float = Field(0.1, alias="lambda")')
    module.write_text(text.replace("import BaseModel, ", "import BaseModel, Field, "))
    path.write_text(path.read_text() + "lambda = 0.2\n")
    there, kept = {"HARNESS_BENCHMARKS": str(elsewhere)}, tmp_path / "kept"
    done = harness("run", path, "--out", tmp_path / "out", "--checkpoint-dir", kept, **there)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "1.jpg").write_bytes(b"toy 1")
    assert harness("detect", kept, tmp_path / "1.jpg", **there).returncode == 0


def test_a_session_that_lacks_something_is_closed(tmp_path: Path, elsewhere: Path) -> None:
    """What it had opened by then, workers and shared memory among it, stayed."""
    with (elsewhere / "mine" / "__init__.py").open("a") as file:
        file.write("ToySession.fingerprint = None\nToySession.close = lambda self: print('closed it')\n")
    done = harness("run", tmp_path / "my-1.toml", "--out", tmp_path / "out", HARNESS_BENCHMARKS=str(elsewhere))
    assert done.returncode == 5 and "lacks fingerprint: see" in done.stdout + done.stderr
    assert "closed it" in done.stdout
