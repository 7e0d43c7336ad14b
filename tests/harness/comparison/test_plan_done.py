"""A plan done block by block: the right driver each time, through reboots, kills and changes in between."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from harness import git
from harness.comparison import identity
from harness.comparison.comparison import NOT_COMPARABLE, Question, compare
from harness.comparison.planning import child, hosts, plan, work
from harness.execution import signals
from harness.exit_codes import BROKEN, INTERRUPTED, NOT_SUITABLE
from harness.launch.ledger import Account
from harness.launch.process import LocalProcess
from tests.conftest import CHECKOUT
from tests.harness.comparison import arms
from tests.harness.comparison.standin import NEW, OLD, Machine, go, machine
from tests.harness.execution.runs import until

COMPAT = "/usr/local/cuda/compat/libcuda.so.595.10"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plan.write(plan.make("embedded", ["old", "new"], hosts=1, runs=3), tmp_path / "plan")
    return tmp_path / "plan"


def test_a_whole_plan_over_two_drivers(root: Path) -> None:
    said: list[str] = []
    assert go(root, Machine(OLD), "boot 1", said) == 0
    assert "install its driver and reboot. Then type" in said[-1] and f"compare run {root}" in said[-1]
    assert go(root, Machine(NEW, slower=1.013), "boot 2", said) == 0
    assert "arm new again: reboot, with the same driver" in said[-1]
    assert go(root, Machine(NEW, slower=1.013), "boot 3", said) == 0
    assert f"install its driver ({OLD}) and reboot" in said[-1]
    assert go(root, Machine(OLD), "boot 4", said) == 0
    assert "all runs of host 1 are done" in said[-1] and "Arm old at the end differed by " in said[-1]
    assert "left here" in "".join(said)

    found = compare(str(root / "arms/old"), str(root / "arms/new"), Question())
    assert [sum(run.arm == arm for run in found.runs) for arm in (0, 1)] == [6, 6], "warm-ups are elsewhere"
    assert found.word == "SLOWER"
    estimate = found.rows[0].judged.estimate
    assert estimate is not None and (estimate.level, estimate.units) == ("block", (2, 2))


def test_each_arm_is_probed_once_as_it_begins(root: Path) -> None:
    """Before its first warm-up, with its own driver, into the folder above its runs; one that fails costs nothing."""
    probed: list[tuple[int, str, int]] = []
    said: list[str] = []

    def run(driver: str, boot: str) -> None:
        on = Machine(driver)

        def probe(made: plan.Plan, arm: int, folder: Path) -> str:
            probed.append((arm, folder.relative_to(root).as_posix(), on.started))
            return "No such option: --out" if arm == 1 else ""

        assert go(root, on, boot, said, probe=probe) == 0

    for driver, boot in ((OLD, "1"), (NEW, "2"), (NEW, "3"), (OLD, "4")):
        run(driver, boot)
    assert probed == [(0, "arms/old", 0), (1, "arms/new", 0)]
    assert "arm new has no probe: No such option: --out; its runs go on without" in said
    assert plan.read(root).probe
    (root / plan.FILE).write_text((root / plan.FILE).read_text().replace(', "probe": true', ""))
    assert plan.read(root), "the plans of before"


def test_arms_by_turns_are_both_probed_first(tmp_path: Path) -> None:
    plan.write(plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=1, runs=1), tmp_path)
    probed: list[int] = []
    go(tmp_path, Machine(OLD), "boot", probe=lambda _, arm, __: probed.append(arm) or "")  # type: ignore[func-returns-value]
    assert probed == [0, 1]
    plan.write(plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=1, runs=1, probe=False), tmp_path / "without")
    go(tmp_path / "without", Machine(OLD), "boot", probe=lambda *_: pytest.fail("nobody asked for it"))


def test_the_driver_must_have_changed(root: Path) -> None:
    go(root, Machine(OLD), "boot 1")
    with pytest.raises(work.NotDue, match="the driver is still that of old"):
        go(root, Machine(OLD), "boot 2")


def test_the_driver_must_be_the_arms_own(root: Path) -> None:
    go(root, Machine(OLD), "boot 1")
    go(root, Machine(NEW), "boot 2")
    other = Machine("595.10.00")
    with pytest.raises(work.NotDue, match=r"whose driver was 590.44.01.*kernel module is 595.10.00, was 590.44.01"):
        go(root, other, "boot 3")
    assert not other.ran


def test_a_version_string_is_not_enough(root: Path) -> None:
    """The kernel module is the arm's, the firmware in the GPU is still the other driver's."""
    go(root, Machine(OLD), "boot 1")
    go(root, Machine(NEW), "boot 2")
    stale = Machine(NEW)
    stale.tables = machine(NEW, firmware=OLD)
    with pytest.raises(work.NotDue, match=r"GSP firmware is 580\.65\.06, was 590\.44\.01"):
        go(root, stale, "boot 3")


def test_two_blocks_of_an_arm_need_a_reboot_between_them(root: Path) -> None:
    go(root, Machine(OLD), "boot 1")
    go(root, Machine(NEW), "boot 2")
    with pytest.raises(work.NotDue, match="still the same boot"):
        go(root, Machine(NEW), "boot 2")
    assert go(root, Machine(NEW), "boot 3") == 0


def test_a_host_whose_libcuda_is_an_images_is_refused(root: Path) -> None:
    replaced = Machine(OLD)
    replaced.tables = machine(OLD, libcuda=COMPAT)
    assert replaced.tables["software"]["driver_mode"] == "FORWARD-COMPAT"
    with pytest.raises(work.NotDue, match=f"libcuda comes from {COMPAT}"):
        go(root, replaced, "boot 1")
    assert not hosts.folder(root, 1).exists()


def test_an_image_that_replaces_the_driver_is_found_out_by_its_first_run(root: Path) -> None:
    said: list[str] = []
    image = Machine(OLD, inside=machine(OLD, libcuda=COMPAT))
    assert go(root, image, "boot 1", said) == 6
    assert "the image's cuda-compat took the place of the driver under test" in said[-1]
    assert len(image.ran) == 1, "the warm-up found it"
    assert not list((root / "arms").rglob("result_0.txt"))


def test_a_machine_without_a_driver_has_no_driver_arms(root: Path) -> None:
    """Its module failed to load after the reboot: as a machine of no GPU it took the place of another host for good."""
    from harness.system import facts
    from tests.harness.system import recorded

    bare = Machine(OLD)
    bare.tables = facts.describe(recorded.machine(recorded.BARE))
    with pytest.raises(work.NotDue, match="shows no driver"):
        go(root, bare, "boot 1")
    assert not hosts.folder(root, 1).exists()
    plan.write(plan.make("embedded", ["old", "new"], hosts=2, runs=1), root / "two")
    assert go(root / "two", Machine(OLD), "boot 1") == 0
    with pytest.raises(work.NotDue, match="shows no driver"):
        go(root / "two", bare, "boot 2")
    assert not hosts.folder(root / "two", 2).exists(), "it is host 1, without its driver"


def test_a_second_host_runs_in_opposite_order(tmp_path: Path) -> None:
    plan.write(plan.make("embedded", ["old", "new"], hosts=2, runs=1), tmp_path)
    first, second = Machine(OLD), Machine(NEW)
    second.tables = second.inside = machine(NEW, uuid="GPU-2")
    go(tmp_path, first, "boot 1")
    go(tmp_path, second, "boot 1")
    assert second.ran == ["host-2_block-1_warm-up-1", "host-2_block-1_run-1"]
    assert (tmp_path / "arms/new/host-2_block-1_run-1/result_0.txt").exists()
    third = Machine(OLD)
    third.tables = machine(OLD, uuid="GPU-3")
    with pytest.raises(ValueError, match="no place in the plan"):
        go(tmp_path, third, "boot 1")
    with pytest.raises(ValueError, match="is host 1 of the plan"):
        go(tmp_path, first, "boot 2", host=2)


def second(driver: str, *, flavour: str = "open", uuid: str = "GPU-2") -> Machine:
    """Another machine than `Machine`'s own."""
    on = Machine(driver)
    on.tables = machine(driver, uuid=uuid)
    on.tables["software"]["driver_flavour"] = flavour
    on.inside = on.tables
    return on


