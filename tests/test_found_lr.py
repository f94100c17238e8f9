"""Runs whose max_lr is found by a range test: `fit(sweep=...)`, `--max-lr auto`."""

import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cifarfast
from cifarfast import Recipe, RunConfig, Runtime, Stopped, Summary, Sweep, UserError
from cifarfast.config import run_config
from cifarfast.range_record import PLOT_NAME, RANGE_NAME, read_range, write_range
from cifarfast.reporting.evidence import gather
from cifarfast.runfolder import read_config, read_run
from cifarfast.schedule import one_cycle
from cifarfast.step import TrainStep
from cifarfast.train import main
from tests.commands import refusal
from tests.test_resume import assert_same, contents, outcome, signalling
from tests.tiny import build_tiny

# Two epochs of three steps, like those of `tests.test_resume`; the loss of the tiny network falls all the way.
RECIPE = Recipe(batch_size=32, epochs=2)
SWEEP = Sweep(start_lr=1e-3, end_lr=1.0, num_iter=30)
HOPELESS = replace(SWEEP, num_iter=3)


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifarfast.setup.build_model", build_tiny)
        yield
    torch.set_num_threads(threads)


def config(data: Path, sweep: Sweep | None = SWEEP) -> RunConfig:
    runtime = Runtime(device="cpu", loader="resident")
    limits: dict[str, Any] = {"train_images": 96, "test_images": 8, "verify": False}
    return RunConfig(data=data, recipe=RECIPE, runtime=runtime, seed=7, sweep=sweep, **limits)


def fit(asked: RunConfig, out: Path) -> Summary:
    return cifarfast.fit(**vars(run_config(asked)), out=out)


