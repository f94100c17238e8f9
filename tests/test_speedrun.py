"""The recipe of a speedrun from set-up to export, with a network of a few channels and 12 images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifarfast import RECIPES, ConvNet, Runtime, evaluate_run, export_run, fit, resume
from cifarfast.augment import normalize
from cifarfast.config import RunConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import read_manifest
from cifarfast.device import Device
from cifarfast.metrics import EpochRow
from cifarfast.networks import norm_gelu, tap_products, winograd
from cifarfast.networks.convnet import Stem
from cifarfast.networks.whitening import whitening_filters
from cifarfast.reporting.page import write_report
from cifarfast.runfolder import read_model, read_run
from cifarfast.setup import set_up

RECIPE = replace(
    RECIPES["speedrun-94"], width=4, epochs=2, batch_size=4, hard_share=2 / 3, low_resolution=17,
    low_resolution_share=0.5,
)  # fmt: skip
RUNTIME = Runtime(device="cpu", loader="resident")


class PowerCutError(Exception):
    """Ends a run as a power cut does."""


def train(data: Path, out: Path, *, interrupt_after: int | None = None, checkpoint_minutes: float = 10.0) -> None:
    def on_epoch(row: EpochRow) -> None:
        if row.epoch == interrupt_after:
            raise PowerCutError

    fit(
        RECIPE, RUNTIME, data=data, out=out, seed=3, train_images=12, test_images=10, on_epoch=on_epoch,
        checkpoint_minutes=checkpoint_minutes,
    )  # fmt: skip


def chosen_images(data: Path) -> torch.Tensor:
    """The twelve training images of a run, normalised."""
    manifest, images = read_manifest(data), read_beton(data / "train.beton").images
    chosen = torch.from_numpy(images)[torch.arange(12) * len(images) // 12].permute(0, 3, 1, 2)
    return normalize(chosen, torch.tensor(manifest.mean), torch.tensor(manifest.std), torch.float32)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speedrun") / "run"
    train(data, out)
    return out


# What is taken up: nothing, a checkpoint within the small images, one at their end, one within the large images.
@pytest.mark.parametrize(("epoch", "minutes"), [(1, 10.0), (1, 1e-9), (2, 10.0), (2, 1e-9)])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(
    run: Path, data: Path, tmp_path: Path, epoch: int, minutes: float
) -> None:
    with pytest.raises(PowerCutError):
        train(data, tmp_path / "run", interrupt_after=epoch, checkpoint_minutes=minutes)
    resume(tmp_path / "run")
    expected, found = read_model(run).state_dict(), read_model(tmp_path / "run").state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    learned = [
        [(row.train_loss, row.train_accuracy, row.test_loss, row.test_accuracy, row.lr) for row in read_run(path).rows]
        for path in (run, tmp_path / "run")
    ]
    assert learned[0] == learned[1]


def test_in_bf16_too_where_what_is_pooled_is_winograds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = winograd.conv_max_pool

    def conv_max_pool(x: torch.Tensor, weight: torch.Tensor, *, padding: int = 0) -> torch.Tensor:
        calls.append(len(x))
        return real(x, weight, padding=padding)

    monkeypatch.setattr(winograd, "conv_max_pool", conv_max_pool)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 24)
    monkeypatch.setattr(f"{__name__}.RECIPE", replace(RECIPE, width=12))  # whose third stage has 48 channels
    monkeypatch.setattr(f"{__name__}.RUNTIME", replace(RUNTIME, amp=True, amp_dtype="bf16"))
    train(data, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        train(data, tmp_path / "run", interrupt_after=1, checkpoint_minutes=1e-9)
    resume(tmp_path / "run")
    expected, found = read_model(tmp_path / "whole").state_dict(), read_model(tmp_path / "run").state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert calls


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_numba_is_done_before_the_first_step_and_not_asked_in_fp32(
    data: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    calls: list[str] = []
    for passes in (winograd, norm_gelu, tap_products):
        monkeypatch.setattr(passes, "compile_passes", lambda: calls.append("compiled"))
    runtime = replace(RUNTIME, amp=True, amp_dtype="bf16") if precision == "bf16" else RUNTIME
    set_up(RunConfig(data=data, recipe=RECIPE, runtime=runtime))
    assert calls == (3 * ["compiled"] if precision == "bf16" else [])


def test_the_stem_is_whitened_by_the_training_images_of_the_run_and_stays_so(run: Path, data: Path) -> None:
    stem, model = Stem(), read_model(run)
    stem.whiten(chosen_images(data))
    assert isinstance(model, ConvNet)
    torch.testing.assert_close(model.stem.filters, stem.filters)


def test_the_reference_network_is_whitened_by_the_same(data: Path) -> None:
    recipe = replace(RECIPES["reference"], whitening=True, batch_size=4)
    step = set_up(RunConfig(data=data, recipe=recipe, runtime=RUNTIME, train_images=12)).step
    filters = whitening_filters(chosen_images(data), 3).float()
    torch.testing.assert_close(step.tensors()["model.prep.conv.weight"][:27], filters)


def test_its_augmented_accuracy_is_that_of_the_last_epoch_alone(run: Path) -> None:
    found, rows = evaluate_run(run), read_run(run).rows
    assert [row.tta for row in rows] == ["none", "selective"]
    assert (found.tta, found.accuracy, found.loss) == ("selective", rows[-1].test_accuracy, rows[-1].test_loss)
    assert found.right == found.recorded_right
    plain = evaluate_run(run, tta="none")
    assert (plain.tta, plain.recorded_right) == ("none", None)
    assert plain.loss != found.loss


def test_it_can_be_exported_and_reported(run: Path, data: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "model.pt2")
    program, model, manifest = torch.export.load(tmp_path / "model.pt2").module(), read_model(run), read_manifest(data)
    images = torch.from_numpy(read_beton(data / "test.beton").images[:3]).permute(0, 3, 1, 2)
    inputs = normalize(images, torch.tensor(manifest.mean), torch.tensor(manifest.std), torch.float32)
    torch.testing.assert_close(program(images), model(inputs))
    page = write_report(run).read_text()
    assert "stage3.conv2" in page
    assert "as the network trained on them during the epoch, of the hardest 66.6667 % of them; test" in page
    assert "without test-time augmentation but for the last epoch, where it is selective" in page


def test_every_size_of_image_is_compiled_before_training(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Device, "compile", lambda self, function: function)
    step = set_up(RunConfig(data=data, recipe=RECIPE, runtime=RUNTIME, train_images=12)).step
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    step.model.register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[0].shape[-1]))
    assert step.compile(print) is not None
    assert sorted(sizes) == [17, 32]
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.model.state_dict().items())