def test_an_arm_is_one_driver_on_all_hosts(tmp_path: Path) -> None:
    """The second host begins with the new driver and had the old one still: its arms were swapped without a word."""
    plan.write(plan.make("embedded", ["old", "new"], hosts=2, runs=1, probe=False), tmp_path)
    said: list[str] = []
    for boot, driver in enumerate((OLD, NEW, NEW, OLD)):
        go(tmp_path, Machine(driver), f"boot {boot}", said)
    assert f"Host 2 is next, with arm new: install its driver ({NEW}) and reboot there" in said[-1]
    wrong = second(OLD)
    with pytest.raises(work.NotDue, match=rf"arm new, whose driver was {NEW} .* on host 1; now kernel module is {OLD}"):
        go(tmp_path, wrong, "boot 11")
    assert not wrong.ran
    assert go(tmp_path, second(NEW), "boot 12", said) == 0
    assert f"Block 2 is of arm old: install its driver ({OLD}) and reboot" in said[-1]
    with pytest.raises(work.NotDue, match="arm old, and the driver is still that of new"):
        go(tmp_path, second(NEW), "boot 13")
    for boot, driver in enumerate((OLD, OLD, NEW, OLD), 14):
        assert go(tmp_path, second(driver), f"boot {boot}", said) == 0
    assert "2 of 2 hosts are" in said[-1] and "is next" not in said[-1]
    assert compare(str(tmp_path / "arms/old"), str(tmp_path / "arms/new"), Question()).exit_code != NOT_COMPARABLE


