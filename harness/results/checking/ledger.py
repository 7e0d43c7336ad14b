"""Checks of a series against the ledgers beside it: every trial that ended is here, as it ended.

Runs of which somebody took out the slow ones are no result, however good those that are left look. Logs without a ledger, as
those of every other harness, have nothing to be held against.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.results.account import REFUSED, Account, LedgerError, departures, ledgers_in
from harness.results.checking.findings import Finding
from harness.results.series import Series

RULE = "ledger"


def check_ledgers(series: Series, name: str) -> Iterator[Finding]:
    """What the ledgers in the series' folder say otherwise; `name` is the folder's in the report."""
    read = {Path(record.path).name: record.sha256 for record in series.records}
    for each in departures(series.folder, read):
        fix = "put it back as it was: nothing is edited, and no run is taken out of a series for its time"
        yield Finding("error", f"{name}/{each.file.name}", "", None, RULE, each.what, fix)
    for path in ledgers_in(series.folder):
        try:
            account = Account.read(path)
        except (LedgerError, OSError):  # told above
            continue
        if without := [each for each in account.attempts if not each.finished and each.status != REFUSED]:
            which = ", ".join(f"trial {each.number}, attempt {each.attempt} ({each.status})" for each in without)
            text = f"{len(without)} attempt{'s' * (len(without) != 1)} without a result: {which}"
            fix = "be ready to say why each was broken off"
            yield Finding("warning", f"{name}/{path.name}", "", None, RULE, text, fix)
