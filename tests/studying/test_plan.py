from dataclasses import replace
from pathlib import Path

import pytest

from cifarfast.config import RunConfig
from cifarfast.errors import UserError
from cifarfast.recipe import Recipe
from cifarfast.studying.plan import MOST_SEEDS, Plan, folder_name, recipes_of, seeds_of

REFERENCE = Recipe()


@pytest.mark.parametrize(
    ("text", "recipe", "name"),
    [
        ("reference", REFERENCE, "reference"),
        ("reference:epochs=20", REFERENCE, "reference"),
        ("reference:final-div-factor=1000", replace(REFERENCE, final_div_factor=1000.0), "final-div-factor=1000"),
        ("reference:weight_decay=1e6", replace(REFERENCE, weight_decay=1e6), "weight-decay=1e06"),
        ("reference:max-lr=0.0123456789", replace(REFERENCE, max_lr=0.0123456789), "max-lr=0.0123456789"),
        ("reference:cycle-momentum=false", replace(REFERENCE, cycle_momentum=False), "cycle-momentum=false"),
        (
            "reference : cutout-size = 4 : anneal=linear :epochs= 2",
            replace(REFERENCE, epochs=2, anneal="linear", augmentation=replace(REFERENCE.augmentation, cutout_size=4)),
            "epochs=2+anneal=linear+cutout-size=4",
        ),
    ],
)
def test_a_recipe_is_a_name_with_changes(text: str, recipe: Recipe, name: str) -> None:
    full = name if name == "reference" else f"reference+{name}"
    assert recipes_of(text.replace(" :", ":")) == {full: recipe}
    assert folder_name(recipe) == full
    again = full.replace("+", ":")
    assert recipes_of(again) == {full: recipe}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " is unknown: choose one of reference"),
        ("nonsense", "--recipe nonsense is unknown: choose one of reference"),
        ("reference:max-lr", "'max-lr' is not FIELD=VALUE of a recipe: see python -m cifarfast.train --help"),
        ("reference:rate=1", "'rate=1' is not FIELD=VALUE"),
        ("reference:name=x", "'name=x' is not FIELD=VALUE"),
        ("reference:augmentation=x", "'augmentation=x' is not FIELD=VALUE"),
        ("reference:max-lr=auto", "--recipe reference:max-lr=auto: Expected `float`, got `str` - at `$.max_lr`"),
        ("reference:epochs=1.5", "`$.epochs`"),
        ("reference:epochs=0", "epochs must be at least 1, not 0"),
        ("reference:max-lr=nan", "max_lr must be positive and finite, not nan"),
        ("reference:anneal=step", "Invalid enum value 'step'"),
        ("reference:cutout-size=33", "cutout_size must be between 0 and 32, not 33"),
        ("reference,reference:epochs=20", "names reference twice: leave one of them out"),
    ],
)
def test_a_wrong_recipe_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        recipes_of(text)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2,8", [0, 1, 2, 8]), ("7", [7]), (" 3, 1-2 ", [3, 1, 2]), ("5-5", [5])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert seeds_of(text) == seeds
    assert len(seeds_of(f"0-{MOST_SEEDS - 1}")) == MOST_SEEDS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is neither a seed nor a range"),
        ("3-1", "'3-1' is neither a seed nor a range: write 0-4, 0,3,7 or 0-2,8"),
        ("-1", "neither"),
        ("1,", "neither"),
        ("a", "neither"),
        ("0..4", "neither"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "neither"),
        ("0-2,2", "--seeds 0-2,2 names 2 twice"),
        ("0-999999999", f"more than {MOST_SEEDS:,}"),
        ("0-9999,20000", f"more than {MOST_SEEDS:,}"),
    ],
)
def test_nonsense_is_not_a_list_of_seeds(text: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        seeds_of(text)
    assert words in str(refusal.value)


def test_recipes_take_turns() -> None:
    recipes = recipes_of("reference,reference:epochs=2")
    plan = Plan(out=Path("o"), recipes=recipes, seeds=[4, 1], usual=RunConfig(train_images=9))
    runs = list(plan.runs())
    assert [str(folder) for folder, _ in runs] == [
        "o/reference/seed-4",
        "o/reference+epochs=2/seed-4",
        "o/reference/seed-1",
        "o/reference+epochs=2/seed-1",
    ]
    assert [(config.seed, config.recipe.epochs, config.train_images) for _, config in runs] == [
        (4, 20, 9), (4, 2, 9), (1, 20, 9), (1, 2, 9)
    ]  # fmt: skip
