"""Deterministic runs: equal to the bit, or where they first part."""

from __future__ import annotations

import copy
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness.comparison import bits
from harness.comparison.comparison import Question, compare
from harness.comparison.reporting import documents, page, terminal, words
from tests.harness.comparison import arms
from tests.harness.comparison.arms import judged


def numbers(**changes: Any) -> bits.Numbers:
    tensors = {
        1: {"model.conv.weight": "a1", "model.bn.bias": "b1"},
        10: {"model.conv.weight": "a10", "model.bn.bias": "b10"},
    }
    base = bits.Numbers(
        "x", 1, {"images": "p", "labels": "l"}, [8.0 - 0.1 * step for step in range(12)], tensors, {1.0: 0.2}
    )
    for name, value in changes.items():
        setattr(base, name, value)
    return base


def above(value: float, count: int) -> float:
    """The float32 `count` further from 0."""
    return float(struct.unpack("<f", struct.pack("<i", struct.unpack("<i", struct.pack("<f", value))[0] + count))[0])


def test_equal() -> None:
    assert bits.parting(numbers(), numbers()) is None


def test_the_data_parts_first() -> None:
    found = bits.parting(numbers(), numbers(batch={"images": "q", "labels": "l"}, losses=[1.0] * 12))
    assert found == bits.Parting(1, "data", "images", None, 0)


def test_a_loss_parts_by_so_many_ulp() -> None:
    losses = numbers().losses
    losses = [float(struct.unpack("<f", struct.pack("<f", loss))[0]) for loss in losses]
    other = [*losses[:6], above(losses[6], 3), *losses[7:]]
    found = bits.parting(numbers(losses=losses), numbers(losses=other))
    assert found == bits.Parting(7, "forward and loss", "loss", 3, 0)
    assert str(found).endswith("by 3 ULP")


def test_weights_part_where_losses_do_not_yet() -> None:
    other = copy.deepcopy(numbers().tensors)
    other[1]["model.bn.bias"] = "other"
    found = bits.parting(numbers(), numbers(tensors=other))
    assert found == bits.Parting(1, "backward or optimizer", "model.bn.bias", None, 0)


def test_an_evaluation_alone() -> None:
    found = bits.parting(numbers(), numbers(accuracies={1.0: 0.2000001}))
    assert found is not None and found.phase == "evaluation"


@pytest.mark.parametrize(
    ("a", "b", "count"), [(1.0, 1.0, 0), (0.0, -0.0, 0), (1.0, above(1.0, 7), 7), (-1.0, 1.0, 2 * 0x3F800000)]
)
def test_ulp(a: float, b: float, count: int) -> None:
    assert bits.ulp(a, b) == count


def deterministic(loss_at_2: float = 0.5, weights: str = "w", seed: int = 1) -> arms.Change:
    """What a deterministic run logs beyond the rest; losses change at the second step of the first epoch."""

    def change(events: list[dict[str, Any]]) -> None:
        stats = [place for place, event in enumerate(events) if event["key"] == "tracked_stats"]
        events[stats[1]]["value"] = {**events[stats[1]]["value"], "loss": loss_at_2}
        first = events[stats[0]]
        step = {**first["metadata"], "step": 1}
        events.insert(stats[0] + 1, {**first, "key": "tensor_sha256", "value": {"model.w": weights}, "metadata": step})
        events.insert(stats[0] + 1, {**first, "key": "batch_sha256", "value": {"images": "p"}, "metadata": step})
        events.insert(8, {**events[0], "key": "deterministic", "value": True})
        for event in events:
            if event["key"] == "seed":
                event["value"] = seed

    return change


def of_seeds(root: Path, **other: Any) -> tuple[Path, Path]:
    """Two runs an arm of seed 1, and two of seed 2 of which the candidate's are `other`."""
    for number in range(8):
        seed = number // 4 + 1
        given = other if seed == 2 and number % 2 else {}
        arms.write(root / "ab"[number % 2], number, turn=number, change=deterministic(seed=seed, **given))
    return root / "a", root / "b"


def test_compare_says_so(tmp_path: Path) -> None:
    same = {"change": deterministic()}
    found = judged(arms.in_turns(tmp_path / "1", 2, a=same, b=same))
    assert found.bits is not None and found.bits.equal is True
    assert not any(line.startswith("loss after") for line in terminal.lines(found))
    assert any("numbers: equal to the bit: first batch, losses of" in line for line in terminal.lines(found))

    found = judged(arms.in_turns(tmp_path / "2", 2, a=same, b={"change": deterministic(above(0.5, 2))}))
    assert found.bits is not None and found.bits.equal is False
    assert "first different at step 2, in forward and loss: loss, by 2 ULP" in found.bits.text

    found = judged(arms.in_turns(tmp_path / "3", 2, a=same, b={"change": deterministic(weights="v")}))
    assert found.bits is not None and "step 1, in backward or optimizer: model.w" in found.bits.text


