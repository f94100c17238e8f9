from xml.etree import ElementTree

from bench.reporting.peaks import Point, Roofline
from bench.reporting.plots import Bar, bars, lettered, roofline
from bench.statistics import Quartiles
from cifarfast.reporting.style import RED, Plot, styled

SVG = "{http://www.w3.org/2000/svg}"


def texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}text")]


def bar(name: str, median: float, *, low: float | None = None, noisy: bool = False) -> Bar:
    low = 0.9 * median if low is None else low
    value = Quartiles(median=median, low=low, high=1.1 * median, n=5)
    return Bar(name=name, value=value, told=f"told of {name}", noisy=noisy)


def point(name: str, intensity: float, flops: float) -> Point:
    return Point(group="step", name=name, intensity=intensity, flops_per_second=flops, reachable=100e9)


def test_bars_have_names_words_and_a_linear_axis_from_zero() -> None:
    with styled():
        plot = bars("step", "Training step, images/s", [bar("a", 100), bar("b", 250, noisy=True)])
    found = texts(plot)
    assert {"a", "b", "told of a", "told of b", "Training step, images/s", "0", "100", "200"} <= set(found)
    assert plot.alt == "Training step, images/s, medians: a told of a; b told of b."
    assert plot.svg.count(RED) == 1
    assert plot.name == "step"


def test_what_differs_by_orders_of_magnitude_is_on_a_logarithmic_axis() -> None:
    with styled():
        plot = bars("loaders", "Loaders", [bar("a", 5_000), bar("b", 2_000_000)])
    assert {"10,000", "100,000", "1,000,000"} <= set(texts(plot))
    assert "0" not in texts(plot)


def test_an_axis_may_end_where_it_is_told_to_and_values_may_be_zero() -> None:
    with styled():
        plot = bars("waiting", "Waiting, %", [bar("a", 0.0, low=0.0), bar("b", 1.0)], end=100)
        bars("none", "Waiting, %", [bar("a", 0.0, low=0.0)])
    assert {"0", "100"} <= set(texts(plot))


def test_many_variants_do_not_make_an_endless_picture() -> None:
    with styled():
        plot = bars("step", "Steps", [bar(f"variant {number}", 100) for number in range(30)])
    assert "variant 23" in texts(plot)
    assert "variant 24" not in texts(plot)
    assert plot.alt.endswith("variant 23 told of variant 23; 6 more are in the table.")


def test_the_roofline_has_its_roofs_and_letters_for_the_work() -> None:
    points = [point("fp32-contiguous-eager", 300, 80e9), point("ours", 0.6, 1e9)]
    found = Roofline(bytes_per_second=50e9, flops_per_second={"fp32": 100e9, "bf16": 300e9}, points=points)
    with styled():
        plot = roofline("roofline", found)
    assert {"A", "B", "fp32 100", "bf16 300", "copy 50.0 GB/s"} <= set(texts(plot))
    assert plot.alt == (
        "Roofline. Roofs: fp32 100 GFLOP/s, bf16 300 GFLOP/s; copy 50.0 GB/s. A, step fp32-contiguous-eager, 80.0 of "
        "100 GFLOP/s at 300 FLOP a byte; B, step ours, 1.00 of 100 GFLOP/s at 0.600 FLOP a byte."
    )


def test_a_roofline_without_work() -> None:
    with styled():
        plot = roofline("roofline", Roofline(bytes_per_second=1.0, flops_per_second={"fp32": 1e18}, points=[]))
    assert plot.alt.endswith("No work is known.")


def test_letters_of_work_at_one_place_are_apart() -> None:
    points = [point(name, 300, 80e9) for name in "abcd"]
    found = Roofline(bytes_per_second=50e9, flops_per_second={"fp32": 100e9}, points=points)
    with styled():
        plot = roofline("roofline", found)
    elements = ElementTree.fromstring(plot.svg).iter(f"{SVG}text")
    places = {
        (element.attrib.get("x"), element.attrib.get("y"), element.attrib.get("transform"))
        for element in elements
        if element.text in set("ABCD")
    }
    assert len(places) == 4
    assert [letter for letter, _ in lettered(points)] == list("ABCD")
