"""Series packaged only when they are fit to be published, and in the form that MLPerf's checkers accept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.results import package_tree, sources, sysdesc
from harness.results.checking.checker import Report
from harness.results.checking.package import find_packages
from harness.results.package import Submission, Unpublishable, package
from harness.results.package_text import implementation_json, system_files
from harness.results.series import Series, find_series
from tests.conftest import CHECKOUT
from tests.harness.results import test_rounds as rounds
from tests.harness.results.logs import DESCRIPTION, HARDWARE, SOFTWARE, event, events, own, text, write, write_series
from tests.harness.results.test_collect import Killed
from tests.harness.results.test_logfile import parsed

FILLED = {
    "host_storage_type": "NVMe SSD",
    "host_storage_capacity": "30 TB",
    "accelerator_memory_configuration": "HBM2",
}


def order(out: Path, **more: Any) -> Submission:
    return Submission(**{"org": "Someone", "division": "closed", "out": out, "given": FILLED, **more})


def described(folder: Path) -> Path:
    """A system description that a person wrote."""
    path = folder / "system.json"
    path.write_text(json.dumps(DESCRIPTION))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small checkout in place of this one; its commit."""
    root = tmp_path / "project"
    (root / ".github").mkdir(parents=True)
    (root / ".github/ci.yml").write_text("")
    (root / "train.py").write_text("print('hello')\n")
    (root / "run_and_time.sh").write_text("#!/bin/sh\n")
    (root / "results").mkdir()
    (root / "results/old.txt").write_text("")
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x"),
    ):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    monkeypatch.setattr(sources.unavailable, "__defaults__", (root,))
    monkeypatch.setattr(sources.export, "__defaults__", (root,))
    monkeypatch.setattr(sources.differ, "__defaults__", (root,))
    return subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_good_series_becomes_a_checked_tree(tmp_path: Path, project: str) -> None:
    (series,) = find_series([write_series(tmp_path / "out", own=own(commit=project))])
    (tmp_path / "out/probe_0.json").write_text("{}")
    built, report = package(series, order(tmp_path / "packages", system="DGX A100"))
    assert report.ok and report.findings == ()
    names = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    own_files = "benchmarks/ssd/implementations/DGX_A100"
    assert names == {
        "systems/DGX_A100.json",
        *(f"results/DGX_A100/ssd/result_{index}.txt" for index in range(5)),
        *(f"{own_files}/{name}" for name in ("README.md", "setup.sh", "init_datasets.sh", "run_and_time.sh")),
        *(f"{own_files}/{name}" for name in ("DGX_A100_pytorch.json", "DGXA100_1x8x114.toml", "probe_0.json")),
        *(f"benchmarks/ssd/implementations/pytorch/{name}" for name in ("train.py", "run_and_time.sh")),
    }
    assert (built / "results/DGX_A100/ssd/result_3.txt").read_bytes() == (tmp_path / "out/result_3.txt").read_bytes()
    assert "Score: 10.1517 minutes" in (built / own_files / "README.md").read_text()
    assert list((tmp_path / "packages").iterdir()) == [built]
    with pytest.raises(ValueError, match="is there already and is not overwritten"):
        package(series, order(tmp_path / "packages", system="DGX A100"))


def test_the_readme_has_the_score_that_mlperf_s_tools_make_of_it(tmp_path: Path, project: str) -> None:
    """Five runs of batch 4096 that took 85 epochs, of which the reference takes 85 to 90."""
    at = (40, 50, 55, 60, 65, 70, 75, 80, 85)
    evaluations = tuple((epoch, 0.2301 if epoch == 85 else 0.1) for epoch in at)
    folder = write_series(tmp_path / "out", ruleset="1.0.0", evaluations=evaluations, own=own(commit=project))
    for path in folder.iterdir():
        path.write_text(path.read_text().replace('batch_size", "value": 912', 'batch_size", "value": 4096'))
    (series,) = find_series([folder])
    built, _ = package(series, order(tmp_path / "packages", system="DGX A100", ruleset="1.0.0"))
    text = (built / "benchmarks/ssd/implementations/DGX_A100/README.md").read_text()
    assert "Score: 17.9254 minutes (mean of the runs without the fastest and the slowest, multiplied by 1.0235" in text


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLPerf's tools, which take seconds: for what is about the tree alone."""
    monkeypatch.setattr(
        "harness.results.package.check", lambda paths, *_: [Report(str(paths[0]), "", False, 0, (), ())]
    )


