"""`python -m bench.first_step FLAGS`: `python -m cifarfast.train FLAGS` up to the end of the first optimizer step.

Prints when that was by the system's monotonic clock, which all processes share, in seconds, and leaves.
"""

import sys
import time
from typing import Any

from cifarfast import train
from cifarfast.step import TrainStep


def main() -> None:
    """Train one step."""
    step = TrainStep.__call__

    def once(self: TrainStep, *arguments: Any, **named: Any) -> None:
        step(self, *arguments, **named)
        self.guard.fatal_step()  # waits for the device
        print(time.monotonic())
        sys.exit()

    TrainStep.__call__ = once  # type: ignore[method-assign]
    train.main()


if __name__ == "__main__":
    main()
