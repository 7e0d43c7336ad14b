"""The verb inference, on the toy: scenarios as MLPerf Inference has them, and every sample kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from harness import whole
from harness.cli import environment
from harness.contract import Sample
from harness.execution import probe
from harness.execution.trained import detectors, inference, inference_report
from harness.execution.trained.inference import FILE, OFFLINE, PIXELS, SINGLE_STREAM, ScenarioResult
from tests.harness.execution.trained.models import harness, numbers, saved
from tests.toy import ToyBenchmark
from tests.toy import configuration as toy
from tests.toy.using import ToyDetector

PROBE = ("probe", "--device", "cpu", "--seconds", "1")
QUICK = ("--seconds", "0.1", "--queries", "5", "--device", "cpu")


def test_both_scenarios_from_both_beginnings_and_every_sample_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, errors = harness(capsys, "inference", saved(tmp_path / "kept"), *QUICK, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads((tmp_path / "out" / "inference_0.json").read_text())
    figures = {(each["scenario"], each["begins_with"]): each for each in found["figures"]}
    assert set(figures) == {(a, b) for a in (SINGLE_STREAM, OFFLINE) for b in (PIXELS, "JPEG")}
    for (scenario, _), each in figures.items():
        assert each["n"] == len(each["seconds"]) >= (5 if scenario == SINGLE_STREAM else inference.FEWEST_BATCHES)
        assert each["total_s"] == pytest.approx(sum(each["seconds"])) and each["total_s"] >= 0.1
        assert each["images_per_s"] == pytest.approx(each["batch"] * each["n"] / each["total_s"])
        assert each["precision"] == "exact" and each["detections_per_picture"] == 1
        assert not each["long_enough_for_mlperf"]
        assert (scenario == SINGLE_STREAM) == ("latency_ms_p90" in each)
    single = figures[SINGLE_STREAM, PIXELS]
    assert single["batch"] == 1 and single["latency_ms_p50"] <= single["latency_ms_p90"] <= single["latency_ms_p99"]
    assert figures[OFFLINE, PIXELS]["batch"] == figures[OFFLINE, "JPEG"]["batch"] > 0
    assert (
        found["left_out"] == {"bf16": "an abacus has no bf16"} and "not measured: bf16: an abacus has no bf16" in said
    )
    assert found["model"] == "toy after epoch 2, quality 0.7500" and found["trained"] is True
    assert found["hardware"]["cpu"] and {"driver", "kernel", "torch"} <= set(found["software"])
    assert found["published"][0]["hardware"] == "1x abacus" and "on 1x abacus (a tale)" in said
    assert "no result of MLPerf's" in found["note"] and found["interrupted"] is None
    assert said.count(" short\n") == len(figures)
    told = " ".join(said.split())
    assert "short: less than MLPerf Inference Rules 0.5 asks for: 60 s and 1,024 queries, or 60 s and 24,576" in told


def test_a_checkpoint_does_not_say_where_files_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's that calls its configuration "/home/you" had them written there."""
    monkeypatch.setattr(environment, "out_dir", lambda _: tmp_path / "out")
    kept = saved(tmp_path / "kept", configuration_name=str(tmp_path / "elsewhere"))
    options = ("--scenario", "single-stream", "--begin", "pixels", "--precision", "fp32")
    assert harness(capsys, "inference", kept, *QUICK, *options)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out"]
    assert len(list((tmp_path / "out").glob("*elsewhere_*/inference_0.json"))) == 1


def test_what_is_asked_for_is_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = saved(tmp_path / "kept")
    numbers(tmp_path / "seen", [1, 2, 3])
    options = ("--scenario", "offline", "--begin", "jpeg", "--precision", "fp32", "--batch", "4", "--compile", "--json")
    code, said, _ = harness(
        capsys, "inference", kept, *QUICK, *options, "--images", tmp_path / "seen", "--out", tmp_path / "out"
    )
    found = json.loads(said)
    assert code == 0 and found["images_per_s_by_batch"] == {} and found["pictures"] == "3 named"
    assert [(each["scenario"], each["begins_with"], each["batch"], each["compiled"]) for each in found["figures"]] == [
        (OFFLINE, "JPEG", 4, False),
        (OFFLINE, "JPEG", 4, True),
    ]
    assert json.loads((tmp_path / "out" / "inference_0.json").read_text()) == found


