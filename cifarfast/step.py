"""One optimizer step and one evaluation: where the network meets the device."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cifarfast.augment import augment, draw, normalize
from cifarfast.device import Device
from cifarfast.loaders.base import Batch
from cifarfast.model import ResNet, draw_masks, dropout_threshold
from cifarfast.optim import build_optimizer, set_hyperparameters
from cifarfast.randomness import generator, seed_of
from cifarfast.recipe import Recipe

# fp16 skips a step and halves its loss scale when gradients overflow, which is how it finds the scale.
# The initial 2**16 is used up after 16 halvings: a longer streak is not the scale's fault.
MAX_FP16_SKIPS_IN_A_ROW = 20


@dataclass(frozen=True)
class Score:
    """Mean cross entropy and share of right answers, 0 to 1, over some images."""

    loss: float
    accuracy: float
    images: int


class Statistics:
    """Sums kept on the device and read once: mean loss and accuracy of an epoch."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)

    def add(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Count one batch: logits (B, 10), labels (B,), its mean loss ()."""
        correct = (logits.argmax(1) == labels).sum()
        self._sums += torch.stack([loss.detach() * len(labels), correct.float(), torch.ones_like(loss) * len(labels)])

    def take(self) -> Score:
        """Read the sums and start again from zero (waits for the device)."""
        loss, correct, images = self._sums.tolist()
        self._sums.zero_()
        return Score(loss=loss / images, accuracy=correct / images, images=int(images))


class FiniteGuard:
    """Keeps NaN and infinity out of the weights without waiting for the device.

    Every step is judged on the device; a bad one makes the fused optimizer leave weights and moments
    alone. In fp32 and bf16 the first bad step is fatal; in fp16, where the scaler expects some, a long
    streak is. After a fatal step nothing is updated any more, however late the host looks.
    """

    def __init__(self, device: torch.device, *, allowed_in_a_row: int) -> None:
        self._allowed = allowed_in_a_row
        self._streak = torch.zeros((), device=device)
        self._skipped = torch.zeros((), device=device)
        self._fatal_step = torch.full((), -1.0, device=device)

    def judge(self, loss: torch.Tensor, gradients: list[torch.Tensor], step: int) -> torch.Tensor:
        """1.0 where this step must not touch the weights, else 0.0: a float tensor () on the device."""
        bad = ~torch.isfinite(loss.detach() + torch.nn.utils.get_total_norm(gradients))
        self._streak = torch.where(bad, self._streak + 1, 0.0)
        self._skipped += bad
        fatal = (self._streak > self._allowed) & (self._fatal_step < 0)
        self._fatal_step = torch.where(fatal, float(step), self._fatal_step)
        return (bad | (self._fatal_step >= 0)).float()

    def fatal_step(self) -> int | None:
        """The step at which training stopped making sense, None while it does (waits for the device)."""
        step = int(self._fatal_step.item())
        return step if step >= 0 else None

    def skipped_steps(self) -> int:
        """Steps that left the weights alone (waits for the device)."""
        return int(self._skipped.item())


class TrainStep:
    """Augment, forward, backward, guard, update.

    Args:
        model: the raw network, already on the device; its weights are updated in place.
        mean, std: channel statistics on the scale 0 to 1.
        seed: with the epoch and the batch number, the origin of every random draw.
    """

    def __init__(
        self, model: ResNet, recipe: Recipe, device: Device, *, mean: Sequence[float], std: Sequence[float], seed: int
    ) -> None:
        self.model = model
        self.mean, self.std = (device.send(torch.tensor(values)) for values in (mean, std))
        self.optimizer = build_optimizer(model, recipe)
        self.scaler = device.scaler()
        self.statistics = Statistics(device.target)
        self.guard = FiniteGuard(
            device.target, allowed_in_a_row=MAX_FP16_SKIPS_IN_A_ROW if self.scaler.is_enabled() else 0
        )
        self.recipe, self._device, self._seed = recipe, device, seed
        self._augment, self._forward = augment, self._loss
        self._drops = dropout_threshold(recipe.dropout) > 0

    def __call__(self, batch: Batch, *, augmented: bool, epoch: int, number: int, position: int) -> None:
        """Train on batch `number` of `epoch`, which is step `position` of the run.

        Args:
            augmented: the loader has cropped, flipped and cut out already; only normalise.
        """
        images, masks = self._inputs(batch, augmented, epoch, number)
        loss, logits = self._forward(images, batch.labels, masks)
        torch.autograd.backward(self.scaler.scale(loss))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        skip = self.guard.judge(loss, gradients, position)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # finds the same overflow itself, and skips
            self.scaler.update()
        else:
            # The argument that GradScaler hands to fused optimizers.
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.statistics.add(logits, batch.labels, loss)

    def set(self, *, lr: float, momentum: float) -> None:
        """Set the learning rate and beta1 of the next step."""
        set_hyperparameters(self.optimizer, lr=lr, momentum=momentum)

    def compile(self, note: Callable[[str], None]) -> float | None:
        """Compile the step and the augmentation on one batch of noise; weights and buffers stay as they are.

        Returns:
            Seconds that took, one forward and backward pass included; None where no compiler works:
            then the step stays eager and `note` is told why.
        """
        start = time.perf_counter()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        self._augment, self._forward = self._device.compile(augment), self._device.compile(self._loss)
        try:
            batch = self._noise()
            images, masks = self._inputs(batch, False, 0, 0)
            torch.autograd.backward(self._forward(images, batch.labels, masks)[0])
            self._device.synchronize()
        except Exception as error:  # noqa: BLE001  # compilers fail in many ways, and an eager run shows our own faults
            self._augment, self._forward = augment, self._loss
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            note(f"torch.compile does not work here ({reason}); training runs eagerly")
            return None
        finally:
            self.optimizer.zero_grad()
            self.model.load_state_dict(buffers, strict=False)
        return time.perf_counter() - start

    def _inputs(
        self, batch: Batch, augmented: bool, epoch: int, number: int
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        dtype, count = self._device.compute_dtype, len(batch.labels)
        if augmented:
            images = normalize(batch.images, self.mean, self.std, dtype)
        else:
            settings = self.recipe.augmentation
            draws = self._device.send(draw(settings, count, generator(self._seed, "augment", epoch, number)))
            images = self._augment(batch.images, draws, self.mean, self.std, settings, dtype)
        images = images.contiguous(memory_format=self._device.memory_format)
        if not self._drops:
            return images, None
        return images, draw_masks(count, seed_of(self._seed, "dropout", epoch, number), device=self._device.target)

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
        return Batch(self._device.send(pixels).permute(0, 3, 1, 2), self._device.send(labels))


def evaluate(
    model: ResNet, batches: Iterator[Batch], device: Device, *, mean: torch.Tensor, std: torch.Tensor
) -> Score:
    """Loss and accuracy of the raw network in eval mode over all batches; its mode is restored."""
    statistics, was_training = Statistics(device.target), model.training
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in batches:
                inputs = normalize(images, mean, std, device.compute_dtype)
                with device.autocast():
                    logits = model(inputs.contiguous(memory_format=device.memory_format)).float()
                    statistics.add(logits, labels, F.cross_entropy(logits, labels))
    finally:
        model.train(was_training)
    return statistics.take()
