from dataclasses import FrozenInstanceError, replace

import pytest

from cifarfast.recipe import RECIPES, Augmentation, Recipe


def test_the_reference_is_the_published_one() -> None:
    reference = RECIPES["reference"]
    assert (reference.batch_size, reference.epochs, reference.target_accuracy) == (512, 20, 0.9142)
    assert (reference.max_lr, reference.weight_decay, reference.dropout) == (0.017, 1e-4, 0.07)
    assert reference.pct_start * reference.epochs == 5
    assert reference.augmentation == Augmentation(crop_padding=4, flip_probability=0.5, cutout_size=8)


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
