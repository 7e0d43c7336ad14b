"""What a profile leaves: as what it was measured and where, and each sample, however it ends."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.detection import capabilities
from benchmarks.detection.data_path import nvjpeg
from benchmarks.detection.embedded import dataset as embedded
from benchmarks.ssd.session import SSDSession
from harness.execution import provenance
from measuring import measure
from measuring.ssd import command, data, options, report, sections, setup, turns
from tests.measuring.test_ssd import run
from tests.ssd import small
from tests.toy.configuration import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = small.content(model=small.OF_32_PX, data={"backend": "dali"})
    return write(tmp_path_factory.mktemp("configuration"), content, "small")


def left(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "p.json").read_text())
    return found


def test_what_the_machine_does_otherwise_than_configured_is_said_and_kept(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside an older nvJPEG whole pictures were decoded, a slower data path, and the figures stood as those of regions."""
    why = {"decode": "whole pictures: nvJPEG 13.1.0 is loaded"}
    monkeypatch.setattr(capabilities, "_regions_with_wrong_edges", lambda *_: why)
    monkeypatch.setattr(command, "_measure", lambda *_: None)
    assert run(configuration, folder, tmp_path, "--only", "step") == 0
    assert f"decode is not as configured: {why['decode']}" in capsys.readouterr().out
    found = left(tmp_path)
    assert found["not_as_configured"] == why and found["configuration"]["data"]["decode"] == "whole"


