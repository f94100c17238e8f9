"""What is learned: a recipe is a frozen value, and the accuracy of a run is a function of it and the seed."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cifarfast.checks import at_least, below, between, one_of, positive

CROP_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random crop, horizontal flip and cutout of the training images, in this order."""

    crop_padding: int = 4
    """Pixels added on every side before a 32x32 crop at a random place; 0 switches the crop off."""
    padding_mode: Literal["zero", "reflect"] = "zero"
    """What the added pixels are: zero after normalisation (the channel means), or the image mirrored."""
    flip_probability: float = 0.5
    """Share of images mirrored left to right; 0 switches the flip off."""
    cutout_size: int = 8
    """Side of the square hole in pixels, always wholly inside; 0 switches cutout off."""
    cutout_probability: float = 1.0
    """Share of images that get a hole, filled with the channel means (zero after normalisation)."""

    def __post_init__(self) -> None:
        between("crop_padding", self.crop_padding, 0, CROP_SIZE - 1)
        one_of("padding_mode", self.padding_mode, ("zero", "reflect"))
        between("flip_probability", self.flip_probability, 0.0, 1.0)
        between("cutout_size", self.cutout_size, 0, CROP_SIZE)
        between("cutout_probability", self.cutout_probability, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Network, optimizer, schedule, augmentation, length and target."""

    name: Annotated[str, tyro.conf.arg(name="recipe")] = "reference"
    """Name of the recipe, kept when single fields are changed."""
    target_accuracy: float = 0.9142
    """Test accuracy, 0 to 1, that a whole run on the real CIFAR-10 is held against."""
    epochs: int = 20
    """Length of a run in epochs; the schedule stretches with it."""
    batch_size: int = 512
    """Images a step."""
    max_lr: float = 0.017
    """Learning rate at the peak of OneCycle, per step of Adam on the mean loss of a batch."""
    div_factor: float = 10.0
    """The first learning rate is max_lr / div_factor."""
    final_div_factor: float = 1.0
    """The last learning rate is max_lr / div_factor / final_div_factor."""
    pct_start: float = 0.25
    """Share of the run at which the learning rate peaks (epoch 5 of 20)."""
    anneal: Literal["cosine", "linear"] = "cosine"
    """Shape of the rise and of the fall."""
    cycle_momentum: bool = True
    """Whether Adam's beta1 moves against the learning rate: max, base, max momentum."""
    base_momentum: float = 0.85
    """Adam's beta1 where the learning rate peaks (only with cycle_momentum)."""
    max_momentum: float = 0.95
    """Adam's beta1 at the start and the end, or throughout without cycle_momentum."""
    weight_decay: float = 1e-4
    """L2 penalty, added to the gradient of every parameter as torch.optim.Adam does (not decoupled)."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    dropout: float = 0.07
    """Share of activations dropped after each of the eight convolution blocks."""
    augmentation: Augmentation = Augmentation()
    """What is done to the training images."""

    def __post_init__(self) -> None:
        between("target_accuracy", self.target_accuracy, 0.0, 1.0)
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 2)  # BatchNorm needs two values a channel
        positive("max_lr", self.max_lr)
        positive("div_factor", self.div_factor)
        positive("final_div_factor", self.final_div_factor)
        between("pct_start", self.pct_start, 0.0, 1.0)
        one_of("anneal", self.anneal, ("cosine", "linear"))
        below("base_momentum", self.base_momentum, 1.0)
        below("max_momentum", self.max_momentum, 1.0)
        below("weight_decay", self.weight_decay, float("inf"))
        below("label_smoothing", self.label_smoothing, 1.0)
        below("dropout", self.dropout, 1.0)


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (Recipe(),)}
