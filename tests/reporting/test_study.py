from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cifarfast.errors import UserError
from cifarfast.records import decode_versioned
from cifarfast.reporting.study import _curve, _draw, _median, write_study
from cifarfast.reporting.style import BLUE, styled
from cifarfast.studying.figures import SCHEMA, Figures, machines_of
from cifarfast.studying.peers import write_peer
from cifarfast.studying.runs import read_runs
from tests.reporting.pages import Page
from tests.studying.made import made, made_peer, write_study_run


def write_two_recipes(out: Path) -> None:
    """Two recipes on two machines, a run that diverged and one that is under way."""
    for seed in range(3):
        write_study_run(made("reference", seed, 0.9160 + seed / 1000, out=out, epoch_seconds=200.0 + seed))
        write_study_run(made("reference+x=1", seed, 0.9130 + seed / 1000, out=out, epochs=3, epoch_seconds=100.0))
    write_study_run(made("reference", 3, 0.9165, out=out, cpu="another", epoch_seconds=50.0))
    write_study_run(made("reference+x=1", 3, out=out, epochs=3, state="diverged"))
    write_study_run(made("reference+x=1", 4, out=out, epochs=3, state="unfinished"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures, Page]:
    out = tmp_path_factory.mktemp("studies") / "study"
    write_two_recipes(out)
    figures, page = write_study(out, first=["reference"], margin=0.25)
    assert page == out / "study.html"
    return out, figures, Page.read(page)


def test_all_that_belongs_in_it_is_in_it(study: tuple[Path, Figures, Page]) -> None:
    out, figures, page = study
    text = page.text.replace("\u202f", " ")
    for words in (
        "Runs of 2 recipes: 7 finished, 1 diverged, 1 unfinished.",
        "A reference 4 91.69 % 0.09 91.55 to 91.82 % 91.60 % 91.80 % 91.42 % met, p 0.0041",
        "B reference+x=1 3, 1 diverged, 1 unfinished 91.40 %",
        "91.42 % not judged",  # three epochs are not the whole recipe
        "B reference+x=1 -0.29",
        "A reference 3 4,021 s (4,001 to 4,041 s) 201 s 201 s 201 s 201 s never a cpu",
        "A reference 1 1,001 s 50 s 50 s 50 s 50 s never another",
        "setting A B epochs 20 3",
        "B reference+x=1 3 diverged 3 600 s none none training diverged at step 7",
        "not known yet",
        str(out),
    ):
        assert words in text, words
    assert "Part of" not in text
    assert decode_versioned((out / "study.json").read_bytes(), Figures, schema=SCHEMA, where=out, hint="") == figures


def test_there_is_a_plot_for_every_machine(study: tuple[Path, Figures, Page]) -> None:
    out, _, page = study
    first, second = (str(svg["aria-label"]) for svg in page.all("svg"))
    assert first == (
        "Test accuracy by seconds of training on a cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1, channels-last, "
        "loader resident: a thin line a run, the median of every recipe bold. "
        "A, reference: 3 runs, in the median 91.70 % after 4,020 s; "
        "B, reference+x=1: 3 runs, in the median 91.40 % after 300 s. Target: 91.42 %."
    )
    assert "A, reference: 1 run, in the median 91.65 % after 1,000 s. Target" in second
    assert {path.name for path in (out / "plots").iterdir()} == {"accuracy_1.svg", "accuracy_2.svg"}


def test_a_line_for_every_run_and_a_bold_one_for_the_median(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.90, 0.91, 0.95)):
        run = made("a", seed, accuracy, out=tmp_path, epochs=3, epoch_seconds=10.0 * (seed + 1))
        rising = [replace(row, test_accuracy=accuracy - 0.1 * (3 - row.epoch)) for row in run.run.rows]
        write_study_run(replace(run, run=replace(run.run, rows=rising)))
    figures = write_study(tmp_path, margin=0.25)[0]
    runs = read_runs(tmp_path)
    with styled():
        (plot, _), *others = _draw(figures, runs, [], machines_of(runs))
    assert others == []
    colour = f"stroke: {BLUE}"
    styles = [line.get("style", "") for line in ElementTree.fromstring(plot.svg).iter() if colour in str(line.attrib)]
    assert [("stroke-width: 0.8" in style, "stroke-width: 2.6" in style) for style in styles] == [
        (True, False), (True, False), (True, False), (False, True)
    ]  # fmt: skip
    x, y = _median([_curve(run.run.rows) for run in runs])
    assert x == [20.0, 40.0, 60.0]
    assert y == pytest.approx([71.0, 81.0, 91.0])


def test_other_programs_are_in_the_plot_of_their_machine(tmp_path: Path) -> None:
    for seed in range(2):
        write_study_run(made("reference", seed, 0.91 + seed / 1000, out=tmp_path))
        write_peer(tmp_path, made_peer(seed))
    write_study_run(made("reference", 2, 0.91, out=tmp_path, cpu="another"))
    peer = made_peer(7)
    write_peer(tmp_path, replace(peer, effective=replace(peer.effective, precision="bf16")))
    figures, path = write_study(tmp_path, margin=0.25)
    assert [peer.n for peer in figures.peers] == [3]
    page = Page.read(path)
    here, there = (str(svg["aria-label"]) for svg in page.all("svg"))
    assert "B, airbench94-0: 2 runs, in the median 94.00 % after 300 s. Target" in here
    assert "airbench" not in there
    text = page.text.replace("\u202f", " ")
    assert "with a seed of its own. Other programs ran beside them: airbench94-0 (3)." in text
    assert "B airbench94-0 3 94.00 %" in text
    assert "setting A name" in text  # the recipe's settings alone


def test_the_same_runs_give_the_same_bytes(study: tuple[Path, Figures, Page]) -> None:
    out, _, _ = study
    files = [out / "study.html", out / "study.json", *sorted((out / "plots").iterdir())]
    before = [path.read_bytes() for path in files]
    write_study(out, first=["reference"], margin=0.25)
    assert [path.read_bytes() for path in files] == before


def test_what_is_not_the_whole_cifar10_is_told_first(tmp_path: Path) -> None:
    run = made("<b>reference<i>", 0, out=tmp_path)
    assert run.run.summary is not None
    summary = replace(run.run.summary, data=replace(run.run.summary.data, official=False, kind="synthetic"))
    write_study_run(replace(run, run=replace(run.run, summary=summary)))
    page = Page.read(write_study(tmp_path, margin=0.25)[1])
    assert page.text.startswith("Synthetic data These images are a stand-in, drawn by a program")
    assert page.all("b") == page.all("i") == []
    assert "A <b>reference<i> 1 92.00 % none" in page.text.replace("\u202f", " ")
    assert "<title>SYNTHETIC DATA" in (tmp_path / "study.html").read_text(encoding="utf-8")


def test_a_study_without_a_finished_run_has_a_page(tmp_path: Path) -> None:
    write_study_run(made("reference", 0, out=tmp_path, state="diverged"))
    page = Page.read(write_study(tmp_path, margin=0.25)[1])
    assert "Time: no run is finished yet." in page.text
    assert page.all("svg") == []


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path} holds no run of a study"):
        write_study(tmp_path, margin=0.25)
    assert list(tmp_path.iterdir()) == []
