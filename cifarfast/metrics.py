"""What is measured every epoch: one explicit record, one line of metrics.jsonl."""

from dataclasses import dataclass

from cifarfast.recipe import Tta

SCHEMA = 1
"""Version of the files in a run folder; to be raised when a field changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One line of metrics.jsonl."""

    epoch: int
    """1 for the first."""
    steps: int
    """Optimizer steps since the start of the run."""
    train_loss: float
    """Mean loss over the augmented training images, as they were trained on."""
    train_accuracy: float
    """Share of them that were right, 0 to 1."""
    test_loss: float
    """Mean cross entropy over the test images."""
    test_accuracy: float
    """Share of them that were right, 0 to 1."""
    tta: Tta = "none"
    """Test-time augmentation with which they were asked about: the recipe's after its last epoch, before that none."""
    lr: float
    """Learning rate of the last step of the epoch."""
    epoch_seconds: float
    """Training only: from the first batch asked for to the last step finished."""
    eval_seconds: float
    """Evaluation on the test images."""
    images_per_second: float
    """Training images over epoch_seconds."""
    data_wait_percent: float
    """Share of epoch_seconds in which training waited for the loader."""
    peak_memory_bytes: int
    """Most memory so far: allocated on the GPU, or resident in the process on a CPU."""