def test_a_second_host_does_not_begin_with_the_first_one_s_driver(tmp_path: Path) -> None:
    """While the first has done one block alone, and nobody knows yet what the other driver will be."""
    plan.write(plan.make("embedded", ["old", "new"], hosts=3, runs=1, probe=False), tmp_path)
    go(tmp_path, Machine(OLD), "boot 1")
    with pytest.raises(work.NotDue, match=rf"arm new, and the driver is that of old on host 1: {OLD}"):
        go(tmp_path, second(OLD), "boot 11")
    assert go(tmp_path, second(NEW), "boot 12") == 0
    with pytest.raises(work.NotDue, match=rf"arm new, whose driver was {NEW} .* on host 2; now kernel module is 595"):
        go(tmp_path, Machine("595.10.00"), "boot 2")
    assert go(tmp_path, second(OLD, uuid="GPU-3"), "boot 21") == 0


def test_a_host_goes_on_though_another_began_with_the_wrong_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before did, and two hosts that begin in the same moment: no driver was right for the first one then."""
    plan.write(plan.make("embedded", ["old", "new"], hosts=2, runs=1, probe=False), tmp_path)
    for boot, driver in enumerate((OLD, NEW, NEW)):
        go(tmp_path, Machine(driver), f"boot {boot}")
    with monkeypatch.context() as before:
        before.setattr(work.drivers, "why_not", lambda *_: "")
        assert go(tmp_path, second(OLD), "boot 11") == 0
    assert go(tmp_path, Machine(OLD), "boot 4") == 0


def test_arms_that_differ_in_what_one_of_them_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GSP firmware off tells none: a second host's arms were swapped all the same."""
    made = plan.make("embedded", ["on", "off"], hosts=2, runs=1, probe=False)
    on = identity.Identity(OLD, "open", "/usr/lib/libcuda.so.1", OLD, OLD, OLD, "NATIVE")
    off = replace(on, firmware="")
    monkeypatch.setattr(work.drivers, "_begun", lambda *_: iter([(2, {}), (1, {"on": on, "off": off})]))
    asked = [[work.drivers.why_not(tmp_path, made, 2, arm, now) for now in (on, off)] for arm in (0, 1)]
    assert [[bool(each) for each in arm] for arm in asked] == [[False, True], [True, False]]


def test_a_host_s_own_flavour_of_the_drivers_is_no_other_driver(tmp_path: Path) -> None:
    """Not every GPU has the open module: `compare` takes hosts of unlike flavours, each alike in itself."""
    plan.write(plan.make("embedded", ["old", "new"], hosts=2, runs=1, probe=False), tmp_path)
    for boot, driver in enumerate((OLD, NEW, NEW, OLD)):
        go(tmp_path, Machine(driver), f"boot {boot}")
    for boot, driver in enumerate((NEW, OLD, OLD, NEW, OLD), 11):
        assert go(tmp_path, second(driver, flavour="proprietary"), f"boot {boot}") == 0
    assert compare(str(tmp_path / "arms/old"), str(tmp_path / "arms/new"), Question()).exit_code != NOT_COMPARABLE


@pytest.mark.parametrize("what", ["commit", "configuration_sha256"])
def test_a_second_host_does_the_first_ones_work(tmp_path: Path, what: str) -> None:
    """On a checkout of another commit it did all of its runs, and each host alone was in order."""
    plan.write(plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=2, runs=1), tmp_path)
    said: list[str] = []
    codes = []
    for host, digit in ((1, "a"), (2, "b")):
        on = Machine(OLD, change=arms.put(what, digit * 40))
        on.tables = on.inside = machine(OLD, uuid=f"GPU-{host}")
        codes.append(go(tmp_path, on, "boot", said))
    assert codes == [0, NOT_SUITABLE]
    assert "is not what the plan began with" in said[-1] and f"was {'a' * 12}" in said[-1].replace("was commit", "was")


