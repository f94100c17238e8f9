import copy

import pytest
import torch
from torch.nn import functional as F

from cifarfast.augment import normalize
from cifarfast.device import AmpDtype, Device
from cifarfast.loaders.base import Batch
from cifarfast.model import build_model
from cifarfast.randomness import generator
from cifarfast.recipe import Augmentation, Recipe
from cifarfast.step import FiniteGuard, Statistics, TrainStep, evaluate

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
PLAIN = Recipe(
    batch_size=8, dropout=0.0, augmentation=Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
)
CPU = torch.device("cpu")


def device(*, amp_dtype: AmpDtype | None = None, layout: torch.memory_format = torch.channels_last) -> Device:
    return Device(target=CPU, amp_dtype=amp_dtype, memory_format=layout)


def batch(number: int, size: int = 8) -> Batch:
    draws = generator(number, "batch")
    pixels = torch.randint(256, (size, 32, 32, 3), generator=draws).to(torch.uint8)
    return Batch(pixels.permute(0, 3, 1, 2), torch.randint(10, (size,), generator=draws))


def trainer(recipe: Recipe = PLAIN, on: Device | None = None) -> TrainStep:
    on = on or device()
    model = build_model(dropout=recipe.dropout, seed=1).to(memory_format=on.memory_format)
    step = TrainStep(model, recipe, on, mean=MEAN, std=STD, seed=1)
    step.set(lr=1e-3, momentum=0.9)
    return step


def advance(step: TrainStep, steps: int) -> None:
    for number in range(steps):
        step(batch(number, step.recipe.batch_size), augmented=False, epoch=0, number=number, position=number)


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
    model = build_model(dropout=0.0, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, foreach=False)
    images, labels = batch(0)
    logits = model(normalize(images, torch.tensor(MEAN), torch.tensor(STD), torch.float32))
    loss = F.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    assert_alike(first_gradients(step), [p.grad for p in model.parameters() if p.grad is not None])
    score = step.statistics.take()
    assert score.loss == pytest.approx(loss.item(), rel=1e-4)
    assert (score.accuracy, score.images) == ((logits.argmax(1) == labels).float().mean().item(), 8)
    optimizer.step()
    for ours, theirs in zip(step.model.parameters(), model.parameters(), strict=True):
        assert (ours - theirs).abs().mean() < 1e-5  # of a step of 1e-3


def test_a_loader_that_augments_is_only_normalised() -> None:
    recipe = Recipe(batch_size=8, dropout=0.0)
    one, other = trainer(recipe), trainer(PLAIN)
    one(batch(0), augmented=True, epoch=0, number=0, position=0)
    other(batch(0), augmented=False, epoch=0, number=0, position=0)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_compiled_and_eager_agree_and_nothing_is_compiled_twice() -> None:
    recipe = Recipe(batch_size=8)
    eager, compiled = trainer(recipe), trainer(recipe)
    before = copy.deepcopy(compiled.model.state_dict())
    notes: list[str] = []
    seconds = compiled.compile(notes.append)
    assert notes == []
    assert seconds is not None
    assert seconds > 0
    for name, value in compiled.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.compiler.set_stance("fail_on_recompile"):
        gradients = first_gradients(compiled)
        assert_alike(gradients, first_gradients(eager))
        assert compiled.statistics.take().loss == pytest.approx(eager.statistics.take().loss, rel=1e-5)
        advance(compiled, 2)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_non_finite_step_leaves_weights_and_moments_alone(poison: float) -> None:
    step = trainer()
    advance(step, 2)
    step.model.head.bias.data[3] = poison  # makes the loss and every gradient non-finite
    weights = copy.deepcopy(list(step.model.parameters()))
    moments = copy.deepcopy(step.optimizer.state_dict())
    assert step.guard.fatal_step() is None
    step(batch(2), augmented=False, epoch=0, number=2, position=2)
    assert step.guard.fatal_step() == 2
    assert step.guard.skipped_steps() == 1
    for now, then in zip(step.model.parameters(), weights, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)
    after = step.optimizer.state_dict()["state"]
    for index, state in moments["state"].items():
        assert all(torch.equal(after[index][name], state[name]) for name in state)


def test_fp16_skips_what_overflows_and_goes_on() -> None:
    step = trainer(on=device(amp_dtype="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows fp16 at once
    weights = copy.deepcopy(list(step.model.parameters()))
    advance(step, 1)
    assert step.guard.skipped_steps() == 1
    assert step.guard.fatal_step() is None
    assert all(torch.equal(a, b) for a, b in zip(step.model.parameters(), weights, strict=True))
    assert step.scaler.get_scale() < 2.0**40


def judge(guard: FiniteGuard, *losses: float) -> list[float]:
    gradient = [torch.ones(3)]
    return [guard.judge(torch.tensor(loss), gradient, step).item() for step, loss in enumerate(losses)]


def test_the_guard_blocks_everything_after_a_fatal_step() -> None:
    guard = FiniteGuard(CPU, allowed_in_a_row=0)
    assert judge(guard, 1.0, float("nan"), 1.0, float("inf")) == [0, 1, 1, 1]
    assert guard.fatal_step() == 1


def test_the_guard_forgives_streaks_up_to_its_limit() -> None:
    bad = float("inf")
    guard = FiniteGuard(CPU, allowed_in_a_row=2)
    assert judge(guard, 1.0, bad, bad, 1.0, bad, bad) == [0, 1, 1, 0, 1, 1]
    assert guard.fatal_step() is None
    assert guard.skipped_steps() == 4
    guard = FiniteGuard(CPU, allowed_in_a_row=2)
    judge(guard, 1.0, bad, bad, bad, 1.0)
    assert guard.fatal_step() == 3


def test_the_guard_sees_a_bad_gradient_behind_a_good_loss() -> None:
    guard = FiniteGuard(CPU, allowed_in_a_row=0)
    gradients = [torch.ones(3), torch.tensor([1.0, float("nan")])]
    assert guard.judge(torch.tensor(1.0), gradients, 0).item() == 1


def test_statistics_weigh_batches_by_their_size() -> None:
    statistics = Statistics(CPU)
    logits = torch.eye(10)
    statistics.add(logits, torch.arange(10), torch.tensor(1.0))
    statistics.add(logits[:5], torch.zeros(5, dtype=torch.int64), torch.tensor(4.0))
    score = statistics.take()
    assert score.loss == pytest.approx(2.0)
    assert score.accuracy == pytest.approx(11 / 15)
    assert score.images == 15
    statistics.add(logits, torch.arange(10), torch.tensor(3.0))
    assert statistics.take().loss == pytest.approx(3.0)


def test_evaluation_is_exact_and_changes_nothing() -> None:
    model = build_model(dropout=0.5, seed=2)
    state = copy.deepcopy(model.state_dict())
    batches = [batch(0), batch(1), batch(2, size=3)]
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    score = evaluate(model, iter(batches), device(), mean=mean, std=std)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.eval()
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    with torch.no_grad():
        logits = model(normalize(images, mean, std, torch.float32))
    assert score.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert score.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert score.images == 19
