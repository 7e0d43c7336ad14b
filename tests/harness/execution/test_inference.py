"""The verb inference, on the toy: scenarios as MLPerf Inference has them, and every sample kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.contract import Sample
from harness.execution import inference
from harness.execution.inference import JPEG, OFFLINE, PIXELS, SINGLE_STREAM, Figure
from tests.harness.execution.models import harness, numbers, saved
from tests.toy import configuration as toy
from tests.toy.using import ToyDetector

QUICK = ("--seconds", "0.1", "--queries", "5", "--device", "cpu")


def test_both_scenarios_from_both_beginnings_and_every_sample_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, errors = harness(capsys, "inference", saved(tmp_path / "kept"), *QUICK, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads((tmp_path / "out" / "inference_0.json").read_text())
    figures = {(each["scenario"], each["begins_with"]): each for each in found["figures"]}
    assert set(figures) == {(a, b) for a in (SINGLE_STREAM, OFFLINE) for b in (PIXELS, JPEG)}
    for (scenario, _), each in figures.items():
        assert each["n"] == len(each["seconds"]) >= (5 if scenario == SINGLE_STREAM else inference.FEWEST_BATCHES)
        assert each["total_s"] == pytest.approx(sum(each["seconds"])) and each["total_s"] >= 0.1
        assert each["images_per_s"] == pytest.approx(each["batch"] * each["n"] / each["total_s"])
        assert each["precision"] == "exact" and each["detections_per_picture"] == 1
        assert not each["long_enough_for_mlperf"]
        assert (scenario == SINGLE_STREAM) == ("latency_ms_p90" in each)
    single = figures[SINGLE_STREAM, PIXELS]
    assert single["batch"] == 1 and single["latency_ms_p50"] <= single["latency_ms_p90"] <= single["latency_ms_p99"]
    assert figures[OFFLINE, PIXELS]["batch"] == figures[OFFLINE, JPEG]["batch"] > 0
    assert (
        found["left_out"] == {"bf16": "an abacus has no bf16"} and "not measured: bf16: an abacus has no bf16" in said
    )
    assert found["model"] == "toy after epoch 2, quality 0.7500" and found["trained"] is True
    assert found["hardware"]["cpu"] and {"driver", "kernel", "torch"} <= set(found["software"])
    assert found["published"][0]["hardware"] == "1x abacus" and "on 1x abacus (a tale)" in said
    assert "no result of MLPerf's" in found["note"] and "Shorter than MLPerf Inference Rules 0.5 asks for" in said


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
        (OFFLINE, JPEG, 4, False),
        (OFFLINE, JPEG, 4, True),
    ]
    assert json.loads((tmp_path / "out" / "inference_0.json").read_text()) == found


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
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    kept = saved(tmp_path / "kept")
    meant = [kept if word == "KEPT" else word for word in words]
    found, _, errors = harness(capsys, "inference", *meant, "--out", tmp_path / "out")
    assert found == code and says in errors and not (tmp_path / "out").exists()


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
    for begins_with in (PIXELS, PIXELS, JPEG):
        batches = books.batches(begins_with, 3)
        drawn.append([[int(each.pixels[0, 0, 0]) for each in next(batches)] for _ in range(20)])
        batches.close()
    assert drawn[0] == drawn[1] == drawn[2] and len({number for batch in drawn[0] for number in batch}) == 8


def figure(seconds: list[float], batch: int = 1, scenario: str = SINGLE_STREAM) -> Figure:
    return Figure(scenario, PIXELS, {}, batch, seconds, sum(seconds), 0.0)


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
