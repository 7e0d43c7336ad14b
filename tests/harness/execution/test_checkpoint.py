"""Checkpoints: the last good one is always there, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness import config, whole
from harness.contract import Context
from harness.execution import checkpoint, ending, lifecycle, preparation
from harness.execution.checkpoint import Checkpoint
from harness.execution.console import Lines, Terminal
from harness.execution.context import Launch
from harness.execution.events import EventLog
from harness.execution.learning_curve import Evaluated, LearningCurve
from harness.execution.run import Ending, Run
from harness.execution.signals import Interrupted
from harness.request import Request
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import begun, events, run, wait_for
from tests.harness.execution.trained.models import harness, numbers
from tests.harness.execution.trained.models import saved as kept_by_a_run
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy

CONFIGURATION = config.parse(toy.raw(epochs=4), name="toy", source="toy")


def saved(epoch: int) -> Checkpoint:
    return Checkpoint(epoch, 7, CONFIGURATION.sha256, {"weight": torch.ones(3) * epoch, "data": b"reader", "step": 5})


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new", saved(1))
    checkpoint.save(tmp_path / "new", saved(2))
    found = checkpoint.load(tmp_path / "new", CONFIGURATION)
    assert (found.epoch, found.seed, found.state["data"], found.state["step"]) == (2, 7, b"reader", 5)
    assert torch.equal(found.state["weight"], torch.full((3,), 2.0))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [checkpoint.NAME]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"order": np.zeros(3)}, r"state\['order'\] is of type numpy.ndarray"),
        ({"best": [0.5, np.float64(0.7)]}, r"state\['best'\]\[1\] is of type numpy.float64"),
        ({"at": {"folder": Path("/")}}, r"state\['at'\]\['folder'\] is of type pathlib.*Path"),
        ({np.int64(3): "a"}, r"the key state\[np.int64\(3\)\] is of type numpy.int64"),
    ],
)
def test_what_could_not_be_read_again_is_not_kept(tmp_path: Path, state: dict[Any, Any], said: str) -> None:
    checkpoint.save(tmp_path, saved(1))
    with pytest.raises(TypeError, match=said):  # and not by who comes with the model of a week's training
        checkpoint.save(tmp_path, replace(saved(2), state=state))
    with pytest.raises(TypeError, match="state is of type NoneType: a dict is needed"):
        checkpoint.save(tmp_path, replace(saved(2), state=None))  # type: ignore[arg-type]
    assert checkpoint.load(tmp_path, CONFIGURATION).epoch == 1


class Order(list[int]):
    """A type of a benchmark's own."""


def test_all_that_torch_reads_without_running_code_is_kept(tmp_path: Path) -> None:
    """The Counter is in every MultiStepLR's state: such a benchmark's run ended at its first checkpoint."""
    weight = torch.nn.Parameter(torch.ones(1))
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([weight], lr=0.1), [2, 4])
    state = {
        "schedule": schedule.state_dict(),
        "forms": [torch.strided, torch.per_tensor_affine, torch.float16, torch.device("cpu"), torch.Size([2])],
    }
    checkpoint.save(tmp_path, replace(saved(1), state=state))
    assert checkpoint.load(tmp_path, CONFIGURATION).state == state

    own = {"order": Order([3, 1])}
    with pytest.raises(TypeError, match=r"state\['order'\] is of type .*Order"):
        checkpoint.save(tmp_path, replace(saved(1), state=own))
    for told in (Order, (Order, f"{__name__}.Order")):
        with torch.serialization.safe_globals([told]):
            checkpoint.save(tmp_path, replace(saved(1), state=own))


