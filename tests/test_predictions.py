from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import binomtest

from cifarfast.errors import UserError
from cifarfast.predictions import PREDICTIONS_NAME, read_predictions, wilson_interval, write_predictions
from cifarfast.tensorfile import write_tensors

LOGITS = torch.randn(50, 10, generator=torch.Generator().manual_seed(1)) * 3
LABELS = torch.arange(50) % 10


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    assert read_predictions(tmp_path) is None
    write_predictions(tmp_path, LOGITS, LABELS, epoch=7)
    found = read_predictions(tmp_path)
    assert found is not None
    assert torch.equal(torch.from_numpy(found.logits), LOGITS)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.epoch == 7


def test_what_follows_from_the_logits(tmp_path: Path) -> None:
    write_predictions(tmp_path, LOGITS, LABELS, epoch=1)
    found = read_predictions(tmp_path)
    assert found is not None
    expected = torch.softmax(LOGITS.double(), 1)
    assert np.allclose(found.probabilities, expected.numpy(), rtol=1e-12)
    answers = LOGITS.argmax(1)
    assert found.predicted.tolist() == answers.tolist()
    counted = [[int(((LABELS - i == 0) & (answers == j)).sum()) for j in range(10)] for i in range(10)]
    assert found.confusion.tolist() == counted
    wrong = sorted((-float(expected[i].max()), i) for i in range(50) if answers[i] != LABELS[i])
    assert found.worst(9).tolist() == [i for _, i in wrong[:9]]
    assert len(found.worst(50)) == len(wrong)


def test_a_large_logit_is_no_overflow(tmp_path: Path) -> None:
    write_predictions(tmp_path, torch.tensor([[3e38] + [-3e38] * 9]), torch.tensor([0]), epoch=1)
    found = read_predictions(tmp_path)
    assert found is not None
    assert found.probabilities.tolist() == [[1.0] + [0.0] * 9]


@pytest.mark.parametrize(
    ("tensors", "facts", "words"),
    [
        ({"labels": LABELS.to(torch.uint8)}, {"epoch": "1"}, "holds no predictions"),
        ({"logits": LOGITS, "labels": LABELS.to(torch.uint8)}, {}, "holds no predictions"),
        ({"logits": LOGITS, "labels": LABELS.to(torch.uint8)}, {"epoch": "last"}, "holds no predictions"),
        ({"logits": LOGITS[:, :9], "labels": LABELS.to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS[:9], "labels": LABELS.to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS[:0], "labels": LABELS[:0].to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS[0, 0], "labels": LABELS[0].to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS, "labels": LABELS[0].to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS.double(), "labels": LABELS.to(torch.uint8)}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS, "labels": LABELS}, {"epoch": "1"}, "holds other tensors"),
        ({"logits": LOGITS / 0, "labels": LABELS.to(torch.uint8)}, {"epoch": "1"}, "not finite"),
        ({"logits": LOGITS, "labels": 1 + LABELS.to(torch.uint8)}, {"epoch": "1"}, "no classes"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str], words: str
) -> None:
    write_tensors(tmp_path / PREDICTIONS_NAME, tensors, facts)
    with pytest.raises(UserError, match=f"{words}.*remove it, and python -m cifarfast.report"):
        read_predictions(tmp_path)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    save_file({"logits": LOGITS, "labels": LABELS.to(torch.uint8)}, tmp_path / PREDICTIONS_NAME)
    with pytest.raises(UserError, match="damaged"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (9142, 10_000), (500, 1000), (999, 1000)])
def test_the_interval_is_that_of_scipy(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