def test_a_gate_on_the_numbers(tmp_path: Path) -> None:
    """Whatever the speed says: these few runs can tell nothing of that."""
    same, other = {"change": deterministic()}, {"change": deterministic(weights="v")}
    folders = [arms.in_turns(tmp_path / str(at), 2, a=same, b=b) for at, b in enumerate((same, other))]
    folders.append(arms.in_turns(tmp_path / "seeds", 2))
    found = [compare(*map(str, each), Question(numbers=True)) for each in folders]
    assert [each.exit_code for each in found] == [0, 1, 3]
    suites = [ET.fromstring(documents.junit(each)) for each in found]
    cases = [suite.find("testcase[@name='numbers are the same']") for suite in suites]
    assert [[part.tag for part in case] for case in cases if case is not None] == [[], ["failure"], ["error"]]
    assert not any("slower" in str(case.get("name")) for suite in suites for case in suite.iter("testcase"))
    assert any("nobody can say, without runs of --deterministic" in line for line in terminal.lines(found[2]))


def test_every_seed_is_compared(tmp_path: Path) -> None:
    """The first pair alone was, so that what parted with the second seed passed the gate."""
    same = judged(of_seeds(tmp_path / "1"), numbers=True)
    assert same.exit_code == 0 and same.bits is not None and same.bits.text.endswith("(seeds 1, 2, 8 pairs of runs)")
    found = judged(of_seeds(tmp_path / "2", weights="other"), numbers=True)
    assert found.exit_code == 1 and found.bits is not None
    assert found.bits.text.endswith("model.w (seed 2; 4 of 8 pairs of runs differ)")
    assert words.sentence(found).startswith("Numbers: not equal to the bit, first different at step 1")


def test_only_what_was_compared_is_said_to_be_equal(tmp_path: Path) -> None:
    """What one pair of logs lacks is said of none; where nothing is left, nobody can say."""

    def without(*keys: str) -> arms.Change:
        def change(events: list[dict[str, Any]]) -> None:
            deterministic()(events)
            events[:] = [event for event in events if event["key"] not in keys]

        return change

    def told(number: int, *keys: str) -> bits.Bits:
        bare = {"change": without(*keys)}
        found = judged(arms.in_turns(tmp_path / str(number), 2, a={"change": deterministic()}, b=bare), numbers=True)
        assert found.bits is not None and found.exit_code == {True: 0, None: 3}[found.bits.equal]
        return found.bits

    assert told(1, "batch_sha256").text.startswith(
        "equal to the bit: losses of 24 steps, tensors after step 1, 2 evalu"
    )
    assert told(2, "tensor_sha256").text.startswith("equal to the bit: first batch, losses of 24 steps, 2 evaluations")
    everything = ("batch_sha256", "tensor_sha256", "tracked_stats", "eval_accuracy")
    assert (
        told(3, *everything).equal is None
        and "have no losses, hashes or evaluations in common" in told(4, *everything).text
    )


def test_losses_that_neither_run_tells_are_no_difference() -> None:
    blank = [math.nan] * 12
    assert bits.parting(numbers(losses=blank), numbers(losses=blank)) is None
    assert bits.Extent.of(numbers(losses=blank), numbers(losses=blank)).steps == 0
    assert bits.parting(numbers(losses=blank), numbers()) is not None


def test_a_candidate_unlike_itself_is_unlike_a_baseline_that_repeats_itself(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, 2, a={"change": deterministic()}, b={"change": deterministic()})
    arms.write(b, 9, turn=9, change=deterministic(0.6))
    found = judged((a, b), numbers=True)
    assert found.exit_code == 1 and found.bits is not None and "B is not equal to itself" in found.bits.text


def test_an_arm_unlike_itself_says_nothing_of_the_other(tmp_path: Path) -> None:
    a, b = arms.in_turns(tmp_path, 2, a={"change": deterministic()}, b={"change": deterministic()})
    arms.write(a, 9, turn=9, change=deterministic(0.6))
    found = judged((a, b))
    assert found.bits is not None and found.bits.equal is None and "A is not equal to itself" in found.bits.text


