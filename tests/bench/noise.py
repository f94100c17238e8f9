"""Timings as a shared machine gives them, with a true value of 1 second."""

import numpy as np
from numpy.typing import NDArray


def timings(
    rng: np.random.Generator, *shape: int, spread: float = 0.03, slow: float = 0.1, spell: int = 1
) -> NDArray[np.float64]:
    """Seconds of rounds (the last axis), lognormal; some are slow by another 10 to 60 %.

    Args:
        slow: share of the slow rounds.
        spell: how many slow rounds follow one another on average; with 1 they are independent.
    """
    ends = 1 / spell if spell > 1 else 1 - slow
    begins = ends * slow / (1 - slow)
    is_slow = np.empty(shape, dtype=bool)
    now = rng.random(shape[:-1]) < slow
    for number in range(shape[-1]):
        is_slow[..., number] = now
        now = rng.random(shape[:-1]) < np.where(now, 1 - ends, begins)
    return rng.lognormal(0, spread, shape) * np.where(is_slow, rng.uniform(1.1, 1.6, shape), 1.0)
