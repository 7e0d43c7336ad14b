"""The command `python -m harness`: its verbs, and the exit code of every way out.

Modules of this package import nothing but typer and the standard library before a verb is called, so that help and
completion come at once.
"""

from __future__ import annotations

import codecs
import errno
import importlib
import io
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness import __version__, exit_codes, options

# What stands for a character that a terminal's encoding lacks
PLAIN = {"\N{EN DASH}": "-", "\N{MULTIPLICATION SIGN}": "x", "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-", "\u2026": "..."}
MODULES = ("run", "configs", "results", "report", "compare", "history", "host", "probe", "inference")

# What these do lies in files, and their exit codes are about that, whether or not anybody reads what they print
LEAVE_FILES = {"run", "prepare", "collect", "package", "export", "compare run", "compare plan", "compare noise"}

# What is wrong with a file or folder that was named, or with what lies in it, and no fault of the machine
OF_PATHS = (
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)


class Verbs(TyperGroup):
    """A list of verbs in which each one's first sentence is whole: typer's own cuts it to what fits in the line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.get_short_help_str(limit=1000)) for name, verb in found])


def build() -> typer.Typer:
    """The application with all its verbs."""
    app = typer.Typer(
        name="harness",
        cls=Verbs,
        help="A training benchmark that people trust: run it, check its logs, compare its results.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_options)
    for name in MODULES:
        importlib.import_module(f"harness.cli.{name}").register(app)
    options.refuse_empty_paths(verbs(app))
    return app


def verbs(app: typer.Typer) -> Iterator[Callable[..., None]]:
    """The functions behind them, those of groups too."""
    for command in app.registered_commands:
        if command.callback is not None:
            yield command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from verbs(group.typer_instance)


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"harness {__version__}\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it and end.")
    ] = False,
) -> None:
    """Options of the command itself, without a verb."""


def command() -> int:
    """`harness`, where the project is installed."""
    return main(name="harness")


def main(arguments: Sequence[str] | None = None, name: str = "python -m harness") -> int:
    """Run one verb; returns the exit code (130 on Ctrl-C, which typer sees to)."""
    from harness import rules
    from harness.cli import recipe_words, screen
    from harness.cli.environment import benchmark_folders
    from harness.contract import NotSuitable

    screen.outlive()
    write_what_can_be_written()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        rules.also_search(benchmark_folders())
        build()(args=recipe_words.translated(words), prog_name=name)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return _printed(words, end.code or 0)
        return _say(f"error: {end.code}", exit_codes.BROKEN)  # of a library: no verb of ours ends in words
    except ValueError as error:
        return _say(f"error: {error}", exit_codes.USAGE)
    except NotSuitable as error:
        return _say(f"error: {error}", exit_codes.NOT_SUITABLE)
    except OSError as error:
        if error.errno not in OF_PATHS or error.filename is None or str(error.filename).startswith("/dev/"):
            return _say(f"error: {error}", exit_codes.NOT_SUITABLE)
        return _say(f"error: {error.filename}: {error.strerror}", exit_codes.USAGE)
    except Exception:  # noqa: BLE001 - 1, Python's own code for it, says "target not met" here
        return _say(f"{traceback.format_exc()}error: nobody foresaw this; please report it", exit_codes.BROKEN)
    return _printed(words, 0)


def _printed(words: Sequence[str], code: int) -> int:
    """The exit code of a verb that ended with `code`: NOT_SUITABLE for 0 where what it was asked for is not whole."""
    from harness.cli import screen

    if {" ".join(words[:1]), " ".join(words[:2])} & LEAVE_FILES or not (why := screen.lost()):
        return code
    return _say(f"error: what was printed is not whole: {why}", code or exit_codes.NOT_SUITABLE)


def write_what_can_be_written() -> None:
    """Where the terminal's encoding lacks a character, another stands for it: no verb ends for a dash."""

    def instead(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return "".join(PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end

    codecs.register_error("harness.plain", instead)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="harness.plain")


def _say(text: str, code: int) -> int:
    from harness.results.table import printable

    sys.stderr.write(f"{printable(text)}\n")
    return code
