"""Filters that see the patches of images as uncorrelated numbers of variance one."""

import torch
from torch.nn import functional as F

_EPSILON = 5e-4
"""What is added to the eigenvalues, so that directions in which nothing varies are not magnified without end."""


def whitening_filters(images: torch.Tensor, side: int) -> torch.Tensor:
    """The eigenvectors of the covariance of all patches, the largest first, over the roots of their eigenvalues.

    D. Page, "How to train your ResNet 8" (2019); K. Jordan, arXiv:2404.00498, section 3.2.

    Args:
        images: normalised (N, C, H, W), of the training split.
        side: of the patches, in pixels.

    Returns:
        C side^2 filters, (C side^2, C, side, side) in fp64.
    """
    channels = images.shape[1]
    count = channels * side**2
    patches = F.unfold(images.double(), side).transpose(1, 2).reshape(-1, count)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters: torch.Tensor = (vectors / torch.sqrt(values + _EPSILON)).T.flip(0)
    return filters.reshape(count, channels, side, side)
