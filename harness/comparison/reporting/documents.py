"""A comparison for other programs and for people elsewhere: JSON, JUnit for a CI's gate, Markdown for a report of a fault."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

from harness.comparison.comparability import Difference
from harness.comparison.comparison import Comparison, MetricRow
from harness.comparison.judging import statistics, verdict
from harness.comparison.judging.numbers import Met, Quality
from harness.comparison.probes import Probes
from harness.comparison.reporting import words
from harness.comparison.reporting.terminal import arm_text
from harness.comparison.runs import NAMES, ComparedRun
from harness.results.table import printable

VERSION = 1  # of the JSON's shape


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything; figures unrounded, ratios as candidate over baseline slowness in per cent."""
    comparable = found.comparability
    return {
        "version": VERSION,
        "verdict": None if found.word is None else found.headline,
        "exit_code": found.exit_code,
        "sentence": words.sentence(found),
        "labels": list(found.question.labels),
        "delta_percent": 100 * found.question.delta,
        "runs": [_run(each) for each in found.runs],
        "invalid": [{"log": each.run.record.path, "reason": each.reason} for each in found.invalid],
        "comparable": comparable is not None and comparable.ok,
        "refusals": list(comparable.refusals) if comparable is not None else [],
        "differences": [_difference(each) for each in (comparable.differences if comparable is not None else ())],
        "hardware": None
        if found.watched is None
        else {name: each.__dict__ for name, each in zip(NAMES, found.watched, strict=True)},
        "health": [{"where": each.where, "text": each.text} for each in found.symptoms],
        "metrics": [_metric(row) for row in found.rows],
        "phases": [
            {
                "phase": each.name,
                "seconds": dict(zip(NAMES, each.seconds, strict=True)),
                "slower_percent": each.percent,
                "interval_percent": each.interval,
                "sure": each.sure,
            }
            for each in found.phases
        ],
        "time_to_train": [
            {"arm": name, **each.__dict__} for name, each in zip(NAMES, found.minutes or (), strict=False)
        ],
        "training": _training(found.quality),
        "numbers": None if found.bits is None else {"text": found.bits.text, "equal_to_the_bit": found.bits.equal},
        "probes": _probes(found.probes),
        "outliers": [each.__dict__ for each in found.outlying],
        "notes": [*found.notes, *words.quality(found.quality, found.question.labels)],
    }


def _run(run: ComparedRun) -> dict[str, Any]:
    return {
        "arm": NAMES[run.arm],
        "log": run.record.path,
        "sha256": run.record.sha256,
        "host": run.host,
        "driver": run.record.software.get("driver"),
        "boot": run.boot[:8] or None,
        "started": run.record.run_start_s,
        "outcome": run.record.outcome,
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "field": found.field,
        **dict(zip(NAMES, map(list, found.values), strict=True)),
        "host": found.host,
        "standing": found.standing,
        "note": found.note,
    }


def _probes(found: Probes) -> dict[str, Any]:
    return {
        "note": "they explain; no verdict rests on them",
        "count": dict(zip(NAMES, found.counts, strict=True)),
        "figures": [
            {
                "name": each.name,
                "unit": each.unit,
                "what": each.what,
                **dict(zip(NAMES, each.medians, strict=True)),
                "ratio": each.ratio,
            }
            for each in found.rows
        ],
        "notes": list(found.notes),
    }


def _training(found: Quality | None) -> dict[str, Any] | None:
    if found is None:
        return None
    by_name = {"quality": found.accuracy, "loss": found.loss, "target": found.target}
    content: dict[str, Any] = {
        "worse": [name for name, each in by_name.items() if each in found.worse and each is not None]
    }
    for name, each in by_name.items():
        if isinstance(each, Met):
            told = {"met": dict(zip(NAMES, each.met, strict=True)), "runs": dict(zip(NAMES, each.runs, strict=True))}
            content[name] = {**told, "p_worse": each.p_worse}
        elif each is not None:
            means = dict(zip(NAMES, each.means, strict=True))
            when = {"epoch": each.epoch, "steps": each.steps}
            content[name] = {**when, "means": means, "interval": each.interval, "p_worse": each.p_worse}
    return content


