"""Damage to whatever is read ends in the one-line error that is documented, or changes nothing.

`--corruptions N` makes N of them; a larger N makes the same ones first. A failure names the file, the number of the
corruption and what was done, and the same command does it again.
"""

import hashlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from cifarfast.errors import UserError
from data_prep.sources import records
from tests.conftest import CORRUPTIONS
from tests.fuzz.corruption import corrupt
from tests.fuzz.targets import RECORDS, TARGETS, Target

SECONDS = 20
"""Of the processor's time, for one file of a few kilobytes: more is a hang."""
MEMORY = 1 << 29
"""Bytes of address space beyond what the process had: a reader that asks for more was deceived."""
LONGEST_MESSAGE = 1000


class HangError(BaseException):
    """Passes through readers that turn any exception into a UserError."""


@contextmanager
def little_time() -> Iterator[None]:
    """End what takes too much of the processor's time; within one call of C only pytest-timeout can."""

    def hang(_: int, __: FrameType | None) -> NoReturn:
        raise HangError(f"still reading after {SECONDS} s")

    earlier = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)


@contextmanager
def little_memory() -> Iterator[None]:
    """Beyond MEMORY more bytes, every allocation fails (on Linux, which says how much a process has)."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def count(target: Target, corruptions: int) -> int:
    return math.ceil(corruptions * target.weight / sum(target.weight for target in TARGETS))


@pytest.mark.timeout(method="thread")  # which ends calls of C too, and the tests with them
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damage_is_refused_or_changes_nothing(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    digests = {batch: hashlib.sha256(rows.tobytes()).hexdigest() for batch, rows in RECORDS.items()}
    monkeypatch.setattr(records, "OFFICIAL_SHA256", digests)
    path = target.write(tmp_path)
    whole, good = path.read_bytes(), target.read(tmp_path)
    part = target.unpack(whole)
    refused, made, start = 0, count(target, request.config.getoption("corruptions")), time.perf_counter()
    with little_memory():
        for number in range(made):
            what, damaged = corrupt(part, f"{target.name} {number}", places=target.places(part), is_json=target.is_json)
            path.write_bytes(target.pack(whole, damaged))
            case = f"{target.name}, corruption {number}: {what}"
            try:
                with little_time():
                    found = target.read(tmp_path)
            except UserError as error:
                message = str(error)
                assert message.isprintable(), case
                assert len(message) < LONGEST_MESSAGE, case
                assert "MemoryError" not in message, case
                refused += 1
            except (Exception, HangError) as error:
                raise AssertionError(f"{case}: {type(error).__name__}") from error
            else:
                assert target.kept(good, found), case
    print(f"{target.name}: {made} corruptions, {refused} refused, {time.perf_counter() - start:.1f} s")
    assert refused >= target.detected * made


def test_an_ordinary_run_makes_at_least_2000() -> None:
    assert sum(count(target, CORRUPTIONS) for target in TARGETS) >= 2000


def test_a_reader_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.test_fuzz.SECONDS", 0.1)

    def hang() -> None:
        while True:
            pass

    with pytest.raises(HangError), little_time():
        hang()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says how much memory a process has")
def test_a_reader_that_asks_for_too_much_memory_is_told() -> None:
    with little_memory(), pytest.raises(MemoryError):
        bytearray(2 * MEMORY)
    bytearray(2 * MEMORY)