def test_runs_that_are_not_deterministic_say_nothing(tmp_path: Path) -> None:
    assert judged(arms.in_turns(tmp_path, 2)).bits is None


# --- what a run logs ---


def test_hashes_are_of_values_not_of_layouts() -> None:
    torch = pytest.importorskip("torch")
    from harness.execution import bits as hashes

    plain = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert hashes.sha256(plain) == hashes.sha256(plain.to(memory_format=torch.channels_last))
    assert hashes.sha256(plain) != hashes.sha256(plain.bfloat16()) != hashes.sha256(plain.reshape(2, 12))
    other = plain.clone()
    other[0, 0, 0, 0] = math.ulp(0.0)
    other[0, 0, 0, 1] += 1e-7
    assert hashes.sha256(plain) != hashes.sha256(other)
    assert hashes.sha256(torch.tensor(3.0)) and hashes.sha256(torch.zeros(0))
    nested = {"model": {"w": plain}, "by_rank": [{"random": plain, "data": b"x"}], "step": 3}
    assert [name for name, _ in hashes.tensors(nested)] == ["model.w", "by_rank.0.random"]


@pytest.mark.long
def test_a_deterministic_run_of_the_toy(tmp_path: Path) -> None:
    """Every step is an interval, the seed is fixed, the log says what it is; and it is no result."""
    from harness.results import fitness
    from harness.results.logfile import read
    from tests.harness.execution.runs import events, run
    from tests.toy import configuration

    file = configuration.write(tmp_path, configuration.raw(log_every_steps=2))
    logs = []
    for name in "ab":
        run(file, "--deterministic", "--max-steps", 3, "--out", tmp_path / name)
        logs.append(tmp_path / name / "result_0.txt")
    found = [events(log) for log in logs]
    keys = [event["key"] for event in found[0]]
    assert keys.count("tracked_stats") == 3 and keys.count("tensor_sha256") == 1 and keys.count("batch_sha256") == 1
    assert [event["value"] for each in found for event in each if event["key"] == "seed"] == [1, 1]
    assert "a deterministic run" in [each.what for each in fitness.of_run(read(logs[0]))]
    assert judged([log.parent for log in logs]).bits is not None


@pytest.mark.parametrize(
    ("a", "b", "code", "headline"),
    [
        ("w", "w", 0, "NUMBERS EQUAL"),
        ("w", "v", 1, "NUMBERS DIFFERENT"),
        (None, None, 3, "CANNOT TELL"),
    ],
)
def test_every_output_says_of_the_numbers_what_the_exit_code_says(
    tmp_path: Path, a: str | None, b: str | None, code: int, headline: str
) -> None:
    """The headline was the speed's, EQUAL where the exit code was 1, and JUnit had an error for a GPU's where it was 0."""
    kinds: list[dict[str, Any]] = [{} if each is None else {"change": deterministic(weights=each)} for each in (a, b)]
    folders = arms.in_turns(tmp_path, 3, a=kinds[0], b=kinds[1])
    arms.telemetry(folders[1] / "result_0.txt", ecc=1)
    found = judged(folders, numbers=True)
    assert (found.exit_code, found.word) == (code, "SUSPECT")
    assert documents.as_json(found)["verdict"] == headline
    assert documents.markdown(found).startswith(f"**{headline}**")
    assert f"<title>{headline}: " in page.render(found) and f">{headline}</p>" in page.render(found)
    suite = ET.fromstring(documents.junit(found))
    assert (int(suite.get("failures", "")) + int(suite.get("errors", "")) == 0) == (code == 0)
    assert (suite.findtext("system-out") or "").startswith(f"{headline}: ")


@pytest.mark.parametrize(("a", "b", "equal"), [("wv", "wv", True), ("ww", "wv", False)])
def test_numbers_are_held_against_each_other_within_a_host(tmp_path: Path, a: str, b: str, equal: bool) -> None:
    """Two hosts of unlike GPUs, whose numbers are each other's no more than their speeds are, were "not equal to itself"."""
    for host in (0, 1):
        for arm, weights in enumerate((a[host], b[host])):
            for number in range(2):
                turn = 4 * host + 2 * number + arm
                change = deterministic(weights=weights)
                arms.write(
                    tmp_path / "ab"[arm], 2 * host + number, turn=turn, gpu={"uuid": f"GPU-{host}"}, change=change
                )
    found = judged((tmp_path / "a", tmp_path / "b"), numbers=True)
    assert found.bits is not None and found.bits.equal is equal, found.bits