def test_of_very_many_pictures_some_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a folder were read first, and held: a data set's, until the kernel ended the process without a word."""
    monkeypatch.setattr(inference, "MOST_NAMED", 3)
    numbers(tmp_path / "seen", range(5))
    monkeypatch.setattr(ToyBenchmark, "detector", lambda *_, **__: ToyDetector(0.5, compiled=False))
    read: set[Path] = set()
    real = ToyDetector.read
    monkeypatch.setattr(ToyDetector, "read", lambda *words, **how: (read.add(words[1]), real(*words, **how))[1])
    words = ("--precision", "fp32", "--scenario", "single-stream", "--images", tmp_path / "seen", "--json")
    code, said, _ = harness(capsys, "inference", saved(tmp_path / "kept"), *QUICK, *words, "--out", tmp_path / "out")
    assert code == 0 and json.loads(said)["pictures"] == "3 of 5 named" and len(read) == 3


def test_a_configuration_is_a_network_that_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toy.write(tmp_path, toy.raw())
    code, said, _ = harness(
        capsys, "inference", path, *QUICK, "--scenario", "single-stream", "--json", "--out", tmp_path / "out"
    )
    found = json.loads(said)
    assert code == 0 and found["trained"] is False and found["model"] == "toy, not trained"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("none.pt",), 2, "there is no configuration none.pt"),
        (("KEPT", "--device", "gpu"), 2, "--device gpu: not known; there are: cpu"),
        (("KEPT", "--device", "xpu"), 6, "programs see no such accelerator here"),
        (("KEPT", "--precision", "bf16"), 6, "bf16: an abacus has no bf16"),
        (("KEPT", "--images", "KEPT"), 2, "has no file that is called a picture"),
        (("KEPT", "--images", "FILE"), 2, "bad.jpg: is a file, and a folder is needed"),
        (("KEPT", "--images", "NONE"), 2, "--images NONE: there is no such folder"),
        (("KEPT", "--images", "BAD"), 2, "bad.jpg: not a picture of a number"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    kept = saved(tmp_path / "kept")
    (tmp_path / "BAD").mkdir()
    (tmp_path / "BAD" / "bad.jpg").write_bytes(b"nonsense")
    stand_for = {"KEPT": kept, "BAD": tmp_path / "BAD", "FILE": tmp_path / "BAD" / "bad.jpg"}
    meant = [stand_for.get(word, word) for word in words]
    found, _, errors = harness(capsys, "inference", *meant, "--out", tmp_path / "out")
    assert found == code and says in errors and not (tmp_path / "out").exists()


@pytest.mark.parametrize("under", ["file", "file/deeper/yet", "loop/x", "/proc/self/x"])
def test_where_nothing_can_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, under: str
) -> None:
    kept = saved(tmp_path / "kept")
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for module in (inference, probe):
        monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("measured"))
    for words in (("inference", kept), ("probe", "--device", "cpu")):
        code, said, errors = harness(capsys, *words, "--out", tmp_path / under)
        assert code == 2 and not said and "--out" in errors
        assert "is no folder; name another" in errors or "nothing can be written in /proc/self" in errors


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_disk_that_fills_meanwhile_costs_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(whole, "new", full)
    for words, says in ((("inference", saved(tmp_path / "kept"), *QUICK), "offline"), (PROBE, "matmul_fp32")):
        code, said, errors = harness(capsys, *words, "--out", tmp_path / "out", *options)
        assert code == 6 and says in said and "wrote" not in said
        assert "_0.json: cannot be written: No space left on device" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("suffixes", "form"),
    [(("png", "png"), "PNG"), (("jpg", "jpg"), "JPEG"), (("webp",), "WEBP"), (("png", "jpg"), "files")],
)
def test_a_row_says_what_files_were_decoded(tmp_path: Path, suffixes: tuple[str, ...], form: str) -> None:
    paths = [tmp_path / f"{number}.{suffix}" for number, suffix in enumerate(suffixes)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "called.jpg").write_bytes(paths[0].read_bytes())
    assert inference._format(paths) == form
    assert inference._format([tmp_path / "called.jpg"]) == inference._format(paths[:1]), "by content, not by name"


