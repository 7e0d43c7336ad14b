"""Folders whose names are no UTF-8, as of a disk from elsewhere: a file system takes any bytes, and so does every verb."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.cli import main
from harness.results import sources
from tests.harness.comparison import arms
from tests.harness.results import logs
from tests.harness.results.logs import own

NAME = os.fsdecode(b"K\xf6ln")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """SYSTEM/BENCHMARK with a series in it."""
    try:
        (tmp_path / NAME).mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    return logs.write_series(tmp_path / NAME / NAME / "ssd", own=own())


def test_report_writes_a_page_of_such_a_folder_and_into_one(folder: Path) -> None:
    assert main(["report", str(folder), "--no-published", "--html", str(folder.parent)]) == 0
    assert "K\\udcf6ln" in (folder.parent / "index.html").read_text(encoding="utf-8")


def test_collect_takes_a_series_with_its_ledger_from_such_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.write_ledger(folder)
    (folder / "probe_0.json").write_text("{}")
    into = folder.parents[1] / "collected"
    for already in (0, 5):
        assert main(["collect", str(folder), "--into", str(into), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["already"]) == already
    assert len(list(into.glob("*/ssd/ledger_*.jsonl"))) == len(list(into.glob("*/ssd/probe_*.json"))) == 1


@pytest.mark.parametrize("options", [(), ("--json",), ("--html",)])
def test_history_is_read_from_such_a_folder_and_written_into_one(
    tmp_path: Path, folder: Path, options: tuple[str, ...]
) -> None:
    a, _ = arms.in_turns(tmp_path / NAME / "arms", 2)
    given = (*options, str(folder)) if options == ("--html",) else options
    assert main(["history", "--from", str(a.parent), *given]) == 0
    assert (folder / "history.html").is_file() == (options == ("--html",))


@pytest.mark.usefixtures("folder")
def test_sources_with_such_a_file_are_known_again(tmp_path: Path) -> None:
    (tmp_path / NAME / f"{NAME}.py").touch()
    digest = sources.digest(tmp_path / NAME)
    (tmp_path / NAME / f"{NAME}.py").rename(tmp_path / NAME / os.fsdecode(b"K\xf7ln.py"))
    assert sources.digest(tmp_path / NAME) != digest
