"""A run that is killed, stopped or copied and goes on ends with the bits that it would have had."""

import importlib.util
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cifarfast
from cifarfast import NonFiniteError, Recipe, RunConfig, Runtime, Stopped, UserError, door
from cifarfast.config import run_config
from cifarfast.evaluation import Statistics, evaluate
from cifarfast.runfolder import read_diverged, read_run
from cifarfast.schedule import one_cycle
from cifarfast.step import TrainStep
from tests.dying import run_in_a_process

# Two epochs of three steps, two batches of test images.
RECIPE = Recipe(batch_size=4, epochs=2, max_lr=0.004)
TIMES = {"epoch_seconds", "eval_seconds", "images_per_second", "data_wait_percent", "peak_memory_bytes"}
LOADERS = ["resident", "ffcv", "torchvision"]
WRITTEN = "when a checkpoint has its name, before the old one is gone"
Outcome = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def config(
    data: Path, loader: Any = "resident", recipe: Recipe = RECIPE, workers: int = 0, **runtime: Any
) -> RunConfig:
    return RunConfig(
        data=data,
        recipe=recipe,
        runtime=Runtime(device="cpu", loader=loader, workers=workers, **runtime),
        seed=7,
        train_images=13,
        test_images=8,
        verify=False,
    )


def fit(asked: RunConfig, out: Path, checkpoint_minutes: float = 10.0) -> None:
    cifarfast.fit(**vars(run_config(asked)), out=out, checkpoint_minutes=checkpoint_minutes)


def outcome(run: Path) -> Outcome:
    """Weights, and what was learned of the metrics: times are not part of the promise."""
    rows = [{k: v for k, v in vars(row).items() if k not in TIMES} for row in read_run(run).rows]
    return load_file(run / "model.safetensors"), rows


def assert_same(run: Path, expected: Outcome) -> None:
    weights, rows = outcome(run)
    assert rows == expected[1]
    assert weights.keys() == expected[0].keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected[0].items())
    summary = read_run(run).summary
    assert summary is not None
    assert (summary.epochs, summary.steps) == (2, 6)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Outcome]:
    """What a run comes to if nothing happens."""
    known: dict[RunConfig, Outcome] = {}

    def come_to(asked: RunConfig) -> Outcome:
        if asked not in known:
            out = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert run_in_a_process(out, asked) == 0
            known[asked] = outcome(out)
        return known[asked]

    return come_to


def needs(loader: str) -> None:
    if loader == "ffcv" and importlib.util.find_spec("ffcv") is None:
        pytest.skip("FFCV is not installed")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("point", "count", "checkpoint_minutes"),
    [
        ("in the middle of an epoch", 6, 1e-9),  # from a checkpoint of the epoch under way
        ("in the middle of an epoch", 5, 10.0),  # from the end of the epoch before
        ("in the middle of an epoch", 2, 10.0),  # from the beginning: there is no checkpoint yet
        ("with the epoch trained, before its evaluation", 2, 1e-9),
        ("during the evaluation", 3 + 2 + 3 + 2, 10.0),  # batches trained on and tested on are counted alike
        ("at the end of an epoch, before its checkpoint", 2, 1e-9),
        ("while a checkpoint is being written", 5, 1e-9),
        (WRITTEN, 3, 1e-9),
        ("before the summary", 1, 10.0),
    ],
)
def test_killed_and_resumed_is_uninterrupted(
    uninterrupted: Callable[[RunConfig], Outcome],
    data: Path,
    tmp_path: Path,
    loader: str,
    point: str,
    count: int,
    checkpoint_minutes: float,
) -> None:
    needs(loader)
    run, asked = tmp_path / "run", config(data, loader)
    died = run_in_a_process(run, asked, die_at=(point, count), checkpoint_minutes=checkpoint_minutes)
    assert died == -signal.SIGKILL
    assert read_run(run).summary is None
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted(asked))
    assert not list(run.rglob("*.tmp"))
    assert 1 <= len(list((run / "checkpoints").iterdir())) <= 2


