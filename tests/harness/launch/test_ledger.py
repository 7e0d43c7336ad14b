"""The ledger: what is written stays, what was torn is seen, and only one series writes."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import holder, locks
from harness.holder import Held
from harness.launch import ledger
from harness.launch.ledger import Account, LedgerError
from tests.patience import PATIENCE_S


def start(book: ledger.Ledger, trial: int) -> None:
    if not book.account.series:
        book.append(ledger.SERIES, series="s")
    book.append(ledger.START, series="s", trial=trial, attempt=1)


def start_and_end(book: ledger.Ledger, trial: int, status: str) -> None:
    start(book, trial)
    book.append(ledger.END, trial=trial, attempt=1, status=status)


def test_a_start_without_an_end_is_a_trial_that_was_broken_off(tmp_path: Path) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        start_and_end(book, 1, ledger.FAILED)
        start(book, 2)
    account = Account.read(tmp_path / ledger.FILE)
    assert [each.status for each in account.attempts] == ["success", "failed", "no end recorded"]
    assert list(account.finished) == [0]


def test_a_torn_last_line_is_kept_and_acknowledged_by_the_next_writer(tmp_path: Path) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
    path = tmp_path / ledger.FILE
    torn = path.read_text() + '{"event": "trial_st'
    path.write_text(torn)
    assert Account.read(path).torn
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 1, ledger.SUCCESS)
    text = path.read_text()
    assert text.startswith(torn + "\n")
    account = Account.read(path)
    assert not account.torn
    assert list(account.finished) == [0, 1]
    assert [entry["event"] for entry in account.entries].count(ledger.TORN) == 1


def test_a_line_that_was_edited_is_an_error_with_its_place(tmp_path: Path) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
    path = tmp_path / ledger.FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace('"trial": 0', '"trial": "zero"'), *lines[2:], ""]))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:2: not a line of a ledger"):
        Account.read(path)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(min_value=0, max_value=2000))
def test_wherever_a_crash_cuts_the_file_no_finished_trial_appears_or_counts_twice(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    with ledger.opened(folder) as book:
        for trial in range(4):
            start_and_end(book, trial, ledger.SUCCESS)
    path = folder / ledger.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    ends = whole[:cut].count(b"trial_end")
    with ledger.opened(folder) as book:
        finished = len(book.account.finished)
        assert finished in (ends, ends - 1)  # the last may be torn behind its name
        start_and_end(book, 9, ledger.SUCCESS)
    assert len(Account.read(path).finished) == finished + 1


def _hold(folder: Path, ready: object, done: object) -> None:
    with ledger.opened(folder):
        ready.set()  # type: ignore[attr-defined]
        done.wait(PATIENCE_S)  # type: ignore[attr-defined]


def test_one_series_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(PATIENCE_S)
    assert ledger.in_use(tmp_path)
    with pytest.raises(Held, match="another series is running there"), ledger.opened(tmp_path):
        pass
    other.kill()
    other.join()
    assert not ledger.in_use(tmp_path)
    with ledger.opened(tmp_path):
        pass


def test_a_series_that_was_just_looked_at_may_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other that begins asks whether this folder's lives, and holds its lock for that: it was "another series" there."""
    (tmp_path / ledger.FILE).touch()
    take = locks.take
    with (tmp_path / ledger.FILE).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)

        def seen(descriptor: int, path: Path) -> bool:
            try:
                return take(descriptor, path)
            finally:
                fcntl.flock(looking, fcntl.LOCK_UN)

        monkeypatch.setattr(locks, "take", seen)
        with ledger.opened(tmp_path) as book:
            assert book.account.entries == ()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        before = book.path.read_bytes()
        write, calls = os.write, []

        def full(descriptor: int, data: bytes) -> int:
            calls.append(data)
            if len(calls) == 1:
                return write(descriptor, data[:10])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                start(book, 1)
        assert len(calls) == 2
        assert book.path.read_bytes() == before
        start_and_end(book, 1, ledger.SUCCESS)
    assert list(Account.read(tmp_path / ledger.FILE).finished) == [0, 1]


def three_trials(folder: Path) -> tuple[Path, list[str]]:
    with ledger.opened(folder) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        start_and_end(book, 1, ledger.FAILED)
        start_and_end(book, 2, ledger.SUCCESS)
    path = folder / ledger.FILE
    return path, path.read_text().splitlines(keepends=True)


