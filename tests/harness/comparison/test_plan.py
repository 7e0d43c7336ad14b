"""What is planned over two drivers, images or configurations, and what makes no plan."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from harness.cli import main
from harness.comparison import runs
from harness.comparison.judging import floor
from harness.comparison.planning import child, plan
from harness.request import VARIABLES
from tests.conftest import CHECKOUT
from tests.harness.comparison import arms
from tests.harness.comparison.test_probes import put
from tests.toy import configuration as toy


def names(made: plan.Plan, host: int) -> list[str]:
    return [made.arms[item.arm].name for item in made.schedule(host)]


def blocks(made: plan.Plan, host: int) -> list[str]:
    seen = dict.fromkeys((item.block, made.arms[item.arm].name) for item in made.schedule(host))
    return [name for _, name in seen]


def test_drivers_come_in_blocks_of_opposite_order_that_end_with_the_first_arm() -> None:
    made = plan.make("embedded", ["old", "new"], runs=5)

    assert blocks(made, 1) == ["old", "new", "new", "old"]
    assert blocks(made, 2) == ["new", "old", "old", "new", "old"]
    assert blocks(made, 3) == blocks(made, 1)
    for block in (1, 2, 3, 4):
        kinds = [item.kind for item in made.schedule(1) if item.block == block]
        assert kinds == ["warm-up", *["run"] * 5]
    assert [item.kind for item in made.schedule(2) if item.block == 5] == ["warm-up", *["again"] * 5]


def test_arms_without_a_reboot_run_by_turns() -> None:
    made = plan.make("embedded", ["a:image=ssd:1", "b:image=ssd:2"], runs=4)
    assert names(made, 1) == [*"ab", *"abbaabba"]
    assert names(made, 2) == [*"ba", *"baabbaab"]


def test_the_verbs_take_of_a_plan_what_its_arms_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`history` and `collect` took warm-ups, the closing block and what was put aside, too."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "plan"
    made = plan.make("embedded", ["old", "new"], runs=1)
    plan.write(made, root)
    for item in made.schedule(2):
        software = (arms.OLD, arms.NEW)[item.arm]
        factor = arms.NOISE[item.index] * (1.05 if item.kind == "warm-up" else 1)
        arms.write(made.folder(root, 2, item), 0, turn=item.index, factor=factor, software=software)
    arms.write(root / "broken/host-2_block-1_run-1.1", 0, turn=20, factor=1.3)
    said = []
    for folder in (root, root / "arms"):
        into = tmp_path / f"{folder.name}_into"
        codes = [
            main(words) for words in (["history", "--from", str(folder)], ["collect", str(folder), "--into", str(into)])
        ]
        assert codes == [0, 0] and len([*into.rglob("result_*.txt")]) == 4
        main(["score", str(folder)])
        said.append(capsys.readouterr().out.replace(str(into), "INTO").replace(str(root), "ROOT"))
    assert said[0] == said[1] and " 4 runs" in said[0]


def test_both_arms_have_the_same_seeds() -> None:
    made = plan.make("embedded", ["old", "new"], runs=3, seed=7)
    seeds = {
        arm: [made.seed_of(1, item) for item in made.schedule(1) if item.arm == arm and item.kind == "run"]
        for arm in (0, 1)
    }
    assert seeds[0] == seeds[1] == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("arms", "text"),
    [
        (["old"], "two arms"),
        (["old", "old"], "name them apart"),
        (["old", "b:image=x"], "could not be told apart"),
        (["a:image=x", "b:image=x"], "both arms are the same"),
        (["a:imgae=x", "b:image=x"], "imgae=x: write one of image="),
        (["a:env=X", "b:image=x"], "env=NAME=VALUE"),
        (["a/b", "c"], "a name is up to 60 letters"),
    ],
)
def test_what_makes_no_plan(arms: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("/", ".")):
        plan.make("embedded", arms)


def test_a_plan_is_never_overwritten(tmp_path: Path) -> None:
    made = plan.make("embedded", ["old", "new"], max_steps=20)
    plan.write(made, tmp_path)
    assert plan.read(tmp_path) == made
    with pytest.raises(ValueError, match="there already"):
        plan.write(made, tmp_path)


def test_plans_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compare plan"):
        plan.read(tmp_path)
    (tmp_path / plan.FILE).write_text('{"plan": 99}')
    with pytest.raises(ValueError, match="no plan that this version can read"):
        plan.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runs": "5"}, "runs = '5'"),
        ({"runs": 0}, "--runs 0: from 1 to"),
        ({"runs": 10**9}, "from 1 to 1000"),
        ({"hosts": True}, "hosts = True"),
        ({"max_steps": 1.5}, "max_steps = 1.5"),
        ({"max_steps": 5, "epochs": 1}, "not both"),
        ({"rnus": 3}, "rnus"),
        ({"options": "--target 0.1"}, "options = '--target 0.1'"),
        ({"arms": [{"name": "old"}]}, "arms"),
        ({"arms": [{"name": "../../old"}, {"name": "new"}]}, "--arm ../../old: a name is"),
        ({"arms": [{"name": "old"}, {"name": "old"}]}, "name them apart"),
        ({"arms": [{"name": "old"}, {"name": "new", "image": "x"}]}, "could not be told apart"),
        ({"arms": [{"name": "a", "env": {"X": 1}}, {"name": "b", "image": "x"}]}, "env"),
        ({"arms": [{"name": "a", "env": {"": "1"}}, {"name": "b", "image": "x"}]}, "no name of a variable"),
        ({"seed": 2**70}, "--seed"),
        ({"configuration": None}, "configuration = None"),
    ],
)
def test_a_plan_that_a_person_edited_into_none(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = plan.write(plan.make("embedded", ["old", "new"]), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        plan.read(tmp_path)
    assert str(path) in str(raised.value)


def test_a_plan_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / plan.FILE)
    with pytest.raises(ValueError, match="no regular file"):
        plan.read(tmp_path)


def test_the_verb_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["compare", "plan", "embedded", "--arm", "old", "--arm", "new", "--steps", "9", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0
    assert "host 1: old new new old; 20 runs and 4 warm-ups" in out
    assert f"python -m harness compare run {tmp_path}" in out
    assert main(["compare", "plan", "no_such", "--arm", "old", "--arm", "new", "--out", str(tmp_path / "2")]) == 2


def test_a_configuration_that_is_none_is_said_before_a_reboot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.toml").write_text("a = = 1")
    out = ["--out", str(tmp_path / "plan")]
    for words in (
        ["plan", str(tmp_path / "broken.toml"), "--arm", "old", "--arm", "new", *out],
        ["plan", "embedded", "--arm", "a:config=nope", "--arm", "b:config=embedded", *out],
        ["noise", str(tmp_path / "broken.toml"), *out],
    ):
        assert main(["compare", *words]) == 2
        assert re.search("not valid TOML|no configuration nope", capsys.readouterr().err)
    assert not (tmp_path / "plan").exists()


def test_what_every_run_would_be_refused_for_is_said_before_a_plan_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a reboot the first warm-up said it, and the plan had to be written again."""
    monkeypatch.setattr(child, "start", lambda *_, **__: pytest.fail("a run was started"))
    wanted = 'H100_1x1x256.toml: model.initial_weights = "imagenet" needs torchvision\'s resnet34 file'
    arms = ["--arm", "old", "--arm", "new"]
    for words in (
        ["plan", "H100_1x1x256", *arms, "--out", str(tmp_path / "plan")],
        [
            "plan",
            "embedded",
            "--arm",
            "a:config=embedded",
            "--arm",
            "b:config=H100_1x1x256",
            "--out",
            str(tmp_path / "plan"),
        ],
        ["noise", "H100_1x1x256", "--out", str(tmp_path / "plan")],
    ):
        assert main(["compare", *words]) == 2
        assert wanted in capsys.readouterr().err and not (tmp_path / "plan").exists()
    assert "HARNESS_INITIAL_WEIGHTS" in VARIABLES
    own = [f"--arm={name}:env=HARNESS_INITIAL_WEIGHTS=/{name}.pth" for name in ("x", "y")]
    assert main(["compare", "plan", "H100_1x1x256", *own, "--hosts", "1", "--out", str(tmp_path / "two")]) == 0
    plan.write(plan.make("H100_1x1x256", ["old", "new"]), tmp_path / "older")  # as an older version wrote it
    assert main(["compare", "run", str(tmp_path / "older")]) == 2
    assert wanted in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "older").iterdir()] == [plan.FILE]
    weights = tmp_path / "resnet34.pth"
    weights.touch()
    given = ["--initial-weights", str(weights), "--out", str(tmp_path / "plan")]
    assert main(["compare", "plan", "H100_1x1x256", *arms, *given]) == 0
    assert main(["compare", "plan", "embedded", *arms, *given[:2], "--out", str(tmp_path / "unused")]) == 2
    assert "would leave --initial-weights" in capsys.readouterr().err


