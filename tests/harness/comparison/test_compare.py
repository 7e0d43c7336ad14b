"""The verb compare: its words and exit codes, what it refuses, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison.reporting import terminal, words
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD, judged, put
from tests.harness.results import logs


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    code = main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path))

    assert code == 0
    assert out.rstrip().splitlines()[-1].startswith("A and B are equal within 0.5 %: B is ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (0.00050025, "5.003e-04"), (0.0012345, "0.0012345"), (8.2141, "8.2141"),
     (99_999.4, "99,999"), (12_345_678.0, "12,345,678")],
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


# --- may they be compared ---


def test_the_drivers_own_fields_may_differ(tmp_path: Path) -> None:
    found = judged(
        arms.in_turns(tmp_path, b={"software": NEW, "gpu": {"gsp_firmware": "590.44.01", "vbios": "96.00.CF.00.02"}})
    )
    assert found.word == "EQUAL"
    assert found.comparability is not None
    names = {each.field: each.standing for each in found.comparability.differences}
    assert names["software.driver"] == "allowed" and names["software.libcuda_version"] == "allowed"


@pytest.mark.parametrize(
    ("b", "field"),
    [
        ({"change": put("software", {"torch": "2.15.0"})}, "software.torch"),
        ({"gpu": {"power_limit_w": 500.0}}, "gpu.power_limit_w"),
        ({"gpu": {"ecc": False}}, "gpu.ecc"),
        ({"change": put("commit", "d" * 40)}, "commit"),
        ({"change": put("hardware", {"governor": "powersave"})}, "hardware.governor"),
        ({"made": arms.made(batch=456)}, "global_batch_size"),
        ({"change": put("submission_benchmark", "other")}, "benchmark"),
        ({"change": put("max_steps", 20)}, "max_steps"),
    ],
)
def test_what_else_differs_forbids_it_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], b: dict[str, Any], field: str
) -> None:
    a_extra = {
        "gpu": {"power_limit_w": 700.0},
        "change": lambda events: [put("hardware", {"governor": "performance"})(events), put("max_steps", 10)(events)],
    }
    if field not in ("gpu.power_limit_w", "hardware.governor"):
        a_extra = {}
    if field == "max_steps":
        a_extra = {"change": with_max_steps(10)}
        b = {"change": with_max_steps(20)}
    a, other = arms.in_turns(tmp_path, a=a_extra, b=b)
    code, out = run(capsys, a, other)
    assert code == 4
    assert f"{field} differs" in " ".join(out.split())
    allow = [f"--allow-diff={name}" for name in (field, "configuration.*", "hyperparameter.*")]
    code, _ = run(capsys, a, other, *allow)
    assert code in (0, 3)


def with_max_steps(steps: int) -> arms.Change:
    def change(events: list[dict[str, Any]]) -> None:
        events.insert(5, {**events[0], "key": "max_steps", "value": steps})

    return change


def logged(key: str, value: Any) -> arms.Change:
    """One event more, before the clock starts."""

    def change(events: list[dict[str, Any]]) -> None:
        start = next(place for place, event in enumerate(events) if event["key"] == "run_start")
        events.insert(start, {**events[start], "key": key, "value": value, "event_type": "POINT_IN_TIME"})

    return change


def by_rank(slowest: int, *step_ms: float) -> arms.Change:
    def change(events: list[dict[str, Any]]) -> None:
        table = {"slowest": slowest, "host": "node2", "median_ms": min(step_ms), "step_ms": list(step_ms)}
        events += [
            {**each, "key": "step_ms_by_rank", "value": table, "event_type": "POINT_IN_TIME"}
            for each in list(events)
            if each["key"] == "epoch_stop"
        ]

    return change


def test_a_rank_that_one_arm_waited_for_and_the_other_did_not_is_named(tmp_path: Path) -> None:
    held_up = {"change": by_rank(1, 100, 140)}
    found = judged(arms.in_turns(tmp_path / "1", 3, slower=1.4, a={"change": by_rank(1, 100, 105)}, b=held_up))
    (note,) = [each for each in found.notes if "waited" in each]
    assert note.startswith("B: the other ranks waited for rank 1 on node2 in 3 of 3 runs")
    same = judged(arms.in_turns(tmp_path / "2", 3, a=held_up, b=held_up))
    assert not [each for each in same.notes if "waited" in each], "it explains no difference"


def test_what_a_run_chose_by_itself_is_shown_and_not_refused(tmp_path: Path) -> None:
    """A decoder that the new driver no longer brings: that is how the driver makes it slower."""
    found = judged(
        arms.in_turns(tmp_path, a={"change": logged("decoder", "hardware")}, b={"change": logged("decoder", "CUDA")})
    )
    assert found.word == "EQUAL" and found.comparability is not None
    assert ("chosen.decoder", "allowed") in [(each.field, each.standing) for each in found.comparability.differences]


@pytest.mark.parametrize(("name", "code"), [("libcuda", 0), ("libnvidia-ml", 0), ("libcudnn", 4)])
def test_the_drivers_libraries_may_be_others_and_no_other_library(tmp_path: Path, name: str, code: int) -> None:
    a, b = ({"change": logged("loaded_libraries", {name: f"/usr/lib/{name}.so.{version}"})} for version in ("1", "2"))
    assert judged(arms.in_turns(tmp_path, a=a, b=b)).exit_code == code


def test_a_typo_in_allow_diff_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 2), "--allow-diff", "software.torhc")
    assert code == 2 and "did you mean software.torch?" in out


def test_an_image_that_replaces_the_driver_is_found_out(tmp_path: Path) -> None:
    """Forward compatibility: two kernel modules, and one libcuda, the image's, in both arms."""
    compat = {"driver_mode": "FORWARD-COMPAT", "libcuda": "/usr/local/cuda/compat/libcuda.so.590.44.01"}
    a = {"software": {**OLD, **compat, "libcuda_version": "590.44.01"}}
    b = {"software": {**OLD, **compat, "driver": "580.95.05", "libcuda_version": "590.44.01"}}
    found = judged(arms.in_turns(tmp_path, a=a, b=b))
    assert found.exit_code == 4
    assert "/usr/local/cuda/compat/libcuda.so.590.44.01" in words.sentence(found)
    assert judged(arms.in_turns(tmp_path / "2", a=a, b=b), allowed=("software.driver_mode",)).exit_code != 4