def test_a_list_of_numbers_is_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.6 s of timed training, at every save, for the order of a million images."""
    looked, look = [], checkpoint._not_plain

    def counted(value: Any, place: str = "") -> Any:
        looked.append(place)
        return look(value, place)

    monkeypatch.setattr(checkpoint, "_not_plain", counted)
    checkpoint.save(tmp_path, replace(saved(1), state={"order": list(range(9999)), "seen": dict.fromkeys(range(9999))}))
    assert len(looked) < 100


def test_an_interrupted_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, saved(1))

    def half(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, saved(2))
    assert checkpoint.load(tmp_path, CONFIGURATION).epoch == 1


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


LARGE = {"quality": 0.3, "weight": torch.zeros(100_000)}


def test_a_disk_that_fills_while_torch_writes_is_a_full_disk(tmp_path: Path) -> None:
    """It was a RuntimeError of torch's, "unexpected pos", and the run broke with 5 and a traceback of its internals."""
    checkpoint.save(tmp_path, saved(1))
    said = f"{tmp_path}: the checkpoint cannot be written (File too large)"
    with files_of_at_most(100_000), pytest.raises(OSError, match=re.escape(said)) as full:
        checkpoint.save(tmp_path, replace(saved(2), state=LARGE))
    assert full.value.errno == errno.EFBIG
    assert checkpoint.load(tmp_path, CONFIGURATION).epoch == 1


def test_a_signal_that_comes_while_torch_writes_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 100_000:
                raise Interrupted(signal.SIGTERM)
            return super().write(content)

    checkpoint.save(tmp_path, saved(1))
    monkeypatch.setattr(whole, "replacing", lambda _: contextlib.nullcontext(Half()))
    with pytest.raises(Interrupted, match="SIGTERM"):
        checkpoint.save(tmp_path, replace(saved(2), state={**LARGE, "more": torch.ones(100_000)}))


def test_a_fault_of_the_device_is_not_what_was_being_handled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of the end is written where a picture may just have met a full disk."""

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(torch, "save", broken)
    try:
        raise OSError(errno.ENOSPC, "of a picture")
    except OSError:
        with pytest.raises(RuntimeError, match="an illegal memory access"):
            checkpoint.save(tmp_path, saved(1))


def test_a_run_that_goes_on_takes_what_was_chosen_before(tmp_path: Path) -> None:
    """By a burst of other work init chose another number format, and an unattended restart was refused."""
    before = replace(saved(1), state={"quality": 0.3, "chosen": {"precision": "bf16"}})
    assert preparation._chosen(Request(), None) is preparation._chosen(Request(), saved(1)) is None
    assert preparation._chosen(Request(), before) == '{"precision": "bf16"}'
    assert preparation._chosen(Request(chosen="{}"), before) == "{}"


def test_what_torch_itself_finds_wrong_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        try:
            raise KeyError("storage")
        except KeyError as error:
            raise RuntimeError("no such storage") from error

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match="no such storage"):
        checkpoint.save(tmp_path, saved(1))


@pytest.mark.parametrize("after", [False, True], ids=["in training", "after run_stop"])
def test_a_model_that_could_not_be_kept_is_not_called_the_run_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, after: bool
) -> None:
    """With the target met and 0, an earlier epoch's best.pt was named as if it were that of the epoch that met it."""
    kept, configuration = tmp_path / "kept", CONFIGURATION
    log = EventLog.create(tmp_path)
    history = LearningCurve("accuracy", 0.25, 4)
    run_of = Run(
        configuration, Request(checkpoint_dir=kept), Launch(), log, log, Lines(log.plain), history, asking=False
    )
    session: Any = SimpleNamespace(state=lambda: LARGE)
    here = Context(device="cpu")
    history.evaluations.append(Evaluated(1, 0.2, 0.1, 0.1))
    lifecycle._save(run_of, here, session, 1)
    how = ending.stop(run_of, Ending(0, "")) if after else None
    history.evaluations.append(Evaluated(2, 0.3, 0.1, 0.2))
    with files_of_at_most(100_000), pytest.raises(OSError, match="File too large") as full:
        lifecycle._save(run_of, here, session, 2)
    how = ending.stop(run_of, ending.of_error(run_of, full.value))
    assert how.exit_code == (0 if after else 6)
    assert ending.conclude(run_of, how) == how
    told = capsys.readouterr().out
    assert f"no room on the disk: [Errno 27] {kept}: the checkpoint cannot be written (File too large)" in told
    assert f"model    {kept / 'best.pt'} (of an earlier epoch: that of epoch 2 could not be kept)\n" in told
    assert checkpoint.trained(kept).checkpoint.epoch == 1


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to resume from"):
        checkpoint.load(tmp_path, CONFIGURATION)
    checkpoint.save(tmp_path, saved(1))
    other = config.parse(toy.raw(epochs=5), name="toy", source="toy")
    with pytest.raises(
        ValueError, match=r"of a run with another configuration \(an older version does not say in what"
    ):
        checkpoint.load(tmp_path, other)
    checkpoint.save(tmp_path, replace(saved(1), configuration=CONFIGURATION.resolved))
    with pytest.raises(
        ValueError, match=r"configuration \(run.epochs was 4 and is 5, run.evaluate_after_epochs was \[1, 2, 3, 4"
    ):
        checkpoint.load(tmp_path, other)
    checkpoint.save(tmp_path, saved(4))
    with pytest.raises(ValueError, match="of the last epoch, 4: nothing is left to train"):
        checkpoint.load(tmp_path, CONFIGURATION)
    file = tmp_path / checkpoint.NAME
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
        checkpoint.load(tmp_path, CONFIGURATION)


