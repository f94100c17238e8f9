"""The stand-in: reproducible, balanced, learnable but not by colour alone."""

import hashlib

import numpy as np
import torch

from cifarfast.dataset.beton import Beton
from data_prep.sources.synthetic import Synthetic


def test_a_function_of_the_sizes_alone() -> None:
    first, second = Synthetic.parse("synthetic:300,100").load(), Synthetic.parse("synthetic:300,100").load()
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.test.labels, second.test.labels)
    digests = {Synthetic.parse(spec).digest() for spec in ("synthetic", "synthetic:50000,10000", "synthetic:300,100")}
    assert len(digests) == 2


def test_balanced_distinct_and_not_saturated() -> None:
    dataset = Synthetic.parse("synthetic:500,100").load()
    assert np.bincount(dataset.train.labels).tolist() == [50] * 10
    assert np.bincount(dataset.test.labels).tolist() == [10] * 10
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 600
    assert images.min() > 0
    assert images.max() < 255


def test_a_linear_model_beats_chance_and_convolutions_beat_it() -> None:
    dataset = Synthetic.parse("synthetic:2500,600").load()
    linear, convolutional = _linear_accuracy(dataset.train, dataset.test), _cnn_accuracy(dataset.train, dataset.test)
    assert linear > 0.17
    assert convolutional > 0.75
    assert convolutional > linear + 0.3


def _linear_accuracy(train: Beton, test: Beton) -> float:
    def features(data: Beton) -> np.ndarray:
        # Pooled to 4x4: with few images, fewer weights generalise better.
        pooled = data.images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(data.images), -1)
        return np.column_stack((pooled / 255 - 0.5, np.ones(len(pooled))))

    x = features(train)
    weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ np.eye(10)[train.labels])
    return float(((features(test) @ weights).argmax(axis=1) == test.labels).mean())


def _cnn_accuracy(train: Beton, test: Beton) -> float:
    def tensor(data: Beton) -> torch.Tensor:
        return torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5

    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        images, labels = tensor(train), torch.from_numpy(train.labels)
        for epoch in range(5):
            images = images.flip(3) if epoch else images  # a mirrored image keeps its class
            for batch in torch.randperm(len(images)).split(50):
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            return float((model(tensor(test)).argmax(1) == torch.from_numpy(test.labels)).float().mean())