def test_the_same_libcuda_under_two_kernel_modules_is_found_out(tmp_path: Path) -> None:
    found = judged(arms.in_turns(tmp_path, b={"software": {**OLD, "driver": "590.44.01"}}))
    assert found.exit_code == 4
    assert "both arms loaded libcuda 580.65.06" in words.sentence(found)


def test_drivers_mixed_within_an_arm(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    arms.write(b, 9, turn=20, software=NEW)
    found = judged((a, b))
    assert found.exit_code == 4
    assert "mixed within B" in words.sentence(found)


def test_an_arm_of_two_drivers_is_none_whatever_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for turn in range(10):
        arms.write(
            tmp_path / "ab"[turn % 4 in (1, 2)],
            turn,
            turn=turn,
            factor=arms.NOISE[turn],
            software=OLD if turn < 6 else NEW,
        )
    for allow in ("--allow-diff", "--allow-mixed"):
        code, out = run(capsys, tmp_path / "a", tmp_path / "b", allow, "software.*")
        assert code == 4 and "mixed within A and B" in " ".join(out.split()) and "--allow-mixed" not in out


def test_what_varies_within_an_arm_is_allowed_by_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = arms.in_turns(tmp_path, b={"software": NEW})
    arms.write(b, 9, turn=20, software=NEW, change=put("software", {"torch": "2.15.0"}))
    code, out = run(capsys, a, b, "--allow-diff", "software.torch")
    assert code == 4 and "--allow-mixed software.torch" in " ".join(out.split())
    assert run(capsys, a, b, "--allow-mixed", "software.torch")[0] == 0


def test_arms_that_are_swapped_on_one_of_two_hosts(tmp_path: Path) -> None:
    for host, software in (("GPU-1", (OLD, NEW)), ("GPU-2", (NEW, OLD))):
        for number in range(6):
            arm, start = number % 2, 0 if host == "GPU-1" else 10
            arms.write(tmp_path / "ab"[arm], start + number, turn=number, software=software[arm], gpu={"uuid": host})
    found = judged((tmp_path / "a", tmp_path / "b"))
    assert found.exit_code == 4 and "software.driver is mixed within A and B" in words.sentence(found)


def test_a_reboot_that_was_forgotten_is_told(tmp_path: Path) -> None:
    assert any("A against A" in note for note in judged(arms.in_turns(tmp_path)).notes)
    assert not any("A against A" in note for note in judged(arms.in_turns(tmp_path / "2", b={"software": NEW})).notes)


def test_slower_on_doubtful_hardware_passes_no_gate(tmp_path: Path) -> None:
    """Exit code 3 is what a gate may wait on; the next block does not mend a memory."""
    a, b = arms.in_turns(tmp_path, slower=1.10, b={"software": NEW})
    for log in (*a.glob("*.txt"), *b.glob("*.txt")):
        arms.telemetry(log, ecc_corrected=int(log == b / "result_0.txt"))
    found = judged((a, b))
    assert (found.word, found.exit_code) == ("SUSPECT", 7)


def test_two_machines_are_not_two_drivers(tmp_path: Path) -> None:
    folders = arms.in_turns(tmp_path, b={"software": NEW, "gpu": {"uuid": "GPU-2"}})
    found = judged(folders)
    assert found.exit_code == 4 and "no host ran both arms" in words.sentence(found)
    assert judged(folders, allowed=("host", "gpu.uuid")).word == "EQUAL"


def test_a_host_with_one_arm_alone_is_told(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    arms.write(b, 9, turn=20, factor=3.0, gpu={"uuid": "GPU-2"})
    found = judged((a, b))
    assert found.word == "EQUAL"
    assert any("one arm alone" in note for note in found.notes)
    assert words.sentence(found).endswith("n 5 + 5).")


def test_seeds_fixed_in_one_arm(tmp_path: Path) -> None:
    found = judged(arms.in_turns(tmp_path, a={"change": put("seed", 1)}))
    assert found.exit_code == 4 and "seed differs" in words.sentence(found)
    both = {"change": put("seed", 1)}
    assert judged(arms.in_turns(tmp_path / "2", a=both, b=both)).word == "EQUAL"


# --- bad input ---


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


# --- health ---


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"clock": 1700.0}, "SM clocks differ: 1980 and 1700 MHz"),
        ({"held": 3.0}, "held down by temperature for 3.0 s"),
        ({"ecc": 1}, "1 uncorrected memory errors"),
        ({"reasons": 0x40}, "throttled: hardware thermal slowdown"),
        ({"slowed_by_power_brake_s": 0.2}, "throttled: power brake of the supply"),
        ({"width": 8}, "PCIe went down to x8 of x16"),
        ({"xids": [31, 79]}, "XID 79"),
    ],
)
def test_telemetry_makes_it_suspect(tmp_path: Path, bad: dict[str, Any], text: str) -> None:
    a, b = arms.in_turns(tmp_path)
    for log in a.glob("*.txt"):
        arms.telemetry(log)
    for log in b.glob("*.txt"):
        arms.telemetry(log, **bad)
    found = judged((a, b))
    assert (found.word, found.exit_code) == ("SUSPECT", 7)
    assert any(text in each.text for each in found.symptoms)