@pytest.mark.parametrize("loader", LOADERS)
def test_killed_twice_in_one_epoch(
    uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path, loader: str
) -> None:
    needs(loader)
    run, asked = tmp_path / "run", config(data, loader, workers=1)
    # Checkpoints come after steps 1, 2, 3, after step 3 with its evaluation, and after step 4: then after step 5.
    assert run_in_a_process(run, asked, die_at=(WRITTEN, 5), checkpoint_minutes=1e-9) == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True, die_at=(WRITTEN, 1), checkpoint_minutes=1e-9) == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted(asked))
    summary = read_run(run).summary
    assert summary is not None
    assert summary.resumed_at == [4, 5]


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param({"amp": True, "amp_dtype": "bf16"}, id="bf16"),
        pytest.param({"amp": True, "amp_dtype": "fp16"}, id="fp16"),
        pytest.param({"compile": True}, id="compiled"),
        pytest.param({"channels_last": False}, id="contiguous"),
        pytest.param({"deterministic": True}, id="deterministic"),
    ],
)
def test_so_it_is_in_other_runtimes(
    uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path, runtime: dict[str, Any]
) -> None:
    run, asked = tmp_path / "run", config(data, **runtime)
    assert run_in_a_process(run, asked, die_at=(WRITTEN, 5), checkpoint_minutes=1e-9) == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted(asked))


def test_so_it_is_where_an_epoch_takes_the_hardest_images(
    uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path
) -> None:
    # Three steps again, with 9 of the 13 images: the second epoch takes the other four and five of the nine.
    run, asked = tmp_path / "run", config(data, recipe=replace(RECIPE, batch_size=3, hard_share=0.75))
    for count in (5, 1):  # after the first and the second step of that epoch
        died = run_in_a_process(run, asked, resume=count == 1, die_at=(WRITTEN, count), checkpoint_minutes=1e-9)
        assert died == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted(asked))


def test_so_it_is_with_the_real_network(data: Path, tmp_path: Path) -> None:
    asked, runs = config(data), [tmp_path / "one", tmp_path / "other"]
    assert run_in_a_process(runs[0], asked, tiny=False) == 0
    died = run_in_a_process(runs[1], asked, die_at=(WRITTEN, 5), checkpoint_minutes=1e-9, tiny=False)
    assert died == -signal.SIGKILL
    assert run_in_a_process(runs[1], asked, resume=True, tiny=False) == 0
    assert_same(runs[1], outcome(runs[0]))


def signalling(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, number: signal.Signals, count: int) -> None:
    """Send this process a signal in the `count`-th call of a method, and wait until it has been noticed."""
    function, calls = getattr(owner, name), []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            noticed = threading.Event()
            with monkeypatch.context() as patch:
                patch.setattr("cifarfast.stopping.note", lambda message: noticed.set())
                os.kill(os.getpid(), number)
                assert noticed.wait(10)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalled)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("owner", "name", "count", "steps"),
    [(TrainStep, "__call__", 2, 2), (TrainStep, "__call__", 6, 6), (Statistics, "add", 3 + 1, 3)],
    ids=["training", "the last step", "evaluation"],
)
def test_a_signal_ends_with_a_checkpoint_of_the_step_under_way(
    uninterrupted: Callable[[RunConfig], Outcome],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    owner: type,
    name: str,
    count: int,
    steps: int,
) -> None:
    run, asked = tmp_path / "run", config(data)
    with monkeypatch.context() as patch:
        signalling(patch, owner, name, number, count)
        patch.setattr("cifarfast.training._now", lambda: "2026-01-02T03:04:05+00:00")
        with pytest.raises(Stopped, match=re.escape(f"python -m cifarfast.train --resume {run}")) as stopped:
            fit(asked, run)
    assert stopped.value.signum is number
    assert read_run(run).summary is None
    cifarfast.resume(run)
    assert_same(run, uninterrupted(asked))
    summary = read_run(run).summary
    assert summary is not None
    assert (summary.started, summary.resumed_at) == ("2026-01-02T03:04:05+00:00", [steps])


