import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from cifarfast.reporting.style import BLUE, PALETTE, Plot, Sheet, printable, short, styled
from tests.reporting.pages import Page

NAMES = ["<script>alert(1)</script>", "a & \"b\" 'c'", "$x^2$ and \\frac", "]]>", "#1d5f9e", "猫", "--><b>"]


def drawn(name: str = "plot") -> Plot:
    with styled():
        sheet = Sheet(name, height=200)
        sheet.axes.plot(range(len(NAMES)), "o-", color=BLUE)
        sheet.axes.set_xticks(range(len(NAMES)), NAMES)
        sheet.axes.set_ylim(0, 2)
        return sheet.finish("Names: " + ", ".join(NAMES))


def test_names_are_text_whatever_is_in_them() -> None:
    plot = drawn()
    texts = [element.text for element in ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert set(NAMES) <= set(texts)
    page = Page(plot.inline)
    assert set(NAMES) <= set(page.words)
    assert page.all("script") == page.all("b") == []
    (svg,) = page.all("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"] == plot.alt == "Names: " + ", ".join(NAMES)


def test_a_plot_within_a_page_brings_no_styles_and_no_colours_of_its_own() -> None:
    page = Page(drawn().inline)
    assert page.all("style") == page.all("metadata") == []
    styles = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    assert "stroke: var(--blue)" in styles
    assert not re.search("#[0-9a-f]{6}", styles)


def test_two_plots_of_a_page_share_no_identifiers() -> None:
    pages = [Page(drawn(name).inline) for name in ("one", "two")]
    ids, others = ({a["id"] for _, a in page.elements if "id" in a} for page in pages)
    assert ids
    assert not ids & others
    for page, known in zip(pages, (ids, others), strict=True):
        used = re.findall(
            r"#([\w-]+)", " ".join(str(v) for _, a in page.elements for k, v in a.items() if k != "aria-label")
        )
        assert set(used) == known


def test_the_same_plot_is_the_same_bytes_whatever_the_user_has_set() -> None:
    first = drawn()
    with mpl.rc_context({"lines.linewidth": 9, "axes.linewidth": 9, "svg.fonttype": "path"}):
        assert drawn() == first
    assert "2026" not in first.svg


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Käse 猫 \u202f%", "Käse 猫 \u202f%"),
        ("a\x1b[31m\0\n", "a\\x1b[31m\\x00\\n"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, seen: str) -> None:
    assert printable(text) == seen
    printable(text).encode("utf-8")


def test_a_long_name_is_shortened() -> None:
    assert short("automobile") == "automobile"
    assert short("a" * 100) == "a" * 13 + "…"


def _luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", sorted(set(PALETTE) - {"paper", "rule"}))
def test_text_can_be_read_in_light_and_in_dark(name: str) -> None:
    for colour, paper in zip(PALETTE[name], PALETTE["paper"], strict=True):
        high, low = sorted((_luminance(colour), _luminance(paper)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour
