import json
import math
import os
import platform
import random
import signal
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cifarfast
from cifarfast import Recipe, RunConfig, Runtime, Stopped, Sweep, UserError, lr_range_test
from cifarfast.dataset.manifest import read_manifest
from cifarfast.device import open_device
from cifarfast.lr_range import sweep_step
from cifarfast.range_record import read_range
from cifarfast.range_test import LrRange, measure
from cifarfast.setup import feed_of, loader_of
from cifarfast.step import TrainStep
from tests.test_restoring import bits, everything

TINY = Recipe(batch_size=16)
PLAIN = Runtime(device="cpu", loader="resident")
Loader = DataLoader[tuple[torch.Tensor, ...]]
Problem = tuple[nn.Module, torch.optim.Optimizer, Loader]


def problem(*, kind: type[torch.optim.Optimizer] = torch.optim.Adam, lr: float = 1e-4) -> Problem:
    """Two classes that can be learned; shuffled batches, dropout and batch norm."""
    torch.manual_seed(7)
    inputs = torch.randn(320, 6)
    targets = (inputs[:, 0] + inputs[:, 1] * inputs[:, 2] > 0).long()
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    optimizer = kind(model.parameters(), lr=lr)  # type: ignore[call-arg]
    return model, optimizer, loader_over(inputs, targets)


def held_out() -> Loader:
    """Other images, for validation."""
    draws = torch.Generator().manual_seed(8)
    return loader_over(torch.randn(50, 6, generator=draws), torch.randint(2, (50,), generator=draws))


