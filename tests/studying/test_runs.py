from dataclasses import replace
from pathlib import Path

import pytest

from cifarfast.errors import UserError
from cifarfast.studying.runs import StudyRun, is_done, read_runs, read_study_run
from tests.bench.made import write_run
from tests.studying.made import made, write_study_run


def write(*runs: StudyRun) -> None:
    for run in runs:
        write_study_run(run)


def test_runs_are_read_in_the_order_of_recipes_and_seeds(tmp_path: Path) -> None:
    seeds = (10, 9, 2)
    write(*(made(name, seed, out=tmp_path) for name in ("b", "c", "a") for seed in seeds))
    (tmp_path / "plots").mkdir()
    (tmp_path / "a" / "seed-3").mkdir()  # as it is until its configuration is there
    found = read_runs(tmp_path, first=["c", "none"])
    assert [(run.recipe, run.seed) for run in found] == [(name, seed) for name in "cab" for seed in (2, 9, 10)]
    assert found[0] == made("c", 2, out=tmp_path)
    assert read_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(("state", "done"), [("finished", True), ("diverged", True), ("unfinished", False)])
def test_a_run_is_finished_or_diverged_or_unfinished(tmp_path: Path, state: str, done: bool) -> None:
    run = made("a", 1, out=tmp_path, state=state)
    write(run)
    found = read_study_run(run.run.path)
    assert (found, found.state, is_done(run.run.path)) == (run, state, done)


def test_a_summary_counts_more_than_an_earlier_divergence(tmp_path: Path) -> None:
    run = made("a", 1, out=tmp_path)
    write(replace(run, diverged=made("a", 1, state="diverged").diverged))
    assert read_study_run(run.run.path).state == "finished"


def test_a_run_that_is_being_made_longer_is_unfinished(tmp_path: Path) -> None:
    run = made("a", 1, out=tmp_path).run
    write_run(replace(run, config=replace(run.config, recipe=replace(run.config.recipe, epochs=30))))
    assert (read_study_run(run.path).state, is_done(run.path)) == ("unfinished", False)


def test_a_folder_is_called_as_its_seed(tmp_path: Path) -> None:
    write(made("a", 1, out=tmp_path))
    (tmp_path / "a" / "seed-1").rename(tmp_path / "a" / "seed-2")
    with pytest.raises(UserError, match="seed-2 holds a run with seed 1: call it seed-1"):
        read_runs(tmp_path)


def test_runs_of_a_recipe_have_one_recipe_and_all_have_one_set_of_images(tmp_path: Path) -> None:
    write(made("a", 1, out=tmp_path), made("b", 1, epochs=3, out=tmp_path))
    assert len(read_runs(tmp_path)) == 2
    write(made("b", 2, epochs=4, out=tmp_path))
    with pytest.raises(UserError, match=r"the runs in .*b are not of one kind, they differ in epochs \(3, 4\): part"):
        read_runs(tmp_path)
    other = made("c", 1, out=tmp_path / "other")
    write(made("a", 1, out=tmp_path / "other"))
    write(replace(other, run=replace(other.run, config=replace(other.run.config, train_sha256="2" * 64))))
    with pytest.raises(UserError, match="they differ in train_sha256"):
        read_runs(tmp_path / "other")
