"""The study of seeds: its bound, and that it goes on where it was left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from measuring import seeds


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
    monkeypatch.setattr("sys.argv", ["seeds", "bccd", "--out", str(out)])
    with pytest.raises(SystemExit):  # another configuration's
        seeds.main()
    assert len(json.loads(out.read_text())["runs"]) == 3