def test_killed_and_rebooted_between_and_within_blocks(root: Path) -> None:
    """SIGKILL with half a log written, in every block; then the same command again."""

    def call(driver: str, boot: str, *die_at: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.harness.comparison.standin", str(root), driver, boot, *die_at]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert call(OLD, "boot 1", "3").returncode == -9  # in its second run
    assert call(NEW, "boot 2").stderr.startswith("refused: block 1 is of arm old")
    done = call(OLD, "boot 3")
    assert done.returncode == 0, done.stderr
    assert call(NEW, "boot 4", "1").returncode == -9  # in the warm-up
    assert call(NEW, "boot 5").returncode == 0
    assert call(NEW, "boot 6").returncode == 0
    assert call(OLD, "boot 7", "4").returncode == -9  # in the last run
    assert call(OLD, "boot 8").returncode == 0

    broken = sorted(each.name for each in (root / "broken").iterdir())
    assert broken == ["host-1_block-1_run-2.1", "host-1_block-2_warm-up-1.1", "host-1_block-4_run-3.1"]
    logs = sorted((root / "arms").rglob("result_0.txt"))
    assert len(logs) == 12
    account = Account.read(hosts.folder(root, 1) / "ledger.jsonl")
    order = [entry["folder"].split("/")[-1] for entry in account.entries if entry["event"] == "trial_start"]
    again = order.index("host-1_block-1_run-2_attempt-2")
    assert order[again - 1] == "host-1_block-1_warm-up-1_attempt-2", "a machine that just booted is warmed up again"
    found = compare(str(root / "arms/old"), str(root / "arms/new"), Question())
    assert found.exit_code == 0


def test_a_run_that_fails_ends_it_and_is_done_again(root: Path) -> None:
    machine_ = Machine(OLD)
    codes = iter([0, 5, 0, 0, 0, 0])

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        code = next(codes)
        return code or Machine.launch(machine_, made, item, folder)

    made = plan.read(root)
    here = work.Here.of(machine_.tables, "boot 1")
    number = hosts.claim(root, made, here.host)
    said: list[str] = []
    assert work.Work(root, made, number, here, launch, said.append, "again").run() == 5
    assert "ended with exit code 5" in said[-1]
    assert work.Work(root, made, number, here, launch, said.append, "again").run() == 0


def test_a_run_that_is_none_is_put_aside_by_the_next_call_where_the_first_could_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a full disk, or a kill in this moment: its log lay among those that count, and looks like one of them."""
    commit = "f0" * 20
    other = Machine(OLD, change=arms.put("commit", commit))
    right = Machine(OLD)
    made, here = plan.read(root), work.Here.of(right.tables, "boot 1")
    number = hosts.claim(root, made, here.host)

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        return (right if item.kind == "warm-up" else other).launch(made, item, folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(work, "put_aside", full)
        work.Work(root, made, number, here, launch, lambda _: None, "again").run()
    assert work.Work(root, made, number, here, right.launch, lambda _: None, "again").run() == 0
    logs = sorted((root / "arms").rglob("result_0.txt"))
    assert len(logs) == 3 and not any(commit in each.read_text() for each in logs)
    assert commit in next((root / "broken").rglob("result_0.txt")).read_text()


def test_a_signal_while_a_run_s_end_is_entered_does_not_lose_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on = Machine(OLD)
    judged = work.as_planned.record_in

    def record_in(folder: Path) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return judged(folder)

    monkeypatch.setattr(work.as_planned, "record_in", record_in)
    with pytest.raises(signals.Interrupted), signals.as_exceptions():
        go(root, on, "boot 1")
    account = Account.read(hosts.folder(root, 1) / "ledger.jsonl")
    assert [each.status for each in account.attempts] == ["success"], "it had come to its end"


def test_nor_does_one_while_it_is_seen_to_that_nothing_of_it_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, on = LocalProcess.close, Machine(OLD)

    def close_and_hear(running: LocalProcess) -> None:
        signal.raise_signal(signal.SIGTERM)
        close(running)

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        on.launch(made, item, folder)
        told: Any = {"seed": 1, "root": root, "environment": dict(os.environ), "say": print}
        return child.start(made, made.arms[0], folder, **told)

    monkeypatch.setattr(LocalProcess, "close", close_and_hear)
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", ""])
    made, here = plan.read(root), work.Here.of(on.tables, "boot 1")
    number = hosts.claim(root, made, here.host)
    with pytest.raises(signals.Interrupted), signals.as_exceptions():
        work.Work(root, made, number, here, launch, lambda _: None, "again").run()
    account = Account.read(hosts.folder(root, 1) / "ledger.jsonl")
    assert [each.status for each in account.attempts] == ["success"]


def test_code_that_changes_between_blocks_is_found_at_once(root: Path) -> None:
    said: list[str] = []
    go(root, Machine(OLD), "boot 1")
    go(root, Machine(NEW), "boot 2")
    later = Machine(NEW)

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        code = Machine.launch(later, made, item, folder)
        log = folder / "result_0.txt"
        log.write_text(log.read_text().replace("c" * 40, "d" * 40))
        return code

    made, here = plan.read(root), work.Here.of(later.tables, "boot 3")
    assert work.Work(root, made, hosts.claim(root, made, here.host), here, launch, said.append, "again").run() == 6
    assert f"the code is not what the plan began with: commit {'d' * 40}, was commit {'c' * 40}" in said[-1]


@pytest.mark.parametrize(("change", "fine"), [({"runs": 2}, False), ({"seed": 9}, False), ({"hosts": 3}, True)])
def test_a_plan_that_is_changed_while_it_is_done(root: Path, change: dict[str, int], fine: bool) -> None:
    """Runs are known by their place in the schedule: with another schedule, what is done would be something else."""
    assert go(root, Machine(OLD), "boot-1") == 0
    path = root / plan.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    if fine:
        assert go(root, Machine(NEW), "boot-2") == 0
        return
    with pytest.raises(ValueError, match="not the plan that host 1 began with"):
        go(root, Machine(NEW), "boot-2")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("commit", "the code is not what"),
        ("configuration_sha256", "configuration"),
    ],
)
def test_another_checkout_for_the_other_arm_is_found_at_once(root: Path, key: str, words: str) -> None:
    """Two drivers are compared by one code and one configuration."""
    assert go(root, Machine(OLD), "boot-1") == 0
    said: list[str] = []
    assert go(root, Machine(NEW, change=arms.put(key, "d" * 64)), "boot-2", said) == 6
    assert words in said[-1]


def test_another_benchmark_s_code_for_the_other_arm_is_found_at_once(root: Path) -> None:
    """Of one that lies outside of the project, whose commit says nothing of it."""

    def elsewhere(digest: str) -> arms.Change:
        return lambda events: events.insert(1, {**events[1], "key": "benchmark_sha256", "value": digest})

    assert go(root, Machine(OLD, change=elsewhere("c" * 64)), "boot-1") == 0
    said: list[str] = []
    assert go(root, Machine(NEW, change=elsewhere("d" * 64)), "boot-2", said) == 6
    assert "the benchmark's code is not what the plan began with" in said[-1]


def test_two_machines_at_once_are_two_hosts(tmp_path: Path) -> None:
    """On a shared folder, both found the first place free before either had written its name."""
    from concurrent.futures import ThreadPoolExecutor

    made = plan.make("embedded", ["old", "new"], hosts=8)
    plan.write(made, tmp_path)
    with ThreadPoolExecutor(8) as several:
        found = list(several.map(lambda name: hosts.claim(tmp_path, made, name), [f"GPU-{each}" for each in range(8)]))
    assert sorted(found) == list(range(1, 9))
    assert hosts.claim(tmp_path, made, "GPU-3") == found[3]


def test_a_machine_that_tells_nothing_of_itself_finds_its_place_again(tmp_path: Path) -> None:
    made = plan.make("embedded", ["old", "new"], hosts=2)
    assert [hosts.claim(tmp_path, made, None) for _ in range(2)] == [1, 1]


def test_an_epoch_of_unlike_batches_is_no_number_of_steps(tmp_path: Path) -> None:
    """The batch of whichever arm came first on a host decided the steps of both."""
    plan.write(plan.make("embedded", ["a:config=x", "b:config=y"], hosts=1, runs=1, epochs=2), tmp_path)
    on, said = Machine(OLD), list[str]()

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        on.change = arms.put("global_batch_size", (256, 456)[item.arm])
        return on.launch(made, item, folder)

    made = plan.read(tmp_path)
    hosts.folder(tmp_path, 1).mkdir(parents=True)
    assert work.Work(tmp_path, made, 1, work.Here.of(on.tables, "boot"), launch, said.append, "again").run() == 2
    assert "--epochs 2: these are 918 steps of arm a and 516 steps of arm b" in said[-1] and on.started == 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one file in place of this one."""
    folder = tmp_path / "project"
    person = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "file").touch()
    for words in (("add", "file"), (*person, "commit", "-q", "-m", "x")):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    monkeypatch.setattr(child, "ROOT", folder)
    return folder


