from dataclasses import FrozenInstanceError, replace

import pytest

from cifarfast.door import named_recipe
from cifarfast.recipe import RECIPES, Augmentation, Recipe
from cifarfast.schedule import one_cycle


def test_the_reference_is_the_published_one() -> None:
    reference = RECIPES["reference"]
    assert (reference.batch_size, reference.epochs, reference.target_accuracy) == (512, 20, 0.9142)
    assert (reference.max_lr, reference.weight_decay, reference.dropout) == (0.017, 1e-4, 0.07)
    assert reference.pct_start * reference.epochs == 5
    assert reference.augmentation == Augmentation(
        crop_padding=2, padding_mode="reflect", flip_probability=0.5, cutout_size=8, cutout_probability=0.5
    )


def test_the_default_is_the_reference_with_a_rate_that_ends_near_zero() -> None:
    default = named_recipe([])
    assert replace(default, name="reference", final_div_factor=1.0) == RECIPES["reference"]
    last = one_cycle(default, 97).lr(20 * 97 - 1)
    assert last == pytest.approx(0.017 / 10 / 1000)
    assert last < one_cycle(RECIPES["reference"], 97).lr(20 * 97 - 1) / 900


def test_the_tuned_reference_keeps_network_batch_and_length() -> None:
    tuned, reference = RECIPES["reference-tuned"], RECIPES["reference"]
    assert (tuned.network, tuned.batch_size, tuned.epochs) == ("resnet", reference.batch_size, reference.epochs)
    assert (tuned.target_accuracy, tuned.tta) == (0.945, "none")
    schedule = one_cycle(tuned, 97)
    assert (schedule.lr(0), schedule.lr(20 * 97 - 1)) == pytest.approx((tuned.max_lr, tuned.max_lr / 1000), rel=0.01)


def test_a_recipe_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["reference"].epochs = 3  # type: ignore[misc]
    assert replace(RECIPES["reference"], epochs=3) == Recipe(epochs=3)
    assert all(name == recipe.name for name, recipe in RECIPES.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_accuracy", 91.42), ("epochs", 0), ("batch_size", 1), ("batch_size", -512), ("max_lr", 0.0),
        ("max_lr", float("nan")), ("max_lr", float("inf")), ("div_factor", -1.0), ("final_div_factor", 0.0),
        ("pct_start", 1.5), ("anneal", "cubic"), ("base_momentum", 1.0), ("max_momentum", -0.1),
        ("weight_decay", -1e-4), ("label_smoothing", 1.0), ("dropout", 1.0), ("dropout", float("nan")),
        ("tta", "twice"), ("network", "vgg"), ("width", 0), ("width", 513), ("low_resolution", 16),
        ("hard_share", 0.0), ("hard_share", 1.1), ("low_resolution", 33),
        ("low_resolution_share", -0.1), ("low_resolution_share", 1.5),
        ("low_resolution_share", float("nan")), ("optimizer", "sgd"), ("head_lr", 0.0),
        ("head_lr", float("inf")), ("bias_lr", -1.0), ("sharpness_radius", -0.1),
        ("sharpness_radius", float("inf")), ("sharpness_share", 1.5), ("sharpness_share", float("nan")),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .* not {value!r}"):
        Recipe(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_padding", -1), ("crop_padding", 32), ("padding_mode", "edge"), ("flip_probability", 1.1),
        ("cutout_size", 33), ("cutout_probability", -0.5),
    ],
)  # fmt: skip
def test_a_wrong_augmentation_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .* not {value!r}"):
        Augmentation(**{field: value})  # type: ignore[arg-type]


def test_what_a_network_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^dropout must be 0 for convnet, which has none, not 0.07$"):
        Recipe(network="convnet")
    with pytest.raises(ValueError, match=r"^low_resolution_share must be 0 for resnet, [^\n]* not 0.5$"):
        Recipe(low_resolution_share=0.5)
    with pytest.raises(ValueError, match=r"^squeeze_excitation must be false for resnet, which has none$"):
        Recipe(squeeze_excitation=True)
    with pytest.raises(ValueError, match=r"^mirrored must be false for convnet, [^\n]*$"):
        Recipe(network="convnet", dropout=0.0, mirrored=True)


@pytest.mark.parametrize(
    ("batch_size", "ghost_batch", "parts"),
    [(512, 0, 1), (512, 64, 8), (500, 125, 4), (8, 8, 1), (8, 64, 1), (7, 64, 1)],
)
def test_a_batch_has_as_many_parts_as_ghost_batches_fit(batch_size: int, ghost_batch: int, parts: int) -> None:
    assert Recipe(batch_size=batch_size, ghost_batch=ghost_batch).ghost_batches == parts


def test_ghost_batches_that_do_not_fill_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^ghost_batch must divide batch_size \(500\), not 64$"):
        Recipe(batch_size=500, ghost_batch=64)
    with pytest.raises(ValueError, match=r"^ghost_batch must be at least 2, not 1$"):
        Recipe(ghost_batch=1)


def test_the_first_layer_of_convnet_is_always_whitened_and_its_scales_fixed() -> None:
    assert Recipe(network="convnet", dropout=0.0).whitening
    assert not Recipe().whitening
    assert Recipe().norm_scale
    assert not Recipe(network="convnet", dropout=0.0).norm_scale
    assert Recipe(whitening=True).whitening


@pytest.mark.parametrize(
    ("share", "epochs", "small"),
    [(0.0, 4, 0), (0.5, 4, 2), (0.5, 7, 4), (0.3, 4, 1), (1.0, 3, 3), (0.1, 4, 0), (0.9, 1, 1)],
)
def test_the_images_of_the_first_epochs_are_small(share: float, epochs: int, small: int) -> None:
    recipe = Recipe(network="convnet", dropout=0.0, low_resolution=20, low_resolution_share=share, epochs=epochs)
    assert [recipe.work(epoch).size for epoch in range(epochs)] == [20] * small + [32] * (epochs - small)


@pytest.mark.parametrize(
    ("share", "epochs", "sharp"), [(0.0, 4, 0), (0.25, 20, 5), (0.3, 20, 6), (0.3, 4, 1), (1.0, 3, 3), (0.1, 4, 0)]
)
def test_the_gradients_of_the_last_epochs_are_taken_uphill(share: float, epochs: int, sharp: int) -> None:
    recipe = Recipe(sharpness_radius=0.2, sharpness_share=share, epochs=epochs)
    radii = [recipe.work(epoch).sharpness_radius for epoch in range(epochs)]
    assert radii == [0.0] * (epochs - sharp) + [0.2] * sharp
    assert Recipe().work(19).sharpness_radius == 0.0


@pytest.mark.parametrize(("name", "target"), [("speedrun-91", 0.9142), ("speedrun-94", 0.94)])
def test_a_speedrun_is_found_by_its_name_and_falls_from_its_peak_to_nothing(name: str, target: float) -> None:
    recipe = named_recipe(["--recipe", name])
    assert recipe == RECIPES[name]
    assert (recipe.network, recipe.optimizer, recipe.target_accuracy) == ("convnet", "muon", target)
    schedule = one_cycle(recipe, steps_per_epoch=50_000 // recipe.batch_size)
    rates = [schedule.lr(step) for step in range(schedule.steps)]
    assert rates[0] == pytest.approx(recipe.max_lr, rel=0.05)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * recipe.max_lr
