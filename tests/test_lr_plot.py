import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cifarfast.lr_plot import draw, range_plot, save_plot
from cifarfast.range_test import LrRange, Sweep, measure
from cifarfast.reporting.style import styled


def result_of(*losses: float, mode: str = "exponential") -> LrRange:
    rest = iter(losses)
    sweep = Sweep(start_lr=1e-4, num_iter=len(losses), smoothing=0.5, mode=mode)  # type: ignore[arg-type]
    return measure(lambda lr: next(rest), sweep)


def test_the_curve_and_its_suggestions() -> None:
    result = result_of(2.0, 2.0, 1.9, 1.5, 0.9, 0.7, 0.7, 0.9, 9.0, 1.0)
    with styled():
        axes = draw(result, title="reference").axes
    loss, smoothed, *suggested = axes.get_lines()
    assert result.stopped == "diverged"
    assert loss.get_xydata().tolist() == [[p.lr, p.loss] for p in result.points]  # type: ignore[union-attr]
    assert smoothed.get_xydata().tolist() == [[p.lr, p.smoothed] for p in result.points]  # type: ignore[union-attr]
    lrs = [suggestion.lr for suggestion in vars(result.suggestions).values()]
    assert None not in lrs
    assert [line.get_xdata()[0] for line in suggested] == lrs  # type: ignore[index]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == pytest.approx((1e-4, 1.0))
    bottom, top = axes.get_ylim()
    values = [p.smoothed for p in result.points if p.smoothed is not None]
    assert bottom < min(values)
    assert 2.0 < top < max(values)  # the rise runs out of the picture


def test_nothing_to_draw_is_no_failure(tmp_path: Path) -> None:
    with styled():
        axes = draw(result_of(float("nan"), 1.0, mode="linear"), title="nothing").axes
    assert axes.get_lines() == []
    assert axes.get_xscale() == "linear"
    save_plot(tmp_path / "nothing.png", result_of(float("nan"), 1.0), title="nothing")
    assert (tmp_path / "nothing.png").exists()


def test_the_picture(tmp_path: Path) -> None:
    save_plot(tmp_path / "range.png", result_of(2.0, 1.9, 1.5, 0.9, 0.7, 0.7, 0.9), title="reference on cifar10")
    assert [path.name for path in tmp_path.iterdir()] == ["range.png"]
    with Image.open(tmp_path / "range.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 900))


def test_the_picture_in_a_report() -> None:
    with styled():
        plot = range_plot(result_of(2.0, 2.0, 1.9, 1.5, 0.9, 0.7, 0.7, 0.9, 9.0, 1.0))
    texts = [element.text for element in ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.0001", "0.001", "0.01", "0.1", "1", "learning rate", "loss", "smoothed"} <= set(texts)
    assert not any("$" in (text or "") for text in texts)
    assert re.fullmatch(
        r"Loss over a learning rate from 0\.0001 to 0\.3\d+\. "
        r"Suggestions: steepest [\d.]+, minimum tenth [\d.]+, valley [\d.]+\.",
        plot.alt,
    )
    with styled():
        assert range_plot(result_of(float("nan"), 1.0)).alt.endswith("It supports no suggestion.")
