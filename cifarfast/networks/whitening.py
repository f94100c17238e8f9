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
    filters = _whitening(_covariance(images, side))
    return filters.reshape(-1, images.shape[1], side, side)


def mirrored_whitening_filters(images: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of images and mirrored images together, where each filter is even or odd, as the two kinds.

    Args:
        images, side: as for `whitening_filters`.

    Returns:
        Filters that are their own mirror images, the largest first, and those that are the negatives of theirs, each
        (count, C, side, side) in fp64: 18 and 9 for three channels and a side of 3.
    """
    covariance, channels = _covariance(images, side), images.shape[1]
    mirror = torch.eye(len(covariance), dtype=torch.float64).reshape(-1, channels, side, side).flip(3).flatten(1)
    signs, vectors = torch.linalg.eigh(mirror)
    bases = vectors[:, signs > 0], vectors[:, signs < 0]
    # Over images and mirrored images together, what is even and what is odd do not go together.
    even, odd = (
        (_whitening(basis.T @ covariance @ basis) @ basis.T).reshape(-1, channels, side, side) for basis in bases
    )
    return even, odd


def _covariance(images: torch.Tensor, side: int) -> torch.Tensor:
    """Of the pixels of all patches, (C side^2, C side^2) in fp64."""
    patches = F.unfold(images.double(), side).transpose(1, 2).flatten(0, 1)
    return patches.T @ patches / len(patches)


def _whitening(covariance: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    filters: torch.Tensor = (vectors / torch.sqrt(values + _EPSILON)).T.flip(0)
    return filters
