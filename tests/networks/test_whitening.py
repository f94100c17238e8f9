import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks.whitening import mirrored_whitening_filters, whitening_filters
from tests.networks.pictures import pictures


@pytest.mark.parametrize("side", [2, 3])
def test_outputs_are_uncorrelated_and_of_variance_one(side: int) -> None:
    """Against numpy's covariance of all patches, cut out one by one."""
    images, count = pictures(20), 3 * side**2
    filters = whitening_filters(images, side)
    assert (filters.shape, filters.dtype) == ((count, 3, side, side), torch.float64)
    outputs = F.conv2d(images.double(), filters).transpose(0, 1).flatten(1).numpy()
    moments = outputs @ outputs.T / outputs.shape[1]
    np.testing.assert_allclose(moments - np.diag(moments.diagonal()), 0, atol=1e-9)
    places = range(33 - side)
    cut = [images[:, :, y : y + side, x : x + side].flatten(1).double().numpy() for y in places for x in places]
    patches = np.concatenate(cut)
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    # What is added to the eigenvalues keeps directions in which nothing varies from being magnified without end.
    np.testing.assert_allclose(moments.diagonal(), values / (values + 5e-4), rtol=1e-6)
    assert moments.diagonal().min() > 0.9


def test_mirrored_filters_are_those_of_images_and_mirrored_images_sorted() -> None:
    images = pictures(20)
    both = torch.cat([images, images.flip(3)])
    even, odd = mirrored_whitening_filters(images, 3)
    assert (even.shape, odd.shape, even.dtype) == ((18, 3, 3, 3), (9, 3, 3, 3), torch.float64)
    torch.testing.assert_close(even.flip(3), even)
    torch.testing.assert_close(odd.flip(3), -odd)
    outputs = F.conv2d(both.double(), torch.cat([even, odd])).transpose(0, 1).flatten(1).numpy()
    moments = outputs @ outputs.T / outputs.shape[1]
    np.testing.assert_allclose(moments - np.diag(moments.diagonal()), 0, atol=1e-9)
    assert moments.diagonal().min() > 0.9
    # They are the same filters, but for their signs and their order.
    plain = whitening_filters(both, 3).flatten(1)
    shares = F.normalize(torch.cat([even, odd]).flatten(1)) @ F.normalize(plain).T
    torch.testing.assert_close(shares.abs().max(1).values, torch.ones(27, dtype=torch.float64))
    for filters in (even, odd):
        assert (filters.flatten(1).norm(dim=1).diff() > 0).all()


def test_the_largest_components_come_first_and_no_variation_at_all_is_no_trouble() -> None:
    lengths = whitening_filters(pictures(20), 3).flatten(1).norm(dim=1)
    assert (lengths.diff() > 0).all()  # one over the root of the eigenvalue
    assert torch.isfinite(whitening_filters(torch.zeros(2, 3, 32, 32), 2)).all()