# --- the best one, and what a finished run leaves ----------------------------------------------------------------------


def test_the_best_one_stays_where_later_ones_are_worse(tmp_path: Path) -> None:
    for epoch, (quality, best) in enumerate([(0.2, 0.2), (0.5, 0.5), (None, 0.5), (0.4, 0.5)], start=1):
        checkpoint.save(tmp_path, replace(saved(epoch), quality=quality, best=best))
    found = {
        name: Checkpoint(**torch.load(tmp_path / name, weights_only=True))
        for name in (checkpoint.NAME, checkpoint.BEST)
    }
    assert {name: each.epoch for name, each in found.items()} == {checkpoint.NAME: 4, checkpoint.BEST: 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.BEST, checkpoint.NAME]


def test_without_links_the_best_one_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError("no such links here")

    monkeypatch.setattr(Path, "hardlink_to", none)
    checkpoint.save(tmp_path, replace(saved(1), quality=0.5, best=0.5))
    first, second = ((tmp_path / name).read_bytes() for name in (checkpoint.NAME, checkpoint.BEST))
    assert first == second


def test_a_finished_run_leaves_the_epoch_that_met_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The target is met in epoch 3: that epoch's model, not the one before it, and off the clock."""
    path, kept = toy.write(tmp_path, toy.raw(epochs=4)), tmp_path / "kept"
    finished = run(path, "--out", tmp_path, "--checkpoint-dir", kept)
    assert finished.returncode == 0, finished.stdout
    assert f"picture  {tmp_path / 'result_0.png'}\n" in finished.stdout
    assert f"model    {kept / checkpoint.BEST}\n" in finished.stdout
    found = checkpoint.trained(kept)
    assert (found.path.name, found.checkpoint.epoch, found.checkpoint.target_met) == (checkpoint.BEST, 3, True)
    assert found.checkpoint.state["quality"] == found.checkpoint.quality == pytest.approx(0.3)
    assert found.configuration.resolved == config.load(path).resolved
    keys = [event["key"] for event in events(tmp_path / "result_0.txt")]
    assert keys.index("run_stop") < keys.index("data_fingerprint"), "nothing is written between them"
    again = run(path, "--out", tmp_path, "--checkpoint-dir", kept, "--from-checkpoint")
    assert again.returncode == 2 and "met the target: nothing is left to train" in again.stdout
    # and it can be used: two commands
    code, out, _ = harness(capsys, "detect", kept, *numbers(tmp_path / "seen", [1]))
    assert code == 0 and out.startswith("toy after epoch 3, accuracy 0.3000\n") and "0.30  odd" in out


def test_the_seconds_of_a_part_are_no_result(tmp_path: Path) -> None:
    """A script that reads RESULT took a run of half of its epochs for twice as fast."""
    path, kept = toy.write(tmp_path, toy.raw(epochs=4)), tmp_path / "kept"
    configuration = config.load(path)
    content: Any = {"configuration": configuration.resolved, "configuration_name": "toy", "metric": "accuracy"}
    checkpoint.save(kept, Checkpoint(2, 7, configuration.sha256, {"quality": 0.2}, **content))
    resumed = run(path, "--out", tmp_path, "--checkpoint-dir", kept, "--from-checkpoint")
    assert resumed.returncode == 0, resumed.stdout
    assert "no RESULT: the run went on after epoch 2" in resumed.stdout and "RESULT,TOY" not in resumed.stdout


