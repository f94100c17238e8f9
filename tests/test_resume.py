"""A run that is killed and goes on ends with the bits that it would have had: weights and metrics."""

import importlib.util
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cifarfast import Recipe, RunConfig, Runtime
from cifarfast.runfolder import read_run
from tests.dying import run_in_a_process

# Two epochs of three steps, two batches of test images.
RECIPE = Recipe(batch_size=4, epochs=2)
STEPS = 3
TIMES = {"epoch_seconds", "eval_seconds", "images_per_second", "data_wait_percent", "peak_memory_bytes"}
LOADERS = ["resident", "ffcv", "torchvision"]
Outcome = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def config(data: Path, loader: Any = "resident", recipe: Recipe = RECIPE, **runtime: Any) -> RunConfig:
    return RunConfig(
        data=data,
        recipe=recipe,
        runtime=Runtime(device="cpu", loader=loader, workers=1, **runtime),
        seed=7,
        train_images=13,
        test_images=8,
        verify=False,
    )


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
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each loader's run comes to if nothing happens."""
    outcomes = {}
    for loader in LOADERS:
        if loader == "ffcv" and importlib.util.find_spec("ffcv") is None:
            continue
        out = tmp_path_factory.mktemp("uninterrupted") / loader
        assert run_in_a_process(out, config(data, loader)) == 0
        outcomes[loader] = outcome(out)
        shutil.rmtree(out)
    return outcomes


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("point", "count", "checkpoint_minutes"),
    [
        ("in the middle of an epoch", 5, 1e-9),  # from a checkpoint of the epoch under way, if it was written by then
        ("in the middle of an epoch", 5, 10.0),  # from the end of the epoch before
        ("in the middle of an epoch", 2, 10.0),  # from the beginning: there is no checkpoint yet
        ("with the epoch trained, before its evaluation", 2, 1e-9),
        ("during the evaluation", 2 * STEPS + 2 + 2, 10.0),
        ("at the end of an epoch, before its checkpoint", 2, 1e-9),
        ("while a checkpoint is being written", 4, 1e-9),
        ("when a checkpoint has its name, before the old one is gone", 3, 1e-9),
        ("before the summary", 1, 10.0),
    ],
)
def test_killed_and_resumed_is_uninterrupted(
    uninterrupted: dict[str, Outcome],
    data: Path,
    tmp_path: Path,
    loader: str,
    point: str,
    count: int,
    checkpoint_minutes: float,
) -> None:
    if loader not in uninterrupted:
        pytest.skip("FFCV is not installed")
    run, asked = tmp_path / "run", config(data, loader)
    died = run_in_a_process(run, asked, die_at=(point, count), checkpoint_minutes=checkpoint_minutes)
    assert died == -signal.SIGKILL
    assert read_run(run).summary is None
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted[loader])
    assert not list(run.rglob("*.tmp"))
    assert 1 <= len(list((run / "checkpoints").iterdir())) <= 2


@pytest.mark.parametrize("loader", LOADERS)
def test_killed_twice_in_one_epoch(uninterrupted: dict[str, Outcome], data: Path, tmp_path: Path, loader: str) -> None:
    if loader not in uninterrupted:
        pytest.skip("FFCV is not installed")
    run, asked, written = (
        tmp_path / "run",
        config(data, loader),
        "when a checkpoint has its name, before the old one is gone",
    )
    # Of steps 1, 2, 3, 3 with the evaluation, and 4: then of step 5.
    assert run_in_a_process(run, asked, die_at=(written, 5), checkpoint_minutes=1e-9) == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True, die_at=(written, 1), checkpoint_minutes=1e-9) == -signal.SIGKILL
    assert run_in_a_process(run, asked, resume=True) == 0
    assert_same(run, uninterrupted[loader])
    summary = read_run(run).summary
    assert summary is not None
    assert summary.resumed_at == [4, 5]