@pytest.mark.usefixtures("project")
def test_a_commit_s_checkout_is_made_again_where_the_plan_was_deleted(tmp_path: Path) -> None:
    """Git has it registered still, and refused the place."""
    arm = plan.Arm("a", commit="HEAD")
    for _ in range(2):
        assert (child.checkout(arm, tmp_path / "plan") / ".git").exists()
        shutil.rmtree(tmp_path / "plan")


@pytest.mark.parametrize("meanwhile", ["killed", "another host"])
def test_a_part_of_a_commit_s_checkout_is_not_taken_for_all_of_it(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Every call after one that was killed as it made it said that there is no harness, and to go on with the same."""
    arm, asked = plan.Arm("a", commit="HEAD"), git.ask

    def ask(root: Path, *words: str, **more: Any) -> Any:
        monkeypatch.setattr(git, "ask", asked)
        if meanwhile == "another host":
            assert (child.checkout(arm, tmp_path / "plan") / "file").exists()
            return asked(root, *words, **more)
        asked(root, *words, **more)
        Path(words[4], "file").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(git, "ask", ask)
    with pytest.raises(KeyboardInterrupt) if meanwhile == "killed" else nullcontext():
        child.checkout(arm, tmp_path / "plan")
    place = child.checkout(arm, tmp_path / "plan")
    assert (place / "file").exists()
    assert str(place) in git.ask(project, "worktree", "list").stdout.decode()
    git.ask(project, "worktree", "prune", "--expire", "now")
    assert git.ask(place, "rev-parse", "HEAD").returncode == 0


def test_a_python_whose_path_has_an_equals_sign_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env` took it for a variable, and every run ended with 127."""
    (tmp_path / "a=b").mkdir()
    python = tmp_path / "a=b/python"
    python.write_text('#!/bin/sh\necho "$NAME" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = plan.make("embedded", ["a:env=NAME=1 2", "b:env=NAME=3"], hosts=1, runs=1, max_steps=1)
    words = child.command(made, made.arms[0], tmp_path / "o u t", 0, tmp_path)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"1 2 -m harness run embedded --out {tmp_path}/o u t --seed 0")


@pytest.mark.parametrize("code", [INTERRUPTED, BROKEN])
def test_a_run_of_one_step_that_broke_off_says_so(tmp_path: Path, code: int) -> None:
    """It said that the plan was wrong: its log does not tell how many images an epoch has."""
    made = plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=1, runs=2, epochs=3)
    plan.write(made, tmp_path)
    said = list[str]()
    on = work.Here.of(machine(OLD), "boot")
    hosts.folder(tmp_path, 1).mkdir(parents=True)
    assert work.Work(tmp_path, made, 1, on, lambda *_: code, said.append, "again").run() == code
    assert f"ended with exit code {code}; its files are in {tmp_path}/broken/" in said[-1] and "Go on with" in said[-1]
    assert not list((tmp_path / "warm-up/one-step").iterdir())