class Timed(ToyDetector):
    """Answers a batch in a time that its size says, and remembers the sizes; more than `memory` pictures are too many."""

    def __init__(self, each_s: float, fixed_s: float, memory: int = 1 << 30) -> None:
        super().__init__(0.5, compiled=False)
        self.each_s, self.fixed_s, self.memory, self.seen = each_s, fixed_s, memory, []

    seen: list[int]

    def detect(self, batch: list[int]) -> list[int]:
        if len(batch) > self.memory:
            raise torch.OutOfMemoryError("too many")
        self.seen.append(len(batch))
        time.sleep(self.fixed_s + self.each_s * len(batch))
        return super().detect(batch)


def library(folder: Path, detector: ToyDetector) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    paths = numbers(folder, range(8))
    samples: Sequence[Sample] = [detector.read(path, upright=False) for path in paths]
    return inference._Library(paths, samples, detector, ThreadPoolExecutor(2))


def test_the_batch_that_is_fastest_is_looked_for(tmp_path: Path) -> None:
    found = inference._by_batch(library(tmp_path, Timed(each_s=0.0, fixed_s=0.002, memory=20)), 0.5)
    assert list(found) == [1, 2, 4, 8, 16], "until memory ends"
    assert inference._fastest({1: 10, 2: 20, 4: 30, 8: 30.2, 16: 29}) == 4, "no larger than pays"


def without_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, memory: int, *options: str
) -> tuple[int, str, str]:
    """The verb where more than `memory` pictures at once are too many."""
    monkeypatch.setattr(ToyBenchmark, "detector", lambda *_, **__: Timed(0, 0, memory))
    words = ("inference", saved(tmp_path / "kept"), *QUICK, "--precision", "fp32", *options)
    return harness(capsys, *words, "--out", tmp_path / "out")


def test_what_does_not_fit_into_memory_costs_its_own_figure_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes of figures were lost to a traceback."""
    code, said, errors = without_memory(tmp_path, capsys, monkeypatch, 1, "--batch", "4")
    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "out" / "inference_0.json").read_text())
    assert [each["scenario"] for each in found["figures"]] == [SINGLE_STREAM] * 2
    why = "a batch of 4 does not fit into the memory of this machine: --batch names fewer"
    assert found["left_out"] == {f"fp32: offline from {begins_with}": why for begins_with in (PIXELS, "JPEG")}
    assert f"not measured: fp32: offline from pixels: {why}" in " ".join(said.split())


@pytest.mark.parametrize("options", [(), ("--batch", "4")])
def test_where_no_picture_fits_into_memory_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """On a full device the search ended in "max() arg is an empty sequence"."""
    code, _, errors = without_memory(tmp_path, capsys, monkeypatch, 0, *options)
    assert code == 6 and "Traceback" not in errors and not (tmp_path / "out").exists()
    assert "a batch of 1 does not fit into the memory of this machine: --device names another, or end what" in errors


def test_a_search_ends_where_a_batch_takes_too_long(tmp_path: Path) -> None:
    found = inference._by_batch(library(tmp_path, Timed(each_s=0.01, fixed_s=0.0)), 0.05)
    assert max(found) <= 4


def test_a_query_is_over_when_it_is_answered(tmp_path: Path) -> None:
    """No query is issued before the last one's detections are there, and none of the warm-up is counted."""
    detector = Timed(each_s=0.001, fixed_s=0.0)
    wanted = inference.Wanted(seconds=0.1, queries=7)
    seconds, total_s = inference._single_stream(library(tmp_path, detector), PIXELS, wanted)
    assert len(seconds) >= 7 and detector.seen == [1] * (len(seconds) + inference.WARM_UP)
    assert min(seconds) >= 0.001 and total_s >= sum(seconds)


def test_queries_that_take_long_are_not_waited_for_without_end(tmp_path: Path) -> None:
    slow = library(tmp_path, Timed(each_s=0.02, fixed_s=0.0))
    seconds, _ = inference._single_stream(slow, PIXELS, inference.Wanted(seconds=0.01, queries=1000))
    assert len(seconds) <= 6


def test_pictures_are_drawn_alike_each_time_and_files_give_the_same_ones(tmp_path: Path) -> None:
    books = library(tmp_path, ToyDetector(0.5, compiled=False))
    drawn = []
    for begins_with in (PIXELS, PIXELS, FILE):
        batches = books.batches(begins_with, 3)
        drawn.append([[int(each.pixels[0, 0, 0]) for each in next(batches)] for _ in range(20)])
        batches.close()
    assert drawn[0] == drawn[1] == drawn[2] and len({number for batch in drawn[0] for number in batch}) == 8


