"""Answers with one number of threads and with another."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Answer = TypeVar("Answer")


def with_threads(ask: Callable[[], Answer], numbers: Sequence[int] = (1, 2)) -> list[Answer]:
    """What is answered when torch has so many threads each; afterwards it has as many as before."""
    before, answers = torch.get_num_threads(), []
    try:
        for number in numbers:
            torch.set_num_threads(number)
            answers.append(ask())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    return answers