def _metric(row: MetricRow) -> dict[str, Any]:
    judged, estimate = row.judged, row.judged.estimate
    content: dict[str, Any] = {
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "gated": row.gated,
        "verdict": judged.word,
        "reason": judged.reason,
        "delta_percent": 100 * judged.delta,
        "means": dict(zip(NAMES, row.means, strict=True)),
        "slower_percent": judged.percent,
        "interval_percent": judged.percent_interval,
        "more_runs_an_arm": judged.more_runs,
        "remedy": judged.remedy,
        "hodges_lehmann_percent": row.hodges_lehmann_percent,
        "cliffs_delta": row.cliffs_delta,
        "values": [{"run": run, "arm": NAMES[arm], "value": value} for run, arm, value in row.values],
    }
    if estimate is not None:
        content |= {
            "method": estimate.method,
            "unit_of_replication": estimate.level,
            "one_boot_an_arm": estimate.confounded,
            "units": dict(zip(NAMES, estimate.units, strict=True)),
            "hosts": estimate.hosts,
            "bootstrap_interval_log": estimate.bootstrap,
            "resamples": statistics.RESAMPLES if estimate.bootstrap is not None else 0,
            "seed": statistics.SEED,
            "levels": {"beyond_delta": verdict.BEYOND_DELTA, "no_change": verdict.NO_CHANGE},
        }
    if (tested := judged.no_change) is not None:
        content["no_change"] = {"p_one_sided": tested.p, "by": tested.by, "level": verdict.NO_CHANGE}
        if tested.by == "permutation":
            content["permutation_p"] = tested.permutation.p
    return content


def junit(found: Comparison) -> str:
    """One test a question: are all runs valid, are the arms comparable, is the hardware well, is each gated metric equal.

    A slower metric is a failure; what cannot be told is an error, so that no pipeline takes it for a pass. With --numbers the
    numbers are asked for, and neither the speed nor what makes it doubtful.
    """
    suite = ET.Element("testsuite", name="harness compare")
    text = printable(words.sentence(found))
    _case(suite, "runs are valid", [f"{each.run.name}: {each.reason}" for each in found.invalid], "error")
    if not found.invalid:
        comparable = found.comparability
        refusals = list(comparable.refusals) if comparable is not None else []
        _case(suite, "arms are comparable", refusals, "error")
        if not refusals and not found.question.numbers:
            _case(suite, "hardware is well", [f"{each.where}: {each.text}" for each in found.symptoms], "error")
        if found.question.numbers:
            said = "no deterministic runs of one seed in both arms" if found.bits is None else found.bits.text
            equal = None if found.bits is None else found.bits.equal
            _case(suite, "numbers are the same", [] if equal else [said], "failure" if equal is False else "error")
        elif found.quality is not None and any((found.quality.accuracy, found.quality.loss, found.quality.target)):
            _case(suite, "training is not worse", [f"WORSE: {text}"] if found.quality.worse else [], "failure")
        for row in () if found.question.numbers else found.rows:
            if row.gated:
                bad = row.judged.word in ("SLOWER", "CANNOT TELL")
                kind = "failure" if row.judged.word == "SLOWER" else "error"
                _case(suite, f"{row.metric.title} is not slower", [f"{row.judged.word}: {text}"] if bad else [], kind)
    suite.set("tests", str(len(suite)))
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(len(suite.findall(f"testcase/{kind}"))))
    out = ET.SubElement(suite, "system-out")
    out.text = f"{found.headline}: {text}"
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ET.Element, name: str, problems: list[str], kind: str) -> None:
    case = ET.SubElement(suite, "testcase", classname="harness.compare", name=name)
    if problems:
        found = ET.SubElement(case, kind, message=printable(problems[0]))
        found.text = printable("\n".join(problems))