@pytest.fixture
def two_series(tmp_path: Path, project: str) -> tuple[Series, Series]:
    (first,) = find_series([write_series(tmp_path / "out", own=own(commit=project))])
    (second,) = find_series(
        [write_series(tmp_path / "out2", own=own(commit=project, precision="fp32"), first_seed=500, first_ms=12_405)]
    )
    return first, second


@pytest.mark.long
def test_two_systems_in_one_package_pass_the_checkers(tmp_path: Path, two_series: tuple[Series, Series]) -> None:
    for series, system in zip(two_series, ("one", "two"), strict=True):
        built, report = package(series, order(tmp_path / "packages", system=system))
    assert report.ok and report.runs == 10 and list((tmp_path / "packages").iterdir()) == [built]


@pytest.mark.usefixtures("unchecked")
def test_another_system_is_added_to_the_package_that_is_there(
    tmp_path: Path, two_series: tuple[Series, Series], project: str
) -> None:
    """A submission is many systems under one organization."""
    out = tmp_path / "packages"
    built, _ = package(two_series[0], order(out, system="one"))
    before = contents(built)
    again, _ = package(two_series[1], order(out, system="two"))
    assert again == built and list(out.iterdir()) == [built]
    after = contents(built)
    assert before.items() <= after.items()
    assert {name.split("/")[1] for name in after if name.startswith("results/")} == {"one", "two"}
    assert not [name for name in after if "pytorch_" in name and not name.endswith(".json")], "one commit, one folder"
    git = ["git", "-C", str(tmp_path / "project"), "-c", "user.name=t", "-c", "user.email=t@t"]
    (tmp_path / "project/train.py").write_text("more")
    subprocess.run([*git, "commit", "-qam", "x"], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (third,) = find_series([write_series(tmp_path / "out3", own=own(commit=told), first_seed=700)])
    package(third, order(out, system="three"))
    implementations = built / "benchmarks/ssd/implementations"
    (other,) = implementations.glob("pytorch_*")
    assert (other / "train.py").read_text() == "more"
    assert f"../{other.name}" in (implementations / "three/run_and_time.sh").read_text()
    assert after.items() <= contents(built).items()


@pytest.mark.usefixtures("unchecked")
def test_a_system_that_is_called_as_the_sources_folder(
    tmp_path: Path, two_series: tuple[Series, Series], project: str
) -> None:
    """Its scripts were written over the project's own, and run_and_time.sh called itself for ever."""
    built, _ = package(two_series[0], order(tmp_path / "packages", system="pytorch"))
    implementations = built / "benchmarks/ssd/implementations"
    (kept,) = (each for each in implementations.iterdir() if each.name != "pytorch")
    ran = {name: content for name, content in contents(tmp_path / "project").items() if "/" not in name}
    assert contents(kept) == ran == {"train.py": b"print('hello')\n", "run_and_time.sh": b"#!/bin/sh\n"}
    assert f"../{kept.name}" in (implementations / "pytorch/run_and_time.sh").read_text()
    package(two_series[1], order(tmp_path / "packages", system="two"))
    assert {each.name for each in implementations.iterdir()} == {"pytorch", kept.name, "two"}, "one commit, one folder"
    other = order(tmp_path / "others", system="one")
    before = contents(package(two_series[0], other)[0])
    with pytest.raises(ValueError, match="--system pytorch: the package has the sources of another system"):
        package(two_series[1], order(tmp_path / "others", system="pytorch"))
    assert contents(tmp_path / "others/Someone") == before


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_added_to_a_package(tmp_path: Path, two_series: tuple[Series, Series], project: str) -> None:
    out = tmp_path / "packages"
    built, _ = package(two_series[0], order(out, system="one"))
    before = contents(built)
    (opened,) = find_series([write_series(tmp_path / "open", own=own(commit=project), division="open")])
    with pytest.raises(Unpublishable, match="holds results of division closed, this is of open: name another folder"):
        package(opened, order(out, division="open", system="two"))
    (built / "systems/two.json").write_text((built / "systems/one.json").read_text())
    with pytest.raises(ValueError, match=r"two.json is there already, and its cooling is , not air: it describes one"):
        package(two_series[1], order(out, system="two", given={"cooling": "air"}))
    (built / "systems/two.json").unlink()
    left = built / "benchmarks/ssd/implementations/two/README.md"
    left.parent.mkdir()
    left.write_text("somebody's own")
    with pytest.raises(ValueError, match=r"README.md is there already, says something else, and is not overwritten"):
        package(two_series[1], order(out, system="two"))
    assert left.read_text() == "somebody's own"
    shutil.rmtree(left.parent)
    assert contents(built) == before and list(out.iterdir()) == [built]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("renames", range(3))
def test_an_addition_that_breaks_off_leaves_the_old_package(
    tmp_path: Path, two_series: tuple[Series, Series], monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    out = tmp_path / "packages"
    built, _ = package(two_series[0], order(out, system="one"))
    before, rename, calls = contents(built), Path.rename, iter(range(renames))

    def until_killed(path: Path, target: Path) -> Path:
        if target.is_relative_to(built) and next(calls, None) is None:
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", until_killed)
    with pytest.raises(Killed):
        package(two_series[1], order(out, system="two"))
    monkeypatch.undo()
    assert contents(built) == before and list(out.iterdir()) == [built]


@pytest.mark.usefixtures("unchecked")
def test_what_a_killed_package_left_is_seen_by_nobody_and_goes_with_the_next(
    tmp_path: Path, two_series: tuple[Series, Series]
) -> None:
    """`report OUT` ranked it."""
    out = tmp_path / "packages"
    built, _ = package(two_series[0], order(out, system="one"))
    shutil.copytree(built, out / f"{package_tree.ASIDE}abc/Someone")
    assert len(find_series([out])) == 1
    assert find_packages(out) == [built]
    package(two_series[1], order(out, system="two"))
    assert list(out.iterdir()) == [built]


def test_two_packages_at_once(tmp_path: Path) -> None:
    with (
        package_tree.copied(tmp_path / "packages/Someone"),
        pytest.raises(ValueError, match="another package is being made in it"),
        package_tree.copied(tmp_path / "packages/Other"),
    ):
        pass
    assert not (tmp_path / "packages").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO], ids=["no locks", "a disk that fails"])