def test_paths_are_kept_as_runs_find_them_that_start_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, epochs in (("a", 4), ("b", 5)):
        toy.write(tmp_path, toy.raw(epochs=epochs), name)
    monkeypatch.chdir(tmp_path)
    made = ["compare", "plan", "a.toml", "--out", "plan"]
    assert main([*made, "--arm", "x:config=a.toml", "--arm", "y:config=../" + tmp_path.name + "/b.toml"]) == 0
    found = plan.read(tmp_path / "plan")
    assert [found.configuration, *(each.config for each in found.arms)] == [
        str(tmp_path / name) for name in ("a.toml", "a.toml", "b.toml")
    ]
    for arm in found.arms:
        words = child.command(found, arm, tmp_path / "run", 1, CHECKOUT)
        assert Path(words[words.index("run") + 1]).is_absolute()
    assert (
        main(["compare", "plan", "a.toml", "--out", "2", "--arm", "x:config=a.toml", "--arm", "y:config=./a.toml"]) == 2
    )
    assert "both arms are the same" in capsys.readouterr().err
    # what a commit has is the commit's own, and a name its own configuration of that name; a file of one's own is that file
    commits = (
        "x:config=configs/ssd/embedded.toml,commit=HEAD",
        "y:config=a.toml,commit=HEAD",
        "z:config=embedded,commit=HEAD",
    )
    for number, pair in enumerate((commits[:2], commits[1:])):
        assert main(["compare", "plan", "embedded", "--out", f"of-{number}", "--arm", pair[0], "--arm", pair[1]]) == 0
    kept = [[each.config for each in plan.read(tmp_path / f"of-{number}").arms] for number in (0, 1)]
    assert kept == [["configs/ssd/embedded.toml", str(tmp_path / "a.toml")], [str(tmp_path / "a.toml"), "embedded"]]
    asked: list[plan.Plan] = []
    monkeypatch.setattr(child, "start", lambda made, *_, **__: asked.append(made) or 5)
    assert main(["compare", "noise", "a.toml", "--out", "noise"]) == 5
    assert [each.configuration for each in asked] == [str(tmp_path / "a.toml")]


