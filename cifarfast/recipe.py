"""What is learned: a recipe is a frozen value, and the accuracy of a run is a function of it and the seed."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple, get_args

import tyro

from cifarfast.checks import at_least, below, between, one_of, positive

Tta = Literal["none", "flip", "flip+shift", "selective"]
"""Test-time augmentation, see `cifarfast.tta`."""
CROP_SIZE = 32
RATES = ("max_lr", "head_lr", "bias_lr")
"""Fields of a recipe that a range test moves together; only Muon has the last two."""
WIDEST = 512
"""With 125 million parameters far from any speedrun, and still read into the memory of a small machine."""
SMALLEST_SIZE = 17
"""From which three poolings leave a pixel of what the stem makes of an image."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random crop, horizontal flip and cutout of the training images, in this order."""

    crop_padding: int = 4
    """Pixels added on every side before a 32x32 crop at a random place; 0 switches the crop off."""
    padding_mode: Literal["zero", "reflect"] = "zero"
    """What the added pixels are: zero after normalisation (the channel means), or the image mirrored."""
    flip_probability: float = 0.5
    """Share of images mirrored left to right (with `alternate_flip`, in the even epochs); 0 switches the flip off."""
    alternate_flip: bool = False
    """Whether an image that was mirrored in one epoch is not in the next, and the other way round: which ones are
    mirrored in the first is random (K. Jordan, arXiv:2404.00498, section 3.6)."""
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


