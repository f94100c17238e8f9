"""How long a command waits for a thread or a process of its own before it says that it has stalled."""

import math
from typing import Final

STALL_SECONDS: Final = 25.0
"""Longest time without a sign of life; whatever has stalled is reported, and cleared away, within 30 s."""


def polls(seconds: float, every: float) -> range:
    """As many polls as `seconds` allow at one in `every` seconds.

    Polls are counted, not the clock: a process that was suspended and goes on does not call the others stalled.
    """
    return range(math.ceil(seconds / every))
