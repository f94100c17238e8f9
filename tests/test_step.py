import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifarfast.augment import augment, draw_batch, normalize
from cifarfast.capture import Graphs
from cifarfast.device import AmpDtype, Device
from cifarfast.errors import NonFiniteError
from cifarfast.loaders.base import Batch
from cifarfast.model import Network, build_model
from cifarfast.networks import norm_gelu
from cifarfast.networks.resnet import ResNet
from cifarfast.randomness import generator
from cifarfast.recipe import RECIPES, Augmentation, Recipe
from cifarfast.schedule import one_cycle
from cifarfast.selection import NEVER_SEEN, Losses
from cifarfast.sharpness import uphill
from cifarfast.step import TrainStep, compiled_part
from tests.tape import Tape
from tests.tiny import build_tiny

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
PLAIN = Recipe(
    batch_size=8, dropout=0.0, augmentation=Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
)
WHITENED = replace(PLAIN, whitening=True)
MIRRORED = replace(WHITENED, mirrored=True)
SPEEDRUN = replace(PLAIN, network="convnet", width=4, optimizer="muon", low_resolution=20, low_resolution_share=0.5)
SMALL_ADAM = replace(SPEEDRUN, optimizer="adam", batch_size=2)
"""For fp16, which takes a CPU a hundred times as long."""
SHARP = replace(SPEEDRUN, low_resolution_share=0.0, sharpness_radius=0.1, sharpness_share=1.0)
CPU = torch.device("cpu")
SCHEDULE = one_cycle(replace(PLAIN, max_lr=1e-3, div_factor=1.0, epochs=1), steps_per_epoch=8)
NAN = math.nan


def device(
    *,
    amp_dtype: AmpDtype | None = None,
    layout: torch.memory_format = torch.channels_last,
    graphs: Graphs | None = None,
) -> Device:
    return Device(target=CPU, amp_dtype=amp_dtype, memory_format=layout, graphs=graphs)


def batch(number: int, size: int = 8) -> Batch:
    draws = generator(number, "batch")
    pixels = torch.randint(256, (size, 32, 32, 3), generator=draws).to(torch.uint8)
    return Batch(pixels.permute(0, 3, 1, 2), torch.randint(10, (size,), generator=draws), np.arange(size))


def trainer(recipe: Recipe = PLAIN, on: Device | None = None, *, seed: int = 1) -> TrainStep:
    on = on or device()
    model = build_model(recipe, seed=seed)
    if recipe.whitening or recipe.network == "convnet":
        model.whiten(torch.randn(8, 3, 32, 32, generator=generator(0, "whiten")))
    model.to(memory_format=on.memory_format)
    step = TrainStep(model, recipe, on, mean=MEAN, std=STD, seed=1)
    step.set(lr=1e-3, momentum=0.9)
    return step


def resnet(step: TrainStep) -> ResNet:
    assert isinstance(step.model, ResNet)
    return step.model


def take(step: TrainStep, number: int) -> None:
    step(batch(number, step.recipe.batch_size), augmented=False, epoch=0, number=number, position=number)


def advance(step: TrainStep, steps: int) -> None:
    for number in range(steps):
        take(step, number)


def first_gradients(step: TrainStep) -> list[torch.Tensor]:
    """The gradients of the first step; later ones differ, because Adam magnifies rounding errors of tiny gradients."""
    kept: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not kept:
            kept.extend(p.grad.clone() for p in optimizer.param_groups[0]["params"])

    step.optimizer.register_step_pre_hook(keep)
    advance(step, 1)
    return kept