def markdown(found: Comparison, said: Callable[[str], str] = str) -> str:
    """For a pull request or a vendor's bug report; `said` is made of what logs and people say before it is escaped."""
    return "\n".join(_markdown(found, lambda text: _plain(said(text)))) + "\n"


def _markdown(found: Comparison, plain: Callable[[str], str]) -> Iterator[str]:
    a, b = found.question.labels
    yield f"**{found.headline}**: {plain(words.sentence(found))}"
    yield ""
    for arm, label in enumerate(found.question.labels):
        yield f"- {plain(label)}: {plain(arm_text([run for run in found.runs if run.arm == arm]))}"
    if found.comparability is not None and found.comparability.differences:
        yield from ("", f"| field | {plain(a)} | {plain(b)} | |", "|---|---|---|---|")
        for each in found.comparability.differences:
            left, right = (plain(" / ".join(values)) or "-" for values in each.values)
            yield f"| {plain(each.field)} | {left} | {right} | {each.standing}{', ' * bool(each.note)}{plain(each.note)} |"
    if found.rows:
        yield from (
            "",
            f"| | {plain(a)} | {plain(b)} | slower by | 95 % interval | verdict |",
            "|---|--:|--:|--:|--:|---|",
        )
        for row in found.rows:
            word = row.judged.word if row.gated else f"({row.judged.word.lower()}, not gated)"
            means = " | ".join(words.figure(value) for value in row.means)
            bounds = f"{words.signed(row.judged.percent)} | {words.interval(row.judged.percent_interval)}"
            yield f"| {row.metric.title}, {row.metric.unit} | {means} | {bounds} | {word} |"
    if found.phases:
        yield from (
            "",
            f"| seconds in | {plain(a)} | {plain(b)} | slower by | 95 % interval |",
            "|---|--:|--:|--:|--:|",
        )
        for phase in found.phases:
            seconds = " | ".join(words.figure(value) for value in phase.seconds)
            mark = " (sure)" * phase.sure
            name = plain(phase.name.replace("_", " "))
            yield f"| {name}{mark} | {seconds} | {words.signed(phase.percent)} | {words.interval(phase.interval)} |"
    if found.probes.rows:
        yield from ("", f"| probe, never gated | {plain(a)} | {plain(b)} | ratio | of |", "|---|--:|--:|--:|---|")
        for probed in found.probes.rows:
            name = f"{plain(probed.name.replace('_', ' '))}, {plain(probed.unit)}"
            medians = " | ".join(words.figure(value) for value in probed.medians)
            yield f"| {name} | {medians} | {probed.ratio:.3f} | {plain(probed.what)} |"
    remarks = [f"{each.where}: {each.text}" for each in found.symptoms]
    remarks += [f"{each.run.name}: {each.reason}" for each in found.invalid]
    remarks += [
        f"{each.run} stands out: {each.percent:+.2f} % from its arm's others; it counts" for each in found.outlying
    ]
    remarks += words.time_to_train(found)
    remarks += [f"numbers: {found.bits.text}"] if found.bits is not None else []
    remarks += words.watched(found)
    remarks += found.probes.notes
    remarks += [*words.quality(found.quality, found.question.labels), *found.notes]
    if remarks:
        yield ""
        yield from (f"- {plain(remark)}" for remark in remarks)


def _plain(text: str) -> str:
    """Nothing in it is Markdown, a formula, a table's border or HTML; what begins it begins no list and no heading."""
    text = printable(text).replace("\n", " ").strip()
    text = re.sub(r"[\\`*_|<>\[\]#@&~$]", r"\\\g<0>", text)
    return re.sub(r"^(\d*)([-+.)])(?=[\s-]|$)", r"\1\\\2", text)
