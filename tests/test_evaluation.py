import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cifarfast.augment import normalize
from cifarfast.device import Device
from cifarfast.evaluation import Statistics, evaluate
from cifarfast.loaders.base import Batch
from cifarfast.model import build_model
from cifarfast.randomness import generator
from cifarfast.recipe import Recipe

CPU = torch.device("cpu")


def test_statistics_weigh_batches_by_their_size() -> None:
    statistics = Statistics(CPU)
    logits = torch.eye(10)
    statistics.add(logits, torch.arange(10), torch.tensor(1.0))
    statistics.add(logits[:5], torch.zeros(5, dtype=torch.int64), torch.tensor(4.0))
    score = statistics.take()
    assert score.loss == pytest.approx(2.0)
    assert score.accuracy == pytest.approx(11 / 15)
    assert score.images == 15
    statistics.add(logits, torch.arange(10), torch.tensor(3.0))
    assert statistics.take().loss == pytest.approx(3.0)


def test_evaluation_is_exact_and_changes_nothing() -> None:
    model = build_model(Recipe(dropout=0.5), seed=2)
    state = copy.deepcopy(model.state_dict())
    pixels = torch.randint(256, (19, 3, 32, 32), generator=generator(0, "pixels")).to(torch.uint8)
    labels = torch.randint(10, (19,), generator=generator(0, "labels"))
    parts = (slice(8), slice(8, 16), slice(16, 19))
    batches = (Batch(pixels[part], labels[part], np.arange(19)[part]) for part in parts)
    mean, std = torch.tensor((0.4914, 0.4822, 0.4465)), torch.tensor((0.247, 0.2435, 0.2616))
    device = Device(target=CPU, amp_dtype=None, memory_format=torch.channels_last)
    evaluation = evaluate(model, batches, device, mean=mean, std=std)
    score = evaluation.score
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        logits = model(normalize(pixels, mean, std, torch.float32))
    assert score.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert score.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert score.images == 19
    assert torch.equal(evaluation.labels, labels)
    torch.testing.assert_close(evaluation.logits, logits, rtol=1e-4, atol=1e-4)


def test_cudnn_does_not_try_its_algorithms_for_every_size_of_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """`selective` has one of its own each time it asks again."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen: list[bool] = []

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.benchmark)
            return torch.zeros(len(images), 10)

    batches = (Batch(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2).long(), np.arange(2)) for _ in "ab")
    device = Device(target=CPU, amp_dtype=None, memory_format=torch.channels_last)
    evaluate(Network(), batches, device, mean=torch.zeros(3), std=torch.ones(3))
    assert seen == [False, False]
    assert torch.backends.cudnn.benchmark
