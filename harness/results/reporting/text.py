"""Figures as a reader of results expects them: one form for the terminal and the page."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import quote

from harness import outside
from harness.results.reporting.leaderboard import Group, Row, Spread

NONE = DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


def minutes(value: float | None) -> str:
    """Four significant figures, never fewer decimals than two: 43.87, 8.258, 0.4542."""
    if value is None:
        return NONE
    decimals = 2 if value >= 10 else 3 if value >= 1 else 4
    return f"{value:,.{decimals}f}"


def rate(value: float | None) -> str:
    """Images per second: whole from 10 on."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def quality(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def whole(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if value == int(value) else f"{value:,g}"


def percent(share: float | None) -> str:
    """Two significant figures: 0.15 %, 12 %."""
    if share is None:
        return NONE
    if share == 0:
        return "0 %"
    decimals = max(0, 1 - math.floor(math.log10(abs(share * 100))))
    return f"{share * 100:.{decimals}f} %"


def extent(pair: tuple[float, float] | None, form: str) -> str:
    """The lowest and the highest, or the one that both are."""
    if pair is None:
        return NONE
    say = {"quality": quality, "whole": whole, "minutes": minutes, "rate": rate}[form]
    low, high = (say(each) for each in pair)
    return low if low == high else f"{low}{DASH}{high}"


def spread(given: Spread | None, form: str) -> list[str]:
    """min to max; CV and n: each part stays on one line. Empty when there is nothing."""
    if given is None:
        return []
    if given.n == 1:
        return ["n 1"]
    return [extent((given.minimum, given.maximum), form), f"CV {percent(given.cv)}, n {given.n}"]


def accelerators(group: Group | Row) -> str:
    count = NONE if group.accelerators is None else f"{group.accelerators:,}"
    return f"{count} {TIMES} {group.accelerator}"


def link(path: Path, page_folder: Path) -> str:
    """A relative, quoted address of `path` for a page in `page_folder`."""
    return quote(os.fsencode(os.path.relpath(outside.real(path), outside.real(page_folder))))
