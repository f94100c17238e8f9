"""Running a command the way a user does, and what every failure must look like."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cifarfast import door

ROOT = Path(__file__).parents[1]


def command(
    module: str, *arguments: str | Path, cwd: Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` in `cwd`, where warnings are not errors, as for a user."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def printed(code: str) -> str:
    """What another Python process prints that runs `code`."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def refusal(main: Callable[[Sequence[str]], None], capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command in this process, which must refuse: the one line with which it does (see `refused`)."""
    with pytest.raises(SystemExit) as leaving:
        door.run(lambda: main(list(map(str, arguments))))
    shown = capsys.readouterr()
    assert shown.out == ""
    return refused(leaving.value.code, shown.err)


def refused(code: object, stderr: str) -> str:
    """The one line with which a command refused a user's mistake, after checking that it was one line and exit 2."""
    assert code == 2, (code, stderr)
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    return lines[0]
