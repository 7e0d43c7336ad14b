"""Whether a run of a plan was the run that was due: this machine's driver, and the code and the settings of those before it.

A comparison would refuse it too, days later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.comparison import identity
from harness.comparison.identity import Identity
from harness.comparison.planning.plan import Plan
from harness.launch.ledger import Attempt
from harness.results.logfile import read
from harness.results.record import RunRecord
from harness.results.series import find_logs
from harness.system import variables

# What an end in the ledger says of the run's code and settings, by RunRecord's names
CODE, SETTINGS, BENCHMARK = ("commit", "tree_dirty"), ("configuration_sha256",), ("benchmark_sha256",)
DEVICES, VARIABLES = "device_uuids", "environment"


def record_in(folder: Path) -> RunRecord | None:
    """Of the log in a run's folder."""
    logs = find_logs(folder) if folder.is_dir() else []
    return read(logs[0]) if logs else None


def ran(record: RunRecord) -> dict[str, Any]:
    """What an end is to say of a run."""
    told = {key: getattr(record, key) for key in (*CODE, *SETTINGS, *BENCHMARK)}
    if record.environment is not None:
        told |= {DEVICES: sorted(record.device_uuids), VARIABLES: identity.environment(record)}
    return told


def not_the_arm(plan: Plan, arm: int, driver: Identity, record: RunRecord | None) -> str:
    """Why the run's own account lacks the arm's variables, or its driver is not this machine's, `driver`; empty where not."""
    if record is None:
        return "it left no log that can be read"
    if record.environment is not None:
        for name, value in plan.arms[arm].env.items():
            if variables.is_told(name, [name]) and record.environment.get(name) != variables.shown(value):
                return f"{name}={value} of arm {plan.arms[arm].name} did not reach the run, which had {_shown(record, name)}"
    if not plan.by_hand:
        return ""
    ran = identity.of(record.software, identity.gpus(record.hardware))  # of all, as `driver` is
    if ran.replaced:
        return f"it loaded libcuda from {ran.libcuda}: the image's cuda-compat took the place of the driver under test"
    if ran.key != driver.key:
        return f"it met another driver than this machine's: {'; '.join(identity.differences(driver, ran))}"
    return ""


def not_asked(
    record: RunRecord,
    *,
    max_steps: int | None,
    configuration_sha256: str,
    driver: Identity,
    host: str | None,
    code: tuple[str, bool],
) -> str:
    """What an earlier run is, and what is asked for now on this machine, where these differ; else empty."""
    ran_by = identity.of(record.software, identity.gpus(record.hardware))  # of all, as `driver` is
    ran_on = identity.host(record.hardware)
    if record.max_steps != max_steps:
        return f"of {_steps(record.max_steps)}, and asked for are {_steps(max_steps)}"
    if ran_by.key != driver.key:
        return f"of another driver than this machine's: {'; '.join(identity.differences(ran_by, driver))}"
    if ran_on != host:
        return f"of {ran_on}, and this machine is {host}"
    if record.configuration_sha256 != configuration_sha256:
        then = str(record.configuration_sha256)[:12]
        return (
            f"of {record.configuration_name} (SHA-256 {then}), and asked for is another ({configuration_sha256[:12]})"
        )
    now = dict(zip(CODE, code, strict=True))
    then_code = {key: getattr(record, key) for key in CODE}
    return "" if now == then_code else f"of {_code(then_code)}, and the code is {_code(now)}"


def other_work(
    plan: Plan,
    arm: int,
    record: RunRecord | None,
    attempts: Iterable[Attempt],
    elsewhere: Iterable[Attempt] = (),
) -> str:
    """Why what ran is not what ran before on this host, or `elsewhere`; a comparison would refuse it days later.

    Devices and variables are each host's own.

    The code is one for both arms, and so is the configuration, unless an arm brings its own.
    """
    if record is None:
        return ""
    arms = plan.arms
    own_code = any(each.commit or each.image for each in arms)
    own_settings = own_code or any(each.config for each in arms)
    own_variables = own_code or any(each.env for each in arms)
    now = ran(record)
    ends = _ends(attempts)
    all_ends = [*ends, *_ends(elsewhere)]
    if then := _before(all_ends, arms[arm].name if own_code else None, CODE, now):
        return (
            f"the code is not what {arms[arm].name if own_code else 'the plan'} began with: {_code(now)}, was "
            f"{_code(then)}; check that out, or begin a new plan"
        )
    if _before(all_ends, arms[arm].name if own_code else None, BENCHMARK, now):
        return (
            f"the benchmark's code is not what {arms[arm].name if own_code else 'the plan'} began with: put its folder back as "
            "it was, or begin a new plan"
        )
    if then := _before(all_ends, arms[arm].name if own_settings else None, SETTINGS, now):
        return (
            f"the configuration is not what {arms[arm].name if own_settings else 'the plan'} began with: SHA-256 "
            f"{str(now['configuration_sha256'])[:12]}, was {str(then['configuration_sha256'])[:12]}; put the file back, or "
            "begin a new plan"
        )
    if then := _before(ends, None, (DEVICES,), now):
        return (
            f"it used {_listed(now[DEVICES])}, and the plan began on {_listed(then[DEVICES])}: choose the same devices "
            "(CUDA_VISIBLE_DEVICES), or begin a new plan"
        )
    if then := _before(ends, arms[arm].name if own_variables else None, (VARIABLES,), now):
        return (
            f"its environment is not what {arms[arm].name if own_variables else 'the plan'} began with: "
            f"{_unlike(now[VARIABLES], then[VARIABLES])}; set it as it was, or begin a new plan"
        )
    return ""


def _ends(attempts: Iterable[Attempt]) -> list[tuple[str, Mapping[str, Any]]]:
    """Of finished runs: the arm, and what the ledger has of them."""
    return [(str(each.start.get("arm")), each.end) for each in attempts if each.finished and each.end is not None]


def _before(
    ends: Iterable[tuple[str, Mapping[str, Any]]], arm: str | None, keys: Sequence[str], now: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """What the first finished run had (of `arm`, or of any), where one of the keys differs from what `now` has."""
    mine = (end for name, end in ends if arm in (None, name))
    first = next((end for end in mine if all(key in end and key in now for key in keys)), None)
    return first if first is not None and any(first[key] != now[key] for key in keys) else None


def _shown(record: RunRecord, name: str) -> str:
    return f"{name}={record.environment[name]}" if record.environment and name in record.environment else "none such"


def _unlike(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    return ", ".join(f"{each} is {now.get(each, 'not set')}, was {then.get(each, 'not set')}" for each in names)


def _listed(uuids: Sequence[str]) -> str:
    return ", ".join(uuids) or "devices without a UUID"


def _steps(count: int | None) -> str:
    return "steps to the target" if count is None else f"{count} steps"


def _code(ran: Mapping[str, Any]) -> str:
    return f"commit {ran['commit']}{' with changes' * bool(ran['tree_dirty'])}"
