"""One optimizer step: where the network meets the device."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from cifarfast.augment import augment, draw_batch, normalize, shrink
from cifarfast.capture import WARM_UP
from cifarfast.device import Device
from cifarfast.errors import NonFiniteError
from cifarfast.evaluation import Statistics
from cifarfast.guard import FiniteGuard
from cifarfast.loaders.base import Batch
from cifarfast.model import Network
from cifarfast.muon import Muon
from cifarfast.networks.mirror import Mirrored, symmetrise, symmetrise_gradients
from cifarfast.networks.resnet import ResNet, draw_masks
from cifarfast.optim import build_optimizer, empty_state, set_hyperparameters
from cifarfast.randomness import generator, seed_of
from cifarfast.recipe import Recipe, Work
from cifarfast.schedule import OneCycle
from cifarfast.selection import LastLosses, Losses
from cifarfast.sharpness import uphill

# fp16 skips a step and halves its loss scale when gradients overflow, which is how it finds the scale.
# The initial 2**16 is used up after 16 halvings: a longer streak is not the scale's fault.
MAX_FP16_SKIPS_IN_A_ROW = 20
# Only schedule, optimizer and reports read these; whatever else a recipe says may be a constant of compiled code.
_NEVER_COMPILED = (
    "name", "target_accuracy", "epochs", "max_lr", "div_factor", "final_div_factor", "pct_start", "anneal",
    "cycle_momentum", "base_momentum", "max_momentum", "weight_decay", "tta", "optimizer", "head_lr", "bias_lr",
    "hard_share", "sharpness_radius", "sharpness_share",
)  # fmt: skip


def compiled_part(recipe: Recipe) -> Recipe:
    """What of a recipe a compiled step depends on; the rest is as in `Recipe()`."""
    usual = Recipe()
    # How long a run is decides which sizes of image it sees.
    free = [name for name in _NEVER_COMPILED if name != "epochs" or not recipe.low_resolution_share]
    return replace(recipe, **{name: getattr(usual, name) for name in free})


class TrainStep:
    """Augment, forward, backward, guard, update.

    Args:
        model: the raw network, already on the device; its weights are updated in place.
        mean, std: channel statistics on the scale 0 to 1.
        seed: with the epoch and the batch number, the origin of every random draw.
        images: images in the training file, whose last losses are kept where the recipe has a `hard_share`.
    """

    def __init__(
        self,
        model: Network,
        recipe: Recipe,
        device: Device,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        images: int = 0,
    ) -> None:
        self.model = model
        self._mirrored: Mirrored | None = model if isinstance(model, ResNet) and model.mirrored else None
        self._images = images
        self.mean, self.std = (device.send(torch.tensor(values)) for values in (mean, std))
        self._device = device
        self._augment, self._forward = augment, self._loss
        self.compiled = False
        self._begin(recipe, seed)

    def _begin(self, recipe: Recipe, seed: int) -> None:
        """All that a run has beside its weights, as it is before the first step."""
        self.recipe, self._seed = recipe, seed
        self._drops = recipe.dropout > 0.0
        target = self._device.target
        self.optimizer = build_optimizer(self.model, recipe, dtype=self._device.compute_dtype)
        self.scaler = self._device.scaler()
        self.statistics = Statistics(target)
        self._losses = LastLosses(self._images, target) if recipe.hard_share < 1.0 else None
        parameters = [name for name, _ in self.model.named_parameters()]
        trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        running = [name for name, buffer in self.model.named_buffers() if buffer.is_floating_point()]
        self.guard = FiniteGuard(
            target,
            {"gradient": trained, "weight": parameters, "running statistic": running},
            allowed_in_a_row=MAX_FP16_SKIPS_IN_A_ROW if self.scaler.is_enabled() else 0,
        )
        self._position = torch.zeros((), dtype=torch.int64, device=target)
        # The argument that GradScaler hands to fused optimizers; `scaler.step` would not know of the other reasons.
        self._skip = self.optimizer.found_inf = torch.zeros((), device=target)  # type: ignore[attr-defined]
        self.capture_anew()

    def capture_anew(self) -> None:
        """Forget the graphs: tensors that they work on were replaced."""
        self._learn_on_device = self._device.captured(self._learn)
        self._update: Callable[[], object] = partial(self._moved, self.optimizer.step)
        if isinstance(self.optimizer, Muon):  # Adam takes a beta1 from the host
            move, rates = self._device.captured(partial(self._moved, self.optimizer.move)), self.optimizer.rates
            self._update = lambda: move(rates())

    def reset(self, model: Network, recipe: Recipe, *, seed: int) -> None:
        """Begin another run, as a new step would, but with what is compiled already.

        Args:
            model: an untrained network for this recipe; its weights and buffers are copied.
            recipe: one with the same `compiled_part`.
            seed: as for a new step.
        """
        self.model.load_state_dict(model.state_dict())
        self.model.zero_grad()
        self._begin(recipe, seed)

    def __call__(
        self, batch: Batch, *, augmented: bool, epoch: int, number: int, position: int, work: Work | None = None
    ) -> None:
        """Train on batch `number` of `epoch`, which is step `position` of the run.

        Args:
            augmented: the loader has cropped, flipped and cut out already; only normalise.
            work: what is done, by default what the recipe has for the epoch.
        """
        draws, masks = self._draws(batch, augmented=augmented, epoch=epoch, number=number)
        indices = None if self._losses is None else self._device.send(torch.from_numpy(batch.indices))
        self._position.fill_(position)
        self._learn_on_device(work or self.recipe.work(epoch), batch.images, batch.labels, indices, draws, *masks)
        self._update()
        self._forget_gradients()

    def _learn(
        self,
        work: Work,
        images: torch.Tensor,
        labels: torch.Tensor,
        indices: torch.Tensor | None,
        draws: torch.Tensor | None,
        *masks: torch.Tensor,
    ) -> None:
        """All of a step but the update of the weights, on the device alone."""
        # The forward pass changes the running statistics before anything can be judged.
        undo = [(tensor, tensor.clone()) for tensor in self.model.buffers()]
        inputs = self._prepared(images, draws, work.size), labels, list(masks) or None
        loss, logits = self.backward(*inputs, radius=work.sharpness_radius)
        self.scaler.unscale_(self.optimizer)
        if self._mirrored is not None:
            symmetrise_gradients(self._mirrored)
        skip = self._skip.copy_(self.guard.judge(loss, self._watched(), self._position))
        self.scaler.update()
        for tensor, before in undo:
            torch.where(skip > 0, before, tensor, out=tensor)
        if self._losses is not None:
            assert indices is not None
            losses = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing, reduction="none")
            self._losses.record(indices, losses, skip=skip)
        # One batch that fp16 skips must not make an epoch's mean infinite.
        self.statistics.add(logits, labels, loss, counts=torch.isfinite(loss))

    def _moved(self, move: Callable[..., object], *rates: torch.Tensor) -> None:
        move(*rates)
        if self._mirrored is not None:
            symmetrise(self._mirrored)

    def _forget_gradients(self) -> None:
        # A graph knows where gradients are: there they stay.
        self.optimizer.zero_grad(set_to_none=self._device.graphs is None)

    def ranking(self, *, new: bool) -> Losses | None:
        """The losses by which an epoch chooses its images; None where it takes all of them.

        Args:
            new: the epoch begins; otherwise it goes on, with the images that were chosen when it began.
        """
        if self._losses is None:
            return None
        if new:
            self._losses.begin_epoch()
        return self._losses.ranking()

    def inputs(
        self, batch: Batch, *, augmented: bool, epoch: int, number: int
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """What the network is given for batch `number` of `epoch`.

        Returns:
            The images (B, 3, S, S) in the precision and layout in use, augmented, S being what the recipe has for the
            epoch, and the dropout masks of `draw_masks`, None where nothing is dropped.
        """
        draws, masks = self._draws(batch, augmented=augmented, epoch=epoch, number=number)
        return self._prepared(batch.images, draws, self.recipe.work(epoch).size), masks or None

    def _draws(
        self, batch: Batch, *, augmented: bool, epoch: int, number: int
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """What chance has for a batch, on the device: how it is augmented, and dropout masks; neither where not due."""
        draws, masks, settings = None, [], self.recipe.augmentation
        if not augmented:
            draws = self._device.send(draw_batch(settings, batch.indices, seed=self._seed, epoch=epoch, number=number))
        if self._drops:
            seed = seed_of(self._seed, "dropout", epoch, number)
            masks = draw_masks(len(batch.labels), seed, device=self._device.target)
        return draws, masks

    def _prepared(self, images: torch.Tensor, draws: torch.Tensor | None, size: int) -> torch.Tensor:
        """Images as the network takes them; without draws they are augmented already."""
        dtype = self._device.compute_dtype
        if draws is None:
            images = normalize(images, self.mean, self.std, dtype)
        else:
            images = self._augment(images, draws, self.mean, self.std, self.recipe.augmentation, dtype)
        return shrink(images, size).contiguous(memory_format=self._device.memory_format)

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss () and logits (B, 10) in fp32 of what `inputs` gave."""
        return self._forward(images, labels, masks)

    def backward(
        self, images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor] | None, *, radius: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradients of the mean loss, scaled where fp16 needs it, one ghost batch after the other.

        Args:
            images, labels, masks: what `inputs` gave, and what is right.
            radius: how far uphill gradients are taken, those of each ghost batch on a way of their own.

        Returns:
            Mean loss () and logits (B, 10) of what `inputs` gave, in fp32, without a graph.
        """
        parts, losses, logits = self.recipe.ghost_batches, [], []
        for number, (part, part_labels) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True)):
            part_masks = None if masks is None else [mask.chunk(parts)[number] for mask in masks]
            loss, part_logits = self.forward(part, part_labels, part_masks)
            if radius:
                with uphill(self.model, self.scaler.scale(loss), radius):
                    above, _ = self.forward(part, part_labels, part_masks)
                    torch.autograd.backward(self.scaler.scale(above / parts))
            else:
                torch.autograd.backward(self.scaler.scale(loss / parts))
            losses.append(loss.detach())
            logits.append(part_logits.detach())
        return torch.stack(losses).mean(), torch.cat(logits)

    def check(self, schedule: OneCycle) -> None:
        """Whether training still makes sense (waits for the device).

        Raises:
            NonFiniteError: it does not since some step, which changed nothing; says which one and why.
        """
        step = self.guard.fatal_step()
        if step is not None:
            raise NonFiniteError(
                f"training diverged at step {step} (epoch {step // schedule.steps_per_epoch + 1}, "
                f"learning rate {schedule.lr(step):.3g}): {self.guard.diagnosis()}; "
                "that step did not touch the weights: try a lower --max-lr, or --no-amp"
            )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live tensors of all that training carries on, by name: model, optimizer, guard, statistics."""
        return self._named(self.optimizer.state)

    def load(self, tensors: Mapping[str, torch.Tensor], scaler: Mapping[str, float]) -> None:
        """Restore, bit for bit, what `tensors` and the scaler's `state_dict` gave, in the layout in use.

        Raises:
            ValueError: a tensor is missing, unknown, not finite, or not of its shape or dtype, or the scaler's
                state is not of this scaler; nothing was changed.
        """
        trained = any(name.startswith("optimizer.") for name in tensors)
        parameters: list[torch.Tensor] = [p for p in self.model.parameters() if p.requires_grad] if trained else []
        state = {parameter: empty_state(self.optimizer, parameter) for parameter in parameters}
        targets = self._named(state)
        if unlike := sorted(targets.keys() ^ tensors.keys()):
            raise ValueError(f"{unlike[0]!r} is {'missing' if unlike[0] in targets else 'unknown'}")
        for name, target in targets.items():
            tensor = tensors[name]
            if (tensor.shape, tensor.dtype) != (target.shape, target.dtype):
                raise ValueError(f"{name} is {list(tensor.shape)} {tensor.dtype}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
        scaling = _scaler_state(self.scaler, scaler)
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(tensors[name])
        self.optimizer.state.clear()
        self.optimizer.state.update(state)
        self.scaler.load_state_dict(scaling)
        self.capture_anew()

    def _named(self, optimizer_state: Mapping[torch.Tensor, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        parts = {
            "model": self.model.state_dict(),
            "guard": self.guard.tensors(),
            "statistics": self.statistics.tensors(),
            "losses": {} if self._losses is None else self._losses.tensors(),
        }
        for name, parameter in self.model.named_parameters():
            parts[f"optimizer.{name}"] = dict(optimizer_state.get(parameter, {}))
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def set(self, *, lr: float, momentum: float) -> None:
        """Set the learning rate and beta1 of the next step."""
        set_hyperparameters(self.optimizer, lr=lr, momentum=momentum)

    def compile(self, note: Callable[[str], None]) -> float | None:
        """Compile the step and the augmentation on a batch of noise of each size; weights and buffers stay as they are.

        Returns:
            Seconds that took, a forward and backward pass of each size included; None where no compiler works:
            then the step stays eager and `note` is told why.
        """
        start = time.perf_counter()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        self._augment, self._forward = self._device.compile(augment), self._device.compile(self._loss)
        try:
            batch = self._noise()
            draws, masks = self._draws(batch, augmented=False, epoch=0, number=0)
            for size in dict.fromkeys(work.size for work in self._works()):
                self.backward(self._prepared(batch.images, draws, size), batch.labels, masks or None)
            self._device.synchronize()
        except Exception as error:  # noqa: BLE001  # compilers fail in many ways, and an eager run shows our own faults
            self._augment, self._forward = augment, self._loss
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
            note(f"torch.compile does not work here ({reason}); training runs eagerly")
            return None
        finally:
            self.optimizer.zero_grad()
            self.model.load_state_dict(buffers, strict=False)
        self.compiled = True
        return time.perf_counter() - start

    def capture(self, *, augmented: bool) -> float | None:
        """Capture the graphs of all steps on noise, where this device has any; all else stays as it is.

        Args:
            augmented: as for a step.

        Returns:
            Seconds that took, steps of warm-up included; None without graphs.

        Raises:
            UserError: no graph can hold what the network does.
        """
        if self._device.graphs is None:
            return None
        start, batch, scaling = time.perf_counter(), self._noise(), self.scaler.state_dict()
        before = {name: tensor.clone() for name, tensor in self.tensors().items()}
        for work in self._works():
            for number in range(WARM_UP + 1):
                self(batch, augmented=augmented, epoch=0, number=number, position=0, work=work)
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                # What an optimizer keeps begins as zeros.
                tensor.copy_(before.get(name, torch.zeros_like(tensor)))
        self.scaler.load_state_dict(scaling)
        self._device.synchronize()
        return time.perf_counter() - start

    def _works(self) -> list[Work]:
        """What the epochs do, each once."""
        return list(dict.fromkeys(map(self.recipe.work, range(self.recipe.epochs))))

    def _watched(self) -> list[torch.Tensor]:
        parameters = list(self.model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        running = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        return [*gradients, *parameters, *running]

    def _loss(
        self, images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self._device.autocast():
            logits = self.model(images, masks).float()
            return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing), logits

    def _noise(self) -> Batch:
        size = self.recipe.batch_size
        pixels = torch.randint(256, (size, 32, 32, 3), generator=generator(0, "noise")).to(torch.uint8)
        labels = torch.randint(10, (size,), generator=generator(0, "noise"))
        return Batch(self._device.send(pixels).permute(0, 3, 1, 2), self._device.send(labels), np.arange(size))


def _scaler_state(scaler: torch.amp.GradScaler, saved: Mapping[str, float]) -> dict[str, float]:
    """What `load_state_dict` takes: its counts are whole numbers again, as they may not be after JSON."""
    now: dict[str, float] = scaler.state_dict()
    settings = now.keys() - {"scale", "_growth_tracker"}
    unlike = saved.keys() != now.keys() or any(saved[name] != now[name] for name in settings)
    if unlike or not all(0 <= value < math.inf for value in saved.values()):
        raise ValueError("the loss scaler's state is not of this one")
    return {name: type(now[name])(value) for name, value in saved.items()}
