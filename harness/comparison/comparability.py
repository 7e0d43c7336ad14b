"""Do the arms differ in what they are to differ in, and in nothing else? A table of every difference, before any figure.

The driver may differ (kernel module, libcuda, GSP firmware, VBIOS, fabric manager); all else must be alike on each host, or
be allowed by name. What a log does not tell can be compared with nothing: it is said, and does not forbid a comparison, so
that a foreign submitter's logs are compared as far as they go.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.comparison.identity import FORWARD_COMPAT
from harness.comparison.runs import NAMES, ComparedRun
from harness.results import memory
from harness.results.said import number
from harness.results.text_json import OF_TWO, shortened
from harness.rules import rules_for
from harness.system import variables

SOME = 1 << 20  # accelerators of a run that does not tell how many: no fewer than any machine has
Standing = Literal["refused", "allowed", "not told"]  # in the order in which they are shown

# What a change of driver brings with it
DRIVER_FIELDS = (
    *("software.driver", "software.driver_flavour", "software.driver_branch", "software.libcuda*", "software.nvml"),
    *("software.fabric_manager*", "gpu.gsp_*", "gpu.vbios", "gpu.inforom", "gpu.memory_mib"),
    *("loaded.libcuda", "loaded.libnvidia*", "loaded.libnvcuvid*", "loaded.libnvoptix*"),
)
# What tells one driver from another; an arm has one of it, whatever is allowed
DRIVER_ITSELF = (
    *("software.driver", "software.driver_flavour", "software.libcuda_version", "software.nvml", "gpu.gsp_firmware"),
)
# Of a host or a GPU alone; an arm has as many as it has hosts
OF_A_HOST = (
    "gpu*",
    "hardware.*",
    "loaded.*",
    "chosen.*",
    *(name for name in DRIVER_FIELDS if name not in DRIVER_ITSELF),
)
# May be each host's own where its runs are alike in it, beside the above: an image, say, can be judged on hosts of two drivers
BETWEEN_HOSTS = (
    *DRIVER_FIELDS,
    *("software.os", "software.kernel", "software.container", "software.cpu_capability", "software.driver*"),
    *("environment.*", "seed"),
)
# Of what a run logs before its clock starts: known otherwise, or a measurement. The rest is what it chose by itself
NOT_CHOSEN = (
    *("submission_*", "configuration*", "init_*", "seed", "weights_initialization", "software", "hardware", "image"),
    *(
        "loaded_libraries",
        "cache_clear",
        "commit",
        "tree_dirty",
        "benchmark_sha256",
        "quality_target",
        "precision",
        "max_steps",
        "deterministic",
        "opt_*",
    ),
    *("global_batch_size", "model_bn_span", "max_samples", "gradient_accumulation_steps", "*seconds*", "d_batch_size"),
    *("environment", "device_uuids"),
    *("train_samples", "eval_samples", "demonstration", "deterministic", "phase_*"),
)
# What varies from run to run on its own, or is a result
LEFT_OUT = (
    *(
        "gpu.index",
        "gpu.clock_sm_mhz",
        "gpu.clock_memory_mhz",
        "gpu.clock_events",
        "gpu.temperature_c",
        "gpu.processes",
    ),
    *("gpu.pcie_generation", "gpu.ecc_uncorrected", "gpu.ecc_corrected", "gpu.unavailable*", "gpu.pci_bus"),
    *("gpu.power_w", "gpu.energy*", "gpu.memory_used_mib", "gpu.held*", "hardware.boot*", "hardware.uptime*"),
)


@dataclass(frozen=True)
class Difference:
    """One field that is not the same everywhere."""

    field: str
    values: tuple[tuple[str, ...], tuple[str, ...]]  # those of A and of B; () where none tells
    host: str | None  # where it is seen on one host alone
    standing: Standing
    note: str = ""


@dataclass(frozen=True)
class Comparability:
    differences: tuple[Difference, ...]
    refusals: tuple[str, ...]  # sentences; empty where the arms may be compared
    unpaired: tuple[str, ...]  # hosts of one arm alone; their runs do not enter the difference
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.refusals

    @property
    def alike(self) -> bool:
        """Whether the arms differ in nothing that the logs tell."""
        return all(each.standing == "not told" for each in self.differences)


def examine(runs: Sequence[ComparedRun], allowed: Sequence[str] = (), mixed: Sequence[str] = ()) -> Comparability:
    """All differences, judged. `allowed` may differ between the arms, `mixed` within one; ValueError for no field of a log."""
    facts = {id(run): fields(run) for run in runs}
    _fill_in_unset(runs, facts)
    _as_one_memory(runs, facts)
    known = {name for each in facts.values() for name in each}
    _check_names("--allow-diff", allowed, known)
    _check_names("--allow-mixed", mixed, known)
    judge = _Judge(facts, allowed, mixed)
    hosts = list(dict.fromkeys(run.host for run in runs))
    arms_of = {host: {run.arm for run in runs if run.host == host} for host in hosts}
    paired = [host for host in hosts if len(arms_of[host]) == 2]
    refusals: list[str] = []
    if not paired and not _permitted("host", allowed):
        machines = [{run.machine for run in runs if run.arm == arm} - {None} for arm in (0, 1)]
        refusals.append(
            "both arms ran on one machine, but not on the same of its GPUs: these differ as machines do; choose the same "
            "(CUDA_VISIBLE_DEVICES), or say --allow-diff host to compare GPUs"
            if machines[0] & machines[1]
            else "no host ran both arms: two machines of one make differ by 0.2 to 12 %, more than drivers do; run both arms "
            "on each host, or say --allow-diff host to compare machines"
        )
    groups = {host: [run for run in runs if run.host == host] for host in paired} if paired else {None: list(runs)}
    found = [difference for host, group in groups.items() for difference in judge.differences(group, host)]
    entering = [run for group in groups.values() for run in group]
    differences = _merged([*found, *judge.swapped(entering, {each.field for each in found})])
    for each in differences:
        if each.standing == "refused":
            refusals.append(_sentence(each))
    refusals += [] if _permitted("software.driver_mode", allowed) else _replaced_driver(runs)
    return Comparability(
        tuple(differences),
        tuple(dict.fromkeys(refusals)),
        tuple(host for host in hosts if paired and len(arms_of[host]) == 1),
        tuple(_notes(runs)),
    )


def fields(run: ComparedRun) -> dict[str, str]:
    """All that a comparison may hang on, flat, as text; a field that the log does not tell is missing."""
    record = run.record
    top: dict[str, Any] = {
        # a keyword has meant two tasks, and a task had two keywords; a ruleset that was guessed by a date is nobody's choice
        "benchmark": rules_for(record.benchmark, record.ruleset).task or record.benchmark,
        "ruleset": None if record.ruleset_is_guess else record.ruleset,
        "accelerators": record.accelerators,
        "global_batch_size": record.global_batch_size,
        "precision": record.precision,
        "train_samples": record.train_samples,
        "max_steps": record.max_steps if record.max_steps is not None or not run.own else "none",
        # logged where it is so alone, and it makes a run slower
        "deterministic": record.value("deterministic") is True if run.own else None,
        "quality_target": record.quality_target,
        "data_fingerprint": record.data_fingerprint,
        "commit": record.commit,
        "tree_dirty": record.tree_dirty,
        "benchmark_sha256": record.benchmark_sha256,
        "cache_clear": record.value("cache_clear"),
    }
    flat = {name: _text(value) for name, value in top.items() if value is not None}
    for prefix, table in (
        ("hyperparameter", {key: value for key, value in record.hyperparameters.items() if key not in top}),
        ("configuration", record.configuration),
        ("software", record.software),
        ("hardware", {key: value for key, value in record.hardware.items() if key != "gpus"}),
        ("image", record.image),
        ("loaded", record.table("loaded_libraries")),
        ("chosen", _chosen(run)),
        ("environment", {name: "(empty)" if value == "" else value for name, value in run.environment.items()}),
    ):
        flat |= _flat(prefix, table)
    for index, gpu in enumerate(sorted(run.gpus, key=lambda each: str(each.get("uuid")))):
        for name, value in _flat("gpu", gpu).items():
            at = name if len(run.gpus) == 1 else f"{name}[{index}]"
            flat[at] = value
    return {name: value for name, value in flat.items() if not _matches(name.split("[")[0], LEFT_OUT)}


def _fill_in_unset(runs: Sequence[ComparedRun], facts: Mapping[int, dict[str, str]]) -> None:
    """A variable that one run had and another had not is a difference, where the other's log would have told it."""
    for name in {name for run in runs for name in run.environment}:
        for run in runs:
            if run.tells_variable(name):
                facts[id(run)].setdefault(f"environment.{name}", variables.NOT_SET)


