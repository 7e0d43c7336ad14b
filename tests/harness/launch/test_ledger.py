"""The ledger: what is written stays, what was torn is seen, and only one series writes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.launch import ledger
from harness.launch.ledger import Account, LedgerError


def start_and_end(book: ledger.Ledger, trial: int, status: str) -> None:
    book.append(ledger.START, trial=trial, attempt=1)
    book.append(ledger.END, trial=trial, attempt=1, status=status)


def test_a_start_without_an_end_is_a_trial_that_was_broken_off(tmp_path: Path) -> None:
    with ledger.opened(tmp_path) as book:
        start_and_end(book, 0, ledger.SUCCESS)
        start_and_end(book, 1, ledger.FAILED)
        book.append(ledger.START, trial=2, attempt=1)
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
    path.write_text("\n".join([lines[0].replace('"trial": 0', '"trial": "zero"'), *lines[1:], ""]))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:1: not a line of a ledger"):
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
        done.wait(30)  # type: ignore[attr-defined]


def test_one_series_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(30)
    assert ledger.in_use(tmp_path)
    with pytest.raises(LedgerError, match="another series is running there"), ledger.opened(tmp_path):
        pass
    other.kill()
    other.join()
    assert not ledger.in_use(tmp_path)
    with ledger.opened(tmp_path):
        pass


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
                book.append(ledger.START, trial=1, attempt=1)
        assert len(calls) == 2
        assert book.path.read_bytes() == before
        start_and_end(book, 1, ledger.SUCCESS)
    assert list(Account.read(tmp_path / ledger.FILE).finished) == [0, 1]