def test_a_narrow_link_makes_it_suspect(tmp_path: Path) -> None:
    narrow = {"gpu": {"pcie_width": 8}}
    found = judged(arms.in_turns(tmp_path, a=narrow, b=narrow))
    assert found.word == "SUSPECT"


def at_work(log: Path, generation: int, memory_mhz: int, clock: float = 1980.0) -> None:
    arms.telemetry(log, clock=clock)
    path = log.with_name(log.name.replace("result_", "telemetry_")).with_suffix(".jsonl")
    more = f'"pcie_width": 16, "pcie_generation": {generation}, "clock_memory_mhz": {memory_mhz}'
    path.write_text(path.read_text().replace('"pcie_width": 16', more))


def test_a_slow_link_and_slow_memory_are_suspect(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.009, b={"software": NEW})
    for folder, generation, memory in ((a, 5, 2619), (b, 1, 810)):
        for log in folder.glob("*.txt"):
            at_work(log, generation, memory)
    found = judged((a, b))
    assert found.word == "SUSPECT"
    said = " ".join(each.text for each in found.symptoms)
    assert "memory clocks differ: 2619 and 810 MHz" in said and "PCIe generation 5 and 1 at work" in said


def test_every_output_has_what_the_hardware_did(tmp_path: Path) -> None:
    from harness.comparison.reporting import documents, page

    a, b = arms.in_turns(tmp_path, slower=1.0092, b={"software": NEW})
    for folder, clock in ((a, 1980.0), (b, 1961.0)):
        for log in folder.glob("*.txt"):
            at_work(log, 5, 2619, clock)
    found = judged((a, b))
    line = "hardware: B SM 1,961 MHz, memory 2,619 MHz, 600 W, 61 C, PCIe gen 5, PCIe x16, held 3.0 s a run by power"
    assert line in " ".join(" ".join(terminal.lines(found)).split()) and "SM 1,961 MHz" in documents.markdown(found)
    assert f"<li>{line.removeprefix('hardware: ')}</li>" in " ".join(page.render(found).split())
    assert documents.as_json(found)["hardware"]["B"]["pcie_generation"] == 5
    assert found.word == "SLOWER" and any("SM clocks differ by -0.96 %" in note for note in found.notes)
    for telemetry in b.glob("telemetry_*"):
        telemetry.unlink()
    alone = judged((a, b))
    assert any("telemetry of 5 of 5 of A's and 0 of 5 of B's" in note for note in alone.notes)
    assert "hardware: B not watched" in " ".join(" ".join(terminal.lines(alone)).split())


