"""Commands that see a mount of their own, without being root: a small disk, or a folder in place of another."""

import functools
import shlex
import subprocess

import pytest

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def mounting(script: str) -> list[str]:
    """What to put before a command so that it runs after `script`, whose mounts nobody else sees."""
    return [*_UNSHARE, "sh", "-c", f'{script} && exec "$@"', "sh"]


@functools.cache
def _permitted() -> bool:
    try:
        trial = subprocess.run([*mounting("mount -t tmpfs none /mnt"), "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return trial.returncode == 0


def binding(folder: object, over: object) -> str:
    """The script that puts a folder in the place of another."""
    return f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(over))}"


def require_mounts() -> None:
    """Skip a test where a user may not mount (in a container, or where user namespaces are switched off)."""
    if not _permitted():
        pytest.skip("mounts in a user namespace are not permitted here")
