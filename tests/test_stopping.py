import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cifarfast.errors import Stopped
from cifarfast.stopping import StopSignals

ROOT = Path(__file__).parents[1]


def wait_for(stop: StopSignals) -> None:
    deadline = time.monotonic() + 10
    while stop.requested is None and time.monotonic() < deadline:
        time.sleep(0.001)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as stop:
        stop.heed()
        os.kill(os.getpid(), number)
        wait_for(stop)
        with pytest.raises(Stopped) as stopped:
            stop.heed()
    assert (stopped.value.signum, str(stopped.value)) == (number, f"stopped by {number.name}")
    assert "stopping after this step" in capsys.readouterr().err


def test_heeding_stops_between_two_items() -> None:
    with StopSignals() as stop:
        items = stop.heeding(iter(range(5)))
        seen = [next(items) for _ in range(3)]
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(stop)
        with pytest.raises(Stopped):
            next(items)
    assert seen == [0, 1, 2]


def test_everything_is_as_it_was_afterwards() -> None:
    def mine(*_: object) -> None:
        raise AssertionError

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    try:
        signal.signal(signal.SIGTERM, mine)
        threads, descriptors = threading.active_count(), open_descriptors()
        with suppress(ZeroDivisionError), StopSignals():
            assert signal.getsignal(signal.SIGTERM) is not mine
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
        assert (threading.active_count(), open_descriptors()) == (threads, descriptors)
        assert signal.set_wakeup_fd(writer) == writer
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_it_does_nothing() -> None:
    ends = []

    def work() -> None:
        with StopSignals() as stop:
            stop.heed()
        ends.append("well")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ends == ["well"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_leaves_at_once(number: signal.Signals, code: int) -> None:
    """Even from inside one long operation, in which Python runs no handler."""
    script = (
        "import ctypes, sys; from cifarfast.stopping import StopSignals\n"
        "with StopSignals():\n"
        "    print('ready', flush=True)\n"
        "    libc = ctypes.CDLL(None); end = 0\n"
        "    for _ in range(3): libc.sleep(60)\n"  # it comes back early when a signal comes, and sleeps again
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert "a second signal leaves at once" in child.stderr.readline()
        child.send_signal(number)
        assert child.wait(timeout=10) == code


LOST = """
import ctypes, os, signal, sys
from cifarfast.door import run
from cifarfast.stopping import StopSignals

def main():
    callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), {number}))
    callback()  # Python prints the exception of the handler, and goes on
    with StopSignals():
        print("trained")

run(main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_whose_exception_was_lost_is_heeded_before_training(number: signal.Signals, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(number=int(number))], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (code, "")


LATE = """
import os, signal, time
from cifarfast.door import run
from cifarfast.stopping import StopSignals

def main():
    with StopSignals() as stop:
        os.kill(os.getpid(), {number})
        while stop.requested is None:
            time.sleep(0.001)
    print("saved", flush=True)
    with StopSignals():
        print("the next one")

run(main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_too_late_to_stop_a_run_keeps_the_next_from_beginning(number: signal.Signals, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE.format(number=int(number))], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (code, "saved\n")
