"""What a study trains: recipes, some of them with a field or two changed, and seeds."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from cifarfast.comparable import flat
from cifarfast.config import RunConfig
from cifarfast.errors import UserError
from cifarfast.recipe import RECIPES, Recipe

MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every recipe with every seed."""

    out: Path
    """The study's folder."""
    recipes: Mapping[str, Recipe]
    """By the names of their folders; the others are compared with the first."""
    seeds: Sequence[int]
    """The seeds."""
    usual: RunConfig
    """What all runs have in common: data, images and runtime."""

    def runs(self) -> Iterator[tuple[Path, RunConfig]]:
        """Folder and configuration of every run: seed by seed, the recipes in turn, that what disturbs disturbs all."""
        for seed in self.seeds:
            for name, recipe in self.recipes.items():
                yield self.out / name / run_name(seed), replace(self.usual, recipe=recipe, seed=seed)


def run_name(seed: int) -> str:
    """What the folder of a run is called, within that of its recipe."""
    return f"seed-{seed}"


def recipes_of(text: str) -> dict[str, Recipe]:
    """The recipes that `NAME[:FIELD=VALUE...],...` names, in order, by the names of their folders.

    Raises:
        UserError: a recipe or field is unknown, a value is wrong, or a recipe is named twice.
    """
    recipes: dict[str, Recipe] = {}
    for part in text.split(","):
        recipe = _recipe(part.strip())
        if (name := folder_name(recipe)) in recipes:
            raise UserError(f"--recipe {text} names {name} twice: leave one of them out")
        recipes[name] = recipe
    return recipes


def folder_name(recipe: Recipe) -> str:
    """A recipe's name and what differs from it, in the order of the fields: `reference+epochs=5+dropout=0`."""
    usual = flat(asdict(RECIPES[recipe.name]))
    changed = {name: value for name, value in flat(asdict(recipe)).items() if value != usual[name]}
    fields = (f"{name.rpartition('.')[2].replace('_', '-')}={_written(value)}" for name, value in changed.items())
    return "+".join([recipe.name, *fields])


def seeds_of(text: str) -> list[int]:
    """The seeds that a list of numbers and ranges names, in order: `0-2,8` is 0, 1, 2, 8.

    Raises:
        UserError: it is no such list, names a seed twice, or too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise UserError(f"--seeds {text}: {part!r} is neither a seed nor a range: write 0-4, 0,3,7 or 0-2,8")
        if last - first + 1 > MOST_SEEDS - len(seeds):
            raise UserError(f"--seeds {text} are more than {MOST_SEEDS:,}: name fewer")
        seeds += range(first, last + 1)
    if twice := [seed for seed, times in Counter(seeds).items() if times > 1]:
        raise UserError(f"--seeds {text} names {twice[0]} twice: name it once")
    return seeds


def _recipe(text: str) -> Recipe:
    name, *changes = text.split(":")
    if name not in RECIPES:
        raise UserError(f"--recipe {name} is unknown: choose one of {', '.join(RECIPES)}")
    record = asdict(RECIPES[name])
    for change in changes:
        field, equals, value = change.partition("=")
        field = field.strip().replace("-", "_")
        groups = [
            group for group in (record, record["augmentation"]) if field in group.keys() - {"name", "augmentation"}
        ]
        if not equals or not groups:
            raise UserError(
                f"--recipe {text}: {change!r} is not FIELD=VALUE of a recipe: see python -m cifarfast.train --help"
            )
        groups[0][field] = value.strip()
    try:
        return msgspec.convert(record, Recipe, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"--recipe {text}: {error}: see python -m cifarfast.train --help") from None


def _written(value: object) -> str:
    """A value as it is typed, and the same for the same value; without a `+`, which stands between fields."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return (short if float(short) == value else repr(value)).replace("e+", "e")
    return str(value)
