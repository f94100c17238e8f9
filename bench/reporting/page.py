"""The files of a report: report.html, report.md, report.json, and its plots."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.records import read_bench
from bench.reporting.content import write_document
from bench.reporting.findings import find
from bench.reporting.markdown import markdown
from bench.reporting.wording import NOISY
from cifarfast.files import write_json, write_text
from cifarfast.reporting.style import styled
from cifarfast.reporting.writing import render, write
from cifarfast.runfolder import read_run

HTML_NAME, MARKDOWN_NAME, JSON_NAME = "report.html", "report.md", "report.json"
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(benches: Sequence[Path], runs: Sequence[Path], out: Path) -> list[Path]:
    """Write a report of benchmark files and run folders into the folder `out`, its plots into `plots` there.

    The same files and runs give the same bytes.

    Returns:
        The page, the Markdown and the JSON.

    Raises:
        UserError: a file is not one of benchmarks, a folder holds no run, one of them is damaged or a run named twice.
        OSError: a file cannot be written.
    """
    findings = find([read_bench(path) for path in benches], [read_run(path) for path in runs])
    with styled():
        document = write_document(findings)
    context = {"document": document, "synthetic": document.synthetic, "warnings": (NOISY,)}
    page = out / HTML_NAME
    write(page, render("bench.html.j2", context, folder=_TEMPLATES), document.plots, {})
    write_text(out / MARKDOWN_NAME, markdown(document))
    write_json(out / JSON_NAME, msgspec.to_builtins(findings))
    return [page, out / MARKDOWN_NAME, out / JSON_NAME]
