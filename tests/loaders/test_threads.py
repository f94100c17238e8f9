import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from queue import Queue
from typing import Any

import pytest

from cifarfast.loaders import torchvision_loader
from cifarfast.loaders.threads import EndedError, StalledError, drain, receive
from cifarfast.loaders.torchvision_loader import TorchvisionLoader
from cifarfast.patience import STALL_SECONDS
from data_prep.writers.ffcv_writer import FFCVWriter


def started(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def put(queue: "Queue[int]", count: int) -> None:
    for i in range(count):
        queue.put(i)


def test_items_come_in_order_and_then_the_end() -> None:
    queue: Queue[int] = Queue()
    thread = started(lambda: put(queue, 3))
    assert [receive(thread, queue, 5.0) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(EndedError):
        receive(thread, queue, 5.0)


def test_a_thread_that_puts_nothing_has_stalled() -> None:
    release = threading.Event()
    thread = started(release.wait)
    begun = time.monotonic()
    with pytest.raises(StalledError):
        receive(thread, Queue(), 0.5)
    assert 0.5 <= time.monotonic() - begun < 2.0
    assert not drain(thread, Queue(), 0.1)
    release.set()
    assert drain(thread, Queue(), 5.0)


def test_a_thread_that_waits_for_room_is_given_it() -> None:
    queue: Queue[int] = Queue(maxsize=1)
    assert drain(started(lambda: put(queue, 10)), queue, 5.0)


SUSPENDED = """
import threading, time
from queue import Queue
from cifarfast.loaders.threads import receive
queue = Queue()
def work():
    for _ in range(8):
        time.sleep(0.1)
    queue.put("alive")
thread = threading.Thread(target=work)
thread.start()
print("waiting", flush=True)
print(receive(thread, queue, 2.0))
"""


def test_a_process_that_was_suspended_does_not_call_it_a_stall() -> None:
    with subprocess.Popen([sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(child.pid, signal.SIGCONT)
        assert child.stdout.read() == "alive\n"


def test_a_stall_is_reported_and_cleared_away_within_30_seconds() -> None:
    waiting: list[Any] = [TorchvisionLoader, FFCVWriter]
    if (ffcv := sys.modules.get("cifarfast.loaders.ffcv_loader")) is not None:
        waiting.append(ffcv.FfcvLoader)
        assert STALL_SECONDS + ffcv._STOP_SECONDS < 30.0
    for kind in waiting:
        assert inspect.signature(kind).parameters["stall_seconds"].default == STALL_SECONDS
    assert STALL_SECONDS + 2 * torchvision_loader._STOP_SECONDS < 30.0
