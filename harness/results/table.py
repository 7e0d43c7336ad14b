"""Tables in the terminal: aligned, wrapped to its width where there is one, and whole where the output is a file."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

WIDE = 100_000  # columns: nothing is cut when another program reads
NARROW = 120  # columns below which a table of findings would be a tower of syllables
FOLDED, GAP = 24, 3  # columns of a terminal that a long text is folded to at least, and between two columns of a table
CELL_LIMIT = 2_000  # characters of one cell: what is longer says no more, and takes minutes to fold
TELL_S = 10.0  # between two lines of progress


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print rows under bold headings; `right` names the columns of figures. What does not fit beside comes below."""
    console = _console()
    _print(console, columns, list(rows), set(right))


def show_findings(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """The same where a terminal has room for a table; on a narrower one each row as a paragraph of its own, folded."""
    console = _console()
    if console.width >= NARROW:
        console.print(_table(columns, rows, right))
        return
    from rich.padding import Padding
    from rich.text import Text

    for row in rows:
        first, *rest = [printable(cell) for cell in row if cell]
        console.print(Text(first, style="bold"), Text(": ".join(rest[:-1])))
        console.print(Padding(Text(rest[-1] if rest else "", style="dim"), (0, 0, 0, 4)))


@contextlib.contextmanager
def progress(what: str, of: str) -> Iterator[Callable[[int, int], None]]:
    """How far long work has come, on stderr: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= TELL_S:
            last[0] = time.monotonic()
            sys.stderr.write(f"{what}: {done} of {total} {of}\n")
            sys.stderr.flush()

    yield tell


def show_again(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """The same in place of what a terminal shows; below it where the output is a file."""
    console = _console()
    console.clear()  # does nothing to a file
    _print(console, columns, list(rows), set(right))


def _print(console: Any, columns: Sequence[str], rows: list[Sequence[str]], figures: set[str]) -> None:
    """No figure and no name is broken for lack of room: columns that do not fit come below, with the first one again.

    Where there is no room for one beside the first either, each row is lines of its own.
    """
    from rich.cells import cell_len  # a letter of Chinese takes two columns

    widths = [
        max(max(map(cell_len, printable(text).split("\n"))) for text in (name, *cells))
        for name, *cells in zip(columns, *rows, strict=True)
    ]
    least = [width if name in figures else min(width, FOLDED) for name, width in zip(columns, widths, strict=True)]
    if max([least[0], *(least[0] + GAP + each for each in least[1:])]) > console.width:
        _print_lines(console, columns, rows)
        return
    parts: list[list[int]] = [[0]]
    for index in range(1, len(columns)):
        if sum(least[each] + GAP for each in (*parts[-1], index)) - GAP > console.width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(index)
    for part in parts:
        whole = [columns[each] for each in part if widths[each] <= FOLDED or columns[each] in figures]
        shown = ([row[each] for each in part] for row in rows)
        console.print(_table([columns[each] for each in part], shown, figures, whole))


def _print_lines(console: Any, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.text import Text

    for index, row in enumerate(rows):
        if index:
            console.print()
        for name, cell in zip(columns, row, strict=True):
            if cell:
                console.print(Text(printable(f"{name}: {cell[:CELL_LIMIT]}" if name else cell[:CELL_LIMIT])))


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str], whole: Sequence[str] = ()
) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    figures = set(right)
    for column in columns:
        justify: Any = "right" if column in figures else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(Text(printable(cell[:CELL_LIMIT])) for cell in row))
    return table


def say(text: str = "") -> None:
    """One paragraph, with nothing in it taken for markup."""
    from rich.text import Text

    _console().print(Text(printable(text)), soft_wrap=True)


def show_json(content: Any) -> None:
    """For other programs: UTF-8, no NaN, one document."""
    sys.stdout.write(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n")


def printable(text: str) -> str:
    """What a log says, without the codes that could move a terminal's cursor. What is not ours to begin lines: `one_line`."""
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def one_line(text: str) -> str:
    """The same of a text that could fake a line."""
    return printable(text).replace("\n", "\\n")


def figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def rounded(value: float, digits: int, sign: str = "") -> str:
    """To so many digits, and never as a power of ten: 200, not 2e+02; with `sign` "+" it has one."""
    return f"{float(f'{value:.{digits}g}'):{sign},.10g}"


def _console() -> Any:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal else WIDE, soft_wrap=False)
