"""A comparison in one sentence, and the figures as every output writes them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.comparison.comparison import Comparison, MetricRow, Phase
from harness.comparison.judging import metrics
from harness.comparison.judging.numbers import EpochDifference, Met, Quality
from harness.comparison.judging.verdict import Judged
from harness.comparison.minutes import Minutes
from harness.results.table import rounded

SHARE = 0.25  # of the whole difference that a phase must make to be named


def sentence(found: Comparison) -> str:
    """What the terminal ends in: what was asked for first."""
    if found.question.numbers and found.rows:
        said = found.bits.text if found.bits is not None else "nobody can say, without deterministic runs of one seed"
        return f"Numbers: {said}. {_of_speed(found)}{_beside(found)}"
    return f"{_of_speed(found)}{_beside(found)}"


def _of_speed(found: Comparison) -> str:
    a, b = found.question.labels
    if found.invalid:
        count = len(found.invalid)
        first = found.invalid[0]
        return f"Not compared: {count} of {len(found.runs)} logs are no valid runs, the first {first.run.name}: {first.reason}."
    if found.comparability is None or not found.comparability.ok or found.word is None:
        refusals = found.comparability.refusals if found.comparability is not None else ("nothing to compare",)
        return f"Not comparable: {refusals[0]}."
    row = deciding(found)
    judged = row.judged
    what = (
        f"{_subject(b, row)} is {slower(judged.percent, row)} ({_interval(row)}, n {_n(row)})"
        if judged.estimate
        else "The speed cannot be told"
    )
    delta = f"{100 * judged.delta:.3g} %"
    if found.word == "WORSE":
        assert found.quality is not None
        how = ", and ".join(_worse(found.quality, each) for each in found.quality.worse)
        suspect = f" Suspect, too: {found.symptoms[0].text} ({found.symptoms[0].where})." if found.symptoms else ""
        return f"{b} trains worse than {a}: {how}. {what}.{suspect}"
    if found.word == "SUSPECT":
        return f"Suspect, whatever the figures say: {found.symptoms[0].text} ({found.symptoms[0].where}). {what}."
    if judged.estimate is None:
        return f"Cannot tell: {judged.reason}; {judged.remedy or _more(judged)}."
    if found.word == "EQUAL":
        return f"{a} and {b} are equal within {delta}: {what}."
    if found.word == "CANNOT TELL":
        return f"Cannot tell within {delta}: {judged.reason}. {what}; {judged.remedy or _more(judged)}."
    return f"{what}{_named(found)}."


def _subject(label: str, row: MetricRow) -> str:
    """What of an arm is slower; the arm itself by the seconds of an epoch and the images of a second."""
    return (
        label
        if row.metric.name in (metrics.MEDIAN, "images_per_s")
        else f"{label}'s {row.metric.title.removeprefix('an ')}"
    )


def _beside(found: Comparison) -> str:
    """What is slower and decides nothing: without a word on it, EQUAL would be taken for all of a run."""
    rows = [row for row in found.rows if not row.gated and row.judged.word == "SLOWER"]
    label = found.question.labels[1]
    told = " and ".join(
        f"{_subject(label, row)} is {slower(row.judged.percent, row)} ({_interval(row)})" for row in rows
    )
    return f" Not gated: {told}." if told else ""


def _named(found: Comparison) -> str:
    named = ", ".join(phase.name.replace("_", " ") for phase in blamed(found))
    return f", in {named}" if named else ""


def _worse(trained: Quality, found: EpochDifference | Met) -> str:
    if isinstance(found, Met):
        (a, b), (of_a, of_b) = found.met, found.runs
        return f"{b} of {of_b} runs met the target against {a} of {of_a}"
    name = "quality" if found is trained.accuracy else "loss"
    return f"{name} after {found.after} is {figure(found.means[1])} against {figure(found.means[0])}"


def deciding(found: Comparison) -> MetricRow:
    """The gated metric that made the verdict."""
    gated = [row for row in found.rows if row.gated]
    words = ("SLOWER", "CANNOT TELL", "FASTER", "EQUAL")
    return min(gated, key=lambda row: words.index(row.judged.word))


def blamed(found: Comparison) -> list[Phase]:
    """Phases of what was decided on that are surely different, its way, and make a good part of it; the largest first."""
    row = deciding(found)
    if row.judged.word not in ("SLOWER", "FASTER") or row.metric.name in metrics.PHASES:
        return []
    sign = 1 if row.judged.word == "SLOWER" else -1
    of_it = [phase for phase in found.phases if metrics.part(phase.name) == metrics.part(row.metric.name)]
    same_way = [phase for phase in of_it if sign * phase.difference_s > 0]
    total = sum(abs(phase.difference_s) for phase in same_way)
    chosen = [phase for phase in same_way if phase.sure and abs(phase.difference_s) >= SHARE * total]
    return sorted(chosen, key=lambda phase: -abs(phase.difference_s))


def slower(percent: float | None, row: MetricRow) -> str:
    if percent is None:
        return "not measured"
    way = ("slower", "faster") if row.metric.unit != "J" else ("more", "less")
    return f"{_rounded(abs(percent), 2 if abs(percent) < 100 else 3)} % {way[0] if percent > 0 else way[1]}"


def signed(percent: float | None) -> str:
    return "-" if percent is None else f"{within(percent)} %"


def interval(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else " to ".join(map(within, bounds))


def within(percent: float, digits: int | None = None, most: int = 999) -> str:
    """To two decimals, and from 100 on to none; of what is beyond `most` that alone is told: of two runs a phase may have 29
    digits. Six characters at most unless told otherwise, so that an interval keeps to its column.
    """
    if round(abs(percent)) > most:
        return f"{'>+' if percent > 0 else '<-'}{most:,}"
    return f"{percent:+,.{(2 if abs(percent) < 99.995 else 0) if digits is None else digits}f}"


def _interval(row: MetricRow) -> str:
    """As the sentence has it: on the side of its word."""
    bounds, percent = row.judged.percent_interval, row.judged.percent
    assert bounds is not None and percent is not None
    low, high = bounds if percent > 0 else (-bounds[1], -bounds[0])
    digits = next((each for each in (2, 3, 4) if f"{low:.{each}g}" != f"{high:.{each}g}"), 2)
    return f"{_rounded(low, digits)} to {_rounded(high, digits)}"


def _rounded(value: float, digits: int) -> str:
    """What is less than 100 is not said to be: 100 % faster takes no time."""
    while digits < 8 and abs(value) < 100 <= abs(float(f"{value:.{digits}g}")):
        digits += 1
    return rounded(value, digits)


def _n(row: MetricRow) -> str:
    """Runs that entered the ratio: those of a host with one arm alone did not."""
    assert row.judged.estimate is not None
    return " + ".join(map(str, row.judged.estimate.runs))


def _more(judged: Judged) -> str:
    runs, units = judged.more_runs, judged.more_units
    if runs is None:
        return "no number of runs worth making would settle it: the difference lies at delta, or the noise is too large"
    what = f"{runs} more run{'s' * (runs != 1)} an arm"
    if units is not None and judged.estimate is not None and judged.estimate.level != "run":
        s = "s" * (units != 1)
        blocks = f"{units} more block{s} an arm, each after a reboot,"
        what = blocks if judged.estimate.level == "block" else f"{units} more host{s}"
    return f"{what} would, if the difference is what it seems"


def change(value: float) -> str:
    """A difference of two figures."""
    return rounded(value, 3, "+")


def figure(value: float | None) -> str:
    """To five digits, in nine characters at most up to ten million."""
    if value is None:
        return "-"
    small = 0 < abs(value) < 1e-3
    return f"{value:,.0f}" if abs(value) >= 99_999.5 else f"{value:.3e}" if small else f"{value:,.5g}"


def _tenths(value: float | None) -> str:
    return "-" if value is None else f"{abs(value) if abs(value) < 0.05 else value:,.1f}"


def minutes(each: Minutes) -> str:
    """Time to train as what it is made of."""
    if each.minutes is None:
        return f"no whole run with an evaluation ({each.runs} runs)"
    return (
        f"{figure(each.epochs)} epochs x {figure(each.seconds_per_epoch)} s + evaluation {_tenths(each.evaluation_s)} s"
        f" + rest {_tenths(each.rest_s)} s = {each.minutes:.2f} min; {each.reached} of {each.runs} met the target"
    )


def time_to_train(found: Comparison) -> Iterator[str]:
    """Each arm's, in minutes; nothing of runs that could not be compared."""
    for label, each in zip(found.question.labels, found.minutes or (), strict=False):
        yield f"time to train, never gated: {label}  {minutes(each)}"