def test_epochs_are_counted_in_steps_by_a_run_of_one(tmp_path: Path) -> None:
    plan.write(plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=1, runs=2, epochs=3), tmp_path)
    seen: list[int | None] = []
    on = Machine(OLD)

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        seen.append(made.max_steps)
        return on.launch(made, item, folder)

    made = plan.read(tmp_path)
    here = work.Here.of(on.tables, "boot 1")
    work.Work(tmp_path, made, hosts.claim(tmp_path, made, here.host), here, launch, lambda _: None, "again").run()
    assert seen == [1, *[3 * 129] * 6], "117,266 images in batches of 912"


@pytest.mark.parametrize(
    ("of_b", "said"), [("bf16", "arm b chose format bf16 by its speed; its runs take"), (None, "")]
)
def test_what_a_warm_up_chose_by_its_speed_holds_for_all_that_counts(
    tmp_path: Path, of_b: str | None, said: str
) -> None:
    """Else noise in one init makes two things of an arm. An arm whose code tells of no choice is left alone."""
    plan.write(plan.make("embedded", ["a:env=X=1", "b:env=X=2"], hosts=1, runs=2), tmp_path)
    told: list[tuple[int, str, tuple[str, ...]]] = []
    heard: list[str] = []

    def launch(made: plan.Plan, item: plan.PlannedRun, folder: Path) -> int:
        told.append((item.arm, item.kind, made.options))
        chosen = "fp32" if item.arm == 0 else of_b

        def change(events: list[dict[str, Any]]) -> None:
            if chosen is not None:
                events.insert(3, {**events[2], "key": "chosen", "value": {"format": chosen}})

        arms.write(folder, 0, turn=len(told), change=change)
        return 0

    made, here = plan.read(tmp_path), work.Here.of(machine(OLD), "boot 1")
    assert (
        work.Work(tmp_path, made, hosts.claim(tmp_path, made, here.host), here, launch, heard.append, "again").run()
        == 0
    )
    handed_on = ("--chosen", '{"format": "fp32"}')
    assert {(arm, kind): options for arm, kind, options in told} == {
        (0, "warm-up"): (),
        (1, "warm-up"): (),
        (0, "run"): handed_on,
        (1, "run"): handed_on if of_b else (),
    }
    assert said in "\n".join(heard) and ("by its speed" in "\n".join(heard)) == bool(said)