def test_what_is_no_clone_has_no_commits_to_plan_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an installed copy git said that site-packages/.git is no repository."""
    monkeypatch.setattr(child, "ROOT", tmp_path)
    with pytest.raises(
        ValueError, match="arm a: commit=main: this is no clone of the project, but installed or a copy"
    ):
        child.pinned(plan.make("embedded", ["a:commit=main", "b:image=x"]))


@pytest.mark.parametrize("below", ["", "NVIDIA_H100/ssd"], ids=["processes", "images"])
def test_runs_of_images_lie_deeper_and_lose_nothing_by_it(tmp_path: Path, below: str) -> None:
    """In SYSTEM/BENCHMARK of the run's folder: their probes and floor were not found, and all were called ssd/result_0.txt."""
    made = plan.make("embedded", ["a:image=ssd:1", "b:image=ssd:2"], hosts=1, runs=2)
    root = tmp_path / "compare_a_b"
    folders = [made.folder(root, 1, item) for item in made.schedule(1) if item.kind == "run"]
    logs = [arms.write(folder / below, 0, turn=turn) for turn, folder in enumerate(folders)]
    for name in ("a", "b"):
        put(root / "arms" / name, logs[0])
    (run, *_) = runs.find(str(logs[0]), 0)
    (tmp_path / "noise_x").mkdir()
    noise = {"host": run.host, "configuration_sha256": run.record.configuration_sha256, "steps": "all"}
    noise |= {"driver_key": run.driver.key, "floors": {"seconds_per_epoch": 0.01}}
    (tmp_path / "noise_x" / floor.FILE).write_text(json.dumps(noise))
    found = arms.judged((root / "arms/a", root / "arms/b"))
    assert found.probes.counts == (1, 1) and found.probes.rows
    assert [each.name for each in found.runs] == [f"{each.parent.name}/{each.name}/result_0.txt" for each in folders]
    fits = floor.find(found.runs)
    assert fits is not None and not fits.unfit
