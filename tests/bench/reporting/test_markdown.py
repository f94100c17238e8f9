"""Held against an independent parser of Markdown, which rich brings."""

from html.parser import HTMLParser

from markdown_it import MarkdownIt

from bench.reporting.blocks import (
    Absent,
    Block,
    Column,
    Document,
    Drawing,
    Listing,
    Listings,
    Table,
    Tile,
    Tiles,
    Title,
    Topic,
    Words,
)
from bench.reporting.markdown import markdown
from cifarfast.reporting.style import Plot

HOSTILE = "<script>alert(1)</script> | *a* _b_ `c` [d](e) ![f](g) \\ $h$ ~~i~~ &amp; {{ 7*7 }} # j \n\x1b[31m\u202e"
SHOWN = "<script>alert(1)</script> | *a* _b_ `c` [d](e) ![f](g) \\ $h$ ~~i~~ &amp; {{ 7*7 }} # j \\n\\x1b[31m\\u202e"
TABLE = Table("label", [Column("name"), Column("figure"), Column("why", "wide")], [["a", "1", "b"]])


def document(*blocks: Block, synthetic: str | None = None) -> Document:
    return Document(
        title="The title",
        lede="The lede.",
        synthetic=synthetic,
        topics=[Topic("A topic", blocks)],
        sources=["a.json", "run"],
        plots=[],
    )


class Rendered(HTMLParser):
    """Text and elements of what a reader of Markdown makes of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def count(self, tag: str) -> int:
        return [name for name, _ in self.elements].count(tag)


def test_every_kind_of_block() -> None:
    plot = Plot(name="step", svg="<svg/>", alt="What one sees.")
    text = markdown(
        document(
            Words("Some words."),
            Absent("Peaks", "not measured"),
            Title("A title"),
            TABLE,
            Drawing(plot, TABLE),
            Listings([Listing("Machine", {"cores_allowed": 2, "gpu": None})]),
            Tiles([Tile("Headroom", "12", ["n = 3", "and more"])]),
        )
    )
    found = Rendered(text)
    assert (found.count("h1"), found.count("h2"), found.count("h3"), found.count("table")) == (1, 1, 1, 3)
    assert [attributes for tag, attributes in found.elements if tag == "img"] == [
        {"src": "plots/step.svg", "alt": "What one sees."}
    ]
    for words in ("The title", "The lede.", "A topic", "Some words.", "Peaks: not measured.", "cores allowed", "none"):
        assert words in found.words, words
    assert "- Headroom: **12**; n = 3; and more" in text
    assert "| name | figure | why |\n| --- | ---: | --- |\n| a | 1 | b |\n" in text
    assert text.endswith("from a.json, run.\n")
    assert "SYNTHETIC" not in text


def test_whatever_is_text_is_shown_as_it_is() -> None:
    cells = Table("label", [Column(HOSTILE), Column(HOSTILE)], [[HOSTILE, HOSTILE]])
    found = Rendered(markdown(document(Words(HOSTILE), Title(HOSTILE), cells, Absent(HOSTILE, HOSTILE))))
    assert found.words.count(SHOWN) == 2 + 4
    assert f"{SHOWN}: {SHOWN}." in found.words
    assert {tag for tag, _ in found.elements} == {
        "h1", "h2", "h3", "p", "em", "table", "thead", "tbody", "tr", "th", "td"
    }  # fmt: skip
    assert found.count("em") == 1


def test_synthetic_data_comes_first() -> None:
    text = markdown(document(Words("Some words."), synthetic="Drawn by a program."))
    assert text.startswith("> **SYNTHETIC DATA** Drawn by a program.\n\n# The title")