def test_the_command_of_an_arm(tmp_path: Path) -> None:

    made = plan.make(
        "embedded", ["a:image=ssd:1,env=X=1", "b:config=H100_1x1x256"], max_steps=20, options=["--data-dir", "/d"]
    )
    words = child.command(made, made.arms[0], tmp_path, 3, CHECKOUT)
    assert words[:5] == ["env", "-C", str(CHECKOUT), "HARNESS_ALSO_LOG=X", "X=1"]
    assert words[words.index("run") + 1] == "embedded"
    for pair in (("--seed", "3"), ("--max-steps", "20"), ("--image", "ssd:1"), ("--data-dir", "/d"), ("--trials", "1")):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert child.command(made, made.arms[1], tmp_path, 3, CHECKOUT)[8] == "H100_1x1x256"


def test_an_image_is_probed_in_a_container_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    asked: list[list[str]] = []

    def instead(words: list[str], *_: object) -> Any:
        asked.append(words)
        return nullcontext(SimpleNamespace(lines=list, poll=lambda: 0))

    made = plan.make("embedded", ["a:image=ssd:1", "b:image=ssd:2"])
    monkeypatch.setattr(child, "_running", instead)
    assert child.probe(made, 1, tmp_path, root=tmp_path, environment={}) == ""
    assert asked[0][-2:] == ["--image", "ssd:2"]


def instead_of_python(folder: Path, script: str) -> Any:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return SimpleNamespace(executable=str(program))


def test_why_a_probe_was_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan.make("embedded", ["a:env=X=1", "b:env=X=2"])
    for script, why_not in (("echo figures", ""), ("echo no room >&2; exit 2", "no room"), ("exit 5", "exit code 5")):
        monkeypatch.setattr(child, "sys", instead_of_python(tmp_path, script))
        said = child.probe(made, 1, tmp_path, root=tmp_path, environment=os.environ)
        assert said.endswith(why_not) and bool(said) == bool(why_not)
    monkeypatch.setattr(child, "sys", instead_of_python(tmp_path, "sleep 1200"))
    monkeypatch.setattr(child, "PROBE_LIMIT_S", 1)
    assert child.probe(made, 1, tmp_path, root=tmp_path, environment=os.environ) == "it did not end within 1 s"


