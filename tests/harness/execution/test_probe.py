"""The verb probe: what it measures and leaves, what it refuses, and that it measures what it says."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import config, names
from harness.cli import main
from harness.contract import Figure
from harness.execution import all_reduce, probe
from harness.execution.context import this_machine
from tests.toy import configuration as toy


def probed(folder: Path, capsys: pytest.CaptureFixture[str], *options: str, fate: str = "learns") -> tuple[int, str]:
    path = toy.write(folder, toy.raw(fate))
    code = main(["probe", str(path), "--seconds", "1", "--out", str(folder / "out"), *options])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_benchmark_is_probed_and_every_sample_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = probed(tmp_path, capsys)
    assert code == 0, out
    assert "no verdict rests on it" in out and max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 80
    content = json.loads((tmp_path / "out" / "probe_0.json").read_text())
    figures = {each["name"]: each for each in content["figures"]}
    assert {"launch", "copy_on_device", "matmul_bf16", "matmul_fp32", "counting"} <= set(figures)
    for each in figures.values():
        assert each["n"] == len(each["samples"]) >= probe.FEWEST
        assert each["median"] == statistics.median(each["samples"]) > 0
        assert each["quartiles"][0] <= each["median"] <= each["quartiles"][1]
        assert each["unit"] and each["what"]
    assert content["left_out"] == {"all_reduce": "one device"}
    assert content["device"] == "cpu" and content["configuration_name"] == "toy"
    assert content["hardware"]["cpu"] and {"driver", "kernel", "torch"} <= set(content["software"])


def test_the_next_one_has_the_next_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "probe_10.json"
    kept.write_text("somebody's")
    code, out = probed(tmp_path, capsys, "--json")
    assert code == 0
    assert kept.read_text() == "somebody's"
    assert json.loads((tmp_path / "out" / "probe_11.json").read_text()) == json.loads(out)
    assert [path.name for path in names.probes_in(tmp_path / "out")] == ["probe_10.json", "probe_11.json"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--device", "gpu"), 2, "--device gpu: not known; there are: cpu"),
        (("--device", "xpu"), 6, 'run.device = "xpu": programs see no such accelerator here'),
        ((), 6, "no abacus here"),
    ],
)
def test_what_is_not_there_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, says: str
) -> None:
    found, out = probed(tmp_path, capsys, *options, fate="unsuitable")
    assert found == code and says in out
    assert not (tmp_path / "out").exists()


def test_a_benchmark_need_not_offer_one(tmp_path: Path) -> None:
    class Silent:
        name = "silent"

    loaded = config.load(toy.write(tmp_path, toy.raw()))
    without: Any = replace(loaded, benchmark=Silent())  # type: ignore[arg-type]
    found = probe.measure(without, "cpu", 0.1, this_machine("cpu"))
    assert found.left_out["silent"] == "the benchmark offers no probe"
    assert "launch" in {each.name for each in found.figures}


def test_a_sample_is_of_one_call_and_the_device_is_waited_for() -> None:
    done: list[str] = []
    seconds = probe.Stopwatch(lambda: done.append("synchronised"), 0.0)(lambda: done.append("called"))
    assert len(seconds) == probe.FEWEST and all(0 < each < probe.SAMPLE_S for each in seconds)
    assert done[:3] == ["called", "called", "synchronised"] and done[-1] == "synchronised"


def test_what_a_device_cannot_do_is_said_and_costs_no_other_figure() -> None:
    found = probe.Probe("cpu", this_machine("cpu"), None)

    def impossible() -> Figure:
        raise RuntimeError("no such format\nand a page of hints")

    probe._add(found, "matmul_fp8", impossible)
    probe._add(found, "launch", lambda: Figure("launch", "us", [1.0, 2.0, 3.0], "one number"))
    assert found.left_out == {"matmul_fp8": "no such format"}
    assert [each.name for each in found.figures] == ["launch"]
    assert "not measured: matmul_fp8: no such format" in list(probe.lines(found))


@pytest.mark.parametrize(
    "median, told", [(0.0123456, "0.01235"), (701.23, "701.2"), (12_345.6, "12,346"), (1e9, "1e+09")]
)
def test_images_a_second_are_no_power_of_ten(median: float, told: str) -> None:
    found = probe.Probe("cpu", this_machine("cpu"), None)
    found.figures.append(Figure("decoder", "images/s", [median], "JPEG"))
    assert f" {told} images/s" in list(probe.lines(found))[1]


def test_the_precision_of_products_is_as_it_was() -> None:
    seen: list[str] = []

    def seconds_of(_: object) -> list[float]:
        seen.append(torch.get_float32_matmul_precision())
        return [1.0]

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        probe.machine_figures(torch.device("cpu"), seconds_of)["matmul_fp32"]()
        assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_on_a_device_every_figure_is_had(device: str) -> None:
    where = torch.device(device)
    figures = probe.machine_figures(where, probe.Stopwatch(probe._synchroniser(where), 0.1))
    made = {name: figure() for name, figure in figures.items()}
    assert all(each.name == name and min(each.samples) > 0 for name, each in made.items())
    assert ("copy_host_to_device" in made) == (where.type != "cpu")


@pytest.mark.long
def test_ranks_sum_a_bucket() -> None:
    usual, small, whole = all_reduce.figures("cpu", 2)
    assert usual.name == "all_reduce" and usual.what == "25 MiB, 2 ranks"
    assert (small.name, small.what, whole.name) == ("all_reduce_5_mib", "5 MiB, 2 ranks", "all_reduce_80_mib")
    for each in (usual, small, whole):
        assert len(each.samples) == all_reduce.SAMPLES and min(each.samples) > 0


@pytest.mark.long
def test_ranks_that_cannot_meet_say_why() -> None:
    with pytest.raises(RuntimeError, match=r"rank \d: RuntimeError: .*abacus"):
        all_reduce.figures("abacus", 2)
