from dataclasses import replace
from pathlib import Path

import pytest

from cifarfast.errors import UserError
from cifarfast.reporting.comparison import write_comparison
from tests.reporting.conftest import RECIPE, MakeRun
from tests.reporting.pages import Page


def test_repetitions_have_a_mean_and_a_spread(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"run{n}", accuracy=0.5 + n / 100, seed=n, kind="cifar10", started=f"2026-01-0{n + 1}")
        for n in range(3)
    ]
    page = Page.read(write_comparison(runs, tmp_path / "out" / "page.html"))
    text = page.text.replace("\u202f", " ")
    assert (
        "The same settings with 3 seeds: test accuracy 51.00 % in the mean, standard deviation 1.00 points, "
        "50.00 % to 52.00 %, n = 3 runs."
    ) in text
    assert "A run0 cifar10 0 3 50.00 % 40 1.1000 11.5 s 14 a cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1" in text
    assert "setting A B C seed 0 1 2" in text
    assert "ynthetic" not in text
    assert page.all("svg")[0]["aria-label"] == (
        "Test accuracy, %, one curve a run: A ends at 50 %; B ends at 51 %; C ends at 52 %."
    )
    assert len(list((tmp_path / "out" / "plots").glob("*.svg"))) == len(page.all("svg")) == 6


def test_what_differs_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    names = tuple(f"<script>{letter}</script>" for letter in "abcdefghij")
    runs = [
        make_run(tmp_path / "one"),
        make_run(tmp_path / "<i>two", recipe=replace(RECIPE, max_lr=0.01), class_names=names, kind="cifar10"),
        make_run(tmp_path / "three", finished=False, done=1),
    ]
    page = Page.read(write_comparison(runs, tmp_path / "page.html"))
    text = page.text.replace("\u202f", " ")
    assert text.startswith("Synthetic data The images of A are a stand-in")
    assert "Test accuracies from 40.00 % to 60.00 %." in text
    assert "recipe.max_lr 0.017 0.01 0.017" in text
    assert "recipe.batch_size" not in text
    assert "<i>two" in text
    assert "<script>a</script>" in text
    assert page.all("script") == page.all("i") == []
    assert "C three unfinished 0 1 of 3 40.00 %" in text


def test_the_same_run_twice_does_not_differ(run: Path, tmp_path: Path) -> None:
    page = Page.read(write_comparison([run, run], tmp_path / "page.html"))
    assert "Nothing: all of them were asked for the same." in page.text
    assert "Test accuracies from 60.00 % to 60.00 %." in page.text.replace("\u202f", " ")  # no repetition with n = 2


def test_a_run_without_epochs_is_refused(run: Path, make_run: MakeRun, tmp_path: Path) -> None:
    empty = make_run(tmp_path / "empty", finished=False, done=0)
    with pytest.raises(UserError, match="empty has finished no epoch yet"):
        write_comparison([run, empty], tmp_path / "page.html")
