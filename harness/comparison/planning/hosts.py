"""Which machine is which host of a plan, and whether what all of them do is still one plan: files of hosts/host-N."""

from __future__ import annotations

import json
from pathlib import Path

from harness import outside, whole
from harness.comparison.planning.plan import FILE, Plan, PlannedRun
from harness.launch import ledger
from harness.results.series import find_logs

HOST = "host.json"  # which machine it is
CALL = "call"  # what a ledger's line is about: on which machine `compare run` was called, with which plan


def folder(root: Path, number: int) -> Path:
    return root / "hosts" / f"host-{number}"


def claim(root: Path, plan: Plan, machine: str | None, asked: int | None = None) -> int:
    """The number of this machine in the plan: the one it had, else the next free. ValueError where there is none."""
    known = {number: _key(root, number) for number in range(1, plan.hosts + 1)}
    mine = next((number for number, key in known.items() if key == str(machine)), None)
    if asked is not None and not 1 <= asked <= plan.hosts:
        raise ValueError(f"--host {asked}: the plan has hosts 1 to {plan.hosts}")
    if mine is not None and asked in (None, mine):
        return mine
    if mine is not None:
        raise ValueError(f"--host {asked}: this machine ({machine}) is host {mine} of the plan")
    free = [number for number, key in known.items() if key is None]
    for number in [asked] if asked is not None else free:
        if number not in free:
            break
        place = folder(root, number)
        place.mkdir(parents=True, exist_ok=True)
        try:
            whole.new(place / HOST, json.dumps({"host": machine}).encode() + b"\n")
        except FileExistsError:  # another machine, in this moment
            if asked is None:
                continue
        else:
            return number
    taken = "; ".join(f"host {each} is {key}" for each, key in known.items() if key)
    raise ValueError(f"no place in the plan for this machine ({machine}): {taken}")


def _key(root: Path, number: int) -> str | None:
    """Which machine has this number; None where none has."""
    path = folder(root, number) / HOST
    try:
        return str(outside.read_json(path)["host"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: it should say which machine host {number} is, and cannot be read: {error}"
        ) from error


def same_plan(root: Path, plan: Plan) -> None:
    """ValueError where a run was made by another plan than this one: its numbers would mean other runs now."""
    for number in range(1, plan.hosts + 1):
        for entry in ledger.Account.read(folder(root, number) / ledger.FILE).series:
            if entry.get("about") == CALL and entry.get("plan_sha256", plan.digest) != plan.digest:
                raise ValueError(
                    f"{root / FILE}: not the plan that host {number} began with ({entry.get('time')}): put it back as it was, "
                    "or write a new one into another folder"
                )


def due(root: Path, plan: Plan, number: int) -> PlannedRun | None:
    """The next run of a host, begun or not; None where all are done."""
    account = ledger.Account.read(folder(root, number) / ledger.FILE)
    return next((item for item in plan.schedule(number) if item.index not in account.finished), None)


def without_log(root: Path, number: int) -> list[Path]:
    """Folders of a host's runs, without warm-ups, that did their work and have no log any more."""
    done = ledger.Account.read(folder(root, number) / ledger.FILE).finished.values()
    places = [Path(root, str(each.start["folder"])) for each in done if each.start.get("kind") != "warm-up"]
    return [place for place in places if not (outside.is_folder(place) and find_logs(place))]


def attempts_of_others(root: Path, plan: Plan, number: int) -> list[ledger.Attempt]:
    """Of all hosts of the plan but this one, as far as they are."""
    others = (each for each in range(1, plan.hosts + 1) if each != number)
    return [run for each in others for run in ledger.Account.read(folder(root, each) / ledger.FILE).attempts]