class Work(NamedTuple):
    """What an epoch's steps have in common, and share with no others."""

    size: int
    """Side of the images in pixels."""
    sharpness_radius: float
    """How far uphill the gradient is taken, see `Recipe`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Network, optimizer, schedule, augmentation, length and target."""

    name: Annotated[str, tyro.conf.arg(name="recipe")] = "reference"
    """Name of the recipe, kept when single fields are changed."""
    target_accuracy: float = 0.9142
    """Test accuracy, 0 to 1, that a whole run on the real CIFAR-10 is held against."""
    tta: Tta = "none"
    """Test-time augmentation with which the network is evaluated after the last epoch."""
    network: Literal["resnet", "convnet"] = "resnet"
    """The reference network, or that of the speedruns."""
    whitening: bool = False
    """Whether the first filters are made of the training images, and nothing trains them; those of `convnet` always
    are, whatever is asked (D. Page, "How to train your ResNet 8", 2019)."""
    norm_scale: bool = True
    """Whether the scales of BatchNorm are trained; those of `convnet` never are (D. Page, "How to train your ResNet 7",
    2018)."""
    mirrored: bool = False
    """Whether `resnet` is kept its own mirror image, which sees an image and its mirror image alike: 3.3 of its 6.6
    million parameters then are those of the others, mirrored (T. Cohen and M. Welling, arXiv:1602.07576)."""
    width: int = 64
    """Channels of the first of the three stages of `convnet`; the others have four times as many."""
    squeeze_excitation: bool = False
    """Whether each stage of `convnet` weighs its channels by what it sees of all of the image (J. Hu et al.,
    arXiv:1709.01507)."""
    epochs: int = 20
    """Length of a run in epochs; the schedule stretches with it."""
    batch_size: int = 512
    """Images a step."""
    ghost_batch: int = 0
    """Images that BatchNorm sees together in training, a part of the batch after the other; 0 for all of it. The
    statistics of fewer images are noisier, which regularises (E. Hoffer et al., arXiv:1705.08741, "ghost" batches)."""
    hard_share: float = 1.0
    """Share of the training images that an epoch takes: those on which the loss was highest when they were last seen,
    first of all those that never were (I. Loshchilov and F. Hutter, arXiv:1511.06343). An epoch is shorter by as much,
    and its training accuracy is that of hard images."""
    low_resolution: int = 32
    """Side in pixels to which the images of the first epochs are shrunk, to save work."""
    low_resolution_share: float = 0.0
    """Share of all epochs that these are, rounded to whole ones."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Adam, or orthogonalised momentum for filters and gates and plain momentum for the rest: see `cifarfast.muon`."""
    max_lr: float = 0.017
    """Learning rate at the peak of OneCycle, per step on the mean loss of a batch."""
    head_lr: float = 0.5
    """The same of the head and its bias where the optimizer is muon; on the way it keeps its ratio to the others."""
    bias_lr: float = 0.05
    """Likewise of the biases of BatchNorm, and of its scales where they are trained."""
    div_factor: float = 10.0
    """The first learning rate is max_lr / div_factor."""
    final_div_factor: float = 1.0
    """The last learning rate is max_lr / div_factor / final_div_factor."""
    pct_start: float = 0.25
    """Share of the run at which the learning rate peaks (epoch 5 of 20)."""
    anneal: Literal["cosine", "linear"] = "cosine"
    """Shape of the rise and of the fall."""
    cycle_momentum: bool = True
    """Whether the momentum (Adam's beta1) moves against the learning rate: max, base, max momentum."""
    base_momentum: float = 0.85
    """Momentum where the learning rate peaks (only with cycle_momentum)."""
    max_momentum: float = 0.95
    """Momentum at the start and the end, or throughout without cycle_momentum."""
    weight_decay: float = 1e-4
    """L2 penalty, added to the gradient of every parameter as torch.optim.Adam does (not decoupled); with muon, of head
    and biases alone, and decoupled: rate times penalty of each is taken off it, past the momentum."""
    sharpness_radius: float = 0.0
    """How far from the weights the gradient is taken: where it leads, as a Euclidean distance over all convolutions,
    uphill, so that a step leaves what is steep around it (P. Foret et al., arXiv:2010.01412); 0 takes it at the weights
    themselves. Each ghost batch goes a way of its own. It costs a second pass, and has the most effect at the end
    (Z. Zhou et al., arXiv:2410.10373)."""
    sharpness_share: float = 0.3
    """Share of all epochs that do so, rounded to whole ones: the last."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    dropout: float = 0.07
    """Share of activations dropped after each of the eight convolution blocks of `resnet`."""
    augmentation: Augmentation = Augmentation(crop_padding=2, padding_mode="reflect", cutout_probability=0.5)
    """What is done to the training images; in `reference` what the published code does, whose text says otherwise."""

    def __post_init__(self) -> None:
        between("target_accuracy", self.target_accuracy, 0.0, 1.0)
        one_of("tta", self.tta, get_args(Tta))
        one_of("network", self.network, ("resnet", "convnet"))
        object.__setattr__(self, "whitening", self.whitening or self.network == "convnet")
        object.__setattr__(self, "norm_scale", self.norm_scale and self.network != "convnet")
        between("width", self.width, 1, WIDEST)
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 2)  # BatchNorm needs two values a channel
        if self.ghost_batch:
            at_least("ghost_batch", self.ghost_batch, 2)
            if self.batch_size > self.ghost_batch and self.batch_size % self.ghost_batch:
                raise ValueError(f"ghost_batch must divide batch_size ({self.batch_size}), not {self.ghost_batch}")
        positive("hard_share", self.hard_share)
        between("hard_share", self.hard_share, 0.0, 1.0)
        between("low_resolution", self.low_resolution, SMALLEST_SIZE, CROP_SIZE)
        between("low_resolution_share", self.low_resolution_share, 0.0, 1.0)
        one_of("optimizer", self.optimizer, ("adam", "muon"))
        positive("max_lr", self.max_lr)
        positive("head_lr", self.head_lr)
        positive("bias_lr", self.bias_lr)
        positive("div_factor", self.div_factor)
        positive("final_div_factor", self.final_div_factor)
        between("pct_start", self.pct_start, 0.0, 1.0)
        one_of("anneal", self.anneal, ("cosine", "linear"))
        below("base_momentum", self.base_momentum, 1.0)
        below("max_momentum", self.max_momentum, 1.0)
        below("weight_decay", self.weight_decay, float("inf"))
        below("sharpness_radius", self.sharpness_radius, float("inf"))
        between("sharpness_share", self.sharpness_share, 0.0, 1.0)
        below("label_smoothing", self.label_smoothing, 1.0)
        below("dropout", self.dropout, 1.0)
        if self.network == "convnet" and self.dropout:
            raise ValueError(f"dropout must be 0 for convnet, which has none, not {self.dropout}")
        if self.network == "convnet" and self.mirrored:
            raise ValueError("mirrored must be false for convnet, whose pooling leaves out what is to the right")
        if self.network == "resnet" and self.squeeze_excitation:
            raise ValueError("squeeze_excitation must be false for resnet, which has none")
        if self.network == "resnet" and self.low_resolution_share:
            raise ValueError(
                "low_resolution_share must be 0 for resnet, whose last pooling needs 32 pixels a side, "
                f"not {self.low_resolution_share}"
            )

    @property
    def ghost_batches(self) -> int:
        """Parts of a batch that BatchNorm sees one after the other."""
        return max(1, self.batch_size // (self.ghost_batch or self.batch_size))

    def work(self, epoch: int) -> Work:
        """What is done in an epoch, counted from 0."""
        small = epoch < round(self.low_resolution_share * self.epochs)
        sharp = epoch >= self.epochs - round(self.sharpness_share * self.epochs)
        return Work(self.low_resolution if small else CROP_SIZE, self.sharpness_radius if sharp else 0.0)


ANNEALED = Recipe(name="annealed", final_div_factor=1000.0)
"""`reference`, but the learning rate goes down to nothing, so that the last epochs are not noisy."""

REFERENCE_TUNED = Recipe(
    name="reference-tuned",
    target_accuracy=0.945,
    whitening=True,
    norm_scale=False,
    mirrored=True,
    optimizer="muon",
    max_lr=0.1,
    head_lr=0.01,
    bias_lr=5.0,
    # From the peak straight down to nothing.
    pct_start=0.0,
    div_factor=1.0,
    final_div_factor=1000.0,
    anneal="linear",
    cycle_momentum=False,
    max_momentum=0.6,
    weight_decay=0.0,
    label_smoothing=0.2,
    dropout=0.0,
    augmentation=Augmentation(padding_mode="reflect", alternate_flip=True, cutout_size=12),
)
"""The network, batch size and length of `reference`, everything else for accuracy."""

SPEEDRUN_91 = Recipe(
    name="speedrun-91",
    target_accuracy=0.9142,
    tta="selective",
    network="convnet",
    width=48,
    epochs=5,
    batch_size=500,
    hard_share=0.55,
    low_resolution=24,
    low_resolution_share=0.4,
    optimizer="muon",
    max_lr=0.15,
    head_lr=0.67,
    bias_lr=50.0,
    # From the peak straight down to nothing.
    pct_start=0.0,
    div_factor=1.0,
    final_div_factor=1000.0,
    anneal="linear",
    cycle_momentum=False,
    max_momentum=0.6,
    weight_decay=0.0,
    label_smoothing=0.2,
    dropout=0.0,
    augmentation=Augmentation(crop_padding=2, padding_mode="reflect", alternate_flip=True, cutout_size=0),
)

SPEEDRUN_94 = replace(
    SPEEDRUN_91,
    name="speedrun-94",
    target_accuracy=0.94,
    width=80,
    squeeze_excitation=True,
    epochs=9,
    low_resolution_share=0.55,
)
"""`speedrun-91`, wider and longer."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (Recipe(), ANNEALED, REFERENCE_TUNED, SPEEDRUN_91, SPEEDRUN_94)
}
DEFAULT_RECIPE = ANNEALED.name
"""What the commands take where no recipe is named."""