def watched(found: Comparison) -> Iterator[str]:
    """What each arm's hardware did; nothing where no run was watched."""
    for label, each in zip(found.question.labels, found.watched or (), strict=False):
        if each.runs:
            parts = [
                None if each.clock_sm_mhz is None else f"SM {each.clock_sm_mhz:,.0f} MHz",
                None if each.clock_memory_mhz is None else f"memory {each.clock_memory_mhz:,.0f} MHz",
                None if each.power_w is None else f"{each.power_w:,.0f} W",
                None if each.temperature_c is None else f"{each.temperature_c:.0f} C",
                None if each.pcie_generation is None else f"PCIe gen {each.pcie_generation:g}",
                None if each.pcie_width is None else f"PCIe x{each.pcie_width:g}",
                f"held {each.held_s:.1f} s a run by {', '.join(each.held_by)}" if each.held_s else None,
            ]
            yield f"hardware: {label}  {', '.join(filter(None, parts))}".replace("_", " ")
        elif any(other.runs for other in found.watched or ()):
            yield f"hardware: {label}  not watched"


def quality(found: Quality | None, labels: tuple[str, str]) -> Iterator[str]:
    """What the runs say of whether training came out the same."""
    if found is None:
        return
    for name, each in (("quality", found.accuracy), ("loss", found.loss)):
        if each is not None:
            yield f"{name} after {each.after}: {_difference(each, labels)}"


def _difference(each: EpochDifference, labels: tuple[str, str]) -> str:
    a, b = each.means
    text = f"{labels[0]} {a:.4f}, {labels[1]} {b:.4f}"
    if each.interval is None:
        return f"{text}; one run an arm cannot tell a difference from that between two seeds"
    if each.interval[0] == each.interval[1]:
        return f"{text}; the same in every run" if each.difference == 0 else f"{text}; different, without any spread"
    low, high = each.interval
    verdict = "no difference beyond that between seeds" if each.within else "different"
    shown = f"these runs would show about {each.visible:.4f}"  # by a spread that is itself known by few
    return f"{text}, {each.difference:+.4f} ({low:+.4f} to {high:+.4f}): {verdict}; {shown}"