def loader_over(inputs: torch.Tensor, targets: torch.Tensor) -> Loader:
    """Shuffles by a generator of its own, so that the order does not depend on who draws in between."""
    order = torch.Generator().manual_seed(9)
    return DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True, generator=order)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other at every tiny operation cost far more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def nan_from(step: int, base: Callable[..., torch.Tensor] = F.cross_entropy) -> Callable[..., torch.Tensor]:
    """A loss that turns to NaN at a step, counted from 0."""
    calls = iter(range(10**6))
    return lambda outputs, targets: base(outputs, targets) * (math.nan if next(calls) >= step else 1.0)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """torch-lr-finder's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's, about notebooks, as it is imported
        return pytest.importorskip("torch_lr_finder").LRFinder


@pytest.mark.parametrize("mode", ["exponential", "linear"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("validated", [False, True])
def test_equals_torch_lr_finder(theirs: Any, mode: str, kind: type[torch.optim.Optimizer], validated: bool) -> None:
    model, optimizer, loader = problem(kind=kind)
    finder = theirs(model, optimizer, nn.CrossEntropyLoss())
    torch.manual_seed(1)  # of the dropout
    finder.range_test(
        loader,
        held_out() if validated else None,
        end_lr=1.0,
        num_iter=60,
        step_mode={"exponential": "exp", "linear": "linear"}[mode],
    )

    model, optimizer, loader = problem(kind=kind)
    sweep = Sweep(start_lr=1e-4, num_iter=60, mode=mode, smoothing=0.05, divergence=5.0)  # type: ignore[arg-type]
    torch.manual_seed(1)
    ours = lr_range_test(
        model, optimizer, nn.CrossEntropyLoss(), loader, sweep=sweep, validation=held_out() if validated else None
    )
    assert [point.lr for point in ours.points] == pytest.approx(finder.history["lr"], rel=1e-12)
    assert [point.smoothed for point in ours.points] == pytest.approx(finder.history["loss"], abs=1e-6)


def test_suggests_what_torch_lr_finder_suggests(theirs: Any) -> None:
    from matplotlib.figure import Figure

    model, optimizer, loader = problem()
    finder = theirs(model, optimizer, nn.CrossEntropyLoss())
    finder.range_test(loader, end_lr=10.0, num_iter=100)
    _, suggested = finder.plot(skip_start=0, skip_end=0, ax=Figure().subplots())

    rest = iter(finder.history["loss"])
    sweep = Sweep(start_lr=1e-4, end_lr=10.0, num_iter=100, smoothing=1.0, divergence=5.0)
    result = measure(lambda lr: next(rest, math.nan), sweep)
    assert result.suggestions.steepest.lr == pytest.approx(suggested, rel=1e-12)


def test_nan_never_stops_torch_lr_finder_and_stops_us(theirs: Any) -> None:
    model, optimizer, loader = problem()
    finder = theirs(model, optimizer, nan_from(12))
    finder.range_test(loader, end_lr=1.0, num_iter=40)
    assert len(finder.history["loss"]) == 40
    assert all(math.isnan(loss) for loss in finder.history["loss"][12:])

    model, optimizer, loader = problem()
    result = lr_range_test(model, optimizer, nan_from(12), loader, sweep=Sweep(num_iter=40))
    assert (result.stopped, len(result.points)) == ("non-finite", 13)
    assert all(point.smoothed is not None and math.isfinite(point.smoothed) for point in result.points[:-1])


def test_torch_lr_finder_leaves_random_state_scaler_and_modes_changed_and_we_do_not(theirs: Any) -> None:
    def changed(test: Callable[[Problem, torch.amp.GradScaler], object]) -> set[str]:
        model, optimizer, loader = problem()
        model.eval()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
        before = everything(model, optimizer, scaler)
        test((model, optimizer, loader), scaler)
        after = everything(model, optimizer, scaler)
        return {part for part in before if part != "gradients" and before[part] != after[part]}

    def by_them(parts: Problem, scaler: torch.amp.GradScaler) -> None:
        config = {"device_type": "cpu", "dtype": torch.bfloat16}
        model, optimizer, loader = parts
        finder = theirs(
            model, optimizer, nn.CrossEntropyLoss(), amp_backend="torch", amp_config=config, grad_scaler=scaler
        )
        finder.range_test(loader, end_lr=0.1, num_iter=20)
        finder.reset()

    def by_us(parts: Problem, scaler: torch.amp.GradScaler) -> None:
        autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        lr_range_test(*parts[:2], nn.CrossEntropyLoss(), parts[2], autocast=autocast, scaler=scaler)

    assert {"random", "scaler", "modes"} <= changed(by_them)
    assert changed(by_us) == set()


def interrupting(step: int, error: type[BaseException]) -> Callable[..., torch.Tensor]:
    calls = iter(range(10**6))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if next(calls) == step:
            raise error
        return F.cross_entropy(outputs, targets)

    return loss


def test_restored_after_every_ending() -> None:
    model, optimizer, loader = problem()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    before = everything(model, optimizer, scaler)
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            lr_range_test(model, optimizer, interrupting(5, error), loader)
        assert everything(model, optimizer, scaler) == before
    for loss, stopped in ((F.cross_entropy, "end"), (nan_from(9), "non-finite")):
        assert lr_range_test(model, optimizer, loss, loader).stopped == stopped
        assert everything(model, optimizer, scaler) == before


def test_a_frozen_module_stays_frozen_and_eval_mode_is_left_for_the_sweep() -> None:
    model, optimizer, loader = problem()
    seen: list[list[bool]] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append([module.training for module in model])  # type: ignore[attr-defined]
        return F.cross_entropy(outputs, targets)

    model[1].eval()  # type: ignore[index]
    lr_range_test(model, optimizer, loss, loader, sweep=Sweep(num_iter=2))
    model.eval()
    lr_range_test(model, optimizer, loss, loader, sweep=Sweep(num_iter=2))
    assert seen == [[True, False, True, True, True]] * 2 + [[True] * 5] * 2


def test_batches_that_run_out() -> None:
    model, optimizer, loader = problem()
    with pytest.raises(ValueError, match="used up: pass a loader that can be gone through again"):
        lr_range_test(model, optimizer, F.cross_entropy, iter(list(loader)))
    with pytest.raises(ValueError, match="batches are empty"):
        lr_range_test(model, optimizer, F.cross_entropy, [])
    with pytest.raises(ValueError, match="validation batches are empty"):
        lr_range_test(model, optimizer, F.cross_entropy, loader, validation=[])


@pytest.fixture
def step(data: Path) -> TrainStep:
    device, manifest = open_device(PLAIN, print), read_manifest(data)
    model = device.place(cifarfast.build_model(TINY, seed=0))
    return TrainStep(model, TINY, device, mean=manifest.mean, std=manifest.std, seed=0)


def sweep_of(step: TrainStep, data: Path, sweep: Sweep) -> LrRange:
    device, manifest = open_device(PLAIN, print), read_manifest(data)
    loader = loader_of(feed_of(data, manifest, "train", TINY, 32, 0), TINY, PLAIN, device, manifest)
    return sweep_step(step, loader, sweep, device)


def state_of(step: TrainStep) -> dict[str, Any]:
    """As tensors' digests are, short: the network has millions of weights."""
    tensors = {name: hash(tensor.numpy().tobytes()) for name, tensor in step.model.state_dict().items()}
    optimizer = bits({"groups": [{k: v for k, v in g.items() if k != "params"} for g in step.optimizer.param_groups]})
    return {
        "tensors": tensors,
        "modes": [module.training for module in step.model.modules()],
        "optimizer": (optimizer, len(step.optimizer.state)),
        "random": (bits(torch.get_rng_state()), random.getstate()),
        "guard": (step.guard.fatal_step(), step.guard.skipped_steps()),
        "statistics": bits(step.statistics._sums),
    }


