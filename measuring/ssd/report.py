"""What measuring.ssd shows: a table on the terminal, a chart, all samples as JSON."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from measuring import study
from measuring.measure import Comparison, Figure, Known, quartiles
from measuring.ssd.accuracy import WINDOW, smoothed
from measuring.ssd.checks import Check
from measuring.ssd.sections import Kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACHED, MISSED, WITHOUT_GOAL = "#009E73", "#D55E00", "#56B4E9"  # Okabe and Ito's palette


@dataclass
class Report:
    """Everything found, in the order of the sections."""

    machine: dict[str, Any]
    surroundings: dict[str, Any]
    configuration: dict[str, Any]  # as this device runs it
    not_as_configured: dict[str, str] = field(default_factory=dict)  # why it differs from what was asked for: settle's
    checks: list[Check] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    aside: list[Figure] = field(
        default_factory=list
    )  # power, plans of earlier processes: of a section that broke off too, and no measurement by themselves
    kernels: list[Kernel] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # sections that were asked for and not measured to their end

    @property
    def measured(self) -> bool:
        """Whether there is anything beside the checks and the warm-up before them."""
        return bool(self.comparisons or self.figures[1:] or self.kernels or self.losses)

    @property
    def correct(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Kept:
    """Where figures go as they come: into the report, its JSON and the terminal. One that is killed takes none of them."""

    report: Report
    path: Path
    say: Callable[[str], None]

    def so_far(self, coming: Iterable[Known]) -> None:
        """What is known after each sample; said when it is all."""
        known: Known = []
        comparisons, figures = list(self.report.comparisons), list(self.report.figures)
        for known in coming:
            self.report.comparisons[:] = [*comparisons, *(each for each in known if isinstance(each, Comparison))]
            self.report.figures[:] = [*figures, *(each for each in known if isinstance(each, Figure))]
            self.write()
        for each in known:
            self.say(str(each))

    def one_by_one(self, coming: Iterable[Figure]) -> None:
        for each in coming:
            self.so_far([[each]])

    def write(self) -> None:
        """A disk that is full is said at the end, where this is tried again; a pipe gets one document, then."""
        if self.path.is_file() or not self.path.exists():
            with contextlib.suppress(OSError):
                write_json(self.report, self.path)


def write_json(report: Report, path: Path) -> None:
    """Everything that was measured, every sample, as JSON at `path`."""
    content = {
        "machine": report.machine,
        **report.surroundings,
        "configuration": report.configuration,
        "not_as_configured": report.not_as_configured,
        "checks": [{**asdict(check), "passed": check.passed} for check in report.checks],
        "comparisons": [comparison.plain() for comparison in report.comparisons],
        "figures": [figure.plain() for figure in (*report.figures, *report.aside)],
        "kernels": [asdict(kernel) for kernel in report.kernels],
        "losses": report.losses,
        "left_out": report.left_out,
    }
    study.keep(content, path)


def show(report: Report, console: Console) -> None:
    """The whole as tables."""
    machine = report.machine
    console.print(
        f"{machine['device']}, {machine['cores']} cores ({' '.join(machine['vector_units'])}), {machine['threads']} threads, "
        f"{machine['clock']} clock, torch {machine['torch']}, load {machine['load_before']:.1f} before the start",
        highlight=False,
    )
    of = report.surroundings
    changed = ", with changes" if of["tree_dirty"] else ""
    console.print(f"commit {of['commit'][:12]}{changed}, driver {of['software']['driver']}", highlight=False)
    checks = _table("correct?", "found", "allowed", "")
    for check in report.checks:
        checks.add_row(check.what, f"{check.found:.2g}", f"{check.bound:g}", "yes" if check.passed else "NO")
    console.print(checks)
    compared = _table("compared, in turns", "ours", "against", "ratio", "quartiles", "n", "goal")
    for each in report.comparisons:
        low, high = quartiles(each.ratios)
        goal = "" if each.goal is None else f"{each.goal:g} {'reached' if each.ratio >= each.goal else 'MISSED'}"
        compared.add_row(
            f"{each.what}{f' ({each.note})' if each.note else ''}",
            _of(each.ours),
            f"{_of(each.baseline)}, {each.baseline.what}",
            *(f"{each.ratio:.2f}", f"{low:.2f} to {high:.2f}", str(len(each.ratios)), goal),
        )
    figures = _table("measured", "median", "quartiles", "n")
    for figure in (*report.figures, *report.aside):
        low, high = figure.quartiles
        note = f" ({figure.note})" if figure.note else ""
        figures.add_row(figure.what + note, _of(figure), f"{low:.4g} to {high:.4g}", str(len(figure.samples)))
    kernels = _table("kernels of a step", "share", "ms", "calls")
    for kernel in report.kernels:
        kernels.add_row(kernel.name, f"{kernel.share:.1%}", f"{kernel.ms_per_step:.2f}", f"{kernel.calls_per_step:g}")
    for table in (compared, figures, kernels):
        if table.row_count:
            console.print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _of(figure: Figure) -> str:
    return f"{figure.median:.4g} {figure.unit}"


def draw(report: Report, title: str, path: Path) -> None:
    """The ratios, the curves of losses, or one above the other."""
    from matplotlib.figure import Figure as Canvas

    heights = [1.4 + 0.6 * len(report.comparisons)] * bool(report.comparisons) + [3.6] * bool(report.losses)
    canvas = Canvas(figsize=(9, sum(heights)), dpi=110, layout="constrained")
    panels = list(canvas.subplots(len(heights), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0])
    if report.comparisons:
        _ratios(panels[0], report.comparisons)
    if report.losses:
        _curves(panels[-1], report.losses)
    panels[0].set_title(title, fontsize=10)
    drawn = io.BytesIO()
    canvas.savefig(drawn)
    study.put(drawn.getvalue(), path)


def _ratios(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    """A bar from 1 to each ratio with its quartiles, and a line where a goal stands."""
    for place, each in enumerate(comparisons):
        low, high = quartiles(each.ratios)
        colour = WITHOUT_GOAL if each.goal is None else REACHED if each.ratio >= each.goal else MISSED
        axes.barh(place, each.ratio - 1, left=1, color=colour, height=0.6)
        axes.plot([low, high], [place, place], color="black", linewidth=2)
        if each.goal is not None:
            axes.plot([each.goal] * 2, [place - 0.42, place + 0.42], color="black", linestyle=":")
        text = f" {each.ratio:.2f}x, n = {len(each.ratios)}" + ("" if each.goal is None else f", goal {each.goal:g}")
        axes.annotate(text, (max(1, each.ratio, high, each.goal or 0), place), va="center", fontsize=9)
    axes.set_yticks(range(len(comparisons)), [f"{c.what}\nagainst {c.baseline.what}" for c in comparisons], fontsize=8)
    axes.invert_yaxis()
    reach = [end for each in comparisons for end in (*quartiles(each.ratios), each.goal or 1)]
    axes.set_xscale("log")
    axes.set_xlim(0.9 * min(1, *reach), 6 * max(1, *reach))
    axes.axvline(1, color="black", linewidth=0.8)
    ticks = [
        tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times as fast (median of turns; black: middle half; dotted: goal)", fontsize=9)


def _curves(axes: Axes, losses: Mapping[str, Sequence[float]]) -> None:
    """Each step's loss, thin, and the means that accuracy.figures compares, thick."""
    # strict=False: of a training that was cut off there are fewer
    for (name, curve), colour in zip(losses.items(), ("black", MISSED, WITHOUT_GOAL), strict=False):
        axes.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=0.5, alpha=0.5)
        middles = [min(i + (WINDOW + 1) / 2, len(curve)) for i in range(0, len(curve), WINDOW)]
        axes.plot(middles, smoothed(curve), color=colour, linewidth=1.8, label=name)
    axes.set_xlabel(f"step (thick: means of {WINDOW})")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend()
