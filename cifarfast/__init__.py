"""cifarfast: the CIFAR-10 speed lab.

    from dataclasses import replace
    from pathlib import Path
    import cifarfast

    recipe = replace(cifarfast.RECIPES["reference"], epochs=2)
    summary = cifarfast.fit(recipe, cifarfast.Runtime(), data=Path("data/cifar10"), out=Path("runs/mine"))

Importing the package imports neither torch nor a loader; `fit` does when it is first used.
"""

from typing import TYPE_CHECKING, Any

from cifarfast.config import RunConfig
from cifarfast.errors import NonFiniteError, Stopped, UserError
from cifarfast.range_test import LrRange, Sweep
from cifarfast.recipe import RECIPES, Augmentation, Recipe
from cifarfast.runtime import Runtime
from cifarfast.schedule import OneCycle, one_cycle

if TYPE_CHECKING:
    from cifarfast.exporting import export_run
    from cifarfast.guessing import guess_files
    from cifarfast.lr_range import lr_range_test, recipe_range_test
    from cifarfast.model import build_model
    from cifarfast.networks.convnet import ConvNet
    from cifarfast.networks.resnet import ResNet
    from cifarfast.scoring import evaluate_run
    from cifarfast.summary import Summary
    from cifarfast.training import fit, resume

__version__ = "0.1.0"
__all__ = [
    "RECIPES",
    "Augmentation",
    "ConvNet",
    "LrRange",
    "NonFiniteError",
    "OneCycle",
    "Recipe",
    "ResNet",
    "RunConfig",
    "Runtime",
    "Stopped",
    "Summary",
    "Sweep",
    "UserError",
    "build_model",
    "evaluate_run",
    "export_run",
    "fit",
    "guess_files",
    "lr_range_test",
    "one_cycle",
    "recipe_range_test",
    "resume",
]
_LAZY = {
    "ConvNet": "cifarfast.networks.convnet",
    "ResNet": "cifarfast.networks.resnet",
    "Summary": "cifarfast.summary",
    "build_model": "cifarfast.model",
    "evaluate_run": "cifarfast.scoring",
    "export_run": "cifarfast.exporting",
    "fit": "cifarfast.training",
    "guess_files": "cifarfast.guessing",
    "lr_range_test": "cifarfast.lr_range",
    "recipe_range_test": "cifarfast.lr_range",
    "resume": "cifarfast.training",
}


def __getattr__(name: str) -> Any:
    # PEP 562: what needs torch is imported when it is first asked for.
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