def test_a_probe_ends_with_a_plan_that_is_killed(tmp_path: Path) -> None:
    """It measured on, beside the one that going on had begun, and both wrote their figures."""
    (tmp_path / "arm").mkdir()
    instead_of_python(tmp_path, f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 1200")
    code = (
        "import os, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from harness.comparison.planning import child, plan\n"
        "made, root = plan.make('embedded', ['a:env=X=1', 'b:env=X=2']), Path(sys.argv[1])\n"
        "child.sys = SimpleNamespace(executable=str(root / 'python'))\n"
        "child.probe(made, 0, root / 'arm', root=root, environment=os.environ)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT) as process:
        try:
            until((tmp_path / "pid").exists, "the probe")
        finally:
            process.kill()
    probe = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(probe), "its end")


def test_runs_whose_logs_are_gone_are_said(root: Path) -> None:
    """ "All runs are done", and a verdict from what was left."""
    said: list[str] = []
    for boot, driver in enumerate((OLD, NEW, NEW, OLD)):
        assert go(root, Machine(driver), f"boot {boot}", said) == 0
    assert "all runs of host 1 are done" in said[-1] and "are gone" not in said[-1]
    gone = sorted((root / "arms/old").glob("host-1_block-*_run-*"))[0]
    shutil.rmtree(gone)
    assert go(root, Machine(OLD), "boot 3", said) == 0
    assert f"The logs of 1 are gone, of {gone} first" in said[-1]


def test_a_shell_s_variables_change_no_run_of_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """HARNESS_DETERMINISTIC=1 in one of two shells would be a difference between arms that no command line shows."""
    from harness.cli import plans

    for name, value in (
        ("HARNESS_DETERMINISTIC", "1"),
        ("SEED", "5"),
        ("DATADIR", "/data"),
        ("HARNESS_CACHE_DIR", "/c"),
    ):
        monkeypatch.setenv(name, value)
    kept = plans._of_runs()
    assert "SEED" not in kept and "HARNESS_DETERMINISTIC" not in kept
    assert (kept["DATADIR"], kept["HARNESS_CACHE_DIR"]) == ("/data", "/c")
    assert "HARNESS_DETERMINISTIC, SEED of the environment" in capsys.readouterr().err


def test_what_the_shell_says_to_libraries_is_handed_on_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.cli import plans

    for name, value in (("CUDA_LAUNCH_BLOCKING", "1"), ("NVIDIA_API_KEY", "hunter2"), ("EDITOR", "vi")):
        monkeypatch.setenv(name, value)
    assert plans._of_runs()["CUDA_LAUNCH_BLOCKING"] == "1"
    said = capsys.readouterr().err
    assert "CUDA_LAUNCH_BLOCKING=1" in said and "hunter2" not in said and "EDITOR" not in said


def telling(**tables: Any) -> Any:
    """The lines `environment` and `device_uuids` in a made-up log."""

    def change(events: list[dict[str, Any]]) -> None:
        at = next(index for index, each in enumerate(events) if each["key"] == "hardware")
        events[at:at] = [{**events[at], "key": key, "value": value} for key, value in tables.items()]

    return change


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"environment": {}, "device_uuids": ["GPU-5"]}, "it used GPU-5, and the plan began on GPU-0"),
        (
            {"environment": {"CUDA_LAUNCH_BLOCKING": "1"}, "device_uuids": ["GPU-0"]},
            "its environment is not what the plan began with: CUDA_LAUNCH_BLOCKING is 1, was not set",
        ),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "GPU-0"}, "device_uuids": ["GPU-0"]}, ""),
    ],
)
def test_a_shell_that_says_something_else_after_the_reboot(tmp_path: Path, later: dict[str, Any], said: str) -> None:
    plan.write(plan.make("embedded", ["old", "new"], hosts=1, runs=1, probe=False), tmp_path)
    heard: list[str] = []
    assert go(tmp_path, Machine(OLD, change=telling(environment={}, device_uuids=["GPU-0"])), "boot 1", heard) == 0
    code = go(tmp_path, Machine(NEW, change=telling(**later)), "boot 2", heard)
    assert code == (NOT_SUITABLE if said else 0)
    assert not said or said in "\n".join(heard)


def test_an_arm_s_variable_that_does_not_reach_its_runs(tmp_path: Path) -> None:
    """A container that has its image's alone, or a wrapper that unsets it: both arms would be one."""
    plan.write(
        plan.make("embedded", ["a:env=NCCL_ALGO=Ring", "b:env=NCCL_ALGO=Tree"], hosts=1, runs=1, probe=False), tmp_path
    )
    heard: list[str] = []
    on = Machine(OLD, change=telling(environment={"NCCL_ALGO": "Ring"}))
    assert go(tmp_path, on, "boot", heard) == NOT_SUITABLE
    assert "NCCL_ALGO=Tree of arm b did not reach the run, which had NCCL_ALGO=Ring" in "\n".join(heard)


def test_the_last_line_allows_what_the_arms_differ_in() -> None:
    from harness.comparison.planning import work_text

    made = plan.make("embedded", ["a:env=X=1,env=NCCL_ALGO=Ring", "b:env=X=1,env=NCCL_ALGO=Tree"])
    assert work_text._allowed(made).split("--allow-diff ")[1:][-1] == "environment.NCCL_ALGO"
    assert "--allow-diff benchmark_sha256" in work_text._allowed(plan.make("embedded", ["a:image=x", "b:image=y"]))


def test_containers_are_told_what_an_arm_differs_in(tmp_path: Path) -> None:
    from harness.cli import environment

    told = {"HARNESS_ALSO_LOG": "X,NCCL_ALGO", "NCCL_ALGO": "Ring", "CUDA_LAUNCH_BLOCKING": "1"}
    assert environment.of_containers(told) == {"HARNESS_ALSO_LOG": "X,NCCL_ALGO", "NCCL_ALGO": "Ring"}
    assert environment.of_containers({"NCCL_ALGO": "Ring"}) == {}


def test_commits_are_pinned_when_the_plan_is_made() -> None:

    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout
    if not head:
        pytest.skip("no checkout of git")
    made = child.pinned(plan.make("embedded", ["a:commit=HEAD", "b:image=x"]))
    assert made.arms[0].commit == head.strip() and made.arms[1].commit is None
    with pytest.raises(ValueError, match="no_such"):
        child.pinned(plan.make("embedded", ["a:commit=no_such", "b:image=x"]))