def test_a_run_that_goes_on_keeps_the_best_of_the_one_before(tmp_path: Path) -> None:
    path, kept = toy.write(tmp_path, toy.raw("stands still", epochs=3, target=0.9)), tmp_path / "kept"
    configuration = config.load(path)
    content = {"configuration": configuration.resolved, "configuration_name": "toy", "metric": "quality"}
    good: Any = {**content, "quality": 0.8, "best": 0.8}
    checkpoint.save(kept, Checkpoint(1, 7, configuration.sha256, {"quality": 0.1}, **good))
    ended = run(path, "--out", tmp_path, "--checkpoint-dir", kept, "--from-checkpoint", EVERY_S="0")
    assert ended.returncode == 1 and "epochs spent: accuracy 0.8000 after 3 epochs" in ended.stdout, "its model's"
    shares = [line.split()[2] for line in ended.stdout.splitlines() if "of the run's images" in line]
    assert shares == ["50.0%", "66.7%", "83.3%", "100.0%"], "a third was done before"
    best, last = (checkpoint.trained(kept / name).checkpoint for name in (checkpoint.BEST, checkpoint.NAME))
    assert (best.epoch, best.quality) == (1, 0.8)
    assert (last.epoch, last.quality, last.best) == (3, pytest.approx(0.1), 0.8)


def test_the_bar_of_a_run_that_goes_on_begins_where_it_was() -> None:
    screen = Terminal(lambda _: None)
    screen.started(LearningCurve("accuracy", 0.9, 4), 32.0, 28.0)
    (shown,) = [task for task in screen._bar.tasks if task.visible]
    screen.close()
    assert shown.percentage == 87.5


@pytest.mark.parametrize(
    ("evaluated", "before", "said"),
    [
        ([0.1, 0.3], None, "accuracy 0.3000 after epoch 4, target 0.9"),
        ([0.1, 0.3], 0.3, "accuracy 0.3000 after epoch 4, target 0.9"),
        ([0.1, 0.3], 0.8, "accuracy 0.8000 by epoch 2, target 0.9"),
        ([], 0.8, "accuracy 0.8000 by epoch 2, target 0.9"),
        ([], None, "of --max-steps 9, target 0.9"),
    ],
)
def test_what_was_reached_is_that_of_the_whole_run(evaluated: list[float], before: float | None, said: str) -> None:
    history = LearningCurve("accuracy", 0.9, 9)
    history.evaluations += [Evaluated(epoch, quality, 0.1, 0.1) for epoch, quality in enumerate(evaluated, start=3)]
    gone_on: Any = SimpleNamespace(request=Request(max_steps=9), history=history, best_kept=before, resumed_after=2)
    assert lifecycle._steps_spent(gone_on).reason.endswith(said)


def test_a_best_one_that_a_kill_or_a_full_disk_left_out_is_kept_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came between the two files: the run went on to overwrite the only one that there was."""
    path, kept = toy.write(tmp_path, toy.raw("stands still", epochs=3, target=0.9)), tmp_path / "kept"
    configuration = config.load(path)
    content: Any = {"configuration": configuration.resolved, "configuration_name": "toy", "metric": "quality"}
    good = Checkpoint(1, 7, configuration.sha256, {"quality": 0.1}, **content, quality=0.8, best=0.8)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(whole, "same", full)
        checkpoint.save(kept, good)
    assert run(path, "--out", tmp_path, "--checkpoint-dir", kept, "--from-checkpoint").returncode == 1
    best = checkpoint.trained(kept).checkpoint
    assert (best.epoch, best.quality) == (1, 0.8)


def test_what_kills_left_of_checkpoints_does_not_fill_the_disk(tmp_path: Path) -> None:
    """Each kill while one was written left its megabytes under a hidden name, for ever."""
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=CHECKOUT, check=False, timeout=PATIENCE_S)
    assert killed.returncode == -9
    (other := tmp_path / ".checkpoint.pt.mine.part").write_text("a person's")
    assert len(content(tmp_path)) == 2, "the unfinished one is there"
    with checkpoint.of_one_run(tmp_path):
        assert list(content(tmp_path)) == [other.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from harness import whole
with whole.replacing(Path(sys.argv[1], "checkpoint.pt")) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_two_runs_do_not_share_a_folder_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set the other's aside or wrote over them, and both said that the model there was theirs. A kill gives it back."""
    kept, path = tmp_path / "kept", toy.write(tmp_path, toy.raw("sleeps"))
    words = (path, "--out", tmp_path / "out", "--checkpoint-dir", kept)
    with begun("run", *words) as first:
        wait_for(tmp_path / "out" / "result_0.txt", '"epoch_num": 2')
        before = content(kept)
        for more in ((), ("--from-checkpoint",)):
            second = run(*words, *more)
            assert second.returncode == 2, second.stdout
            assert f"--checkpoint-dir {kept}: another run keeps its checkpoints there" in second.stdout
        assert content(kept) == before
        first.kill()
    with checkpoint.of_one_run(kept):
        pass
    assert content(kept) == before


