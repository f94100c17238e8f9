"""The ways a command ends badly, and the exit codes that go with them.

`UserError` is anything a person can mend (a wrong path, a damaged file, a value out of range): the
commands print it as one line on stderr and leave with exit code 2. `NonFiniteError` is training that
diverged: exit code 3. `Stopped` is a run that was asked to stop and did: 130 or 143. Everything else
is a defect of ours and keeps its traceback.
"""

import signal

EXIT_USER_ERROR = 2
EXIT_NON_FINITE = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_LONGEST = 800


def one_line(text: str) -> str:
    """Text that is safe in a terminal, whatever names and values are in it: one line, of printable characters.

    Control sequences, directional overrides and bytes that are not UTF-8 are escaped; what is very long loses its
    middle.
    """
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in " ".join(text.split())
    )
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


class UserError(Exception):
    """Something the user can mend: says what was wrong, where, and what to do next, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class NonFiniteError(Exception):
    """The loss or a gradient became NaN or infinite; the weights were not touched by that step."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the run to stop, and it did where nothing was lost; `signum` is SIGINT or SIGTERM."""

    def __init__(self, message: str, signum: signal.Signals) -> None:
        super().__init__(message)
        self.signum = signum