def figure(seconds: list[float], batch: int = 1, scenario: str = SINGLE_STREAM) -> ScenarioResult:
    return ScenarioResult(scenario, PIXELS, {}, batch, seconds, sum(seconds), 0.0)


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    found = figure([number / 1000 for number in range(100, 0, -1)])
    assert [found.latency_ms(of) for of in (50, 90, 99)] == [50, 90, 99]
    assert figure([0.005]).latency_ms(99) == 5


def test_how_long_mlperf_asks_for() -> None:
    assert figure([0.06] * 1024).long_enough
    assert not figure([0.06] * 1000).long_enough, "59 s"
    assert not figure([0.1] * 1023).long_enough, "one query too few"
    assert figure([10.0] * 24, 1024, OFFLINE).long_enough
    assert not figure([10.0] * 23, 1024, OFFLINE).long_enough


def test_a_figure_that_is_long_enough_is_not_marked() -> None:
    assert inference_report._mark(figure([0.06] * 1024)) == "" and inference_report._mark(figure([0.06])) == " short"


def test_in_full_it_takes_what_mlperf_asks_for() -> None:
    full, usual = inference.Wanted(whole=True), inference.Wanted()
    assert (full.least_s, full.least_queries, full.least_pictures, full.most_s) == (60, 1024, 24_576, float("inf"))
    assert (usual.least_s, usual.least_queries, usual.least_pictures) == (inference.SECONDS, inference.QUERIES, 0)
    assert inference.Wanted(seconds=90, queries=2000, whole=True).least_s == 90


def test_so_many_pictures_offline(tmp_path: Path) -> None:
    seconds, _ = inference._offline(library(tmp_path, Timed(0, 0)), PIXELS, 4, 0.0, least_pictures=41)
    assert len(seconds) == 11


def test_help_says_the_default_that_is_taken() -> None:
    from inspect import signature

    from harness.cli import inference as verb

    said = signature(verb.inference).parameters
    assert (said["seconds"].default, said["queries"].default) == (inference.SECONDS, inference.QUERIES)


def test_a_search_ends_where_batches_are_no_longer_faster() -> None:
    """On a processor a batch of 8 is as fast as any, and trying 1,024 takes longer than all that is measured."""
    assert not inference._no_longer_pays([100, 100]), "one that is no faster may be a chance"
    assert not inference._no_longer_pays([100, 99, 130])
    assert inference._no_longer_pays([100, 180, 183, 181])


def interrupted_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C while so many figures are there."""
    real, made = inference._figure, []

    def figure(*arguments: Any) -> ScenarioResult:
        if len(made) == number:
            raise KeyboardInterrupt
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(inference, "_figure", figure)


def test_what_was_measured_before_ctrl_c_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(monkeypatch, 2)
    code, said, _ = harness(capsys, "inference", saved(tmp_path / "kept"), *QUICK, "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "inference_0.json").read_text())
    assert code == 130 and len(found["figures"]) == 2
    assert found["interrupted"] == "fp32: offline from pixels, 0.1 s or more"
    assert "interrupted: not measured from there on: fp32: offline from pixels" in said


def test_ctrl_c_before_anything_is_measured_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(monkeypatch, 0)
    code, said, _ = harness(capsys, "inference", saved(tmp_path / "kept"), *QUICK, "--out", tmp_path / "out")
    assert code == 130 and not said and not (tmp_path / "out").exists()


def test_which_of_how_many_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    kept = saved(tmp_path / "kept")
    here, machine, _ = detectors.device("cpu")
    wanted = inference.Wanted(precisions=("fp32",), seconds=0.05, queries=1)
    inference.measure(detectors.Model.trained(kept), here, machine, wanted, told.append)
    assert told == [
        *("pictures", "fp32: the network", "fp32: which batch is fastest"),
        *(
            "1 of 4: fp32: single-stream from pixels, 0.05 s or more",
            "2 of 4: fp32: single-stream from JPEG, 0.05 s or more",
        ),
        *("3 of 4: fp32: offline from pixels, 0.05 s or more", "4 of 4: fp32: offline from JPEG, 0.05 s or more"),
    ]
