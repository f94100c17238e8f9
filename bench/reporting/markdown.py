"""A document as Markdown, in the dialect of GitHub."""

import re
from collections.abc import Iterator, Sequence

from bench.reporting.blocks import Absent, Block, Document, Drawing, Listings, Table, Tiles, Title, Words
from cifarfast import __version__
from cifarfast.reporting.style import printable
from cifarfast.reporting.writing import PLOTS_NAME, shown, words


def markdown(document: Document) -> str:
    """The text of report.md; whatever stands in it as text is shown as it is, and what cannot be seen is visible."""
    lines = [f"# {_text(document.title)}", _text(document.lede)]
    if document.synthetic:
        lines.insert(0, f"> **SYNTHETIC DATA** {_text(document.synthetic)}")
    for topic in document.topics:
        lines.append(f"## {_text(topic.title)}")
        lines += [text for block in topic.blocks for text in _block(block)]
    lines.append(f"Made by cifarfast {__version__} from {', '.join(map(_text, document.sources))}.")
    return "\n\n".join(lines) + "\n"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Words):
        yield _text(block.text)
    elif isinstance(block, Absent):
        yield f"*{_text(block.what)}: {_text(block.reason)}.*"
    elif isinstance(block, Title):
        yield f"### {_text(block.text)}"
    elif isinstance(block, Table):
        yield _table(block)
    elif isinstance(block, Drawing):
        yield f"![{_text(block.plot.alt)}]({PLOTS_NAME}/{block.plot.name}.svg)"
        yield _table(block.table)
    elif isinstance(block, Tiles):
        yield "\n".join(
            f"- {_text(tile.title)}: **{_text(tile.figure)}**" + "".join(f"; {_text(note)}" for note in tile.notes)
            for tile in block.tiles
        )
    elif isinstance(block, Listings):
        for listing in block.listings:
            rows = [[words(name), shown(value)] for name, value in listing.values.items()]
            yield _grid([listing.title, ""], ["---", "---"], rows)


def _table(table: Table) -> str:
    rules = ["---", *("---" if column.style else "---:" for column in table.columns[1:])]
    return _grid([column.title for column in table.columns], rules, table.rows)


def _grid(titles: Sequence[str], rules: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(map(_text, titles)), rules, *(list(map(_text, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", printable(text))
