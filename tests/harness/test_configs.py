"""The table of configurations: which of them this machine could run, by what it has."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import config, config_files
from harness.cli import configs, main
from harness.results.package_text import toml
from harness.system.accelerator import Suitability
from harness.system.cpu import Processor

H100 = SimpleNamespace(
    device="cuda", names=["NVIDIA H100 80GB HBM3"] * 2, verdict=Suitability("NATIVE", "", runnable=True)
)
BROKEN = SimpleNamespace(device="cuda", names=["NVIDIA H100 80GB HBM3"], verdict=Suitability("TOO-OLD", ""))
CPU = Processor()


@pytest.mark.parametrize(
    ("device", "nodes", "each", "found", "said"),
    [
        ("cpu", 1, 1, [H100, CPU], "yes"),
        ("cuda", 1, 2, [H100, CPU], "yes"),
        ("cuda", 1, 8, [H100, CPU], "no: 8 accelerators, here 2"),
        ("cuda", 1, 1, [CPU], "no: 1 accelerator, here none"),
        ("cuda", 1, 1, [BROKEN, CPU], "no: TOO-OLD"),
        ("cuda", 4, 2, [H100, CPU], "no: 4 machines"),
        ("accelerator", 1, 1, [H100, CPU], "yes"),
        ("accelerator", 1, 1, [CPU], "no: 1 accelerator, here none"),  # as preflight refuses it
        ("xpu", 1, 1, [H100, CPU], "no: 1 accelerator, here none"),
    ],
)
def test_what_runs_here(device: str, nodes: int, each: int, found: list[Any], said: str) -> None:
    run = {"device": device, "nodes": nodes, "accelerators_per_node": each}
    assert ("; ".join(configs.why_not(run, f"{each}x NVIDIA H100-SXM5-80GB", found)) or "yes") == said


def test_another_model_is_said() -> None:
    run = {"device": "cuda", "nodes": 1, "accelerators_per_node": 1}
    assert list(configs.why_not(run, "1x NVIDIA A100-SXM4-80GB", [H100])) == [
        "yes, on another model: NVIDIA H100 80GB HBM3"
    ]  # type: ignore[list-item]


def test_every_configuration_is_in_the_table_and_those_of_this_machine_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [
        line
        for line in lines
        if line.split()[0].rpartition("/")[2] in {path.stem for path in config_files.FOLDER.glob("*/*.toml")}
    ]
    assert len(rows) == len(config_files.available())
    here = [" yes" in row.partition("   no: ")[0] and "   no: " not in row for row in rows]
    assert here == sorted(here, reverse=True) and here[0]
    assert next(row for row in rows if row.startswith("embedded ")).rstrip().endswith("yes")
    assert "1.3 minutes" in next(row for row in rows if row.startswith("embedded "))
    assert "30 to 40 s" in next(row for row in rows if row.startswith("retinanet_bccd "))
    assert next(row for row in rows if row.startswith("H100_1x1x256 ")).rstrip().endswith("speed alone")


BAD = {
    "empty": b"",
    "comment": b"# a comment, and nothing else yet\n",
    "no-toml": b"a = [\n",
    "utf-16": b"\xff\xfea\0",
    "tables": b'benchmark = "ssd"\nrun = 3\nsubmission = 4\n',
    "count": b'benchmark = "ssd"\n[run]\ndevice = "cuda"\nnodes = 1\naccelerators_per_node = "8"\n[submission]\n',
    "no-table": b'benchmark = "ssd"\nsubmission = "x"\n[run]\ndevice = "cuda"\n',
    "numbers": b'benchmark = "ssd"\noptimizer = 5\n[run]\nnodes = "x"\n[submission]\nplatform = 3\n',
}


@pytest.fixture
def with_bad_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "configs"
    shutil.copytree(config_files.FOLDER, folder)
    for name, content in BAD.items():
        (folder / "ssd" / f"{name}.toml").write_bytes(content)
    (folder / "ssd" / "gone.toml").symlink_to("nowhere")
    monkeypatch.setattr(config_files.available, "__defaults__", (folder,))
    monkeypatch.setattr(config_files.find, "__defaults__", (folder,))
    monkeypatch.setattr(config_files.readable, "__defaults__", (folder,))
    return folder


def test_a_bad_file_costs_the_table_one_line(with_bad_ones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    out, said = capsys.readouterr()
    lines = out.splitlines()
    rows = [line.split()[0] for line in lines[1:] if line.split()[0] in config_files.available()]
    assert len(rows) == len(config_files.available()) - len(BAD) - 1 and "embedded" in rows
    for name in (*BAD, "gone"):
        (line,) = [line for line in said.splitlines() if f"/{name}.toml: " in line]
        assert line.startswith("warning: ")
    for name in BAD:  # by its name: what can be said of it, or what is wrong with it
        code = main(["configs", name])
        assert (code, "codec" in capsys.readouterr().err) == (2 if name == "utf-16" else 0, False)


def test_a_bad_file_stops_no_other_configuration(with_bad_ones: Path) -> None:
    """Neither a path, nor another name of one, nor the default."""
    copied = shutil.copy(with_bad_ones / "ssd" / "embedded.toml", with_bad_ones.parent / "mine.toml")
    assert config_files.find(str(copied)) == Path(copied)
    also = {each: name for name, raw in config_files.readable()[0].items() for each in raw.get("also_called", [])}
    assert also and all(config_files.find(each).stem == name.rpartition("/")[2] for each, name in also.items())
    assert config_files.find_default([], with_bad_ones).stem == "embedded"
    assert config.default_benchmark(with_bad_ones) == "ssd"
    with pytest.raises(config_files.ConfigError, match="this machine has 1x NVIDIA H100: name the") as asked:
        config_files.find_default(["NVIDIA H100"], with_bad_ones)
    named = [line.split()[0] for line in str(asked.value).splitlines() if line.startswith("  ")]
    assert "H100_1x1x256" in named and not {*BAD, "gone"} & {*named}
    (with_bad_ones / "ssd" / "embedded.toml").write_text("default = [")
    with pytest.raises(config_files.ConfigError, match=r"embedded\.toml: not valid TOML"):
        config_files.find_default([], with_bad_ones)


@pytest.mark.parametrize(
    "said, shown",
    [("", "no"), ("# Measured by this project: no", "no"), ("# Measured by this project: not measured yet", "no"),
     ("# Measured by this project: its speed; no run to the target yet", "speed alone"),
     ("# Measured by this project: five timed runs", "yes")],
)  # fmt: skip
def test_what_was_measured_is_what_its_comment_says(tmp_path: Path, said: str, shown: str) -> None:
    """Of a configuration of one's own, which says nothing of it, the table said yes."""
    path = tmp_path / "mine.toml"
    path.write_text(f'{said}\nbenchmark = "ssd"\n[submission]\nplatform = "CPU"\n[run]\ndevice = "cpu"\n')
    assert configs.row("mine", path, [])[configs.COLUMNS.index("measured")] == shown


def test_the_comment_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "bccd"]) == 0
    assert "Expected mAP: 0.38 to 0.42 at epoch 23" in capsys.readouterr().out
    assert main(["configs", "bcdd"]) == 2
    assert "did you mean bccd?" in capsys.readouterr().err


def test_the_recipes_that_a_configuration_may_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["configs", "--recipes"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "912-0.09-650" in line)
    assert "learning_rate 0.09, warmup_steps 650" in row
    assert row.rstrip().endswith("50 (5), 51 (5)")
    rows = list(configs.published_recipes())
    for path in config_files.available().values():
        wanted = config_files.read_toml(path).get("optimizer", {}).get("recipe")
        assert wanted is None or wanted in [row[1] for row in rows]


@pytest.mark.parametrize("name", config_files.available())
def test_a_configuration_written_again_is_the_same(name: str) -> None:
    """A package holds the one that ran, made of the log."""
    chosen = config.load(config_files.find(name), org='O"Neil \u7cfb')
    logged = json.loads(json.dumps(chosen.resolved))
    again = config.parse(tomllib.loads(toml(logged)), name=chosen.name, source="a package")
    assert again.sha256 == chosen.sha256