def test_the_training_step_is_restored_whether_it_ends_diverges_or_is_interrupted(
    step: TrainStep, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(step)
    assert sweep_of(step, data, Sweep(start_lr=1e-4, num_iter=3, end_lr=0.01)).stopped == "end"
    assert state_of(step) == before

    wild = sweep_of(step, data, Sweep(num_iter=4, start_lr=1e29, end_lr=1e30, divergence=1e300))
    assert (wild.stopped, wild.points[-1].loss) == ("non-finite", None)
    assert state_of(step) == before

    calls, zero_grad = count(), step.optimizer.zero_grad

    def interrupt(**options: bool) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        zero_grad(**options)

    monkeypatch.setattr(step.optimizer, "zero_grad", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep_of(step, data, Sweep(num_iter=3))
    assert state_of(step) == before


def test_the_sweep_trains_as_training_does(step: TrainStep, data: Path) -> None:
    """The recipe's batches, augmentation and dropout; step for step what the training step does by itself."""
    swept = sweep_of(step, data, Sweep(start_lr=1e-4, num_iter=3, end_lr=0.01))
    device, manifest = open_device(PLAIN, print), read_manifest(data)
    loader = loader_of(feed_of(data, manifest, "train", TINY, 32, 0), TINY, PLAIN, device, manifest)
    losses: list[float] = []
    for epoch in (0, 1):  # two batches an epoch
        with loader.epoch(epoch) as batches:
            for number, batch in enumerate(batches):
                step.set(lr=[1e-4, 1e-3, 1e-2, 0.0][len(losses)], momentum=0.85)
                step(batch, augmented=False, epoch=epoch, number=number, position=len(losses))
                losses.append(step.statistics.take().loss)
    assert [point.loss for point in swept.points] == pytest.approx(losses[:3], rel=1e-6)


@pytest.mark.parametrize(("pct_start", "sizes_of_passes"), [(0.0, [24] * 3), (0.75, [32] * 6)])
def test_the_steps_do_what_those_at_the_peak_do(
    pct_start: float, sizes_of_passes: list[int], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what the sweep's own epochs would do, of which there are two: the second with large images and uphill."""
    recipe = replace(
        TINY, network="convnet", width=4, dropout=0.0, epochs=2, pct_start=pct_start, low_resolution=24,
        low_resolution_share=0.5, sharpness_radius=0.1, sharpness_share=0.5,
    )  # fmt: skip
    device, manifest = open_device(PLAIN, print), read_manifest(data)
    model = device.place(cifarfast.build_model(recipe, seed=0))
    step = TrainStep(model, recipe, device, mean=manifest.mean, std=manifest.std, seed=0)
    sizes: list[int] = []
    forward = step.forward

    def seen(images: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(images.shape[-1])
        return forward(images, *rest)

    monkeypatch.setattr(step, "forward", seen)
    sweep_of(step, data, Sweep(start_lr=1e-4, num_iter=3, end_lr=0.01))
    assert sizes == sizes_of_passes


def test_what_a_range_test_leaves(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "range"
    sweep = Sweep(num_iter=2, end_lr=0.01, divergence=1e6)
    config = RunConfig(recipe=replace(TINY, name="mine"), runtime=PLAIN, data=data, seed=5, train_images=32)
    record = cifarfast.recipe_range_test(replace(config, test_images=8), sweep, out=out)
    assert {path.name for path in out.iterdir()} == {".lock", "lr_range.json", "lr_range.png"}
    assert (out / "lr_range.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((out / "lr_range.json").read_text())
    assert (written["schema"], written["seed"], written["recipe"]["name"]) == (1, 5, "mine")
    assert written["result"]["sweep"] == vars(sweep)
    assert [point["lr"] for point in written["result"]["points"]] == [sweep.lr(i) for i in range(2)]
    assert written["result"]["stopped"] == "end"
    assert set(written["result"]["suggestions"]) == {"steepest", "minimum_tenth", "valley"}
    assert written["runtime"]["effective"]["loader"] == "resident"
    assert (written["data"]["train_images"], written["data"]["test_images"]) == (32, 8)
    assert written["fingerprint"]["python"] == platform.python_version()
    assert read_range(out, hint="name another") == record

    judged_by_training = cifarfast.recipe_range_test(config, sweep, out=tmp_path / "other")
    assert judged_by_training.result.points[0].loss != record.result.points[0].loss
    with pytest.raises(UserError, match="already holds a range test"):
        cifarfast.recipe_range_test(config, sweep, out=out)


def test_a_signal_ends_it_after_the_step_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(recipe=TINY, runtime=PLAIN, data=data, train_images=32)
    steps: list[int] = []
    train = TrainStep.__call__

    def signalled(*args: Any, **kwargs: Any) -> None:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        train(*args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        cifarfast.recipe_range_test(config, Sweep(num_iter=20, divergence=1e6), out=tmp_path / "range")
    assert len(steps) < 20
    assert list(tmp_path.iterdir()) == []


def test_the_example_in_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    _, example, _ = str(lr_range_test.__doc__).split("\n\n", 2)
    torch.manual_seed(0)
    exec(
        textwrap.dedent(example),
        {"cifarfast": cifarfast, "torch": torch, "DataLoader": DataLoader, "TensorDataset": TensorDataset},
    )
    assert 1e-6 < float(capsys.readouterr().out) < 1