def assert_alike(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        # Rounding decides which of two nearly equal pixels a pool lets through, and that shows in a batch of 8.
        assert torch.linalg.vector_norm(one - other) < 1e-2 * torch.linalg.vector_norm(other)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_step_is_that_of_a_plain_loop(layout: torch.memory_format) -> None:
    step = trainer(on=device(layout=layout))
    model = build_model(Recipe(dropout=0.0), seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, foreach=False)
    images, labels, _ = batch(0)
    logits = model(normalize(images, torch.tensor(MEAN), torch.tensor(STD), torch.float32))
    loss = F.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    assert_alike(first_gradients(step), [p.grad for p in model.parameters() if p.grad is not None])
    score = step.statistics.take()
    assert score.loss == pytest.approx(loss.item(), rel=1e-4)
    assert (score.accuracy, score.images) == ((logits.argmax(1) == labels).float().mean().item(), 8)
    optimizer.step()
    for ours, theirs in zip(step.model.parameters(), model.parameters(), strict=True):
        # Of a step of 1e-3 in the direction of the gradient's sign, which rounding may turn for one of 64.
        assert (ours - theirs).abs().mean() < 4e-5


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_ghost_batches_are_batches_of_their_own_whose_gradients_are_added(layout: torch.memory_format) -> None:
    step = trainer(replace(PLAIN, ghost_batch=4), device(layout=layout))
    model = build_model(PLAIN, seed=1)
    images, labels, _ = batch(0)
    normal = normalize(images, torch.tensor(MEAN), torch.tensor(STD), torch.float32)
    logits = torch.cat([model(normal[:4]), model(normal[4:])])
    loss = F.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    gradients = first_gradients(step)
    assert_alike(gradients, [p.grad for p in model.parameters() if p.grad is not None])
    together = torch.cat([(a - b).flatten() for a, b in zip(gradients, first_gradients(trainer()), strict=True)])
    assert torch.linalg.vector_norm(together) > 0.1 * torch.cat([g.flatten() for g in gradients]).norm()
    score = step.statistics.take()
    assert score.loss == pytest.approx(loss.item(), rel=1e-4)
    assert (score.accuracy, score.images) == ((logits.argmax(1) == labels).float().mean().item(), 8)


def test_running_statistics_of_ghost_batches_forget_as_much_a_step() -> None:
    steps = [trainer(recipe) for recipe in (PLAIN, replace(PLAIN, ghost_batch=2))]
    for step in steps:
        resnet(step).get_buffer("prep.norm.running_mean").fill_(1e6)
        take(step, 0)
    for step in steps:
        assert resnet(step).get_buffer("prep.norm.running_mean").tolist() == pytest.approx([0.9e6] * 64)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_sharp_step_takes_the_gradient_of_each_ghost_batch_uphill_and_all_else_where_it_is(parts: int) -> None:
    ordinary, radius = replace(PLAIN, ghost_batch=8 // parts), 0.1
    sharp = trainer(replace(ordinary, sharpness_radius=radius, sharpness_share=1.0))
    below, above = trainer(ordinary), trainer(ordinary)
    images, _ = below.inputs(batch(0), augmented=False, epoch=0, number=0)
    losses, right = [], 0
    for part, labels in zip(images.chunk(parts), batch(0).labels.chunk(parts), strict=True):
        loss, logits = below.forward(part, labels, None)
        losses.append(loss.item())
        right += int((logits.argmax(1) == labels).sum())
        with uphill(below.model, loss, radius):
            above.model.load_state_dict(below.model.state_dict())
        torch.autograd.backward(above.forward(part, labels, None)[0] / parts)
    found = first_gradients(sharp)
    expected = [parameter.grad for parameter in above.model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], first_gradients(trainer(ordinary))[0])
    for buffer, kept in zip(sharp.model.buffers(), below.model.buffers(), strict=True):
        assert torch.equal(buffer, kept)
    score = sharp.statistics.take()
    assert score.loss == pytest.approx(np.mean(losses))
    assert score.accuracy == right / 8


def test_only_the_last_epochs_are_sharp() -> None:
    recipe = replace(SHARP, epochs=4, sharpness_share=0.5)
    for epoch, alike in ((1, True), (2, False)):
        sharp, plain = (trainer(each) for each in (recipe, replace(recipe, sharpness_radius=0.0)))
        for step in (sharp, plain):
            step(batch(0), augmented=False, epoch=epoch, number=0, position=0)
        assert equal(carried_on(sharp), carried_on(plain)) == alike


def test_dropout_masks_are_those_of_the_whole_batch() -> None:
    recipe = replace(PLAIN, dropout=0.5, ghost_batch=4)
    step, seen = trainer(recipe), []
    forward = step.forward

    def record(
        images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert masks is not None
        seen.append(masks)
        return forward(images, labels, masks)

    step.forward = record  # type: ignore[method-assign]
    take(step, 0)
    _, masks = trainer(recipe).inputs(batch(0), augmented=False, epoch=0, number=0)
    assert masks is not None
    for parts, whole in zip(zip(*seen, strict=True), masks, strict=True):
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("rate", [0.001, 0.07])
def test_even_the_smallest_dropout_is_a_function_of_the_seed(rate: float) -> None:
    recipe, gradients = replace(PLAIN, dropout=rate), []
    for noise in (0, 1):
        torch.manual_seed(noise)
        gradients.append(first_gradients(trainer(recipe)))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_loader_that_augments_is_only_normalised() -> None:
    recipe = Recipe(batch_size=8, dropout=0.0)
    one, other = trainer(recipe), trainer(PLAIN)
    one(batch(0), augmented=True, epoch=0, number=0, position=0)
    other(batch(0), augmented=False, epoch=0, number=0, position=0)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_images_of_the_first_epochs_are_small(layout: torch.memory_format) -> None:
    recipe = replace(SPEEDRUN, augmentation=Augmentation(alternate_flip=True), epochs=2)
    step = trainer(recipe, device(layout=layout))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    for epoch, size in ((0, 20), (1, 32)):
        images, masks = step.inputs(batch(0), augmented=False, epoch=epoch, number=3)
        assert masks is None
        assert images.is_contiguous(memory_format=layout)
        draws = draw_batch(recipe.augmentation, batch(0).indices, seed=1, epoch=epoch, number=3)
        whole = augment(batch(0).images, draws, mean, std, recipe.augmentation, torch.float32)
        expected = F.interpolate(whole, size=(size, size), mode="bilinear", antialias=True) if size < 32 else whole
        assert torch.equal(images, expected)
        already, _ = step.inputs(batch(0), augmented=True, epoch=epoch, number=3)
        assert already.shape == (8, 3, size, size)


def poison(step: TrainStep, where: str) -> Callable[[], None]:
    """Make the steps to come non-finite; the function returned undoes that."""
    if where == "gradient":
        name = "layer2.conv.weight" if isinstance(step.model, ResNet) else "stage2.conv1.weight"
        parameter = step.model.get_parameter(name)
        handle = parameter.register_post_accumulate_grad_hook(spoil)  # type: ignore[no-untyped-call]
        return lambda: handle.remove()
    forward, std = step._forward, step.std

    def spoiled(
        images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, logits = forward(images, labels, masks)
        return loss + NAN, logits

    if where == "loss":
        step._forward = spoiled
    else:
        step.std = torch.zeros(3)

    def cure() -> None:
        step._forward, step.std = forward, std

    return cure


def spoil(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad[3, 0] = NAN


def overflow(norm: nn.Module, *_: object) -> None:
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var.data.fill_(math.inf)  # unseen by autograd, which keeps it


def carried_on(step: TrainStep) -> dict[str, torch.Tensor]:
    """What no bad step may change."""
    tensors = {name: tensor.clone() for name, tensor in step.tensors().items()}
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "optimizer."))}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


NETWORKS = {"reference": PLAIN, "mirrored": MIRRORED, "speedrun": SPEEDRUN, "sharp": SHARP}


@pytest.mark.parametrize(
    ("precision", "recipe"),
    [
        *(pytest.param(dtype, NETWORKS[name], id=f"{dtype}-{name}") for dtype in (None, "bf16") for name in NETWORKS),
        pytest.param("fp16", SMALL_ADAM, id="fp16"),
        pytest.param("fp16", replace(SHARP, optimizer="adam"), id="fp16-sharp"),
    ],
)
def test_a_non_finite_step_changes_nothing(precision: AmpDtype | None, recipe: Recipe) -> None:
    step = trainer(replace(recipe, batch_size=2), device(amp_dtype=precision))
    if precision == "fp16":
        step.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    take(step, 0)
    assert step.guard.skipped_steps() == 0
    saved, scaler = {name: tensor.clone() for name, tensor in step.tensors().items()}, step.scaler.state_dict()
    before = carried_on(step)
    for where in ("loss", "gradient", "activations"):
        step.load(saved, scaler)
        cure = poison(step, where)
        take(step, 1)
        cure()
        assert equal(carried_on(step), before), where
        assert step.guard.skipped_steps() == 1
        if precision == "fp16":
            step.check(SCHEDULE)
        else:
            words = r"^training diverged at step 1 \(epoch 1, learning rate 0.001\): loss"
            with pytest.raises(NonFiniteError, match=words):
                step.check(SCHEDULE)
    take(step, 2)
    after = carried_on(step)
    assert equal(after, before) == (precision != "fp16")
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert math.isfinite(step.statistics.take().loss)


def test_the_message_names_the_layer() -> None:
    step = trainer(replace(PLAIN, batch_size=2))
    poison(step, "gradient")
    take(step, 0)
    with pytest.raises(NonFiniteError) as raised:
        step.check(SCHEDULE)
    assert re.fullmatch(
        r"training diverged at step 0 \(epoch 1, learning rate 0.001\): loss [\d.]+, "
        r"largest gradient nan in layer2.conv.weight, largest weight [\d.]+ in \S+weight, "
        r"largest running statistic [\d.]+ in \S+var; "
        r"that step did not touch the weights: try a lower --max-lr, or --no-amp",
        str(raised.value),
    )


def test_a_running_statistic_that_overflows_is_seen_although_loss_and_gradients_are_finite() -> None:
    step = trainer(replace(PLAIN, batch_size=2))
    resnet(step).prep.norm.register_forward_hook(overflow)
    before = carried_on(step)
    take(step, 0)
    assert math.isfinite(step.statistics.take().loss)
    model = {name: tensor for name, tensor in carried_on(step).items() if name.startswith("model.")}
    assert equal(model, before)
    with pytest.raises(NonFiniteError, match=r"largest running statistic inf in prep.norm.running_var;"):
        step.check(SCHEDULE)


def test_weights_and_moments_stay_finite_at_any_learning_rate() -> None:
    step = trainer(replace(PLAIN, batch_size=2))
    step.set(lr=1e30, momentum=0.9)
    advance(step, 4)
    assert step.guard.fatal_step() is not None
    assert all(torch.isfinite(tensor).all() for tensor in carried_on(step).values())


def test_fp16_skips_what_overflows_and_goes_on() -> None:
    step = trainer(SMALL_ADAM, device(amp_dtype="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows fp16 at once
    weights = copy.deepcopy(list(step.model.parameters()))
    advance(step, 1)
    assert step.guard.skipped_steps() == 1
    assert step.guard.fatal_step() is None
    assert all(torch.equal(a, b) for a, b in zip(step.model.parameters(), weights, strict=True))
    assert step.scaler.get_scale() < 2.0**40


def test_a_streak_of_fp16_skips_ends_the_run_and_changes_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarfast.step.MAX_FP16_SKIPS_IN_A_ROW", 2)
    step = trainer(SMALL_ADAM, device(amp_dtype="fp16"))
    cure = poison(step, "gradient")
    advance(step, 2)
    step.check(SCHEDULE)
    take(step, 2)
    cure()
    with pytest.raises(NonFiniteError, match="at step 2 "):
        step.check(SCHEDULE)
    before = carried_on(step)
    take(step, 3)
    assert equal(carried_on(step), before)


EXECUTIONS = [
    (None, torch.channels_last),
    (None, torch.contiguous_format),
    ("bf16", torch.channels_last),
    ("bf16", torch.contiguous_format),
    ("fp16", torch.channels_last),
]


@pytest.mark.parametrize(("precision", "layout"), EXECUTIONS)
def test_what_is_loaded_trains_on_as_if_nothing_had_happened(
    precision: AmpDtype | None, layout: torch.memory_format
) -> None:
    def fresh(seed: int) -> TrainStep:
        recipe = SMALL_ADAM if precision == "fp16" else Recipe(batch_size=2)
        step = trainer(recipe, device(amp_dtype=precision, layout=layout), seed=seed)
        if precision == "fp16":  # a skip first, and a rise after the state is taken
            step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=2.0**-20, growth_interval=2)
        return step

    step = fresh(seed=1)
    advance(step, 2)
    # As a file would hold them: contiguous, and the scaler's numbers without their types.
    saved = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in step.tensors().items()}
    scaler = {name: float(value) for name, value in step.scaler.state_dict().items()}
    other = fresh(seed=2)
    other.load(saved, scaler)
    assert other.scaler.state_dict() == step.scaler.state_dict()
    for name, tensor in other.tensors().items():
        assert torch.equal(tensor, saved[name]), name
        assert tensor.stride() == step.tensors()[name].stride()
    for one in (step, other):
        take(one, 2)
    assert equal(other.tensors(), step.tensors())
    assert other.scaler.state_dict() == step.scaler.state_dict()
    assert not torch.equal(step.tensors()["model.head.weight"], saved["model.head.weight"])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_whitened_filters_stay_and_are_loaded_like_all_else(optimizer: Literal["adam", "muon"]) -> None:
    recipe = replace(WHITENED, optimizer=optimizer)
    step, other = trainer(recipe), trainer(recipe, seed=2)
    filters = resnet(step).prep.conv.weight.clone()
    advance(step, 2)
    saved = {name: tensor.clone() for name, tensor in step.tensors().items()}
    assert torch.equal(saved["model.prep.conv.weight"], filters)
    assert not any(name.startswith("optimizer.prep.conv") for name in saved)
    other.load(saved, {})
    for one in (step, other):
        take(one, 2)
    assert equal(other.tensors(), step.tensors())
    assert not torch.equal(step.tensors()["model.layer1.conv.weight"], saved["model.layer1.conv.weight"])


def test_an_untrained_state_takes_the_moments_away() -> None:
    step, other = trainer(), trainer()
    saved = {name: tensor.clone() for name, tensor in step.tensors().items()}
    take(other, 0)
    other.load(saved, {})
    assert equal(other.tensors(), saved)
    for one in (step, other):
        take(one, 0)
    assert equal(other.tensors(), step.tensors())


def test_a_state_that_is_not_its_own_is_refused_and_changes_nothing() -> None:
    step = trainer(replace(PLAIN, batch_size=2), device(amp_dtype="fp16"))
    take(step, 0)
    saved = {name: tensor.clone() for name, tensor in step.tensors().items()}
    scaler = step.scaler.state_dict()
    name = "optimizer.head.weight.exp_avg"
    without = {key: value for key, value in saved.items() if key != name}
    for tensors, words in (
        (without, "exp_avg' is missing"),
        ({}, "is missing"),
        ({**saved, "more\nlines": torch.ones(1)}, r"'more\\nlines' is unknown"),
        ({**saved, name: saved[name].T}, r"exp_avg is \[512, 10\] torch.float32"),
        ({**saved, name: saved[name].half()}, r"exp_avg is \[10, 512\] torch.float16"),
        ({**saved, name: saved[name] / 0}, "exp_avg is not finite"),
    ):
        with pytest.raises(ValueError, match=f"^[^\n]*{words}$"):
            step.load({key: value + 1 if value is saved.get(key) else value for key, value in tensors.items()}, scaler)
    for other in ({}, {**scaler, "scale": -1.0}, {**scaler, "scale": NAN}, {**scaler, "growth_interval": 3}):
        with pytest.raises(ValueError, match="loss scaler's state is not of this one"):
            step.load({key: value + 1 for key, value in saved.items()}, other)
    assert equal(step.tensors(), saved)
    assert step.scaler.state_dict() == scaler


def tiny_run(step: TrainStep) -> dict[str, torch.Tensor]:
    """All that three steps leave behind."""
    step.set(lr=1e-3, momentum=0.9)
    advance(step, 3)
    return {name: tensor.clone() for name, tensor in step.tensors().items()}


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_that_begins_again_is_a_new_one(compiled: bool) -> None:
    first = replace(PLAIN, dropout=0.5)
    second = replace(first, name="another", weight_decay=0.1, epochs=3, max_lr=0.1)

    def new(recipe: Recipe, seed: int) -> TrainStep:
        step = TrainStep(build_tiny(Recipe(), seed=seed), recipe, device(), mean=MEAN, std=STD, seed=seed)
        assert not compiled or step.compile(pytest.fail) is not None
        return step

    step, there = new(first, 1), new(second, 2)
    assert (step.compiled, there.compiled) == (compiled, compiled)
    one, other = tiny_run(step), tiny_run(there)
    assert not torch.equal(one["model.conv.weight"], other["model.conv.weight"])
    with torch.no_grad():
        step.model.head.weight[0, 0] = NAN
    take(step, 3)
    assert step.guard.fatal_step() == 3
    with torch._dynamo.config.patch(error_on_recompile=True):
        step.reset(build_tiny(Recipe(), seed=2), second, seed=2)
        assert step.compiled == compiled
        assert "optimizer.conv.weight.exp_avg" not in step.tensors()
        again = tiny_run(step)
        step.reset(build_tiny(Recipe(), seed=1), first, seed=1)
        back = tiny_run(step)
    for expected, found in ((other, again), (one, back)):
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def state(step: TrainStep) -> dict[str, torch.Tensor]:
    """All that a step carries on, its loss scale too."""
    scaling = {name: torch.tensor(value) for name, value in step.scaler.state_dict().items()}
    return {name: tensor.clone() for name, tensor in step.tensors().items()} | scaling


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    unlike = [
        name for name, tensor in one.items() if not torch.equal(tensor.nan_to_num(7.0), other[name].nan_to_num(7.0))
    ]
    assert not unlike


@pytest.mark.parametrize("recipe", [MIRRORED, replace(MIRRORED, optimizer="muon", dropout=0.1)], ids=["adam", "muon"])
def test_a_mirrored_network_stays_its_own_mirror_image(recipe: Recipe) -> None:
    step = trainer(recipe, device(amp_dtype="bf16"))
    model, before = resnet(step), {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    step.set(lr=0.02, momentum=0.6)
    advance(step, 3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(before[name], tensor) == (name == "prep.conv.weight"), name
            torch.testing.assert_close(
                model.mirror_image(name, tensor), tensor, rtol=0, atol=1e-6 if name == "prep.conv.weight" else 0
            )
    images = torch.randn(4, 3, 32, 32, generator=generator(0, "images"))
    with torch.no_grad():
        answers = model.eval()(images)
        torch.testing.assert_close(model(images.flip(3)), answers, rtol=1e-4, atol=1e-4)
    assert answers.std(0).max() > 0.01


def steps_of(step: TrainStep, poisoned: int | None = None) -> Iterator[dict[str, torch.Tensor]]:
    """The state after each of eleven steps, each with rates, image size and number of its own."""
    for number in range(11):
        step.set(lr=1e-3 * (number + 1), momentum=0.9 - 0.05 * number)
        images, labels, indices = batch(number, step.recipe.batch_size)
        if number == poisoned:
            with torch.no_grad():
                next(step.model.parameters()).view(-1)[0] = NAN
        step(
            Batch(images, labels, indices + number),
            augmented=number % 4 == 3,
            epoch=number % 2,
            number=number,
            position=number,
        )
        yield state(step)


CAPTURED: dict[str, tuple[Recipe, AmpDtype | None, int | None]] = {
    "adam": (replace(PLAIN, batch_size=2, dropout=0.3), None, None),
    "muon": (replace(SPEEDRUN, batch_size=2, hard_share=0.5, epochs=2), "bf16", None),
    "sharp": (replace(SHARP, batch_size=2, sharpness_share=0.5, epochs=2), "bf16", None),
    "ghost batches": (replace(WHITENED, batch_size=4, ghost_batch=2), None, None),
    "mirrored": (replace(MIRRORED, batch_size=2, optimizer="muon"), None, None),
    "fp16": (replace(PLAIN, batch_size=2), "fp16", None),
    "divergence": (replace(PLAIN, batch_size=2), None, 9),
    "divergence of muon": (replace(SPEEDRUN, batch_size=2), None, 9),
    "divergence uphill": (replace(SHARP, batch_size=2), None, 9),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_steps_are_those_that_are_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of the tape, as of a graph: whatever changes from step to step must be in a tensor that stays where it is."""
    monkeypatch.setattr(norm_gelu, "_suits", lambda *_: False)  # the tape, as a graph, has torch's operations alone
    recipe, precision, poisoned = CAPTURED[name]
    build: Callable[..., Network] = build_tiny if precision == "fp16" else build_model  # which a CPU emulates
    plain, captured = (
        TrainStep(
            build(recipe, seed=1), recipe, device(amp_dtype=precision, graphs=graphs), mean=MEAN, std=STD, seed=1,
            images=20,
        )
        for graphs in (None, Tape())
    )  # fmt: skip
    if precision == "fp16":
        for step in (plain, captured):  # overflows for the first steps, and grows again
            step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=3)
    before = state(captured)
    assert captured.capture(augmented=False) is not None
    fresh = state(captured)
    assert_same({name: fresh[name] for name in before}, before)
    assert not any(fresh[name].any() for name in fresh.keys() - before.keys())
    for one, other in zip(steps_of(plain, poisoned), steps_of(captured, poisoned), strict=True):
        assert_same(one, other)
    assert plain.guard.fatal_step() == captured.guard.fatal_step() == poisoned
    assert plain.guard.skipped_steps() == captured.guard.skipped_steps()


def test_without_graphs_nothing_is_captured() -> None:
    step = trainer(replace(PLAIN, batch_size=2))
    before = state(step)
    assert step.capture(augmented=False) is None
    assert_same(state(step), before)


def test_graphs_are_forgotten_with_the_tensors_that_they_know() -> None:
    recipe = replace(SPEEDRUN, batch_size=2)
    plain, captured = (trainer(recipe, device(graphs=graphs)) for graphs in (None, Tape()))
    other = build_model(recipe, seed=2)
    for step in (plain, captured):
        advance(step, 4)
        saved, scaler = copy.deepcopy(step.tensors()), step.scaler.state_dict()
        advance(step, 1)
        step.load(saved, scaler)
        advance(step, 4)
    assert_same(state(captured), state(plain))
    for step in (plain, captured):
        step.reset(other, replace(recipe, optimizer="adam", weight_decay=0.01), seed=2)
        advance(step, 4)
    assert_same(state(captured), state(plain))


def hard_trainer(*, share: float = 0.5) -> TrainStep:
    recipe = replace(PLAIN, hard_share=share, label_smoothing=0.1)
    step = TrainStep(build_tiny(Recipe(), seed=1), recipe, device(), mean=MEAN, std=STD, seed=1, images=20)
    step.set(lr=1e-3, momentum=0.9)
    return step


def ranking(step: TrainStep, *, new: bool) -> Losses:
    losses = step.ranking(new=new)
    assert losses is not None
    return losses


def test_a_step_keeps_the_loss_of_each_of_its_images() -> None:
    step = hard_trainer()
    ranking(step, new=True)
    images, labels, _ = batch(0)
    places = np.array([3, 19, 0, 7, 8, 5, 12, 1])
    inputs, _ = step.inputs(Batch(images, labels, places), augmented=False, epoch=0, number=0)
    _, logits = step.forward(inputs, labels, None)
    target = 0.9 * F.one_hot(labels, 10) + 0.01
    expected = -(target * logits.log_softmax(1)).sum(1)
    step(Batch(images, labels, places), augmented=False, epoch=0, number=0, position=0)
    assert ranking(step, new=False).tolist() == [NEVER_SEEN] * 20
    kept = ranking(step, new=True)
    torch.testing.assert_close(torch.from_numpy(kept)[places], expected.detach())
    assert (kept == np.float32(NEVER_SEEN)).sum() == 12


def test_a_step_that_diverges_keeps_no_losses() -> None:
    step = hard_trainer()
    with torch.no_grad():
        step.model.head.weight[0, 0] = NAN
    take(step, 0)
    assert step.guard.fatal_step() == 0
    assert (ranking(step, new=True) == np.float32(NEVER_SEEN)).all()


def test_losses_are_kept_only_where_an_epoch_takes_a_share() -> None:
    step = hard_trainer(share=1.0)
    take(step, 0)
    assert step.ranking(new=True) is None
    assert not [name for name in step.tensors() if name.startswith("losses.")]
    step.reset(build_tiny(Recipe(), seed=1), replace(step.recipe, hard_share=0.5), seed=1)
    assert ranking(step, new=True).shape == (20,)


def test_what_is_compiled_is_all_but_schedule_and_optimizer() -> None:
    usual = Recipe()
    free = replace(usual, name="mine", target_accuracy=0.5, epochs=3, max_lr=1.0, anneal="linear", weight_decay=0.1)
    free = replace(free, hard_share=0.5, sharpness_radius=0.1, sharpness_share=1.0)
    assert compiled_part(free) == compiled_part(usual)
    holes = replace(usual.augmentation, cutout_size=4)
    changes: list[dict[str, Any]] = [
        {"batch_size": 8}, {"ghost_batch": 64}, {"dropout": 0.0}, {"label_smoothing": 0.1}, {"augmentation": holes},
    ]  # fmt: skip
    for change in changes:
        assert compiled_part(replace(free, **change)) != compiled_part(usual)
        assert compiled_part(replace(free, **change)) == compiled_part(replace(usual, **change))


def test_of_small_images_first_the_number_of_epochs_decides_what_is_compiled() -> None:
    speedrun = RECIPES["speedrun-91"]
    assert compiled_part(replace(speedrun, epochs=1)) != compiled_part(speedrun)
    assert compiled_part(replace(speedrun, epochs=1, low_resolution_share=0.0)) == compiled_part(
        replace(speedrun, low_resolution_share=0.0)
    )
    assert compiled_part(replace(speedrun, max_lr=1.0)) == compiled_part(speedrun)
