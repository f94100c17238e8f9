import math
from typing import Any

import pytest

from bench.reporting.facts import number, shares, word


@pytest.mark.parametrize("value", [1, 2.5, 1e18, 1e-9])
def test_a_figure(value: float) -> None:
    assert number({"flops": value}, "flops") == value


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 1e19, 1e-300, 10**400, math.nan, math.inf, "12", [1], {"flops": 1}]
)
def test_what_is_no_figure(value: Any) -> None:
    assert number({"flops": value}, "flops") is None
    assert number({}, "flops") is None


def test_shares() -> None:
    assert shares({"wait": [0, 2.5, 100]}, "wait") == [0.0, 2.5, 100.0]
    for value in (None, 5, "5", [], [1, None], [101], [-1], [[1]], {"0": 1}):
        assert shares({"wait": value}, "wait") == [], value


def test_words() -> None:
    assert word({"mode": "eager"}, "mode") == "eager"
    for value in (None, "", 1, ["eager"], "e" * 41):
        assert word({"mode": value}, "mode") is None, value