@pytest.mark.usefixtures("tiny", "restored_sigterm")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_compiling_leaves_at_once_and_the_run_can_begin_again(
    uninterrupted: Callable[[RunConfig], Outcome],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    run, asked = tmp_path / "run", config(data, compile=True)

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not heard")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "compile", interrupted)
        with pytest.raises(SystemExit) as leaving:
            door.run(lambda: fit(asked, run))
    assert leaving.value.code == code
    assert capsys.readouterr().err.startswith("error: ")
    cifarfast.resume(run)
    assert "starting at the beginning" in capsys.readouterr().err
    assert_same(run, uninterrupted(asked))


@pytest.mark.usefixtures("tiny")
def test_what_diverged_can_go_on_from_its_last_good_checkpoint(
    uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked, calls = tmp_path / "run", config(data), []
    take_step = TrainStep.__call__

    def poisoned(step: TrainStep, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():
                step.model.head.weight[3, 1] = torch.inf
        take_step(step, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", poisoned)
        with pytest.raises(NonFiniteError, match=r"at step 4 \(epoch 2, .*largest weight inf in head\.weight"):
            fit(asked, run, checkpoint_minutes=1e-9)
    newest = load_file(max((run / "checkpoints").iterdir()))
    assert all(tensor.isfinite().all() for tensor in newest.values())
    diverged = read_diverged(run)
    assert diverged is not None
    assert diverged.epochs == 1
    cifarfast.resume(run)
    assert_same(run, uninterrupted(asked))
    assert read_diverged(run) is None


@pytest.fixture
def finished(tiny: None, data: Path, tmp_path: Path) -> Path:
    run = tmp_path / "finished"
    fit(config(data), run)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_complete_run_is_left_as_it_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(finished)
    summary = cifarfast.resume(finished)
    assert summary == read_run(finished).summary
    assert contents(finished) == before
    assert "is complete" in capsys.readouterr().err


def test_a_run_can_be_made_longer(finished: Path, data: Path) -> None:
    before = read_run(finished)
    longer = replace(config(data), recipe=replace(RECIPE, epochs=4))
    summary = cifarfast.resume(finished, longer)
    after = read_run(finished)
    assert (summary.epochs, summary.steps, summary.resumed_at) == (4, 12, [6])
    assert after.rows[:2] == before.rows
    assert after.config.recipe.epochs == 4
    schedule = one_cycle(longer.recipe, 3)
    assert [row.lr for row in after.rows[2:]] == [schedule.lr(8), schedule.lr(11)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": replace(RECIPE, batch_size=5)}, "--batch-size 5 (but 4)"),
        ({"recipe": replace(RECIPE, epochs=1)}, "--epochs 1 (but 2)"),
        ({"recipe": replace(RECIPE, augmentation=replace(RECIPE.augmentation, cutout_size=4))}, "--cutout-size 4"),
        ({"recipe": replace(RECIPE, name="mine")}, "--recipe mine (but "),
        ({"runtime": Runtime(device="cpu", loader="torchvision", workers=0)}, "--loader torchvision (but resident)"),
        ({"seed": 8}, "--seed 8 (but 7)"),
        ({"train_images": 12, "seed": 8}, "--seed 8 (but 7), --train-images 12 (but 13)"),
    ],
)
def test_changed_arguments_are_refused_by_name(finished: Path, data: Path, change: dict[str, Any], words: str) -> None:
    before = contents(finished)
    with pytest.raises(UserError) as refusal:
        cifarfast.resume(finished, replace(config(data), **change))
    assert words in str(refusal.value)
    assert contents(finished) == before


def unfinished(data: Path, out: Path) -> RunConfig:
    asked = config(data)
    assert run_in_a_process(out, asked, die_at=("at the end of an epoch, before its checkpoint", 2)) == -signal.SIGKILL
    return asked


@pytest.mark.usefixtures("tiny")
def test_data_and_run_may_have_moved(uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path) -> None:
    asked = unfinished(data, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    shutil.copytree(data, tmp_path / "data")
    moved = replace(
        asked, data=tmp_path / "data", verify=True, runtime=replace(asked.runtime, loader="auto", workers=1)
    )
    cifarfast.resume(tmp_path / "after", moved)
    assert_same(tmp_path / "after", uninterrupted(asked))


@pytest.mark.usefixtures("tiny")
def test_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    from data_prep.convert import convert
    from data_prep.sources.synthetic import Synthetic

    asked = unfinished(data, tmp_path / "run")
    convert(Synthetic.parse("synthetic:150,40"), tmp_path / "other")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="other holds other data than"):
        cifarfast.resume(tmp_path / "run", replace(asked, data=tmp_path / "other"))
    assert contents(tmp_path / "run") == before


@pytest.mark.usefixtures("tiny")
def test_another_precision_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--amp` may come to bf16 on one machine and to fp32 on another."""
    run, asked = tmp_path / "run", config(data, amp=True)
    monkeypatch.setattr("cifarfast.device.probe_bf16", lambda: 2.0)
    with monkeypatch.context() as patch:
        signalling(patch, TrainStep, "__call__", signal.SIGINT, 2)
        with pytest.raises(Stopped):
            fit(asked, run)
    monkeypatch.setattr("cifarfast.device.probe_bf16", lambda: 0.5)
    before = contents(run)
    with pytest.raises(UserError, match=re.escape("because precision fp32 (was bf16)")):
        cifarfast.resume(run, replace(asked, recipe=replace(RECIPE, epochs=4)))
    assert contents(run) == before


@pytest.mark.usefixtures("tiny")
def test_a_run_that_is_going_on_is_not_resumed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, refusals = tmp_path / "run", []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        for start in (lambda: cifarfast.resume(run), lambda: fit(config(data), run)):
            with pytest.raises(UserError) as refusal:
                start()
            refusals.append(str(refusal.value))
        return evaluate(*args, **kwargs)

    monkeypatch.setattr("cifarfast.loop.evaluate", meanwhile)
    fit(config(data, recipe=replace(RECIPE, epochs=1)), run)
    assert len(refusals) == 2
    assert all("is in use by another run" in refusal for refusal in refusals)


@pytest.mark.usefixtures("tiny")
def test_a_copy_made_at_any_moment_can_go_on(
    uninterrupted: Callable[[RunConfig], Outcome], data: Path, tmp_path: Path
) -> None:
    run, asked = tmp_path / "run", config(data)
    copies: list[Path] = []
    done = threading.Event()

    def copy() -> None:
        while not done.is_set():
            if (run / "config.json").exists() and len(copies) < 4:
                copies.append(tmp_path / f"copy{len(copies)}")
                with suppress(shutil.Error):  # a file that is gone by the time it is its turn
                    shutil.copytree(run, copies[-1])
            done.wait(0.05)

    copier = threading.Thread(target=copy)
    copier.start()
    try:
        fit(asked, run, checkpoint_minutes=1e-9)
    finally:
        done.set()
        copier.join()
    assert copies
    for folder in copies:
        read_run(folder)
        cifarfast.resume(folder)
        assert_same(folder, uninterrupted(asked))


@pytest.mark.parametrize(("folder", "words"), [("nowhere", "holds no run"), ("data", "holds no run")])
def test_what_is_no_run_is_refused_and_left_alone(data: Path, tmp_path: Path, folder: str, words: str) -> None:
    path = data if folder == "data" else tmp_path / folder
    with pytest.raises(UserError, match=words):
        cifarfast.resume(path)
    assert not (tmp_path / "nowhere").exists()
