"""Templates and files: what the pages share."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cifarfast import __version__
from cifarfast.files import replacing, write_text
from cifarfast.reporting.pictures import data_uri
from cifarfast.reporting.style import PALETTE, Plot, printable

PLOTS_NAME = "plots"
THIN = "\u202f"
"""A narrow space at which no line breaks."""
_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, context: Mapping[str, Any], *, folder: Path = _TEMPLATES) -> str:
    """A page. Whatever stands in it as text is escaped, and what cannot be seen is made visible.

    Args:
        folder: where the template is, if it is not one of these; it may extend and import these all the same.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, _TEMPLATES]),
        autoescape=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (percent, seconds, duration, count, words, shown, data_uri)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(palette=PALETTE, thin=THIN, version=__version__)
    return environment.get_template(template).render(context)


def write(page: Path, text: str, plots: Iterable[Plot], photographs: Mapping[str, bytes]) -> None:
    """Write a page and, into `plots/` beside it, its plots and photographs (as PNG); each atomically.

    Raises:
        OSError: the folder is not writable, the disk is full.
    """
    folder = page.parent / PLOTS_NAME
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        write_text(folder / f"{plot.name}.svg", plot.svg)
    for name, png in photographs.items():
        with replacing(folder / f"{name}.png") as temporary:
            temporary.write_bytes(png)
    write_text(page, text)


def letters() -> Iterator[str]:
    """A to Z, then A1 to Z1 and so on: names for what is drawn."""
    for number in itertools.count():
        yield chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def percent(share: float, digits: int = 2) -> str:
    """A share of 1 in per cent."""
    return f"{100 * share:.{digits}f}{THIN}%"


def seconds(value: float) -> str:
    """A duration, to three digits or the second."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 3)}f}{THIN}s"


def duration(value: float) -> str:
    """A duration in seconds, and in minutes where they are more telling."""
    return seconds(value) if value < 120 else f"{seconds(value)} ({value / 60:,.0f}{THIN}min)"


def count(value: float) -> str:
    """A number of things."""
    return f"{value:,.0f}"


def words(name: str) -> str:
    """The name of a field as words."""
    return name.replace("_", " ")


def shown(value: object) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
