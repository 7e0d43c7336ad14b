"""The verb compare: its words, exit codes and eighty columns; bad input; the phase that is slower."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.minutes import of_arms
from harness.comparison.reporting import terminal, words
from harness.comparison.runs import ComparedRun
from harness.results.logfile import read
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD, judged, run
from tests.harness.results import logs


def test_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path))

    assert code == 0
    assert out.rstrip().splitlines()[-1].startswith("A and B are equal within 0.5 %: B is ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (0.00050025, "5.003e-04"), (0.0012345, "0.0012345"), (8.2141, "8.2141"),
     (99_999.4, "99,999"), (99_999.7, "100,000"), (12_345_678.0, "12,345,678")],
)  # fmt: skip
def test_figures_leave_their_column_a_blank(value: float | None, shown: str) -> None:
    assert words.figure(value) == shown and (len(shown) < 10 or value == 12_345_678.0)


def test_slower_and_faster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.013)

    code, out = run(capsys, a, b)
    assert code == 1
    assert "B is 1.3 % slower (" in out and "n 5 + 5)" in out
    code, out = run(capsys, b, a)
    assert code == 0
    assert "B is 1.3 % faster (1.2 to 1.4, n 5 + 5)." in out, "bounds in the order and with the sign of its word"


def test_cannot_tell_says_how_many_runs_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path, 3, slower=1.0045)
    code, out = run(capsys, a, b)

    assert code == 3
    assert "more run" in out.splitlines()[-1] + out.splitlines()[-2]


def test_delta_decides(tmp_path: Path) -> None:
    folders = arms.in_turns(tmp_path, slower=1.013)
    assert judged(folders, delta=0.02).word == "EQUAL"
    assert judged(folders, delta=0.005).word == "SLOWER"


@pytest.mark.parametrize("delta", ["0", "-1", "100", "x", "nan", "half"])
def test_delta_is_a_percentage(tmp_path: Path, capsys: pytest.CaptureFixture[str], delta: str) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 2), "--delta", delta)
    assert code == 2 and "percentage" in out


def test_eighty_columns_whatever_the_names(tmp_path: Path) -> None:
    long = {"software": {**OLD, "os": "An operating system " * 9}, "made": arms.made(system="h" * 90)}
    found = judged(arms.in_turns(tmp_path, 3, a=long, b={**long, "software": {**long["software"], **NEW}}))
    assert max(map(len, terminal.lines(found))) <= 80
    other = {"software": {**long["software"], "os": "Another system " * 9}}
    refused = judged(arms.in_turns(tmp_path / "2", 3, a=long, b=other))
    assert refused.exit_code == 4
    assert max(map(len, terminal.lines(refused))) <= 80


def test_one_run_an_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 1))
    assert code == 3
    assert "one run an arm has no spread to judge by" in " ".join(out.split())


def test_half_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path)
    log = b / "result_2.txt"
    text = log.read_text()
    log.write_text(text[: len(text) // 2])
    code, out = run(capsys, a, b)
    assert code == 5
    assert "b/result_2.txt: no run_stop" in " ".join(out.split())


@pytest.mark.parametrize(("reason", "fine"), [("steps spent: 3 of 3", True), ("epochs spent", True), ("a NaN", False)])
def test_a_run_without_its_target_counts_when_it_did_its_work(tmp_path: Path, reason: str, fine: bool) -> None:
    def change(events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["key"] == "run_stop":
                event["metadata"] |= {"status": "aborted", "reason": reason}

    assert judged(arms.in_turns(tmp_path, a={"change": change})).exit_code == (0 if fine else 5)


def test_clocks_that_disagree(tmp_path: Path) -> None:
    """Somebody set the clock back by a second while the last run was going."""

    def monotonic(extra_s: float) -> arms.Change:
        def change(events: list[dict[str, Any]]) -> None:
            stamps = {event["key"]: event["time_ms"] for event in events}
            for event in events:
                if event["key"] == "run_stop":
                    event["metadata"]["monotonic_s"] = (stamps["run_stop"] - stamps["run_start"]) / 1000 + extra_s

        return change

    a, b = arms.in_turns(tmp_path, a={"change": monotonic(0.001)}, b={"change": monotonic(-0.001)})
    assert judged((a, b)).word == "EQUAL"
    arms.write(b, 9, turn=20, change=monotonic(1.0))
    found = judged((a, b))
    assert found.exit_code == 5 and "clocks disagree" in words.sentence(found)


def test_a_foreign_submitters_logs_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    a = logs.write_series(tmp_path / "a/results/x/ssd", 5)
    b = logs.write_series(tmp_path / "b/results/x/ssd", 5)
    for log in b.glob("*.txt"):
        log.write_text(log.read_text() + "\n")
    found = judged((a, b))
    assert found.exit_code in (0, 3) and any("as far as they go" in note for note in found.notes)


def test_real_submissions(test_data: Path) -> None:
    """NVIDIA's of v0.7 against itself twice over is refused; one system against another needs the word host."""
    results = test_data / "mlperf-results"
    folders = sorted({log.parent for log in results.rglob("result_*.txt")})
    one, other = next(f for f in folders if "dgx1" in str(f)), next(f for f in folders if "dgx2h" in str(f))
    found = judged((one, other))
    assert found.exit_code == 4
    found = judged((one, other), allowed=("host", "global_batch_size", "accelerators", "hyperparameter.*"))
    assert found.word == "FASTER"