def test_energy_is_shown(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path)
    for folder, power in ((a, 600.0), (b, 660.0)):
        for log in folder.glob("*.txt"):
            arms.telemetry(log, power=power)
    found = judged((a, b))
    (row,) = [row for row in found.rows if row.metric.name == "joules_per_image"]
    assert row.means[0] == pytest.approx(600 * 42 / (6 * 117266), rel=0.01)
    assert row.judged.percent == pytest.approx(10, abs=0.5)
    assert found.word == "EQUAL", "shown, not gated"


# --- in which phase ---

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


# --- what it writes ---


def test_json_junit_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.013, b={"software": NEW})
    junit, markdown = tmp_path / "j.xml", tmp_path / "m.md"
    code = main(["compare", str(a), str(b), "--json", "--junit", str(junit), "--markdown", str(markdown)])
    content = json.loads(capsys.readouterr().out)

    assert code == 1 and content["exit_code"] == 1 and content["verdict"] == "SLOWER"
    (metric,) = [each for each in content["metrics"] if each["metric"] == "seconds_per_epoch"]
    assert metric["interval_percent"][0] < metric["slower_percent"] < metric["interval_percent"][1]
    assert len(metric["values"]) == 10 and metric["resamples"] == 10_000
    suite = ET.parse(junit).getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("3", "0")
    assert "software.driver" in markdown.read_text()