def _as_one_memory(runs: Sequence[ComparedRun], facts: Mapping[int, dict[str, str]]) -> None:
    """What the kernel leaves of a machine's memory is one size, whatever it keeps for itself."""
    for key in dict.fromkeys(key for run in runs for key in run.record.hardware if key.startswith("memory")):
        told = {id(run): size for run in runs if (size := number(run.record.hardware.get(key))) is not None}
        one = memory.as_one(told.values())
        for index, size in told.items():
            facts[index][f"hardware.{key}"] = _text(one[size])


def _chosen(run: ComparedRun) -> dict[str, Any]:
    """What a run logs of itself before its clock starts: a decoder, a fallback. It may follow from the driver: no refusal."""
    start = run.record.entries.get("run_start")
    if not run.own or start is None:
        return {}
    found = {
        key: entry.value
        for key, entry in run.record.entries.items()
        if entry.line < start.line and not _matches(key, NOT_CHOSEN) and entry.value is not None
    }
    if isinstance(talk := found.get("collectives"), dict):  # of older logs; see ComparedRun.environment
        found["collectives"] = {key: value for key, value in talk.items() if key != "environment"}
    return found


@dataclass(frozen=True)
class _Judge:
    """What may differ, held against what does."""

    facts: Mapping[int, dict[str, str]]
    allowed: Sequence[str]
    mixed: Sequence[str]

    def differences(self, group: Sequence[ComparedRun], host: str | None) -> Iterable[Difference]:
        names = dict.fromkeys(name for run in group for name in self.facts[id(run)])
        for name in names:
            told = [[self.facts[id(run)].get(name) for run in group if run.arm == arm] for arm in (0, 1)]
            sets = self._sets(group, name)
            if sets[0] == sets[1] and len(sets[0]) == 1 and all(each is not None for values in told for each in values):
                continue
            permitted = _permitted(name, self.allowed) or name.startswith("chosen.")
            permitted |= name.split("[")[0] == "gpu.uuid" and _permitted("host", self.allowed)
            if any(len(values) > 1 for values in sets):
                yield self._mixed(name, sets, host)
            elif not sets[0] or not sets[1] or sets[0] == sets[1]:
                yield Difference(name, sets, host, "not told")
            else:
                fine = permitted or _matches(name.split("[")[0], DRIVER_FIELDS)
                yield Difference(name, sets, host, "allowed" if fine else "refused")
        yield from _seeds(group, host, self.allowed)

    def swapped(self, runs: Sequence[ComparedRun], differing: Iterable[str]) -> Iterable[Difference]:
        """What makes the arms, and the work they do, is the same on each host, or their mean over hosts is of nothing: folders
        that were swapped, a host on another commit.
        """
        work = {name for run in runs for name in self.facts[id(run)] if not _matches(name, BETWEEN_HOSTS)}
        for name in sorted(work.union(differing)):
            sets = self._sets(runs, name)
            if any(len(values) > 1 for values in sets) and name != "seed" and not self._of_a_host(name):
                yield self._mixed(name, sets, None)

    @staticmethod
    def _of_a_host(name: str) -> bool:
        return _matches(name, OF_A_HOST) and name not in DRIVER_ITSELF

    def _sets(self, runs: Sequence[ComparedRun], name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The values of each arm."""
        a, b = (
            tuple(
                dict.fromkeys(v for run in runs if run.arm == arm and (v := self.facts[id(run)].get(name)) is not None)
            )
            for arm in (0, 1)
        )
        return a, b

    def _mixed(self, name: str, sets: tuple[tuple[str, ...], tuple[str, ...]], host: str | None) -> Difference:
        """An arm of two things is asked for by a name of its own, and of two drivers it is none."""
        fine = _permitted(name, self.mixed) and not _permitted(name, DRIVER_ITSELF)
        where = " and ".join(NAMES[arm] for arm in (0, 1) if len(sets[arm]) > 1)
        standing: Standing = "allowed" if fine or name.startswith("chosen.") else "refused"
        return Difference(name, sets, host, standing, f"mixed within {where}")


def _seeds(group: Sequence[ComparedRun], host: str | None, allowed: Sequence[str]) -> Iterable[Difference]:
    """A seed that one arm holds fixed takes the spread over seeds from it alone."""
    seeds = [[run.record.seeds[:1] for run in group if run.arm == arm and run.record.seeds] for arm in (0, 1)]
    fixed = [len(values) > 1 and len(set(values)) == 1 for values in seeds]
    if fixed[0] != fixed[1] and all(len(values) > 1 for values in seeds):
        shown = tuple(
            (f"all {values[0][0]}" if same else "one a run",) for values, same in zip(seeds, fixed, strict=True)
        )
        standing: Standing = "allowed" if _permitted("seed", allowed) else "refused"
        yield Difference("seed", shown, host, standing, "fixed in one arm")  # type: ignore[arg-type]


def _merged(found: Iterable[Difference]) -> list[Difference]:
    """A difference that every host has is one; refused ones first, then the driver's, then what is not told."""
    by_content: dict[tuple[Any, ...], Difference] = {}
    for each in found:
        key = (each.field, each.values, each.standing, each.note)
        known = by_content.get(key)
        by_content[key] = each if known is None else Difference(each.field, each.values, None, each.standing, each.note)
    return sorted(by_content.values(), key=lambda each: get_args(Standing).index(each.standing))


def _cut(value: str) -> str:
    return shortened(value, OF_TWO)


def _sentence(each: Difference) -> str:
    where = f" on {each.host}" if each.host else ""
    if each.note.startswith("mixed"):
        values = " | ".join(" and ".join(map(_cut, values)) for values in each.values if len(values) > 1)
        return f"{each.field} is {each.note}{where} ({values}): an arm is one thing; take runs of one kind{_or_mixed(each)}"
    a, b = (" and ".join(map(_cut, values)) for values in each.values)
    return f"{each.field} differs{where}: {a} and {b}; make it alike, or say --allow-diff {each.field}"


def _or_mixed(each: Difference) -> str:
    return "" if _permitted(each.field, DRIVER_ITSELF) else f", or say --allow-mixed {each.field}"


def _replaced_driver(runs: Sequence[ComparedRun]) -> Iterable[str]:
    """A container whose own libcuda took the place of the driver under test: both arms would be the same half of it."""
    kernels, user = (
        [{run.record.software.get(key) for run in runs if run.arm == arm} for arm in (0, 1)]
        for key in ("driver", "libcuda_version")
    )
    software = [run.record.software for run in runs]
    places = sorted({str(table.get("libcuda")) for table in software if table.get("driver_mode") == FORWARD_COMPAT})
    if places:
        yield (
            f"the driver under test is not the one that ran: libcuda was loaded from {', '.join(places)}, which the image "
            "brought (its cuda-compat), not from the host's driver. Start the container with cuda-compat-mode disabled, or "
            "take an image without it; --allow-diff software.driver_mode compares what there is"
        )
    elif kernels[0] != kernels[1] and user[0] == user[1] and user[0] - {None, "none"}:
        yield (
            f"the kernel modules differ ({_all(kernels[0])} and {_all(kernels[1])}), but both arms loaded libcuda "
            f"{_all(user[0])}: the half of the driver that programs meet is the same; look where it comes from"
        )


def _notes(runs: Sequence[ComparedRun]) -> Iterable[str]:
    foreign = [run for run in runs if not run.own]
    if foreign:
        yield (
            f"{len(foreign)} of {len(runs)} logs are another submitter's and tell nothing of driver, machine or software: "
            "compared as far as they go"
        )
    if spare := [
        run for run in runs if not run.record.device_uuids and len(run.gpus) > (run.record.accelerators or SOME)
    ]:
        yield (
            f"{len(spare)} of {len(runs)} logs do not tell which of their machine's GPUs were used: another GPU passes for the "
            "same, and clocks, power and errors are those of all of them"
        )
    if any(run.record.of_no_commit for run in runs):
        yield "the code is of no commit that is known: that it was the same in both arms cannot be seen"
    if any(run.record.tree_dirty and not run.record.of_no_commit for run in runs):
        yield "the code had uncommitted changes: that it was the same in both arms cannot be seen"
    if any(run.record.demonstration for run in runs):
        yield "a demonstration on generated pictures: its speed says nothing of the full benchmark's"


def _check_names(option: str, allowed: Sequence[str], known: set[str]) -> None:
    names = known | {"host", "seed", "software.driver_mode", "benchmark_sha256"}  # those that a log may have
    for pattern in allowed:
        if not any(_permitted(name, [pattern]) for name in names):
            from harness.validation import did_you_mean

            hint = did_you_mean(pattern, sorted(names)) or "; the table of differences names them"
            raise ValueError(f"{option} {pattern}: no log has such a field{hint}")


def _permitted(name: str, allowed: Sequence[str]) -> bool:
    """`name`, or the same field of every GPU where it is one of several: gpu.vbios[3]."""
    return _matches(name, allowed) or _matches(name.split("[", 1)[0], allowed)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _flat(prefix: str, table: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}.{key}"
        if isinstance(value, dict):
            flat |= _flat(name, value)
        elif value is not None:
            flat[name] = _text(value)
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return str(value)


def _all(values: Iterable[Any]) -> str:
    return ", ".join(sorted(str(value) for value in values))
