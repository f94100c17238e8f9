import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.reporting.page import write_report
from cifarfast.reporting.writing import THIN
from tests.bench.made import entry, everything, whole_run, write_bench, write_run
from tests.reporting.pages import Page
from tests.reporting.test_page import HOSTILE


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all that can be measured, and of a whole run."""
    folder = tmp_path_factory.mktemp("report")
    skipped = [{"group": "step", "name": "fp16", "reason": "fp16 is for CUDA"}]
    bench = write_bench(folder / "bench.json", everything(), skipped=skipped)
    written = write_report([bench], [write_run(whole_run(folder / "run", 0.92))], folder / "out")
    assert written == [folder / "out" / name for name in ("report.html", "report.md", "report.json")]
    return folder / "out"


def test_page_and_markdown_show_the_same(out: Path) -> None:
    page, text = Page.read(out / "report.html"), (out / "report.md").read_text()
    shown, told = page.text.replace(THIN, " "), text.replace(THIN, " ")
    for words in (
        "The training step is the bottleneck",
        "fp16 is for CUDA",
        "91.42 % met, by 1 of 1",
        "92.00 %",
        "product-bf16",
        "Not measured at all: convert.",
        "0" * 40,
    ):
        assert words in shown, words
        assert words in told, words
    for row in re.findall(r"^\| (.*) \|$", told, re.MULTILINE):
        cells = [cell.replace("\\", "").strip() for cell in row.split(" | ")]
        if not set(row) <= set("-:| "):
            assert " ".join(filter(None, cells)) in shown, row


def test_json_is_the_findings(out: Path) -> None:
    found = json.loads((out / "report.json").read_text())
    assert found["schema"] == 1
    (section,) = found["sections"]
    assert section["bottleneck"]["verdict"] == "step"
    assert section["machine"]["git_commit"] == "0" * 40
    steps = next(contest for contest in section["contests"] if contest["group"] == "step")
    assert steps["rows"][1]["ratio"]["value"] == pytest.approx(0.9)
    assert steps["absent"] == [{"name": "fp16", "reason": "fp16 is for CUDA"}]
    assert found["accuracies"][0]["mean"] == 0.92


def test_every_plot_has_words_and_is_a_file(out: Path) -> None:
    page = Page.read(out / "report.html")
    drawn, files = page.all("svg"), {path.stem for path in (out / "plots").iterdir()}
    assert all(svg["role"] == "img" and len(svg["aria-label"] or "") > 20 for svg in drawn)
    assert len(drawn) == len(files) == 14
    assert {"waiting", "roofline", "step", "loaders-augmented"} <= files
    linked = re.findall(r"\(plots/(.*?)\.svg\)", (out / "report.md").read_text())
    assert set(linked) == files


def test_nothing_is_asked_of_a_network(out: Path) -> None:
    page = Page.read(out / "report.html")
    links = [value or "" for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"https?://|url\(\s*['\"]?(?!#)", (out / "report.html").read_text())
    assert page.all("script") == []
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_same_files_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    write_report([out.parent / "bench.json"], [out.parent / "run"], tmp_path)
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(files) == 3 + 14
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_synthetic_data_cannot_be_overlooked(out: Path, tmp_path: Path) -> None:
    assert "SYNTHETIC" not in (out / "report.html").read_text() + (out / "report.md").read_text()
    bench = write_bench(tmp_path / "bench.json", [entry("step", "a", 1)], data="synthetic")
    page, text, _ = write_report([bench], [], tmp_path / "out")
    assert Page.read(page).text.startswith("Synthetic data These images are a stand-in")
    assert "<title>SYNTHETIC" in page.read_text()
    assert text.read_text().startswith("> **SYNTHETIC DATA**")


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    facts: dict[str, Any] = dict.fromkeys(("precision", "layout", "mode", "compile_cache"), HOSTILE[0])
    entries = [entry(group, name, 5, unit=name) for group, name in zip(HOSTILE, HOSTILE, strict=True)]
    entries += [
        entry("step", "a", 1, **facts | {"mode": "eager"}),
        entry("step", "b", 2, **facts | {"mode": "compiled", "compile_seconds": {"<b>": 1}}),
    ]
    entries += [entry("loaders-augmented", HOSTILE[0], 5), entry("epoch", HOSTILE[1], 5, data_wait_percent=[1])]
    skipped = [{"group": name, "name": name, "reason": name} for name in HOSTILE]
    folder = tmp_path / "<b>bench\x1b[31m & 'co' \u202e\udcff"
    folder.mkdir()
    bench = write_bench(folder / "a.json", entries, skipped=skipped, cpu=HOSTILE[1], packages={HOSTILE[0]: HOSTILE[2]})
    run = write_run(whole_run(folder / "run", 0.9, epochs=1))
    written, text, _ = write_report([bench], [run], folder / "out")
    page = Page.read(written)
    assert page.all("script") == page.all("img") == []
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    for name in HOSTILE:
        assert name in page.text
    assert "<b>bench\\x1b[31m & 'co' \\u202e\\udcff" in page.text
    assert all(path.parent == folder / "out" / "plots" for path in (folder / "out").rglob("*.svg"))
    assert "\n<script>" not in text.read_text()
    assert " <script>" not in text.read_text()


def test_a_file_without_figures_has_a_page_too(tmp_path: Path) -> None:
    page, text, _ = write_report([write_bench(tmp_path / "bench.json", [])], [], tmp_path / "out")
    for words in ("What the bottleneck is was not measured", "Throughput: not measured", "Peaks of this machine"):
        assert words in Page.read(page).text
        assert words in text.read_text()
    assert Page.read(page).all("svg") == []
