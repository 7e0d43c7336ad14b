"""The comparison in a terminal of 80 columns, from the environment's differences down to the one sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from harness.comparison.comparison import Comparison, MetricRow, Phase
from harness.comparison.probes import Probes
from harness.comparison.reporting import words
from harness.comparison.runs import ComparedRun
from harness.results.table import one_line, printable

WIDTH = 80
SHOWN = 12  # differences of one standing that are listed; --json has all


def lines(found: Comparison) -> Iterator[str]:
    """Each at most WIDTH wide."""
    for arm, label in enumerate(found.question.labels):
        yield from _wrapped(
            f"{label}  {arm_text([run for run in found.runs if run.arm == arm])}", indent=len(label) + 2
        )
    if found.invalid:
        yield ""
        yield "runs that cannot be compared"
        for each in found.invalid:
            yield from _wrapped(f"  {each.run.name}: {each.reason}", indent=4)
    yield from _differences(found)
    if found.symptoms:
        yield ""
        yield "health"
        for symptom in found.symptoms:
            yield from _wrapped(f"  {symptom.where}: {symptom.text}", indent=4)
    if found.rows:
        yield ""
        yield _heading("", found.question.labels, "verdict")
        yield from (_row(row) for row in found.rows)
    if found.phases:
        yield ""
        yield _heading("seconds in", found.question.labels, "difference")
        yield from (_phase(phase) for phase in found.phases)
    yield from _probes(found.probes, found.question.labels)
    yield from _rest(found)
    yield ""
    yield from _wrapped(words.sentence(found))


def arm_text(runs: Sequence[ComparedRun]) -> str:
    """What an arm is: how many runs, of what, on how many hosts, with which driver."""
    first = runs[0].record
    hosts = dict.fromkeys(run.host for run in runs)
    drivers = {str(run.record.software.get("driver", "")) for run in runs} - {"", "none"}
    parts = [
        f"{len(runs)} run{'s' * (len(runs) != 1)} of {first.configuration_name or first.benchmark or 'an unnamed benchmark'}",
        f"on {len(hosts)} host{'s' * (len(hosts) != 1)}" if len(hosts) != 1 else f"on {next(iter(hosts))}",
        *(f"driver {each}" for each in sorted(drivers)),
    ]
    return ", ".join(parts)


def _differences(found: Comparison) -> Iterator[str]:
    comparable = found.comparability
    if comparable is None or not comparable.differences:
        return
    for standing, title in (
        ("refused", "differs, and must not"),
        ("allowed", "differs, as it may"),
        ("not told", "not told by every log"),
    ):
        chosen = [each for each in comparable.differences if each.standing == standing]
        if not chosen:
            continue
        yield ""
        yield title
        if standing == "not told":
            names = ", ".join(dict.fromkeys(each.field for each in chosen[:SHOWN]))
            more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
            yield from _wrapped(f"  {names}{more}", indent=2)
            continue
        for each in chosen[:SHOWN]:
            a, b = (" | ".join(values) or "-" for values in each.values)
            yield f"  {_cut(each.field, 30):30}  {_cut(a, 22):22}  {_cut(b, 22)}".rstrip()
        if len(chosen) > SHOWN:
            yield f"  and {len(chosen) - SHOWN} more; --json has all"
    for refusal in comparable.refusals:
        yield from _wrapped(f"! {refusal}", indent=2)


def _heading(first: str, labels: tuple[str, str], last: str) -> str:
    a, b = (_cut(label, 10) for label in labels)
    return f"{first:18}{a:>10}{b:>10}  {'slower by':>9}  {'95 % interval':>16}  {last}"


def _row(row: MetricRow) -> str:
    judged = row.judged
    word = judged.word if row.gated else f"({judged.word.lower()})"
    a, b = row.means
    return (
        f"{_cut(row.metric.title, 18):18}{words.figure(a):>10}{words.figure(b):>10}  {words.signed(judged.percent):>9}  "
        f"{words.interval(judged.percent_interval):>16}  {word}"
    )


def _phase(phase: Phase) -> str:
    a, b = phase.seconds
    difference = f"{words.change(phase.difference_s)}{' *' * phase.sure}"
    return (
        f"{_cut(phase.name.replace('_', ' '), 18):18}{words.figure(a):>10}{words.figure(b):>10}  "
        f"{words.signed(phase.percent):>9}  {words.interval(phase.interval):>16}  {difference}"
    )


def _probes(found: Probes, labels: tuple[str, str]) -> Iterator[str]:
    if not found.rows and not found.notes:
        return
    yield ""
    a, b = (_cut(label, 8) for label in labels)
    if found.rows:
        title = _cut(f"probes ({' + '.join(map(str, found.counts))}), never gated", 29)
        yield f"{title:29}{a:>9}{b:>9}{'ratio':>7}  of"
    for row in found.rows:
        left, right = (
            f"{value:,.0f}" if 9_999.5 <= value < 999_999.5 else f"{value:,.4g}" for value in row.medians
        )  # no power of ten of what is images a second
        name = _cut(f"{row.name.replace('_', ' ')}, {row.unit}", 29)
        yield _cut(f"{name:29}{left:>9}{right:>9}{row.ratio:>7.3f}  {_cut(row.what, 24)}".rstrip(), WIDTH)
    for note in found.notes:
        yield from _wrapped(f"note: {note}", indent=4)


def _rest(found: Comparison) -> Iterator[str]:
    yield ""
    for text in words.time_to_train(found):
        yield from _wrapped(text, indent=4)
    if found.question.numbers and found.bits is None:
        yield from _wrapped(
            "numbers: nobody can say, without runs of --deterministic and one seed in both arms", indent=4
        )
    if found.bits is not None:
        yield from _wrapped(f"numbers: {found.bits.text}", indent=4)
    for text in words.watched(found):
        yield from _wrapped(text, indent=4)
    for text in words.quality(found.quality, found.question.labels):
        yield from _wrapped(text, indent=4)
    for run in found.outlying:
        yield from _wrapped(f"stands out: {run.run}, {run.percent:+.2f} % from its arm's others; it counts", indent=4)
    for note in found.notes:
        yield from _wrapped(f"note: {note}", indent=4)


def _wrapped(text: str, indent: int = 0) -> Iterable[str]:
    return textwrap.wrap(printable(text), WIDTH, subsequent_indent=" " * indent, break_long_words=True) or [""]


def _cut(text: str, width: int) -> str:
    """Its end says more than its middle: versions differ there."""
    text = one_line(text)
    return text if len(text) <= width else f"{text[: width // 3]}..{text[-(width - width // 3 - 2) :]}"
