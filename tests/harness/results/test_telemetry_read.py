"""telemetry_N.jsonl read back, on a real H100's and on broken ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.results import telemetry
from harness.results.logfile import read
from harness.results.reporting import measured
from tests.harness.comparison import arms


def test_a_real_one(test_data: Path) -> None:
    record = read(test_data / "gpu/embedded_h100/result_0.txt")
    found = telemetry.beside(record)

    assert found is not None and found.complete and found.gpus == 1
    assert (found.clock_sm_mhz, found.clock_sm_max_mhz, found.power_limit_w) == (1980, 1980, 700)
    assert found.energy_j == pytest.approx(12.2 * 130, rel=0.15), "12.2 s of run at some 130 W, of 5,956 J in all"
    images = 8 * 944  # of 950, in whole batches of 8
    assert telemetry.joules_per_image(record, found) == pytest.approx(found.energy_j / images)
    assert found.held_longest_s == 0 and not found.slowed and not found.xid


def test_power_over_the_run_alone_is_its_energy(tmp_path: Path) -> None:
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, power=600)
    record = read(log)
    found = telemetry.beside(record)
    assert found is not None and record.run_ms is not None and found.energy_j is not None
    assert found.energy_j == pytest.approx(600 * record.run_ms / 1000)


def test_the_power_of_some_is_not_that_of_all(tmp_path: Path) -> None:
    """A reading that one of two GPUs did not give, now and then or never, halved what both drew."""
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, power=600)
    path = tmp_path / "telemetry_0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for lacking in (3, 1):  # every third sample, and each
        for number, line in enumerate(lines):
            gpu = line["gpus"][0]
            other = {key: value for key, value in gpu.items() if key != "power_w" or number % lacking}
            line["gpus"] = [gpu, other]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
        found = telemetry.beside(read(log))
        assert found is not None and found.gpus == 2
        assert found.power_w == (1200 if lacking == 3 else None)
        assert (found.energy_j is None) == (lacking == 1)


def test_images_are_those_that_were_trained(tmp_path: Path) -> None:
    """Of a run whose epochs or time were over before the steps that it was allowed, it said a tenth of the joules."""
    log = arms.write(tmp_path, 0)
    lines = log.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if '"global_batch_size"' in line)
    event = json.loads(lines[at].removeprefix(":::MLLOG ")) | {"key": "max_steps", "value": 700}
    lines.insert(at, f":::MLLOG {json.dumps(event)}\n")
    log.write_text("".join(lines))
    done = replace(read(log), outcome="aborted", reason="epochs spent: mAP 0.1")
    assert done.max_steps == 700 and done.epoch_samples is not None and done.global_batch_size is not None
    assert telemetry.trained_images(done) == len(done.epochs) * done.epoch_samples
    cut = replace(done, reason="steps spent: 700 of --max-steps 700, no evaluation, target 0.23")
    assert telemetry.trained_images(cut) == 700 * done.global_batch_size
    last = max(number for number, line in enumerate(lines) if '"epoch_stop"' in line)
    log.write_text("".join(lines[:last] + lines[last + 1 :]))  # a run that was ended within an epoch
    within = replace(read(log), outcome="aborted", reason="SIGTERM")
    assert telemetry.trained_images(within) is None, "its energy is of the images of that epoch too"
    assert telemetry.trained_images(replace(within, reason=cut.reason)) == 700 * done.global_batch_size


def test_energy_is_that_of_the_devices_of_the_run(tmp_path: Path) -> None:
    """Where no UUID tells which they are: on two machines half of it was told, of one of a machine's eight eight times it."""
    one, part = {"nodes": 1, "accelerators_per_node": 1}, {"accelerators": ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"]}
    for name, change, per_image in (
        ("one", arms.put("configuration", {"run": one}), True),
        ("two machines", arms.put("configuration", {"run": {**one, "nodes": 2}}), False),
        ("two of one", arms.put("configuration", {"run": {**one, "accelerators_per_node": 2}}), False),
        ("strangely told", arms.put("hardware", {"accelerators": 1}), True),
        ("a part of one", arms.put("hardware", part), False),
    ):
        log = arms.write(tmp_path / name, 0, change=change)
        arms.telemetry(log)
        record, found = read(log), telemetry.beside(read(log))
        assert found is not None and found.gpus == 1 and not record.device_uuids
        assert (telemetry.joules_per_image(record, found) is not None) == per_image, name


def test_an_odd_name_of_a_device_is_that_of_none(tmp_path: Path) -> None:
    """It ended score with a traceback."""
    begin = {"event": "begin", "time_ms": 1, "gpus": [{"uuid": ["GPU-1"]}, {"uuid": "GPU-2"}]}
    (tmp_path / "telemetry_0.jsonl").write_text(json.dumps(begin) + "\n")
    found = telemetry.read(tmp_path / "telemetry_0.jsonl", uuids=["GPU-2"])
    assert found is not None and found.gpus == 1
    found = telemetry.read(tmp_path / "telemetry_0.jsonl", uuids=["GPU-1"])
    assert found is not None and found.gpus == 2, "none is known, so all"


def test_how_long_clocks_were_held_is_no_sum(tmp_path: Path) -> None:
    """Of eight GPUs, each held for 590 of 600 s by its power, it was 4,720 s; causes come together."""
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, held=0.5)
    path = tmp_path / "telemetry_0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "gpus": 8 * line["gpus"]}) + "\n" for line in lines))
    found = telemetry.beside(read(log))
    assert found is not None and found.gpus == 8
    assert (found.held_s["temperature"], found.held_s["power"], found.held_longest_s) == (0.5, 3.0, 3.0)