def test_a_child_that_outlives_its_run_does_not_hold_its_checkpoints(tmp_path: Path) -> None:
    """As a loader's worker, forked, whose run was killed, or that is slow to end."""
    (reading, writing), (told, tells) = os.pipe(), os.pipe()
    with checkpoint.of_one_run(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.write(tells, b"!")
            os.read(reading, 1)
            os._exit(0)
        os.read(told, 1)
        with pytest.raises(ValueError, match="another run"), checkpoint.of_one_run(tmp_path):
            pass
        held = tmp_path / checkpoint.LOCK
        assert not [each for each in Path(f"/proc/{child}/fd").iterdir() if each.readlink() == held]
    for each in (writing, reading, told, tells):
        os.close(each)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file that says who holds it would be there for ever of a run that was killed, and put back into the queue elsewhere."""

    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    (writing := tmp_path / f".checkpoint.pt.{'0' * 16}.part").write_text("perhaps another's, who is at it")
    with checkpoint.of_one_run(tmp_path), checkpoint.of_one_run(tmp_path):
        assert writing.exists()
    with checkpoint.of_one_run(tmp_path):
        pass


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but the lock, which stays."""
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != checkpoint.LOCK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in there}


def test_a_better_model_of_another_run_is_set_aside_and_stays_usable(tmp_path: Path) -> None:
    """Another configuration's, or the same command once more: the first run's 0.3 never becomes the second's 0."""
    first, kept = toy.write(tmp_path, toy.raw(epochs=4)), tmp_path / "kept"
    assert run(first, "--out", tmp_path, "--checkpoint-dir", kept).returncode == 0
    before = content(kept)
    second = toy.write(tmp_path, toy.raw("stands still", epochs=1, target=0.9), "other")
    for number in range(2):
        aside = kept / f"{checkpoint.EARLIER}{number}"
        ended = run(second, "--out", tmp_path, "--checkpoint-dir", kept)
        assert ended.returncode == 1
        said = f"{kept} had the checkpoints of an earlier run; they are in {aside} now"
        assert said in ended.stdout and said in (tmp_path / f"result_{number + 1}.txt").read_text()
        assert f"model    {kept / checkpoint.BEST}" in ended.stdout
        own = checkpoint.trained(kept)
        assert (own.checkpoint.configuration_name, own.checkpoint.quality) == ("other", 0.0)
        earlier = checkpoint.trained(aside).checkpoint
        assert earlier.configuration_name == ("toy", "other")[number]
    assert content(kept / f"{checkpoint.EARLIER}0") == before


def test_a_run_that_saved_nothing_leaves_another_s_as_they_were_and_calls_none_its_own(tmp_path: Path) -> None:
    first, kept = toy.write(tmp_path, toy.raw(epochs=4)), tmp_path / "kept"
    assert run(first, "--out", tmp_path, "--checkpoint-dir", kept).returncode == 0
    before = content(kept)
    second = toy.write(tmp_path, toy.raw("stands still", epochs=2, target=0.9), "other")
    ended = run(second, "--out", tmp_path, "--checkpoint-dir", kept, "--max-steps", 1)
    assert ended.returncode == 1 and "steps spent: 1" in ended.stdout
    assert "model    none: the run ended before the end of its first epoch" in ended.stdout
    assert content(kept) == before