EDITS: dict[str, Callable[[list[str]], list[str]]] = {
    "removed": lambda lines: lines[:3] + lines[4:],
    "first removed": lambda lines: lines[1:],
    "doubled": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "moved": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "changed": lambda lines: [*lines[:3], lines[3].replace('"trial": 1', '"trial":  1'), *lines[4:]],
    "put in": lambda lines: [*lines[:3], lines[0], *lines[3:]],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_ledger_is_refused_with_the_line(tmp_path: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path, lines = three_trials(tmp_path)
    Account.read(path)
    path.write_text("".join(edit(lines)))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:[1-7]: does not follow the line"):
        Account.read(path)


def unchained(lines: list[str]) -> list[str]:
    """As older versions wrote them."""
    return [re.sub(r', "previous_sha256": "[0-9a-f]*"', "", line) for line in lines]


STORIES = {
    "another attempt's end": (2, '"attempt": 1', '"attempt": 2', "trial 0, attempt 2 never began"),
    "an unknown status": (2, "success", "splendid", "not a line of a ledger"),
    "a start of no series": (1, '"series": "s"', '"series": "t"', "trial 0, attempt 1 is of a series that never began"),
    "an end twice": (
        3,
        '"trial_start", "time"',
        '"trial_end", "status": "failed", "time"',
        "trial 1, attempt 1 never began",
    ),
}


@pytest.mark.parametrize(("line", "old", "new", "said"), STORIES.values(), ids=STORIES)
def test_what_cannot_have_happened_is_refused_in_old_ledgers_too(
    tmp_path: Path, line: int, old: str, new: str, said: str
) -> None:
    path, lines = three_trials(tmp_path)
    lines = unchained(lines)
    path.write_text("".join(lines))
    assert len(Account.read(path).attempts) == 3, "an older ledger is read as it was"
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("".join(lines))
    with pytest.raises(LedgerError, match=rf"ledger\.jsonl:{line + 1}: {said}"):
        Account.read(path)


def test_an_older_ledger_is_continued_with_hashes(tmp_path: Path) -> None:
    path, lines = three_trials(tmp_path)
    path.write_text("".join(unchained(lines)))
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 3, ledger.SUCCESS)
    text = path.read_text()
    assert len(Account.read(path).finished) == 3
    path.write_text(text.replace("failed", "stalled"))
    Account.read(path)  # before the first hash nothing holds the older lines
    path.write_text(
        text.replace('"trial": 2, "attempt": 1, "status": "success"', '"trial": 2, "attempt": 1, "status": "failed"')
    )
    with pytest.raises(LedgerError, match=r":8: does not follow the line before it"):
        Account.read(path)


@pytest.mark.parametrize("harm", ["deleted", "cut", "written by another", "replaced"])
def test_a_ledger_that_others_touch_while_it_is_held_is_no_ledger(tmp_path: Path, harm: str) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        content = book.path.read_bytes()
        if harm in ("deleted", "replaced"):
            book.path.unlink()
        if harm != "deleted":
            book.path.write_bytes({"cut": content[:-10], "written by another": content + b"x\n"}.get(harm, content))
        for touched in (book.check, lambda: start(book, 1)):
            with pytest.raises(ledger.LedgerLost, match=r"ledger\.jsonl: the ledger was (deleted|changed)"):
                touched()


def test_what_is_no_plain_file_is_no_ledger(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ledger.FILE)
    with pytest.raises(LedgerError, match="no plain file"):
        Account.read(tmp_path / ledger.FILE)
    deep = tmp_path / "deep"
    deep.write_text("[" * 100_000 + "\n{}\n")
    with pytest.raises(LedgerError, match="deep:1: not a line"):
        Account.read(deep)


def test_without_flock_a_file_says_who_holds_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        assert ledger.in_use(tmp_path)
        with (
            pytest.raises(Held, match=rf"another series is running there.*process {os.getpid()}"),
            ledger.opened(tmp_path),
        ):
            pass
    assert not ledger.in_use(tmp_path)
    holder = tmp_path / ledger.HOLDER
    assert not holder.exists()
    holder.write_text(
        json.dumps({"host": platform.node(), "process": os.getpid(), "began": 1.0})
    )  # another's number, reused
    with ledger.opened(tmp_path):
        pass
    holder.write_text(json.dumps({"host": "elsewhere", "process": 1, "began": 1.0}))
    with (
        pytest.raises(Held, match="process 1 on elsewhere; if that is not so, remove "),
        ledger.opened(tmp_path),
    ):
        pass


def test_a_disk_that_fails_is_not_one_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / ledger.FILE}'"), ledger.opened(tmp_path):
        pass
    with pytest.raises(OSError, match="Input/output error"):
        ledger.in_use(tmp_path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_folder_whose_disk_is_gone_is_one_that_cannot_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One old container, its folder mounted read-only since, kept every new series from beginning."""
    (tmp_path / ledger.FILE).touch()

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for module, name in ((fcntl, "flock"), (os, "open")):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, fails)
            with pytest.raises(PermissionError, match=f"cannot be seen: .*{os.strerror(number)}"):
                ledger.in_use(tmp_path)


def test_too_many_open_files_are_no_reason_to_leave_a_container_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ledger.FILE).touch()

    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(OSError, match="Too many open files") as caught:
        ledger.in_use(tmp_path)
    assert not isinstance(caught.value, PermissionError)


def claimed_and_gone(path: Path) -> None:
    holder.claim(path)


def test_who_holds_a_folder_is_known_though_the_clock_was_set_and_though_nobody_asked_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second series took the folder of one that lived, where the clock had been set meanwhile; a killed one kept it."""
    held = tmp_path / "held"
    assert holder.claim(held) is None
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1.0)  # the kernel's time of boot moves with the clock
    assert holder.living(held) == f"process {os.getpid()}"
    gone = multiprocessing.Process(target=claimed_and_gone, args=(tmp_path / "left",))
    gone.start()
    os.waitid(os.P_PID, gone.pid or 0, os.WEXITED | os.WNOWAIT)
    assert holder.living(tmp_path / "left") is None
    gone.join()
