import re
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from cifarfast.predictions import Predictions
from cifarfast.reporting import plots
from cifarfast.reporting.style import Plot, Sheet, styled
from cifarfast.schedule import one_cycle
from tests.reporting.conftest import RECIPE, STEPS, rows

NAMES = tuple("abcdefghij")
SVG = "{http://www.w3.org/2000/svg}"


def texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}text")]


def predictions(pairs: list[tuple[int, int]]) -> Predictions:
    """Of images of the first class of each pair that are taken for the second."""
    logits = np.zeros((len(pairs), 10), np.float32)
    for place, (_, answer) in enumerate(pairs):
        logits[place, answer] = 1.0
    return Predictions(logits, np.array([label for label, _ in pairs]), epoch=1)


def test_accuracy_and_loss() -> None:
    with styled():
        accuracy, loss = plots.accuracy(rows(), 0.9142), plots.loss(rows())
    assert {"train", "test", "target", "1", "2", "3", "epoch", "Accuracy, %"} <= set(texts(accuracy))
    assert accuracy.alt.startswith(
        "Accuracy by epoch. Test: from 40 % after epoch 1 to 60 % after epoch 3, between 40 and 60."
    )
    assert accuracy.alt.endswith("The target is 91.42 %.")
    assert "Test: from 1.1 after epoch 1 to 1.1 after epoch 3" in loss.alt


def test_one_epoch_is_enough() -> None:
    one = rows()[:1]
    with styled():
        drawn = [plots.accuracy(one, 0.9), plots.loss(one), plots.time_split(one)]
        plots.learning_rate(one_cycle(replace(RECIPE, epochs=1, batch_size=160), 1), one)
        plots.momentum(one_cycle(replace(RECIPE, epochs=1, batch_size=160), 1))
    assert all("1" in texts(plot) for plot in drawn)


def test_the_schedule() -> None:
    schedule = one_cycle(RECIPE, STEPS)
    with styled():
        lr, momentum = plots.learning_rate(schedule, rows()), plots.momentum(schedule)
    assert lr.alt == "Learning rate over 30 steps: from 0.0017 to 0.017 at step 7, and to 0.0017 at the end."
    assert momentum.alt == "Momentum over 30 steps: from 0.95 to 0.85 at step 7, and to 0.95 at the end."


def test_time_is_split_without_a_rest() -> None:
    split = [replace(row, epoch_seconds=80.0, eval_seconds=20.0, data_wait_percent=25.0) for row in rows()]
    with styled():
        plot = plots.time_split(split)
    assert plot.alt == (
        "Seconds of every epoch, between 100 and 100: training 60.0 %, waiting for data 20.0 %, evaluation 20.0 %."
    )


def test_the_confusion_matrix_counts() -> None:
    with styled():
        plot = plots.confusion(predictions([(0, 0)] * 7 + [(3, 5)] * 4 + [(5, 3)] * 2 + [(9, 0)]), NAMES)
    counts = Counter(text for text in texts(plot) if text.isdigit())
    assert counts == {"7": 1, "4": 1, "2": 1, "1": 1}  # zeros are left out
    assert plot.alt == (
        "Confusion matrix: 7 of 14 test images were taken for what they are. "
        "Most often mistaken: d for f (4), f for d (2), j for a (1)."
    )


def test_accuracy_by_class_is_sorted_and_leaves_out_classes_without_images() -> None:
    with styled():
        plot = plots.per_class(predictions([(1, 1), (1, 2), (4, 4), (7, 8)]), NAMES)
    assert plot.alt == "Test accuracy by class, best first: e 100.0 %, b 50.0 %, h 0.0 %."
    found = texts(plot)
    assert [text for text in found if text in NAMES] == ["e", "b", "h"]
    assert [text for text in found if re.fullmatch(r"\d+\.\d", text)] == ["100.0", "50.0", "0.0"]


def test_overlaid_curves_end_at_their_letters() -> None:
    with styled():
        plot = plots.overlaid(
            "test_loss", "Test loss", "", [("A", [1, 2, 3], [3, 2, 1]), ("B", [1], [2])], across="epoch"
        )
    assert {"A", "B"} <= set(texts(plot))
    assert plot.alt == "Test loss, one curve a run: A ends at 1; B ends at 2."


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0, 0.01, 1.0], [0.99, 1.0, 1.0], [0.0, 0.0, 0.01]])
def test_labels_at_the_ends_of_lines_do_not_overlap(values: list[float]) -> None:
    with styled():
        sheet = Sheet("labels", height=270)
        sheet.axes.set_ylim(0, 1)
        plots.label_ends(sheet.axes, [(f"line {place}", "black", value) for place, value in enumerate(values)])
        plot = sheet.finish("")
    heights = {}
    for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}text"):
        if (element.text or "").startswith("line"):
            heights[element.text] = float(element.attrib["y"])
    ordered = [heights[f"line {place}"] for place in sorted(range(3), key=lambda place: -values[place])]
    assert all(below - above > 12 for above, below in zip(sorted(ordered), sorted(ordered)[1:], strict=False))
    assert min(ordered) > 0
    # In the order of their values, the highest at the top.
    for (above, upper), (below, lower) in zip(
        zip(ordered, sorted(values, reverse=True), strict=True),
        list(zip(ordered, sorted(values, reverse=True), strict=True))[1:],
        strict=False,
    ):
        assert upper == lower or above < below


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 1, [1, 1]),
        (1, 2, [1, 2]),
        (1, 8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (1, 20, [1, 5, 10, 15, 20]),
        (1, 24, [1, 5, 10, 15, 20, 24]),
        (1, 200, [1, 50, 100, 150, 200]),
    ],
)
def test_epochs_on_an_axis(first: int, last: int, expected: list[int]) -> None:
    assert plots._round_epochs(first, last) == expected
