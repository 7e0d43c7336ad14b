"""Which runs may be compared: what may differ, what is allowed by name, and what is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.comparison.reporting import words
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, OLD, judged, put, run


def test_the_drivers_own_fields_may_differ(tmp_path: Path) -> None:
    found = judged(
        arms.in_turns(tmp_path, b={"software": NEW, "gpu": {"gsp_firmware": "590.44.01", "vbios": "96.00.CF.00.02"}})
    )
    assert found.word == "EQUAL"
    assert found.comparability is not None
    names = {each.field: each.standing for each in found.comparability.differences}
    assert names["software.driver"] == "allowed" and names["software.libcuda_version"] == "allowed"


def of_own_code(digit: str) -> arms.Change:
    """Of a benchmark that lies outside of the project."""
    return lambda events: events.insert(1, {**events[1], "key": "benchmark_sha256", "value": digit * 64})


@pytest.mark.parametrize(
    ("b", "field"),
    [
        ({"change": put("software", {"torch": "2.15.0"})}, "software.torch"),
        ({"gpu": {"power_limit_w": 500.0}}, "gpu.power_limit_w"),
        ({"gpu": {"ecc": False}}, "gpu.ecc"),
        ({"change": put("commit", "d" * 40)}, "commit"),
        ({"change": of_own_code("d")}, "benchmark_sha256"),
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
    if field == "benchmark_sha256":
        a_extra = {"change": of_own_code("c")}
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


def test_two_values_that_differ_at_their_ends_are_told_apart(tmp_path: Path) -> None:
    """Cut to 80 characters, or stripped, they were one and the same in the sentence that calls them different."""
    for number, (one, other) in enumerate([(" performance", "performance"), (f"{'x' * 95}a", f"{'x' * 95}b")]):
        a, b = ({"change": put("hardware", {"governor": each})} for each in (one, other))
        (folder := tmp_path / str(number)).mkdir()
        found = judged(arms.in_turns(folder, a=a, b=b)).comparability
        assert found is not None
        assert any(f": {one} and {other}; make it alike" in each for each in found.refusals), found.refusals


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


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ([put("commit", digit * 40) for digit in "ab"], 4, "commit is mixed within A and B"),
        ([put("precision", each) for each in ("bf16", "fp32")], 4, "precision is mixed within A and B"),
        (
            [put("software", {"torch": each}) for each in ("2.14.0", "2.14.1")],
            4,
            "software.torch is mixed within A and B",
        ),
        ([put("software", {"kernel": each, "driver": each}) for each in ("6.8", "6.14")], 0, ""),
    ],
)
def test_hosts_that_did_not_do_the_same_work_are_no_replicates(
    tmp_path: Path, changes: list[arms.Change], code: int, said: str
) -> None:
    """Each host's arms were alike in it, so that nothing differed, and the mean over two precisions was given as one figure."""
    counts = [0, 0]
    for host in (0, 1):
        for arm in (0, 1, 1, 0, 0, 1):
            turn = sum(counts)
            arms.write(
                tmp_path / "ab"[arm],
                counts[arm],
                turn=turn,
                factor=arms.NOISE[turn % 10],
                gpu={"uuid": f"GPU-{host}"},
                change=changes[host],
            )
            counts[arm] += 1
    found = judged((tmp_path / "a", tmp_path / "b"))
    assert found.exit_code == code and (not said or said in words.sentence(found))
    if said:
        assert judged((tmp_path / "a", tmp_path / "b"), mixed=(said.split(maxsplit=1)[0],)).exit_code == 0


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
