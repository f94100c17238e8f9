"""What a report is put together from: the same pieces become HTML and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from cifarfast.reporting.style import Plot


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True)
class Absent:
    """Something that there is not, and why."""

    kind: ClassVar[str] = "absent"
    what: str
    reason: str


@dataclass(frozen=True)
class Title:
    """A heading below that of the topic."""

    kind: ClassVar[str] = "title"
    text: str


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    style: Literal["", "left", "wide"] = ""
    """Numbers are on the right; `wide` is text that may break."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    kind: ClassVar[str] = "table"
    label: str
    """What it is of, for those who cannot see it."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawing:
    """A plot, with the table of what is in it."""

    kind: ClassVar[str] = "drawing"
    plot: Plot
    table: Table


@dataclass(frozen=True)
class Listing:
    """Names and values."""

    title: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class Listings:
    """Several of these."""

    kind: ClassVar[str] = "listings"
    listings: Sequence[Listing]


@dataclass(frozen=True)
class Tile:
    """A figure to be seen first."""

    title: str
    figure: str
    notes: Sequence[str]
    """What it is made of."""
    is_text: bool = False
    """Whether `figure` is words."""


@dataclass(frozen=True)
class Tiles:
    """The figures to be seen first."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


Block = Words | Absent | Title | Table | Drawing | Listings | Tiles


@dataclass(frozen=True)
class Topic:
    """A part of a report."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    lede: str
    synthetic: str | None
    """What must be known first of figures from synthetic data; None where there are none."""
    topics: Sequence[Topic]
    sources: Sequence[str]
    """Files and folders that it is from."""
    plots: Sequence[Plot]
    """All that are in it."""
