"""The study of seeds: its bound, and that it goes on where it was left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from measuring import seeds
from tests.harness.results import logs
from tests.toy import configuration


def test_the_bound_is_the_tables_of_tolerance_intervals() -> None:
    """One-sided, 95 % of a normal population with 95 % confidence: factor 2.911 for n = 10 (ISO 16269-6, table D.4)."""
    reached = [0.5, 0.7] * 5
    spread = (10 / 9) ** 0.5 * 0.1
    assert (0.6 - seeds.least_of_most_runs(reached)) / spread == pytest.approx(2.911, abs=5e-4)


def test_a_study_goes_on_where_it_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(configuration: str, seed: int, folder: Path) -> dict[str, object]:
        asked.append(seed)
        return {"seed": seed, "precision": "fp32", "seconds": 1.0, "reached": {"2": 0.1 * seed}}

    monkeypatch.setattr(seeds, "run", run)
    out = tmp_path / "seeds.json"
    for wanted in ("1 2", "1 2 3"):
        monkeypatch.setattr("sys.argv", ["seeds", "embedded", "--out", str(out), "--seeds", *wanted.split()])
        seeds.main()
    assert asked == [1, 2, 3]
    assert json.loads(out.read_text())["by_epoch"]["2"]["most"] == pytest.approx(0.3)
    assert json.loads(out.read_text())["by_epoch"]["2"]["n"] == 3
    monkeypatch.setattr("sys.argv", ["seeds", "bccd", "--out", str(out)])
    with pytest.raises(ValueError, match="another configuration's"):
        seeds.main()
    assert len(json.loads(out.read_text())["runs"]) == 3


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"configuration_sha256": "", "runs": [{"seed": 1}]}'])
def test_a_file_of_something_else_is_left_as_it_is(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "seeds.json").write_text(content)
    monkeypatch.setattr("sys.argv", ["seeds", "embedded", "--out", str(out)])
    with pytest.raises(ValueError, match="something else than a study of seeds"):
        seeds.main()
    assert out.read_text() == content


def test_true_runs_are_read_from_their_logs_and_a_crash_is_none_of_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whose code may be 1 as well: it was taken for a run that had spent its epochs, or ended in a traceback."""
    path = configuration.write(tmp_path, configuration.raw())
    assert seeds.run(str(path), 7, tmp_path)["reached"] == {"1": 0.1, "2": 0.2, "3": 0.3, "4": 0.4}
    path = configuration.write(tmp_path, configuration.raw("raises"), "raises")
    with pytest.raises(SystemExit) as ended:
        seeds.run(str(path), 8, tmp_path)
    assert ended.value.code == 5 and "seed 8 did not spend its epochs" in capfd.readouterr().err


def test_a_crash_that_ends_with_the_code_of_spent_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1)

    monkeypatch.setattr(subprocess, "run", crashed)
    with pytest.raises(SystemExit) as ended:
        seeds.run("embedded", 1, tmp_path)  # without a log
    assert ended.value.code == 5
    logs.write(tmp_path / "result_1.txt", logs.events(status="aborted"))
    with pytest.raises(SystemExit):
        seeds.run("embedded", 1, tmp_path)
