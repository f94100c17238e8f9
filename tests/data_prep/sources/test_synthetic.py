"""The stand-in: reproducible, balanced, learnable but not by colour alone."""

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cifarfast.dataset.beton import Beton
from data_prep.sources.synthetic import Synthetic

Floats = npt.NDArray[np.float64]


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


def test_pixels_alone_beat_chance_and_frequencies_beat_pixels() -> None:
    dataset = Synthetic.parse("synthetic:3000,600").load()
    by_pixels = _accuracy(_pooled, dataset.train, dataset.test)
    by_frequencies = _accuracy(_spectrum, dataset.train, dataset.test)
    assert by_pixels > 0.2
    assert by_frequencies > 0.6


def test_a_mirrored_image_keeps_its_class() -> None:
    dataset = Synthetic.parse("synthetic:3000,600").load()
    mirrored = dataset.test._replace(images=dataset.test.images[:, :, ::-1])
    assert _accuracy(_spectrum, dataset.train, mirrored) > 0.6


def _accuracy(features: Callable[[Floats], Floats], train: Beton, test: Beton) -> float:
    """Of a ridge regression on features of images (N, 32, 32, 3)."""
    x = features(train.images / 255 - 0.5)
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ np.eye(10)[train.labels])
    return float(((features(test.images / 255 - 0.5) @ weights).argmax(axis=1) == test.labels).mean())


def _pooled(images: Floats) -> Floats:
    pooled = images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    return np.column_stack((pooled, np.ones(len(pooled))))


def _spectrum(images: Floats) -> Floats:
    """Amplitudes of the lowest frequencies, which do not depend on the phase."""
    grey = images.mean(axis=3)
    amplitudes = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True)))
    low = np.log(np.concatenate([amplitudes[:, :8, :8], amplitudes[:, -7:, :8]], axis=1) + 0.1).reshape(len(images), -1)
    return np.column_stack((low, np.ones(len(low))))
