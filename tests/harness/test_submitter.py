"""Who submits is named before hours are spent: logs are never edited, and no configuration here names anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import config
from harness.cli import main
from harness.config_files import ConfigError
from harness.execution import provenance
from harness.launch import image_code
from tests.toy import configuration as toy


def of(folder: Path, **submission: str) -> Path:
    raw = toy.raw()
    raw["submission"] = {**raw["submission"], "org": "unnamed", "division": "closed", **submission}
    return toy.write(folder, raw)


@pytest.mark.parametrize(
    ("submission", "asked", "said"),
    [
        ({}, (), True),
        ({"division": "open", "status": "cloud"}, (), True),
        ({"division": "open", "status": "research"}, (), False),
        ({"org": "Someone"}, (), False),
        ({}, ("--org", "Someone"), False),
        ({}, ("--max-steps", "1"), False),  # of speed, and no result
    ],
)
def test_a_run_that_nobody_could_publish_says_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], submission: dict[str, str], asked: tuple[str, ...], said: bool
) -> None:
    path = of(tmp_path, **submission)
    main(["run", str(path), "--data-dir", str(tmp_path / "absent"), "--out", str(tmp_path), *asked])
    told = capsys.readouterr().err
    assert "there is no such folder" in told
    assert ('submission.org = "unnamed": no package can be made of its logs' in told and "--org NAME" in told) == said


def test_a_trial_does_not_say_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_TRIAL", "x")
    main(["run", str(of(tmp_path)), "--data-dir", str(tmp_path / "absent"), "--out", str(tmp_path)])
    assert "unnamed" not in capsys.readouterr().err


def test_doctor_says_it_of_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    main(["doctor", str(of(tmp_path)), "--data-dir", str(tmp_path / "data"), "--json"])
    found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert found["submitter"]["level"] == "warning" and "--org NAME" in found["submitter"]["fix"]


@pytest.mark.parametrize(
    ("commit", "says"),
    [
        (("0123456789abcdef", False), ""),
        (("0123456789abcdef", True), "the source differs from commit 0123456789ab: no package can be made of its logs"),
        (
            ("unknown", True),
            "the log names no commit (installed by pip, a copy without its repository, or git does not",
        ),
    ],
)
def test_code_of_which_no_package_can_be_made_is_said_first_too(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    commit: tuple[str, bool],
    says: str,
) -> None:
    """Five runs of hours were refused when they were done, and what pip had installed was told to commit its changes."""
    monkeypatch.setattr(provenance, "commit", lambda _: commit)
    words = ("--data-dir", str(tmp_path / "absent"), "--out", str(tmp_path))
    for submission, meant in (({}, True), ({"division": "open", "status": "research"}, False)):
        path = of(tmp_path, **submission)
        main(["run", str(path), *words])
        told = capsys.readouterr().err
        assert "there is no such folder" in told and told.count("no package can be made") == meant * (1 + bool(says))
        assert not meant or says in told
        (tmp_path / "data").mkdir(exist_ok=True)
        main(["doctor", str(path), "--data-dir", str(tmp_path / "data"), "--json"])
        found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
        assert ("code" in found) == (meant and bool(says)) and (not says or not meant or says in found["code"]["text"])


def test_the_organization_of_a_run_is_its_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hash and all: ranks, nodes and images read the same, and `--resume` takes nobody else's series."""
    path = of(tmp_path)
    named = config.load(path, org="Someone")
    assert named.submission.org == "Someone"
    assert named.sha256 == config.load(of(tmp_path, org="Someone")).sha256 != config.load(of(tmp_path)).sha256
    with pytest.raises(ConfigError, match=r"submission\.org"):
        config.load(path, org="")
    exec(image_code.HASH.replace("sys.argv", str(["-c", str(path), "0.25", "Someone"])))  # as an image's Python does
    assert capsys.readouterr().out.strip() == config.load(path, target=0.25, org="Someone").sha256
