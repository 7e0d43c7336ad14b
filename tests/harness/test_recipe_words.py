"""The command line of the published recipe, as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config_files
from harness.cli import recipe_words
from tests.harness.execution import runs

RECIPE = ("--name", "iluvatar", "--config", "V100x1x8", "--data_dir", "D", "--backbone_path", "F")


def test_the_recipe_in_our_words() -> None:
    assert recipe_words.translated(["run", *RECIPE]) == [
        "run",
        "iluvatar/V100x1x8",
        "--data-dir",
        "D",
        "--backbone-path",
        "F",
    ]
    joined = [f"{RECIPE[i]}={RECIPE[i + 1]}" for i in range(0, len(RECIPE), 2)]
    assert recipe_words.translated(["run", *joined]) == recipe_words.translated(["run", *RECIPE])
    ours = ["run", "H100_1x1x256", "--data-dir", "D", "--seed=3"]
    assert recipe_words.translated(ours) == ours
    assert recipe_words.translated(["score", "--name", "x"]) == ["score", "--name", "x"]


def test_prepare_takes_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe_words.translated(["prepare", "--name", "iluvatar", "--data_dir", "D"]) == [
        "prepare",
        "--data-dir",
        "D",
    ]
    assert "--name" in capsys.readouterr().err


def test_a_configuration_has_the_recipe_s_name() -> None:
    assert config_files.find("iluvatar/V100x1x8").stem == "BI-V100_1x8x24"
    names = [
        name
        for path in config_files.available().values()
        for name in config_files.read_toml(path).get("also_called", [])
    ]
    assert len(set(names)) == len(names)


def test_the_recipe_finds_its_configuration_and_then_its_accelerators(tmp_path: Path) -> None:
    """Which this machine has not: that is all that is said against it."""
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/here").touch()
    (tmp_path / "resnet34.pth").touch()
    words = [word.replace("D", str(tmp_path / "coco")) if word == "D" else word for word in RECIPE]
    words = [str(tmp_path / "resnet34.pth") if word == "F" else word for word in words]
    done = runs.run(*words, "--out", tmp_path / "out")

    # rank 0, which names the configuration, may be ended by another's finding before it has said so
    assert done.returncode == 6, done.stdout + done.stderr
    assert 'run.device = "cuda": programs see no such accelerator here' in done.stderr
