"""How plots look, in a page and as files: matplotlib's SVG in the colours of the page.

A plot is drawn in the light palette. As a file it stays so; within a page every colour becomes a CSS
variable of the same name, so that one drawing serves light and dark.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Light and dark; the page takes its own colours from here too.
PALETTE = {
    "paper": ("#fffefb", "#161518"),
    "ink": ("#1f1d1a", "#e9e5dd"),
    "muted": ("#6a655c", "#a09a8f"),
    "rule": ("#dcd7cd", "#3a3733"),
    "blue": ("#1d5f9e", "#7fb6e6"),
    "ochre": ("#a85f15", "#e3a35c"),
    "green": ("#37764a", "#8cc79a"),
    "plum": ("#874783", "#cf9acb"),
    "teal": ("#1b777e", "#6cc5cc"),
    "red": ("#b03434", "#ee8f87"),
}
INK, MUTED, RULE, PAPER = (PALETTE[name][0] for name in ("ink", "muted", "rule", "paper"))
BLUE, OCHRE, GREEN, PLUM, TEAL, RED = (PALETTE[n][0] for n in ("blue", "ochre", "green", "plum", "teal", "red"))

WIDTH = 400
"""Width of a plot in its own units, of which the text has 11: what fills a phone."""

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlepad": 10,
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a $ in a class name is a $
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture of numbers."""

    name: str
    """What its file is called, without the ending."""
    svg: str
    """The file."""
    alt: str
    """What one sees in it, in words."""

    @property
    def inline(self) -> Markup:
        """The picture as a part of a page."""
        return _inline(self.svg, self.alt)


class Sheet:
    """A figure that is being drawn; `finish` makes it a plot. All of that within `styled()`.

    Args:
        name: what the file is called.
        height: in units of the plot.
    """

    def __init__(self, name: str, *, height: int) -> None:
        self._name = name
        self._figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained", facecolor=PAPER)
        self.axes: Axes = self._figure.subplots()
        self.axes.set_facecolor("none")
        self.axes.tick_params(length=0)
        self.axes.locator_params(axis="y", nbins=6)
        self.axes.grid(visible=True, axis="y")

    def save_png(self, path: Path) -> None:
        """Write a PNG, three pixels a unit."""
        self._figure.savefig(path, format="png", dpi=3 * 72)

    def finish(self, alt: str) -> Plot:
        """The plot; the same figure gives the same bytes."""
        file = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": f"plot {self._name}"}):  # a bare `none` would mean another thing
            self._figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return Plot(name=self._name, svg=file.getvalue(), alt=printable(alt))


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are drawn and finished in here look as they should, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        # The letters of an unusual class name are the reader's fonts' business, not matplotlib's.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def printable(text: str) -> str:
    """The text with escapes for what cannot be seen, cannot be written, or would turn the reading direction."""
    return "".join(
        letter.encode("unicode_escape", "surrogatepass").decode() if unicodedata.category(letter)[0] == "C" else letter
        for letter in text
    )


def short(text: str, length: int = 14) -> str:
    """A name for a narrow place."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _inline(svg: str, alt: str) -> Markup:
    """An SVG file as an element of an HTML page: without what pages have already, in the page's colours and fonts."""
    root = ElementTree.fromstring(svg)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "plot", "role": "img", "aria-label": alt}
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    referenced = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
        if "style" in element.attrib:
            element.attrib["style"] = _COLOUR.sub(lambda found: _VARIABLES[found[0]], element.attrib["style"])
        if element.attrib.get("id") not in referenced:
            element.attrib.pop("id", None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # serialised, and so escaped


_COLOUR = re.compile("|".join(_VARIABLES))


def _local(name: str) -> str:
    return name.rpartition("}")[2]