def test_without_a_lock_nothing_of_another_package_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And a disk that fails was taken for one without locks: the package went on beside another."""

    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    left = tmp_path / f"{package_tree.ASIDE}abc"
    left.mkdir()
    monkeypatch.setattr(fcntl, "flock", none)
    failure = pytest.raises(OSError, match=f"Input/output error: '{tmp_path}'")
    with (
        failure if number == errno.EIO else contextlib.nullcontext(),
        package_tree.copied(tmp_path / "Someone") as built,
    ):
        built.mkdir()
    assert list(tmp_path.iterdir()) == [left]


def test_the_status_is_in_the_rounds_words(tmp_path: Path, project: str) -> None:
    """From 4.0 on MLPerf's checkers want others than the logs have."""
    ours = own(commit=project, hardware={**HARDWARE, "accelerators": HARDWARE["accelerators"][:1]})
    for number in range(5):
        log = rounds.log(org="Someone", platform="DGX A100", seed=number, longer_ms=100 * number)
        log[8:8] = [event(log[8]["time_ms"], key, value) for key, value in ours.items()]
        write(tmp_path / f"out/result_{number}.txt", log)
    (series,) = find_series([tmp_path / "out"])
    built, report = package(series, order(tmp_path / "packages", system="dgx", ruleset="4.1.0"))
    assert report.ok
    assert json.loads((built / "systems/dgx.json").read_text())["status"] == "Available on-premise"


@pytest.mark.usefixtures("unchecked")
def test_a_package_has_the_configuration_that_ran(tmp_path: Path, project: str) -> None:
    """Wherever its file lies: the packaged scripts named one that nobody else has."""
    ran = {
        **own()["configuration"],
        "model": {"weights": None, "text": 'a "b"\n\x7f', "steps": [1, 2.5], "deep": {"a b": True}},
    }
    logged = own(commit=project, configuration_name="mybox", configuration=ran)
    (series,) = find_series([write_series(tmp_path / "out", own=logged)])
    built, _ = package(series, order(tmp_path / "packages", system="box"))
    folder = built / "benchmarks/ssd/implementations/box"
    expected = {**ran, "model": {**ran["model"]}}
    del expected["model"]["weights"]
    assert tomllib.loads((folder / "mybox.toml").read_text()) == expected
    script = (folder / "run_and_time.sh").read_text()
    assert 'exec ./run_and_time.sh ../box/mybox.toml "$@"' in script
    assert (folder / "../pytorch" / "../box/mybox.toml").is_file()