def test_a_profile_says_of_which_code_driver_and_libraries_it_is(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(provenance, "commit", lambda _: ("c0ffee" * 7, True))
    monkeypatch.setattr(nvjpeg, "loaded", lambda: {"/lib/libnvjpeg.so.13": "13.3.2"})
    monkeypatch.setattr(command, "_measure", lambda *_: None)
    assert run(configuration, folder, tmp_path, "--only", "step") == 0
    found = left(tmp_path)
    assert (found["commit"], found["tree_dirty"]) == ("c0ffee" * 7, True)
    assert {"driver", "cudnn", "dali", "torch", "triton", "nvidia-cudnn-frontend"} <= found["software"].keys()
    assert found["nvjpeg"] == {"/lib/libnvjpeg.so.13": "13.3.2"}
    assert {"processor", "device", "cores", "torch", "threads"} <= found["machine"].keys(), (
        "as earlier profiles have it"
    )
    assert "commit c0ffeec0ffee, with changes, driver " in capsys.readouterr().out


def test_a_budget_that_ends_in_the_first_turn_leaves_the_figure_that_was_printed(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with 5, "before anything was measured", and the figure was nowhere."""
    spent = iter([9.0, 7.0])  # the first of all does not count

    def turn(*_: object) -> float:
        if (found := next(spent, None)) is None:
            raise command.OutOfTime
        return found

    monkeypatch.setattr(turns, "turn", turn)
    assert run(configuration, folder, tmp_path, "--only", "turns", "--budget", "900") == 0
    figures = {each["what"]: each["samples"] for each in left(tmp_path)["figures"]}
    assert figures["end to end: as configured"] == [7.0]


@pytest.mark.parametrize(
    ("words", "sides"),
    [
        *((["step"], 2), (["fused"], 2), (["data"], 3), (["detection"], 2), (["choices"], 5)),
        (["evaluator", "--evaluator", "20"], 2),
        pytest.param(["variants"], 3, marks=pytest.mark.long),  # of which two are in bf16
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_budget_that_ends_within_a_section_leaves_its_whole_turns_and_the_rest_beside(
    words: list[str], sides: int, configuration: Path, folder: Path, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a section had measured went with it."""
    quiet, calls = measure._until_quiet, itertools.count()

    def until_quiet() -> None:
        if sys._getframe(1).f_code.co_name != "in_turns":
            quiet()
        elif next(calls) == sides + 1:  # the second sample of the second turn
            raise command.OutOfTime

    monkeypatch.setattr(measure, "_until_quiet", until_quiet)
    assert run(configuration, folder, tmp_path, "--only", *words, "--budget", "900") == 0
    found = left(tmp_path)
    assert len(found["comparisons"]) == (2 if words == ["data"] else sides - 1)
    assert [each["n"] for each in found["comparisons"]] == [1] * len(found["comparisons"])
    assert [each["n"] for each in found["figures"] if each["note"] == measure.CUT_OFF] == [1]
    assert found["left_out"] == words[:1]


def test_a_profile_that_is_killed_leaves_what_it_had_measured(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At a limit's SIGKILL there was no file, and of most sections no text: both came when all was over."""
    found: list[dict[str, Any]] = []
    quiet = measure._until_quiet

    def until_quiet() -> None:
        quiet()
        found.append(left(tmp_path))

    def alone(*_: object) -> Iterator[measure.Known]:
        said.append(capsys.readouterr().out)
        yield []

    said: list[str] = []
    monkeypatch.setattr(measure, "_until_quiet", until_quiet)
    monkeypatch.setattr(sections, "alone", alone)
    (tmp_path / "p.png").touch()  # an earlier profile's
    monkeypatch.setattr(report, "draw", lambda *_: pytest.fail("beside it") if (tmp_path / "p.png").exists() else None)
    assert run(configuration, folder, tmp_path, "--only", "step,detection") == 0
    known = [[each["n"] for each in one["comparisons"]] for one in found]
    assert known == [[], [], [1], [1], [2], [2], [2, 1], [2, 1]]
    assert [one["left_out"] for one in found] == [["step", "detection"]] * 4 + [["detection"]] * 4
    assert "  training step, fp32 channels_last: ratio " in said[0]
    assert json.loads((tmp_path / "p.json").read_text())["left_out"] == []


def test_a_pipe_gets_one_document_and_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(report, "write_json", lambda _, path: written.append(path))
    for path in (Path("/dev/null"), tmp_path / "p.json"):
        report.Kept(report.Report({}, {}, {}), path, print).write()
    assert written == [tmp_path / "p.json"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(report, "write_json", full)
    report.Kept(report.Report({}, {}, {}), tmp_path / "p.json", print).write()


def test_a_training_that_a_budget_cut_off_is_compared_as_far_as_it_came(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bf16 = write(tmp_path, small.content(model=small.OF_32_PX, compute={"precision": "bf16"}), "small")
    right = SSDSession.train_epoch

    def train_epoch(self: SSDSession, *words: Any) -> Iterator[Any]:
        for number, interval in enumerate(right(self, *words)):
            if self.config.compute.precision == "bf16" and number == 2:
                raise command.OutOfTime
            yield interval

    monkeypatch.setattr(SSDSession, "train_epoch", train_epoch)
    assert run(in_bf16, folder, tmp_path, "--only", "accuracy", "--accuracy", "3", "--budget", "900") == 0
    found = left(tmp_path)
    assert {name: len(curve) for name, curve in found["losses"].items()} == {"fp32": 3, "bf16": 2}
    assert [each["note"] for each in found["figures"]][1:] == ["2 steps, means of 2"]
    assert (tmp_path / "p.png").exists()


def test_pictures_are_made_before_the_budget_begins(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a word all of it went there, and what was made by then was thrown away."""
    events: list[object] = []

    def ensure(_: Path, progress: Callable[[int, int], None]) -> Path:
        events.append("made")
        for done in range(0, 1201, 20):
            progress(done, 1200)
        return folder

    monkeypatch.setattr(embedded, "ensure", ensure)
    monkeypatch.setattr(command, "_measure", lambda *_: events.append("measured"))
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: events.append(seconds))
    few = ("--threads", "1", "--max-steps", "2", "--evaluate", "6", "--device", "cpu")
    where = ("--json", str(tmp_path / "p.json"), "--chart", str(tmp_path / "p.png"), "--cache-dir", str(tmp_path))
    assert command.main([str(configuration), *few, *where, "--only", "step", "--budget", "900"]) == 0
    assert events[:3] == ["made", 900, "measured"]
    said = capsys.readouterr().out
    assert said.count("making pictures: ") == 6 and "making pictures: 240 of 1200" in said


@pytest.mark.parametrize("asked_for", ["bf16", "auto"])
def test_a_processor_without_units_for_bf16_is_not_measured_in_it(
    asked_for: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One backward pass took minutes, and no budget ends within it."""
    content = small.content(model=small.OF_32_PX, compute={"precision": asked_for})
    path = write(tmp_path, content, "small")
    for units, words, chosen in (
        *((["avx2"], [], "fp32"), (["avx2", "avx512_bf16"], [], "bf16"), (["bf16"], [], "bf16")),
        (["avx2"], ["--accuracy", "3"], "bf16"),
    ):
        monkeypatch.setattr(command, "vector_units", lambda units=units: units)
        asked = options.arguments([str(path), *words])
        assert command.fitted(asked, "cpu").compute.precision == chosen
    monkeypatch.setattr(command, "vector_units", lambda: ["avx2"])
    monkeypatch.setattr(command, "_measure", lambda *_: None)
    assert run(path, folder, tmp_path, "--only", "step") == 0
    assert f"precision is fp32, not {asked_for}: " in capsys.readouterr().out
    assert left(tmp_path)["configuration"]["compute"]["precision"] == "fp32"


def test_no_choice_is_measured_under_another_s_name(
    configuration: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvjpeg, "first", lambda: (13, 1, 0))
    monkeypatch.setattr(data, "in_turns", lambda candidates, _: iter([{name: [1.0] for name in candidates}]))
    said: list[str] = []
    [found] = data.choices(setup.read(str(configuration)), "cuda:0", folder, 1, 1, tell=said.append)
    assert len(found) == len(said) == 8
    assert all(": whole, " in each.what for each in found) and all(each.startswith("region, ") for each in said)


@pytest.mark.parametrize("threads", [1, 2])
def test_all_that_is_compared_on_a_cpu_has_as_many_threads(threads: int) -> None:
    """Each session's init measured them anew, for the whole process: some turns had two, and the report named another."""
    torch.set_num_threads(threads)
    assert command.fitted(options.arguments(["embedded"]), "cpu").compute.threads == threads
    assert command.fitted(options.arguments(["embedded"]), "cuda:0").compute.threads == "auto"


def test_the_command_measures_with_as_many_threads_as_there_are(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused, "each rank may use 1 here", where --threads did not say one."""
    monkeypatch.setattr(turns, "turn", lambda *_: 7.0)
    words = ("--only", "turns", "--threads", "2")
    assert run(configuration, folder, tmp_path, *words) == 0
    assert left(tmp_path)["machine"]["threads"] == 2


def test_without_a_library_that_draws_all_samples_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a lent machine there was a traceback, and an exit code of a part that failed."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(report, "show", lambda *_: None)
    found = report.Report({"device": "cpu"}, {}, {}, losses={"fp32": [2.0] * 12})
    asked = Namespace(configuration="small", json=tmp_path / "p.json", chart=tmp_path / "p.png")
    assert command._leave(asked, found, Console()) == 0
    assert json.loads(asked.json.read_text())["losses"] and not asked.chart.exists()
    assert "no chart: " in capsys.readouterr().out
