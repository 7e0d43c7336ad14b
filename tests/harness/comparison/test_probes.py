"""Probes beside results: shown where they are of both arms, and never in the verdict."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison.reporting import documents, page, terminal
from harness.results import logfile
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD, judged


def put(folder: Path, log: Path, number: int = 0, *, times: float = 1.0, **more: Any) -> Path:
    """A probe of the machine and driver that `log` tells of, with figures `times` as large."""
    record = logfile.read(log)
    figures = [
        {"name": "launch", "unit": "us", "what": "one number", "median": 5.0 * times, "samples": [5.0 * times]},
        {"name": "matmul_bf16", "unit": "TFLOP/s", "what": "4096 x 4096", "median": 700.0, "samples": [700.0]},
    ]
    content = {"version": 1, "hardware": record.hardware, "software": record.software, "figures": figures, **more}
    path = folder / f"probe_{number}.json"
    path.write_text(json.dumps(content))
    return path


def both(root: Path, *, slower: float = 1.0, times: float = 1.5) -> tuple[Path, Path]:
    a, b = arms.in_turns(root, slower=slower, a={"software": OLD}, b={"software": NEW})
    put(a, a / "result_0.txt")
    put(b, b / "result_0.txt", times=times)
    return a, b


def test_they_are_shown_in_every_document(tmp_path: Path) -> None:
    found = judged(both(tmp_path))
    text = list(terminal.lines(found))
    assert max(map(len, text)) <= 80
    shown = next(line for line in text if line.startswith("launch, us"))
    assert shown.split() == ["launch,", "us", "5", "7.5", "1.500", "one", "number"]
    assert any(line.startswith("probes (1 + 1), never gated") for line in text)
    told = documents.as_json(found)["probes"]
    assert told["count"] == {"A": 1, "B": 1}
    assert told["figures"][0] == {
        **{"name": "launch", "unit": "us", "what": "one number"},
        **{"A": 5.0, "B": 7.5, "ratio": 1.5},
    }
    assert "| launch, us | 5 | 7.5 | 1.500 | one number |" in documents.markdown(found)
    assert "<h2>Probes</h2>" in page.render(found)


@pytest.mark.parametrize("slower", [1.0, 1.013, 1 / 1.013])
def test_they_change_no_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str], slower: float) -> None:
    a, b = both(tmp_path, slower=slower, times=100.0)
    with_probes = main(["compare", str(a), str(b)])
    shown = capsys.readouterr().out
    for folder in (a, b):
        (folder / "probe_0.json").unlink()
    assert main(["compare", str(a), str(b)]) == with_probes
    plain = capsys.readouterr().out
    assert "launch" in shown and "launch" not in plain
    assert shown.splitlines()[-1] == plain.splitlines()[-1]


def test_several_are_one_figure(tmp_path: Path) -> None:
    a, b = both(tmp_path)
    put(b, b / "result_0.txt", 1, times=1.7)
    put(b, b / "result_0.txt", 10, times=1.6)
    found = judged((a, b)).probes
    assert found.counts == (1, 3) and found.rows[0].medians == (5.0, 8.0)


def test_figures_of_other_sizes_are_not_held_against_each_other(tmp_path: Path) -> None:
    a, b = both(tmp_path)
    figure = {"name": "launch", "unit": "us", "what": "two numbers", "median": 9.0}
    put(b, b / "result_0.txt", figures=[figure])
    found = judged((a, b)).probes
    assert found.rows == ()
    assert found.notes == ("launch: A of one number, B of two numbers: not the same thing",)


def test_a_host_of_one_arm_alone_enters_no_figure(tmp_path: Path) -> None:
    """The middle of a plan: host 2 is slow, and has run B alone so far. B's launches were called 1.5 times as long."""
    a, b = both(tmp_path, times=1.0)
    put(b, arms.write(b, 20, turn=20, software=NEW, gpu={"uuid": "GPU-2"}), 1, times=2.0)
    found = judged((a, b)).probes
    assert found.counts == (1, 1) and found.rows[0].medians == (5.0, 5.0) and not found.notes