def test_what_goes_on_sets_nothing_aside(tmp_path: Path) -> None:
    path, kept = toy.write(tmp_path, toy.raw("stands still", epochs=3, target=0.9)), tmp_path / "kept"
    steps = ("--out", tmp_path, "--checkpoint-dir", kept)
    assert run(path, *steps, "--max-steps", 5).returncode == 1
    ended = run(path, *steps, "--from-checkpoint")
    assert ended.returncode == 1 and f"model    {kept / checkpoint.BEST}" in ended.stdout
    assert sorted(content(kept)) == [checkpoint.BEST, checkpoint.NAME]


# --- what is none, or is not to be trusted -----------------------------------------------------------------------------


class Hostile:
    """Pickled, a file made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"epoch": Hostile(mark)}))


def in_torch_s_form(path: Path, mark: Path) -> None:
    content = vars(replace(saved(1), configuration=CONFIGURATION.resolved, configuration_name="toy"))
    torch.save({**content, "state": {"quality": Hostile(mark)}}, path)


@pytest.mark.parametrize("write", [plain_pickle, in_torch_s_form])
def test_a_hostile_one_is_refused_and_nothing_in_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path, Path], None]
) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "checkpoint.pt"
    write(path, mark)
    for words in (("detect", path, path), ("export", path, tmp_path / "x.onnx"), ("inference", path)):
        code, out, errors = harness(capsys, *words)
        assert code == 2 and not out and "is damaged or not a checkpoint" in errors, errors
        assert "weights_only" not in errors, "nobody is told how to run it all the same"
    with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
        checkpoint.load(tmp_path, CONFIGURATION)
    assert not mark.exists()


def test_a_benchmark_that_nobody_knows_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil", "evil.toy", "tests.evil", "benchmarks", ""):
        kept_by_a_run(tmp_path / "kept", configuration={**CONFIGURATION.resolved, "benchmark": name})
        with pytest.raises(
            ValueError, match=rf"is of the benchmark {name}, which is not known here; known are: benchmarks"
        ):
            checkpoint.trained(tmp_path / "kept")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged or not a checkpoint"),
        (b"\xff\xd8\xff\xe0 a picture", "is damaged or not a checkpoint"),
        (b"PK\x03\x04 a broken archive", "is damaged or not a checkpoint"),
        ({"conv1.weight": torch.ones(3)}, "it has other content"),
        ([1, 2], "it has other content"),
        ({"epoch": 1}, "it lacks something"),
        ({**vars(saved(1)), "epoch": "one"}, "it lacks something"),
        (vars(saved(1)), "does not say what it is of: an older version made it"),
        ({**vars(saved(1)), "configuration": {"benchmark": "tests.toy"}}, "run: missing; needed: a table"),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=says) as refusal:
        checkpoint.trained(path)
    assert str(path) in str(refusal.value)


def test_other_weights_than_were_kept_are_no_checkpoint(tmp_path: Path) -> None:
    """One bit of a copy or a disk: torch reads it without a word."""
    path = tmp_path / checkpoint.NAME
    checkpoint.save(tmp_path, replace(saved(1), state={"weight": torch.full((1000,), 0.7)}))
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(0.7).numpy().tobytes()) + 1] ^= 4
    path.write_bytes(content)
    for read in (lambda: checkpoint.load(tmp_path, CONFIGURATION), lambda: checkpoint.trained(path)):
        with pytest.raises(ValueError, match=r"is damaged .*\(the checksum of its part .*/data/0 is wrong\)"):
            read()


def test_where_there_is_none_the_command_that_makes_one_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(ValueError, match=r"harness run CONFIGURATION --checkpoint-dir"):
            checkpoint.trained(path)


def test_a_picture_is_no_checkpoint_and_no_danger_either(tmp_path: Path) -> None:
    for name, content, why in (
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "it begins like none"),
        ("empty", b"", "it begins like none"),
        ("code", pickle.dumps(Path), "it would run code when read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged or not a checkpoint of this version \({why}\)"):
            checkpoint.trained(tmp_path / name)