@pytest.mark.usefixtures("unchecked")
def test_commits_between_which_only_results_changed_are_one_source(tmp_path: Path, project: str) -> None:
    """Whoever commits what `collect` made between two runs of a series changed nothing that ran."""
    git = ["git", "-C", str(tmp_path / "project"), "-c", "user.name=t", "-c", "user.email=t@t"]
    commits = [project]
    for name in ("results/new.txt", "train.py"):
        (tmp_path / "project" / name).write_text("more")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
        told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits.append(told.stdout.strip())
    folder = write_series(tmp_path / "out", own=own(commit=project))
    write(folder / "result_4.txt", events(seed=9, epoch_ms=12_345, own=own(commit=commits[1])))
    (series,) = find_series([folder])
    assert package(series, order(tmp_path / "packages"))[1].ok
    write(folder / "result_4.txt", events(seed=9, epoch_ms=12_345, own=own(commit=commits[2])))
    (series,) = find_series([folder])
    with pytest.raises(Unpublishable, match="runs differ in commit: "):
        package(series, order(tmp_path / "others"))


def test_the_scripts_of_a_package_are_sound(tmp_path: Path, project: str) -> None:
    keys = own(commit=project, configuration={"run": {}, "model": {"initial_weights": "imagenet"}})
    (series,) = find_series([write_series(tmp_path / "out", own=keys)])
    built, _ = package(series, order(tmp_path / "packages"))
    scripts = [str(path) for path in built.rglob("*.sh") if "pytorch" not in path.parts]
    assert len(scripts) == 3 and all(Path(script).stat().st_mode & 0o111 for script in scripts)
    done = subprocess.run(
        [CHECKOUT / ".venv/bin/shellcheck", "-e", "SC1091,SC2154", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("weights", [("resnet34-333f7ec4.pth",), ("a.pth", "b.pth"), ()])
def test_the_last_step_of_a_package_passes_the_weights_beside_the_data(
    tmp_path: Path, weights: tuple[str, ...]
) -> None:
    """Closed submissions want initial weights, and without their option every run of these scripts was refused."""
    built, data = tmp_path / "benchmarks/ssd", tmp_path / "from here/my data"
    (built / "pytorch").mkdir(parents=True)
    stub = built / "pytorch/run_and_time.sh"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$DATADIR" "$@"\n')
    stub.chmod(0o755)
    data.mkdir(parents=True)
    for each in weights:
        (data / each).touch()
    keys = own(configuration={"benchmark": "ssd", "model": {"initial_weights": "imagenet"}})
    (series,) = find_series([write_series(tmp_path / "out", own=keys)])
    files = system_files(series, "dgx", built / "pytorch", "0.7.0")
    (built / "dgx").mkdir()
    (built / "dgx/run_and_time.sh").write_text(files["run_and_time.sh"])

    def told(*options: str) -> tuple[list[str], str]:
        """Folder and options that the sources' script gets, but for the configuration, and what is said."""
        command = ["bash", str(built / "dgx/run_and_time.sh"), *options]
        variables = {"PATH": os.environ["PATH"], "DATADIR": "my data"}
        done = subprocess.run(command, cwd=data.parent, env=variables, capture_output=True, text=True, check=True)
        folder, configuration, *rest = done.stdout.splitlines()
        assert configuration.startswith("../dgx/")
        return [folder, *rest], done.stderr

    one = len(weights) == 1
    given, said = told("--seed", "3")
    passed = ["--initial-weights", str(data / weights[0])] if one else []
    assert given == [str(data), *passed, "--seed", "3"]
    assert ("needs --initial-weights FILE" in said) == (not one)
    assert told("--initial-weights", "x.pth") == ([str(data), "--initial-weights", "x.pth"], "")
    assert told("--backbone-path=x.pth") == ([str(data), "--backbone-path=x.pth"], "")
    assert "one file *.pth in DATADIR" in files["README.md"]


@pytest.mark.parametrize(
    ("model", "logged", "wanted"),
    [
        ({"initial_weights": "imagenet"}, {"initial_weights": "resnet34-333f7ec4.pth"}, "resnet34-333f7ec4.pth"),
        ({"initial_weights": "imagenet"}, {}, "not logged"),
        ({"initial_weights": "scratch"}, {}, "none"),
    ],
)
def test_the_data_sheet_names_the_file_of_the_weights(
    model: dict[str, Any], logged: dict[str, Any], wanted: str
) -> None:
    record = parsed(text(events(own=own(configuration={"model": model}, **logged))))
    assert implementation_json(record)["Starting weights filename?"] == wanted


@pytest.mark.parametrize(
    ("lock", "machine", "wanted"),
    [
        ("run.lock", {"accelerators": ["NVIDIA A100-SXM4-40GB"]}, "--build-arg ACCELERATOR=cuda13"),
        ("run.lock", {"accelerators": []}, "--build-arg ACCELERATOR=cpu"),
        ("cuda12.lock", {"accelerators": ["Tesla V100"]}, "--build-arg ACCELERATOR=cuda12"),
        (
            "vendor.lock",
            {"accelerators": ["AMD Instinct MI300X"]},
            "--build-arg ACCELERATOR=vendor --build-arg BASE_IMAGE=rocm/pytorch:latest",
        ),
        (None, {"accelerators": ["Tesla V100"]}, ""),
    ],
)
def test_the_scripts_name_the_benchmark_and_the_image_that_ran(
    tmp_path: Path, lock: str | None, machine: dict[str, Any], wanted: str
) -> None:
    """Its data set was the default benchmark's, its image the default accelerator's."""
    sources = tmp_path / "pytorch"
    (sources / "requirements").mkdir(parents=True)
    for each in ("run", "cuda12", "vendor"):
        (sources / "requirements" / f"{each}.lock").write_text(each)
    image = {"id": "x", "base_image": "rocm/pytorch:latest", "lock_sha256": "0" * 64}
    if lock is not None:
        image["lock_sha256"] = hashlib.sha256(lock.removesuffix(".lock").encode()).hexdigest()
    keys = own(image=image, hardware=machine, configuration={"benchmark": "retinanet", "run": {}})
    (series,) = find_series([write_series(tmp_path / "out", own=keys)])
    files = system_files(series, "dgx", sources, "0.7.0")
    assert f'docker build -t ssd {f"{wanted} " * bool(wanted)}"$@" .\n' in files["setup.sh"]
    assert '-m harness prepare --benchmark retinanet --data-dir "${DATADIR:?' in files["init_datasets.sh"]
    assert ("give setup.sh `--build-arg ACCELERATOR=...`" in files["README.md"]) == (lock is None)


@pytest.mark.parametrize(
    ("keys", "count", "words"),
    [
        ({"demonstration": True}, 5, "demonstration data: run with the real data set"),
        ({"other_task": "SSD300 with VGG-16"}, 5, "another task than the benchmark's: the log's other_task says which"),
        ({"resumed_from_epoch": 12}, 5, "a resumed run: a result is one run without a break"),
        ({"max_steps": 500}, 5, "a run that --max-steps was to end"),
        ({"tree_dirty": True}, 5, "the source had uncommitted changes"),
        ({"commit": "unknown"}, 5, "the logs name no commit"),
        (
            {"commit": "unknown", "tree_dirty": True},
            5,
            "the log names no commit: nobody can know what ran, as of what pip",
        ),
        ({"commit": "1" * 40}, 5, "is not in this checkout"),
        ({"benchmark_sha256": "2" * 64}, 5, "lies outside of this project, whose commit has none of it"),
        ({}, 4, "4 runs; the rules want 5: run 1 more"),
        ({}, 6, "6 runs; the rules want 5: choose consecutive ones"),
    ],
)
def test_what_is_refused_and_in_which_words(
    tmp_path: Path, project: str, keys: dict[str, Any], count: int, words: str
) -> None:
    (series,) = find_series([write_series(tmp_path / "out", count, own=own(**{"commit": project, **keys}))])
    with pytest.raises(Unpublishable) as refused:
        package(series, order(tmp_path / "packages"))
    (reason,) = refused.value.reasons
    assert words in reason
    assert not (tmp_path / "packages").exists()


def test_code_that_no_commit_here_has_is_packaged_from_its_folder(tmp_path: Path, project: str) -> None:
    """A benchmark of one's own, by HARNESS_BENCHMARKS: the harness's sources were packaged as the implementation."""
    folder = write_series(tmp_path / "out", own=own(commit=project, benchmark_sha256="2" * 64))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train.py").write_text("pass\n")
    (series,) = find_series([folder])
    built, _ = package(series, order(tmp_path / "packages", sources=tmp_path / "mine"))
    assert [path.name for path in built.rglob("train.py")] == ["train.py"]
    write(folder / "result_4.txt", events(seed=9, epoch_ms=12_345, own=own(commit=project, benchmark_sha256="3" * 64)))
    (series,) = find_series([folder])
    with pytest.raises(Unpublishable, match="runs differ in benchmark_sha256: "):
        package(series, order(tmp_path / "others", sources=tmp_path / "mine"))


def test_a_dirty_tree_is_refused_whatever_sources_are_named(tmp_path: Path) -> None:
    (series,) = find_series([write_series(tmp_path / "out", own=own(tree_dirty=True))])
    with pytest.raises(Unpublishable, match="uncommitted changes"):
        package(series, order(tmp_path / "packages", sources=tmp_path / "out"))


def test_a_submitters_series_with_the_sources_and_the_description_beside_it(test_data: Path, tmp_path: Path) -> None:
    (series,) = find_series([test_data / "mlperf-results/v0.7/NVIDIA/results/dgx1_ngc20.06_pytorch"])
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text("")
    built, _ = package(series, Submission("NVIDIA", "closed", tmp_path / "packages", sources=tmp_path / "src"))
    assert (built / "systems/dgx1_ngc20.06_pytorch.json").is_file()
    assert len(list((built / "results/dgx1_ngc20.06_pytorch/ssd").iterdir())) == 5


def test_all_reasons_come_at_once(tmp_path: Path, project: str) -> None:
    (series,) = find_series(
        [write_series(tmp_path / "out", 1, own=own(commit=project, demonstration=True), division="open")]
    )
    with pytest.raises(Unpublishable) as refused:
        package(series, order(tmp_path / "packages", org="Other", given={}))
    reasons = "\n".join(refused.value.reasons)
    for words in (
        "demonstration",
        "1 run; the rules want 5",
        "submission_org = Someone, not Other",
        "submission_division = open",
        "lacks host_storage_type",
    ):
        assert words in reasons


def test_a_run_is_no_two_systems(tmp_path: Path, two_series: tuple[Series, Series], project: str) -> None:
    """One series was seven systems, and check passed; so it is where a package is made again under another name."""
    package(two_series[0], order(tmp_path / "packages", system="one"))
    with pytest.raises(Unpublishable, match=r"result_0\.txt: runs alike: a copy of results/one/ssd/result_0\.txt"):
        package(two_series[0], order(tmp_path / "packages", system="two"))
    assert [each.name for each in (tmp_path / "packages/Someone/systems").iterdir()] == ["one.json"]


def test_what_only_check_finds_lets_no_package_out(tmp_path: Path, project: str) -> None:
    folder = write_series(tmp_path / "out", own=own(commit=project))
    log = [each for each in events(seed=9, epoch_ms=12_345, own=own(commit=project)) if each["key"] != "model_bn_span"]
    write(folder / "result_1.txt", log)
    write(folder / "result_2.txt", [{**each, "value": 10} if each["key"] == "seed" else each for each in log])
    (series,) = find_series([folder])
    with pytest.raises(Unpublishable, match="model_bn_span"):
        package(series, order(tmp_path / "packages"))
    assert not (tmp_path / "packages").exists()


def test_a_description_that_a_person_wrote(tmp_path: Path, project: str) -> None:
    (series,) = find_series([write_series(tmp_path / "out", own=own(commit=project))])
    said = sysdesc.describe(
        HARDWARE,
        SOFTWARE,
        {},
        {**FILLED, "submitter": "Someone", "division": "closed", "status": "onprem", "system_name": "A100 box"},
    )
    path = tmp_path / "system.json"
    path.write_text(json.dumps(said))
    built, _ = package(series, order(tmp_path / "packages", description=path, given={"cooling": "air"}, system="box"))
    written = json.loads((built / "systems/box.json").read_text())
    assert (written["system_name"], written["cooling"]) == ("A100 box", "air")


@pytest.mark.usefixtures("unchecked")
def test_a_status_that_is_said_is_in_the_rounds_words_too(tmp_path: Path, project: str) -> None:
    (series,) = find_series([write_series(tmp_path / "out", own=own(commit=project))])
    built, _ = package(
        series, order(tmp_path / "packages", system="dgx", given={**FILLED, "status": "Available cloud"})
    )
    assert json.loads((built / "systems/dgx.json").read_text())["status"] == "cloud"
    with pytest.raises(ValueError, match='status "somewhere": one of'):
        package(series, order(tmp_path / "other", given={**FILLED, "status": "somewhere"}))


def test_warnings_are_shown_of_a_package_too(tmp_path: Path, project: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` warned of the same tree that the last command before submission had nothing against."""
    series = write_series(tmp_path / "out", own=own(commit=project))
    given = [word for key, value in {**FILLED, "status": "cloud"}.items() for word in ("--set", f"{key}={value}")]
    words = ("--org", "Someone", "--division", "closed", "--out", tmp_path / "packages", *given)
    assert main(["package", str(series), *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "submission_status" in said and "onprem, the system's is cloud" in " ".join(said.split())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spoil", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
def test_a_probe_that_cannot_be_read_costs_no_package(
    tmp_path: Path, project: str, spoil: Callable[[Path], None]
) -> None:
    """A folder, a FIFO, a link to nowhere: exit code 6, as of a missing device."""
    folder = write_series(tmp_path / "out", own=own(commit=project))
    spoil(folder / "probe_0.json")
    (folder / "probe_1.json").write_text("{}")
    (series,) = find_series([folder])
    built, _ = package(series, order(tmp_path / "packages"))
    assert [path.name for path in built.rglob("probe_*")] == ["probe_1.json"]


@pytest.mark.usefixtures("unchecked")
def test_the_readme_counts_the_accelerators_that_the_description_has(tmp_path: Path) -> None:
    """Of logs that do not tell it was on None accelerators, beside a description of eight."""
    folder = write_series(tmp_path / "out", ranks=1)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/train.py").touch()
    (series,) = find_series([folder])
    assert series.accelerators is None
    told = {"description": described(tmp_path), "sources": tmp_path / "sources"}
    built, _ = package(series, order(tmp_path / "packages", system="dgxa100_test", **told))
    (text,) = (path.read_text() for path in built.rglob("README.md"))
    assert "on 8 accelerators" in text


@pytest.mark.usefixtures("unchecked")
def test_a_package_of_another_ruleset_is_told_so(tmp_path: Path, project: str) -> None:
    """Published logs name none: what was said of a package of another round was of the other system's logs."""
    out = tmp_path / "packages"
    older = find_series([write_series(tmp_path / "out")])[0]
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/train.py").touch()
    package(older, order(out, system="one", sources=tmp_path / "sources", description=described(tmp_path)))
    newer = find_series([write_series(tmp_path / "out2", ruleset="1.0.0", first_seed=500, first_ms=12_405)])[0]
    assert (older.first.ruleset, newer.first.ruleset, newer.first.ruleset_is_guess) == ("0.7.0", "1.0.0", True)
    with pytest.raises(Unpublishable, match=r"holds results of ruleset 0\.7\.0, this is of 1\.0\.0"):
        package(newer, order(out, system="two", sources=tmp_path / "sources", description=described(tmp_path)))


def test_two_series_of_one_folder_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both had one name, and "name one of them" nobody could."""
    folder = write_series(tmp_path / "out", own=own())
    write(folder / "result_4.txt", events(seed=9, own=own(configuration_sha256="cd" * 32)))
    assert main(["package", str(folder), "--org", "Someone", "--division", "closed", "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert f"out [DGXA100_1x8x114 {'ab' * 6}], out [DGXA100_1x8x114 {'cd' * 6}]" in said
    assert "move the runs of each into a folder of its own" in said


def test_a_package_into_a_file(tmp_path: Path, project: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_series(tmp_path / "out", own=own(commit=project))
    (tmp_path / "file").touch()
    given = [word for key, value in FILLED.items() for word in ("--set", f"{key}={value}")]
    words = ("--org", "Someone", "--division", "closed", "--out", str(tmp_path / "file"), *given)
    assert main(["package", str(folder), *words]) == 2
    assert (
        f"error: {tmp_path}/file: cannot be made: File exists; name another folder with --out"
        in capsys.readouterr().err
    )


def test_usage(tmp_path: Path) -> None:
    (series,) = find_series([write_series(tmp_path / "out", own=own())])
    for wrong in (
        {"org": "<your organization>"},
        {"org": "unnamed"},
        {"division": "Closed"},
        {"ruleset": "0.8.0"},
        {"given": {"unknown": "x"}},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)) if "given" not in wrong else "unknown"):
            package(series, order(tmp_path / "packages", **wrong))