def test_a_real_run_on_a_gpu_and_the_next_one(tmp_path: Path, test_data: Path) -> None:
    """What differs from run to run on one H100 (a process's id, a temperature, clocks as it idles) is no difference."""
    text = (test_data / "gpu/embedded_h100/result_0.txt").read_text()
    for arm in "ab":
        for number in range(3):
            lines = []
            for line in text.splitlines():
                written = line
                if line.startswith(":::MLLOG "):
                    event = json.loads(line.removeprefix(":::MLLOG "))
                    event["time_ms"] += (2 * number + (arm == "b")) * 60_000
                    if event["key"] == "seed":
                        event["value"] = number
                    if event["key"] == "hardware":
                        changes = {
                            "temperature_c": 40 + number,
                            "clock_sm_mhz": 345 * (1 + number),
                            "clock_events": number,
                        }
                        changes |= {"processes": [{"pid": number, "memory_mib": 792}], "pcie_generation": 1 + number}
                        event["value"]["gpus"][0] |= changes
                        event["value"]["memory_gib"] = 125.9 + 0.1 * number
                    written = f":::MLLOG {json.dumps(event)}"
                lines.append(written)
            folder = tmp_path / arm
            folder.mkdir(exist_ok=True)
            (folder / f"result_{number}.txt").write_text("\n".join(lines) + "\n")
    found = judged((tmp_path / "a", tmp_path / "b"))
    assert found.comparability is not None and found.comparability.differences == ()
    assert found.word == "EQUAL"


def test_the_same_log_in_both_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path)
    shutil.copy(a / "result_0.txt", b / "result_7.txt")
    code, out = run(capsys, a, b)
    assert code == 2 and "the same log is in both A and B" in out


def test_no_metric_in_common(tmp_path: Path) -> None:
    found = judged(arms.in_turns(tmp_path), metrics=("joules_per_image",))
    assert found.exit_code == 4 and "no such metric in common" in words.sentence(found)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--metric", "seconds_per_epcoh"], "did you mean seconds_per_epoch?"),
        (["--metric", "time_to_train"], "never gated"),
    ],
)
def test_metrics_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 2), *arguments)
    assert code == 2 and text in out


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = arms.in_turns(tmp_path)
    code, out = run(capsys, a, tmp_path / "nowhere")
    assert code == 2 and "no such file or folder" in out
    code, out = run(capsys, a, tmp_path / "b" / "result_9*.txt")
    assert code == 2 and "nothing matches" in out


def test_globs_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path)
    code, out = run(capsys, f"{a}/result_[0-3].txt", f"{b}/result_0.txt,{b}/result_1.txt,{b}/result_2.txt")
    assert code in (0, 3) and "4 runs of" in out and "3 runs of" in out


PHASES = {"data_starved": 0.06, "forward_loss": 1.9, "backward": 3.6, "optimizer": 0.4}


def test_the_phase_that_is_slower_is_named(tmp_path: Path) -> None:
    """Backward takes 3 % longer; the epoch 1.8 %."""
    slow = {**PHASES, "backward": PHASES["backward"] * 1.03}
    a, b = arms.in_turns(
        tmp_path, slower=1.018, a={"phases": PHASES}, b={"phases": {n: s / 1.018 for n, s in slow.items()}}
    )
    found = judged((a, b))
    assert [phase.name for phase in found.phases] == list(PHASES)
    assert words.sentence(found).endswith("n 5 + 5), in backward.")
    assert any("backward" in line and line.endswith("*") for line in terminal.lines(found))
    assert max(map(len, terminal.lines(found))) <= 80


def test_a_phase_can_be_gated(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, a={"phases": PHASES}, b={"phases": {**PHASES, "backward": 3.8}})
    found = judged((a, b), metrics=("backward",))
    assert found.word == "SLOWER"
    assert judged((a, b)).word == "EQUAL"


@pytest.mark.parametrize(
    "series", ["v0.7/Fujitsu/results/gx_V100x8_ngc20.06_pytorch", "v1.1/NVIDIA/results/dgxa100_ngc21.09_mxnet"]
)
def test_the_parts_of_others_minutes_are_parts(test_data: Path, series: str) -> None:
    """An evaluation beside training was taken from the rest (-9 s of it), and epochs counted by the last one's number."""
    folder = test_data / "mlperf-results" / series / "ssd"
    minutes = of_arms([ComparedRun(read(path), 0) for path in sorted(folder.glob("result_*.txt"))])[0]
    assert minutes.rest_s is not None and minutes.rest_s >= 0 and minutes.evaluation_s is not None
    assert minutes.epochs and minutes.seconds_per_epoch and minutes.minutes
    whole_s = minutes.epochs * minutes.seconds_per_epoch + minutes.evaluation_s + minutes.rest_s
    assert whole_s / 60 == pytest.approx(minutes.minutes, rel=1e-4)
