import pytest

from bench.reporting.estimate import Estimate
from bench.reporting.wording import figure, interval, middle, percent, percents, scaled, unit_of
from bench.statistics import Quartiles


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2_451_234, "2,450,000"),
        (89_950, "90,000"),
        (216.4, "216"),
        (41.64, "41.6"),
        (9.996, "10.0"),
        (1.5, "1.50"),
        (-0.0472, "-0.0472"),
        (0.000123, "0.000123"),
        (1e-12, "1e-12"),
        (3.14159e15, "3.14e+15"),
    ],
)
def test_a_figure_has_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_rates_are_told_in_units_for_people() -> None:
    assert (unit_of("images"), unit_of("FLOP"), unit_of("bytes")) == ("images/s", "GFLOP/s", "GB/s")
    assert (unit_of(None), unit_of("stones")) == ("seconds", "stones/s")
    assert (scaled(5e9, "FLOP"), scaled(5e9, "bytes"), scaled(5, "images"), scaled(5, None)) == (5, 5, 5, 5)


def test_figures_come_with_their_spread() -> None:
    assert middle(Quartiles(median=2e9, low=1e9, high=3e9, n=5), "bytes") == "2.00 (1.00 to 3.00)"
    assert middle(Quartiles(median=2.0, low=2.0, high=2.0, n=1), None) == "2.00"
    assert interval(Estimate(value=1.5, low=1.4, high=1.6)) == "1.50 (1.40 to 1.60)"
    assert interval(Estimate(value=1.5, low=None, high=None)) == "1.50"
    assert percents(Estimate(value=0.715, low=None, high=None)) == "71.5\u202f%"
    assert percents(Estimate(value=0.715, low=0.7, high=0.725)) == "71.5\u202f% (70.0 to 72.5)"


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.04, "under 0.1"), (0.1, "0.1"), (12.345, "12.3")])
def test_percentages(value: float, text: str) -> None:
    assert percent(value) == f"{text}\u202f%"
