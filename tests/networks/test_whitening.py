import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cifarfast.networks.whitening import whitening_filters
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


def test_the_largest_components_come_first_and_no_variation_at_all_is_no_trouble() -> None:
    lengths = whitening_filters(pictures(20), 3).flatten(1).norm(dim=1)
    assert (lengths.diff() > 0).all()  # one over the root of the eigenvalue
    assert torch.isfinite(whitening_filters(torch.zeros(2, 3, 32, 32), 2)).all()