def test_junit_of_what_cannot_be_told_is_no_pass(tmp_path: Path) -> None:
    from harness.comparison.reporting import documents

    for found in (judged(arms.in_turns(tmp_path, 1)), judged(arms.in_turns(tmp_path / "2", a={"gpu": {"ecc": False}}))):
        suite = ET.fromstring(documents.junit(found))
        assert int(suite.get("errors", "0")) >= 1


def test_outputs_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 2), "--junit", tmp_path / "no" / "j.xml")
    assert code == 2 and "cannot be written" in out


def test_the_page_shows_all_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = arms.made(system="<script>alert(1)</script>")
    a, b = arms.in_turns(
        tmp_path,
        slower=1.018,
        a={"phases": PHASES, "made": hostile},
        b={"phases": PHASES, "made": hostile, "software": NEW},
    )
    for log in a.glob("*.txt"):
        arms.telemetry(log)
    page = tmp_path / "page.html"
    code, _ = run(capsys, a, b, "--html", page)
    text = page.read_text()

    assert code == 1
    assert "<script" not in text and "http://" not in text and "https://" not in text
    for part in (
        "What differs in the environment",
        "How much slower B is",
        "Where the time went",
        "in the order of time",
    ):
        assert part in text
    assert text.index("software.driver") < text.index("How much slower"), "the environment's differences first"
    assert text.count('class="dot arm-0"') >= 5 and text.count('class="dot arm-1"') >= 5
    assert "nan" not in text.lower().split()


def test_runs_of_one_name_in_both_arms_keep_their_own_marks(tmp_path: Path) -> None:
    """A plan's folders are called alike in both arms."""
    from harness.comparison.reporting import plots

    a, b = arms.in_turns(tmp_path, 3, slower=1.05)
    for arm in (a, b):
        for number, log in enumerate(sorted(arm.glob("*.txt")), 1):
            place = tmp_path / "arms" / arm.name / f"host-1_block-0_run-{number}"
            place.mkdir(parents=True)
            log.rename(place / "result_0.txt")
    found = judged((tmp_path / "arms/a", tmp_path / "arms/b"))
    time = plots.over_time(found)
    assert time is not None
    heights = [[dot.y for dot in time.strips[0].dots if dot.arm == arm] for arm in (0, 1)]
    assert max(heights[1]) < min(heights[0]), "slower is higher: smaller y"
    assert len({run.name for run in found.runs}) == 6


@pytest.mark.parametrize("what", ["one run", "not comparable", "invalid"])
def test_the_page_of_what_has_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    a, b = arms.in_turns(
        tmp_path, 1 if what == "one run" else 2, b={"gpu": {"ecc": False}} if what == "not comparable" else {}
    )
    if what == "invalid":
        (a / "result_0.txt").write_text((a / "result_0.txt").read_text()[:3000])
    page = tmp_path / "page.html"
    code, _ = run(capsys, a, b, "--html", page, "--markdown", tmp_path / "m.md", "--bundle", tmp_path / "b.tar")
    assert code == {"one run": 3, "not comparable": 4, "invalid": 5}[what]
    assert "</html>" in page.read_text()


def test_bundle_is_redacted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uuid = "GPU-7c8e4c1e-0f0b-44c5-9c55-2b0f3d5e9c11"
    each = {"gpu": {"uuid": uuid, "serial": "1653922"}, "made": arms.made(org="Secret Corp")}
    a, b = arms.in_turns(tmp_path, a=each, b=each)
    arms.telemetry(a / "result_0.txt")
    target = tmp_path / "for_vendor.tar.gz"
    code, _ = run(capsys, a, b, "--bundle", target)

    assert code == 0
    with tarfile.open(target) as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert "comparison/README.md" in texts and "comparison/A/000_result_0.txt" in texts
    assert "comparison/A/000_result_0_telemetry.jsonl" in texts
    for name, text in texts.items():
        for secret in (uuid, "1653922", "Secret Corp", str(tmp_path)):
            assert secret not in text, name
    assert "580.65.06" in texts["comparison/environment.json"]
