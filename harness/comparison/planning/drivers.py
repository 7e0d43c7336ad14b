"""Which driver each arm of a plan has: what its first block met, on whichever host, so that an arm is one driver on all.

Of another host's driver only what told its arms apart is asked for, as a comparison does: a module's flavour, or a firmware
that not every GPU has, may be each host's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.comparison import identity
from harness.comparison.identity import Identity
from harness.comparison.planning import hosts
from harness.comparison.planning.plan import Plan
from harness.launch import ledger

DRIVER = "driver"  # what a line of a host's ledger is about


def why_not(root: Path, plan: Plan, number: int, arm: int, now: Identity) -> str:
    """Why host `number`, with the driver `now`, is not to run this arm; "" where it may."""
    name, other = plan.arms[arm].name, plan.arms[1 - arm].name
    for host, of_arm in _begun(root, plan, number):
        own = host == number
        where = "" if own else f" on host {host}"
        mine, others = of_arm.get(name), of_arm.get(other)
        if mine is not None:
            apart = identity.PARTS if own else ["driver"] if others is None else _apart(mine, others)
            parts = apart if own else _told(mine, _told(now, apart)) or apart
            if unlike := identity.differences(mine, now, parts):
                return f"whose driver was {mine} when its first block began{where}; now {'; '.join(unlike)}"
            if own:  # what other hosts have begun it with since is theirs to mend: this one's runs are as they were
                return ""
        elif others is not None:
            parts = identity.PARTS if own else _told(others, _told(now, identity.PARTS))
            if not identity.differences(others, now, parts):
                return f"and the driver is {'still ' if own else ''}that of {other}{where}: {now}"
    return ""


def known(root: Path, plan: Plan, number: int) -> dict[str, Identity]:
    """Of each arm that a host has begun, as host `number` had it where it is one of those."""
    found: dict[str, Identity] = {}
    for _, of_arm in _begun(root, plan, number):
        found = of_arm | found
    return found


def _begun(root: Path, plan: Plan, number: int) -> Iterator[tuple[int, dict[str, Identity]]]:
    """Each host, `number` first, with the drivers of the arms that it has begun."""
    for host in sorted(range(1, plan.hosts + 1), key=lambda each: each != number):
        series = ledger.Account.read(hosts.folder(root, host) / ledger.FILE).series
        entries = [entry for entry in reversed(series) if entry.get("about") == DRIVER]
        yield host, {entry["arm"]: identity.from_plain(entry["identity"]) for entry in entries}


def _apart(one: Identity, other: Identity) -> list[str]:
    return [part for part in identity.PARTS if getattr(one, part) != getattr(other, part)]


def _told(driver: Identity, parts: Sequence[str]) -> list[str]:
    return [part for part in parts if getattr(driver, part)]
