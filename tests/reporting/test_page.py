import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cifarfast.files import write_json
from cifarfast.model import layer_table
from cifarfast.range_record import RANGE_NAME
from cifarfast.range_test import Sweep
from cifarfast.recipe import Recipe
from cifarfast.records import sealed
from cifarfast.reporting.page import write_report
from cifarfast.runfolder import read_run
from tests.reporting.conftest import MakeRun, range_record
from tests.reporting.pages import Page

HOSTILE = (
    "<script>alert('a')</script>",
    '"><img src=x onerror=alert(1)>',
    'a\' & "b"',
    "$\\alpha$",
    "猫" * 40,
    "{{ 7*7 }}",
)

NAMES = (*HOSTILE, "g", "h", "i", "j")


@pytest.fixture(scope="module")
def written(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    run = make_run(tmp_path_factory.mktemp("runs") / "first")
    page = write_report(run)
    assert page == run / "report.html"
    return run, Page.read(page)


def test_all_that_belongs_in_it_is_in_it(written: tuple[Path, Page]) -> None:
    run, page = written
    text = page.text.replace("\u202f", " ")
    found = read_run(run)
    assert found.summary is not None
    for words in (
        "Test accuracy on synthetic data 60.00 %",
        "95 % interval 44.6 % to 73.7 %, 40 images, 1 run",
        "target 91.42 %: not judged",
        "median of 2, 11.0 s to 12.0 s; the first took 10.0 s",
        "14 images/s 2.0 % of the time waiting for data",  # 160 images in 11.5 s
        "a cpu 2 threads, AVX2, fp32, eager, torch 2.14.1",
        "160 training and 40 test images; 3 epochs of 10 steps, begun 2 January 2026, 03:04 UTC",
        "compiling 1.50 s",
        "80.00 % not reached",
        "40 test images after epoch 3: 4 right, where training counted 24.",
        "All 16 of the 16 images of the first training batch",
    ):
        assert words in text, words
    for row in found.rows:
        assert f"{row.epoch} {row.train_loss:.4f} {row.train_accuracy:.2%}".replace("%", " %") in text
    for layer in layer_table(Recipe()):
        output = " \u00d7 ".join(map(str, layer.output))
        assert f"{layer.name} {output} {layer.parameters:,} {layer.flops / 1e6:.2f}" in text
    settings = json.loads(json.dumps(asdict(found.config), default=str))
    for name in (*settings, *settings["recipe"], *settings["runtime"], *asdict(found.summary.fingerprint)):
        if name not in ("recipe", "runtime", "augmentation", "packages"):
            assert name.replace("_", " ") in text, name
    for digest in (found.config.train_sha256, found.summary.fingerprint.git_commit):
        assert str(digest) in text


def test_every_picture_has_words(written: tuple[Path, Page]) -> None:
    _, page = written
    drawn = page.all("svg")
    assert len(drawn) == 7
    assert all(svg["role"] == "img" and len(svg["aria-label"] or "") > 20 for svg in drawn)
    photographs = page.all("img")
    assert len(photographs) == 24 + 16
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in photographs)


def test_plots_are_files_too(written: tuple[Path, Page]) -> None:
    run, _ = written
    assert {path.name for path in (run / "plots").iterdir()} == {
        "accuracy.svg", "loss.svg", "time.svg", "learning_rate.svg", "momentum.svg", "confusion.svg", "per_class.svg",
        "misclassified.png", "augmented.png",
    }  # fmt: skip


def test_nothing_is_asked_of_a_network(written: tuple[Path, Page]) -> None:
    run, page = written
    links = [
        value or "" for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    text = (run / "report.html").read_text()
    assert not re.search(r"https?://|url\(\s*['\"]?(?!#)", text)
    assert page.all("script") == []
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_synthetic_data_cannot_be_overlooked(written: tuple[Path, Page], make_run: MakeRun, tmp_path: Path) -> None:
    run, page = written
    assert page.text.startswith("Synthetic data These images are a stand-in")
    assert "<title>SYNTHETIC" in (run / "report.html").read_text()
    real = write_report(make_run(tmp_path / "real", kind="cifar10"))
    assert "ynthetic" not in Page.read(real).text.partition("All that was asked")[0].replace("grating", "")
    assert "SYNTHETIC" not in real.read_text()


def test_the_same_run_gives_the_same_bytes(written: tuple[Path, Page], tmp_path: Path) -> None:
    run, _ = written
    again = write_report(run, out=tmp_path / "again.html")
    assert again.read_bytes() == (run / "report.html").read_bytes()
    for plot in (run / "plots").iterdir():
        assert (tmp_path / "plots" / plot.name).read_bytes() == plot.read_bytes()


def test_names_and_paths_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "<b>run\x1b[31m & 'co' \u202e\udcff"
    page = Page.read(write_report(make_run(folder, class_names=NAMES)))
    assert page.all("script") == page.all("b")[4:] == []  # the headline has four
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert "<b>run\\x1b[31m & 'co' \\u202e\\udcff" in page.text
    labels = " ".join(svg["aria-label"] or "" for svg in page.all("svg"))
    photographs = " ".join(image["alt"] or "" for image in page.all("img"))
    for name in HOSTILE:
        assert name in page.text
        assert name in labels
        assert name in photographs


def test_a_range_test(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", predictions=False, data=tmp_path, sweep=Sweep(divergence=7.25))
    write_json(run / RANGE_NAME, sealed(range_record()))
    page = Page.read(write_report(run))
    assert "divergence 7.25" in page.text
    assert "The rate was raised after every step, 8 times of 8; it went to its end." in page.text
    assert re.search(
        r"Suggestions steepest 1 minimum tenth the loss is lowest at the last rate .* valley 0\.", page.text
    )
    assert any((svg["aria-label"] or "").startswith("Loss over a learning rate") for svg in page.all("svg"))
    assert (run / "plots" / "lr_range.svg").exists()


def test_an_unfinished_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False, predictions=False, done=2)
    text = Page.read(write_report(run)).text.replace("\u202f", " ")
    assert "Unfinished: 2 of 3 epochs are done." in text
    assert "target 91.42 %: the run is unfinished" in text
    assert "Confusion matrix, accuracy by class: the run is unfinished." in text
    assert "the second; the first took 10.0 s" in text


def test_a_run_that_has_only_begun(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False, predictions=False, done=0, data=tmp_path)
    page = Page.read(write_report(run))
    assert "No epoch is finished yet." in page.text
    assert "on data not known yet" in page.text
    assert page.all("svg") == page.all("img") == []


def test_rates_that_leave_the_schedule_are_pointed_out(
    written: tuple[Path, Page], make_run: MakeRun, tmp_path: Path
) -> None:
    _, page = written
    assert "they leave the line" not in page.text
    run = make_run(tmp_path / "run", finished=False, recipe=replace(read_run(written[0]).config.recipe, epochs=6))
    assert "they leave the line, because the run was resumed" in Page.read(write_report(run)).text