def suggested(run: Path) -> float:
    record = read_range(run, hint="")
    assert record is not None
    assert record.result.answer.lr is not None
    return record.result.answer.lr


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, for reading only."""
    out = tmp_path_factory.mktemp("found") / "run"
    fit(config(data), out)
    return out


def test_the_rate_is_taken_and_recorded(found: Path) -> None:
    lr, run = suggested(found), read_run(found)
    assert 1e-3 < lr < 1.0
    assert run.summary is not None
    for recorded in (run.config, run.summary):
        assert (recorded.sweep, recorded.recipe) == (SWEEP, replace(RECIPE, max_lr=lr))
    schedule = one_cycle(run.summary.recipe, 3)
    assert [row.lr for row in run.rows] == [schedule.lr(2), schedule.lr(5)]
    assert (schedule.lr(0), schedule.lr(5)) == pytest.approx((lr / 10, lr / 10))
    assert (found / PLOT_NAME).read_bytes().startswith(b"\x89PNG")
    assert gather(found).range_test == read_range(found, hint="")


def test_the_run_is_that_with_the_rate_given(found: Path, data: Path, tmp_path: Path) -> None:
    given = replace(config(data, sweep=None), recipe=replace(RECIPE, max_lr=suggested(found)))
    summary = fit(given, tmp_path / "run")
    assert summary.sweep is None
    assert not (tmp_path / "run" / RANGE_NAME).exists()
    assert_same(tmp_path / "run", outcome(found))


def test_without_a_suggestion_nothing_is_left_and_one_line_says_what_to_do(data: Path, tmp_path: Path) -> None:
    words = r"the range test suggests no learning rate \(only 3 usable losses, .*\): name one with --max-lr"
    with pytest.raises(UserError, match=words):
        fit(config(data, HOPELESS), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=words):
        fit(config(data, HOPELESS), tmp_path / "mine")
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", ".lock"}


def no_sweep(*_: object, **__: object) -> None:
    raise AssertionError("a second range test")


@pytest.mark.parametrize(("dies_at", "swept"), [(5, False), (30 + 5, True)], ids=["the sweep", "training"])
def test_dead_during(
    dies_at: int, swept: bool, found: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls, step = tmp_path / "run", [], TrainStep.__call__

    def deadly(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == dies_at:
            raise SystemError
        step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", deadly)
        with pytest.raises(SystemError):
            fit(config(data), run)
    assert (run / RANGE_NAME).exists() is swept
    if swept:
        monkeypatch.setattr("cifarfast.training.range_of_setup", no_sweep)
    summary = cifarfast.resume(run)
    assert (summary.sweep, summary.recipe.max_lr) == (SWEEP, suggested(found))
    assert read_config(run).recipe == summary.recipe
    assert_same(run, outcome(found))


def test_a_signal_during_the_sweep_says_how_to_go_on(
    found: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalling(patch, TrainStep, "__call__", signal.SIGINT, 5)
        with pytest.raises(Stopped, match=re.escape(f"go on with python -m cifarfast.train --resume {run}")) as stopped:
            fit(config(data), run)
    assert stopped.value.signum is signal.SIGINT
    assert {path.name for path in run.iterdir()} == {".lock", "config.json"}
    cifarfast.resume(run)
    assert_same(run, outcome(found))


def test_it_can_be_made_longer_with_the_same_rate(found: Path, data: Path, tmp_path: Path) -> None:
    run = copy_of(found, tmp_path)
    longer = replace(config(data), recipe=replace(RECIPE, epochs=3))
    summary = cifarfast.resume(run, longer)
    assert summary.recipe == replace(RECIPE, epochs=3, max_lr=suggested(found))
    assert load_file(run / "model.safetensors").keys() == outcome(found)[0].keys()


def test_another_rate_is_refused(found: Path, data: Path, tmp_path: Path) -> None:
    run, given = copy_of(found, tmp_path), tmp_path / "given"
    fit(config(data, sweep=None), given)
    for folder, asked, words in (
        (run, config(data, sweep=None), "--max-lr 0.017 (but auto)"),
        (given, config(data), "--max-lr auto (but 0.017)"),
    ):
        before = contents(folder)
        with pytest.raises(UserError, match=re.escape(words)):
            cifarfast.resume(folder, asked)
        assert contents(folder) == before


def test_where_the_range_test_is_gone_the_rate_that_was_found_is_kept(
    found: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signalling(patch, TrainStep, "__call__", signal.SIGINT, 30 + 5)
        with pytest.raises(Stopped):
            fit(config(data), tmp_path / "run")
    (tmp_path / "run" / RANGE_NAME).unlink()
    cifarfast.resume(tmp_path / "run", config(data))
    assert_same(tmp_path / "run", outcome(found))
    assert not (tmp_path / "run" / RANGE_NAME).exists()


def test_with_muon_other_ratios_of_the_rates_are_refused(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, optimizer="muon", max_lr=0.03, head_lr=0.06, bias_lr=0.003)
    asked = replace(config(data), recipe=recipe)
    fit(asked, tmp_path)
    for recorded in (asked.recipe, read_config(tmp_path).recipe):
        other = replace(asked, recipe=replace(recorded, head_lr=3 * recorded.max_lr))
        with pytest.raises(UserError, match=r"--head-lr 3 of --max-lr \(but 2 of --max-lr\)"):
            cifarfast.resume(tmp_path, other)


def test_a_folder_with_a_range_test_is_refused(found: Path, data: Path, tmp_path: Path) -> None:
    record = read_range(found, hint="")
    assert record is not None
    write_range(tmp_path, record)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="already holds a range test"):
        fit(config(data), tmp_path)
    assert {name: raw for name, raw in contents(tmp_path).items() if name != ".lock"} == before


@pytest.mark.usefixtures("restored_sigterm")
def test_the_command(
    found: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--data", data, "--out", tmp_path / "run", "--batch-size", 32, "--epochs", 2, "--seed", 7, "--no-report"]
    line += ["--train-images", 96, "--test-images", 8, "--loader", "resident", "--device", "cpu", "--max-lr", "auto"]
    line += ["--recipe", "reference"]
    arguments = list(map(str, line))
    monkeypatch.setattr("cifarfast.train.Sweep", lambda: HOPELESS)
    assert "suggests no learning rate" in refusal(main, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("cifarfast.train.Sweep", lambda: SWEEP)
    main(arguments)
    assert f"max_lr {suggested(found):.3g}, as the range test suggests" in capsys.readouterr().err
    assert_same(tmp_path / "run", outcome(found))
    main(["--resume", str(tmp_path / "run"), "--no-report"])
    assert "is complete" in capsys.readouterr().err


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "copy"))


def test_with_muon_all_rates_move_together_and_a_resumed_run_goes_on_with_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, optimizer="muon", max_lr=0.03, head_lr=0.06, bias_lr=0.003)
    asked = replace(config(data), recipe=recipe)
    fit(asked, tmp_path / "whole")
    lr = suggested(tmp_path / "whole")
    recorded = read_config(tmp_path / "whole").recipe
    assert (recorded.max_lr, recorded.head_lr, recorded.bias_lr) == pytest.approx((lr, 2 * lr, lr / 10))
    fit(replace(asked, sweep=None, recipe=recorded), tmp_path / "given")
    assert_same(tmp_path / "given", outcome(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        signalling(patch, TrainStep, "__call__", signal.SIGINT, 30 + 5)
        with pytest.raises(Stopped):
            fit(asked, tmp_path / "run")
    cifarfast.resume(tmp_path / "run", asked)
    assert_same(tmp_path / "run", outcome(tmp_path / "whole"))