def test_each_host_s_probes_are_held_against_each_other(tmp_path: Path) -> None:
    """Host 2 is slower in everything, and its A has no probe, or one that lacks a figure."""
    a, b = both(tmp_path, times=1.0)
    other = {"uuid": "GPU-2"}
    logs = [arms.write(a, 20, turn=20, software=OLD, gpu=other), arms.write(b, 20, turn=21, software=NEW, gpu=other)]
    put(b, logs[1], 1, times=2.0)
    found = judged((a, b)).probes
    assert found.counts == (1, 1) and found.rows[0].medians == (5.0, 5.0)
    figure = {"name": "matmul_bf16", "unit": "TFLOP/s", "what": "4096 x 4096", "median": 350.0}
    put(a, logs[0], 1, figures=[figure])
    found = judged((a, b)).probes
    assert found.counts == (2, 2)
    assert [row.medians for row in found.rows] == [(5.0, 5.0), (525.0, 700.0)], "launch: of host 1 alone"
    (a / "probe_0.json").unlink()
    (b / "probe_1.json").unlink()
    found = judged((a, b)).probes
    assert not found.rows and found.notes == (
        "probes are not shown: no host that enters the ratio has them of both arms",
    )


def test_of_machines_that_are_compared_by_a_person_s_word_all_are_shown(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, a={"software": OLD}, b={"software": NEW, "gpu": {"uuid": "GPU-2"}})
    put(a, a / "result_0.txt")
    put(b, b / "result_0.txt", times=1.5)
    assert judged((a, b), allowed=("host",)).probes.rows[0].medians == (5.0, 7.5)


def test_a_probe_above_both_arms_is_neither_s(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    put(tmp_path, a / "result_0.txt")
    assert judged((a, b)).probes.counts == (0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"software": NEW}, "it was made with another driver: 590.44.01"),
        ({"hardware": {"gpus": [{"uuid": "GPU-of-another"}]}}, "it is of another host"),
        ({"figures": 7}, "it cannot be read as a probe"),
        ({"figures": [{"name": "x"}]}, "it cannot be read as a probe"),
        ({"hardware": []}, "it cannot be read as a probe"),
    ],
)
def test_one_that_does_not_speak_for_the_runs_is_left_out_by_name(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    a, b = both(tmp_path)
    content = json.loads((a / "probe_0.json").read_text())
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    (a / "probe_0.json").write_text(json.dumps(content))
    found = judged((a, b))
    assert found.probes.rows == () and found.exit_code == 0
    assert found.probes.notes == (f"A: probe_0.json is not shown: {says}",)
    assert says.partition(":")[0] in " ".join(" ".join(terminal.lines(found)).split())


def test_eighty_columns_whatever_the_figures(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    for folder, median in ((a, 1e-11), (b, 1e11)):
        figure = {"name": "n" * 90, "unit": "u" * 90, "what": "w" * 90, "median": median}
        put(folder, folder / "result_0.txt", figures=[figure])
    found = judged((a, b))
    assert len(found.probes.rows) == 1 and max(map(len, terminal.lines(found))) <= 80


def test_images_a_second_are_no_power_of_ten(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    for folder, median in ((a, 12_345.6), (b, 123_456.7)):
        put(
            folder,
            folder / "result_0.txt",
            figures=[{"name": "decoder", "unit": "images/s", "what": "JPEG", "median": median}],
        )
    assert any("   12,346  123,457 10.000  JPEG" in line for line in terminal.lines(judged((a, b))))


def test_a_figure_of_nothing_has_no_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = both(tmp_path)
    put(a, a / "result_0.txt", figures=[{"name": "launch", "unit": "us", "what": "one number", "median": 1e-320}])
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["probes"]["figures"] == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"hardware": {}, "software": {}}'])
def test_half_a_file_costs_a_line(tmp_path: Path, text: str) -> None:
    a, b = both(tmp_path)
    (b / "probe_0.json").write_text(text)
    found = judged((a, b))
    assert found.exit_code == 0 and "cannot be read as a probe" in found.probes.notes[0]


@pytest.mark.parametrize("text", ["", "{"])
def test_what_is_said_of_probes_is_said_where_none_is_shown(tmp_path: Path, text: str) -> None:
    """The page was silent where no figure was left, and never had a note where there were some."""
    a, b = both(tmp_path)
    (a / "probe_1.json").write_text(text)
    for alone in (False, True):
        if alone:
            (a / "probe_0.json").unlink()
        found = judged((a, b))
        assert bool(found.probes.rows) != alone and found.probes.notes
        _, told = page.render(found).split("<h2>Probes</h2>")
        for note in found.probes.notes:
            assert f"<li>{html.escape(note)}</li>" in told
