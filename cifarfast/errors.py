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


class UserError(Exception):
    """Something the user can mend: says what was wrong, where, and what to do next, in one line."""


class NonFiniteError(Exception):
    """The loss or a gradient became NaN or infinite; the weights were not touched by that step."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the run to stop, and it did where nothing was lost; `signum` is SIGINT or SIGTERM."""

    def __init__(self, message: str, signum: signal.Signals) -> None:
        super().__init__(message)
        self.signum = signum
