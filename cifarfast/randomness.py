"""Randomness as a function, not a state.

Every draw (order of the images, augmentation, dropout, initialisation) comes from a generator that is
seeded by what it is for and where in the run it happens. A run that is resumed, compiled, or split over
processes sees the same numbers without replaying anything.
"""

import hashlib

import torch


def seed_of(seed: int, what: str, *position: int) -> int:
    """A 63-bit seed for one purpose at one place, for example `seed_of(4, "augment", epoch, batch)`."""
    text = ":".join([str(seed), what, *map(str, position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, what: str, *position: int) -> torch.Generator:
    """A CPU generator seeded by `seed_of`. Draws are made on the CPU so that every device sees the same."""
    return torch.Generator().manual_seed(seed_of(seed, what, *position))