def test_how_busy_the_jpeg_engines_were(tmp_path: Path) -> None:
    log = arms.write(tmp_path, 0)
    arms.telemetry(log)
    path = tmp_path / "telemetry_0.jsonl"
    assert (found := telemetry.beside(read(log))) is not None and found.jpeg_percent is None, "an older driver's"
    path.write_text(path.read_text().replace('"power_w"', '"jpeg_percent": 40, "power_w"'))
    assert (found := telemetry.beside(read(log))) is not None and found.jpeg_percent == 40


def test_a_sampler_that_died_early_tells_no_energy(tmp_path: Path) -> None:
    """Its last sample was drawn out over the rest of the run, whatever the GPU did then."""
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, power=600)
    path = tmp_path / "telemetry_0.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:12]) + "\n")
    found = telemetry.beside(read(log))
    assert found is not None and found.power_w == 600 and found.energy_j is None
    assert telemetry.joules_per_image(read(log), found) is None


def test_samples_of_a_clock_that_was_set_back_tell_no_energy(tmp_path: Path) -> None:
    """By 5 s in the middle of the run: they count as nothing twice and as minus them once."""
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, power=600)
    path = tmp_path / "telemetry_0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[len(lines) // 2 :]:
        line["time_ms"] -= 5_000
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = telemetry.beside(read(log))
    assert found is not None and found.power_w == 600 and found.energy_j is None


@pytest.mark.parametrize("turn", [1, -1])
def test_what_another_run_left_under_its_number_is_not_a_run_s(tmp_path: Path, turn: int) -> None:
    """A log alone was moved away: the next run with its number was said to have been slowed down, with the older one's XID."""
    log = arms.write(tmp_path, 0)
    arms.telemetry(log, xids=[79], reasons=0x40)
    own = telemetry.beside(read(log))
    assert own is not None and (own.xid, own.problem) == ((79,), "")
    found = telemetry.beside(read(arms.write(tmp_path, 0, turn=turn)))
    assert found is not None and found.problem == "nothing in it is of the time of this run"
    assert (found.xid, found.slowed, found.ecc_uncorrected, found.pcie_width) == ((), (), None, None)


def test_what_is_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = arms.write(tmp_path, 0)
    arms.telemetry(log)
    path = tmp_path / "telemetry_0.jsonl"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    found = telemetry.beside(read(log))
    assert found is not None and not found.complete and found.held_s == {} and found.samples
    path.write_text("")
    assert telemetry.beside(read(log)) is None
    path.write_text(
        '[]\nnull\n{"event": "begin"}\n{"event": "begin", "time_ms": 5, "gpus": [null, 3, {"power_limit_w": "x"}]}\n'
    )
    assert telemetry.beside(read(log)) is not None
    path.unlink()
    assert telemetry.beside(read(log)) is None


def test_score_and_report_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = arms.write(tmp_path / "x", 0)
    arms.telemetry(log, held=2.5, power=612, xids=[79])
    beside = tmp_path / "x/telemetry_0.jsonl"
    lines = [json.loads(line) for line in beside.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["gpus"][0]["memory_used_mib"] = 20480 + 1024 * (number == 5)
    beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(["score", str(tmp_path / "x")])
    out = capsys.readouterr().out
    assert re.search(r"GiB used.* 21\.0 ", out, re.DOTALL)
    assert "J an image" in out and "612" in out and "temperature 2.5" in out
    main(["score", str(tmp_path / "x"), "--json"])
    (run,) = json.loads(capsys.readouterr().out)["series"][0]["runs"]
    assert run["telemetry"]["power_w"] == 612 and run["telemetry"]["joules_per_image"] > 0
    main(["report", str(tmp_path / "x"), "--json", "--no-published"])
    board = capsys.readouterr().out
    assert (
        "Accelerators during the runs" in board
        and "612 W" in board
        and "21.0 GiB of memory used at most" in board
        and "XID 79" in board
    )


def test_report_shows_the_memory_of_the_training_and_not_that_of_init(tmp_path: Path) -> None:
    """Older logs told it before run_start: of fp32, which init tried first, under a run in bf16."""
    board = {}
    for name, beside in (("of init", "init_stop"), ("of the run", "run_stop")):

        def told(events: list[dict[str, Any]], beside: str = beside) -> None:
            at = next(number for number, each in enumerate(events) if each["key"] == beside)
            place = at + (beside == "run_stop")
            events.insert(place, {**events[at], "key": "peak_memory_bytes", "value": 9 << 30, "metadata": {}})

        record = read(arms.write(tmp_path / name, 0, change=told))
        assert record.integer("peak_memory_bytes") == 9 << 30
        board[name] = dict(measured._watched([record]))
    assert board == {"of init": {}, "of the run": {"result_0.txt": "PyTorch 9.0 GiB"}}
