"""Whole runs of the toy, in their own process, judged by MLPerf's compliance checker and by their exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from harness import clocks
from harness.execution import context
from tests.conftest import CHECKOUT, gpus
from tests.harness.execution.runs import begun, command, complies, environment, events, run, stop, wait_for
from tests.toy import configuration as toy

pytestmark = pytest.mark.early


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, device: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("learned")
    return folder, run(toy.write(folder, toy.raw(device=device.partition(":")[0])), "--out", folder / "out")


def test_target_met(learned: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, finished = learned
    log = folder / "out" / "result_0.txt"
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert stop(log)["status"] == "success"
    assert complies(log)
    assert "RESULT,TOY,," in finished.stdout and "RESULT,TOY,," in log.read_text()
    assert (folder / "out" / "result_0.png").stat().st_size > 10_000
    assert (folder / "out" / "result.png").resolve() == (folder / "out" / "result_0.png").resolve()


def test_events_come_in_the_order_of_the_rules(learned: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    found = events(learned[0] / "out" / "result_0.txt")
    order = [event["key"] for event in found]
    timed = [key for key in order if key.endswith(("_start", "_stop")) or key in ("eval_accuracy", "train_samples")]
    epoch = ["block_start", "epoch_start", "epoch_stop", "block_stop", "eval_start", "eval_accuracy", "eval_stop"]
    assert timed == ["init_start", "init_stop", "run_start", "train_samples", *epoch * 3, "run_stop"]
    times = [event["time_ms"] for event in found]
    assert times == sorted(times)
    for key in (
        "seed",
        "configuration",
        "precision",
        "software",
        "hardware",
        "commit",
        "tree_dirty",
        "environment",
        "throughput",
    ):
        assert key in order, key
    assert order.index("data_fingerprint") > order.index("run_stop"), "hashing the data is off the clock"
    stopped = found[order.index("run_stop")]
    elapsed_ms = stopped["time_ms"] - found[order.index("run_start")]["time_ms"]
    monotonic_s = stopped["metadata"]["monotonic_s"]
    assert monotonic_s >= 3 * 2 * 0.001, "the toy sleeps a millisecond in each step"
    assert not clocks.contradict(elapsed_ms / 1000 - monotonic_s, monotonic_s)


def test_lines_name_the_place_that_logged_them(learned: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    files = {event["metadata"]["file"] for event in events(learned[0] / "out" / "result_0.txt")}
    assert files == {f"harness/execution/{name}.py" for name in ("lifecycle", "description", "ending")}


def test_evaluating_what_was_trained_on_is_said(tmp_path: Path) -> None:
    finished = run(toy.write(tmp_path, toy.raw("knows the answers")), "--out", tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "warning: 3 of 4 images to evaluate are trained on too" in finished.stdout
    assert "warning: half of the numbers are there before\n" in finished.stdout, "a benchmark's own remark"
    log = tmp_path / "result_0.txt"
    assert [event["value"] for event in events(log) if event["key"] == "eval_samples_trained_on"] == [3]
    assert complies(log)


def test_what_keeps_a_run_from_being_submitted_is_said_before_its_hours(tmp_path: Path) -> None:
    content = toy.raw()
    content["submission"] |= {"division": "closed", "status": "onprem"}
    path = toy.write(tmp_path, content)
    for cleared, said in (("0", 1), ("1", 0)):
        finished = run(path, "--out", tmp_path / cleared, HARNESS_CACHES_CLEARED=cleared)
        assert finished.returncode == 0, finished.stderr
        before = finished.stdout.partition("init took")[0]
        assert before.count("not to be submitted: the closed division wants the page cache dropped") == said


@pytest.mark.parametrize("ruleset", ["1.0.0", "1.1.0"])
def test_the_other_rulesets_pass_too(tmp_path: Path, ruleset: str) -> None:
    assert run(toy.write(tmp_path, toy.raw(ruleset=ruleset)), "--out", tmp_path).returncode == 0
    assert complies(tmp_path / "result_0.txt", ruleset)
    found = [event for event in events(tmp_path / "result_0.txt") if event["key"] == "weights_initialization"]
    tensors = [event["metadata"]["tensor"] for event in found]
    assert tensors == (["slope", "offset"] if ruleset == "1.1.0" else [])


@pytest.mark.parametrize(
    ("fate", "code", "reason"),
    [
        ("stands still", 1, r"epochs spent: accuracy 0\.0000 after 4 epochs, target 0\.25"),
        ("nan", 5, "the loss is nan in epoch 2 by step 1"),
        ("raises", 5, "RuntimeError: the toy broke"),
        ("stops short", 5, "RuntimeError: epoch 1 had 1 steps where 2 were due"),
        ("exits", 5, "SystemExit: 0"),
        ("beyond all", 5, r"accuracy after epoch 1 is 2.0, which it cannot be: accuracy from 0 to 1"),
        ("bad data", 2, "the folder has 7 numbers"),
        ("unsuitable", 6, "no abacus here"),
    ],
)
def test_every_other_way_out(tmp_path: Path, fate: str, code: int, reason: str) -> None:
    finished = run(toy.write(tmp_path, toy.raw(fate)), "--out", tmp_path)
    assert finished.returncode == code, finished.stdout + finished.stderr
    log = tmp_path / (
        "refused_0.txt" if code in (2, 6) else "result_0.txt"
    )  # what never began takes no result's number
    assert sorted(each.stem for each in tmp_path.glob("re*_*.txt")) == [log.stem]
    stopped = stop(log)
    assert stopped["status"] == "aborted"
    assert re.search(reason, stopped["reason"]) and re.search(reason, finished.stdout)
    assert "RESULT" not in finished.stdout
    assert ("Traceback" in finished.stdout) == (fate in ("raises", "stops short", "exits", "beyond all")), (
        "only what we did not foresee shows a traceback"
    )
    assert complies(log) is False


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_truthfully(tmp_path: Path, which: signal.Signals, device: str) -> None:
    path = toy.write(tmp_path, toy.raw("sleeps", device=device.partition(":")[0]))
    with begun("run", path, "--out", tmp_path) as process:
        wait_for(tmp_path / "result_0.txt", '"epoch_num": 2')
        process.send_signal(which)
        assert process.wait() == 130
        out = process.said("out")
    assert stop(tmp_path / "result_0.txt") == stop(tmp_path / "result_0.txt") | {
        "status": "aborted",
        "reason": which.name,
    }
    assert "RESULT" not in out


def test_stacks_are_written_on_request(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw("sleeps"))
    log = tmp_path / "result_0.txt"
    with begun("run", path, "--out", tmp_path) as process:
        wait_for(log, '"epoch_num": 2')
        process.send_signal(signal.SIGUSR1)
        wait_for(log, "train_epoch")
        process.terminate()
        process.wait()
    assert "most recent call first" in log.read_text()
    assert stop(log)["status"] == "aborted"


def test_results_are_numbered_and_never_written_over(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    (tmp_path / "result_6.txt").write_text("an older result\n")
    assert run(path, "--out", tmp_path).returncode == 0
    assert (tmp_path / "result_7.txt").is_file()
    refused = run(path, "--out", tmp_path, "--number", 6)
    assert refused.returncode == 2 and "no result is ever written over" in refused.stderr
    assert (tmp_path / "result_6.txt").read_text() == "an older result\n"


@pytest.mark.parametrize("number", [None, 20261127103000])
def test_a_number_that_no_reader_takes_for_a_result_s_is_refused(tmp_path: Path, number: int | None) -> None:
    """A datestamp for one: its run printed RESULT, and status and score passed it over beside others."""
    (tmp_path / "result_999999999.txt").touch()
    refused = run(toy.write(tmp_path, toy.raw()), "--out", tmp_path, *(() if number is None else ("--number", number)))
    assert refused.returncode == 2
    assert ("none is larger" if number is None else "less than or equal to 999999999") in refused.stderr
    assert len([*tmp_path.glob("*.txt")]) == 1


def test_a_configuration_that_cannot_be_read_leaves_a_log_too(tmp_path: Path) -> None:
    content = toy.raw()
    content["run"]["epoch"] = 3
    refused = run(toy.write(tmp_path, content), "--out", tmp_path)
    assert refused.returncode == 2 and "run.epoch: unknown key; did you mean epochs?" in refused.stderr
    assert "run.epoch: unknown key" in stop(tmp_path / "refused_0.txt")["reason"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run(toy.write(tmp_path, toy.raw()), "--out", tmp_path / "file" / "out")
    assert refused.returncode == 2 and "name another --out" in refused.stderr


def test_names_that_submitters_know(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    finished = run(DGXSYSTEM=str(path), LOGDIR=str(tmp_path / "logs"), SEED="77", DATA_DIR="/somewhere")
    assert finished.returncode == 0
    (seed,) = [event["value"] for event in events(tmp_path / "logs" / "result_0.txt") if event["key"] == "seed"]
    assert seed == 77
    assert "DATA_DIR is not read; did you mean DATADIR?" in finished.stderr


def test_target_on_the_command_line(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw())
    assert run(path, "--out", tmp_path, "--target", 0.05).returncode == 0
    assert sum(event["key"] == "eval_start" for event in events(tmp_path / "result_0.txt")) == 1


def test_two_ranks(tmp_path: Path, device: str) -> None:
    path = toy.write(tmp_path, toy.raw(ranks=2, device=device.partition(":")[0]))
    finished = run(path, "--out", tmp_path)
    if device != "cpu" and gpus() < 2:
        assert finished.returncode == 6 and "asks for 2 accelerators" in finished.stdout + finished.stderr
        return
    assert finished.returncode == 0, finished.stdout + finished.stderr
    log = tmp_path / "result_0.txt"
    assert complies(log)
    order = [event["key"] for event in events(log)]
    assert order.count("init_start") == 2 and order.count("run_stop") == 1
    assert finished.stdout.count("RESULT,TOY") == 1


@pytest.mark.long
def test_rank_0_s_last_words_are_not_cut_short_by_ranks_that_have_none(tmp_path: Path) -> None:
    """torchrun sends SIGTERM to all once one has ended with another code than 0; here rank 1 has nothing left to do."""
    finished = run(toy.write(tmp_path, toy.raw("long farewell", ranks=2)), "--out", tmp_path)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "data_fingerprint" in [event["key"] for event in events(tmp_path / "result_0.txt")]
    assert (tmp_path / "result_0.png").is_file()


@pytest.mark.long
def test_a_rank_that_dies_ends_the_run(tmp_path: Path) -> None:
    finished = run(toy.write(tmp_path, toy.raw("rank 1 raises", ranks=2)), "--out", tmp_path)
    assert finished.returncode == 5, finished.stdout + finished.stderr
    assert stop(tmp_path / "result_0.txt")["status"] == "aborted"
    assert "rank 1 broke" in finished.stdout + finished.stderr


@pytest.mark.long
def test_a_resumed_run_goes_on_and_says_so(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    sleeping = toy.write(tmp_path, toy.raw("sleeps"))
    with subprocess.Popen(
        command(sleeping, "--out", tmp_path, "--checkpoint-dir", kept),
        cwd=CHECKOUT,
        env=environment(),
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_for(tmp_path / "result_0.txt", '"epoch_num": 2')
        process.terminate()
    resumed = run(sleeping, "--out", tmp_path, "--checkpoint-dir", kept, "--resume", "--target", 0.05)
    assert resumed.returncode == 2 and "is of a run with another configuration" in resumed.stdout
    refused = run(sleeping, "--out", tmp_path, "--checkpoint-dir", tmp_path / "none", "--resume")
    assert refused.returncode == 2 and "to resume from" in refused.stdout
    with subprocess.Popen(
        command(sleeping, "--out", tmp_path, "--checkpoint-dir", kept, "--resume"),
        cwd=CHECKOUT, env=environment(), stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        wait_for(tmp_path / "result_1.txt", '"epoch_start"')
        process.terminate()
    found = {event["key"]: event for event in events(tmp_path / "result_1.txt")}
    (first,) = [event["value"] for event in events(tmp_path / "result_0.txt") if event["key"] == "seed"]
    assert found["seed"]["value"] == first
    other = run(sleeping, "--out", tmp_path, "--checkpoint-dir", kept, "--resume", "--seed", (first + 1) % 2**32)
    assert other.returncode == 2 and f"of a run with seed {first}" in other.stdout
    assert found["resumed_from_epoch"]["value"] == 1
    assert found["epoch_start"]["metadata"]["epoch_num"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, r"not JSON \(a number or nesting too large\)"),
        ('{"precision": bf16}', r"\{\"precision\": bf16\}: not JSON \(Expecting value in line 1\)"),
        ("[]", "an object is needed"),
    ],
)
def test_what_another_run_chose_is_an_object(text: str, said: str) -> None:
    """Nested a hundred thousand deep it was a RecursionError, and "please report it"."""
    with pytest.raises(ValueError, match=f"--chosen .*{said}") as refused:
        context._chosen(text)
    assert len(str(refused.value)) < 400
