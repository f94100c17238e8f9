"""The manners that every command has: how it parses, how it fails, how it leaves.

Flags come from a dataclass (tyro: a field is a flag, the sentence under it is its help text, so the
command line, the Python interface and the documentation cannot drift apart). Errors are one line on
stderr. Exit codes are in `cifarfast.errors`.
"""

import argparse
import contextlib
import io
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, TypeVar

import tyro

from cifarfast.errors import (
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    EXIT_TERMINATED,
    EXIT_USER_ERROR,
    NonFiniteError,
    Stopped,
    UserError,
    one_line,
)
from cifarfast.recipe import DEFAULT_RECIPE, RECIPES, Recipe

Arguments = TypeVar("Arguments")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked: int | None = None
"""The signal that has asked the command to leave."""
_STYLE = (tyro.conf.OmitArgPrefixes,)


def parse(
    kind: type[Arguments], *, prog: str, argv: Sequence[str] | None = None, default: Arguments | None = None
) -> Arguments:
    """Parse the command line into `kind`, a dataclass; a mistake is one line on stderr and exit 2.

    Args:
        default: an instance whose values the flags default to, in place of the dataclass's own.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            if default is None:
                return tyro.cli(kind, prog=prog, args=argv, config=_STYLE)
            return tyro.cli(kind, prog=prog, args=argv, default=default, config=_STYLE)
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        fail(f"{_first_sentence(errors.getvalue())} (see {prog} --help)", EXIT_USER_ERROR)


def named_recipe(argv: Sequence[str] | None = None) -> Recipe:
    """The recipe that `--recipe` names; looked up before parsing, because its values are the defaults of its flags."""
    name = named(argv, "--recipe") or DEFAULT_RECIPE
    if name not in RECIPES:
        fail(f"--recipe {name} is unknown: choose one of {', '.join(RECIPES)}", EXIT_USER_ERROR)
    return RECIPES[name]


def named(argv: Sequence[str] | None, flag: str) -> str | None:
    """The value of a flag on which the defaults of others depend, found before parsing; None if it is not given."""
    return _found(argv, flag)[0]


def without(argv: Sequence[str] | None, flag: str) -> list[str]:
    """The command line without a flag and its value."""
    return _found(argv, flag)[1]


def _found(argv: Sequence[str] | None, flag: str) -> tuple[str | None, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    spellings = {flag, "--" + flag[2:].replace("-", "_")}  # tyro takes both
    finder.add_argument(*sorted(spellings), nargs="?", dest="value")
    found, rest = finder.parse_known_args(argv)
    return found.value, rest


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command and leave with the exit code that its outcome asks for."""
    global _asked
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is for a job in the background
            signal.signal(number, _leave)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be UTF-8
    try:
        main()
    except UserError as error:
        fail(str(error), EXIT_USER_ERROR)
    except NonFiniteError as error:
        fail(str(error), EXIT_NON_FINITE)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror}", EXIT_USER_ERROR)
    except Stopped as stopped:
        fail(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)
    finally:
        _asked = None
    sys.exit(0)


def note(message: str) -> None:
    """One line for the person at the terminal, on stderr, so that stdout stays for results."""
    print(one_line(message), file=sys.stderr, flush=True)


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """A table, one line a row, whatever the width of the terminal."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fail(message: str, code: int) -> NoReturn:
    """Print one line on stderr and leave."""
    note("error: " + message)
    sys.exit(code)


def leave_if_asked() -> None:
    """Leave after all if a signal has come whose exception was lost, as it is in Python code that C code calls."""
    global _asked
    if _asked is not None:
        signum, _asked = _asked, None
        _raise(signum)


def ask_to_leave(signum: int) -> None:
    """Have the next `leave_if_asked` leave: a signal came when what it could stop was at its end."""
    global _asked
    _asked = signum


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that temporary files are removed and locks released on the way out; a second signal
    # does not wait for that.
    global _asked
    _asked = signum
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _raise(signum)


def _raise(signum: int) -> NoReturn:
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    fail("terminated", EXIT_TERMINATED)


def _first_sentence(boxed: str) -> str:
    """The message in the box that tyro draws around its errors: all up to the first rule inside it."""
    inside = [line.strip(" │") for line in boxed.splitlines()[1:]]
    end = next((i for i, line in enumerate(inside) if not line.strip("─╰╯")), len(inside))
    return " ".join(inside[:end])
