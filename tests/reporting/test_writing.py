from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarfast.reporting.pictures import data_uri, png, sheet
from cifarfast.reporting.style import Plot
from cifarfast.reporting.writing import duration, letters, percent, seconds, shown, write


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (0.00461, "0.005 s"), (0.131, "0.131 s"), (8.111, "8.11 s"), (36.06, "36.1 s"), (1680.4, "1,680 s")],
)
def test_seconds_have_three_digits(value: float, text: str) -> None:
    assert seconds(value).replace("\u202f", " ") == text


def test_long_durations_are_told_in_minutes_too() -> None:
    assert duration(119.0).replace("\u202f", " ") == "119 s"
    assert duration(4421.0).replace("\u202f", " ") == "4,421 s (74 min)"


def test_shares_are_per_cent() -> None:
    assert percent(0.9142) == "91.42\u202f%"
    assert percent(1.0, 0) == "100\u202f%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (False, "no"),
        (50_000, "50,000"),
        (0.0001, "0.0001"),
        (0.0, "0"),
        (("a", "b"), "a, b"),
        ([], "none"),
        (Path("data/cifar10"), "data/cifar10"),
    ],
)
def test_settings_are_shown_as_a_person_writes_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_files(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    write(page, "text", [Plot(name="one", svg="<svg/>", alt="")], {"two": b"png"})
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"new/page.html": b"text", "new/plots/one.svg": b"<svg/>", "new/plots/two.png": b"png"}


def test_a_photograph_is_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "image.png").write_bytes(png(pixels))
    with Image.open(tmp_path / "image.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert data_uri(pixels).startswith("data:image/png;base64,iVBOR")


def test_a_sheet_holds_every_image_once() -> None:
    images = [np.full((32, 32, 3), number, np.uint8) for number in range(1, 12)]
    page = sheet(images)
    assert page.shape == (3 * (2 * 34 - 2), 3 * (8 * 34 - 2), 3)
    values, counts = np.unique(page[:, :, 0], return_counts=True)
    assert set(values) == {*range(1, 12), 255}
    assert all(counts[:-1] == (3 * 32) ** 2)
    assert page[0, 0, 0] == 1
    assert page[3 * 34, 3 * 34 * 2, 0] == 11


def test_many_runs_have_letters_of_their_own() -> None:
    found = list(islice(letters(), 60))
    assert found[:2] == ["A", "B"]
    assert found[25:28] == ["Z", "A1", "B1"]
    assert len(set(found)) == 60
